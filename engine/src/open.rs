//! Opening a database: options and URL in, log, machine and background tasks running and ready out.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use holdfast_cache::{Cache, CacheOptions, NvmeOptions};
use holdfast_wal::{LogOptions, NodeId, Wal, WalOptions, disk, transport::NoTransport};
use parking_lot::Mutex;
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
};

use crate::{
    apply::Applier,
    background::Background,
    clock::{CacheClock, Clock, Entropy, SystemClock},
    commit::{self, log_error},
    config::Options,
    db::Handle,
    error::{Error, Result},
    format::state::MachineState,
    identity,
    inner::Inner,
    limits::ENTRY_BYTES_MAX,
    pointer,
    store::{RetryPolicy, Store, StoreOptions, owner, probe},
    tree::{Tree, TreeOptions},
};

/// This node, until there are others.
const NODE: NodeId = 1;
/// Bytes of the RAM cache unless the options say.
const MEMORY_CACHE: u64 = 256 << 20;

/// Background tasks of a database.
pub struct Tasks {
    stop: watch::Sender<bool>,
    running: Mutex<Vec<JoinHandle<()>>>,
}

impl Tasks {
    fn new() -> Self {
        Self { stop: watch::Sender::new(false), running: Mutex::default() }
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut stop = self.stop.subscribe();
        self.running.lock().push(tokio::spawn(async move {
            tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => {}
                () = task => {}
            }
        }));
    }

    /// Tells all tasks to stop.
    pub fn stop(&self) {
        self.stop.send_replace(true);
    }

    /// Waits until they have.
    pub async fn finished(&self) {
        let running = std::mem::take(&mut *self.running.lock());
        for task in running {
            let _ = task.await;
        }
    }
}

/// Opens a database.
pub async fn open(url: &str, options: Options) -> Result<Handle> {
    options.check()?;
    let clock: Arc<dyn Clock> = options.clock.clone().unwrap_or_else(|| Arc::new(SystemClock::new()));
    let entropy = Arc::new(options.seed.map_or_else(Entropy::from_os, Entropy::from_seed));
    let data_dir = data_dir(url, &options, &entropy)?;
    let (log_dir, file) = (data_dir.join("log"), |name| data_dir.join(name));
    // Locks the directory: from here on it is ours.
    let disk =
        blocking(move || disk::file::open(&log_dir, disk::Choice::Auto).map_err(|error| log_error(&error))).await?;

    let store_options = StoreOptions {
        s3: options.s3.clone(),
        retry: RetryPolicy::default(),
        clock: Arc::clone(&clock),
        entropy: Arc::clone(&entropy),
    };
    let store = Store::open(url, store_options)?;
    let owner = identity::read_or_make(&file("IDENTITY"), || owner::mint(&store))?;
    probe::require_safe(&store, options.allow_unsafe_store).await?;
    owner::claim(&store, owner).await?;

    let cache = open_cache(&options, &clock, &file("cache"))?;
    let pointer = file("MANIFEST");
    let current = pointer::read(&pointer)?;
    let tree_options = TreeOptions { pointer: Some(pointer), ..TreeOptions::new(owner) };
    let tree = Tree::open(store, Arc::clone(&cache), tree_options, current).await?;
    let manifest = Arc::clone(tree.version().manifest());
    let state = if current.is_some() { MachineState::decode(&manifest.state)? } else { MachineState::default() };

    let log_options = log_options(&options, owner.cluster);
    let temporary = is_temporary(url, &options).then(|| data_dir.clone());
    let inner = Arc::new(Inner::new(options, clock, entropy, tree));
    let runtime = tokio::runtime::Handle::current();
    let applier = Applier::new(Arc::clone(&inner), runtime, state, manifest.up_to, manifest.membership.clone());
    let wal = Wal::open(WalOptions::single(NODE, log_options), disk, Arc::new(NoTransport), applier)
        .await
        .map_err(|error| inner.check().err().unwrap_or_else(|| log_error(&error)))?;
    let term = wal.ready().await.map_err(|error| log_error(&error))?;
    inner.set_term(term);

    let tasks = Tasks::new();
    let (proposals, driven) = mpsc::unbounded_channel();
    inner.queue.attach(wal.clone(), inner.guards.lock().clone(), proposals);
    tasks.spawn(commit::drive(Arc::clone(&inner), driven));
    tasks.spawn(follow(Arc::clone(&inner), wal.clone()));
    let background = Arc::new(Background::new(Arc::clone(&inner), wal.clone()));
    tasks.spawn(Arc::clone(&background).flush());
    tasks.spawn(Arc::clone(&background).compact());
    tasks.spawn(background.sweep());
    Ok(Handle { inner, wal: Mutex::new(Some(wal)), tasks, cache, temporary })
}

fn open_cache(options: &Options, clock: &Arc<dyn Clock>, dir: &Path) -> Result<Arc<Cache>> {
    let nvme = options.nvme_cache.filter(|bytes| *bytes > 0).map(|bytes| NvmeOptions::new(dir, bytes));
    let ram_bytes = options.memory_cache.unwrap_or(MEMORY_CACHE);
    let clock = Arc::new(CacheClock(Arc::clone(clock)));
    let cache = Cache::open(CacheOptions { ram_bytes, nvme, ttl: None, clock });
    cache.map(Arc::new).map_err(|error| Error::Invalid(format!("cache in {}: {error}", dir.display())))
}

/// Runs blocking file work off the async threads.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(Error::Closed(error.to_string())),
    }
}

/// Follows leadership and the log's health.
async fn follow(inner: Arc<Inner>, wal: Wal) {
    let mut leadership = wal.leadership();
    loop {
        tokio::select! {
            biased;
            cause = wal.stopped() => {
                inner.poison(&cause.to_string());
                return;
            }
            changed = leadership.changed() => {
                let now = *leadership.borrow_and_update();
                if changed.is_err() {
                    inner.poison("the log has stopped");
                    return;
                }
                if now.ready {
                    inner.set_term(now.term);
                }
            }
        }
    }
}

/// Segments of a sixteenth of the log, within reason: a small log must not be all spares.
fn log_options(options: &Options, cluster: u128) -> LogOptions {
    let segment_bytes = (options.log_bytes / 16).clamp(4 << 20, 32 << 20) & !4095;
    // An entry, and room for what Raft puts around it.
    let max_payload = ENTRY_BYTES_MAX + 4096;
    LogOptions { cluster, max_bytes: options.log_bytes, segment_bytes, max_payload, ..LogOptions::default() }
}

/// Whether the data directory goes with the database.
fn is_temporary(url: &str, options: &Options) -> bool {
    options.data_dir.is_none() && url.starts_with("memory://")
}

/// Where log and cache live.
fn data_dir(url: &str, options: &Options, entropy: &Entropy) -> Result<PathBuf> {
    if let Some(dir) = &options.data_dir {
        return Ok(dir.clone());
    }
    if let Some(path) = url.strip_prefix("file://") {
        let path = Path::new(path);
        let mut name = path.file_name().map(ToOwned::to_owned).unwrap_or_else(|| "holdfast".into());
        name.push("-data");
        return Ok(path.with_file_name(name));
    }
    if is_temporary(url, options) {
        return Ok(std::env::temp_dir().join(format!("holdfast-{:032x}", entropy.next_u128())));
    }
    Err(Error::Invalid(format!("{url} needs a data directory (Options::data_dir) for the log")))
}
