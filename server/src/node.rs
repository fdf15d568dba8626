//! Assembles a node: database, sessions, MySQL port, admin port; serves until a signal or a failure; drains.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use holdfast::{Archiving, Db, Options, Recovery, cluster::ClusterOptions, cost::Prices};
use tokio::{
    net::TcpListener,
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
};

use crate::{
    admin::{self, Admin},
    backend::{Front, Parts, ServerSettings},
    cli::Serve,
    config::S3Settings,
    connection::Server,
    forward::{Forward, host},
    listen, metrics,
    processlist::ProcessList,
    session::Shared,
    tls::{CertificateFiles, rsa_key},
    users::{Authenticator, Users},
    wire::result::SqlError,
};

mod cluster;
mod secure;

/// Time that clients have to finish after SIGTERM.
const DRAIN: Duration = Duration::from_secs(10);
/// Longest that a leader that leaves waits for open transactions before it hands over.
const LEAVE: Duration = Duration::from_secs(1);
/// Full memtables that may wait for the store.
const FROZEN_MEMTABLES: usize = 8;
/// A pause between two looks at what another node has to write first.
const CLUSTER_PAUSE: Duration = Duration::from_millis(50);
/// How often histograms are folded, so that they don't grow between scrapes.
const UPKEEP_EVERY: Duration = Duration::from_secs(5);

/// Runs a server to its end. The error is one line for the operator.
pub async fn serve(settings: Serve, s3: S3Settings) -> Result<(), String> {
    settings.check()?;
    cluster::check(&settings.cluster)?;
    let started = Instant::now();
    let handle = metrics::install()?;
    let mysql = listen::bind(&settings.listen, "--listen").await?;
    let admin_port = listen::bind(&settings.admin_listen, "--admin-listen").await?;
    let mut signals = Signals::install()?;

    let data_dir = data_dir(&settings)?;
    let store = store_url(&settings, &data_dir);
    let addr = |listener: &TcpListener| listener.local_addr().map_err(|e| e.to_string());
    let cluster = cluster::options(&settings.cluster, addr(&mysql)?, addr(&admin_port)?)?;
    let db = open_db(&settings, s3, &store, &data_dir, cluster).await?;
    let processes = ProcessList::new(settings.max_connections as usize);
    let admin = Arc::new(Admin {
        db: db.clone(),
        processes: processes.clone(),
        metrics: handle.clone(),
        started,
        store: store.clone(),
        mysql: address(&mysql)?,
        serving: AtomicBool::new(false),
        draining: AtomicBool::new(false),
    });
    let admin_addr = address(&admin_port)?;
    // Before clients are served: a node that waits for its cluster is looked at here.
    let admin_task = tokio::spawn(axum::serve(admin_port, admin::router(admin.clone())).into_future());
    let server = tokio::select! {
        biased;
        name = signals.next() => {
            tracing::info!("{name} before the node was ready");
            return db.close().await.map_err(|e| format!("closing the database: {e}"));
        }
        server = server(&settings, &db, &processes, &data_dir, started, &mysql) => server?,
    };
    admin.serving.store(true, Ordering::Relaxed);
    announce(&address(&mysql)?, &admin_addr)?;
    tracing::info!(store, data_dir = %data_dir.display(), "serving");
    let (stop, stopped) = watch::channel(false);
    if settings.cluster.forward_writes
        && let Some(streams) = db.incoming_streams()
    {
        // Ends with `stop`.
        tokio::spawn(host::accept(streams, server.clone(), db.clone(), stopped.clone()));
    }
    let accept = tokio::spawn(listen::accept(mysql, server, stopped));

    let outcome = tokio::select! {
        biased;
        name = signals.next() => { tracing::info!("{name}: draining for up to {DRAIN:?}"); Ok(()) }
        cause = db.closed() => Err(format!("the database has failed: {cause}")),
        never = upkeep(&handle) => match never {},
    };
    admin.draining.store(true, Ordering::Relaxed);
    // The receiver may be gone with its task.
    let _ = stop.send(true);
    tokio::select! {
        biased;
        name = signals.next() => Err(format!("second signal ({name}): leaving at once")),
        closed = wind_down(&db, &processes, outcome.is_ok()) => {
            accept.abort();
            admin_task.abort();
            outcome?;
            closed
        }
    }
}

