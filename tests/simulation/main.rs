//! Deterministic simulation: three nodes in one process, with simulated disks, network and time, from one seed.
//!
//! `seeds` runs seeds and fails with the command that replays a failing one; `replay` proves that one seed is one run;
//! `bug_*` put bugs in that were or could be ours, and want each of them caught.
//! A long hunt: `HOLDFAST_SIM_SEEDS=1000 tests/run.sh -E 'binary(simulation) & test(=seeds)' --no-capture`, or `A..B`.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)] // tests: a violation ends the run
#![allow(clippy::disallowed_methods, clippy::print_stdout)] // each seed runs on a thread of its own, and says what it found

mod bug;
mod client;
mod entropy;
mod fleet;
mod frame;
mod history;
mod machine;
mod nemesis;
mod net;
mod node;
mod oracle;
mod random;
mod trace;
mod world;

use bug::Bug;
use fleet::Fleet;

/// Seeds that run unless `HOLDFAST_SIM_SEEDS` or `HOLDFAST_SIM_SEED` says otherwise.
const SEEDS: std::ops::Range<u64> = 0..16;
/// A bug that so many seeds do not show is not caught.
const BUG_SEEDS: u64 = 400;

#[test]
fn seeds() {
    let fleet = Fleet::of("seeds", Bug::None);
    if fleet.is_child() {
        return;
    }
    let seeds = fleet::asked().unwrap_or(SEEDS);
    let count = seeds.end - seeds.start;
    let mut summary = fleet::Summary::default();
    fleet.run(seeds, |outcome| {
        summary.add(&outcome);
        None::<()>
    });
    println!("{count} seeds: {summary}");
    let failed = summary.failed();
    let lines: Vec<_> = failed
        .iter()
        .map(|(seed, what)| format!("seed {seed}: {what}\n    replay: {}", fleet.command(*seed)))
        .collect();
    assert!(lines.is_empty(), "\n{}", lines.join("\n"));
}

#[test]
fn replay() {
    let fleet = Fleet::of("replay", Bug::None);
    if fleet.is_child() {
        return;
    }
    for seed in [3, 7, 1_000_003] {
        let (one, two) = (fleet.one(seed), fleet.one(seed));
        assert!(one.violation.is_none(), "seed {seed}: {:?}", one.violation);
        assert_eq!(one.trace, two.trace, "seed {seed} ran in two ways");
        assert!(one.commits >= 500 && one.faults >= 5, "{one:?}");
    }
    assert_ne!(fleet.one(3).trace, fleet.one(7).trace, "two seeds ran in one way");
}

fn is_caught(test: &'static str, bug: Bug) {
    let fleet = Fleet::of(test, bug);
    if fleet.is_child() {
        return;
    }
    let mut runs = 0;
    let caught = fleet.run(0..BUG_SEEDS, |outcome| {
        runs += 1;
        // That the cluster comes to a standstill may have other reasons than the bug.
        outcome.violation.filter(|what| !what.starts_with("stuck")).map(|what| (outcome.seed, what))
    });
    let (seed, what) = caught.unwrap_or_else(|| panic!("{bug:?} went unseen in {BUG_SEEDS} seeds"));
    println!("{bug:?} was caught after {runs} runs, by seed {seed}: {what}");
}

#[test]
fn bug_ack_before_sync() {
    is_caught("bug_ack_before_sync", Bug::AckBeforeSync);
}

#[test]
fn bug_unflushed_tail() {
    is_caught("bug_unflushed_tail", Bug::UnflushedTail);
}

#[test]
fn bug_forgotten_vote() {
    is_caught("bug_forgotten_vote", Bug::ForgottenVote);
}

#[test]
fn bug_old_term_commit() {
    is_caught("bug_old_term_commit", Bug::OldTermCommit);
}

#[test]
fn bug_early_commit() {
    is_caught("bug_early_commit", Bug::EarlyCommit);
}

#[test]
fn bug_local_read() {
    is_caught("bug_local_read", Bug::LocalRead);
}
