//! How fast the log grows, and how long what a node can still take lasts at that rate. Pure.

use std::{collections::VecDeque, time::Duration};

/// Time between two marks.
const MARK_EVERY: Duration = Duration::from_secs(1);
/// The stretch that is looked at.
const LATELY: Duration = Duration::from_secs(60);

/// Marks of the last minute.
#[derive(Debug, Default)]
pub(crate) struct Pace(VecDeque<(Duration, u64)>);

impl Pace {
    /// So many bytes were written by now. Called often.
    pub(crate) fn note(&mut self, now: Duration, written: u64) {
        if self.0.back().is_some_and(|(last, _)| now.saturating_sub(*last) < MARK_EVERY) {
            return;
        }
        self.0.push_back((now, written));
        while self.0.front().is_some_and(|(first, _)| now.saturating_sub(*first) > LATELY) {
            self.0.pop_front();
        }
    }

    /// Bytes a second, over the last minute.
    pub(crate) fn bytes_per_second(&self) -> f64 {
        let (Some((from, first)), Some((to, last))) = (self.0.front(), self.0.back()) else { return 0.0 };
        let seconds = to.saturating_sub(*from).as_secs_f64();
        if seconds > 0.0 { last.saturating_sub(*first) as f64 / seconds } else { 0.0 }
    }

    /// How long so many bytes last; `None` if nothing is written.
    pub(crate) fn lasts(&self, bytes: u64) -> Option<Duration> {
        let rate = self.bytes_per_second();
        // A year is as good as for ever, and can be counted.
        (rate > 0.0).then(|| Duration::from_secs_f64((bytes as f64 / rate).min(365.0 * 86_400.0)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_that_of_the_last_minute() {
        let mut pace = Pace::default();
        assert_eq!((pace.bytes_per_second(), pace.lasts(1000)), (0.0, None));
        let mut written = 0;
        for tenth in 0..3100u64 {
            // Fast for four minutes, then slow.
            written += if tenth < 2400 { 1000 } else { 10 };
            pace.note(Duration::from_millis(tenth * 100), written);
            assert!(pace.0.len() <= 61);
        }
        let rate = pace.bytes_per_second();
        assert!((99.0..101.0).contains(&rate), "{rate}");
        let lasts = pace.lasts(60_000).unwrap();
        assert!((590..=610).contains(&lasts.as_secs()), "{lasts:?}");
        assert_eq!(pace.lasts(u64::MAX), Some(Duration::from_secs(365 * 86_400)));
    }
}
