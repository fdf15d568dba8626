//! Owns [`Stats`]: what a database counts, and the names under which `SHOW GLOBAL STATUS` and the bench read it.

use std::time::Duration;

pub use holdfast_cache::Stats as CacheStats;

use crate::cost::{Period, Prices};

/// Requests to the bucket of one kind for one cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RequestStats {
    /// `get`, `put`, `head`, `list` or `delete`.
    pub kind: &'static str,
    /// What it was for: `page`, `flush`, `compaction`, ...
    pub cause: &'static str,
    /// Requests made, retries included.
    pub requests: u64,
    /// Bytes of bodies sent or received.
    pub bytes: u64,
    /// Requests that failed.
    pub errors: u64,
}

impl RequestStats {
    /// The count of one kind and cause.
    pub fn new(kind: &'static str, cause: &'static str, requests: u64, bytes: u64, errors: u64) -> Self {
        Self { kind, cause, requests, bytes, errors }
    }
}

/// Counters for SHOW STATUS, metrics and the bench, since the database was opened.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Stats {
    /// The page cache, by tier.
    pub cache: CacheStats,
    /// Requests to the bucket, by kind and cause; what never happened is left out.
    pub requests: Vec<RequestStats>,
    /// What the bucket's provider charges.
    pub prices: Prices,
    /// What requests have cost since the database was opened.
    pub spent: Period,
    /// The same, over the last five minutes.
    pub spent_lately: Period,
    /// Everything else, named in snake case: log, memtable, levels, locks, transactions.
    pub counters: Vec<(&'static str, u64)>,
}

impl Stats {
    /// Every figure as a status variable: `Holdfast_cache_ram_hits`, `Holdfast_s3_get_page_requests`,
    /// `Holdfast_s3_get_page_bytes`, `Holdfast_cost_microdollars`, `Holdfast_<counter>`. Dollars are in millionths.
    pub fn variables(&self) -> Vec<(String, u64)> {
        let of_cache = self.cache.counters().into_iter().chain(self.cache.gauges());
        let of_cache = of_cache.map(|(name, value)| (format!("Holdfast_cache_{name}"), value));
        let of_store = self.requests.iter().flat_map(|count| {
            let name = |what| format!("Holdfast_s3_{}_{}_{what}", count.kind, count.cause);
            [(name("requests"), count.requests), (name("bytes"), count.bytes), (name("errors"), count.errors)]
        });
        let others = self.counters.iter().map(|(name, value)| (format!("Holdfast_{name}"), *value));
        of_cache.chain(of_store).chain(self.costs()).chain(others).collect()
    }

    fn costs(&self) -> impl Iterator<Item = (String, u64)> {
        let (spent, lately) = (&self.spent, &self.spent_lately);
        let micros = |dollars: f64| (dollars * 1e6).round() as u64;
        let by_cause = spent
            .by_cause
            .iter()
            .map(move |(cause, dollars)| (format!("Holdfast_cost_{}_microdollars", cause.name()), micros(*dollars)));
        let totals = [
            ("microdollars", spent.dollars()),
            ("microdollars_per_hour", spent.per_hour(spent.dollars())),
            ("microdollars_per_hour_lately", lately.per_hour(lately.dollars())),
            ("microdollars_per_million_commits", spent.per_million_commits().unwrap_or_default()),
            ("microdollars_per_million_commits_lately", lately.per_million_commits().unwrap_or_default()),
        ];
        let totals = totals.map(|(name, dollars)| (format!("Holdfast_cost_{name}"), micros(dollars)));
        totals.into_iter().chain(by_cause)
    }
}

/// What an outage of the bucket means now.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Outlook {
    /// How long the bucket has not answered, if it is known to be down.
    pub bucket_down: Option<Duration>,
    /// Bytes a second that the log grew by in the last minute.
    pub log_bytes_per_second: f64,
    /// How long commits go on at this rate if nothing more reaches the bucket, by what this node can still take of log, RAM
    /// and spill; `None` while nothing is written.
    pub runway: Option<Duration>,
    /// The log's part of it.
    pub log_runway: Option<Duration>,
}

/// What is wrong with a database, in its own words.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Troubles {
    /// Why it has ended.
    pub ended: Option<String>,
    /// Why commits are refused: the log, the memory for what waits for the bucket, or what waits for compaction is at its
    /// bound.
    pub commits_refused: Option<String>,
    /// Since when the bucket has not answered, and how the last request failed.
    pub bucket: Option<String>,
    /// Which background work waits for the budget of requests.
    pub budget: Option<String>,
    /// Why the last flush to the bucket failed. All is kept and tried again.
    pub flush: Option<String>,
    /// Why the last compaction failed. It is tried again; meanwhile flushed runs wait, up to their bound.
    pub compaction: Option<String>,
    /// Why the log was not archived the last time. All is kept and tried again.
    pub archive: Option<String>,
}
