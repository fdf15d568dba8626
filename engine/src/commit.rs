//! Group commit: batches get their place in the log order, wait while the log is busy, and leave together.
//!
//! A place is given under one lock, which also proposes while the window has room, so that the calls to the log are
//! ordered like the places. Apply answers the waiting transactions; the driver here only watches for failures and
//! refills the window.

use std::{collections::VecDeque, sync::Arc};

use bytes::Bytes;
use futures::{FutureExt, StreamExt, stream::FuturesUnordered};
use holdfast_wal::{LogId, Wal};
use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use tokio::sync::{mpsc, oneshot};

use crate::{
    error::{Error, Result},
    format::batch::{GroupWriter, Guard},
    inner::Inner,
    keyspace::Keyspace,
    pending::{Outcome, PendingBatch},
};

/// Entries proposed and not yet applied. More than one, so that the log always has the next one at hand.
const WINDOW: usize = 2;
/// Bytes of batches that may wait for the window.
const QUEUE_BYTES_MAX: usize = 256 << 20;

type Proposal = futures::future::BoxFuture<'static, (Done, Result<LogId, holdfast_wal::Error>)>;

type Done = Option<oneshot::Sender<Result<LogId>>>;

/// What goes into the log next.
struct Entry {
    payload: Bytes,
    batches: usize,
    done: Done,
}

enum Work {
    /// An encoded batch; its twin stands in the pending overlay.
    Batch(Bytes),
    /// The end of a big batch whose parts are in the log; its twin stands in the pending overlay.
    Commit(Bytes),
    /// A payload of its own.
    Raw(Bytes, oneshot::Sender<Result<LogId>>),
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Work>,
    bytes: usize,
    in_flight: usize,
    log: Option<(Wal, mpsc::UnboundedSender<Proposal>)>,
    /// Versions of guards as of the last place given.
    guards: FxHashMap<u64, u64>,
    closed: Option<Error>,
}

/// Where batches get their place.
#[derive(Default)]
pub struct CommitQueue(Mutex<Queue>);

/// A batch that wants its place.
pub struct Submission<'a> {
    /// Its writes, for the pending overlay.
    pub batch: PendingBatch,
    /// Its bytes; `commit` says that they are a `Commit` payload.
    pub bytes: Bytes,
    /// The bytes are a payload of their own.
    pub commit: bool,
    /// The term of its locks.
    pub term: u64,
    /// Guards to check against what is proposed, and to set.
    pub guards: &'a [Guard],
    /// Keyspaces it writes to.
    pub keyspaces: &'a [Keyspace],
}

impl CommitQueue {
    /// A queue without a log: everything waits.
    pub fn new() -> Self {
        Self::default()
    }

    /// The log is ready. `guards` are their applied versions.
    pub fn attach(&self, log: Wal, guards: FxHashMap<u64, u64>, proposals: mpsc::UnboundedSender<Proposal>) {
        let mut queue = self.0.lock();
        queue.log = Some((log, proposals));
        queue.guards = guards;
    }

    /// Gives a batch its place. `validate` runs under the lock: what it finds holds at that place.
    pub fn submit(
        &self,
        inner: &Inner,
        submission: Submission<'_>,
        validate: impl FnOnce() -> Result<()>,
    ) -> Result<oneshot::Receiver<Outcome>> {
        let mut queue = self.0.lock();
        queue.check()?;
        if queue.bytes > QUEUE_BYTES_MAX {
            return Err(Error::Retry(format!("{QUEUE_BYTES_MAX} bytes of commits wait for the log")));
        }
        if submission.term != inner.term() {
            return Err(Error::Conflict("leadership changed since the transaction took its locks".into()));
        }
        for keyspace in submission.keyspaces {
            keyspace.check()?;
        }
        for guard in submission.guards.iter().filter(|guard| !guard.set) {
            if queue.guards.get(&guard.guard).copied().unwrap_or(0) != guard.version {
                return Err(Error::Conflict("a table that the transaction used was changed".into()));
            }
        }
        validate()?;
        for guard in submission.guards.iter().filter(|guard| guard.set) {
            queue.guards.insert(guard.guard, guard.version);
        }
        let (done, outcome) = oneshot::channel();
        inner.pending.push(submission.batch, Some(done));
        queue.bytes += submission.bytes.len();
        queue.waiting.push_back(if submission.commit {
            Work::Commit(submission.bytes)
        } else {
            Work::Batch(submission.bytes)
        });
        queue.pump(inner);
        Ok(outcome)
    }

    /// Gives a payload its place, in order with batches. `before` runs under the lock, once the place is certain.
    pub fn propose(
        &self,
        inner: &Inner,
        payload: Bytes,
        before: impl FnOnce(),
    ) -> Result<oneshot::Receiver<Result<LogId>>> {
        let mut queue = self.0.lock();
        queue.check()?;
        before();
        let (done, outcome) = oneshot::channel();
        queue.bytes += payload.len();
        queue.waiting.push_back(Work::Raw(payload, done));
        queue.pump(inner);
        Ok(outcome)
    }

