//! What the log holds, as its callers see it: changed by calls at once, before anything is durable.

use std::{collections::VecDeque, sync::Arc};

use bytes::Bytes;
use parking_lot::{Mutex, MutexGuard};

use super::{
    LogEntry, LogOptions, LogState,
    index::{GroupIndex, Terms},
    room::Room,
    tail::Tail,
};
use crate::{
    Error, LogId,
    disk::{DiskFile, WorkerHandle},
    record::{HEADER, padded},
};

/// Answers one call.
pub type Done = Box<dyn FnOnce(Result<(), Error>) + Send>;

/// What a queued operation writes.
#[derive(Debug)]
pub enum Op {
    /// An entry.
    Entry(LogEntry),
    /// A vote.
    Vote(Bytes),
    /// A commit mark.
    Committed(LogId),
    /// A cut after this index.
    Cut(Option<u64>),
    /// A purge.
    Purge(LogId),
}

impl Op {
    /// Bytes on disk.
    pub fn encoded_len(&self) -> usize {
        padded(HEADER + self.payload_len())
    }

    /// Bytes of payload.
    pub fn payload_len(&self) -> usize {
        match self {
            Self::Entry(entry) => entry.payload.len(),
            Self::Vote(vote) => vote.len(),
            Self::Purge(_) => size_of::<u32>(),
            Self::Committed(_) | Self::Cut(_) => 0,
        }
    }
}

/// One step of the stream; the last step of a call answers it.
pub struct Queued {
    /// What to write; `None` only answers.
    pub op: Option<Op>,
    /// Whom to answer once it is durable.
    pub done: Option<Done>,
    /// Its place in the stream.
    pub sequence: u64,
}

/// A live segment, as the reader needs it.
#[derive(Clone)]
pub struct Live {
    /// Its epoch.
    pub epoch: u32,
    /// Its file.
    pub file: Arc<dyn DiskFile>,
    /// The greatest entry index ever written to it.
    pub greatest: Option<u64>,
    /// Where it ends.
    pub end: u32,
}

/// Everything that calls and workers share.
pub struct State {
    /// The first entry held.
    pub first: Option<u64>,
    /// The only index that may follow; `None` while any may.
    pub next: Option<u64>,
    /// Terms of all entries held.
    pub terms: Terms,
    /// The last vote.
    pub vote: Option<Bytes>,
    /// The last commit mark.
    pub committed: Option<LogId>,
    /// The last purge.
    pub purged: Option<LogId>,
    /// The newest entries.
    pub tail: Tail,
    /// Where durable entries stand.
    pub index: GroupIndex,
    /// Segments in use, oldest first; the last is being written.
    pub segments: VecDeque<Live>,
    /// Prepared files.
    pub spares: Vec<Arc<dyn DiskFile>>,
    /// Files that are no longer wanted.
    pub surplus: Vec<Arc<dyn DiskFile>>,
    /// How much may still be written.
    pub room: Room,
    /// Bytes that live segments held at the open, and bytes written since.
    pub written: u64,
    /// Steps that the writer has not taken yet.
    pub queue: Vec<Queued>,
    /// The sequence number of the last queued step.
    pub sequence: u64,
    /// Why the log takes no further calls.
    pub ended: Option<Error>,
    /// The owner asked to close.
    pub closing: bool,
}

impl State {
    /// The last entry held.
    pub fn last(&self) -> Option<LogId> {
        let index = self.first.and(self.next)?.checked_sub(1)?;
        Some(LogId { term: self.terms.at(index)?, index })
    }

    /// What callers are told.
    pub fn report(&self) -> LogState {
        let first = self.first.and_then(|index| Some(LogId { term: self.terms.at(index)?, index }));
        LogState {
            first,
            last: self.last(),
            purged: self.purged,
            vote: self.vote.clone(),
            committed: self.committed,
            bytes: self.segments.iter().map(|segment| u64::from(segment.end)).sum(),
            runway: self.room.runway(self.spares.len()),
            capacity: self.room.capacity(),
            written: self.written,
        }
    }

    /// Queues a step.
    pub fn enqueue(&mut self, op: Option<Op>, done: Option<Done>) -> u64 {
        self.sequence += 1;
        if let Some(op) = &op {
            self.room.queue(op.encoded_len(), op.payload_len());
        }
        self.queue.push(Queued { op, done, sequence: self.sequence });
        self.sequence
    }

