//! Background work of the leader: freezing, flushing, compacting, collecting, and the pressure that writers feel.
//!
//! All but measuring waits while another node leads. Freezing and measuring go on while a flush waits for the store. Two
//! tasks make drafts, one at a time turns a draft into an edit: whoever comes second rebases (rule 1).

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use holdfast_wal::{Wal, WalStatus};

use crate::{
    cluster::members::Members,
    commit::log_error,
    error::{Error, Result},
    format::batch::Payload,
    inner::{BIG_TXNS, Inner},
    limits::MEMTABLE_RANGES_MAX,
    memtable::Memtable,
    pressure::{Load, PARTS_OF_RUN, Part, Runway, Shortest, pressure},
    read::{FROZEN_MAX, Frozen, ReadState},
    spill::run::spill_from,
    tree::{Draft, FlushInput, Source},
};

/// How often pressure is measured and idle work looked for.
const TICK: Duration = Duration::from_millis(100);
/// Frozen memtables in RAM and on disk together: each is one more place for reads to look.
const WAITING_MAX: usize = 512;
/// Frozen memtables that are flushed whatever their size: reads look into each.
const TOGETHER_MAX: usize = 64;
/// Flushed runs that may wait for compaction, and half of those that there may be with the ones in hand: reads look into
/// each.
const RUNS_MAX: u64 = 40;
/// Spilled memtables that double the bytes at which the next one is frozen, for the same reason.
const SPILLED_PER_DOUBLING: usize = 32;
/// Longest pause after a failure of the store.
const BACKOFF_MAX: Duration = Duration::from_secs(10);
/// Share of what flushes give room in, used, from which on they wait for no budget of requests.
const URGENT: f64 = 0.3;
/// What the tasks share.
pub struct Background {
    inner: Arc<Inner>,
    wal: Wal,
    node: u64,
    members: Arc<Members>,
    /// Held from a draft's base check to its edit's apply.
    editor: tokio::sync::Mutex<()>,
}

impl Background {
    /// Work on this database.
    pub fn new(inner: Arc<Inner>, wal: Wal, node: u64, members: Arc<Members>) -> Self {
        Self { inner, wal, node, members, editor: tokio::sync::Mutex::new(()) }
    }

    /// Measures pressure for as long as the database is open.
    pub async fn watch(self: Arc<Self>) {
        let (mut last, mut looked) = (0, self.inner.clock.now());
        while self.inner.check().is_ok() {
            let (load, voter) = self.measure();
            let (inner, commits) = (&self.inner, self.inner.counters.commits.load(Ordering::Relaxed));
            // Woken by each freeze and flush: between two of them there may be no commit.
            let now = inner.clock.now();
            if now.saturating_sub(looked) >= TICK {
                self.set_rests(commits > last, &load, voter);
                (last, looked) = (commits, now);
            }
            inner.spending.tick(now, || inner.tree.store().requests(), commits);
            let _ = tokio::time::timeout(TICK, self.inner.measure.notified()).await;
        }
    }

    /// Tells background work how much to rest. `busy`: commits come; the others are of [`Self::measure`].
    fn set_rests(&self, busy: bool, load: &Load, voter: Option<(u64, Runway)>) {
        let (inner, work) = (&self.inner, self.inner.tree.work());
        work.rest.set(busy, load.runs.used());
        let (flush, spilled_from) = (inner.options.flush_bytes(), spill_from(inner.options.ram_bound()) as u64);
        work.flush_rest.set(busy && !inner.is_flush_waited_for(), load.waits_for_flush(voter, flush, spilled_from));
        work.spill_rest.set(busy, load.ram.used());
    }

