//! The database handle and snapshots of it.

use std::{
    path::PathBuf,
    sync::{Arc, atomic::Ordering},
};

use bytes::Bytes;
use holdfast_cache::Cache;
use holdfast_wal::{Wal, transport::TcpTransport};
use parking_lot::Mutex;

use crate::{
    Batch, Durability, Keyspace, Options, Outlook, RequestStats, Result, Scan, ScanOptions, Stats, Troubles, Txn,
    TxnOptions, archive,
    cluster::members::Members,
    error::Error,
    format::batch::Payload,
    inner::Inner,
    keyspace,
    limits::{self, KEYSPACES_MAX},
    open::{self, Tasks},
    outcomes::{self, TxnStatus},
    scan::{KeyRange, Overlay, check_bounds},
    snapshot::PinnedSeq,
    types::CommitSeq,
};

/// An open database. Cheap to clone. When the last clone is dropped the database stops as after a crash, which loses
/// nothing that was acknowledged; [`Db::close`] waits for the end.
#[derive(Clone)]
pub struct Db(pub(crate) Arc<Handle>);

pub(crate) struct Handle {
    pub(crate) inner: Arc<Inner>,
    /// Gone once closed: with its last clone the data directory is free.
    pub(crate) wal: Mutex<Option<Wal>>,
    pub(crate) tasks: Tasks,
    pub(crate) cache: Arc<Cache>,
    /// A data directory that goes with the database.
    pub(crate) temporary: Option<PathBuf>,
    /// What the other nodes told.
    pub(crate) members: Arc<Members>,
    /// The sockets between the nodes, if they are ours; gone once closed.
    pub(crate) network: Mutex<Option<TcpTransport>>,
    pub(crate) node: u64,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.inner.poison("the database handle was dropped");
        self.tasks.stop();
    }
}

impl Db {
    /// Opens (or creates) a database. `url`: `file:///path`, `s3://bucket/prefix`, `memory:///`. Returns when it is
    /// ready to read and write.
    ///
    /// # Errors
    /// `Invalid` for a bad URL or option, or a data directory that is in use or belongs to another database; `Corrupt`;
    /// `Store` if the bucket can't be reached.
    pub async fn open(url: &str, options: Options) -> Result<Self> {
        Ok(Self(Arc::new(open::open(url, options).await?)))
    }

    fn inner(&self) -> &Arc<Inner> {
        &self.0.inner
    }

    /// Opens a keyspace, creating it (durably) if it is missing.
    ///
    /// # Errors
    /// `TooLarge` for the name or the number of keyspaces; as a commit otherwise.
    pub async fn keyspace(&self, name: &str) -> Result<Keyspace> {
        let inner = self.inner();
        inner.check()?;
        keyspace::check_name(name)?;
        // A drop that is under way when we ask ends before our proposal: then it takes another.
        for _ in 0..2 {
            if let Some(found) = inner.keyspaces.get(name).filter(|found| found.check().is_ok()) {
                return Ok(found);
            }
            inner.admit().await?;
            let payload = Payload::KeyspaceCreate { name: name.to_owned() }.encode();
            self.place(inner.queue.propose(inner, payload, false)?).await?;
        }
        let found = inner.keyspaces.get(name);
        found.ok_or(Error::TooLarge { what: "number of keyspaces", limit: KEYSPACES_MAX as u64 })
    }

    /// Drops a keyspace with all its rows: one entry in the log, whatever its size.
    ///
    /// # Errors
    /// `Invalid` if there is none of that name; as a commit otherwise.
    pub async fn drop_keyspace(&self, name: &str) -> Result<()> {
        let inner = self.inner();
        let Some(found) = inner.keyspaces.get(name) else {
            return Err(Error::Invalid(format!("there is no keyspace {name:?}")));
        };
        let payload = Payload::KeyspaceDrop { id: found.id() }.encode();
        self.place(inner.queue.propose_drop(inner, payload, &found)?).await
    }

    async fn place(&self, answer: tokio::sync::oneshot::Receiver<Result<holdfast_wal::LogId>>) -> Result<()> {
        match answer.await {
            Ok(result) => result.map(|_| ()),
            Err(_) => Err(self.inner().check().err().unwrap_or_else(|| Error::Closed("the log is gone".into()))),
        }
    }

    /// The names of all keyspaces, in order.
    pub fn keyspaces(&self) -> Vec<String> {
        self.inner().keyspaces.names()
    }

