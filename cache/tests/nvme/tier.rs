//! What the tier keeps: across RAM evictions, restarts, expiry and its own fullness.

use std::time::Duration;

use bytes::Bytes;
use holdfast_cache::{Cache, Error, Key, NvmeOptions, Place};

use crate::{
    MIB, PAGE, SMALLEST,
    common::{TestOrigin, as_origin, key, page, setup},
    on_both, open, small_ram,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_left_ram_comes_back_from_nvme_without_a_fetch() {
    on_both(|dir, backend| async move {
        let (cache, origin) = (open(&dir, backend), TestOrigin::new(PAGE));
        let origin_dyn = as_origin(&origin);
        for item in 0..100 {
            cache.get(key(item), &origin_dyn).await.unwrap();
        }
        cache.written().await;
        assert_eq!(origin.calls(), 100);
        for item in 0..100 {
            assert_eq!(cache.get(key(item), &origin_dyn).await.unwrap(), page(key(item), PAGE));
        }
        assert_eq!(origin.calls(), 100);
        let stats = cache.stats();
        assert!(stats.nvme_hits >= 90, "{stats:?}");
        assert_eq!((stats.nvme_writes, stats.nvme_entries), (100, 100), "{stats:?}");
        assert_eq!((stats.nvme_bad_slots, stats.nvme_io_errors, stats.nvme_rejected), (0, 0, 0));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_size_from_empty_to_the_largest_slot_round_trips() {
    on_both(|dir, backend| async move {
        let (cache, origin) = (open(&dir, backend), TestOrigin::new(0));
        let sizes = [0, 1, 4032, 4033, PAGE, 100_000, (1 << 20) - 64];
        for (item, size) in sizes.iter().enumerate() {
            cache.insert(key(item as u32), page(key(item as u32), *size), Place::Nvme);
        }
        cache.insert(key(99), page(key(99), 1 << 20), Place::Nvme);
        cache.written().await;
        assert_eq!(cache.stats().nvme_rejected, 1, "the one that is larger than the largest slot");
        for (item, size) in sizes.iter().enumerate() {
            let read = cache.get(key(item as u32), &as_origin(&origin)).await.unwrap();
            assert_eq!(read, page(key(item as u32), *size));
        }
        assert_eq!(origin.calls(), 0);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_for_room_loses_nothing_to_a_full_queue() {
    on_both(|dir, backend| async move {
        let cache = open(&dir, backend);
        for item in 0..700 {
            cache.room().await;
            cache.insert(key(item), page(key(item), PAGE), Place::Nvme);
        }
        cache.written().await;
        let stats = cache.stats();
        assert_eq!((stats.nvme_writes, stats.nvme_rejected), (700, 0), "{stats:?}");
        cache.close().await;
        cache.room().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_outlive_a_clean_close_and_a_drop() {
    on_both(|dir, backend| async move {
        let origin = TestOrigin::new(PAGE);
        for (round, clean) in [(0, true), (1, false), (2, true)] {
            let cache = open(&dir, backend);
            assert_eq!(cache.stats().nvme_entries, round * 200);
            for item in 0..200 {
                let key = Key { group: round.into(), item };
                cache.insert(key, page(key, PAGE), Place::Nvme);
                // The queue is bounded; this test wants every record.
                if item % 100 == 99 {
                    cache.written().await;
                }
            }
            if clean {
                cache.close().await;
            }
        }
        let cache = open(&dir, backend);
        for group in 0..3 {
            for item in 0..200 {
                let key = Key { group, item };
                assert_eq!(cache.get(key, &as_origin(&origin)).await.unwrap(), page(key, PAGE));
            }
        }
        assert_eq!(origin.calls(), 0);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_tier_recycles_its_oldest_zone_and_keeps_what_is_read() {
    on_both(|dir, backend| async move {
        let (cache, origin) = (open(&dir, backend), TestOrigin::new(PAGE));
        let origin_dyn = as_origin(&origin);
        // Three times what fits; ten keys are read again and again.
        for item in 0..2400 {
            cache.insert(key(item), page(key(item), PAGE), Place::Nvme);
            if item % 100 == 99 {
                cache.written().await;
                for hot in 0..10 {
                    let read = cache.get(key(hot), &origin_dyn).await.unwrap();
                    assert_eq!(read, page(key(hot), PAGE));
                    cache.insert(key(1_000_000), page(key(0), 60 << 10), Place::Ram);
                }
            }
        }
        let stats = cache.stats();
        assert_eq!(origin.calls(), 0, "the hot keys never left: {stats:?}");
        assert!(stats.nvme_evictions > 1000, "{stats:?}");
        assert!(stats.nvme_bytes <= stats.nvme_capacity && stats.nvme_entries > 500, "{stats:?}");
        assert_eq!((stats.nvme_bad_slots, stats.nvme_io_errors), (0, 0), "{stats:?}");
        // Newest there, oldest gone, and a miss is fetched.
        assert_eq!(cache.get(key(2399), &origin_dyn).await.unwrap(), page(key(2399), PAGE));
        assert_eq!(origin.calls(), 0);
        assert_eq!(cache.get(key(20), &origin_dyn).await.unwrap(), page(key(20), PAGE));
        assert_eq!(origin.calls(), 1);
        let file = std::fs::metadata(dir.join("pages.cache")).unwrap();
        assert_eq!(file.len(), SMALLEST, "the file never grows");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stored_deadlines_hold_after_a_restart() {
    on_both(|dir, backend| async move {
        let origin = TestOrigin::new(PAGE);
        let mut setup = small_ram(&dir, backend);
        setup.options.ttl = Some(Duration::from_secs(60));
        let cache = Cache::open(setup.options.clone()).unwrap();
        cache.insert(key(1), page(key(1), PAGE), Place::Nvme);
        cache.written().await;
        setup.clock.advance(Duration::from_secs(30));
        cache.insert(key(2), page(key(2), PAGE), Place::Nvme);
        cache.close().await;
        drop(cache);
        setup.clock.advance(Duration::from_secs(30));
        let cache = Cache::open(setup.options.clone()).unwrap();
        cache.get(key(2), &as_origin(&origin)).await.unwrap();
        assert_eq!(origin.calls(), 0);
        cache.get(key(1), &as_origin(&origin)).await.unwrap();
        assert_eq!(origin.calls(), 1);
        // And while running: RAM keeps the deadline that the slot had.
        setup.clock.advance(Duration::from_secs(30));
        cache.get(key(2), &as_origin(&origin)).await.unwrap();
        assert_eq!(origin.calls(), 2);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_insert_replaces_what_nvme_has_and_a_removal_hides_it() {
    on_both(|dir, backend| async move {
        let (cache, origin) = (open(&dir, backend), TestOrigin::new(PAGE));
        let read = async |item| cache.get(key(item), &as_origin(&origin)).await.unwrap();
        for item in 0..3 {
            cache.insert(key(item), Bytes::from_static(b"old"), Place::Nvme);
        }
        cache.written().await;
        cache.insert(key(0), Bytes::from_static(b"new"), Place::Nvme);
        cache.written().await;
        assert_eq!(read(0).await, "new");
        cache.remove(&key(1));
        assert_eq!(read(1).await, page(key(1), PAGE));
        cache.remove_groups(&[1]);
        assert_eq!(cache.stats().nvme_entries, 0);
        assert_eq!(read(2).await, page(key(2), PAGE));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_written_by_one_backend_is_read_by_the_other_and_in_another_size() {
    on_both(|dir, backend| async move {
        let origin = TestOrigin::new(PAGE);
        let other = match backend {
            holdfast_cache::Backend::Ring => holdfast_cache::Backend::Threads,
            _ => holdfast_cache::Backend::Ring,
        };
        let cache = open(&dir, backend);
        cache.insert(key(1), page(key(1), PAGE), Place::Nvme);
        cache.close().await;
        drop(cache);
        let larger = NvmeOptions { backend: other, ..NvmeOptions::new(&dir, SMALLEST + 8 * MIB) };
        let cache = Cache::open(setup(64 << 10, Some(larger)).options).unwrap();
        assert_eq!(cache.get(key(1), &as_origin(&origin)).await.unwrap(), page(key(1), PAGE));
        assert_eq!(origin.calls(), 0);
    })
    .await;
}

#[test]
fn a_tier_that_is_too_small_or_cannot_be_made_is_refused_with_its_reason() {
    let dir = tempfile::tempdir().unwrap();
    let small = Cache::open(setup(1 << 20, Some(NvmeOptions::new(dir.path(), SMALLEST - 1))).options);
    assert!(matches!(&small, Err(Error::Invalid(why)) if why.contains("16777216")), "{:?}", small.err());
    let file = dir.path().join("file");
    std::fs::write(&file, "in the way").unwrap();
    let blocked = Cache::open(setup(1 << 20, Some(NvmeOptions::new(&file, SMALLEST))).options);
    assert!(matches!(&blocked, Err(Error::Nvme { path, .. }) if *path == file), "{:?}", blocked.err());
}

#[tokio::test]
async fn the_write_queue_is_bounded() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let cache = open(folder.path(), holdfast_cache::Backend::Auto);
    let content = page(key(0), 512 << 10);
    for item in 0..200 {
        cache.insert(key(item), content.clone(), Place::Nvme);
    }
    cache.written().await;
    let stats = cache.stats();
    assert!(stats.nvme_rejected > 0, "100 MiB at once cannot all have been queued: {stats:?}");
    assert_eq!(stats.nvme_rejected + stats.nvme_writes, 200);
}
