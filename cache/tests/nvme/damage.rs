//! The cache file deleted, cut or filled with garbage while stopped: never an error, never a wrong byte.

use std::{fs, path::Path};

use holdfast_cache::{Backend, Place};
use rand::{RngExt, SeedableRng, rngs::StdRng};

use crate::{
    PAGE,
    common::{TestOrigin, as_origin, key, page},
    on_both, open,
};

const RECORDS: u32 = 600;

/// Fills a tier, stops it, damages its file, and reads everything back. Returns how many fetches that took.
async fn fetches_after(dir: &Path, backend: Backend, damage: impl FnOnce(&Path)) -> u64 {
    let cache = open(dir, backend);
    for item in 0..RECORDS {
        cache.insert(key(item), page(key(item), PAGE), Place::Nvme);
        if item % 100 == 99 {
            cache.written().await;
        }
    }
    cache.close().await;
    drop(cache);
    damage(&dir.join("pages.cache"));

    let (cache, origin) = (open(dir, backend), TestOrigin::new(PAGE));
    for item in 0..RECORDS {
        assert_eq!(cache.get(key(item), &as_origin(&origin)).await.unwrap(), page(key(item), PAGE), "key {item}");
    }
    // The tier goes on working: what was fetched is stored again, and found.
    cache.written().await;
    let after_first = origin.calls();
    for item in 0..RECORDS {
        assert_eq!(cache.get(key(item), &as_origin(&origin)).await.unwrap(), page(key(item), PAGE), "key {item}");
    }
    let again = origin.calls() - after_first;
    assert!(again < u64::from(RECORDS) / 4, "{again} fetched a second time");
    after_first
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn untouched() {
    on_both(|dir, backend| async move {
        assert_eq!(fetches_after(&dir, backend, |_| {}).await, 0);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deleted() {
    on_both(|dir, backend| async move {
        let all = fetches_after(&dir, backend, |file| fs::remove_file(file).unwrap()).await;
        assert_eq!(all, RECORDS.into());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cut_in_the_middle() {
    on_both(|dir, backend| async move {
        let cut = |file: &Path| fs::File::options().write(true).open(file).unwrap().set_len((5 << 20) + 1234).unwrap();
        let some = fetches_after(&dir, backend, cut).await;
        assert!((100..RECORDS.into()).contains(&some), "{some}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn filled_with_garbage() {
    on_both(|dir, backend| async move {
        let garbage = |file: &Path| {
            let mut noise = vec![0; fs::metadata(file).unwrap().len() as usize];
            StdRng::seed_from_u64(7).fill(&mut noise[..]);
            fs::write(file, noise).unwrap();
        };
        assert_eq!(fetches_after(&dir, backend, garbage).await, RECORDS.into());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn single_bits_flipped_everywhere() {
    on_both(|dir, backend| async move {
        let flips = |file: &Path| {
            let mut rng = StdRng::seed_from_u64(11);
            let mut bytes = fs::read(file).unwrap();
            for _ in 0..300 {
                let at = rng.random_range(0..bytes.len());
                bytes[at] ^= 1 << rng.random_range(0..8);
            }
            fs::write(file, bytes).unwrap();
        };
        let some = fetches_after(&dir, backend, flips).await;
        assert!((1..RECORDS.into()).contains(&some), "{some}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn directories_lost() {
    on_both(|dir, backend| async move {
        // The last block of every 4 MiB: slots are then found by their headers.
        let wipe = |file: &Path| {
            let mut bytes = fs::read(file).unwrap();
            for zone in bytes.chunks_mut(4 << 20) {
                let at = zone.len() - (4 << 10);
                zone[at..].fill(0);
            }
            fs::write(file, bytes).unwrap();
        };
        assert_eq!(fetches_after(&dir, backend, wipe).await, 0);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn written_by_a_later_version() {
    on_both(|dir, backend| async move {
        let newer = |file: &Path| {
            let mut bytes = fs::read(file).unwrap();
            bytes[4] = 9;
            let crc = crc32fast::hash(&bytes[..60]);
            bytes[60..64].copy_from_slice(&crc.to_le_bytes());
            fs::write(file, bytes).unwrap();
        };
        assert_eq!(fetches_after(&dir, backend, newer).await, RECORDS.into());
    })
    .await;
}
