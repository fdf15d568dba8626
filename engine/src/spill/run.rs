//! The task of each node that moves frozen memtables to disk, oldest first, and deletes what was flushed.

use std::sync::Arc;

use super::{INDEX, Spill, Spilled};
use crate::{
    background::Backoff,
    compact::rest::Shift,
    error::Result,
    format::{
        manifest::{Manifest, ManifestId},
        spill::SpillIndex,
    },
    inner::Inner,
    memtable::Memtable,
    read::{FROZEN_MAX, Frozen},
    store::Cause,
    table::TableIo,
    types::CommitSeq,
    writer::{Content, Heat, RunWriter},
};

/// Bytes of an index beside its rows, its state and its range deletes.
const INDEX_BYTES: usize = 4096;
/// Entries between two yields to the other tasks of the runtime.
const ENTRIES_PER_SLICE: usize = 256;

/// Spills for as long as the database is open.
pub async fn run(inner: Arc<Inner>) {
    let spill = Arc::clone(&inner.spill);
    let Some(io) = spill.place.as_ref().map(|place| Arc::clone(&place.io)) else { return };
    let mut backoff = Backoff::default();
    while inner.check().is_ok() {
        spill.clear().await;
        let Some((frozen, table)) = next(&inner) else {
            spill.wake.notified().await;
            continue;
        };
        match write(&inner, &io, &frozen, &table).await {
            Ok(spilled) => {
                drop(table);
                frozen.spilled(spilled);
                backoff = Backoff::default();
                spill.succeeded();
                inner.measure.notify_one();
                // There is room for one more.
                inner.work.notify_one();
            }
            Err(error) => {
                spill.failed(error.clone());
                backoff.wait("spill of a frozen memtable", &error).await;
            }
        }
    }
}

/// Bytes of frozen memtables in RAM from which on the oldest is spilled: before commits are slowed down, from a half of the
/// bound on, but late enough for a flush of two memtables of an eighth each to take its time while a third one freezes.
pub(crate) fn spill_from(ram_bound: usize) -> usize {
    ram_bound / 5 * 2
}

/// The oldest frozen memtable that is in RAM, if too much is, and if it fits.
fn next(inner: &Inner) -> Option<(Arc<Frozen>, Arc<Memtable>)> {
    let state = inner.read_state();
    let in_ram: Vec<_> = state.frozen.iter().filter_map(|frozen| Some((frozen, frozen.in_ram()?))).collect();
    let bytes: usize = in_ram.iter().map(|(_, table)| table.bytes()).sum();
    let wanted = bytes > spill_from(inner.options.ram_bound()) || in_ram.len() > FROZEN_MAX / 2;
    let (frozen, table) = in_ram.last().filter(|_| wanted)?;
    let fits = inner.spill.fits(table.bytes() + frozen.state.len() + INDEX_BYTES);
    inner.spill.set_full(!fits);
    fits.then(|| (Arc::clone(frozen), Arc::clone(table)))
}

/// Writes a memtable: its rows, then the index, which makes them a spill.
async fn write(inner: &Inner, io: &Arc<TableIo>, frozen: &Frozen, table: &Arc<Memtable>) -> Result<Spilled> {
    let term = frozen.up_to.term;
    let mut writer = RunWriter::new(Arc::clone(io), inner.tree.shape(), Cause::Spill, term, CommitSeq::ZERO);
    let mut shift = Shift::new(&inner.tree.work().spill_rest, &*inner.clock);
    // All versions: the floor may stand still for as long as the bucket is away.
    for (count, item) in table.items(CommitSeq::ZERO).enumerate() {
        writer.add(&item.key, item.seq, Content::Op(&item.op), Heat::Cold).await?;
        if count % ENTRIES_PER_SLICE == ENTRIES_PER_SLICE - 1 {
            shift.slice().await;
        }
    }
    let tables = writer.finish().await?;
    let owner = inner.tree.owner();
    let run: Vec<_> = tables.iter().map(|table| table.meta.clone()).collect();
    let ulid = io.store.new_ulid();
    let manifest = Manifest {
        id: ManifestId { term, ulid },
        cluster: owner.cluster,
        incarnation: owner.incarnation,
        format_level: frozen.format_level,
        up_to: frozen.up_to,
        membership: frozen.membership.clone(),
        state: frozen.state.clone(),
        fresh: if run.is_empty() { Vec::new() } else { vec![run] },
        range_deletes: table.range_deletes(),
        ..Manifest::default()
    };
    let index = SpillIndex { base: frozen.base, in_force: frozen.in_force, manifest };
    let name = format!("{}{INDEX}", ulid::Ulid(ulid));
    if let Err(error) = io.store.put_new(&name, &[index.encode()], Cause::Spill).await {
        io.abandon(tables.iter().map(|table| (table.meta.term, table.meta.id)));
        return Err(error);
    }
    tracing::debug!(up_to = frozen.up_to.index, index = name, "a frozen memtable was spilled");
    Ok(Spilled::new(&inner.spill, io, name, &index.manifest, &tables))
}

impl Spill {
    /// Waits while more than the bound of frozen memtables is in RAM, as far as spilling can change that: apply must not
    /// fill the RAM, be it of a node that replays a long log or of one that follows a faster leader.
    pub async fn keep_up(&self, inner: &Inner) {
        self.wait_while(|| inner.check().is_ok() && inner.frozen_bytes() > inner.options.ram_bound()).await;
    }
}
