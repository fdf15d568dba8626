//! The memtable: committed rows in RAM, in key order, each with a chain of versions, oldest first.
//!
//! One writer (apply), any number of readers that never wait for it. Chains are trimmed on write at the version floor:
//! versions that no snapshot can reach go.

use std::{
    collections::VecDeque,
    ops::Bound,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use crossbeam_skiplist::{SkipMap, map::Entry};
use parking_lot::RwLock;
use smallvec::{SmallVec, smallvec};

use crate::{
    ranges::Ranges,
    types::{CommitSeq, Item, Op, RangeDelete},
};

/// Bytes that a row costs besides its key and value: skip list node, chain, two `Bytes` handles, batch framing.
const ROW_OVERHEAD: usize = 160;
/// Rows that a flush takes from a memtable at a time.
const ITEMS_CHUNK: usize = 256;
/// Bytes that a further version of a row costs besides its value.
const VERSION_OVERHEAD: usize = 48;
/// From so many on it takes milliseconds to free a memtable.
const VERSIONS_MANY: usize = 4096;
/// Versions that trimming a chain may move each time; a longer rest waits until as many can go as stay.
const TRIM_MOVES: usize = 16;

/// Borrowed bounds over internal keys.
pub type Bounds<'a> = (Bound<&'a [u8]>, Bound<&'a [u8]>);

type Versions = SmallVec<[(CommitSeq, Op); 1]>;

/// A key's versions, oldest first, so that a new one is pushed at the end whatever an old snapshot holds. The lock is
/// held for a few loads; writers touch it once per committed row.
struct Chain(RwLock<Versions>);

impl Chain {
    fn at(&self, at: CommitSeq) -> Option<(CommitSeq, Op)> {
        let versions = self.0.read();
        match versions.last() {
            Some(newest) if newest.0 <= at => Some(newest.clone()),
            _ => versions.get(reachable_from(&versions, at)?).cloned(),
        }
    }
}

/// The slot of the newest version at or below `at`.
fn reachable_from(versions: &Versions, at: CommitSeq) -> Option<usize> {
    versions.partition_point(|(seq, _)| *seq <= at).checked_sub(1)
}

/// How many versions at the front no reader at or above `floor` reaches, once dropping them is worth the moves.
fn droppable(versions: &Versions, floor: CommitSeq) -> usize {
    let dead = reachable_from(versions, floor).unwrap_or(0);
    let moves = versions.len() - dead;
    if moves <= TRIM_MOVES.max(dead) { dead } else { 0 }
}

/// Range deletes as they came, for the flush, and as readers search them.
#[derive(Default)]
struct RangeDeletes {
    list: Vec<RangeDelete>,
    index: Ranges,
}

/// One memtable.
pub struct Memtable {
    rows: SkipMap<Bytes, Chain>,
    ranges: RwLock<RangeDeletes>,
    /// Range deletes held; readers look at them only if there are any.
    range_count: AtomicUsize,
    /// An entry was applied while this was the active one.
    touched: AtomicBool,
    bytes: AtomicUsize,
    versions: AtomicUsize,
}

impl Default for Memtable {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Memtable {
    /// Whoever lets go last is a reader, the spill or the flush, on a thread that serves commits too: a hundred thousand
    /// versions would hold those up for a good part of a second.
    fn drop(&mut self) {
        let rows = std::mem::take(&mut self.rows);
        if *self.versions.get_mut() >= VERSIONS_MANY
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            runtime.spawn_blocking(move || drop(rows));
        }
    }
}

impl Memtable {
    /// An empty memtable.
    pub fn new() -> Self {
        Self {
            rows: SkipMap::new(),
            ranges: RwLock::default(),
            range_count: AtomicUsize::new(0),
            touched: AtomicBool::new(false),
            bytes: AtomicUsize::new(0),
            versions: AtomicUsize::new(0),
        }
    }

    /// Adds a version. Called by the single writer, with growing `seq` per key. Versions older than the newest one at
    /// or below `floor` are dropped.
    pub fn insert(&self, key: Bytes, seq: CommitSeq, op: Op, floor: CommitSeq) {
        let added = op.value_len();
        if let Some(row) = self.rows.get(&key) {
            let mut freed = 0;
            let mut dropped = 0;
            {
                let mut versions = row.value().0.write();
                if versions.last().is_some_and(|(newest, _)| *newest == seq) {
                    freed += versions.pop().map_or(0, |(_, op)| op.value_len() + VERSION_OVERHEAD);
                    dropped += 1;
                }
                versions.push((seq, op));
                let dead = droppable(&versions, floor);
                for (_, op) in versions.drain(..dead) {
                    freed += op.value_len() + VERSION_OVERHEAD;
                    dropped += 1;
                }
                // Of a chain that was long only room for its like stays.
                if versions.spilled()
                    && (versions.len() == 1 || versions.capacity() > TRIM_MOVES.max(4 * versions.len()))
                {
                    versions.shrink_to_fit();
                }
            }
            self.bytes.fetch_add(added + VERSION_OVERHEAD, Ordering::Relaxed);
            self.bytes.fetch_sub(freed.min(self.bytes.load(Ordering::Relaxed)), Ordering::Relaxed);
            self.versions.fetch_add(1, Ordering::Relaxed);
            self.versions.fetch_sub(dropped, Ordering::Relaxed);
            return;
        }
        self.bytes.fetch_add(key.len() + added + ROW_OVERHEAD, Ordering::Relaxed);
        self.versions.fetch_add(1, Ordering::Relaxed);
        self.rows.insert(key, Chain(RwLock::new(smallvec![(seq, op)])));
    }

    /// Adds a range delete. Called by the single writer.
    pub fn delete_range(&self, range: RangeDelete) {
        self.bytes.fetch_add(range.start.len() + range.end.len() + ROW_OVERHEAD, Ordering::Relaxed);
        let mut ranges = self.ranges.write();
        ranges.index.add(&range.start, &range.end, range.seq);
        ranges.list.push(range);
        self.range_count.store(ranges.list.len(), Ordering::Release);
    }

    /// The newest version of `key` at or below `at`, deletes included. Range deletes are the caller's.
    pub fn get(&self, key: &[u8], at: CommitSeq) -> Option<(CommitSeq, Op)> {
        self.rows.get(key)?.value().at(at)
    }

    /// The greatest commit number of a range delete at or below `at` that covers `key`.
    pub fn covering(&self, key: &[u8], at: CommitSeq) -> Option<CommitSeq> {
        if self.range_count() == 0 {
            return None;
        }
        Some(self.ranges.read().index.newest_over(key, at)).filter(|seq| *seq > CommitSeq::ZERO)
    }

    /// Every range delete, oldest first.
    pub fn range_deletes(&self) -> Vec<RangeDelete> {
        if self.range_count() == 0 { Vec::new() } else { self.ranges.read().list.clone() }
    }

    /// How many range deletes it holds.
    pub fn range_count(&self) -> usize {
        self.range_count.load(Ordering::Acquire)
    }

    /// Adds the range deletes that a reader of these bounds at `at` obeys to `out`.
    pub(crate) fn ranges_within(&self, bounds: Bounds<'_>, at: CommitSeq, out: &mut Ranges) {
        if self.range_count() > 0 {
            out.merge(&self.ranges.read().index, bounds, at);
        }
    }

    /// Appends up to `max` rows within the bounds, newest visible version each, to `out`. Fewer than `max` means the end.
    pub fn collect(&self, bounds: Bounds<'_>, at: CommitSeq, reverse: bool, max: usize, out: &mut Vec<Item>) {
        let rows = self.rows.range::<[u8], _>(bounds);
        let item = |row: Entry<'_, Bytes, Chain>| {
            let (seq, op) = row.value().at(at)?;
            Some(Item { key: row.key().clone(), seq, op })
        };
        if reverse {
            out.extend(rows.rev().filter_map(item).take(max));
        } else {
            out.extend(rows.filter_map(item).take(max));
        }
    }

    /// Appends every version that a snapshot at or above `floor` can reach of up to `rows` rows after `after`, in the
    /// order (key, newest first). Appending nothing means the end.
    pub fn versions_after(&self, after: Option<&Bytes>, floor: CommitSeq, rows: usize, out: &mut VecDeque<Item>) {
        let start = after.map_or(Bound::Unbounded, |key| Bound::Excluded(&key[..]));
        for row in self.rows.range::<[u8], _>((start, Bound::Unbounded)).take(rows) {
            let versions = row.value().0.read();
            let from = reachable_from(&versions, floor).unwrap_or(0);
            let item = |(seq, op): &(CommitSeq, Op)| Item { key: row.key().clone(), seq: *seq, op: op.clone() };
            out.extend(versions.iter().skip(from).rev().map(item));
        }
    }

    /// What a flush of this frozen memtable writes: every version that a snapshot at or above `floor` can reach.
    pub fn items(self: &Arc<Self>, floor: CommitSeq) -> impl Iterator<Item = Item> + Send + 'static {
        let table = Arc::clone(self);
        let (mut buffer, mut last) = (VecDeque::<Item>::new(), None);
        std::iter::from_fn(move || {
            if buffer.is_empty() {
                table.versions_after(last.as_ref(), floor, ITEMS_CHUNK, &mut buffer);
                last = buffer.back().map(|item| item.key.clone()).or(last.take());
            }
            buffer.pop_front()
        })
    }

    /// Whether a row in the bounds, or a range delete that meets them, is newer than `since`.
    pub fn changed_since(&self, bounds: Bounds<'_>, since: CommitSeq) -> bool {
        let newer = |row: &Entry<'_, Bytes, Chain>| row.value().0.read().last().is_some_and(|(seq, _)| *seq > since);
        if self.rows.range::<[u8], _>(bounds).any(|row| newer(&row)) {
            return true;
        }
        self.range_count() > 0 && self.ranges.read().index.changed_since(bounds, since)
    }

    /// Estimated bytes of memory.
    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Versions held.
    pub fn versions(&self) -> usize {
        self.versions.load(Ordering::Relaxed)
    }

    /// An entry was applied: a flush has something to do even without rows, be it guards, keyspaces, or the log's space.
    pub fn touch(&self) {
        self.touched.store(true, Ordering::Release);
    }

    /// Whether no entry was applied since it was begun.
    pub fn is_empty(&self) -> bool {
        self.versions() == 0 && self.range_count() == 0 && !self.touched.load(Ordering::Acquire)
    }
}

