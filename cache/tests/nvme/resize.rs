//! The tier made larger and smaller: while it serves, and from one start to the next.

use std::{os::unix::fs::MetadataExt, path::Path};

use holdfast_cache::{Backend, Cache, Error, NvmeOptions, Place};

use crate::{
    MIB, PAGE, SMALLEST,
    common::{TestOrigin, as_origin, key, page, ram_only, setup},
    on_both, open,
};

/// What fits into twice the smallest tier, and not into the smallest.
const RECORDS: u32 = 1900;

fn open_sized(dir: &Path, backend: Backend, bytes: u64) -> Cache {
    let nvme = NvmeOptions { backend, ..NvmeOptions::new(dir, bytes) };
    Cache::open(setup(64 << 10, Some(nvme)).options).unwrap()
}

async fn fill(cache: &Cache, items: impl Iterator<Item = u32>) {
    for item in items {
        cache.room().await;
        cache.insert(key(item), page(key(item), PAGE), Place::Nvme);
    }
    cache.written().await;
}

/// How many of the records are read without a fetch; each is right in any case.
async fn kept(cache: &Cache, items: impl Iterator<Item = u32>) -> u64 {
    let (origin, mut asked) = (TestOrigin::new(PAGE), 0);
    for item in items {
        asked += 1;
        assert_eq!(cache.get(key(item), &as_origin(&origin)).await.unwrap(), page(key(item), PAGE), "key {item}");
    }
    asked - origin.calls()
}

/// Bytes that the file takes on its disk.
fn taken(dir: &Path) -> u64 {
    std::fs::metadata(dir.join("pages.cache")).unwrap().blocks() * 512
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn growing_while_it_serves_makes_room_at_once() {
    on_both(|dir, backend| async move {
        let cache = open(&dir, backend);
        fill(&cache, 0..600).await;
        cache.resize_nvme(2 * SMALLEST).await.unwrap();
        assert_eq!(cache.stats().nvme_capacity, 2 * SMALLEST);
        fill(&cache, 600..RECORDS).await;
        assert_eq!(kept(&cache, 0..RECORDS).await, RECORDS.into());
        let stats = cache.stats();
        assert_eq!((stats.nvme_evictions, stats.nvme_io_errors, stats.nvme_bad_slots), (0, 0, 0), "{stats:?}");
        assert!(taken(&dir) >= 2 * SMALLEST, "allocated, not only written");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shrinking_while_it_serves_keeps_what_is_read_and_gives_the_space_back() {
    on_both(|dir, backend| async move {
        let cache = open_sized(&dir, backend, 2 * SMALLEST);
        fill(&cache, 0..RECORDS).await;
        // Among the oldest.
        assert_eq!(kept(&cache, 0..100).await, 100);
        cache.resize_nvme(SMALLEST).await.unwrap();
        assert_eq!(kept(&cache, 0..100).await, 100, "read before");
        assert_eq!(kept(&cache, RECORDS - 400..RECORDS).await, 400, "the newest");
        let stats = cache.stats();
        assert_eq!(stats.nvme_capacity, SMALLEST);
        assert!(stats.nvme_bytes <= SMALLEST && stats.nvme_evictions >= 500, "{stats:?}");
        assert_eq!((stats.nvme_io_errors, stats.nvme_bad_slots), (0, 0), "{stats:?}");
        assert!(taken(&dir) <= SMALLEST + MIB, "{} bytes taken", taken(&dir));
        // And back: the holes are filled again.
        cache.resize_nvme(2 * SMALLEST).await.unwrap();
        fill(&cache, 10_000..10_500).await;
        assert_eq!(kept(&cache, 10_000..10_500).await, 500);
        assert!(taken(&dir) >= 2 * SMALLEST, "{} bytes taken", taken(&dir));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_notice_nothing_of_a_change_of_size() {
    on_both(|dir, backend| async move {
        let cache = open_sized(&dir, backend, 2 * SMALLEST);
        fill(&cache, 0..RECORDS).await;
        let changes = async {
            for bytes in [SMALLEST, 2 * SMALLEST, SMALLEST + 4 * MIB, SMALLEST] {
                cache.resize_nvme(bytes).await.unwrap();
            }
        };
        let reads = async {
            for _ in 0..3 {
                kept(&cache, 0..RECORDS).await;
            }
        };
        tokio::join!(changes, reads);
        let stats = cache.stats();
        assert_eq!((stats.nvme_io_errors, stats.nvme_bad_slots), (0, 0), "{stats:?}");
        assert!(stats.nvme_bytes <= stats.nvme_capacity, "{stats:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_in_a_smaller_size_keeps_the_newest() {
    on_both(|dir, backend| async move {
        let cache = open_sized(&dir, backend, 2 * SMALLEST);
        fill(&cache, 0..RECORDS).await;
        cache.close().await;
        drop(cache);
        let cache = open(&dir, backend);
        // What is over the bound is given up behind the start; a change of size waits its turn.
        cache.resize_nvme(SMALLEST).await.unwrap();
        assert_eq!(kept(&cache, RECORDS - 700..RECORDS).await, 700);
        assert_eq!(cache.stats().nvme_capacity, SMALLEST);
        assert!(taken(&dir) <= SMALLEST + MIB, "{} bytes taken", taken(&dir));
    })
    .await;
}

#[tokio::test]
async fn a_size_that_cannot_be_is_refused_with_its_reason() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let cache = open(folder.path(), Backend::Auto);
    let small = cache.resize_nvme(SMALLEST - 1).await;
    assert!(matches!(&small, Err(Error::Invalid(why)) if why.contains("the least is 16777216")), "{small:?}");
    let huge = cache.resize_nvme(1 << 60).await;
    assert!(matches!(&huge, Err(Error::Invalid(_))), "{huge:?}");
    // More than any disk has here: the size stays as it was, and the cache works.
    let full = cache.resize_nvme(60 << 40).await;
    assert!(matches!(&full, Err(Error::Nvme { source, .. }) if source.to_string().contains("do not fit")), "{full:?}");
    assert_eq!(std::fs::metadata(folder.path().join("pages.cache")).unwrap().len(), SMALLEST);
    fill(&cache, 0..100).await;
    assert_eq!((kept(&cache, 0..100).await, cache.stats().nvme_capacity), (100, SMALLEST));
    cache.close().await;
    assert!(matches!(cache.resize_nvme(SMALLEST).await, Err(Error::Nvme { .. })));
    assert!(matches!(ram_only(1 << 20).resize_nvme(SMALLEST).await, Err(Error::Invalid(_))));
}
