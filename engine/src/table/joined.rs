//! Pages that are fetched together: one request for those that no cache has and that lie near each other.
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
/// Bytes that are fetched though nobody wants them, between two pages that are wanted: cheaper than another request, which
/// costs money where bytes cost a millisecond.
const GAP_MAX: u64 = 128 * 1024;

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
    /// Verified pages, each from wherever it is, in the order asked for. What no cache has of them comes in as few requests as
    /// its places in the object allow.
    pub(crate) async fn pages(self: &Arc<Self>, tail: &Arc<Tail>, pages: &[u32]) -> Vec<Result<Bytes>> {
        let (cache, key) = (&self.io.cache, |page: u32| self.cache_key(page));
        // Taken at once: until the others are here they may have gone, and each would come alone.
        let in_ram: Vec<Option<Bytes>> = pages.iter().map(|page| cache.peek(&key(*page))).collect();
        let absent = pages.iter().zip(&in_ram).filter(|(page, here)| here.is_none() && !cache.holds(&key(**page)));
        let mut missing: Vec<u32> = absent.map(|(page, _)| *page).collect();
        missing.sort_unstable();
        let place = |page| tail.page(page).map_or(0..0, |at| at.offset..at.offset + u64::from(at.len));
        // Held until the pages are here.
        let _runs: Vec<_> = near(&missing, place).into_iter().map(|run| self.run(tail, run)).collect();
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

/// Runs from and to pages that are wanted, of ascending page numbers, for those with company; none is longer than a request
/// may be. Where a page lies in the object tells `place`.
fn near(wanted: &[u32], place: impl Fn(u32) -> Range<u64>) -> Vec<Range<u32>> {
    let mut runs: Vec<(Range<u32>, Range<u64>)> = Vec::new();
    for page in wanted.iter().copied() {
        let bytes = place(page);
        match runs.last_mut() {
            Some((run, has)) if bytes.start <= has.end + GAP_MAX && bytes.end <= has.start + BYTES_MAX => {
                (run.end, has.end) = (page.saturating_add(1), bytes.end);
            }
            _ => runs.push((page..page.saturating_add(1), bytes)),
        }
    }
    runs.into_iter().map(|(run, _)| run).filter(|run| run.len() > 1).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pages of equal length, one behind the other.
    fn pages_of(len: u64) -> impl Fn(u32) -> Range<u64> {
        move |page| u64::from(page) * len..(u64::from(page) + 1) * len
    }

    #[test]
    fn runs_are_of_what_is_near_and_bounded() {
        assert_eq!(near(&[], pages_of(1)), []);
        assert_eq!(near(&[4], pages_of(1)), []);
        assert_eq!(near(&[1, 2, 3, 4, 5], pages_of(BYTES_MAX / 2)), [1..3, 3..5]);
        assert_eq!(near(&[1, 2, 3], pages_of(BYTES_MAX)), []);
        let page = GAP_MAX / 8;
        assert_eq!(
            near(&[4, 5, 14, 15, 25, 26], pages_of(page)),
            [4..16, 25..27],
            "eight between are fetched, nine are not"
        );
        let fit = (BYTES_MAX / page) as u32;
        let every_other: Vec<u32> = (0..fit).step_by(2).collect();
        assert_eq!(near(&every_other, pages_of(page)).first(), Some(&(0..fit - 1)));
        assert_eq!(near(&[0, 8, 16, 24, 32, 40, 48, 56, 64, 65], pages_of(page)), [0..57, 64..66], "gaps count");
    }
}
