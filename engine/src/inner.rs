//! What every part of an open database shares: the seams between transactions, commit, apply and background work.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use rustc_hash::FxHashMap;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};

use crate::{
    archive::Archive,
    clock::{Clock, Entropy},
    commit::CommitQueue,
    config::Options,
    cost::Spending,
    error::{Error, Result},
    fence::Fence,
    format::{archive::ArchivePoint, manifest::ManifestId},
    keyspace::Keyspaces,
    lock::LockTable,
    memtable::{Memtable, meets},
    outcomes::{Claim, Outcomes, UnderWay},
    pace::Pace,
    pending::Pending,
    pressure::Runway,
    read::ReadState,
    scan::KeyRange,
    snapshot::Snapshots,
    spill::Spill,
    tree::Tree,
    types::{CommitSeq, Op},
    warm::Warmth,
};

/// The shared heart of a database.
pub struct Inner {
    pub(crate) options: Options,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) entropy: Arc<Entropy>,
    state: RwLock<Arc<ReadState>>,
    pub(crate) snapshots: Arc<Snapshots>,
    pub(crate) keyspaces: Keyspaces,
    /// Applied versions of guards (rule 11).
    pub(crate) guards: Mutex<FxHashMap<u64, u64>>,
    /// How named transactions have ended, and which are under way here (rule 12).
    pub(crate) outcomes: Mutex<Outcomes>,
    pub(crate) under_way: UnderWay,
    pub(crate) locks: Arc<LockTable>,
    pub(crate) pending: Pending,
    pub(crate) queue: CommitQueue,
    /// The term in which this node grants locks and takes commits; 0 while it does not lead. And whether its quorum is
    /// silent: nothing is granted or taken then.
    term: watch::Sender<(u64, bool)>,
    /// The same, without a lock.
    term_now: AtomicU64,
    silent: AtomicBool,
    /// Who leads, for those who ask the wrong node.
    leader: AtomicU64,
    /// Index of the last entry applied.
    pub(crate) applied: AtomicU64,
    /// The newest moment whose commits are known to be here, as far as anyone asked.
    pub(crate) confirmed: Mutex<Option<Duration>>,
    /// The manifest in force by the log.
    pub(crate) in_force: Mutex<ManifestId>,
    poison: OnceLock<Error>,
    /// There may be something to freeze.
    pub(crate) work: Notify,
    /// There is something to flush.
    pub(crate) frozen: Notify,
    /// Pressure may have changed much.
    pub(crate) measure: Notify,
    pub(crate) tree: Tree,
    pub(crate) spill: Arc<Spill>,
    pub(crate) archive: Archive,
    pub(crate) fence: Fence,
    pub(crate) warmth: Warmth,
    /// Index of the last log entry that is in the bucket.
    pub(crate) flushed: watch::Sender<u64>,
    /// Someone waits for this entry to be in the bucket.
    pub(crate) flush_wanted: AtomicU64,
    /// How long the next commit waits before it takes its place, in microseconds; [`REFUSE`] refuses it.
    pub(crate) pressure: AtomicU64,
    /// What this node can still take, as measured last.
    pub(crate) runway: Mutex<Option<Runway>>,
    /// How fast the log grows.
    pub(crate) pace: Mutex<Pace>,
    /// Pressure fell below [`REFUSE`].
    relief: Notify,
    /// What refused commits are told.
    overload: Mutex<String>,
    /// The last failure of a flush, until one succeeds.
    pub(crate) flush_failure: watch::Sender<Option<Error>>,
    /// The last failure of a compaction, until one succeeds.
    pub(crate) compact_failure: Mutex<Option<Error>>,
    pub(crate) counters: Counters,
    pub(crate) spending: Spending,
    /// Transactions too big for one entry take turns: their parts are in RAM until they commit. A freeze takes all turns,
    /// since it must not pass an open batch's first part (rule 10).
    pub(crate) big: Arc<Semaphore>,
    pub(crate) aborts: Aborts,
}

/// [`Inner::pressure`] that refuses commits.
pub const REFUSE: u64 = u64::MAX;

/// Big transactions whose parts may be in the log at once.
pub const BIG_TXNS: u32 = 2;

/// A big transaction's turn, and the claim to its id if its caller named it.
pub struct BigTurn {
    _permit: OwnedSemaphorePermit,
    _named: Option<Claim>,
}