    /// Nothing gets a place any more; lets go of the log.
    pub fn close(&self, cause: &Error) {
        let mut queue = self.0.lock();
        queue.closed.get_or_insert_with(|| cause.clone());
        queue.log = None;
        queue.waiting.clear();
    }

    /// A proposal ended.
    fn ended(&self, inner: &Inner) {
        let mut queue = self.0.lock();
        queue.in_flight -= 1;
        queue.pump(inner);
    }

    /// A proposal that was under way came back: this node no longer leads, and whatever stands behind it comes back
    /// too. The outcome of what was in flight beside it is not known here.
    fn deposed(&self, inner: &Inner, cause: &Error) {
        let mut queue = self.0.lock();
        queue.in_flight -= 1;
        queue.refuse(inner, usize::MAX, cause);
    }
}

impl Queue {
    fn check(&self) -> Result<()> {
        self.closed.as_ref().map_or(Ok(()), |cause| Err(cause.clone()))
    }

    /// Proposes while the window has room.
    fn pump(&mut self, inner: &Inner) {
        while self.in_flight < WINDOW && !self.waiting.is_empty() {
            let Some((log, proposals)) = self.log.clone() else { return };
            let Entry { payload, batches, done } = self.take_entry();
            self.bytes = self.bytes.saturating_sub(payload.len());
            // The call itself takes the place in the log's line.
            let mut proposal = log.propose(payload).boxed();
            match proposal.as_mut().now_or_never() {
                None => {
                    self.in_flight += 1;
                    let _ = proposals.send(Box::pin(async move { (done, proposal.await) }));
                }
                Some(Ok(id)) => answer(done, Ok(id)),
                Some(Err(error)) => {
                    let cause = log_error(&error);
                    answer(done, Err(cause.clone()));
                    self.refuse(inner, batches, &cause);
                    return;
                }
            }
        }
    }

    /// The newest proposal of `batches` batches was refused: nothing that has its place behind it may be proposed
    /// either, since it may have read those writes.
    fn refuse(&mut self, inner: &Inner, batches: usize, cause: &Error) {
        let mut batches = batches;
        for work in self.waiting.drain(..) {
            match work {
                Work::Batch(_) | Work::Commit(_) => batches = batches.saturating_add(1),
                Work::Raw(_, done) => drop(done.send(Err(cause.clone()))),
            }
        }
        self.bytes = 0;
        inner.pending.withdraw(batches, cause);
    }

    /// The next entry: one payload of its own, or as many batches as fit.
    fn take_entry(&mut self) -> Entry {
        let mut group = GroupWriter::new();
        while let Some(work) = self.waiting.pop_front() {
            match work {
                Work::Batch(batch) if group.is_empty() || group.fits(batch.len()) => group.push(batch),
                Work::Commit(payload) if group.is_empty() => return Entry { payload, batches: 1, done: None },
                Work::Raw(payload, done) if group.is_empty() => return Entry { payload, batches: 0, done: Some(done) },
                other => {
                    self.waiting.push_front(other);
                    break;
                }
            }
        }
        Entry { batches: group.len(), payload: group.finish(), done: None }
    }
}

/// Polls proposals to their end: refills the window, and ends the database when the log fails.
pub async fn drive(inner: Arc<Inner>, mut proposals: mpsc::UnboundedReceiver<Proposal>) {
    let mut in_flight = FuturesUnordered::new();
    loop {
        tokio::select! {
            biased;
            Some((done, result)) = in_flight.next(), if !in_flight.is_empty() => finish(&inner, done, result),
            proposal = proposals.recv() => match proposal {
                Some(proposal) => in_flight.push(proposal),
                None => return,
            },
        }
    }
}

fn finish(inner: &Arc<Inner>, done: Done, result: Result<LogId, holdfast_wal::Error>) {
    match result {
        Ok(id) => {
            inner.queue.ended(inner);
            answer(done, Ok(id));
        }
        Err(error) => {
            let cause = log_error(&error);
            answer(done, Err(cause.clone()));
            match cause {
                Error::Retry(_) | Error::NotLeader { .. } => {
                    inner.queue.deposed(inner, &Error::Unknown(error.to_string()));
                }
                _ => inner.poison(&error.to_string()),
            }
        }
    }
}

fn answer(done: Done, result: Result<LogId>) {
    if let Some(done) = done {
        // Whoever asked may have gone away.
        let _ = done.send(result);
    }
}

/// An error of the log in the engine's words.
pub fn log_error(error: &holdfast_wal::Error) -> Error {
    use holdfast_wal::Error as Log;
    match error {
        Log::Full { .. } | Log::Busy { .. } => Error::Retry(error.to_string()),
        Log::NotLeader { leader } => Error::NotLeader { leader: *leader },
        Log::Unknown { .. } => Error::Unknown(error.to_string()),
        Log::Corrupt { .. } | Log::NewerVersion { .. } => Error::Corrupt(error.to_string()),
        Log::OtherCluster { .. } | Log::Locked { .. } | Log::Options(_) => Error::Invalid(error.to_string()),
        _ => Error::Closed(error.to_string()),
    }
}
