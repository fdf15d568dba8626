//! Apply: puts committed entries into the memtables, in log order. A function of the log only (rule 9).
//!
//! What it decides (accept a batch, an edit, a keyspace) depends on entries and on [`MachineState`]; trimming old
//! versions in RAM does not change what any reader sees.

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use bytes::Bytes;
use holdfast_wal::{Applied, BoxFuture, Entry, LogId, Machine, MachineError, Restored};
use rustc_hash::FxHashMap;
use tokio::runtime::Handle;

use crate::{
    error::{Error, Result},
    format::{
        archive::ArchivePoint,
        batch::{BatchReader, Payload},
        check_level,
        manifest::{ManifestId, Membership},
        state::{MachineState, TxnOutcome},
    },
    inner::Inner,
    keyspace::Keyspace,
    limits::KEYSPACES_MAX,
    memtable::Memtable,
    outcomes::{Outcomes, is_named, rejected_before},
    read::{Frozen, ReadState},
    types::{CommitSeq, KeyspaceId, RangeDelete, keyspace_bounds, keyspace_of},
};

use parts::Parts;

mod conclude;
mod go_on;
mod parts;
#[cfg(test)]
mod tests;

/// Rows applied between two chances for other tasks of this thread.
const ROWS_PER_TURN: usize = 4096;
/// How long apply waits for a manifest of another node.
const INSTALL_PATIENCE: Duration = Duration::from_secs(2);
/// How long until a manifest that could not be read is tried again.
const OWED_PAUSE: Duration = Duration::from_secs(1);

/// A manifest in force that could not be read: it may be superseded and gone by now, or the store is away. Until a later
/// one can be, reads go on with the older objects and all memtables since.
#[derive(Clone, Copy)]
struct Owed {
    at: u64,
    again: Duration,
}

/// The engine's state machine.
pub struct Applier {
    inner: Arc<Inner>,
    applied: LogId,
    membership: Membership,
    format_level: u32,
    next_keyspace: KeyspaceId,
    keyspaces: BTreeMap<String, KeyspaceId>,
    live: FxHashMap<KeyspaceId, Keyspace>,
    /// Commit time of the newest commit that was applied here.
    newest: Option<u64>,
    parts: FxHashMap<u128, Parts>,
    /// How far the archive has come, as the log says.
    archived: Option<ArchivePoint>,
    /// Where the store's sockets and file work live; apply itself runs on the log's thread.
    runtime: Handle,
    /// The entry that put the manifest in force, while that still has to be installed here.
    owed: Option<Owed>,
    /// The table that receives commits: the same as in the read state.
    active: Arc<Memtable>,
    /// Bytes applied since the background last heard of it. Decides nothing here.
    unmeasured: u64,
    /// Memtables that an earlier process spilled, oldest first, until the log says how far it goes.
    spilled: Vec<Arc<Frozen>>,
}

impl Applier {
    /// A machine that holds `state` as of `applied`.
    pub fn new(
        inner: Arc<Inner>,
        runtime: Handle,
        state: MachineState,
        applied: LogId,
        membership: Membership,
    ) -> Self {
        inner.keyspaces.reset(&state.keyspaces);
        *inner.guards.lock() = state.guards.into_iter().collect();
        *inner.outcomes.lock() = Outcomes::new(state.outcomes);
        inner.archived(state.archived);
        let active = Arc::clone(&inner.read_state().active);
        let handle = |(name, id): (&String, &KeyspaceId)| inner.keyspaces.get(name).map(|keyspace| (*id, keyspace));
        let live = state.keyspaces.iter().filter_map(handle).collect();
        *inner.in_force.lock() = inner.tree.version().manifest().id;
        inner.snapshots.publish(CommitSeq::end_of(applied.index));
        Self {
            inner,
            applied,
            membership,
            format_level: state.format_level.max(1),
            next_keyspace: state.next_keyspace.max(1),
            live,
            keyspaces: state.keyspaces,
            newest: None,
            parts: FxHashMap::default(),
            archived: state.archived,
            runtime,
            owed: None,
            active,
            unmeasured: 0,
            spilled: Vec::new(),
        }
    }

