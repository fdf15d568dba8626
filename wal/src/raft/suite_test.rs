//! openraft's own storage suite, on the real disks and on the simulated one.

use std::sync::Arc;

use bytes::Bytes;
use openraft::{
    AsyncRuntime, StorageError,
    testing::log::{StoreBuilder, Suite},
};
use parking_lot::Mutex;

use super::{
    health::{Health, Progress},
    machine::StateMachine,
    store::Store,
    types::TypeConfig,
};
use crate::{
    Applied, BoxFuture, Entry, Log, LogId, LogOptions, Machine, MachineError, Payload, Restored, Snapshot,
    disk::{Choice, Disk, file, sim::SimDisk},
};

#[derive(Clone, Default)]
struct State {
    last: Option<LogId>,
    membership: Option<(Option<LogId>, Bytes)>,
}

/// Keeps what the suite looks at; the pointer names a state in a table that all machines share.
struct SuiteMachine {
    bucket: Arc<Mutex<Vec<State>>>,
    state: State,
}

impl Machine for SuiteMachine {
    fn restored(&self) -> Restored {
        Restored { applied: self.state.last, membership: self.state.membership.clone() }
    }

    fn apply(&mut self, entries: Vec<Entry>) -> BoxFuture<'_, Result<Applied, MachineError>> {
        for entry in entries {
            self.state.last = Some(entry.id);
            if let Payload::Membership(bytes) = entry.payload {
                self.state.membership = Some((Some(entry.id), bytes));
            }
        }
        Box::pin(async { Ok(Applied::default()) })
    }

    fn snapshot(&self) -> Option<Snapshot> {
        let last = self.state.last?;
        let mut bucket = self.bucket.lock();
        bucket.push(self.state.clone());
        let pointer = Bytes::copy_from_slice(&(bucket.len() - 1).to_le_bytes());
        Some(Snapshot { last, membership: self.state.membership.clone(), pointer })
    }

    fn install(&mut self, snapshot: Snapshot) -> BoxFuture<'_, Result<(), MachineError>> {
        let at = usize::from_le_bytes(snapshot.pointer[..].try_into().unwrap());
        self.state = self.bucket.lock()[at].clone();
        Box::pin(async { Ok(()) })
    }
}

/// Closes the log before the folder goes.
struct Guard {
    log: Log,
    _dir: Option<tempfile::TempDir>,
}

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = self.log.close();
    }
}

struct Builder {
    disk: fn() -> (Arc<dyn Disk>, Option<tempfile::TempDir>),
    bucket: Arc<Mutex<Vec<State>>>,
}

impl StoreBuilder<TypeConfig, Store, StateMachine, Guard> for Builder {
    async fn build(&self) -> Result<(Guard, Store, StateMachine), StorageError<TypeConfig>> {
        let (disk, dir) = (self.disk)();
        let options = LogOptions {
            cluster: 1,
            max_payload: 64 << 10,
            max_write_bytes: 128 << 10,
            segment_bytes: 256 << 10,
            max_bytes: 16 << 20,
            ..LogOptions::default()
        };
        let (log, _) = Log::open(disk, options).unwrap();
        let health = Arc::new(Health::new());
        let store = Store::new(log.clone(), health.clone(), Arc::new(super::pace::Pace::new(Arc::default(), true)));
        let machine = SuiteMachine { bucket: self.bucket.clone(), state: State::default() };
        let mut machine = StateMachine::new(Box::new(machine), health, Arc::new(Progress::new())).unwrap();
        machine.strict = false;
        Ok((Guard { log, _dir: dir }, store, machine))
    }
}

fn run(disk: fn() -> (Arc<dyn Disk>, Option<tempfile::TempDir>)) {
    let builder = Builder { disk, bucket: Arc::default() };
    openraft::impls::TokioRuntime::run(Suite::test_all(builder)).unwrap();
}

fn real(choice: Choice) -> (Arc<dyn Disk>, Option<tempfile::TempDir>) {
    let dir = tempfile::tempdir().unwrap();
    (file::open(dir.path(), choice).unwrap(), Some(dir))
}

#[test]
fn on_the_ring() {
    run(|| real(Choice::Auto));
}

#[test]
fn on_pwrite() {
    run(|| real(Choice::Pwrite));
}

#[test]
fn on_the_simulated_disk() {
    run(|| (Arc::new(SimDisk::new(7)), None));
}