/// Lets clients finish, then closes the database.
async fn wind_down(db: &Db, processes: &Arc<ProcessList>, healthy: bool) -> Result<(), String> {
    let limit = if healthy { DRAIN } else { Duration::ZERO };
    let (cut, ()) = tokio::join!(processes.drain(limit), hand_over(db, processes, healthy));
    if cut > 0 {
        tracing::warn!(connections = cut, "closed connections that were not done in time");
    }
    db.close().await.map_err(|e| format!("closing the database: {e}"))?;
    tracing::info!("closed");
    Ok(())
}

/// A leader that leaves names its successor, so that nobody has to notice its silence first.
async fn hand_over(db: &Db, processes: &ProcessList, healthy: bool) {
    if !healthy || db.is_single() || !db.is_leader() {
        return;
    }
    // Whatever is open by then is rolled back.
    let _ = tokio::time::timeout(LEAVE, processes.empty()).await;
    match db.failover(None).await {
        Ok(to) => tracing::info!(to, "handed leadership over"),
        Err(error) => tracing::warn!(%error, "leadership was not handed over"),
    }
}

/// Folds histograms, for as long as the node runs.
async fn upkeep(handle: &metrics_exporter_prometheus::PrometheusHandle) -> std::convert::Infallible {
    loop {
        tokio::time::sleep(UPKEEP_EVERY).await;
        handle.run_upkeep();
    }
}

fn data_dir(settings: &Serve) -> Result<PathBuf, String> {
    let dir = std::path::absolute(&settings.data_dir);
    let dir = dir.map_err(|e| format!("--data-dir {}: {e}", settings.data_dir.display()))?;
    fs::create_dir_all(&dir).map_err(|e| format!("--data-dir {}: {e}", dir.display()))?;
    Ok(dir)
}

fn store_url(settings: &Serve, data_dir: &Path) -> String {
    settings
        .store
        .clone()
        .or_else(|| settings.recover_from.clone())
        .unwrap_or_else(|| format!("file://{}", data_dir.join("bucket").display()))
}

async fn open_db(
    settings: &Serve,
    s3: S3Settings,
    store: &str,
    data_dir: &Path,
    cluster: Option<ClusterOptions>,
) -> Result<Db, String> {
    let mut options = Options::default();
    options.cluster = cluster;
    options.data_dir = Some(data_dir.to_owned());
    options.memory_cache = Some(settings.memory_cache.0);
    options.nvme_cache = settings.nvme_cache.map(|size| size.0);
    options.cache_ttl = (settings.cache_ttl > 0).then(|| Duration::from_secs(settings.cache_ttl));
    options.hot_list_interval =
        (settings.hot_list_interval > 0).then(|| Duration::from_secs(settings.hot_list_interval));
    options.prefetch_bytes_per_second = settings.prefetch_rate.0;
    options.memtable_bytes = usize::try_from(settings.memtable_size.0).unwrap_or(usize::MAX);
    options.frozen_bytes = options.memtable_bytes.saturating_mul(FROZEN_MEMTABLES);
    options.flush_bytes = settings.flush_size.map(|size| size.0);
    options.page_bytes = settings.page_size.0 as usize;
    options.object_bytes = settings.object_size.0;
    options.spill_bytes = settings.spill_size.map(|size| size.0);
    options.allow_unsafe_store = settings.allow_unsafe_store;
    match settings.archive_interval {
        None => {}
        Some(0.0) => options.archive = Archiving::Off,
        Some(secs) => {
            options.archive = Archiving::On;
            options.archive_interval = Duration::from_secs_f64(secs);
        }
    }
    options.fence_after = settings.fence_after.map(Duration::from_secs);
    options.read_timeout = Duration::from_secs_f64(settings.read_timeout);
    options.hedge_share = settings.hedge_share;
    options.prices = Prices {
        put_per_1000: settings.price_put_per_1000,
        get_per_1000: settings.price_get_per_1000,
        gb_month: settings.price_gb_month,
    };
    options.max_requests_per_second = settings.max_requests_per_second;
    options.max_dollars_per_day = settings.max_dollars_per_day;
    options.archive_bytes = usize::try_from(settings.archive_bytes.0).unwrap_or(usize::MAX);
    let force = settings.recover_force;
    options.recover = settings.recover_from.clone().map(|from| Recovery { from: Some(from), force });
    // Variables win over the file, as everywhere.
    options.s3 = s3.into_iter().filter(|(name, _)| std::env::var_os(name).is_none()).collect();
    Db::open(store, options).await.map_err(|e| e.to_string())
}

