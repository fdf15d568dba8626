//! Owns the index of the NVMe tier: which key lies where, which zone is filled next, and who survives eviction. Pure.
//!
//! Groups are interned, so that a record costs 17 bytes of map at its load factor plus 8 bytes of its zone's list.

use std::collections::VecDeque;

use rustc_hash::FxHashMap;

use crate::Key;

/// Where a slot lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Location {
    pub(crate) zone: u32,
    /// First block within the zone.
    pub(crate) block: u16,
    pub(crate) blocks: u16,
}

/// A key with its group interned.
type Short = (u32, u32);

/// A map value: a [`Location`] in 8 bytes, with its hit count.
#[derive(Clone, Copy)]
struct Packed {
    zone: u32,
    block: u16,
    /// Blocks less one: slots have 1 to 256.
    more_blocks: u8,
    hits: u8,
}

impl Packed {
    fn location(self) -> Location {
        Location { zone: self.zone, block: self.block, blocks: u16::from(self.more_blocks) + 1 }
    }
}

#[derive(Default)]
struct Group {
    id: u128,
    /// Records in the map, dead ones included; at zero the number is free again.
    records: u32,
    blocks: u64,
    dead: bool,
}

/// The index.
#[derive(Default)]
pub(crate) struct Index {
    map: FxHashMap<Short, Packed>,
    numbers: FxHashMap<u128, u32>,
    groups: Vec<Group>,
    free_numbers: Vec<u32>,
    /// Keys written into each zone, in order; some of them may have moved on since.
    zones: Vec<Vec<Short>>,
    /// Zones in the order in which they are to be filled: unused ones, then the oldest.
    order: VecDeque<u32>,
    entries: u64,
    blocks: u64,
}

/// What evicting a zone did.
#[derive(Debug, Default)]
pub(crate) struct Evicted {
    /// Records that were read since they were stored, to be stored again.
    pub(crate) hot: Vec<(Key, Location)>,
    /// Records dropped for want of room (not counting the hot ones, nor those of removed groups).
    pub(crate) dropped: u64,
}

impl Index {
    /// An empty index of `zones` zones, to be filled in the order given.
    pub(crate) fn new(order: Vec<u32>) -> Self {
        Self { zones: vec![Vec::new(); order.len()], order: order.into(), ..Self::default() }
    }

    /// Where `key` lies. Counts a use.
    pub(crate) fn lookup(&mut self, key: &Key) -> Option<Location> {
        let short = self.short(key)?;
        let packed = self.map.get_mut(&short)?;
        packed.hits = packed.hits.saturating_add(1);
        Some(packed.location())
    }

    pub(crate) fn contains(&self, key: &Key) -> bool {
        self.short(key).is_some_and(|short| self.map.contains_key(&short))
    }

    /// Enters a record that has been written. A former record of the key is forgotten.
    pub(crate) fn publish(&mut self, key: Key, location: Location) {
        let Some(zone_keys) = self.zones.get_mut(location.zone as usize) else { return };
        let number = match self.numbers.get(&key.group) {
            Some(&number) => number,
            None => intern(&mut self.numbers, &mut self.groups, &mut self.free_numbers, key.group),
        };
        let short = (number, key.item);
        zone_keys.push(short);
        let more_blocks = location.blocks.saturating_sub(1).min(255) as u8;
        let packed = Packed { zone: location.zone, block: location.block, more_blocks, hits: 0 };
        if let Some(group) = self.groups.get_mut(number as usize) {
            group.records += 1;
            group.blocks += u64::from(location.blocks);
        }
        self.entries += 1;
        self.blocks += u64::from(location.blocks);
        if let Some(old) = self.map.insert(short, packed) {
            self.uncount(number, old);
        }
    }

    /// Forgets a record; with `only_at`, only if it still lies there.
    pub(crate) fn remove(&mut self, key: &Key, only_at: Option<Location>) -> bool {
        let Some(short) = self.short(key) else { return false };
        match self.map.get(&short) {
            Some(packed) if only_at.is_none_or(|at| at == packed.location()) => self.drop_short(short),
            _ => false,
        }
    }

    /// Forgets a whole group at once; its entries leave the map as their zones are recycled.
    pub(crate) fn remove_group(&mut self, id: u128) {
        let Some(number) = self.numbers.remove(&id) else { return };
        if let Some(group) = self.groups.get_mut(number as usize) {
            group.dead = true;
            self.entries -= u64::from(group.records);
            self.blocks -= group.blocks;
        }
    }

    /// Empties the zone that is to be filled next, and names it. Records that were used since they were stored come
    /// back as hot, up to `hot_blocks` blocks of them, the most recently stored first.
    pub(crate) fn next_zone(&mut self, hot_blocks: u16) -> Option<(u32, Evicted)> {
        let zone = self.order.pop_front()?;
        self.order.push_back(zone);
        let keys = self.zones.get_mut(zone as usize).map(std::mem::take).unwrap_or_default();
        let mut evicted = Evicted::default();
        let mut room = hot_blocks;
        for short in keys.into_iter().rev() {
            let Some(packed) = self.map.get(&short).copied().filter(|packed| packed.zone == zone) else { continue };
            let location = packed.location();
            match self.groups.get(short.0 as usize).filter(|group| !group.dead).map(|group| group.id) {
                Some(group) if packed.hits > 0 && location.blocks <= room => {
                    room -= location.blocks;
                    evicted.hot.push((Key { group, item: short.1 }, location));
                }
                Some(_) => evicted.dropped += 1,
                None => {}
            }
            self.drop_short(short);
        }
        Some((zone, evicted))
    }

    /// Records that can be found.
    pub(crate) fn entries(&self) -> u64 {
        self.entries
    }

