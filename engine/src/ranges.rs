//! Range deletes, cut into fragments so that the newest one over a key is found by binary search.

use std::ops::Bound;

use bytes::Bytes;

use crate::types::{CommitSeq, RangeDelete};

/// Disjoint fragments in key order; each with the commit numbers of the deletes over it, newest first.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ranges(Vec<Fragment>);

#[derive(Clone, Debug)]
struct Fragment {
    start: Bytes,
    end: Bytes,
    seqs: Vec<CommitSeq>,
}

impl Ranges {
    pub(crate) fn new(deletes: &[RangeDelete]) -> Self {
        let mut edges: Vec<&Bytes> = deletes.iter().flat_map(|range| [&range.start, &range.end]).collect();
        edges.sort_unstable();
        edges.dedup();
        let fragments = edges.windows(2).filter_map(|pair| {
            let (start, end) = (pair[0].clone(), pair[1].clone());
            let over = deletes.iter().filter(|range| range.start <= start && end <= range.end);
            let mut seqs: Vec<_> = over.map(|range| range.seq).collect();
            seqs.sort_unstable_by(|a, b| b.cmp(a));
            (!seqs.is_empty()).then_some(Fragment { start, end, seqs })
        });
        Self(fragments.collect())
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
        over.and_then(|fragment| fragment.seqs.iter().find(|seq| **seq <= at)).copied().unwrap_or_default()
    }

    /// The fragments that overlap the bounds.
    pub(crate) fn within(&self, start: &Bound<Bytes>, end: &Bound<Bytes>) -> Self {
        let behind = |fragment: &Fragment| match start {
            Bound::Included(key) | Bound::Excluded(key) => fragment.end > *key,
            Bound::Unbounded => true,
        };
        let before = |fragment: &Fragment| match end {
            Bound::Included(key) => fragment.start <= *key,
            Bound::Excluded(key) => fragment.start < *key,
            Bound::Unbounded => true,
        };
        Self(self.0.iter().filter(|fragment| behind(fragment) && before(fragment)).cloned().collect())
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
            let within = ranges.within(&Bound::Included(key_of(key)), &Bound::Included(key_of(key)));
            prop_assert_eq!(within.newest_over(&[key], CommitSeq(at)), expected);
        }
    }
}
