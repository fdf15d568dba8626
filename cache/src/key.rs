//! Owns [`Key`]: the name of one cached record, its hash and its 20-byte form.

use std::hash::{Hash, Hasher};

/// Names one cached record. Opaque: the engine puts an object's 128-bit id and a page's offset or number in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// The record's group; [`crate::Cache::remove_group`] drops all of it.
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