/// Whether a range delete and the bounds share a key.
pub fn meets(range: &RangeDelete, bounds: Bounds<'_>) -> bool {
    let starts_before_end = match bounds.1 {
        Bound::Included(end) => range.start <= end,
        Bound::Excluded(end) => range.start < end,
        Bound::Unbounded => true,
    };
    let ends_after_start = match bounds.0 {
        Bound::Included(start) | Bound::Excluded(start) => range.end > start,
        Bound::Unbounded => true,
    };
    starts_before_end && ends_after_start
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Bounds<'static> = (Bound::Unbounded, Bound::Unbounded);

    fn put(table: &Memtable, key: &'static str, seq: u64, floor: u64) {
        table.insert(
            Bytes::from_static(key.as_bytes()),
            CommitSeq(seq),
            Op::Put(Bytes::from(seq.to_string())),
            CommitSeq(floor),
        );
    }

    #[test]
    fn readers_see_the_newest_version_at_or_below_theirs() {
        let table = Memtable::new();
        put(&table, "a", 3, 0);
        put(&table, "a", 7, 0);
        assert_eq!(table.get(b"a", CommitSeq(2)), None);
        assert_eq!(table.get(b"a", CommitSeq(6)).unwrap().0, CommitSeq(3));
        assert_eq!(table.get(b"a", CommitSeq::MAX).unwrap().0, CommitSeq(7));
    }

    #[test]
    fn chains_are_trimmed_at_the_floor() {
        let table = Arc::new(Memtable::new());
        for seq in 1..=10 {
            put(&table, "hot", seq, seq.saturating_sub(3));
        }
        // 10, 9, 8 and 7, the newest at or below the floor.
        assert_eq!(table.versions(), 4);
        assert_eq!(table.get(b"hot", CommitSeq(7)).unwrap().0, CommitSeq(7));
        assert_eq!(table.items(CommitSeq(9)).count(), 2);
    }

    /// A value that tells which thread freed it.
    struct Tells(tokio::sync::mpsc::UnboundedSender<std::thread::ThreadId>);

    impl AsRef<[u8]> for Tells {
        fn as_ref(&self) -> &[u8] {
            b"value"
        }
    }

    impl Drop for Tells {
        fn drop(&mut self) {
            let _ = self.0.send(std::thread::current().id());
        }
    }

    #[tokio::test]
    async fn many_versions_are_freed_beside_the_runtime() {
        let (tells, mut told) = tokio::sync::mpsc::unbounded_channel();
        let table = Memtable::new();
        for version in 0..VERSIONS_MANY as u64 {
            let value = Bytes::from_owner(Tells(tells.clone()));
            let row = Bytes::copy_from_slice(&(version % 64).to_be_bytes());
            table.insert(row, CommitSeq(version + 1), Op::Put(value), CommitSeq(0));
        }
        drop((table, tells));
        let mut freed = 0;
        while let Some(thread) = told.recv().await {
            assert_ne!(thread, std::thread::current().id());
            freed += 1;
        }
        assert_eq!(freed, VERSIONS_MANY);
    }

    #[test]
    fn a_hot_row_under_an_old_snapshot_costs_no_more_with_each_version() {
        const VERSIONS: u64 = 400_000;
        let table = Arc::new(Memtable::new());
        // Moving the whole chain for each of these would take minutes.
        (1..=VERSIONS).for_each(|seq| put(&table, "hot", seq, 1));
        assert_eq!(table.versions() as u64, VERSIONS);
        for at in [1, 2, VERSIONS / 2, VERSIONS] {
            assert_eq!(table.get(b"hot", CommitSeq(at)).unwrap().0, CommitSeq(at));
        }
        // The floor follows at a distance: what stays is bounded by what readers reach.
        (VERSIONS + 1..=2 * VERSIONS).for_each(|seq| put(&table, "hot", seq, seq - 10_000));
        assert!(table.versions() <= 20_002, "{} versions", table.versions());
        assert_eq!(table.get(b"hot", CommitSeq(2 * VERSIONS - 10_000)).unwrap().0, CommitSeq(2 * VERSIONS - 10_000));
        let newest_first: Vec<_> = table.items(CommitSeq(2 * VERSIONS - 2)).map(|item| item.seq.0).collect();
        assert_eq!(newest_first, [2 * VERSIONS, 2 * VERSIONS - 1, 2 * VERSIONS - 2]);
    }

    #[test]
    fn collect_goes_both_ways_and_skips_the_invisible() {
        let table = Memtable::new();
        for (key, seq) in [("a", 1), ("b", 9), ("c", 2)] {
            put(&table, key, seq, 0);
        }
        let keys = |reverse, max| {
            let mut out = Vec::new();
            table.collect(ALL, CommitSeq(5), reverse, max, &mut out);
            out.into_iter().map(|item| item.key).collect::<Vec<_>>()
        };
        assert_eq!(keys(false, 9), ["a", "c"]);
        assert_eq!(keys(true, 1), ["c"]);
    }

    #[test]
    fn changed_since_sees_rows_and_ranges() {
        let table = Memtable::new();
        put(&table, "m", 5, 0);
        let bounds = (Bound::Included(&b"a"[..]), Bound::Excluded(&b"n"[..]));
        assert!(table.changed_since(bounds, CommitSeq(4)) && !table.changed_since(bounds, CommitSeq(5)));
        table.delete_range(RangeDelete { start: "mm".into(), end: "z".into(), seq: CommitSeq(6) });
        assert!(table.changed_since(bounds, CommitSeq(5)));
        assert_eq!(table.covering(b"n", CommitSeq(6)), Some(CommitSeq(6)));
        assert_eq!(table.covering(b"n", CommitSeq(5)), None);
    }

    #[test]
    fn items_come_in_order_across_chunks() {
        let table = Arc::new(Memtable::new());
        for row in 0..1000u32 {
            for seq in [1, 2] {
                table.insert(Bytes::copy_from_slice(&row.to_be_bytes()), CommitSeq(seq), Op::Delete, CommitSeq::ZERO);
            }
        }
        let found: Vec<_> = table.items(CommitSeq::ZERO).map(|item| (item.key, item.seq.0)).collect();
        let expected: Vec<_> =
            (0..1000u32).flat_map(|row| [2, 1].map(|seq| (Bytes::copy_from_slice(&row.to_be_bytes()), seq))).collect();
        assert_eq!(found, expected);
    }
}
