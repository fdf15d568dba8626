//! Frozen memtables on local disk (rule 5): while the bucket is behind they leave RAM for files of the data directory, in
//! object format. A flush reads them from there, and a restart opens them instead of replaying their entries.
//!
//! The log keeps all that they hold until it is in the bucket, so a spill that fails or is damaged loses nothing.
//! `run` writes and deletes, `table` reads, `restart` finds what an earlier process left, `folder` is the store.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{
            AtomicBool, AtomicU64,
            Ordering::{Acquire, Relaxed, Release},
        },
    },
};

use holdfast_cache::Cache;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use crate::{
    config::Options,
    error::Error,
    store::{self, Cause, Limits, RetryPolicy, Store, StoreOptions, owner::Owner},
    table::{Orphans, TableIo, Tails},
};
use folder::Folder;
pub use table::Spilled;

mod folder;
pub mod restart;
pub mod run;
mod table;

/// Bound of the memory that indexes and filters of spilled memtables take.
const TAIL_BYTES: u64 = 32 << 20;
/// Ends the name of a file with rows.
const ROWS: &str = ".rows";
/// Ends the name of an index, without which no restart looks at the rows.
const INDEX: &str = ".index";

/// The spill of one database.
pub struct Spill {
    /// `None` if there is no folder: nothing was ever spilled, nor will be.
    place: Option<Place>,
    /// Bytes that the folder may take.
    bound: u64,
    /// The next memtable does not fit.
    full: AtomicBool,
    failures: AtomicU64,
    /// Why the last attempt failed, until one succeeds.
    failure: Mutex<Option<Error>>,
    /// There may be something to spill, or to delete.
    wake: Notify,
    /// An attempt has ended, or nothing more will be spilled.
    turns: watch::Sender<()>,
    /// What nothing refers to any more.
    trash: Mutex<Vec<Trash>>,
}

/// Where the files are.
struct Place {
    folder: Arc<Folder>,
    io: Arc<TableIo>,
}

/// The files of a memtable that was flushed.
struct Trash {
    index: String,
    /// Terms and ids.
    objects: Vec<(u64, u128)>,
}

/// What a spill needs of the database that it belongs to.
pub struct SpillOptions {
    /// The folder.
    pub dir: PathBuf,
    /// Where its pages are cached.
    pub cache: Arc<Cache>,
    /// Whose they are.
    pub owner: Owner,
    /// Time and randomness.
    pub store: StoreOptions,
}

impl Spill {
    /// A spill that takes nothing.
    pub fn off() -> Arc<Self> {
        Arc::new(Self::new(None, 0))
    }

    fn new(place: Option<Place>, bound: u64) -> Self {
        Self {
            place,
            bound,
            full: AtomicBool::new(false),
            failures: AtomicU64::new(0),
            failure: Mutex::default(),
            wake: Notify::new(),
            turns: watch::Sender::new(()),
            trash: Mutex::default(),
        }
    }

    /// Opens the folder, which the caller owns. A folder that can't be used is told of, and nothing is spilled.
    pub async fn open(options: &Options, with: SpillOptions) -> Arc<Self> {
        let (bound, dir) = (options.spill_bound(), with.dir.clone());
        if bound == 0 && !dir.exists() {
            return Self::off();
        }
        match Self::place(bound, with).await {
            Ok(place) => Arc::new(Self::new(Some(place), bound)),
            Err(error) => {
                tracing::warn!(folder = %dir.display(), %error, "memtables can't be spilled: they stay in RAM");
                let off = Self::new(None, 0);
                off.failed(error);
                Arc::new(off)
            }
        }
    }

