//! The engine's seams to time and randomness: nothing else here reads a clock or draws a random number.

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use parking_lot::Mutex;
use rand::{RngExt, SeedableRng, rngs::StdRng};

/// Time, injected so that a simulation owns it.
pub trait Clock: Send + Sync + 'static {
    /// Monotonic time since an arbitrary fixed start.
    fn now(&self) -> Duration;
    /// Milliseconds since the Unix epoch. Only ever stored or shown, never used to decide order.
    fn unix_millis(&self) -> u64;
}

/// The machine's clocks.
#[derive(Debug)]
pub struct SystemClock(Instant);

impl SystemClock {
    /// A clock that starts at zero now.
    #[allow(clippy::disallowed_methods, reason = "this is the clock seam")]
    pub fn new() -> Self {
        Self(Instant::now())
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Duration {
        self.0.elapsed()
    }

    #[allow(clippy::disallowed_methods, reason = "this is the clock seam")]
    fn unix_millis(&self) -> u64 {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_millis() as u64)
    }
}

/// Gives the cache the engine's clock, counted from the Unix epoch: deadlines on NVMe must mean the same in the next run.
pub struct CacheClock {
    clock: Arc<dyn Clock>,
    /// The clock's start.
    start: Duration,
}

impl CacheClock {
    /// From now on as even as `clock`, whatever happens to the wall clock.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        let start = Duration::from_millis(clock.unix_millis()).saturating_sub(clock.now());
        Self { clock, start }
    }
}

impl holdfast_cache::Clock for CacheClock {
    fn now(&self) -> Duration {
        self.start + self.clock.now()
    }
}

/// The random numbers of one database: seeded by the operating system, or by a simulation.
pub struct Entropy(Mutex<StdRng>);

impl Entropy {
    /// Seeded by the operating system.
    #[allow(clippy::disallowed_methods, reason = "this is the randomness seam")]
    pub fn from_os() -> Self {
        Self::from_seed(rand::random())
    }

    /// Replayable: the same seed gives the same numbers.
    pub fn from_seed(seed: u64) -> Self {
        Self(Mutex::new(StdRng::seed_from_u64(seed)))
    }

    /// The next 64 random bits.
    pub fn next_u64(&self) -> u64 {
        self.0.lock().random()
    }

    /// The next 128 random bits.
    pub fn next_u128(&self) -> u128 {
        self.0.lock().random()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cache_counts_from_the_epoch_in_every_run() {
        struct Started(Duration);
        impl Clock for Started {
            fn now(&self) -> Duration {
                self.0
            }
            fn unix_millis(&self) -> u64 {
                90_000
            }
        }
        for since in [0, 7, 80] {
            let clock = CacheClock::new(Arc::new(Started(Duration::from_secs(since))));
            assert_eq!(holdfast_cache::Clock::now(&clock), Duration::from_secs(90));
        }
    }

    #[test]
    fn a_seed_replays() {
        let (a, b) = (Entropy::from_seed(3), Entropy::from_seed(3));
        assert_eq!((a.next_u64(), a.next_u128()), (b.next_u64(), b.next_u128()));
    }
}
