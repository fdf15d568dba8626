//! Owns [`Stats`]: what a database counts, and the names under which `SHOW GLOBAL STATUS` and the bench read it.

pub use holdfast_cache::Stats as CacheStats;

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
    /// Everything else, named in snake case: log, memtable, levels, locks, transactions.
    pub counters: Vec<(&'static str, u64)>,
}

impl Stats {
    /// Every figure as a status variable: `Holdfast_cache_ram_hits`, `Holdfast_s3_get_page_requests`,
    /// `Holdfast_s3_get_page_bytes`, `Holdfast_<counter>`.
    pub fn variables(&self) -> Vec<(String, u64)> {
        let of_cache = self.cache.counters().into_iter().chain(self.cache.gauges());
        let of_cache = of_cache.map(|(name, value)| (format!("Holdfast_cache_{name}"), value));
        let of_store = self.requests.iter().flat_map(|count| {
            let name = |what| format!("Holdfast_s3_{}_{}_{what}", count.kind, count.cause);
            [(name("requests"), count.requests), (name("bytes"), count.bytes), (name("errors"), count.errors)]
        });
        let others = self.counters.iter().map(|(name, value)| (format!("Holdfast_{name}"), *value));
        of_cache.chain(of_store).chain(others).collect()
    }
}

/// What is wrong with a database, in its own words.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Troubles {
    /// Why it has ended.
    pub ended: Option<String>,
    /// Why commits are refused: the log or the memory for what waits for the bucket is at its bound.
    pub commits_refused: Option<String>,
    /// Why the last flush to the bucket failed. All is kept and tried again.
    pub flush: Option<String>,
    /// Why the log was not archived the last time. All is kept and tried again.
    pub archive: Option<String>,
}