    /// Blocks of the records that can be found.
    pub(crate) fn blocks(&self) -> u64 {
        self.blocks
    }

    fn short(&self, key: &Key) -> Option<Short> {
        self.numbers.get(&key.group).map(|&number| (number, key.item))
    }

    fn drop_short(&mut self, short: Short) -> bool {
        match self.map.remove(&short) {
            Some(packed) => {
                self.uncount(short.0, packed);
                true
            }
            None => false,
        }
    }

    fn uncount(&mut self, number: u32, packed: Packed) {
        let Some(group) = self.groups.get_mut(number as usize) else { return };
        let blocks = u64::from(packed.location().blocks);
        group.records -= 1;
        group.blocks -= blocks;
        if !group.dead {
            self.entries -= 1;
            self.blocks -= blocks;
        }
        if group.records == 0 {
            if !group.dead {
                self.numbers.remove(&group.id);
            }
            self.free_numbers.push(number);
        }
    }
}

fn intern(numbers: &mut FxHashMap<u128, u32>, groups: &mut Vec<Group>, free: &mut Vec<u32>, id: u128) -> u32 {
    let group = Group { id, ..Group::default() };
    let number = match free.pop() {
        Some(number) => number,
        None => groups.len() as u32,
    };
    match groups.get_mut(number as usize) {
        Some(place) => *place = group,
        None => groups.push(group),
    }
    numbers.insert(id, number);
    number
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    fn key(group: u128, item: u32) -> Key {
        Key { group, item }
    }

    fn at(zone: u32, block: u16) -> Location {
        Location { zone, block, blocks: 1 }
    }

    #[test]
    fn zones_are_filled_in_the_given_order_then_round_robin() {
        let mut index = Index::new(vec![2, 0, 1]);
        let order: Vec<u32> = (0..5).map(|_| index.next_zone(0).unwrap().0).collect();
        assert_eq!(order, [2, 0, 1, 2, 0]);
    }

    #[test]
    fn used_records_survive_their_zone_up_to_the_room_for_them() {
        let mut index = Index::new(vec![0]);
        for item in 0..4 {
            index.publish(key(1, item), at(0, item as u16));
        }
        for item in [0, 1, 3] {
            assert!(index.lookup(&key(1, item)).is_some());
        }
        let (_, evicted) = index.next_zone(2).unwrap();
        assert_eq!(evicted.hot, [(key(1, 3), at(0, 3)), (key(1, 1), at(0, 1))]);
        assert_eq!(evicted.dropped, 2);
        assert_eq!((index.entries(), index.blocks()), (0, 0));
    }

    #[test]
    fn a_replaced_record_does_not_die_with_its_former_zone() {
        let mut index = Index::new(vec![0, 1]);
        index.publish(key(1, 1), at(0, 0));
        index.publish(key(1, 1), at(1, 5));
        assert_eq!(index.next_zone(0).unwrap().1.dropped, 0);
        assert_eq!(index.lookup(&key(1, 1)), Some(at(1, 5)));
    }

    #[test]
    fn a_removed_groups_number_serves_again_only_when_its_records_are_gone() {
        let mut index = Index::new(vec![0, 1]);
        index.publish(key(1, 1), at(0, 0));
        index.remove_group(1);
        index.publish(key(2, 1), at(1, 0));
        index.publish(key(1, 1), at(1, 1));
        assert_eq!(index.lookup(&key(1, 1)), Some(at(1, 1)));
        assert_eq!(index.lookup(&key(2, 1)), Some(at(1, 0)));
        assert_eq!(index.next_zone(9).unwrap().1.dropped, 0);
        assert_eq!(index.entries(), 2);
        assert_eq!(index.groups.len(), 3);
        index.publish(key(3, 1), at(0, 0));
        assert_eq!(index.groups.len(), 3);
    }

    #[derive(Clone, Debug)]
    enum Step {
        Publish(u128, u32),
        Remove(u128, u32),
        RemoveGroup(u128),
        NextZone,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            8 => (0u128..4, 0u32..8).prop_map(|(g, i)| Step::Publish(g, i)),
            2 => (0u128..4, 0u32..8).prop_map(|(g, i)| Step::Remove(g, i)),
            1 => (0u128..4).prop_map(Step::RemoveGroup),
            2 => Just(Step::NextZone),
        ]
    }

    proptest! {
        #[test]
        fn behaves_as_a_map_whose_zones_empty(steps in prop::collection::vec(step(), 1..200)) {
            let mut index = Index::new(vec![0, 1, 2]);
            let mut model: HashMap<Key, Location> = HashMap::new();
            let (mut zone, mut block) = (index.next_zone(0).unwrap().0, 0);
            for step in steps {
                match step {
                    Step::Publish(group, item) => {
                        block += 1;
                        index.publish(key(group, item), at(zone, block));
                        model.insert(key(group, item), at(zone, block));
                    }
                    Step::Remove(group, item) => {
                        let there = model.remove(&key(group, item)).is_some();
                        prop_assert_eq!(index.remove(&key(group, item), None), there);
                    }
                    Step::RemoveGroup(group) => {
                        index.remove_group(group);
                        model.retain(|key, _| key.group != group);
                    }
                    Step::NextZone => {
                        zone = index.next_zone(0).unwrap().0;
                        block = 0;
                        model.retain(|_, location| location.zone != zone);
                    }
                }
                prop_assert_eq!(index.entries(), model.len() as u64);
                prop_assert_eq!(index.blocks(), model.len() as u64);
                for group in 0..4 {
                    for item in 0..8 {
                        prop_assert_eq!(index.contains(&key(group, item)), model.contains_key(&key(group, item)));
                    }
                }
            }
            for (key, location) in model {
                prop_assert_eq!(index.lookup(&key), Some(location));
            }
        }
    }
}
