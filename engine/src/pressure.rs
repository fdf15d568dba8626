//! How much room commits have on the voters, and what follows: nothing, a delay, or a refusal that says why (rule 5). Pure.

use crate::inner::REFUSE;

/// Longest that one commit is slowed down.
const DELAY_MAX_MICROS: u64 = 50_000;

/// Share of a bound from which on flushes do not wait to become larger: before commits are slowed down, from a half on.
const CROWDED: f64 = 0.25;

/// What one flushed run counts for: one that is half merged counts for half.
pub(crate) const PARTS_OF_RUN: u64 = 1000;

/// What a node can still take before it must refuse commits: of its log, or of its room for rows that wait for the bucket,
/// whichever is shorter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Runway {
    /// Bytes.
    pub(crate) left: u64,
    /// Bytes when nothing waits.
    pub(crate) of: u64,
}

impl Runway {
    /// The share that is used.
    fn used(self) -> f64 {
        self.of.saturating_sub(self.left) as f64 / self.of.max(1) as f64
    }
}

/// Bytes taken, of how many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) taken: u64,
    pub(crate) bound: u64,
}

impl Part {
    fn left(self) -> u64 {
        self.bound.saturating_sub(self.taken)
    }

    pub(crate) fn used(self) -> f64 {
        self.taken as f64 / self.bound.max(1) as f64
    }
}

/// What a node holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Load {
    /// The log: its runway, and that of an empty log.
    pub(crate) log: Runway,
    /// Memtables in RAM.
    pub(crate) ram: Part,
    /// Memtables on disk; no bound while nothing can be spilled.
    pub(crate) spill: Part,
    /// Range deletes in memtables.
    pub(crate) ranges: Part,
    /// Runs that were flushed and wait for compaction, in [`PARTS_OF_RUN`].
    pub(crate) runs: Part,
}

/// What decides about commits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Shortest {
    Log,
    Ram,
    /// RAM and disk together.
    Rows,
    Ranges,
    Runs,
    /// Another voter's runway, without which there is no quorum.
    Voter(u64, Runway),
}

impl Load {
    /// The log without the sixteenth that is kept back.
    fn log(&self) -> Runway {
        let kept = self.log.of / 16;
        Runway { left: self.log.left.saturating_sub(kept), of: self.log.of - kept }
    }

    /// Rows fill more than half of the RAM only if they come faster than they get to disk, or if no more fit there: what
    /// the disk has left counts ever less then.
    fn rows(&self) -> Runway {
        let reached = (2.0 * (1.0 - self.ram.used())).clamp(0.0, 1.0);
        let left = self.ram.left() + (self.spill.left() as f64 * reached) as u64;
        Runway { left, of: self.ram.bound + self.spill.bound }
    }

    /// What the node can still take.
    pub(crate) fn runway(&self) -> Runway {
        let (log, rows) = (self.log(), self.rows());
        if log.used() > rows.used() { log } else { rows }
    }

    /// What is shortest, among this node and the voter that decides about the quorum, and how much of it is used.
    pub(crate) fn shortest(&self, voter: Option<(u64, Runway)>) -> (Shortest, f64) {
        let own = [
            (Shortest::Runs, self.runs.used()),
            (Shortest::Ranges, self.ranges.used()),
            (Shortest::Ram, self.ram.used()),
            (Shortest::Rows, self.rows().used()),
            (Shortest::Log, self.log().used()),
        ];
        let voter = voter.map(|(node, runway)| (Shortest::Voter(node, runway), runway.used()));
        own.into_iter().chain(voter).reduce(|a, b| if b.1 > a.1 { b } else { a }).unwrap_or((Shortest::Log, 0.0))
    }

    /// The share of some room that what waits for the store has taken.
    pub(crate) fn waiting(&self, voter: Option<(u64, Runway)>) -> f64 {
        let own = [self.ranges.used(), self.rows().used(), self.log().used()];
        own.into_iter().chain(voter.map(|(_, runway)| runway.used())).fold(0.0, f64::max)
    }

    /// Whether that is so much that its flush waits for no more to join it.
    pub(crate) fn is_crowded(&self, voter: Option<(u64, Runway)>) -> bool {
        self.waiting(voter) >= CROWDED
    }

