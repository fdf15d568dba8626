//! The Holdfast page cache: RAM, then one fetch in flight per key, then NVMe, then the origin.
//!
//! This crate knows opaque keys and bytes. It must never know log indexes, manifests or S3.

mod admit;
mod flight;
mod key;
mod nvme;
mod ram;
mod stats;
mod ttl;

use std::{future::Future, path::PathBuf, pin::Pin, sync::Arc, time::Duration};

use bytes::Bytes;

use crate::{
    admit::Cause,
    flight::{Flights, Joined, Ticket},
    nvme::Nvme,
    ram::{Found, Ram},
    stats::Counters,
    ttl::Deadline,
};
pub use crate::{
    key::Key,
    nvme::device::{self, Backend, Device},
    stats::Stats,
};

/// NVMe slots are whole blocks of 4 KiB, this many bytes of which are a header: a record of 4 KiB times n less this
/// fills its slot exactly.
pub const SLOT_OVERHEAD: usize = nvme::slot::HEADER;

/// Reads that a record placed as [`Place::Hot`] is credited with. The policy's counters end at 15.
const HOT_READS: usize = 4;

/// A boxed future, as the seams of this crate return it.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Where misses are fetched from. The engine implements it with ranged GETs.
pub trait Origin: Send + Sync + 'static {
    /// Fetches one record. Called at most once at a time per key, however many readers wait.
    fn fetch(&self, key: Key) -> BoxFuture<'_, Result<Bytes, OriginError>>;
}

/// A failed fetch, shared by every reader that waited for it.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub struct OriginError(pub Arc<dyn std::error::Error + Send + Sync>);

/// Time, injected so that simulations own it. Expiry reads this clock only.
pub trait Clock: Send + Sync + 'static {
    /// Time since a fixed start; never goes back within a run. With an NVMe tier and a TTL the start must be the same
    /// in every run (the Unix epoch, say), because deadlines are stored: records whose deadline lies farther ahead than
    /// the TTL allows were written under another start, and are dropped.
    fn now(&self) -> Duration;
}

/// Why a read failed. The cache's own troubles (bad slots, device errors) are misses, never errors.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The origin failed; every reader that waited for the fetch gets the same error.
    #[error("fetch failed: {0}")]
    Origin(#[from] OriginError),
    /// The fetch ended without an answer: its runtime shut down, or the origin panicked.
    #[error("the fetch was aborted before it gave an answer")]
    Aborted,
    /// An option cannot be honoured; at open only.
    #[error("invalid cache option: {0}")]
    Invalid(String),
    /// The NVMe file cannot be made, opened or preallocated; at open only.
    #[error("NVMe cache {path}: {source}")]
    Nvme {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: Arc<std::io::Error>,
    },
}

/// Options of [`Cache::open`].
#[derive(Clone)]
pub struct CacheOptions {
    /// Bound of the RAM tier in bytes, the estimated overhead of each entry included.
    pub ram_bytes: u64,
    /// The NVMe tier; `None` for RAM only.
    pub nvme: Option<NvmeOptions>,
    /// How long a record is served after it was stored; `None` for ever.
    pub ttl: Option<Duration>,
    /// The clock that expiry reads.
    pub clock: Arc<dyn Clock>,
}

/// The NVMe tier's place and size.
#[derive(Clone, Debug)]
pub struct NvmeOptions {
    /// Folder of the cache file; made if missing. It must belong to one cache at a time.
    pub dir: PathBuf,
    /// Bytes to preallocate, rounded down to whole zones of 4 MiB; at least four of them.
    pub bytes: u64,
    /// Who does the I/O.
    pub backend: Backend,
    /// Put around the device; for tests.
    pub wrap: Option<Wrap>,
}

