//! `vs-slatedb`: Holdfast beside SlateDB on one real S3 server, with the same table, RAM, disk and clients, in one run.
//!
//! `tests/setup.sh` fetches the S3 server (once); then, in this folder, `cargo run --release`. Everything lies in new
//! folders below `--dir`, the server's data too, and goes at the end: the full size takes some 30 GiB there, and 15 minutes.
//! A small one for a first look: `--table-mib 256 --ram-mib 32 --nvme-mib 64 --hot-mib 5 --seconds 5`.
//!
//! What is durable where: Holdfast's `Quorum` is synced to the log on this machine's disk (one voter), its `Bucket` is
//! archived in the bucket too. SlateDB's durable writes are in the bucket; the others are in its memory only. Requests are
//! counted at the proxy, for both, from the start of a phase to when what it left behind (flushes, compactions) is done.

mod bucket;
mod engine;
mod load;
mod ours;
mod peer;
mod report;

use std::{path::PathBuf, sync::Arc, time::Duration};

use anyhow::{Result, ensure};
use clap::Parser;

use crate::{bucket::Bucket, engine::Engine, load::Work, report::Results};

/// Measures both engines.
#[derive(Clone, Debug, Parser)]
pub struct Options {
    /// Bytes of rows, in MiB
    #[arg(long, default_value_t = 2560)]
    pub table_mib: u64,
    /// RAM of each engine, in MiB: half for cached pages, half for rows that wait for the bucket
    #[arg(long, default_value_t = 128)]
    pub ram_mib: u64,
    /// Local disk of each engine's cache, in MiB
    #[arg(long, default_value_t = 640)]
    pub nvme_mib: u64,
    /// Local disk of Holdfast's log, in MiB; SlateDB has none
    #[arg(long, default_value_t = 1024)]
    pub log_mib: u64,
    /// Rows on local disk that Holdfast flushes together, in MiB
    #[arg(long, default_value_t = 256)]
    pub flush_mib: u64,
    /// Log that fills an object of Holdfast's archive before its time, in MiB
    #[arg(long, default_value_t = 16)]
    pub archive_mib: u64,
    /// Time after which Holdfast's log is archived, in milliseconds, but in the phases that name another
    #[arg(long, default_value_t = 1000)]
    pub archive_ms: u64,
    /// Size of Holdfast's pages, in KiB
    #[arg(long, default_value_t = 16)]
    pub page_kib: usize,
    /// Size of Holdfast's objects, in MiB
    #[arg(long, default_value_t = 32)]
    pub object_mib: u64,
    /// Only updates, without the reads before them
    #[arg(long)]
    pub updates_only: bool,
    /// Only reads
    #[arg(long, conflicts_with = "updates_only")]
    pub reads_only: bool,
    /// Bytes of each value
    #[arg(long, default_value_t = 1000)]
    pub value_bytes: usize,
    /// Rows of the hot set, in MiB: they fit in RAM
    #[arg(long, default_value_t = 20)]
    pub hot_mib: u64,
    /// Clients, each with one operation at a time
    #[arg(long, default_value_t = 16)]
    pub clients: u64,
    /// Seconds of each phase
    #[arg(long, default_value_t = 20)]
    pub seconds: u64,
    /// Seconds of the same load before each phase but the first
    #[arg(long, default_value_t = 5)]
    pub warmup: u64,
    /// Seconds of gets before gets are measured, which fill the caches [default: twice the phase]
    #[arg(long)]
    pub gets_warmup: Option<u64>,
    /// Seconds without traffic after which background work is taken to be done
    #[arg(long, default_value_t = 12)]
    pub quiet: u64,
    /// Rounds, of which the medians are compared
    #[arg(long, default_value_t = 1)]
    pub rounds: usize,
    /// Milliseconds that the proxy adds to each request
    #[arg(long, default_value_t = 20)]
    pub delay_ms: u64,
    /// Bytes that SlateDB's disk cache fetches at once, in KiB; its own default is 4096
    #[arg(long, default_value_t = 64)]
    pub slatedb_part_kib: usize,
    /// RAM that SlateDB's cache keeps for indexes and filters, in MiB; 0: one cache for them and for blocks
    #[arg(long, default_value_t = 0)]
    pub slatedb_meta_mib: u64,
    /// File of figures: what is measured is added, and all that it has are compared
    #[arg(long)]
    pub figures: Option<PathBuf>,
    /// Only one of them: `holdfast` or `slatedb`
    #[arg(long)]
    pub only: Option<String>,
    /// Folder on the disk to be measured
    #[arg(long, default_value = ".")]
    pub dir: PathBuf,
    /// Folder of the S3 server's data, by default also below --dir: on the disk to be measured its writes hold up whoever
    /// waits for that disk
    #[arg(long)]
    pub s3_dir: Option<PathBuf>,
}

impl Options {
    /// RAM for cached pages, in bytes.
    pub fn cache_bytes(&self) -> u64 {
        (self.ram_mib << 20) / 2
    }

    /// RAM for rows that wait for the bucket, in bytes.
    pub fn buffer_bytes(&self) -> u64 {
        (self.ram_mib << 20) / 2
    }

    /// Rows of the table.
    pub fn rows(&self) -> u64 {
        (self.table_mib << 20) / (8 + self.value_bytes as u64)
    }

    /// Rows of the hot set.
    pub fn hot_rows(&self) -> u64 {
        ((self.hot_mib << 20) / (8 + self.value_bytes as u64)).clamp(1, self.rows())
    }

    fn wants(&self, name: &str) -> bool {
        self.only.as_ref().is_none_or(|only| only == name)
    }
}

