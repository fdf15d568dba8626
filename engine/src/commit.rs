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
    pending::{Order, Outcome, PendingBatch},
};

/// Entries proposed and not yet applied. More than one, so that the log always has the next one at hand.
const WINDOW: usize = 2;
/// Bytes of batches that may wait for the window.
const QUEUE_BYTES_MAX: usize = 256 << 20;

type Proposal = futures::future::BoxFuture<'static, (Done, Result<LogId, holdfast_wal::Error>)>;

/// Whom to answer, and the reign in which it was proposed.
pub struct Done {
    own: Option<Own>,
    reign: u64,
}

/// Whom to answer about a payload of its own, and the keyspace that its place marked as dropped.
pub struct Own {
    answer: oneshot::Sender<Result<LogId>>,
    drops: Option<Keyspace>,
}

impl Own {
    /// It never was in the log: what its place did is undone.
    fn refused(self, cause: Error) {
        if let Some(keyspace) = &self.drops {
            keyspace.unmark_dropped();
        }
        self.ended(Err(cause));
    }

    fn ended(self, result: Result<LogId>) {
        // Whoever asked may have gone away.
        let _ = self.answer.send(result);
    }
}

/// What goes into the log next.
struct Entry {
    payload: Bytes,
    batches: usize,
    own: Option<Own>,
    /// It makes room, so it may use the log's reserve.
    reserved: bool,
}

enum Work {
    /// An encoded batch; its twin stands in the pending overlay.
    Batch(Bytes),
    /// The end of a big batch whose parts are in the log; its twin stands in the pending overlay.
    Commit(Bytes),
    /// A payload of its own; whether it may use the log's reserve.
    Raw(Bytes, Own, bool),
}

/// A guard that a proposed batch set, and its version before.
struct GuardSet {
    order: Order,
    guard: u64,
    before: Option<u64>,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Work>,
    bytes: usize,
    in_flight: usize,
    /// Nothing is proposed: leadership is being handed over.
    paused: bool,
    /// Grows when leadership is lost: what was proposed before no longer counts.
    reign: u64,
    log: Option<(Wal, mpsc::UnboundedSender<Proposal>)>,
    /// Versions of guards as of the last place given.
    guards: FxHashMap<u64, u64>,
    /// What sets them back if a batch is refused, oldest first. Only DDL sets guards.
    set: Vec<GuardSet>,
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

    /// The log is there.
    pub fn attach(&self, log: Wal, proposals: mpsc::UnboundedSender<Proposal>) {
        self.0.lock().log = Some((log, proposals));
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
        inner.check_term(submission.term)?;
        for keyspace in submission.keyspaces {
            keyspace.check()?;
        }
        for guard in submission.guards.iter().filter(|guard| !guard.set) {
            if queue.guards.get(&guard.guard).copied().unwrap_or(0) != guard.version {
                return Err(Error::Conflict("a table that the transaction used was changed".into()));
            }
        }
        validate()?;
        let (done, outcome) = oneshot::channel();
        let order = inner.pending.push(submission.batch, Some(done));
        for guard in submission.guards.iter().filter(|guard| guard.set) {
            queue.set_guard(inner, order, *guard);
        }
        queue.bytes += submission.bytes.len();
        queue.waiting.push_back(if submission.commit {
            Work::Commit(submission.bytes)
        } else {
            Work::Batch(submission.bytes)
        });
        queue.pump(inner);
        Ok(outcome)
    }

    /// Gives a payload its place, in order with batches. `reserved`: it makes room, so it may use the log's reserve.
    pub fn propose(&self, inner: &Inner, payload: Bytes, reserved: bool) -> Result<oneshot::Receiver<Result<LogId>>> {
        let mut queue = self.0.lock();
        queue.check()?;
        Ok(queue.place(inner, payload, reserved, None))
    }

    /// Gives the drop of a keyspace its place: no later batch can write to it.
    pub fn propose_drop(
        &self,
        inner: &Inner,
        payload: Bytes,
        keyspace: &Keyspace,
    ) -> Result<oneshot::Receiver<Result<LogId>>> {
        let mut queue = self.0.lock();
        queue.check()?;
        // One drop at a time, so that a refused one takes back no other's mark.
        keyspace.check()?;
        keyspace.mark_dropped();
        Ok(queue.place(inner, payload, false, Some(keyspace.clone())))
    }

