//! The store probe: does this endpoint honour conditional writes under contention, and how fast are small requests?

use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use serde::Serialize;

use super::{Cause, Place, Put, Store, When};
use crate::error::{Error, Result};

/// Writers that race for one key.
const RACERS: usize = 32;
/// Races of each kind. Endpoints without atomicity fail nearly every one.
const ROUNDS: u32 = 2;
/// Small reads and writes timed.
const SAMPLES: usize = 20;

/// What the probe saw.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct ProbeReport {
    /// The store.
    pub url: String,
    /// Writers in each race.
    pub racers: usize,
    /// Winners of each race to create one key; all must be 1.
    pub create_winners: Vec<usize>,
    /// Winners of each race to replace one known version; all must be 1. Empty if the store gives no entity tags.
    pub replace_winners: Vec<usize>,
    /// Whether creating an existing key was refused.
    pub refuses_existing: bool,
    /// Whether replacing an outdated version was refused.
    pub refuses_stale: bool,
    /// Whether a range read gave exactly that range.
    pub ranges: bool,
    /// Latency of a 4 KiB write, in microseconds: median and worst.
    pub put_us: (u64, u64),
    /// Latency of a 4 KiB read, in microseconds: median and worst.
    pub get_us: (u64, u64),
}

impl ProbeReport {
    /// What is wrong with the store; empty if it may be used.
    pub fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        let lost = |winners: &[usize]| winners.iter().any(|count| *count != 1);
        if lost(&self.create_winners) {
            let winners = &self.create_winners;
            faults.push(format!("If-None-Match is not atomic: {winners:?} of {} writers won, not 1", self.racers));
        }
        if lost(&self.replace_winners) {
            let winners = &self.replace_winners;
            faults.push(format!("If-Match is not atomic: {winners:?} of {} writers won, not 1", self.racers));
        }
        if !self.refuses_existing {
            faults.push("If-None-Match on an existing key overwrites it".to_owned());
        }
        if !self.refuses_stale {
            faults.push("If-Match with an outdated entity tag overwrites".to_owned());
        }
        if !self.ranges {
            faults.push("a range read gave something else than the range".to_owned());
        }
        faults
    }

    /// Whether the store may be used without `allow_unsafe_store`.
    pub fn is_safe(&self) -> bool {
        self.faults().is_empty()
    }

    /// Advice that is no reason to refuse: the mark of Nagle's algorithm against delayed acknowledgements.
    pub fn advice(&self) -> Option<String> {
        let median_ms = self.get_us.0 / 1000;
        (35..=50).contains(&median_ms).then(|| {
            format!("small reads take {median_ms} ms each: the server or a proxy delays packets (no TCP_NODELAY there)")
        })
    }
}

impl std::fmt::Display for ProbeReport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ms = |us: u64| us as f64 / 1000.0;
        writeln!(f, "store            {}", self.url)?;
        writeln!(f, "If-None-Match    winners of {} racers: {:?}", self.racers, self.create_winners)?;
        writeln!(f, "If-Match         winners of {} racers: {:?}", self.racers, self.replace_winners)?;
        writeln!(f, "existing key     {}", if self.refuses_existing { "refused" } else { "OVERWRITTEN" })?;
        writeln!(f, "stale version    {}", if self.refuses_stale { "refused" } else { "OVERWRITTEN" })?;
        writeln!(f, "range read       {}", if self.ranges { "exact" } else { "WRONG" })?;
        writeln!(f, "4 KiB write      median {:.2} ms, worst {:.2} ms", ms(self.put_us.0), ms(self.put_us.1))?;
        writeln!(f, "4 KiB read       median {:.2} ms, worst {:.2} ms", ms(self.get_us.0), ms(self.get_us.1))?;
        if let Some(advice) = self.advice() {
            writeln!(f, "advice           {advice}")?;
        }
        match &self.faults()[..] {
            [] => write!(f, "verdict          safe"),
            faults => write!(f, "verdict          UNSAFE: {}", faults.join("; ")),
        }
    }
}

/// Probes the store under a folder of its own, which is cleaned up afterwards.
pub async fn probe(store: &Store) -> Result<ProbeReport> {
    // A read first: some servers make a bucket that is missing when something is written to it.
    store.get_all("probe", Cause::Probe).await?;
    let folder = format!("probe/{}", ulid::Ulid(store.new_ulid()));
    let mut keys = Vec::new();
    let report = run(store, &folder, &mut keys).await;
    // Best effort: what stays is a few KiB under a name that is never used again.
    for key in &keys {
        let _ = store.delete(key, Cause::Probe).await;
    }
    report
}