    /// Begins a transaction.
    ///
    /// # Errors
    /// `Invalid` for options that don't go together; `Closed`.
    pub fn begin(&self, options: TxnOptions) -> Result<Txn> {
        Txn::new(self.inner(), options)
    }

    /// A snapshot of everything committed and visible now. Pins it until dropped.
    ///
    /// # Errors
    /// `Closed`.
    pub fn snapshot(&self) -> Result<Snapshot> {
        self.inner().check()?;
        Ok(Snapshot { pin: self.inner().snapshots.pin(), inner: Arc::clone(self.inner()) })
    }

    /// The committed value of a key.
    ///
    /// # Errors
    /// `Store` or `Corrupt` if a page can't be read; `TooLarge`; `Closed`.
    pub async fn get(&self, keyspace: &Keyspace, key: &[u8]) -> Result<Option<Bytes>> {
        self.inner().check()?;
        let key = keyspace.key(key)?;
        Ok(self.inner().get_newest(&key).await?.and_then(|(_, op)| op.into_value()))
    }

    /// Sets a key, durably.
    ///
    /// # Errors
    /// As [`Txn::commit`].
    pub async fn put(&self, keyspace: &Keyspace, key: impl Into<Bytes>, value: impl Into<Bytes>) -> Result<()> {
        let mut txn = self.begin(TxnOptions::default())?;
        txn.put(keyspace, key, value)?;
        txn.commit().await
    }

    /// Deletes a key, durably.
    ///
    /// # Errors
    /// As [`Txn::commit`].
    pub async fn delete(&self, keyspace: &Keyspace, key: impl Into<Bytes>) -> Result<()> {
        let mut txn = self.begin(TxnOptions::default())?;
        txn.delete(keyspace, key)?;
        txn.commit().await
    }

    /// Writes a batch atomically.
    ///
    /// # Errors
    /// As [`Txn::put`] and [`Txn::commit`].
    pub async fn write(&self, batch: Batch, durability: Durability) -> Result<()> {
        let mut txn = self.begin(TxnOptions { durability, ..TxnOptions::default() })?;
        batch.write_to(&mut txn)?;
        txn.commit().await
    }

    /// Scans everything committed and visible now.
    ///
    /// # Errors
    /// `TooLarge` for bounds over the key limit; `Closed`.
    pub fn scan(&self, keyspace: &Keyspace, options: ScanOptions) -> Result<Scan> {
        self.snapshot()?.scan(keyspace, options)
    }

    /// Freezes and flushes the memtable, waits until its manifest is in force (`admin checkpoint`).
    ///
    /// # Errors
    /// `Store` if the bucket doesn't take it; `Closed`.
    pub async fn checkpoint(&self) -> Result<()> {
        let inner = self.inner();
        tokio::select! {
            biased;
            flushed = inner.wait_for_bucket(inner.snapshots.visible()) => flushed,
            error = inner.flush_fails() => Err(error),
        }
    }

    /// Deletes objects that have left force and that no reader holds (`dry_run`: only says which). The background does
    /// the same from time to time.
    ///
    /// # Errors
    /// `Store` if the bucket refuses; `Closed`.
    pub async fn collect_garbage(&self, dry_run: bool) -> Result<crate::gc::Garbage> {
        self.inner().check()?;
        self.inner().tree.collect(dry_run).await
    }

    /// Changes the bounds of the page cache, in bytes, while it serves; `None` leaves one as it is. The next start takes
    /// its [`crate::Options`] again.
    ///
    /// # Errors
    /// `Invalid` for a RAM bound below 1 MiB, for an NVMe bound below 16 MiB or larger than its disk has room for, and
    /// for an NVMe bound if the database was opened without an NVMe cache; `Closed`.
    pub async fn resize_cache(&self, memory: Option<u64>, nvme: Option<u64>) -> Result<()> {
        self.inner().check()?;
        if memory.is_some_and(|bytes| bytes < limits::MEMORY_CACHE_MIN) {
            return Err(Error::Invalid(format!("a memory cache below {} bytes", limits::MEMORY_CACHE_MIN)));
        }
        if let Some(bytes) = nvme {
            self.0.cache.resize_nvme(bytes).await.map_err(|error| Error::Invalid(error.to_string()))?;
        }
        if let Some(bytes) = memory {
            self.0.cache.resize_ram(bytes);
        }
        Ok(())
    }