impl BigTurn {
    /// Until both are given back.
    pub(crate) fn new(permit: OwnedSemaphorePermit, named: Option<Claim>) -> Self {
        Self { _permit: permit, _named: named }
    }
}

/// Big batches that did not commit, whose parts are in the log. At most [`BIG_TXNS`]: each keeps its turn until its
/// abort is applied.
#[derive(Default)]
pub struct Aborts {
    waiting: Mutex<Vec<(u128, BigTurn)>>,
    wanted: Notify,
}

impl Aborts {
    /// The parts of `txn` are to be forgotten.
    pub fn push(&self, txn: u128, turn: BigTurn) {
        self.waiting.lock().push((txn, turn));
        self.wanted.notify_one();
    }

    /// The next one, with its turn.
    pub async fn next(&self) -> (u128, BigTurn) {
        loop {
            let next = self.waiting.lock().pop();
            match next {
                Some(next) => return next,
                None => self.wanted.notified().await,
            }
        }
    }
}

/// Counters that several parts bump.
#[derive(Default)]
pub struct Counters {
    /// Transactions committed.
    pub commits: AtomicU64,
    /// Bytes of log payload applied since start.
    pub log_bytes: AtomicU64,
    /// Conflicts found by validation.
    pub conflicts: AtomicU64,
}

impl Inner {
    /// A database that has not applied anything; `archives` says whether this node keeps the log archive.
    pub fn new(
        options: Options,
        clock: Arc<dyn Clock>,
        entropy: Arc<Entropy>,
        tree: Tree,
        spill: Arc<Spill>,
        archives: bool,
    ) -> Self {
        let archive = Archive::new(&options, archives);
        let fence = Fence::new(options.fence_after);
        let snapshots = Arc::new(Snapshots::new(Arc::clone(&clock), options.max_snapshot_age));
        let spending = Spending::new(options.prices, clock.now());
        let version = tree.version();
        let version_index = version.manifest().up_to.index;
        let flushed = watch::Sender::new(version_index);
        let state = ReadState { active: Arc::new(Memtable::new()), frozen: Vec::new(), version };
        Self {
            options,
            clock,
            entropy,
            state: RwLock::new(Arc::new(state)),
            snapshots,
            keyspaces: Keyspaces::default(),
            guards: Mutex::default(),
            outcomes: Mutex::default(),
            under_way: UnderWay::default(),
            locks: Arc::new(LockTable::new()),
            pending: Pending::new(),
            queue: CommitQueue::new(),
            term: watch::Sender::new((0, false)),
            term_now: AtomicU64::new(0),
            silent: AtomicBool::new(false),
            leader: AtomicU64::new(0),
            applied: AtomicU64::new(version_index),
            confirmed: Mutex::default(),
            in_force: Mutex::default(),
            poison: OnceLock::new(),
            work: Notify::new(),
            frozen: Notify::new(),
            measure: Notify::new(),
            tree,
            spill,
            archive,
            fence,
            warmth: Warmth::default(),
            flushed,
            flush_wanted: AtomicU64::new(0),
            pressure: AtomicU64::new(0),
            runway: Mutex::default(),
            pace: Mutex::default(),
            relief: Notify::new(),
            overload: Mutex::default(),
            flush_failure: watch::Sender::new(None),
            compact_failure: Mutex::default(),
            counters: Counters::default(),
            spending,
            big: Arc::new(Semaphore::new(BIG_TXNS as usize)),
            aborts: Aborts::default(),
        }
    }

    /// What reads go through now.
    pub fn read_state(&self) -> Arc<ReadState> {
        Arc::clone(&self.state.read())
    }

    /// Apply changed what reads go through.
    pub fn set_read_state(&self, state: ReadState) {
        *self.state.write() = Arc::new(state);
    }

    /// Bytes of RAM that frozen memtables take.
    pub fn frozen_bytes(&self) -> usize {
        self.read_state().frozen.iter().map(|frozen| frozen.bytes()).sum()
    }

    /// The term in which locks are granted now; 0 while this node does not lead.
    pub fn term(&self) -> u64 {
        self.term_now.load(Ordering::Acquire)
    }

    /// Leadership moved.
    pub fn set_term(&self, term: u64) {
        self.silent.store(false, Ordering::Release);
        self.term_now.store(term, Ordering::Release);
        self.term.send_replace((term, false));
    }

    /// The quorum fell silent, or answers again; answers whether that is news.
    pub fn set_silent(&self, silent: bool) -> bool {
        self.silent.store(silent, Ordering::Release);
        self.term.send_if_modified(|(_, before)| std::mem::replace(before, silent) != silent)
    }

