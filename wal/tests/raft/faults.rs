//! Failures stop the node for good and name their cause; power loss takes nothing that was acknowledged.

use std::sync::Arc;

use futures::future::join_all;
use holdfast_wal::{
    Error,
    disk::{Disk, sim::SimDisk},
};

use crate::machine::*;

#[tokio::test]
async fn a_write_error_stops_the_node_with_its_cause() {
    let disk = SimDisk::new(1);
    let (machine, view) = Recorder::new(&Bucket::default(), None);
    let wal = open_ready(options(), Arc::new(disk.clone()), machine).await;
    wal.propose(payload(0)).await.unwrap();
    disk.cut_power();
    let lost = wal.propose(payload(1)).await;
    assert!(matches!(lost, Err(Error::Unknown { .. } | Error::Failed { .. })), "{lost:?}");
    let cause = wal.stopped().await;
    assert!(matches!(cause, Error::Failed { .. }), "{cause:?}");
    let later = wal.propose(payload(2)).await;
    assert_eq!(later.unwrap_err().to_string(), cause.to_string());
    assert_eq!(wal.status().failure.unwrap().to_string(), cause.to_string());
    assert!(wal.ready().await.is_err());
    view.gone().await;
    assert_eq!(view.payloads(), [payload(0)]);
}

#[tokio::test]
async fn a_machine_that_fails_stops_the_node_with_its_cause() {
    let (machine, view) = Recorder::new(&Bucket::default(), None);
    let wal = open_ready(options(), Arc::new(SimDisk::new(1)), machine).await;
    let id = wal.propose(payload(0)).await.unwrap();
    view.fail_at(id.index + 1);
    let lost = wal.propose(payload(1)).await;
    assert!(matches!(lost, Err(Error::Unknown { .. })), "{lost:?}");
    let cause = wal.stopped().await.to_string();
    assert!(cause.contains("apply") && cause.contains("told to fail"), "{cause}");
    assert!(matches!(wal.propose(payload(2)).await, Err(Error::Failed { .. })));
}

/// Runs proposals until the power goes during the `cut`-th I/O; gives what was acknowledged.
async fn life_until_power_loss(disk: &SimDisk, cut: u64) -> Vec<bytes::Bytes> {
    let (machine, view) = Recorder::new(&Bucket::default(), None);
    let shared: Arc<dyn Disk> = Arc::new(disk.clone());
    let wal = open_ready(options(), shared, machine).await;
    disk.cut_power_after(cut);
    let mut acknowledged = Vec::new();
    'life: for round in 0..1000u64 {
        let calls: Vec<_> =
            (0..=round % 5).map(|n| payload(round * 10 + n)).map(|p| (p.clone(), wal.propose(p))).collect();
        for (payload, call) in calls {
            match call.await {
                Ok(_) => acknowledged.push(payload),
                Err(_) => break 'life,
            }
        }
    }
    drop(wal);
    view.gone().await;
    acknowledged
}

/// How many of the acknowledged entries a restart finds missing.
async fn lost_after_restart(disk: &SimDisk, acknowledged: &[bytes::Bytes]) -> usize {
    disk.restart();
    let (machine, view) = Recorder::new(&Bucket::default(), None);
    let opened = holdfast_wal::Wal::open(
        options(),
        Arc::new(disk.clone()),
        Arc::new(holdfast_wal::transport::NoTransport),
        machine,
    );
    let Ok(wal) = opened.await else { return acknowledged.len() };
    wal.ready().await.unwrap();
    let found = view.payloads();
    wal.close().await;
    acknowledged
        .iter()
        .zip(found.iter().map(Some).chain(std::iter::repeat(None)))
        .filter(|(a, f)| Some(*a) != *f)
        .count()
}

#[tokio::test]
async fn power_loss_takes_nothing_that_was_acknowledged() {
    let mut total = 0;
    for seed in 0..200 {
        let disk = SimDisk::new(seed);
        let acknowledged = life_until_power_loss(&disk, 1 + seed % 37).await;
        total += acknowledged.len();
        let lost = lost_after_restart(&disk, &acknowledged).await;
        assert_eq!(lost, 0, "seed {seed}: {lost} of {} acknowledged entries lost", acknowledged.len());
    }
    assert!(total > 1000, "the test acknowledged only {total} entries");
}

#[tokio::test]
async fn the_power_loss_test_notices_a_drive_that_lies() {
    let mut lost = 0;
    for seed in 0..20 {
        let disk = SimDisk::new(seed);
        disk.lie_about_sync();
        let acknowledged = life_until_power_loss(&disk, 5 + seed % 37).await;
        lost += lost_after_restart(&disk, &acknowledged).await;
    }
    assert!(lost > 0, "a drive that lies about sync must lose something");
}

#[tokio::test]
async fn in_flight_proposals_are_answered_when_the_node_stops() {
    let disk = SimDisk::new(9);
    let (machine, _view) = Recorder::new(&Bucket::default(), None);
    let wal = open_ready(options(), Arc::new(disk.clone()), machine).await;
    settle().await;
    disk.on_wake(|| {});
    let calls: Vec<_> = (0..10).map(|n| wal.propose(payload(n))).collect();
    settle().await;
    disk.cut_power();
    while disk.step() {}
    for answer in join_all(calls).await {
        assert!(matches!(answer, Err(Error::Unknown { .. })), "{answer:?}");
    }
    assert_eq!(wal.status().in_flight, 0);
}
