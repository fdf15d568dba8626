//! What Raft costs: commits of one voter through `Wal::propose`, beside raw appends to the same kind of log.
//!
//! `cargo bench -p holdfast-benches --bench raft_vs_raw`. The folder is $HOLDFAST_BENCH_DIR (default: the target folder;
//! take a real disk), a measurement lasts $HOLDFAST_BENCH_SECS (0.5), and each is made $HOLDFAST_BENCH_ROUNDS (7) times, raw
//! and Raft in turn; medians are compared, and the two bars checked: half a minute.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a benchmark: it measures wall time, prints its table, and stops at the first surprise"
)]

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use hdrhistogram::Histogram;
use holdfast_wal::{
    Applied, BoxFuture, Entry, Log, LogEntry, LogId, LogOptions, Machine, MachineError, Restored, Snapshot, Wal,
    WalOptions,
    disk::{Choice, file},
    transport::NoTransport,
};
use tokio::sync::oneshot;

const PAYLOAD: usize = 256;
const CLIENTS: [usize; 4] = [1, 4, 16, 64];
/// At most this latency with 1 client, and at least this throughput with 64, beside the raw log.
const LATENCY_BAR: f64 = 1.3;
const THROUGHPUT_BAR: f64 = 0.8;

/// A machine that only counts, and lets the log forget what is far behind.
#[derive(Default)]
struct Counting {
    last: Option<LogId>,
}

impl Machine for Counting {
    fn restored(&self) -> Restored {
        Restored::default()
    }

    fn apply(&mut self, entries: Vec<Entry>) -> BoxFuture<'_, Result<Applied, MachineError>> {
        self.last = entries.last().map(|e| e.id).or(self.last);
        let index = self.last.map_or(0, |id| id.index);
        Box::pin(async move { Ok(Applied { purge_to: (index / KEEP).saturating_sub(1) * KEEP }) })
    }

    fn snapshot(&self) -> Option<Snapshot> {
        self.last.map(|last| Snapshot { last, membership: None, pointer: Bytes::new() })
    }

    fn install(&mut self, _: Snapshot) -> BoxFuture<'_, Result<(), MachineError>> {
        Box::pin(async { Ok(()) })
    }
}

/// Entries that either log keeps before it forgets.
const KEEP: u64 = 100_000;

/// The raw side: numbers entries as Raft would.
struct Raw {
    log: Log,
    next: Mutex<u64>,
}

impl Raw {
    async fn append(&self, payload: Bytes) {
        let (tx, rx) = oneshot::channel();
        {
            let mut next = self.next.lock().unwrap();
            let id = LogId { term: 1, index: *next };
            *next += 1;
            let done = move |result| {
                let _ = tx.send(result);
            };
            self.log.append(vec![LogEntry { id, kind: 1, payload }], done);
            if id.index.is_multiple_of(KEEP) && id.index > KEEP {
                self.log.purge(LogId { term: 1, index: id.index - KEEP }, |r| r.unwrap());
            }
        }
        rx.await.unwrap().unwrap();
    }
}

#[derive(Clone)]
enum Side {
    Raw(Arc<Raw>),
    Raft(Wal),
}

impl Side {
    async fn commit(&self, payload: Bytes) {
        match self {
            Self::Raw(raw) => raw.append(payload).await,
            Self::Raft(wal) => {
                wal.propose(payload).await.unwrap();
            }
        }
    }
}

struct Point {
    per_second: f64,
    p50: f64,
    p99: f64,
}

