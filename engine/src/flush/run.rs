//! Writes frozen memtables into the bucket as one fresh run.

use std::sync::Arc;

use super::{
    plan::Retain,
    source::{Merged, Source},
};
use crate::{
    cursor::Stored,
    error::Result,
    format::manifest::Manifest,
    ranges::Ranges,
    store::Cause,
    table::{Table, TableIo},
    types::{CommitSeq, Op, RangeDelete},
    writer::{Content, Heat, RunWriter, Shape},
};

/// Entries between two yields to the other tasks of the runtime.
const ENTRIES_PER_SLICE: usize = 256;

/// Merges the sources and writes what a reader at or above `floor` may see.
pub(crate) async fn write(
    io: &Arc<TableIo>,
    shape: &Shape,
    term: u64,
    sources: Vec<Source>,
    range_deletes: &[RangeDelete],
    base: &Manifest,
    (floor, swept): (CommitSeq, CommitSeq),
) -> Result<Vec<Arc<Table>>> {
    let ranges = Ranges::new(range_deletes);
    let mut writer = RunWriter::new(io.clone(), shape.clone(), Cause::Flush, term, swept);
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
            tokio::task::yield_now().await;
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
