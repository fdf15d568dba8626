//! The n-th I/O fails: whichever it is, the log says so, stays failed, and loses nothing that it acknowledged.

use std::sync::Arc;

use holdfast_wal::{
    Error, Log, LogEntry,
    disk::{
        Choice, Disk,
        faulty::{Fault, FaultyDisk},
    },
};

use crate::support::*;

/// On which thread a write runs: the log's, or the caller's.
type Append = fn(&Log, Vec<LogEntry>) -> Result<(), Error>;

/// Appends, cuts, purges and reads on a log that may fail at any point. Answers what was acknowledged and the first error.
fn work(log: &Log, append: Append) -> (u64, Option<Error>) {
    let mut acknowledged = 0;
    for index in 1..=24 {
        if let Err(error) = append(log, vec![entry(1, index, 9000)]) {
            return (acknowledged, Some(error));
        }
        acknowledged = index;
        let result = if index % 6 == 0 { wait(|done| log.purge(id(1, index - 4), done)) } else { Ok(()) };
        if let Err(error) = result.and_then(|()| log.read(index.max(4) - 3..index + 1, usize::MAX).map(drop)) {
            return (acknowledged, Some(error));
        }
    }
    (acknowledged, None)
}

/// Lets I/O after I/O fail, each in the way that `fault` names, until a run gets by without.
fn sweep(append: Append, bench: impl Fn() -> Bench, fault: impl Fn(u64) -> Fault) {
    let mut failures = 0;
    for at in 1.. {
        let fault = fault(at);
        let bench = bench();
        let inner = bench.disk();
        let faulty = Arc::new(FaultyDisk::new(inner, at, false, fault));
        let disk: Arc<dyn Disk> = faulty.clone();
        let (acknowledged, error);
        match Log::open(disk, small()) {
            Err(refused) => (acknowledged, error) = (0, Some(refused)),
            Ok((log, _)) => {
                (acknowledged, error) = work(&log, append);
                if let Some(Error::Failed { cause }) = &error {
                    assert!(!cause.is_empty());
                    let again = append(&log, vec![entry(1, acknowledged + 1, 10)]).unwrap_err();
                    assert_eq!(
                        again.to_string(),
                        error.as_ref().unwrap().to_string(),
                        "failed for good, with the first cause"
                    );
                    assert!(matches!(log.read(1..2, 1), Err(Error::Failed { .. })));
                    assert!(matches!(log.close(), Err(Error::Failed { .. })));
                }
            }
        }
        let done = faulty.count() < at;
        drop(faulty);
        failures += usize::from(error.is_some());
        let (log, state) = bench.open(small());
        let last = state.last.map_or(0, |last| last.index);
        assert!(
            last >= acknowledged,
            "fault {fault:?} at I/O {at}: {acknowledged} acknowledged, {last} found, {error:?}"
        );
        let held = all(&log);
        assert!(held.iter().all(|held| *held == entry(1, held.id.index, 9000)));
        append(&log, vec![entry(2, last + 1, 10)]).unwrap();
        if done {
            break;
        }
    }
    assert!(failures >= 10, "{failures} runs failed");
}

const FAULTS: [Fault; 5] = [Fault::Error, Fault::ErrorAfter, Fault::Full, Fault::Short, Fault::FlipBit];

/// Real devices are slow: every I/O fails once, in one of the ways, while the simulated disk sees every combination.
fn one_of(at: u64) -> Fault {
    FAULTS[at as usize % FAULTS.len()]
}

#[test]
fn simulated() {
    [Fault::Error, Fault::ErrorAfter, Fault::Full, Fault::Short]
        .into_iter()
        .for_each(|fault| sweep(append, Bench::sim, |_| fault));
}

#[test]
fn pwrite() {
    sweep(append, || Bench::real(Choice::Pwrite), one_of);
}

#[test]
fn uring() {
    sweep(append, || Bench::real(Choice::Uring), one_of);
}

#[test]
fn on_the_callers_thread() {
    sweep(append_here, || Bench::real(Choice::Auto), one_of);
}

#[test]
fn a_wrong_bit_on_the_way_from_the_device_never_reaches_the_reader() {
    let bench = Bench::sim();
    let (log, _) = bench.open(small());
    for index in 1..=12 {
        append(&log, vec![entry(1, index, 9000)]).unwrap();
    }
    drop(log);
    for at in 1..80 {
        let faulty = Arc::new(FaultyDisk::new(bench.disk(), at, false, Fault::FlipBit));
        let Ok((log, _)) = Log::open(faulty, small()) else { continue };
        for index in 1..=12 {
            match log.read(index..index + 1, 1) {
                Ok(found) => assert_eq!(found, entries(1, index..index + 1, 9000)),
                Err(error) => assert!(matches!(error, Error::Corrupt { .. }), "{error}"),
            }
        }
    }
}
