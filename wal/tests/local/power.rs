//! Power loss: whatever the device had in flight lands sector by sector or not at all, and nothing acknowledged may be gone.
//!
//! A run queues random calls, lets the log's workers take turns at random, and cuts the power in the middle of an I/O: of a write,
//! of a preparation, or of the recovery from the last cut. What comes back must be the state after some call that is not
//! older than the last acknowledged one.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use bytes::Bytes;
use holdfast_wal::{Error, Log, LogEntry, LogId, disk::sim::SimDisk};
use rand::{RngExt, SeedableRng, rngs::StdRng};

use crate::support::*;

/// What a stream of calls adds up to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Model {
    entries: Vec<LogEntry>,
    purged: Option<LogId>,
    vote: Option<Bytes>,
}

impl Model {
    fn of(log: &Log) -> Model {
        let state = log.state();
        Model { entries: all(log), purged: state.purged, vote: state.vote }
    }

    fn next(&self) -> u64 {
        self.entries.last().map(|entry| entry.id.index).max(self.purged.map(|purged| purged.index)).unwrap_or(0) + 1
    }
}

/// One life of the log: from the power coming on to it going off.
struct Life {
    log: Log,
    /// The state after each call, and between the entries of one append: it may span two writes.
    states: Vec<Model>,
    acknowledged: Arc<AtomicUsize>,
    term: u64,
}

impl Life {
    fn call(&mut self, random: &mut StdRng) {
        let model = self.states.last().unwrap().clone();
        let mut after = model.clone();
        let kind = random.random_range(0..20);
        let batch = random.random_range(1..5);
        let (before, acknowledged) = (self.states.len() - 1, self.acknowledged.clone());
        let done = move |steps: usize| {
            move |result: Result<(), Error>| {
                if result.is_ok() {
                    let was = acknowledged.swap(before + steps, Ordering::Relaxed);
                    assert_eq!(was, before, "answers come in the order of calls");
                }
            }
        };
        match kind {
            0 => {
                let vote = Bytes::from(format!("vote {}", random.random::<u32>()));
                after.vote = Some(vote.clone());
                self.log.save_vote(vote, done(1));
            }
            1 if !model.entries.is_empty() => {
                let keep = random.random_range(0..=model.entries.len());
                after.entries.truncate(keep);
                let last = after.entries.last().map(|entry| entry.id.index).or(model.purged.map(|purged| purged.index));
                self.term += 1;
                self.log.truncate_after(last, done(1));
            }
            2 | 3 if !model.entries.is_empty() => {
                let up_to = model.entries[random.random_range(0..model.entries.len())].id;
                after.entries.retain(|entry| entry.id.index > up_to.index);
                after.purged = Some(up_to);
                self.log.purge(up_to, done(1));
            }
            4 if random.random_range(0..20) == 0 => {
                let up_to = id(self.term, model.next() + 5);
                after = Model { entries: Vec::new(), purged: Some(up_to), ..model };
                self.log.purge(up_to, done(1));
            }
            _ => {
                let next = model.next();
                let len = if random.random_range(0..4) == 0 { 9000 } else { 200 };
                let batch = entries(self.term, next..next + batch, len);
                self.log.save_committed(Some(batch[0].id));
                match random.random() {
                    true => self.log.append(batch.clone(), done(batch.len())),
                    false => self.log.append_here(batch.clone(), done(batch.len())),
                }
                for entry in batch {
                    after.entries.push(entry);
                    self.states.push(after.clone());
                }
                return;
            }
        }
        self.states.push(after);
    }
}

/// Opens the log, cutting the power during recovery now and then.
fn reopen(disk: &SimDisk, random: &mut StdRng) -> Result<Log, Error> {
    while random.random_range(0..4) == 0 {
        disk.on_wake(|| {});
        disk.cut_power_after(random.random_range(1..12));
        let opened = Log::open(Arc::new(disk.clone()), small());
        if let (Err(error), true) = (opened, disk.is_powered()) {
            return Err(error);
        }
        disk.restart();
    }
    disk.on_wake(|| {});
    Log::open(Arc::new(disk.clone()), small()).map(|(log, _)| log)
}

/// Runs a seed. Answers what was lost or invented, or else a digest of the run.
fn run(seed: u64, lying: bool) -> Result<(u64, Model), String> {
    let mut random = StdRng::seed_from_u64(seed);
    let disk = SimDisk::new(seed);
    if lying {
        disk.lie_about_sync();
    }
    let (mut acknowledged, mut possible, mut term) = (0, vec![Model::default()], 1);
    for life in 0..4 {
        let log = reopen(&disk, &mut random).map_err(|error| format!("life {life} does not open: {error}"))?;
        let found = Model::of(&log);
        if !possible[acknowledged..].contains(&found) {
            return Err(format!("life {life}: {}", describe(&found, &possible[acknowledged..])));
        }
        term += 1;
        let mut run = Life { log, states: vec![found], acknowledged: Arc::default(), term };
        disk.cut_power_after(random.random_range(1..60));
        while disk.is_powered() {
            run.call(&mut random);
            for _ in 0..random.random_range(0..4) {
                disk.step();
            }
        }
        (term, acknowledged) = (run.term, run.acknowledged.load(Ordering::Relaxed));
        possible = std::mem::take(&mut run.states);
        disk.restart();
    }
    let log = reopen(&disk, &mut random).map_err(|error| format!("the last life does not open: {error}"))?;
    let found = Model::of(&log);
    if !possible[acknowledged..].contains(&found) {
        return Err(format!("the last life: {}", describe(&found, &possible[acknowledged..])));
    }
    Ok((disk.io_count(), found))
}

fn describe(found: &Model, possible: &[Model]) -> String {
    let show = |model: &Model| {
        let ids: Vec<_> = model.entries.iter().map(|entry| (entry.id.term, entry.id.index)).collect();
        format!("{ids:?}, purged {:?}, vote {:?}", model.purged, model.vote)
    };
    let possible: Vec<_> = possible.iter().map(show).collect();
    format!("found {}, possible {possible:#?}", show(found))
}

const SEEDS: std::ops::Range<u64> = 0..400;

#[test]
fn nothing_acknowledged_is_lost_and_nothing_is_invented() {
    for seed in SEEDS {
        if let Err(what) = run(seed, false) {
            panic!("seed {seed}: {what}");
        }
    }
}

/// The same runs on a drive that lies about syncs: a test that could not fail would pass here as well.
#[test]
fn without_the_sync_the_same_runs_lose_data() {
    let lost = SEEDS.filter(|seed| run(*seed, true).is_err()).count();
    assert!(lost > 100, "only {lost} of {SEEDS:?} seeds lost anything");
}

#[test]
fn one_seed_replays_one_run() {
    for seed in 0..20 {
        assert_eq!(run(seed, false), run(seed, false), "seed {seed}");
    }
}
