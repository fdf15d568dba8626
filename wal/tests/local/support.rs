//! What the cases share: small logs, every kind of disk, and a model to compare with.

use std::sync::{Arc, mpsc};

use bytes::Bytes;
use holdfast_wal::{
    Error, Log, LogEntry, LogId, LogOptions, LogState,
    disk::{
        Choice, Disk,
        file::{self},
        sim::SimDisk,
    },
};

pub const CLUSTER: u128 = 0x5eed_c0de;

/// Segments so small that a test sees many of them.
pub fn small() -> LogOptions {
    LogOptions {
        was_used: false,
        cluster: CLUSTER,
        segment_bytes: 128 << 10,
        max_bytes: 2 << 20,
        reserved_segments: 2,
        spare_segments: 1,
        max_queued_bytes: 1 << 20,
        ram_tail_bytes: 8 << 10,
        max_payload: 32 << 10,
        max_write_bytes: 64 << 10,
    }
}

/// A disk that can be opened again and again; dropping it removes its files.
pub enum Bench {
    Sim(SimDisk),
    Real(tempfile::TempDir, Choice),
}

impl Bench {
    /// One of each kind.
    pub fn all() -> Vec<Bench> {
        vec![Bench::sim(), Bench::real(Choice::Pwrite), Bench::real(Choice::Uring)]
    }

    pub fn sim() -> Bench {
        Bench::Sim(SimDisk::new(1))
    }

    /// On the build folder's device: the system's temporary folder may have no O_DIRECT.
    pub fn real(choice: Choice) -> Bench {
        Bench::Real(tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap(), choice)
    }

    pub fn disk(&self) -> Arc<dyn Disk> {
        match self {
            Bench::Sim(disk) => Arc::new(disk.clone()),
            Bench::Real(dir, choice) => file::open(dir.path(), *choice).unwrap(),
        }
    }

    pub fn open(&self, options: LogOptions) -> (Log, LogState) {
        Log::open(self.disk(), options).unwrap()
    }
}

pub fn id(term: u64, index: u64) -> LogId {
    LogId { term, index }
}

/// An entry whose payload can be told from every other's.
pub fn entry(term: u64, index: u64, len: usize) -> LogEntry {
    let seed = (term << 32 | index).to_le_bytes();
    let payload: Vec<u8> = seed.iter().copied().cycle().take(len).collect();
    LogEntry { id: id(term, index), kind: 7, payload: Bytes::from(payload) }
}

pub fn entries(term: u64, range: std::ops::Range<u64>, len: usize) -> Vec<LogEntry> {
    range.map(|index| entry(term, index, len)).collect()
}

/// Runs a call and waits for its answer.
pub fn wait(call: impl FnOnce(Box<dyn FnOnce(Result<(), Error>) + Send>)) -> Result<(), Error> {
    let (tx, rx) = mpsc::channel();
    call(Box::new(move |result| tx.send(result).unwrap()));
    rx.recv().expect("every call is answered")
}

pub fn append(log: &Log, entries: Vec<LogEntry>) -> Result<(), Error> {
    wait(|done| log.append(entries, done))
}

pub fn append_here(log: &Log, entries: Vec<LogEntry>) -> Result<(), Error> {
    wait(|done| log.append_here(entries, done))
}

/// Everything the log holds.
pub fn all(log: &Log) -> Vec<LogEntry> {
    let state = log.state();
    match (state.first, state.last) {
        (Some(first), Some(last)) => log.read(first.index..last.index + 1, usize::MAX).unwrap(),
        _ => Vec::new(),
    }
}

impl Bench {
    /// How many segment files there are.
    pub fn disk_files(&self) -> usize {
        let names = match self {
            Bench::Sim(disk) => disk.list().unwrap(),
            Bench::Real(dir, _) => {
                let names = std::fs::read_dir(dir.path()).unwrap();
                names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
            }
        };
        names.iter().filter(|name| name.starts_with("segment-")).count()
    }
}
