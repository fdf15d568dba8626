//! Owns a hash table of 16-byte entries that grows by a quarter: the index of the NVMe tier at 20 to 25 bytes a record.
//! Pure.
//!
//! Linear probing, with deletions that shift back (Knuth, TAOCP 6.4, algorithm R), so nothing is left behind for later
//! searches to step over. The standard map would double, which costs up to 36 bytes a record after each doubling.

use crate::key::spread;

/// An entry: a key, and a value that is never zero; zero marks an empty place.
pub(super) type Entry = (u64, u64);

const EMPTY: Entry = (0, 0);
const SMALLEST: usize = 16;

/// The table.
#[derive(Default)]
pub(super) struct Table {
    places: Box<[Entry]>,
    used: usize,
}

impl Table {
    /// The value of `key`.
    pub(super) fn get(&self, key: u64) -> Option<u64> {
        let at = self.find(key)?;
        self.places.get(at).map(|entry| entry.1)
    }

    /// The value of `key`, to be changed. It must not become zero.
    pub(super) fn get_mut(&mut self, key: u64) -> Option<&mut u64> {
        let at = self.find(key)?;
        self.places.get_mut(at).map(|entry| &mut entry.1)
    }

    /// Sets the value (not zero) of `key`, and returns the former one.
    pub(super) fn insert(&mut self, key: u64, value: u64) -> Option<u64> {
        debug_assert!(value != 0, "zero marks an empty place");
        if let Some(old) = self.get_mut(key) {
            return Some(std::mem::replace(old, value));
        }
        // At most four fifths are used: a search for what is not there then looks at 13 places on average.
        if (self.used + 1) * 5 > self.places.len() * 4 {
            self.grow();
        }
        place(&mut self.places, (key, value));
        self.used += 1;
        None
    }

    /// Takes `key` out, and returns its value.
    pub(super) fn remove(&mut self, key: u64) -> Option<u64> {
        let at = self.find(key)?;
        let (_, value) = self.places.get(at).copied()?;
        self.vacate(at);
        Some(value)
    }

    /// Takes out what `goes` says yes to, and calls `gone` with each value.
    pub(super) fn remove_all(&mut self, goes: impl Fn(u64, u64) -> bool, mut gone: impl FnMut(u64)) {
        let mut at = 0;
        while let Some(&(key, value)) = self.places.get(at) {
            if value != 0 && goes(key, value) {
                // Another entry may have moved here: look again.
                self.vacate(at);
                gone(value);
            } else {
                at += 1;
            }
        }
    }

    /// Bytes of memory taken.
    pub(super) fn memory(&self) -> usize {
        size_of_val::<[Entry]>(&self.places)
    }

    fn find(&self, key: u64) -> Option<usize> {
        let len = self.places.len();
        let mut at = home(key, len);
        loop {
            match self.places.get(at)? {
                (_, 0) => return None,
                (found, _) if *found == key => return Some(at),
                _ => at = after(at, len),
            }
        }
    }

    fn grow(&mut self) {
        let mut places = vec![EMPTY; (self.places.len() / 4 * 5).max(SMALLEST)].into_boxed_slice();
        for &entry in self.places.iter().filter(|entry| entry.1 != 0) {
            place(&mut places, entry);
        }
        self.places = places;
    }

    /// Empties a place, and moves back what had to step over it.
    fn vacate(&mut self, mut hole: usize) {
        let len = self.places.len();
        let mut at = hole;
        loop {
            at = after(at, len);
            let Some(&entry) = self.places.get(at) else { break };
            if entry.1 == 0 {
                break;
            }
            // Whether the entry's home lies behind the hole, up to where the entry is: then it can't move to the hole.
            let home = home(entry.0, len);
            let stays = if hole <= at { hole < home && home <= at } else { hole < home || home <= at };
            if !stays {
                if let Some(to) = self.places.get_mut(hole) {
                    *to = entry;
                }
                hole = at;
            }
        }
        if let Some(empty) = self.places.get_mut(hole) {
            *empty = EMPTY;
        }
        self.used -= 1;
    }
}

/// Puts an entry whose key is not there into the first free place from its home on.
fn place(places: &mut [Entry], entry: Entry) {
    let len = places.len();
    let mut at = home(entry.0, len);
    while let Some(found) = places.get_mut(at) {
        if found.1 == 0 {
            *found = entry;
            return;
        }
        at = after(at, len);
    }
}

fn after(at: usize, len: usize) -> usize {
    if at + 1 == len { 0 } else { at + 1 }
}

/// Where a key belongs: its hash, scaled to the table's size (Lemire, "Fast random integer generation in an interval").
fn home(key: u64, len: usize) -> usize {
    ((u128::from(spread(key)) * len as u128) >> 64) as usize
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Step {
        Insert(u64, u64),
        Remove(u64),
        RemoveMultiples(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            8 => (0u64..300, 1u64..1000).prop_map(|(key, value)| Step::Insert(key, value)),
            4 => (0u64..300).prop_map(Step::Remove),
            1 => (2u64..9).prop_map(Step::RemoveMultiples),
        ]
    }

    proptest! {
        #[test]
        fn behaves_as_a_map(steps in prop::collection::vec(step(), 1..600)) {
            let (mut table, mut model) = (Table::default(), HashMap::new());
            for step in steps {
                match step {
                    Step::Insert(key, value) => prop_assert_eq!(table.insert(key, value), model.insert(key, value)),
                    Step::Remove(key) => prop_assert_eq!(table.remove(key), model.remove(&key)),
                    Step::RemoveMultiples(n) => {
                        let mut gone = 0;
                        table.remove_all(|key, _| key % n == 0, |_| gone += 1);
                        let before = model.len();
                        model.retain(|key, _| key % n != 0);
                        prop_assert_eq!(gone, before - model.len());
                    }
                }
                for key in 0..300 {
                    prop_assert_eq!(table.get(key), model.get(&key).copied(), "key {}", key);
                }
            }
        }
    }

    #[test]
    fn an_entry_costs_20_to_25_bytes() {
        let mut table = Table::default();
        for key in 0..200_000 {
            table.insert(key, 1);
            if key > 1000 {
                let each = table.memory() as f64 / (key + 1) as f64;
                assert!((19.9..25.2).contains(&each), "{each} bytes each at {key}");
            }
        }
    }
}