    /// Holds what comes from now on back, and waits until what was proposed is decided.
    pub async fn pause(&self, inner: &Inner) {
        let last = {
            let mut queue = self.0.lock();
            queue.paused = true;
            inner.pending.last() - queue.waiting_batches()
        };
        let _ = inner.pending.wait(last).await;
    }

    /// Goes on: proposes what was held back.
    pub fn resume(&self, inner: &Inner) {
        let mut queue = self.0.lock();
        queue.paused = false;
        queue.pump(inner);
    }

    /// This node leads from now on, with these versions applied.
    pub fn lead(&self, guards: FxHashMap<u64, u64>) {
        let mut queue = self.0.lock();
        queue.guards = guards;
        queue.set.clear();
    }

    /// Nothing gets a place any more; lets go of the log.
    pub fn close(&self, cause: &Error) {
        let mut queue = self.0.lock();
        queue.closed.get_or_insert_with(|| cause.clone());
        queue.log = None;
        queue.waiting.clear();
    }

    /// This node no longer leads. Nothing more is proposed; the outcome of what is in flight is not known here, and who
    /// waits for it learns that at once: the log may answer only when the old leader hears of the new one.
    pub fn depose(&self, inner: &Inner) {
        let mut queue = self.0.lock();
        queue.reign += 1;
        queue.in_flight = 0;
        queue.refuse(inner, 0, &inner.not_leader());
        let unknown = Error::Unknown("leadership was lost before the commit was confirmed".into());
        queue.unset_guards(inner, usize::MAX);
        inner.pending.withdraw(usize::MAX, &unknown);
        for work in std::mem::take(&mut queue.waiting) {
            if let Work::Raw(_, own, _) = work {
                own.refused(inner.not_leader());
            }
        }
    }

    /// A proposal ended.
    fn ended(&self, inner: &Inner, reign: u64) {
        let mut queue = self.0.lock();
        if queue.reign == reign {
            queue.in_flight -= 1;
            queue.pump(inner);
        }
    }

    /// A proposal that was under way came back: this node no longer leads, and whatever stands behind it comes back
    /// too. The outcome of what was in flight beside it is not known here.
    fn deposed(&self, inner: &Inner, reign: u64, cause: &Error) {
        let mut queue = self.0.lock();
        if queue.reign != reign {
            return;
        }
        queue.in_flight -= 1;
        queue.refuse(inner, usize::MAX, cause);
        queue.pump(inner);
    }
}

impl Queue {
    fn check(&self) -> Result<()> {
        self.closed.as_ref().map_or(Ok(()), |cause| Err(cause.clone()))
    }

    /// Batches that have their place and are not proposed.
    fn waiting_batches(&self) -> Order {
        self.waiting.iter().filter(|work| !matches!(work, Work::Raw(..))).count() as Order
    }

    fn place(
        &mut self,
        inner: &Inner,
        payload: Bytes,
        reserved: bool,
        drops: Option<Keyspace>,
    ) -> oneshot::Receiver<Result<LogId>> {
        let (answer, outcome) = oneshot::channel();
        self.bytes += payload.len();
        self.waiting.push_back(Work::Raw(payload, Own { answer, drops }, reserved));
        self.pump(inner);
        outcome
    }

    fn set_guard(&mut self, inner: &Inner, order: Order, guard: Guard) {
        let decided = inner.pending.last_decided();
        self.set.retain(|set| set.order > decided);
        let before = self.guards.insert(guard.guard, guard.version);
        self.set.push(GuardSet { order, guard: guard.guard, before });
    }

    /// Takes back the guards that the newest `batches` batches set.
    fn unset_guards(&mut self, inner: &Inner, batches: usize) {
        let kept = inner.pending.last().saturating_sub(batches as Order);
        while let Some(GuardSet { guard, before, .. }) = self.set.pop_if(|set| set.order > kept) {
            match before {
                Some(version) => self.guards.insert(guard, version),
                None => self.guards.remove(&guard),
            };
        }
    }

