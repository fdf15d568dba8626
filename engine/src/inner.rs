//! What every part of an open database shares: the seams between transactions, commit, apply and background work.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use rustc_hash::FxHashMap;
use tokio::sync::{Notify, Semaphore, watch};

use crate::{
    clock::{Clock, Entropy},
    commit::CommitQueue,
    config::Options,
    error::{Error, Result},
    keyspace::Keyspaces,
    lock::LockTable,
    memtable::{Memtable, meets},
    pending::Pending,
    read::ReadState,
    scan::KeyRange,
    snapshot::Snapshots,
    tree::Tree,
    types::{CommitSeq, Op},
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
    pub(crate) locks: Arc<LockTable>,
    pub(crate) pending: Pending,
    pub(crate) queue: CommitQueue,
    /// The term in which this node grants locks and takes commits.
    term: AtomicU64,
    poison: OnceLock<Error>,
    /// Apply tells the flusher that there may be something to do.
    pub(crate) work: Notify,
    pub(crate) tree: Tree,
    /// Index of the last log entry that is in the bucket.
    pub(crate) flushed: watch::Sender<u64>,
    /// Someone waits for this entry to be in the bucket.
    pub(crate) flush_wanted: AtomicU64,
    /// How long the next commit waits before it takes its place, in microseconds; [`REFUSE`] refuses it.
    pub(crate) pressure: AtomicU64,
    pub(crate) counters: Counters,
    /// Transactions too big for one entry take turns: their parts are in RAM until they commit.
    pub(crate) big: Semaphore,
}

/// [`Inner::pressure`] that refuses commits.
pub const REFUSE: u64 = u64::MAX;

/// Big transactions whose parts may be in the log at once.
const BIG_TXNS: usize = 2;

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
    /// A database that has not applied anything.
    pub fn new(options: Options, clock: Arc<dyn Clock>, entropy: Arc<Entropy>, tree: Tree) -> Self {
        let snapshots = Arc::new(Snapshots::new(Arc::clone(&clock), options.max_snapshot_age));
        let version = tree.version();
        let flushed = watch::Sender::new(version.manifest().up_to.index);
        let state = ReadState { active: Arc::new(Memtable::new()), frozen: Vec::new(), version };
        Self {
            options,
            clock,
            entropy,
            state: RwLock::new(Arc::new(state)),
            snapshots,
            keyspaces: Keyspaces::default(),
            guards: Mutex::default(),
            locks: Arc::new(LockTable::new()),
            pending: Pending::new(),
            queue: CommitQueue::new(),
            term: AtomicU64::new(0),
            poison: OnceLock::new(),
            work: Notify::new(),
            tree,
            flushed,
            flush_wanted: AtomicU64::new(0),
            pressure: AtomicU64::new(0),
            counters: Counters::default(),
            big: Semaphore::new(BIG_TXNS),
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

    /// The term in which locks are granted now.
    pub fn term(&self) -> u64 {
        self.term.load(Ordering::Acquire)
    }

    /// Leadership moved.
    pub fn set_term(&self, term: u64) {
        self.term.store(term, Ordering::Release);
    }

    /// The newest version of a key at `at`, which the caller has pinned.
    pub async fn get_pinned(&self, key: &[u8], at: CommitSeq) -> Result<Option<Bytes>> {
        let found = self.read_state().get(key, at).await?;
        self.snapshots.check(at)?;
        Ok(found.and_then(|(_, op)| op.into_value()))
    }

    /// The newest committed version of a key, deletes included.
    pub async fn get_newest(&self, key: &[u8]) -> Result<Option<(CommitSeq, Op)>> {
        loop {
            let at = self.snapshots.visible();
            let found = self.read_state().get(key, at).await?;
            // Unpinned: if versions that this read needed may have gone meanwhile, a newer one is there now.
            if self.snapshots.check(at).is_ok() {
                return Ok(found);
            }
        }
    }

    /// Whether a key in the range has a committed version newer than `since`.
    pub async fn changed_since(&self, range: &KeyRange, since: CommitSeq) -> Result<bool> {
        let state = self.read_state();
        if state.tables().any(|table| table.changed_since(range.bounds(), since)) {
            return Ok(true);
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

    /// Waits for room: slows writers down while memtables pile up, and refuses them at the bound.
    pub async fn admit(&self) -> Result<()> {
        match self.pressure.load(Ordering::Relaxed) {
            0 => Ok(()),
            REFUSE => Err(Error::Retry(
                "the store or the log can't keep up: frozen memtables or log are at their bound".into(),
            )),
            micros => {
                tokio::time::sleep(Duration::from_micros(micros)).await;
                Ok(())
            }
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

    /// Waits until every batch that has its place is applied.
    pub async fn drain(&self) {
        let _ = self.pending.wait(self.pending.last()).await;
    }

    /// `Closed` with the cause once the database is closed or poisoned.
    pub fn check(&self) -> Result<()> {
        self.poison.get().map_or(Ok(()), |cause| Err(cause.clone()))
    }

    /// Ends the database: every later call answers `Closed` with this cause, every commit in flight `Unknown`.
    pub fn poison(&self, cause: &str) {
        let closed = Error::Closed(cause.to_owned());
        if self.poison.set(closed.clone()).is_err() {
            return;
        }
        self.queue.close(&closed);
        self.pending.fail(&closed, &Error::Unknown(cause.to_owned()));
        self.work.notify_one();
        self.flushed.send_modify(|_| ());
    }
}
