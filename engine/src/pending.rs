//! The pending overlay: writes that have their place in the log order but are not applied yet (rule 7).
//!
//! Current reads and validation look here first, then at the memtables. Apply puts a batch into the memtable, moves
//! the visible number, and only then takes it out of here: a reader that finds nothing here finds it there.

use std::{
    collections::{BTreeMap, VecDeque},
    ops::Bound,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use parking_lot::RwLock;
use rustc_hash::FxHashMap;
use tokio::sync::{oneshot, watch};

use crate::{
    error::{Error, Result},
    memtable::{Bounds, meets},
    types::{CommitSeq, Op, RangeDelete},
};

/// Batches that were applied but are kept a while, so that a range can be validated against everything that got its
/// place since a moment.
const HISTORY: usize = 256;
/// History batches larger than this are not worth their memory.
const HISTORY_OPS: usize = 1024;

/// A batch's place among the batches of this leader: grows by one each.
pub type Order = u64;

/// A batch with its place.
pub struct PendingBatch {
    /// Transaction id.
    pub txn: u128,
    /// Its writes by internal key.
    pub writes: BTreeMap<Bytes, Op>,
    /// Ranges it deletes (before its writes).
    pub ranges: Vec<(Bytes, Bytes)>,
}

/// How a batch ended.
pub type Outcome = Result<CommitSeq>;

impl PendingBatch {
    fn touches(&self, bounds: Bounds<'_>) -> bool {
        self.writes.range::<[u8], _>(bounds).next().is_some()
            || self.ranges.iter().any(|(start, end)| {
                let range = RangeDelete { start: start.clone(), end: end.clone(), seq: CommitSeq::ZERO };
                meets(&range, bounds)
            })
    }
}

#[derive(Default)]
struct State {
    /// Order of the first batch in `waiting`.
    first: Order,
    waiting: VecDeque<Waiting>,
    /// Newest pending write of each key.
    newest: FxHashMap<Bytes, (Order, Op)>,
    ranges: Vec<(Order, Bytes, Bytes)>,
    /// The last applied batches; the newest has order `first - 1`.
    history: VecDeque<Option<Arc<PendingBatch>>>,
}

struct Waiting {
    batch: Arc<PendingBatch>,
    done: Option<oneshot::Sender<Outcome>>,
}

/// The overlay of one leader.
pub struct Pending {
    state: RwLock<State>,
    len: AtomicUsize,
    /// The newest batch that is decided, or why no more will be.
    applied: watch::Sender<Result<Order>>,
    /// Newest order that was ever withdrawn: whoever read it must not commit.
    withdrawn: AtomicU64,
}

/// Pending writes within some bounds.
#[derive(Default)]
pub struct PendingRange {
    /// Newest pending write of each key.
    pub writes: BTreeMap<Bytes, Op>,
    /// Pending range deletes; they hide everything committed, not `writes`.
    pub ranges: Vec<(Bytes, Bytes)>,
    /// The newest batch among them.
    pub order: Order,
}

impl Pending {
    /// Nothing is pending. Orders start at 1.
    pub fn new() -> Self {
        let state = State { first: 1, ..State::default() };
        Self {
            state: RwLock::new(state),
            len: AtomicUsize::new(0),
            applied: watch::Sender::new(Ok(0)),
            withdrawn: AtomicU64::new(0),
        }
    }

    /// Whether a transaction's batch has its place and is not applied.
    pub fn contains(&self, txn: u128) -> bool {
        self.state.read().waiting.iter().any(|waiting| waiting.batch.txn == txn)
    }

    /// Gives a batch its place. The caller holds the commit queue, so that this is the log's order.
    pub fn push(&self, batch: PendingBatch, done: Option<oneshot::Sender<Outcome>>) -> Order {
        let mut state = self.state.write();
        let order = state.first + state.waiting.len() as Order;
        for (start, end) in &batch.ranges {
            state.ranges.push((order, start.clone(), end.clone()));
        }
        for (key, op) in &batch.writes {
            state.newest.insert(key.clone(), (order, op.clone()));
        }
        state.waiting.push_back(Waiting { batch: Arc::new(batch), done });
        self.len.store(state.waiting.len(), Ordering::Release);
        order
    }

    /// Apply is done with this transaction's batch. Batches of other leaders are not here, and ignored.
    pub fn applied(&self, txn: u128, outcome: Outcome) {
        if self.len.load(Ordering::Acquire) == 0 {
            return;
        }
        let mut state = self.state.write();
        if state.waiting.front().is_none_or(|waiting| waiting.batch.txn != txn) {
            return;
        }
        let Some(Waiting { batch, done }) = state.waiting.pop_front() else { return };
        let order = state.first;
        state.first += 1;
        for key in batch.writes.keys() {
            if state.newest.get(key).is_some_and(|(newest, _)| *newest == order) {
                state.newest.remove(key);
            }
        }
        if !state.ranges.is_empty() {
            state.ranges.retain(|(range, ..)| *range != order);
        }
        if state.history.len() == HISTORY {
            state.history.pop_front();
        }
        state.history.push_back((batch.writes.len() <= HISTORY_OPS).then_some(batch));
        self.len.store(state.waiting.len(), Ordering::Release);
        drop(state);
        self.decided(order);
        if let Some(done) = done {
            // The committer may have gone away; the commit stands.
            let _ = done.send(outcome);
        }
    }

    /// Takes back the newest `count` batches, which were never proposed: each answers `cause`.
    pub fn withdraw(&self, count: usize, cause: &Error) {
        let mut state = self.state.write();
        let keep = state.waiting.len().saturating_sub(count);
        let gone: Vec<Waiting> = state.waiting.drain(keep..).collect();
        let last_kept = state.first + keep as Order - 1;
        // Orders are not reused: the hole is filled by batches that are applied already.
        let hole = gone.len() as Order;
        self.withdrawn.fetch_max(last_kept + hole, Ordering::AcqRel);
        let kept: Vec<_> = state.waiting.iter().map(|waiting| Arc::clone(&waiting.batch)).collect();
        state.newest.clear();
        state.ranges.clear();
        state.first += hole;
        state.history.clear();
        for (position, batch) in kept.iter().enumerate() {
            let order = state.first + position as Order;
            state.newest.extend(batch.writes.iter().map(|(key, op)| (key.clone(), (order, op.clone()))));
            state.ranges.extend(batch.ranges.iter().map(|(start, end)| (order, start.clone(), end.clone())));
        }
        self.len.store(state.waiting.len(), Ordering::Release);
        let decided = state.first - 1;
        drop(state);
        // The hole counts as applied, or who waits for a batch in it would wait for the next commit.
        self.decided(decided);
        for waiting in gone {
            if let Some(done) = waiting.done {
                let _ = done.send(Err(cause.clone()));
            }
        }
    }

    /// Answers `cause` to everyone who waits for the end of a batch; the batches stay where they are.
    pub fn answer_all(&self, cause: &Error) {
        let waiting: Vec<_> = self.state.write().waiting.iter_mut().filter_map(|waiting| waiting.done.take()).collect();
        for done in waiting {
            let _ = done.send(Err(cause.clone()));
        }
    }

    /// Every batch up to `order` was applied or withdrawn.
    fn decided(&self, order: Order) {
        self.applied.send_if_modified(|applied| match applied {
            Ok(before) if *before < order => {
                *before = order;
                true
            }
            _ => false,
        });
    }

    /// Whether something at or before `order` was withdrawn: a transaction that read it must run again.
    pub fn check_seen(&self, order: Order) -> Result<()> {
        if order != 0 && order <= self.withdrawn.load(Ordering::Acquire) {
            return Err(Error::Conflict("a write that this transaction read was not committed".into()));
        }
        Ok(())
    }

    /// No pending batch will be applied any more; everything that waits for one fails: commits with `outcome`.
    pub fn fail(&self, cause: &Error, outcome: &Error) {
        let gone: Vec<Waiting> = {
            let mut state = self.state.write();
            state.newest.clear();
            state.ranges.clear();
            self.len.store(0, Ordering::Release);
            state.waiting.drain(..).collect()
        };
        let _ = self.applied.send_replace(Err(cause.clone()));
        for waiting in gone {
            if let Some(done) = waiting.done {
                let _ = done.send(Err(outcome.clone()));
            }
        }
    }

    /// The order of the newest batch that has its place.
    pub fn last(&self) -> Order {
        let state = self.state.read();
        state.first + state.waiting.len() as Order - 1
    }

    /// The order of the newest batch before the first that is under way.
    pub fn last_decided(&self) -> Order {
        self.state.read().first - 1
    }

    /// The newest pending write of a key: its batch and what it does.
    pub fn get(&self, key: &[u8]) -> Option<(Order, Op)> {
        if self.len.load(Ordering::Acquire) == 0 {
            return None;
        }
        let state = self.state.read();
        let covers = |(_, start, end): &&(Order, Bytes, Bytes)| start[..] <= *key && *key < end[..];
        let range = state.ranges.iter().rev().find(covers).map(|(order, ..)| *order);
        match (state.newest.get(key), range) {
            (Some((order, op)), range) if range.is_none_or(|range| range <= *order) => Some((*order, op.clone())),
            (_, Some(range)) => Some((range, Op::Delete)),
            _ => None,
        }
    }

    /// The pending writes within the bounds.
    pub fn range(&self, bounds: Bounds<'_>) -> PendingRange {
        let mut found = PendingRange::default();
        if self.len.load(Ordering::Acquire) == 0 {
            return found;
        }
        let state = self.state.read();
        for (position, waiting) in state.waiting.iter().enumerate() {
            let batch = &waiting.batch;
            if !batch.touches(bounds) {
                continue;
            }
            found.order = state.first + position as Order;
            for (start, end) in &batch.ranges {
                found.writes.retain(|key, _| !(start <= key && key < end));
                found.ranges.push((start.clone(), end.clone()));
            }
            found.writes.extend(batch.writes.range::<[u8], _>(bounds).map(|(key, op)| (key.clone(), op.clone())));
        }
        found
    }

    /// Whether a pending batch writes within the bounds.
    pub fn touches(&self, bounds: Bounds<'_>) -> bool {
        self.len.load(Ordering::Acquire) != 0
            && self.state.read().waiting.iter().any(|waiting| waiting.batch.touches(bounds))
    }

    /// Whether a batch that got its place after `since` writes within the bounds, applied or not. `None` if too much
    /// happened since to tell.
    pub fn touched_after(&self, bounds: Bounds<'_>, since: Order) -> Option<bool> {
        let state = self.state.read();
        let unchecked = (since + 1).saturating_sub(state.first) as usize;
        if state.waiting.iter().skip(unchecked).any(|waiting| waiting.batch.touches(bounds)) {
            return Some(true);
        }
        let applied_since = state.first.saturating_sub(since + 1) as usize;
        if applied_since > state.history.len() {
            return None;
        }
        let mut known = Some(false);
        for batch in state.history.iter().rev().take(applied_since) {
            match batch {
                Some(batch) if batch.touches(bounds) => return Some(true),
                Some(_) => {}
                None => known = None,
            }
        }
        known
    }

    /// Waits until the batch at `order` has been applied.
    pub async fn wait(&self, order: Order) -> Result<()> {
        if matches!(&*self.applied.borrow(), Ok(applied) if *applied >= order) {
            return Ok(());
        }
        let mut applied = self.applied.subscribe();
        let reached = applied.wait_for(|applied| applied.as_ref().map_or(true, |applied| *applied >= order)).await;
        match reached {
            Ok(state) => state.as_ref().map(|_| ()).map_err(Clone::clone),
            Err(_) => Err(Error::Closed("the database was closed".into())),
        }
    }
}

impl Default for Pending {
    fn default() -> Self {
        Self::new()
    }
}

/// Whether a key is in `[start, end)` of any of the ranges.
pub fn covered(ranges: &[(Bytes, Bytes)], key: &[u8]) -> bool {
    ranges.iter().any(|(start, end)| start[..] <= *key && *key < end[..])
}

/// Bounds of `[start, end)`.
pub fn half_open<'a>(start: &'a [u8], end: &'a [u8]) -> Bounds<'a> {
    (Bound::Included(start), Bound::Excluded(end))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(
        txn: u128,
        writes: &[(&'static str, &'static str)],
        ranges: &[(&'static str, &'static str)],
    ) -> PendingBatch {
        PendingBatch {
            txn,
            writes: writes.iter().map(|(key, value)| (Bytes::from(*key), Op::Put(Bytes::from(*value)))).collect(),
            ranges: ranges.iter().map(|(start, end)| (Bytes::from(*start), Bytes::from(*end))).collect(),
        }
    }

    #[test]
    fn the_newest_pending_write_counts_until_it_is_applied() {
        let pending = Pending::new();
        assert_eq!(pending.push(batch(10, &[("k", "1")], &[]), None), 1);
        assert_eq!(pending.push(batch(11, &[("k", "2")], &[]), None), 2);
        assert_eq!(pending.get(b"k"), Some((2, Op::Put("2".into()))));
        pending.applied(10, Ok(CommitSeq::ZERO));
        assert_eq!(pending.get(b"k"), Some((2, Op::Put("2".into()))));
        pending.applied(11, Ok(CommitSeq::ZERO));
        assert_eq!((pending.get(b"k"), pending.last()), (None, 2));
    }

    #[test]
    fn a_pending_range_delete_hides_older_pending_writes_only() {
        let pending = Pending::new();
        pending.push(batch(1, &[("b", "old")], &[]), None);
        pending.push(batch(2, &[("c", "own")], &[("a", "d")]), None);
        assert_eq!(pending.get(b"b"), Some((2, Op::Delete)));
        assert_eq!(pending.get(b"c"), Some((2, Op::Put("own".into()))));
        let found = pending.range(half_open(b"a", b"z"));
        assert_eq!(found.writes.keys().collect::<Vec<_>>(), ["c"]);
        assert_eq!((found.ranges.len(), found.order), (1, 2));
    }

    #[test]
    fn touched_after_looks_at_applied_batches_too() {
        let pending = Pending::new();
        pending.push(batch(1, &[("b", "x")], &[]), None);
        let since = pending.last();
        pending.push(batch(2, &[("c", "x")], &[]), None);
        pending.applied(1, Ok(CommitSeq::ZERO));
        pending.applied(2, Ok(CommitSeq::ZERO));
        assert_eq!(pending.touched_after(half_open(b"b", b"c"), since), Some(false));
        assert_eq!(pending.touched_after(half_open(b"c", b"d"), since), Some(true));
        for txn in 0..HISTORY as u128 {
            pending.push(batch(txn, &[], &[]), None);
            pending.applied(txn, Ok(CommitSeq::ZERO));
        }
        assert_eq!(pending.touched_after(half_open(b"c", b"d"), since), None);
    }

    #[tokio::test]
    async fn waiting_ends_with_apply_or_with_the_cause() {
        let pending = Pending::new();
        pending.push(batch(1, &[("b", "x")], &[]), None);
        pending.push(batch(2, &[("b", "y")], &[]), None);
        let mut first = Box::pin(pending.wait(1));
        assert!(futures::poll!(first.as_mut()).is_pending());
        pending.applied(1, Ok(CommitSeq::ZERO));
        first.await.unwrap();
        pending.fail(&Error::Closed("disk".into()), &Error::Unknown("disk".into()));
        assert_eq!(pending.wait(2).await, Err(Error::Closed("disk".into())));
    }

    #[tokio::test]
    async fn withdrawn_batches_leave_no_trace_and_poison_their_readers() {
        let pending = Pending::new();
        pending.push(batch(1, &[("k", "kept")], &[]), None);
        let (done, outcome) = oneshot::channel();
        let lost = pending.push(batch(2, &[("k", "lost")], &[]), Some(done));
        let full = Error::Retry("log full".into());
        pending.withdraw(1, &full);
        assert_eq!(outcome.await.unwrap(), Err(full));
        let (kept, op) = pending.get(b"k").unwrap();
        assert_eq!(op, Op::Put("kept".into()));
        assert!(pending.check_seen(lost).is_err() && pending.check_seen(0).is_ok());
        let next = pending.push(batch(3, &[("k", "next")], &[]), None);
        assert!(next > lost && next > kept && pending.check_seen(next).is_ok());
        pending.applied(1, Ok(CommitSeq::ZERO));
        pending.applied(3, Ok(CommitSeq::ZERO));
        pending.wait(next).await.unwrap();
    }

    #[tokio::test]
    async fn nobody_waits_for_a_batch_that_was_withdrawn() {
        let pending = Pending::new();
        pending.push(batch(1, &[("k", "kept")], &[]), None);
        let lost = pending.push(batch(2, &[("k", "lost")], &[]), None);
        pending.withdraw(1, &Error::Retry("log full".into()));
        // Counted as decided at once, and nothing else is under way that could wake this later.
        pending.applied(1, Ok(CommitSeq::ZERO));
        pending.wait(lost).await.unwrap();
        pending.push(batch(3, &[], &[]), None);
        pending.withdraw(1, &Error::Retry("log full".into()));
        pending.wait(pending.last()).await.unwrap();
    }
}
