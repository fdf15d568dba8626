//! The Holdfast page cache: RAM, then one fetch in flight per key, then NVMe, then the origin.
//!
//! This crate knows opaque keys and bytes. It must never know log indexes, manifests or S3.

use std::{future::Future, pin::Pin, sync::Arc, time::Duration};

use bytes::Bytes;

/// A boxed future, as the seams of this crate return it.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Names one cached record. Opaque: the engine puts an object's 128-bit id and a page's offset or number in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// The record's group; [`Cache::remove_group`] drops all of it.
    pub group: u128,
    /// The record within its group.
    pub item: u32,
}

/// Where misses are fetched from. The engine implements it with ranged GETs.
pub trait Origin: Send + Sync + 'static {
    /// Fetches one record. Called at most once at a time per key, however many readers wait.
    fn fetch(&self, key: Key) -> BoxFuture<'_, Result<Bytes, OriginError>>;
}

/// A failed fetch, shared by every reader that waited for it.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub struct OriginError(pub Arc<dyn std::error::Error + Send + Sync>);

/// Monotonic time, injected so that simulations own it. Expiry reads this clock only.
pub trait Clock: Send + Sync + 'static {
    /// Time since an arbitrary fixed start.
    fn now(&self) -> Duration;
}