    /// The share of its bound that waits for the flush. One of no more than is spilled from (`flush` of `spilled_from` bytes)
    /// is to be over before the next memtables are spilled for want of it: that would be more work than the haste.
    pub(crate) fn waits_for_flush(&self, voter: Option<(u64, Runway)>, flush: u64, spilled_from: u64) -> f64 {
        let ram = if flush <= spilled_from { self.ram.used() } else { 0.0 };
        self.waiting(voter).max(ram)
    }

    /// What refused commits are told. `failing`: why nothing is spilled.
    pub(crate) fn why(&self, shortest: Shortest, failing: Option<&str>) -> String {
        let Self { log, ram, spill, ranges, runs } = self;
        match shortest {
            Shortest::Log => {
                format!("the log has room for {} more bytes of {}, which are kept back", log.left, log.of)
            }
            Shortest::Ranges => format!("{} range deletes in memtables wait for the store", ranges.taken),
            Shortest::Runs => {
                let [taken, bound] = [runs.taken.div_ceil(PARTS_OF_RUN), runs.bound.div_ceil(PARTS_OF_RUN)];
                format!("compaction is {taken} flushed runs behind, of at most {bound}")
            }
            Shortest::Ram | Shortest::Rows => {
                let waiting =
                    format!("{} bytes of memtables wait for the store; the bound is {}", ram.taken, ram.bound);
                match failing {
                    Some(error) => format!("{waiting} (the last spill to disk failed: {error})"),
                    None if spill.bound == 0 => waiting,
                    None => format!("{waiting} in RAM, and {} of {} on disk are taken", spill.taken, spill.bound),
                }
            }
            Shortest::Voter(node, Runway { left, of }) => {
                format!(
                    "node {node} has room for {left} more bytes of {of}, in its log or for rows that wait for the store"
                )
            }
        }
    }
}

/// The shortest runway in the best quorum: of `needed` voters beside the leader. A minority whose runway ends stops alone,
/// as it does when its disk fails.
pub(crate) fn of_quorum(voters: impl Iterator<Item = (u64, Runway)>, needed: usize) -> Option<(u64, Runway)> {
    let mut voters: Vec<_> = voters.collect();
    voters.sort_by(|a, b| a.1.used().total_cmp(&b.1.used()));
    voters.truncate(needed);
    voters.pop()
}

