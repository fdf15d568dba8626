//! Owns expiry: the deadline that every record carries, in RAM and on NVMe. Pure; time comes from the injected clock.

use std::time::Duration;

/// The moment a record stops being served, in milliseconds of the injected clock. Stored in NVMe slots as is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Deadline(pub(crate) u64);

impl Deadline {
    /// The deadline of a record that never expires.
    pub(crate) const NEVER: Self = Self(u64::MAX);

    /// The deadline of a record stored at `now` under `ttl`; no TTL means never.
    pub(crate) fn after(now: Duration, ttl: Option<Duration>) -> Self {
        match ttl {
            Some(ttl) => Self(millis(now).saturating_add(millis(ttl)).min(u64::MAX - 1)),
            None => Self::NEVER,
        }
    }

    /// Whether the deadline has come. `now` is a closure, because reading a clock is dear on the hot path and most
    /// records never expire.
    pub(crate) fn passed(self, now: impl FnOnce() -> Duration) -> bool {
        self != Self::NEVER && millis(now()) >= self.0
    }

    /// For a record read back from a device: besides an expired one, one whose deadline lies farther ahead than `ttl`
    /// allows is refused. The clock it was written under was another one, so its age is unknown.
    pub(crate) fn refused(self, now: Duration, ttl: Option<Duration>) -> bool {
        self.passed(|| now) || (ttl.is_some() && self > Self::after(now, ttl))
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_record_expires_at_its_deadline_and_not_before() {
        let deadline = Deadline::after(SECOND, Some(SECOND));
        assert!(!deadline.passed(|| Duration::from_millis(1999)));
        assert!(deadline.passed(|| Duration::from_millis(2000)));
    }

    #[test]
    fn without_a_ttl_the_clock_is_not_even_read() {
        assert!(!Deadline::after(SECOND, None).passed(|| panic!("the clock was read")));
    }

    #[test]
    fn a_stored_record_from_the_future_is_refused() {
        let written_late = Deadline::after(SECOND * 1000, Some(SECOND * 60));
        assert!(written_late.refused(SECOND, Some(SECOND * 60)));
        assert!(!written_late.refused(SECOND * 1001, Some(SECOND * 60)));
        assert!(Deadline::NEVER.refused(SECOND, Some(SECOND)), "a TTL introduced later covers old records");
        assert!(!Deadline::NEVER.refused(SECOND, None));
    }

    #[test]
    fn an_enormous_ttl_does_not_overflow() {
        assert!(!Deadline::after(Duration::MAX, Some(Duration::MAX)).passed(|| SECOND));
    }
}
