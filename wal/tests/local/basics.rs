//! What the log promises when nothing fails.

use std::{
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, mpsc},
};

use bytes::Bytes;
use holdfast_wal::{
    DirLock, Error, Log, LogOptions,
    disk::{Choice, sim::SimDisk},
};

use crate::support::*;

#[test]
fn what_was_appended_is_there_after_reopening_again_and_again() {
    for bench in Bench::all() {
        let mut expected = Vec::new();
        for round in 0..5 {
            let (log, state) = bench.open(small());
            assert_eq!(state.last, expected.last().map(|entry: &holdfast_wal::LogEntry| entry.id));
            assert_eq!(all(&log), expected);
            let next = expected.len() as u64 + 1;
            let batch = entries(round, next..next + 7, 3000);
            append(&log, batch.clone()).unwrap();
            expected.extend(batch);
            assert_eq!(all(&log), expected);
            log.close().unwrap();
        }
    }
}

#[test]
fn entries_are_readable_before_they_are_durable() {
    let disk = SimDisk::new(3);
    disk.on_wake(|| {});
    let (log, _) = Log::open(Arc::new(disk.clone()), small()).unwrap();
    let answered = Arc::new(Mutex::new(Vec::new()));
    for index in 1..=3 {
        let answered = answered.clone();
        log.append(vec![entry(1, index, 100)], move |result| answered.lock().unwrap().push((index, result.is_ok())));
    }
    assert_eq!(all(&log).len(), 3);
    assert!(answered.lock().unwrap().is_empty());
    let before = disk.io_count();
    while answered.lock().unwrap().is_empty() {
        assert!(disk.step());
    }
    assert_eq!(*answered.lock().unwrap(), [(1, true), (2, true), (3, true)], "one write answers all, in order");
    assert!(disk.io_count() - before <= 2 + 4 * 3, "a preamble and a group, beside preparation");
}

#[test]
fn an_idle_log_is_written_by_the_caller_before_the_call_returns() {
    for choice in [Choice::Auto, Choice::Pwrite] {
        let bench = Bench::real(choice);
        let (log, _) = bench.open(small());
        // The first opens a segment, which may have to wait for the preparer.
        append(&log, vec![entry(1, 1, 100)]).unwrap();
        let caller = std::thread::current().id();
        // The log's thread may still be on its way to sleep after the call before.
        let written_here = (2..=200).find(|index| {
            let (tx, rx) = mpsc::channel();
            log.append_here(vec![entry(1, *index, 100)], move |result| {
                tx.send(result.map(|()| std::thread::current().id())).unwrap();
            });
            let here = rx.try_recv().is_ok_and(|by| by.unwrap() == caller);
            if !here {
                let _ = rx.recv(); // answered by the log's thread, now or before `try_recv`
            }
            here
        });
        let last = written_here.expect("one of 199 calls finds the log idle");
        assert_eq!(log.read(last..last + 1, 1).unwrap(), [entry(1, last, 100)]);
    }
}

#[test]
fn answers_come_in_order_whoever_writes() {
    for bench in Bench::all() {
        let (log, _) = bench.open(small());
        let (next, answered) = (Mutex::new(1), Arc::new(Mutex::new(Vec::new())));
        let call = |here: bool| {
            // Held over the call, so that calls are ordered like indexes; an answer given meanwhile does not need it.
            let mut next = next.lock().unwrap();
            let (index, answered) = (*next, answered.clone());
            let done = move |result: Result<(), Error>| answered.lock().unwrap().push(result.map(|()| index).unwrap());
            match here {
                true => log.append_here(vec![entry(1, index, 300)], done),
                false => log.append(vec![entry(1, index, 300)], done),
            }
            *next += 1;
        };
        std::thread::scope(|scope| {
            for caller in 0..3 {
                let call = &call;
                scope.spawn(move || (0..100).for_each(|n| call((n + caller) % 3 != 0)));
            }
        });
        log.close().unwrap();
        drop(log);
        assert_eq!(*answered.lock().unwrap(), (1..=300).collect::<Vec<_>>());
        assert_eq!(bench.open(small()).1.last, Some(id(1, 300)));
    }
}

#[test]
fn an_answer_may_append_on_the_thread_that_gives_it() {
    for bench in Bench::all() {
        let (log, _) = bench.open(small());
        let (tx, rx) = mpsc::channel();
        let again = log.clone();
        log.append_here(vec![entry(1, 1, 100)], move |first| {
            first.unwrap();
            again.append_here(vec![entry(1, 2, 100)], move |second| tx.send(second).unwrap());
        });
        rx.recv().unwrap().unwrap();
        assert_eq!(all(&log).len(), 2);
    }
}

