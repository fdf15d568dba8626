//! Pages that are fetched together: one request for a run of neighbours that no cache has.
//!
//! Whoever reads ahead notes the run, then asks the cache for each page of it. Fetches that follow, whoever they are for,
//! find the run and share its request, which the first of them sends.

use std::{
    ops::Range,
    sync::{Arc, Weak},
};

use bytes::Bytes;
use futures::{
    FutureExt as _,
    future::{BoxFuture, Shared, join_all},
};
use parking_lot::Mutex;

use super::Table;
use crate::{
    error::{Error, Result},
    format::object::Tail,
    store::Cause,
};

/// Bytes of one request.
const BYTES_MAX: u64 = 1024 * 1024;

/// Pages as stored, not verified.
type Pages = Arc<Vec<Bytes>>;

/// A run of pages.
struct Run {
    pages: Range<u32>,
    stored: Shared<BoxFuture<'static, Result<Pages>>>,
}

/// The runs of a table that someone waits for.
#[derive(Default)]
pub(super) struct Runs(Mutex<Vec<Weak<Run>>>);

impl Runs {
    fn add(&self, run: Run) -> Arc<Run> {
        let run = Arc::new(run);
        let mut runs = self.0.lock();
        runs.retain(|run| run.strong_count() > 0);
        runs.push(Arc::downgrade(&run));
        run
    }

    /// The page, as stored, if it is part of a run.
    pub(super) async fn fetch(&self, page: u32) -> Option<Result<Bytes>> {
        let (stored, at) = {
            let runs = self.0.lock();
            let run = runs.iter().filter_map(Weak::upgrade).find(|run| run.pages.contains(&page))?;
            (run.stored.clone(), (page - run.pages.start) as usize)
        };
        let missing = || Error::Corrupt(format!("page {page} is missing in a run of pages"));
        Some(stored.await.and_then(|pages| pages.get(at).cloned().ok_or_else(missing)))
    }
}

impl Table {
    /// Verified pages, each from wherever it is, in the order asked for. What no cache has of them comes in one request for
    /// each run of neighbours.
    pub(crate) async fn pages(self: &Arc<Self>, tail: &Arc<Tail>, pages: &[u32]) -> Vec<Result<Bytes>> {
        let (cache, key) = (&self.io.cache, |page: u32| self.cache_key(page));
        // Taken at once: until the others are here they may have gone, and each would come alone.
        let in_ram: Vec<Option<Bytes>> = pages.iter().map(|page| cache.peek(&key(*page))).collect();
        let absent = pages.iter().zip(&in_ram).filter(|(page, here)| here.is_none() && !cache.holds(&key(**page)));
        let mut missing: Vec<u32> = absent.map(|(page, _)| *page).collect();
        missing.sort_unstable();
        let len = |page| tail.page(page).map_or(0, |at| u64::from(at.len));
        // Held until the pages are here.
        let _runs: Vec<_> = neighbours(&missing, len).into_iter().map(|run| self.run(tail, run)).collect();
        let each = pages.iter().zip(in_ram).map(|(page, here)| async move {
            match here {
                Some(bytes) => Ok(bytes),
                None => self.page(*page).await,
            }
        });
        join_all(each).await
    }

    fn run(self: &Arc<Self>, tail: &Arc<Tail>, pages: Range<u32>) -> Arc<Run> {
        let (table, tail, range) = (self.clone(), tail.clone(), pages.clone());
        let stored = async move { table.read_pages(&tail, range, Cause::Page).await.map(Arc::new) };
        self.runs.add(Run { pages, stored: stored.boxed().shared() })
    }
}

/// Runs of at least two neighbours among ascending page numbers, each no longer than a request may be.
fn neighbours(pages: &[u32], len: impl Fn(u32) -> u64) -> Vec<Range<u32>> {
    let mut runs: Vec<(Range<u32>, u64)> = Vec::new();
    for page in pages.iter().copied() {
        let bytes = len(page);
        match runs.last_mut() {
            Some((run, total)) if run.end == page && *total + bytes <= BYTES_MAX => {
                (run.end, *total) = (page + 1, *total + bytes);
            }
            _ => runs.push((page..page.saturating_add(1), bytes)),
        }
    }
    runs.into_iter().map(|(run, _)| run).filter(|run| run.len() > 1).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_of_neighbours_and_bounded() {
        assert_eq!(neighbours(&[], |_| 1), []);
        assert_eq!(neighbours(&[4, 5, 6, 8, 10, 11], |_| 1), [4..7, 10..12]);
        assert_eq!(neighbours(&[1, 2, 3, 4, 5], |_| BYTES_MAX / 2), [1..3, 3..5]);
        assert_eq!(neighbours(&[1, 2, 3], |_| BYTES_MAX), []);
    }
}
