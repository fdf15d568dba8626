//! What requests have cost since the start and over the last minutes, by cause.

use std::{collections::VecDeque, time::Duration};

use parking_lot::Mutex;

use super::Prices;
use crate::store::{Cause, Requests};

/// Time between two marks.
const MARK_EVERY: Duration = Duration::from_secs(10);
/// "The last minutes": five.
const LATELY: Duration = Duration::from_secs(300);

/// A moment: what was counted by then.
#[derive(Clone, Debug, Default)]
struct Mark {
    at: Duration,
    requests: Requests,
    commits: u64,
}

/// Dollars and transactions of a stretch of time.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Period {
    /// Its length.
    pub lasts: Duration,
    /// Transactions committed in it.
    pub commits: u64,
    /// Dollars for requests, by what they were for; what cost nothing is left out.
    pub by_cause: Vec<(Cause, f64)>,
}

impl Period {
    /// Dollars for requests.
    pub fn dollars(&self) -> f64 {
        self.by_cause.iter().map(|(_, dollars)| dollars).sum()
    }

    /// What an amount of this period comes to in an hour.
    pub fn per_hour(&self, dollars: f64) -> f64 {
        let hours = self.lasts.as_secs_f64() / 3600.0;
        if hours > 0.0 { dollars / hours } else { 0.0 }
    }

    /// Dollars for a million transactions; `None` if there was none.
    pub fn per_million_commits(&self) -> Option<f64> {
        (self.commits > 0).then(|| self.dollars() * 1e6 / self.commits as f64)
    }
}

/// Keeps marks of the last minutes.
pub struct Spending {
    prices: Prices,
    began: Duration,
    marks: Mutex<VecDeque<Mark>>,
}

impl Spending {
    /// Counting begins now.
    pub(crate) fn new(prices: Prices, now: Duration) -> Self {
        Self { prices, began: now, marks: Mutex::default() }
    }

    /// The price table.
    pub(crate) fn prices(&self) -> Prices {
        self.prices
    }

    /// Called now and then: makes a mark when it is time for one.
    pub(crate) fn tick(&self, now: Duration, requests: impl FnOnce() -> Requests, commits: u64) {
        let mut marks = self.marks.lock();
        if marks.back().is_some_and(|last| now.saturating_sub(last.at) < MARK_EVERY) {
            return;
        }
        marks.push_back(Mark { at: now, requests: requests(), commits });
        // The first one is as old as what is shown, or a little more.
        while marks.get(1).is_some_and(|second| now.saturating_sub(second.at) >= LATELY) {
            marks.pop_front();
        }
    }

    /// Since the start, and over the last minutes.
    pub(crate) fn periods(&self, now: Duration, requests: &Requests, commits: u64) -> (Period, Period) {
        let start = Mark { at: self.began, ..Mark::default() };
        let since = |mark: &Mark| Period {
            lasts: now.saturating_sub(mark.at),
            commits: commits.saturating_sub(mark.commits),
            by_cause: self.by_cause(&mark.requests, requests),
        };
        let lately = self.marks.lock().front().map_or_else(|| since(&start), since);
        (since(&start), lately)
    }

    fn by_cause(&self, before: &Requests, after: &Requests) -> Vec<(Cause, f64)> {
        let dollars = |requests: &Requests, cause| {
            let of_cause = requests.0.iter().filter(|count| count.cause == cause);
            of_cause.map(|count| count.requests as f64 * self.prices.request(count.kind)).sum::<f64>()
        };
        let spent = |cause: &Cause| dollars(after, *cause) - dollars(before, *cause);
        Cause::ALL.into_iter().map(|cause| (cause, spent(&cause))).filter(|(_, dollars)| *dollars > 0.0).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Kind, RequestCount};

    fn requests(puts: u64, gets: u64) -> Requests {
        let count = |kind, cause, requests| RequestCount { kind, cause, requests, bytes: 0, errors: 0 };
        Requests(vec![count(Kind::Put, Cause::Archive, puts), count(Kind::Get, Cause::Page, gets)])
    }

    #[test]
    fn the_last_minutes_forget_what_came_before_them() {
        let secs = Duration::from_secs;
        let spending = Spending::new(Prices::default(), secs(100));
        // 1000 PUTs in the first ten minutes, then a GET a second.
        for second in 0..1200u64 {
            let (puts, gets) = (second.min(1000), second.saturating_sub(1000));
            spending.tick(secs(100 + second), || requests(puts, gets), second);
        }
        assert!(spending.marks.lock().len() <= 32, "marks are bounded");
        spending.tick(secs(1700), || requests(1000, 600), 1600);
        let (all, lately) = spending.periods(secs(1700), &requests(1000, 600), 1600);
        assert_eq!((all.lasts, all.commits), (secs(1600), 1600));
        assert!((all.dollars() - 0.00524).abs() < 1e-9 && all.by_cause.len() == 2, "{all:?}");
        assert!(lately.lasts >= LATELY && lately.lasts <= secs(520), "{lately:?}");
        let causes: Vec<_> = lately.by_cause.iter().map(|(cause, _)| *cause).collect();
        assert_eq!(causes, [Cause::Page]);
        assert!((all.per_million_commits().unwrap() - 3.275).abs() < 1e-6);
        assert!((all.per_hour(all.dollars()) - 0.00524 * 3600.0 / 1600.0).abs() < 1e-9);
        let nothing = Period::default();
        assert_eq!((nothing.per_million_commits(), nothing.per_hour(1.0)), (None, 0.0));
    }
}