    /// Checks that `entries` may follow.
    pub fn check(&self, entries: &[LogEntry], max_payload: usize) -> Result<(), Error> {
        let mut next = self.next;
        let mut last_term = self.terms.last().or(self.purged.map(|purged| purged.term)).unwrap_or(0);
        for LogEntry { id, payload, .. } in entries {
            if payload.len() > max_payload {
                return Err(Error::TooLarge { len: payload.len() as u64, max: max_payload as u64 });
            }
            let expected = next.unwrap_or(id.index);
            if id.index != expected || id.term < last_term || id.index == u64::MAX {
                return Err(Error::OutOfOrder { expected, got: id.index, term: id.term, last_term });
            }
            (next, last_term) = (Some(id.index + 1), id.term);
        }
        Ok(())
    }

    /// Takes entries that [`State::check`] let pass.
    pub fn append(&mut self, entries: Vec<LogEntry>, done: Done) {
        let mut done = Some(done);
        let count = entries.len();
        for (i, entry) in entries.into_iter().enumerate() {
            self.first.get_or_insert(entry.id.index);
            self.next = Some(entry.id.index + 1);
            self.terms.push(entry.id);
            let done = if i + 1 == count { done.take() } else { None };
            let sequence = self.enqueue(Some(Op::Entry(entry.clone())), done);
            self.tail.push(entry, sequence);
        }
        if done.is_some() {
            self.enqueue(None, done);
        }
    }

    /// Cuts entries after `last`.
    pub fn truncate(&mut self, last: Option<u64>) {
        let next = last.map_or(0, |last| last.saturating_add(1));
        if self.next.is_none_or(|before| next >= before) {
            return;
        }
        self.tail.cut(next);
        self.terms.cut(next);
        if self.first.is_some_and(|first| next <= first) {
            self.first = None;
        }
        let after_purge = self.purged.map(|purged| purged.index + 1);
        self.next = last.map(|_| next).max(after_purge);
    }

    /// Forgets entries up to `up_to`.
    pub fn purge(&mut self, up_to: LogId) {
        if self.purged.is_some_and(|purged| purged.index >= up_to.index) {
            return;
        }
        self.purged = Some(up_to);
        let behind = up_to.index.saturating_add(1);
        self.tail.purge(up_to.index);
        self.terms.purge(up_to.index);
        if self.next.is_none_or(|next| next <= behind) {
            (self.first, self.next) = (None, Some(behind));
            self.terms.cut(0);
        } else if self.first.is_some_and(|first| first < behind) {
            self.first = Some(behind);
        }
    }
}

/// The state and the handles that calls and workers need.
pub struct Shared {
    /// How the log is laid out.
    pub options: LogOptions,
    state: Mutex<State>,
    /// Set once, right after the workers started.
    pub writer: std::sync::OnceLock<Arc<dyn WorkerHandle>>,
    /// As above.
    pub preparer: std::sync::OnceLock<Arc<dyn WorkerHandle>>,
}

impl Shared {
    /// Shares a state.
    pub fn new(options: LogOptions, state: State) -> Self {
        Self { options, state: Mutex::new(state), writer: Default::default(), preparer: Default::default() }
    }

    /// The state, locked. Never held across I/O or a callback.
    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// Gives the writer a turn.
    pub fn wake_writer(&self) {
        if let Some(writer) = self.writer.get() {
            writer.wake();
        }
    }

    /// Lets the writer have its turns on this thread, if it is idle.
    pub fn run_writer(&self) {
        if let Some(writer) = self.writer.get() {
            writer.run();
        }
    }

    /// Gives the preparer a turn.
    pub fn wake_preparer(&self) {
        if let Some(preparer) = self.preparer.get() {
            preparer.wake();
        }
    }

    /// Ends the log for good and answers everyone who waits, in order.
    pub fn fail(&self, cause: &str, taken: Vec<Done>) {
        tracing::error!(cause, "the log has failed");
        self.end(Error::Failed { cause: cause.into() }, taken);
    }

    /// Ends the log with this answer to all waiting and later calls; the first end counts.
    pub fn end(&self, error: Error, taken: Vec<Done>) {
        let mut state = self.lock();
        let error = state.ended.get_or_insert(error).clone();
        let queue = std::mem::take(&mut state.queue);
        drop(state);
        taken
            .into_iter()
            .chain(queue.into_iter().filter_map(|queued| queued.done))
            .for_each(|done| done(Err(error.clone())));
        self.wake_preparer();
    }
}
