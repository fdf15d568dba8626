//! Apply: puts committed entries into the memtables, in log order. A function of the log only (rule 9).
//!
//! What it decides (accept a batch, an edit, a keyspace) depends on entries and on [`MachineState`]; trimming old
//! versions in RAM does not change what any reader sees.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, atomic::Ordering},
};

use bytes::{Bytes, BytesMut};
use holdfast_wal::{Applied, BoxFuture, Entry, LogId, Machine, MachineError, Restored};
use rustc_hash::{FxHashMap, FxHashSet};
use tokio::runtime::Handle;

use crate::{
    error::{Error, Result},
    format::{
        batch::{BatchReader, Payload},
        manifest::{ManifestId, Membership},
        state::{MachineState, TxnOutcome},
    },
    inner::Inner,
    limits::{KEYSPACES_MAX, OUTCOMES_MAX},
    memtable::Memtable,
    read::{Frozen, ReadState},
    types::{CommitSeq, KeyspaceId, RangeDelete, keyspace_bounds, keyspace_of},
};

/// Outcomes older than this, by commit time, are forgotten.
const OUTCOME_AGE_MILLIS: u64 = 15 * 60 * 1000;
/// Rows applied between two chances for other tasks of this thread.
const ROWS_PER_TURN: usize = 4096;

/// Pieces of a batch that is too big for one entry.
#[derive(Default)]
struct Parts {
    term: u64,
    pieces: Vec<Bytes>,
    bytes: usize,
}