    fn state(&self) -> MachineState {
        MachineState {
            format_level: self.format_level,
            next_keyspace: self.next_keyspace,
            keyspaces: self.keyspaces.clone(),
            guards: self.inner.guards.lock().iter().map(|(guard, version)| (*guard, *version)).collect(),
            outcomes: self.inner.outcomes.lock().list(),
            archived: self.archived,
        }
    }

    async fn entry(&mut self, entry: Entry) -> Result<()> {
        if entry.id.term > self.applied.term {
            // A leader change aborts what the old leader had half in the log (rule 10).
            self.parts.retain(|_, parts| parts.term == entry.id.term);
        }
        match entry.payload {
            holdfast_wal::Payload::Blank => {
                self.inner.archive.applied(entry.id.index, 0, None);
                self.active.touch();
            }
            holdfast_wal::Payload::Membership(bytes) => {
                self.inner.archive.applied(entry.id.index, bytes.len() as u64, None);
                self.active.touch();
                self.membership = Some((Some(entry.id), bytes));
            }
            holdfast_wal::Payload::Normal(bytes) => {
                let payload = Payload::decode(&bytes)?;
                // Noted before anyone hears of the commit. The archive's own marks are no news to it.
                if !matches!(payload, Payload::Archived(_)) {
                    self.inner.archive.applied(entry.id.index, bytes.len() as u64, payload.commit_time());
                }
                self.inner.counters.log_bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
                self.unmeasured += bytes.len() as u64;
                self.payload(entry.id, payload).await?;
            }
        }
        self.applied = entry.id;
        self.inner.applied.store(entry.id.index, Ordering::Release);
        Ok(())
    }

    async fn payload(&mut self, id: LogId, payload: Payload) -> Result<()> {
        if !matches!(payload, Payload::Freeze | Payload::Archived(_)) {
            // Whatever it is, a flush lets the log forget it.
            self.active.touch();
        }
        match payload {
            Payload::Group(batches) => {
                let floor = self.inner.snapshots.raise_floor();
                for (ordinal, batch) in batches.into_iter().enumerate() {
                    self.batch(id, CommitSeq::new(id.index, ordinal as u32), batch, floor).await?;
                }
            }
            Payload::Part { txn, number, bytes } => self.part(id, txn, number, bytes)?,
            Payload::Commit { txn, parts, bytes, crc } => {
                let batch = self.assemble(txn, parts, bytes, crc)?;
                let floor = self.inner.snapshots.raise_floor();
                match batch {
                    Some(batch) => self.batch(id, CommitSeq::new(id.index, 0), batch, floor).await?,
                    // Aborted by a leader change: its transaction belongs to the other term.
                    None => self.end(txn, 0, Err(Error::Conflict("the leader changed during the commit".into()))),
                }
            }
            Payload::Abort { txn } => drop(self.parts.remove(&txn)),
            Payload::Freeze => {
                self.freeze(id);
                // When rows come faster than they leave RAM, as in the replay of a long log.
                let inner = Arc::clone(&self.inner);
                inner.spill.keep_up(&inner).await;
            }
            Payload::Edit { base, manifest, .. } => self.edit(id, base, manifest).await?,
            Payload::KeyspaceCreate { name } => self.create_keyspace(id, name),
            Payload::KeyspaceDrop { id: keyspace } => self.drop_keyspace(id, keyspace),
            Payload::FormatLevel { level } => {
                check_level("what follows in the log", level)?;
                self.format_level = self.format_level.max(level);
            }
            Payload::Archived(point) => self.archive(id, point),
        }
        Ok(())
    }

