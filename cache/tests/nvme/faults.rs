//! Device errors under a running tier: each is a miss or a record not stored, never an error of the reader.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
};

use holdfast_cache::{
    Backend, Cache, Device, NvmeOptions, Place, Wrap,
    device::{Direction, Transfer},
};

use crate::{
    PAGE, SMALLEST,
    common::{TestOrigin, as_origin, key, page, setup},
};

/// Fails or spoils chosen transfers of one direction.
struct Faulty {
    inner: Arc<dyn Device>,
    direction: Direction,
    fault: Fault,
    seen: Arc<AtomicU64>,
    /// Which transfers fail: the n-th alone, or from the n-th on.
    first: u64,
    last: u64,
}

#[derive(Clone, Copy, Debug)]
enum Fault {
    /// The device says EIO.
    Error,
    /// Success, but bytes are wrong.
    Corrupt,
}

impl Device for Faulty {
    fn submit(&self, mut transfer: Transfer) {
        let n = if transfer.direction == self.direction { self.seen.fetch_add(1, SeqCst) } else { u64::MAX };
        if n < self.first || n > self.last || n == u64::MAX {
            return self.inner.submit(transfer);
        }
        match (self.fault, self.direction) {
            (Fault::Error, _) => (transfer.done)(Err(io::Error::from_raw_os_error(libc::EIO))),
            (Fault::Corrupt, Direction::Write) => {
                transfer.buf.as_mut_slice().iter_mut().skip(100).step_by(1000).for_each(|byte| *byte ^= 0x40);
                self.inner.submit(transfer);
            }
            (Fault::Corrupt, Direction::Read) => {
                let done = transfer.done;
                transfer.done = Box::new(move |result| {
                    done(result.map(|mut buf| {
                        buf.as_mut_slice().iter_mut().skip(100).step_by(1000).for_each(|byte| *byte ^= 0x40);
                        buf
                    }))
                });
                self.inner.submit(transfer);
            }
        }
    }
}

fn faulty(dir: &std::path::Path, direction: Direction, fault: Fault, first: u64, last: u64) -> (Cache, Arc<AtomicU64>) {
    let seen = Arc::new(AtomicU64::new(0));
    let of_wrap = seen.clone();
    let wrap =
        Wrap(Arc::new(move |inner| Arc::new(Faulty { inner, direction, fault, seen: of_wrap.clone(), first, last })));
    let nvme = NvmeOptions { backend: Backend::Auto, wrap: Some(wrap), ..NvmeOptions::new(dir, SMALLEST) };
    (Cache::open(setup(64 << 10, Some(nvme)).options).unwrap(), seen)
}

/// Stores and reads 40 records while transfers fail. Everything read is right.
async fn run(direction: Direction, fault: Fault, first: u64, last: u64) -> (u64, holdfast_cache::Stats, u64) {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let (cache, seen) = faulty(folder.path(), direction, fault, first, last);
    let origin = TestOrigin::new(PAGE);
    for item in 0..40 {
        cache.insert(key(item), page(key(item), PAGE), Place::Nvme);
        cache.written().await;
    }
    for item in 0..40 {
        assert_eq!(cache.get(key(item), &as_origin(&origin)).await.unwrap(), page(key(item), PAGE));
    }
    cache.close().await;
    (origin.calls(), cache.stats(), seen.load(SeqCst))
}

#[tokio::test]
async fn the_nth_read_fails() {
    // 8 reads belong to the scan of four zones: of each its first block, which decides in an empty file, then its end.
    let (_, _, all) = run(Direction::Read, Fault::Error, u64::MAX - 1, u64::MAX - 1).await;
    assert_eq!(all, 48);
    for n in [0, 2, 6, 8, 20, 47] {
        let (fetches, stats, _) = run(Direction::Read, Fault::Error, n, n).await;
        assert_eq!(stats.nvme_io_errors, 1, "read {n}");
        assert_eq!(fetches, u64::from(n >= 8), "read {n}");
    }
}

#[tokio::test]
async fn the_nth_write_fails() {
    for n in [0, 1, 20, 39, 40] {
        let (fetches, stats, all) = run(Direction::Write, Fault::Error, n, n).await;
        assert_eq!(all, 41 + u64::from(n < 40), "40 records, the directory, and what was fetched is stored again");
        assert_eq!(stats.nvme_io_errors, 1, "write {n}");
        assert_eq!(fetches, u64::from(n < 40), "write {n}");
    }
}

#[tokio::test]
async fn a_device_that_only_fails_is_a_cache_that_only_misses() {
    for direction in [Direction::Read, Direction::Write] {
        let (fetches, stats, _) = run(direction, Fault::Error, 0, u64::MAX - 1).await;
        assert_eq!(fetches, 40);
        assert_eq!(stats.nvme_hits, 0);
        assert!(stats.nvme_io_errors >= 40, "{stats:?}");
    }
}

#[tokio::test]
async fn silent_corruption_is_found_and_counted() {
    for direction in [Direction::Read, Direction::Write] {
        let (fetches, stats, _) = run(direction, Fault::Corrupt, 8, u64::MAX - 1).await;
        assert!(fetches >= 32, "{direction:?}: {fetches}");
        assert_eq!(stats.nvme_bad_slots, fetches, "{direction:?}");
        assert_eq!(stats.nvme_io_errors, 0);
    }
}
