//! Opening a database: options and URL in, log, machine and background tasks running and ready out.

use std::{
    panic::AssertUnwindSafe,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use futures::FutureExt;
use holdfast_cache::{Cache, CacheOptions, NvmeOptions, Stale};
use holdfast_wal::{
    Leadership, LogOptions, NoReports, Reports, Wal, WalOptions, disk,
    transport::{NoTransport, Peer, TcpTransport, Transport},
};
use parking_lot::Mutex;
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
};

use crate::{
    apply::Applier,
    archive,
    background::Background,
    clock::{CacheClock, Clock, Entropy, SystemClock},
    cluster::{ClusterOptions, Network, join, members::Members},
    commit::{self, log_error},
    config::Options,
    db::Handle,
    error::{Error, Result},
    format::state::MachineState,
    identity,
    inner::Inner,
    limits::ENTRY_BYTES_MAX,
    pointer,
    recover::{self, Job},
    spill::{self, Spill, SpillOptions},
    store::{RetryPolicy, Store, StoreOptions},
    tree::{Tree, TreeOptions},
    types::CommitSeq,
    warm,
};

/// Bytes of the RAM cache unless the options say.
const MEMORY_CACHE: u64 = 256 << 20;
/// How long past its TTL a page is served while the bucket does not give it: objects never change, so it can't be wrong.
const STALE_IF_ERROR: Duration = Duration::from_secs(24 * 60 * 60);
/// Bytes of the NVMe cache of a store that charges for every read, unless the options say.
const NVME_CACHE: u64 = 1 << 30;

/// Background tasks of a database.
pub struct Tasks {
    stop: watch::Sender<bool>,
    running: Mutex<Vec<JoinHandle<()>>>,
}

impl Tasks {
    fn new() -> Self {
        Self { stop: watch::Sender::new(false), running: Mutex::default() }
    }

