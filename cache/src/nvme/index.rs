//! Owns the index of the NVMe tier: which key lies where, and how often it was read since it was stored.
//!
//! Sharded. A key is kept as 64 bits: a 32-bit hash of its group, and its item. Two groups whose hashes are the same (one
//! pair among 90,000 groups, on average) push each other's records out; a slot names its whole key, so that a read finds
//! out and is a miss. In return a record costs 20 to 25 bytes of RAM, and no shared table of groups is in the way.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use parking_lot::Mutex;

use super::{
    slot::{Listed, UNIT},
    table::Table,
};
use crate::{
    Key,
    key::{Groups, spread},
};

const SHARDS: usize = 64;
/// Reads of a record that are counted; more make no difference.
const MAX_HITS: u64 = 15;
/// Zones that can be named, 64 TiB of them.
pub(super) const MAX_ZONES: u32 = 1 << 24;

/// Where a slot lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Location {
    pub(crate) zone: u32,
    /// First unit within the zone.
    pub(crate) unit: u16,
    /// Units of the slot, from 1 to 16,384.
    pub(crate) units: u16,
}

/// A [`Location`] and a count of reads in one word that is never zero: units 15 bits, reads 4, unit 16, zone 24.
#[derive(Clone, Copy)]
struct Packed(u64);

impl Packed {
    fn new(at: Location) -> Self {
        Self(u64::from(at.units) | u64::from(at.unit) << 19 | u64::from(at.zone) << 35)
    }

    fn location(self) -> Location {
        let (zone, unit) = ((self.0 >> 35) as u32, (self.0 >> 19) as u16);
        Location { zone, unit, units: (self.0 & 0x7FFF) as u16 }
    }

    fn hits(self) -> u64 {
        (self.0 >> 15) & MAX_HITS
    }

    fn with_hit(self) -> Self {
        if self.hits() < MAX_HITS { Self(self.0 + (1 << 15)) } else { self }
    }

    fn bytes(self) -> u64 {
        u64::from(self.location().units) * UNIT as u64
    }
}

/// The 64 bits of a key.
fn short(key: &Key) -> u64 {
    group_bits(key.group) << 32 | u64::from(key.item)
}

fn group_bits(group: u128) -> u64 {
    spread(group as u64 ^ spread((group >> 64) as u64)) >> 32
}

/// The index.
pub(crate) struct Index {
    shards: Box<[Mutex<Table>]>,
    entries: AtomicU64,
    bytes: AtomicU64,
}

/// What taking a zone's records out did.
#[derive(Debug, Default)]
pub(crate) struct Evicted {
    /// Records that were read since they were stored, to be stored again.
    pub(crate) hot: Vec<(Key, Location)>,
    /// Records dropped for want of room (not counting the hot ones).
    pub(crate) dropped: u64,
}

impl Index {
    pub(crate) fn new() -> Self {
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        Self { shards, entries: AtomicU64::new(0), bytes: AtomicU64::new(0) }
    }

    /// Where `key` lies. Counts a use.
    pub(crate) fn lookup(&self, key: &Key) -> Option<Location> {
        let key = short(key);
        let mut shard = self.shard(key).lock();
        let value = shard.get_mut(key)?;
        *value = Packed(*value).with_hit().0;
        Some(Packed(*value).location())
    }

    pub(crate) fn contains(&self, key: &Key) -> bool {
        self.location(key).is_some()
    }

    /// Where `key` lies. Counts as nothing.
    pub(crate) fn location(&self, key: &Key) -> Option<Location> {
        let key = short(key);
        self.shard(key).lock().get(key).map(|value| Packed(value).location())
    }

    /// Enters a record that has been written. A former record of the key is forgotten.
    pub(crate) fn publish(&self, key: &Key, at: Location) {
        let (key, packed) = (short(key), Packed::new(at));
        let old = self.shard(key).lock().insert(key, packed.0);
        self.count(packed);
        self.uncount(old);
    }

    /// Forgets a record; with `only_at`, only if it still lies there.
    pub(crate) fn remove(&self, key: &Key, only_at: Option<Location>) -> bool {
        let key = short(key);
        let mut shard = self.shard(key).lock();
        let there = shard.get(key).is_some_and(|value| only_at.is_none_or(|at| at == Packed(value).location()));
        let old = if there { shard.remove(key) } else { None };
        drop(shard);
        self.uncount(old);
        old.is_some()
    }

    /// Forgets the records of these groups. Looks at every record, so many groups at once are cheaper than one by one.
    pub(crate) fn remove_groups(&self, groups: &Groups) {
        let mut gone: Vec<u64> = groups.iter().map(|group| group_bits(*group)).collect();
        gone.sort_unstable();
        self.remove_all(|key, _| gone.binary_search(&(key >> 32)).is_ok());
    }

    /// Forgets the records of zones that `goes` says yes to, and returns how many they were.
    pub(crate) fn remove_zones(&self, goes: impl Fn(u32) -> bool) -> u64 {
        self.remove_all(|_, value| goes(Packed(value).location().zone))
    }

    /// Takes out the records of a zone whose directory says `listed`. Those that were used since they were stored come
    /// back as hot, up to `hot_bytes` of them, the most recently stored first.
    pub(crate) fn take_zone(&self, zone: u32, listed: &[Listed], hot_bytes: u64) -> Evicted {
        let mut evicted = Evicted::default();
        let mut room = hot_bytes;
        for slot in listed.iter().rev() {
            let key = short(&slot.key);
            let mut shard = self.shard(key).lock();
            let here = |value: &u64| Packed(*value).location() == slot.at(zone);
            let Some(packed) = shard.get(key).filter(here).map(Packed) else { continue };
            shard.remove(key);
            drop(shard);
            self.uncount(Some(packed.0));
            if packed.hits() > 0 && packed.bytes() <= room {
                room -= packed.bytes();
                evicted.hot.push((slot.key, packed.location()));
            } else {
                evicted.dropped += 1;
            }
        }
        evicted
    }

