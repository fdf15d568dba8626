//! Owns one client: takes operations from its stream, runs them, times them, and in check mode verifies what it reads.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Instant,
};

use bytes::Bytes;

use crate::{
    Error,
    check::Turn,
    driver::{Shared, again},
    latency::{Kind, Latencies},
    row,
    target::{Committed, Session, Transaction},
    workload::{Operation, Stream},
};

/// A client that never waits (everything in RAM) lets others run after so many operations.
const YIELD_EVERY: u64 = 64;

pub(crate) struct Client {
    shared: Arc<Shared>,
    session: Session,
    latencies: Latencies,
}

impl Client {
    pub(crate) fn new(shared: Arc<Shared>, session: Session) -> Result<Self, Error> {
        let latencies = Latencies::new().map_err(|error| Error::Options(error.to_string()))?;
        Ok(Self { shared, session, latencies })
    }

    /// Works until the phase ends.
    pub(crate) async fn run(mut self, mut stream: Stream, operations: Option<u64>) -> Result<Latencies, Error> {
        let mut own = 0u64;
        while !self.shared.stop.load(Relaxed) {
            if self.shared.done.fetch_add(1, Relaxed) >= operations.unwrap_or(u64::MAX) {
                self.shared.done.fetch_sub(1, Relaxed);
                break;
            }
            let operation = stream.next(self.shared.rows.readable());
            self.operate(operation).await?;
            own += 1;
            if own.is_multiple_of(YIELD_EVERY) {
                tokio::task::yield_now().await;
            }
        }
        Ok(self.latencies)
    }

    async fn operate(&mut self, operation: Operation) -> Result<(), Error> {
        match operation {
            Operation::Read(row) => self.read(row).await,
            Operation::Update(row) => self.update(row).await,
            Operation::Insert => self.insert().await,
            Operation::Scan(row, limit) => self.scan(row, limit).await,
            Operation::Modify(row) => self.transaction(&[row], &[], &[row]).await,
            Operation::Transaction { points, ranges, writes } => self.transaction(&points, &ranges, &writes).await,
        }
    }

    async fn read(&mut self, row: u64) -> Result<(), Error> {
        let shared = self.shared.clone();
        let key = shared.options.workload.key(row);
        let expected = shared.checker.as_ref().map(|checker| checker.before_read(row));
        let begun = Instant::now();
        let read = again!(shared, self.session.read(key).await);
        self.latencies.record(Kind::Read, begun.elapsed());
        match (&shared.checker, expected) {
            (Some(checker), Some(least)) => checker.after_read(row, least, read.as_deref()),
            // A row that is gone is a wrong answer in any mode, and costs nothing to see.
            _ if read.is_none() => Err(Error::Wrong(format!("row {row} (key {key}) is missing"))),
            _ => Ok(()),
        }
    }

    async fn scan(&mut self, row: u64, limit: usize) -> Result<(), Error> {
        let shared = self.shared.clone();
        let start = shared.options.workload.key(row);
        let begun = Instant::now();
        let rows = again!(shared, self.session.scan(start, limit).await);
        self.latencies.record(Kind::Scan, begun.elapsed());
        match &shared.checker {
            Some(checker) => checker.after_scan(start, limit, &rows),
            None if rows.first().is_none_or(|(key, _)| *key != start) => {
                Err(Error::Wrong(format!("a scan from key {start} does not begin with it")))
            }
            None => Ok(()),
        }
    }

    async fn update(&mut self, row: u64) -> Result<(), Error> {
        let shared = self.shared.clone();
        let turn = self.turn(&[row]).await;
        let key = shared.options.workload.key(row);
        let value = row::value(key, turn.version(0), shared.options.value_size());
        let begun = Instant::now();
        again!(shared, self.session.update(key, value.clone()).await);
        self.latencies.record(Kind::Commit, begun.elapsed());
        turn.acknowledge();
        Ok(())
    }

    async fn insert(&mut self) -> Result<(), Error> {
        let shared = self.shared.clone();
        let row = shared.rows.take();
        let turn = self.turn(&[row]).await;
        let key = shared.options.workload.key(row);
        let value = row::value(key, turn.version(0), shared.options.value_size());
        let begun = Instant::now();
        again!(shared, self.session.insert(key, value.clone()).await);
        self.latencies.record(Kind::Commit, begun.elapsed());
        turn.acknowledge();
        shared.rows.acknowledge(row);
        Ok(())
    }

    async fn transaction(&mut self, points: &[u64], ranges: &[(u64, usize)], writes: &[u64]) -> Result<(), Error> {
        let shared = self.shared.clone();
        let (workload, size) = (shared.options.workload, shared.options.value_size());
        let keys: Vec<u64> = points.iter().map(|row| workload.key(*row)).collect();
        let starts: Vec<(u64, usize)> = ranges.iter().map(|(row, limit)| (workload.key(*row), *limit)).collect();
        let turn = self.turn(writes).await;
        let least: Vec<u64> =
            shared.checker.iter().flat_map(|checker| points.iter().map(|row| checker.before_read(*row))).collect();
        let values: Vec<(u64, Bytes)> = writes
            .iter()
            .enumerate()
            .map(|(n, row)| (workload.key(*row), row::value(workload.key(*row), turn.version(n), size)))
            .collect();
        let begun = Instant::now();
        let committed = again!(shared, {
            self.session.transaction(Transaction { points: &keys, ranges: &starts, writes: &values }).await
        });
        self.latencies.record(Kind::Transaction, begun.elapsed());
        if !writes.is_empty() {
            self.latencies.record(Kind::Commit, committed.commit);
        }
        turn.acknowledge();
        self.check(points, &least, &starts, &committed)
    }

    fn check(&self, points: &[u64], least: &[u64], starts: &[(u64, usize)], got: &Committed) -> Result<(), Error> {
        let Some(checker) = &self.shared.checker else { return Ok(()) };
        for ((row, least), read) in points.iter().zip(least).zip(&got.points) {
            checker.after_read(*row, *least, read.as_deref())?;
        }
        for ((start, limit), rows) in starts.iter().zip(&got.ranges) {
            checker.after_scan(*start, *limit, rows)?;
        }
        Ok(())
    }

    /// In check mode, waits until no other client writes these rows (given in order).
    async fn turn(&self, rows: &[u64]) -> Turn {
        match &self.shared.checker {
            Some(checker) => checker.turn(rows).await,
            None => Turn::unchecked(),
        }
    }
}
