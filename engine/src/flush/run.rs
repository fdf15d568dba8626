//! Writes frozen memtables into the bucket as one fresh run.

use std::sync::Arc;

use super::{
    plan::Retain,
    source::{Merged, Source},
};
use crate::{
    compact::rest::Shift,
    cursor::Stored,
    error::Result,
    format::manifest::Manifest,
    ranges::Ranges,
    table::Table,
    types::{CommitSeq, Op, RangeDelete},
    writer::{Content, Heat, RunWriter},
};

/// Entries between two yields to the other tasks of the runtime.
const ENTRIES_PER_SLICE: usize = 256;

/// Merges the sources and writes what a reader at or above `floor` may see.
pub(crate) async fn write(
    mut writer: RunWriter,
    sources: Vec<Source>,
    range_deletes: &[RangeDelete],
    base: &Manifest,
    floor: CommitSeq,
    mut shift: Shift<'_>,
) -> Result<Vec<Arc<Table>>> {
    let ranges = Ranges::new(range_deletes);
    let mut retain = Retain::new(floor);
    let mut merged = Merged::new(sources);
    let mut count = 0;
    while let Some(entry) = merged.next().await? {
        let is_delete = matches!(entry.stored, Stored::Op(Op::Delete));
        let hidden = || ranges.newest_over(&entry.key, floor);
        if retain.keep(&entry.key, entry.seq, is_delete, hidden, || may_hold(base, &entry.key)) {
            let content = match &entry.stored {
                Stored::Op(op) => Content::Op(op),
                Stored::Pages { pages, len } => Content::Stored { pages, len: *len },
            };
            writer.add(&entry.key, entry.seq, content, Heat::Hot).await?;
        }
        count += 1;
        if count % ENTRIES_PER_SLICE == 0 {
            shift.slice().await;
        }
    }
    writer.finish().await
}

/// Whether some object's range covers `key`.
fn may_hold(base: &Manifest, key: &[u8]) -> bool {
    base.runs().any(|run| {
        let slot = run.partition_point(|object| object.last[..] < *key);
        run.get(slot).is_some_and(|object| object.first[..] <= *key)
    })
}
