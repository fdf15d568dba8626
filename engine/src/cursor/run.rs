//! A cursor over one sorted run: finds the page, reads ahead, steps through it in either direction.

use std::{ops::Bound, sync::Arc};

use bytes::Bytes;

use super::{
    ahead::{self, Ahead, Reach},
    bulk::Bulk,
};
use crate::{
    error::{Error, Result},
    format::{
        object::Tail,
        page::{Cell, Entry, Leaf},
    },
    table::Table,
    types::{CommitSeq, Item, Op},
    version::Run,
    writer::Heat,
};

/// What an entry stores.
pub(crate) enum Stored {
    Op(Op),
    /// A large value, as encoded overflow pages.
    Pages {
        pages: Vec<Bytes>,
        len: u32,
    },
}

pub(crate) struct RunCursor {
    run: Arc<Run>,
    start: Bound<Bytes>,
    end: Bound<Bytes>,
    reverse: bool,
    /// Where the current page is.
    table: usize,
    leaf_at: usize,
    leaf: Option<Leaf>,
    /// Slots of the current page that are inside the bounds and not yet passed.
    slots: std::ops::Range<usize>,
    entry: Option<Entry>,
    finished: bool,
    ahead: Ahead,
    /// Rows that the reader still expects behind the current page, if that is known.
    expected: Option<usize>,
    bulk: Option<Bulk>,
    /// Where the current page was.
    heat: Heat,
}

impl RunCursor {
    pub(crate) fn new(run: Arc<Run>, bounds: &(Bound<Bytes>, Bound<Bytes>), reverse: bool, limit_hint: usize) -> Self {
        let (start, end) = bounds.clone();
        // Tables inside the bounds: [low, high).
        let low = run.tables.partition_point(|table| match &start {
            Bound::Included(key) => table.meta.last < key,
            Bound::Excluded(key) => table.meta.last <= key,
            Bound::Unbounded => false,
        });
        let high = run.tables.partition_point(|table| match &end {
            Bound::Included(key) => table.meta.first <= key,
            Bound::Excluded(key) => table.meta.first < key,
            Bound::Unbounded => true,
        });
        Self {
            table: if reverse { high.wrapping_sub(1) } else { low },
            finished: low >= high,
            run,
            start,
            end,
            reverse,
            leaf_at: 0,
            leaf: None,
            slots: 0..0,
            entry: None,
            ahead: Ahead::default(),
            expected: Some(limit_hint).filter(|rows| (1..usize::MAX).contains(rows)),
            bulk: None,
            heat: Heat::Cold,
        }
    }

    /// A cursor that leaves the cache alone and reads in requests of so many bytes, of which it keeps two in RAM.
    pub(crate) fn bulk(run: Arc<Run>, bounds: &(Bound<Bytes>, Bound<Bytes>), request: u64) -> Self {
        let mut cursor = Self::new(run, bounds, false, 0);
        cursor.bulk = Some(Bulk::new(request));
        cursor
    }

    #[inline]
    pub(crate) fn is_finished(&self) -> bool {
        self.finished
    }

    /// Where the page of the current entry was.
    pub(crate) fn heat(&self) -> Heat {
        self.heat
    }

    /// The current key; empty when finished.
    #[inline]
    pub(crate) fn key(&self) -> &[u8] {
        match (&self.leaf, &self.entry) {
            (Some(leaf), Some(entry)) => leaf.key(entry),
            _ => &[],
        }
    }

    pub(crate) fn key_bytes(&self) -> Bytes {
        match (&self.leaf, &self.entry) {
            (Some(leaf), Some(entry)) => leaf.key_bytes(entry),
            _ => Bytes::new(),
        }
    }

    #[inline]
    pub(crate) fn seq(&self) -> CommitSeq {
        self.entry.as_ref().map_or(CommitSeq::ZERO, |entry| entry.seq)
    }

    pub(crate) fn is_delete(&self) -> Result<bool> {
        match (&self.leaf, &self.entry) {
            (Some(leaf), Some(entry)) => Ok(leaf.cell(entry)? == Cell::Delete),
            _ => Ok(false),
        }
    }

    /// Goes to the first entry inside the bounds.
    pub(crate) async fn start(&mut self) -> Result<()> {
        let Some(table) = self.current_table() else { return Ok(()) };
        let tail = table.tail().await?;
        self.leaf_at = match (self.reverse, &self.start, &self.end) {
            (false, Bound::Included(key) | Bound::Excluded(key), _) => tail.find_leaf(key, CommitSeq::MAX),
            (false, Bound::Unbounded, _) => 0,
            (true, _, Bound::Included(key) | Bound::Excluded(key)) => tail.find_leaf(key, CommitSeq::ZERO),
            (true, _, Bound::Unbounded) => tail.leaves().len().saturating_sub(1),
        };
        self.load_until_some().await
    }

