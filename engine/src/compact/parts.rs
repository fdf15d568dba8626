//! Parts of the key space that the fresh runs can be merged in one by one. Pure.
//!
//! A merge of all fresh runs into the first level needs, until it is in force, the old pages and the new ones: the bucket
//! holds both, and so must the cache, or readers miss what made way for pages that nobody reads yet. So flushes cut their
//! runs at keys where the first level's objects begin, and what no object reaches across is merged by itself. (RocksDB's
//! partitioners cut output files at such guards, after PebblesDB.)

use std::collections::BTreeSet;

use bytes::Bytes;

use crate::format::manifest::{Manifest, ObjectMeta, RunMeta};

/// Parts that a flush is cut into if its objects have a sixteenth of their size at least: a megabyte, unless an option says
/// otherwise. Each is a step of the compaction with a manifest of its own.
const PARTS: u64 = 8;
/// Most parts of a large flush: as many as leave its objects three quarters of their size. Full ones would leave a short one
/// in each part.
const PARTS_MAX: u64 = 16;

/// Objects of the fresh runs and of the first level that overlap only each other.
#[derive(Default)]
pub(crate) struct Part<'a> {
    /// Of the fresh runs, with the number of the run.
    pub(crate) fresh: Vec<(usize, &'a ObjectMeta)>,
    /// Of the first level.
    pub(crate) below: Vec<&'a ObjectMeta>,
}

impl Part<'_> {
    /// How many fresh runs lie over each other here, at most.
    pub(crate) fn depth(&self) -> usize {
        self.fresh.iter().map(|(run, _)| run).collect::<BTreeSet<_>>().len()
    }

    /// Bytes of its fresh objects.
    pub(crate) fn fresh_bytes(&self) -> u64 {
        self.fresh.iter().map(|(_, object)| object.bytes).sum()
    }

    /// Bytes of all of its objects.
    pub(crate) fn bytes(&self) -> u64 {
        self.fresh_bytes() + self.below.iter().map(|object| object.bytes).sum::<u64>()
    }

    /// Tombstones of its fresh objects.
    pub(crate) fn tombstones(&self) -> u64 {
        self.fresh.iter().map(|(_, object)| object.tombstones).sum()
    }

    /// The id of its only object.
    pub(crate) fn alone(&self) -> Option<u128> {
        match &self.fresh[..] {
            [(_, object)] if self.below.is_empty() => Some(object.id),
            _ => None,
        }
    }

    /// The objects' ids.
    pub(crate) fn ids(&self) -> BTreeSet<u128> {
        self.fresh.iter().map(|(_, object)| object.id).chain(self.below.iter().map(|object| object.id)).collect()
    }
}

/// The parts that have fresh objects, in key order.
pub(crate) fn parts(manifest: &Manifest) -> Vec<Part<'_>> {
    let fresh = manifest.fresh.iter().enumerate().flat_map(|(number, run)| run.iter().map(move |o| (Some(number), o)));
    let mut objects: Vec<_> = fresh.chain(first_level(manifest).map(|object| (None, object))).collect();
    objects.sort_by(|(_, a), (_, b)| a.first.cmp(&b.first));
    let mut parts: Vec<Part<'_>> = Vec::new();
    let mut end: Option<&Bytes> = None;
    for (run, object) in objects {
        if end.is_none_or(|end| object.first > *end) {
            parts.push(Part::default());
        }
        end = end.max(Some(&object.last));
        let Some(part) = parts.last_mut() else { continue };
        match run {
            Some(run) => part.fresh.push((run, object)),
            None => part.below.push(object),
        }
    }
    parts.retain(|part| !part.fresh.is_empty());
    parts
}

fn first_level(manifest: &Manifest) -> impl Iterator<Item = &ObjectMeta> {
    manifest.levels.first().into_iter().flatten()
}

