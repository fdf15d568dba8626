//! Expired records that are served all the same, and deadlines that lie apart.

use std::{
    sync::{Arc, atomic::Ordering::SeqCst},
    time::Duration,
};

use holdfast_cache::{Answer, Cache, Error, Freshness, Key, Place, Stale};
use tokio::sync::Semaphore;

use crate::{
    PAGE,
    common::{ManualClock, TestOrigin, as_origin, key, page, setup},
};

const SECOND: Duration = Duration::from_secs(1);
const TTL: Duration = Duration::from_secs(60);

fn open(while_revalidate: Duration, if_error: Duration) -> (Cache, Arc<ManualClock>, Arc<TestOrigin>) {
    let mut setup = setup(1 << 20, None);
    setup.options.ttl = Some(TTL);
    setup.options.stale = Stale { while_revalidate, if_error };
    (Cache::open(setup.options).unwrap(), setup.clock, TestOrigin::new(PAGE))
}

fn fresh(edition: u128) -> Answer {
    Answer { bytes: page(Key { group: 1 + edition, item: 1 }, PAGE), freshness: Freshness::Fresh }
}

fn stale(edition: u128, past: Duration) -> Answer {
    Answer { freshness: Freshness::Stale { past }, ..fresh(edition) }
}

async fn read(cache: &Cache, origin: &Arc<TestOrigin>) -> Result<Answer, Error> {
    cache.get_labelled(key(1), &as_origin(origin)).await
}

#[tokio::test]
async fn an_expired_record_is_served_while_one_fetch_replaces_it() {
    let (cache, clock, origin) = open(SECOND * 10, Duration::ZERO);
    assert_eq!(read(&cache, &origin).await.unwrap(), fresh(0));
    assert_eq!(read(&cache, &origin).await.unwrap(), fresh(0));
    clock.advance(TTL + SECOND * 5);
    origin.gate.forget_permits(Semaphore::MAX_PERMITS);
    origin.edition.store(1, SeqCst);
    assert_eq!(cache.peek(&key(1)), None, "a peek has no label");
    for _ in 0..100 {
        assert_eq!(read(&cache, &origin).await.unwrap(), stale(0, SECOND * 5));
    }
    while origin.calls() < 2 {
        tokio::task::yield_now().await;
    }
    assert_eq!(read(&cache, &origin).await.unwrap(), stale(0, SECOND * 5));
    origin.gate.add_permits(1);
    while cache.peek(&key(1)).is_none() {
        tokio::task::yield_now().await;
    }
    assert_eq!(read(&cache, &origin).await.unwrap(), fresh(1));
    let stats = cache.stats();
    assert_eq!((origin.calls(), stats.fetches, stats.refreshes, stats.stale_hits), (2, 2, 1, 101));
    assert_eq!((stats.ram_misses, stats.expired, stats.stale_on_error), (1, 0, 0));
}

#[tokio::test]
async fn past_the_window_readers_wait_for_the_origin() {
    let (cache, clock, origin) = open(SECOND * 10, Duration::ZERO);
    read(&cache, &origin).await.unwrap();
    clock.advance(TTL + SECOND * 10);
    origin.edition.store(1, SeqCst);
    assert_eq!(read(&cache, &origin).await.unwrap(), fresh(1));
    assert_eq!((cache.stats().expired, cache.stats().stale_hits), (1, 0));
}

#[tokio::test]
async fn a_refresh_that_fails_backs_off() {
    let (cache, clock, origin) = open(SECOND * 10, Duration::ZERO);
    read(&cache, &origin).await.unwrap();
    clock.advance(TTL);
    origin.failing.store(true, SeqCst);
    for (round, wait) in [(1, 100), (2, 200), (3, 400)] {
        while cache.stats().refresh_errors < round {
            assert!(matches!(read(&cache, &origin).await.unwrap().freshness, Freshness::Stale { .. }));
            tokio::task::yield_now().await;
        }
        clock.advance(Duration::from_millis(wait - 1));
        for _ in 0..100 {
            read(&cache, &origin).await.unwrap();
            tokio::task::yield_now().await;
        }
        assert_eq!(cache.stats().refreshes, round, "no other fetch within {wait} ms");
        clock.advance(Duration::from_millis(1));
    }
    origin.failing.store(false, SeqCst);
    while cache.peek(&key(1)).is_none() {
        read(&cache, &origin).await.unwrap();
        tokio::task::yield_now().await;
    }
    assert_eq!((cache.stats().refreshes, cache.stats().refresh_errors), (4, 3));
}

#[tokio::test]
async fn an_expired_record_is_served_if_the_origin_fails() {
    let (cache, clock, origin) = open(Duration::ZERO, SECOND * 100);
    read(&cache, &origin).await.unwrap();
    clock.advance(TTL + SECOND * 50);
    origin.edition.store(1, SeqCst);
    origin.failing.store(true, SeqCst);
    for _ in 0..100 {
        assert_eq!(read(&cache, &origin).await.unwrap(), stale(0, SECOND * 50));
    }
    let stats = cache.stats();
    assert_eq!((origin.calls(), stats.stale_on_error, stats.fetches_withheld), (2, 100, 99));
    origin.failing.store(false, SeqCst);
    clock.advance(SECOND);
    assert_eq!(read(&cache, &origin).await.unwrap(), fresh(1));
    origin.failing.store(true, SeqCst);
    clock.advance(TTL + SECOND * 100);
    assert!(matches!(read(&cache, &origin).await, Err(Error::Origin(_))), "the window is over");
}

#[tokio::test]
async fn by_default_nothing_stale_is_served() {
    let (cache, clock, origin) = open(Duration::ZERO, Duration::ZERO);
    read(&cache, &origin).await.unwrap();
    clock.advance(TTL);
    origin.failing.store(true, SeqCst);
    assert!(matches!(read(&cache, &origin).await, Err(Error::Origin(_))));
    assert_eq!(cache.stats().ram_entries, 0);
}

#[tokio::test]
async fn a_removed_record_is_not_served_stale() {
    let (cache, clock, origin) = open(SECOND * 10, SECOND * 10);
    read(&cache, &origin).await.unwrap();
    clock.advance(TTL);
    cache.remove(&key(1));
    origin.failing.store(true, SeqCst);
    assert!(read(&cache, &origin).await.is_err());
}

#[tokio::test]
async fn records_stored_together_do_not_expire_together() {
    let mut setup = setup(1 << 20, None);
    (setup.options.ttl, setup.options.ttl_jitter_percent) = (Some(SECOND * 100), 10);
    let cache = Cache::open(setup.options).unwrap();
    (0..500).for_each(|item| cache.insert(key(item), page(key(item), 100), Place::Ram));
    let left = || (0..500).filter(|&item| cache.peek(&key(item)).is_some()).count();
    setup.clock.advance(SECOND * 90 - Duration::from_millis(1));
    assert_eq!(left(), 500);
    setup.clock.advance(SECOND * 5);
    assert!((150..350).contains(&left()), "{} of 500 are left half way", left());
    setup.clock.advance(SECOND * 5 + Duration::from_millis(1));
    assert_eq!(left(), 0);
}
