//! Owns what a workload runs against: the embedded engine, or a server over MySQL. One set of operations for both.

mod embedded;
mod mysql;

use std::time::Duration;

use bytes::Bytes;

use crate::{Error, observe::Observed, options::BenchOptions};

/// A row as it was read.
pub(crate) type Row = (u64, Bytes);

/// Why an operation did not succeed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// A conflict, deadlock, lock wait or slow store: the same operation may succeed if it is run again.
    Again,
    /// The run cannot go on.
    Fatal(Error),
}

/// What a transaction read, and how long its commit took.
#[derive(Default)]
pub(crate) struct Committed {
    pub(crate) points: Vec<Option<Bytes>>,
    pub(crate) ranges: Vec<Vec<Row>>,
    pub(crate) commit: Duration,
}

/// A transaction: reads, then writes.
pub(crate) struct Transaction<'a> {
    pub(crate) points: &'a [u64],
    /// First key, and rows to read.
    pub(crate) ranges: &'a [(u64, usize)],
    pub(crate) writes: &'a [(u64, Bytes)],
}

/// Where a workload runs.
pub(crate) enum Target {
    Embedded(embedded::Target),
    Mysql(mysql::Target),
}

/// One client's connection to it.
pub(crate) enum Session {
    Embedded(embedded::Session),
    Mysql(Box<mysql::Session>),
}

impl Target {
    /// Opens the store or reaches the server, and makes the table (anew, if it is to be loaded).
    pub(crate) async fn open(options: &BenchOptions) -> Result<Self, Error> {
        match (&options.store, &options.addr) {
            (Some(url), _) => Ok(Self::Embedded(embedded::Target::open(url, options).await?)),
            (None, Some(addr)) => Ok(Self::Mysql(mysql::Target::open(addr, options).await?)),
            (None, None) => Err(Error::Options("neither --store nor --addr is given".into())),
        }
    }

    /// Where it is, as the report names it.
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Embedded(target) => target.url(),
            Self::Mysql(target) => target.addr(),
        }
    }

    /// A new client.
    pub(crate) async fn session(&self) -> Result<Session, Error> {
        match self {
            Self::Embedded(target) => Ok(Session::Embedded(target.session())),
            Self::Mysql(target) => Ok(Session::Mysql(Box::new(target.session().await?))),
        }
    }

    /// Flushes to the bucket what was committed, where that can be asked for.
    pub(crate) async fn checkpoint(&self) -> Result<(), Error> {
        match self {
            Self::Embedded(target) => target.checkpoint().await,
            Self::Mysql(_) => Ok(()),
        }
    }

    /// The database's figures now; `None` if the server is no Holdfast.
    pub(crate) async fn observe(&self) -> Result<Option<Observed>, Error> {
        match self {
            Self::Embedded(target) => Ok(target.observe()),
            Self::Mysql(target) => target.observe().await,
        }
    }

    /// Closes the store, or the connections.
    pub(crate) async fn close(self) -> Result<(), Error> {
        match self {
            Self::Embedded(target) => target.close().await,
            Self::Mysql(_) => Ok(()),
        }
    }
}

impl Session {
    /// Loads rows that are new, in one commit.
    pub(crate) async fn load(&mut self, rows: &[Row]) -> Result<(), Failure> {
        match self {
            Self::Embedded(session) => session.load(rows).await,
            Self::Mysql(session) => session.load(rows).await,
        }
    }

    /// Reads one row.
    pub(crate) async fn read(&mut self, key: u64) -> Result<Option<Bytes>, Failure> {
        match self {
            Self::Embedded(session) => session.read(key).await,
            Self::Mysql(session) => session.read(key).await,
        }
    }

    /// Overwrites a row that exists; returns once that is durable.
    pub(crate) async fn update(&mut self, key: u64, value: Bytes) -> Result<(), Failure> {
        match self {
            Self::Embedded(session) => session.put(key, value).await,
            Self::Mysql(session) => session.update(key, value).await,
        }
    }

    /// Adds a row that does not exist; returns once that is durable.
    pub(crate) async fn insert(&mut self, key: u64, value: Bytes) -> Result<(), Failure> {
        match self {
            Self::Embedded(session) => session.put(key, value).await,
            Self::Mysql(session) => session.insert(key, value).await,
        }
    }

    /// Reads up to `limit` rows in key order, from `start` on.
    pub(crate) async fn scan(&mut self, start: u64, limit: usize) -> Result<Vec<Row>, Failure> {
        match self {
            Self::Embedded(session) => session.scan(start, limit).await,
            Self::Mysql(session) => session.scan(start, limit).await,
        }
    }

    /// Runs a transaction; returns once it is durable.
    pub(crate) async fn transaction(&mut self, transaction: Transaction<'_>) -> Result<Committed, Failure> {
        match self {
            Self::Embedded(session) => session.transaction(transaction).await,
            Self::Mysql(session) => session.transaction(transaction).await,
        }
    }
}
