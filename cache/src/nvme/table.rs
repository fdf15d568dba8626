//! Owns a hash table of 20-byte entries that grows by an eighth: the index of the NVMe tier at 24 to 27 bytes a record.
//! Pure.
//!
//! Linear probing, with deletions that shift back (Knuth, TAOCP 6.4, algorithm R), so nothing is left behind for later
//! searches to step over. The standard map would double, which costs up to 50 bytes a record after each doubling.

use crate::key::spread;

/// What a key has: a word that is never zero, as zero marks an empty place, and 32 bits more.
pub(super) type Value = (u64, u32);

/// Packed, or four bytes of each would be lost.
#[derive(Clone, Copy)]
#[repr(C, packed(4))]
struct Entry {
    key: u64,
    word: u64,
    more: u32,
}

const EMPTY: Entry = Entry { key: 0, word: 0, more: 0 };
const SMALLEST: usize = 16;

/// The table.
#[derive(Default)]
pub(super) struct Table {
    places: Box<[Entry]>,
    used: usize,
}

impl Table {
    /// The value of `key`.
    pub(super) fn get(&self, key: u64) -> Option<Value> {
        let at = self.find(key)?;
        self.places.get(at).map(|entry| (entry.word, entry.more))
    }

    /// Changes the word of `key`, and returns its new value. The word must not become zero.
    pub(super) fn update(&mut self, key: u64, change: impl FnOnce(u64) -> u64) -> Option<Value> {
        let at = self.find(key)?;
        let entry = self.places.get_mut(at)?;
        entry.word = change(entry.word);
        Some((entry.word, entry.more))
    }

    /// Sets the value of `key`, whose word is not zero, and returns the former word.
    pub(super) fn insert(&mut self, key: u64, (word, more): Value) -> Option<u64> {
        debug_assert!(word != 0, "zero marks an empty place");
        if let Some(entry) = self.find(key).and_then(|at| self.places.get_mut(at)) {
            let former = entry.word;
            (entry.word, entry.more) = (word, more);
            return Some(former);
        }
        // At most five sixths are used: a search for what is not there then looks at 18 places on average.
        if (self.used + 1) * 6 > self.places.len() * 5 {
            self.grow();
        }
        place(&mut self.places, Entry { key, word, more });
        self.used += 1;
        None
    }

    /// Takes `key` out, and returns its word.
    pub(super) fn remove(&mut self, key: u64) -> Option<u64> {
        let at = self.find(key)?;
        let word = self.places.get(at)?.word;
        self.vacate(at);
        Some(word)
    }

    /// Takes out what `goes` says yes to, given key and word, and calls `gone` with each word.
    pub(super) fn remove_all(&mut self, goes: impl Fn(u64, u64) -> bool, mut gone: impl FnMut(u64)) {
        let mut at = 0;
        while let Some(&Entry { key, word, .. }) = self.places.get(at) {
            if word != 0 && goes(key, word) {
                // Another entry may have moved here: look again.
                self.vacate(at);
                gone(word);
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
            let Entry { key: found, word, .. } = *self.places.get(at)?;
            if word == 0 {
                return None;
            } else if found == key {
                return Some(at);
            }
            at = after(at, len);
        }
    }

    fn grow(&mut self) {
        let len = self.places.len();
        let mut places = vec![EMPTY; (len + len / 8).max(SMALLEST)].into_boxed_slice();
        for &entry in self.places.iter().filter(|entry| entry.word != 0) {
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
            if entry.word == 0 {
                break;
            }
            // Whether the entry's home lies behind the hole, up to where the entry is: then it can't move to the hole.
            let home = home(entry.key, len);
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
    let mut at = home(entry.key, len);
    while let Some(found) = places.get_mut(at) {
        if found.word == 0 {
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
        Update(u64),
        Remove(u64),
        RemoveMultiples(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            8 => (0u64..300, 1u64..1000).prop_map(|(key, value)| Step::Insert(key, value)),
            4 => (0u64..300).prop_map(Step::Update),
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
                    Step::Insert(key, word) => {
                        let value = (word, (word * 7) as u32);
                        prop_assert_eq!(table.insert(key, value), model.insert(key, value).map(|former| former.0));
                    }
                    Step::Update(key) => {
                        if let Some(value) = model.get_mut(&key) {
                            value.0 += 1;
                        }
                        prop_assert_eq!(table.update(key, |word| word + 1), model.get(&key).copied());
                    }
                    Step::Remove(key) => prop_assert_eq!(table.remove(key), model.remove(&key).map(|former| former.0)),
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
    fn an_entry_costs_24_to_27_bytes() {
        let mut table = Table::default();
        for key in 0..200_000 {
            table.insert(key, (1, 0));
            if key > 1000 {
                let each = table.memory() as f64 / (key + 1) as f64;
                assert!((23.9..27.2).contains(&each), "{each} bytes each at {key}");
            }
        }
    }
}
