//! Writes frozen memtables into the bucket as one fresh run.

use std::sync::Arc;

use super::plan::Retain;
use crate::{
    error::Result,
    format::manifest::Manifest,
    ranges::Ranges,
    store::Cause,
    table::{Table, TableIo},
    types::{CommitSeq, Item, Op, RangeDelete},
    writer::{Content, RunWriter, Shape},
};

/// Entries between two yields to the other tasks of the runtime.
const ENTRIES_PER_SLICE: usize = 256;

/// A sorted source of a flush: one frozen memtable, in the order (key ascending, commit number descending).
pub type Source = Box<dyn Iterator<Item = Item> + Send>;

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
    for (count, item) in Merged::new(sources).enumerate() {
        let is_delete = item.op == Op::Delete;
        let hidden = || ranges.newest_over(&item.key, floor);
        if retain.keep(&item.key, item.seq, is_delete, hidden, || may_hold(base, &item.key)) {
            writer.add(&item.key, item.seq, Content::Op(&item.op), true).await?;
        }
        if count % ENTRIES_PER_SLICE == ENTRIES_PER_SLICE - 1 {
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

/// Merges a few sorted sources. No two hold the same version of the same key.
struct Merged(Vec<(Item, Source)>);

impl Merged {
    fn new(sources: Vec<Source>) -> Self {
        Self(sources.into_iter().filter_map(|mut source| source.next().map(|item| (item, source))).collect())
    }
}

impl Iterator for Merged {
    type Item = Item;

    fn next(&mut self) -> Option<Item> {
        let order = |a: &Item, b: &Item| a.key.cmp(&b.key).then(b.seq.cmp(&a.seq));
        let first = (0..self.0.len()).min_by(|a, b| order(&self.0[*a].0, &self.0[*b].0))?;
        let (head, source) = self.0.get_mut(first)?;
        match source.next() {
            Some(next) => Some(std::mem::replace(head, next)),
            None => Some(self.0.swap_remove(first).0),
        }
    }
}
