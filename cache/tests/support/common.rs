//! What the cache's tests share: an origin that counts and can be held or failed, and a clock that stands still.
#![allow(dead_code)] // each test binary takes in the whole file and uses its part of it
#![allow(missing_docs, clippy::expect_used)] // test support: a failed set-up is a failed test

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use bytes::Bytes;
use holdfast_cache::{BoxFuture, Cache, CacheOptions, Clock, Key, NvmeOptions, Origin, OriginError};
use tokio::sync::Semaphore;

/// A clock that moves when told.
#[derive(Default)]
pub struct ManualClock(AtomicU64);

impl ManualClock {
    pub fn advance(&self, by: Duration) {
        self.0.fetch_add(by.as_millis() as u64, SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Duration {
        Duration::from_millis(self.0.load(SeqCst))
    }
}

/// Makes each key's page from the key, counts its calls, and answers only through its gate.
pub struct TestOrigin {
    pub calls: AtomicU64,
    pub failing: AtomicBool,
    /// Added to each key's group to make its page: what a mutable origin has now.
    pub edition: AtomicU64,
    pub gate: Semaphore,
    pub size: usize,
}

impl TestOrigin {
    pub fn new(size: usize) -> Arc<Self> {
        Arc::new(Self {
            calls: AtomicU64::new(0),
            failing: AtomicBool::new(false),
            edition: AtomicU64::new(0),
            gate: Semaphore::new(Semaphore::MAX_PERMITS),
            size,
        })
    }

    /// An origin whose calls wait until `gate` gets permits.
    pub fn held(size: usize) -> Arc<Self> {
        let origin = Self::new(size);
        origin.gate.forget_permits(Semaphore::MAX_PERMITS);
        origin
    }

    pub fn calls(&self) -> u64 {
        self.calls.load(SeqCst)
    }
}

pub fn as_origin(origin: &Arc<TestOrigin>) -> Arc<dyn Origin> {
    origin.clone()
}

impl Origin for TestOrigin {
    fn fetch(&self, key: Key) -> BoxFuture<'_, Result<Bytes, OriginError>> {
        self.calls.fetch_add(1, SeqCst);
        Box::pin(async move {
            self.gate.acquire().await.expect("the gate is never closed").forget();
            if self.failing.load(SeqCst) {
                return Err(OriginError(Arc::new(std::io::Error::other("the origin is down"))));
            }
            let group = key.group + u128::from(self.edition.load(SeqCst));
            Ok(page(Key { group, ..key }, self.size))
        })
    }
}

/// The content of a key, different in every 8 bytes.
pub fn page(key: Key, size: usize) -> Bytes {
    let seed = (key.group as u64) << 32 | u64::from(key.item);
    (0..size.div_ceil(8) as u64).flat_map(|n| (seed ^ n.wrapping_mul(0x9E37_79B9)).to_le_bytes()).take(size).collect()
}

pub fn key(item: u32) -> Key {
    Key { group: 1, item }
}

pub struct Setup {
    pub clock: Arc<ManualClock>,
    pub options: CacheOptions,
}

pub fn setup(ram_bytes: u64, nvme: Option<NvmeOptions>) -> Setup {
    let clock = Arc::new(ManualClock::default());
    Setup {
        clock: clock.clone(),
        options: CacheOptions { nvme, ttl_jitter_percent: 0, ..CacheOptions::new(ram_bytes, clock) },
    }
}

pub fn ram_only(ram_bytes: u64) -> Cache {
    Cache::open(setup(ram_bytes, None).options).expect("a RAM cache opens")
}
