//! Owns the memory of failed fetches: whose readers are answered without another fetch, and for how long.
//!
//! Bounded: each shard remembers so many keys, and forgets the oldest failure for a new one.

use std::{
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    time::Duration,
};

use parking_lot::Mutex;
use rustc_hash::FxHashMap;

use crate::{Key, OriginError, key::Groups};

const SHARDS: usize = 16;
/// Keys that one shard remembers.
const SHARD_KEYS: usize = 256;
/// How often the wait of a key is doubled at most.
const DOUBLINGS: u32 = 6;

struct Failure {
    error: OriginError,
    at: Duration,
    /// Failures in a row before this one.
    former: u32,
}

/// The keys whose last fetch failed.
pub(crate) struct Failures {
    shards: [Mutex<FxHashMap<Key, Failure>>; SHARDS],
    /// Keys in all shards, so that a cache whose origin works takes no lock.
    keys: AtomicUsize,
    retry_after: Duration,
}

impl Failures {
    pub(crate) fn new(retry_after: Duration) -> Self {
        Self { shards: std::array::from_fn(|_| Mutex::default()), keys: AtomicUsize::new(0), retry_after }
    }

    /// The error that answers for a fetch of `key` now; `None` if it should be made. Who `backs_off` (because it has an
    /// expired record to serve) waits longer with each failure in a row; the others wait for the least time.
    pub(crate) fn withholds(&self, key: &Key, backs_off: bool, now: impl FnOnce() -> Duration) -> Option<OriginError> {
        if self.keys.load(Relaxed) == 0 {
            return None;
        }
        let shard = self.shard(key).lock();
        let failure = shard.get(key)?;
        let doublings = if backs_off { failure.former.min(DOUBLINGS) } else { 0 };
        let until = failure.at.saturating_add(self.retry_after.saturating_mul(1 << doublings));
        (now() < until).then(|| failure.error.clone())
    }

    /// Remembers that a fetch of `key` failed at `now`.
    pub(crate) fn note(&self, key: Key, error: OriginError, now: Duration) {
        if self.retry_after.is_zero() {
            return;
        }
        let mut shard = self.shard(&key).lock();
        let former = shard.get(&key).map(|failure| failure.former.saturating_add(1));
        if former.is_none() {
            if shard.len() >= SHARD_KEYS {
                let oldest = shard.iter().min_by_key(|(key, failure)| (failure.at, **key)).map(|(key, _)| *key);
                if let Some(oldest) = oldest {
                    shard.remove(&oldest);
                }
            } else {
                self.keys.fetch_add(1, Relaxed);
            }
        }
        shard.insert(key, Failure { error, at: now, former: former.unwrap_or(0) });
    }

    /// Forgets the failures of `key`: it was fetched, stored or removed.
    pub(crate) fn clear(&self, key: &Key) {
        if self.keys.load(Relaxed) > 0 && self.shard(key).lock().remove(key).is_some() {
            self.keys.fetch_sub(1, Relaxed);
        }
    }

    /// [`Failures::clear`] for every key of these groups.
    pub(crate) fn clear_groups(&self, groups: &Groups) {
        for shard in &self.shards {
            let mut shard = shard.lock();
            let before = shard.len();
            shard.retain(|key, _| !groups.contains(&key.group));
            self.keys.fetch_sub(before - shard.len(), Relaxed);
        }
    }

    fn shard(&self, key: &Key) -> &Mutex<FxHashMap<Key, Failure>> {
        &self.shards[(key.mix() >> 56) as usize % SHARDS]
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
        assert_eq!(failures.keys.load(Relaxed), 0);
    }

    #[test]
    fn the_memory_is_bounded_and_forgets_the_oldest() {
        let failures = Failures::new(WAIT);
        let many = (SHARDS * SHARD_KEYS * 2) as u32;
        for item in 0..many {
            failures.note(key(item), error(), Duration::from_millis(item.into()));
        }
        let held: usize = failures.shards.iter().map(|shard| shard.lock().len()).sum();
        assert_eq!(held, failures.keys.load(Relaxed));
        assert!(held <= SHARDS * SHARD_KEYS);
        let newest = Duration::from_millis(u64::from(many) - 1);
        assert!(failures.withholds(&key(many - 1), false, || newest).is_some());
        assert!(failures.withholds(&key(0), false, || Duration::ZERO).is_none());
        failures.clear_groups(&Groups::from_iter([1]));
        assert_eq!(failures.keys.load(Relaxed), 0);
    }

    #[test]
    fn without_a_time_nothing_is_remembered() {
        let failures = Failures::new(Duration::ZERO);
        failures.note(key(1), error(), WAIT);
        assert!(failures.withholds(&key(1), true, || WAIT).is_none());
    }
}