/// Probes an S3 store and refuses one that fails, unless `allow_unsafe`. Other stores are atomic by construction.
pub async fn require_safe(store: &Store, allow_unsafe: bool) -> Result<Option<ProbeReport>> {
    if store.place() != Place::S3 {
        return Ok(None);
    }
    let report = probe(store).await?;
    if report.is_safe() {
        tracing::info!(store = store.url(), put_us = ?report.put_us, get_us = ?report.get_us, "store probe passed");
    } else if allow_unsafe {
        tracing::warn!(store = store.url(), faults = ?report.faults(), "unsafe store is used all the same");
    } else {
        return Err(Error::Invalid(format!(
            "store {} fails the probe: {}; use another store, or allow it with --allow-unsafe-store if only one \
             server will ever use the prefix",
            store.url(),
            report.faults().join("; ")
        )));
    }
    Ok(Some(report))
}

async fn run(store: &Store, folder: &str, keys: &mut Vec<String>) -> Result<ProbeReport> {
    let mut key = |name: String| {
        keys.push(format!("{folder}/{name}"));
        keys.last().cloned().unwrap_or_default()
    };
    let body = [Bytes::from(vec![0x5a; 4096])];
    let (samples, first) = (key("samples".to_owned()), key("first".to_owned()));
    let (put_us, get_us) = latencies(store, &samples, &body).await?;
    let ranges = store.get(&samples, 100..228, Cause::Probe).await.is_ok_and(|bytes| bytes[..] == body[0][..128]);

    let mut create_winners = Vec::new();
    for round in 0..ROUNDS {
        create_winners.push(race(store, &key(format!("create-{round}")), &When::Absent).await?);
    }
    let refuses_existing = store.put_when(&samples, &body, When::Absent, Cause::Probe).await? == Put::Lost;

    store.put_when(&first, &body, When::Always, Cause::Probe).await?;
    let mut replace_winners = Vec::new();
    let stale = etag(store, &first).await?;
    let Some(stale) = stale else {
        return Err(Error::Store(format!("{} gives no entity tags", store.url())));
    };
    for _ in 0..ROUNDS {
        let current = etag(store, &first).await?.unwrap_or_default();
        replace_winners.push(race(store, &first, &When::Matches(current)).await?);
    }
    let refuses_stale = store.put_when(&first, &body, When::Matches(stale), Cause::Probe).await? == Put::Lost;
    Ok(ProbeReport {
        url: store.url().to_owned(),
        racers: RACERS,
        create_winners,
        replace_winners,
        refuses_existing,
        refuses_stale,
        ranges,
        put_us,
        get_us,
    })
}

async fn etag(store: &Store, key: &str) -> Result<Option<String>> {
    Ok(store.get_all(key, Cause::Probe).await?.and_then(|got| got.etag))
}

/// How many of the racers are told that they won.
async fn race(store: &Store, key: &str, when: &When) -> Result<usize> {
    let racers = (0..RACERS).map(|_| async move {
        // Unlike any other body: entity tags are often content hashes, and an equal body would not be outdated.
        let body = [Bytes::from(ulid::Ulid(store.new_ulid()).to_string())];
        store.put_when(key, &body, when.clone(), Cause::Probe).await
    });
    let outcomes = join_all(racers).await.into_iter().collect::<Result<Vec<_>>>()?;
    Ok(outcomes.iter().filter(|outcome| matches!(outcome, Put::Won(_))).count())
}

async fn latencies(store: &Store, key: &str, body: &[Bytes]) -> Result<((u64, u64), (u64, u64))> {
    let (mut puts, mut gets) = (Vec::new(), Vec::new());
    // The first requests open connections and warm servers up: not counted.
    for sample in 0..SAMPLES + 2 {
        let start = store.clock().now();
        store.put_when(key, body, When::Always, Cause::Probe).await?;
        let middle = store.clock().now();
        store.get(key, 0..4096, Cause::Probe).await?;
        if sample >= 2 {
            puts.push(middle.saturating_sub(start));
            gets.push(store.clock().now().saturating_sub(middle));
        }
    }
    Ok((spread(puts), spread(gets)))
}

/// Median and maximum, in microseconds.
fn spread(mut samples: Vec<Duration>) -> (u64, u64) {
    samples.sort_unstable();
    let us = |at: usize| samples.get(at).map_or(0, |sample| sample.as_micros() as u64);
    (us(samples.len() / 2), us(samples.len().saturating_sub(1)))
}
