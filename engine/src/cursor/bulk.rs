//! Sequential reading of whole objects, past the cache: pages of one large request, and the next request under way.

use std::{ops::Range, sync::Arc};

use bytes::Bytes;
use tokio::task::JoinHandle;

use crate::{
    error::{Error, Result},
    format::{object::Tail, page::Extent},
    store::Cause,
    table::Table,
};

/// Consecutive pages of an object, not yet verified.
#[derive(Default)]
struct Pages {
    table: u128,
    first: u32,
    pages: Vec<Bytes>,
}

impl Pages {
    fn get(&self, table: &Table, page: u32) -> Option<Bytes> {
        let at = page.checked_sub(self.first).filter(|_| self.table == table.meta.id)?;
        self.pages.get(at as usize).cloned()
    }

    fn end(&self) -> u32 {
        self.first + self.pages.len() as u32
    }

    async fn read(table: Arc<Table>, choose: impl FnOnce(&Tail) -> Range<u32>) -> Result<Self> {
        let tail = table.tail().await?;
        let wanted = choose(&tail);
        let first = wanted.start;
        let pages = table.read_pages(&tail, wanted, Cause::Compaction).await?;
        Ok(Self { table: table.meta.id, first, pages })
    }
}

/// A request under way, which is given up with it.
struct Coming {
    table: u128,
    first: u32,
    read: JoinHandle<Result<Pages>>,
}

impl Drop for Coming {
    fn drop(&mut self) {
        self.read.abort();
    }
}

/// Pages in the order in which they are asked for: those of one request, and those that come.
#[derive(Default)]
struct Stream {
    held: Pages,
    coming: Option<Coming>,
}

impl Stream {
    /// Goes on to a page: to those that come, if it is one of them, or else to those that `choose` says.
    async fn go_to(
        &mut self,
        table: &Arc<Table>,
        page: u32,
        choose: impl FnOnce(&Tail) -> Range<u32>,
    ) -> Result<Bytes> {
        // What was passed goes before what is next comes.
        self.held = Pages::default();
        // It was asked for in vain if all of it was found in RAM, or is not needed.
        let coming = self.coming.take().filter(|coming| coming.table == table.meta.id && coming.first <= page);
        if let Some(mut coming) = coming {
            let read = (&mut coming.read).await;
            self.held = read.map_err(|gone| Error::Retry(format!("a read ahead was aborted: {gone}")))??;
        }
        if let Some(stored) = self.held.get(table, page) {
            return Ok(stored);
        }
        self.held = Pages::read(Arc::clone(table), choose).await?;
        self.held.get(table, page).ok_or_else(|| Error::Invalid(format!("page {page} is not in what was asked for")))
    }

    /// Asks for what is next.
    fn ask(&mut self, table: &Arc<Table>, first: u32, choose: impl FnOnce(&Tail) -> Range<u32> + Send + 'static) {
        let read = tokio::spawn(Pages::read(Arc::clone(table), choose));
        self.coming = Some(Coming { table: table.meta.id, first, read });
    }
}

/// Reads a run in requests of so many bytes, one ahead of the reader, so that neither waits for the other.
pub(super) struct Bulk {
    request: u64,
    /// Leaves, and the values between them where those are short.
    leaves: Stream,
    /// Values where a leaf's are more than a request.
    values: Stream,
}

impl Bulk {
    pub(super) fn new(request: u64) -> Self {
        Self { request, leaves: Stream::default(), values: Stream::default() }
    }

    /// The page of the leaf in this slot of `table`, verified. `next`: the object that is read after it.
    pub(super) async fn leaf(
        &mut self,
        table: &Arc<Table>,
        tail: &Tail,
        slot: usize,
        next: Option<&Arc<Table>>,
    ) -> Result<Bytes> {
        let page = tail.leaves().get(slot).map_or(u32::MAX, |leaf| leaf.page);
        let stored = match self.leaves.held.get(table, page) {
            Some(stored) => stored,
            None => {
                let request = self.request;
                let stored = self.leaves.go_to(table, page, move |tail| leaves_from(tail, slot, request)).await?;
                let end = self.leaves.held.end();
                let slot = tail.leaves().partition_point(|leaf| leaf.page < end);
                match next {
                    _ if slot < tail.leaves().len() => {
                        self.leaves.ask(table, end, move |tail| leaves_from(tail, slot, request));
                    }
                    Some(next) => self.leaves.ask(next, 0, move |tail| leaves_from(tail, 0, request)),
                    None => {}
                }
                stored
            }
        };
        table.verify(tail, page, stored)
    }

    /// The encoded pages of a value that the leaf in this slot refers to, verified. They are copies: a row that is kept must
    /// not keep all that came with it.
    pub(super) async fn value(
        &mut self,
        table: &Arc<Table>,
        tail: &Tail,
        slot: usize,
        extent: Extent,
    ) -> Result<Vec<Bytes>> {
        let wanted = table.extent(extent)?;
        // A leaf's values lie before it.
        let leaf = tail.leaves().get(slot).map_or(0, |leaf| leaf.page).max(wanted.end);
        let mut pages = Vec::new();
        for page in wanted {
            let held = self.leaves.held.get(table, page).or_else(|| self.values.held.get(table, page));
            let stored = match held {
                Some(stored) => stored,
                None => {
                    let request = self.request;
                    let stored =
                        self.values.go_to(table, page, move |tail| pages_from(tail, page..leaf, request)).await?;
                    let end = self.values.held.end();
                    if end < leaf {
                        self.values.ask(table, end, move |tail| pages_from(tail, end..leaf, request));
                    }
                    stored
                }
            };
            table.verify(tail, page, stored.clone())?;
            pages.push(Bytes::copy_from_slice(&stored));
        }
        Ok(pages)
    }
}

/// What is asked for to read the leaf in this slot: it and those behind it, with their values, as far as the bytes go. Only
/// the leaf if its values alone are more. Pure.
fn leaves_from(tail: &Tail, slot: usize, bytes: u64) -> Range<u32> {
    let leaves = tail.leaves().get(slot..).unwrap_or_default();
    let Some(leaf) = leaves.first() else { return 0..0 };
    let before = slot.checked_sub(1).and_then(|before| tail.leaves().get(before));
    let first = before.map_or(0, |before| before.page + 1);
    let ends = pages_from(tail, first..tail.pages().len() as u32, bytes).end;
    match leaves.partition_point(|leaf| leaf.page < ends).checked_sub(1).and_then(|last| leaves.get(last)) {
        Some(last) => first..last.page + 1,
        None => leaf.page..leaf.page + 1,
    }
}

/// The first of these pages, as far as the bytes go, but one at least. Pure.
fn pages_from(tail: &Tail, pages: Range<u32>, bytes: u64) -> Range<u32> {
    let at = tail.pages().get(pages.start as usize..pages.end as usize).unwrap_or_default();
    let start = at.first().map_or(0, |at| at.offset);
    let count = at.partition_point(|at| at.offset + u64::from(at.len) <= start + bytes).max(1);
    pages.start..pages.start + count as u32
}
