//! The local log: one ordered stream of entries, votes, commit marks, cuts and purges.
//!
//! A call changes the state in RAM and queues what to write; the writer's thread takes whatever has gathered while its last write
//! was under way, writes it as one, and answers the calls in order. Segments are made ahead by the preparer and recycled after
//! a purge. `open` recovers, `plan` and `room` are arithmetic, `state`, `tail` and `index` are what is held in RAM.

use std::{
    ops::Range,
    sync::{Arc, OnceLock},
};

use bytes::Bytes;

use crate::{
    Error, LogId,
    disk::{Disk, WorkerHandle},
    record::{BLOCK, HEADER, MAX_VOTE, blocks, padded},
};

pub(crate) mod index;
mod open;
mod plan;
mod prepare;
mod read;
mod room;
mod state;
mod tail;
mod write;

use room::Share;
use state::{Op, Shared};

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
    /// The log was opened before and is known to hold something: finding nothing is corruption, not a new log.
    pub was_used: bool,
    /// Bytes of a newly made segment file; a multiple of 4 KiB.
    pub segment_bytes: u64,
    /// Bytes that all segments together may take on disk.
    pub max_bytes: u64,
    /// Segments that only votes, cuts, purges and reserved appends may open (rule 5).
    pub reserved_segments: u32,
    /// Prepared segments kept ready on top of the reserve.
    pub spare_segments: u32,
    /// Bytes of payload that may wait to be written before [`Log::admit`] refuses.
    pub max_queued_bytes: usize,
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
            was_used: false,
            segment_bytes: 64 << 20,
            max_bytes: 2 << 30,
            reserved_segments: 2,
            spare_segments: 1,
            max_queued_bytes: 64 << 20,
            ram_tail_bytes: 32 << 20,
            max_payload: 2 << 20,
            max_write_bytes: 4 << 20,
        }
    }
}

impl LogOptions {
    /// Spares that the preparer keeps ready.
    fn ready_files(&self) -> usize {
        self.reserved_segments as usize + self.spare_segments as usize
    }

    fn check(&self) -> Result<(), Error> {
        let record = blocks(padded(HEADER + self.max_payload)) as u64;
        let refuse = |what: String| Err(Error::Options(what));
        if !self.segment_bytes.is_multiple_of(BLOCK as u64) || self.segment_bytes > 1 << 30 {
            return refuse(format!(
                "segment_bytes {} must be a multiple of {BLOCK}, at most 1 GiB",
                self.segment_bytes
            ));
        }
        if self.segment_bytes < BLOCK as u64 + 2 * record {
            return refuse(format!(
                "segment_bytes {} must hold two records of max_payload {}",
                self.segment_bytes, self.max_payload
            ));
        }
        if !self.max_write_bytes.is_multiple_of(BLOCK) || (self.max_write_bytes as u64) < record {
            return refuse(format!(
                "max_write_bytes {} must be a multiple of {BLOCK}, at least {record}",
                self.max_write_bytes
            ));
        }
        let least = self.segment_bytes * (u64::from(self.reserved_segments) + 2);
        if self.max_bytes < least {
            return refuse(format!(
                "max_bytes {} must hold the reserve and two more segments, {least} bytes",
                self.max_bytes
            ));
        }
        Ok(())
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
    /// The runway of an empty log.
    pub capacity: u64,
    /// Grows by what is written, in whole blocks; starts at what was held when the log was opened.
    pub written: u64,
}

/// The local log. Cloning shares it; the last clone dropped closes it. All calls return at once unless said otherwise.
#[derive(Clone)]
pub struct Log {
    handle: Arc<Handle>,
}

struct Handle {
    shared: Arc<Shared>,
}

impl Log {
    /// The cluster that owns the log on this disk; `None` if there is none. Blocks.
    pub fn owner(disk: &dyn Disk) -> Result<Option<u128>, Error> {
        open::owner(disk)
    }

