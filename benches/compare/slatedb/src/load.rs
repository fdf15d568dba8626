//! The load: fills the table, runs clients in closed loops, and takes the figures of a phase.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use hdrhistogram::Histogram;
use rand::Rng;
use rand_distr::{Distribution, Zipf};

use crate::{
    Bench,
    bucket::disk_bytes,
    engine::{Engine, check, check_range, noise, value},
    report::{Figures, resident_bytes},
};

/// Rows of a range.
const RANGE: u64 = 100;
/// Bytes of rows that are loaded at once.
const LOAD_BYTES: usize = 512 << 10;
/// Longest latency that is told apart, in nanoseconds.
const LATENCY_MAX: u64 = 600_000_000_000;
/// Clients that load.
const LOADERS: u64 = 4;

/// What the clients of a phase do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// Zipf point reads.
    Get,
    /// Zipf ranges.
    Range,
    /// Zipf updates.
    Update { durable: bool },
    /// Point reads of a hot set.
    HotGet,
}

/// What clients came to.
struct Run {
    /// In nanoseconds.
    latency: Histogram<u64>,
    retries: u64,
    seconds: f64,
    /// Operations of each second.
    each_second: Vec<u64>,
}

/// Loads the table, nearly in the order of its keys, and waits until the engine has settled.
pub async fn fill<E: Engine>(bench: &Arc<Bench>, engine: &Arc<E>) -> Result<()> {
    let (rows, size) = (bench.options.rows(), bench.options.value_bytes);
    let chunk = (LOAD_BYTES / (size + 8)).max(1) as u64;
    let before = bench.bucket.traffic();
    let began = Instant::now();
    let next = Arc::new(AtomicU64::new(0));
    let mut tasks = Vec::new();
    for loader in 0..LOADERS {
        let (engine, next, mut noise) = (engine.clone(), next.clone(), noise(loader));
        tasks.push(tokio::spawn(async move {
            loop {
                let start = next.fetch_add(chunk, Relaxed);
                if start >= rows {
                    return anyhow::Ok(());
                }
                let keys = start..rows.min(start + chunk);
                engine.load(keys.map(|key| (key, value(key, &mut noise, size))).collect()).await.context("load")?;
            }
        }));
    }
    for task in tasks {
        task.await??;
    }
    let loaded = began.elapsed().as_secs_f64();
    engine.flush().await.context("flush of the load")?;
    let flushed = began.elapsed().as_secs_f64();
    let traffic = bench.bucket.settled(Duration::from_secs(bench.options.quiet)).await.since(&before);
    let settled = began.elapsed().as_secs_f64() - bench.options.quiet as f64;
    println!("load: {loaded:.0} s, flushed after {flushed:.0} s, settled after {settled:.0} s; {}", traffic.detail());
    Ok(())
}

/// Runs the load to warm up, then measures it, and waits until what it left behind is done.
pub async fn measure<E: Engine>(
    bench: &Arc<Bench>,
    engine: &Arc<E>,
    phase: &'static str,
    work: Work,
    warm: Duration,
) -> Result<Figures> {
    run(bench, engine, work, warm, 1).await.with_context(|| format!("warm-up of {phase}"))?;
    let (before, causes) = (bench.bucket.traffic(), engine.causes());
    let lasts = Duration::from_secs(bench.options.seconds);
    let run = run(bench, engine, work, lasts, 2).await.context(phase)?;
    let (disk, resident) = (disk_of::<E>(bench), resident_bytes());
    let after = match work {
        Work::Update { .. } => {
            engine.flush().await.with_context(|| format!("flush of {phase}"))?;
            bench.bucket.settled(Duration::from_secs(bench.options.quiet)).await
        }
        _ => bench.bucket.traffic(),
    };
    let operations = run.latency.len();
    let figures = Figures {
        engine: E::NAME,
        phase,
        operations,
        per_second: operations as f64 / run.seconds,
        best: run.each_second.iter().max().copied().unwrap_or(0) as f64,
        p50: run.latency.value_at_quantile(0.5) as f64 / 1e6,
        p99: run.latency.value_at_quantile(0.99) as f64 / 1e6,
        traffic: after.since(&before),
        retries: run.retries,
        disk,
        resident,
    };
    println!("{figures}");
    if let Work::Update { .. } = work {
        let seconds: Vec<String> = run.each_second.iter().map(u64::to_string).collect();
        println!("    each second: {}", seconds.join(" "));
    }
    let causes: Vec<String> = engine
        .causes()
        .into_iter()
        .map(|(cause, count)| (count - causes.get(&cause).copied().unwrap_or(0), cause))
        .filter(|(count, _)| *count > 0)
        .map(|(count, cause)| format!("{cause} {count}"))
        .collect();
    if !causes.is_empty() {
        println!("    {}", causes.join(", "));
    }
    Ok(figures)
}

