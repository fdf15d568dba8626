//! How much compactions, flushes and spills rest while commits come, so that they take no more of the machine than their
//! backlog asks for, and as evenly as can be.

use std::{
    sync::atomic::{AtomicU32, Ordering::Relaxed},
    time::Duration,
};

use crate::clock::Clock;

/// Rest while nothing waits, in percent of the time worked. The backlog settles where the work just keeps pace: so much
/// that it hardly ever stands still, since a second without it shows in commits as one with too much of it.
const MOST: f64 = 600.0;
/// Shorter rests are saved up: a timer is not finer.
const LEAST: Duration = Duration::from_millis(5);

/// How much one kind of work rests now. It does not until it is told to.
#[derive(Debug, Default)]
pub(crate) struct Rest(AtomicU32);

impl Rest {
    /// `busy`: commits come. `waiting`: the share of its bound that waits for this work. From a half on, where commits are
    /// slowed down, the work has the right of way. The square makes small changes of a usual backlog small ones of the
    /// rest.
    pub(crate) fn set(&self, busy: bool, waiting: f64) {
        let percent = if busy { MOST * (1.0 - 2.0 * waiting).clamp(0.0, 1.0).powi(2) } else { 0.0 };
        self.0.store(percent as u32, Relaxed);
    }

    fn after(&self, worked: Duration) -> Duration {
        worked * self.0.load(Relaxed) / 100
    }
}

/// A compaction, flush or spill at work.
pub(crate) struct Shift<'a> {
    rest: &'a Rest,
    clock: &'a dyn Clock,
    since: Duration,
}

impl<'a> Shift<'a> {
    pub(crate) fn new(rest: &'a Rest, clock: &'a dyn Clock) -> Self {
        Self { rest, clock, since: clock.now() }
    }

    /// A slice of the work is done: leaves the runtime to others, and the machine if it is time for that.
    pub(crate) async fn slice(&mut self) {
        let due = self.rest.after(self.clock.now().saturating_sub(self.since));
        if due < LEAST {
            return tokio::task::yield_now().await;
        }
        tokio::time::sleep(due).await;
        self.since = self.clock.now();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longer_the_backlog_the_shorter_the_rest() {
        let after = |busy, waiting| {
            let rest = Rest::default();
            rest.set(busy, waiting);
            rest.after(Duration::from_millis(100)).as_millis()
        };
        assert_eq!([after(true, 0.0), after(true, 0.25), after(true, 0.5), after(true, 0.9)], [600, 150, 0, 0]);
        assert_eq!(after(false, 0.0), 0, "nobody is in its way");
        assert_eq!(Rest::default().after(Duration::from_secs(1)), Duration::ZERO);
    }

    #[derive(Debug, Default)]
    struct Moved(AtomicU32);

    impl Clock for Moved {
        fn now(&self) -> Duration {
            Duration::from_millis(self.0.load(Relaxed).into())
        }

        fn unix_millis(&self) -> u64 {
            self.0.load(Relaxed).into()
        }
    }

    #[tokio::test(start_paused = true)]
    #[allow(clippy::disallowed_methods, reason = "tokio's own clock says how long a rest was")]
    async fn rests_are_saved_up_and_taken() {
        let (rest, clock, begin) = (Rest::default(), Moved::default(), tokio::time::Instant::now());
        let mut shift = Shift::new(&rest, &clock);
        rest.set(true, 0.25);
        for _ in 0..7 {
            clock.0.fetch_add(1, Relaxed);
            shift.slice().await;
        }
        assert_eq!(begin.elapsed(), Duration::from_millis(6), "after 4 ms of work; the last 3 ms are saved up");
    }
}
