//! Owns the index of the NVMe tier: which key lies where, and how often it was read since it was stored.
//!
//! Sharded. A key is kept as 64 bits: a 32-bit hash of its group, and its item. Two groups whose hashes are the same (one
//! pair among 90,000 groups, on average) push each other's records out; a slot names its whole key, so that a read finds
//! out and is a miss. In return a record costs 24 to 27 bytes of RAM, and no shared table of groups is in the way.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use parking_lot::Mutex;

use super::{
    slot::{Listed, UNIT, UNITS_OF_BLOCK},
    table::{Table, Value},
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

/// What the index has of the header of a payload that lies apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Apart {
    /// The record's checksum.
    pub(crate) crc: u32,
    /// Its deadline, as the span of its zone shortens it.
    pub(crate) deadline: u16,
}

/// A [`Location`], a count of reads and a short deadline in one word that is never zero. From the lowest bit on: reads 4,
/// zone 24, whether the payload lies apart 1; then unit 16 and units 15, or first block 10, blocks 9 and deadline 16.
#[derive(Clone, Copy)]
struct Packed(u64);

impl Packed {
    fn new(at: Location, apart: Option<Apart>) -> Self {
        let rest = match apart {
            None => u64::from(at.unit) | u64::from(at.units) << 16,
            Some(apart) => {
                let (block, blocks) = (at.unit / UNITS_OF_BLOCK, at.units / UNITS_OF_BLOCK);
                u64::from(block) | u64::from(blocks) << 10 | u64::from(apart.deadline) << 19
            }
        };
        Self(u64::from(at.zone) << 4 | u64::from(apart.is_some()) << 28 | rest << 29)
    }

    fn zone(self) -> u32 {
        (self.0 >> 4) as u32 & (MAX_ZONES - 1)
    }

    fn location(self) -> Location {
        let (zone, rest) = (self.zone(), self.0 >> 29);
        if self.is_apart() {
            let (block, blocks) = (rest as u16 & 0x3FF, (rest >> 10) as u16 & 0x1FF);
            Location { zone, unit: block * UNITS_OF_BLOCK, units: blocks * UNITS_OF_BLOCK }
        } else {
            Location { zone, unit: rest as u16, units: (rest >> 16) as u16 & 0x7FFF }
        }
    }

    fn is_apart(self) -> bool {
        self.0 >> 28 & 1 == 1
    }

    fn apart(self, crc: u32) -> Option<Apart> {
        self.is_apart().then_some(Apart { crc, deadline: (self.0 >> 48) as u16 })
    }

    fn hits(self) -> u64 {
        self.0 & MAX_HITS
    }

    fn with_hit(self) -> Self {
        if self.hits() < MAX_HITS { Self(self.0 + 1) } else { self }
    }

    fn bytes(self) -> u64 {
        u64::from(self.location().units) * UNIT as u64
    }
}

/// The 64 bits of a key.
fn short(key: &Key) -> u64 {
    group_bits(key.group) << 32 | u64::from(key.item)
}

fn location((word, _): Value) -> Location {
    Packed(word).location()
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
    pub(crate) hot: Vec<Listed>,
    /// Records dropped for want of room (not counting the hot ones).
    pub(crate) dropped: u64,
}

impl Index {
    pub(crate) fn new() -> Self {
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        Self { shards, entries: AtomicU64::new(0), bytes: AtomicU64::new(0) }
    }

    /// Where `key` lies, and what is known of its header if its payload lies apart. Counts a use.
    pub(crate) fn lookup(&self, key: &Key) -> Option<(Location, Option<Apart>)> {
        let key = short(key);
        let (word, crc) = self.shard(key).lock().update(key, |word| Packed(word).with_hit().0)?;
        Some((Packed(word).location(), Packed(word).apart(crc)))
    }

    pub(crate) fn contains(&self, key: &Key) -> bool {
        self.location(key).is_some()
    }

    /// [`Index::lookup`] that counts as nothing.
    pub(crate) fn find(&self, key: &Key) -> Option<(Location, Option<Apart>)> {
        let key = short(key);
        let (word, crc) = self.shard(key).lock().get(key)?;
        Some((Packed(word).location(), Packed(word).apart(crc)))
    }

