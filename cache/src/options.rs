//! Owns the options of a cache.

use std::{path::PathBuf, sync::Arc, time::Duration};

use crate::{Backend, Clock, Device};

/// Options of [`crate::Cache::open`].
#[derive(Clone)]
pub struct CacheOptions {
    /// Bound of the RAM tier in bytes, the estimated overhead of each entry included.
    pub ram_bytes: u64,
    /// The NVMe tier; `None` for RAM only.
    pub nvme: Option<NvmeOptions>,
    /// How long a record is served after it was stored; `None` for ever.
    pub ttl: Option<Duration>,
    /// The share of the TTL, in percent, by which a record's may be shorter, so that records stored together do not
    /// expire together. Derived from the key and the clock: the same run gives the same deadlines. At most 100.
    pub ttl_jitter_percent: u8,
    /// How long expired records may still be served.
    pub stale: Stale,
    /// How long a failed fetch answers the readers of its key before the origin is asked again: a storm of readers is
    /// one fetch per key in this time. Fetches for keys that have an expired record to serve wait twice as long after
    /// each further failure, up to 64 times this. Remembered for some thousands of keys; zero for not at all.
    pub retry_after: Duration,
    /// The clock that expiry reads.
    pub clock: Arc<dyn Clock>,
}

impl CacheOptions {
    /// A RAM cache of `ram_bytes` bytes whose records never expire. A TTL set later is jittered by up to 10 %, nothing
    /// stale is served, and a failed fetch is repeated after 100 ms at the earliest.
    pub fn new(ram_bytes: u64, clock: Arc<dyn Clock>) -> Self {
        let (stale, retry_after) = (Stale::default(), Duration::from_millis(100));
        Self { ram_bytes, nvme: None, ttl: None, ttl_jitter_percent: 10, stale, retry_after, clock }
    }
}

/// How long past its deadline a record may be served, as RFC 5861 has it. The default is not at all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stale {
    /// Within this time an expired record is served at once, and a fetch in the background replaces it.
    pub while_revalidate: Duration,
    /// Within this time an expired record is served if the origin fails.
    pub if_error: Duration,
}

/// The NVMe tier's place and size.
#[derive(Clone, Debug)]
pub struct NvmeOptions {
    /// Folder of the cache file; made if missing. It must belong to one cache at a time.
    pub dir: PathBuf,
    /// Bytes to preallocate, rounded down to whole zones of 4 MiB; at least four of them. A file that is larger is made
    /// smaller.
    pub bytes: u64,
    /// Who does the I/O.
    pub backend: Backend,
    /// How long [`crate::Cache::open`] waits while the file is indexed (some 0.1 s for 10 GB). After that it goes on
    /// behind: what is not indexed yet is a miss.
    pub index_wait: Duration,
    /// Put around the device; for tests.
    pub wrap: Option<Wrap>,
}

impl NvmeOptions {
    /// A tier of `bytes` bytes in `dir`, with the best backend that works here, and two seconds for its index.
    pub fn new(dir: impl Into<PathBuf>, bytes: u64) -> Self {
        Self { dir: dir.into(), bytes, backend: Backend::Auto, index_wait: Duration::from_secs(2), wrap: None }
    }
}

/// Puts a wrapper around a device.
pub type WrapFn = dyn Fn(Arc<dyn Device>) -> Arc<dyn Device> + Send + Sync;

/// A [`WrapFn`], as [`NvmeOptions::wrap`] holds it.
#[derive(Clone)]
pub struct Wrap(pub Arc<WrapFn>);

impl std::fmt::Debug for Wrap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Wrap")
    }
}
