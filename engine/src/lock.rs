//! The row lock table: shared and exclusive locks in RAM, first come first served, with deadlock detection.
//!
//! A lock belongs to a transaction until its end. A request that must wait first looks for a cycle in the wait-for
//! graph; if it closes one, the requester is the victim. Shards keep uncontended requests apart; the graph is only
//! touched by requests that wait. Lock order: shard, then graph.

use std::{
    collections::VecDeque,
    hash::{BuildHasher, Hash},
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use parking_lot::Mutex;
use rustc_hash::{FxBuildHasher, FxHashMap};
use smallvec::SmallVec;
use tokio::sync::oneshot;

use crate::{
    LockMode,
    error::{Error, Result},
};

mod graph;

use graph::WaitGraph;

const SHARDS: usize = 64;

/// A transaction, as the lock table knows it. Never reused.
pub type Owner = u64;

struct Waiter {
    owner: Owner,
    mode: LockMode,
    granted: oneshot::Sender<()>,
}

#[derive(Default)]
struct Row {
    holders: SmallVec<[(Owner, LockMode); 2]>,
    waiters: VecDeque<Waiter>,
}

impl Row {
    /// Whether `owner` could hold `mode` beside the other holders.
    fn compatible(&self, owner: Owner, mode: LockMode) -> bool {
        self.holders
            .iter()
            .all(|(holder, held)| *holder == owner || (mode == LockMode::Shared && *held == LockMode::Shared))
    }

    fn held_by(&self, owner: Owner) -> Option<LockMode> {
        self.holders.iter().find(|(holder, _)| *holder == owner).map(|(_, mode)| *mode)
    }

    /// Makes `owner` a holder; answers whether it was none before.
    fn hold(&mut self, owner: Owner, mode: LockMode) -> bool {
        match self.holders.iter_mut().find(|(holder, _)| *holder == owner) {
            Some(holder) => {
                holder.1 = mode;
                false
            }
            None => {
                self.holders.push((owner, mode));
                true
            }
        }
    }

    /// Grants from the front of the queue as far as compatible.
    fn grant(&mut self, graph: &mut WaitGraph, held: &AtomicUsize) {
        while self.waiters.front().is_some_and(|first| self.compatible(first.owner, first.mode)) {
            let Some(first) = self.waiters.pop_front() else { break };
            graph.unblock(first.owner);
            // A receiver that is gone has given up: its lock is not taken.
            if first.granted.send(()).is_ok() && self.hold(first.owner, first.mode) {
                held.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Recomputes the edges of everyone who still waits.
    fn refresh(&self, graph: &mut WaitGraph) {
        for (position, waiter) in self.waiters.iter().enumerate() {
            graph.block(waiter.owner, self.blockers(position));
        }
    }

    /// Who stands between the waiter at `position` and its lock: conflicting holders, and everyone ahead.
    fn blockers(&self, position: usize) -> SmallVec<[Owner; 4]> {
        let Some(waiter) = self.waiters.get(position) else { return SmallVec::new() };
        let conflicting = |mode: LockMode| mode == LockMode::Exclusive || waiter.mode == LockMode::Exclusive;
        let holders = self.holders.iter().filter(|(holder, held)| *holder != waiter.owner && conflicting(*held));
        let ahead = self.waiters.iter().take(position).map(|ahead| ahead.owner);
        holders.map(|(holder, _)| *holder).chain(ahead).collect()
    }
}

type Shard = Mutex<FxHashMap<Bytes, Row>>;

/// All row locks of one leader.
pub struct LockTable {
    shards: Box<[Shard]>,
    graph: Mutex<WaitGraph>,
    next_owner: AtomicU64,
    held: AtomicUsize,
    waits: AtomicU64,
    deadlocks: AtomicU64,
}

/// Numbers for status and metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LockStats {
    /// Locks held now.
    pub held: u64,
    /// Requests that had to wait since start.
    pub waits: u64,
    /// Deadlock victims since start.
    pub deadlocks: u64,
}

enum Request {
    Granted {
        /// The owner held nothing on the row before.
        new: bool,
    },
    Busy,
    Wait {
        granted: oneshot::Receiver<()>,
        /// As in `Granted`.
        new: bool,
    },
}

impl LockTable {
    /// An empty table.
    pub fn new() -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Shard::default()).collect(),
            graph: Mutex::default(),
            next_owner: AtomicU64::new(1),
            held: AtomicUsize::new(0),
            waits: AtomicU64::new(0),
            deadlocks: AtomicU64::new(0),
        }
    }

    /// What is held and what happened.
    pub fn stats(&self) -> LockStats {
        LockStats {
            held: self.held.load(Ordering::Relaxed) as u64,
            waits: self.waits.load(Ordering::Relaxed),
            deadlocks: self.deadlocks.load(Ordering::Relaxed),
        }
    }

    fn shard(&self, key: &[u8]) -> &Shard {
        let mut hasher = FxBuildHasher.build_hasher();
        key.hash(&mut hasher);
        // The map below uses the low bits of the same hash.
        let hash = std::hash::Hasher::finish(&hasher);
        &self.shards[(hash >> 48) as usize % SHARDS]
    }

    /// One attempt under the shard's lock; `wait` says whether to queue.
    fn request(&self, owner: Owner, key: &Bytes, mode: LockMode, wait: bool) -> Result<Request> {
        let mut shard = self.shard(key).lock();
        let Some(row) = shard.get_mut(key) else {
            let mut row = Row::default();
            row.hold(owner, mode);
            shard.insert(key.clone(), row);
            self.held.fetch_add(1, Ordering::Relaxed);
            return Ok(Request::Granted { new: true });
        };
        let held = row.held_by(owner);
        if held.is_some_and(|held| held == LockMode::Exclusive || mode == LockMode::Shared) {
            return Ok(Request::Granted { new: false });
        }
        // An upgrade goes before the queue: whoever waits there waits for this holder anyway.
        if (row.waiters.is_empty() || held.is_some()) && row.compatible(owner, mode) {
            row.hold(owner, mode);
            if held.is_none() {
                self.held.fetch_add(1, Ordering::Relaxed);
            }
            return Ok(Request::Granted { new: held.is_none() });
        }
        if !wait {
            return Ok(Request::Busy);
        }
        let (granted, receiver) = oneshot::channel();
        let waiter = Waiter { owner, mode, granted };
        let position = if held.is_some() { 0 } else { row.waiters.len() };
        row.waiters.insert(position, waiter);
        let mut graph = self.graph.lock();
        row.refresh(&mut graph);
        if graph.closes_cycle(owner) {
            row.waiters.remove(position);
            graph.unblock(owner);
            row.refresh(&mut graph);
            self.deadlocks.fetch_add(1, Ordering::Relaxed);
            return Err(Error::Deadlock);
        }
        self.waits.fetch_add(1, Ordering::Relaxed);
        Ok(Request::Wait { granted: receiver, new: held.is_none() })
    }

    /// Takes `owner` out of the row: its queue, and with `holder` its holders too.
    fn leave(&self, owner: Owner, key: &Bytes, holder: bool) {
        let mut shard = self.shard(key).lock();
        let Some(row) = shard.get_mut(key) else { return };
        if holder {
            let before = row.holders.len();
            row.holders.retain(|(holder, _)| *holder != owner);
            self.held.fetch_sub(before - row.holders.len(), Ordering::Relaxed);
        }
        if !row.waiters.is_empty() {
            let mut graph = self.graph.lock();
            let before = row.waiters.len();
            row.waiters.retain(|waiter| waiter.owner != owner);
            if row.waiters.len() != before {
                graph.unblock(owner);
            }
            row.grant(&mut graph, &self.held);
            row.refresh(&mut graph);
        }
        if row.holders.is_empty() && row.waiters.is_empty() {
            shard.remove(key);
        }
    }
}