    fn current_table(&mut self) -> Option<Arc<Table>> {
        let table = if self.finished { None } else { self.run.tables.get(self.table).cloned() };
        self.finished |= table.is_none();
        table
    }

    fn finish(&mut self) {
        self.finished = true;
        self.entry = None;
        self.leaf = None;
    }

    /// Loads the current page, and following ones while they have nothing inside the bounds.
    async fn load_until_some(&mut self) -> Result<()> {
        loop {
            self.load().await?;
            if self.finished || self.enter_slot()? {
                return Ok(());
            }
            self.leave_page().await?;
        }
    }

    /// Moves to the next page's place without loading it.
    async fn leave_page(&mut self) -> Result<()> {
        let Some(table) = self.current_table() else { return Ok(()) };
        let leaves = table.tail().await?.leaves().len();
        let passed_end = match self.reverse {
            false => self.leaf_at + 1 >= leaves,
            true => self.leaf_at == 0,
        };
        if !passed_end {
            self.leaf_at = if self.reverse { self.leaf_at - 1 } else { self.leaf_at + 1 };
            return Ok(());
        }
        self.table = if self.reverse { self.table.wrapping_sub(1) } else { self.table + 1 };
        match self.current_table() {
            Some(table) if self.reverse => self.leaf_at = table.tail().await?.leaves().len().saturating_sub(1),
            Some(_) => self.leaf_at = 0,
            None => self.finish(),
        }
        Ok(())
    }

    /// Loads the current page and finds the slots inside the bounds.
    async fn load(&mut self) -> Result<()> {
        let Some(table) = self.current_table() else { return Ok(()) };
        let tail = match table.tail_now() {
            Some(tail) => tail,
            None => table.tail().await?,
        };
        let Some(at) = tail.leaves().get(self.leaf_at) else {
            self.finish();
            return Ok(());
        };
        // Past the bounds: no need to read the page.
        let outside = match (&self.end, self.reverse) {
            (Bound::Included(end), false) => at.key > end,
            (Bound::Excluded(end), false) => at.key >= end,
            _ => false,
        };
        if outside {
            self.finish();
            return Ok(());
        }
        let held = self.ahead.take(table.meta.id, at.page);
        // Who knows how much is wanted has asked for it already.
        if held.is_some() && self.expected.is_none() {
            let reach = self.reach(&tail);
            self.ahead.go_on(&table, &tail, reach);
        }
        let page = held.or_else(|| table.page_now(at.page));
        let page = match (page, self.bulk.is_some()) {
            (Some(page), _) => {
                self.heat = Heat::Hot;
                page
            }
            (None, false) => self.fetch(&table, &tail).await?,
            (None, true) => {
                self.heat = if table.is_on_nvme(at.page) { Heat::Warm } else { Heat::Cold };
                self.fetch_bulk(&table, &tail).await?
            }
        };
        let leaf = table.leaf(page)?;
        let low = match &self.start {
            Bound::Included(key) => leaf.seek_key(key, false)?,
            Bound::Excluded(key) => leaf.seek_key(key, true)?,
            Bound::Unbounded => 0,
        };
        let high = match &self.end {
            Bound::Included(key) => leaf.seek_key(key, true)?,
            Bound::Excluded(key) => leaf.seek_key(key, false)?,
            Bound::Unbounded => leaf.count(),
        };
        self.slots = low..high;
        self.expected = self.expected.map(|rows| rows.saturating_sub(self.slots.len()).max(1));
        self.leaf = Some(leaf);
        if self.reverse && low >= high && low > 0 {
            // Everything in the page is above the bounds' end or below their start; below means there is no more.
            let below = self.leaf.as_ref().is_some_and(|leaf| low == leaf.count());
            if below {
                self.finish();
            }
        }
        Ok(())
    }

    /// Fetches the current page and, as misses follow each other, more and more of the pages behind it.
    async fn fetch(&mut self, table: &Arc<Table>, tail: &Arc<Tail>) -> Result<Bytes> {
        let rows_per_page = (tail.entries() as usize / tail.leaves().len().max(1)).max(1);
        let wanted = self.expected.map(|rows| ahead::pages_of(rows, rows_per_page, self.leaf.is_none()));
        // Boxed: one large state machine less inside every step of a scan.
        let reach = self.reach(tail);
        Box::pin(self.ahead.fetch(table, tail, self.leaf_at, reach, wanted)).await
    }

    /// The leaves inside the bounds.
    fn reach(&self, tail: &Tail) -> Reach {
        let leaves = tail.leaves();
        let low = match &self.start {
            Bound::Included(key) | Bound::Excluded(key) => tail.find_leaf(key, CommitSeq::MAX),
            Bound::Unbounded => 0,
        };
        let high = match &self.end {
            Bound::Included(key) => leaves.partition_point(|leaf| leaf.key <= key),
            Bound::Excluded(key) => leaves.partition_point(|leaf| leaf.key < key),
            Bound::Unbounded => leaves.len(),
        };
        Reach { low, high, reverse: self.reverse }
    }