    /// Whether this node leads, and a quorum answers it.
    pub fn takes_writes(&self) -> bool {
        self.term() != 0 && !self.silent.load(Ordering::Acquire)
    }

    /// The term in which this node leads, 0 while it does not, and whether the quorum is silent; as it changes.
    pub fn term_changes(&self) -> watch::Receiver<(u64, bool)> {
        self.term.subscribe()
    }

    /// Waits until this node leads; `Closed` once the database is.
    pub async fn leads(&self) -> Result<u64> {
        let mut term = self.term.subscribe();
        loop {
            self.check()?;
            let (now, silent) = *term.borrow_and_update();
            if now != 0 && !silent {
                return Ok(now);
            }
            // The sender lives as long as this.
            let _ = term.changed().await;
        }
    }

    /// Waits until this node no longer leads `term`, or its quorum is silent.
    pub async fn deposed(&self, led: u64) {
        // The sender lives as long as this.
        let _ = self.term.subscribe().wait_for(|(term, silent)| *term != led || *silent).await;
    }

    /// `NotLeader` unless this node leads; `Conflict` if it leads another term than the caller's.
    pub fn check_term(&self, began: u64) -> Result<()> {
        match self.term() {
            0 => Err(self.not_leader()),
            now if now == began && self.silent.load(Ordering::Acquire) => Err(Error::NotLeader { leader: None }),
            now if now == began => Ok(()),
            _ => Err(Error::Conflict("leadership changed since the transaction began".into())),
        }
    }

    /// What whoever wants to write here is told.
    pub fn not_leader(&self) -> Error {
        Error::NotLeader { leader: Some(self.leader.load(Ordering::Acquire)).filter(|leader| *leader != 0) }
    }

    /// Who leads, as this node knows it.
    pub fn set_leader(&self, leader: Option<u64>) {
        self.leader.store(leader.unwrap_or(0), Ordering::Release);
    }

    /// Index of the last entry applied.
    pub fn applied_index(&self) -> u64 {
        self.applied.load(Ordering::Acquire)
    }

    /// The newest version of a key at `at`, which the caller has pinned.
    pub async fn get_pinned(&self, key: &[u8], at: CommitSeq) -> Result<Option<Bytes>> {
        let found = self.read_state().get(key, at).await?;
        self.snapshots.check(at)?;
        Ok(found.and_then(|(_, op)| op.into_value()))
    }

    /// The newest committed version of a key, deletes included.
    pub async fn get_newest(&self, key: &[u8]) -> Result<Option<(CommitSeq, Op)>> {
        let at = self.snapshots.visible();
        let found = self.read_state().get(key, at).await?;
        // Unpinned, so that a read from RAM costs nothing more: versions that it needed may have gone meanwhile.
        if self.snapshots.check(at).is_ok() {
            return Ok(found);
        }
        // Commits overtook it. A cold read can be overtaken each time: the second attempt holds the floor.
        let pin = self.snapshots.pin();
        let found = self.read_state().get(key, pin.at()).await?;
        self.snapshots.check(pin.at())?;
        Ok(found)
    }

    /// Whether a key in the range has a committed version newer than `since`.
    pub async fn changed_since(&self, range: &KeyRange, since: CommitSeq) -> Result<bool> {
        let state = self.read_state();
        if state.active.changed_since(range.bounds(), since) {
            return Ok(true);
        }
        for frozen in &state.frozen {
            if frozen.changed_since(range, since).await? {
                return Ok(true);
            }
        }
        let manifest = state.version.manifest();
        if CommitSeq::end_of(manifest.up_to.index) <= since {
            return Ok(false);
        }
        if state.version.range_deletes().iter().any(|delete| delete.seq > since && meets(delete, range.bounds())) {
            return Ok(true);
        }
        let mut cursor = state.version.cursor((range.start.clone(), range.end.clone()), CommitSeq::MAX, false, 0);
        while let Some(item) = cursor.next().await? {
            if item.seq > since {
                return Ok(true);
            }
        }
        // A compaction drops a delete together with what it hides. What it may drop is below the floor, and the floor
        // below `since` until that snapshot is too old.
        self.snapshots.check(since)?;
        Ok(false)
    }

