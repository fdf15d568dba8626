//! Whether the bucket is down, as far as requests have shown. Pure.
//!
//! One failure says little: it takes several in a row, over all requests, and no answer for some seconds. One answer says
//! that the bucket is back. An answer is anything that the bucket itself says, "no such object" included.

use std::time::Duration;

/// Failures in a row that it takes.
const FAILURES_MIN: u32 = 3;
/// Time without an answer that it takes.
const SILENCE_MIN: Duration = Duration::from_secs(3);

/// What the last requests have shown.
#[derive(Debug, Default)]
pub(super) struct Health {
    /// When the last answer came.
    answered: Duration,
    /// Failures since then: how many, and since when nothing was answered.
    failing: Option<(u32, Duration)>,
    down: bool,
}

impl Health {
    /// An answer came; whether it is news that the bucket is up.
    pub(super) fn answered(&mut self, now: Duration) -> bool {
        self.answered = now;
        self.failing = None;
        std::mem::take(&mut self.down)
    }

    /// A request that was sent at `sent` has failed; whether it is news that the bucket is down.
    pub(super) fn failed(&mut self, sent: Duration, now: Duration) -> bool {
        let sent = sent.max(self.answered);
        let (failures, since) = self.failing.map_or((1, sent), |(failures, since)| (failures + 1, since.min(sent)));
        self.failing = Some((failures, since));
        let down = failures >= FAILURES_MIN && now.saturating_sub(since) >= SILENCE_MIN;
        down && !std::mem::replace(&mut self.down, true)
    }

    /// Since when nothing was answered, if the bucket is down.
    pub(super) fn down_since(&self) -> Option<Duration> {
        self.failing.filter(|_| self.down).map(|(_, since)| since)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    #[test]
    fn it_takes_several_failures_and_some_seconds() {
        let mut health = Health::default();
        assert!(!health.answered(secs(10)));
        assert!(!health.failed(secs(11), secs(11)) && !health.failed(secs(11), secs(12)));
        assert!(!health.failed(secs(12), secs(13)), "three failures, two seconds");
        assert!(health.failed(secs(13), secs(14)) && !health.failed(secs(14), secs(15)), "told once");
        assert_eq!(health.down_since(), Some(secs(11)));
        assert!(health.answered(secs(20)) && !health.answered(secs(21)));
        assert_eq!(health.down_since(), None);
        // Two that took their time, while the bucket answered others meanwhile.
        assert!(!health.failed(secs(1), secs(22)) && !health.failed(secs(2), secs(23)));
        assert!(!health.failed(secs(2), secs(23)), "nothing was unanswered before 21");
        assert!(health.failed(secs(22), secs(24)));
        assert_eq!(health.down_since(), Some(secs(21)));
    }

    #[test]
    fn a_bucket_that_answers_every_other_request_is_not_down() {
        let mut health = Health::default();
        for second in 0..100 {
            assert!(!health.failed(secs(second), secs(second)));
            assert!(!health.answered(secs(second)));
        }
    }

    proptest! {
        #[test]
        fn down_means_silence_and_any_answer_ends_it(steps in prop::collection::vec((0u64..3000, any::<bool>(), 0u64..20_000), 1..60)) {
            let (mut health, mut now, mut last_answer, mut failures) = (Health::default(), 0, 0, 0);
            for (passed, answers, took) in steps {
                now += passed;
                let at = Duration::from_millis(now);
                if answers {
                    health.answered(at);
                    (last_answer, failures) = (now, 0);
                } else {
                    health.failed(Duration::from_millis(now.saturating_sub(took)), at);
                    failures += 1;
                }
                let silent = Duration::from_millis(now - last_answer);
                match health.down_since() {
                    Some(since) => prop_assert!(failures >= FAILURES_MIN && silent >= SILENCE_MIN && since >= Duration::from_millis(last_answer)),
                    None => prop_assert!(!answers || failures == 0),
                }
            }
        }
    }
}
