//! Options: of a database, of a transaction, of a scan.

use std::{ops::Bound, path::PathBuf, sync::Arc, time::Duration};

use bytes::Bytes;

use crate::{
    clock::Clock,
    error::{Error, Result},
    limits,
};

/// What a transaction sees and what is checked when it commits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Isolation {
    /// Reads come from one snapshot; two transactions that write the same key conflict.
    #[default]
    Snapshot,
    /// Also: everything read is unchanged when the transaction commits. Optimistic transactions only.
    Serializable,
}

/// How a transaction keeps others out of its rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Concurrency {
    /// Validate at commit; `Conflict` if another commit came first.
    #[default]
    Optimistic,
    /// Row locks, taken by the caller with [`crate::Txn::lock`] and by every write; no validation against the snapshot.
    Pessimistic,
}

/// What a commit waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Durability {
    /// Returns once the commit has its place in the log; a crash may lose it.
    Queued,
    /// Synced by a Raft quorum, and applied here.
    #[default]
    Quorum,
    /// Also reachable from the bucket alone.
    Bucket,
}

/// Options of [`crate::Db::begin`].
#[derive(Clone, Debug)]
pub struct TxnOptions {
    /// What it sees.
    pub isolation: Isolation,
    /// How it keeps others out.
    pub concurrency: Concurrency,
    /// What its commit waits for.
    pub durability: Durability,
    /// How long one row lock may take.
    pub lock_wait_timeout: Duration,
}

impl Default for TxnOptions {
    fn default() -> Self {
        Self {
            isolation: Isolation::default(),
            concurrency: Concurrency::default(),
            durability: Durability::default(),
            lock_wait_timeout: Duration::from_secs(50),
        }
    }
}

/// What a scan covers.
#[derive(Clone, Debug)]
pub struct ScanOptions {
    /// Where it starts (the lower end, also of a reverse scan).
    pub start: Bound<Bytes>,
    /// Where it ends.
    pub end: Bound<Bytes>,
    /// From the upper end down.
    pub reverse: bool,
    /// How many rows the caller expects to read; 0 = unknown. A hint for read-ahead only.
    pub limit_hint: usize,
}

impl Default for ScanOptions {
    fn default() -> Self {
        Self { start: Bound::Unbounded, end: Bound::Unbounded, reverse: false, limit_hint: 0 }
    }
}

impl ScanOptions {
    /// Every key that starts with `prefix`.
    pub fn prefix(prefix: impl Into<Bytes>) -> Self {
        let prefix = prefix.into();
        let end = match prefix.iter().rposition(|byte| *byte != 0xff) {
            Some(last) => {
                let mut end = prefix[..=last].to_vec();
                end[last] += 1;
                Bound::Excluded(Bytes::from(end))
            }
            None => Bound::Unbounded,
        };
        Self { start: Bound::Included(prefix), end, ..Self::default() }
    }

    /// `start <= key < end`.
    pub fn range(start: impl Into<Bytes>, end: impl Into<Bytes>) -> Self {
        Self { start: Bound::Included(start.into()), end: Bound::Excluded(end.into()), ..Self::default() }
    }

    /// The same rows from the upper end down.
    pub fn reversed(self) -> Self {
        Self { reverse: true, ..self }
    }
}

/// Options of [`crate::Db::open`]; `Options::default()` suits a laptop.
#[derive(Clone)]
#[non_exhaustive]
pub struct Options {
    /// Log, cache and spill live here. `None` with a `file:///path` store: `/path-data` beside it; with a
    /// `memory://` store: a new one in the system's folder for temporary files, which [`crate::Db::close`] removes.
    pub data_dir: Option<PathBuf>,
    /// Bytes of RAM for cached pages. `None`: 256 MiB.
    pub memory_cache: Option<u64>,
    /// Bytes of NVMe for cached pages, in the data directory. `None` or 0: no NVMe cache.
    pub nvme_cache: Option<u64>,
    /// S3 settings by their AWS_* names (without regard to case); they win over the environment.
    pub s3: Vec<(String, String)>,
    /// Open a store that fails the probe.
    pub allow_unsafe_store: bool,
    /// Bytes of rows in RAM at which a memtable is frozen and flushed.
    pub memtable_bytes: usize,
    /// Bytes of frozen memtables that may wait for the store; at the bound commits answer `Retry`.
    pub frozen_bytes: usize,
    /// Bytes of log on disk.
    pub log_bytes: u64,
    /// Bytes of one transaction's write set; at most [`limits::TXN_BYTES_MAX`].
    pub max_txn_bytes: u64,
    /// Row locks of one transaction.
    pub max_txn_locks: u64,
    /// Age at which a snapshot no longer holds old versions; its reads then answer `Conflict`.
    pub max_snapshot_age: Duration,
    /// A simulated clock instead of the machine's.
    pub clock: Option<Arc<dyn Clock>>,
    /// Seeds every random choice instead of the operating system.
    pub seed: Option<u64>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            data_dir: None,
            memory_cache: None,
            nvme_cache: None,
            s3: Vec::new(),
            allow_unsafe_store: false,
            memtable_bytes: 64 << 20,
            frozen_bytes: 512 << 20,
            log_bytes: 4 << 30,
            max_txn_bytes: 512 << 20,
            max_txn_locks: limits::TXN_LOCKS_MAX,
            max_snapshot_age: Duration::from_secs(60 * 60),
            clock: None,
            seed: None,
        }
    }
}

impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options")
            .field("data_dir", &self.data_dir)
            .field("memory_cache", &self.memory_cache)
            .field("nvme_cache", &self.nvme_cache)
            .field("memtable_bytes", &self.memtable_bytes)
            .field("frozen_bytes", &self.frozen_bytes)
            .field("log_bytes", &self.log_bytes)
            .field("max_txn_bytes", &self.max_txn_bytes)
            .field("max_txn_locks", &self.max_txn_locks)
            .field("max_snapshot_age", &self.max_snapshot_age)
            .finish_non_exhaustive()
    }
}

impl Options {
    /// Refuses values that contradict each other.
    pub(crate) fn check(&self) -> Result<()> {
        let invalid = |text: String| Err(Error::Invalid(text));
        if self.memtable_bytes < 64 << 10 {
            return invalid(format!("memtable_bytes is {}; it must be at least 64 KiB", self.memtable_bytes));
        }
        if self.max_txn_bytes == 0 || self.max_txn_bytes > limits::TXN_BYTES_MAX {
            return invalid(format!("max_txn_bytes must be between 1 and {}", limits::TXN_BYTES_MAX));
        }
        if self.max_txn_locks == 0 {
            return invalid("max_txn_locks must be at least 1".into());
        }
        if self.log_bytes < 64 << 20 {
            return invalid(format!("log_bytes is {}; it must be at least 64 MiB", self.log_bytes));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_ends_where_the_next_one_starts() {
        let end = |prefix: &'static [u8]| ScanOptions::prefix(prefix).end;
        assert_eq!(end(b"ab"), Bound::Excluded(Bytes::from_static(b"ac")));
        assert_eq!(end(b"a\xff"), Bound::Excluded(Bytes::from_static(b"b")));
        assert_eq!(end(b"\xff"), Bound::Unbounded);
    }
}
