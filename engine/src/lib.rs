//! Holdfast: an S3-native OLTP storage engine, embedded.
//!
//! SKELETON of the public surface; the engine's authors replace the bodies and keep the signatures.
#![allow(clippy::todo, missing_docs, unused_variables, dead_code)]

use std::{ops::Bound, sync::Arc, time::Duration};

use bytes::Bytes;

pub mod check;
pub mod clock;
mod compact;
pub mod cost;
mod cursor;
mod error;
mod flush;
pub mod format;
pub mod gc;
pub mod limits;
mod pointer;
mod ranges;
mod stats;
pub mod store;
mod table;
pub mod tree;
pub mod types;
mod version;
mod writer;

pub use crate::stats::{CacheStats, RequestStats, Stats};
pub use error::{Error, Result};

/// An open database. Cheap to clone.
#[derive(Clone)]
pub struct Db(Arc<()>);

/// A named, ordered map of keys to values. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Keyspace(Arc<str>, u32);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Isolation {
    #[default]
    Snapshot,
    Serializable,
}
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Concurrency {
    /// Validate at commit; `Conflict` if another commit came first.
    #[default]
    Optimistic,
    /// Row locks, taken by the caller with [`Txn::lock`] and by every write; no validation against the snapshot.
    Pessimistic,
}
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
#[derive(Clone, Debug)]
pub struct TxnOptions {
    pub isolation: Isolation,
    pub concurrency: Concurrency,
    pub durability: Durability,
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

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockMode {
    Shared,
    Exclusive,
}
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockWait {
    /// Wait up to the transaction's `lock_wait_timeout`.
    Timeout,
    /// Fail at once with `WouldBlock`.
    NoWait,
}

/// A key and its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyValue {
    pub key: Bytes,
    pub value: Bytes,
}

/// What a scan covers.
#[derive(Clone, Debug)]
pub struct ScanOptions {
    pub start: Bound<Bytes>,
    pub end: Bound<Bytes>,
    pub reverse: bool,
    /// How many rows the caller expects to read; 0 = unknown. A hint for read-ahead only.
    pub limit_hint: usize,
}

/// A savepoint inside a transaction: statement rollback and SQL SAVEPOINT.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Savepoint(u64);

/// Atomic writes across keyspaces without a transaction.
#[derive(Clone, Debug, Default)]
pub struct Batch(());
impl Batch {
    pub fn new() -> Self {
        todo!()
    }
    pub fn put(&mut self, keyspace: &Keyspace, key: impl Into<Bytes>, value: impl Into<Bytes>) {
        todo!()
    }
    pub fn delete(&mut self, keyspace: &Keyspace, key: impl Into<Bytes>) {
        todo!()
    }
    pub fn delete_range(&mut self, keyspace: &Keyspace, start: impl Into<Bytes>, end: impl Into<Bytes>) {
        todo!()
    }
}

impl Db {
    /// Opens (or creates) a database. `url`: `file:///path`, `s3://bucket/prefix`, `memory:///`.
    pub async fn open(url: &str, options: Options) -> Result<Self> {
        todo!()
    }
    /// Opens a keyspace, creating it (durably) if it is missing.
    pub async fn keyspace(&self, name: &str) -> Result<Keyspace> {
        todo!()
    }
    pub async fn drop_keyspace(&self, name: &str) -> Result<()> {
        todo!()
    }
    pub fn keyspaces(&self) -> Vec<String> {
        todo!()
    }
    pub fn begin(&self, options: TxnOptions) -> Result<Txn> {
        todo!()
    }
    /// A snapshot of everything committed and visible now. Pins it until dropped.
    pub fn snapshot(&self) -> Result<Snapshot> {
        todo!()
    }
    pub async fn get(&self, keyspace: &Keyspace, key: &[u8]) -> Result<Option<Bytes>> {
        todo!()
    }
    pub async fn put(&self, keyspace: &Keyspace, key: impl Into<Bytes>, value: impl Into<Bytes>) -> Result<()> {
        todo!()
    }
    pub async fn delete(&self, keyspace: &Keyspace, key: impl Into<Bytes>) -> Result<()> {
        todo!()
    }
    pub async fn write(&self, batch: Batch, durability: Durability) -> Result<()> {
        todo!()
    }
    pub fn scan(&self, keyspace: &Keyspace, options: ScanOptions) -> Result<Scan> {
        todo!()
    }
    /// Freezes and flushes the memtable, waits until its manifest is in force (`admin checkpoint`).
    pub async fn checkpoint(&self) -> Result<()> {
        todo!()
    }
    pub fn stats(&self) -> Stats {
        todo!()
    }
    pub async fn close(&self) -> Result<()> {
        todo!()
    }
}

