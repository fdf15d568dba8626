//! The embedded engine as a target.

use std::{ops::Bound, path::PathBuf, time::Instant};

use bytes::Bytes;
use holdfast::{Batch, Db, Durability, Keyspace, Options, ScanOptions, Txn, TxnOptions};

use super::{Committed, Failure, Row, Transaction};
use crate::{Error, observe::Observed, options::BenchOptions};

const KEYSPACE: &str = "usertable";

/// An open database.
pub(crate) struct Target {
    db: Db,
    keyspace: Keyspace,
    url: String,
    /// Of a run without --data-dir.
    scratch: Option<Scratch>,
}

/// What a run without --data-dir makes for itself: a folder for the log and the NVMe cache, and a prefix of the store,
/// because a prefix belongs to the data directory that first used it.
struct Scratch {
    folder: tempfile::TempDir,
    /// The store itself, if it is a folder.
    store: Option<PathBuf>,
}

/// One client.
pub(crate) struct Session {
    db: Db,
    keyspace: Keyspace,
}

impl Target {
    pub(super) async fn open(url: &str, bench: &BenchOptions) -> Result<Self, Error> {
        let scratch = match &bench.data_dir {
            Some(_) => None,
            None if bench.skip_load => {
                return Err(Error::Options("--skip-load needs the --data-dir of that run".into()));
            }
            None => Some(Scratch::new(url)?),
        };
        let url = scratch.as_ref().map_or_else(|| url.to_owned(), |scratch| scratch.url(url));
        let data_dir = bench.data_dir.clone().or_else(|| scratch.as_ref().map(|s| s.folder.path().to_path_buf()));
        let mut options = Options::default();
        options.data_dir = data_dir;
        options.memory_cache = bench.memory_cache;
        options.nvme_cache = bench.nvme_cache;
        if let Some(bytes) = bench.memtable_size {
            options.memtable_bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
            options.frozen_bytes = options.memtable_bytes.saturating_mul(8);
        }
        options.allow_unsafe_store = bench.allow_unsafe_store;
        let db = Db::open(&url, options).await?;
        if !bench.skip_load && db.keyspaces().iter().any(|name| name == KEYSPACE) {
            db.drop_keyspace(KEYSPACE).await?;
        }
        let keyspace = db.keyspace(KEYSPACE).await?;
        Ok(Self { db, keyspace, url, scratch })
    }

    pub(super) fn url(&self) -> &str {
        &self.url
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
        self.db.close().await?;
        match self.scratch {
            Some(scratch) => scratch.remove(),
            None => Ok(()),
        }
    }
}

impl Scratch {
    fn new(url: &str) -> Result<Self, Error> {
        let folder = tempfile::Builder::new().prefix("holdfast-bench-").tempdir().map_err(Error::Folder)?;
        let mut scratch = Self { folder, store: None };
        scratch.store = scratch.url(url).strip_prefix("file://").map(PathBuf::from);
        Ok(scratch)
    }

    /// The run's own prefix below `url`, named as its folder is; a memory store is its own anyway.
    fn url(&self, url: &str) -> String {
        match self.folder.path().file_name().and_then(|name| name.to_str()) {
            Some(name) if !url.starts_with("memory:") => format!("{}/{name}", url.trim_end_matches('/')),
            _ => url.to_owned(),
        }
    }

    /// Removes what can be removed without the database: the folders. Objects in a bucket stay.
    fn remove(self) -> Result<(), Error> {
        self.folder.close().map_err(Error::Folder)?;
        match self.store {
            Some(store) => std::fs::remove_dir_all(store).map_err(Error::Folder),
            None => Ok(()),
        }
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