    /// Freezes for as long as the database is open, also while a flush is under way.
    pub async fn freeze(self: Arc<Self>) {
        let mut backoff = Backoff::default();
        let mut frozen_at = 0;
        while self.inner.leads().await.is_ok() {
            if !self.wants_freeze(frozen_at) {
                let _ = tokio::time::timeout(TICK, self.inner.work.notified()).await;
                continue;
            }
            let active = Arc::clone(&self.inner.read_state().active);
            match self.freeze_once().await {
                // Apply did not freeze after all: not again at once, and the log since the last freeze still counts.
                Ok(_) if Arc::ptr_eq(&active, &self.inner.read_state().active) => tokio::time::sleep(TICK).await,
                Ok(written) => (frozen_at, backoff) = (written, Backoff::default()),
                Err(error) => backoff.wait("freeze", &error).await,
            }
        }
    }

    /// Flushes for as long as the database is open.
    pub async fn flush(self: Arc<Self>) {
        let mut backoff = Backoff::default();
        while let Ok(term) = self.inner.leads().await {
            let frozen = self.inner.read_state().frozen.clone();
            if frozen.is_empty() {
                tokio::select! {
                    biased;
                    () = self.inner.frozen.notified() => {}
                    () = self.inner.deposed(term) => {}
                }
                continue;
            }
            if !self.wants_flush(&frozen) {
                // A checkpoint, or what else takes the room that is left, comes without a freeze.
                let _ = tokio::time::timeout(TICK, self.inner.frozen.notified()).await;
                continue;
            }
            match self.flush_all(&frozen).await {
                Ok(()) => {
                    backoff = Backoff::default();
                    self.inner.flush_failure.send_if_modified(|failure| failure.take().is_some());
                }
                Err(error) => {
                    self.inner.flush_failure.send_replace(Some(error.clone()));
                    backoff.wait("flush", &error).await;
                }
            }
            self.measure();
            self.inner.work.notify_one();
        }
    }

    /// Aborts big batches that did not commit: while their parts are open nothing is frozen.
    pub async fn abort(self: Arc<Self>) {
        let mut backoff = Backoff::default();
        while self.inner.check().is_ok() {
            let (txn, _turn) = self.inner.aborts.next().await;
            while let Err(error) = self.abort_once(txn).await {
                if self.inner.check().is_err() {
                    return;
                }
                // The change of leader has aborted it already (rule 10).
                if matches!(error, Error::NotLeader { .. }) {
                    break;
                }
                backoff.wait("abort of a big transaction", &error).await;
            }
            backoff = Backoff::default();
        }
    }

    /// Through the commit queue, so that it stands behind everything of its transaction.
    async fn abort_once(&self, txn: u128) -> Result<()> {
        let placed = self.inner.queue.propose(&self.inner, Payload::Abort { txn }.encode(), true)?;
        placed.await.map_err(|_| Error::Closed("the database was closed".into()))?.map(|_| ())
    }

    /// Compacts and collects for as long as the database is open.
    pub async fn compact(self: Arc<Self>) {
        let mut backoff = Backoff::default();
        let mut flushed = self.inner.flushed.subscribe();
        while self.inner.leads().await.is_ok() {
            // While commits are refused nobody else asks.
            self.wal.look_for_room();
            let compacted = self.compact_once().await;
            *self.inner.compact_failure.lock() = compacted.as_ref().err().cloned();
            match compacted {
                Ok(true) => backoff = Backoff::default(),
                Ok(false) => {
                    let _ = tokio::time::timeout(TICK * 10, flushed.changed()).await;
                }
                Err(error) => backoff.wait("compaction", &error).await,
            }
            if let Err(error) = self.collect_once().await {
                self.inner.superseded(&error);
                backoff.wait("collection of dead objects", &error).await;
            }
        }
    }

    /// Deletes what has left force, if this node still leads: one that was deposed while it slept deletes nothing.
    async fn collect_once(&self) -> Result<()> {
        if !self.inner.tree.has_garbage() {
            return Ok(());
        }
        self.wal.confirm_lead().await.map_err(|error| log_error(&error))?;
        self.inner.tree.collect(false).await.map(|_| ())
    }

    /// Deletes what earlier terms left behind, once in each term of this node, when no member reads what was in force
    /// before the term.
    pub async fn sweep(self: Arc<Self>) {
        let mut backoff = Backoff::default();
        while let Ok(term) = self.inner.leads().await {
            match self.sweep_once(term).await {
                Ok(()) => {
                    backoff = Backoff::default();
                    self.inner.deposed(term).await;
                }
                Err(error) => {
                    self.inner.superseded(&error);
                    backoff.wait("sweep", &error).await;
                }
            }
        }
    }

