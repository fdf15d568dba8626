//! Holdfast, embedded.

use std::{collections::BTreeMap, ops::Bound, time::Duration};

use anyhow::{Context, Result};
use bytes::Bytes;
use holdfast::{Batch, Db, Durability, Keyspace, ScanOptions};

use crate::{
    Bench, Options,
    engine::{Engine, key_bytes},
};

/// Longest pause before a commit that was refused is tried again.
const PAUSE: Duration = Duration::from_millis(1);

pub struct Ours {
    db: Db,
    table: Keyspace,
}

impl Ours {
    pub async fn open(bench: &Bench, round: usize, archive_interval: Duration) -> Result<Self> {
        let name = format!("holdfast-{round}");
        let bench_options = &bench.options;
        let mut options = holdfast::Options::default();
        options.data_dir = Some(bench.dir.join(&name));
        options.s3 = bench.bucket.settings();
        options.memory_cache = Some(bench_options.cache_bytes());
        options.nvme_cache = Some(bench_options.nvme_mib << 20);
        (options.memtable_bytes, options.frozen_bytes) = memtables(bench_options);
        options.flush_bytes = Some(bench_options.flush_mib << 20);
        options.page_bytes = bench_options.page_kib << 10;
        options.object_bytes = bench_options.object_mib << 20;
        options.archive_bytes = (bench_options.archive_mib as usize) << 20;
        options.log_bytes = bench_options.log_mib << 20;
        options.archive_interval = archive_interval;
        let db = Db::open(&bench.bucket.url(&name), options).await.context("open Holdfast")?;
        let table = db.keyspace("table").await?;
        Ok(Self { db, table })
    }

    /// What it gets, in words.
    pub fn settings(options: &Options) -> String {
        let (memtable, frozen) = memtables(options);
        format!(
            "holdfast: page cache {} MiB, memtables {} + {} MiB; on disk log and spill up to {} MiB each, of which {} MiB are \
             flushed together into objects of {} MiB with pages of {} KiB; an archive object every {} ms or {} MiB",
            options.cache_bytes() >> 20,
            memtable >> 20,
            frozen >> 20,
            options.log_mib,
            options.flush_mib,
            options.object_mib,
            options.page_kib,
            options.archive_ms,
            options.archive_mib
        )
    }
}

/// One fills while three wait.
fn memtables(options: &Options) -> (usize, usize) {
    let quarter = options.buffer_bytes() as usize / 4;
    (quarter, quarter * 3)
}

impl Engine for Ours {
    const NAME: &'static str = "holdfast";

    async fn get(&self, key: u64) -> Result<Option<Bytes>> {
        Ok(self.db.get(&self.table, &key.to_be_bytes()).await?)
    }

    async fn range(&self, start: u64, rows: usize) -> Result<Vec<(Bytes, Bytes)>> {
        let start = Bound::Included(key_bytes(start));
        let options = ScanOptions { start, end: Bound::Unbounded, reverse: false, limit_hint: rows };
        let mut scan = self.db.scan(&self.table, options)?;
        let mut found = Vec::with_capacity(rows);
        while found.len() < rows {
            let wanted = rows - found.len();
            if scan.next_batch(&mut found, wanted).await? == 0 {
                break;
            }
        }
        Ok(found.into_iter().map(|row| (row.key, row.value)).collect())
    }

    async fn put(&self, key: u64, value: Bytes, durable: bool) -> Result<u64> {
        let level = if durable { Durability::Bucket } else { Durability::Quorum };
        let mut retries = 0;
        loop {
            let mut batch = Batch::new();
            batch.put(&self.table, key_bytes(key), value.clone());
            match self.db.write(batch, level).await {
                Ok(()) => return Ok(retries),
                Err(error) if error.is_retryable() => retries += 1,
                Err(error) => return Err(error.into()),
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn load(&self, rows: Vec<(u64, Bytes)>) -> Result<()> {
        loop {
            let mut batch = Batch::new();
            for (key, value) in &rows {
                batch.put(&self.table, key_bytes(*key), value.clone());
            }
            match self.db.write(batch, Durability::Quorum).await {
                Err(error) if error.is_retryable() => tokio::time::sleep(PAUSE).await,
                result => return Ok(result?),
            }
        }
    }

    async fn flush(&self) -> Result<()> {
        Ok(self.db.checkpoint().await?)
    }

    fn causes(&self) -> BTreeMap<String, u64> {
        let requests = self.db.stats().requests;
        requests.into_iter().map(|count| (format!("{} {}", count.kind, count.cause), count.requests)).collect()
    }

    async fn close(self) -> Result<()> {
        Ok(self.db.close().await?)
    }
}
