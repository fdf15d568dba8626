//! Owns check mode: every value read is compared with what may stand there, and at the end all rows are.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use tokio::sync::{Mutex, OwnedMutexGuard};

use crate::{
    Error,
    acked::Versions,
    row,
    target::{Failure, Row, Session},
    workload::Workload,
};

/// Writers of one row take turns, so that its versions only grow; rows share this many turns.
const TURNS: u64 = 4096;
/// Rows that the final check reads at once.
const FINAL_SCAN: usize = 1000;
/// How often the final check tries again, all its scans together.
const FINAL_SCAN_ATTEMPTS: u32 = 20;

/// Knows what may be read.
pub(crate) struct Checker {
    workload: Workload,
    value_size: usize,
    versions: Arc<Versions>,
    turns: Vec<Arc<Mutex<()>>>,
    verified: AtomicU64,
}

/// The right to write some rows, and the versions to write.
pub(crate) struct Turn {
    versions: Option<Arc<Versions>>,
    written: Vec<(u64, u64)>,
    _guards: Vec<OwnedMutexGuard<()>>,
}

impl Turn {
    /// Without check mode: nobody waits, and every version is 1.
    pub(crate) fn unchecked() -> Self {
        Self { versions: None, written: Vec::new(), _guards: Vec::new() }
    }

    /// The version to write to the n-th row.
    pub(crate) fn version(&self, n: usize) -> u64 {
        self.written.get(n).map_or(1, |(_, version)| *version)
    }

    /// The writes were acknowledged.
    pub(crate) fn acknowledge(self) {
        if let Some(versions) = &self.versions {
            for (row, version) in &self.written {
                versions.acknowledge(*row, *version);
            }
        }
    }
}

impl Checker {
    pub(crate) fn new(workload: Workload, rows: u64, value_size: usize) -> Self {
        let turns = (0..TURNS).map(|_| Arc::default()).collect();
        Self { workload, value_size, versions: Arc::new(Versions::new(rows)), turns, verified: AtomicU64::new(0) }
    }

    /// Rows verified so far.
    pub(crate) fn verified(&self) -> u64 {
        self.verified.load(Relaxed)
    }

    /// Takes the turns of `rows` and begins a version of each.
    pub(crate) async fn turn(&self, rows: &[u64]) -> Turn {
        // In one order for everybody, or two clients would wait for each other.
        let mut places: Vec<usize> = rows.iter().map(|row| (row % TURNS) as usize).collect();
        places.sort_unstable();
        places.dedup();
        let mut guards = Vec::with_capacity(places.len());
        for turn in places.iter().filter_map(|place| self.turns.get(*place)) {
            guards.push(turn.clone().lock_owned().await);
        }
        let written = rows.iter().map(|row| (*row, self.versions.begin(*row))).collect();
        Turn { versions: Some(self.versions.clone()), written, _guards: guards }
    }

    /// The least version that a read which begins now may find.
    pub(crate) fn before_read(&self, row: u64) -> u64 {
        self.versions.least(row)
    }

    /// Verifies a row that was read.
    pub(crate) fn after_read(&self, row: u64, least: u64, read: Option<&[u8]>) -> Result<(), Error> {
        let key = self.workload.key(row);
        let Some(read) = read else {
            return Err(Error::Wrong(format!("row {row} (key {key}) is missing")));
        };
        let version = row::check(key, read, self.value_size).map_err(Error::Wrong)?;
        let highest = self.versions.highest(row);
        if !(least..=highest).contains(&version) {
            let may = format!("{least} to {highest} may be read");
            return Err(Error::Wrong(format!("row {row} (key {key}) has version {version}; {may}")));
        }
        self.verified.fetch_add(1, Relaxed);
        Ok(())
    }

    /// Verifies a scan: it begins with its first key, is in order, not too long, and every row is sound. Rows in key
    /// order without gaps are proven to be complete as well.
    pub(crate) fn after_scan(&self, start: u64, limit: usize, rows: &[Row]) -> Result<(), Error> {
        let wrong = |what: &str| Err(Error::Wrong(format!("a scan of {limit} rows from key {start} {what}")));
        if rows.first().is_none_or(|(key, _)| *key != start) {
            return wrong("does not begin with that key");
        }
        if rows.len() > limit {
            return wrong("gave more rows");
        }
        if !rows.is_sorted_by(|(a, _), (b, _)| a < b) {
            return wrong("is out of order");
        }
        let in_key_order = self.workload.key(1) == 1;
        let last = rows.last().map_or(start, |(key, _)| *key);
        if in_key_order && last - start + 1 != rows.len() as u64 {
            return wrong("has a gap");
        }
        for (key, value) in rows {
            self.after_read(self.workload.row(*key), 0, Some(value))?;
        }
        Ok(())
    }