    async fn sweep_once(&self, term: u64) -> Result<()> {
        let began = self.wal.status().applied;
        while self.inner.tree.others_released() < began {
            if self.inner.term() != term {
                return Ok(());
            }
            tokio::time::sleep(TICK).await;
        }
        if self.inner.archive.on {
            // Edits of older terms: until they are archived a rebuild would look for what they unlinked.
            let archived = self.inner.archive.settled(began, || self.inner.check());
            tokio::select! {
                biased;
                archived = archived => archived?,
                () = self.inner.deposed(term) => return Ok(()),
            }
        }
        self.wal.confirm_lead().await.map_err(|error| log_error(&error))?;
        self.inner.tree.sweep(term, false).await.map(|_| ())
    }

    /// Follows what the other members need, for as long as the database is open.
    pub async fn follow_members(self: Arc<Self>) {
        let members = &self.members;
        let mut led = 0;
        while self.inner.check().is_ok() {
            let status = self.wal.status();
            let leadership = status.leadership;
            if leadership.is_leader && leadership.term != led {
                led = leadership.term;
                members.lead();
            }
            let others: Vec<u64> =
                status.members.iter().map(|(peer, _)| peer.id).filter(|id| *id != self.node).collect();
            if let Some(need) = members.need(leadership, &others) {
                self.inner.snapshots.set_cap(need.floor);
                self.inner.tree.set_released(need.released);
            }
            if !leadership.is_leader {
                self.inner.tree.forget_garbage();
            }
            tokio::time::sleep(TICK).await;
        }
    }

    /// Whether frozen memtables are worth a flush, are waited for, or wait at the cost of others.
    fn wants_flush(&self, frozen: &[Arc<Frozen>]) -> bool {
        let inner = &self.inner;
        let status = self.wal.status();
        let in_ram = frozen.iter().filter(|frozen| frozen.on_disk().is_none()).count();
        // One that is not full was frozen for its share of the log.
        let full = inner.options.memtable_bytes as u64;
        frozen.iter().map(|frozen| frozen.size().max(full)).sum::<u64>() >= inner.options.flush_bytes()
            || inner.is_flush_waited_for()
            || in_ram >= FROZEN_MAX
            || frozen.len() >= TOGETHER_MAX
            || self.load(&status).is_crowded(self.others_runway(&status))
    }

    /// Whether the active memtable is full, holds up too much log, or is waited for, and another frozen one may wait.
    fn wants_freeze(&self, frozen_at: u64) -> bool {
        let inner = &self.inner;
        let state = inner.read_state();
        let in_ram = state.frozen.iter().filter(|frozen| frozen.on_disk().is_none()).count();
        if state.active.is_empty() || in_ram >= FROZEN_MAX || state.frozen.len() >= WAITING_MAX {
            return false;
        }
        let status = self.wal.status();
        let full = freeze_at(state.frozen.len() - in_ram, inner.options.memtable_bytes, inner.options.ram_bound());
        // What it takes on disk: many small entries are mostly padding.
        let log = status.written.saturating_sub(frozen_at);
        let log_max = (full as u64 * 4).min(status.capacity / 8);
        let newest_frozen = state.frozen.first().map_or(*inner.flushed.borrow(), |frozen| frozen.up_to.index);
        state.active.bytes() >= full
            || state.active.range_count() >= MEMTABLE_RANGES_MAX
            || log >= log_max
            || inner.flush_wanted.load(Ordering::Acquire) > newest_frozen
    }

    /// Ends the active memtable; answers how much log was written by then.
    async fn freeze_once(&self) -> Result<u64> {
        // Apply ignores a freeze that passes open parts: those under way end first, and new ones wait.
        let turns = self.inner.big.acquire_many(BIG_TXNS).await;
        let _turns = turns.map_err(|_| Error::Closed("the database was closed".into()))?;
        self.propose(Payload::Freeze, Room::Reserve).await?;
        self.measure();
        Ok(self.wal.status().written)
    }