impl NvmeOptions {
    /// A tier of `bytes` bytes in `dir`, with the best backend that works here.
    pub fn new(dir: impl Into<PathBuf>, bytes: u64) -> Self {
        Self { dir: dir.into(), bytes, backend: Backend::Auto, wrap: None }
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

/// Where [`Cache::insert`] puts a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// RAM only.
    Ram,
    /// NVMe only, written in the background.
    Nvme,
    /// RAM now, NVMe in the background.
    Both,
    /// As `Both`, and counted as read before: a record that takes the place of one that readers had in RAM.
    Hot,
}

/// A two-tier cache. Cheap to clone.
#[derive(Clone)]
pub struct Cache(Arc<Shared>);

struct Shared {
    ram: Ram,
    flights: Arc<Flights>,
    nvme: Option<Nvme>,
    ttl: Option<Duration>,
    clock: Arc<dyn Clock>,
    counters: Counters,
}

impl Cache {
    /// Opens a cache. Blocks while the NVMe file is made or its slots are indexed.
    pub fn open(options: CacheOptions) -> Result<Self, Error> {
        let nvme = match &options.nvme {
            Some(nvme) => Some(Nvme::open(nvme, options.ttl, options.clock.clone())?),
            None => None,
        };
        Ok(Self(Arc::new(Shared {
            ram: Ram::new(options.ram_bytes),
            flights: Arc::default(),
            nvme,
            ttl: options.ttl,
            clock: options.clock,
            counters: Counters::default(),
        })))
    }

    /// A record that is in RAM. Never awaits; counts as a hit, or not at all.
    pub fn peek(&self, key: &Key) -> Option<Bytes> {
        self.0.peek(key)
    }

    /// Whether a record is in RAM. Counts as nothing.
    pub fn is_in_ram(&self, key: &Key) -> bool {
        self.0.ram.contains(key, || self.0.clock.now())
    }

    /// Whether a record is on NVMe, as far as its index knows. Counts as nothing.
    pub fn is_on_nvme(&self, key: &Key) -> bool {
        self.0.nvme.as_ref().is_some_and(|nvme| nvme.contains(key))
    }

    /// Keys of at most `max` records in RAM, in no order.
    pub fn ram_keys(&self, max: usize) -> Vec<Key> {
        self.0.ram.keys(max)
    }

    /// A record, from the first tier that has it. At most one fetch per key runs at a time, as a task on the current
    /// tokio runtime: dropping this future never takes another reader's answer away.
    pub async fn get(&self, key: Key, origin: &Arc<dyn Origin>) -> Result<Bytes, Error> {
        if let Some(bytes) = self.0.peek(&key) {
            return Ok(bytes);
        }
        self.0.counters.ram_misses.add(1);
        self.0.ram.note_miss(&key);
        let recheck = || self.0.peek(&key);
        let fetch = |ticket| Shared::fetch(self.0.clone(), key, origin.clone(), ticket);
        match self.0.flights.join(key, recheck, fetch) {
            Joined::Ready(bytes) => Ok(bytes),
            Joined::Leads(waiter) => waiter.answer().await,
            Joined::Waits(waiter) => {
                self.0.counters.coalesced.add(1);
                waiter.answer().await
            }
        }
    }

    /// Whether a read of the key needs no fetch of its own: it is in RAM or on NVMe, or being fetched. A guess: it may be gone
    /// a moment later.
    pub fn holds(&self, key: &Key) -> bool {
        let shared = &self.0;
        shared.ram.contains(key, || shared.clock.now())
            || shared.flights.contains(key)
            || shared.nvme.as_ref().is_some_and(|nvme| nvme.contains(key))
    }

    /// Stores a record, replacing what the key had. The bytes are copied: a slice of a larger buffer does not keep it.
    pub fn insert(&self, key: Key, bytes: Bytes, place: Place) {
        let shared = &self.0;
        shared.flights.supersede(&key);
        let deadline = shared.deadline();
        // A copy of an older record must not outlive this one in the other tier.
        let copy = match place {
            Place::Hot => {
                (0..HOT_READS).for_each(|_| shared.ram.note_miss(&key));
                shared.ram.insert(key, &bytes, deadline)
            }
            Place::Ram | Place::Both => shared.ram.insert(key, &bytes, deadline),
            Place::Nvme => {
                shared.ram.remove(&key);
                Bytes::copy_from_slice(&bytes)
            }
        };
        match &shared.nvme {
            Some(nvme) if place == Place::Ram => nvme.remove(&key),
            Some(nvme) => nvme.offer(key, copy, deadline, Cause::Inserted),
            None => {}
        }
    }

