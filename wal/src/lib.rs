//! The Holdfast write-ahead log: segments on local NVMe, replicated by Raft.
//!
//! This crate knows log indexes and bytes. It must never know row keys, SQL or S3.

use std::{future::Future, pin::Pin};

use bytes::Bytes;

pub mod disk;
mod error;
mod host;
mod in_flight;
mod lock;
mod log;
mod raft;
pub mod record;
mod recover;
mod segment;
pub mod transport;
mod wal;

pub use error::Error;
pub use lock::{DirLock, LOCK_FILE};
pub use log::{Log, LogEntry, LogOptions, LogState};
pub use raft::membership_of;
pub use wal::{Leadership, Limits, Progress, Timing, Wal, WalOptions, WalStatus};

/// Shorthand for this crate's results.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A boxed future, as the seams of this crate return it.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Identifies a node of the cluster. Never reused.
pub type NodeId = u64;

/// The full id of a log entry: at most one leader per term (`leader_id_std`), so term and index suffice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogId {
    /// Raft term in which the entry was proposed.
    pub term: u64,
    /// Index of the entry in the log; the first entry has index 1 or greater.
    pub index: u64,
}

/// What a committed entry carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Payload {
    /// A leader's no-op. The machine applies it to learn the new term.
    Blank,
    /// Bytes given to [`Wal::propose`], unchanged.
    Normal(Bytes),
    /// A membership change, opaque here: the machine stores it beside its state and gives it back in [`Restored`].
    Membership(Bytes),
}

/// A committed entry, handed to [`Machine::apply`] in log order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Where it stands.
    pub id: LogId,
    /// What it carries.
    pub payload: Payload,
}

/// What a machine already holds when the log opens.
#[derive(Clone, Debug, Default)]
pub struct Restored {
    /// The last applied entry (for the engine: the manifest's `up_to`), or `None` when empty.
    pub applied: Option<LogId>,
    /// The last membership payload at `applied`, with the id of its entry.
    pub membership: Option<(Option<LogId>, Bytes)>,
}

/// What an apply step tells the log.
#[derive(Clone, Copy, Debug, Default)]
pub struct Applied {
    /// The log may forget entries up to and including this index (rule 6).
    pub purge_to: u64,
}

/// A Raft snapshot: a pointer into the bucket, never data.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The last entry the snapshot covers.
    pub last: LogId,
    /// Membership payload at `last`, with its entry id.
    pub membership: Option<(Option<LogId>, Bytes)>,
    /// Opaque to the log (for the engine: the manifest id).
    pub pointer: Bytes,
}

/// The state machine above the log; the engine implements it. Called by one task, never concurrently.
/// Any error stops the node: the log poisons itself and every later call answers `Closed` with the cause.
pub trait Machine: Send + 'static {
    /// The log was opened and `last` is its last entry: a machine that keeps state of its own beside the snapshots must not
    /// stand behind that, or the log would be cut off under it. Called once, before [`Machine::restored`].
    fn log_ends(&mut self, last: Option<LogId>) {
        let _ = last;
    }
    /// What the machine already holds.
    fn restored(&self) -> Restored;
    /// Applies committed entries in order. Must be a function of the log only (rule 9).
    fn apply(&mut self, entries: Vec<Entry>) -> BoxFuture<'_, Result<Applied, MachineError>>;
    /// The newest pointer the machine could be rebuilt from, if it has one.
    fn snapshot(&self) -> Option<Snapshot>;
    /// Replaces the machine's state by what the pointer names.
    fn install(&mut self, snapshot: Snapshot) -> BoxFuture<'_, Result<(), MachineError>>;
}

/// Why a machine could not apply or install. Fatal for the node.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct MachineError(pub String);

/// What nodes tell each other beside Raft's own words, with every frame (rule 8). Opaque to the log; called often, so it
/// must be cheap.
pub trait Reports: Send + Sync + 'static {
    /// What this node says of itself now.
    fn report(&self) -> Bytes;
    /// What another node said of itself.
    fn heard(&self, from: NodeId, report: Bytes);
}

/// Nothing to tell.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoReports;

impl Reports for NoReports {
    fn report(&self) -> Bytes {
        Bytes::new()
    }

    fn heard(&self, _: NodeId, _: Bytes) {}
}
