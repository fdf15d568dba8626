//! Figures of the phases, and the bars that they are held against.

use std::{collections::BTreeMap, fmt, fs::File, io::Write as _, path::Path};

use anyhow::{Result, bail};

use crate::bucket::Traffic;

pub const GETS: &str = "gets, zipf";
pub const RANGES: &str = "ranges of 100, zipf";
pub const HOT_GETS: &str = "gets, hot set in RAM";
/// Holdfast's updates.
pub const QUORUM: &str = "updates, durable: Quorum";
pub const BUCKET: &str = "updates, durable: Bucket";
pub const BUCKET_100: &str = "updates, durable: Bucket, 100 ms";
pub const BUCKET_10: &str = "updates, durable: Bucket, 10 ms";
/// SlateDB's updates.
pub const MEMORY: &str = "updates, in memory";
pub const MEMORY_OVER: &str = "updates, in memory, 1 GiB buffer";
pub const DURABLE_100: &str = "updates, durable, 100 ms";
pub const DURABLE_10: &str = "updates, durable, 10 ms";

/// What one phase came to.
#[derive(Clone)]
pub struct Figures {
    pub engine: &'static str,
    pub phase: &'static str,
    pub operations: u64,
    pub per_second: f64,
    pub best: f64,
    pub p50: f64,
    pub p99: f64,
    pub traffic: Traffic,
    pub retries: u64,
    pub disk: u64,
    pub resident: u64,
}

impl Figures {
    pub const HEADER: &'static str = "phase                                  ops/s  best s   p50 ms   p99 ms  GET/1k  PUT/1k  $/million  KiB/op  retries  disk MiB  RAM MiB";

    fn dollars_per_million(&self) -> f64 {
        self.traffic.dollars() * 1e6 / self.operations.max(1) as f64
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let operations = self.operations.max(1) as f64;
        write!(
            f,
            "{:34} {:9.0} {:7.0} {:8.3} {:8.3} {:7.2} {:7.2} {:10.3} {:7.1} {:8} {:9} {:8}",
            self.phase,
            self.per_second,
            self.best,
            self.p50,
            self.p99,
            self.traffic.gets() as f64 * 1000.0 / operations,
            self.traffic.puts() as f64 * 1000.0 / operations,
            self.dollars_per_million(),
            self.traffic.moved() as f64 / 1024.0 / operations,
            self.retries,
            self.disk >> 20,
            self.resident >> 20
        )
    }
}

/// Resident bytes of this process that are no file's: the bench's clients and the proxy are in it.
pub fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).map_or(0, |kib| kib << 10)
}

/// What a bar compares.
#[derive(Clone, Copy)]
enum Of {
    Speed,
    Dollars,
}

/// Ours, theirs, what of them, and the bound of the ratio: at least for speed, at most for dollars.
type Bar = (&'static str, &'static str, Of, f64);

const BARS: &[Bar] = &[
    (QUORUM, DURABLE_100, Of::Speed, 3.0),
    (QUORUM, DURABLE_10, Of::Speed, 3.0),
    (QUORUM, MEMORY, Of::Speed, 0.5),
    (QUORUM, MEMORY_OVER, Of::Speed, 0.5),
    (GETS, GETS, Of::Speed, 1.0),
    (HOT_GETS, HOT_GETS, Of::Speed, 1.0),
    (RANGES, RANGES, Of::Speed, 1.0),
    (GETS, GETS, Of::Dollars, 1.0 / 3.0),
    (RANGES, RANGES, Of::Dollars, 1.0 / 3.0),
    (QUORUM, MEMORY, Of::Dollars, 1.0 / 3.0),
    (QUORUM, MEMORY_OVER, Of::Dollars, 1.0 / 3.0),
    (QUORUM, DURABLE_100, Of::Dollars, 1.0 / 3.0),
    (QUORUM, DURABLE_10, Of::Dollars, 1.0 / 3.0),
];

/// Both in the bucket: no bar, but what is like what.
const LIKE: &[(&str, &str)] = &[(BUCKET_100, DURABLE_100), (BUCKET_10, DURABLE_10)];

/// All figures of a run, and of those before it in the same file: operations a second and dollars per million.
#[derive(Default)]
pub struct Results {
    figures: BTreeMap<(String, String), Vec<(f64, f64)>>,
    file: Option<File>,
}

impl Results {
    /// Begins with what the file has.
    pub fn open(path: Option<&Path>) -> Result<Self> {
        let mut results = Self::default();
        let Some(path) = path else { return Ok(results) };
        let text = if path.exists() { std::fs::read_to_string(path)? } else { String::new() };
        for line in text.lines() {
            let fields: Vec<&str> = line.split('\t').collect();
            let [engine, phase, speed, dollars] = fields[..] else { bail!("{}: {line:?}", path.display()) };
            let key = (engine.to_owned(), phase.to_owned());
            results.figures.entry(key).or_default().push((speed.parse()?, dollars.parse()?));
        }
        results.file = Some(File::options().create(true).append(true).open(path)?);
        Ok(results)
    }

    /// Takes the figures of a phase.
    pub fn add(&mut self, figures: Figures) -> Result<()> {
        let Figures { engine, phase, per_second, .. } = figures;
        let dollars = figures.dollars_per_million();
        if let Some(file) = &mut self.file {
            writeln!(file, "{engine}\t{phase}\t{per_second}\t{dollars}")?;
        }
        self.figures.entry((engine.to_owned(), phase.to_owned())).or_default().push((per_second, dollars));
        Ok(())
    }

    /// The median over the rounds.
    fn median(&self, engine: &str, phase: &str, of: Of) -> Option<f64> {
        let runs = self.figures.get(&(engine.to_owned(), phase.to_owned()))?.iter();
        let mut values: Vec<f64> = match of {
            Of::Speed => runs.map(|(speed, _)| *speed).collect(),
            Of::Dollars => runs.map(|(_, dollars)| *dollars).collect(),
        };
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied()
    }

    fn pair(&self, ours: &'static str, theirs: &'static str, of: Of) -> Option<(f64, f64)> {
        self.median("holdfast", ours, of).zip(self.median("slatedb", theirs, of))
    }

    /// Prints the ratios of what was measured, ours over theirs.
    pub fn print_bars(&self) {
        println!("\nholdfast / slatedb");
        for (ours, theirs, of, bound) in BARS {
            let Some((mine, other)) = self.pair(ours, theirs, *of) else { continue };
            let ratio = mine / other;
            let (unit, sign, passes) = match of {
                Of::Speed => ("ops/s", ">=", ratio >= *bound),
                // Nothing is never more than a third of nothing.
                Of::Dollars => ("$/million", "<=", mine <= other * bound),
            };
            let passes = if passes { "pass" } else { "MISSED" };
            println!(
                "{unit:9} {ours:34} {mine:11.3} / {theirs:34} {other:11.3} = {ratio:9.3} (bar {sign} {bound:.2}) {passes}"
            );
        }
        for (ours, theirs) in LIKE {
            for (unit, of) in [("ops/s", Of::Speed), ("$/million", Of::Dollars)] {
                let Some((mine, other)) = self.pair(ours, theirs, of) else { continue };
                println!("{unit:9} {ours:34} {mine:11.3} / {theirs:34} {other:11.3} = {:9.3} (no bar)", mine / other);
            }
        }
    }
}
