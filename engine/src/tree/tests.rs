//! The tree against a plain map: random commits, flushes, compactions, restarts and reads.

use std::{collections::BTreeMap, ops::Bound, time::Duration};

use holdfast_cache::CacheOptions;
use proptest::prelude::*;

use super::*;
use crate::{
    clock::{CacheClock, Clock, Entropy, SystemClock},
    compact::parts::parts,
    store::{Limits, RetryPolicy, StoreOptions},
    types::{Item, Op},
};

mod ahead_tests;
mod collect_tests;
mod step_tests;

fn store_options() -> StoreOptions {
    StoreOptions {
        s3: Vec::new(),
        retry: RetryPolicy::default(),
        limits: Limits::default(),
        clock: Arc::new(SystemClock::new()),
        entropy: Arc::new(Entropy::from_seed(7)),
    }
}

fn cache(bytes: u64) -> Arc<Cache> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let options = CacheOptions::new(bytes, Arc::new(CacheClock::new(clock)));
    Arc::new(Cache::open(options).unwrap())
}

/// Small pages, objects and levels, so that a few hundred rows use all of them.
fn small_options() -> TreeOptions {
    TreeOptions {
        page_bytes: 1024,
        object_bytes: 3000,
        level_bytes: 12_000,
        fresh_runs: 2,
        codec: Codec::Lz4,
        grace: Duration::ZERO,
        tail_bytes: 4000,
        ..TreeOptions::new(Owner { cluster: 1, incarnation: 2 })
    }
}

/// The commits of one key: number and value.
type Versions = Vec<(u64, Option<Vec<u8>>)>;

/// What a correct tree would answer, and what is not flushed yet.
#[derive(Default)]
struct Model {
    versions: BTreeMap<Vec<u8>, Versions>,
    ranges: Vec<RangeDelete>,
    memtable: Vec<Item>,
    memtable_ranges: Vec<RangeDelete>,
    index: u64,
    floor: u64,
}

impl Model {
    fn next_seq(&mut self) -> CommitSeq {
        self.index += 1;
        CommitSeq::new(self.index, 0)
    }

    fn write(&mut self, key: Vec<u8>, value: Option<Vec<u8>>) {
        let seq = self.next_seq();
        let op = value.clone().map_or(Op::Delete, |value| Op::Put(Bytes::from(value)));
        self.memtable.push(Item { key: Bytes::from(key.clone()), seq, op });
        self.versions.entry(key).or_default().push((seq.0, value));
    }

    fn delete_range(&mut self, start: Vec<u8>, end: Vec<u8>) {
        let seq = self.next_seq();
        let range = RangeDelete { start: Bytes::from(start), end: Bytes::from(end), seq };
        self.ranges.push(range.clone());
        self.memtable_ranges.push(range);
    }

    /// The value of a key at `at`; what is above the flushed prefix must not be asked for.
    fn get(&self, key: &[u8], at: CommitSeq) -> Option<Vec<u8>> {
        let (seq, value) = self.versions.get(key)?.iter().rev().find(|(seq, _)| *seq <= at.0)?;
        let hidden = self.ranges.iter().any(|range| range.hides(key, CommitSeq(*seq), at));
        value.clone().filter(|_| !hidden)
    }

