//! What the RAM tier keeps when some records are asked for more often than others.

use super::*;
use rand::{RngExt, SeedableRng, rngs::StdRng};

const ITEMS: usize = 20_000;
const KEPT: usize = 2_000;
const PAYLOAD: usize = 512;

/// Shares of all reads up to each rank: Zipf's law, theta 0.99.
fn shares() -> Vec<f64> {
    let weights: Vec<f64> = (1..=ITEMS).map(|rank| (rank as f64).powf(-0.99)).collect();
    let total: f64 = weights.iter().sum();
    let up_to = |so_far: &mut f64, weight: &f64| {
        *so_far += weight / total;
        Some(*so_far)
    };
    weights.iter().scan(0.0, up_to).collect()
}

/// Who knows all popularities misses 23 of 100 here. A policy that hears of every miss and few hits keeps what comes over
/// what is asked for, and misses as much as LRU does: 31.
#[tokio::test]
async fn reads_by_zipfs_law_miss_little_more_than_they_must() {
    let (cache, origin) = (ram_only((KEPT * 2 * PAYLOAD) as u64), TestOrigin::new(PAYLOAD));
    let origin_ref = as_origin(&origin);
    let (shares, mut rng) = (shares(), StdRng::seed_from_u64(4));
    let mut read = async |reads: usize| {
        let before = origin.calls();
        for _ in 0..reads {
            let at: f64 = rng.random();
            let rank = shares.partition_point(|share| *share < at) as u32;
            cache.get(key(rank.wrapping_mul(0x9E37_79B1)), &origin_ref).await.unwrap();
        }
        (origin.calls() - before) as f64 / reads as f64
    };
    read(200_000).await;
    let missed = read(400_000).await;
    let least = 1.0 - shares[KEPT - 1];
    assert!(missed < least * 1.12, "{missed:.3} of the reads missed; {least:.3} must");
}
