//! foyer's hybrid cache, as its documentation sets it up.

use std::{path::Path, pin::Pin, sync::Arc};

use anyhow::{Result, bail};
use bytes::Bytes;
use foyer::{
    BlockEngineConfig, DeviceBuilder, EvictionConfig, FsDeviceBuilder, HybridCache, HybridCacheBuilder,
    HybridCachePolicy, IoEngineConfig, LfuConfig, LruConfig, PsyncIoEngineConfig, S3FifoConfig, UringIoEngineConfig,
};

use crate::{
    Options,
    load::{self, Origin},
};

pub struct Foyer(HybridCache<u64, Bytes>);

impl Foyer {
    pub async fn open(options: &Options, dir: &Path) -> Result<Self> {
        let policy = match options.foyer_policy.as_str() {
            "eviction" => HybridCachePolicy::WriteOnEviction,
            "insertion" => HybridCachePolicy::WriteOnInsertion,
            other => bail!("--foyer-policy {other}"),
        };
        let eviction: EvictionConfig = match options.foyer_eviction.as_str() {
            "lru" => LruConfig::default().into(),
            "lfu" => LfuConfig::default().into(),
            "s3fifo" => S3FifoConfig::default().into(),
            other => bail!("--foyer-eviction {other}"),
        };
        let io: Box<dyn IoEngineConfig> = match options.foyer_io.as_str() {
            "psync" => PsyncIoEngineConfig::new().into(),
            "uring" => Box::new(UringIoEngineConfig::new()),
            other => bail!("--foyer-io {other}"),
        };
        let device =
            FsDeviceBuilder::new(dir).with_capacity((options.nvme as usize) << 20).with_direct(true).build()?;
        let cache = HybridCacheBuilder::new()
            .with_policy(policy)
            .memory((options.ram as usize) << 20)
            .with_eviction_config(eviction)
            .with_weighter(|_key: &u64, value: &Bytes| 8 + value.len())
            .storage()
            .with_io_engine_config(io)
            .with_engine_config(BlockEngineConfig::new(device).with_submit_queue_size_threshold(64 << 20))
            .build()
            .await?;
        Ok(Self(cache))
    }
}

impl load::Cache for Foyer {
    fn get(&self, key: u64, origin: &Arc<Origin>) -> Pin<Box<dyn Future<Output = Result<Bytes>> + Send + '_>> {
        let origin = origin.clone();
        Box::pin(async move {
            let fetch = || async move { anyhow::Ok(origin.fetch(key).await) };
            Ok(self.0.get_or_fetch(&key, fetch).await?.value().clone())
        })
    }

    fn settle(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(async { self.0.storage().wait().await })
    }

    fn close(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(async {
            if let Err(error) = self.0.close().await {
                eprintln!("foyer: {error}");
            }
        })
    }

    fn written(&self) -> u64 {
        self.0.statistics().disk_write_bytes() as u64
    }
}
