//! Owns latencies: a histogram per kind of work, and the figures that the report prints.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

/// Longer ones count as this.
const MAX_NS: u64 = 120_000_000_000;

/// What a latency is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A read of one row.
    Read,
    /// A scan.
    Scan,
    /// A durable commit: of an autocommitted write, or the COMMIT of a transaction that wrote.
    Commit,
    /// A whole transaction, its commit included.
    Transaction,
}

/// Histograms of one client, or of all.
#[derive(Clone)]
pub struct Latencies([Histogram<u64>; 4]);

impl Latencies {
    /// Empty ones.
    pub fn new() -> Result<Self, hdrhistogram::CreationError> {
        // Two digits keep a client's histograms at some tens of KiB; the error stays below 1 %.
        let one = Histogram::new_with_bounds(1, MAX_NS, 2)?;
        Ok(Self([one.clone(), one.clone(), one.clone(), one]))
    }

    /// Counts one.
    pub fn record(&mut self, kind: Kind, took: Duration) {
        let ns = u64::try_from(took.as_nanos()).unwrap_or(MAX_NS).max(1);
        self.of_mut(kind).saturating_record(ns);
    }

    /// Adds another client's.
    pub fn add(&mut self, other: &Self) {
        for (mine, theirs) in self.0.iter_mut().zip(&other.0) {
            // Cannot fail: the bounds are equal.
            let added = mine.add(theirs);
            debug_assert!(added.is_ok());
        }
    }

    /// The figures of one kind, or `None` if there were none.
    pub fn figures(&self, kind: Kind) -> Option<Figures> {
        let histogram = self.of(kind);
        let us = |ns: u64| (ns as f64 / 100.0).round() / 10.0;
        (!histogram.is_empty()).then(|| Figures {
            count: histogram.len(),
            p50_us: us(histogram.value_at_quantile(0.50)),
            p95_us: us(histogram.value_at_quantile(0.95)),
            p99_us: us(histogram.value_at_quantile(0.99)),
            max_us: us(histogram.max()),
        })
    }

    fn of(&self, kind: Kind) -> &Histogram<u64> {
        let [read, scan, commit, transaction] = &self.0;
        match kind {
            Kind::Read => read,
            Kind::Scan => scan,
            Kind::Commit => commit,
            Kind::Transaction => transaction,
        }
    }

    fn of_mut(&mut self, kind: Kind) -> &mut Histogram<u64> {
        let [read, scan, commit, transaction] = &mut self.0;
        match kind {
            Kind::Read => read,
            Kind::Scan => scan,
            Kind::Commit => commit,
            Kind::Transaction => transaction,
        }
    }
}

/// Percentiles in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Figures {
    /// How many there were.
    pub count: u64,
    /// Half took no longer.
    pub p50_us: f64,
    /// 95 % took no longer.
    pub p95_us: f64,
    /// 99 % took no longer.
    pub p99_us: f64,
    /// The longest.
    pub max_us: f64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_of_two_clients() {
        let (mut a, mut b) = (Latencies::new().unwrap(), Latencies::new().unwrap());
        for us in 1..=50 {
            a.record(Kind::Commit, Duration::from_micros(us));
            b.record(Kind::Commit, Duration::from_micros(50 + us));
        }
        a.add(&b);
        let figures = a.figures(Kind::Commit).unwrap();
        assert_eq!(figures.count, 100);
        for (got, want) in
            [(figures.p50_us, 50.0), (figures.p95_us, 95.0), (figures.p99_us, 99.0), (figures.max_us, 100.0)]
        {
            assert!((got / want - 1.0f64).abs() < 0.015, "{got} for {want}");
        }
        assert_eq!(a.figures(Kind::Read), None);
    }

    #[test]
    fn an_endless_latency_is_counted() {
        let mut latencies = Latencies::new().unwrap();
        latencies.record(Kind::Read, Duration::MAX);
        assert_eq!(latencies.figures(Kind::Read).unwrap().count, 1);
    }
}
