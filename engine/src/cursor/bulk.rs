//! Sequential reading of whole objects, past the cache: pages of one large request, and the next request under way.

use std::sync::Arc;

use bytes::Bytes;
use tokio::task::JoinHandle;

use crate::{
    error::{Error, Result},
    format::object::Tail,
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

    /// Reads from `first` on, in one request of so many bytes at most, but for a page at least.
    async fn read(table: Arc<Table>, first: u32, bytes: u64) -> Result<Self> {
        let tail = table.tail().await?;
        let start = tail.page(first)?.offset;
        let behind = tail.pages().get(first as usize..).unwrap_or_default();
        let count = behind.partition_point(|at| at.offset + u64::from(at.len) <= start + bytes).max(1) as u32;
        let pages = table.read_pages(&tail, first..first + count, Cause::Compaction).await?;
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

/// Reads a run in requests of so many bytes, one ahead of the reader, so that neither waits for the other.
pub(super) struct Bulk {
    request: u64,
    held: Pages,
    coming: Option<Coming>,
}

impl Bulk {
    /// Holds two requests of so many bytes at most.
    pub(super) fn new(request: u64) -> Self {
        Self { request, held: Pages::default(), coming: None }
    }

    /// A page of `table`, verified. `next`: the object that is read after it.
    pub(super) async fn page(
        &mut self,
        table: &Arc<Table>,
        tail: &Tail,
        page: u32,
        next: Option<&Arc<Table>>,
    ) -> Result<Bytes> {
        let stored = match self.held.get(table, page) {
            Some(stored) => stored,
            None => self.read(table, tail, page, next).await?,
        };
        table.verify(tail, page, stored)
    }

    async fn read(&mut self, table: &Arc<Table>, tail: &Tail, page: u32, next: Option<&Arc<Table>>) -> Result<Bytes> {
        // What was passed goes before what is next comes.
        self.held = Pages::default();
        // Pages that the reader found in RAM may lie between: then it was for nothing, if they are all of it.
        if let Some(mut coming) =
            self.coming.take().filter(|coming| coming.table == table.meta.id && coming.first <= page)
        {
            let read = (&mut coming.read).await;
            self.held = read.map_err(|gone| Error::Retry(format!("a read ahead was aborted: {gone}")))??;
        }
        if self.held.get(table, page).is_none() {
            self.held = Pages::read(Arc::clone(table), page, self.request).await?;
        }
        let behind = self.held.first + self.held.pages.len() as u32;
        let then =
            if (behind as usize) < tail.pages().len() { Some((table, behind)) } else { next.map(|next| (next, 0)) };
        self.coming = then.map(|(table, first)| {
            let read = tokio::spawn(Pages::read(Arc::clone(table), first, self.request));
            Coming { table: table.meta.id, first, read }
        });
        self.held.get(table, page).ok_or_else(|| Error::Invalid(format!("page {page} of an object was not read")))
    }
}