#[test]
fn a_panic_on_the_callers_thread_ends_the_log_and_answers_all() {
    let bench = Bench::real(Choice::Auto);
    let (log, _) = bench.open(small());
    append(&log, vec![entry(1, 1, 100)]).unwrap();
    let mut next = 2;
    // Until it is the caller that writes: the log's thread may still be on its way to sleep.
    while log.ended().is_none() {
        let (log, caller) = (log.clone(), std::thread::current().id());
        let call = AssertUnwindSafe(move || {
            let (tx, rx) = mpsc::channel();
            log.append_here(vec![entry(1, next, 100)], move |result| {
                assert_ne!(std::thread::current().id(), caller, "a panic in a callback, as this test wants it");
                tx.send(result).unwrap();
            });
            rx.recv().unwrap().unwrap();
        });
        let _ = std::panic::catch_unwind(call);
        next += 1;
    }
    let refused = append(&log, vec![entry(1, next, 100)]).unwrap_err().to_string();
    assert!(refused.contains("worker is gone"), "{refused}");
    assert!(matches!(log.close(), Err(Error::Failed { .. })));
}

#[test]
fn votes_marks_cuts_and_purges_survive() {
    for bench in Bench::all() {
        let (log, _) = bench.open(small());
        wait(|done| log.save_vote(Bytes::from_static(b"vote 1"), done)).unwrap();
        append(&log, entries(1, 1..21, 500)).unwrap();
        wait(|done| log.truncate_after(Some(12), done)).unwrap();
        assert_eq!(log.state().last, Some(id(1, 12)));
        append(&log, entries(3, 13..31, 500)).unwrap();
        log.save_committed(Some(id(3, 20)));
        wait(|done| log.purge(id(1, 5), done)).unwrap();
        wait(|done| log.save_vote(Bytes::from_static(b"vote 2"), done)).unwrap();
        let before = (log.state(), all(&log));
        log.close().unwrap();
        drop(log);
        let (log, state) = bench.open(small());
        assert_eq!((state.first, state.last, state.purged), (Some(id(1, 6)), Some(id(3, 30)), Some(id(1, 5))));
        assert_eq!((state.vote.as_deref(), state.committed), (Some(&b"vote 2"[..]), Some(id(3, 20))));
        assert_eq!((before.0.first, before.0.last), (state.first, state.last));
        assert_eq!(all(&log), before.1);
        assert_eq!(log.term_at(12), Some(1));
        assert_eq!(log.term_at(13), Some(3));
        assert_eq!(log.term_at(5), None);
    }
}

#[test]
fn a_purge_beyond_the_end_moves_the_log_there() {
    for bench in Bench::all() {
        let (log, _) = bench.open(small());
        append(&log, entries(1, 1..4, 100)).unwrap();
        wait(|done| log.purge(id(4, 100), done)).unwrap();
        assert_eq!((log.state().first, log.state().last), (None, None));
        log.close().unwrap();
        drop(log);
        let (log, state) = bench.open(small());
        assert_eq!((state.first, state.last, state.purged), (None, None, Some(id(4, 100))));
        assert!(matches!(append(&log, entries(4, 4..5, 10)), Err(Error::OutOfOrder { expected: 101, got: 4, .. })));
        append(&log, entries(5, 101..103, 100)).unwrap();
        drop(log);
        assert_eq!(all(&bench.open(small()).0), entries(5, 101..103, 100));
    }
}

#[test]
fn a_full_cut_empties_the_log() {
    let bench = Bench::sim();
    let (log, _) = bench.open(small());
    append(&log, entries(2, 1..9, 100)).unwrap();
    wait(|done| log.truncate_after(None, done)).unwrap();
    assert_eq!(all(&log), []);
    append(&log, entries(1, 1..3, 100)).unwrap();
    drop(log);
    assert_eq!(all(&bench.open(small()).0), entries(1, 1..3, 100));
}

#[test]
fn purging_recycles_segments_so_that_the_log_never_ends() {
    for bench in Bench::all() {
        let (log, _) = bench.open(small());
        // Ten times what the log may take.
        let mut next = 1;
        while next < 20 * 90 {
            append(&log, entries(1, next..next + 30, 400)).unwrap();
            next += 30;
            if next > 100 {
                wait(|done| log.purge(id(1, next - 100), done)).unwrap();
            }
            assert!(log.state().bytes <= small().max_bytes);
        }
        for index in (0..600).map(|i| next + i) {
            append(&log, vec![entry(1, index, 20)]).unwrap();
            wait(|done| log.purge(id(1, index - 10), done)).unwrap();
        }
        let (before, held) = (log.state(), all(&log));
        assert_eq!(held.len(), 10);
        drop(log);
        let (log, state) = bench.open(small());
        assert_eq!((state.first, state.last, state.purged), (before.first, before.last, before.purged));
        assert_eq!(all(&log), held);
        let files = bench.disk_files();
        assert!(files <= 16, "{files} files");
    }
}

