//! Owns [`Key`]: the name of one cached record, its hash and its 20-byte form.

use std::hash::{Hash, Hasher};

use rustc_hash::FxHashSet;

/// Groups that go together.
pub(crate) type Groups = FxHashSet<u128>;

/// Names one cached record. Opaque: the engine puts an object's 128-bit id and a page's offset or number in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// The record's group; [`crate::Cache::remove_groups`] drops all of it.
    pub group: u128,
    /// The record within its group.
    pub item: u32,
}

impl Key {
    /// One 64-bit mix of the whole key: picks shards, and feeds the hash maps.
    pub(crate) fn mix(&self) -> u64 {
        let folded = (self.group as u64) ^ ((self.group >> 64) as u64).rotate_left(23);
        let with_item = folded ^ u64::from(self.item).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let spread = with_item.wrapping_mul(0xD6E8_FEB8_6659_FD93);
        spread ^ (spread >> 32)
    }
}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.mix());
    }
}

/// The finalizer of SplitMix64 (Steele, Lea and Flood 2014): every bit of the result depends on every bit of `x`.
pub(crate) fn spread(x: u64) -> u64 {
    let x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbouring_items_spread_over_64_shards() {
        let mut shards = [0u32; 64];
        for item in 0..6400 {
            shards[(Key { group: 7 << 64 | 9, item }.mix() >> 48) as usize % 64] += 1;
        }
        assert!(shards.iter().all(|&n| (50..200).contains(&n)), "{shards:?}");
    }
}
