//! Point reads: which memtables and which version are current, and the newest visible value among them.

use std::sync::Arc;

use bytes::Bytes;
use holdfast_wal::LogId;

use crate::{
    error::Result,
    format::manifest::Membership,
    memtable::Memtable,
    tree::Version,
    types::{CommitSeq, Op, RangeDelete},
};

/// A memtable that ended at a `Freeze` entry, with what a manifest needs besides its rows.
pub struct Frozen {
    /// The rows.
    pub table: Arc<Memtable>,
    /// The `Freeze` entry: the memtable holds everything up to it.
    pub up_to: LogId,
    /// The machine's state there, encoded.
    pub state: Bytes,
    /// The format level there.
    pub format_level: u32,
    /// The membership there.
    pub membership: Membership,
}

/// Everything a read goes through, newest first. Immutable: a change makes a new one.
#[derive(Clone)]
pub struct ReadState {
    /// Receives commits.
    pub active: Arc<Memtable>,
    /// Waiting to be flushed, newest first.
    pub frozen: Vec<Arc<Frozen>>,
    /// The pages: everything up to its manifest's `up_to`.
    pub version: Arc<Version>,
}

impl ReadState {
    /// Memtables, newest first.
    pub fn tables(&self) -> impl Iterator<Item = &Arc<Memtable>> {
        std::iter::once(&self.active).chain(self.frozen.iter().map(|frozen| &frozen.table))
    }

    /// The newest version of `key` at or below `at`. Deletes are answered as such: `None` means never written.
    pub async fn get(&self, key: &[u8], at: CommitSeq) -> Result<Option<(CommitSeq, Op)>> {
        let mut covered = CommitSeq::ZERO;
        for table in self.tables() {
            covered = covered.max(table.covering(key, at).unwrap_or_default());
            if let Some((seq, op)) = table.get(key, at) {
                return Ok(Some(if covered > seq { (covered, Op::Delete) } else { (seq, op) }));
            }
        }
        if covered > CommitSeq::ZERO {
            // Whatever the pages hold is older than every memtable.
            return Ok(Some((covered, Op::Delete)));
        }
        self.version.get(key, at).await
    }

    /// Range deletes in the memtables that a reader at `at` obeys.
    pub fn range_deletes(&self, at: CommitSeq) -> Vec<RangeDelete> {
        self.tables().flat_map(|table| table.range_deletes()).filter(|range| range.seq <= at).collect()
    }
}
