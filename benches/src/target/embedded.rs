//! The embedded engine as a target.

use std::{ops::Bound, time::Instant};

use bytes::Bytes;
use holdfast::{Batch, Db, Durability, Keyspace, Options, ScanOptions, Txn, TxnOptions};

use super::{Committed, Failure, Row, Transaction};
use crate::{Error, observe::Observed, options::BenchOptions};

const KEYSPACE: &str = "usertable";

/// An open database.
pub(crate) struct Target {
    db: Db,
    keyspace: Keyspace,
    /// Log and NVMe cache of a run without --data-dir; removed at the end.
    _temporary: Option<tempfile::TempDir>,
}

/// One client.
pub(crate) struct Session {
    db: Db,
    keyspace: Keyspace,
}

impl Target {
    pub(super) async fn open(url: &str, bench: &BenchOptions) -> Result<Self, Error> {
        let temporary = match bench.data_dir {
            Some(_) => None,
            None => Some(tempfile::Builder::new().prefix("holdfast-bench-").tempdir().map_err(Error::Folder)?),
        };
        let data_dir = bench.data_dir.clone().or_else(|| temporary.as_ref().map(|dir| dir.path().to_path_buf()));
        let mut options = Options::default();
        options.data_dir = data_dir;
        options.memory_cache = bench.memory_cache;
        options.nvme_cache = bench.nvme_cache;
        options.allow_unsafe_store = bench.allow_unsafe_store;
        let db = Db::open(url, options).await?;
        if !bench.skip_load && db.keyspaces().iter().any(|name| name == KEYSPACE) {
            db.drop_keyspace(KEYSPACE).await?;
        }
        let keyspace = db.keyspace(KEYSPACE).await?;
        Ok(Self { db, keyspace, _temporary: temporary })
    }

    pub(super) fn session(&self) -> Session {
        Session { db: self.db.clone(), keyspace: self.keyspace.clone() }
    }

    pub(super) async fn checkpoint(&self) -> Result<(), Error> {
        Ok(self.db.checkpoint().await?)
    }

    pub(super) fn observe(&self) -> Option<Observed> {
        Observed::from_variables(self.db.stats().variables())
    }

    pub(super) async fn close(self) -> Result<(), Error> {
        Ok(self.db.close().await?)
    }
}

impl Session {
    pub(super) async fn load(&mut self, rows: &[Row]) -> Result<(), Failure> {
        let mut batch = Batch::new();
        for (key, value) in rows {
            batch.put(&self.keyspace, key_bytes(*key), value.clone());
        }
        Ok(self.db.write(batch, Durability::Quorum).await?)
    }

    pub(super) async fn read(&mut self, key: u64) -> Result<Option<Bytes>, Failure> {
        Ok(self.db.get(&self.keyspace, &key.to_be_bytes()).await?)
    }

    pub(super) async fn put(&mut self, key: u64, value: Bytes) -> Result<(), Failure> {
        Ok(self.db.put(&self.keyspace, key_bytes(key), value).await?)
    }

    pub(super) async fn scan(&mut self, start: u64, limit: usize) -> Result<Vec<Row>, Failure> {
        let scan = self.db.scan(&self.keyspace, from(start, limit))?;
        rows_of(scan, limit).await
    }

    pub(super) async fn transaction(&mut self, transaction: Transaction<'_>) -> Result<Committed, Failure> {
        let mut txn = self.db.begin(TxnOptions::default())?;
        let mut committed = Committed::default();
        for key in transaction.points {
            committed.points.push(txn.get(&self.keyspace, &key.to_be_bytes()).await?);
        }
        for (start, limit) in transaction.ranges {
            let scan = txn.scan(&self.keyspace, from(*start, *limit))?;
            committed.ranges.push(rows_of(scan, *limit).await?);
        }
        for (key, value) in transaction.writes {
            txn.put(&self.keyspace, key_bytes(*key), value.clone())?;
        }
        let begun = Instant::now();
        Txn::commit(txn).await?;
        committed.commit = begun.elapsed();
        Ok(committed)
    }
}

impl From<holdfast::Error> for Failure {
    fn from(error: holdfast::Error) -> Self {
        if error.is_retryable() { Self::Again } else { Self::Fatal(Error::Engine(error)) }
    }
}

fn key_bytes(key: u64) -> Bytes {
    Bytes::copy_from_slice(&key.to_be_bytes())
}

fn from(start: u64, limit: usize) -> ScanOptions {
    let start = Bound::Included(key_bytes(start));
    ScanOptions { start, end: Bound::Unbounded, reverse: false, limit_hint: limit }
}

async fn rows_of(mut scan: holdfast::Scan, limit: usize) -> Result<Vec<Row>, Failure> {
    let mut read = Vec::with_capacity(limit);
    while read.len() < limit {
        let wanted = limit - read.len();
        if scan.next_batch(&mut read, wanted).await? == 0 {
            break;
        }
    }
    read.into_iter()
        .map(|row| match <[u8; 8]>::try_from(row.key.as_ref()) {
            Ok(key) => Ok((u64::from_be_bytes(key), row.value)),
            Err(_) => Err(Failure::Fatal(Error::Wrong(format!("a scan gave the key {:?}", row.key)))),
        })
        .collect()
}
