//! The load: keys, values, readers and what is measured. The caches are behind one trait.

use std::{
    fmt,
    path::Path,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use bytes::Bytes;
use hdrhistogram::Histogram;
use rand::{Rng, SeedableRng, rngs::SmallRng};
use rand_distr::{Distribution, Zipf};

use crate::{Options, memory, open};

/// Keys that a reader draws before the clock runs, and goes through again and again.
const DRAWN: usize = 1 << 19;

/// What both caches do.
pub trait Cache: Send + Sync + 'static {
    /// A value, fetched from the origin if the cache has not got it.
    fn get(&self, key: u64, origin: &Arc<Origin>) -> Pin<Box<dyn Future<Output = Result<Bytes>> + Send + '_>>;
    /// Waits until what was stored is on the device, about.
    fn settle(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>>;
    /// Ends the cache, so that it can be opened again.
    fn close(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>>;
    /// Bytes written to the device.
    fn written(&self) -> u64;
}

/// Where misses go: a delay away, and counted.
pub struct Origin {
    pub size: usize,
    pub delay: Duration,
    pub calls: AtomicU64,
}

impl Origin {
    pub async fn fetch(self: Arc<Self>, key: u64) -> Bytes {
        self.calls.fetch_add(1, Relaxed);
        if !self.delay.is_zero() {
            tokio::time::sleep(self.delay).await;
        }
        value(key, self.size)
    }
}

/// A value: its key, and noise that does not compress.
fn value(key: u64, size: usize) -> Bytes {
    let mut bytes = vec![0; size];
    SmallRng::seed_from_u64(key).fill(&mut bytes[8..]);
    bytes[..8].copy_from_slice(&key.to_le_bytes());
    bytes.into()
}

fn check(key: u64, value: &Bytes, size: usize) -> Result<()> {
    let right = value.len() == size && value.first_chunk() == Some(&key.to_le_bytes());
    ensure!(right, "key {key} has another value than the origin gave");
    Ok(())
}

/// One workload.
pub struct Workload {
    pub value: usize,
    pub keys: u64,
    pub zipf: bool,
    percent: u64,
}

impl Workload {
    pub fn all(options: &Options) -> Vec<Self> {
        let mut all = Vec::new();
        for percent in &options.data {
            for value in &options.values {
                let keys = options.nvme * 1024 * 1024 * percent / 100 / *value as u64;
                all.extend(options.keys.iter().map(|keys_as| Self {
                    value: *value,
                    keys,
                    zipf: keys_as == "zipf",
                    percent: *percent,
                }));
            }
        }
        all
    }

    fn draw(&self, seed: u64) -> Vec<u64> {
        let mut rng = SmallRng::seed_from_u64(seed);
        let zipf = Zipf::new(self.keys as f64, 0.99).expect("a positive number of keys");
        let keys = std::iter::repeat_with(|| match self.zipf {
            // The ranks lie scattered over the keys.
            true => (zipf.sample(&mut rng) as u64 - 1).wrapping_mul(0x9E37_79B9_7F4A_7C15) % self.keys,
            false => rng.random_range(0..self.keys),
        });
        keys.take(DRAWN).collect()
    }
}

impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys = if self.zipf { "zipf 0.99" } else { "uniform" };
        write!(f, "{} KiB, {keys}, data {} % of NVMe", self.value / 1024, self.percent)
    }
}

/// What one run came to.
#[derive(Clone, Copy)]
pub struct Figures {
    reads_per_second: f64,
    hits_per_second: f64,
    hit_share: f64,
    p50: f64,
    p99: f64,
    written: f64,
    heap: f64,
}

impl Figures {
    pub const HEADER: &'static str = "  reads/s     hits/s   hits  p50 us  p99 us  written/fetched  heap MiB";

    /// The medians of ours over those of theirs.
    pub fn ratio(ours: &[Self], theirs: &[Self]) -> String {
        let median = |runs: &[Self], of: fn(&Self) -> f64| {
            let mut values: Vec<f64> = runs.iter().map(of).collect();
            values.sort_by(f64::total_cmp);
            values[values.len() / 2]
        };
        let ratio = |of: fn(&Self) -> f64| median(ours, of) / median(theirs, of);
        format!(
            "reads {:.2}  hits {:.2}  p50 {:.2}  p99 {:.2}",
            ratio(|f| f.reads_per_second),
            ratio(|f| f.hits_per_second),
            ratio(|f| f.p50),
            ratio(|f| f.p99)
        )
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:9.0}  {:9.0}  {:5.3}  {:6.0}  {:6.0}  {:15.2}  {:8.0}",
            self.reads_per_second, self.hits_per_second, self.hit_share, self.p50, self.p99, self.written, self.heap
        )
    }
}

