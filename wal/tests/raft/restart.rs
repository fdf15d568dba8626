//! Restarts: replay, purge, recovery from the bucket, and machines that do not fit the log.

use std::sync::Arc;

use bytes::Bytes;
use holdfast_wal::{
    Error, LogId, Wal, WalOptions,
    disk::{Choice, Disk, file, sim::SimDisk},
    transport::NoTransport,
};

use crate::machine::*;

#[tokio::test]
async fn dropped_without_close_all_is_applied_again() {
    let dir = tempfile::tempdir().unwrap();
    // One handle for all lives: its lock on the folder is that of the process.
    let disk = file::open(dir.path(), Choice::Auto).unwrap();
    let bucket = Bucket::default();
    let mut expected = Vec::new();
    let mut terms = Vec::new();
    for round in 0..3 {
        let (machine, view) = Recorder::new(&bucket, None);
        let options = WalOptions { own_thread: true, ..options() };
        let wal = open_ready(options, disk.clone(), machine).await;
        terms.push(wal.leadership().borrow().term);
        assert_eq!(view.payloads(), expected, "after restart {round}");
        for n in 0..50 {
            wal.propose(payload(round * 100 + n)).await.unwrap();
            expected.push(payload(round * 100 + n));
        }
        drop(wal);
        view.gone().await;
    }
    assert!(terms.windows(2).all(|w| w[0] < w[1]), "each start leads in a term of its own: {terms:?}");
}

#[tokio::test]
async fn a_purge_that_a_crash_forgot_is_asked_for_while_the_log_is_replayed() {
    let shared: Arc<dyn Disk> = Arc::new(SimDisk::new(3));
    let bucket = Bucket::default();
    let (machine, view) = Recorder::new(&bucket, None);
    let wal = open_ready(options(), shared.clone(), machine).await;
    for n in 0..20 {
        wal.propose(payload(n)).await.unwrap();
    }
    wal.close().await;
    // The manifest holds half of it, and the log knows nothing of that.
    let items = view.items()[..10].to_vec();
    let half = items[9].0;
    let membership = Some((Some(LogId { term: 0, index: 1 }), view.membership()));
    let (machine, again) = Recorder::with_state(&bucket, State { items, last: Some(half), membership });
    let wal = open_ready(options(), shared, machine).await;
    assert_eq!(again.payloads(), (0..20).map(payload).collect::<Vec<_>>());
    until("the log forgets", || wal.status().purged == Some(half)).await;
}

#[tokio::test]
async fn a_checkpoint_lets_the_log_forget_and_a_restart_begins_there() {
    let disk = SimDisk::new(2);
    let bucket = Bucket::default();
    let shared: Arc<dyn Disk> = Arc::new(disk);
    let (machine, view) = Recorder::new(&bucket, None);
    let wal = open_ready(options(), shared.clone(), machine).await;
    for n in 0..20 {
        wal.propose(payload(n)).await.unwrap();
    }
    let checkpoint = wal.propose(Bytes::from_static(CHECKPOINT)).await.unwrap();
    for n in 20..30 {
        wal.propose(payload(n)).await.unwrap();
    }
    until("the log forgets", || wal.status().purged == Some(checkpoint)).await;
    assert_eq!(wal.status().first.unwrap().index, checkpoint.index + 1);
    // What is left can be read back, in pieces; what is forgotten says so.
    let applied = wal.status().applied;
    let mut read = Vec::new();
    while let Some(next) = Some(read.len() as u64 + checkpoint.index + 1).filter(|next| *next <= applied) {
        read.extend(wal.read_applied(next, 1).unwrap());
    }
    assert_eq!(read.last().map(|entry| entry.id.index), Some(applied));
    assert_eq!(read, wal.read_applied(checkpoint.index + 1, usize::MAX).unwrap());
    assert!(wal.read_applied(applied + 1, 1).unwrap().is_empty());
    assert!(matches!(wal.read_applied(checkpoint.index, 1), Err(Error::Purged { .. })));
    wal.close().await;
    let (machine, again) = Recorder::new(&bucket, view.manifest());
    assert_eq!(again.items().len(), 20);
    let wal = open_ready(options(), shared.clone(), machine).await;
    assert_eq!(again.payloads(), (0..30).map(payload).collect::<Vec<_>>());
    assert_eq!(wal.status().members.len(), 1);
    wal.propose(payload(30)).await.unwrap();
    wal.close().await;

    let (empty, _view) = Recorder::new(&bucket, None);
    let refused = Wal::open(options(), shared, Arc::new(NoTransport), empty).await;
    let message = refused.err().unwrap().to_string();
    assert!(message.contains("the state between them is missing"), "{message}");
}

#[tokio::test]
async fn an_empty_log_under_a_recovered_machine_starts_above_it() {
    let bucket = Bucket::default();
    // A first life, to have a real membership.
    let (machine, view) = Recorder::new(&bucket, None);
    let wal = open_ready(options(), Arc::new(SimDisk::new(3)), machine).await;
    wal.propose(payload(1)).await.unwrap();
    wal.propose(Bytes::from_static(CHECKPOINT)).await.unwrap();
    wal.close().await;
    let (_, pointer) = view.manifest().unwrap();
    let (machine, _) = Recorder::new(&bucket, Some((LogId::default(), pointer)));
    let membership = holdfast_wal::Machine::restored(&machine).membership;
    drop(machine);

    let last = LogId { term: 7, index: 1000 };
    let state = State { items: vec![(last, payload(1))], last: Some(last), membership };
    let (machine, view) = Recorder::with_state(&bucket, state);
    let disk: Arc<dyn Disk> = Arc::new(SimDisk::new(4));
    let wal = open_ready(options(), disk.clone(), machine).await;
    let id = wal.propose(payload(2)).await.unwrap();
    assert!(id.term > last.term && id.index > last.index, "{id:?}");
    wal.close().await;
    // And once more, from the same machine state and the log that it has now.
    let (machine, again) = Recorder::new(&bucket, view.manifest());
    let wal = open_ready(options(), disk, machine).await;
    assert_eq!(again.payloads(), [payload(1), payload(2)]);
    wal.close().await;
}

#[tokio::test]
async fn a_directory_of_another_cluster_is_refused() {
    let disk: Arc<dyn Disk> = Arc::new(SimDisk::new(5));
    let (machine, _view) = Recorder::new(&Bucket::default(), None);
    let wal = open_ready(options(), disk.clone(), machine).await;
    wal.close().await;
    let mut other = options();
    other.log.cluster = 0xC2;
    let (machine, _view) = Recorder::new(&Bucket::default(), None);
    let refused = Wal::open(other, disk, Arc::new(NoTransport), machine).await;
    assert!(matches!(refused.err(), Some(Error::OtherCluster { expected: 0xC2, found: 0xC1, .. })));
}

#[tokio::test]
async fn options_that_contradict_each_other_are_refused() {
    let mut bad = options();
    bad.timing.election_max = bad.timing.election_min;
    let (machine, _view) = Recorder::new(&Bucket::default(), None);
    let refused = Wal::open(bad, Arc::new(SimDisk::new(6)), Arc::new(NoTransport), machine).await;
    assert!(matches!(refused.err(), Some(Error::Options(_))));
    let mut bad = options();
    bad.limits.payload = 64 << 20;
    let (machine, _view) = Recorder::new(&Bucket::default(), None);
    let refused = Wal::open(bad, Arc::new(SimDisk::new(6)), Arc::new(NoTransport), machine).await;
    assert!(matches!(refused.err(), Some(Error::Options(_))));
}
