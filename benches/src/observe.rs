//! Owns what the bench observes of the engine: cache hits by tier, bucket requests by kind, and their price. Pure.
//!
//! Embedded runs read `Db::stats`, runs over MySQL `SHOW GLOBAL STATUS`; both give the same names.

use std::collections::BTreeMap;

use serde::Serialize;

/// US dollars per request at the list price of S3 Standard (us-east-1): PUT, COPY, POST and LIST; GET, HEAD and all
/// others. DELETE is free. Storage, and traffic out of the region, are not part of it.
const DOLLARS_PER_WRITE: f64 = 0.005 / 1000.0;
const DOLLARS_PER_READ: f64 = 0.0004 / 1000.0;

/// Requests of one kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Requests {
    /// Requests made, retries included.
    pub requests: u64,
    /// Bytes of bodies sent or received.
    pub bytes: u64,
}

/// Figures of a database at one moment, or between two.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Observed {
    /// Page reads answered by RAM.
    pub ram_hits: u64,
    /// Page reads answered by NVMe.
    pub nvme_hits: u64,
    /// Page reads that went to the bucket.
    pub fetches: u64,
    /// Page reads that waited for another reader's fetch.
    pub coalesced_waits: u64,
    /// Bytes of objects in force, at the end.
    pub stored_bytes: u64,
    /// Bucket requests by kind: get, put, head, list, delete.
    pub requests: BTreeMap<String, Requests>,
}

impl Observed {
    /// The figures among status variables, or `None` if there are none: not a Holdfast server.
    pub fn from_variables<N: AsRef<str>>(variables: impl IntoIterator<Item = (N, u64)>) -> Option<Self> {
        let mut observed = Self::default();
        let mut any = false;
        for (name, value) in variables {
            let name = name.as_ref().to_ascii_lowercase();
            let Some(name) = name.strip_prefix("holdfast_") else { continue };
            any = true;
            match name {
                "cache_ram_hits" => observed.ram_hits = value,
                "cache_nvme_hits" => observed.nvme_hits = value,
                "cache_fetches" => observed.fetches = value,
                "cache_coalesced_waits" => observed.coalesced_waits = value,
                "tree_bytes" => observed.stored_bytes = value,
                _ => observed.add_request(name, value),
            }
        }
        any.then_some(observed)
    }

    /// `s3_<kind>_<cause>_requests` and `s3_<kind>_<cause>_bytes`, summed over the causes.
    fn add_request(&mut self, name: &str, value: u64) {
        let Some((kind, rest)) = name.strip_prefix("s3_").and_then(|name| name.split_once('_')) else { return };
        let figure = rest.rsplit('_').next();
        if !matches!(figure, Some("requests" | "bytes")) {
            return;
        }
        let requests = self.requests.entry(kind.to_owned()).or_default();
        match figure {
            Some("requests") => requests.requests += value,
            _ => requests.bytes += value,
        }
    }

    /// What happened between `earlier` and this.
    pub fn since(&self, earlier: &Self) -> Self {
        let requests = self.requests.iter().map(|(kind, now)| {
            let then = earlier.requests.get(kind).copied().unwrap_or_default();
            let requests = now.requests.saturating_sub(then.requests);
            (kind.clone(), Requests { requests, bytes: now.bytes.saturating_sub(then.bytes) })
        });
        Self {
            ram_hits: self.ram_hits.saturating_sub(earlier.ram_hits),
            nvme_hits: self.nvme_hits.saturating_sub(earlier.nvme_hits),
            fetches: self.fetches.saturating_sub(earlier.fetches),
            coalesced_waits: self.coalesced_waits.saturating_sub(earlier.coalesced_waits),
            stored_bytes: self.stored_bytes,
            requests: requests.collect(),
        }
    }

    /// The list price of the requests, in US dollars.
    pub fn dollars(&self) -> f64 {
        let price = |kind: &str| match kind {
            "put" | "list" | "copy" | "post" => DOLLARS_PER_WRITE,
            "delete" => 0.0,
            _ => DOLLARS_PER_READ,
        };
        self.requests.iter().map(|(kind, requests)| requests.requests as f64 * price(kind)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_summed_over_causes() {
        let observed = Observed::from_variables([
            ("Holdfast_cache_ram_hits", 7),
            ("Holdfast_s3_get_page_requests", 2),
            ("Holdfast_s3_get_tail_requests", 1),
            ("Holdfast_s3_get_page_bytes", 100),
            ("Holdfast_s3_put_flush_requests", 4),
            ("Holdfast_s3_put_flush_errors", 9),
            ("Uptime", 5),
        ])
        .unwrap();
        assert_eq!(observed.ram_hits, 7);
        assert_eq!(observed.requests["get"], Requests { requests: 3, bytes: 100 });
        assert_eq!(observed.requests["put"], Requests { requests: 4, bytes: 0 });
        assert_eq!(Observed::from_variables([("Uptime", 5)]), None);
    }

    #[test]
    fn list_price() {
        let requests = |n| Requests { requests: n, bytes: 0 };
        let observed = Observed {
            requests: [("put", 1000), ("get", 10_000), ("head", 10_000), ("list", 1000), ("delete", 1_000_000)]
                .map(|(kind, n)| (kind.to_owned(), requests(n)))
                .into(),
            ..Observed::default()
        };
        assert!((observed.dollars() - 0.018).abs() < 1e-12);
        assert!((observed.since(&observed)).dollars().abs() < 1e-12);
    }
}
