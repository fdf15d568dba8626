//! The cache on its own, in front of an origin whose records change: `cargo run -p holdfast-cache --example standalone`.
#![allow(clippy::print_stdout, clippy::disallowed_methods, reason = "an example prints, and reads the machine's clock")]

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use holdfast_cache::{BoxFuture, Cache, CacheOptions, Clock, Freshness, Key, NvmeOptions, Origin, OriginError, Stale};

/// Time since the epoch, so that deadlines on NVMe hold over restarts.
struct WallClock;

impl Clock for WallClock {
    fn now(&self) -> Duration {
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
    }
}

/// An origin whose every answer is another edition. A real one makes a request here.
#[derive(Default)]
struct Editions(AtomicU64);

impl Origin for Editions {
    fn fetch(&self, key: Key) -> BoxFuture<'_, Result<Bytes, OriginError>> {
        let edition = self.0.fetch_add(1, Relaxed);
        Box::pin(async move { Ok(Bytes::from(format!("item {}, edition {edition}", key.item))) })
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = tempfile::tempdir()?;
    let cache = Cache::open(CacheOptions {
        nvme: Some(NvmeOptions::new(folder.path(), 64 << 20)),
        ttl: Some(Duration::from_millis(50)),
        stale: Stale { while_revalidate: Duration::from_secs(60), if_error: Duration::from_secs(3600) },
        ..CacheOptions::new(16 << 20, Arc::new(WallClock))
    })?;
    let origin: Arc<dyn Origin> = Arc::new(Editions::default());
    let key = Key { group: 1, item: 7 };
    for _ in 0..5 {
        let answer = cache.get_labelled(key, &origin).await?;
        let text = String::from_utf8_lossy(&answer.bytes);
        match answer.freshness {
            Freshness::Fresh => println!("fresh: {text}"),
            Freshness::Stale { past } => println!("expired {past:?} ago, and being fetched again: {text}"),
        }
        tokio::time::sleep(Duration::from_millis(40)).await;
    }
    cache.close().await;
    let stats = cache.stats();
    println!("{} fetches, {} of them in the background", stats.fetches, stats.refreshes);
    Ok(())
}
