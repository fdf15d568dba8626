//! Carries out a compaction step, in slices that leave the runtime to everything else.

use std::{collections::BTreeSet, sync::Arc};

use bytes::Bytes;

use super::plan::Plan;
use crate::{
    cursor::{RunCursor, Stored},
    error::Result,
    flush::plan::Retain,
    ranges::Ranges,
    store::Cause,
    table::{Table, TableIo},
    types::CommitSeq,
    version::{Run, Version},
    writer::{Content, RunWriter, Shape},
};

/// Entries between two yields to the other tasks of the runtime: a slice takes some 10 microseconds.
const ENTRIES_PER_SLICE: usize = 64;

/// Merges the plan's objects into new ones and returns those, all of them in the bucket.
pub(crate) async fn rewrite(
    io: &Arc<TableIo>,
    shape: &Shape,
    term: u64,
    version: &Version,
    plan: &Plan,
    (floor, swept): (CommitSeq, CommitSeq),
) -> Result<Vec<Arc<Table>>> {
    let manifest = version.manifest();
    let stays = |level: usize| {
        let run = manifest.levels.get(level).into_iter().flatten();
        run.filter(|object| !plan.inputs.contains(&object.id))
    };
    let fences: Vec<Bytes> = stays(plan.level).map(|object| object.first.clone()).collect();
    let deeper: Vec<Vec<_>> = (plan.level + 1..manifest.levels.len()).map(|level| stays(level).collect()).collect();
    let older_below = |key: &[u8]| {
        deeper.iter().any(|run| {
            let slot = run.partition_point(|object| object.last[..] < *key);
            run.get(slot).is_some_and(|object| object.first[..] <= *key)
        })
    };
    let ranges = Ranges::new(&manifest.range_deletes);
    let mut sources = open(version, &plan.inputs).await?;
    let writer = RunWriter::new(io.clone(), shape.clone(), Cause::Compaction, term, swept);
    let mut writer = writer.with_fences(fences);
    let mut retain = Retain::new(floor);
    for count in 0usize.. {
        let order = |a: &RunCursor, b: &RunCursor| a.key().cmp(b.key()).then(b.seq().cmp(&a.seq()));
        let first = (0..sources.len()).min_by(|a, b| order(&sources[*a], &sources[*b]));
        let Some(source) = first.and_then(|first| sources.get_mut(first)) else { break };
        let (key, seq, is_delete) = (source.key(), source.seq(), source.is_delete()?);
        if retain.keep(key, seq, is_delete, || ranges.newest_over(key, floor), || older_below(key)) {
            let hot = source.is_hot();
            match source.stored().await? {
                Some(Stored::Op(op)) => writer.add(source.key(), seq, Content::Op(&op), hot).await?,
                Some(Stored::Pages { pages, len }) => {
                    writer.add(source.key(), seq, Content::Stored { pages: &pages, len }, hot).await?;
                }
                None => {}
            }
        }
        source.advance().await?;
        if source.is_finished() {
            sources.retain(|source| !source.is_finished());
        }
        if count % ENTRIES_PER_SLICE == ENTRIES_PER_SLICE - 1 {
            tokio::task::yield_now().await;
        }
    }
    writer.finish().await
}

/// One cursor per run that has inputs.
async fn open(version: &Version, inputs: &BTreeSet<u128>) -> Result<Vec<RunCursor>> {
    let mut sources = Vec::new();
    for run in version.runs() {
        let tables: Vec<_> = run.tables.iter().filter(|table| inputs.contains(&table.meta.id)).cloned().collect();
        if !tables.is_empty() {
            let mut cursor = RunCursor::bulk(Arc::new(Run { tables }));
            cursor.start().await?;
            sources.push(cursor);
        }
    }
    sources.retain(|source| !source.is_finished());
    Ok(sources)
}
