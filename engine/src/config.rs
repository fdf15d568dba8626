//! Options: of a database, of a transaction, of a scan.

use std::{ops::Bound, path::PathBuf, sync::Arc, time::Duration};

use bytes::Bytes;
use holdfast_wal::disk::Disk;

use crate::{
    clock::Clock,
    cluster::ClusterOptions,
    cost::Prices,
    error::{Error, Result},
    limits,
    store::{Bucket, Limits},
    tree::{OBJECT_BYTES, PAGE_BYTES},
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
    /// Also reachable from the bucket alone: archived there, or flushed where there is no archive.
    Bucket,
}

/// Whether committed log entries are copied to the bucket, so that the loss of every node loses little (the archive).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Archiving {
    /// With an `s3://` store, and with a folder on another device than the data directory.
    #[default]
    Auto,
    /// In any case.
    On,
    /// Never: a rebuild from the bucket has the last flush only.
    Off,
}

/// A rebuild from the bucket alone, into an empty data directory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// The store to recover from; `None` is the database's own, which the new cluster takes over in place. From another
    /// store everything is copied.
    pub from: Option<String>,
    /// Recover although the old cluster still writes, the store's conditional writes are not atomic, or a part of the
    /// archive is damaged or missing: up to there.
    pub force: bool,
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
    /// Bytes of NVMe for cached pages, in the data directory; 0: no NVMe cache. `None`: 1 GiB with an `s3://` store,
    /// else none, since a local folder is a disk already.
    pub nvme_cache: Option<u64>,
    /// How long a page stays in the caches after it was stored there; `None` for ever. Pages never change, so a short time
    /// only costs requests: it bounds how long a page that nobody asks for lies on NVMe.
    pub cache_ttl: Option<Duration>,
    /// How often the leader notes in the bucket which pages are in RAM, if they are read; a node that starts or takes over
    /// fetches those first. `None` turns both off. Only with a bucket, whose pages are far.
    pub hot_list_interval: Option<Duration>,
    /// Bytes per second at which noted pages are fetched.
    pub prefetch_bytes_per_second: u64,
    /// S3 settings by their AWS_* names (without regard to case); they win over the environment.
    pub s3: Vec<(String, String)>,
    /// Open a store that fails the probe.
    pub allow_unsafe_store: bool,
    /// Bytes of rows in RAM at which a memtable is frozen.
    pub memtable_bytes: usize,
    /// Bytes of frozen memtables, in RAM and on local disk, that are flushed together: the more, the fewer requests, the fewer
    /// versions of a row that is written again and again, and the less compaction; but reads look into each memtable, and
    /// whoever rebuilds the database has more log to replay. `None`: twice `memtable_bytes`. Flushed earlier is what a
    /// checkpoint waits for, and what has taken a quarter of the room that there is for it.
    pub flush_bytes: Option<u64>,
    /// Bytes of a page before compression, of which a longer row has one of its own; between 4 KiB and 32 KiB. A read that
    /// misses fetches a page, and the caches hold pages: where rows are read one by one and popular ones lie apart, a shorter
    /// page takes fewer unpopular ones along; where neighbours are read, a longer one takes fewer requests. The index of the
    /// pages takes RAM for each of them. Pages that are there already keep their length until they are compacted.
    pub page_bytes: usize,
    /// Bytes of pages after which an object of the store ends; a flush and a compaction hold two each in RAM. The larger, the
    /// fewer PUTs.
    pub object_bytes: u64,
    /// Bytes of frozen memtables that may wait for the store in RAM; at the bound commits wait.
    pub frozen_bytes: usize,
    /// Bytes of frozen memtables that may wait for the store on local disk, in the folder `spill` of the data directory: from
    /// two fifths of `frozen_bytes` on they leave RAM. `None` is as much as `log_bytes`, 0 turns it off.
    pub spill_bytes: Option<u64>,
    /// Bytes of log on disk.
    pub log_bytes: u64,
    /// Rebuild the database from the bucket first, unless the data directory holds it already.
    pub recover: Option<Recovery>,
    /// Whether the log is archived in the bucket.
    pub archive: Archiving,
    /// Least time between two objects of the archive that are not full: about what the loss of every node may lose.
    pub archive_interval: Duration,
    /// Bytes of log that fill an object of the archive.
    pub archive_bytes: usize,
    /// A leader that has not seen the bucket for so long acknowledges nothing until it sees it again: bounds what a cluster
    /// acknowledges in vain after another was recovered from its bucket. `None`: commits go on without the bucket.
    pub fence_after: Option<Duration>,
    /// Longest that a read of what is not cached takes, whatever the attempts to get it from the bucket; it answers `Retry`
    /// then. While the bucket is known to be down such reads fail after about a second. A folder is never taken to be down.
    pub read_timeout: Duration,
    /// Share of the reads of pages from the bucket that may be sent a second time when they take longer than 95 of 100 of the
    /// last ones did; the first answer counts. Between 0, which turns it off, and 1.
    pub hedge_share: f64,
    /// What the bucket's provider charges, for [`crate::Stats`] and `max_dollars_per_day`.
    pub prices: Prices,
    /// Requests to the bucket a second above which background work waits: the deletion of dead objects first, then compaction,
    /// then flushes and the archive, but never a flush that makes room for commits. Reads never wait. `None`: any number.
    pub max_requests_per_second: Option<f64>,
    /// The same for dollars a day, by `prices`.
    pub max_dollars_per_day: Option<f64>,
    /// How long a commit waits when memtables or log are at their bound, before it answers `Retry`.
    pub write_stall_timeout: Duration,
    /// Bytes of one transaction's write set; at most [`limits::TXN_BYTES_MAX`].
    pub max_txn_bytes: u64,
    /// Row locks of one transaction.
    pub max_txn_locks: u64,
    /// Age at which a snapshot no longer holds old versions; its reads then answer `Conflict`.
    pub max_snapshot_age: Duration,
    /// This node among others; `None` for a database of one node.
    pub cluster: Option<ClusterOptions>,
    /// The caller's own disk for the log, instead of a folder in the data directory: for simulations.
    pub disk: Option<Arc<dyn Disk>>,
    /// The caller's own bucket instead of what the URL names: for simulations and fault wrappers.
    pub bucket: Option<Arc<dyn Bucket>>,
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
            cache_ttl: Some(Duration::from_secs(7 * 24 * 60 * 60)),
            hot_list_interval: Some(Duration::from_secs(5 * 60)),
            prefetch_bytes_per_second: 64 << 20,
            s3: Vec::new(),
            allow_unsafe_store: false,
            memtable_bytes: 64 << 20,
            flush_bytes: None,
            page_bytes: PAGE_BYTES,
            object_bytes: OBJECT_BYTES,
            frozen_bytes: 512 << 20,
            spill_bytes: None,
            log_bytes: 4 << 30,
            recover: None,
            archive: Archiving::Auto,
            archive_interval: Duration::from_secs(1),
            archive_bytes: 4 << 20,
            fence_after: None,
            read_timeout: Duration::from_secs(10),
            hedge_share: 0.05,
            prices: Prices::default(),
            max_requests_per_second: None,
            max_dollars_per_day: None,
            write_stall_timeout: Duration::from_secs(5),
            max_txn_bytes: 512 << 20,
            max_txn_locks: limits::TXN_LOCKS_MAX,
            max_snapshot_age: Duration::from_secs(60 * 60),
            cluster: None,
            disk: None,
            bucket: None,
            clock: None,
            seed: None,
        }
    }
}

impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options")
            .field("data_dir", &self.data_dir)
            .field("cluster", &self.cluster)
            .field("memory_cache", &self.memory_cache)
            .field("nvme_cache", &self.nvme_cache)
            .field("cache_ttl", &self.cache_ttl)
            .field("hot_list_interval", &self.hot_list_interval)
            .field("prefetch_bytes_per_second", &self.prefetch_bytes_per_second)
            .field("memtable_bytes", &self.memtable_bytes)
            .field("flush_bytes", &self.flush_bytes)
            .field("page_bytes", &self.page_bytes)
            .field("object_bytes", &self.object_bytes)
            .field("frozen_bytes", &self.frozen_bytes)
            .field("spill_bytes", &self.spill_bytes)
            .field("log_bytes", &self.log_bytes)
            .field("recover", &self.recover)
            .field("archive", &self.archive)
            .field("archive_interval", &self.archive_interval)
            .field("archive_bytes", &self.archive_bytes)
            .field("fence_after", &self.fence_after)
            .field("read_timeout", &self.read_timeout)
            .field("hedge_share", &self.hedge_share)
            .field("prices", &self.prices)
            .field("max_requests_per_second", &self.max_requests_per_second)
            .field("max_dollars_per_day", &self.max_dollars_per_day)
            .field("write_stall_timeout", &self.write_stall_timeout)
            .field("max_txn_bytes", &self.max_txn_bytes)
            .field("max_txn_locks", &self.max_txn_locks)
            .field("max_snapshot_age", &self.max_snapshot_age)
            .finish_non_exhaustive()
    }
}