    /// Where `key` lies. Counts as nothing.
    pub(crate) fn location(&self, key: &Key) -> Option<Location> {
        self.find(key).map(|(location, _)| location)
    }

    /// Enters a record that has been written. A former record of the key is forgotten.
    pub(crate) fn publish(&self, key: &Key, at: Location, apart: Option<Apart>) {
        let (key, packed) = (short(key), Packed::new(at, apart));
        let old = self.shard(key).lock().insert(key, (packed.0, apart.map_or(0, |apart| apart.crc)));
        self.count(packed);
        self.uncount(old);
    }

    /// Forgets a record; with `only_at`, only if it still lies there.
    pub(crate) fn remove(&self, key: &Key, only_at: Option<Location>) -> bool {
        let key = short(key);
        let mut shard = self.shard(key).lock();
        let there = shard.get(key).is_some_and(|value| only_at.is_none_or(|at| at == location(value)));
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
        self.remove_all(|_, word| goes(Packed(word).zone()))
    }

    /// Takes out the records of a zone whose directory says `listed`. Those that were used since they were stored come
    /// back as hot, up to `hot_bytes` of them, the most recently stored first.
    pub(crate) fn take_zone(&self, zone: u32, listed: &[Listed], hot_bytes: u64) -> Evicted {
        let mut evicted = Evicted::default();
        let mut room = hot_bytes;
        for slot in listed.iter().rev() {
            let key = short(&slot.key);
            let mut shard = self.shard(key).lock();
            let here = |value: &Value| location(*value) == slot.at(zone);
            let Some(packed) = shard.get(key).filter(here).map(|(word, _)| Packed(word)) else { continue };
            shard.remove(key);
            drop(shard);
            self.uncount(Some(packed.0));
            if packed.hits() > 0 && packed.bytes() <= room {
                room -= packed.bytes();
                evicted.hot.push(*slot);
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
        Listed { key, unit: at.unit, units: at.units, deadline: Deadline::NEVER, apart: None }
    }

    #[test]
    fn used_records_survive_their_zone_up_to_the_room_for_them() {
        let index = Index::new();
        let slots: Vec<_> = (0..4).map(|item| listed(key(1, item), at(0, item as u16))).collect();
        for slot in &slots {
            index.publish(&slot.key, slot.at(0), None);
        }
        for item in [0, 1, 3] {
            assert!(index.lookup(&key(1, item)).is_some());
        }
        let evicted = index.take_zone(0, &slots, 2 * UNIT as u64);
        assert_eq!(evicted.hot, [slots[3], slots[1]]);
        assert_eq!(evicted.dropped, 2);
        assert_eq!((index.entries(), index.bytes()), (0, 0));
    }

    #[test]
    fn a_replaced_record_does_not_die_with_its_former_zone() {
        let index = Index::new();
        index.publish(&key(1, 1), at(0, 0), None);
        index.publish(&key(1, 1), at(1, 5), None);
        assert_eq!(index.take_zone(0, &[listed(key(1, 1), at(0, 0))], 0).dropped, 0);
        assert_eq!(index.lookup(&key(1, 1)), Some((at(1, 5), None)));
    }

    #[test]
    fn the_largest_values_of_every_field_are_kept_apart() {
        let index = Index::new();
        let edge = Location { zone: MAX_ZONES - 1, unit: u16::MAX, units: 1 << 14 };
        let whole = Location { zone: MAX_ZONES - 1, unit: u16::MAX - 63, units: 1 << 14 };
        let apart = |crc, deadline| Some(Apart { crc, deadline });
        let cases = [
            (edge, None),
            (at(MAX_ZONES - 1, 0), None),
            (at(0, u16::MAX), None),
            (Location { units: 1 << 14, ..at(0, 0) }, None),
            (whole, apart(u32::MAX, u16::MAX)),
            (whole, apart(0, 0)),
            (Location { units: 64, ..at(0, 0) }, apart(u32::MAX, 0)),
            (Location { units: 64, ..at(0, u16::MAX - 63) }, apart(0, u16::MAX)),
        ];
        for (item, (place, apart)) in cases.into_iter().enumerate() {
            index.publish(&key(1, item as u32), place, apart);
            for _ in 0..20 {
                assert_eq!(index.lookup(&key(1, item as u32)), Some((place, apart)));
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
                        index.publish(&key(group, item), at(zone, unit as u16), None);
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
