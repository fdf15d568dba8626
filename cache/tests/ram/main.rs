//! RAM tier and request coalescing, through the public API.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic, reason = "test code")]

#[path = "../support/common.rs"]
mod common;
mod failing;
mod popular;
mod stale;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use common::{TestOrigin, as_origin, key, page, ram_only, setup};
use futures::future::join_all;
use holdfast_cache::{Cache, Error, Key, Place};

const PAGE: usize = 16 << 10;

/// Starts `readers` readers of one key, and returns once all of them wait for one fetch.
async fn waiting_readers(
    cache: &Cache,
    origin: &Arc<TestOrigin>,
    readers: u64,
) -> Vec<tokio::task::JoinHandle<Result<Bytes, Error>>> {
    let before = cache.stats().coalesced_waits;
    let tasks = (0..readers)
        .map(|_| {
            let (cache, origin) = (cache.clone(), as_origin(origin));
            tokio::spawn(async move { cache.get(key(1), &origin).await })
        })
        .collect();
    while cache.stats().coalesced_waits - before < readers - 1 || origin.calls() == 0 {
        tokio::task::yield_now().await;
    }
    tasks
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_thousand_readers_of_a_cold_key_are_one_fetch() {
    let (cache, origin) = (ram_only(1 << 20), TestOrigin::held(PAGE));
    let tasks = waiting_readers(&cache, &origin, 1000).await;
    origin.gate.add_permits(1);
    for answer in join_all(tasks).await {
        assert_eq!(answer.unwrap().unwrap(), page(key(1), PAGE));
    }
    assert_eq!(origin.calls(), 1);
    assert_eq!(cache.peek(&key(1)), Some(page(key(1), PAGE)));
    let stats = cache.stats();
    assert_eq!((stats.fetches, stats.coalesced_waits, stats.ram_misses), (1, 999, 1000));
}

#[tokio::test]
async fn a_cancelled_leader_takes_nobody_elses_answer_along() {
    let (cache, origin) = (ram_only(1 << 20), TestOrigin::held(PAGE));
    let leader = tokio::spawn({
        let (cache, origin) = (cache.clone(), as_origin(&origin));
        async move { cache.get(key(1), &origin).await }
    });
    while origin.calls() == 0 {
        tokio::task::yield_now().await;
    }
    let dyn_origin = as_origin(&origin);
    let mut follower = Box::pin(cache.get(key(1), &dyn_origin));
    assert!(futures::poll!(&mut follower).is_pending());
    leader.abort();
    assert!(leader.await.unwrap_err().is_cancelled());
    origin.gate.add_permits(1);
    assert_eq!(follower.await.unwrap(), page(key(1), PAGE));
    assert_eq!(origin.calls(), 1);
}

#[tokio::test]
async fn records_expire_by_the_injected_clock() {
    let mut setup = setup(1 << 20, None);
    setup.options.ttl = Some(Duration::from_secs(60));
    let (clock, cache) = (setup.clock, Cache::open(setup.options).unwrap());
    let origin = TestOrigin::new(PAGE);
    cache.get(key(1), &as_origin(&origin)).await.unwrap();
    clock.advance(Duration::from_millis(59_999));
    cache.get(key(1), &as_origin(&origin)).await.unwrap();
    assert_eq!(origin.calls(), 1);
    clock.advance(Duration::from_millis(1));
    assert_eq!(cache.peek(&key(1)), None);
    cache.get(key(1), &as_origin(&origin)).await.unwrap();
    assert_eq!(origin.calls(), 2);
    assert_eq!(cache.stats().expired, 1);
    assert_eq!(cache.stats().ram_entries, 1);
}

#[tokio::test]
async fn ram_stays_inside_its_bound() {
    let capacity = 2 << 20;
    let (cache, origin) = (ram_only(capacity), TestOrigin::new(PAGE));
    for item in 0..2000 {
        let fetched = cache.get(key(item % 700), &as_origin(&origin)).await.unwrap();
        assert_eq!(fetched, page(key(item % 700), PAGE));
        assert!(cache.stats().ram_bytes <= capacity, "{:?}", cache.stats());
    }
    let stats = cache.stats();
    assert!(stats.ram_evictions > 500, "{stats:?}");
    assert!(stats.ram_bytes > capacity / 2, "the room is used: {stats:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn ram_stays_inside_its_bound_under_concurrent_inserts() {
    let (capacity, writers) = (4u64 << 20, 4u32);
    let cache = ram_only(capacity);
    let tasks = (0..writers).map(|writer| {
        let cache = cache.clone();
        tokio::task::spawn_blocking(move || {
            let mut highest = 0;
            for item in 0..3000 {
                cache.insert(Key { group: writer.into(), item }, page(key(item), PAGE), Place::Ram);
                highest = highest.max(cache.stats().ram_bytes);
            }
            highest
        })
    });
    // Each writer may have one record more in the map while the policy makes room.
    let allowance = u64::from(writers) * 2 * PAGE as u64;
    for highest in join_all(tasks).await {
        assert!(highest.unwrap() <= capacity + allowance);
    }
    assert!(cache.stats().ram_bytes <= capacity);
}

#[tokio::test]
async fn a_record_larger_than_ram_is_served_but_not_kept() {
    let (cache, origin) = (ram_only(64 << 10), TestOrigin::new(128 << 10));
    assert_eq!(cache.get(key(1), &as_origin(&origin)).await.unwrap().len(), 128 << 10);
    assert_eq!(cache.stats().ram_bytes, 0);
}

#[tokio::test]
async fn a_small_slice_does_not_keep_its_large_buffer() {
    let cache = ram_only(1 << 20);
    let large = Bytes::from(vec![7u8; 1 << 20]);
    cache.insert(key(1), large.slice(..100), Place::Both);
    assert!(large.is_unique());
    assert_eq!(cache.peek(&key(1)).unwrap().len(), 100);
}

#[tokio::test]
async fn removing_a_group_leaves_the_others() {
    let cache = ram_only(1 << 20);
    for item in 0..10 {
        cache.insert(Key { group: 1, item }, page(key(item), 100), Place::Ram);
        cache.insert(Key { group: 2, item }, page(key(item), 100), Place::Ram);
    }
    cache.remove_groups(&[1]);
    cache.remove(&Key { group: 2, item: 0 });
    assert!((0..10).all(|item| cache.peek(&Key { group: 1, item }).is_none()));
    assert_eq!((0..10).filter(|&item| cache.peek(&Key { group: 2, item }).is_some()).count(), 9);
    assert_eq!(cache.stats().ram_entries, 9);
}

#[tokio::test]
async fn a_fetch_that_was_overtaken_by_an_insert_is_not_stored() {
    let (cache, origin) = (ram_only(1 << 20), TestOrigin::held(PAGE));
    let tasks = waiting_readers(&cache, &origin, 2).await;
    cache.insert(key(1), Bytes::from_static(b"newer"), Place::Ram);
    origin.gate.add_permits(1);
    for answer in join_all(tasks).await {
        assert_eq!(answer.unwrap().unwrap(), page(key(1), PAGE), "they asked before the insert");
    }
    assert_eq!(cache.peek(&key(1)).unwrap(), Bytes::from_static(b"newer"));
}

#[tokio::test]
async fn a_reader_that_comes_after_a_removal_gets_a_fetch_of_its_own() {
    let (cache, origin) = (ram_only(1 << 20), TestOrigin::held(PAGE));
    let tasks = waiting_readers(&cache, &origin, 2).await;
    cache.remove_groups(&[1]);
    let later = tokio::spawn({
        let (cache, origin) = (cache.clone(), as_origin(&origin));
        async move { cache.get(key(1), &origin).await }
    });
    while origin.calls() < 2 {
        tokio::task::yield_now().await;
    }
    origin.gate.add_permits(2);
    for answer in join_all(tasks).await {
        assert!(answer.unwrap().is_ok());
    }
    assert!(later.await.unwrap().is_ok());
    assert_eq!(cache.stats().ram_entries, 1);
}

#[tokio::test]
async fn the_bound_can_be_changed_while_running() {
    let cache = ram_only(4 << 20);
    for item in 0..200 {
        cache.insert(key(item), page(key(item), PAGE), Place::Ram);
    }
    assert_eq!(cache.stats().ram_entries, 200);
    cache.resize_ram(1 << 20);
    let small = cache.stats();
    assert!(small.ram_bytes <= 1 << 20 && small.ram_entries > 30, "{small:?}");
    cache.resize_ram(4 << 20);
    for item in 200..300 {
        cache.insert(key(item), page(key(item), PAGE), Place::Ram);
    }
    assert_eq!(cache.stats().ram_entries, small.ram_entries + 100);
}

#[tokio::test]
async fn a_hot_set_survives_a_scan_ten_times_the_cache() {
    let (cache, origin) = (ram_only(2 << 20), TestOrigin::new(PAGE));
    let origin = as_origin(&origin);
    for _ in 0..40 {
        for item in 0..80 {
            cache.get(key(item), &origin).await.unwrap();
        }
    }
    for item in 1000..2200 {
        cache.get(key(item), &origin).await.unwrap();
    }
    let kept = (0..80).filter(|&item| cache.peek(&key(item)).is_some()).count();
    assert!(kept >= 70, "{kept} of 80 hot pages are left");
}

/// A policy that counts reads keeps what was read out of the way of what is new: right for what nobody asked for, wrong for
/// what takes the place of something that was read.
#[tokio::test]
async fn hot_records_get_into_a_full_cache_of_records_that_were_read() {
    let (cache, origin) = (ram_only(1 << 20), TestOrigin::new(PAGE));
    for _ in 0..16 {
        for item in 0..60 {
            cache.get(key(item), &as_origin(&origin)).await.unwrap();
        }
    }
    let new = |place: Place, items: std::ops::Range<u32>| {
        items.clone().for_each(|item| cache.insert(key(item), page(key(item), PAGE), place));
        items.filter(|item| cache.peek(&key(*item)).is_some()).count()
    };
    let (warm, hot) = (new(Place::Both, 100..130), new(Place::Hot, 200..230));
    assert!(hot >= 25 && warm < hot, "{hot} hot and {warm} other records of 30 are in RAM");
    assert!(cache.stats().ram_bytes <= 1 << 20);
}