/// Keys, ascending, at which the run of a flush of so many bytes is cut: parts of about as many bytes of the first level.
pub(crate) fn fences(manifest: &Manifest, flush_bytes: u64, object_bytes: u64) -> Vec<Bytes> {
    let least = (object_bytes / 16).max(1);
    let parts = (flush_bytes / least).clamp(1, PARTS).max((flush_bytes / (12 * least)).min(PARTS_MAX));
    let all: u64 = first_level(manifest).map(|object| object.bytes).sum();
    let is_free = |key: &Bytes| !manifest.fresh.iter().any(|run| reaches_across(run, key));
    let (mut fences, mut passed) = (Vec::new(), 0);
    for object in first_level(manifest) {
        let due = (all / parts).max(1).saturating_mul(fences.len() as u64 + 1);
        if passed >= due && (fences.len() as u64) < parts - 1 && is_free(&object.first) {
            fences.push(object.first.clone());
        }
        passed += object.bytes;
    }
    fences
}

/// Whether an object of the run has keys on both sides.
fn reaches_across(run: &RunMeta, key: &Bytes) -> bool {
    let slot = run.partition_point(|object| object.last < *key);
    run.get(slot).is_some_and(|object| object.first < *key)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn object(id: u128, first: u8, last: u8) -> ObjectMeta {
        let key = |byte: u8| Bytes::copy_from_slice(&[byte]);
        ObjectMeta { id, bytes: 100, first: key(first), last: key(last), ..ObjectMeta::default() }
    }

    /// Four objects in the first level, and a run that was cut in two between them.
    fn cut() -> Manifest {
        Manifest {
            fresh: vec![vec![object(10, 5, 18), object(11, 22, 35)], vec![object(12, 21, 21)]],
            levels: vec![vec![object(1, 0, 9), object(2, 10, 19), object(3, 20, 29), object(4, 30, 39)]],
            ..Manifest::default()
        }
    }

    #[test]
    fn what_nothing_reaches_across_is_a_part() {
        let manifest = cut();
        let parts = parts(&manifest);
        let found: Vec<_> = parts.iter().map(|part| (part.depth(), part.fresh_bytes(), part.bytes())).collect();
        assert_eq!(found, [(1, 100, 300), (2, 200, 400)]);
        assert_eq!(parts[0].ids(), [1, 2, 10].into());
        let mut whole = manifest.clone();
        whole.fresh.push(vec![object(13, 0, 255)]);
        assert_eq!(super::parts(&whole).len(), 1);
    }

    #[test]
    fn a_flush_is_cut_where_no_object_is() {
        let mut manifest = cut();
        let keys =
            |manifest: &Manifest, flush: u64| fences(manifest, flush, 160).iter().map(|key| key[0]).collect::<Vec<_>>();
        assert_eq!(keys(&manifest, 1000), [20], "10 and 30 are within an object of a fresh run");
        manifest.fresh.clear();
        assert_eq!(keys(&manifest, 1000), [10, 20, 30]);
        assert_eq!(keys(&manifest, 20), [20], "two parts of 10 bytes");
        assert_eq!(keys(&manifest, 19), [0; 0], "its objects would be too small");
        manifest.levels.clear();
        assert_eq!(keys(&manifest, 1000), [0; 0]);
    }

    proptest! {
        /// However the objects lie, a run that is cut at the fences leaves parts that end there, of about one size.
        #[test]
        fn fences_are_between_parts(lens in proptest::collection::vec((0u8..9, 1u64..50), 0..28), flush in 0u64..10_000) {
            let mut next = 0;
            let level: RunMeta = lens.iter().enumerate().map(|(id, (len, bytes))| {
                let first = next;
                next += len + 1;
                ObjectMeta { bytes: *bytes, ..object(id as u128, first, first + len) }
            }).collect();
            let all: u64 = lens.iter().map(|(_, bytes)| bytes).sum();
            let mut manifest = Manifest { levels: vec![level], ..Manifest::default() };
            let fences = fences(&manifest, flush, 1600);
            prop_assert!(fences.is_sorted());
            prop_assert!(fences.len() < PARTS_MAX as usize);
            let starts: Vec<u8> = std::iter::once(0).chain(fences.iter().map(|key| key[0])).collect();
            let ends = fences.iter().map(|key| key[0] - 1).chain([255]);
            let run = starts.iter().zip(ends).enumerate().map(|(n, (first, last))| object(100 + n as u128, *first, last));
            manifest.fresh = vec![run.collect()];
            let parts = parts(&manifest);
            prop_assert_eq!(parts.len(), starts.len());
            for part in parts {
                prop_assert!(part.bytes() - part.fresh_bytes() <= all / starts.len() as u64 + 100);
            }
        }
    }
}
