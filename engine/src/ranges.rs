//! Range deletes, cut into fragments so that the newest one over a key is found by binary search.

use std::ops::Bound;

use bytes::Bytes;

use crate::{
    memtable::Bounds,
    types::{CommitSeq, RangeDelete},
};

/// Disjoint fragments in key order; each with the commit numbers of the deletes over it, oldest first.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ranges(Vec<Fragment>);

#[derive(Clone, Debug)]
pub(crate) struct Fragment {
    start: Bytes,
    end: Bytes,
    seqs: Vec<CommitSeq>,
}

impl Fragment {
    fn add(&mut self, seq: CommitSeq) {
        let slot = self.seqs.partition_point(|known| *known < seq);
        if self.seqs.get(slot) != Some(&seq) {
            self.seqs.insert(slot, seq);
        }
    }

    fn newest(&self, at: CommitSeq) -> Option<CommitSeq> {
        let visible = self.seqs.partition_point(|seq| *seq <= at);
        self.seqs.get(visible.checked_sub(1)?).copied()
    }
}

impl Ranges {
    pub(crate) fn new(deletes: &[RangeDelete]) -> Self {
        // In key order, so that most fragments are added at the end.
        let mut deletes: Vec<&RangeDelete> = deletes.iter().collect();
        deletes.sort_unstable_by(|a, b| a.start.cmp(&b.start));
        let mut ranges = Self::default();
        deletes.into_iter().for_each(|range| ranges.add(&range.start, &range.end, range.seq));
        ranges
    }

    /// Adds a delete of `[start, end)`: fragments that reach over its ends are split, gaps between fragments are filled.
    pub(crate) fn add(&mut self, start: &Bytes, end: &Bytes, seq: CommitSeq) {
        self.split(start);
        self.split(end);
        let mut slot = self.0.partition_point(|fragment| fragment.end <= *start);
        let mut from = start.clone();
        while from < *end {
            match self.0.get_mut(slot) {
                Some(fragment) if fragment.start == from => {
                    fragment.add(seq);
                    from = fragment.end.clone();
                }
                next => {
                    let to = next.map_or(end, |next| end.min(&next.start)).clone();
                    self.0.insert(slot, Fragment { start: from, end: to.clone(), seqs: vec![seq] });
                    from = to;
                }
            }
            slot += 1;
        }
    }

    fn split(&mut self, key: &Bytes) {
        let slot = self.0.partition_point(|fragment| fragment.end <= *key);
        if let Some(fragment) = self.0.get_mut(slot)
            && fragment.start < *key
        {
            let left = Fragment { end: key.clone(), ..fragment.clone() };
            fragment.start = key.clone();
            self.0.insert(slot, left);
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The newest delete over `key` that a reader at `at` sees; zero if there is none. It hides every version below it.
    pub(crate) fn newest_over(&self, key: &[u8], at: CommitSeq) -> CommitSeq {
        if self.0.is_empty() {
            return CommitSeq::ZERO;
        }
        let slot = self.0.partition_point(|fragment| fragment.end[..] <= *key);
        let over = self.0.get(slot).filter(|fragment| fragment.start[..] <= *key);
        over.and_then(|fragment| fragment.newest(at)).unwrap_or_default()
    }

    /// The fragments that overlap the bounds.
    pub(crate) fn within(&self, bounds: Bounds<'_>) -> Self {
        Self(self.slice(bounds).to_vec())
    }

    /// Adds what a reader of these bounds at `at` must know of `other`.
    pub(crate) fn merge(&mut self, other: &Self, bounds: Bounds<'_>, at: CommitSeq) {
        for fragment in other.slice(bounds) {
            if let Some(seq) = fragment.newest(at) {
                self.add(&fragment.start, &fragment.end, seq);
            }
        }
    }

    /// Whether a delete newer than `since` overlaps the bounds.
    pub(crate) fn changed_since(&self, bounds: Bounds<'_>, since: CommitSeq) -> bool {
        self.slice(bounds).iter().any(|fragment| fragment.seqs.last().is_some_and(|newest| *newest > since))
    }

    fn slice(&self, bounds: Bounds<'_>) -> &[Fragment] {
        let first = self.0.partition_point(|fragment| match bounds.0 {
            Bound::Included(key) | Bound::Excluded(key) => fragment.end[..] <= *key,
            Bound::Unbounded => false,
        });
        let behind = self.0.partition_point(|fragment| match bounds.1 {
            Bound::Included(key) => fragment.start[..] <= *key,
            Bound::Excluded(key) => fragment.start[..] < *key,
            Bound::Unbounded => true,
        });
        self.0.get(first..behind).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn agrees_with_the_plain_list(raw in proptest::collection::vec((0u8..20, 1u8..8, 1u64..30), 0..8), key in 0u8..30, at in 0u64..32) {
            let key_of = |n: u8| Bytes::copy_from_slice(&[n]);
            let deletes: Vec<_> = raw
                .iter()
                .map(|(start, len, seq)| RangeDelete { start: key_of(*start), end: key_of(start + len), seq: CommitSeq(*seq) })
                .collect();
            let expected = deletes
                .iter()
                .filter(|range| range.hides(&[key], CommitSeq::ZERO, CommitSeq(at)))
                .map(|range| range.seq)
                .max()
                .unwrap_or_default();
            let ranges = Ranges::new(&deletes);
            prop_assert_eq!(ranges.newest_over(&[key], CommitSeq(at)), expected);
            let only: Bounds<'_> = (Bound::Included(&[key]), Bound::Included(&[key]));
            prop_assert_eq!(ranges.within(only).newest_over(&[key], CommitSeq(at)), expected);
            let mut merged = Ranges::default();
            merged.merge(&ranges, only, CommitSeq(at));
            prop_assert_eq!(merged.newest_over(&[key], CommitSeq::MAX), expected);
            // In the order of commits, as a memtable gets them.
            let mut added = Ranges::default();
            deletes.iter().for_each(|range| added.add(&range.start, &range.end, range.seq));
            prop_assert_eq!(added.newest_over(&[key], CommitSeq(at)), expected);
            prop_assert_eq!(ranges.changed_since(only, CommitSeq(at)), added.newest_over(&[key], CommitSeq::MAX) > CommitSeq(at));
        }
    }
}
