//! Owns what a run knows of its rows: how many exist for sure, and in check mode which versions of each may be read.

use std::{
    collections::BTreeSet,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
};

/// Numbers the inserted rows, and knows up to which all inserts were acknowledged.
pub struct RowCounter {
    next: AtomicU64,
    readable: AtomicU64,
    /// Acknowledged rows beyond the first one that is not.
    early: Mutex<BTreeSet<u64>>,
}

impl RowCounter {
    /// Starts with rows 0..`rows`.
    pub fn new(rows: u64) -> Self {
        Self { next: AtomicU64::new(rows), readable: AtomicU64::new(rows), early: Mutex::default() }
    }

    /// The number of a new row.
    pub fn take(&self) -> u64 {
        self.next.fetch_add(1, SeqCst)
    }

    /// Notes that a row's insert was acknowledged.
    pub fn acknowledge(&self, row: u64) {
        let mut early = lock(&self.early);
        early.insert(row);
        let mut readable = self.readable.load(SeqCst);
        while early.remove(&readable) {
            readable += 1;
        }
        self.readable.store(readable, SeqCst);
    }

    /// Rows 0..this exist.
    pub fn readable(&self) -> u64 {
        self.readable.load(SeqCst)
    }
}

/// The versions of rows in check mode. Writers of a row take turns (the driver sees to it), so versions only grow: a
/// read must find one between what was acknowledged before it began and what was begun before it ended.
pub struct Versions(Mutex<Vec<(u32, u32)>>);

impl Versions {
    /// Rows 0..`rows`, each at version 0.
    pub fn new(rows: u64) -> Self {
        Self(Mutex::new(vec![(0, 0); rows as usize]))
    }

    /// Begins a write: its version.
    pub fn begin(&self, row: u64) -> u64 {
        let mut versions = lock(&self.0);
        if versions.len() <= row as usize {
            versions.resize(row as usize + 1, (0, 0));
            return 0;
        }
        let begun = &mut versions[row as usize].1;
        *begun += 1;
        u64::from(*begun)
    }

    /// Notes that a write was acknowledged.
    pub fn acknowledge(&self, row: u64, version: u64) {
        if let Some((acknowledged, _)) = lock(&self.0).get_mut(row as usize) {
            *acknowledged = (*acknowledged).max(version as u32);
        }
    }

    /// The least version that a read which begins now may find.
    pub fn least(&self, row: u64) -> u64 {
        lock(&self.0).get(row as usize).map_or(0, |(acknowledged, _)| (*acknowledged).into())
    }

    /// The highest version that a read which ends now may have found.
    pub fn highest(&self, row: u64) -> u64 {
        lock(&self.0).get(row as usize).map_or(0, |(_, begun)| (*begun).into())
    }
}

/// A poisoned lock holds sound numbers: no code here panics half way.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_readable_up_to_the_first_gap() {
        let rows = RowCounter::new(10);
        let (a, b, c) = (rows.take(), rows.take(), rows.take());
        assert_eq!((a, b, c), (10, 11, 12));
        rows.acknowledge(b);
        rows.acknowledge(c);
        assert_eq!(rows.readable(), 10);
        rows.acknowledge(a);
        assert_eq!(rows.readable(), 13);
    }

    #[test]
    fn versions_bound_what_a_read_may_find() {
        let versions = Versions::new(2);
        let first = versions.begin(1);
        assert_eq!((first, versions.least(1), versions.highest(1)), (1, 0, 1));
        versions.acknowledge(1, first);
        let second = versions.begin(1);
        assert_eq!((second, versions.least(1), versions.highest(1)), (2, 1, 2));
        assert_eq!(versions.begin(5), 0, "a new row starts at version 0");
        assert_eq!(versions.begin(5), 1);
    }
}