    /// One transaction: all of it, or nothing.
    async fn batch(&mut self, id: LogId, seq: CommitSeq, batch: Bytes, floor: CommitSeq) -> Result<()> {
        let mut batch = BatchReader::new(batch)?;
        let (txn, time) = (batch.header.txn, batch.header.time);
        let first = if is_named(txn) { self.inner.outcomes.lock().find(txn) } else { None };
        if let Some(first) = first {
            // A repeated id has its outcome already (rule 12).
            let outcome = if first == CommitSeq::ZERO { Err(rejected_before()) } else { Ok(first) };
            self.inner.pending.applied(txn, outcome);
            return Ok(());
        }
        if let Err(error) = self.accepts(id, &batch) {
            self.end(txn, time, Err(error));
            return Ok(());
        }
        for guard in batch.header.guards.iter().filter(|guard| guard.set) {
            self.inner.guards.lock().insert(guard.guard, guard.version);
        }
        for (start, end) in std::mem::take(&mut batch.header.ranges) {
            self.active.delete_range(RangeDelete { start, end, seq });
        }
        let mut rows = 0;
        let mut keyspace = None;
        while let Some((key, op)) = batch.next_op()? {
            let of = keyspace_of(&key);
            if keyspace != of {
                // The leader refuses these before they get a place; a belt against writing into a number of the past.
                let Some(live) = of.and_then(|of| self.live.get(&of)) else { continue };
                live.mark_changed(seq);
                keyspace = of;
            }
            self.active.insert(key, seq, op, floor);
            rows += 1;
            if rows % ROWS_PER_TURN == 0 {
                tokio::task::yield_now().await;
            }
        }
        self.inner.snapshots.publish(seq);
        self.inner.counters.commits.fetch_add(1, Ordering::Relaxed);
        self.end(txn, time, Ok(seq));
        Ok(())
    }

    fn accepts(&self, id: LogId, batch: &BatchReader) -> Result<()> {
        if batch.header.term != id.term {
            return Err(rejected("its locks were taken under another leader"));
        }
        for guard in batch.header.guards.iter().filter(|guard| !guard.set) {
            if self.inner.guards.lock().get(&guard.guard).copied().unwrap_or(0) != guard.version {
                return Err(rejected("a table that the transaction used was changed"));
            }
        }
        Ok(())
    }

    /// Remembers the outcome and answers whoever waits here.
    fn end(&mut self, txn: u128, time: u64, outcome: Result<CommitSeq>) {
        let seq = outcome.as_ref().copied().unwrap_or_default();
        if is_named(txn) {
            self.inner.outcomes.lock().note(TxnOutcome { txn, time, seq });
        }
        self.newest = (time > 0).then_some(time).or(self.newest);
        self.inner.pending.applied(txn, outcome);
    }

    /// The active memtable ends here. Not while a big batch is half in the log: replay from here would miss its parts.
    fn freeze(&mut self, id: LogId) {
        if !self.parts.is_empty() || self.active.is_empty() {
            return;
        }
        let current = self.inner.read_state();
        let before = current.frozen.first().map_or(current.version.manifest().up_to, |frozen| frozen.up_to);
        let frozen = Frozen::new(
            std::mem::replace(&mut self.active, Arc::new(Memtable::new())),
            (before, id),
            (self.state().encode(), self.format_level),
            self.membership.clone(),
            self.in_force(),
        );
        let mut tables = Vec::with_capacity(current.frozen.len() + 1);
        tables.push(Arc::new(frozen));
        tables.extend(current.frozen.iter().cloned());
        let version = Arc::clone(&current.version);
        self.inner.set_read_state(ReadState { active: Arc::clone(&self.active), frozen: tables, version });
        self.inner.frozen.notify_one();
        self.inner.spill.look();
    }

    /// Rule 1: an edit is in force only if it was made from what is in force now; a memtable goes only with it.
    async fn edit(&mut self, id: LogId, base: ManifestId, manifest: ManifestId) -> Result<()> {
        if self.in_force() != base {
            return Ok(());
        }
        *self.inner.in_force.lock() = manifest;
        self.owed = None;
        self.load(id.index).await
    }

