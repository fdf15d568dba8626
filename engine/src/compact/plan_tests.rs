//! Tests of the compaction plan.

use bytes::Bytes;
use proptest::prelude::*;

use super::*;

const LIMITS: Limits = Limits { fresh_runs: 2, last_level_bytes: 1000, level_bytes_min: 250 };

fn object(id: u128, first: u8, last: u8) -> ObjectMeta {
    ObjectMeta {
        id,
        bytes: 100,
        entries: 100,
        min_seq: CommitSeq(1),
        max_seq: CommitSeq(10),
        first: Bytes::copy_from_slice(&[first]),
        last: Bytes::copy_from_slice(&[last]),
        ..ObjectMeta::default()
    }
}

fn range(first: u8, end: u8, seq: u64) -> RangeDelete {
    RangeDelete { start: Bytes::copy_from_slice(&[first]), end: Bytes::copy_from_slice(&[end]), seq: CommitSeq(seq) }
}

fn ids(plan: &Plan) -> Vec<u128> {
    plan.inputs.iter().copied().collect()
}

#[test]
fn a_fresh_run_that_overlaps_nothing_moves() {
    let manifest =
        Manifest { fresh: vec![vec![object(1, 50, 60)]], levels: vec![vec![object(2, 0, 40)]], ..Manifest::default() };
    let plan = next(&manifest, CommitSeq(0), &LIMITS).unwrap();
    assert_eq!((plan.kind, ids(&plan), plan.level), (Kind::Move, vec![1], 0));
}

#[test]
fn two_fresh_runs_merge_with_what_they_overlap() {
    let manifest = Manifest {
        fresh: vec![vec![object(1, 10, 20)], vec![object(2, 15, 30)]],
        levels: vec![vec![object(3, 0, 9), object(4, 10, 12), object(5, 25, 40), object(6, 41, 50)]],
        ..Manifest::default()
    };
    let plan = next(&manifest, CommitSeq(0), &LIMITS).unwrap();
    assert_eq!((plan.kind, ids(&plan), plan.level), (Kind::Rewrite, vec![1, 2, 4, 5], 0));
}

#[test]
fn a_level_over_its_size_pushes_its_cheapest_object_down() {
    let levels = vec![(0..11).map(|n| object(n, n as u8 * 10, n as u8 * 10 + 9)).collect(), vec![object(90, 0, 25)]];
    let manifest = Manifest { levels, ..Manifest::default() };
    let plan = next(&manifest, CommitSeq(0), &LIMITS).unwrap();
    assert_eq!((plan.kind, ids(&plan), plan.level), (Kind::Move, vec![3], 1));
}

/// Else runs that come fast would be merged into an ever larger level, which costs ever more.
#[test]
fn what_is_furthest_beyond_its_bound_comes_first() {
    let level: RunMeta = (0..11).map(|n| object(n, n as u8 * 10, n as u8 * 10 + 9)).collect();
    let fresh = |runs: u128| (0..runs).map(|n| vec![object(100 + n, 0, 200)]).collect();
    // The level is at 1.1 times its bound, two fresh runs at 1.
    let mut manifest = Manifest { fresh: fresh(2), levels: vec![level], ..Manifest::default() };
    let plan = next(&manifest, CommitSeq(0), &LIMITS).unwrap();
    assert_eq!((plan.level, plan.inputs.len(), plan.reason), (1, 1, "level size"));
    manifest.fresh = fresh(3);
    let plan = next(&manifest, CommitSeq(0), &LIMITS).unwrap();
    assert_eq!((plan.level, plan.inputs.len(), plan.reason), (0, 14, "fresh runs"));
}

#[test]
fn fresh_runs_are_merged_part_by_part_the_deepest_first() {
    let level: RunMeta = (0..4).map(|n| object(n, n as u8 * 10, n as u8 * 10 + 9)).collect();
    let fresh = vec![
        vec![object(10, 0, 18), object(11, 21, 22)],
        vec![object(12, 2, 17), object(13, 20, 39)],
        vec![object(14, 25, 30)],
    ];
    let mut manifest = Manifest { fresh, levels: vec![level], ..Manifest::default() };
    let plan = next(&manifest, CommitSeq(0), &LIMITS).unwrap();
    assert_eq!((plan.kind, ids(&plan), plan.reason), (Kind::Rewrite, vec![2, 3, 11, 13, 14], "fresh runs"));
    apply(&mut manifest, &plan.inputs, 0, vec![object(50, 20, 39)]);
    assert_eq!(manifest.fresh, [vec![object(10, 0, 18)], vec![object(12, 2, 17)]]);
    let plan = next(&manifest, CommitSeq(0), &LIMITS).unwrap();
    assert_eq!(ids(&plan), [0, 1, 10, 12]);
}

/// Else a reader would have ever more indexes to look into.
#[test]
fn many_fresh_runs_are_merged_wherever_they_lie() {
    let level: RunMeta = (0..20).map(|n| object(n, n as u8 * 10, n as u8 * 10 + 9)).collect();
    let run = |n: u128| vec![object(100 + n, n as u8 * 10 + 3, n as u8 * 10 + 4)];
    let mut manifest = Manifest { fresh: (0..7).map(run).collect(), levels: vec![level], ..Manifest::default() };
    let limits = Limits { last_level_bytes: 10_000, ..LIMITS };
    assert_eq!(next(&manifest, CommitSeq(0), &limits), None);
    manifest.fresh.push(run(7));
    let plan = next(&manifest, CommitSeq(0), &limits).unwrap();
    assert_eq!((plan.kind, ids(&plan).len(), plan.reason), (Kind::Rewrite, 2, "fresh runs"));
}

