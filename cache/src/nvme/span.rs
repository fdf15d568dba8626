//! Owns deadlines in 16 bits: those of records whose payload lies apart from its header, as the index has no room for
//! more. Pure.

use crate::ttl::Deadline;

const NEVER: u16 = u16::MAX;
/// The most steps before the latest deadline.
const STEPS: u16 = NEVER - 1;

/// The deadlines of one zone: each as the number of steps that it lies before the latest one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    latest: u64,
    step: u64,
}

impl Default for Span {
    fn default() -> Self {
        Self { latest: 0, step: 1 }
    }
}

impl Span {
    /// One that has room for all of these, but for those that are never.
    pub(super) fn over(deadlines: impl Iterator<Item = Deadline> + Clone) -> Self {
        let deadlines = deadlines.filter(|deadline| *deadline != Deadline::NEVER);
        let (Some(first), Some(last)) = (deadlines.clone().min(), deadlines.max()) else { return Self::default() };
        Self { latest: last.0, step: (last.0 - first.0) / u64::from(STEPS) + 1 }
    }

    /// A deadline in 16 bits: up to a step too early, and as early as the latest if it lies behind that. `None` if it lies
    /// before the span.
    pub(super) fn shorten(self, deadline: Deadline) -> Option<u16> {
        if deadline == Deadline::NEVER {
            return Some(NEVER);
        }
        let steps = self.latest.saturating_sub(deadline.0).div_ceil(self.step);
        u16::try_from(steps).ok().filter(|steps| *steps <= STEPS)
    }

    /// The deadline that 16 bits stand for.
    pub(super) fn deadline(self, short: u16) -> Deadline {
        match short {
            NEVER => Deadline::NEVER,
            steps => Deadline(self.latest.saturating_sub(u64::from(steps).saturating_mul(self.step))),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_never_expires_never_does() {
        let span = Span::over([Deadline(5)].into_iter());
        assert_eq!(span.shorten(Deadline::NEVER).map(|short| span.deadline(short)), Some(Deadline::NEVER));
        assert_eq!(Span::over([Deadline::NEVER].into_iter()), Span::default());
    }

    #[test]
    fn what_lies_before_the_span_has_no_place_and_what_lies_behind_ends_with_it() {
        let span = Span::over([Deadline(1_000_000), Deadline(2_000_000)].into_iter());
        assert_eq!(span.shorten(Deadline(10)), None);
        assert_eq!(span.shorten(Deadline(9_000_000)).map(|short| span.deadline(short)), Some(Deadline(2_000_000)));
    }

    proptest! {
        #[test]
        fn no_deadline_becomes_later_or_much_earlier(deadlines in prop::collection::vec(0..u64::MAX, 1..50)) {
            let span = Span::over(deadlines.iter().map(|at| Deadline(*at)));
            let range = deadlines.iter().max().unwrap() - deadlines.iter().min().unwrap();
            for at in deadlines {
                let read = span.deadline(span.shorten(Deadline(at)).unwrap());
                prop_assert!(read.0 <= at && at - read.0 <= range / 65_534 + 1, "{} for {at}", read.0);
            }
        }
    }
}
