//! Owns the RAM tier, and is the only file that knows moka.
//!
//! Lookups go to a sharded map of our own: a hit costs one uncontended read lock and one reference count. moka decides
//! who leaves: it sees every insert and miss and one hit in [`SAMPLE`], and its eviction listener takes records out of
//! the map. So its bookkeeping stays off the hot path, the map's byte count is exact, and the bound can be changed.

use std::{
    cell::Cell,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use parking_lot::RwLock;
use rustc_hash::{FxBuildHasher, FxHashMap};

use crate::{Key, key::Groups, ttl::Deadline};

/// Estimated bytes that a record costs beyond its payload: its places in the map and in moka, and the allocation.
pub(crate) const ENTRY_OVERHEAD: u64 = 512;

const SHARDS: usize = 64;
/// One hit in this many is reported to the eviction policy. A power of two.
const SAMPLE: u32 = 8;
/// How often an insert over the bound makes the policy evict before it gives up until the next insert.
const EVICTION_ROUNDS: usize = 8;

type Policy = moka::sync::Cache<Key, Ticket, FxBuildHasher>;

/// What the policy knows of a record: which one it is, and what it weighs.
#[derive(Clone, Copy)]
struct Ticket {
    id: u64,
    weight: u32,
}

struct Entry {
    bytes: Bytes,
    deadline: Deadline,
    id: u64,
}

/// The records in RAM. Shared with the policy's eviction listener.
struct Table {
    shards: [RwLock<FxHashMap<Key, Entry>>; SHARDS],
    bytes: AtomicU64,
    entries: AtomicU64,
    evictions: AtomicU64,
}

/// The RAM tier.
pub(crate) struct Ram {
    table: Arc<Table>,
    policy: RwLock<Policy>,
    capacity: AtomicU64,
    next_id: AtomicU64,
    /// How long past their deadline records are kept.
    grace: Duration,
}

/// What a lookup found.
pub(crate) enum Found {
    Hit(Bytes),
    /// It expired this long ago, and is within the grace.
    Stale(Bytes, Duration),
    /// It expired, and was dropped.
    Expired,
    Miss,
}

impl Ram {
    pub(crate) fn new(capacity: u64, grace: Duration) -> Self {
        let table = Arc::new(Table {
            shards: std::array::from_fn(|_| RwLock::default()),
            bytes: AtomicU64::new(0),
            entries: AtomicU64::new(0),
            evictions: AtomicU64::new(0),
        });
        let policy = RwLock::new(policy(capacity, &table));
        Self { table, policy, capacity: AtomicU64::new(capacity), next_id: AtomicU64::new(0), grace }
    }

    /// Looks a record up. The clock is read only if the record can expire.
    pub(crate) fn get(&self, key: &Key, now: impl FnOnce() -> Duration) -> Found {
        let shard = self.table.shard(key).read();
        let Some(entry) = shard.get(key) else { return Found::Miss };
        let past = entry.deadline.past(now);
        if past.is_some_and(|past| past >= self.grace) {
            let id = entry.id;
            drop(shard);
            self.table.remove_if(key, id);
            return Found::Expired;
        }
        let bytes = entry.bytes.clone();
        drop(shard);
        if sampled() {
            self.policy.read().get(key);
        }
        match past {
            Some(past) => Found::Stale(bytes, past),
            None => Found::Hit(bytes),
        }
    }

    /// Whether a record is here. Counts as no use.
    pub(crate) fn contains(&self, key: &Key, now: impl FnOnce() -> Duration) -> bool {
        self.table.shard(key).read().get(key).is_some_and(|entry| entry.deadline.past(now).is_none())
    }

    /// Tells the policy that `key` was wanted and not here, so that it is kept once it comes.
    pub(crate) fn note_miss(&self, key: &Key) {
        self.policy.read().get(key);
    }

    /// Stores a copy of `bytes`, so that a slice of a large buffer never keeps that buffer alive, and returns the copy.
    /// Whatever is over the bound afterwards is evicted; that may be the new record.
    pub(crate) fn insert(&self, key: Key, bytes: &[u8], deadline: Deadline) -> Bytes {
        let copy = Bytes::copy_from_slice(bytes);
        let weight = weight(copy.len());
        if weight > self.capacity.load(Relaxed) {
            return copy;
        }
        let id = self.next_id.fetch_add(1, Relaxed);
        self.table.insert(key, Entry { bytes: copy.clone(), deadline, id });
        let policy = self.policy.read();
        policy.insert(key, Ticket { id, weight: u32::try_from(weight).unwrap_or(u32::MAX) });
        self.evict_to_bound(&policy);
        copy
    }

    pub(crate) fn keys(&self, max: usize) -> Vec<Key> {
        let mut keys = Vec::new();
        for shard in &self.table.shards {
            keys.extend(shard.read().keys().take(max - keys.len()));
        }
        keys
    }

    pub(crate) fn remove(&self, key: &Key) {
        self.table.remove(key);
        self.policy.read().invalidate(key);
    }

    pub(crate) fn remove_groups(&self, groups: &Groups) {
        let policy = self.policy.read();
        for key in self.table.keys_of(groups) {
            self.table.remove(&key);
            policy.invalidate(&key);
        }
    }

    /// Changes the bound: a new policy learns every record, and evicts what no longer fits.
    pub(crate) fn resize(&self, capacity: u64) {
        let mut current = self.policy.write();
        self.capacity.store(capacity, Relaxed);
        let next = policy(capacity, &self.table);
        for (key, ticket) in self.table.tickets() {
            next.insert(key, ticket);
        }
        *current = next;
        self.evict_to_bound(&current);
    }

    pub(crate) fn capacity(&self) -> u64 {
        self.capacity.load(Relaxed)
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.table.bytes.load(Relaxed)
    }

    pub(crate) fn entries(&self) -> u64 {
        self.table.entries.load(Relaxed)
    }

    pub(crate) fn evictions(&self) -> u64 {
        self.table.evictions.load(Relaxed)
    }

    /// moka evicts in batches, some time after the insert; the bound is kept now.
    fn evict_to_bound(&self, policy: &Policy) {
        for _ in 0..EVICTION_ROUNDS {
            if self.bytes() <= self.capacity() {
                return;
            }
            policy.run_pending_tasks();
        }
    }
}

impl Table {
    fn shard(&self, key: &Key) -> &RwLock<FxHashMap<Key, Entry>> {
        &self.shards[(key.mix() >> 48) as usize % SHARDS]
    }

    fn insert(&self, key: Key, entry: Entry) {
        self.bytes.fetch_add(weight(entry.bytes.len()), Relaxed);
        self.entries.fetch_add(1, Relaxed);
        let old = self.shard(&key).write().insert(key, entry);
        self.forget(old);
    }

    fn remove(&self, key: &Key) {
        let old = self.shard(key).write().remove(key);
        self.forget(old);
    }

    /// Removes the record only if it is still the one named `id`: a newer one may have taken its place.
    fn remove_if(&self, key: &Key, id: u64) -> bool {
        let mut shard = self.shard(key).write();
        let old = if shard.get(key).is_some_and(|entry| entry.id == id) { shard.remove(key) } else { None };
        drop(shard);
        let removed = old.is_some();
        self.forget(old);
        removed
    }

    fn forget(&self, old: Option<Entry>) {
        if let Some(entry) = old {
            self.bytes.fetch_sub(weight(entry.bytes.len()), Relaxed);
            self.entries.fetch_sub(1, Relaxed);
        }
    }

    fn keys_of(&self, groups: &Groups) -> Vec<Key> {
        let wanted = |key: &&Key| groups.contains(&key.group);
        self.shards.iter().flat_map(|s| s.read().keys().filter(wanted).copied().collect::<Vec<_>>()).collect()
    }

    fn tickets(&self) -> Vec<(Key, Ticket)> {
        let ticket = |entry: &Entry| Ticket { id: entry.id, weight: weight(entry.bytes.len()) as u32 };
        self.shards.iter().flat_map(|s| s.read().iter().map(|(k, e)| (*k, ticket(e))).collect::<Vec<_>>()).collect()
    }
}

fn weight(payload: usize) -> u64 {
    payload as u64 + ENTRY_OVERHEAD
}

fn policy(capacity: u64, table: &Arc<Table>) -> Policy {
    let table = table.clone();
    moka::sync::Cache::builder()
        .max_capacity(capacity)
        .weigher(|_, ticket: &Ticket| ticket.weight)
        .eviction_listener(move |key: Arc<Key>, ticket, cause| {
            if table.remove_if(&key, ticket.id) && cause.was_evicted() {
                table.evictions.fetch_add(1, Relaxed);
            }
        })
        .build_with_hasher(FxBuildHasher)
}

/// True for one call in [`SAMPLE`] of this thread, on average. Not every fourth call: reads that come in a cycle would
/// show the policy the same quarter of their keys for ever.
fn sampled() -> bool {
    thread_local!(static STATE: Cell<u32> = const { Cell::new(0x9E37_79B9) });
    STATE
        .try_with(|state| {
            let mut x = state.get();
            x ^= x << 13;
            x ^= x >> 17;
            x ^= x << 5;
            state.set(x);
            x % SAMPLE == 0
        })
        .unwrap_or(false)
}