    async fn propose(&self, payload: Payload, room: Room) -> Result<()> {
        let payload = payload.encode();
        let proposed = match room {
            Room::Runway => self.wal.propose(payload).await,
            Room::Reserve => self.wal.propose_reserved(payload).await,
        };
        proposed.map(|_| ()).map_err(|error| log_error(&error))
    }

    /// Flushes all frozen memtables as one run.
    async fn flush_all(&self, frozen: &[Arc<Frozen>]) -> Result<()> {
        let Some(input) = flush_input(&self.inner, self.inner.term(), frozen) else { return Ok(()) };
        let draft = self.inner.tree.flush(input).await?;
        self.edit(draft, Room::Reserve).await
    }

    /// Makes the next compaction step; `false` if none is due.
    async fn compact_once(&self) -> Result<bool> {
        let floor = self.inner.snapshots.raise_floor();
        let Some(draft) = self.inner.tree.compact(self.inner.term(), floor).await? else { return Ok(false) };
        match self.edit(draft, Room::Runway).await {
            // What it was made from is gone: plan again.
            Err(Error::Conflict(_)) => Ok(true),
            other => other.map(|()| true),
        }
    }

    /// Puts a draft in force, or gives it up.
    async fn edit(&self, mut draft: Draft, room: Room) -> Result<()> {
        let _one_at_a_time = self.editor.lock().await;
        let edited = self.propose_edit(&mut draft, room).await;
        // After any other failure its edit may still be in the log.
        if matches!(edited, Err(Error::Conflict(_) | Error::Retry(_) | Error::Store(_) | Error::NotLeader { .. })) {
            self.inner.tree.discard(&draft);
        }
        edited
    }

    /// Proposes a draft until an edit of it is accepted.
    async fn propose_edit(&self, draft: &mut Draft, room: Room) -> Result<()> {
        let current = || self.inner.tree.version().manifest().id;
        loop {
            // What this node could not read yet can't be built upon.
            let in_force = *self.inner.in_force.lock();
            if in_force != current() {
                return Err(Error::Store(format!("manifest {in_force}, which is in force, is not loaded here")));
            }
            if current() != draft.base {
                *draft = self.inner.tree.rebase(draft, self.inner.term()).await?;
            }
            let (base, manifest, up_to) = (draft.base, draft.manifest, draft.up_to);
            self.propose(Payload::Edit { base, manifest, up_to }, room).await?;
            if current() == manifest {
                tracing::debug!(%manifest, reason = draft.reason, up_to = up_to.index, "manifest in force");
                return Ok(());
            }
        }
    }

    /// Sets the pressure from what waits for the store and from what logs have left, here and on the other voters. Answers
    /// what this node holds, and the other voters' runway that counts.
    fn measure(&self) -> (Load, Option<(u64, Runway)>) {
        let (inner, status) = (&self.inner, self.wal.status());
        let load = self.load(&status);
        *inner.runway.lock() = Some(load.runway());
        inner.pace.lock().note(inner.clock.now(), status.written);
        let voter = self.others_runway(&status);
        let (shortest, used) = load.shortest(voter);
        inner.tree.store().set_urgent(load.waiting(voter) >= URGENT || inner.is_flush_waited_for());
        inner.set_pressure(pressure(used), || {
            let failing = inner.spill.failure().map(|error| error.to_string());
            let what = load.why(shortest, failing.as_deref());
            let (work, failure) = match shortest {
                Shortest::Runs => ("compaction", inner.compact_failure.lock().clone()),
                _ => ("flush", inner.flush_failure.borrow().clone()),
            };
            match failure {
                Some(error) => format!("{what}; the last {work} failed: {error}"),
                None => format!("{what}; a {work} is under way"),
            }
        });
        (load, voter)
    }

