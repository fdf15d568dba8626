//! A full device, and a full log: proposals are refused with the reason, reads go on, the reserve stays usable.

use std::sync::Arc;

use bytes::Bytes;
use holdfast_wal::{Error, Log, LogOptions, disk::sim::SimDisk};

use crate::support::*;

/// Appends as a leader does: only what is admitted. Answers the refusal and the next index.
fn fill(log: &Log, mut next: u64) -> (Error, u64) {
    loop {
        if let Err(refused) = log.admit(3000) {
            return (refused, next);
        }
        append(log, vec![entry(1, next, 3000)]).unwrap();
        next += 1;
        assert!(next < 10_000, "the log has a bound");
    }
}

#[test]
fn a_full_log_refuses_and_a_purge_frees_it() {
    for bench in Bench::all() {
        let (log, _) = bench.open(small());
        let (refused, next) = fill(&log, 1);
        assert!(matches!(&refused, Error::Full { reason, .. } if reason.contains("configured size")), "{refused}");
        assert_eq!(all(&log).len() as u64, next - 1);
        // The reserve: votes, and the edit that will let the log forget.
        wait(|done| log.save_vote(Bytes::from_static(b"me"), done)).unwrap();
        append(&log, vec![entry(1, next, 3000)]).unwrap();
        wait(|done| log.purge(id(1, next - 10), done)).unwrap();
        assert!(log.state().runway > small().max_bytes / 2);
        let (_, end) = fill(&log, next + 1);
        assert!(end > next + 100);
        drop(log);
        assert_eq!(bench.open(small()).1.last, Some(id(1, end - 1)));
    }
}

#[test]
fn a_full_device_refuses_and_recovers_when_space_is_freed() {
    let disk = SimDisk::new(1);
    disk.set_capacity(6 * small().segment_bytes);
    let (log, _) = Log::open(Arc::new(disk.clone()), small()).unwrap();
    let (refused, next) = fill(&log, 1);
    assert!(matches!(&refused, Error::Full { reason, .. } if reason.contains("preparing a segment")), "{refused}");
    assert_eq!(all(&log).len() as u64, next - 1);
    wait(|done| log.save_vote(Bytes::from_static(b"me"), done)).unwrap();
    // A purge frees what the log has, but does not tell that the device has room again.
    wait(|done| log.purge(id(1, next - 1), done)).unwrap();
    assert!(log.state().runway < small().max_bytes / 2, "{:?}", log.state());
    disk.set_capacity(u64::MAX);
    log.look_for_room();
    let (refused, end) = fill(&log, next);
    assert!(end > next + 50 && refused.to_string().contains("configured size"), "{refused}");
}

#[test]
fn a_device_too_full_for_the_first_segment_says_so() {
    let disk = SimDisk::new(1);
    disk.set_capacity(1000);
    let refused = Log::open(Arc::new(disk), small()).err().unwrap();
    assert!(refused.to_string().contains("segment-00000001.wal"), "{refused}");
}

#[test]
fn running_through_the_reserve_ends_the_log_and_loses_nothing() {
    let disk = SimDisk::new(1);
    let (log, _) = Log::open(Arc::new(disk.clone()), small()).unwrap();
    let mut next = 1;
    let error = loop {
        match append(&log, vec![entry(1, next, 9000)]) {
            Ok(()) => next += 1,
            Err(error) => break error,
        }
    };
    assert!(error.to_string().contains("ran through its reserve"), "{error}");
    drop(log);
    let (log, state) = Log::open(Arc::new(disk), LogOptions { max_bytes: 4 << 20, ..small() }).unwrap();
    assert_eq!(state.last, Some(id(1, next - 1)));
    append(&log, vec![entry(1, next, 10)]).unwrap();
}

#[test]
fn too_much_waiting_is_refused_too() {
    let disk = SimDisk::new(1);
    disk.on_wake(|| {});
    let (log, _) = Log::open(Arc::new(disk.clone()), LogOptions { max_queued_bytes: 100_000, ..small() }).unwrap();
    for index in 1..=3 {
        log.admit(30_000).unwrap();
        log.append(vec![entry(1, index, 30_000)], |_| {});
    }
    assert!(matches!(log.admit(30_000), Err(Error::Full { runway: 10_000, .. })));
    while disk.step() {}
    log.admit(30_000).unwrap();
}
