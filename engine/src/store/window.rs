//! How many requests may be in flight: grows while the bucket keeps up, halves when it throttles (AIMD, as TCP's congestion
//! window: Chiu and Jain 1989, Jacobson 1988). Pure.

use std::time::Duration;

/// Requests in flight at first: enough that a bucket that never throttles is never waited for here.
const START: usize = 64;
/// Bounds of the limit. At the least a reader and a flush have a place each.
const LEAST: usize = 2;
const MOST: usize = 512;
/// Requests that were sent together are throttled together, which is one reason to send fewer.
const CUT_EVERY: Duration = Duration::from_millis(500);
/// Time for one more. Rounds of a fast bucket are too short to learn from: the limit would be over again in no time.
const GROW_EVERY: Duration = Duration::from_millis(250);
/// How long a bucket that has throttled is spared what nobody needs.
const STRAINED: Duration = Duration::from_secs(10);

/// Who a request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    /// A reader or a client waits.
    Foreground,
    Background,
}

/// The limit, and what is in flight.
#[derive(Debug)]
pub(super) struct Window {
    limit: usize,
    foreground: usize,
    background: usize,
    cut: Option<Duration>,
    grown: Duration,
}

impl Default for Window {
    fn default() -> Self {
        Self { limit: START, foreground: 0, background: 0, cut: None, grown: Duration::ZERO }
    }
}

impl Window {
    pub(super) fn limit(&self) -> usize {
        self.limit
    }

    pub(super) fn in_flight(&self) -> usize {
        self.foreground + self.background
    }

    /// Background has at most half of the places, and one in any case.
    fn background_most(&self) -> usize {
        (self.limit() / 2).max(1)
    }

    /// Places that foreground leaves to background that waits: flushes must not starve.
    fn background_least(&self) -> usize {
        (self.limit() / 8).max(1)
    }

    /// Whether a request of `side` may be sent. `other_waits`: one of the other side would like to.
    pub(super) fn admits(&self, side: Side, other_waits: bool) -> bool {
        let kept = match side {
            Side::Foreground if other_waits => self.background_least().saturating_sub(self.background),
            Side::Background if self.background >= self.background_most() => return false,
            // Foreground goes first, but for what is kept for background.
            Side::Background if other_waits && self.background >= self.background_least() => return false,
            _ => 0,
        };
        self.in_flight() + kept < self.limit()
    }

    pub(super) fn enter(&mut self, side: Side) {
        *self.count(side) += 1;
    }

    pub(super) fn leave(&mut self, side: Side) {
        let count = self.count(side);
        *count = count.saturating_sub(1);
    }

    fn count(&mut self, side: Side) -> &mut usize {
        match side {
            Side::Foreground => &mut self.foreground,
            Side::Background => &mut self.background,
        }
    }

    /// A request that is still counted was answered: one more place now and then, while they are used.
    pub(super) fn succeeded(&mut self, now: Duration) {
        if self.in_flight() * 2 >= self.limit && now.saturating_sub(self.grown) >= GROW_EVERY {
            self.grown = now;
            self.limit = (self.limit + 1).min(MOST);
        }
    }

    /// A request was throttled; whether the limit was cut for it.
    pub(super) fn throttled(&mut self, now: Duration) -> bool {
        if self.cut.is_some_and(|cut| now.saturating_sub(cut) < CUT_EVERY) {
            return false;
        }
        (self.cut, self.grown) = (Some(now), now);
        self.limit = (self.limit / 2).max(LEAST);
        true
    }

    /// Whether the bucket has throttled lately.
    pub(super) fn is_strained(&self, now: Duration) -> bool {
        self.cut.is_some_and(|cut| now.saturating_sub(cut) < STRAINED)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn millis(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn it_halves_now_and_then_and_grows_by_one_while_it_is_used() {
        let mut window = Window::default();
        assert_eq!(window.limit(), 64);
        assert!(window.throttled(millis(5000)) && !window.throttled(millis(5499)));
        assert_eq!(window.limit(), 32);
        assert!(window.throttled(millis(5500)));
        assert_eq!(window.limit(), 16);
        window.succeeded(millis(9000));
        assert_eq!(window.limit(), 16, "an idle window does not grow");
        (0..16).for_each(|_| window.enter(Side::Foreground));
        (0..1000).for_each(|n| window.succeeded(millis(9000 + n)));
        assert_eq!(window.limit(), 20, "a second");
        for second in 10..30 {
            window.throttled(millis(second * 1000));
        }
        assert_eq!(window.limit(), 2);
        assert!(window.is_strained(millis(38_999)) && !window.is_strained(millis(39_000)));
    }

    #[test]
    fn foreground_goes_first_and_background_has_a_share_that_nobody_takes() {
        let mut window = Window { limit: 16, ..Window::default() };
        (0..8).for_each(|_| window.enter(Side::Background));
        assert!(!window.admits(Side::Background, false), "half is for readers");
        assert!(window.admits(Side::Foreground, true));
        (0..7).for_each(|_| window.leave(Side::Background));
        (0..14).for_each(|_| window.enter(Side::Foreground));
        assert!(!window.admits(Side::Foreground, true) && window.admits(Side::Foreground, false));
        assert!(window.admits(Side::Background, true), "two of sixteen are kept for it");
        window.enter(Side::Background);
        assert!(!window.admits(Side::Background, true) && !window.admits(Side::Foreground, false));
    }

    proptest! {
        #[test]
        fn the_limit_holds_and_someone_may_always_go_on(steps in prop::collection::vec((0u8..6, any::<bool>()), 1..400)) {
            let (mut window, mut now) = (Window::default(), Duration::ZERO);
            for (step, waits) in steps {
                let side = if waits { Side::Foreground } else { Side::Background };
                now += Duration::from_millis(300);
                match step {
                    0..3 if window.admits(side, waits) => {
                        prop_assert!(window.in_flight() < window.limit());
                        window.enter(side);
                    }
                    0..3 => {}
                    3 => window.leave(side),
                    4 => window.succeeded(now),
                    _ => {
                        window.throttled(now);
                    }
                }
                prop_assert!((2..=512).contains(&window.limit()));
            }
            // Whatever is in flight ends; then one of each side finds a place.
            window.foreground = 0;
            window.background = 0;
            prop_assert!(window.admits(Side::Background, true));
            window.enter(Side::Background);
            prop_assert!(window.admits(Side::Foreground, true));
        }
    }
}
