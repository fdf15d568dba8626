//! A machine that keeps what it applied, writes "manifests" to a shared bucket, and can be told to fail.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use bytes::Bytes;
use holdfast_wal::{
    Applied, BoxFuture, Entry, LogId, LogOptions, Machine, MachineError, Payload, Restored, Snapshot, Timing, Wal,
    WalOptions, disk::Disk, transport::NoTransport,
};
use parking_lot::Mutex;
use tokio::sync::watch;

/// The payload that makes the machine write a manifest and let the log forget all before it.
pub const CHECKPOINT: &[u8] = b"checkpoint";

#[derive(Clone, Default)]
pub struct State {
    pub items: Vec<(LogId, Bytes)>,
    pub last: Option<LogId>,
    pub membership: Option<(Option<LogId>, Bytes)>,
}

/// Manifests by number; a pointer is the number. Shared by the nodes of a cluster and across restarts.
#[derive(Clone, Default)]
pub struct Bucket(Arc<Mutex<Vec<State>>>);

impl Bucket {
    fn put(&self, state: State) -> Bytes {
        let mut all = self.0.lock();
        all.push(state);
        Bytes::copy_from_slice(&(all.len() as u64 - 1).to_le_bytes())
    }

    fn get(&self, pointer: &Bytes) -> State {
        let at = u64::from_le_bytes(pointer[..].try_into().unwrap());
        self.0.lock()[at as usize].clone()
    }
}

/// The test's view of a machine that the log owns.
#[derive(Clone)]
pub struct View(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    /// The newest manifest this node knows.
    manifest: Mutex<Option<(LogId, Bytes)>>,
    fail_at: AtomicU64,
    installs: AtomicU64,
    gone: watch::Sender<bool>,
}

impl View {
    pub fn items(&self) -> Vec<(LogId, Bytes)> {
        self.0.state.lock().items.clone()
    }

    pub fn payloads(&self) -> Vec<Bytes> {
        self.0.state.lock().items.iter().map(|(_, b)| b.clone()).collect()
    }

    pub fn membership(&self) -> Bytes {
        self.0.state.lock().membership.clone().unwrap().1
    }

    /// Makes the apply of this index fail.
    pub fn fail_at(&self, index: u64) {
        self.0.fail_at.store(index, Ordering::Release);
    }

    pub fn installs(&self) -> u64 {
        self.0.installs.load(Ordering::Acquire)
    }

    pub fn manifest(&self) -> Option<(LogId, Bytes)> {
        self.0.manifest.lock().clone()
    }

    /// Waits until the log has let go of the machine.
    pub async fn gone(&self) {
        self.0.gone.subscribe().wait_for(|g| *g).await.unwrap();
    }
}

pub struct Recorder {
    bucket: Bucket,
    shared: Arc<Shared>,
    purge_to: u64,
}

impl Recorder {
    /// A machine that starts from a manifest, or empty.
    pub fn new(bucket: &Bucket, manifest: Option<(LogId, Bytes)>) -> (Self, View) {
        let state = manifest.as_ref().map(|(_, pointer)| bucket.get(pointer)).unwrap_or_default();
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            manifest: Mutex::new(manifest),
            fail_at: AtomicU64::new(u64::MAX),
            installs: AtomicU64::new(0),
            gone: watch::Sender::new(false),
        });
        let view = View(shared.clone());
        let purge_to = shared.manifest.lock().as_ref().map_or(0, |(last, _)| last.index);
        (Self { bucket: bucket.clone(), shared, purge_to }, view)
    }

    /// A machine that starts from a state given by hand.
    pub fn with_state(bucket: &Bucket, state: State) -> (Self, View) {
        let last = state.last.unwrap();
        let pointer = bucket.put(state);
        Self::new(bucket, Some((last, pointer)))
    }

    fn apply_one(&mut self, entry: Entry) -> Result<(), MachineError> {
        if entry.id.index == self.shared.fail_at.load(Ordering::Acquire) {
            return Err(MachineError("told to fail".into()));
        }
        let mut state = self.shared.state.lock();
        assert!(state.last.is_none_or(|last| entry.id.index == last.index + 1), "a hole before {:?}", entry.id);
        state.last = Some(entry.id);
        match entry.payload {
            Payload::Blank => {}
            Payload::Membership(bytes) => state.membership = Some((Some(entry.id), bytes)),
            Payload::Normal(bytes) if bytes == CHECKPOINT => {
                let pointer = self.bucket.put(state.clone());
                *self.shared.manifest.lock() = Some((entry.id, pointer));
                self.purge_to = entry.id.index;
            }
            Payload::Normal(bytes) => state.items.push((entry.id, bytes)),
        }
        Ok(())
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.shared.gone.send_replace(true);
    }
}

impl Machine for Recorder {
    fn restored(&self) -> Restored {
        let state = self.shared.state.lock();
        Restored { applied: state.last, membership: state.membership.clone() }
    }

    fn apply(&mut self, entries: Vec<Entry>) -> BoxFuture<'_, Result<Applied, MachineError>> {
        Box::pin(async move {
            for entry in entries {
                self.apply_one(entry)?;
            }
            Ok(Applied { purge_to: self.purge_to })
        })
    }

    fn snapshot(&self) -> Option<Snapshot> {
        let (last, pointer) = self.shared.manifest.lock().clone()?;
        let membership = self.bucket.get(&pointer).membership;
        Some(Snapshot { last, membership, pointer })
    }

    fn install(&mut self, snapshot: Snapshot) -> BoxFuture<'_, Result<(), MachineError>> {
        Box::pin(async move {
            *self.shared.state.lock() = self.bucket.get(&snapshot.pointer);
            *self.shared.manifest.lock() = Some((snapshot.last, snapshot.pointer));
            self.shared.installs.fetch_add(1, Ordering::AcqRel);
            Ok(())
        })
    }
}

/// Small segments, so that tests cross their borders.
pub fn log_options() -> LogOptions {
    LogOptions { cluster: 0xC1, segment_bytes: 8 << 20, max_bytes: 64 << 20, ..LogOptions::default() }
}

/// A cluster of node 1 alone, on the caller's runtime.
pub fn options() -> WalOptions {
    WalOptions { own_thread: false, timing: Timing::default(), ..WalOptions::single(1, log_options()) }
}

/// Opens node 1 on `disk` and waits until it leads.
pub async fn open_ready(options: WalOptions, disk: Arc<dyn Disk>, machine: Recorder) -> Wal {
    let wal = Wal::open(options, disk, Arc::new(NoTransport), machine).await.unwrap();
    wal.ready().await.unwrap();
    wal
}

/// Lets every other task run until none has anything to do (timers apart).
pub async fn settle() {
    for _ in 0..200 {
        tokio::task::yield_now().await;
    }
}

/// Runs other tasks until `done`; panics if it never comes.
pub async fn until(what: &str, mut done: impl FnMut() -> bool) {
    for _ in 0..100_000 {
        if done() {
            return;
        }
        tokio::task::yield_now().await;
    }
    panic!("never happened: {what}");
}

pub fn payload(n: u64) -> Bytes {
    Bytes::from(format!("payload {n}"))
}
