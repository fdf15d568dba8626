//! The raw log on a device, without Raft: latency with one client, throughput with 64, on the ring and on `pwritev2`.
//!
//! `cargo run --release -p holdfast-wal --example raw_append -- DIR [SECONDS]`; take a folder on the device to be measured.
#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a measurement: it reads the clock, prints its table, and stops at the first surprise"
)]

use std::{
    path::Path,
    sync::{Arc, Mutex, mpsc},
    time::{Duration, Instant},
};

use bytes::Bytes;
use holdfast_wal::{
    Log, LogEntry, LogId, LogOptions,
    disk::{Choice, Durability, file},
};

/// Entries kept before the log forgets.
const KEEP: u64 = 50_000;
/// Each in turn, because devices drift.
const ROUNDS: u32 = 3;
const CHOICES: [Choice; 3] =
    [Choice::Pwrite, Choice::UringWith(Durability::ByFlush), Choice::UringWith(Durability::WithTheWrite)];

fn main() {
    let mut args = std::env::args().skip(1);
    let dir = args.next().unwrap_or_else(|| ".".into());
    let seconds = args.next().map_or(1.0, |text| text.parse().unwrap());
    println!("{:<27}{:>8}{:>12}{:>10}{:>10}", "device", "clients", "appends/s", "p50 us", "p99 us");
    for clients in [1, 4, 16, 64] {
        for round in 1..=ROUNDS {
            for choice in CHOICES {
                print!("{round} ");
                run(Path::new(&dir), choice, clients, Duration::from_secs_f64(seconds));
            }
        }
    }
}

fn run(dir: &Path, choice: Choice, clients: usize, time: Duration) {
    let dir = dir.join(format!("raw-append-{}", std::process::id()));
    let disk = match file::open(&dir, choice) {
        Ok(disk) => disk,
        Err(error) => return println!("{choice:?}: {error}"),
    };
    let (log, _) = Log::open(disk, LogOptions::default()).unwrap();
    let next = Arc::new(Mutex::new(1));
    let end = Instant::now() + time;
    let clients_running: Vec<_> = (0..clients)
        .map(|_| {
            let (log, next) = (log.clone(), next.clone());
            std::thread::Builder::new().spawn(move || client(&log, &next, end)).unwrap()
        })
        .collect();
    let mut latencies: Vec<Duration> = clients_running.into_iter().flat_map(|client| client.join().unwrap()).collect();
    latencies.sort();
    let at = |part: f64| latencies[((latencies.len() - 1) as f64 * part) as usize].as_micros();
    let rate = latencies.len() as f64 / time.as_secs_f64();
    println!("{:<25}{clients:>8}{rate:>12.0}{:>10}{:>10}", format!("{choice:?}"), at(0.5), at(0.99));
    log.close().unwrap();
    drop(log);
    std::fs::remove_dir_all(&dir).unwrap();
}

fn client(log: &Log, next: &Mutex<u64>, end: Instant) -> Vec<Duration> {
    let payload = Bytes::from(vec![7; 256]);
    let mut latencies = Vec::new();
    let (tx, rx) = mpsc::channel();
    while Instant::now() < end {
        let start = Instant::now();
        {
            let mut next = next.lock().unwrap();
            let id = LogId { term: 1, index: *next };
            *next += 1;
            let tx = tx.clone();
            log.append(vec![LogEntry { id, kind: 1, payload: payload.clone() }], move |result| {
                tx.send(result).unwrap()
            });
            if id.index.is_multiple_of(KEEP) && id.index > KEEP {
                log.purge(LogId { term: 1, index: id.index - KEEP }, Result::unwrap);
            }
        }
        rx.recv().unwrap().unwrap();
        latencies.push(start.elapsed());
    }
    latencies
}
