//! The same database for programs without an async runtime: every call waits. A [`Db`] here owns its runtime.

use std::sync::Arc;

use bytes::Bytes;
use tokio::runtime::{Builder, Runtime};

pub use crate::{
    Batch, Concurrency, Durability, Error, Isolation, KeyValue, Keyspace, LockMode, LockWait, Options, Result,
    Savepoint, ScanOptions, Stats, TxnOptions,
};

/// An open database. Cheap to clone; must not be used from within an async task.
#[derive(Clone)]
pub struct Db {
    db: crate::Db,
    runtime: Arc<Runtime>,
}

impl Db {
    /// As [`crate::Db::open`].
    ///
    /// # Errors
    /// As [`crate::Db::open`].
    pub fn open(url: &str, options: Options) -> Result<Self> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("holdfast")
            .enable_all()
            .build()
            .map_err(|error| Error::Retry(format!("no threads for the runtime: {error}")))?;
        let db = runtime.block_on(crate::Db::open(url, options))?;
        Ok(Self { db, runtime: Arc::new(runtime) })
    }

    /// As [`crate::Db::keyspace`].
    ///
    /// # Errors
    /// As [`crate::Db::keyspace`].
    pub fn keyspace(&self, name: &str) -> Result<Keyspace> {
        self.runtime.block_on(self.db.keyspace(name))
    }

    /// As [`crate::Db::drop_keyspace`].
    ///
    /// # Errors
    /// As [`crate::Db::drop_keyspace`].
    pub fn drop_keyspace(&self, name: &str) -> Result<()> {
        self.runtime.block_on(self.db.drop_keyspace(name))
    }

    /// As [`crate::Db::keyspaces`].
    pub fn keyspaces(&self) -> Vec<String> {
        self.db.keyspaces()
    }

    /// As [`crate::Db::begin`].
    ///
    /// # Errors
    /// As [`crate::Db::begin`].
    pub fn begin(&self, options: TxnOptions) -> Result<Txn> {
        Ok(Txn { txn: self.db.begin(options)?, runtime: Arc::clone(&self.runtime) })
    }

    /// As [`crate::Db::snapshot`].
    ///
    /// # Errors
    /// As [`crate::Db::snapshot`].
    pub fn snapshot(&self) -> Result<Snapshot> {
        Ok(Snapshot { snapshot: self.db.snapshot()?, runtime: Arc::clone(&self.runtime) })
    }

    /// As [`crate::Db::get`].
    ///
    /// # Errors
    /// As [`crate::Db::get`].
    pub fn get(&self, keyspace: &Keyspace, key: &[u8]) -> Result<Option<Bytes>> {
        self.runtime.block_on(self.db.get(keyspace, key))
    }

    /// As [`crate::Db::put`].
    ///
    /// # Errors
    /// As [`crate::Db::put`].
    pub fn put(&self, keyspace: &Keyspace, key: impl Into<Bytes>, value: impl Into<Bytes>) -> Result<()> {
        self.runtime.block_on(self.db.put(keyspace, key, value))
    }

    /// As [`crate::Db::delete`].
    ///
    /// # Errors
    /// As [`crate::Db::delete`].
    pub fn delete(&self, keyspace: &Keyspace, key: impl Into<Bytes>) -> Result<()> {
        self.runtime.block_on(self.db.delete(keyspace, key))
    }

    /// As [`crate::Db::write`].
    ///
    /// # Errors
    /// As [`crate::Db::write`].
    pub fn write(&self, batch: Batch, durability: Durability) -> Result<()> {
        self.runtime.block_on(self.db.write(batch, durability))
    }

    /// As [`crate::Db::scan`].
    ///
    /// # Errors
    /// As [`crate::Db::scan`].
    pub fn scan(&self, keyspace: &Keyspace, options: ScanOptions) -> Result<Scan> {
        Ok(Scan { scan: self.db.scan(keyspace, options)?, runtime: Arc::clone(&self.runtime) })
    }

    /// As [`crate::Db::checkpoint`].
    ///
    /// # Errors
    /// As [`crate::Db::checkpoint`].
    pub fn checkpoint(&self) -> Result<()> {
        self.runtime.block_on(self.db.checkpoint())
    }

    /// As [`crate::Db::resize_cache`].
    ///
    /// # Errors
    /// As [`crate::Db::resize_cache`].
    pub fn resize_cache(&self, memory: Option<u64>, nvme: Option<u64>) -> Result<()> {
        self.runtime.block_on(self.db.resize_cache(memory, nvme))
    }

    /// As [`crate::Db::stats`].
    pub fn stats(&self) -> Stats {
        self.db.stats()
    }

    /// As [`crate::Db::close`].
    ///
    /// # Errors
    /// As [`crate::Db::close`].
    pub fn close(&self) -> Result<()> {
        self.runtime.block_on(self.db.close())
    }
}

