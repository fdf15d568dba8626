//! A version: the objects that one manifest puts in force, and reads from them. Holding one pins its objects.

use std::{ops::Bound, sync::Arc};

use bytes::Bytes;

use crate::{
    cursor::VersionCursor,
    error::Result,
    format::{manifest::Manifest, object},
    ranges::Ranges,
    table::{Table, TableIo},
    types::{CommitSeq, Op, RangeDelete},
};

/// One sorted run: tables in key order that share no key.
#[derive(Clone)]
pub(crate) struct Run {
    pub(crate) tables: Vec<Arc<Table>>,
}

impl Run {
    /// The table whose range holds `key`.
    #[inline]
    fn find(&self, key: &[u8]) -> Option<&Arc<Table>> {
        let slot = self.tables.partition_point(|table| table.meta.first[..] <= *key);
        let table = self.tables.get(slot.checked_sub(1)?)?;
        (*key <= table.meta.last[..]).then_some(table)
    }
}

/// Everything that one manifest puts in force.
pub struct Version {
    manifest: Arc<Manifest>,
    /// Newest first.
    runs: Vec<Arc<Run>>,
    ranges: Ranges,
}

impl std::fmt::Debug for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Version({})", self.manifest.id)
    }
}

impl Version {
    /// Opens a manifest, taking tables that `previous` has open already.
    pub(crate) fn new(manifest: Manifest, previous: &[Arc<Table>], io: &Arc<TableIo>) -> Self {
        let open = |meta: &_| -> Arc<Table> { Arc::new(Table::new(Clone::clone(meta), io.clone())) };
        let known: rustc_hash::FxHashMap<_, _> = previous.iter().map(|table| (table.meta.id, table)).collect();
        let runs = manifest.runs().map(|run| {
            let tables =
                run.iter().map(|meta| known.get(&meta.id).map_or_else(|| open(meta), |table| (*table).clone()));
            Arc::new(Run { tables: tables.collect() })
        });
        Self { runs: runs.collect(), ranges: Ranges::new(&manifest.range_deletes), manifest: Arc::new(manifest) }
    }

    /// The manifest behind it.
    pub fn manifest(&self) -> &Arc<Manifest> {
        &self.manifest
    }

    /// Every table.
    pub(crate) fn tables(&self) -> impl Iterator<Item = &Arc<Table>> {
        self.runs.iter().flat_map(|run| &run.tables)
    }

    pub(crate) fn runs(&self) -> &[Arc<Run>] {
        &self.runs
    }

    /// Range deletes that may still hide versions in the objects. Reads of this version apply them already; what a
    /// reader merges in is never older than they are.
    pub fn range_deletes(&self) -> &[RangeDelete] {
        &self.manifest.range_deletes
    }

    /// The newest version of an internal key that a reader at `at` sees; a range delete counts as a delete.
    /// Never awaits when the pages are in RAM.
    pub async fn get(&self, key: &[u8], at: CommitSeq) -> Result<Option<(CommitSeq, Op)>> {
        let hash = object::hash(key);
        let hidden = self.ranges.newest_over(key, at);
        for run in &self.runs {
            let Some(table) = run.find(key) else { continue };
            if table.meta.max_seq < hidden {
                break;
            }
            if table.meta.min_seq > at {
                continue;
            }
            if let Some(found) = table.get(key, hash, at).await? {
                return Ok(Some(if found.0 < hidden { (hidden, Op::Delete) } else { found }));
            }
        }
        Ok((hidden > CommitSeq::ZERO).then_some((hidden, Op::Delete)))
    }

    /// Walks the newest versions that a reader at `at` sees. `limit_hint`: rows that the caller expects to read, or 0.
    pub fn cursor(
        self: &Arc<Self>,
        bounds: (Bound<Bytes>, Bound<Bytes>),
        at: CommitSeq,
        reverse: bool,
        limit_hint: usize,
    ) -> VersionCursor {
        let ranges = self.ranges.within((bounds.0.as_ref().map(|key| &key[..]), bounds.1.as_ref().map(|key| &key[..])));
        VersionCursor::new(self, bounds, at, reverse, limit_hint, ranges)
    }
}