    /// The manifest in force by the log, whether it could be read yet or not.
    fn in_force(&self) -> ManifestId {
        *self.inner.in_force.lock()
    }

    /// Installs the manifest in force, or notes that it is owed: a store that is away stops no member.
    async fn load(&mut self, at: u64) -> Result<()> {
        let manifest = self.in_force();
        let tree = self.inner.tree.clone();
        let late = |_| Err(Error::Store(format!("no answer within {INSTALL_PATIENCE:?}")));
        // The limit goes with the task: nothing is installed behind its back.
        let install = async move {
            tokio::time::timeout(INSTALL_PATIENCE, tree.install(manifest, at)).await.unwrap_or_else(late)
        };
        let installed = match self.on_runtime(install).await {
            Err(Error::Store(why) | Error::Retry(why)) => {
                tracing::warn!(%manifest, why, "a manifest can't be installed: reads go on with the one before");
                false
            }
            installed => installed?,
        };
        if !installed {
            self.owed = Some(Owed { at, again: self.inner.clock.now() + OWED_PAUSE });
            return Ok(());
        }
        self.owed = None;
        let version = self.inner.tree.version();
        let up_to = version.manifest().up_to.index;
        // Before anyone reads through it.
        self.inner.snapshots.raise_to(version.manifest().floor);
        let current = self.inner.read_state();
        let frozen = current.frozen.iter().filter(|frozen| frozen.up_to.index > up_to).cloned().collect();
        self.inner.set_read_state(ReadState { active: Arc::clone(&self.active), frozen, version });
        self.inner.flushed.send_replace(up_to);
        Ok(())
    }

    /// How far the archive has come. A mark of the past, or of what is still to come, changes nothing.
    fn archive(&mut self, id: LogId, point: Option<ArchivePoint>) {
        let before = self.archived.map_or(0, |before| before.up_to.index);
        if point.is_none_or(|point| before < point.up_to.index && point.up_to.index < id.index) {
            self.archived = point;
            self.inner.archived(point);
        }
    }

    /// Runs `install` where the store's sockets live.
    async fn on_runtime(&self, install: impl Future<Output = Result<bool>> + Send + 'static) -> Result<bool> {
        let installed = self.runtime.spawn(install).await;
        installed.unwrap_or_else(|error| Err(Error::Closed(format!("the runtime of the database is gone: {error}"))))
    }

    /// Starts again from the manifest that a snapshot names.
    async fn restore(&mut self, snapshot: &holdfast_wal::Snapshot) -> Result<()> {
        let id = ManifestId::from_bytes(&snapshot.pointer)
            .ok_or_else(|| Error::Corrupt("a snapshot pointer that is no manifest id".into()))?;
        let (tree, at) = (self.inner.tree.clone(), snapshot.last.index);
        // As long as it takes: without it there is nothing to go on with.
        let inner = Arc::clone(&self.inner);
        let install = async move {
            loop {
                match tree.install(id, at).await {
                    Err(Error::Retry(why)) if inner.check().is_ok() => {
                        tracing::warn!(manifest = %id, why, "the manifest of a snapshot can't be read yet");
                        tokio::time::sleep(OWED_PAUSE).await;
                    }
                    installed => return installed,
                }
            }
        };
        if !self.on_runtime(install).await? {
            return Err(Error::Store(format!("manifest {id} is missing")));
        }
        let version = self.inner.tree.version();
        let manifest = Arc::clone(version.manifest());
        self.inner.snapshots.raise_to(manifest.floor);
        let active = Arc::new(Memtable::new());
        self.inner.set_read_state(ReadState { active, frozen: Vec::new(), version });
        let state = MachineState::decode(&manifest.state)?;
        *self = Self::new(
            Arc::clone(&self.inner),
            self.runtime.clone(),
            state,
            manifest.up_to,
            manifest.membership.clone(),
        );
        // Whatever is derived from rows is out of date.
        self.inner.keyspaces.mark_changed(CommitSeq::end_of(manifest.up_to.index));
        self.inner.flushed.send_replace(manifest.up_to.index);
        Ok(())
    }