fn disk_of<E: Engine>(bench: &Bench) -> u64 {
    let folders = std::fs::read_dir(&bench.dir).into_iter().flatten().flatten();
    folders
        .filter(|folder| folder.file_name().to_string_lossy().starts_with(E::NAME))
        .map(|folder| disk_bytes(&folder.path()))
        .sum()
}

/// Clients in closed loops.
async fn run<E: Engine>(bench: &Arc<Bench>, engine: &Arc<E>, work: Work, lasts: Duration, seed: u64) -> Result<Run> {
    let over = Arc::new(AtomicBool::new(false));
    let done = Arc::new(AtomicU64::new(0));
    let began = Instant::now();
    let mut tasks = Vec::new();
    for client in 0..bench.options.clients {
        let (bench, engine, over, done) = (bench.clone(), engine.clone(), over.clone(), done.clone());
        let seed = seed << 32 | client;
        tasks.push(tokio::spawn(async move {
            let ended = one_client(&bench, &*engine, work, seed, &over, &done).await;
            // The others need not go on if this one failed.
            if ended.is_err() {
                over.store(true, Relaxed);
            }
            ended
        }));
    }
    let mut each_second = Vec::new();
    while began.elapsed() < lasts && !over.load(Relaxed) {
        let before = done.load(Relaxed);
        tokio::time::sleep(Duration::from_secs(1).min(lasts)).await;
        each_second.push(done.load(Relaxed) - before);
    }
    over.store(true, Relaxed);
    let mut run = Run { latency: latencies()?, retries: 0, seconds: 0.0, each_second };
    for task in tasks {
        let (latency, retries) = task.await??;
        run.latency.add(latency)?;
        run.retries += retries;
    }
    run.seconds = began.elapsed().as_secs_f64();
    Ok(run)
}

fn latencies() -> Result<Histogram<u64>> {
    // Without bounds it would begin small, and `saturating_record` does not make it grow.
    Ok(Histogram::new_with_bounds(1, LATENCY_MAX, 3)?)
}

async fn one_client<E: Engine>(
    bench: &Bench,
    engine: &E,
    work: Work,
    seed: u64,
    over: &AtomicBool,
    done: &AtomicU64,
) -> Result<(Histogram<u64>, u64)> {
    let (rows, hot, size) = (bench.options.rows(), bench.options.hot_rows(), bench.options.value_bytes);
    let zipf = Zipf::new(rows as f64, 0.99)?;
    let mut random = noise(seed);
    let mut latency = latencies()?;
    let mut retries = 0;
    while !over.load(Relaxed) {
        // A hit in RAM never awaits: without this the other clients would wait for the end of the run.
        tokio::task::consume_budget().await;
        let key = match work {
            Work::HotGet => rows / 2 - hot / 2 + random.random_range(0..hot),
            // The ranks lie scattered over the keys.
            _ => (zipf.sample(&mut random) as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) % rows,
        };
        let began = match work {
            Work::Get | Work::HotGet => {
                let began = Instant::now();
                let found = engine.get(key).await?;
                latency.saturating_record(began.elapsed().as_nanos() as u64);
                check(key, &found.with_context(|| format!("row {key} is missing"))?, size)?;
                None
            }
            Work::Range => {
                let began = Instant::now();
                let found = engine.range(key, RANGE as usize).await?;
                latency.saturating_record(began.elapsed().as_nanos() as u64);
                check_range(key, &found, RANGE.min(rows - key), size)?;
                None
            }
            Work::Update { durable } => {
                let value = value(key, &mut random, size);
                let began = Instant::now();
                retries += engine.put(key, value, durable).await?;
                Some(began)
            }
        };
        if let Some(began) = began {
            latency.saturating_record(began.elapsed().as_nanos() as u64);
        }
        done.fetch_add(1, Relaxed);
    }
    Ok((latency, retries))
}