#[test]
fn a_range_delete_drops_whole_objects_without_reading_them() {
    let manifest = Manifest {
        levels: vec![vec![object(1, 0, 9), object(2, 10, 20), object(3, 21, 30)]],
        range_deletes: vec![range(5, 25, 11)],
        ..Manifest::default()
    };
    assert_eq!(next(&manifest, CommitSeq(10), &LIMITS), None, "a reader may still see them");
    let plan = next(&manifest, CommitSeq(11), &LIMITS).unwrap();
    assert_eq!((plan.kind, ids(&plan)), (Kind::Drop, vec![2]));
    let mut after = manifest;
    apply(&mut after, &plan.inputs, 0, Vec::new());
    let plan = next(&after, CommitSeq(11), &LIMITS).unwrap();
    assert_eq!((plan.kind, ids(&plan), plan.reason), (Kind::Rewrite, vec![1], "range delete"));
}

#[test]
fn a_range_delete_is_forgotten_once_nothing_needs_it() {
    let mut manifest = Manifest {
        levels: vec![vec![object(1, 0, 9)]],
        range_deletes: vec![range(5, 25, 11), range(50, 60, 12), range(5, 25, 1)],
        ..Manifest::default()
    };
    forget_range_deletes(&mut manifest);
    assert_eq!(manifest.range_deletes, [range(5, 25, 11)]);
    manifest.levels[0][0].swept = CommitSeq(11);
    forget_range_deletes(&mut manifest);
    assert_eq!(manifest.range_deletes, []);
}

#[test]
fn dense_tombstones_are_compacted() {
    let mut dense = object(1, 0, 9);
    dense.tombstones = 80;
    let manifest = Manifest { levels: vec![vec![], vec![dense.clone()]], ..Manifest::default() };
    let plan = next(&manifest, CommitSeq(10), &LIMITS).unwrap();
    assert_eq!((plan.kind, plan.level, plan.reason), (Kind::Rewrite, 1, "tombstones"));
    assert_eq!(next(&manifest, CommitSeq(9), &LIMITS), None);
    let manifest = Manifest { fresh: vec![vec![dense]], levels: vec![vec![object(2, 0, 9); 5]], ..Manifest::default() };
    assert_eq!(next(&manifest, CommitSeq(0), &LIMITS).unwrap().reason, "tombstones");
}

fn run(seed: &[(u8, u8)], id: u128) -> RunMeta {
    let mut next = 0u8;
    let mut run = RunMeta::new();
    for (slot, (gap, len)) in seed.iter().enumerate() {
        let Some(first) = next.checked_add(*gap) else { break };
        let Some(last) = first.checked_add(*len) else { break };
        run.push(object(id + slot as u128, first, last));
        let Some(after) = last.checked_add(1) else { break };
        next = after;
    }
    run
}

proptest! {
    /// Whatever the shape, steps keep every level free of overlaps, lose no key range, and come to an end.
    #[test]
    fn steps_keep_order_and_end(
        fresh in proptest::collection::vec(proptest::collection::vec((0u8..60, 0u8..60), 1..4), 0..4),
        levels in proptest::collection::vec(proptest::collection::vec((0u8..20, 0u8..20), 0..14), 0..3),
    ) {
        let mut next_id = 0u128;
        let mut make = |seed: &Vec<(u8, u8)>| { next_id += 100; run(seed, next_id) };
        let mut manifest = Manifest {
            fresh: fresh.iter().map(&mut make).filter(|run| !run.is_empty()).collect(),
            levels: levels.iter().map(&mut make).collect(),
            ..Manifest::default()
        };
        let covered = |manifest: &Manifest| {
            (0..=255u8).filter(|key| manifest.objects().any(|object| object.first[0] <= *key && *key <= object.last[0])).count()
        };
        let before = covered(&manifest);
        for round in 0..200 {
            let Some(plan) = next(&manifest, CommitSeq(0), &LIMITS) else { break };
            prop_assert!(round < 199, "no end");
            prop_assert!(!plan.inputs.is_empty());
            let inputs: Vec<ObjectMeta> = manifest.objects().filter(|object| plan.inputs.contains(&object.id)).cloned().collect();
            prop_assert_eq!(inputs.len(), plan.inputs.len());
            let outputs = match plan.kind {
                Kind::Move => inputs,
                Kind::Drop => Vec::new(),
                Kind::Rewrite => {
                    // What a merge gives at most: the union of the inputs' keys, one object per stretch without a gap.
                    next_id += 100;
                    let held: Vec<u8> = (0..=255u8).filter(|key| inputs.iter().any(|o| o.first[0] <= *key && *key <= o.last[0])).collect();
                    held.chunk_by(|a, b| a + 1 == *b).enumerate().map(|(n, keys)| object(next_id + n as u128, keys[0], keys[keys.len() - 1])).collect()
                }
            };
            apply(&mut manifest, &plan.inputs, plan.level, outputs);
            prop_assert!(manifest.check_order().is_ok(), "{:?}", plan);
            prop_assert_eq!(covered(&manifest), before);
        }
        let deepest = parts(&manifest).iter().map(Part::depth).max();
        prop_assert!(deepest.is_none_or(|depth| depth < LIMITS.fresh_runs));
    }
}