/// A consistent read view. `Send + Sync`, cheap to clone; reads in RAM never await.
#[derive(Clone)]
pub struct Snapshot(Arc<()>);
impl Snapshot {
    pub async fn get(&self, keyspace: &Keyspace, key: &[u8]) -> Result<Option<Bytes>> {
        todo!()
    }
    pub fn scan(&self, keyspace: &Keyspace, options: ScanOptions) -> Result<Scan> {
        todo!()
    }
}

/// A transaction. Rolled back (and its locks released) on drop.
pub struct Txn(());
impl Txn {
    /// Consistent read at the snapshot (taken at the first consistent read), own writes included.
    pub async fn get(&mut self, keyspace: &Keyspace, key: &[u8]) -> Result<Option<Bytes>> {
        todo!()
    }
    /// Consistent scan, own writes up to now included; later own writes are not seen.
    pub fn scan(&mut self, keyspace: &Keyspace, options: ScanOptions) -> Result<Scan> {
        todo!()
    }
    /// Current read: newest committed (pending overlay included) or own value, whatever the snapshot. Lock first.
    pub async fn get_current(&mut self, keyspace: &Keyspace, key: &[u8]) -> Result<Option<Bytes>> {
        todo!()
    }
    /// Current scan at the moment of the call, own writes included. Rows are not locked: lock each, then `get_current`.
    pub fn scan_current(&mut self, keyspace: &Keyspace, options: ScanOptions) -> Result<Scan> {
        todo!()
    }
    /// Takes a row lock, also on an absent key. Held to the end of the transaction.
    pub async fn lock(&mut self, keyspace: &Keyspace, key: &[u8], mode: LockMode, wait: LockWait) -> Result<()> {
        todo!()
    }
    /// Lock exclusively (waiting) and read currently, in one call: the hot path of UPDATE and DELETE by key.
    pub async fn get_for_update(&mut self, keyspace: &Keyspace, key: &[u8]) -> Result<Option<Bytes>> {
        todo!()
    }
    /// Buffers a write. In a pessimistic transaction the key must be locked exclusively already (debug-asserted).
    pub fn put(&mut self, keyspace: &Keyspace, key: impl Into<Bytes>, value: impl Into<Bytes>) -> Result<()> {
        todo!()
    }
    pub fn delete(&mut self, keyspace: &Keyspace, key: impl Into<Bytes>) -> Result<()> {
        todo!()
    }
    /// Deletes a whole key range (DROP / TRUNCATE): one operation whatever the size.
    pub fn delete_range(&mut self, keyspace: &Keyspace, start: impl Into<Bytes>, end: impl Into<Bytes>) -> Result<()> {
        todo!()
    }
    /// READ COMMITTED: the next consistent read takes a new snapshot.
    pub fn refresh_snapshot(&mut self) {
        todo!()
    }
    pub fn savepoint(&mut self) -> Savepoint {
        todo!()
    }
    /// Undoes the writes since; locks stay, as in InnoDB.
    pub fn rollback_to(&mut self, savepoint: Savepoint) {
        todo!()
    }
    /// Rule 11: the commit is rejected with `Conflict` if the guard's version is not `version` when it applies.
    pub fn check_guard(&mut self, guard: u64, version: u64) {
        todo!()
    }
    /// Rule 11: sets a guard's version (DDL).
    pub fn set_guard(&mut self, guard: u64, version: u64) {
        todo!()
    }
    /// Rule 7: waits until everything that current reads of this transaction saw has been applied. Call before a
    /// result derived from current reads leaves the server. Returns at once (no await) in the common case.
    pub async fn settle(&mut self) -> Result<()> {
        todo!()
    }
    pub fn has_writes(&self) -> bool {
        todo!()
    }
    pub async fn commit(self) -> Result<()> {
        todo!()
    }
    pub fn rollback(self) {
        todo!()
    }
}

/// A running scan: owns its snapshot, `Send + 'static`. Also a `futures::Stream` of `Result<KeyValue>`.
pub struct Scan(());
impl Scan {
    pub async fn next(&mut self) -> Result<Option<KeyValue>> {
        todo!()
    }
    /// Appends up to `max` rows to `out`; returns how many (0 = end). The fast path of range queries.
    pub async fn next_batch(&mut self, out: &mut Vec<KeyValue>, max: usize) -> Result<usize> {
        todo!()
    }
}

/// Options of [`Db::open`]; `Options::default()` suits a laptop.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Options {
    /// Log, cache and spill live here. `None` with a `file://` or `memory://` store: a folder beside or a temporary one.
    pub data_dir: Option<std::path::PathBuf>,
    pub memory_cache: Option<u64>,
    pub nvme_cache: Option<u64>,
    pub allow_unsafe_store: bool,
}
