//! Origins that fail, and fetches that end without an answer.

use std::{
    sync::{Arc, atomic::Ordering::SeqCst},
    time::Duration,
};

use bytes::Bytes;
use futures::future::join_all;
use holdfast_cache::{BoxFuture, Cache, Error, Key, Origin, OriginError, Place};

use crate::{
    PAGE,
    common::{TestOrigin, as_origin, key, page, ram_only, setup},
    waiting_readers,
};

#[tokio::test]
async fn a_failure_goes_once_to_everyone_who_waited_and_to_who_comes_a_moment_later() {
    let (setup, origin) = (setup(1 << 20, None), TestOrigin::held(PAGE));
    let (cache, clock) = (Cache::open(setup.options).unwrap(), setup.clock);
    origin.failing.store(true, SeqCst);
    let tasks = waiting_readers(&cache, &origin, 100).await;
    origin.gate.add_permits(1);
    for answer in join_all(tasks).await {
        assert!(matches!(answer.unwrap(), Err(Error::Origin(_))));
    }
    assert_eq!(origin.calls(), 1, "no waiter tried again by itself");
    assert_eq!(cache.stats().fetch_errors, 1);

    origin.failing.store(false, SeqCst);
    origin.gate.add_permits(1);
    clock.advance(Duration::from_millis(99));
    for _ in 0..1000 {
        assert!(matches!(cache.get(key(1), &as_origin(&origin)).await, Err(Error::Origin(_))));
    }
    assert_eq!((origin.calls(), cache.stats().fetches_withheld), (1, 1000));
    clock.advance(Duration::from_millis(1));
    assert_eq!(cache.get(key(1), &as_origin(&origin)).await.unwrap(), page(key(1), PAGE));
    assert_eq!(origin.calls(), 2);
}

#[tokio::test]
async fn a_failure_does_not_outlive_an_insert_or_a_removal() {
    let (cache, origin) = (ram_only(1 << 20), TestOrigin::new(PAGE));
    let fail = async || {
        origin.failing.store(true, SeqCst);
        assert!(cache.get(key(1), &as_origin(&origin)).await.is_err());
        origin.failing.store(false, SeqCst);
    };
    fail().await;
    cache.remove(&key(1));
    assert!(cache.get(key(1), &as_origin(&origin)).await.is_ok());
    cache.remove_groups(&[1]);
    fail().await;
    cache.remove_groups(&[1]);
    assert!(cache.get(key(1), &as_origin(&origin)).await.is_ok());
    cache.remove(&key(1));
    fail().await;
    cache.insert(key(1), page(key(1), PAGE), Place::Ram);
    assert!(cache.get(key(1), &as_origin(&origin)).await.is_ok());
}

#[tokio::test]
async fn with_no_time_to_wait_each_read_is_a_fetch() {
    let mut setup = setup(1 << 20, None);
    setup.options.retry_after = Duration::ZERO;
    let (cache, origin) = (Cache::open(setup.options).unwrap(), TestOrigin::new(PAGE));
    origin.failing.store(true, SeqCst);
    for _ in 0..3 {
        assert!(cache.get(key(1), &as_origin(&origin)).await.is_err());
    }
    assert_eq!(origin.calls(), 3);
}

#[tokio::test]
async fn a_runtime_that_ends_gives_its_waiters_an_error_and_does_not_block_the_key() {
    let (cache, origin) = (ram_only(1 << 20), TestOrigin::held(PAGE));
    let leaders = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
    leaders.spawn({
        let (cache, origin) = (cache.clone(), as_origin(&origin));
        async move { cache.get(key(1), &origin).await }
    });
    while origin.calls() == 0 {
        tokio::task::yield_now().await;
    }
    let dyn_origin = as_origin(&origin);
    let mut follower = Box::pin(cache.get(key(1), &dyn_origin));
    assert!(futures::poll!(&mut follower).is_pending());
    leaders.shutdown_background();
    assert!(matches!(follower.await, Err(Error::Aborted)));
    origin.gate.add_permits(1);
    assert_eq!(cache.get(key(1), &dyn_origin).await.unwrap(), page(key(1), PAGE));
}

struct Panicking;

impl Origin for Panicking {
    fn fetch(&self, _: Key) -> BoxFuture<'_, Result<Bytes, OriginError>> {
        Box::pin(async { panic!("the origin has a bug") })
    }
}

#[tokio::test]
async fn an_origin_that_panics_is_an_error_and_does_not_block_the_key() {
    let cache = ram_only(1 << 20);
    let broken: Arc<dyn Origin> = Arc::new(Panicking);
    assert!(matches!(cache.get(key(1), &broken).await, Err(Error::Aborted)));
    let sound = TestOrigin::new(PAGE);
    assert!(cache.get(key(1), &as_origin(&sound)).await.is_ok());
}