/// The engine's state machine.
pub struct Applier {
    inner: Arc<Inner>,
    applied: LogId,
    membership: Membership,
    format_level: u32,
    next_keyspace: KeyspaceId,
    keyspaces: BTreeMap<String, KeyspaceId>,
    live: FxHashSet<KeyspaceId>,
    outcomes: VecDeque<TxnOutcome>,
    known: FxHashMap<u128, CommitSeq>,
    parts: FxHashMap<u128, Parts>,
    /// Where the store's sockets and file work live; apply itself runs on the log's thread.
    runtime: Handle,
    /// The table that receives commits: the same as in the read state.
    active: Arc<Memtable>,
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
        let active = Arc::clone(&inner.read_state().active);
        inner.snapshots.publish(CommitSeq::end_of(applied.index));
        Self {
            inner,
            applied,
            membership,
            format_level: state.format_level.max(1),
            next_keyspace: state.next_keyspace.max(1),
            live: state.keyspaces.values().copied().collect(),
            keyspaces: state.keyspaces,
            known: state.outcomes.iter().map(|outcome| (outcome.txn, outcome.seq)).collect(),
            outcomes: state.outcomes.into(),
            parts: FxHashMap::default(),
            runtime,
            active,
        }
    }

    fn state(&self) -> MachineState {
        MachineState {
            format_level: self.format_level,
            next_keyspace: self.next_keyspace,
            keyspaces: self.keyspaces.clone(),
            guards: self.inner.guards.lock().iter().map(|(guard, version)| (*guard, *version)).collect(),
            outcomes: self.outcomes.iter().copied().collect(),
        }
    }

    async fn entry(&mut self, entry: Entry) -> Result<()> {
        if entry.id.term > self.applied.term {
            // A leader change aborts what the old leader had half in the log (rule 10).
            self.parts.retain(|_, parts| parts.term == entry.id.term);
        }
        match entry.payload {
            holdfast_wal::Payload::Blank => {}
            holdfast_wal::Payload::Membership(bytes) => self.membership = Some((Some(entry.id), bytes)),
            holdfast_wal::Payload::Normal(payload) => {
                self.inner.counters.log_bytes.fetch_add(payload.len() as u64, Ordering::Relaxed);
                self.payload(entry.id, Payload::decode(&payload)?).await?;
            }
        }
        self.applied = entry.id;
        Ok(())
    }

    async fn payload(&mut self, id: LogId, payload: Payload) -> Result<()> {
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
            Payload::Freeze => self.freeze(id),
            Payload::Edit { base, manifest, .. } => self.edit(base, manifest).await?,
            Payload::KeyspaceCreate { name } => self.create_keyspace(name),
            Payload::KeyspaceDrop { id: keyspace } => self.drop_keyspace(id, keyspace),
            Payload::FormatLevel { level } => self.format_level = self.format_level.max(level),
        }
        Ok(())
    }

    /// One transaction: all of it, or nothing.
    async fn batch(&mut self, id: LogId, seq: CommitSeq, batch: Bytes, floor: CommitSeq) -> Result<()> {
        let mut batch = BatchReader::new(batch)?;
        let (txn, time) = (batch.header.txn, batch.header.time);
        if let Some(first) = self.known.get(&txn) {
            // A repeated id has its outcome already (rule 12).
            let outcome = if *first == CommitSeq::ZERO { Err(rejected("rejected before")) } else { Ok(*first) };
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
                if of.is_none_or(|of| !self.live.contains(&of)) {
                    continue;
                }
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
        self.known.insert(txn, seq);
        self.outcomes.push_back(TxnOutcome { txn, time, seq });
        while self.outcomes.len() > OUTCOMES_MAX
            || self.outcomes.front().is_some_and(|first| first.time + OUTCOME_AGE_MILLIS < time)
        {
            let Some(first) = self.outcomes.pop_front() else { break };
            self.known.remove(&first.txn);
        }
        self.inner.pending.applied(txn, outcome);
    }

    fn part(&mut self, id: LogId, txn: u128, number: u32, bytes: Bytes) -> Result<()> {
        if number == 0 {
            self.parts.insert(txn, Parts { term: id.term, ..Parts::default() });
        }
        // Parts of an aborted batch may still come: they have no beginning here.
        if let Some(parts) = self.parts.get_mut(&txn) {
            if parts.pieces.len() != number as usize {
                return Err(Error::Corrupt(format!(
                    "log entry {}: part {number} of a batch that has {} parts",
                    id.index,
                    parts.pieces.len()
                )));
            }
            parts.bytes += bytes.len();
            parts.pieces.push(bytes);
        }
        Ok(())
    }

    /// The whole batch from its parts; `None` if a leader change aborted it.
    fn assemble(&mut self, txn: u128, parts: u32, bytes: u64, crc: u32) -> Result<Option<Bytes>> {
        let Some(found) = self.parts.remove(&txn) else { return Ok(None) };
        let mut whole = BytesMut::with_capacity(found.bytes);
        found.pieces.iter().for_each(|piece| whole.extend_from_slice(piece));
        if found.pieces.len() != parts as usize || found.bytes as u64 != bytes || crc32fast::hash(&whole) != crc {
            return Err(Error::Corrupt(format!(
                "batch {txn:032x}: {} parts with {} bytes, expected {parts} with {bytes} and checksum {crc:08x}",
                found.pieces.len(),
                found.bytes
            )));
        }
        Ok(Some(whole.freeze()))
    }

    /// The active memtable ends here. Not while a big batch is half in the log: replay from here would miss its parts.
    fn freeze(&mut self, id: LogId) {
        if !self.parts.is_empty() || self.active.is_empty() {
            return;
        }
        let frozen = Frozen {
            table: Arc::clone(&self.active),
            up_to: id,
            state: self.state().encode(),
            format_level: self.format_level,
            membership: self.membership.clone(),
        };
        self.active = Arc::new(Memtable::new());
        let current = self.inner.read_state();
        let mut tables = Vec::with_capacity(current.frozen.len() + 1);
        tables.push(Arc::new(frozen));
        tables.extend(current.frozen.iter().cloned());
        let version = Arc::clone(&current.version);
        self.inner.set_read_state(ReadState { active: Arc::clone(&self.active), frozen: tables, version });
        self.inner.work.notify_one();
    }

    /// Rule 1: an edit is in force only if it was made from what is in force now; a memtable goes only with it.
    async fn edit(&mut self, base: ManifestId, manifest: ManifestId) -> Result<()> {
        if self.inner.tree.version().manifest().id != base {
            return Ok(());
        }
        self.install_manifest(manifest).await?;
        let version = self.inner.tree.version();
        let up_to = version.manifest().up_to.index;
        let current = self.inner.read_state();
        let frozen = current.frozen.iter().filter(|frozen| frozen.up_to.index > up_to).cloned().collect();
        self.inner.set_read_state(ReadState { active: Arc::clone(&self.active), frozen, version });
        self.inner.flushed.send_replace(up_to);
        Ok(())
    }

    async fn install_manifest(&self, id: ManifestId) -> Result<()> {
        let tree = self.inner.tree.clone();
        let installed = self.runtime.spawn(async move { tree.install(id).await }).await;
        installed.unwrap_or_else(|error| Err(Error::Closed(format!("the runtime of the database is gone: {error}"))))
    }

    /// Starts again from the manifest that a snapshot names.
    async fn restore(&mut self, snapshot: &holdfast_wal::Snapshot) -> Result<()> {
        let id = ManifestId::from_bytes(&snapshot.pointer)
            .ok_or_else(|| Error::Corrupt("a snapshot pointer that is no manifest id".into()))?;
        self.install_manifest(id).await?;
        let version = self.inner.tree.version();
        let manifest = Arc::clone(version.manifest());
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
        self.inner.flushed.send_replace(manifest.up_to.index);
        Ok(())
    }

    fn create_keyspace(&mut self, name: String) {
        if self.keyspaces.contains_key(&name) || self.keyspaces.len() >= KEYSPACES_MAX {
            return;
        }
        let id = self.next_keyspace;
        self.next_keyspace += 1;
        self.live.insert(id);
        self.inner.keyspaces.insert(&name, id);
        self.keyspaces.insert(name, id);
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
    fn restored(&self) -> Restored {
        Restored { applied: (self.applied.index > 0).then_some(self.applied), membership: self.membership.clone() }
    }

    fn apply(&mut self, entries: Vec<Entry>) -> BoxFuture<'_, Result<Applied, MachineError>> {
        Box::pin(async move {
            for entry in entries {
                let index = entry.id.index;
                if let Err(error) = self.entry(entry).await {
                    let error = format!("apply of log entry {index}: {error}");
                    self.inner.poison(&error);
                    return Err(MachineError(error));
                }
            }
            if self.active.bytes() >= self.inner.options.memtable_bytes {
                self.inner.work.notify_one();
            }
            // The pointer names the manifest durably, so what it covers may go.
            Ok(Applied { purge_to: self.inner.tree.version().manifest().up_to.index })
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
