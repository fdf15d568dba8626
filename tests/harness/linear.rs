//! Whether a history of reads and writes of single registers is linearizable: the search of Wing and Gong with Lowe's
//! memory of states seen, one register at a time.
//!
//! A write whose outcome is unknown may take effect at any time after its call, or never.

use std::collections::{BTreeMap, HashSet};

/// What a client did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Wrote this value; values are written once.
    Write(u64),
    /// Found this value; 0 before the first write.
    Read(u64),
}

/// One operation, its times in one clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Op {
    /// The register.
    pub key: u64,
    /// What was done.
    pub action: Action,
    /// When it was called.
    pub call: u64,
    /// When it was answered; `None` if its outcome is unknown. Reads without an answer are left out.
    pub ret: Option<u64>,
}

/// Checks every register; the error names one whose history has no order.
pub fn check(history: &[Op]) -> Result<(), String> {
    let mut keys: BTreeMap<u64, Vec<Op>> = BTreeMap::new();
    for op in history {
        keys.entry(op.key).or_default().push(*op);
    }
    for (key, ops) in keys {
        check_one(ops).map_err(|why| format!("key {key}: {why}"))?;
    }
    Ok(())
}

/// How far a search is: all operations before `from` stand in the order, and those of `beyond`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Place {
    from: usize,
    beyond: Vec<usize>,
    value: u64,
}

impl Place {
    fn holds(&self, at: usize) -> bool {
        at < self.from || self.beyond.binary_search(&at).is_ok()
    }

    /// The place after operation `at` has taken effect.
    fn after(&self, at: usize, value: u64) -> Self {
        let mut next = self.clone();
        next.value = value;
        if let Err(slot) = next.beyond.binary_search(&at) {
            next.beyond.insert(slot, at);
        }
        while next.beyond.first() == Some(&next.from) {
            next.beyond.remove(0);
            next.from += 1;
        }
        next
    }
}

fn check_one(mut ops: Vec<Op>) -> Result<(), String> {
    let read: HashSet<u64> =
        ops.iter().filter_map(|op| if let Action::Read(value) = op.action { Some(value) } else { None }).collect();
    // A write of unknown outcome that nobody read may as well never have happened.
    ops.retain(|op| match (op.action, op.ret) {
        (Action::Write(value), None) => read.contains(&value),
        _ => true,
    });
    ops.sort_by_key(|op| op.call);
    let mut seen = HashSet::new();
    let mut open = vec![Place { from: 0, beyond: Vec::new(), value: 0 }];
    let mut furthest = 0;
    while let Some(place) = open.pop() {
        furthest = furthest.max(place.from);
        // Whoever was called before all that is left was answered may be next.
        let mut bound = u64::MAX;
        let mut left = false;
        let mut next = Vec::new();
        for (at, op) in ops.iter().enumerate().skip(place.from) {
            if place.holds(at) {
                continue;
            }
            if op.call > bound {
                break;
            }
            left |= op.ret.is_some();
            bound = bound.min(op.ret.unwrap_or(u64::MAX));
            match op.action {
                Action::Write(value) => next.push(place.after(at, value)),
                Action::Read(value) if value == place.value => next.push(place.after(at, value)),
                Action::Read(_) => {}
            }
        }
        if !left {
            return Ok(());
        }
        // The earliest call first: it is popped last pushed.
        open.extend(next.into_iter().rev().filter(|place| seen.insert(place.clone())));
    }
    let around: Vec<_> = ops.iter().skip(furthest).take(6).collect();
    Err(format!("no order explains its {} operations; the search ends before {around:?}", ops.len()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn op(action: Action, call: u64, ret: u64) -> Op {
        Op { key: 1, action, call, ret: Some(ret) }
    }

    #[test]
    fn order_follows_time() {
        use Action::{Read, Write};
        assert_eq!(check(&[op(Write(1), 0, 1), op(Read(1), 2, 3)]), Ok(()));
        assert!(check(&[op(Write(1), 0, 1), op(Read(0), 2, 3)]).is_err(), "a stale read");
        assert_eq!(check(&[op(Write(1), 0, 5), op(Read(0), 2, 3), op(Read(1), 4, 6)]), Ok(()));
        let back = [op(Write(1), 0, 9), op(Read(1), 2, 3), op(Read(0), 4, 5)];
        assert!(check(&back).is_err(), "a value that was seen is gone again");
        let lost = [op(Write(1), 0, 1), op(Write(2), 2, 3), op(Read(1), 4, 5)];
        assert!(check(&lost).is_err(), "an acknowledged write is lost");
    }

    #[test]
    fn an_unknown_write_may_come_late_or_never() {
        let unknown = Op { key: 1, action: Action::Write(7), call: 0, ret: None };
        assert_eq!(check(&[unknown, op(Action::Read(0), 1, 2), op(Action::Read(7), 3, 4)]), Ok(()));
        assert_eq!(check(&[unknown, op(Action::Read(0), 1, 2), op(Action::Read(0), 3, 4)]), Ok(()));
        let back = [unknown, op(Action::Read(7), 1, 2), op(Action::Read(0), 3, 4)];
        assert!(check(&back).is_err(), "it happened, and is undone");
    }

    proptest! {
        /// A register that answers one call at a time is linearizable whatever the calls' lengths; with one answer changed
        /// to an older value, read after a newer one was read, it is not.
        #[test]
        fn true_histories_pass_and_tampered_ones_do_not(
            steps in proptest::collection::vec((any::<bool>(), 0u64..40, 0u64..40), 2..80),
        ) {
            let (mut value, mut history) = (0, Vec::new());
            for (n, (is_write, before, behind)) in steps.into_iter().enumerate() {
                let at = 100 * (n as u64 + 1);
                let action = if is_write {
                    value = n as u64 + 1;
                    Action::Write(value)
                } else {
                    Action::Read(value)
                };
                history.push(Op { key: 1, action, call: at - before, ret: Some(at + behind) });
            }
            prop_assert_eq!(check(&history), Ok(()));
            let end = 100 * (history.len() as u64 + 2);
            history.push(Op { key: 1, action: Action::Read(value), call: end, ret: Some(end + 1) });
            prop_assert_eq!(check(&history), Ok(()));
            if value > 0 {
                history.push(Op { key: 1, action: Action::Read(0), call: end + 2, ret: Some(end + 3) });
                prop_assert!(check(&history).is_err());
            }
        }
    }
}
