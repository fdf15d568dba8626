//! What a RAM hit costs: `Cache::peek` on 20,000 pages, read at random.
//!
//!     cargo bench -p holdfast-benches --bench cache_hit
#![allow(missing_docs, reason = "criterion's macros make undocumented functions")]

use std::{hint::black_box, sync::Arc, time::Duration};

use bytes::Bytes;
use criterion::{Criterion, criterion_group, criterion_main};
use holdfast_benches::dist::mix;
use holdfast_cache::{Cache, CacheOptions, Clock, Key, Place};

const PAGES: u64 = 20_000;

struct Standing;

impl Clock for Standing {
    fn now(&self) -> Duration {
        Duration::ZERO
    }
}

fn page_key(n: u64) -> Key {
    Key { group: u128::from(mix(n / 1000)) << 64 | u128::from(n / 1000), item: (n % 1000) as u32 }
}

fn peek(criterion: &mut Criterion) {
    let options = CacheOptions::new(1 << 30, Arc::new(Standing));
    let cache = match Cache::open(options) {
        Ok(cache) => cache,
        Err(error) => {
            eprintln!("the cache cannot be opened: {error}");
            return;
        }
    };
    let page = Bytes::from(vec![7; 16 << 10]);
    for n in 0..PAGES {
        cache.insert(page_key(n), page.clone(), Place::Ram);
    }
    let mut n = 0;
    criterion.bench_function("peek, a hit", |bencher| {
        bencher.iter(|| {
            n = mix(n + 1);
            black_box(cache.peek(&page_key(n % PAGES)))
        });
    });
    criterion.bench_function("peek, a miss", |bencher| {
        bencher.iter(|| {
            n = mix(n + 1);
            black_box(cache.peek(&page_key(PAGES + n % PAGES)))
        });
    });
}

criterion_group!(cache_hit, peek);
criterion_main!(cache_hit);
