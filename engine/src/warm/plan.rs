//! Which pages to fetch in one request. Pure.

use std::{collections::BTreeSet, ops::Range};

/// Pages that lie between two wanted ones and are fetched along, since a request costs as much as a few pages.
const GAP_MAX: u32 = 2;
/// Pages of one request: 1 MiB.
const RUN_MAX: u32 = 64;

/// Cuts wanted pages into runs of neighbours.
pub(super) fn runs(wanted: &BTreeSet<u32>) -> Vec<Range<u32>> {
    let mut runs: Vec<Range<u32>> = Vec::new();
    for page in wanted.iter().copied().filter(|page| *page < u32::MAX) {
        match runs.last_mut() {
            Some(last) if page - last.end <= GAP_MAX && page - last.start < RUN_MAX => last.end = page + 1,
            _ => runs.push(page..page + 1),
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn neighbours_share_a_request() {
        assert_eq!(runs(&BTreeSet::from([0, 1, 3, 6, 10, 200])), [0..7, 10..11, 200..201]);
        assert_eq!(runs(&(0..130).collect()), [0..64, 64..128, 128..130]);
        assert_eq!(runs(&BTreeSet::new()), []);
    }

    proptest! {
        #[test]
        fn every_wanted_page_is_in_one_run(wanted in proptest::collection::btree_set(0u32..500, 0..100)) {
            let runs = runs(&wanted);
            for page in &wanted {
                prop_assert_eq!(runs.iter().filter(|run| run.contains(page)).count(), 1);
            }
            for run in &runs {
                prop_assert!(wanted.contains(&run.start) && wanted.contains(&(run.end - 1)) && run.len() <= RUN_MAX as usize);
            }
        }
    }
}
