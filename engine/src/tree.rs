//! The tree: the current version, and the steps that prepare and install the next one.
//!
//! A step (flush or compaction) writes objects and a manifest and returns a [`Draft`]: nothing is in force yet. The
//! caller proposes an edit that names the draft and its base; when the edit is applied and accepted, it calls
//! [`Tree::install`]. If another edit came first, [`Tree::rebase`] makes a new manifest of the same step.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use bytes::Bytes;
use holdfast_cache::Cache;
use holdfast_wal::LogId;
use parking_lot::{Mutex, RwLock};
use rustc_hash::FxHashMap;

use crate::{
    compact::{self, plan::Kind, rest::Shift},
    error::{Error, Result},
    flush,
    gc::Graveyard,
    pointer,
    store::{Cause, Store, owner::Owner},
    table::{Orphans, Table, TableIo, Tails, object_name},
    types::{CommitSeq, RangeDelete},
    writer::{RunWriter, Shape},
};
pub(crate) use options::{OBJECT_BYTES, PAGE_BYTES};
use stored::find_manifest;
pub(crate) use stored::{fetch_manifest, manifest_key, read_manifest};

mod options;
mod stored;

pub use options::TreeOptions;

pub use crate::{
    cursor::VersionCursor,
    flush::source::Source,
    format::{
        manifest::{Manifest, ManifestId, Membership},
        page::Codec,
    },
    version::Version,
};

/// What [`Tree::flush`] writes.
pub struct FlushInput {
    /// Raft term of the leader.
    pub term: u64,
    /// The frozen memtables, each in the order (key ascending, commit number descending).
    pub sources: Vec<Source>,
    /// Range deletes of those memtables.
    pub range_deletes: Vec<RangeDelete>,
    /// The current manifest, as the caller knows it.
    pub base: ManifestId,
    /// All state at `up_to` that is not rows.
    pub state: Bytes,
    /// Format level of the cluster at `up_to`.
    pub format_level: u32,
    /// The memtables hold everything since the base up to and including this entry.
    pub up_to: LogId,
    /// Membership at `up_to`.
    pub membership: Membership,
    /// No reader is below this; at most the end of `up_to` counts.
    pub floor: CommitSeq,
}

/// A step whose objects and manifest are in the bucket, but not in force.
#[derive(Clone)]
pub struct Draft {
    /// The manifest to install.
    pub manifest: ManifestId,
    /// The manifest it was made from: an edit is accepted only while this one is current (rule 1).
    pub base: ManifestId,
    /// What the manifest covers of the log.
    pub up_to: LogId,
    /// Why the step was made, for logs.
    pub reason: &'static str,
    /// Versions that only readers below this reach are gone with the step.
    floor: CommitSeq,
    change: Arc<Change>,
}

impl std::fmt::Debug for Draft {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Draft({} on {}, {})", self.manifest, self.base, self.reason)
    }
}

/// What a step changes, so that it can be applied to another base.
enum Change {
    Flush {
        run: Vec<Arc<Table>>,
        range_deletes: Vec<RangeDelete>,
        state: Bytes,
        format_level: u32,
        up_to: LogId,
        membership: Membership,
    },
    Compaction {
        plan: compact::plan::Plan,
        outputs: Vec<Arc<Table>>,
    },
}

/// Figures for SHOW STATUS and metrics.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TreeStats {
    /// Fresh runs.
    pub fresh_runs: usize,
    /// Objects and bytes per run, newest first: fresh runs, then levels.
    pub runs: Vec<(usize, u64)>,
    /// Objects in force.
    pub objects: usize,
    /// Bytes in force.
    pub bytes: u64,
    /// Bytes out of force that are not deleted yet.
    pub dead_bytes: u64,
    /// Entries in force, tombstones and old versions included.
    pub entries: u64,
    /// Memory of indexes and filters.
    pub tail_bytes: u64,
    /// Manifests put in force here.
    pub installed: u64,
    /// Flushes among them that were made here.
    pub flushes: u64,
    /// Compaction steps among them that were made here.
    pub compactions: u64,
    /// Objects of steps that were given up, which are not deleted yet.
    pub orphans: usize,
    /// Objects in force that lie under an earlier incarnation, from which this one was recovered.
    pub inherited: usize,
}