    /// Waits for room: slows writers down while memtables pile up, lets them wait at the bound, and refuses them when
    /// that lasts.
    pub async fn admit(&self) -> Result<()> {
        match self.pressure.load(Ordering::Relaxed) {
            0 => Ok(()),
            REFUSE => Box::pin(self.wait_for_room()).await,
            micros => {
                tokio::time::sleep(Duration::from_micros(micros)).await;
                Ok(())
            }
        }
    }

    async fn wait_for_room(&self) -> Result<()> {
        let relieved = async {
            loop {
                let mut relief = std::pin::pin!(self.relief.notified());
                relief.as_mut().enable();
                self.check()?;
                if self.pressure.load(Ordering::Acquire) != REFUSE {
                    return Ok(());
                }
                relief.await;
            }
        };
        let refused = |_| Err(Error::Retry(self.overload.lock().clone()));
        tokio::time::timeout(self.options.write_stall_timeout, relieved).await.unwrap_or_else(refused)
    }

    /// Why commits are refused now, if they are.
    pub fn refusal(&self) -> Option<String> {
        (self.pressure.load(Ordering::Relaxed) == REFUSE).then(|| self.overload.lock().clone())
    }

    /// Pressure was measured. `why` names the bound when it refuses commits.
    pub fn set_pressure(&self, pressure: u64, why: impl FnOnce() -> String) {
        if pressure == REFUSE {
            *self.overload.lock() = why();
        }
        if self.pressure.swap(pressure, Ordering::AcqRel) == REFUSE && pressure != REFUSE {
            self.relief.notify_waiters();
        }
    }

    /// Apply learned how far the archive has come; what is unlinked later than that is kept (rule 2).
    pub fn archived(&self, point: Option<ArchivePoint>) {
        self.archive.set_point(point);
        let bound = match point {
            Some(point) => point.up_to.index,
            None if self.archive.on => 0,
            None => u64::MAX,
        };
        self.tree.archived_to(bound);
    }

    /// Waits until the commit `seq` survives the loss of every node: by the archive, or by a flush where there is none.
    pub async fn wait_for_copy(&self, seq: CommitSeq) -> Result<()> {
        if self.archive.on {
            self.archive.wait(seq.index(), || self.check()).await
        } else {
            self.wait_for_bucket(seq).await
        }
    }

    /// Waits until the commit `seq` can be read from the bucket alone.
    pub async fn wait_for_bucket(&self, seq: CommitSeq) -> Result<()> {
        let index = seq.index();
        let mut flushed = self.flushed.subscribe();
        while *flushed.borrow_and_update() < index {
            self.check()?;
            self.flush_wanted.fetch_max(index, Ordering::AcqRel);
            self.work.notify_one();
            // The sender lives as long as this.
            let _ = flushed.changed().await;
        }
        Ok(())
    }

    /// Someone waits for a flush.
    pub fn is_flush_waited_for(&self) -> bool {
        self.flush_wanted.load(Ordering::Acquire) > *self.flushed.borrow()
    }

    /// The next failure of a flush.
    pub async fn flush_fails(&self) -> Error {
        let mut failure = self.flush_failure.subscribe();
        loop {
            // The sender lives as long as this.
            let _ = failure.changed().await;
            if let Some(error) = failure.borrow_and_update().clone() {
                return error;
            }
        }
    }

    /// Waits until every batch that has its place is applied.
    pub async fn drain(&self) {
        let _ = self.pending.wait(self.pending.last()).await;
    }

    /// `Closed` with the cause once the database is closed or poisoned.
    pub fn check(&self) -> Result<()> {
        self.poison.get().map_or(Ok(()), |cause| Err(cause.clone()))
    }

    /// Ends the database if this error says that the store has a new owner.
    pub fn superseded(&self, error: &Error) {
        if let Error::Closed(cause) = error {
            self.poison(cause);
        }
    }

    /// Ends the database: every later call answers `Closed` with this cause, every commit in flight `Unknown`.
    pub fn poison(&self, cause: &str) {
        let closed = Error::Closed(cause.to_owned());
        if self.poison.set(closed.clone()).is_err() {
            return;
        }
        self.queue.close(&closed);
        self.pending.fail(&closed, &Error::Unknown(cause.to_owned()));
        for waiting in [&self.work, &self.frozen, &self.measure] {
            waiting.notify_one();
        }
        self.relief.notify_waiters();
        self.archive.ended();
        self.spill.ended();
        self.flushed.send_modify(|_| ());
        self.term_now.store(0, Ordering::Release);
        self.term.send_replace((0, false));
    }
}
