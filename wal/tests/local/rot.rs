//! Rot: bytes that were durable once and changed. Each change is noticed, or was in bytes that mean nothing, or looks exactly like
//! a write that the power cut short, which nothing acknowledged can depend on once a later write exists.

use std::sync::Arc;

use holdfast_wal::{
    Error, Log, LogEntry, LogOptions,
    disk::{Disk, sim::SimDisk},
};

use crate::support::*;

/// Three segments, so that there are old ones, an active one and spares.
fn tiny() -> LogOptions {
    LogOptions {
        segment_bytes: 20 << 10,
        max_bytes: 400 << 10,
        max_payload: 2 << 10,
        max_write_bytes: 8 << 10,
        ..small()
    }
}

/// A log of ten writes of one entry each.
fn aged() -> (SimDisk, Vec<LogEntry>) {
    let disk = SimDisk::new(5);
    let (log, _) = Log::open(Arc::new(disk.clone()), tiny()).unwrap();
    for index in 1..=10 {
        append(&log, vec![entry(1, index, 700)]).unwrap();
    }
    let held = all(&log);
    (disk, held)
}

/// What a reader of the changed disk gets.
fn reopened(disk: &SimDisk, file: &str, change: impl Fn(&SimDisk, &str)) -> Result<Vec<LogEntry>, Error> {
    let copy = disk.fork(9);
    change(&copy, file);
    copy.on_wake(|| {}); // only recovery, no preparation
    let (log, _) = Log::open(Arc::new(copy), tiny())?;
    Ok(all(&log))
}

/// Judges one change; answers whether it was noticed as corruption.
fn judge(held: &[LogEntry], found: Result<Vec<LogEntry>, Error>, file: &str, offset: usize, what: &str) -> bool {
    match found {
        Ok(found) if found == held => false,
        // The last write: to the device it may as well never have finished.
        Ok(found) if found == held[..held.len() - 1] => false,
        Ok(found) => panic!("{what} at {file}:{offset} leaves {} of {} entries unnoticed", found.len(), held.len()),
        Err(Error::Corrupt { file: named, .. }) => {
            assert!(!named.is_empty());
            true
        }
        Err(error) => panic!("{what} at {file}:{offset}: {error}"),
    }
}

#[test]
fn every_flipped_bit_is_noticed_or_harmless() {
    let (disk, held) = aged();
    let (mut noticed, mut tried) = (0, 0);
    for file in disk.list().unwrap() {
        let contents = disk.contents(&file).unwrap();
        let used = contents.iter().rposition(|byte| *byte != 0).map_or(0, |last| (last + 9).min(contents.len()));
        for offset in 0..used {
            if contents[offset] == 0
                && contents[offset & !7..].iter().take(64).all(|byte| *byte == 0)
                && offset % 64 != 0
            {
                continue; // the inside of padding: one bit of each line is enough
            }
            let bit = 1 << (offset % 8);
            let found = reopened(&disk, &file, |disk, file| disk.corrupt(file, offset, |byte| *byte ^= bit));
            noticed += usize::from(judge(&held, found, &file, offset, "a flipped bit"));
            tried += 1;
        }
    }
    assert!(noticed > 6000 && tried > noticed, "{noticed} of {tried}");
}

#[test]
fn every_lost_sector_is_noticed_or_harmless() {
    let (disk, held) = aged();
    let mut noticed = 0;
    for file in disk.list().unwrap() {
        let len = disk.contents(&file).unwrap().len();
        for sector in (0..len).step_by(512) {
            let lose = |disk: &SimDisk, file: &str| {
                (sector..sector + 512).for_each(|at| disk.corrupt(file, at, |byte| *byte = 0))
            };
            noticed += usize::from(judge(&held, reopened(&disk, &file, lose), &file, sector, "a lost sector"));
        }
    }
    assert!(noticed >= 20, "{noticed}");
}

/// Every way in which the last write can be cut off at a sector.
#[test]
fn a_write_cut_at_any_sector_is_cut_cleanly_and_the_log_goes_on() {
    let (disk, held) = aged();
    let before = disk.list().unwrap().into_iter().map(|file| (disk.contents(&file).unwrap(), file)).collect::<Vec<_>>();
    let (log, _) = Log::open(Arc::new(disk.clone()), tiny()).unwrap();
    append(&log, entries(1, 11..14, 2000)).unwrap();
    let (old, file) = before.iter().find(|(old, file)| disk.contents(file).unwrap() != *old).unwrap();
    let new = disk.contents(file).unwrap();
    let differs = |at: &usize| old[*at] != new[*at];
    let (start, end) = ((0..new.len()).find(differs).unwrap(), (0..new.len()).rfind(differs).unwrap() + 1);
    for cut in (start..end).step_by(512) {
        for reversed in [false, true] {
            let copy = disk.fork(3);
            let lost = if reversed { start..cut } else { cut..end };
            lost.for_each(|at| copy.corrupt(file, at, |byte| *byte = old[at]));
            let whole = reversed && cut == start;
            for round in 0..2 {
                let (log, _) = Log::open(Arc::new(copy.clone()), tiny()).unwrap();
                let expected = held.len() + if whole { 3 } else { 0 } + round;
                assert_eq!(all(&log).len(), expected, "cut at {cut}, round {round}");
                append(&log, vec![entry(2, expected as u64 + 1, 10)]).unwrap();
            }
        }
    }
}

#[test]
fn a_file_of_zeros_or_garbage_among_needed_ones_is_noticed() {
    let (disk, held) = aged();
    let files = disk.list().unwrap();
    let mut noticed = 0;
    for file in &files {
        for fill in [0_u8, 0xa5] {
            let wreck = |disk: &SimDisk, file: &str| {
                (0..tiny().segment_bytes as usize).for_each(|at| disk.corrupt(file, at, |byte| *byte = fill));
            };
            match reopened(&disk, file, wreck) {
                Err(Error::Corrupt { .. }) => noticed += 1,
                Ok(found) => assert!(held.starts_with(&found)), // a spare, or the newest segment with all its proof
                Err(error) => panic!("{error}"),
            }
        }
    }
    assert!(noticed >= 2, "{noticed}");
}