/// The objects of one database. Cheap to clone.
#[derive(Clone)]
pub struct Tree(Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) io: Arc<TableIo>,
    pub(crate) options: TreeOptions,
    version: RwLock<Arc<Version>>,
    /// Drafts that may be installed, with the tables their writer has open.
    drafts: Mutex<FxHashMap<ManifestId, Prepared>>,
    pub(crate) graveyard: Graveyard,
    installed: Installed,
    /// One compaction at a time.
    compacting: tokio::sync::Mutex<()>,
    /// One install at a time.
    installing: tokio::sync::Mutex<()>,
    work: compact::work::Work,
}

/// A draft's version, ready to be put in force.
struct Prepared {
    version: Arc<Version>,
    is_flush: bool,
}

#[derive(Default)]
struct Installed {
    all: AtomicU64,
    flushes: AtomicU64,
    compactions: AtomicU64,
}

impl Tree {
    /// Opens the manifest `current`, or an empty tree.
    pub async fn open(
        store: Store,
        cache: Arc<Cache>,
        options: TreeOptions,
        current: Option<ManifestId>,
    ) -> Result<Self> {
        let Owner { cluster, incarnation } = options.owner;
        let manifest = match current {
            Some(id) => fetch_manifest(&store, &options.owner.folder(), cluster, id).await?,
            None => Manifest { cluster, incarnation, ..Manifest::default() },
        };
        Ok(Self::of(store, cache, options, manifest))
    }

    /// A tree that has this manifest in force.
    pub(crate) fn of(store: Store, cache: Arc<Cache>, options: TreeOptions, manifest: Manifest) -> Self {
        let io = Arc::new(TableIo {
            store,
            cache,
            cluster: options.owner.cluster,
            folder: options.owner.folder(),
            name: object_name,
            tails: Tails::new(options.tail_bytes),
            orphans: Orphans::default(),
        });
        let version = Arc::new(Version::new(manifest, &[], &io));
        Self(Arc::new(Inner {
            io,
            options,
            version: RwLock::new(version),
            drafts: Mutex::default(),
            graveyard: Graveyard::default(),
            installed: Installed::default(),
            compacting: tokio::sync::Mutex::new(()),
            installing: tokio::sync::Mutex::new(()),
            work: compact::work::Work::default(),
        }))
    }

    /// The current version. Holding it pins its objects.
    pub fn version(&self) -> Arc<Version> {
        self.0.version.read().clone()
    }

    pub(crate) fn inner(&self) -> &Inner {
        &self.0
    }

    /// The flush and the compaction under way.
    pub(crate) fn work(&self) -> &compact::work::Work {
        &self.0.work
    }

    /// The store.
    pub fn store(&self) -> &Store {
        &self.0.io.store
    }

    pub(crate) fn shape(&self) -> Shape {
        let TreeOptions { page_bytes, object_bytes, codec, .. } = self.0.options;
        // Offsets in a page have 16 bits.
        Shape { page_bytes: page_bytes.clamp(1024, 32 * 1024), object_bytes, codec }
    }

    /// Writes frozen memtables as one fresh run, and the manifest that adds it. Nothing is in force until
    /// [`Self::install`].
    pub async fn flush(&self, input: FlushInput) -> Result<Draft> {
        let version = self.version();
        let base = version.manifest();
        if base.id != input.base {
            return Err(Error::Conflict(format!("flush based on manifest {}, current is {}", input.base, base.id)));
        }
        let swept = input.floor.min(CommitSeq::end_of(input.up_to.index));
        let ranges: Vec<_> = base.range_deletes.iter().chain(&input.range_deletes).cloned().collect();
        let bytes = input.sources.iter().map(Source::bytes).sum();
        let fences = compact::parts::fences(base, bytes, self.0.options.object_bytes);
        let writer = RunWriter::new(self.0.io.clone(), self.shape(), Cause::Flush, input.term, swept);
        let writer = writer.with_fences(fences);
        let shift = Shift::new(&self.0.work.flush_rest, &**self.store().clock());
        let write = flush::run::write(writer, input.sources, &ranges, base, input.floor, shift);
        let change = Change::Flush {
            run: write.await?,
            range_deletes: input.range_deletes,
            state: input.state,
            format_level: input.format_level,
            up_to: input.up_to,
            membership: input.membership,
        };
        self.first_draft(change, &version, input.term, input.floor, "flush").await
    }

