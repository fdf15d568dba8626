//! The workloads behind `holdfast bench`: YCSB a to f and mixes like sysbench's, embedded on any store or over MySQL.
//!
//! [`run`] loads a table, runs clients against it and returns a [`Report`]: throughput, latency of durable commits and
//! of reads, page reads by cache tier, bucket requests by kind and what they cost. With `--check` every value that is
//! read is verified, and all rows at the end.
#![allow(clippy::disallowed_methods, reason = "a benchmark reads the clock and the operating system's randomness")]

mod acked;
mod check;
mod client;
pub mod dist;
mod driver;
mod latency;
mod observe;
mod options;
mod report;
mod row;
mod target;
pub mod workload;

use std::fmt;

use crate::{driver::Shared, latency::Kind, report::thousands, target::Target};
pub use crate::{
    latency::Figures,
    observe::{Observed, Requests},
    options::BenchOptions,
    report::{Engine, Load, Report},
};

/// Why a run ended without a report.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An option cannot be.
    #[error("{0}")]
    Options(String),
    /// The temporary folders of an embedded run cannot be made or removed.
    #[error("temporary folder: {0}")]
    Folder(#[source] std::io::Error),
    /// The embedded engine failed.
    #[error(transparent)]
    Engine(#[from] holdfast::Error),
    /// The server or the connection to it failed.
    #[error("MySQL: {0}")]
    Mysql(#[source] Box<mysql_async::Error>),
    /// No session with the server at `--addr`.
    #[error("--addr {addr}: cannot log in: {source}")]
    Login {
        /// As it was given.
        addr: String,
        /// Why.
        source: Box<mysql_async::Error>,
    },
    /// A read gave something else than what was written.
    #[error("wrong answer: {0}")]
    Wrong(String),
    /// An operation met conflicts, or a store that was too slow, only.
    #[error("an operation was tried {0} times and met a conflict, or a store that took too long, each time")]
    NoProgress(u32),
    /// A client ended unexpectedly.
    #[error("a client ended unexpectedly: {0}")]
    Client(String),
}

impl From<mysql_async::Error> for Error {
    fn from(error: mysql_async::Error) -> Self {
        Self::Mysql(Box::new(error))
    }
}

/// How far a run is; given about once a second. Prints as one line.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Progress {
    /// Rows are being loaded.
    Load {
        /// Rows loaded.
        rows: u64,
        /// Rows to load.
        total: u64,
    },
    /// Clients are running.
    Run {
        /// Not warming up any more.
        measured: bool,
        /// Seconds since the phase began.
        seconds: f64,
        /// Operations done in them.
        operations: u64,
    },
    /// All rows are being verified.
    Verify,
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Load { rows, total } => {
                let percent = rows * 100 / (*total).max(1);
                write!(f, "load: {} of {} rows ({percent} %)", thousands(*rows), thousands(*total))
            }
            Self::Run { measured, seconds, operations } => {
                let phase = if *measured { "run" } else { "warm-up" };
                let rate = thousands((*operations as f64 / seconds.max(1e-9)) as u64);
                write!(f, "{phase}: {seconds:.0} s, {} operations, {rate}/s", thousands(*operations))
            }
            Self::Verify => f.write_str("check: reading all rows"),
        }
    }
}

/// Takes progress, about once a second.
pub type ProgressSink<'a> = dyn Fn(&Progress) + Send + Sync + 'a;

/// Runs a benchmark: load, warm-up, run, and with `check` a final verification. The measured figures cover the run, and
/// embedded also the flush of what it wrote, so that the price of writes is in them.
pub async fn run(options: BenchOptions, progress: &ProgressSink<'_>) -> Result<Report, Error> {
    let target = Target::open(&options).await?;
    let shared = Shared::new(options, target);
    let result = phases(&shared, progress).await;
    let shared = std::sync::Arc::into_inner(shared);
    match (result, shared) {
        (result, Some(shared)) => {
            let closed = shared.target.close().await;
            result.and_then(|report| closed.map(|()| report))
        }
        // Clients may still hold the target after an error: dropping it is crash-safe.
        (result, None) => result,
    }
}

async fn phases(shared: &std::sync::Arc<Shared>, progress: &ProgressSink<'_>) -> Result<Report, Error> {
    let options = &shared.options;
    let load = if options.skip_load {
        shared.find_rows().await?;
        None
    } else {
        let seconds = shared.load(progress).await?.as_secs_f64();
        Some(Load { seconds, rows_per_second: options.rows as f64 / seconds.max(1e-9) })
    };
    if options.warmup > 0 {
        shared.run(options.warmup, None, false, progress).await?;
    }
    let before = shared.target.observe().await?;
    let measured = shared.run(options.seconds, options.operations, true, progress).await?;
    let latencies = &measured.latencies;
    let commits = latencies.figures(Kind::Commit);
    if commits.is_some() {
        shared.target.checkpoint().await?;
    }
    let after = shared.target.observe().await?;
    let observed = before.zip(after).map(|(before, after)| after.since(&before));
    let verified = match &shared.checker {
        Some(_) => {
            progress(&Progress::Verify);
            Some(shared.verify_all().await?)
        }
        None => None,
    };
    let seconds = measured.took.as_secs_f64();
    Ok(Report {
        workload: options.workload,
        target: shared.target.name().to_owned(),
        distribution: options.distribution(),
        rows: options.rows,
        value_bytes: options.value_size(),
        threads: options.threads,
        load,
        seconds,
        operations: measured.operations,
        operations_per_second: measured.operations as f64 / seconds.max(1e-9),
        each_second: measured.each_second,
        retries: measured.retries,
        commits,
        reads: latencies.figures(Kind::Read),
        scans: latencies.figures(Kind::Scan),
        transactions: latencies.figures(Kind::Transaction),
        verified,
        engine: observed.map(|observed| Engine::new(observed, measured.operations)),
    })
}
