//! The checking state machine: a list of what was appended. Checkpoints write it to the simulated bucket.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use holdfast_wal::{Applied, BoxFuture, Entry, LogId, Machine, MachineError, NodeId, Payload, Restored, Snapshot};
use parking_lot::Mutex;

use crate::{
    oracle::{self, Content, Oracle},
    trace,
};

/// The payload that makes the machine write a manifest and lets the log forget all before it.
pub const CHECKPOINT: &[u8] = b"checkpoint";

/// A machine's state.
#[derive(Clone, Debug, Default)]
pub struct State {
    /// Appends, in order.
    pub items: Vec<(LogId, u64)>,
    /// The last entry applied.
    pub last: Option<LogId>,
    membership: Option<(Option<LogId>, Bytes)>,
}

/// A state in the bucket, and what names it.
pub type Manifest = (LogId, Bytes);

/// Manifests by number; a pointer is the number. A manifest is durable once it is put.
#[derive(Clone, Default)]
pub struct Bucket(Arc<Mutex<BTreeMap<u64, State>>>);

impl Bucket {
    fn put(&self, state: State) -> Manifest {
        let last = state.last.unwrap_or_default();
        let mut all = self.0.lock();
        let first = all.entry(last.index).or_insert_with(|| state.clone());
        assert!(first.items == state.items, "divergence: two states at the checkpoint {last:?}");
        drop(all);
        (last, Bytes::copy_from_slice(&last.index.to_le_bytes()))
    }

    fn get(&self, pointer: &Bytes) -> State {
        let at = u64::from_le_bytes(pointer[..].try_into().expect("a pointer of eight bytes"));
        self.0.lock()[&at].clone()
    }
}

/// What the simulation sees of a node's machine.
#[derive(Clone, Default)]
pub struct View(Arc<Mutex<State>>);

impl View {
    /// The state now.
    pub fn state(&self) -> State {
        self.0.lock().clone()
    }

    /// Index of the last entry applied.
    pub fn last(&self) -> u64 {
        self.0.lock().last.map_or(0, |id| id.index)
    }
}

/// The machine that a log owns.
pub struct List {
    node: NodeId,
    bucket: Bucket,
    oracle: Arc<Oracle>,
    view: View,
    /// The newest manifest that this node knows; it survives crashes.
    manifest: Arc<Mutex<Option<Manifest>>>,
}

impl List {
    /// A machine that starts from the node's manifest, or empty.
    pub fn new(node: NodeId, bucket: Bucket, oracle: Arc<Oracle>, manifest: Arc<Mutex<Option<Manifest>>>) -> Self {
        let state = manifest.lock().as_ref().map(|(_, pointer)| bucket.get(pointer)).unwrap_or_default();
        Self { node, bucket, oracle, view: View(Arc::new(Mutex::new(state))), manifest }
    }

    /// The simulation's view of it.
    pub fn view(&self) -> View {
        self.view.clone()
    }

    fn apply_one(&mut self, entry: Entry) {
        let mut state = self.view.0.lock();
        let last = state.last.map_or(0, |last| last.index);
        assert!(last == 0 || entry.id.index == last + 1, "a hole: entry {:?} follows {last}", entry.id);
        state.last = Some(entry.id);
        let content = match entry.payload {
            Payload::Blank => Content::Blank,
            Payload::Membership(bytes) => {
                state.membership = Some((Some(entry.id), bytes));
                Content::Membership
            }
            Payload::Normal(bytes) if bytes == CHECKPOINT => {
                *self.manifest.lock() = Some(self.bucket.put(state.clone()));
                Content::Checkpoint
            }
            Payload::Normal(bytes) => {
                let key = number(&bytes);
                state.items.push((entry.id, key));
                Content::Append(key)
            }
        };
        trace::event(format_args!("n{} applies {}.{} {content:?}", self.node, entry.id.term, entry.id.index));
        self.oracle.applied(self.node, oracle::Applied { id: entry.id, content });
    }
}

/// The payload of append `key`, `len` bytes of it.
pub fn payload(key: u64, len: usize) -> Bytes {
    let mut bytes = vec![key as u8; len.max(8)];
    bytes[..8].copy_from_slice(&key.to_le_bytes());
    bytes.into()
}

/// The append of a payload; its filler must be whole.
fn number(payload: &Bytes) -> u64 {
    let key = u64::from_le_bytes(payload[..8].try_into().expect("a payload of eight bytes or more"));
    assert!(payload[8..].iter().all(|byte| *byte == key as u8), "the payload of append {key} is damaged");
    key
}

impl Machine for List {
    fn restored(&self) -> Restored {
        let state = self.view.0.lock();
        Restored { applied: state.last, membership: state.membership.clone() }
    }

    fn apply(&mut self, entries: Vec<Entry>) -> BoxFuture<'_, Result<Applied, MachineError>> {
        Box::pin(async move {
            entries.into_iter().for_each(|entry| self.apply_one(entry));
            // A purge that a crash forgot is asked for again.
            Ok(Applied { purge_to: self.manifest.lock().as_ref().map_or(0, |(last, _)| last.index) })
        })
    }

    fn snapshot(&self) -> Option<Snapshot> {
        let (last, pointer) = self.manifest.lock().clone()?;
        let membership = self.bucket.get(&pointer).membership;
        Some(Snapshot { last, membership, pointer })
    }

    fn install(&mut self, snapshot: Snapshot) -> BoxFuture<'_, Result<(), MachineError>> {
        Box::pin(async move {
            trace::event(format_args!("n{} installs the snapshot of {}", self.node, snapshot.last.index));
            tokio::time::sleep(std::time::Duration::from_millis(20)).await; // the bucket answers in its time
            let state = self.bucket.get(&snapshot.pointer);
            let mut view = self.view.0.lock();
            assert!(view.last < state.last, "a snapshot of {:?} replaces the state at {:?}", state.last, view.last);
            *view = state;
            drop(view);
            *self.manifest.lock() = Some((snapshot.last, snapshot.pointer));
            Ok(())
        })
    }
}
