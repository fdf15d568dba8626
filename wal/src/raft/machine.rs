//! openraft's state machine, over our [`Machine`].

use std::{io, panic::AssertUnwindSafe, sync::Arc};

use bytes::Bytes;
use futures::{FutureExt, Stream, StreamExt};
use openraft::{
    EntryPayload, OptionalSend, RaftSnapshotBuilder,
    storage::{ApplyResponder, EntryResponder, RaftStateMachine},
};
use parking_lot::Mutex;

use super::{
    codec::DecodeError,
    health::{Health, Progress},
    membership,
    types::{Data, RaftLogId, RaftSnapshot, SnapshotMeta, StoredMembership, TypeConfig, from_raft, to_raft},
};
use crate::{Entry, Error, LogId, Machine, MachineError, Payload, Snapshot};

/// Entries and payload bytes handed to the machine at a time.
const APPLY_ENTRIES: usize = 1024;
const APPLY_BYTES: usize = 4 << 20;

/// The machine as openraft drives it: from one task, in log order.
pub(crate) struct StateMachine {
    /// Only ever reached by `get_mut`; the mutex makes the type `Sync`, as openraft wants it.
    machine: Mutex<Box<dyn Machine>>,
    applied: Option<RaftLogId>,
    membership: StoredMembership,
    health: Arc<Health>,
    progress: Arc<Progress>,
    /// Refuses holes between entries. Only openraft's suite, which applies made-up entries, takes it off.
    pub(super) strict: bool,
}

impl StateMachine {
    /// Takes the machine where it stands; fails if its membership does not decode.
    pub(crate) fn new(machine: Box<dyn Machine>, health: Arc<Health>, progress: Arc<Progress>) -> Result<Self, Error> {
        let restored = machine.restored();
        let stored = decode_membership(restored.membership)
            .map_err(|e| Error::Options(format!("the membership that the machine restored: {e}")))?;
        let applied = restored.applied.map(to_raft);
        progress.applied(restored.applied.map_or(0, |id| id.index));
        Ok(Self { machine: Mutex::new(machine), applied, membership: stored, health, progress, strict: true })
    }

    fn fail(&self, doing: &str, error: &MachineError) -> io::Error {
        let error = Error::Failed { cause: format!("{doing}: {error}").into() };
        self.health.fail(&error);
        io::Error::other(error.to_string())
    }

    /// openraft takes a stream that ends early for a whole one; the hole shows at the next entry, and must stop the node.
    fn check_next(&self, id: LogId, last: Option<RaftLogId>) -> io::Result<()> {
        match last.as_ref().map(from_raft) {
            Some(last) if self.strict && id.index != last.index + 1 => {
                let what = format!("entry {} follows entry {}", id.index, last.index);
                Err(self.fail("apply", &MachineError(what)))
            }
            _ => Ok(()),
        }
    }

    async fn apply_some(&mut self, entries: Vec<Entry>) -> io::Result<()> {
        // openraft would lose a panicking machine and go on without it.
        let result = AssertUnwindSafe(self.machine.get_mut().apply(entries)).catch_unwind().await;
        let result = result
            .unwrap_or_else(|panic| Err(MachineError(format!("the machine panicked: {}", panic_message(&*panic)))));
        let applied = result.map_err(|e| self.fail("apply", &e))?;
        if applied.purge_to > self.progress.purge_asked() {
            // openraft purges only below a snapshot; ours are pointers and cost nothing to renew.
            let covered = self.machine.get_mut().snapshot().map_or(0, |s| s.last.index);
            self.progress.ask_purge(applied.purge_to.min(covered));
        }
        Ok(())
    }
}

/// What a panic said.
fn panic_message(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message")
}

fn decode_membership(membership: Option<(Option<LogId>, Bytes)>) -> Result<StoredMembership, DecodeError> {
    match membership {
        None => Ok(StoredMembership::default()),
        Some((id, bytes)) => Ok(StoredMembership::new(id.map(to_raft), membership::decode(bytes)?)),
    }
}

/// Our snapshot as openraft's.
pub(crate) fn to_raft_snapshot(snapshot: Snapshot) -> Result<RaftSnapshot, DecodeError> {
    let last_membership = decode_membership(snapshot.membership)?;
    let meta = SnapshotMeta { last_log_id: Some(to_raft(snapshot.last)), last_membership };
    Ok(RaftSnapshot { meta, snapshot: snapshot.pointer })
}