    /// Runs a task until it ends or all are stopped. Its panic ends the database: commits would wait for it in vain.
    fn spawn(&self, inner: &Arc<Inner>, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let inner = Arc::clone(inner);
        let mut stop = self.stop.subscribe();
        self.running.lock().push(tokio::spawn(async move {
            tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => {}
                ended = AssertUnwindSafe(task).catch_unwind() => if let Err(panic) = ended {
                    let text = panic.downcast_ref::<String>().map(String::as_str);
                    let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
                    tracing::error!(task = name, text, "a background task panicked");
                    inner.poison(&format!("the {name} task panicked: {text}"));
                }
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

impl Drop for Tasks {
    fn drop(&mut self) {
        self.stop();
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
    let disk = match &options.disk {
        Some(disk) => Arc::clone(disk),
        None => {
            let dir = log_dir.clone();
            blocking(move || disk::file::open(&dir, disk::Choice::Auto).map_err(|e| opening(&dir, &e))).await?
        }
    };

    let store_options = StoreOptions {
        s3: options.s3.clone(),
        retry: RetryPolicy::default(),
        limits: options.limits(),
        clock: Arc::clone(&clock),
        entropy: Arc::clone(&entropy),
    };
    let store = match &options.bucket {
        Some(bucket) => Store::custom(url, Arc::clone(bucket), store_options.clone()),
        None => Store::open(url, store_options.clone())?,
    };
    let used = file("LOG-USED");
    let was_used = identity::log_was_used(&used)?;
    if let Some(recovery) = &options.recover {
        let (clock, entropy) = (Arc::clone(&clock), Arc::clone(&entropy));
        let voter = options.cluster.as_ref().map(|cluster| Peer { id: cluster.node, addr: cluster.address.clone() });
        let voter = voter.unwrap_or(Peer { id: join::ALONE, addr: String::new() });
        let (options, store, data_dir) = (&options, &store, &data_dir);
        let store_options = store_options.clone();
        recover::run(&Job { recovery, options, store, store_options, data_dir, clock, entropy, voter }).await?;
    }
    recover::require_finished(&data_dir)?;
    let identity = file("IDENTITY");
    let joined = join::join(&store, options.cluster.as_ref(), &identity, !was_used, options.allow_unsafe_store).await?;
    let (owner, node) = (joined.owner(), joined.identity.node);

    let cache = open_cache(url, &options, &clock, &file("cache"))?;
    let pointer = file("MANIFEST");
    let current = pointer::read(&pointer)?;
    let tree_options = TreeOptions { pointer: Some(pointer), ..TreeOptions::of(&options, owner) };
    let tree = Tree::open(store, Arc::clone(&cache), tree_options, current).await?;
    let spill_options = SpillOptions { dir: file("spill"), cache: Arc::clone(&cache), owner, store: store_options };
    let spill = Spill::open(&options, spill_options).await;
    let manifest = Arc::clone(tree.version().manifest());
    let state = if current.is_some() { MachineState::decode(&manifest.state)? } else { MachineState::default() };

    let log_options = LogOptions { was_used, ..log_options(&options, owner.cluster) };
    let temporary = is_temporary(url, &options).then(|| data_dir.clone());
    let archives = archive::wanted(&options, tree.store(), &data_dir)?;
    let info = options.cluster.as_ref().map(|cluster| cluster.info.clone()).unwrap_or_default();
    let members = Arc::new(Members::new(info, Arc::clone(&clock)));
    let (transport, network) = network(options.cluster.as_ref(), owner.cluster).await?;
    let alone = options.cluster.is_none();
    let own_thread = options.disk.is_none();
    let spilled = spill.find(owner, &manifest).await;
    let inner = Arc::new(Inner::new(options, clock, entropy, tree, spill, archives));
    if !alone {
        // Until the members have said what they need.
        inner.snapshots.set_cap(CommitSeq::ZERO);
        inner.tree.set_released(0);
    }
    members.attach(&inner);
    let runtime = tokio::runtime::Handle::current();
    let applier = Applier::new(Arc::clone(&inner), runtime, state, manifest.up_to, manifest.membership.clone())
        .with_spilled(spilled.clone());
    let reports: Arc<dyn Reports> = if alone { Arc::new(NoReports) } else { members.clone() };
    let wal_options =
        WalOptions { bootstrap: joined.bootstrap, own_thread, reports, ..WalOptions::single(node, log_options) };
    // A replay may need it.
    let tasks = Tasks::new();
    tasks.spawn(&inner, "spill", spill::run::run(Arc::clone(&inner)));
    let wal = match Wal::open(wal_options, disk, transport, applier).await {
        Ok(wal) => wal,
        Err(error) => {
            let error = inner.check().err().unwrap_or_else(|| opening(&log_dir, &error));
            // Nothing is deleted by a start that fails.
            tasks.stop();
            tasks.finished().await;
            return Err(error);
        }
    };
    drop(spilled);
    let started = Started { inner, wal, tasks, node, cache, temporary, members, network, alone };
    if alone {
        started.wal.ready().await.map_err(|error| opening(&log_dir, &error))?;
    }
    if !was_used {
        identity::mark_log_used(&used)?;
    }
    Ok(started.run().await)
}

/// The way to the other nodes, and its sockets if they are ours.
async fn network(cluster: Option<&ClusterOptions>, id: u128) -> Result<(Arc<dyn Transport>, Option<TcpTransport>)> {
    let Some(options) = cluster else { return Ok((Arc::new(NoTransport), None)) };
    match &options.network {
        Network::Custom(make) => Ok((make(id, options.node), None)),
        Network::Tcp { listen, tls } => match TcpTransport::bind(id, options.node, listen, tls.clone()).await {
            Ok(transport) => Ok((Arc::new(transport.clone()), Some(transport))),
            Err(error) => Err(Error::Invalid(format!("the address for other nodes, {listen}: {error}"))),
        },
    }
}

/// Log and machine run; the rest is to be started.
struct Started {
    inner: Arc<Inner>,
    wal: Wal,
    tasks: Tasks,
    node: u64,
    cache: Arc<Cache>,
    temporary: Option<PathBuf>,
    members: Arc<Members>,
    network: Option<TcpTransport>,
    alone: bool,
}

impl Started {
    async fn run(self) -> Handle {
        let Self { inner, wal, tasks, node, cache, temporary, members, network, alone } = self;
        let (proposals, driven) = mpsc::unbounded_channel();
        inner.queue.attach(wal.clone(), proposals);
        lead(&inner, *wal.leadership().borrow());
        tasks.spawn(&inner, "commit", commit::drive(Arc::clone(&inner), driven));
        tasks.spawn(&inner, "leadership", follow(Arc::clone(&inner), wal.clone()));
        tasks.spawn(&inner, "archive", archive::run::run(Arc::clone(&inner), wal.clone()));
        let background = Arc::new(Background::new(Arc::clone(&inner), wal.clone(), node, Arc::clone(&members)));
        tasks.spawn(&inner, "warm", warm::run::run(Arc::clone(&inner), Arc::clone(&cache)));
        tasks.spawn(&inner, "pressure", Arc::clone(&background).watch());
        tasks.spawn(&inner, "freeze", Arc::clone(&background).freeze());
        tasks.spawn(&inner, "flush", Arc::clone(&background).flush());
        tasks.spawn(&inner, "abort", Arc::clone(&background).abort());
        tasks.spawn(&inner, "compaction", Arc::clone(&background).compact());
        if !alone {
            tasks.spawn(&inner, "members", Arc::clone(&background).follow_members());
        }
        tasks.spawn(&inner, "sweep", background.sweep());
        let (wal, network) = (Mutex::new(Some(wal)), Mutex::new(network));
        Handle { inner, wal, tasks, cache, temporary, members, network, node }
    }
}

/// An error of the log while it is opened, with its directory and what can be done.
fn opening(dir: &Path, error: &holdfast_wal::Error) -> Error {
    let dir = dir.display();
    match log_error(error) {
        Error::Corrupt(text) => Error::Corrupt(format!(
            "{text}; directory {dir}. What it held was acknowledged and may not be in the bucket: bring its files \
             back from a copy, or recover from the bucket into an empty directory; a member of a cluster is replaced by a \
             new one (`holdfast admin add-node`, then `remove-node`)"
        )),
        Error::Invalid(text) if !text.contains(&dir.to_string()) => Error::Invalid(format!("{text} (directory {dir})")),
        Error::Closed(text) => Error::Invalid(format!("the log in {dir} cannot be opened: {text}")),
        other => other,
    }
}

fn open_cache(url: &str, options: &Options, clock: &Arc<dyn Clock>, dir: &Path) -> Result<Arc<Cache>> {
    let nvme = options.nvme_cache.unwrap_or(if url.starts_with("s3://") { NVME_CACHE } else { 0 });
    let nvme = (nvme > 0).then(|| NvmeOptions::new(dir, nvme));
    let ram_bytes = options.memory_cache.unwrap_or(MEMORY_CACHE);
    let clock = Arc::new(CacheClock::new(Arc::clone(clock)));
    let (ttl, retry_after) = (options.cache_ttl, Duration::ZERO);
    let stale = Stale { if_error: STALE_IF_ERROR, ..Stale::default() };
    let cache = Cache::open(CacheOptions { nvme, ttl, stale, retry_after, ..CacheOptions::new(ram_bytes, clock) });
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
                lead(&inner, now);
            }
        }
    }
}

/// Takes or gives up the lead. While its quorum is silent a leader takes nothing, and whoever waits for a commit learns that
/// its outcome is unknown; what has its place keeps it, so that it can go on when the quorum answers again.
fn lead(inner: &Inner, now: Leadership) {
    inner.set_leader(now.leader);
    let led = inner.term();
    if led != 0 && (!now.is_leader || now.term != led) {
        tracing::info!(term = led, leader = now.leader, "this node no longer leads");
        inner.set_term(0);
        inner.queue.depose(inner);
    } else if led != 0 && inner.set_silent(!now.ready) {
        tracing::warn!(term = led, "the quorum {}", if now.ready { "answers again" } else { "does not answer" });
        if !now.ready {
            inner.pending.answer_all(&Error::Unknown("no quorum has confirmed the commit".into()));
        }
    }
    if now.ready && now.term != inner.term() {
        // Its own no-op is applied, so these are the versions of everything committed before.
        let guards = inner.guards.lock().clone();
        inner.queue.lead(guards);
        inner.set_term(now.term);
        inner.frozen.notify_one();
        inner.work.notify_one();
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
