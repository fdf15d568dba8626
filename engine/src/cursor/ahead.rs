//! Reading ahead of a scan: how far, and the pages that were read and are not reached yet.

use std::{collections::VecDeque, ops::Range, sync::Arc};

use bytes::Bytes;
use tokio::task::JoinHandle;

use crate::{
    error::{Error, Result},
    format::object::{LeafAt, Tail},
    table::Table,
};

/// Most pages that are read at once, and their bytes: as many as one request asks for.
const PAGES_MAX: usize = 64;
const BYTES_MAX: u64 = 1024 * 1024;
/// So few pages of a range are read at once.
const LITTLE: usize = 8;

/// Pages that are being read, which are left alone if the scan ends first.
struct Coming {
    /// The slot of the first of them.
    at: usize,
    read: JoinHandle<(Vec<u32>, Vec<Result<Bytes>>)>,
}

impl Drop for Coming {
    fn drop(&mut self) {
        self.read.abort();
    }
}

/// What a cursor has read ahead. Its pages are in the cache as well, which may be too small to keep them.
pub(super) struct Ahead {
    /// Pages to read at the next miss.
    window: usize,
    /// Pages of this table, in the order of the scan.
    table: u128,
    held: VecDeque<(u32, Bytes)>,
    /// The slot behind the pages that are held.
    next: Option<usize>,
    coming: Option<Coming>,
}

impl Default for Ahead {
    fn default() -> Self {
        Self { window: 1, table: 0, held: VecDeque::new(), next: None, coming: None }
    }
}

impl Ahead {
    /// A page that was read ahead; those before it are passed.
    pub(super) fn take(&mut self, table: u128, page: u32) -> Option<Bytes> {
        if self.table != table {
            self.held.clear();
            (self.next, self.coming) = (None, None);
        }
        let at = self.held.iter().position(|(held, _)| *held == page)?;
        self.held.drain(..=at).next_back().map(|(_, bytes)| bytes)
    }

    /// Reads the page of the leaf at slot `at`, and those behind it in the order of the scan: twice as many as at the miss
    /// before, or as many as are `wanted` where that is known.
    pub(super) async fn fetch(
        &mut self,
        table: &Arc<Table>,
        tail: &Arc<Tail>,
        at: usize,
        reach: Reach,
        wanted: Option<usize>,
    ) -> Result<Bytes> {
        self.table = table.meta.id;
        let coming = self.coming.take().filter(|coming| coming.at == at);
        let read = match coming {
            Some(mut coming) => (&mut coming.read).await.ok(),
            None => None,
        };
        let (pages, read) = match read {
            Some(read) => read,
            None => {
                let window = wanted.unwrap_or(self.window.max(reach.little())).clamp(1, PAGES_MAX);
                self.window = (self.window * 2).min(PAGES_MAX);
                let pages = window_at(tail, at, window, reach);
                let read = table.pages(tail, &pages).await;
                (pages, read)
            }
        };
        self.next = if reach.reverse { at.checked_sub(pages.len()) } else { Some(at + pages.len()) };
        let mut read = pages.into_iter().zip(read);
        // Only the current page's error counts: the others are a guess.
        let current = read.next().map(|(_, current)| current);
        self.held.clear();
        self.held.extend(read.map_while(|(page, bytes)| Some((page, bytes.ok()?))));
        current.unwrap_or_else(|| Err(Error::Corrupt(format!("{} has no leaf {at}", table.key()))))
    }

    /// Begins to read what comes behind the pages that are held, once half of them are passed and the scan is a long one.
    pub(super) fn go_on(&mut self, table: &Arc<Table>, tail: &Arc<Tail>, reach: Reach) {
        if self.coming.is_some() || self.window < PAGES_MAX || self.held.len() > PAGES_MAX / 2 {
            return;
        }
        let Some(at) = self.next.take().filter(|at| (reach.low..reach.high).contains(at)) else { return };
        let pages = window_at(tail, at, PAGES_MAX, reach);
        let (table, tail) = (table.clone(), tail.clone());
        let read = tokio::spawn(async move {
            let read = table.pages(&tail, &pages).await;
            (pages, read)
        });
        self.coming = Some(Coming { at, read });
    }
}

