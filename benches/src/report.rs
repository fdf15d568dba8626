//! Owns the report: what a run measured, as a table for people and as JSON for scripts.

use std::fmt;

use serde::Serialize;

use crate::{dist::Distribution, latency::Figures, observe::Observed, workload::Workload};

/// What a run measured. The field names are the JSON's.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// What ran.
    pub workload: Workload,
    /// The store's URL, or the server's address.
    pub target: String,
    /// How rows were chosen.
    pub distribution: Distribution,
    /// Rows loaded before the run.
    pub rows: u64,
    /// Bytes of a value.
    pub value_bytes: usize,
    /// Clients.
    pub threads: u32,
    /// The load, if there was one.
    pub load: Option<Load>,
    /// Seconds measured.
    pub seconds: f64,
    /// Operations done in them (a transaction is one).
    pub operations: u64,
    /// Operations per second.
    pub operations_per_second: f64,
    /// Operations done in each whole second.
    pub each_second: Vec<u64>,
    /// Operations that were run again after a conflict, deadlock or lock wait.
    pub retries: u64,
    /// Latency of durable commits.
    pub commits: Option<Figures>,
    /// Latency of reads of one row.
    pub reads: Option<Figures>,
    /// Latency of scans.
    pub scans: Option<Figures>,
    /// Latency of whole transactions.
    pub transactions: Option<Figures>,
    /// Rows verified, with --check.
    pub verified: Option<u64>,
    /// What the engine did meanwhile; absent if the server is no Holdfast.
    pub engine: Option<Engine>,
}

/// How the load went.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Load {
    /// Seconds it took.
    pub seconds: f64,
    /// Rows per second.
    pub rows_per_second: f64,
}

/// What the engine did during the measured part. Embedded, that includes the flush of what the run wrote.
#[derive(Clone, Debug, Serialize)]
pub struct Engine {
    /// Page reads by tier, and bucket requests by kind.
    #[serde(flatten)]
    pub observed: Observed,
    /// US dollars of bucket requests per million operations, at the list price of S3 Standard in us-east-1.
    pub dollars_per_million_operations: f64,
}

impl Engine {
    /// The price of `observed` spread over `operations`.
    pub fn new(observed: Observed, operations: u64) -> Self {
        let dollars_per_million_operations = observed.dollars() * 1e6 / operations.max(1) as f64;
        Self { observed, dollars_per_million_operations }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = serde_json::to_value(self.workload).unwrap_or_default();
        let distribution = serde_json::to_value(self.distribution).unwrap_or_default();
        writeln!(f, "{} on {}", name.as_str().unwrap_or("?"), self.target)?;
        let rows = format!("{} rows of {} bytes", thousands(self.rows), self.value_bytes);
        writeln!(f, "{rows}, {} clients, {} keys", self.threads, distribution.as_str().unwrap_or("?"))?;
        if let Some(load) = &self.load {
            writeln!(
                f,
                "load          {:>12} rows/s in {:.1} s",
                thousands(load.rows_per_second as u64),
                load.seconds
            )?;
        }
        let done = format!("{} in {:.1} s", thousands(self.operations), self.seconds);
        writeln!(f, "throughput    {:>12} operations/s ({done})", thousands(self.operations_per_second as u64))?;
        if let Some((median, least)) = median_and_least(&self.each_second) {
            let share = 100.0 * least as f64 / median.max(1) as f64;
            let (median, least) = (thousands(median), thousands(least));
            writeln!(f, "each second   {median:>12} in the median, {least} in the slowest ({share:.0} %)")?;
        }
        if self.retries > 0 {
            writeln!(f, "retries       {:>12}", thousands(self.retries))?;
        }
        if let Some(verified) = self.verified {
            writeln!(f, "verified      {:>12} rows, all right", thousands(verified))?;
        }
        writeln!(f)?;
        writeln!(f, "latency            count       p50       p95       p99       max")?;
        let kinds = [
            ("durable commit", &self.commits),
            ("read", &self.reads),
            ("scan", &self.scans),
            ("transaction", &self.transactions),
        ];
        for (name, figures) in kinds {
            if let Some(figures) = figures {
                latency_line(f, name, figures)?;
            }
        }
        match &self.engine {
            Some(engine) => engine.fmt(f),
            None => write!(f, "\nno engine figures: the server has no Holdfast status variables"),
        }
    }
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let observed = &self.observed;
        let reads = observed.ram_hits + observed.nvme_hits + observed.fetches;
        writeln!(f, "\npage reads         count     share")?;
        for (name, count) in [("RAM", observed.ram_hits), ("NVMe", observed.nvme_hits), ("bucket", observed.fetches)] {
            let share = 100.0 * count as f64 / reads.max(1) as f64;
            writeln!(f, "{name:<14}{:>10}{share:>9.2}%", thousands(count))?;
        }
        writeln!(f, "\nbucket requests    count          bytes")?;
        for (kind, requests) in &observed.requests {
            let (count, bytes) = (thousands(requests.requests), thousands(requests.bytes));
            writeln!(f, "{:<14}{count:>10}{bytes:>15}", kind.to_ascii_uppercase())?;
        }
        writeln!(f, "stored        {:>25} in objects", thousands(observed.stored_bytes))?;
        write!(f, "\n${:.4} of requests per million operations (S3 list price)", self.dollars_per_million_operations)
    }
}

/// The median of some counts, and the least.
fn median_and_least(counts: &[u64]) -> Option<(u64, u64)> {
    let mut sorted = counts.to_vec();
    sorted.sort_unstable();
    Some((*sorted.get(sorted.len() / 2)?, *sorted.first()?))
}

fn latency_line(f: &mut fmt::Formatter<'_>, name: &str, figures: &Figures) -> fmt::Result {
    let count = thousands(figures.count);
    let [p50, p95, p99, max] = [figures.p50_us, figures.p95_us, figures.p99_us, figures.max_us].map(duration);
    writeln!(f, "{name:<14}{count:>10}{p50:>10}{p95:>10}{p99:>10}{max:>10}")
}

/// Microseconds as µs, ms or s, in at most seven characters.
fn duration(us: f64) -> String {
    match us {
        us if us < 1000.0 => format!("{us:.1}us"),
        us if us < 1_000_000.0 => format!("{:.2}ms", us / 1e3),
        us => format!("{:.2}s", us / 1e6),
    }
}

/// 1234567 as 1,234,567.
pub(crate) fn thousands(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_for_people() {
        assert_eq!([0, 999, 1000, 1_234_567].map(thousands), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!([0.8, 1500.0, 2_500_000.0].map(duration), ["0.8us", "1.50ms", "2.50s"]);
    }

    #[test]
    fn seconds_are_summed_up_by_median_and_least() {
        assert_eq!(median_and_least(&[5, 1, 9]), Some((5, 1)));
        assert_eq!(median_and_least(&[]), None);
    }

    #[test]
    fn price_is_per_million_operations() {
        let observed = Observed::from_variables([("Holdfast_s3_put_flush_requests", 100)]).unwrap();
        let engine = Engine::new(observed, 10_000);
        assert!((engine.dollars_per_million_operations - 0.05).abs() < 1e-9);
    }
}
