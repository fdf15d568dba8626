//! Every fixed limit of the engine, derived where one follows from another and checked at compile time.

/// Longest user key, in bytes.
pub const KEY_BYTES_MAX: usize = 16 * 1024;
/// Longest value, in bytes.
pub const VALUE_BYTES_MAX: usize = 256 * 1024 * 1024;
/// Values longer than this leave the page for overflow pages (rule 10).
pub const INLINE_VALUE_BYTES_MAX: usize = 8 * 1024;
/// Longest keyspace name, in bytes.
pub const KEYSPACE_NAME_BYTES_MAX: usize = 255;
/// Keyspaces that can exist at once: their names are part of every manifest.
pub const KEYSPACES_MAX: usize = 4096;
/// Longest log payload (rule 10).
pub const ENTRY_BYTES_MAX: usize = 1024 * 1024;
/// Batches in one log entry; the ordinal has 20 bits.
pub const ENTRY_BATCHES_MAX: usize = 16 * 1024;
/// Bytes of one `Part` payload: an entry less room for its header.
pub const PART_BYTES_MAX: usize = ENTRY_BYTES_MAX - 256;
/// Big batches whose parts may be in the log at once.
pub const OPEN_PARTS_MAX: usize = 64;
/// Bytes of one transaction's encoded write set, unless the options say less (MySQL 1197).
pub const TXN_BYTES_MAX: u64 = 1024 * 1024 * 1024;
/// Row locks of one transaction, unless the options say otherwise (MySQL 1206).
pub const TXN_LOCKS_MAX: u64 = 8 * 1024 * 1024;
/// Guards that one batch may check or set (rule 11).
pub const BATCH_GUARDS_MAX: usize = 4096;
/// Range deletes of one transaction.
pub const TXN_RANGES_MAX: usize = 4096;
/// Range deletes in a memtable at which it is frozen, however small it is.
pub const MEMTABLE_RANGES_MAX: usize = 1024;
/// Outcomes kept for queries by transaction id (rule 12).
pub const OUTCOMES_MAX: usize = 64 * 1024;

const _: () = assert!(ENTRY_BATCHES_MAX < 1 << crate::types::ORDINAL_BITS);
const _: () = assert!(KEY_BYTES_MAX + INLINE_VALUE_BYTES_MAX < PART_BYTES_MAX);
const _: () = assert!(VALUE_BYTES_MAX as u64 <= TXN_BYTES_MAX && VALUE_BYTES_MAX <= u32::MAX as usize);
/// Least bound of the page cache in RAM, in bytes.
pub const MEMORY_CACHE_MIN: u64 = 1024 * 1024;
