//! Owns the memory of failed fetches: whose readers are answered without another fetch, and for how long. The only file that
//! knows moka.
//!
//! Bounded: so many keys are remembered, and the oldest failure is forgotten for a new one. Time is the caller's, as
//! moka's own clock can't be injected.

use std::{
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    time::Duration,
};

use moka::{policy::EvictionPolicy, sync::Cache};
use rustc_hash::FxBuildHasher;

use crate::{Key, OriginError, key::Groups};

/// Keys that are remembered.
const KEYS: u64 = 4096;
/// How often the wait of a key is doubled at most.
const DOUBLINGS: u32 = 6;

#[derive(Clone)]
struct Failure {
    error: OriginError,
    at: Duration,
    /// Failures in a row before this one.
    former: u32,
}

/// The keys whose last fetch failed.
pub(crate) struct Failures {
    keys: Cache<Key, Failure, FxBuildHasher>,
    /// Whether anything ever failed: a cache whose origin works looks nothing up.
    any: AtomicBool,
    retry_after: Duration,
}

impl Failures {
    pub(crate) fn new(retry_after: Duration) -> Self {
        let keys =
            Cache::builder().max_capacity(KEYS).eviction_policy(EvictionPolicy::lru()).build_with_hasher(FxBuildHasher);
        Self { keys, any: AtomicBool::new(false), retry_after }
    }

    /// The error that answers for a fetch of `key` now; `None` if it should be made. Who `backs_off` (because it has an
    /// expired record to serve) waits longer with each failure in a row; the others wait for the least time.
    pub(crate) fn withholds(&self, key: &Key, backs_off: bool, now: impl FnOnce() -> Duration) -> Option<OriginError> {
        if !self.any.load(Relaxed) {
            return None;
        }
        let failure = self.keys.get(key)?;
        let doublings = if backs_off { failure.former.min(DOUBLINGS) } else { 0 };
        let until = failure.at.saturating_add(self.retry_after.saturating_mul(1 << doublings));
        (now() < until).then_some(failure.error)
    }

    /// Remembers that a fetch of `key` failed at `now`.
    pub(crate) fn note(&self, key: Key, error: OriginError, now: Duration) {
        if self.retry_after.is_zero() {
            return;
        }
        self.any.store(true, Relaxed);
        self.keys.entry(key).and_upsert_with(|failed| {
            let former = failed.map_or(0, |failed| failed.into_value().former.saturating_add(1));
            Failure { error, at: now, former }
        });
    }

    /// Forgets the failures of `key`: it was fetched, stored or removed.
    pub(crate) fn clear(&self, key: &Key) {
        if self.any.load(Relaxed) {
            self.keys.invalidate(key);
        }
    }

    /// [`Failures::clear`] for every key of these groups.
    pub(crate) fn clear_groups(&self, groups: &Groups) {
        if self.any.load(Relaxed) {
            let failed = self.keys.iter().map(|(key, _)| *key);
            failed.filter(|key| groups.contains(&key.group)).for_each(|key| self.keys.invalidate(&key));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    const WAIT: Duration = Duration::from_millis(100);

    fn error() -> OriginError {
        OriginError(Arc::new(std::io::Error::other("down")))
    }

    fn key(item: u32) -> Key {
        Key { group: 1, item }
    }

    #[test]
    fn a_failure_answers_for_its_time_and_backing_off_doubles_it() {
        let failures = Failures::new(WAIT);
        let withheld = |backs_off, at| failures.withholds(&key(1), backs_off, || at).is_some();
        failures.note(key(1), error(), WAIT);
        for backs_off in [false, true] {
            assert!(withheld(backs_off, Duration::from_millis(199)));
            assert!(!withheld(backs_off, WAIT * 2));
        }
        failures.note(key(1), error(), WAIT * 2);
        assert!(!withheld(false, WAIT * 3));
        assert!(withheld(true, Duration::from_millis(399)));
        assert!(!withheld(true, WAIT * 4));
        (0..40).for_each(|_| failures.note(key(1), error(), WAIT));
        assert!(withheld(true, WAIT * 64));
        assert!(!withheld(true, WAIT * 65), "the wait is bounded");
        failures.clear(&key(1));
        assert!(!withheld(true, WAIT));
    }

    #[test]
    fn the_memory_is_bounded_and_forgets_the_oldest() {
        let failures = Failures::new(WAIT);
        let many = 3 * KEYS as u32;
        for item in 0..many {
            failures.note(key(item), error(), Duration::from_millis(item.into()));
        }
        failures.keys.run_pending_tasks();
        assert_eq!(failures.keys.entry_count(), KEYS);
        let newest = Duration::from_millis(u64::from(many) - 1);
        assert!(failures.withholds(&key(many - 1), false, || newest).is_some());
        assert!(failures.withholds(&key(0), false, || Duration::ZERO).is_none());
        failures.clear_groups(&Groups::from_iter([1]));
        assert!(failures.withholds(&key(many - 1), false, || newest).is_none());
    }

    #[test]
    fn without_a_time_nothing_is_remembered() {
        let failures = Failures::new(Duration::ZERO);
        failures.note(key(1), error(), WAIT);
        assert!(failures.withholds(&key(1), true, || WAIT).is_none());
    }
}