/// As [`crate::Snapshot`].
#[derive(Clone)]
pub struct Snapshot {
    snapshot: crate::Snapshot,
    runtime: Arc<Runtime>,
}

impl Snapshot {
    /// As [`crate::Snapshot::get`].
    ///
    /// # Errors
    /// As [`crate::Snapshot::get`].
    pub fn get(&self, keyspace: &Keyspace, key: &[u8]) -> Result<Option<Bytes>> {
        self.runtime.block_on(self.snapshot.get(keyspace, key))
    }

    /// As [`crate::Snapshot::scan`].
    ///
    /// # Errors
    /// As [`crate::Snapshot::scan`].
    pub fn scan(&self, keyspace: &Keyspace, options: ScanOptions) -> Result<Scan> {
        Ok(Scan { scan: self.snapshot.scan(keyspace, options)?, runtime: Arc::clone(&self.runtime) })
    }
}

/// As [`crate::Txn`]: rolled back on drop.
pub struct Txn {
    txn: crate::Txn,
    runtime: Arc<Runtime>,
}

impl Txn {
    /// As [`crate::Txn::get`].
    ///
    /// # Errors
    /// As [`crate::Txn::get`].
    pub fn get(&mut self, keyspace: &Keyspace, key: &[u8]) -> Result<Option<Bytes>> {
        self.runtime.block_on(self.txn.get(keyspace, key))
    }

    /// As [`crate::Txn::scan`].
    ///
    /// # Errors
    /// As [`crate::Txn::scan`].
    pub fn scan(&mut self, keyspace: &Keyspace, options: ScanOptions) -> Result<Scan> {
        Ok(Scan { scan: self.txn.scan(keyspace, options)?, runtime: Arc::clone(&self.runtime) })
    }

    /// As [`crate::Txn::lock`].
    ///
    /// # Errors
    /// As [`crate::Txn::lock`].
    pub fn lock(&mut self, keyspace: &Keyspace, key: &[u8], mode: LockMode, wait: LockWait) -> Result<()> {
        self.runtime.block_on(self.txn.lock(keyspace, key, mode, wait))
    }

    /// As [`crate::Txn::get_for_update`].
    ///
    /// # Errors
    /// As [`crate::Txn::get_for_update`].
    pub fn get_for_update(&mut self, keyspace: &Keyspace, key: &[u8]) -> Result<Option<Bytes>> {
        self.runtime.block_on(self.txn.get_for_update(keyspace, key))
    }

    /// As [`crate::Txn::put`].
    ///
    /// # Errors
    /// As [`crate::Txn::put`].
    pub fn put(&mut self, keyspace: &Keyspace, key: impl Into<Bytes>, value: impl Into<Bytes>) -> Result<()> {
        self.txn.put(keyspace, key, value)
    }

    /// As [`crate::Txn::delete`].
    ///
    /// # Errors
    /// As [`crate::Txn::delete`].
    pub fn delete(&mut self, keyspace: &Keyspace, key: impl Into<Bytes>) -> Result<()> {
        self.txn.delete(keyspace, key)
    }

    /// As [`crate::Txn::delete_range`].
    ///
    /// # Errors
    /// As [`crate::Txn::delete_range`].
    pub fn delete_range(&mut self, keyspace: &Keyspace, start: impl Into<Bytes>, end: impl Into<Bytes>) -> Result<()> {
        self.txn.delete_range(keyspace, start, end)
    }

    /// As [`crate::Txn::savepoint`].
    pub fn savepoint(&mut self) -> Savepoint {
        self.txn.savepoint()
    }

    /// As [`crate::Txn::rollback_to`].
    pub fn rollback_to(&mut self, savepoint: Savepoint) {
        self.txn.rollback_to(savepoint);
    }

    /// As [`crate::Txn::commit`].
    ///
    /// # Errors
    /// As [`crate::Txn::commit`].
    pub fn commit(self) -> Result<()> {
        self.runtime.block_on(self.txn.commit())
    }

    /// As [`crate::Txn::rollback`].
    pub fn rollback(self) {}
}

/// As [`crate::Scan`], as an iterator.
pub struct Scan {
    scan: crate::Scan,
    runtime: Arc<Runtime>,
}

impl Scan {
    /// As [`crate::Scan::next_batch`].
    ///
    /// # Errors
    /// As [`crate::Scan::next_batch`].
    pub fn next_batch(&mut self, out: &mut Vec<KeyValue>, max: usize) -> Result<usize> {
        self.runtime.block_on(self.scan.next_batch(out, max))
    }
}

impl Iterator for Scan {
    type Item = Result<KeyValue>;

    fn next(&mut self) -> Option<Self::Item> {
        self.runtime.block_on(self.scan.next()).transpose()
    }
}