    /// Records that can be found.
    pub(crate) fn entries(&self) -> u64 {
        self.entries.load(Relaxed)
    }

    /// Bytes of the slots of the records that can be found.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Relaxed)
    }

    /// Bytes of RAM that the index takes.
    pub(crate) fn memory(&self) -> u64 {
        self.shards.iter().map(|shard| shard.lock().memory() as u64).sum()
    }

    fn remove_all(&self, goes: impl Fn(u64, u64) -> bool) -> u64 {
        let mut gone = 0;
        for shard in &self.shards {
            shard.lock().remove_all(&goes, |value| {
                gone += 1;
                self.uncount(Some(value));
            });
        }
        gone
    }

    fn count(&self, packed: Packed) {
        self.entries.fetch_add(1, Relaxed);
        self.bytes.fetch_add(packed.bytes(), Relaxed);
    }

    fn uncount(&self, old: Option<u64>) {
        if let Some(value) = old {
            self.entries.fetch_sub(1, Relaxed);
            self.bytes.fetch_sub(Packed(value).bytes(), Relaxed);
        }
    }

    fn shard(&self, key: u64) -> &Mutex<Table> {
        // The low bits: the table's places come from the high ones.
        &self.shards[spread(key) as usize % SHARDS]
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;
    use crate::ttl::Deadline;

    fn key(group: u128, item: u32) -> Key {
        Key { group, item }
    }

    fn at(zone: u32, unit: u16) -> Location {
        Location { zone, unit, units: 1 }
    }

    fn listed(key: Key, at: Location) -> Listed {
        Listed { key, unit: at.unit, units: at.units, deadline: Deadline::NEVER }
    }

    #[test]
    fn used_records_survive_their_zone_up_to_the_room_for_them() {
        let index = Index::new();
        let slots: Vec<_> = (0..4).map(|item| listed(key(1, item), at(0, item as u16))).collect();
        for slot in &slots {
            index.publish(&slot.key, slot.at(0));
        }
        for item in [0, 1, 3] {
            assert!(index.lookup(&key(1, item)).is_some());
        }
        let evicted = index.take_zone(0, &slots, 2 * UNIT as u64);
        assert_eq!(evicted.hot, [(key(1, 3), at(0, 3)), (key(1, 1), at(0, 1))]);
        assert_eq!(evicted.dropped, 2);
        assert_eq!((index.entries(), index.bytes()), (0, 0));
    }

    #[test]
    fn a_replaced_record_does_not_die_with_its_former_zone() {
        let index = Index::new();
        index.publish(&key(1, 1), at(0, 0));
        index.publish(&key(1, 1), at(1, 5));
        assert_eq!(index.take_zone(0, &[listed(key(1, 1), at(0, 0))], 0).dropped, 0);
        assert_eq!(index.lookup(&key(1, 1)), Some(at(1, 5)));
    }

    #[test]
    fn the_largest_values_of_every_field_are_kept_apart() {
        let index = Index::new();
        let edge = Location { zone: MAX_ZONES - 1, unit: u16::MAX, units: 1 << 14 };
        for (item, place) in [edge, at(MAX_ZONES - 1, 0), at(0, u16::MAX), Location { units: 1 << 14, ..at(0, 0) }]
            .into_iter()
            .enumerate()
        {
            index.publish(&key(1, item as u32), place);
            for _ in 0..20 {
                assert_eq!(index.lookup(&key(1, item as u32)), Some(place));
            }
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Publish(u128, u32, u32),
        Remove(u128, u32),
        RemoveGroups(Groups),
        RemoveZone(u32),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            8 => (0u128..4, 0u32..8, 0u32..3).prop_map(|(group, item, zone)| Step::Publish(group, item, zone)),
            2 => (0u128..4, 0u32..8).prop_map(|(group, item)| Step::Remove(group, item)),
            1 => prop::collection::vec(0u128..4, 0..3).prop_map(|groups| Step::RemoveGroups(groups.into_iter().collect())),
            1 => (0u32..3).prop_map(Step::RemoveZone),
        ]
    }

    proptest! {
        #[test]
        fn behaves_as_a_map_of_zones(steps in prop::collection::vec(step(), 1..200)) {
            let index = Index::new();
            let mut model: HashMap<Key, Location> = HashMap::new();
            for (unit, step) in steps.into_iter().enumerate() {
                match step {
                    Step::Publish(group, item, zone) => {
                        index.publish(&key(group, item), at(zone, unit as u16));
                        model.insert(key(group, item), at(zone, unit as u16));
                    }
                    Step::Remove(group, item) => {
                        let there = model.remove(&key(group, item)).is_some();
                        prop_assert_eq!(index.remove(&key(group, item), None), there);
                    }
                    Step::RemoveGroups(groups) => {
                        index.remove_groups(&groups);
                        model.retain(|key, _| !groups.contains(&key.group));
                    }
                    Step::RemoveZone(gone) => {
                        let before = model.len();
                        model.retain(|_, location| location.zone != gone);
                        prop_assert_eq!(index.remove_zones(|zone| zone == gone), (before - model.len()) as u64);
                    }
                }
                prop_assert_eq!(index.entries(), model.len() as u64);
                prop_assert_eq!(index.bytes(), (model.len() * UNIT) as u64);
                for (group, item) in (0..4).flat_map(|group| (0..8).map(move |item| (group, item))) {
                    let key = key(group, item);
                    prop_assert_eq!(index.location(&key), model.get(&key).copied());
                }
            }
        }
    }
}