    /// Reads everything that is in the bucket and in force, past the caches, and checks it. What is damaged is in the
    /// report.
    ///
    /// # Errors
    /// Only what keeps the check from going on: `Store`, `Closed`.
    pub async fn check_stored(&self) -> Result<crate::check::CheckReport> {
        self.inner().check()?;
        self.inner().tree.check().await
    }

    /// What became of the transaction that was given this id ([`Txn::set_id`]). Any node tells what it knows; only the leader
    /// can tell that there is none.
    ///
    /// # Errors
    /// `NotLeader` if a follower does not know it; `Retry` while its commit is under way, or without a leader; `Closed`.
    pub async fn txn_status(&self, id: u128) -> Result<TxnStatus> {
        let (inner, txn) = (self.inner(), outcomes::named(id));
        self.read_barrier().await?;
        loop {
            // Before the look at what is pending: apply notes the outcome first.
            let pending = inner.pending.contains(txn);
            let found = inner.outcomes.lock().find(txn);
            match found {
                Some(CommitSeq::ZERO) => return Ok(TxnStatus::Rejected),
                Some(seq) => return Ok(TxnStatus::Committed { token: seq.index() }),
                None if !self.is_leader() => return Err(inner.not_leader()),
                None if inner.under_way.contains(txn) => {
                    return Err(Error::Retry("the commit of that transaction is under way".into()));
                }
                None if !pending => return Ok(TxnStatus::NotFound),
                None => inner.drain().await,
            }
        }
    }

    /// Resolves with the cause once the database has failed or was closed.
    pub async fn closed(&self) -> Error {
        // Also changed when the database ends.
        let mut changes = self.inner().flushed.subscribe();
        loop {
            if let Err(cause) = self.inner().check() {
                return cause;
            }
            // The sender lives as long as this.
            let _ = changes.changed().await;
        }
    }

    /// What the database counts.
    pub fn stats(&self) -> Stats {
        let inner = self.inner();
        let state = inner.read_state();
        let status = self.0.wal.lock().as_ref().map(Wal::status);
        let locks = inner.locks.stats();
        let spilled = state.frozen.iter().filter(|frozen| frozen.on_disk().is_some()).count();
        let tree = inner.tree.stats();
        let store = inner.tree.store();
        let mut stats = Stats { cache: self.0.cache.stats(), ..Stats::default() };
        let requests = store.requests();
        let commits = inner.counters.commits.load(Ordering::Relaxed);
        stats.prices = inner.spending.prices();
        (stats.spent, stats.spent_lately) = inner.spending.periods(inner.clock.now(), &requests, commits);
        stats.requests.extend(requests.0.iter().map(|count| {
            RequestStats::new(count.kind.name(), count.cause.name(), count.requests, count.bytes, count.errors)
        }));
        stats.counters.extend([
            ("commits", commits),
            ("conflicts", inner.counters.conflicts.load(Ordering::Relaxed)),
            ("log_applied_bytes", inner.counters.log_bytes.load(Ordering::Relaxed)),
            ("log_first_index", status.as_ref().and_then(|status| status.first).map_or(0, |first| first.index)),
            ("log_disk_bytes", status.as_ref().map_or(0, |status| status.log_bytes)),
            ("log_runway_bytes", status.as_ref().map_or(0, |status| status.runway)),
            ("runway_bytes", inner.runway.lock().map_or(0, |runway| runway.left)),
            ("log_applied_index", status.as_ref().map_or(0, |status| status.applied)),
            ("raft_term", status.as_ref().map_or(0, |status| status.leadership.term)),
            ("memtable_bytes", state.active.bytes() as u64),
            ("memtable_versions", state.active.versions() as u64),
            ("memtables_frozen", state.frozen.len() as u64),
            ("memtables_frozen_bytes", inner.frozen_bytes() as u64),
            ("spilled_tables", spilled as u64),
            ("spilled_bytes", inner.spill.bytes()),
            ("spill_failures", inner.spill.failures()),
            ("warmed_pages", inner.warmth.pages.load(Ordering::Relaxed)),
            ("hot_lists_read", inner.warmth.lists_read.load(Ordering::Relaxed)),
            ("hot_lists_written", inner.warmth.lists_written.load(Ordering::Relaxed)),
            ("tree_objects", tree.objects as u64),
            ("tree_bytes", tree.bytes),
            ("tree_dead_bytes", tree.dead_bytes),
            ("tree_entries", tree.entries),
            ("tree_runs", tree.runs.len() as u64),
            ("tree_tail_bytes", tree.tail_bytes),
            ("tree_installed", tree.installed),
            ("flushes", tree.flushes),
            ("compactions", tree.compactions),
            ("tree_orphans", tree.orphans as u64),
            ("tree_inherited_objects", tree.inherited as u64),
            ("flushed_index", *inner.flushed.borrow()),
            ("row_locks_held", locks.held),
            ("row_lock_waits", locks.waits),
            ("deadlocks", locks.deadlocks),
            ("oldest_snapshot_seconds", inner.snapshots.oldest().map_or(0, |(_, age)| age.as_secs())),
        ]);
        stats.counters.extend(store.counters());
        stats.counters.extend(archive::run::counters(inner, status.as_ref()));
        stats
    }

