//! The words shared by both halves of the engine: commit numbers, internal keys, operations and items.

use bytes::{BufMut, Bytes, BytesMut};

/// Bits of a [`CommitSeq`] that number the batch within its log entry.
pub const ORDINAL_BITS: u32 = 20;

/// When a version became current: `log index << 20 | ordinal of the batch in its entry` (rule 3).
///
/// Every operation of one transaction has the same number. A reader at `at` sees versions with `seq <= at`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CommitSeq(pub u64);

impl CommitSeq {
    /// Before every commit.
    pub const ZERO: Self = Self(0);
    /// After every commit: reads the newest version.
    pub const MAX: Self = Self(u64::MAX);

    /// The number of the `ordinal`-th batch in the entry at `index`.
    pub fn new(index: u64, ordinal: u32) -> Self {
        debug_assert!(ordinal < 1 << ORDINAL_BITS && index < 1 << (64 - ORDINAL_BITS));
        Self(index << ORDINAL_BITS | u64::from(ordinal))
    }

    /// The greatest number that an entry at `index` can hold: everything up to and including that entry.
    pub fn end_of(index: u64) -> Self {
        Self(index << ORDINAL_BITS | ((1 << ORDINAL_BITS) - 1))
    }

    /// The log index this number belongs to.
    pub fn index(self) -> u64 {
        self.0 >> ORDINAL_BITS
    }

    /// The batch's place in its entry.
    pub fn ordinal(self) -> u32 {
        (self.0 & ((1 << ORDINAL_BITS) - 1)) as u32
    }
}

/// A keyspace's number. Never reused.
pub type KeyspaceId = u32;

/// Bytes in front of the user key in an internal key.
pub const KEYSPACE_PREFIX: usize = 4;

/// `keyspace id (u32, big endian) ++ user key`: keyspaces are contiguous in one ordered map.
pub fn internal_key(keyspace: KeyspaceId, user_key: &[u8]) -> Bytes {
    let mut key = BytesMut::with_capacity(KEYSPACE_PREFIX + user_key.len());
    key.put_u32(keyspace);
    key.put_slice(user_key);
    key.freeze()
}

/// The user's part of an internal key, without copying.
pub fn user_key(internal: &Bytes) -> Bytes {
    internal.slice(KEYSPACE_PREFIX.min(internal.len())..)
}

/// The keyspace of an internal key; `None` if it is too short to be one.
pub fn keyspace_of(internal: &[u8]) -> Option<KeyspaceId> {
    internal.first_chunk::<KEYSPACE_PREFIX>().map(|prefix| u32::from_be_bytes(*prefix))
}

/// The internal keys of a keyspace: `[start, end)`. `end` is `None` for the last keyspace id.
pub fn keyspace_bounds(keyspace: KeyspaceId) -> (Bytes, Option<Bytes>) {
    (internal_key(keyspace, b""), keyspace.checked_add(1).map(|next| internal_key(next, b"")))
}

/// What happened to a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// The key has this value.
    Put(Bytes),
    /// The key is absent.
    Delete,
}

impl Op {
    /// The value of a put.
    pub fn into_value(self) -> Option<Bytes> {
        match self {
            Self::Put(value) => Some(value),
            Self::Delete => None,
        }
    }

    /// Bytes of value that the operation holds.
    pub fn value_len(&self) -> usize {
        match self {
            Self::Put(value) => value.len(),
            Self::Delete => 0,
        }
    }
}

/// One version of one key. Sources yield them in the order (key ascending, seq descending).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// Internal key.
    pub key: Bytes,
    /// When it was committed.
    pub seq: CommitSeq,
    /// What was committed.
    pub op: Op,
}

/// Deletes every version with `start <= key < end` (internal keys) and a commit number *less than* `seq`: puts of the
/// same transaction survive it, since a transaction's own earlier puts in the range never reach its batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangeDelete {
    /// First internal key covered.
    pub start: Bytes,
    /// First internal key not covered.
    pub end: Bytes,
    /// When it was committed.
    pub seq: CommitSeq,
}

impl RangeDelete {
    /// Whether a reader at `at` finds that this range deleted the version `seq` of `key`.
    pub fn hides(&self, key: &[u8], seq: CommitSeq, at: CommitSeq) -> bool {
        self.seq <= at && seq < self.seq && self.start <= key && key < &self.end[..]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commit_seq_orders_by_index_then_ordinal() {
        assert!(CommitSeq::new(7, 1) < CommitSeq::new(7, 2));
        assert!(CommitSeq::end_of(7) < CommitSeq::new(8, 0));
        assert_eq!((CommitSeq::new(7, 3).index(), CommitSeq::new(7, 3).ordinal()), (7, 3));
    }

    #[test]
    fn keyspaces_are_contiguous() {
        let (start, end) = keyspace_bounds(5);
        let key = internal_key(5, b"\xff\xff\xff\xff\xff");
        assert!(start <= key && Some(key.clone()) < end);
        assert_eq!((keyspace_of(&key), user_key(&key)), (Some(5), Bytes::from_static(b"\xff\xff\xff\xff\xff")));
        assert_eq!(keyspace_bounds(u32::MAX).1, None);
    }

    #[test]
    fn a_range_delete_spares_its_own_commit_and_older_readers() {
        let range = RangeDelete { start: Bytes::from_static(b"b"), end: Bytes::from_static(b"d"), seq: CommitSeq(10) };
        assert!(range.hides(b"b", CommitSeq(9), CommitSeq(10)));
        assert!(!range.hides(b"b", CommitSeq(10), CommitSeq(10)));
        assert!(!range.hides(b"b", CommitSeq(9), CommitSeq(9)));
        assert!(!range.hides(b"d", CommitSeq(1), CommitSeq::MAX) && !range.hides(b"a", CommitSeq(1), CommitSeq::MAX));
    }
}