    /// Drops one record from every tier.
    pub fn remove(&self, key: &Key) {
        self.0.flights.supersede(key);
        self.0.ram.remove(key);
        if let Some(nvme) = &self.0.nvme {
            nvme.remove(key);
        }
    }

    /// Drops every record of a group from every tier.
    pub fn remove_group(&self, group: u128) {
        self.0.flights.supersede_group(group);
        self.0.ram.remove_group(group);
        if let Some(nvme) = &self.0.nvme {
            nvme.remove_group(group);
        }
    }

    /// Changes the bound of the RAM tier; what no longer fits is evicted before this returns.
    pub fn resize_ram(&self, bytes: u64) {
        self.0.ram.resize(bytes);
    }

    /// What the cache did and holds. Also publishes the figures through the `metrics` facade.
    pub fn stats(&self) -> Stats {
        let stats = self.0.stats();
        stats.publish();
        stats
    }

    /// Waits while more than half of the queue for NVMe is full. Whoever inserts many records waits here now and then, because
    /// what the queue has no room for is not stored there.
    pub async fn room(&self) {
        if let Some(nvme) = &self.0.nvme {
            nvme.room().await;
        }
    }

    /// Waits until what was queued for NVMe so far is on the device, or was given up.
    pub async fn written(&self) {
        if let Some(nvme) = &self.0.nvme {
            nvme.written().await;
        }
    }

    /// Writes out what is queued for NVMe, and stores nothing there from now on. Reads go on. A cache dropped without
    /// it loses at most what was queued.
    pub async fn close(&self) {
        if let Some(nvme) = &self.0.nvme {
            nvme.close().await;
        }
    }
}

impl Shared {
    fn peek(&self, key: &Key) -> Option<Bytes> {
        match self.ram.get(key, || self.clock.now()) {
            Found::Hit(bytes) => {
                self.counters.ram_hits.add(1);
                Some(bytes)
            }
            Found::Expired => {
                self.counters.expired.add(1);
                None
            }
            Found::Miss => None,
        }
    }

    /// What one flight does: the tiers below RAM, in order.
    async fn fetch(self: Arc<Self>, key: Key, origin: Arc<dyn Origin>, ticket: Arc<Ticket>) -> Result<Bytes, Error> {
        if let Some(record) = self.read_nvme(key).await {
            let payload = record.payload();
            let keep = !ticket.superseded();
            return Ok(if keep {
                self.ram.insert(key, payload, record.deadline)
            } else {
                Bytes::copy_from_slice(payload)
            });
        }
        self.counters.fetches.add(1);
        let fetched = origin.fetch(key).await.inspect_err(|_| self.counters.fetch_errors.add(1))?;
        self.counters.fetched_bytes.add(fetched.len() as u64);
        if ticket.superseded() {
            return Ok(fetched);
        }
        let deadline = self.deadline();
        let copy = self.ram.insert(key, &fetched, deadline);
        if let Some(nvme) = &self.nvme {
            nvme.offer(key, copy.clone(), deadline, Cause::Fetched);
        }
        Ok(copy)
    }

    async fn read_nvme(&self, key: Key) -> Option<nvme::Record> {
        self.nvme.as_ref()?.read(key).await
    }

    fn deadline(&self) -> Deadline {
        match self.ttl {
            Some(_) => Deadline::after(self.clock.now(), self.ttl),
            None => Deadline::NEVER,
        }
    }

    fn stats(&self) -> Stats {
        let counters = &self.counters;
        let mut stats = Stats {
            ram_hits: counters.ram_hits.total(),
            ram_misses: counters.ram_misses.total(),
            coalesced_waits: counters.coalesced.total(),
            fetches: counters.fetches.total(),
            fetch_errors: counters.fetch_errors.total(),
            fetched_bytes: counters.fetched_bytes.total(),
            expired: counters.expired.total(),
            ram_bytes: self.ram.bytes(),
            ram_capacity: self.ram.capacity(),
            ram_entries: self.ram.entries(),
            ram_evictions: self.ram.evictions(),
            ..Stats::default()
        };
        if let Some(nvme) = &self.nvme {
            nvme.fill_stats(&mut stats);
        }
        stats
    }
}