    async fn fetch_bulk(&mut self, table: &Arc<Table>, tail: &Tail) -> Result<Bytes> {
        let Some(bulk) = &mut self.bulk else { return Err(not_bulk()) };
        bulk.leaf(table, tail, self.leaf_at, self.run.tables.get(self.table + 1)).await
    }

    /// Makes the next slot of the page current; `false` if the page has no more.
    #[inline]
    fn enter_slot(&mut self) -> Result<bool> {
        let slot = if self.reverse { self.slots.next_back() } else { self.slots.next() };
        match (slot, &self.leaf) {
            (Some(slot), Some(leaf)) => {
                self.entry = Some(leaf.entry(slot)?);
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    /// Goes to the next entry.
    #[inline]
    pub(crate) async fn advance(&mut self) -> Result<()> {
        if self.enter_slot()? {
            return Ok(());
        }
        self.next_page().await
    }

    async fn next_page(&mut self) -> Result<()> {
        self.leave_page().await?;
        self.load_until_some().await
    }

    /// The current entry, its value read from overflow pages if it is there.
    pub(crate) async fn item(&mut self) -> Result<Option<Item>> {
        let (Some(leaf), Some(entry)) = (&self.leaf, &self.entry) else { return Ok(None) };
        let (key, seq) = (leaf.key_bytes(entry), entry.seq);
        match leaf.op(entry)? {
            Ok(op) => Ok(Some(Item { key, seq, op })),
            Err(extent) => {
                let Some(table) = self.current_table() else { return Ok(None) };
                Ok(Some(Item { key, seq, op: Op::Put(table.value(extent).await?) }))
            }
        }
    }

    /// What the current entry stores, a large value as its encoded and verified pages. For cursors that read in bulk.
    pub(crate) async fn stored(&mut self) -> Result<Option<Stored>> {
        let (Some(leaf), Some(entry)) = (&self.leaf, &self.entry) else { return Ok(None) };
        match leaf.op(entry)? {
            Ok(op) => Ok(Some(Stored::Op(op))),
            Err(extent) => {
                let (Some(table), Some(bulk)) = (self.run.tables.get(self.table), &mut self.bulk) else {
                    return Err(not_bulk());
                };
                let tail = table.tail().await?;
                let pages = bulk.value(table, &tail, self.leaf_at, extent).await?;
                Ok(Some(Stored::Pages { pages, len: extent.len }))
            }
        }
    }

    /// Emits from the current page without awaiting, while its keys come before `until`. Stops in front of whatever
    /// needs more than this page: its last key (whose versions may go on in the next page) and overflow values.
    pub(crate) fn drain_page(
        &mut self,
        at: CommitSeq,
        until: Option<&[u8]>,
        out: &mut Vec<Item>,
        target: usize,
    ) -> Result<()> {
        let Some(leaf) = &self.leaf else { return Ok(()) };
        while out.len() < target {
            let Some(first) = self.entry.clone() else { return Ok(()) };
            let key = leaf.key(&first);
            let beyond = until.is_some_and(|until| if self.reverse { key <= until } else { key >= until });
            if beyond {
                return Ok(());
            }
            let mut slots = self.slots.clone();
            let mut visible = (first.seq <= at).then_some(first.clone());
            let next = loop {
                let slot = if self.reverse { slots.next_back() } else { slots.next() };
                let Some(slot) = slot else { return Ok(()) };
                let next = leaf.entry(slot)?;
                if leaf.key(&next) != key {
                    break next;
                }
                // Newest first forward, oldest first in reverse.
                if next.seq <= at && (self.reverse || visible.is_none()) {
                    visible = Some(next);
                }
            };
            if let Some(entry) = visible {
                let Ok(op) = leaf.op(&entry)? else { return Ok(()) };
                out.push(Item { key: leaf.key_bytes(&entry), seq: entry.seq, op });
            }
            self.slots = slots;
            self.entry = Some(next);
        }
        Ok(())
    }

    /// Passes every version of the current key; returns the newest that a reader at `at` sees.
    pub(crate) async fn take_key(&mut self, at: CommitSeq) -> Result<Option<Item>> {
        let key = self.key_bytes();
        let mut newest = None;
        loop {
            // Forward the first visible version is the newest; in reverse, the last one.
            if self.seq() <= at && (self.reverse || newest.is_none()) {
                newest = self.item().await?;
            }
            self.advance().await?;
            if self.finished || self.key() != &key[..] {
                return Ok(newest);
            }
        }
    }
}

fn not_bulk() -> Error {
    Error::Invalid("not a cursor that reads in bulk".into())
}
