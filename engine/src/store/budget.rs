//! What requests may cost: a bucket of tokens for requests a second and one for dollars a day (token buckets). Pure.
//!
//! Readers never wait: they go into debt, which background work pays off by waiting. Of background work the collection of
//! garbage waits first, then compaction, then what makes commits durable in the bucket.

use std::time::Duration;

/// Seconds of requests that may be saved up.
const REQUESTS_SAVED_SECONDS: f64 = 10.0;
/// Seconds of a day's dollars that may be saved up: an hour.
const DOLLARS_SAVED_SECONDS: f64 = 3600.0;
const DAY_SECONDS: f64 = 86_400.0;

/// How long a request can wait for its budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Class {
    /// Someone waits for the answer: not at all.
    Foreground,
    /// Flushes, the archive, and what goes with them.
    Durable,
    Compaction,
    Garbage,
}

impl Class {
    pub(super) const ALL: [Self; 4] = [Self::Foreground, Self::Durable, Self::Compaction, Self::Garbage];

    /// What waits, for people.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Foreground => "reads",
            Self::Durable => "flushes and the archive",
            Self::Compaction => "compaction",
            Self::Garbage => "deletion of dead objects",
        }
    }

    /// The share of what can be saved up that is left to classes before it.
    fn leaves(self) -> f64 {
        match self {
            Self::Foreground | Self::Durable => 0.0,
            Self::Compaction => 0.25,
            Self::Garbage => 0.5,
        }
    }

    /// Longest that one request waits: a budget slows down, it stops nothing.
    pub(super) fn patience(self) -> Duration {
        match self {
            Self::Foreground => Duration::ZERO,
            Self::Durable => Duration::from_secs(10),
            Self::Compaction => Duration::from_secs(60),
            Self::Garbage => Duration::from_secs(600),
        }
    }
}

/// Tokens that come at a rate.
#[derive(Clone, Copy, Debug)]
struct Tokens {
    per_second: f64,
    most: f64,
    left: f64,
    at: Duration,
}

impl Tokens {
    fn new(per_second: f64, most: f64) -> Self {
        Self { per_second, most, left: most, at: Duration::ZERO }
    }

    fn refill(&mut self, now: Duration) {
        let passed = now.saturating_sub(self.at).as_secs_f64();
        self.at = now;
        self.left = (self.left + passed * self.per_second).min(self.most);
    }

    /// How long until a request of this class may take `cost`.
    fn wait(&self, class: Class, cost: f64) -> Duration {
        let missing = self.most * class.leaves() + cost.min(self.most / 2.0) - self.left;
        if missing <= 0.0 {
            Duration::ZERO
        } else {
            Duration::from_secs_f64((missing / self.per_second).min(DAY_SECONDS))
        }
    }

    /// Debt is bounded, so that background work is not put off for ever.
    fn take(&mut self, cost: f64) {
        self.left = (self.left - cost).max(-self.most);
    }
}

/// The budget of a store.
#[derive(Clone, Debug)]
pub(super) struct Budget {
    requests: Option<Tokens>,
    dollars: Option<Tokens>,
}

impl Budget {
    pub(super) fn new(requests_per_second: Option<f64>, dollars_per_day: Option<f64>) -> Self {
        let requests = requests_per_second.map(|rate| Tokens::new(rate, (rate * REQUESTS_SAVED_SECONDS).max(4.0)));
        let dollars = dollars_per_day.map(|dollars| dollars / DAY_SECONDS);
        Self { requests, dollars: dollars.map(|rate| Tokens::new(rate, rate * DOLLARS_SAVED_SECONDS)) }
    }

    pub(super) fn is_none(&self) -> bool {
        self.requests.is_none() && self.dollars.is_none()
    }

    /// Takes what a request costs, or says how long until there is enough. What costs no dollars needs none.
    pub(super) fn ask(&mut self, now: Duration, class: Class, dollars: f64) -> Result<(), Duration> {
        let mut wait = Duration::ZERO;
        for (tokens, cost) in [(&mut self.requests, 1.0), (&mut self.dollars, dollars)] {
            if let Some(tokens) = tokens {
                tokens.refill(now);
                if cost > 0.0 && class != Class::Foreground {
                    wait = wait.max(tokens.wait(class, cost));
                }
            }
        }
        if wait.is_zero() {
            self.take(dollars);
            return Ok(());
        }
        Err(wait)
    }

    /// Takes it in any case.
    pub(super) fn take(&mut self, dollars: f64) {
        for (tokens, cost) in [(&mut self.requests, 1.0), (&mut self.dollars, dollars)] {
            if let Some(tokens) = tokens {
                tokens.take(cost);
            }
        }
    }

    /// Whether there is nothing left.
    pub(super) fn is_exhausted(&self) -> bool {
        self.requests.iter().chain(&self.dollars).any(|tokens| tokens.left <= 0.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn secs(secs: f64) -> Duration {
        Duration::from_secs_f64(secs)
    }

    #[test]
    fn garbage_waits_first_then_compaction_then_flushes_and_readers_never() {
        let mut budget = Budget::new(Some(10.0), None);
        let mut refused = Vec::new();
        for _ in 0..=100 {
            for class in [Class::Garbage, Class::Compaction, Class::Durable] {
                if !refused.contains(&class) && budget.clone().ask(secs(0.0), class, 0.0).is_err() {
                    refused.push(class);
                }
            }
            assert_eq!(budget.ask(secs(0.0), Class::Foreground, 0.0), Ok(()));
        }
        assert_eq!(refused, [Class::Garbage, Class::Compaction, Class::Durable]);
        assert!(budget.is_exhausted());
        // Debt, which is paid off at the rate.
        for _ in 0..1000 {
            assert_eq!(budget.ask(secs(0.0), Class::Foreground, 0.0), Ok(()));
        }
        let wait = budget.ask(secs(0.0), Class::Durable, 0.0).unwrap_err();
        assert_eq!(wait, secs(10.1), "no more than can be saved up");
        assert_eq!(budget.ask(secs(10.2), Class::Durable, 0.0), Ok(()));
        assert!(budget.ask(secs(10.2), Class::Compaction, 0.0).is_err());
    }

    #[test]
    fn what_is_free_needs_no_dollars() {
        let mut budget = Budget::new(None, Some(1.0));
        while budget.ask(secs(0.0), Class::Foreground, 0.001).is_ok() && !budget.is_exhausted() {}
        assert!(budget.ask(secs(0.0), Class::Garbage, 0.000_005).is_err());
        assert_eq!(budget.ask(secs(0.0), Class::Garbage, 0.0), Ok(()));
    }

    proptest! {
        #[test]
        fn background_alone_stays_within_the_rate(rate in 0.5f64..50.0, steps in prop::collection::vec((0u64..500, 1usize..4), 1..300)) {
            let (mut budget, mut now, mut taken) = (Budget::new(Some(rate), None), 0, 0.0);
            for (millis, class) in steps {
                now += millis;
                if budget.ask(Duration::from_millis(now), Class::ALL[class], 0.0).is_ok() {
                    taken += 1.0;
                }
                let most = (rate * REQUESTS_SAVED_SECONDS).max(4.0) + rate * now as f64 / 1000.0;
                prop_assert!(taken <= most + 1e-6, "{taken} of {most}");
            }
            // Whoever waits as long as it is told may go on.
            if let Err(wait) = budget.ask(Duration::from_millis(now), Class::Garbage, 0.0) {
                prop_assert!(budget.ask(Duration::from_millis(now + 1) + wait, Class::Garbage, 0.0).is_ok());
            }
        }
    }
}