    fn flush_input(&mut self, base: ManifestId) -> FlushInput {
        let mut items = std::mem::take(&mut self.memtable);
        items.sort_by(|a, b| a.key.cmp(&b.key).then(b.seq.cmp(&a.seq)));
        // Two memtables whose keys interleave.
        let (odd, even): (Vec<_>, Vec<_>) = items.into_iter().partition(|item| item.seq.index() % 2 == 1);
        FlushInput {
            term: 1,
            sources: vec![Source::fixed(odd.into_iter()), Source::fixed(even.into_iter())],
            range_deletes: std::mem::take(&mut self.memtable_ranges),
            base,
            state: Bytes::from(self.index.to_le_bytes().to_vec()),
            format_level: 1,
            up_to: LogId { term: 1, index: self.index },
            membership: None,
            floor: CommitSeq(self.floor),
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Write(Vec<(u16, Option<u8>)>),
    Big(u16),
    DeleteRange(u16, u16),
    Flush,
    Compact,
    RaiseFloor,
    Reopen,
    /// A compaction whose edit loses against a flush, and is rebased.
    Race,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let write = proptest::collection::vec((0u16..400, proptest::option::weighted(0.8, any::<u8>())), 1..80);
    let step = prop_oneof![
        8 => write.prop_map(Step::Write),
        1 => (0u16..400).prop_map(Step::Big),
        1 => (0u16..400, 1u16..120).prop_map(|(start, len)| Step::DeleteRange(start, len)),
        5 => Just(Step::Flush),
        6 => Just(Step::Compact),
        2 => Just(Step::RaiseFloor),
        1 => Just(Step::Reopen),
        1 => Just(Step::Race),
    ];
    proptest::collection::vec(step, 1..50)
}

fn key(n: u16) -> Vec<u8> {
    format!("\0\0\0\x01key{n:05}").into_bytes()
}

async fn install(tree: &Tree, draft: &Draft) {
    assert!(tree.install(draft.manifest, 1).await.unwrap());
    assert_eq!(tree.version().manifest().id, draft.manifest);
}

/// Every read below the flushed prefix agrees with the model.
async fn check(tree: &Tree, model: &Model, flushed: u64) {
    let version = tree.version();
    version.manifest().check_order().unwrap();
    let newest = CommitSeq::end_of(flushed);
    for at in [newest, CommitSeq(model.floor.max(1)), CommitSeq(u64::midpoint(model.floor, newest.0))] {
        if at > newest || at.0 < model.floor {
            continue;
        }
        for n in (0..400).step_by(7) {
            let found = version.get(&key(n), at).await.unwrap().and_then(|(_, op)| op.into_value());
            assert_eq!(found.map(|value| value.to_vec()), model.get(&key(n), at), "key {n} at {at:?}");
        }
        let bounds = [
            (Bound::Unbounded, Bound::Unbounded),
            (Bound::Included(key(50)), Bound::Excluded(key(201))),
            (Bound::Excluded(key(120)), Bound::Included(key(121))),
            (Bound::Excluded(key(399)), Bound::Unbounded),
        ];
        for (start, end) in bounds {
            let mut expected: Vec<_> = model
                .versions
                .range::<Vec<u8>, _>((start.as_ref(), end.as_ref()))
                .filter_map(|(key, _)| Some((key.clone(), model.get(key, at)?)))
                .collect();
            for reverse in [false, true] {
                let bounds = (start.clone().map(Bytes::from), end.clone().map(Bytes::from));
                let mut cursor = version.cursor(bounds, at, reverse, 0);
                let mut items = Vec::new();
                while cursor.next_batch(&mut items, 13).await.unwrap() == 13 {}
                let found: Vec<_> = items
                    .into_iter()
                    .filter_map(|item| Some((item.key.to_vec(), item.op.into_value()?.to_vec())))
                    .collect();
                assert_eq!(found, expected, "{start:?} {end:?} at {at:?} reverse {reverse}");
                expected.reverse();
            }
        }
    }
}

async fn run(steps: Vec<Step>) {
    let store = Store::open("memory:///", store_options()).unwrap();
    let mut tree = Tree::open(store.clone(), cache(20_000), small_options(), None).await.unwrap();
    let mut model = Model::default();
    let mut flushed = 0;
    for step in steps {
        match step {
            Step::Write(rows) => rows.into_iter().for_each(|(n, value)| {
                model.write(key(n), value.map(|value| vec![value; 20 + usize::from(value) / 4]));
            }),
            Step::Big(n) => model.write(key(n), Some((0..300_000u32).map(|byte| byte as u8).collect())),
            Step::DeleteRange(start, len) => model.delete_range(key(start), key(start + len)),
            Step::Flush => {
                if model.index == flushed {
                    continue;
                }
                let draft = tree.flush(model.flush_input(tree.version().manifest().id)).await.unwrap();
                check(&tree, &model, flushed).await;
                install(&tree, &draft).await;
                flushed = model.index;
            }
            Step::Compact => {
                if let Some(draft) = tree.compact(1, CommitSeq(model.floor)).await.unwrap() {
                    install(&tree, &draft).await;
                }
            }
            Step::RaiseFloor => model.floor = CommitSeq::end_of(flushed).0,
            Step::Reopen => {
                let current = Some(tree.version().manifest().id).filter(|id| *id != ManifestId::default());
                tree = Tree::open(store.clone(), cache(20_000), small_options(), current).await.unwrap();
            }
            Step::Race => {
                let compaction = tree.compact(1, CommitSeq(model.floor)).await.unwrap();
                if model.index > flushed {
                    let draft = tree.flush(model.flush_input(tree.version().manifest().id)).await.unwrap();
                    install(&tree, &draft).await;
                    flushed = model.index;
                }
                if let Some(compaction) = compaction {
                    let draft = tree.rebase(&compaction, 1).await.unwrap();
                    assert_eq!(draft.base, tree.version().manifest().id);
                    install(&tree, &draft).await;
                }
            }
        }
        check(&tree, &model, flushed).await;
        tree.collect(false).await.unwrap();
    }
    settle(&tree, &model).await;
    check(&tree, &model, flushed).await;
}

/// Compacts until nothing is due: it must come to rest, bounded.
async fn settle(tree: &Tree, model: &Model) {
    for round in 0.. {
        let Some(draft) = tree.compact(1, CommitSeq(model.floor)).await.unwrap() else { break };
        install(tree, &draft).await;
        assert!(round < 500, "compaction never ends: {}", draft.reason);
    }
    let version = tree.version();
    assert!(parts(version.manifest()).iter().all(|part| part.depth() < 2));
    assert!(tree.stats().fresh_runs < 8);
    tree.collect(false).await.unwrap();
    assert_eq!(tree.stats().dead_bytes, 0);
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, max_shrink_iters: 200, ..ProptestConfig::default() })]
    #[test]
    fn agrees_with_a_map(steps in steps()) {
        block_on(run(steps));
    }
}

