//! Owns expiry: the deadline that every record carries, in RAM and on NVMe. Pure; time comes from the injected clock.

use std::time::Duration;

use crate::{Error, Key, Stale, key::spread};

/// The moment a record stops being fresh, in milliseconds of the injected clock. Stored in NVMe slots as is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Deadline(pub(crate) u64);

impl Deadline {
    /// The deadline of a record that never expires.
    pub(crate) const NEVER: Self = Self(u64::MAX);

    /// The deadline of what expires at `now`.
    pub(crate) fn at(now: Duration) -> Self {
        Self(millis(now).min(u64::MAX - 1))
    }

    /// The time since the deadline, if it has come. `now` is a closure, because reading a clock is dear on the hot path
    /// and most records never expire.
    pub(crate) fn past(self, now: impl FnOnce() -> Duration) -> Option<Duration> {
        if self == Self::NEVER {
            return None;
        }
        millis(now()).checked_sub(self.0).map(Duration::from_millis)
    }
}

/// The rules of expiry of one cache.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Expiry {
    ttl: Option<Duration>,
    jitter_percent: u8,
    stale: Stale,
}

impl Expiry {
    pub(crate) fn new(ttl: Option<Duration>, jitter_percent: u8, stale: Stale) -> Result<Self, Error> {
        if jitter_percent > 100 {
            return Err(Error::Invalid(format!("a TTL jitter of {jitter_percent} %: the most is 100")));
        }
        Ok(Self { ttl, jitter_percent, stale })
    }

    /// The deadline of a record of `key` stored now; no TTL means never, and the clock is not read.
    pub(crate) fn deadline(&self, key: &Key, now: impl FnOnce() -> Duration) -> Deadline {
        let Some(ttl) = self.ttl else { return Deadline::NEVER };
        let (now, ttl) = (millis(now()), millis(ttl));
        let longest_cut = (u128::from(ttl) * u128::from(self.jitter_percent) / 100) as u64;
        let cut = ((u128::from(longest_cut) * u128::from(spread(key.mix() ^ now))) >> 64) as u64;
        Deadline(now.saturating_add(ttl - cut).min(u64::MAX - 1))
    }

    /// How long past its deadline a record is of use.
    pub(crate) fn grace(&self) -> Duration {
        self.stale.while_revalidate.max(self.stale.if_error)
    }

    /// Whether a record that expired `past` ago may be served at once, and refreshed behind that.
    pub(crate) fn serves_while_revalidating(&self, past: Duration) -> bool {
        past < self.stale.while_revalidate
    }

    /// For a record read back from a device: besides one past its grace, one whose deadline lies farther ahead than
    /// the TTL allows is refused. The clock it was written under was another one, so its age is unknown.
    pub(crate) fn refuses(&self, deadline: Deadline, now: Duration) -> bool {
        deadline.past(|| now).is_some_and(|past| past >= self.grace())
            || self.latest(now).is_some_and(|latest| deadline > latest)
    }

    /// The latest deadline that a record can have now. `None` if there is no TTL.
    pub(crate) fn latest(&self, now: Duration) -> Option<Deadline> {
        self.ttl.map(|ttl| Deadline::at(now.saturating_add(ttl)))
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const KEY: Key = Key { group: 1, item: 1 };

    fn expiry(ttl: Option<Duration>) -> Expiry {
        Expiry::new(ttl, 0, Stale::default()).unwrap()
    }

    #[test]
    fn a_record_expires_at_its_deadline_and_not_before() {
        let deadline = expiry(Some(SECOND)).deadline(&KEY, || SECOND);
        assert_eq!(deadline.past(|| Duration::from_millis(1999)), None);
        assert_eq!(deadline.past(|| Duration::from_millis(2000)), Some(Duration::ZERO));
        assert_eq!(deadline.past(|| Duration::from_millis(2300)), Some(Duration::from_millis(300)));
    }

    #[test]
    fn without_a_ttl_the_clock_is_not_even_read() {
        let deadline = expiry(None).deadline(&KEY, || panic!("the clock was read"));
        assert_eq!(deadline.past(|| panic!("the clock was read")), None);
    }

    #[test]
    fn a_stored_record_from_the_future_is_refused() {
        let minute = expiry(Some(SECOND * 60));
        let written_late = minute.deadline(&KEY, || SECOND * 1000);
        assert!(minute.refuses(written_late, SECOND));
        assert!(!minute.refuses(written_late, SECOND * 1001));
        assert!(minute.refuses(Deadline::NEVER, SECOND), "a TTL introduced later covers old records");
        assert!(!expiry(None).refuses(Deadline::NEVER, SECOND));
    }

    #[test]
    fn a_stored_record_is_kept_for_the_longer_of_the_windows() {
        let stale = Stale { while_revalidate: SECOND, if_error: SECOND * 5 };
        let expiry = Expiry::new(Some(SECOND * 60), 0, stale).unwrap();
        let deadline = expiry.deadline(&KEY, || SECOND);
        assert!(!expiry.refuses(deadline, Duration::from_millis(65_999)));
        assert!(expiry.refuses(deadline, SECOND * 66));
    }

    #[test]
    fn an_enormous_ttl_does_not_overflow() {
        let deadline = expiry(Some(Duration::MAX)).deadline(&KEY, || Duration::MAX);
        assert_eq!(deadline.past(|| SECOND), None);
        assert_ne!(deadline, Deadline::NEVER);
    }

    #[test]
    fn jitter_spreads_deadlines_over_its_share_and_a_run_repeats() {
        let expiry = Expiry::new(Some(SECOND * 1000), 10, Stale::default()).unwrap();
        let deadlines = |now: Duration| {
            (0..1000).map(|item| expiry.deadline(&Key { group: 1, item }, || now).0).collect::<Vec<_>>()
        };
        let first = deadlines(SECOND);
        assert!(first.iter().all(|&at| (901_000..=1_001_000).contains(&at)));
        for tenth in 0..10 {
            let from = 901_000 + tenth * 10_000;
            let count = first.iter().filter(|&&at| (from..from + 10_000).contains(&at)).count();
            assert!((50..200).contains(&count), "{count} of 1000 deadlines in tenth {tenth}");
        }
        assert_eq!(first, deadlines(SECOND));
        assert_ne!(
            first.iter().map(|at| at + 1000).collect::<Vec<_>>(),
            deadlines(SECOND * 2),
            "not the same keys first each time"
        );
    }

    #[test]
    fn a_jitter_of_more_than_the_ttl_is_refused() {
        assert!(matches!(Expiry::new(None, 101, Stale::default()), Err(Error::Invalid(_))));
    }
}