    /// Opens or creates the log on `disk`. Blocks: reads and repairs what is there (see `recover`).
    pub fn open(disk: Arc<dyn Disk>, options: LogOptions) -> Result<(Log, LogState), Error> {
        options.check()?;
        let opened = open::open(disk.as_ref(), &options)?;
        let state = opened.state.report();
        tracing::info!(device = disk.kind(), ?state, segments = opened.segments.len(), "log open");
        let last = state.last.or(state.purged).map(|id| id.index);
        let shared = Arc::new(Shared::new(options, opened.state));
        let log = Log { handle: Arc::new(Handle { shared: shared.clone() }) };
        let writer = write::LogWriter::new(shared.clone(), opened.segments, opened.written, opened.next_epoch, last);
        let preparer = prepare::Preparer::new(shared.clone(), disk.clone(), opened.next_number);
        start(disk.as_ref(), "holdfast-wal", Box::new(writer), &shared.writer)?;
        start(disk.as_ref(), "holdfast-wal-pre", Box::new(preparer), &shared.preparer)?;
        shared.wake_preparer();
        Ok((log, state))
    }

    /// Appends entries that follow the last one without a hole. They can be read at once; `done` runs on the log's thread
    /// once they are durable, strictly in the order of calls. `done` must not block. A refused append (out of order, too large,
    /// ended log) is answered before this returns and changes nothing.
    pub fn append(&self, entries: Vec<LogEntry>, done: impl FnOnce(Result<(), Error>) + Send + 'static) {
        if self.enqueue(entries, done) {
            self.handle.shared.wake_writer();
        }
    }

    /// [`Log::append`] that writes on the caller's thread while the log's own is idle: `done` then runs before this returns.
    /// For a caller that has nothing else to do meanwhile; it saves two changes of thread.
    pub fn append_here(&self, entries: Vec<LogEntry>, done: impl FnOnce(Result<(), Error>) + Send + 'static) {
        if self.enqueue(entries, done) {
            self.handle.shared.run_writer();
        }
    }

    /// Whether the entries wait to be written now; else `done` has been told why not.
    fn enqueue(&self, entries: Vec<LogEntry>, done: impl FnOnce(Result<(), Error>) + Send + 'static) -> bool {
        let shared = &self.handle.shared;
        let mut state = shared.lock();
        let refused = state.ended.clone().or_else(|| state.check(&entries, shared.options.max_payload).err());
        if let Some(error) = refused {
            drop(state);
            done(Err(error));
            return false;
        }
        state.append(entries, Box::new(done));
        true
    }

    /// Saves a vote of at most 128 bytes, in order with the appends around it.
    pub fn save_vote(&self, vote: Bytes, done: impl FnOnce(Result<(), Error>) + Send + 'static) {
        if vote.len() > MAX_VOTE {
            return done(Err(Error::TooLarge { len: vote.len() as u64, max: MAX_VOTE as u64 }));
        }
        self.queue(done, |state| {
            state.vote = Some(vote.clone());
            Op::Vote(vote)
        });
    }

    /// Cuts all entries after `last`; `None` cuts all.
    pub fn truncate_after(&self, last: Option<u64>, done: impl FnOnce(Result<(), Error>) + Send + 'static) {
        self.queue(done, |state| {
            state.truncate(last);
            Op::Cut(last)
        });
    }

    /// Forgets entries up to and including `up_to`, which may lie beyond the last entry (after a snapshot). `done` runs once
    /// the purge is durable; only then are segments recycled.
    pub fn purge(&self, up_to: LogId, done: impl FnOnce(Result<(), Error>) + Send + 'static) {
        self.queue(done, |state| {
            state.purge(up_to);
            Op::Purge(up_to)
        });
    }

