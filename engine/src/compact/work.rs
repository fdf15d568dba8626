//! The flush, spill and compaction under way: how much they rest, and how far the compaction has come.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use parking_lot::Mutex;

use super::rest::Rest;
use crate::format::manifest::{Manifest, RunMeta};

/// What a tree's flushes, spills and compactions share with those that watch them.
#[derive(Debug, Default)]
pub(crate) struct Work {
    /// Of compactions.
    pub(crate) rest: Rest,
    pub(crate) flush_rest: Rest,
    pub(crate) spill_rest: Rest,
    step: Mutex<Option<Arc<Step>>>,
}

impl Work {
    /// A step begins that merges these objects, which have so many entries. It replaces the one before.
    pub(crate) fn begin(&self, inputs: BTreeSet<u128>, entries: u64) -> Arc<Step> {
        let step = Arc::new(Step { inputs, entries, merged: AtomicU64::new(0) });
        *self.step.lock() = Some(Arc::clone(&step));
        step
    }

    /// The step came to nothing.
    pub(crate) fn give_up(&self) {
        *self.step.lock() = None;
    }

    /// Fresh runs that wait to be merged. Those in hand count for what is left to do of them, so that what depends on this
    /// changes with the work and not in jumps at the end of each step.
    pub(crate) fn waiting_runs(&self, manifest: &Manifest) -> f64 {
        let step = self.step.lock().clone();
        let is_in_hand = |step: &Step, run: &RunMeta| run.iter().all(|object| step.inputs.contains(&object.id));
        let in_hand = |run: &RunMeta| step.as_ref().filter(|step| is_in_hand(step, run));
        manifest.fresh.iter().map(|run| in_hand(run).map_or(1.0, |step| step.left())).sum()
    }
}

/// One step.
#[derive(Debug)]
pub(crate) struct Step {
    inputs: BTreeSet<u128>,
    entries: u64,
    merged: AtomicU64,
}

impl Step {
    /// So many more entries are merged.
    pub(crate) fn merged(&self, entries: u64) {
        self.merged.fetch_add(entries, Relaxed);
    }

    /// The share of the work that is left.
    fn left(&self) -> f64 {
        let merged = self.merged.load(Relaxed).min(self.entries);
        1.0 - merged as f64 / self.entries.max(1) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::manifest::ObjectMeta;

    #[test]
    fn runs_in_hand_count_for_what_is_left_of_them() {
        let run = |ids: &[u128]| ids.iter().map(|id| ObjectMeta { id: *id, ..ObjectMeta::default() }).collect();
        let mut manifest = Manifest { fresh: vec![run(&[1, 2]), run(&[3])], ..Manifest::default() };
        let work = Work::default();
        assert_eq!(work.waiting_runs(&manifest), 2.0);
        let step = work.begin([1, 2, 3, 9].into(), 100);
        assert_eq!(work.waiting_runs(&manifest), 2.0);
        step.merged(25);
        assert_eq!(work.waiting_runs(&manifest), 1.5);
        manifest.fresh.insert(0, run(&[4]));
        assert_eq!(work.waiting_runs(&manifest), 2.5, "what came meanwhile waits");
        step.merged(100);
        assert_eq!(work.waiting_runs(&manifest), 1.0);
        manifest.fresh.truncate(1);
        assert_eq!(work.waiting_runs(&manifest), 1.0, "the step is in force");
        work.begin([4].into(), 0);
        assert_eq!(work.waiting_runs(&manifest), 1.0);
        manifest.fresh.push(run(&[5]));
        work.give_up();
        assert_eq!(work.waiting_runs(&manifest), 2.0);
    }
}