impl Default for LockTable {
    fn default() -> Self {
        Self::new()
    }
}

/// The locks of one transaction; all are released on drop.
pub struct LockSet {
    table: Arc<LockTable>,
    owner: Owner,
    held: Vec<Bytes>,
    limit: u64,
}

impl LockSet {
    /// No locks yet; `limit` bounds their number.
    pub fn new(table: &Arc<LockTable>, limit: u64) -> Self {
        let owner = table.next_owner.fetch_add(1, Ordering::Relaxed);
        Self { table: Arc::clone(table), owner, held: Vec::new(), limit }
    }

    /// Takes a lock, waiting up to `timeout`; `None` doesn't wait.
    ///
    /// # Errors
    /// `WouldBlock`, `LockTimeout`, `Deadlock` (the caller must roll back), `TooLarge`.
    pub async fn lock(&mut self, key: Bytes, mode: LockMode, timeout: Option<Duration>) -> Result<()> {
        // At the limit, rows that are held already may still be locked again, or upgraded.
        if self.held.len() as u64 >= self.limit && !self.holds(&key) {
            return Err(Error::TooLarge { what: "row locks of a transaction", limit: self.limit });
        }
        match self.table.request(self.owner, &key, mode, timeout.is_some())? {
            Request::Granted { new } => {
                if new {
                    self.held.push(key);
                }
                Ok(())
            }
            Request::Busy => Err(Error::WouldBlock),
            Request::Wait { granted, new } => {
                // Listed before the wait: if this future is dropped, the end of the transaction still cleans the row.
                if new {
                    self.held.push(key.clone());
                }
                let mut guard = Withdraw { table: &self.table, owner: self.owner, key: &key, armed: true };
                if tokio::time::timeout(timeout.unwrap_or_default(), granted).await.is_ok_and(|granted| granted.is_ok())
                {
                    guard.armed = false;
                    return Ok(());
                }
                Err(Error::LockTimeout)
            }
        }
    }

    /// Releases everything.
    pub fn release(&mut self) {
        for key in self.held.drain(..) {
            self.table.leave(self.owner, &key, true);
        }
    }

    fn mode(&self, key: &[u8]) -> Option<LockMode> {
        self.table.shard(key).lock().get(key).and_then(|row| row.held_by(self.owner))
    }

    fn holds(&self, key: &[u8]) -> bool {
        self.mode(key).is_some()
    }

    /// Whether the exclusive lock on `key` is held. For assertions.
    pub fn holds_exclusive(&self, key: &[u8]) -> bool {
        self.mode(key) == Some(LockMode::Exclusive)
    }

    /// How many rows are locked.
    pub fn len(&self) -> usize {
        self.held.len()
    }
}

impl Drop for LockSet {
    fn drop(&mut self) {
        self.release();
    }
}

/// Leaves the queue when a wait ends without the lock, also when its future is dropped.
struct Withdraw<'a> {
    table: &'a LockTable,
    owner: Owner,
    key: &'a Bytes,
    armed: bool,
}

impl Drop for Withdraw<'_> {
    fn drop(&mut self) {
        if self.armed {
            self.table.leave(self.owner, self.key, false);
        }
    }
}

#[cfg(test)]
mod tests;
