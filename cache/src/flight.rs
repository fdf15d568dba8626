//! Owns the in-flight table: one fetch per key, however many readers wait, and one answer for all of them.
//!
//! A fetch runs as a task of its own, so a reader that is cancelled (the one that started the fetch included) takes
//! nobody else's answer with it. A failure goes once to everyone who waited; nobody retries in turn.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use tokio::sync::watch;

use crate::{Answer, Error, Key, key::Groups};

const SHARDS: usize = 16;

type Outcome = Option<Result<Answer, Error>>;

struct Flight {
    answer: watch::Receiver<Outcome>,
    ticket: Arc<Ticket>,
}

/// What a running fetch learns from the outside.
#[derive(Default)]
pub(crate) struct Ticket {
    superseded: AtomicBool,
}

impl Ticket {
    /// Whether the key was removed or overwritten since the fetch began: its answer may go to those who asked before,
    /// but must not be stored. Read and written under the shard's lock.
    fn superseded(&self) -> bool {
        self.superseded.load(Relaxed)
    }
}

/// The fetches that are under way.
#[derive(Default)]
pub(crate) struct Flights {
    shards: [Mutex<FxHashMap<Key, Flight>>; SHARDS],
}

/// How a reader got its place.
pub(crate) enum Joined {
    /// The record turned up while the reader took its place.
    Ready(Answer),
    /// This reader started the fetch.
    Leads(Waiter),
    /// Another reader had started it.
    Waits(Waiter),
}

/// A reader's claim on the answer of a fetch.
pub(crate) struct Waiter(watch::Receiver<Outcome>);

impl Waiter {
    /// The answer. A fetch that ended without one (its runtime shut down, or the origin panicked) is an error.
    pub(crate) async fn answer(mut self) -> Result<Answer, Error> {
        match self.0.wait_for(Option::is_some).await {
            Ok(answer) => answer.clone().unwrap_or(Err(Error::Aborted)),
            Err(_) => Err(Error::Aborted),
        }
    }
}

impl Flights {
    /// Joins the fetch of `key`, or starts `fetch` on the current runtime. `recheck` runs under the table's lock:
    /// because a fetch stores its result before it leaves the table, a reader that finds neither really is first.
    pub(crate) fn join<F>(
        self: &Arc<Self>,
        key: Key,
        recheck: impl FnOnce() -> Option<Answer>,
        fetch: impl FnOnce(Arc<Ticket>) -> F,
    ) -> Joined
    where
        F: Future<Output = Result<Answer, Error>> + Send + 'static,
    {
        let (send, receive) = watch::channel(None);
        let ticket = Arc::new(Ticket::default());
        {
            let mut shard = self.shard(&key).lock();
            // A superseded flight answers those who joined it before; a new reader must start afresh.
            if let Some(flight) = shard.get(&key)
                && !flight.ticket.superseded()
            {
                return Joined::Waits(Waiter(flight.answer.clone()));
            }
            if let Some(found) = recheck() {
                return Joined::Ready(found);
            }
            shard.insert(key, Flight { answer: receive.clone(), ticket: ticket.clone() });
        }
        let landing = Landing { flights: self.clone(), key, ticket: ticket.clone() };
        let running = fetch(ticket);
        tokio::spawn(async move {
            let answer = running.await;
            drop(landing);
            // No receiver left: every reader was cancelled, and the record is stored all the same.
            let _ = send.send(Some(answer));
        });
        Joined::Leads(Waiter(receive))
    }

    /// Whether a new reader of `key` would wait for a fetch that runs.
    pub(crate) fn contains(&self, key: &Key) -> bool {
        self.shard(key).lock().get(key).is_some_and(|flight| !flight.ticket.superseded())
    }

    /// Changes what the tiers have of `key`, and makes a running fetch answer its readers without storing what it got. No
    /// fetch begins or stores in between: a read that begins after this gets what `change` made.
    pub(crate) fn supersede(&self, key: &Key, change: impl FnOnce()) {
        let shard = self.shard(key).lock();
        if let Some(flight) = shard.get(key) {
            flight.ticket.superseded.store(true, Relaxed);
        }
        change();
    }

    /// Stores what the fetch with this ticket found out, unless the key was changed since it began.
    pub(crate) fn store(&self, key: &Key, ticket: &Ticket, store: impl FnOnce()) {
        let _shard = self.shard(key).lock();
        if !ticket.superseded() {
            store();
        }
    }

    /// Makes running fetches of every key of these groups answer without storing what they got.
    pub(crate) fn supersede_groups(&self, groups: &Groups) {
        for shard in &self.shards {
            for (_, flight) in shard.lock().iter().filter(|(key, _)| groups.contains(&key.group)) {
                flight.ticket.superseded.store(true, Relaxed);
            }
        }
    }

    fn shard(&self, key: &Key) -> &Mutex<FxHashMap<Key, Flight>> {
        &self.shards[(key.mix() >> 56) as usize % SHARDS]
    }
}

/// Takes a fetch out of the table however it ends: done, panicked, or dropped with its runtime.
struct Landing {
    flights: Arc<Flights>,
    key: Key,
    ticket: Arc<Ticket>,
}

impl Drop for Landing {
    fn drop(&mut self) {
        let mut shard = self.flights.shard(&self.key).lock();
        // A fetch that superseded this one has its own entry there.
        if shard.get(&self.key).is_some_and(|flight| Arc::ptr_eq(&flight.ticket, &self.ticket)) {
            shard.remove(&self.key);
        }
    }
}