/// See [`to_raft_snapshot`]; `None` for a snapshot of nothing.
pub(crate) fn from_raft_snapshot(meta: &SnapshotMeta, pointer: Bytes) -> Option<Snapshot> {
    let last = from_raft(meta.last_log_id.as_ref()?);
    let m = &meta.last_membership;
    let bytes = membership::encode(m.membership());
    Some(Snapshot { last, membership: Some((m.log_id().as_ref().map(from_raft), bytes)), pointer })
}

impl RaftStateMachine<TypeConfig> for StateMachine {
    type SnapshotData = Bytes;
    type SnapshotBuilder = Pointer;

    async fn applied_state(&mut self) -> io::Result<(Option<RaftLogId>, StoredMembership)> {
        Ok((self.applied, self.membership.clone()))
    }

    async fn apply<Strm>(&mut self, mut entries: Strm) -> io::Result<()>
    where
        Strm: Stream<Item = io::Result<EntryResponder<TypeConfig>>> + Unpin + OptionalSend,
    {
        let mut ended = false;
        while !ended {
            let mut batch: Vec<Entry> = Vec::new();
            let mut replies: Vec<ApplyResponder<TypeConfig>> = Vec::new();
            let mut bytes = 0;
            let mut last = None;
            let mut blank = None;
            while batch.len() < APPLY_ENTRIES && bytes < APPLY_BYTES {
                let Some(item) = entries.next().await else {
                    ended = true;
                    break;
                };
                let (entry, reply) = item?;
                let id = from_raft(&entry.log_id);
                self.check_next(id, last.or(self.applied))?;
                last = Some(entry.log_id);
                let payload = match entry.payload {
                    EntryPayload::Blank => {
                        blank = Some(id.term);
                        Payload::Blank
                    }
                    EntryPayload::Normal(Data(data)) => {
                        bytes += data.len();
                        Payload::Normal(data)
                    }
                    EntryPayload::Membership(m) => {
                        let encoded = membership::encode(&m);
                        self.membership = StoredMembership::new(Some(entry.log_id), m);
                        Payload::Membership(encoded)
                    }
                };
                batch.push(Entry { id, payload });
                replies.extend(reply);
            }
            let Some(last) = last else { break };
            self.apply_some(batch).await?;
            self.applied = Some(last);
            self.progress.applied(from_raft(&last).index);
            if let Some(term) = blank {
                self.progress.blank_applied(term);
            }
            for reply in replies {
                reply.send(());
            }
        }
        Ok(())
    }

    async fn try_create_snapshot_builder(&mut self, force: bool) -> Option<Pointer> {
        let snapshot = self.machine.get_mut().snapshot();
        (force || snapshot.is_some()).then_some(Pointer(snapshot))
    }

    async fn get_snapshot_builder(&mut self) -> Pointer {
        Pointer(self.machine.get_mut().snapshot())
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, pointer: Bytes) -> io::Result<()> {
        let Some(snapshot) = from_raft_snapshot(meta, pointer) else {
            return Err(io::Error::other("a snapshot of nothing can't be installed"));
        };
        let last = snapshot.last;
        let result = self.machine.get_mut().install(snapshot).await;
        result.map_err(|e| self.fail("install a snapshot", &e))?;
        self.applied = meta.last_log_id;
        self.membership = meta.last_membership.clone();
        self.progress.applied(last.index);
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<RaftSnapshot>> {
        let Some(snapshot) = self.machine.get_mut().snapshot() else { return Ok(None) };
        to_raft_snapshot(snapshot).map(Some).map_err(|e| io::Error::other(format!("the machine's snapshot: {e}")))
    }
}

/// "Building" a snapshot: nothing is built, the pointer is handed over.
pub(crate) struct Pointer(Option<Snapshot>);

impl RaftSnapshotBuilder<TypeConfig> for Pointer {
    type SnapshotData = Bytes;

    async fn build_snapshot(&mut self) -> io::Result<RaftSnapshot> {
        // Without a snapshot this is one of nothing: openraft asks for it when a purged log meets an empty machine, which
        // `Node::start` has refused by then, and nobody can install it.
        let Some(snapshot) = self.0.clone() else {
            return Ok(RaftSnapshot { meta: SnapshotMeta::default(), snapshot: Bytes::new() });
        };
        to_raft_snapshot(snapshot).map_err(|e| io::Error::other(format!("the machine's snapshot: {e}")))
    }
}
