//! What to compact next. Pure: a function of the manifest, the version floor and the limits.
//!
//! Fresh runs overlap each other; each level below is one run. A range read merges every fresh run and one run per
//! level, so both are kept few: where four fresh runs lie over each other they are merged into the first level, a part of
//! the key space at a time, and a level exists only once the one above it would be over its size. The last level has up to
//! ten times the bytes of the one above; the others are bounded to a quarter of the one below, never under
//! `level_bytes_min`: what is pushed down from a fuller level costs less.

use std::collections::BTreeSet;

use super::parts::{Part, parts};
use crate::{
    format::manifest::{Manifest, ObjectMeta, RunMeta},
    types::{CommitSeq, RangeDelete},
};

/// When to compact.
#[derive(Clone, Debug)]
pub(crate) struct Limits {
    /// Fresh runs over each other that trigger a merge.
    pub(crate) fresh_runs: usize,
    /// The first level may have this many bytes before it gets a level below.
    pub(crate) last_level_bytes: u64,
    /// No level above the last is bounded tighter.
    pub(crate) level_bytes_min: u64,
}

/// How many times as much as the level above the last level may have before there is another one.
const FANOUT: u64 = 10;
/// How many times as much as a level the one below it should have.
const SHARE: u64 = 4;
/// How many times as many fresh runs trigger a merge when no key is in that many of them: each has its index and filter.
const SCATTERED: usize = 4;
/// An object with this share of tombstones (one in so many) hurts scans.
const TOMBSTONE_SHARE: u64 = 4;
/// Fewer tombstones than this in an object never matter.
const TOMBSTONES_MIN: u64 = 64;

/// One step: the objects that go, and the level that what remains of them goes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    /// What is done with the objects.
    pub(crate) kind: Kind,
    /// Objects that leave their place.
    pub(crate) inputs: BTreeSet<u128>,
    /// Index of the level they go to.
    pub(crate) level: usize,
    /// Why, for logs and metrics.
    pub(crate) reason: &'static str,
}

/// What a step does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Merges the objects into new ones.
    Rewrite,
    /// Nothing overlaps them: they change place without being read.
    Move,
    /// A range delete hides all of them from every reader: they go.
    Drop,
}

/// The next step, if one is due.
pub(crate) fn next(manifest: &Manifest, floor: CommitSeq, limits: &Limits) -> Option<Plan> {
    dropped(manifest, floor)
        .or_else(|| merge(manifest, limits))
        .or_else(|| swept(manifest, floor))
        .or_else(|| tombstones(manifest, floor))
}

fn bytes(run: &RunMeta) -> u64 {
    run.iter().map(|object| object.bytes).sum()
}

fn overlaps(a: &ObjectMeta, b: &ObjectMeta) -> bool {
    a.first <= b.last && b.first <= a.last
}

fn overlapping<'a>(run: &'a RunMeta, object: &'a ObjectMeta) -> impl Iterator<Item = &'a ObjectMeta> {
    run.iter().filter(move |other| overlaps(object, other))
}

fn touches(range: &RangeDelete, object: &ObjectMeta) -> bool {
    range.start <= object.last && object.first < range.end
}

/// Whether `range` may still hide something in `object` that has not been dropped from it.
pub(crate) fn needed_by(range: &RangeDelete, object: &ObjectMeta) -> bool {
    touches(range, object) && object.swept < range.seq && object.min_seq < range.seq
}

/// Objects that one range delete hides entirely.
fn dropped(manifest: &Manifest, floor: CommitSeq) -> Option<Plan> {
    let hidden = |object: &&ObjectMeta| {
        manifest.range_deletes.iter().any(|range| {
            range.seq <= floor && object.max_seq < range.seq && range.start <= object.first && object.last < range.end
        })
    };
    let inputs: BTreeSet<_> = manifest.objects().filter(hidden).map(|object| object.id).collect();
    (!inputs.is_empty()).then_some(Plan { kind: Kind::Drop, inputs, level: 0, reason: "range deleted" })
}

/// The fresh runs or a level, whichever is further beyond its bound (the scores of LevelDB): however fast runs come, what
/// they are merged into stays small.
fn merge(manifest: &Manifest, limits: &Limits) -> Option<Plan> {
    let level = oversized(manifest, limits);
    match fresh(manifest, limits) {
        Some((fresh, over)) if fresh.kind == Kind::Move || level.as_ref().is_none_or(|(_, most)| *most <= over) => {
            Some(fresh)
        }
        fresh => level.or(fresh).map(|(plan, _)| plan),
    }
}

/// Merges a part of the fresh runs into the first level when too many lie over each other there, or when they are much of the
/// data or dense with tombstones, so that space and scans stay bounded; also how many times their bound they are.
fn fresh(manifest: &Manifest, limits: &Limits) -> Option<(Plan, f64)> {
    let fresh_bytes: u64 = manifest.fresh.iter().map(bytes).sum();
    let level_bytes: u64 = manifest.levels.iter().map(bytes).sum();
    let tombstones: u64 = manifest.fresh.iter().flatten().map(|object| object.tombstones).sum();
    let entries: u64 = manifest.fresh.iter().flatten().map(|object| object.entries).sum();
    let parts = parts(manifest);
    let deepest = parts.iter().max_by_key(|part| (part.depth(), part.fresh_bytes()))?;
    let (reason, part) =
        if deepest.depth() >= limits.fresh_runs || manifest.fresh.len() >= limits.fresh_runs * SCATTERED {
            ("fresh runs", deepest)
        } else if fresh_bytes >= level_bytes / 2 {
            ("space", parts.iter().max_by_key(|part| part.fresh_bytes())?)
        } else if tombstones >= TOMBSTONES_MIN && tombstones * TOMBSTONE_SHARE >= entries {
            ("tombstones", parts.iter().max_by_key(|part| part.tombstones())?)
        } else {
            return None;
        };
    let over = deepest.depth() as f64 / limits.fresh_runs.max(1) as f64;
    // The oldest run may move while newer ones stay above it; only what overlaps nothing older may pass.
    let movable: BTreeSet<_> = parts.iter().filter_map(Part::alone).collect();
    let (kind, inputs) = if movable.is_empty() { (Kind::Rewrite, part.ids()) } else { (Kind::Move, movable) };
    Some((Plan { kind, inputs, level: 0, reason }, over))
}

