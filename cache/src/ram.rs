//! Owns the RAM tier: which records it has, and who leaves.
//!
//! A hit costs one uncontended read lock, one reference count, and for the first few hits of a record a store beside it. Who
//! leaves is decided when something comes, by S3-FIFO (Yang et al., "FIFO queues are all you need for cache eviction",
//! SOSP 2023): what is new waits in a small queue, and gets into the main one if it is read there more than once, or soon
//! after it left; the main queue's head goes to its tail again for each of its last reads. Whatever changes the map or the
//! queues holds the queues' lock, so that both agree.

mod queue;
mod table;

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use bytes::Bytes;
use parking_lot::Mutex;

use self::{
    queue::{Queue, Ticket},
    table::{Entry, Home, Table, USES_MAX},
};
use crate::{Key, key::Groups, seen::Seen, ttl::Deadline};

/// Estimated bytes that a record costs beyond its payload: its places in the map and in a queue, and the allocation.
pub(crate) const ENTRY_OVERHEAD: u64 = 512;

/// The small queue's share of the tier, in hundredths.
const SMALL_PERCENT: u64 = 5;
/// Reads in the small queue that get a record into the main one.
const USES_TO_STAY: u8 = 2;
/// How often the main queue's head is looked at for one that comes. The last one leaves whatever was read of it: nobody
/// who inserts shall wait until all that was read has come round.
const LOOKS: usize = 32;
/// Records that left are remembered while this share of those in RAM leaves after them, in hundredths; up to twice as long.
const REMEMBERED_PERCENT: u64 = 50;
/// How small records are taken to be: the memory of those that left has room for as many as fit.
const SMALL_RECORD: u64 = 4 << 10;

/// The RAM tier.
pub(crate) struct Ram {
    table: Table,
    queues: Mutex<Queues>,
    capacity: AtomicU64,
    evictions: AtomicU64,
    /// How long past their deadline records are kept.
    grace: Duration,
}

struct Queues {
    small: Queue,
    main: Queue,
    /// Those that left the small queue unread.
    left: Seen,
    next_id: u64,
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
        let mut queues = Queues { small: Queue::default(), main: Queue::default(), left: memory(capacity), next_id: 0 };
        queues.resize(capacity);
        Self {
            table: Table::default(),
            queues: Mutex::new(queues),
            capacity: AtomicU64::new(capacity),
            evictions: AtomicU64::new(0),
            grace,
        }
    }

    /// Looks a record up. The clock is read only if the record can expire.
    pub(crate) fn get(&self, key: &Key, now: impl FnOnce() -> Duration) -> Found {
        let shard = self.table.shard(key).read();
        let Some(entry) = shard.get(key) else { return Found::Miss };
        let past = entry.deadline.past(now);
        if past.is_some_and(|past| past >= self.grace) {
            let id = entry.id;
            drop(shard);
            self.forget(&mut self.queues.lock(), key, Some(id));
            return Found::Expired;
        }
        entry.note_use();
        let bytes = entry.bytes.clone();
        match past {
            Some(past) => Found::Stale(bytes, past),
            None => Found::Hit(bytes),
        }
    }

    /// Whether a record is here. Counts as no use.
    pub(crate) fn contains(&self, key: &Key, now: impl FnOnce() -> Duration) -> bool {
        self.table.shard(key).read().get(key).is_some_and(|entry| entry.deadline.past(now).is_none())
    }

    /// Stores a record. Whatever is over the bound afterwards is evicted; that may be the new one. `bytes` are no slice of a
    /// larger buffer: the bound would not know of it.
    pub(crate) fn insert(&self, key: Key, bytes: Bytes, deadline: Deadline) {
        self.place(key, bytes, deadline, false);
    }

    /// [`Ram::insert`] for what counts as read often.
    pub(crate) fn insert_hot(&self, key: Key, bytes: Bytes, deadline: Deadline) {
        self.place(key, bytes, deadline, true);
    }

    fn place(&self, key: Key, bytes: Bytes, deadline: Deadline, hot: bool) {
        let queues = &mut *self.queues.lock();
        let weight = weight(bytes.len());
        if weight > self.capacity() {
            return self.forget(queues, &key, None);
        }
        let read_before = self.table.uses(&key).is_some_and(|uses| uses > 0);
        let id = queues.next_id;
        queues.next_id += 1;
        let (home, uses) = match hot {
            true => (Home::Main, USES_MAX),
            false if read_before || queues.left.has(&key) => (Home::Main, 0),
            false => (Home::Small, 0),
        };
        let former = self.table.insert(key, Entry::new(bytes, deadline, id, home, uses));
        queues.of(home).push(Ticket { key, id, weight });
        self.gone(queues, former);
        self.settle(queues, LOOKS);
    }

    pub(crate) fn keys(&self, max: usize) -> Vec<Key> {
        self.table.keys(max)
    }

    pub(crate) fn remove(&self, key: &Key) {
        self.forget(&mut self.queues.lock(), key, None);
    }

    pub(crate) fn remove_groups(&self, groups: &Groups) {
        self.table.keys_of(groups).iter().for_each(|key| self.remove(key));
    }

    /// Changes the bound; what no longer fits leaves.
    pub(crate) fn resize(&self, capacity: u64) {
        let mut queues = self.queues.lock();
        self.capacity.store(capacity, Relaxed);
        queues.resize(capacity);
        self.settle(&mut queues, usize::MAX);
    }

    pub(crate) fn capacity(&self) -> u64 {
        self.capacity.load(Relaxed)
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.table.bytes()
    }

    pub(crate) fn entries(&self) -> u64 {
        self.table.entries()
    }

    pub(crate) fn evictions(&self) -> u64 {
        self.evictions.load(Relaxed)
    }

    /// Removes a record, with `only` only if it is that one.
    fn forget(&self, queues: &mut Queues, key: &Key, only: Option<u64>) {
        let former = self.table.remove(key, only);
        self.gone(queues, former);
    }

    /// Tells the queues of a record that went otherwise than by them.
    fn gone(&self, queues: &mut Queues, former: Option<Entry>) {
        if let Some(entry) = former {
            queues.of(entry.home()).lost(weight(entry.bytes.len()));
            queues.sweep(&self.table);
        }
    }

    /// Decides on what the queues have no room for: `looks` at the main one's head, then whoever is there leaves.
    fn settle(&self, queues: &mut Queues, looks: usize) {
        while let Some(ticket) = queues.small.overflow() {
            let Some(uses) = self.table.take_uses(&ticket) else { continue };
            queues.small.lost(ticket.weight);
            if uses >= USES_TO_STAY || queues.main.has_room(ticket.weight) {
                self.table.moved_to_main(&ticket);
                queues.main.push(ticket);
            } else {
                self.evict(&ticket);
                queues.left.remember(self.entries() * REMEMBERED_PERCENT / 100);
                queues.left.note(&ticket.key);
            }
        }
        let mut looks = looks;
        while let Some(ticket) = queues.main.overflow() {
            let Some(uses) = self.table.spend_use(&ticket) else { continue };
            queues.main.lost(ticket.weight);
            if uses > 0 && looks > 0 {
                looks -= 1;
                queues.main.push(ticket);
            } else {
                self.evict(&ticket);
            }
        }
    }

    fn evict(&self, ticket: &Ticket) {
        self.table.remove(&ticket.key, Some(ticket.id));
        self.evictions.fetch_add(1, Relaxed);
    }
}