    /// Reads all rows in key order, with nobody writing: each of rows 0..`rows` must be there once, at a version that was
    /// acknowledged last or begun later.
    pub(crate) async fn verify_all(&self, session: &mut Session, rows: u64) -> Result<u64, Error> {
        let (mut start, mut count, mut failures) = (0u64, 0u64, 0);
        loop {
            let batch = match session.scan(start, FINAL_SCAN).await {
                Ok(batch) => batch,
                Err(Failure::Fatal(error)) => return Err(error),
                Err(Failure::Again) if failures == FINAL_SCAN_ATTEMPTS => return Err(Error::NoProgress(failures)),
                // Nobody writes: the store took too long.
                Err(Failure::Again) => {
                    failures += 1;
                    continue;
                }
            };
            for (key, value) in &batch {
                let row = self.workload.row(*key);
                self.after_read(row, self.versions.least(row), Some(value))?;
                count += u64::from(row < rows);
            }
            match batch.last() {
                Some((last, _)) if batch.len() == FINAL_SCAN && *last < u64::MAX => start = last + 1,
                _ => break,
            }
        }
        if count != rows {
            return Err(Error::Wrong(format!("{rows} rows were acknowledged, {count} are there")));
        }
        Ok(self.verified())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: usize = 64;

    fn checker(workload: Workload) -> Checker {
        Checker::new(workload, 100, SIZE)
    }

    fn rows(keys: impl IntoIterator<Item = u64>) -> Vec<Row> {
        keys.into_iter().map(|key| (key, row::value(key, 0, SIZE))).collect()
    }

    fn wrong(result: Result<(), Error>) -> String {
        match result {
            Err(Error::Wrong(what)) => what,
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn a_read_must_find_what_was_acknowledged_before_it() {
        let checker = checker(Workload::Update);
        let turn = checker.turn(&[7]).await;
        let (old, new) = (row::value(7, 0, SIZE), row::value(7, turn.version(0), SIZE));
        // While the write is under way both may be read.
        let least = checker.before_read(7);
        assert!(checker.after_read(7, least, Some(&old)).is_ok());
        assert!(checker.after_read(7, least, Some(&new)).is_ok());
        turn.acknowledge();
        let least = checker.before_read(7);
        assert!(checker.after_read(7, least, Some(&new)).is_ok());
        assert!(wrong(checker.after_read(7, least, Some(&old))).contains("version 0; 1 to 1"));
        assert!(wrong(checker.after_read(7, least, None)).contains("missing"));
        assert!(wrong(checker.after_read(7, least, Some(&row::value(7, 2, SIZE)))).contains("version 2"));
        assert_eq!(checker.verified(), 3);
    }

    #[test]
    fn scans_with_gaps_repetitions_or_another_start_are_wrong() {
        let checker = checker(Workload::RangeScan);
        assert!(checker.after_scan(5, 3, &rows(5..8)).is_ok());
        assert!(checker.after_scan(98, 3, &rows(98..100)).is_ok());
        assert!(wrong(checker.after_scan(5, 3, &rows([5, 7]))).contains("gap"));
        assert!(wrong(checker.after_scan(5, 3, &rows([5, 5]))).contains("order"));
        assert!(wrong(checker.after_scan(5, 3, &rows(6..9))).contains("begin"));
        assert!(wrong(checker.after_scan(5, 3, &rows([]))).contains("begin"));
        assert!(wrong(checker.after_scan(5, 3, &rows(5..9))).contains("more"));
        let mut damaged = rows(5..8);
        damaged[1].1 = row::value(7, 0, SIZE);
        assert!(wrong(checker.after_scan(5, 3, &damaged)).contains("key 6 has the value of key 7"));
    }

    #[tokio::test]
    async fn writers_of_one_row_take_turns() {
        let checker = checker(Workload::Update);
        let first = checker.turn(&[1, 2]).await;
        let mut second = Box::pin(checker.turn(&[2, 3]));
        assert!(futures::poll!(&mut second).is_pending());
        first.acknowledge();
        assert_eq!(second.await.version(0), 2);
    }
}
