//! `cache-vs-foyer`: Holdfast's page cache beside foyer's hybrid cache, with the same RAM, the same disk, the same keys and
//! the same origin, in one run; rounds alternate. Prints a table per workload and the ratios.

mod load;
mod memory;
mod ours;
mod peer;

use std::path::PathBuf;

use anyhow::Result;
use clap::Parser;

use crate::load::{Cache, Figures, Workload};

#[global_allocator]
static ALLOCATOR: memory::Counting = memory::Counting;

/// Measures both caches with get-or-fetch from an origin that is a delay away.
#[derive(Clone, Debug, Parser)]
pub struct Options {
    /// RAM of each cache, in MiB, as its own weights count it
    #[arg(long, default_value_t = 256)]
    pub ram: u64,
    /// NVMe of each cache, in MiB
    #[arg(long, default_value_t = 2048)]
    pub nvme: u64,
    /// Bytes of the values, in percent of the NVMe: over 100 the origin is part of the measurement
    #[arg(long, value_delimiter = ',', default_value = "75")]
    pub data: Vec<u64>,
    /// Sizes of the values
    #[arg(long, value_delimiter = ',', default_value = "16384,4096")]
    pub values: Vec<usize>,
    /// Distributions of the keys: `zipf` (0.99) and `uniform`
    #[arg(long, value_delimiter = ',', default_value = "zipf,uniform")]
    pub keys: Vec<String>,
    /// Readers, each with one read at a time
    #[arg(long, default_value_t = 64)]
    pub readers: usize,
    /// Seconds of each measurement; before it every cache is filled and runs for as long
    #[arg(long, default_value_t = 10)]
    pub seconds: u64,
    /// Rounds, of which the medians are quoted
    #[arg(long, default_value_t = 3)]
    pub rounds: usize,
    /// Milliseconds that the origin takes
    #[arg(long, default_value_t = 5)]
    pub origin_ms: u64,
    /// Where foyer's I/O is done: `psync` (its default) or `uring`
    #[arg(long, default_value = "psync")]
    pub foyer_io: String,
    /// When foyer writes to disk: at `eviction` from RAM (its default) or at `insertion`
    #[arg(long, default_value = "eviction")]
    pub foyer_policy: String,
    /// Who leaves foyer's RAM: `lru` (its default), `lfu` or `s3fifo`
    #[arg(long, default_value = "lfu")]
    pub foyer_eviction: String,
    /// Measure RAM per record on NVMe and the restart with this many MiB on NVMe, instead
    #[arg(long)]
    pub restart: Option<u64>,
    /// Only one of them: `holdfast` or `foyer`
    #[arg(long)]
    pub only: Option<String>,
    /// Folder on the disk to be measured
    #[arg(long, default_value = ".")]
    pub dir: PathBuf,
}

fn main() -> Result<()> {
    let options = Options::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    match options.restart {
        Some(mib) => {
            for name in names(&options) {
                runtime.block_on(load::restart(&options, name, mib))?;
            }
            Ok(())
        }
        None => runtime.block_on(side_by_side(&options)),
    }
}

fn names(options: &Options) -> impl Iterator<Item = &'static str> {
    let only = options.only.clone();
    ["holdfast", "foyer"].into_iter().filter(move |name| only.as_ref().is_none_or(|only| only == name))
}

async fn side_by_side(options: &Options) -> Result<()> {
    println!(
        "RAM {} MiB, NVMe {} MiB, {} readers, origin {} ms, foyer: {}, {}, written at {}",
        options.ram,
        options.nvme,
        options.readers,
        options.origin_ms,
        options.foyer_io,
        options.foyer_eviction,
        options.foyer_policy
    );
    println!("{:34} {:9} {}", "workload", "cache", Figures::HEADER);
    for workload in Workload::all(options) {
        let mut figures = std::collections::BTreeMap::<&str, Vec<Figures>>::new();
        for _ in 0..options.rounds {
            for name in names(options) {
                let folder = tempfile::tempdir_in(&options.dir)?;
                let heap = memory::out();
                let cache = open(name, options, folder.path()).await?;
                let run = load::run(options, &workload, cache.clone(), heap).await?;
                cache.close().await;
                println!("{:34} {name:9} {run}", workload.to_string());
                figures.entry(name).or_default().push(run);
            }
        }
        if let (Some(ours), Some(theirs)) = (figures.get("holdfast"), figures.get("foyer")) {
            println!("{:34} ratio     {}", workload.to_string(), Figures::ratio(ours, theirs));
        }
    }
    Ok(())
}

async fn open(name: &str, options: &Options, dir: &std::path::Path) -> Result<std::sync::Arc<dyn Cache>> {
    Ok(match name {
        "holdfast" => std::sync::Arc::new(ours::Ours::open(options, dir)?),
        _ => std::sync::Arc::new(peer::Foyer::open(options, dir).await?),
    })
}