impl Options {
    /// Bytes of frozen memtables that may be in RAM: one may be flushed while the next one fills, whatever the options say.
    pub(crate) fn ram_bound(&self) -> usize {
        self.frozen_bytes.max(self.memtable_bytes.saturating_mul(2))
    }

    /// Bytes of frozen memtables that are worth a flush.
    pub(crate) fn flush_bytes(&self) -> u64 {
        self.flush_bytes.unwrap_or(self.memtable_bytes as u64 * 2)
    }

    /// Bytes that the spill may take.
    pub(crate) fn spill_bound(&self) -> u64 {
        self.spill_bytes.unwrap_or(self.log_bytes)
    }

    /// What bounds requests to the bucket.
    pub(crate) fn limits(&self) -> Limits {
        Limits { read_timeout: Some(self.read_timeout), hedge_share: self.hedge_share, ..Limits::default() }
    }

    /// Refuses values that contradict each other.
    pub(crate) fn check(&self) -> Result<()> {
        let invalid = |text: String| Err(Error::Invalid(text));
        if let Some(cluster) = &self.cluster {
            cluster.check()?;
        }
        if self.memtable_bytes < 64 << 10 {
            return invalid(format!("memtable_bytes is {}; it must be at least 64 KiB", self.memtable_bytes));
        }
        if !(4 << 10..=32 << 10).contains(&self.page_bytes) {
            return invalid(format!("page_bytes is {}; it must be between 4 KiB and 32 KiB", self.page_bytes));
        }
        if !(1 << 20..=1 << 30).contains(&self.object_bytes) {
            return invalid(format!("object_bytes is {}; it must be between 1 MiB and 1 GiB", self.object_bytes));
        }
        if self.frozen_bytes == 0 {
            return invalid("frozen_bytes must be at least 1".into());
        }
        if self.max_txn_bytes == 0 || self.max_txn_bytes > limits::TXN_BYTES_MAX {
            return invalid(format!("max_txn_bytes must be between 1 and {}", limits::TXN_BYTES_MAX));
        }
        if self.cache_ttl.is_some_and(|ttl| ttl.is_zero()) {
            return invalid("cache_ttl is zero: nothing would be cached; None is for ever".into());
        }
        if self.hot_list_interval.is_some_and(|every| every.is_zero()) || self.prefetch_bytes_per_second == 0 {
            return invalid("hot_list_interval and prefetch_bytes_per_second must not be zero".into());
        }
        if self.max_txn_locks == 0 {
            return invalid("max_txn_locks must be at least 1".into());
        }
        if self.archive_interval.is_zero() || self.archive_interval > Duration::from_secs(3600) {
            return invalid("archive_interval must be between a moment and an hour; archive = Off turns it off".into());
        }
        if !(64 << 10..=256 << 20).contains(&self.archive_bytes) {
            return invalid(format!("archive_bytes is {}; it must be between 64 KiB and 256 MiB", self.archive_bytes));
        }
        if self.fence_after.is_some_and(|after| after < Duration::from_secs(1)) {
            return invalid("fence_after must be at least a second".into());
        }
        if self.read_timeout < Duration::from_millis(100) {
            return invalid("read_timeout must be at least 100 ms".into());
        }
        if !(0.0..=1.0).contains(&self.hedge_share) {
            return invalid("hedge_share must be between 0 and 1".into());
        }
        self.prices.check()?;
        let budgets = [
            ("max_requests_per_second", self.max_requests_per_second),
            ("max_dollars_per_day", self.max_dollars_per_day),
        ];
        for (name, most) in budgets {
            if most.is_some_and(|most| !most.is_finite() || most <= 0.0) {
                return invalid(format!("{name} must be more than 0; None is any number"));
            }
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