/// How many pages so many rows lie in. They begin `anywhere` in the first one, or at its start: where another page is wanted
/// less often than one time in eight, it is not counted.
pub(super) fn pages_of(rows: usize, rows_per_page: usize, anywhere: bool) -> usize {
    let per_page = rows_per_page.max(1);
    let spare = if anywhere { per_page - (per_page / 8).max(1) } else { 0 };
    (rows.saturating_sub(1).saturating_add(spare) / per_page).saturating_add(1)
}

/// The pages to read at once.
fn window_at(tail: &Tail, at: usize, window: usize, reach: Reach) -> Vec<u32> {
    let leaves = tail.leaves().get(reach.slots(at, window)).unwrap_or_default();
    within(leaves, reach.reverse, |page| tail.page(page).map_or(0, |at| u64::from(at.len)))
}

/// The leaves of a table that a scan may read, by its bounds: slots from `low` up to `high`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reach {
    pub(super) low: usize,
    pub(super) high: usize,
    pub(super) reverse: bool,
}

impl Reach {
    /// As many leaves as are read at once if these are all that there is to read.
    fn little(self) -> usize {
        let leaves = self.high.saturating_sub(self.low);
        if leaves <= LITTLE { leaves } else { 1 }
    }

    /// The slots of the leaves to read.
    fn slots(self, at: usize, window: usize) -> Range<usize> {
        match self.reverse {
            false => at..at.saturating_add(window).min(self.high).max(at + 1),
            true => (at + 1).saturating_sub(window).max(self.low).min(at)..at + 1,
        }
    }
}

/// Their pages in the order of the scan, as many as fit into one request, but at least the first.
fn within(leaves: &[LeafAt], reverse: bool, len: impl Fn(u32) -> u64) -> Vec<u32> {
    let mut pages: Vec<u32> = leaves.iter().map(|leaf| leaf.page).collect();
    if reverse {
        pages.reverse();
    }
    let mut bytes = 0;
    let fits = pages.iter().take_while(|page| {
        bytes += len(**page);
        bytes <= BYTES_MAX
    });
    let fits = fits.count().max(1);
    pages.truncate(fits);
    pages
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::CommitSeq;

    #[test]
    fn windows_end_with_the_table_and_with_one_request() {
        let slots = |at, window, reverse| Reach { low: 1, high: 9, reverse }.slots(at, window);
        assert_eq!([slots(3, 4, false), slots(7, 4, false), slots(9, 4, false)], [3..7, 7..9, 9..10]);
        assert_eq!([slots(3, 2, true), slots(2, 4, true), slots(0, 4, true)], [2..4, 1..3, 0..1]);
        let little = |low, high| Reach { low, high, reverse: false }.little();
        assert_eq!([little(3, 11), little(3, 12), little(3, 3)], [8, 1, 0]);
        let leaf = |page| LeafAt { page, continued: false, seq: CommitSeq::ZERO, key: Bytes::new() };
        let leaves: Vec<_> = [3, 4, 7].map(leaf).into();
        assert_eq!(within(&leaves, false, |_| 100), [3, 4, 7]);
        assert_eq!(within(&leaves, true, |_| BYTES_MAX / 2), [7, 4]);
        assert_eq!(within(&leaves, false, |_| BYTES_MAX * 2), [3]);
    }

    #[test]
    fn rows_that_begin_anywhere_may_reach_one_page_further() {
        let rows = [0, 1, 2, 16, 17, 18, 19, 33, 100];
        assert_eq!(rows.map(|rows| pages_of(rows, 16, false)), [1, 1, 1, 1, 2, 2, 2, 3, 7]);
        assert_eq!(rows.map(|rows| pages_of(rows, 16, true)), [1, 1, 1, 2, 2, 2, 3, 3, 8]);
        assert_eq!([pages_of(3, 1, true), pages_of(3, 0, false), pages_of(usize::MAX, 1, true)], [3, 3, usize::MAX]);
    }

    #[test]
    fn pages_are_taken_in_order_and_once() {
        let page = |n: u32| (n, Bytes::from(vec![n as u8]));
        let mut ahead = Ahead { window: 8, table: 1, held: [page(5), page(6), page(9)].into(), ..Ahead::default() };
        assert_eq!(ahead.take(1, 6), Some(page(6).1));
        assert_eq!((ahead.take(1, 5), ahead.take(1, 6)), (None, None));
        assert_eq!(ahead.take(2, 9), None);
        assert!(ahead.held.is_empty(), "the scan has left that table");
    }
}