    /// What an outage of the bucket means now: how long commits go on.
    pub fn outlook(&self) -> Outlook {
        let inner = self.inner();
        let log = self.0.wal.lock().as_ref().map(Wal::status);
        // A sixteenth is kept back.
        let log = log.map(|status| status.runway.saturating_sub(status.capacity / 16));
        let (runway, pace) = (inner.runway.lock().map(|runway| runway.left), inner.pace.lock());
        Outlook {
            bucket_down: inner.tree.store().down().map(|down| down.lasts),
            log_bytes_per_second: pace.bytes_per_second(),
            runway: runway.and_then(|left| pace.lasts(left)),
            log_runway: log.and_then(|left| pace.lasts(left)),
        }
    }

    /// What is wrong now, as far as this node has noticed; nothing, normally.
    pub fn troubles(&self) -> Troubles {
        let inner = self.inner();
        let text = |error: Option<Error>| error.map(|error| error.to_string());
        Troubles {
            ended: text(inner.check().err()),
            commits_refused: inner.refusal(),
            bucket: inner.tree.store().down().map(|down| down.to_string()),
            budget: inner.tree.store().over_budget(),
            flush: text(inner.flush_failure.borrow().clone()),
            compaction: text(inner.compact_failure.lock().clone()),
            archive: text(inner.archive.failure()),
        }
    }

    /// Ends the database: commits under way get their answer, then the log and its threads stop. Other clones answer
    /// `Closed` from then on.
    ///
    /// # Errors
    /// The cause, if the database had failed before.
    pub async fn close(&self) -> Result<()> {
        let failed = self.inner().check();
        if failed.is_ok() {
            self.inner().drain().await;
        }
        self.inner().poison("the database was closed");
        self.0.tasks.stop();
        self.0.tasks.finished().await;
        let wal = self.0.wal.lock().take();
        if let Some(wal) = wal {
            wal.close().await;
        }
        self.0.network.lock().take();
        self.0.cache.close().await;
        self.inner().tree.store().close();
        if let Some(dir) = self.0.temporary.clone() {
            let _ = tokio::task::spawn_blocking(move || std::fs::remove_dir_all(dir)).await;
        }
        match failed {
            Err(Error::Closed(cause)) if cause == "the database was closed" => Ok(()),
            other => other,
        }
    }
}

/// A consistent read view. `Send + Sync`, cheap to clone; reads in RAM never await.
#[derive(Clone)]
pub struct Snapshot {
    inner: Arc<Inner>,
    pin: PinnedSeq,
}

impl Snapshot {
    /// The value of a key in this view.
    ///
    /// # Errors
    /// `Conflict` if the snapshot became too old; `Store` or `Corrupt` if a page can't be read; `Closed`.
    pub async fn get(&self, keyspace: &Keyspace, key: &[u8]) -> Result<Option<Bytes>> {
        self.inner.check()?;
        self.inner.get_pinned(&keyspace.key(key)?, self.pin.at()).await
    }

    /// A scan of this view, which the scan goes on to pin by itself.
    ///
    /// # Errors
    /// `TooLarge` for bounds over the key limit; `Closed`.
    pub fn scan(&self, keyspace: &Keyspace, options: ScanOptions) -> Result<Scan> {
        self.inner.check()?;
        check_bounds(&options)?;
        let range = KeyRange::new(keyspace, &options);
        Ok(Scan::new(&self.inner, self.pin.clone(), range, &options, Overlay::default()))
    }
}
