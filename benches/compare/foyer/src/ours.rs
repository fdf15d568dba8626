//! Holdfast's cache.

use std::{
    path::Path,
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Result;
use bytes::Bytes;
use holdfast_cache::{BoxFuture, Cache, CacheOptions, Clock, Key, NvmeOptions, OriginError};

use crate::{
    Options,
    load::{self, Origin},
};

pub struct Ours(Cache);

struct Monotonic(Instant);

impl Clock for Monotonic {
    fn now(&self) -> Duration {
        self.0.elapsed()
    }
}

/// The bench's origin, as the cache calls it.
struct Fetch(Arc<Origin>);

impl holdfast_cache::Origin for Fetch {
    fn fetch(&self, key: Key) -> BoxFuture<'_, Result<Bytes, OriginError>> {
        let origin = self.0.clone();
        Box::pin(async move { Ok(origin.fetch(u64::from(key.item)).await) })
    }
}

impl Ours {
    pub fn open(options: &Options, dir: &Path) -> Result<Self> {
        let nvme = NvmeOptions::new(dir, options.nvme << 20);
        let options = CacheOptions {
            nvme: Some(nvme),
            ..CacheOptions::new(options.ram << 20, Arc::new(Monotonic(Instant::now())))
        };
        Ok(Self(Cache::open(options)?))
    }
}

impl load::Cache for Ours {
    fn get(&self, key: u64, origin: &Arc<Origin>) -> Pin<Box<dyn Future<Output = Result<Bytes>> + Send + '_>> {
        let key = Key { group: 1, item: key as u32 };
        let origin = origin.clone();
        Box::pin(async move {
            // The door for hits: nothing is made for the origin before it is needed.
            if let Some(bytes) = self.0.peek(&key) {
                return Ok(bytes);
            }
            let origin: Arc<dyn holdfast_cache::Origin> = Arc::new(Fetch(origin));
            Ok(self.0.get(key, &origin).await?)
        })
    }

    fn settle(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(self.0.room())
    }

    fn close(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(self.0.close())
    }

    fn written(&self) -> u64 {
        self.0.stats().nvme_written_bytes
    }
}
