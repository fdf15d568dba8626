//! A start that does not wait for its index: what is not known yet is a miss, and what went meanwhile stays away.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};

use bytes::Bytes;
use holdfast_cache::{
    Backend, Cache, Device, NvmeOptions, Place, Wrap,
    device::{Direction, Transfer},
};
use parking_lot::Mutex;
use tempfile::TempDir;

use crate::{
    PAGE, SMALLEST,
    common::{TestOrigin, as_origin, key, page, setup},
    open,
};

/// Holds every read until it is told to let them go.
struct Held {
    inner: Arc<dyn Device>,
    gate: Arc<Gate>,
}

#[derive(Default)]
struct Gate {
    open: AtomicBool,
    held: Mutex<Vec<Transfer>>,
}

impl Device for Held {
    fn submit(&self, transfer: Transfer) {
        let mut held = self.gate.held.lock();
        if transfer.direction == Direction::Read && !self.gate.open.load(SeqCst) {
            held.push(transfer);
        } else {
            drop(held);
            self.inner.submit(transfer);
        }
    }
}

/// A cache whose file is indexed only once it is released.
struct Unindexed {
    cache: Cache,
    gate: Arc<Gate>,
    device: Arc<dyn Device>,
}

impl Unindexed {
    fn open(folder: &Path) -> Self {
        let gate = Arc::new(Gate::default());
        let inner_device = Arc::new(Mutex::new(None));
        let (of_wrap, keep) = (gate.clone(), inner_device.clone());
        let wrap = Wrap(Arc::new(move |inner: Arc<dyn Device>| {
            *keep.lock() = Some(inner.clone());
            Arc::new(Held { inner, gate: of_wrap.clone() }) as Arc<dyn Device>
        }));
        let nvme = NvmeOptions { wrap: Some(wrap), index_wait: Duration::ZERO, ..NvmeOptions::new(folder, SMALLEST) };
        let cache = Cache::open(setup(64 << 10, Some(nvme)).options).unwrap();
        let device = inner_device.lock().clone().unwrap();
        Self { cache, gate, device }
    }

    fn release(&self) {
        let held = {
            let mut held = self.gate.held.lock();
            self.gate.open.store(true, SeqCst);
            std::mem::take(&mut *held)
        };
        held.into_iter().for_each(|transfer| self.device.submit(transfer));
    }
}

/// The folder of a closed cache that has 300 pages.
async fn filled() -> TempDir {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let cache = open(folder.path(), Backend::Auto);
    for item in 0..300 {
        cache.insert(key(item), page(key(item), PAGE), Place::Nvme);
    }
    cache.close().await;
    folder
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cache_serves_before_its_file_is_indexed() {
    let folder = filled().await;
    let held = Unindexed::open(folder.path());
    let cache = &held.cache;
    let origin = TestOrigin::new(PAGE);
    let origin_dyn = as_origin(&origin);
    assert_eq!(cache.stats().nvme_entries, 0);
    assert_eq!(cache.get(key(1), &origin_dyn).await.unwrap(), page(key(1), PAGE));
    assert_eq!(origin.calls(), 1, "not indexed yet");
    cache.remove(&key(2));
    cache.insert(key(3), Bytes::from_static(b"new"), Place::Nvme);

    held.release();
    // What was queued is written once the file is indexed.
    cache.written().await;
    assert_eq!(cache.get(key(3), &origin_dyn).await.unwrap(), "new");
    for item in 4..300 {
        assert_eq!(cache.get(key(item), &origin_dyn).await.unwrap(), page(key(item), PAGE));
    }
    assert_eq!(origin.calls(), 1);
    assert_eq!(cache.get(key(2), &origin_dyn).await.unwrap(), page(key(2), PAGE));
    assert_eq!(origin.calls(), 2, "removed while it was not known");
}

/// What a start can't index, since it does not know what of it went, is still older than all that it writes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_removals_than_are_remembered_bring_nothing_old_back() {
    let folder = filled().await;
    let held = Unindexed::open(folder.path());
    let others: Vec<u128> = (1000..1000 + (1 << 20) + 1).collect();
    held.cache.remove_groups(&others);
    for item in [0, 299] {
        held.cache.insert(key(item), Bytes::from_static(b"new"), Place::Nvme);
    }
    held.release();
    held.cache.written().await;
    assert_eq!(held.cache.stats().nvme_entries, 2, "nothing is indexed");
    held.cache.close().await;
    drop(held);

    let (cache, origin) = (open(folder.path(), Backend::Auto), TestOrigin::new(PAGE));
    for item in [0, 299] {
        assert_eq!(cache.get(key(item), &as_origin(&origin)).await.unwrap(), "new", "key {item}");
    }
    assert_eq!(origin.calls(), 0);
}
