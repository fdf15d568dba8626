//! One voter: order, limits, leadership, and no acknowledgement before the disk.

use std::{
    sync::Arc,
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use futures::future::{FutureExt, join_all};
use holdfast_wal::{
    Error, Limits, WalOptions,
    disk::{Choice, Disk, file, sim::SimDisk},
};

use crate::machine::*;

fn sim() -> (SimDisk, Arc<dyn Disk>) {
    let disk = SimDisk::new(1);
    (disk.clone(), Arc::new(disk))
}

#[tokio::test]
async fn calls_in_order_give_entries_in_order() {
    let (machine, view) = Recorder::new(&Bucket::default(), None);
    let wal = open_ready(options(), sim().1, machine).await;
    let futures: Vec<_> = (0..1000).map(|n| wal.propose(payload(n))).collect();
    let ids: Vec<_> = join_all(futures).await.into_iter().map(Result::unwrap).collect();
    assert!(ids.windows(2).all(|w| w[0].index < w[1].index));
    let applied = view.items();
    assert_eq!(applied, ids.into_iter().zip((0..1000).map(payload)).collect::<Vec<_>>());
    wal.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn concurrent_callers_keep_their_own_order_on_real_disks() {
    for choice in [Choice::Auto, Choice::Pwrite] {
        let dir = tempfile::tempdir().unwrap();
        let (machine, view) = Recorder::new(&Bucket::default(), None);
        let options = WalOptions { own_thread: true, ..options() };
        let wal = open_ready(options, file::open(dir.path(), choice).unwrap(), machine).await;
        let callers = (0..8u64).map(|caller| {
            let wal = wal.clone();
            tokio::spawn(async move {
                let calls: Vec<_> = (0..200).map(|n| wal.propose(payload(caller * 1000 + n))).collect();
                join_all(calls).await.into_iter().map(Result::unwrap).collect::<Vec<_>>()
            })
        });
        let ids: Vec<_> = join_all(callers).await.into_iter().map(Result::unwrap).collect();
        let applied = view.items();
        assert_eq!(applied.len(), 1600);
        assert!(applied.windows(2).all(|w| w[0].0 < w[1].0));
        for (caller, ids) in (0u64..).zip(ids) {
            let mine = (0..200).map(|n| payload(caller * 1000 + n));
            let expected: Vec<_> = ids.into_iter().zip(mine).collect();
            let found: Vec<_> = applied.iter().filter(|i| expected.iter().any(|e| e.1 == i.1)).cloned().collect();
            assert_eq!(found, expected);
        }
        wal.close().await;
    }
}

#[tokio::test]
async fn payloads_have_a_limit() {
    let (machine, view) = Recorder::new(&Bucket::default(), None);
    let wal = open_ready(options(), sim().1, machine).await;
    let largest = Bytes::from(vec![1; 1 << 20]);
    wal.propose(largest.clone()).await.unwrap();
    let too_large = wal.propose(Bytes::from(vec![1; (1 << 20) + 1])).await;
    assert!(matches!(too_large, Err(Error::TooLarge { len: 1048577, max: 1048576 })), "{too_large:?}");
    assert_eq!(view.payloads(), [largest]);
    wal.close().await;
}

/// Rule 5: a log that refuses commits must be able to learn what lets it forget, or it would stay full.
#[tokio::test]
async fn a_full_log_takes_what_makes_room_and_keeps_the_rest_for_votes() {
    let (machine, view) = Recorder::new(&Bucket::default(), None);
    let wal = open_ready(options(), sim().1, machine).await;
    let block = Bytes::from(vec![1; 3000]);
    let refused = loop {
        match wal.propose(block.clone()).await {
            Ok(_) => assert!(view.items().len() < 100_000, "the log has a bound"),
            Err(refused) => break refused,
        }
    };
    assert!(matches!(refused, Error::Full { .. }), "{refused}");
    let before = view.items().len();
    let refused = loop {
        assert!(wal.propose(block.clone()).await.is_err(), "the reserve is for others");
        match wal.propose_reserved(block.clone()).await {
            Ok(_) => assert!(view.items().len() < 100_000, "the reserve has a bound"),
            Err(refused) => break refused,
        }
    };
    assert!(matches!(refused, Error::Full { .. }), "{refused}");
    assert!(view.items().len() > before, "nothing that makes room was taken");
    wal.close().await;
}

#[tokio::test]
async fn ready_means_that_the_own_no_op_is_applied() {
    let (machine, _view) = Recorder::new(&Bucket::default(), None);
    let wal = open_ready(options(), sim().1, machine).await;
    let leadership = *wal.leadership().borrow();
    assert!(leadership.is_leader && leadership.ready);
    assert_eq!(leadership.leader, Some(1));
    // Index 1 is the membership, index 2 the no-op.
    assert!(wal.status().applied >= 2);
    assert_eq!(wal.propose(payload(0)).await.unwrap().term, leadership.term);
    assert_eq!(wal.status().members.len(), 1);
    wal.close().await;
    let left = *wal.leadership().borrow();
    assert!(!left.is_leader && !left.ready && left.leader.is_none());
}

#[tokio::test]
async fn nothing_is_acknowledged_before_the_disk_has_it() {
    let (disk, shared) = sim();
    let (machine, view) = Recorder::new(&Bucket::default(), None);
    let wal = open_ready(options(), shared, machine).await;
    settle().await;
    disk.on_wake(|| {}); // from here on the device stands still
    let mut call = std::pin::pin!(wal.propose(payload(0)));
    settle().await;
    let poll = call.as_mut().poll_unpin(&mut Context::from_waker(Waker::noop()));
    assert!(matches!(poll, Poll::Pending), "acknowledged while the device stood still");
    let status = wal.status();
    assert!(status.last > status.committed, "the entry is in the log, and not committed: {status:?}");
    assert!(view.items().is_empty());
    while disk.step() {}
    let id = call.await.unwrap();
    assert_eq!(view.items(), [(id, payload(0))]);
    disk.on_wake({
        let disk = disk.clone();
        move || while disk.step() {}
    });
    wal.close().await;
}

#[tokio::test]
async fn proposals_in_flight_are_bounded() {
    let (disk, shared) = sim();
    let (machine, view) = Recorder::new(&Bucket::default(), None);
    let limits = Limits { proposals: 4, bytes: 1000, ..Limits::default() };
    let wal = open_ready(WalOptions { limits, ..options() }, shared, machine).await;
    settle().await;
    disk.on_wake(|| {});
    let four: Vec<_> = (0..4).map(|n| wal.propose(payload(n))).collect();
    let fifth = wal.propose(payload(4)).await;
    assert!(matches!(&fifth, Err(e @ Error::Busy { limit: 4, .. }) if e.is_retryable()), "{fifth:?}");
    settle().await;
    while disk.step() {}
    for call in four {
        call.await.unwrap();
    }
    let wide = wal.propose(Bytes::from(vec![0; 1001])).await;
    assert!(matches!(wide, Err(Error::Busy { limit: 1000, .. })), "{wide:?}");
    assert_eq!(wal.status().in_flight, 0);
    assert_eq!(view.items().len(), 4);
}

#[tokio::test]
async fn a_dropped_future_does_not_take_the_proposal_back() {
    let (machine, view) = Recorder::new(&Bucket::default(), None);
    let wal = open_ready(options(), sim().1, machine).await;
    drop(wal.propose(payload(1)));
    wal.propose(payload(2)).await.unwrap();
    assert_eq!(view.payloads(), [payload(1), payload(2)]);
    wal.close().await;
}

#[tokio::test]
async fn a_closed_log_says_so() {
    let (machine, view) = Recorder::new(&Bucket::default(), None);
    let wal = open_ready(options(), sim().1, machine).await;
    wal.close().await;
    wal.close().await;
    view.gone().await;
    assert!(matches!(wal.propose(payload(0)).await, Err(Error::Closed)));
    assert!(matches!(wal.stopped().await, Error::Closed));
    assert!(matches!(wal.ready().await, Err(Error::Closed)));
}

#[tokio::test]
async fn read_index_on_the_leader_covers_what_was_acknowledged() {
    let (machine, _view) = Recorder::new(&Bucket::default(), None);
    let wal = open_ready(options(), sim().1, machine).await;
    let id = wal.propose(payload(0)).await.unwrap();
    assert!(wal.read_index().await.unwrap() >= id);
    wal.close().await;
}

#[tokio::test]
async fn a_commit_costs_one_write_and_its_mark_none() {
    let (disk, shared) = sim();
    let (machine, _view) = Recorder::new(&Bucket::default(), None);
    let wal = open_ready(options(), shared, machine).await;
    settle().await;
    let before = disk.io_count();
    for n in 0..100 {
        wal.propose(payload(n)).await.unwrap();
    }
    settle().await;
    assert_eq!(disk.io_count() - before, 100);
    wal.close().await;
}