    /// Proposes while the window has room.
    fn pump(&mut self, inner: &Inner) {
        while self.in_flight < WINDOW && !self.waiting.is_empty() && !self.paused {
            let Some((log, proposals)) = self.log.clone() else { return };
            let Entry { payload, batches, own, reserved } = self.take_entry();
            let reign = self.reign;
            self.bytes = self.bytes.saturating_sub(payload.len());
            // The call itself takes the place in the log's line.
            let mut proposal =
                if reserved { log.propose_reserved(payload).boxed() } else { log.propose(payload).boxed() };
            match proposal.as_mut().now_or_never() {
                None => {
                    self.in_flight += 1;
                    let done = Done { own, reign };
                    let _ = proposals.send(Box::pin(async move { (done, proposal.await) }));
                }
                Some(Ok(id)) => answer(own, Ok(id)),
                Some(Err(error)) => {
                    let cause = log_error(&error);
                    if let Some(own) = own {
                        own.refused(cause.clone());
                    }
                    self.refuse(inner, batches, &cause);
                }
            }
        }
    }

    /// The newest proposal of `batches` batches was refused: nothing that has its place behind it may be proposed
    /// either, since it may have read those writes.
    fn refuse(&mut self, inner: &Inner, batches: usize, cause: &Error) {
        let mut batches = batches;
        let mut kept = VecDeque::new();
        for work in self.waiting.drain(..) {
            match work {
                Work::Batch(_) | Work::Commit(_) => batches = batches.saturating_add(1),
                // It depends on nothing, and makes the room that was missing.
                Work::Raw(_, _, true) => kept.push_back(work),
                Work::Raw(_, own, false) => own.refused(cause.clone()),
            }
        }
        self.waiting = kept;
        self.bytes = 0;
        self.unset_guards(inner, batches);
        inner.pending.withdraw(batches, cause);
    }

    /// The next entry: one payload of its own, or as many batches as fit.
    fn take_entry(&mut self) -> Entry {
        let mut group = GroupWriter::new();
        while let Some(work) = self.waiting.pop_front() {
            match work {
                Work::Batch(batch) if group.is_empty() || group.fits(batch.len()) => group.push(batch),
                Work::Commit(payload) if group.is_empty() => {
                    return Entry { payload, batches: 1, own: None, reserved: false };
                }
                Work::Raw(payload, own, reserved) if group.is_empty() => {
                    return Entry { payload, batches: 0, own: Some(own), reserved };
                }
                other => {
                    self.waiting.push_front(other);
                    break;
                }
            }
        }
        Entry { batches: group.len(), payload: group.finish(), own: None, reserved: false }
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
    let Done { own, reign } = done;
    let error = match result {
        Ok(id) => {
            inner.queue.ended(inner, reign);
            return answer(own, Ok(id));
        }
        Err(error) => error,
    };
    let cause = log_error(&error);
    match cause {
        Error::Retry(_) | Error::NotLeader { .. } => {
            if let Some(own) = own {
                own.refused(cause);
            }
            inner.queue.deposed(inner, reign, &Error::Unknown(error.to_string()));
        }
        // Leadership was lost: the entry is not in the log of the new leader, or nobody knows.
        Error::Unknown(_) => {
            answer(own, Err(cause.clone()));
            inner.queue.deposed(inner, reign, &cause);
        }
        _ => {
            answer(own, Err(cause));
            inner.poison(&error.to_string());
        }
    }
}

fn answer(own: Option<Own>, result: Result<LogId>) {
    if let Some(own) = own {
        own.ended(result);
    }
}

/// An error of the log in the engine's words.
pub fn log_error(error: &holdfast_wal::Error) -> Error {
    use holdfast_wal::Error as Log;
    match error {
        Log::Full { .. } | Log::Busy { .. } | Log::Unavailable { .. } => Error::Retry(error.to_string()),
        Log::NotLeader { leader } => Error::NotLeader { leader: *leader },
        Log::Unknown { .. } => Error::Unknown(error.to_string()),
        Log::Corrupt { .. } | Log::NewerVersion { .. } => Error::Corrupt(error.to_string()),
        Log::OtherCluster { .. } | Log::Locked { .. } | Log::Options(_) => Error::Invalid(error.to_string()),
        _ => Error::Closed(error.to_string()),
    }
}

#[cfg(test)]
mod tests;