    async fn place(bound: u64, with: SpillOptions) -> Result<Place, Error> {
        let SpillOptions { dir, cache, owner, store } = with;
        let url = dir.display().to_string();
        let opened = tokio::task::spawn_blocking(move || store::in_folder(dir)).await;
        let files = opened.map_err(|error| Error::Closed(error.to_string()))?;
        let files = files.map_err(|error| Error::Store(format!("{url}: {error}")))?;
        let folder =
            Arc::new(Folder::open(files, bound).await.map_err(|error| Error::Store(format!("{url}: {error}")))?);
        // The spill tries again by itself, with longer pauses; and a disk may be slow, but answers.
        let retry = RetryPolicy { attempts: 1, first_timeout: std::time::Duration::from_secs(60), ..store.retry };
        let store = Store::custom(&url, folder.clone(), StoreOptions { retry, limits: Limits::none(), ..store });
        let io = Arc::new(TableIo {
            store,
            cache,
            cluster: owner.cluster,
            folder: String::new(),
            name: |_, id| format!("{}{ROWS}", ulid::Ulid(id)),
            tails: Tails::new(TAIL_BYTES),
            orphans: Orphans::default(),
        });
        Ok(Place { folder, io })
    }

    /// Bytes on disk now.
    pub fn bytes(&self) -> u64 {
        self.place.as_ref().map_or(0, |place| place.folder.used())
    }

    /// Attempts that failed.
    pub fn failures(&self) -> u64 {
        self.failures.load(Relaxed)
    }

    /// Why the last attempt failed, if nothing was spilled since.
    pub fn failure(&self) -> Option<Error> {
        self.failure.lock().clone()
    }

    /// Bytes that it may take as things are: none while it fails.
    pub fn bound(&self) -> u64 {
        if self.place.is_none() || self.failure.lock().is_some() { 0 } else { self.bound }
    }

    /// Whether it takes another memtable, as far as is known.
    fn works(&self) -> bool {
        self.bound() > 0 && !self.full.load(Acquire)
    }

    /// Whether `bytes` more fit.
    fn fits(&self, bytes: usize) -> bool {
        self.bytes() + bytes as u64 <= self.bound
    }

    fn set_full(&self, full: bool) {
        if self.full.swap(full, Release) != full {
            self.turns.send_replace(());
        }
    }

    fn failed(&self, error: Error) {
        self.failures.fetch_add(1, Relaxed);
        *self.failure.lock() = Some(error);
        self.turns.send_replace(());
    }

    fn succeeded(&self) {
        *self.failure.lock() = None;
        self.turns.send_replace(());
    }

    /// Something was frozen.
    pub fn look(&self) {
        self.wake.notify_one();
    }

    /// The database has ended: nobody waits for a spill any more.
    pub fn ended(&self) {
        self.wake.notify_one();
        self.turns.send_replace(());
    }

    /// Waits for as long as `over`, and as spilling may change that.
    pub async fn wait_while(&self, over: impl Fn() -> bool) {
        let mut turns = self.turns.subscribe();
        while self.works() && over() {
            // The sender lives as long as this.
            let _ = turns.changed().await;
        }
    }

    /// Deletes what nothing refers to. The index goes first: without it no restart takes the rest for whole.
    async fn clear(&self) {
        let Some(Place { io, .. }) = &self.place else { return };
        let trash = std::mem::take(&mut *self.trash.lock());
        let orphans = std::mem::take(&mut *io.orphans.0.lock());
        for Trash { index, objects } in trash {
            self.delete(&index).await;
            let groups: Vec<u128> = objects.iter().map(|(_, id)| *id).collect();
            io.cache.remove_groups(&groups);
            for (term, id) in objects {
                self.delete(&io.object_key(term, id)).await;
            }
        }
        for (_, term, id) in orphans {
            self.delete(&io.object_key(term, id)).await;
        }
    }

    /// A file that stays costs room until the next start.
    async fn delete(&self, name: &str) {
        let Some(Place { io, .. }) = &self.place else { return };
        if let Err(error) = io.store.delete(name, Cause::Spill).await {
            tracing::warn!(name, %error, "a file of the spill can't be deleted");
        }
    }
}
