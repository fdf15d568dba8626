//! Point reads: which memtables and which version are current, and the newest visible value among them.

use std::sync::Arc;

use bytes::Bytes;
use holdfast_wal::LogId;
use parking_lot::RwLock;

use crate::{
    error::Result,
    format::{
        manifest::{ManifestId, Membership},
        spill::SpillIndex,
    },
    memtable::{Bounds, Memtable},
    ranges::Ranges,
    scan::KeyRange,
    spill::Spilled,
    tree::Version,
    types::{CommitSeq, Op},
};

/// Frozen memtables that may wait for the store in RAM.
pub const FROZEN_MAX: usize = 8;

/// A memtable that ended at a `Freeze` entry, with what a manifest needs besides its rows.
pub struct Frozen {
    rows: RwLock<Rows>,
    /// The entry behind which the memtable begins: the end of the one before, or of the manifest then in force.
    pub base: LogId,
    /// The `Freeze` entry: the memtable holds everything up to it.
    pub up_to: LogId,
    /// The machine's state there, encoded.
    pub state: Bytes,
    /// The format level there.
    pub format_level: u32,
    /// The membership there.
    pub membership: Membership,
    /// The manifest in force there.
    pub in_force: ManifestId,
}

/// Where the rows are. They go to disk once, and every reader that asks afterwards finds them there: neither a long scan nor
/// a flush that waits for the store holds them in RAM.
enum Rows {
    Ram(Arc<Memtable>),
    Disk(Arc<Spilled>),
}

impl Frozen {
    /// A memtable that ends at `up_to`.
    pub fn new(
        table: Arc<Memtable>,
        (base, up_to): (LogId, LogId),
        (state, format_level): (Bytes, u32),
        membership: Membership,
        in_force: ManifestId,
    ) -> Self {
        Self { rows: RwLock::new(Rows::Ram(table)), base, up_to, state, format_level, membership, in_force }
    }

    /// One that an earlier process spilled.
    pub fn restored(index: SpillIndex, spilled: Spilled) -> Self {
        let SpillIndex { base, in_force, manifest } = index;
        Self {
            rows: RwLock::new(Rows::Disk(Arc::new(spilled))),
            base,
            up_to: manifest.up_to,
            state: manifest.state,
            format_level: manifest.format_level,
            membership: manifest.membership,
            in_force,
        }
    }

    /// The rows are on disk from now on.
    pub fn spilled(&self, spilled: Spilled) {
        *self.rows.write() = Rows::Disk(Arc::new(spilled));
    }

    /// The memtable, if its rows are in RAM.
    pub fn in_ram(&self) -> Option<Arc<Memtable>> {
        match &*self.rows.read() {
            Rows::Ram(table) => Some(Arc::clone(table)),
            Rows::Disk(_) => None,
        }
    }

    /// The rows, if they are on disk.
    pub fn on_disk(&self) -> Option<Arc<Spilled>> {
        match &*self.rows.read() {
            Rows::Ram(_) => None,
            Rows::Disk(spilled) => Some(Arc::clone(spilled)),
        }
    }

    /// Looks at the rows in RAM, or answers where they are on disk.
    pub fn look<T>(&self, in_ram: impl FnOnce(&Arc<Memtable>) -> T) -> Result<T, Arc<Spilled>> {
        match &*self.rows.read() {
            Rows::Ram(table) => Ok(in_ram(table)),
            Rows::Disk(spilled) => Err(Arc::clone(spilled)),
        }
    }

    /// Looks at what is in RAM in any case: the range deletes.
    pub fn ranges<T>(&self, look: impl FnOnce(&Memtable) -> T) -> T {
        match &*self.rows.read() {
            Rows::Ram(table) => look(table),
            Rows::Disk(spilled) => look(spilled.ranges()),
        }
    }

    /// Bytes of RAM that it takes.
    pub fn bytes(&self) -> usize {
        self.ranges(Memtable::bytes)
    }

    /// Bytes that a flush of it writes, about.
    pub fn size(&self) -> u64 {
        self.look(|table| table.bytes() as u64).unwrap_or_else(|spilled| spilled.stored_bytes())
    }

    /// Versions that it holds.
    pub fn versions(&self) -> usize {
        self.look(|table| table.versions()).unwrap_or_else(|spilled| spilled.versions())
    }

    async fn get(&self, key: &[u8], at: CommitSeq) -> Result<Option<(CommitSeq, Op)>> {
        match self.look(|table| table.get(key, at)) {
            Ok(found) => Ok(found),
            // Boxed: one large state machine less inside every read.
            Err(spilled) => Box::pin(spilled.get(key, at)).await,
        }
    }

    /// Whether a row in the range, or a range delete that meets it, is newer than `since`.
    pub async fn changed_since(&self, range: &KeyRange, since: CommitSeq) -> Result<bool> {
        match self.look(|table| table.changed_since(range.bounds(), since)) {
            Ok(changed) => Ok(changed),
            Err(spilled) => spilled.changed_since(range, since).await,
        }
    }
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
    /// The newest version of `key` at or below `at`. Deletes are answered as such: `None` means never written.
    pub async fn get(&self, key: &[u8], at: CommitSeq) -> Result<Option<(CommitSeq, Op)>> {
        let visible = |(seq, op), covered| if covered > seq { (covered, Op::Delete) } else { (seq, op) };
        let mut covered = self.active.covering(key, at).unwrap_or_default();
        if let Some(found) = self.active.get(key, at) {
            return Ok(Some(visible(found, covered)));
        }
        for frozen in &self.frozen {
            covered = covered.max(frozen.ranges(|table| table.covering(key, at)).unwrap_or_default());
            if let Some(found) = frozen.get(key, at).await? {
                return Ok(Some(visible(found, covered)));
            }
        }
        if covered > CommitSeq::ZERO {
            // Whatever the pages hold is older than every memtable.
            return Ok(Some((covered, Op::Delete)));
        }
        self.version.get(key, at).await
    }

    /// Range deletes in memtables.
    pub fn range_count(&self) -> usize {
        let frozen = self.frozen.iter().map(|frozen| frozen.ranges(Memtable::range_count));
        self.active.range_count() + frozen.sum::<usize>()
    }

    /// Range deletes in the memtables that a reader of these bounds at `at` obeys.
    pub(crate) fn ranges_within(&self, bounds: Bounds<'_>, at: CommitSeq) -> Ranges {
        let mut ranges = Ranges::default();
        self.active.ranges_within(bounds, at, &mut ranges);
        self.frozen.iter().for_each(|frozen| frozen.ranges(|table| table.ranges_within(bounds, at, &mut ranges)));
        ranges
    }
}