/// How long a commit waits when this share of the bound is used: nothing up to a half, then ever longer, then refused.
pub(crate) fn pressure(used: f64) -> u64 {
    if used >= 1.0 {
        return REFUSE;
    }
    let over = ((used - 0.5) * 2.0).max(0.0);
    (over * over * DELAY_MAX_MICROS as f64) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    const FREE: Load = Load {
        log: Runway { left: 1600, of: 1600 },
        ram: Part { taken: 0, bound: 100 },
        spill: Part { taken: 0, bound: 900 },
        ranges: Part { taken: 0, bound: 10 },
        runs: Part { taken: 2, bound: 40 },
    };

    fn decide(load: Load, voter: Option<(u64, Runway)>) -> (Shortest, u64) {
        let (shortest, used) = load.shortest(voter);
        (shortest, pressure(used))
    }

    #[test]
    fn pressure_starts_at_half_and_ends_in_refusal() {
        assert_eq!((pressure(0.0), pressure(0.5)), (0, 0));
        assert!(pressure(0.6) < pressure(0.9) && pressure(0.99) <= DELAY_MAX_MICROS);
        assert_eq!(pressure(1.0), REFUSE);
    }

    #[test]
    fn commits_are_refused_before_the_log_is_full() {
        let log = |left| decide(Load { log: Runway { left, of: 1600 }, ..FREE }, None);
        assert_eq!(log(1600).1, 0);
        assert_ne!(log(101).1, REFUSE);
        assert_eq!(log(100), (Shortest::Log, REFUSE));
        assert_eq!(decide(Load { log: Runway::default(), ..FREE }, None).1, 0);
    }

    #[test]
    fn rows_have_the_room_of_ram_and_disk_together() {
        let rows = |ram, spill| Load {
            ram: Part { taken: ram, bound: 100 },
            spill: Part { taken: spill, bound: 900 },
            ..FREE
        };
        assert_eq!(rows(40, 900).runway(), Runway { left: 60, of: 1000 });
        let (shortest, pressure) = decide(rows(40, 900), None);
        assert!(shortest == Shortest::Rows && (1..REFUSE).contains(&pressure));
        assert!(matches!(decide(rows(100, 900), None), (_, REFUSE)));
        // Disk has room, but rows come faster than they get there.
        assert_eq!(decide(rows(100, 0), None), (Shortest::Ram, REFUSE));
        assert_eq!([rows(50, 0), rows(75, 0), rows(100, 0)].map(|load| load.runway().left), [950, 475, 0]);
        // Nothing can be spilled: what is in RAM decides.
        let failing = Load { spill: Part { taken: 300, bound: 0 }, ..rows(90, 0) };
        assert_eq!(failing.runway(), Runway { left: 10, of: 100 });
        let why = failing.why(Shortest::Ram, Some("no space"));
        assert!(why.contains("90 bytes of memtables") && why.contains("no space"), "{why}");
    }

    #[test]
    fn runs_that_wait_for_compaction_slow_commits_down() {
        let runs = |taken| decide(Load { runs: Part { taken, bound: 40 }, ..FREE }, None);
        assert_eq!(runs(20).1, 0);
        assert!(runs(30).0 == Shortest::Runs && (1..REFUSE).contains(&runs(30).1));
        assert_eq!(runs(40), (Shortest::Runs, REFUSE));
        let load = Load { runs: Part { taken: 39_500, bound: 40_000 }, ..FREE };
        assert_eq!(load.why(Shortest::Runs, None), "compaction is 40 flushed runs behind, of at most 40");
    }

    #[test]
    fn a_flush_waits_for_more_only_while_there_is_room() {
        assert!(!FREE.is_crowded(None));
        let ram = |ram, spill| Load { ram: Part { taken: ram, bound: 100 }, spill, ..FREE };
        // On disk there is room for what RAM has.
        assert!(!ram(30, Part { taken: 0, bound: 900 }).is_crowded(None));
        assert!(ram(30, Part { taken: 0, bound: 0 }).is_crowded(None), "nothing can be spilled");
        assert!(ram(30, Part { taken: 300, bound: 900 }).is_crowded(None));
        assert!(Load { log: Runway { left: 1200, of: 1600 }, ..FREE }.is_crowded(None));
        assert!(Load { ranges: Part { taken: 3, bound: 10 }, ..FREE }.is_crowded(None));
        assert!(FREE.is_crowded(Some((3, Runway { left: 30, of: 50 }))));
        assert!(!FREE.is_crowded(Some((3, Runway { left: 50, of: 50 }))));
    }

    #[test]
    fn a_flush_that_ram_has_room_for_hurries_before_its_rows_are_spilled() {
        let spill = Part { taken: 0, bound: 900 };
        let load = Load { ram: Part { taken: 38, bound: 100 }, spill, ..FREE };
        assert_eq!(load.waits_for_flush(None, 25, 40), 0.38);
        assert_eq!(load.waits_for_flush(None, 50, 40), load.waiting(None), "RAM holds that much at all times");
        let log = Load { log: Runway { left: 600, of: 1600 }, ..load };
        assert_eq!(log.waits_for_flush(None, 25, 40), log.waiting(None), "the log is shorter");
    }

    #[test]
    fn another_voter_decides_when_its_runway_is_the_shortest_and_is_named() {
        let short = Runway { left: 0, of: 50 };
        let voters = [(2, Runway { left: 40, of: 50 }), (3, short), (4, Runway { left: 900, of: 1000 })];
        let [best, middle, worst] = [1, 2, 3].map(|needed| of_quorum(voters.into_iter(), needed).unwrap().0);
        assert_eq!((best, middle, worst), (4, 2, 3));
        assert_eq!((of_quorum(voters.into_iter(), 0), of_quorum(voters.into_iter(), 9)), (None, Some((3, short))));
        assert_eq!(decide(FREE, Some((3, short))), (Shortest::Voter(3, short), REFUSE));
        let why = FREE.why(Shortest::Voter(3, short), None);
        assert!(why.contains("node 3 has room for 0 more bytes of 50"), "{why}");
        let (shortest, pressure) = decide(FREE, Some((3, Runway { left: 10, of: 50 })));
        assert!(matches!(shortest, Shortest::Voter(3, _)) && (1..REFUSE).contains(&pressure));
        assert_eq!(decide(FREE, of_quorum(std::iter::empty(), 1)).1, 0);
    }
}