    /// Makes the next compaction step, if one is due and none is running. No reader is below `floor`.
    pub async fn compact(&self, term: u64, floor: CommitSeq) -> Result<Option<Draft>> {
        let Ok(_one_at_a_time) = self.0.compacting.try_lock() else { return Ok(None) };
        let version = self.version();
        let manifest = version.manifest();
        let Some(plan) = compact::plan::next(manifest, floor, &self.0.options.limits()) else { return Ok(None) };
        let outputs = match plan.kind {
            Kind::Drop => Vec::new(),
            Kind::Move => version.tables().filter(|table| plan.inputs.contains(&table.meta.id)).cloned().collect(),
            Kind::Rewrite => {
                let swept = floor.min(CommitSeq::end_of(manifest.up_to.index));
                compact::run::rewrite(&self.0.io, &self.shape(), term, &version, &plan, (floor, swept), &self.0.work)
                    .await?
            }
        };
        let reason = plan.reason;
        // A flush may have been installed meanwhile: build on what is current now.
        let base = self.version();
        self.first_draft(Change::Compaction { plan, outputs }, &base, term, floor, reason).await.map(Some)
    }

    async fn first_draft(
        &self,
        change: Change,
        base: &Arc<Version>,
        term: u64,
        floor: CommitSeq,
        reason: &'static str,
    ) -> Result<Draft> {
        let change = Arc::new(change);
        let draft = self.draft(Arc::clone(&change), base, term, floor, reason).await;
        if draft.is_err() {
            self.0.io.abandon(change.written());
        }
        draft
    }

    /// Gives a step up. Call it only if its edit cannot be accepted any more: it was never proposed, or refused. What it
    /// wrote is deleted after the grace period.
    pub fn discard(&self, draft: &Draft) {
        self.discard_manifest(draft);
        self.0.io.abandon(draft.change.written());
    }

    fn discard_manifest(&self, draft: &Draft) {
        self.0.drafts.lock().remove(&draft.manifest);
        self.0.graveyard.bury_manifest(self.store().clock().now(), draft.manifest);
    }

    /// Makes a new manifest of a step whose base is no longer current. [`Error::Conflict`] if the step makes no sense
    /// any more: [`Self::discard`] it.
    pub async fn rebase(&self, draft: &Draft, term: u64) -> Result<Draft> {
        let rebased = self.draft(draft.change.clone(), &self.version(), term, draft.floor, draft.reason).await?;
        self.discard_manifest(draft);
        Ok(rebased)
    }

    async fn draft(
        &self,
        change: Arc<Change>,
        base: &Arc<Version>,
        term: u64,
        floor: CommitSeq,
        reason: &'static str,
    ) -> Result<Draft> {
        let io = &self.0.io;
        let mut manifest = Manifest::clone(base.manifest());
        manifest.previous = Some(manifest.id);
        manifest.id = ManifestId { term, ulid: io.store.new_ulid() };
        manifest.floor = manifest.floor.max(floor);
        let new_tables = change.apply(&mut manifest)?;
        manifest.check_order()?;
        let (base_id, up_to) = (base.manifest().id, manifest.up_to);
        let draft = Draft { manifest: manifest.id, base: base_id, up_to, reason, floor, change };
        io.store.put_new(&manifest_key(io, manifest.id), &[manifest.encode()], Cause::Manifest).await?;
        let known: Vec<_> = base.tables().cloned().chain(new_tables).collect();
        let version = Arc::new(Version::new(manifest, &known, io));
        let is_flush = matches!(*draft.change, Change::Flush { .. });
        self.0.drafts.lock().insert(draft.manifest, Prepared { version, is_flush });
        Ok(draft)
    }

