//! Owns the records of the RAM tier: a sharded map, and exact counts of what is in it.

use std::{
    array::from_fn,
    sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::Relaxed},
};

use bytes::Bytes;
use parking_lot::RwLock;
use rustc_hash::FxHashMap;

use super::{queue::Ticket, weight};
use crate::{Key, key::Groups, ttl::Deadline};

const SHARDS: usize = 64;
/// Reads of a record that are counted. Beyond them a hit writes nothing but the reference count.
pub(super) const USES_MAX: u8 = 3;

type Shard = RwLock<FxHashMap<Key, Entry>>;

/// One record.
pub(super) struct Entry {
    pub(super) bytes: Bytes,
    pub(super) deadline: Deadline,
    /// Tells it from those that the key had before and will have.
    pub(super) id: u64,
    uses: AtomicU8,
    in_main: AtomicBool,
}

/// The queue that a record is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Home {
    Small,
    Main,
}

impl Entry {
    pub(super) fn new(bytes: Bytes, deadline: Deadline, id: u64, home: Home, uses: u8) -> Self {
        Self { bytes, deadline, id, uses: AtomicU8::new(uses), in_main: AtomicBool::new(home == Home::Main) }
    }

    pub(super) fn home(&self) -> Home {
        if self.in_main.load(Relaxed) { Home::Main } else { Home::Small }
    }

    fn uses(&self) -> u8 {
        self.uses.load(Relaxed)
    }

    /// Counts a read. Of two at the same time one may not be counted.
    pub(super) fn note_use(&self) {
        let uses = self.uses.load(Relaxed);
        if uses < USES_MAX {
            self.uses.store(uses + 1, Relaxed);
        }
    }
}

/// The records in RAM.
pub(super) struct Table {
    shards: [Shard; SHARDS],
    bytes: AtomicU64,
    entries: AtomicU64,
}

impl Default for Table {
    fn default() -> Self {
        Self { shards: from_fn(|_| Shard::default()), bytes: AtomicU64::new(0), entries: AtomicU64::new(0) }
    }
}

impl Table {
    pub(super) fn shard(&self, key: &Key) -> &Shard {
        &self.shards[(key.mix() >> 48) as usize % SHARDS]
    }

    /// Stores a record, and returns the one that it replaces.
    pub(super) fn insert(&self, key: Key, entry: Entry) -> Option<Entry> {
        self.bytes.fetch_add(weight(entry.bytes.len()), Relaxed);
        self.entries.fetch_add(1, Relaxed);
        let former = self.shard(&key).write().insert(key, entry);
        self.uncount(former)
    }

    /// Takes a record out, with `only` only if it is that one: a newer one may have taken its place.
    pub(super) fn remove(&self, key: &Key, only: Option<u64>) -> Option<Entry> {
        let mut shard = self.shard(key).write();
        let there = shard.get(key).is_some_and(|entry| only.is_none_or(|id| id == entry.id));
        let entry = if there { shard.remove(key) } else { None };
        drop(shard);
        self.uncount(entry)
    }

    fn uncount(&self, former: Option<Entry>) -> Option<Entry> {
        former.inspect(|entry| {
            self.bytes.fetch_sub(weight(entry.bytes.len()), Relaxed);
            self.entries.fetch_sub(1, Relaxed);
        })
    }

    /// How often the record of `key` was read.
    pub(super) fn uses(&self, key: &Key) -> Option<u8> {
        self.shard(key).read().get(key).map(Entry::uses)
    }

    /// Whether the record of a ticket is here.
    pub(super) fn has(&self, ticket: &Ticket) -> bool {
        self.with(ticket, |_| ()).is_some()
    }

    /// How often the record was read, and no read is counted of it any more. `None` if it is not here.
    pub(super) fn take_uses(&self, ticket: &Ticket) -> Option<u8> {
        self.with(ticket, |entry| entry.uses.swap(0, Relaxed))
    }

    /// Takes one read off the record's count, and returns what that was. `None` if it is not here.
    pub(super) fn spend_use(&self, ticket: &Ticket) -> Option<u8> {
        self.with(ticket, |entry| {
            let uses = entry.uses();
            entry.uses.store(uses.saturating_sub(1), Relaxed);
            uses
        })
    }

    /// Notes that the record is in the main queue now.
    pub(super) fn moved_to_main(&self, ticket: &Ticket) {
        self.with(ticket, |entry| entry.in_main.store(true, Relaxed));
    }

    fn with<T>(&self, ticket: &Ticket, look: impl FnOnce(&Entry) -> T) -> Option<T> {
        self.shard(&ticket.key).read().get(&ticket.key).filter(|entry| entry.id == ticket.id).map(look)
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Relaxed)
    }

    pub(super) fn entries(&self) -> u64 {
        self.entries.load(Relaxed)
    }

    pub(super) fn keys(&self, max: usize) -> Vec<Key> {
        let mut keys = Vec::new();
        for shard in &self.shards {
            keys.extend(shard.read().keys().take(max - keys.len()));
        }
        keys
    }

    pub(super) fn keys_of(&self, groups: &Groups) -> Vec<Key> {
        let wanted = |key: &&Key| groups.contains(&key.group);
        self.shards.iter().flat_map(|s| s.read().keys().filter(wanted).copied().collect::<Vec<_>>()).collect()
    }
}
