//! How far a member is behind, in bytes of log and in time: notes of when this node's log had come how far.

use std::{collections::VecDeque, time::Duration};

/// Notes kept; the older half gets sparser when they are full.
const NOTES: usize = 512;

/// At a moment, the last entry applied here and the bytes applied up to it.
#[derive(Clone, Copy)]
struct Note {
    index: u64,
    bytes: u64,
    at: Duration,
}

/// The pace of this node's log.
#[derive(Default)]
pub(crate) struct Pace(VecDeque<Note>);

impl Pace {
    /// Notes how far the log is `at` a moment.
    pub(crate) fn note(&mut self, index: u64, bytes: u64, at: Duration) {
        if self.0.back().is_some_and(|last| index <= last.index) {
            return;
        }
        if self.0.len() == NOTES {
            let mut place = 0;
            self.0.retain(|_| {
                place += 1;
                place > NOTES / 2 || place % 2 == 0
            });
        }
        self.0.push_back(Note { index, bytes, at });
    }

    /// What a member lacks that has everything up to `index`: bytes of log, and the time since the first entry that it
    /// lacks was noted here.
    pub(crate) fn behind(&self, index: u64, now: Duration) -> (u64, Duration) {
        let next = self.0.partition_point(|note| note.index <= index);
        let (Some(first), Some(last)) = (self.0.get(next), self.0.back()) else { return (0, Duration::ZERO) };
        let had = match next.checked_sub(1).and_then(|before| self.0.get(before)) {
            Some(before) => {
                let (part, whole) = (index - before.index, first.index - before.index);
                before.bytes + first.bytes.saturating_sub(before.bytes) * part / whole
            }
            None => first.bytes,
        };
        (last.bytes.saturating_sub(had), now.saturating_sub(first.at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn what_is_missing_is_told_in_bytes_and_time() {
        let mut pace = Pace::default();
        assert_eq!(pace.behind(0, at(9)), (0, at(0)), "nothing is known");
        for (index, bytes, second) in [(10, 1000, 1), (20, 2000, 2), (20, 2000, 3), (40, 2400, 5)] {
            pace.note(index, bytes, at(second));
        }
        assert_eq!(pace.behind(40, at(9)), (0, at(0)));
        assert_eq!(pace.behind(41, at(9)), (0, at(0)));
        assert_eq!(pace.behind(30, at(9)), (200, at(4)));
        assert_eq!(pace.behind(20, at(9)), (400, at(4)), "an idle while is no lag");
        assert_eq!(pace.behind(15, at(9)), (900, at(7)));
        assert_eq!(pace.behind(3, at(9)), (1400, at(8)), "from before the first note: at least this");
    }

    #[test]
    fn notes_get_sparser_and_stay_in_order() {
        let mut pace = Pace::default();
        for index in 1..=10_000 {
            pace.note(index, index * 10, at(index));
        }
        assert!(pace.0.len() <= NOTES && pace.0.iter().is_sorted_by_key(|note| note.index));
        assert_eq!(pace.behind(9_999, at(10_000)), (10, at(0)));
        let (bytes, time) = pace.behind(9_000, at(10_000));
        assert!((9_990..=10_010).contains(&bytes) && (at(900)..=at(1_000)).contains(&time), "{bytes} {time:?}");
    }
}