#[test]
fn a_read_is_whole_or_an_error() {
    for bench in Bench::all() {
        let (log, _) = bench.open(small());
        for index in 1..=60 {
            append(&log, vec![entry(1, index, 1000)]).unwrap();
        }
        wait(|done| log.purge(id(1, 10), done)).unwrap();
        assert!(!log.in_memory(11) && log.in_memory(60));
        for start in 11..=60 {
            for end in start..=61 {
                assert_eq!(log.read(start..end, usize::MAX).unwrap(), entries(1, start..end, 1000));
            }
            let some = log.read(start..61, 2500).unwrap();
            assert_eq!(some, entries(1, start..(start + 3).min(61), 1000));
            assert_eq!(log.read(start..61, 0).unwrap().len(), 1);
        }
        assert!(matches!(log.read(10..12, 1), Err(Error::Purged { index: 10, first: 11 })));
        assert!(matches!(log.read(60..62, 1), Err(Error::BeyondEnd { index: 61, end: 61 })));
    }
}

#[test]
fn holes_and_oversized_payloads_are_refused_and_change_nothing() {
    let bench = Bench::sim();
    let (log, _) = bench.open(small());
    append(&log, entries(2, 1..3, 10)).unwrap();
    assert!(matches!(append(&log, entries(2, 4..5, 10)), Err(Error::OutOfOrder { expected: 3, got: 4, .. })));
    assert!(matches!(append(&log, entries(1, 3..4, 10)), Err(Error::OutOfOrder { term: 1, last_term: 2, .. })));
    assert!(matches!(append(&log, entries(2, 3..4, 40 << 10)), Err(Error::TooLarge { .. })));
    let vote = Bytes::from(vec![0; 129]);
    assert!(matches!(wait(|done| log.save_vote(vote, done)), Err(Error::TooLarge { len: 129, max: 128 })));
    append(&log, vec![]).unwrap();
    append(&log, entries(2, 3..4, 32 << 10)).unwrap();
    assert_eq!(all(&log).len(), 3);
}

#[test]
fn another_clusters_directory_is_refused() {
    let bench = Bench::sim();
    assert_eq!(Log::owner(bench.disk().as_ref()).unwrap(), None);
    let (log, _) = bench.open(small());
    append(&log, entries(1, 1..3, 10)).unwrap();
    drop(log);
    assert_eq!(Log::owner(bench.disk().as_ref()).unwrap(), Some(CLUSTER));
    let options = LogOptions { cluster: 77, ..small() };
    let refused = Log::open(bench.disk(), options).err().unwrap();
    assert!(matches!(refused, Error::OtherCluster { expected: 77, found: CLUSTER, .. }), "{refused}");
}

#[test]
fn options_that_contradict_each_other_are_refused() {
    for wrong in [
        LogOptions { segment_bytes: 1000, ..small() },
        LogOptions { segment_bytes: 8192, ..small() },
        LogOptions { max_write_bytes: 4096, ..small() },
        LogOptions { max_bytes: 256 << 10, ..small() },
    ] {
        assert!(matches!(Log::open(Bench::sim().disk(), wrong).err(), Some(Error::Options(_))));
    }
    Log::open(Bench::sim().disk(), LogOptions { cluster: 1, ..LogOptions::default() }).unwrap();
}

#[test]
fn a_log_in_use_is_locked() {
    let bench = Bench::real(holdfast_wal::disk::Choice::Auto);
    let (log, _) = bench.open(small());
    let Bench::Real(dir, _) = &bench else { unreachable!() };
    assert!(matches!(DirLock::acquire(dir.path()), Err(Error::Locked { .. })));
    drop(log);
    DirLock::acquire(dir.path()).unwrap();
}

#[test]
fn a_log_may_change_its_segment_size() {
    let bench = Bench::sim();
    let mut expected = Vec::new();
    for (round, segment_bytes) in [128 << 10, 256 << 10, 128 << 10, 192 << 10_u64].into_iter().enumerate() {
        let (log, _) = bench.open(LogOptions { segment_bytes, ..small() });
        assert_eq!(all(&log), expected);
        let next = 1 + 40 * round as u64;
        for index in next..next + 40 {
            append(&log, vec![entry(1, index, 5000)]).unwrap();
            expected.push(entry(1, index, 5000));
        }
    }
}

#[test]
fn a_closed_log_says_so() {
    for bench in Bench::all() {
        let (log, _) = bench.open(small());
        log.close().unwrap();
        assert!(matches!(append(&log, entries(1, 1..2, 1)), Err(Error::Closed)));
        assert!(matches!(log.read(1..2, 1), Err(Error::Closed)));
        assert!(matches!(log.admit(1), Err(Error::Closed)));
    }
}
