//! When a foreground read is sent a second time (Dean and Barroso, "The Tail at Scale", 2013): after the time in which
//! nearly all such reads are answered, and only for a share of them. Pure but for its lock.

use std::time::Duration;

use parking_lot::Mutex;

/// Latencies remembered.
const SAMPLES: usize = 256;
/// Latencies without which nothing is known.
const SAMPLES_MIN: usize = 32;
/// Samples between two computations of the percentile.
const COMPUTE_EVERY: usize = 16;
/// The percentile, in hundredths, after which a read is sent again.
const PERCENTILE: usize = 95;
/// No read is sent again sooner: below it a second request costs more than it wins.
const DELAY_MIN: Duration = Duration::from_millis(5);
/// Larger reads take their time for their size.
pub(super) const BYTES_MAX: u64 = 128 << 10;
/// Hedges that may be saved up.
const SAVED_MAX: f64 = 10.0;

/// The latencies of the last reads, in microseconds.
#[derive(Debug)]
struct Latencies {
    ring: Box<[u32; SAMPLES]>,
    seen: usize,
    percentile: u32,
}

impl Default for Latencies {
    fn default() -> Self {
        Self { ring: Box::new([0; SAMPLES]), seen: 0, percentile: 0 }
    }
}

impl Latencies {
    fn add(&mut self, took: Duration) {
        let slot = self.seen % SAMPLES;
        if let Some(slot) = self.ring.get_mut(slot) {
            *slot = u32::try_from(took.as_micros()).unwrap_or(u32::MAX);
        }
        self.seen += 1;
        if self.seen.is_multiple_of(COMPUTE_EVERY) {
            let mut known = *self.ring;
            let known = known.get_mut(..self.seen.min(SAMPLES)).unwrap_or_default();
            let rank = known.len() * PERCENTILE / 100;
            if rank < known.len() {
                self.percentile = *known.select_nth_unstable(rank).1;
            }
        }
    }

    fn percentile(&self) -> Option<Duration> {
        (self.seen >= SAMPLES_MIN).then(|| Duration::from_micros(self.percentile.into()))
    }
}

/// Which reads are sent again.
pub(super) struct Hedges {
    /// Share of the reads that may be.
    share: f64,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    latencies: Latencies,
    /// Hedges that may be sent now.
    saved: f64,
    sent: u64,
    won: u64,
}

impl Hedges {
    /// At most `share` of the reads are sent again; 0 turns it off.
    pub(super) fn new(share: f64) -> Self {
        Self { share, state: Mutex::default() }
    }

    /// A read begins: when to send it again, if it is not answered by then.
    pub(super) fn begin(&self, bytes: u64) -> Option<Duration> {
        if self.share <= 0.0 || bytes > BYTES_MAX {
            return None;
        }
        let mut state = self.state.lock();
        state.saved = (state.saved + self.share).min(SAVED_MAX);
        state.latencies.percentile().map(|delay| delay.max(DELAY_MIN))
    }

    /// A read was answered.
    pub(super) fn answered(&self, bytes: u64, took: Duration) {
        if self.share > 0.0 && bytes <= BYTES_MAX {
            self.state.lock().latencies.add(took);
        }
    }

    /// Whether one more may be sent.
    pub(super) fn spend(&self) -> bool {
        let mut state = self.state.lock();
        if state.saved < 1.0 {
            return false;
        }
        state.saved -= 1.0;
        state.sent += 1;
        true
    }

    /// A second request was answered before the first.
    pub(super) fn won(&self) {
        self.state.lock().won += 1;
    }

    /// Second requests sent, and those that were answered first.
    pub(super) fn counts(&self) -> (u64, u64) {
        let state = self.state.lock();
        (state.sent, state.won)
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
    fn nothing_is_known_before_some_reads_and_old_ones_are_forgotten() {
        let hedges = Hedges::new(0.05);
        for read in 0..SAMPLES_MIN {
            assert_eq!(hedges.begin(16_000), None, "read {read}");
            hedges.answered(16_000, millis(20));
        }
        assert_eq!(hedges.begin(16_000), Some(millis(20)));
        for read in 0..SAMPLES {
            hedges.answered(16_000, millis(if read % 10 == 0 { 300 } else { 30 }));
        }
        assert_eq!(hedges.begin(16_000), Some(millis(300)), "one of ten is more than one of twenty");
        (0..SAMPLES).for_each(|_| hedges.answered(16_000, Duration::from_micros(50)));
        assert_eq!(hedges.begin(16_000), Some(DELAY_MIN));
        assert_eq!(hedges.begin(BYTES_MAX + 1), None);
    }

    #[test]
    fn no_share_means_no_hedges() {
        let hedges = Hedges::new(0.0);
        (0..1000).for_each(|_| hedges.answered(1, millis(10)));
        assert_eq!((hedges.begin(1), hedges.spend()), (None, false));
    }

    proptest! {
        #[test]
        fn hedges_stay_within_their_share(share in 0.0f64..1.0, reads in 1usize..500, greedy in prop::collection::vec(any::<bool>(), 500)) {
            let hedges = Hedges::new(share);
            for greedy in greedy.into_iter().take(reads) {
                hedges.begin(1);
                if greedy {
                    hedges.spend();
                    hedges.spend();
                }
            }
            let (sent, _) = hedges.counts();
            prop_assert!(sent as f64 <= share * reads as f64 + 1e-6);
        }

        #[test]
        fn the_percentile_is_one_of_what_was_seen(latencies in prop::collection::vec(1u64..100_000, 32..600)) {
            let mut known = Latencies::default();
            latencies.iter().for_each(|micros| known.add(Duration::from_micros(*micros)));
            let computed = latencies.len() / COMPUTE_EVERY * COMPUTE_EVERY;
            let mut window = latencies[computed.saturating_sub(SAMPLES)..computed].to_vec();
            window.sort_unstable();
            let expected = window[window.len() * PERCENTILE / 100];
            prop_assert_eq!(known.percentile(), Some(Duration::from_micros(expected)));
        }
    }
}