    /// Puts a manifest in force, which the log entry at index `at` names. Call it only when applying an accepted edit.
    /// When it returns, the local pointer names the manifest durably, so the log before the manifest's `up_to` may go;
    /// `false` if the manifest is gone from the store, as superseded ones are after a while.
    pub async fn install(&self, id: ManifestId, at: u64) -> Result<bool> {
        let _one_at_a_time = self.0.installing.lock().await;
        let current = self.version();
        if current.manifest().id == id {
            return Ok(true);
        }
        let prepared = self.0.drafts.lock().remove(&id);
        let installed = &self.0.installed;
        let (next, counter) = match prepared {
            Some(Prepared { version, is_flush: true }) => (version, Some(&installed.flushes)),
            Some(Prepared { version, is_flush: false }) => (version, Some(&installed.compactions)),
            None => {
                let Some(manifest) = find_manifest(&self.0.io, &self.0.options.owner, id).await? else {
                    return Ok(false);
                };
                let known: Vec<_> = current.tables().cloned().collect();
                (Arc::new(Version::new(manifest, &known, &self.0.io)), None)
            }
        };
        if let Some(path) = self.0.options.pointer.clone() {
            let written = tokio::task::spawn_blocking(move || pointer::write(&path, id)).await;
            written.map_err(|error| Error::Closed(error.to_string()))??;
        }
        // Drafts on other bases can never be accepted any more.
        self.0.drafts.lock().retain(|_, draft| draft.version.manifest().previous == Some(id));
        *self.0.version.write() = next.clone();
        for counter in counter.into_iter().chain([&installed.all]) {
            counter.fetch_add(1, Relaxed);
        }
        self.0.graveyard.bury(self.store().clock().now(), at, &current, &next);
        Ok(true)
    }

    /// Figures of the current version.
    pub fn stats(&self) -> TreeStats {
        let version = self.version();
        let manifest = version.manifest();
        let size = |run: &Vec<_>| {
            (run.len(), run.iter().map(|object: &crate::format::manifest::ObjectMeta| object.bytes).sum())
        };
        let runs: Vec<(usize, u64)> = manifest.runs().map(size).collect();
        TreeStats {
            fresh_runs: manifest.fresh.len(),
            objects: runs.iter().map(|run| run.0).sum(),
            bytes: runs.iter().map(|run| run.1).sum(),
            runs,
            dead_bytes: self.0.graveyard.bytes(),
            entries: manifest.objects().map(|object| object.entries).sum(),
            tail_bytes: self.0.io.tails.bytes(),
            installed: self.0.installed.all.load(Relaxed),
            flushes: self.0.installed.flushes.load(Relaxed),
            compactions: self.0.installed.compactions.load(Relaxed),
            orphans: self.0.io.orphans.0.lock().len(),
            inherited: manifest.objects().filter(|object| object.origin.is_some()).count(),
        }
    }
}

impl Change {
    /// Term and id of each object that the step itself wrote.
    fn written(&self) -> impl Iterator<Item = (u64, u128)> {
        let tables = match self {
            Self::Flush { run, .. } => run.as_slice(),
            Self::Compaction { plan, outputs } if plan.kind == Kind::Rewrite => outputs.as_slice(),
            Self::Compaction { .. } => &[],
        };
        tables.iter().map(|table| (table.meta.term, table.meta.id))
    }

    /// Applies the change; returns the tables it brings.
    fn apply(&self, manifest: &mut Manifest) -> Result<Vec<Arc<Table>>> {
        match self {
            Self::Flush { run, range_deletes, state, format_level, up_to, membership } => {
                if manifest.up_to.index >= up_to.index && up_to.index > 0 {
                    let why = format!("flush up to entry {}, current is at {}", up_to.index, manifest.up_to.index);
                    return Err(Error::Conflict(why));
                }
                if !run.is_empty() {
                    manifest.fresh.insert(0, run.iter().map(|table| table.meta.clone()).collect());
                }
                manifest.range_deletes.extend(range_deletes.iter().cloned());
                manifest.state = state.clone();
                manifest.format_level = *format_level;
                manifest.up_to = *up_to;
                manifest.membership = membership.clone();
                compact::plan::forget_range_deletes(manifest);
                Ok(run.clone())
            }
            Self::Compaction { plan, outputs } => {
                let present = manifest.objects().filter(|object| plan.inputs.contains(&object.id)).count();
                if present != plan.inputs.len() {
                    return Err(Error::Conflict("objects of a compaction are no longer in force".to_owned()));
                }
                let metas = outputs.iter().map(|table| table.meta.clone()).collect();
                compact::plan::apply(manifest, &plan.inputs, plan.level, metas);
                Ok(outputs.clone())
            }
        }
    }
}

#[cfg(test)]
#[path = "tree/tests.rs"]
mod tests;
