//! Holdfast: an S3-native OLTP storage engine, embedded.
//!
//! A [`Db`] lives in a bucket (S3, a local folder, or memory). A commit is durable once the write-ahead log on local
//! disk has it; rows leave for the bucket later, as immutable objects. Reads come from RAM, then NVMe, then the bucket.
//!
//! ```no_run
//! # async fn example() -> holdfast::Result<()> {
//! use holdfast::{Db, Options};
//!
//! let db = Db::open("file:///var/lib/holdfast", Options::default()).await?;
//! let users = db.keyspace("users").await?;
//! db.put(&users, "alice", "1").await?;
//! assert_eq!(db.get(&users, b"alice").await?.as_deref(), Some(&b"1"[..]));
//! db.close().await?;
//! # Ok(())
//! # }
//! ```
//!
//! It runs on any tokio runtime that has its timer on; [`blocking`] brings its own. The library installs no subscriber and no signal
//! handler, and a `Db` that is dropped without [`Db::close`] loses nothing that was acknowledged.
//!
//! Limits are in [`limits`]; errors are sorted by what the caller must do ([`Error::is_retryable`]).

pub mod blocking;
pub mod check;
pub mod clock;
pub mod cluster;
pub mod cost;
pub mod format;
pub mod gc;
pub mod limits;
pub mod store;
pub mod tree;
pub mod types;

mod apply;
mod archive;
mod background;
mod batch;
mod commit;
mod compact;
mod config;
mod cursor;
mod db;
mod durable;
mod error;
mod fence;
mod flush;
mod identity;
mod inner;
mod keyspace;
mod lock;
mod memtable;
mod open;
mod outcomes;
mod pace;
mod pending;
mod pointer;
mod pressure;
mod ranges;
mod read;
mod recover;
mod scan;
mod snapshot;
mod spill;
mod stats;
mod table;
mod txn;
mod version;
mod warm;
mod writer;

use bytes::Bytes;

pub use crate::{
    batch::Batch,
    config::{Archiving, Concurrency, Durability, Isolation, Options, Recovery, ScanOptions, TxnOptions},
    db::{Db, Snapshot},
    error::{Error, Result},
    keyspace::Keyspace,
    outcomes::TxnStatus,
    scan::Scan,
    stats::{CacheStats, Outlook, RequestStats, Stats, Troubles},
    txn::{Savepoint, Txn},
};

/// How a row is locked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockMode {
    /// Beside other shared locks.
    Shared,
    /// Alone.
    Exclusive,
}

/// What to do when a row is locked by another.
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
    /// The key, as the caller gave it.
    pub key: Bytes,
    /// Its value.
    pub value: Bytes,
}
