//! The Holdfast page cache: RAM, then one fetch in flight per key, then NVMe, then the origin.
//!
//! This crate knows opaque keys and bytes. It must never know log indexes, manifests or S3.

mod admit;
mod failures;
mod flight;
mod key;
mod nvme;
mod options;
mod ram;
mod read;
mod seen;
mod stats;
mod ttl;

use std::{future::Future, path::PathBuf, pin::Pin, sync::Arc, time::Duration};

use bytes::Bytes;

use crate::{
    admit::Cause, failures::Failures, flight::Flights, key::Groups, nvme::Nvme, ram::Ram, stats::Counters, ttl::Expiry,
};
pub use crate::{
    key::Key,
    nvme::device::{self, Backend, Device},
    options::{CacheOptions, NvmeOptions, Stale, Wrap, WrapFn},
    stats::Stats,
};

/// What a record takes on NVMe beyond its payload, which is rounded up to 64 bytes. The device is read and written in
/// blocks of 4 KiB: records of 4 KiB times n, and those that are shorter by this, or by little more, take n blocks.
pub const SLOT_OVERHEAD: usize = nvme::slot::HEADER;

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

/// Whether an answer's record was within its TTL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    /// Within its TTL.
    Fresh,
    /// Expired, and served by leave of [`CacheOptions::stale`].
    Stale {
        /// Time since the record's deadline.
        past: Duration,
    },
}

/// A record and its label, as [`Cache::get_labelled`] gives it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The record.
    pub bytes: Bytes,
    /// How old it is.
    pub freshness: Freshness,
}

/// A two-tier cache. Cheap to clone.
#[derive(Clone)]
pub struct Cache(Arc<Shared>);

struct Shared {
    ram: Ram,
    flights: Arc<Flights>,
    failures: Failures,
    nvme: Option<Nvme>,
    expiry: Expiry,
    clock: Arc<dyn Clock>,
    counters: Counters,
}

impl Cache {
    /// Opens a cache. Blocks while the NVMe file is made, and for a while ([`NvmeOptions::index_wait`]) while it is indexed.
    pub fn open(options: CacheOptions) -> Result<Self, Error> {
        let expiry = Expiry::new(options.ttl, options.ttl_jitter_percent, options.stale)?;
        let nvme = match &options.nvme {
            Some(nvme) => Some(Nvme::open(nvme, expiry, options.clock.clone())?),
            None => None,
        };
        Ok(Self(Arc::new(Shared {
            ram: Ram::new(options.ram_bytes, expiry.grace()),
            flights: Arc::default(),
            failures: Failures::new(options.retry_after),
            nvme,
            expiry,
            clock: options.clock,
            counters: Counters::default(),
        })))
    }

    /// A record that is in RAM and within its TTL. Never awaits; counts as a hit, or not at all.
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

    /// Whether a record that is stored on NVMe now pushes out another. `true` if there is no NVMe tier.
    pub fn is_nvme_full(&self) -> bool {
        self.0.nvme.as_ref().is_none_or(Nvme::is_full)
    }

    /// Keys of at most `max` records in RAM, in no order.
    pub fn ram_keys(&self, max: usize) -> Vec<Key> {
        self.0.ram.keys(max)
    }

    /// A record, from the first tier that has it. At most one fetch per key runs at a time, as a task on the current
    /// tokio runtime: dropping this future never takes another reader's answer away. An expired record is an answer as
    /// far as [`CacheOptions::stale`] allows; [`Cache::get_labelled`] tells which it was.
    pub async fn get(&self, key: Key, origin: &Arc<dyn Origin>) -> Result<Bytes, Error> {
        Ok(self.get_labelled(key, origin).await?.bytes)
    }

    /// [`Cache::get`], with the record's label.
    pub async fn get_labelled(&self, key: Key, origin: &Arc<dyn Origin>) -> Result<Answer, Error> {
        Shared::get(&self.0, key, origin).await
    }

    /// Whether a read of the key needs no fetch of its own: it is in RAM or on NVMe, or being fetched. A guess: it may be gone
    /// a moment later.
    pub fn holds(&self, key: &Key) -> bool {
        let shared = &self.0;
        shared.ram.contains(key, || shared.clock.now())
            || shared.flights.contains(key)
            || shared.nvme.as_ref().is_some_and(|nvme| nvme.contains(key))
    }

    /// Stores a record, replacing what the key had: a read that begins after this never gets what was before. The bytes
    /// are copied: a slice of a larger buffer does not keep it.
    pub fn insert(&self, key: Key, bytes: Bytes, place: Place) {
        let shared = &self.0;
        let copy = Bytes::copy_from_slice(&bytes);
        shared.flights.supersede(&key, || shared.replace(key, copy, place));
    }

    /// Drops one record from every tier: a read that begins after this does not get it.
    pub fn remove(&self, key: &Key) {
        let shared = &self.0;
        shared.flights.supersede(key, || {
            shared.failures.clear(key);
            shared.ram.remove(key);
            if let Some(nvme) = &shared.nvme {
                nvme.remove(key);
            }
        });
    }

    /// Drops every record of these groups from every tier. Looks at every record that the cache has: a few milliseconds
    /// per million of them, however many groups.
    pub fn remove_groups(&self, groups: &[u128]) {
        if groups.is_empty() {
            return;
        }
        let groups: Groups = groups.iter().copied().collect();
        let shared = &self.0;
        shared.flights.supersede_groups(&groups);
        shared.failures.clear_groups(&groups);
        if let Some(nvme) = &shared.nvme {
            nvme.remove_groups(&groups);
            // Fetches that began meanwhile may bring to RAM what they found there.
            shared.flights.supersede_groups(&groups);
        }
        shared.ram.remove_groups(&groups);
    }

    /// Changes the bound of the RAM tier; what no longer fits is evicted before this returns.
    pub fn resize_ram(&self, bytes: u64) {
        self.0.ram.resize(bytes);
    }

    /// Changes the size of the NVMe tier, rounded down to whole zones of 4 MiB, while it serves. When it becomes smaller
    /// the oldest records go, but for those that were read since they were stored, and the space is given back to the
    /// file system before this returns. Fails if the size is too small, if the disk has no room for more, or if there
    /// is no NVMe tier.
    pub async fn resize_nvme(&self, bytes: u64) -> Result<(), Error> {
        match &self.0.nvme {
            Some(nvme) => nvme.resize(bytes).await,
            None => Err(Error::Invalid("the cache was opened without an NVMe tier; none can be added online".into())),
        }
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
    /// Puts a record into the tiers of `place`, and what the key had out of the others.
    fn replace(&self, key: Key, bytes: Bytes, place: Place) {
        self.failures.clear(&key);
        let deadline = self.deadline(&key);
        match place {
            Place::Hot => self.ram.insert_hot(key, bytes.clone(), deadline),
            Place::Ram | Place::Both => self.ram.insert(key, bytes.clone(), deadline),
            Place::Nvme => self.ram.remove(&key),
        }
        match &self.nvme {
            Some(nvme) if place == Place::Ram => nvme.remove(&key),
            Some(nvme) => nvme.offer(key, bytes, deadline, Cause::Inserted),
            None => {}
        }
    }
}
