//! Carries out a compaction step, in slices that leave the runtime to everything else.

use std::{collections::BTreeSet, ops::Bound, sync::Arc};

use bytes::Bytes;
use futures::future::try_join_all;

use super::{
    plan::Plan,
    rest::Shift,
    work::{Step, Work},
};
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
/// Bytes of one request, at least and at most, and of those that are held at once, each with as much on its way: requests
/// are paid for, whatever their size.
const READ_LEAST: u64 = 64 << 10;
const READ_MOST: u64 = 8 << 20;
const HELD_BYTES: u64 = 16 << 20;

/// Merges the plan's objects into new ones and returns those, all of them in the bucket.
pub(crate) async fn rewrite(
    io: &Arc<TableIo>,
    shape: &Shape,
    term: u64,
    version: &Version,
    plan: &Plan,
    bounds: (CommitSeq, CommitSeq),
    work: &Work,
) -> Result<Vec<Arc<Table>>> {
    let inputs = version.manifest().objects().filter(|object| plan.inputs.contains(&object.id));
    let step = work.begin(plan.inputs.clone(), inputs.map(|object| object.entries).sum());
    let shift = Shift::new(&work.rest, &**io.store.clock());
    let rewritten = merge(io, shape, term, version, plan, bounds, (&step, shift)).await;
    if rewritten.is_err() {
        work.give_up();
    }
    rewritten
}

async fn merge(
    io: &Arc<TableIo>,
    shape: &Shape,
    term: u64,
    version: &Version,
    plan: &Plan,
    (floor, swept): (CommitSeq, CommitSeq),
    (step, mut shift): (&Step, Shift<'_>),
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
            let heat = source.heat();
            match source.stored().await? {
                Some(Stored::Op(op)) => writer.add(source.key(), seq, Content::Op(&op), heat).await?,
                Some(Stored::Pages { pages, len }) => {
                    writer.add(source.key(), seq, Content::Stored { pages: &pages, len }, heat).await?;
                }
                None => {}
            }
        }
        source.advance().await?;
        if source.is_finished() {
            sources.retain(|source| !source.is_finished());
        }
        if count % ENTRIES_PER_SLICE == ENTRIES_PER_SLICE - 1 {
            step.merged(ENTRIES_PER_SLICE as u64);
            shift.slice().await;
        }
    }
    writer.finish().await
}

/// One cursor per run that has inputs.
async fn open(version: &Version, inputs: &BTreeSet<u128>) -> Result<Vec<RunCursor>> {
    let chosen = version.runs().iter().map(|run| Run {
        tables: run.tables.iter().filter(|table| inputs.contains(&table.meta.id)).cloned().collect(),
    });
    let chosen: Vec<_> = chosen.filter(|run| !run.tables.is_empty()).map(Arc::new).collect();
    let bytes: Vec<u64> = chosen.iter().map(|run| run.tables.iter().map(|table| table.meta.bytes).sum()).collect();
    let everything = (Bound::Unbounded, Bound::Unbounded);
    let cursors = chosen.into_iter().zip(requests(&bytes));
    let mut sources: Vec<_> = cursors.map(|(run, request)| RunCursor::bulk(run, &everything, request)).collect();
    try_join_all(sources.iter_mut().map(RunCursor::start)).await?;
    sources.retain(|source| !source.is_finished());
    Ok(sources)
}

/// Bytes of each run's requests, by the runs' bytes: as their square roots, with which the sum of bytes over request, which
/// is how many requests there are, is least for what may be held.
fn requests(runs: &[u64]) -> Vec<u64> {
    let roots: Vec<f64> = runs.iter().map(|bytes| (*bytes as f64).sqrt()).collect();
    let share = HELD_BYTES as f64 / roots.iter().sum::<f64>().max(1.0);
    roots.iter().map(|root| ((root * share) as u64).clamp(READ_LEAST, READ_MOST)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_longer_run_is_read_in_larger_requests_so_that_there_are_fewer() {
        let count =
            |runs: &[u64], requests: &[u64]| runs.iter().zip(requests).map(|(run, request)| run / request).sum();
        let runs = [32 << 20, 32 << 20, 32 << 20, 32 << 20, 2048 << 20];
        let (even, by_size): (u64, u64) = (count(&runs, &[HELD_BYTES / 5; 5]), count(&runs, &requests(&runs)));
        assert!(by_size * 3 < even * 2, "{by_size} requests, {even} if all were as large");
        assert!(requests(&runs).iter().sum::<u64>() <= HELD_BYTES);
        assert_eq!(requests(&[u64::MAX]), [READ_MOST]);
        assert_eq!(requests(&[0, 1 << 30]), [READ_LEAST, READ_MOST]);
        assert!(requests(&[]).is_empty());
    }
}