async fn measure(side: &Side, clients: usize, time: Duration) -> Point {
    let stop = Arc::new(AtomicBool::new(false));
    let payload = Bytes::from(vec![7u8; PAYLOAD]);
    let start = Instant::now();
    let tasks: Vec<_> = (0..clients)
        .map(|_| {
            let (side, stop, payload) = (side.clone(), stop.clone(), payload.clone());
            tokio::spawn(async move {
                let mut latency = Histogram::<u64>::new(3).unwrap();
                while !stop.load(Ordering::Relaxed) {
                    let t = Instant::now();
                    side.commit(payload.clone()).await;
                    latency.record(t.elapsed().as_nanos() as u64).unwrap();
                }
                latency
            })
        })
        .collect();
    tokio::time::sleep(time).await;
    stop.store(true, Ordering::Relaxed);
    let mut all = Histogram::<u64>::new(3).unwrap();
    for task in tasks {
        all.add(task.await.unwrap()).unwrap();
    }
    let seconds = start.elapsed().as_secs_f64();
    let micros = |q| all.value_at_quantile(q) as f64 / 1000.0;
    Point { per_second: all.len() as f64 / seconds, p50: micros(0.5), p99: micros(0.99) }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn env(name: &str, default: f64) -> f64 {
    std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(default)
}

async fn open(dir: &Path) -> (Side, Side, Wal) {
    let options = LogOptions { segment_bytes: 64 << 20, max_bytes: 1 << 30, ..LogOptions::default() };
    let at = |name: &str| {
        let dir = dir.join(name);
        std::fs::create_dir_all(&dir).unwrap();
        file::open(&dir, Choice::Auto).unwrap()
    };
    let (log, _) = Log::open(at("raw"), options.clone()).unwrap();
    let raw = Side::Raw(Arc::new(Raw { log, next: Mutex::new(1) }));
    let wal = Wal::open(WalOptions::single(1, options), at("raft"), Arc::new(NoTransport), Counting::default())
        .await
        .unwrap();
    wal.ready().await.unwrap();
    (raw, Side::Raft(wal.clone()), wal)
}

#[tokio::main(worker_threads = 2)]
async fn main() {
    let base = std::env::var_os("HOLDFAST_BENCH_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_TARGET_TMPDIR")), PathBuf::from);
    let dir = tempfile::Builder::new().prefix("raft_vs_raw").tempdir_in(base).unwrap();
    let time = Duration::from_secs_f64(env("HOLDFAST_BENCH_SECS", 0.5));
    let rounds = env("HOLDFAST_BENCH_ROUNDS", 7.0) as usize;
    let (raw, raft, wal) = open(dir.path()).await;
    println!("{PAYLOAD} B payloads, {rounds} rounds of {time:?}, medians; log in {}", dir.path().display());
    println!("clients |      raw/s   p50 us   p99 us |     raft/s   p50 us   p99 us | throughput  latency");
    let (mut latency, mut throughput) = (f64::NAN, f64::NAN);
    for clients in CLIENTS {
        let (mut a, mut b) = (Vec::new(), Vec::new());
        for round in 0..rounds {
            // Turns swap, so that neither side always follows the other.
            if round % 2 == 0 {
                a.push(measure(&raw, clients, time).await);
                b.push(measure(&raft, clients, time).await);
            } else {
                b.push(measure(&raft, clients, time).await);
                a.push(measure(&raw, clients, time).await);
            }
        }
        let of = |points: &[Point], f: fn(&Point) -> f64| median(points.iter().map(f).collect());
        let columns = |p: &[Point]| (of(p, |p| p.per_second), of(p, |p| p.p50), of(p, |p| p.p99));
        let (x, y) = (columns(&a), columns(&b));
        println!(
            "{clients:>7} | {:>10.0} {:>8.0} {:>8.0} | {:>10.0} {:>8.0} {:>8.0} | {:>9.2}x {:>7.2}x",
            x.0,
            x.1,
            x.2,
            y.0,
            y.1,
            y.2,
            y.0 / x.0,
            y.1 / x.1
        );
        match clients {
            1 => latency = y.1 / x.1,
            64 => throughput = y.0 / x.0,
            _ => {}
        }
    }
    let word = |held| if held { "held" } else { "MISSED" };
    println!(
        "median latency at 1 client: {latency:.2}x of raw, bar <= {LATENCY_BAR}x: {}",
        word(latency <= LATENCY_BAR)
    );
    println!(
        "throughput at 64 clients: {throughput:.2}x of raw, bar >= {THROUGHPUT_BAR}x: {}",
        word(throughput >= THROUGHPUT_BAR)
    );
    if let Side::Raw(raw) = &raw {
        raw.log.close().unwrap();
    }
    wal.close().await;
}