/// A tree with a few hundred rows in fresh runs and levels, and big values.
async fn filled(store: &Store, options: TreeOptions) -> (Tree, Model) {
    let tree = Tree::open(store.clone(), cache(1 << 20), options, None).await.unwrap();
    let mut model = Model::default();
    for round in 0..4u16 {
        (0..200).for_each(|n| model.write(key(n * 2 + round % 2), Some(vec![round as u8; 40])));
        model.write(key(round), Some((0..300_000u32).map(|byte| byte as u8).collect()));
        (0..20).for_each(|n| model.write(key(n * 9), None));
        let draft = tree.flush(model.flush_input(tree.version().manifest().id)).await.unwrap();
        install(&tree, &draft).await;
        drop(draft);
        if round == 2 {
            settle(&tree, &model).await;
        }
    }
    (tree, model)
}

#[test]
fn what_is_stored_checks_clean() {
    block_on(async {
        let store = Store::open("memory:///", store_options()).unwrap();
        let (tree, _) = filled(&store, small_options()).await;
        let report = tree.check().await.unwrap();
        assert_eq!(report.details, [""; 0]);
        assert_eq!(report.entries, tree.stats().entries);
        assert!(report.pages > 20 && report.bytes == tree.stats().bytes);
    });
}

#[test]
fn damage_is_named_and_never_returned() {
    block_on(async {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().to_path_buf();
        let store = Store::open(&format!("file://{}", root.display()), store_options()).unwrap();
        let (tree, model) = filled(&store, small_options()).await;
        let current = tree.version().manifest().id;
        let objects: Vec<_> = tree.version().tables().map(|table| (table.key(), table.meta.bytes)).collect();
        for (step, (object, bytes)) in objects.iter().enumerate() {
            let path = root.join(object);
            let good = std::fs::read(&path).unwrap();
            let mut bad = good.clone();
            let place = (step as u64 * 7919 % bytes) as usize;
            bad[place] ^= 0x10;
            std::fs::write(&path, &bad).unwrap();
            let tree = Tree::open(store.clone(), cache(1 << 20), small_options(), Some(current)).await.unwrap();
            let report = tree.check().await.unwrap();
            assert!(report.faults > 0, "byte {place} of {bytes}");
            assert!(report.details[0].contains(object), "{:?}", report.details);
            let version = tree.version();
            for n in 0..400 {
                match version.get(&key(n), CommitSeq::MAX).await {
                    Ok(found) => {
                        let found = found.and_then(|(_, op)| op.into_value()).map(|value| value.to_vec());
                        assert_eq!(found, model.get(&key(n), CommitSeq::MAX));
                    }
                    Err(error) => assert!(matches!(&error, Error::Corrupt(why) if why.contains(object)), "{error}"),
                }
            }
            std::fs::write(&path, &good).unwrap();
        }
    });
}