async fn server(
    settings: &Serve,
    db: &Db,
    processes: &Arc<ProcessList>,
    data_dir: &Path,
    started: Instant,
    mysql: &TcpListener,
) -> Result<Arc<Server<Front>>, String> {
    let password = settings.root_password_file.as_deref().map(root_password).transpose()?;
    db.joined().await.map_err(|e| e.to_string())?;
    let password_bytes = password.as_deref().map(str::as_bytes);
    let (users, created) = once_written(db, || Users::open(db.clone(), password_bytes)).await?;
    if password.is_some() && !created {
        tracing::info!("--root-password-file is not used: root exists already (ALTER USER changes its password)");
    }
    let port = mysql.local_addr().map_err(|e| e.to_string())?.port();
    let files = match (&settings.tls_cert, &settings.tls_key) {
        (Some(certificate), Some(key)) => CertificateFiles { certificate: certificate.clone(), key: key.clone() },
        _ => CertificateFiles::self_signed(data_dir).map_err(|e| e.to_string())?,
    };
    let parts = || Parts {
        db: db.clone(),
        users: users.clone(),
        processes: processes.clone(),
        settings: ServerSettings {
            max_connections: settings.max_connections,
            max_allowed_packet: settings.max_allowed_packet.0,
            connect_timeout: settings.connect_timeout(),
            require_tls: settings.require_tls,
            port,
            data_dir: data_dir.to_owned(),
            started,
        },
    };
    let shared = once_written(db, || Shared::open(parts())).await?;
    Ok(Arc::new(Server {
        backend: Front { shared, users },
        processes: processes.clone(),
        authenticator: Authenticator::default(),
        rsa: rsa_key(data_dir).map_err(|e| e.to_string())?,
        tls: Some(files.acceptor().map_err(|e| e.to_string())?),
        require_tls: settings.require_tls,
        max_allowed_packet: usize::try_from(settings.max_allowed_packet.0).unwrap_or(usize::MAX),
        connect_timeout: settings.connect_timeout(),
        forward: settings.cluster.forward_writes.then(|| Forward::new(db.clone())),
        started,
        questions: AtomicU64::new(0),
        metrics: metrics::WireMetrics::default(),
    }))
}

/// Opens what the first leader of a new cluster writes: other nodes find it once that has happened.
async fn once_written<T, O: Future<Output = Result<T, SqlError>>>(db: &Db, open: impl Fn() -> O) -> Result<T, String> {
    loop {
        match open().await {
            Ok(opened) => return Ok(opened),
            Err(_) if !db.is_single() && db.term() == 0 => {
                tokio::time::sleep(CLUSTER_PAUSE).await;
                db.joined().await.map_err(|e| e.to_string())?;
            }
            Err(e) => return Err(e.to_string()),
        }
    }
}

/// The first line of the file, without its line end.
fn root_password(path: &Path) -> Result<String, String> {
    let text = fs::read_to_string(path).map_err(|e| format!("--root-password-file {}: {e}", path.display()))?;
    match text.lines().next() {
        Some(line) if !line.is_empty() => Ok(line.to_owned()),
        _ => Err(format!("--root-password-file {}: the first line is empty", path.display())),
    }
}

fn address(listener: &TcpListener) -> Result<String, String> {
    listener.local_addr().map(|addr| addr.to_string()).map_err(|e| e.to_string())
}

/// The one line on stdout that scripts wait for.
fn announce(mysql: &str, admin: &str) -> Result<(), String> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "holdfast ready mysql={mysql} admin={admin}")
        .and_then(|()| out.flush())
        .map_err(|e| format!("stdout: {e}"))
}

/// SIGTERM and SIGINT.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn install() -> Result<Self, String> {
        let on = |kind| signal(kind).map_err(|e| format!("signal handler: {e}"));
        Ok(Self { terminate: on(SignalKind::terminate())?, interrupt: on(SignalKind::interrupt())? })
    }
    async fn next(&mut self) -> &'static str {
        tokio::select! {
            biased;
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}
