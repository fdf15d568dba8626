//! Expired records on the device that are served all the same.

use std::{sync::atomic::Ordering::SeqCst, time::Duration};

use holdfast_cache::{Cache, Freshness, Key, Place, Stale};

use crate::{
    PAGE,
    common::{TestOrigin, as_origin, key, page},
    on_both, small_ram,
};

const SECOND: Duration = Duration::from_secs(1);
const STALE: Freshness = Freshness::Stale { past: Duration::from_secs(5) };

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_restart_an_expired_record_is_served_and_its_refresh_replaces_it_on_the_device() {
    on_both(|dir, backend| async move {
        let origin = TestOrigin::new(PAGE);
        let mut setup = small_ram(&dir, backend);
        setup.options.ttl = Some(SECOND * 60);
        setup.options.stale = Stale { while_revalidate: SECOND * 10, if_error: Duration::ZERO };
        let cache = Cache::open(setup.options.clone()).unwrap();
        cache.insert(key(1), page(key(1), PAGE), Place::Nvme);
        cache.close().await;
        drop(cache);
        setup.clock.advance(SECOND * 65);
        origin.edition.store(1, SeqCst);
        let cache = Cache::open(setup.options.clone()).unwrap();
        let answer = cache.get_labelled(key(1), &as_origin(&origin)).await.unwrap();
        assert_eq!((answer.bytes, answer.freshness), (page(key(1), PAGE), STALE));
        while cache.peek(&key(1)).is_none() {
            tokio::task::yield_now().await;
        }
        // The record is in RAM a moment before it is queued for the device.
        while cache.stats().nvme_writes == 0 {
            tokio::task::yield_now().await;
        }
        cache.close().await;
        drop(cache);
        let cache = Cache::open(setup.options.clone()).unwrap();
        let answer = cache.get_labelled(key(1), &as_origin(&origin)).await.unwrap();
        assert_eq!((answer.bytes, answer.freshness), (page(Key { group: 2, item: 1 }, PAGE), Freshness::Fresh));
        assert_eq!((origin.calls(), cache.stats().nvme_hits), (1, 1));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_expired_record_on_the_device_is_served_if_the_origin_fails() {
    on_both(|dir, backend| async move {
        let origin = TestOrigin::new(PAGE);
        let mut setup = small_ram(&dir, backend);
        setup.options.ttl = Some(SECOND * 60);
        setup.options.stale = Stale { while_revalidate: Duration::ZERO, if_error: SECOND * 10 };
        let cache = Cache::open(setup.options).unwrap();
        cache.insert(key(1), page(key(1), PAGE), Place::Nvme);
        cache.written().await;
        setup.clock.advance(SECOND * 65);
        origin.failing.store(true, SeqCst);
        for _ in 0..3 {
            let answer = cache.get_labelled(key(1), &as_origin(&origin)).await.unwrap();
            assert_eq!((answer.bytes, answer.freshness), (page(key(1), PAGE), STALE));
        }
        assert_eq!((origin.calls(), cache.stats().stale_on_error), (1, 3));
        setup.clock.advance(SECOND * 5);
        assert!(cache.get_labelled(key(1), &as_origin(&origin)).await.is_err(), "the window is over");
        assert_eq!(cache.stats().expired, 1);
    })
    .await;
}