#[test]
fn a_missing_object_is_an_error_never_absence() {
    block_on(async {
        let store = Store::open("memory:///", store_options()).unwrap();
        let (tree, _) = filled(&store, small_options()).await;
        let current = tree.version().manifest().id;
        let lost = tree.version().tables().next().map(|table| table.key()).unwrap();
        store.delete(&lost, Cause::Gc).await.unwrap();
        let tree = Tree::open(store.clone(), cache(1 << 20), small_options(), Some(current)).await.unwrap();
        let error = tree.version().get(&key(1), CommitSeq::MAX).await.unwrap_err().to_string();
        assert!(error.contains(&lost) && error.contains("missing"), "{error}");
        assert_eq!(tree.check().await.unwrap().faults, 1);
    });
}

#[test]
fn readers_pin_objects_and_collection_waits_for_them() {
    block_on(async {
        let store = Store::open("memory:///", store_options()).unwrap();
        let (tree, mut model) = filled(&store, small_options()).await;
        let pinned = tree.version();
        let seen = CommitSeq::end_of(model.index);
        model.floor = seen.0;
        (0..400).for_each(|n| model.write(key(n), Some(vec![9; 30])));
        let draft = tree.flush(model.flush_input(pinned.manifest().id)).await.unwrap();
        install(&tree, &draft).await;
        while let Some(draft) = tree.compact(1, CommitSeq::MAX).await.unwrap() {
            install(&tree, &draft).await;
            tree.collect(false).await.unwrap();
        }
        assert!(tree.stats().dead_bytes > 0);
        for n in 0..400 {
            let found = pinned.get(&key(n), seen).await.unwrap().and_then(|(_, op)| op.into_value());
            assert_eq!(found.map(|value| value.to_vec()), model.get(&key(n), seen));
        }
        drop((pinned, draft));
        let said = tree.collect(true).await.unwrap();
        let done = tree.collect(false).await.unwrap();
        assert_eq!((said, tree.stats().dead_bytes), (done, 0));
        let stored = store.list(&format!("{}obj/", tree.0.io.folder), None, 10_000, Cause::Gc).await.unwrap();
        assert_eq!(stored.len(), tree.stats().objects);
    });
}

#[test]
fn a_new_term_sweeps_what_the_old_one_left() {
    block_on(async {
        let store = Store::open("memory:///", store_options()).unwrap();
        let (tree, mut model) = filled(&store, small_options()).await;
        let current = tree.version().manifest().id;
        // Written, never put in force: a crash between the upload and the edit.
        model.write(key(7), Some(b"lost".to_vec()));
        let lost = tree.flush(model.flush_input(current)).await.unwrap();
        drop(tree);
        let tree = Tree::open(store.clone(), cache(1 << 20), small_options(), Some(current)).await.unwrap();
        assert_eq!(tree.sweep(1, false).await.unwrap().keys, [""; 0], "the term may still be resolved");
        let swept = tree.sweep(2, true).await.unwrap();
        assert!(swept.keys.iter().any(|key| key.ends_with(&lost.manifest.to_string())), "{swept:?}");
        assert_eq!(tree.sweep(2, false).await.unwrap(), swept);
        assert_eq!(tree.check().await.unwrap().faults, 0);
        let stored = store.list(&format!("{}obj/", tree.0.io.folder), None, 10_000, Cause::Gc).await.unwrap();
        assert_eq!(stored.len(), tree.stats().objects);
    });
}