impl Queues {
    fn of(&mut self, home: Home) -> &mut Queue {
        match home {
            Home::Small => &mut self.small,
            Home::Main => &mut self.main,
        }
    }

    fn resize(&mut self, capacity: u64) {
        let small = capacity * SMALL_PERCENT / 100;
        self.small.set_capacity(small);
        self.main.set_capacity(capacity - small);
        self.left = memory(capacity);
    }

    /// Drops tickets of records that are gone, if they are most.
    fn sweep(&mut self, table: &Table) {
        self.small.sweep(|ticket| table.has(ticket));
        self.main.sweep(|ticket| table.has(ticket));
    }
}

fn weight(payload: usize) -> u64 {
    payload as u64 + ENTRY_OVERHEAD
}

/// A memory of those that leave a tier of so many bytes.
fn memory(capacity: u64) -> Seen {
    Seen::new(capacity / SMALL_RECORD)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(item: u32) -> Key {
        Key { group: 1, item }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Insert(u32, usize, bool),
        Read(u32),
        Remove(u32),
        Resize(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            8 => (0u32..60, 0usize..3000, any::<bool>()).prop_map(|(item, len, hot)| Step::Insert(item, len, hot)),
            8 => (0u32..60).prop_map(Step::Read),
            2 => (0u32..60).prop_map(Step::Remove),
            1 => (0u64..50_000).prop_map(Step::Resize),
        ]
    }

    /// That map and queues agree, and that the bound is kept.
    fn check(ram: &Ram) {
        let queues = ram.queues.lock();
        let (mut bytes, mut records) = (0, 0);
        for queue in [&queues.small, &queues.main] {
            let here: Vec<_> = queue.tickets().filter(|ticket| ram.table.has(ticket)).collect();
            assert_eq!(queue.load(), (here.len(), here.iter().map(|ticket| ticket.weight).sum::<u64>()));
            bytes += queue.load().1;
            records += here.len() as u64;
        }
        assert_eq!((bytes, records), (ram.bytes(), ram.entries()));
        assert!(bytes <= ram.capacity(), "{bytes} bytes of {}", ram.capacity());
    }

    proptest! {
        #[test]
        fn the_map_and_the_queues_agree_and_the_bound_is_kept(steps in prop::collection::vec(step(), 1..300)) {
            let ram = Ram::new(20_000, Duration::ZERO);
            let mut lens = std::collections::HashMap::new();
            for step in steps {
                match step {
                    Step::Insert(item, len, hot) => {
                        let insert = if hot { Ram::insert_hot } else { Ram::insert };
                        insert(&ram, key(item), vec![7; len].into(), Deadline::NEVER);
                        lens.insert(item, len);
                    }
                    Step::Read(item) => {
                        if let Found::Hit(bytes) = ram.get(&key(item), || Duration::ZERO) {
                            prop_assert_eq!(Some(&bytes.len()), lens.get(&item));
                        }
                    }
                    Step::Remove(item) => {
                        ram.remove(&key(item));
                        lens.remove(&item);
                        prop_assert!(!ram.contains(&key(item), || Duration::ZERO));
                    }
                    Step::Resize(capacity) => ram.resize(capacity),
                }
                check(&ram);
            }
        }
    }

    #[test]
    fn tickets_of_what_is_gone_do_not_pile_up() {
        let ram = Ram::new(1 << 20, Duration::ZERO);
        for item in 0..100_000 {
            ram.insert(key(item), Bytes::from_static(b"x"), Deadline::NEVER);
            ram.remove(&key(item));
        }
        assert!(ram.queues.lock().small.tickets().count() < 2000);
        check(&ram);
    }
}