    fn queue(
        &self,
        done: impl FnOnce(Result<(), Error>) + Send + 'static,
        change: impl FnOnce(&mut state::State) -> Op,
    ) {
        let mut state = self.handle.shared.lock();
        if let Some(error) = state.ended.clone() {
            drop(state);
            return done(Err(error));
        }
        let op = change(&mut state);
        state.enqueue(Some(op), Some(Box::new(done)));
        drop(state);
        self.handle.shared.wake_writer();
    }

    /// Remembers the commit mark; it rides on the next write and costs no sync of its own.
    pub fn save_committed(&self, committed: Option<LogId>) {
        self.handle.shared.lock().committed = committed;
    }

    /// Whether `len` more payload bytes fit outside the reserve: ask before proposing, because an append can't be refused
    /// once Raft has numbered it. An append that was not admitted uses the reserve; one beyond the reserve ends the log.
    pub fn admit(&self, len: usize) -> Result<(), Error> {
        self.admit_to(len, Share::Runway)
    }

    /// As [`Log::admit`], for a small entry that makes room: when the runway has ended it may use a part of the reserve.
    pub fn admit_reserved(&self, len: usize) -> Result<(), Error> {
        self.admit_to(len, Share::Reserve)
    }

    fn admit_to(&self, len: usize, share: Share) -> Result<(), Error> {
        let state = self.handle.shared.lock();
        if let Some(error) = &state.ended {
            return Err(error.clone());
        }
        let answer = state.room.admit(len, state.spares.len(), share);
        let retry = answer.is_err() && state.room.refused.is_some();
        drop(state);
        if retry {
            self.handle.shared.wake_preparer(); // space may have been freed
        }
        answer
    }

    /// Tries once more to grow, if the device had no room the last time: for callers that ask for no admission meanwhile.
    pub fn look_for_room(&self) {
        let refused = self.handle.shared.lock().room.refused.is_some();
        if refused {
            self.handle.shared.wake_preparer();
        }
    }

    /// Whether [`Log::read`] of a range that starts here would stay off the disk.
    pub fn in_memory(&self, start: u64) -> bool {
        self.handle.shared.lock().tail.first().is_some_and(|first| first <= start)
    }

    /// Entries of the range, from its start, until `max_bytes` of payload are reached: at least one entry unless the range is
    /// empty, never a hole. A range that is not wholly in the log is an error. Blocks on the disk when it starts below the RAM tail.
    pub fn read(&self, range: Range<u64>, max_bytes: usize) -> Result<Vec<LogEntry>, Error> {
        read::read(&self.handle.shared, range, max_bytes)
    }

    /// The term of an entry that the log holds.
    pub fn term_at(&self, index: u64) -> Option<u64> {
        let state = self.handle.shared.lock();
        let held = state.first.is_some_and(|first| first <= index) && state.next.is_some_and(|next| index < next);
        if held { state.terms.at(index) } else { None }
    }

    /// What the log holds now.
    pub fn state(&self) -> LogState {
        self.handle.shared.lock().report()
    }

    /// Why the log has ended, if it has.
    pub fn ended(&self) -> Option<Error> {
        self.handle.shared.lock().ended.clone()
    }

    /// Finishes what is queued and stops the log's threads. Blocks; not to be called from a `done`.
    pub fn close(&self) -> Result<(), Error> {
        self.handle.close();
        match self.ended() {
            Some(Error::Closed) | None => Ok(()),
            Some(error) => Err(error),
        }
    }
}

impl Handle {
    fn close(&self) {
        self.shared.lock().closing = true;
        for worker in [&self.shared.writer, &self.shared.preparer].into_iter().filter_map(|worker| worker.get()) {
            worker.wake();
            worker.join();
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.close();
    }
}

fn start(
    disk: &dyn Disk,
    name: &str,
    worker: Box<dyn crate::disk::Worker>,
    slot: &OnceLock<Arc<dyn WorkerHandle>>,
) -> Result<(), Error> {
    let handle = disk.start(name, worker).map_err(|error| Error::io(format!("start thread {name}"), error))?;
    let _ = slot.set(handle); // each slot is set once, here
    Ok(())
}
