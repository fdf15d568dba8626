//! What clients saw, and the check that one order of all appends explains it. Pure.

use holdfast_wal::LogId;

/// How an append ended, as its client knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It has this place.
    Done(LogId),
    /// It was refused: it must not be anywhere.
    Refused,
    /// It may or may not be there.
    Unknown,
}

/// An append. Times are numbers of events: a total order that agrees with the simulated clock.
#[derive(Clone, Copy, Debug)]
pub struct Append {
    /// Unique.
    pub key: u64,
    /// When it was called.
    pub called: u64,
    /// When the answer came; meaningless while unknown.
    pub answered: u64,
    /// The answer.
    pub outcome: Outcome,
    /// Appends of one client that were called without waiting share a burst.
    pub burst: u64,
}

/// A read: how far the state was that it saw.
#[derive(Clone, Copy, Debug)]
pub struct Read {
    /// When it was called.
    pub called: u64,
    /// When the answer came.
    pub answered: u64,
    /// Index of the last entry seen.
    pub seen: u64,
}

/// What all clients saw.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// Every append.
    pub appends: Vec<Append>,
    /// Every read that got an answer.
    pub reads: Vec<Read>,
}

impl History {
    /// Checks the history against the appends that are in the log at last, in order.
    ///
    /// Linearizable: each append takes effect at its place in the log. So an acknowledged append is at its place, once; a
    /// refused one is nowhere; what was answered before another was called stands before it; a read sees every append that was
    /// acknowledged before it was called, none that was called after it was answered, and no less than an earlier read.
    ///
    /// # Errors
    /// What does not hold.
    pub fn check(&self, log: &[(LogId, u64)]) -> Result<(), String> {
        let mut place = std::collections::BTreeMap::new();
        for (id, key) in log {
            if let Some(other) = place.insert(*key, *id) {
                return Err(format!("twice: append {key} is at {other:?} and at {id:?}"));
            }
        }
        let known: std::collections::BTreeSet<_> = self.appends.iter().map(|append| append.key).collect();
        if let Some((id, key)) = log.iter().find(|(_, key)| !known.contains(key)) {
            return Err(format!("invented: nobody appended {key}, which is at {id:?}"));
        }
        for append in &self.appends {
            match (append.outcome, place.get(&append.key)) {
                (Outcome::Done(at), None) => {
                    return Err(format!("lost: append {} was acknowledged at {at:?}", append.key));
                }
                (Outcome::Done(at), Some(found)) if at != *found => {
                    return Err(format!("moved: append {} was acknowledged at {at:?}, is at {found:?}", append.key));
                }
                (Outcome::Refused, Some(found)) => {
                    return Err(format!("refused, yet there: append {} is at {found:?}", append.key));
                }
                _ => {}
            }
        }
        self.check_order(&place)?;
        self.check_reads(&place)
    }

    fn check_order(&self, place: &std::collections::BTreeMap<u64, LogId>) -> Result<(), String> {
        let mut answered: Vec<_> = self.appends.iter().filter(|a| matches!(a.outcome, Outcome::Done(_))).collect();
        answered.sort_by_key(|append| append.answered);
        let mut called: Vec<_> = self.appends.iter().filter(|append| place.contains_key(&append.key)).collect();
        called.sort_by_key(|append| append.called);
        let mut before = answered.iter().peekable();
        let mut greatest = LogId::default();
        for append in called {
            while let Some(earlier) = before.next_if(|earlier| earlier.answered < append.called) {
                greatest = greatest.max(place[&earlier.key]);
            }
            let at = place[&append.key];
            if at.index <= greatest.index {
                return Err(format!(
                    "order: append {} is at {at:?}, behind it is an earlier one at {greatest:?}",
                    append.key
                ));
            }
        }
        for (one, two) in
            self.appends.iter().zip(self.appends.iter().skip(1)).filter(|(one, two)| one.burst == two.burst)
        {
            if let (Outcome::Done(a), Outcome::Done(b)) = (one.outcome, two.outcome)
                && a.term == b.term
                && a.index >= b.index
            {
                return Err(format!("order in a burst: append {} is at {a:?}, {} at {b:?}", one.key, two.key));
            }
        }
        Ok(())
    }

