//! The tree against a plain map: random commits, flushes, compactions, restarts and reads.

use std::{collections::BTreeMap, ops::Bound};

use holdfast_cache::CacheOptions;
use proptest::prelude::*;

use super::*;
use crate::{
    clock::{CacheClock, Clock, Entropy, SystemClock},
    store::{RetryPolicy, StoreOptions},
    types::{Item, Op},
};

fn store_options() -> StoreOptions {
    StoreOptions {
        s3: Vec::new(),
        retry: RetryPolicy::default(),
        clock: Arc::new(SystemClock::new()),
        entropy: Arc::new(Entropy::from_seed(7)),
    }
}

fn cache(bytes: u64) -> Arc<Cache> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let options = CacheOptions { ram_bytes: bytes, nvme: None, ttl: None, clock: Arc::new(CacheClock(clock)) };
    Arc::new(Cache::open(options).unwrap())
}

/// Small pages, objects and levels, so that a few hundred rows use all of them.
fn small_options() -> TreeOptions {
    TreeOptions {
        page_bytes: 1024,
        object_bytes: 3000,
        level_bytes: 12_000,
        codec: Codec::Lz4,
        grace: Duration::ZERO,
        ..TreeOptions::new(Owner { cluster: 1, incarnation: 2 })
    }
}

/// What a correct tree would answer, and what is not flushed yet.
#[derive(Default)]
struct Model {
    versions: BTreeMap<Vec<u8>, Vec<(u64, Option<Vec<u8>>)>>,
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
            sources: vec![Box::new(odd.into_iter()), Box::new(even.into_iter())],
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
    tree.install(draft.manifest).await.unwrap();
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
    assert!(tree.stats().fresh_runs < 2);
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