    fn create_keyspace(&mut self, entry: LogId, name: String) {
        if self.keyspaces.contains_key(&name) || self.keyspaces.len() >= KEYSPACES_MAX {
            return;
        }
        let id = self.next_keyspace;
        self.next_keyspace += 1;
        let keyspace = self.inner.keyspaces.insert(&name, id);
        self.live.insert(id, keyspace);
        self.keyspaces.insert(name, id);
        self.inner.snapshots.publish(CommitSeq::new(entry.index, 0));
    }

    fn drop_keyspace(&mut self, id: LogId, keyspace: KeyspaceId) {
        let Some(name) = self.keyspaces.iter().find(|(_, id)| **id == keyspace).map(|(name, _)| name.clone()) else {
            return;
        };
        self.keyspaces.remove(&name);
        self.live.remove(&keyspace);
        self.inner.keyspaces.remove(&name);
        if let (start, Some(end)) = keyspace_bounds(keyspace) {
            let seq = CommitSeq::new(id.index, 0);
            self.active.delete_range(RangeDelete { start, end, seq });
            self.inner.snapshots.publish(seq);
        }
    }
}

fn rejected(why: &str) -> Error {
    Error::Conflict(format!("the commit was rejected: {why}"))
}

impl Machine for Applier {
    fn log_ends(&mut self, last: Option<LogId>) {
        self.go_on(last.unwrap_or_default());
    }

    fn restored(&self) -> Restored {
        Restored { applied: (self.applied.index > 0).then_some(self.applied), membership: self.membership.clone() }
    }

    fn apply(&mut self, entries: Vec<Entry>) -> BoxFuture<'_, Result<Applied, MachineError>> {
        Box::pin(async move {
            for entry in entries {
                let index = entry.id.index;
                let applied = match self.owed {
                    Some(Owed { at, again }) if self.inner.clock.now() >= again => self.load(at).await,
                    _ => Ok(()),
                };
                let applied = match applied {
                    Ok(()) => self.entry(entry).await,
                    Err(error) => Err(error),
                };
                if let Err(error) = applied {
                    let error = format!("apply of log entry {index}: {error}");
                    self.inner.poison(&error);
                    return Err(MachineError(error));
                }
            }
            if self.active.bytes() >= self.inner.options.memtable_bytes
                || self.unmeasured >= self.inner.options.log_bytes / 64
            {
                self.unmeasured = 0;
                self.inner.work.notify_one();
                self.inner.measure.notify_one();
            }
            // The pointer names the manifest durably, so what it covers may go, once it is archived (rule 6).
            let flushed = self.inner.tree.version().manifest().up_to.index;
            let archived = self.archived.map_or(flushed, |point| point.up_to.index);
            Ok(Applied { purge_to: flushed.min(archived) })
        })
    }

    fn snapshot(&self) -> Option<holdfast_wal::Snapshot> {
        let version = self.inner.tree.version();
        let manifest = version.manifest();
        (manifest.id != ManifestId::default()).then(|| holdfast_wal::Snapshot {
            last: manifest.up_to,
            membership: manifest.membership.clone(),
            pointer: Bytes::copy_from_slice(&manifest.id.to_bytes()),
        })
    }

    fn install(&mut self, snapshot: holdfast_wal::Snapshot) -> BoxFuture<'_, Result<(), MachineError>> {
        Box::pin(async move {
            let installed = self.restore(&snapshot).await;
            installed.map_err(|error| {
                let error = format!("install of the snapshot at log entry {}: {error}", snapshot.last.index);
                self.inner.poison(&error);
                MachineError(error)
            })
        })
    }
}