/// Pushes one object of the level that is furthest over its bound into the next; also how many times its bound it has.
fn oversized(manifest: &Manifest, limits: &Limits) -> Option<(Plan, f64)> {
    let last = manifest.levels.iter().rposition(|level| !level.is_empty())?;
    let last_bytes = manifest.levels.get(last).map_or(0, bytes);
    let power = |base: u64, levels: usize| base.saturating_pow(u32::try_from(levels).unwrap_or(u32::MAX));
    let bound = |slot: usize| match slot == last {
        true => limits.last_level_bytes.saturating_mul(power(FANOUT, last)),
        false => (last_bytes / power(SHARE, last - slot)).max(limits.level_bytes_min),
    };
    let over = |slot: usize| manifest.levels.get(slot).map_or(0, bytes) as f64 / bound(slot).max(1) as f64;
    let (slot, over) = (0..=last).map(|slot| (slot, over(slot))).max_by(|a, b| a.1.total_cmp(&b.1))?;
    if over <= 1.0 {
        return None;
    }
    push_down(manifest, slot).map(|plan| (plan, over))
}

/// The object whose move costs least for what it frees.
fn push_down(manifest: &Manifest, slot: usize) -> Option<Plan> {
    let empty = RunMeta::new();
    let below = manifest.levels.get(slot + 1).unwrap_or(&empty);
    let cost = |object: &&ObjectMeta| {
        let overlap: u64 = overlapping(below, object).map(|other| other.bytes).sum();
        (u128::from(overlap) << 32) / u128::from(object.bytes.max(1))
    };
    let object = manifest.levels[slot].iter().min_by_key(cost)?;
    let mut inputs: BTreeSet<_> = overlapping(below, object).map(|other| other.id).collect();
    let kind = if inputs.is_empty() { Kind::Move } else { Kind::Rewrite };
    inputs.insert(object.id);
    Some(Plan { kind, inputs, level: slot + 1, reason: "level size" })
}

/// Rewrites in place an object that a range delete covers in part.
fn swept(manifest: &Manifest, floor: CommitSeq) -> Option<Plan> {
    let due =
        |object: &ObjectMeta| manifest.range_deletes.iter().any(|range| range.seq <= floor && needed_by(range, object));
    in_place(manifest, due, "range delete")
}

/// Rewrites in place, or pushes down, an object that is dense with tombstones no reader needs.
fn tombstones(manifest: &Manifest, floor: CommitSeq) -> Option<Plan> {
    let dense = |object: &ObjectMeta| {
        object.tombstones >= TOMBSTONES_MIN
            && object.tombstones * TOMBSTONE_SHARE >= object.entries
            && object.max_seq <= floor
    };
    let last = manifest.levels.iter().rposition(|level| !level.is_empty())?;
    for (slot, level) in manifest.levels.iter().enumerate() {
        let Some(object) = level.iter().find(|object| dense(object)) else { continue };
        if slot == last {
            let inputs = BTreeSet::from([object.id]);
            return Some(Plan { kind: Kind::Rewrite, inputs, level: slot, reason: "tombstones" });
        }
        let mut inputs: BTreeSet<_> = overlapping(&manifest.levels[slot + 1], object).map(|other| other.id).collect();
        inputs.insert(object.id);
        // Even alone it is rewritten: where nothing older lies below, its tombstones go.
        return Some(Plan { kind: Kind::Rewrite, inputs, level: slot + 1, reason: "tombstones" });
    }
    None
}

fn in_place(manifest: &Manifest, due: impl Fn(&ObjectMeta) -> bool, reason: &'static str) -> Option<Plan> {
    manifest.levels.iter().enumerate().find_map(|(level, run)| {
        let object = run.iter().find(|object| due(object))?;
        Some(Plan { kind: Kind::Rewrite, inputs: BTreeSet::from([object.id]), level, reason })
    })
}

/// The manifest's objects after a step: `inputs` gone, `outputs` in the level `level`.
pub(crate) fn apply(manifest: &mut Manifest, inputs: &BTreeSet<u128>, level: usize, outputs: Vec<ObjectMeta>) {
    for run in manifest.fresh.iter_mut().chain(&mut manifest.levels) {
        run.retain(|object| !inputs.contains(&object.id));
    }
    manifest.fresh.retain(|run| !run.is_empty());
    if !outputs.is_empty() {
        if manifest.levels.len() <= level {
            manifest.levels.resize_with(level + 1, Vec::new);
        }
        if let Some(run) = manifest.levels.get_mut(level) {
            run.extend(outputs);
            run.sort_by(|a, b| a.first.cmp(&b.first));
        }
    }
    while manifest.levels.last().is_some_and(Vec::is_empty) {
        manifest.levels.pop();
    }
    forget_range_deletes(manifest);
}

/// Drops the range deletes that no object needs any more.
pub(crate) fn forget_range_deletes(manifest: &mut Manifest) {
    let mut ranges = std::mem::take(&mut manifest.range_deletes);
    ranges.retain(|range| manifest.objects().any(|object| needed_by(range, object)));
    manifest.range_deletes = ranges;
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