    fn check_reads(&self, place: &std::collections::BTreeMap<u64, LogId>) -> Result<(), String> {
        for read in &self.reads {
            let seen = read.seen;
            for append in &self.appends {
                let Some(at) = place.get(&append.key) else { continue };
                if matches!(append.outcome, Outcome::Done(_)) && append.answered < read.called && at.index > seen {
                    return Err(format!("stale read: {read:?} misses append {} at {at:?}", append.key));
                }
                if append.called > read.answered && at.index <= seen {
                    return Err(format!("read of the future: {read:?} covers append {} at {at:?}", append.key));
                }
            }
            let behind = self.reads.iter().find(|later| later.called > read.answered && later.seen < seen);
            if let Some(later) = behind {
                return Err(format!("stale read: {later:?} sees less than {read:?}"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(index: u64) -> LogId {
        LogId { term: 1, index }
    }

    fn append(key: u64, called: u64, answered: u64, outcome: Outcome) -> Append {
        Append { key, called, answered, outcome, burst: key }
    }

    /// Two appends one after the other, an unknown one, a refused one, and reads between.
    fn sound() -> (History, Vec<(LogId, u64)>) {
        let appends = vec![
            append(1, 10, 20, Outcome::Done(id(3))),
            append(2, 30, 40, Outcome::Done(id(4))),
            append(3, 35, 0, Outcome::Unknown),
            append(4, 36, 37, Outcome::Refused),
            append(5, 38, 60, Outcome::Done(id(6))),
        ];
        let reads = vec![
            Read { called: 5, answered: 8, seen: 2 },
            Read { called: 21, answered: 29, seen: 3 },
            Read { called: 31, answered: 39, seen: 5 },
            Read { called: 41, answered: 45, seen: 5 },
        ];
        (History { appends, reads }, vec![(id(3), 1), (id(4), 2), (id(5), 3), (id(6), 5)])
    }

    fn violation(change: impl FnOnce(&mut History, &mut Vec<(LogId, u64)>)) -> String {
        let (mut history, mut log) = sound();
        assert_eq!(history.check(&log), Ok(()));
        change(&mut history, &mut log);
        history.check(&log).expect_err("a tampered history passed")
    }

    #[test]
    fn history_an_unknown_append_may_be_absent() {
        let (mut history, mut log) = sound();
        log.remove(2);
        assert_eq!(history.check(&log), Ok(()));
        history.appends[2].outcome = Outcome::Refused;
        assert_eq!(history.check(&log), Ok(()));
    }

    #[test]
    fn history_every_tampering_is_found() {
        let starts = |what: String, with: &str| assert!(what.starts_with(with), "{what}");
        starts(violation(|_, log| _ = log.remove(1)), "lost");
        starts(violation(|_, log| log[0].0 = id(2)), "moved");
        starts(violation(|_, log| log.push((id(7), 2))), "twice");
        starts(violation(|_, log| log.push((id(7), 9))), "invented");
        starts(violation(|_, log| log.push((id(7), 4))), "refused");
        starts(violation(|h, _| h.appends[4].outcome = Outcome::Refused), "refused");
        starts(violation(|h, _| h.reads[1].seen = 2), "stale");
        starts(violation(|h, _| h.reads[3].seen = 4), "stale");
        starts(violation(|h, _| h.reads[0].seen = 3), "read of the future");
        starts(
            violation(|h, log| {
                log.swap(0, 1);
                (log[0].0, log[1].0) = (id(3), id(4));
                (h.appends[0].outcome, h.appends[1].outcome) = (Outcome::Done(id(4)), Outcome::Done(id(3)));
            }),
            "order",
        );
        starts(
            violation(|h, log| {
                log[0].0 = id(7);
                h.appends[0].outcome = Outcome::Done(id(7));
                h.appends[1].burst = 1;
                h.appends[0].answered = 70;
                h.reads[1].seen = 7;
                h.reads.clear();
            }),
            "order in a burst",
        );
    }
}
