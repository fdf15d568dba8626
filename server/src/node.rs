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

use holdfast::{Db, Options};
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
    listen, metrics,
    processlist::ProcessList,
    session::Shared,
    tls::{CertificateFiles, rsa_key},
    users::{Authenticator, Users},
};

/// Time that clients have to finish after SIGTERM.
const DRAIN: Duration = Duration::from_secs(10);
/// How often the node looks whether its database has failed.
const HEALTH_EVERY: Duration = Duration::from_millis(250);
/// How often histograms are folded, so that they don't grow between scrapes.
const UPKEEP_EVERY: Duration = Duration::from_secs(5);

/// Runs a server to its end. The error is one line for the operator.
pub async fn serve(settings: Serve, s3: S3Settings) -> Result<(), String> {
    settings.check()?;
    let started = Instant::now();
    let handle = metrics::install()?;
    let mysql = listen::bind(&settings.listen, "--listen").await?;
    let admin_port = listen::bind(&settings.admin_listen, "--admin-listen").await?;
    let mut signals = Signals::install()?;

    let data_dir = data_dir(&settings)?;
    let store = store_url(&settings, &data_dir);
    let db = open_db(&settings, s3, &store, &data_dir).await?;
    let processes = ProcessList::new(settings.max_connections as usize);
    let server = server(&settings, &db, &processes, &data_dir, started, &mysql).await?;
    let admin = Arc::new(Admin {
        db: db.clone(),
        processes: processes.clone(),
        metrics: handle.clone(),
        started,
        store: store.clone(),
        mysql: address(&mysql)?,
        draining: AtomicBool::new(false),
    });

    announce(&address(&mysql)?, &address(&admin_port)?)?;
    tracing::info!(store, data_dir = %data_dir.display(), "serving");
    let (stop, stopped) = watch::channel(false);
    let accept = tokio::spawn(listen::accept(mysql, server, stopped));
    let admin_task = tokio::spawn(axum::serve(admin_port, admin::router(admin.clone())).into_future());

    let outcome = tokio::select! {
        biased;
        name = signals.next() => { tracing::info!("{name}: draining for up to {DRAIN:?}"); Ok(()) }
        cause = failure(&db, &handle) => Err(format!("the database has failed: {cause}")),
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
    let cut = processes.drain(limit).await;
    if cut > 0 {
        tracing::warn!(connections = cut, "closed connections that were not done in time");
    }
    db.close().await.map_err(|e| format!("closing the database: {e}"))?;
    tracing::info!("closed");
    Ok(())
}

/// Resolves with the cause once the database takes no more calls. Folds histograms meanwhile.
async fn failure(db: &Db, handle: &metrics_exporter_prometheus::PrometheusHandle) -> holdfast::Error {
    let mut upkeep = Instant::now();
    loop {
        tokio::time::sleep(HEALTH_EVERY).await;
        if let Err(cause) = db.snapshot() {
            return cause;
        }
        if upkeep.elapsed() > UPKEEP_EVERY {
            handle.run_upkeep();
            upkeep = Instant::now();
        }
    }
}

fn data_dir(settings: &Serve) -> Result<PathBuf, String> {
    let dir = std::path::absolute(&settings.data_dir);
    let dir = dir.map_err(|e| format!("--data-dir {}: {e}", settings.data_dir.display()))?;
    fs::create_dir_all(&dir).map_err(|e| format!("--data-dir {}: {e}", dir.display()))?;
    Ok(dir)
}

fn store_url(settings: &Serve, data_dir: &Path) -> String {
    settings.store.clone().unwrap_or_else(|| format!("file://{}", data_dir.join("bucket").display()))
}

async fn open_db(settings: &Serve, s3: S3Settings, store: &str, data_dir: &Path) -> Result<Db, String> {
    let mut options = Options::default();
    options.data_dir = Some(data_dir.to_owned());
    options.memory_cache = Some(settings.memory_cache.0);
    options.nvme_cache = Some(settings.nvme_cache.0);
    options.memtable_bytes = usize::try_from(settings.memtable_size.0).unwrap_or(usize::MAX);
    options.allow_unsafe_store = settings.allow_unsafe_store;
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
    let users = Users::open(db.clone(), password.as_deref().map(str::as_bytes)).await;
    let (users, created) = users.map_err(|e| e.to_string())?;
    if password.is_some() && !created {
        tracing::info!("--root-password-file is not used: root exists already (ALTER USER changes its password)");
    }
    let files = match (&settings.tls_cert, &settings.tls_key) {
        (Some(certificate), Some(key)) => CertificateFiles { certificate: certificate.clone(), key: key.clone() },
        _ => CertificateFiles::self_signed(data_dir).map_err(|e| e.to_string())?,
    };
    let parts = Parts {
        db: db.clone(),
        users: users.clone(),
        processes: processes.clone(),
        settings: ServerSettings {
            max_connections: settings.max_connections,
            max_allowed_packet: settings.max_allowed_packet.0,
            connect_timeout: settings.connect_timeout(),
            require_tls: settings.require_tls,
            port: mysql.local_addr().map_err(|e| e.to_string())?.port(),
            data_dir: data_dir.to_owned(),
            started,
        },
    };
    let shared = Shared::open(parts).await.map_err(|e| e.to_string())?;
    Ok(Arc::new(Server {
        backend: Front { shared, users },
        processes: processes.clone(),
        authenticator: Authenticator::default(),
        rsa: rsa_key(data_dir).map_err(|e| e.to_string())?,
        tls: Some(files.acceptor().map_err(|e| e.to_string())?),
        require_tls: settings.require_tls,
        max_allowed_packet: usize::try_from(settings.max_allowed_packet.0).unwrap_or(usize::MAX),
        connect_timeout: settings.connect_timeout(),
        started,
        questions: AtomicU64::new(0),
        metrics: metrics::WireMetrics::default(),
    }))
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
