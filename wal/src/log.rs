//! The local log: one ordered stream of entries, votes, commit marks, cuts and purges.

use std::{ops::Range, sync::Arc};

use bytes::Bytes;

use crate::{Error, LogId, disk::Disk};

/// One entry of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogEntry {
    /// Where it stands.
    pub id: LogId,
    /// What the payload is; opaque here.
    pub kind: u8,
    /// At most [`LogOptions::max_payload`] bytes.
    pub payload: Bytes,
}

/// How a log is laid out. The cluster must match what is on disk; the rest may change between restarts.
#[derive(Clone, Debug)]
pub struct LogOptions {
    /// The cluster that owns the log.
    pub cluster: u128,
    /// Bytes of a newly made segment file; a multiple of 4 KiB.
    pub segment_bytes: u64,
    /// Bytes that all segments together may take on disk.
    pub max_bytes: u64,
    /// Segments that only votes, cuts, purges and reserved appends may open (rule 5).
    pub reserved_segments: u32,
    /// Prepared segments kept ahead of the active one.
    pub spare_segments: u32,
    /// Bytes of entries kept in RAM for reading.
    pub ram_tail_bytes: usize,
    /// Bytes of the largest payload.
    pub max_payload: usize,
    /// Bytes of the largest single write.
    pub max_write_bytes: usize,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self {
            cluster: 0,
            segment_bytes: 64 << 20,
            max_bytes: 2 << 30,
            reserved_segments: 2,
            spare_segments: 2,
            ram_tail_bytes: 32 << 20,
            max_payload: 2 << 20,
            max_write_bytes: 4 << 20,
        }
    }
}

/// What a log holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogState {
    /// The first entry that can be read.
    pub first: Option<LogId>,
    /// The last entry appended; `None` when no entry is held (then `purged`, if any, is the last known).
    pub last: Option<LogId>,
    /// Entries up to this one are gone.
    pub purged: Option<LogId>,
    /// The last saved vote.
    pub vote: Option<Bytes>,
    /// The last saved commit mark; may lag, never leads what was saved.
    pub committed: Option<LogId>,
    /// Bytes of disk that the live part of the log takes.
    pub bytes: u64,
    /// Bytes that can still be appended before [`Error::Full`].
    pub runway: u64,
}

/// The local log. Cloning shares it. All calls return at once unless said otherwise.
#[derive(Clone)]
pub struct Log {}

impl Log {
    /// Opens or creates the log on `disk`. Blocks: reads and repairs what is there (see `recover`).
    pub fn open(disk: Arc<dyn Disk>, options: LogOptions) -> Result<(Log, LogState), Error> {
        let _ = (disk, options);
        Err(Error::Closed)
    }

    /// Appends entries that follow the last one without a hole. They can be read at once; `done` runs on the log's thread
    /// once they are durable, strictly in the order of calls. `done` must not block.
    pub fn append(&self, entries: Vec<LogEntry>, done: impl FnOnce(Result<(), Error>) + Send + 'static) {
        let _ = entries;
        done(Err(Error::Closed));
    }

    /// Saves a vote, in order with the appends around it.
    pub fn save_vote(&self, vote: Bytes, done: impl FnOnce(Result<(), Error>) + Send + 'static) {
        let _ = vote;
        done(Err(Error::Closed));
    }

    /// Cuts all entries after `last`; `None` cuts all.
    pub fn truncate_after(&self, last: Option<u64>, done: impl FnOnce(Result<(), Error>) + Send + 'static) {
        let _ = last;
        done(Err(Error::Closed));
    }

    /// Forgets entries up to and including `up_to`, which may lie beyond the last entry (after a snapshot). `done` runs once
    /// the purge is durable; only then are segments recycled.
    pub fn purge(&self, up_to: LogId, done: impl FnOnce(Result<(), Error>) + Send + 'static) {
        let _ = up_to;
        done(Err(Error::Closed));
    }

    /// Remembers the commit mark; it rides on the next write and costs no sync of its own.
    pub fn save_committed(&self, committed: Option<LogId>) {
        let _ = committed;
    }

    /// Whether `len` more payload bytes fit outside the reserve: ask before proposing, because an append can't be refused
    /// once Raft has numbered it.
    pub fn admit(&self, len: usize) -> Result<(), Error> {
        let _ = len;
        Err(Error::Closed)
    }

    /// Whether [`Log::read`] of this range would stay off the disk.
    pub fn in_memory(&self, range: &Range<u64>) -> bool {
        let _ = range;
        false
    }

    /// Entries of the range, from its start, until `max_bytes` of payload are reached: at least one entry, never a hole.
    /// A range outside the log is an error. Blocks on the disk when the range starts below the RAM tail.
    pub fn read(&self, range: Range<u64>, max_bytes: usize) -> Result<Vec<LogEntry>, Error> {
        let _ = (range, max_bytes);
        Err(Error::Closed)
    }

    /// What the log holds now.
    pub fn state(&self) -> LogState {
        LogState::default()
    }

    /// Finishes what is queued and stops the log's threads. Blocks.
    pub fn close(&self) -> Result<(), Error> {
        Err(Error::Closed)
    }
}
