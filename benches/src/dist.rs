//! Owns the key distributions of YCSB: uniform, zipfian, latest. Pure: a sample is a function of a number in [0, 1).

use rand::{Rng, RngExt};

/// How often each row is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Distribution {
    /// Every row equally.
    Uniform,
    /// A few rows most of the time (theta 0.99), spread over the key space.
    Zipfian,
    /// The rows inserted last most of the time.
    Latest,
}

/// YCSB's theta.
const THETA: f64 = 0.99;

/// Ranks 0.. with a probability that falls as 1 / (rank + 1)^theta (Gray et al., "Quickly generating billion-record
/// synthetic databases").
#[derive(Clone, Debug)]
pub struct Zipfian {
    items: u64,
    zeta: f64,
    zeta2: f64,
}

impl Zipfian {
    /// Ranks below `items` (at least one). Takes time in proportion to `items`.
    pub fn new(items: u64) -> Self {
        let mut zipfian = Self { items: 0, zeta: 0.0, zeta2: 1.0 + 0.5f64.powf(THETA) };
        zipfian.grow(items.max(1));
        zipfian
    }

    /// Makes it cover `items` ranks, if those are more. Takes time in proportion to the growth.
    pub fn grow(&mut self, items: u64) {
        for rank in self.items..items {
            self.zeta += 1.0 / ((rank + 1) as f64).powf(THETA);
        }
        self.items = self.items.max(items);
    }

    /// The rank at `u` in [0, 1).
    pub fn rank(&self, u: f64) -> u64 {
        let uz = u * self.zeta;
        if uz < 1.0 || self.items == 1 {
            return 0;
        }
        if uz < self.zeta2 || self.items == 2 {
            return 1;
        }
        let n = self.items as f64;
        let eta = (1.0 - (2.0 / n).powf(1.0 - THETA)) / (1.0 - self.zeta2 / self.zeta);
        let rank = n * (eta * u - eta + 1.0).powf(1.0 / (1.0 - THETA));
        (rank as u64).min(self.items - 1)
    }
}

/// Chooses rows among those that exist.
#[derive(Clone, Debug)]
pub enum Chooser {
    /// See [`Distribution::Uniform`].
    Uniform,
    /// See [`Distribution::Zipfian`].
    Zipfian(Zipfian),
    /// See [`Distribution::Latest`].
    Latest(Zipfian),
}

impl Chooser {
    /// A chooser that starts with `rows` rows.
    pub fn new(distribution: Distribution, rows: u64) -> Self {
        match distribution {
            Distribution::Uniform => Self::Uniform,
            Distribution::Zipfian => Self::Zipfian(Zipfian::new(rows)),
            Distribution::Latest => Self::Latest(Zipfian::new(rows)),
        }
    }

    /// One of the rows 0..`rows` (at least one).
    pub fn choose(&mut self, rng: &mut impl Rng, rows: u64) -> u64 {
        let rows = rows.max(1);
        match self {
            Self::Uniform => rng.random_range(0..rows),
            // Not of the rank itself: mix(0) is 0, and the hottest row would be the first.
            Self::Zipfian(zipfian) => mix(!zipfian.rank(rng.random())) % rows,
            Self::Latest(zipfian) => {
                zipfian.grow(rows);
                rows - 1 - zipfian.rank(rng.random()).min(rows - 1)
            }
        }
    }
}

/// A bijection of 64 bits without visible order (the finalizer of splitmix64).
pub fn mix(n: u64) -> u64 {
    let n = (n ^ (n >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let n = (n ^ (n >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    n ^ (n >> 31)
}

/// The inverse of [`mix`].
pub fn unmix(n: u64) -> u64 {
    let n = (n ^ (n >> 31) ^ (n >> 62)).wrapping_mul(0x3196_42B2_D24D_8EC3);
    let n = (n ^ (n >> 27) ^ (n >> 54)).wrapping_mul(0x96DE_1B17_3F11_9089);
    n ^ (n >> 30) ^ (n >> 60)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use rand::{SeedableRng, rngs::StdRng};

    use super::*;

    fn counts(distribution: Distribution, rows: u64, samples: u64) -> HashMap<u64, u64> {
        let (mut chooser, mut rng) = (Chooser::new(distribution, rows), StdRng::seed_from_u64(1));
        let mut counts = HashMap::new();
        for _ in 0..samples {
            let row = chooser.choose(&mut rng, rows);
            assert!(row < rows);
            *counts.entry(row).or_default() += 1;
        }
        counts
    }

    #[test]
    fn zipfian_ranks_have_their_probabilities() {
        let zipfian = Zipfian::new(1000);
        let mut rng = StdRng::seed_from_u64(1);
        let mut counts = vec![0u32; 1000];
        for _ in 0..1_000_000 {
            counts[zipfian.rank(rng.random()) as usize] += 1;
        }
        let zeta: f64 = (1..=1000).map(|rank| 1.0 / f64::from(rank).powf(THETA)).sum();
        for rank in [0usize, 1] {
            let expected = 1e6 / ((rank + 1) as f64).powf(THETA) / zeta;
            assert!((f64::from(counts[rank]) / expected - 1.0).abs() < 0.02, "rank {rank}: {}", counts[rank]);
        }
        // Gray's approximation is exact for the first two ranks and close for sums of the others.
        let (head, all): (u32, u32) = (counts[..100].iter().sum(), counts.iter().sum());
        let expected: f64 = (1..=100).map(|rank| 1.0 / f64::from(rank).powf(THETA)).sum::<f64>() / zeta;
        assert!((f64::from(head) / f64::from(all) - expected).abs() < 0.02);
    }

    #[test]
    fn growing_equals_starting_larger() {
        let (mut grown, fresh) = (Zipfian::new(10), Zipfian::new(5000));
        grown.grow(5000);
        for n in 0..1000 {
            let u = f64::from(n) / 1000.0;
            assert_eq!(grown.rank(u), fresh.rank(u));
        }
    }

    #[test]
    fn mix_can_be_undone() {
        for n in (0..1000).chain([u64::MAX, u64::MAX / 3]) {
            assert_eq!(unmix(mix(n)), n);
        }
    }

    #[test]
    fn edges_stay_inside() {
        for items in [1, 2, 3, 1_000_000] {
            let zipfian = Zipfian::new(items);
            for u in [0.0, 0.5, 1.0 - f64::EPSILON] {
                assert!(zipfian.rank(u) < items);
            }
        }
    }

    #[test]
    fn uniform_is_flat_and_zipfian_is_not() {
        let flat = counts(Distribution::Uniform, 100, 100_000);
        assert!(flat.values().all(|&n| (800..1200).contains(&n)));
        let skewed = counts(Distribution::Zipfian, 10_000, 100_000);
        let mut by_count: Vec<_> = skewed.values().copied().collect();
        by_count.sort_unstable_by(|a, b| b.cmp(a));
        assert!(by_count.iter().take(100).sum::<u64>() > 45_000);
        let hottest = skewed.iter().max_by_key(|(_, n)| **n).unwrap().0;
        assert_ne!(*hottest, 0, "hot rows are spread over the key space");
    }

    #[test]
    fn latest_prefers_the_end_as_rows_come() {
        let (mut chooser, mut rng) = (Chooser::new(Distribution::Latest, 100), StdRng::seed_from_u64(1));
        for rows in [100, 1000, 10_000] {
            let near = (0..1000).filter(|_| rows - chooser.choose(&mut rng, rows) <= 10).count();
            assert!(near > 250, "{near} of 1000 among the last ten of {rows}");
        }
    }
}
