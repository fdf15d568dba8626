//! What can go wrong in the log, typed by what the caller must do about it.

use std::{io, path::PathBuf, sync::Arc};

use crate::NodeId;

/// An error of the log. Cheap to clone: one failure answers every waiting caller.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Backpressure: no room is left outside the reserve (rule 5). Nothing was written; reads go on. Retry after a purge.
    #[error("the log is full: {needed} bytes wanted, {runway} left ({reason})")]
    Full {
        /// Bytes that the refused call would have taken on disk.
        needed: u64,
        /// Bytes left.
        runway: u64,
        /// The bound that was hit: the configured size, or what the device answered to a preallocation.
        reason: Arc<str>,
    },
    /// A write or sync failed. The log is failed for good: only a restart, which reads the disk again, may go on.
    #[error("the log has failed and takes no further calls: {cause}")]
    Failed {
        /// The first failure.
        cause: Arc<str>,
    },
    /// Bytes that were durable once no longer parse. The node must be rebuilt from its peers or the bucket.
    #[error("corrupt log: {file} at offset {offset}: {what}")]
    Corrupt {
        /// The segment file.
        file: String,
        /// Offset of the bad record in the file.
        offset: u64,
        /// What does not hold.
        what: String,
    },
    /// The directory belongs to another cluster.
    #[error("{file} belongs to cluster {found:032x}, this node to {expected:032x}: wrong data directory?")]
    OtherCluster {
        /// The segment that says so.
        file: String,
        /// The cluster that the options name.
        expected: u128,
        /// The cluster that the segment names.
        found: u128,
    },
    /// Written by a newer release.
    #[error("{file} at offset {offset} has log format version {version}; this release reads up to {supported}")]
    NewerVersion {
        /// The segment file.
        file: String,
        /// Offset of the record.
        offset: u64,
        /// Its version.
        version: u8,
        /// The newest version this release reads.
        supported: u8,
    },
    /// Another process holds the directory.
    #[error("{} is in use by process {holder}: stop it, or use another data directory", dir.display())]
    Locked {
        /// The directory.
        dir: PathBuf,
        /// The pid that the lock file names, or "unknown".
        holder: String,
    },
    /// The entry was purged: it is in the bucket, not in the log.
    #[error("log index {index} is purged; the log starts at {first}")]
    Purged {
        /// The index asked for.
        index: u64,
        /// The first index that is still there.
        first: u64,
    },
    /// The entry is beyond the end of the log.
    #[error("log index {index} is beyond the end of the log ({end})")]
    BeyondEnd {
        /// The index asked for.
        index: u64,
        /// One past the last index.
        end: u64,
    },
    /// An append that would leave a hole, or go back in term.
    #[error("append out of order: expected index {expected}, got {got} (term {term}, last term {last_term})")]
    OutOfOrder {
        /// The only index that may follow.
        expected: u64,
        /// The index given.
        got: u64,
        /// The term given.
        term: u64,
        /// The term of the last entry.
        last_term: u64,
    },
    /// A payload above the limit.
    #[error("log payload of {len} bytes exceeds the limit of {max}")]
    TooLarge {
        /// Bytes given.
        len: u64,
        /// Bytes allowed.
        max: u64,
    },
    /// Options that contradict each other or the directory.
    #[error("log options: {0}")]
    Options(String),
    /// No leader that a quorum confirms could be found in time. Nothing was done; try again.
    #[error("the cluster can't answer now: {cause}")]
    Unavailable {
        /// What was missing.
        cause: Arc<str>,
    },
    /// The operating system refused something outside the write path (open, list, read).
    #[error("{what}: {error}")]
    Io {
        /// What was tried, with the file.
        what: String,
        /// What the system answered.
        error: Arc<io::Error>,
    },
    /// This node does not lead. Nothing was proposed: take it to `leader`, if that is known.
    #[error("not the leader (leader: {leader:?})")]
    NotLeader {
        /// Who leads, as far as this node knows.
        leader: Option<NodeId>,
    },
    /// Too much is proposed and not yet applied. Nothing was proposed; retry later.
    #[error("{what} in flight are at their limit of {limit}")]
    Busy {
        /// What is counted.
        what: &'static str,
        /// The bound.
        limit: u64,
    },
    /// The proposal was accepted, then leadership or the node was lost: it may or may not be in force (rule 12). Never
    /// retry it.
    #[error("outcome unknown: {cause}")]
    Unknown {
        /// What happened.
        cause: Arc<str>,
    },
    /// A change of membership or leadership was refused; nothing changed.
    #[error("membership: {0}")]
    Membership(String),
    /// The log was closed by its owner.
    #[error("the log is closed")]
    Closed,
}

impl Error {
    /// Whether the call had no effect and may be made again later, unchanged.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Full { .. } | Self::Busy { .. })
    }

    /// Wraps an I/O error with what was tried.
    pub fn io(what: impl Into<String>, error: io::Error) -> Self {
        Self::Io { what: what.into(), error: Arc::new(error) }
    }
}