    /// The runway of the other voters that decides, if this node leads.
    fn others_runway(&self, status: &WalStatus) -> Option<(u64, Runway)> {
        let voters = status.members.iter().filter(|(_, votes)| *votes).map(|(peer, _)| peer.id);
        let others: Vec<u64> = voters.filter(|id| *id != self.node).collect();
        if status.leadership.is_leader { self.members.quorums_runway(&others) } else { None }
    }

    /// What this node holds.
    fn load(&self, status: &WalStatus) -> Load {
        let inner = &self.inner;
        let (options, state) = (&inner.options, inner.read_state());
        let frozen: usize = state.frozen.iter().map(|frozen| frozen.bytes()).sum();
        let spilled = state.frozen.iter().filter(|frozen| frozen.on_disk().is_some()).count();
        let full = freeze_at(spilled, options.memtable_bytes, options.ram_bound());
        // The active one counts as far as it should have been frozen.
        let waiting = frozen + state.active.bytes().saturating_sub(full);
        Load {
            log: Runway { left: status.runway, of: status.capacity },
            ram: Part { taken: waiting as u64, bound: options.ram_bound() as u64 },
            spill: Part { taken: inner.spill.bytes(), bound: inner.spill.bound() },
            ranges: Part { taken: state.range_count() as u64, bound: (MEMTABLE_RANGES_MAX * (FROZEN_MAX + 1)) as u64 },
            runs: self.runs(&state),
        }
    }

    /// The flushed runs that wait for compaction, in parts of a run.
    fn runs(&self, state: &ReadState) -> Part {
        let manifest = state.version.manifest();
        let waiting = self.inner.tree.work().waiting_runs(manifest).max(manifest.fresh.len() as f64 / 2.0);
        Part { taken: (waiting * PARTS_OF_RUN as f64) as u64, bound: RUNS_MAX * PARTS_OF_RUN }
    }
}

/// Bytes at which the active memtable is frozen. The more are spilled the larger, so that the longest outage leaves few of
/// them; but never so large that a few would fill the RAM.
fn freeze_at(spilled: usize, memtable_bytes: usize, ram_bound: usize) -> usize {
    let doublings = u32::try_from(spilled / SPILLED_PER_DOUBLING).unwrap_or(u32::MAX);
    memtable_bytes.saturating_mul(2usize.saturating_pow(doublings)).min(ram_bound / 4).max(memtable_bytes)
}

/// What a flush of these memtables, newest first, writes; `None` if there are none.
pub fn flush_input(inner: &Inner, term: u64, frozen: &[Arc<Frozen>]) -> Option<FlushInput> {
    let newest = frozen.first()?;
    let floor = inner.snapshots.raise_floor();
    Some(FlushInput {
        term,
        sources: frozen.iter().map(|frozen| Source::frozen(Arc::clone(frozen), floor)).collect(),
        range_deletes: frozen.iter().rev().flat_map(|frozen| frozen.ranges(Memtable::range_deletes)).collect(),
        base: inner.tree.version().manifest().id,
        state: newest.state.clone(),
        format_level: newest.format_level,
        up_to: newest.up_to,
        membership: newest.membership.clone(),
        floor,
    })
}

/// What part of the log an entry may use.
#[derive(Clone, Copy)]
enum Room {
    Runway,
    /// It makes room: the reserve too.
    Reserve,
}

/// Pauses between attempts.
#[derive(Default)]
pub struct Backoff(u32);

impl Backoff {
    /// Waits longer after each failure in a row.
    pub async fn wait(&mut self, what: &str, error: &Error) {
        let pause = (TICK * 2u32.saturating_pow(self.0)).min(BACKOFF_MAX);
        self.0 = (self.0 + 1).min(16);
        tracing::warn!(%error, "{what} failed; next attempt in {pause:?}");
        tokio::time::sleep(pause).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memtables_grow_with_the_length_of_an_outage() {
        let at = |spilled| freeze_at(spilled, 64, 2048);
        assert_eq!([at(0), at(31), at(32), at(64), at(96), at(1000)], [64, 64, 128, 256, 512, 512]);
        // A small bound leaves them as they are.
        assert_eq!(freeze_at(1000, 64, 128), 64);
    }
}
