//! Owns the memory of what was asked for of late: a doorkeeper, as TinyLFU (Einziger, Friedman and Manes 2017) calls it. Pure.
//!
//! Two Bloom filters. One takes keys; when it has taken its number, it takes the place of the other, and an empty one goes
//! on. So a key is remembered while as many others come, and forgotten after twice as many.

use crate::Key;

/// Bits a key, and how many of them it sets: of 100 keys never seen some 2 are taken for seen in a full filter.
const BITS: u64 = 8;
const PROBES: u64 = 4;

/// The keys asked for of late. Takes two bytes for each of the keys that it was made for.
pub(crate) struct Seen {
    keys: u64,
    taken: u64,
    now: Box<[u64]>,
    before: Box<[u64]>,
}

impl Seen {
    /// Remembers the last `keys` keys at least.
    pub(crate) fn new(keys: u64) -> Self {
        let keys = keys.max(64);
        let words = (keys * BITS).div_ceil(64) as usize;
        let empty = || vec![0; words].into_boxed_slice();
        Self { keys, taken: 0, now: empty(), before: empty() }
    }

    /// Notes a key; whether it was noted before, most likely.
    pub(crate) fn note(&mut self, key: &Key) -> bool {
        let bits = bits(key, self.now.len() as u64);
        let in_now = set(&mut self.now, bits);
        if in_now {
            return true;
        }
        let seen = has(&self.before, bits);
        self.taken += 1;
        if self.taken >= self.keys {
            std::mem::swap(&mut self.now, &mut self.before);
            self.now.fill(0);
            self.taken = 0;
        }
        seen
    }

    /// Whether a key was noted, most likely.
    pub(crate) fn has(&self, key: &Key) -> bool {
        let bits = bits(key, self.now.len() as u64);
        has(&self.now, bits) || has(&self.before, bits)
    }

    /// Remembers the last `keys` keys from now on, at most as many as it has room for.
    pub(crate) fn remember(&mut self, keys: u64) {
        self.keys = keys.clamp(1, self.now.len() as u64 * 64 / BITS);
    }

    /// Bytes of RAM taken.
    pub(crate) fn memory(&self) -> u64 {
        2 * size_of_val::<[u64]>(&self.now) as u64
    }
}

/// The bits of a key among those of so many words (Kirsch and Mitzenmacher 2006: two hashes make any number).
fn bits(key: &Key, words: u64) -> [u64; PROBES as usize] {
    let first = key.mix();
    let step = crate::key::spread(first) | 1;
    std::array::from_fn(|n| {
        let hash = first.wrapping_add((n as u64).wrapping_mul(step));
        ((u128::from(hash) * u128::from(words * 64)) >> 64) as u64
    })
}

fn has(filter: &[u64], bits: [u64; PROBES as usize]) -> bool {
    bits.iter().all(|bit| filter.get((bit / 64) as usize).is_some_and(|word| word >> (bit % 64) & 1 == 1))
}

/// Sets the bits; whether all were set.
fn set(filter: &mut [u64], bits: [u64; PROBES as usize]) -> bool {
    let all = has(filter, bits);
    for bit in bits {
        if let Some(word) = filter.get_mut((bit / 64) as usize) {
            *word |= 1 << (bit % 64);
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(item: u32) -> Key {
        Key { group: 3, item }
    }

    fn note_all(seen: &mut Seen, items: std::ops::Range<u32>) {
        for item in items {
            seen.note(&key(item));
        }
    }

    #[test]
    fn a_key_is_remembered_while_as_many_others_come() {
        for others in [0, 10, 500, 999] {
            let mut seen = Seen::new(1000);
            note_all(&mut seen, 5000..5400);
            seen.note(&key(1));
            note_all(&mut seen, 10_000..10_000 + others);
            assert!(seen.note(&key(1)), "after {others} others");
        }
    }

    #[test]
    fn what_is_long_ago_is_forgotten_and_what_never_was_is_rarely_taken_for_seen() {
        let mut seen = Seen::new(1000);
        note_all(&mut seen, 0..10_000);
        let mistaken = (0..1000).filter(|item| seen.note(&key(*item))).count();
        assert!(mistaken < 100, "{mistaken} of 1000, asked for 9000 keys ago");
    }
}
