//! A spilled memtable: answers as the memtable did, from its files. Its range deletes stay in RAM.

use std::{ops::Bound, sync::Arc};

use bytes::Bytes;

use super::{Spill, Trash};
use crate::{
    cursor::{RunCursor, VersionCursor},
    error::Result,
    format::manifest::Manifest,
    memtable::Memtable,
    scan::KeyRange,
    table::{Table, TableIo},
    types::{CommitSeq, Op, RangeDelete},
    version::Version,
};

/// Bytes that a flush reads at once, from each of the memtables that it merges.
const READ_BYTES: u64 = 256 << 10;

/// The rows of a frozen memtable, in files that go when nobody reads them any more.
pub struct Spilled {
    spill: Arc<Spill>,
    /// The name of its index.
    index: String,
    /// A memtable without rows.
    ranges: Memtable,
    rows: Arc<Version>,
}

impl Spilled {
    /// What `manifest`, which lies in the file `index`, describes. `open`: tables that are open already.
    pub(super) fn new(
        spill: &Arc<Spill>,
        io: &Arc<TableIo>,
        index: String,
        manifest: &Manifest,
        open: &[Arc<Table>],
    ) -> Self {
        let ranges = Memtable::new();
        for RangeDelete { start, end, seq } in &manifest.range_deletes {
            // Copied: what they were cut from, a log entry or an index, need not stay.
            let copy = Bytes::copy_from_slice;
            ranges.delete_range(RangeDelete { start: copy(start), end: copy(end), seq: *seq });
        }
        let rows = Manifest { fresh: manifest.fresh.clone(), ..Manifest::default() };
        Self { spill: Arc::clone(spill), index, ranges, rows: Arc::new(Version::new(rows, open, io)) }
    }

    /// The name of its index.
    pub(super) fn index(&self) -> &str {
        &self.index
    }

    /// Its objects.
    pub(super) fn tables(&self) -> impl Iterator<Item = &Arc<Table>> {
        self.rows.tables()
    }

    /// Its range deletes, as a memtable without rows.
    pub fn ranges(&self) -> &Memtable {
        &self.ranges
    }

    /// Versions that it holds.
    pub fn versions(&self) -> usize {
        self.rows.manifest().objects().map(|object| object.entries as usize).sum()
    }

    /// Bytes of its objects.
    pub fn stored_bytes(&self) -> u64 {
        self.rows.manifest().objects().map(|object| object.bytes).sum()
    }

    /// As [`Memtable::get`].
    pub async fn get(&self, key: &[u8], at: CommitSeq) -> Result<Option<(CommitSeq, Op)>> {
        self.rows.get(key, at).await
    }

    /// As [`Memtable::collect`], bit by bit.
    pub fn cursor(&self, range: &KeyRange, at: CommitSeq, reverse: bool, limit_hint: usize) -> VersionCursor {
        self.rows.cursor((range.start.clone(), range.end.clone()), at, reverse, limit_hint)
    }

    /// As [`Memtable::changed_since`].
    pub async fn changed_since(&self, range: &KeyRange, since: CommitSeq) -> Result<bool> {
        if self.ranges.changed_since(range.bounds(), since) {
            return Ok(true);
        }
        if self.rows.manifest().objects().all(|object| object.max_seq <= since) {
            return Ok(false);
        }
        let mut cursor = self.cursor(range, CommitSeq::MAX, false, 0);
        while let Some(item) = cursor.next().await? {
            if item.seq > since {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Every version behind the key `after`, read past the cache; `None` if there are no rows.
    pub(crate) async fn bulk(&self, after: Option<&Bytes>) -> Result<Option<RunCursor>> {
        let Some(run) = self.rows.runs().first() else { return Ok(None) };
        let start = after.map_or(Bound::Unbounded, |key| Bound::Excluded(key.clone()));
        let mut cursor = RunCursor::bulk(Arc::clone(run), &(start, Bound::Unbounded), READ_BYTES);
        cursor.start().await?;
        Ok(Some(cursor))
    }
}

impl Drop for Spilled {
    /// An accepted edit has what it held, or a restart replays that. Of a database that is dropped as a whole nothing is
    /// deleted: the task that does so has ended by then.
    fn drop(&mut self) {
        let objects = self.tables().map(|table| (table.meta.term, table.meta.id)).collect();
        let trash = Trash { index: std::mem::take(&mut self.index), objects };
        self.spill.trash.lock().push(trash);
        self.spill.wake.notify_one();
    }
}