#[test]
fn a_step_that_is_given_up_leaves_nothing() {
    block_on(async {
        let store = Store::open("memory:///", store_options()).unwrap();
        let (tree, mut model) = filled(&store, small_options()).await;
        let (in_force, up_to) = (tree.version().manifest().id, model.index);
        model.write(key(7), Some(b"lost".to_vec()));
        let draft = tree.flush(model.flush_input(in_force)).await.unwrap();
        let objects = async || {
            let stored = store.list(&format!("{}obj/", tree.0.io.folder), None, 10_000, Cause::Gc).await.unwrap();
            stored.len()
        };
        let before = objects().await;
        tree.discard(&draft);
        let said = tree.collect(true).await.unwrap();
        assert_eq!(tree.collect(false).await.unwrap(), said);
        assert_eq!(objects().await, tree.stats().objects);
        assert!(objects().await < before);
        assert_eq!(tree.check().await.unwrap().faults, 0);
        check(&tree, &model, up_to).await;
    });
}

#[test]
fn the_pointer_names_what_is_installed() {
    block_on(async {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("MANIFEST");
        let options = TreeOptions { pointer: Some(path.clone()), ..small_options() };
        let store = Store::open("memory:///", store_options()).unwrap();
        let (tree, model) = filled(&store, options).await;
        let current = pointer::read(&path).unwrap();
        assert_eq!(current, Some(tree.version().manifest().id));
        let tree = Tree::open(store, cache(1 << 20), small_options(), current).await.unwrap();
        check(&tree, &model, model.index).await;
    });
}

#[test]
fn a_flush_on_an_outdated_base_is_refused() {
    block_on(async {
        let store = Store::open("memory:///", store_options()).unwrap();
        let (tree, mut model) = filled(&store, small_options()).await;
        let error = tree.flush(model.flush_input(ManifestId::default())).await.unwrap_err();
        assert!(matches!(error, Error::Conflict(_)), "{error}");
    });
}

/// Steady updates of one working set: what is stored stays within twice what is alive, with bounded rewriting.
#[test]
fn space_and_rewriting_stay_bounded_under_steady_updates() {
    block_on(async {
        let store = Store::open("memory:///", store_options()).unwrap();
        let options = TreeOptions {
            page_bytes: 4096,
            object_bytes: 32 * 1024,
            level_bytes: 1 << 20,
            grace: Duration::ZERO,
            ..TreeOptions::new(Owner { cluster: 1, incarnation: 2 })
        };
        let tree = Tree::open(store.clone(), cache(1 << 20), options, None).await.unwrap();
        let mut model = Model::default();
        let (rows, per_flush, flushes) = (4000u64, 800, 60);
        for flush in 0..flushes {
            for n in 0..per_flush {
                let row = (flush * 7919 + n * 104_729) % rows;
                model.write(format!("row{row:08}").into_bytes(), Some(vec![flush as u8; 100]));
            }
            model.floor = CommitSeq::end_of(model.index).0;
            let draft = tree.flush(model.flush_input(tree.version().manifest().id)).await.unwrap();
            install(&tree, &draft).await;
            drop(draft);
            while let Some(draft) = tree.compact(1, CommitSeq(model.floor)).await.unwrap() {
                install(&tree, &draft).await;
            }
            tree.collect(false).await.unwrap();
        }
        let alive: u64 = model.versions.keys().map(|key| key.len() as u64 + 100).sum();
        let stored = tree.stats().bytes;
        assert!(alive * 2 >= stored, "{alive} bytes alive, {stored} stored");
        let written = store.requests().bytes_of_kind(crate::store::Kind::Put);
        let entered = flushes * per_flush * 111;
        assert!(written < entered * 12, "{written} bytes written for {entered}");
    });
}
