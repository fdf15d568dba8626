//! SlateDB, as its documentation sets it up, with its compactor and garbage collector on.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, Result};
use bytes::Bytes;
use slatedb::{
    Db, Settings, WriteBatch,
    config::{FlushOptions, FlushType, ObjectStoreCacheOptions, ScanOptions},
    db_cache::{
        SplitCache,
        foyer::{FoyerCache, FoyerCacheOptions},
    },
};

use crate::{
    Bench, Options,
    engine::{Engine, key_bytes},
};

/// What it lets wait for the bucket unless it is told otherwise, in bytes.
pub const UNFLUSHED_BY_DEFAULT: u64 = 1 << 30;
/// Its L0 has room for as many bytes as by default (8 tables of 64 MiB).
const L0_BYTES: u64 = 512 << 20;

pub struct Peer {
    db: Db,
    row_bytes: usize,
}

impl Peer {
    pub async fn open(bench: &Bench, round: usize, flush_interval: Duration, unflushed: u64) -> Result<Self> {
        let name = format!("slatedb-{round}");
        let options = &bench.options;
        let l0 = l0_bytes(unflushed);
        let l0_tables = (L0_BYTES / l0).max(8) as usize;
        let settings = Settings {
            flush_interval: Some(flush_interval),
            l0_sst_size_bytes: l0 as usize,
            l0_max_ssts: l0_tables,
            l0_max_ssts_per_key: l0_tables,
            max_unflushed_bytes: unflushed as usize,
            object_store_cache_options: ObjectStoreCacheOptions {
                root_folder: Some(bench.dir.join(&name)),
                max_cache_size_bytes: Some((options.nvme_mib as usize) << 20),
                part_size_bytes: options.slatedb_part_kib << 10,
                ..ObjectStoreCacheOptions::default()
            },
            ..Settings::default()
        };
        let meta = options.slatedb_meta_mib << 20;
        let cache = |bytes| {
            let options = FoyerCacheOptions { max_capacity: bytes, ..FoyerCacheOptions::default() };
            Some(Arc::new(FoyerCache::new_with_opts(options)) as Arc<_>)
        };
        let blocks = cache(options.cache_bytes() - meta);
        let metas = if meta == 0 { blocks.clone() } else { cache(meta) };
        let cache = SplitCache::new().with_block_cache(blocks).with_meta_cache(metas).build();
        let store = Arc::new(bench.bucket.client()?);
        let db = Db::builder(name, store).with_settings(settings).with_db_cache(Arc::new(cache), 0);
        Ok(Self { db: db.build().await.context("open SlateDB")?, row_bytes: options.value_bytes + 64 })
    }

    /// What it gets, in words.
    pub fn settings(options: &Options) -> String {
        let unflushed = options.buffer_bytes();
        let caches = match options.slatedb_meta_mib {
            0 => format!("cache of blocks, indexes and filters {} MiB", options.cache_bytes() >> 20),
            meta => format!("block cache {} MiB, indexes and filters {meta} MiB", (options.cache_bytes() >> 20) - meta),
        };
        format!(
            "slatedb: {caches}, unflushed {} MiB in tables of {} MiB; on disk parts of {} KiB",
            unflushed >> 20,
            l0_bytes(unflushed) >> 20,
            options.slatedb_part_kib
        )
    }
}

/// One table fills while one is written, as far as its default size.
fn l0_bytes(unflushed: u64) -> u64 {
    (unflushed / 2).min(64 << 20)
}

impl Engine for Peer {
    const NAME: &'static str = "slatedb";

    async fn get(&self, key: u64) -> Result<Option<Bytes>> {
        Ok(self.db.get(key.to_be_bytes()).await?)
    }

    async fn range(&self, start: u64, rows: usize) -> Result<Vec<(Bytes, Bytes)>> {
        // By default it fetches block after block, and keeps none.
        let options = ScanOptions::default().with_read_ahead_bytes(rows * self.row_bytes).with_cache_blocks(true);
        let mut scan = self.db.scan_with_options(start.to_be_bytes().., &options).await?;
        let mut found = Vec::with_capacity(rows);
        while found.len() < rows {
            let Some(row) = scan.next().await? else { break };
            found.push((row.key, row.value));
        }
        Ok(found)
    }

    async fn put(&self, key: u64, value: Bytes, durable: bool) -> Result<u64> {
        let written = self.db.put_bytes(key_bytes(key), value).await?;
        if durable {
            written.await_durable().await?;
        }
        Ok(0)
    }

    async fn load(&self, rows: Vec<(u64, Bytes)>) -> Result<()> {
        let mut batch = WriteBatch::new();
        for (key, value) in rows {
            batch.put_bytes(key_bytes(key), value);
        }
        self.db.write(batch).await?;
        Ok(())
    }

    async fn flush(&self) -> Result<()> {
        Ok(self.db.flush_with_options(FlushOptions { flush_type: FlushType::MemTable }).await?)
    }

    async fn close(self) -> Result<()> {
        Ok(self.db.close().await?)
    }
}
