//! Which versions are worth writing. Pure; shared by flush and compaction.

use crate::types::CommitSeq;

/// Decides, entry by entry in the order (key ascending, commit number descending), what some reader may still see.
/// No reader is below the version floor, so of the versions at or below it only the newest counts.
#[derive(Debug)]
pub(crate) struct Retain {
    floor: CommitSeq,
    key: Vec<u8>,
    started: bool,
    /// The newest version at or below the floor has passed: the rest of the key is unreachable.
    settled: bool,
}

impl Retain {
    pub(crate) fn new(floor: CommitSeq) -> Self {
        Self { floor, key: Vec::new(), started: false, settled: false }
    }

    /// `hidden`: the newest range delete over the key at or below the floor, which stays known as long as any object
    /// needs it. `older_below`: whether objects that are not rewritten now may hold older versions of the key.
    #[inline]
    pub(crate) fn keep(
        &mut self,
        key: &[u8],
        seq: CommitSeq,
        is_delete: bool,
        hidden: impl FnOnce() -> CommitSeq,
        older_below: impl FnOnce() -> bool,
    ) -> bool {
        if !self.started || self.key != key {
            self.key.clear();
            self.key.extend_from_slice(key);
            (self.started, self.settled) = (true, false);
        }
        if seq > self.floor {
            return true;
        }
        if self.settled {
            return false;
        }
        self.settled = true;
        seq >= hidden() && (!is_delete || older_below())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(floor: u64, hidden: u64, older_below: bool, versions: &[(u64, bool)]) -> Vec<u64> {
        let mut retain = Retain::new(CommitSeq(floor));
        let keep = |(seq, is_delete): &&(u64, bool)| {
            retain.keep(b"k", CommitSeq(*seq), *is_delete, || CommitSeq(hidden), || older_below)
        };
        versions.iter().filter(keep).map(|(seq, _)| *seq).collect()
    }

    #[test]
    fn versions_above_the_floor_and_one_below_stay() {
        assert_eq!(kept(5, 0, true, &[(9, false), (7, true), (5, false), (3, false), (1, true)]), [9, 7, 5]);
    }

    #[test]
    fn a_delete_at_the_bottom_goes_once_no_reader_is_older() {
        assert_eq!(kept(5, 0, false, &[(4, true), (3, false)]), [0; 0]);
        assert_eq!(kept(3, 0, false, &[(4, true), (3, false)]), [4, 3]);
        assert_eq!(kept(5, 0, true, &[(4, true), (3, false)]), [4]);
    }

    #[test]
    fn what_a_range_delete_hides_goes() {
        assert_eq!(kept(5, 4, true, &[(3, false), (2, false)]), [0; 0]);
        assert_eq!(kept(5, 4, true, &[(4, false), (2, false)]), [4]);
    }
}