/// Fills the cache with every key once, lets the load run to warm it, and measures it. `heap`: what was allocated before it
/// was opened.
pub async fn run(options: &Options, workload: &Workload, cache: Arc<dyn Cache>, heap: i64) -> Result<Figures> {
    let fill = Arc::new(Origin { size: workload.value, delay: Duration::ZERO, calls: AtomicU64::new(0) });
    for key in 0..workload.keys {
        cache.get(key, &fill).await?;
        if key % 256 == 255 {
            cache.settle().await;
        }
    }
    let delay = Duration::from_millis(options.origin_ms);
    let origin = Arc::new(Origin { size: workload.value, delay, calls: AtomicU64::new(0) });
    let lasts = Duration::from_secs(options.seconds);
    readers(options, workload, &cache, &origin, lasts).await?;
    let before = origin.calls.load(Relaxed);
    let began = Instant::now();
    let latency = readers(options, workload, &cache, &origin, lasts).await?;
    let seconds = began.elapsed().as_secs_f64();
    let (reads, misses) = (latency.len() as f64, (origin.calls.load(Relaxed) - before) as f64);
    let fetched = (fill.calls.load(Relaxed) + origin.calls.load(Relaxed)) * workload.value as u64;
    Ok(Figures {
        reads_per_second: reads / seconds,
        hits_per_second: (reads - misses) / seconds,
        hit_share: 1.0 - misses / reads,
        p50: latency.value_at_quantile(0.5) as f64 / 1e3,
        p99: latency.value_at_quantile(0.99) as f64 / 1e3,
        written: cache.written() as f64 / fetched as f64,
        heap: (memory::out() - heap) as f64 / (1 << 20) as f64,
    })
}

/// Readers in a closed loop. The latencies are in nanoseconds.
async fn readers(
    options: &Options,
    workload: &Workload,
    cache: &Arc<dyn Cache>,
    origin: &Arc<Origin>,
    lasts: Duration,
) -> Result<Histogram<u64>> {
    let over = Arc::new(AtomicBool::new(false));
    let mut tasks = Vec::new();
    let drawn = Arc::new(workload.draw(1));
    for reader in 0..options.readers {
        let (cache, origin, over, drawn) = (cache.clone(), origin.clone(), over.clone(), drawn.clone());
        tasks.push(tokio::spawn(async move {
            let mut latency = Histogram::<u64>::new(3)?;
            let mut at = reader * drawn.len() / 64 % drawn.len();
            while !over.load(Relaxed) {
                // A RAM hit never awaits: without this the other readers would wait for the end of the run.
                tokio::task::consume_budget().await;
                let key = drawn[at];
                at = (at + 1) % drawn.len();
                let began = Instant::now();
                let value = cache.get(key, &origin).await?;
                latency.record(began.elapsed().as_nanos() as u64)?;
                check(key, &value, origin.size)?;
            }
            anyhow::Ok(latency)
        }));
    }
    tokio::time::sleep(lasts).await;
    over.store(true, Relaxed);
    let mut all = Histogram::new(3)?;
    for task in tasks {
        all.add(task.await??)?;
    }
    Ok(all)
}

/// RAM per record on NVMe, and how long the cache takes to be back with `mib` MiB on NVMe.
pub async fn restart(options: &Options, name: &str, mib: u64) -> Result<()> {
    let folder = tempfile::tempdir_in(&options.dir)?;
    // Room for headers and directories, so that everything stays.
    let options = Options { ram: 16, nvme: mib * 5 / 4, ..options.clone() };
    for size in &options.values {
        let dir = folder.path().join(size.to_string());
        std::fs::create_dir_all(&dir)?;
        let keys = mib * 1024 * 1024 / *size as u64;
        let origin = Arc::new(Origin { size: *size, delay: Duration::ZERO, calls: AtomicU64::new(0) });
        let cache = open(name, &options, &dir).await?;
        let mut half = 0;
        for key in 0..keys {
            cache.get(key, &origin).await?;
            if key % 256 == 255 {
                cache.settle().await;
            }
            if key == keys / 2 {
                half = memory::out();
            }
        }
        cache.settle().await;
        let per_record = (memory::out() - half) as f64 / (keys - keys / 2) as f64;
        cache.close().await;
        drop(cache);
        let began = Instant::now();
        let cache = open(name, &options, &dir).await?;
        let back = began.elapsed().as_secs_f64();
        origin.calls.store(0, Relaxed);
        let mut rng = SmallRng::seed_from_u64(1);
        for _ in 0..1000 {
            let key = rng.random_range(0..keys);
            check(key, &cache.get(key, &origin).await?, *size)?;
        }
        println!(
            "{name:9} {mib} MiB of {} KiB: {per_record:.1} bytes of RAM a record on NVMe; open again in {back:.3} s, {:.1} % of 1000 reads hit",
            size / 1024,
            100.0 - origin.calls.load(Relaxed) as f64 / 10.0
        );
        cache.close().await;
        drop(cache);
        remove(&dir)?;
    }
    Ok(())
}

fn remove(dir: &Path) -> Result<()> {
    Ok(std::fs::remove_dir_all(dir)?)
}