/// What the phases share.
pub struct Bench {
    pub options: Options,
    pub bucket: Bucket,
    /// Where the engines' own folders are.
    pub dir: PathBuf,
}

fn main() -> Result<()> {
    let options = Options::parse();
    ensure!(options.value_bytes >= 8, "--value-bytes: a value carries its key, of 8 bytes");
    let only = options.only.as_deref();
    ensure!(options.slatedb_meta_mib << 20 < options.cache_bytes(), "--slatedb-meta-mib: nothing is left for blocks");
    ensure!(only.is_none_or(|only| ["holdfast", "slatedb"].contains(&only)), "--only {only:?}");
    let folder = tempfile::tempdir_in(&options.dir)?;
    let dir = folder.path().to_path_buf();
    let server = tempfile::tempdir_in(options.s3_dir.as_ref().unwrap_or(&options.dir))?;
    // The server takes its folder from the environment. No other thread runs yet.
    // SAFETY: single-threaded.
    unsafe { std::env::set_var("TMPDIR", std::path::absolute(server.path())?) };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let bucket = Bucket::start(Duration::from_millis(options.delay_ms));
    let bench = Arc::new(Bench { options, bucket, dir });
    let results = runtime.block_on(side_by_side(&bench))?;
    results.print_bars();
    Ok(())
}

async fn side_by_side(bench: &Arc<Bench>) -> Result<Results> {
    let options = &bench.options;
    println!(
        "{} rows of {} bytes ({} MiB), {} clients, each request to S3 {} ms late",
        options.rows(),
        options.value_bytes,
        options.table_mib,
        options.clients,
        options.delay_ms
    );
    if let Some(folder) = &options.s3_dir {
        println!("the S3 server's data in {}", folder.display());
    }
    println!("RAM {} MiB, disk cache {} MiB each:", options.ram_mib, options.nvme_mib);
    println!("  {}\n  {}", ours::Ours::settings(options), peer::Peer::settings(options));
    let mut results = Results::open(options.figures.as_deref())?;
    for round in 0..options.rounds {
        // Whoever comes second has the fuller server: the order alternates.
        let mut order = ["holdfast", "slatedb"];
        if round % 2 == 1 {
            order.reverse();
        }
        for name in order.into_iter().filter(|name| options.wants(name)) {
            println!("\n{name}, round {}\n{}", round + 1, report::Figures::HEADER);
            match name {
                "holdfast" => holdfast(bench, round, &mut results).await?,
                _ => slatedb(bench, round, &mut results).await?,
            }
        }
    }
    Ok(results)
}

/// The phases that both have before what is durable is told apart: loads the table and reads it.
async fn load_and_read<E: Engine>(bench: &Arc<Bench>, engine: &Arc<E>, results: &mut Results) -> Result<()> {
    load::fill(bench, engine).await?;
    if bench.options.updates_only {
        return Ok(());
    }
    let long = Duration::from_secs(bench.options.gets_warmup.unwrap_or(bench.options.seconds * 2));
    let short = Duration::from_secs(bench.options.warmup);
    results.add(load::measure(bench, engine, report::GETS, Work::Get, long).await?)?;
    results.add(load::measure(bench, engine, report::RANGES, Work::Range, short).await?)?;
    results.add(load::measure(bench, engine, report::HOT_GETS, Work::HotGet, short).await?)
}

async fn holdfast(bench: &Arc<Bench>, round: usize, results: &mut Results) -> Result<()> {
    let warm = Duration::from_secs(bench.options.warmup);
    let usual = Duration::from_millis(bench.options.archive_ms);
    let ours = Arc::new(ours::Ours::open(bench, round, usual).await?);
    load_and_read(bench, &ours, results).await?;
    if bench.options.reads_only {
        return engine::close(ours).await;
    }
    results.add(load::measure(bench, &ours, report::QUORUM, Work::Update { durable: false }, warm).await?)?;
    results.add(load::measure(bench, &ours, report::BUCKET, Work::Update { durable: true }, warm).await?)?;
    engine::close(ours).await?;
    for (name, millis) in [(report::BUCKET_100, 100), (report::BUCKET_10, 10)] {
        let ours = Arc::new(ours::Ours::open(bench, round, Duration::from_millis(millis)).await?);
        results.add(load::measure(bench, &ours, name, Work::Update { durable: true }, warm).await?)?;
        engine::close(ours).await?;
    }
    Ok(())
}

async fn slatedb(bench: &Arc<Bench>, round: usize, results: &mut Results) -> Result<()> {
    let warm = Duration::from_secs(bench.options.warmup);
    let by_default = Duration::from_millis(100);
    let within = bench.options.buffer_bytes();
    let peer = Arc::new(peer::Peer::open(bench, round, by_default, within).await?);
    load_and_read(bench, &peer, results).await?;
    if bench.options.reads_only {
        return engine::close(peer).await;
    }
    results.add(load::measure(bench, &peer, report::MEMORY, Work::Update { durable: false }, warm).await?)?;
    results.add(load::measure(bench, &peer, report::DURABLE_100, Work::Update { durable: true }, warm).await?)?;
    engine::close(peer).await?;
    let peer = Arc::new(peer::Peer::open(bench, round, Duration::from_millis(10), within).await?);
    results.add(load::measure(bench, &peer, report::DURABLE_10, Work::Update { durable: true }, warm).await?)?;
    engine::close(peer).await?;
    // What it does with as much RAM as it takes by default.
    let peer = Arc::new(peer::Peer::open(bench, round, by_default, peer::UNFLUSHED_BY_DEFAULT).await?);
    results.add(load::measure(bench, &peer, report::MEMORY_OVER, Work::Update { durable: false }, warm).await?)?;
    engine::close(peer).await
}
