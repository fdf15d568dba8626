//! The flush, spill and compaction under way: how much they rest, and how far the compaction has come.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use parking_lot::Mutex;

use super::{parts::parts, rest::Rest};
use crate::format::manifest::{Manifest, ObjectMeta};

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

    /// Fresh runs that wait to be merged: how many lie over each other, on the average of their bytes and the first level's.
    /// Those in hand count for what is left to do of them, so that what depends on this changes with the work and not in jumps
    /// at the end of each step.
    pub(crate) fn waiting_runs(&self, manifest: &Manifest) -> f64 {
        let step = self.step.lock().clone();
        let step = step.as_deref();
        let bytes: u64 =
            manifest.fresh.iter().chain(manifest.levels.first()).flatten().map(|object| object.bytes).sum();
        let mut waiting = 0.0;
        for part in parts(manifest) {
            // A run that came to the part after the step began waits.
            let left =
                |object: &ObjectMeta| step.filter(|step| step.inputs.contains(&object.id)).map_or(1.0, Step::left);
            let mut of_run = BTreeMap::<usize, f64>::new();
            for (run, object) in &part.fresh {
                let most = of_run.entry(*run).or_default();
                *most = most.max(left(object));
            }
            waiting += of_run.into_values().sum::<f64>() * part.bytes() as f64 / bytes.max(1) as f64;
        }
        waiting
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

    #[test]
    fn runs_in_hand_count_for_what_is_left_of_them() {
        let object = |id: &u128| ObjectMeta { id: *id, bytes: 10, ..ObjectMeta::default() };
        let run = |ids: &[u128]| ids.iter().map(object).collect();
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

    #[test]
    fn a_part_counts_for_its_share_of_the_bytes() {
        let object = |id: u128, bytes: u64, key: &'static [u8]| ObjectMeta {
            id,
            bytes,
            first: key.into(),
            last: key.into(),
            ..ObjectMeta::default()
        };
        let fresh = |id: u128| vec![object(id, 10, b"a"), object(id + 1, 10, b"b")];
        let levels = vec![vec![object(90, 80, b"a"), object(91, 80, b"b"), object(92, 160, b"c")]];
        let mut manifest = Manifest { fresh: vec![fresh(1), fresh(11)], levels, ..Manifest::default() };
        let work = Work::default();
        assert_eq!(work.waiting_runs(&manifest), 2.0 * 200.0 / 360.0);
        let step = work.begin([1, 11, 90].into(), 100);
        step.merged(50);
        assert_eq!(work.waiting_runs(&manifest), (1.0 * 100.0 + 2.0 * 100.0) / 360.0, "half of one part is done");
        step.merged(50);
        let half_way = work.waiting_runs(&manifest);
        manifest.fresh.iter_mut().for_each(|run| drop(run.remove(0)));
        manifest.levels[0][0].bytes = 100;
        assert_eq!(work.waiting_runs(&manifest), half_way, "nothing jumps when it is in force");
    }
}
