//! The admin port: /healthz, /metrics, and the JSON that `holdfast admin` asks for.

pub mod client;
mod cluster;

use std::{
    fmt::Write as _,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use axum::{
    Json, Router,
    extract::{Query, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use holdfast::{Db, Stats, cluster::Member, cost::Period, store::Kind};
use metrics_exporter_prometheus::PrometheusHandle;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::processlist::ProcessList;

/// Seconds in a month of 30 days, for the monthly price.
const SECONDS_A_MONTH: f64 = 30.0 * 86_400.0;

/// Keys that `admin gc` names; the rest are only counted.
const KEYS_SHOWN: usize = 100;

/// What the admin port shows and does.
pub struct Admin {
    /// The database.
    pub db: Db,
    /// All connections.
    pub processes: Arc<ProcessList>,
    /// The process's recorder.
    pub metrics: PrometheusHandle,
    /// For uptimes.
    pub started: Instant,
    /// The store's URL.
    pub store: String,
    /// Address of the MySQL port.
    pub mysql: String,
    /// Clients are served. A node of a cluster first has to find it.
    pub serving: AtomicBool,
    /// Set when the shutdown begins: /healthz says so, to let load balancers go elsewhere.
    pub draining: AtomicBool,
}

type Shared = State<Arc<Admin>>;

/// The port's routes.
pub fn router(admin: Arc<Admin>) -> Router {
    Router::new()
        .route("/healthz", get(healthz))
        .route("/metrics", get(metrics))
        .route("/admin/status", get(status))
        .route("/admin/cost", get(cost))
        .route("/admin/checkpoint", post(checkpoint))
        .route("/admin/gc", post(gc))
        .route("/admin/cache", get(cache).post(resize_cache))
        .route("/admin/fsck", post(fsck))
        .merge(cluster::routes())
        .with_state(admin)
}

/// An engine error as JSON: `{"error": ...}` with 503 where trying again may help, else 500.
fn failed(error: &holdfast::Error) -> Response {
    let code = match error {
        holdfast::Error::Invalid(_) => StatusCode::CONFLICT,
        holdfast::Error::NotLeader { .. } => StatusCode::SERVICE_UNAVAILABLE,
        error if error.is_retryable() => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    };
    (code, Json(json!({ "error": error.to_string() }))).into_response()
}

async fn healthz(State(admin): Shared) -> Response {
    if admin.draining.load(Ordering::Relaxed) {
        return (StatusCode::SERVICE_UNAVAILABLE, "draining\n").into_response();
    }
    if !admin.serving.load(Ordering::Relaxed) {
        return (StatusCode::SERVICE_UNAVAILABLE, "waiting for the cluster\n").into_response();
    }
    match admin.db.snapshot() {
        Ok(_) => "ok\n".into_response(),
        Err(error) => (StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n")).into_response(),
    }
}

async fn metrics(State(admin): Shared) -> String {
    let mut text = admin.metrics.render();
    let (connections, busy) = admin.processes.counts();
    // Writing to a String cannot fail.
    let _ = writeln!(text, "# TYPE holdfast_connections gauge\nholdfast_connections {connections}");
    let _ = writeln!(text, "# TYPE holdfast_connections_busy gauge\nholdfast_connections_busy {busy}");
    let (forwarded, hosted) = admin.processes.forwarded();
    let _ = writeln!(text, "# TYPE holdfast_sessions_forwarded gauge\nholdfast_sessions_forwarded {forwarded}");
    let _ = writeln!(text, "# TYPE holdfast_sessions_hosted gauge\nholdfast_sessions_hosted {hosted}");
    let uptime = admin.started.elapsed().as_secs();
    let _ = writeln!(text, "# TYPE holdfast_uptime_seconds gauge\nholdfast_uptime_seconds {uptime}");
    engine_metrics(&mut text, &admin.db.stats());
    let outlook = admin.db.outlook();
    let rate = outlook.log_bytes_per_second.round();
    let _ = writeln!(text, "# TYPE holdfast_log_bytes_per_second gauge\nholdfast_log_bytes_per_second {rate}");
    if let Some(lasts) = outlook.runway {
        let seconds = lasts.as_secs();
        let _ = writeln!(text, "# TYPE holdfast_runway_seconds gauge\nholdfast_runway_seconds {seconds}");
    }
    cluster_metrics(&mut text, &admin.db);
    text
}

/// The engine's figures, read at the moment of the scrape.
fn engine_metrics(text: &mut String, stats: &Stats) {
    for (name, pick) in [("requests_total", 0), ("bytes_total", 1), ("errors_total", 2)] {
        let _ = writeln!(text, "# TYPE holdfast_store_{name} counter");
        for r in &stats.requests {
            let value = [r.requests, r.bytes, r.errors].get(pick).copied().unwrap_or_default();
            let _ = writeln!(text, "holdfast_store_{name}{{kind=\"{}\",cause=\"{}\"}} {value}", r.kind, r.cause);
        }
    }
    for (name, value) in stats.variables() {
        // Requests are above, with labels.
        if !name.starts_with("Holdfast_s3_") {
            let name = name.to_lowercase();
            let _ = writeln!(text, "# TYPE {name} untyped\n{name} {value}");
        }
    }
}

/// One figure of how far a member is behind.
type Lag = fn(&Member) -> Option<f64>;

/// The cluster's figures, as this node knows them.
fn cluster_metrics(text: &mut String, db: &Db) {
    let Ok(status) = db.cluster() else { return };
    let _ = writeln!(text, "# TYPE holdfast_leader gauge\nholdfast_leader {}", u8::from(status.writable));
    let lags: [(&str, Lag); 3] = [
        ("entries", |member| member.lag_entries.map(|lag| lag as f64)),
        ("bytes", |member| member.lag_bytes.map(|lag| lag as f64)),
        ("seconds", |member| member.lag_time.map(|lag| lag.as_secs_f64())),
    ];
    for (unit, of) in lags {
        let _ = writeln!(text, "# TYPE holdfast_member_lag_{unit} gauge");
        for (member, lag) in status.members.iter().filter_map(|member| Some((member, of(member)?))) {
            let _ = writeln!(text, "holdfast_member_lag_{unit}{{node=\"{}\"}} {lag}", member.id);
        }
    }
}

async fn status(State(admin): Shared) -> Json<Value> {
    let (connections, busy) = admin.processes.counts();
    let stats = admin.db.stats();
    let engine: serde_json::Map<String, Value> = stats
        .variables()
        .into_iter()
        .map(|(name, value)| (name.trim_start_matches("Holdfast_").to_owned(), value.into()))
        .collect();
    Json(json!({
        "version": env!("CARGO_PKG_VERSION"),
        "store": admin.store,
        "mysql": admin.mysql,
        "healthy": admin.db.snapshot().is_ok(),
        "troubles": troubles(&admin.db),
        "outage": outage(&admin.db),
        "serving": admin.serving.load(Ordering::Relaxed),
        "draining": admin.draining.load(Ordering::Relaxed),
        "cluster": cluster::status(&admin.db).unwrap_or_default(),
        "uptime_seconds": admin.started.elapsed().as_secs(),
        "connections": connections,
        "connections_busy": busy,
        "engine": engine,
    }))
}

/// What is wrong with the disk or the bucket; `null` where nothing is.
fn troubles(db: &Db) -> Value {
    let troubles = db.troubles();
    json!({
        "ended": troubles.ended,
        "commits_refused": troubles.commits_refused,
        "bucket": troubles.bucket,
        "budget": troubles.budget,
        "flush": troubles.flush,
        "compaction": troubles.compaction,
        "archive": troubles.archive,
    })
}

/// Whether the bucket is away, and how long commits go on without it; `null` while nothing is written.
fn outage(db: &Db) -> Value {
    let outlook = db.outlook();
    let minutes = |lasts: Option<Duration>| lasts.map(|lasts| lasts.as_secs_f64() / 60.0);
    json!({
        "bucket_down_seconds": outlook.bucket_down.map(|down| down.as_secs()),
        "log_bytes_per_second": outlook.log_bytes_per_second.round(),
        "runway_minutes": minutes(outlook.runway),
        "log_runway_minutes": minutes(outlook.log_runway),
    })
}

async fn checkpoint(State(admin): Shared) -> Response {
    let began = Instant::now();
    match admin.db.checkpoint().await {
        Ok(()) => Json(json!({ "seconds": began.elapsed().as_secs_f64() })).into_response(),
        Err(error) => failed(&error),
    }
}

#[derive(Deserialize)]
struct Gc {
    #[serde(default)]
    dry_run: bool,
}

async fn gc(State(admin): Shared, Query(gc): Query<Gc>) -> Response {
    match admin.db.collect_garbage(gc.dry_run).await {
        Ok(garbage) => {
            let deleted = if gc.dry_run { "would_delete" } else { "deleted" };
            Json(json!({
                format!("{deleted}_objects"): garbage.keys.len(),
                format!("{deleted}_bytes"): garbage.bytes,
                deleted: garbage.keys.iter().take(KEYS_SHOWN).collect::<Vec<_>>(),
                "waiting_for_readers_or_grace": garbage.waiting,
            }))
            .into_response()
        }
        Err(error) => failed(&error),
    }
}

/// New bounds of the caches, in bytes.
#[derive(Deserialize)]
struct CacheSize {
    memory: Option<u64>,
    nvme: Option<u64>,
}

async fn resize_cache(State(admin): Shared, Query(size): Query<CacheSize>) -> Response {
    match admin.db.resize_cache(size.memory, size.nvme).await {
        Ok(()) => cache(State(admin)).await.into_response(),
        Err(error) => failed(&error),
    }
}

async fn cache(State(admin): Shared) -> Json<Value> {
    let cache = admin.db.stats().cache;
    let figures = cache.gauges().into_iter().chain(cache.counters());
    Json(figures.map(|(name, value)| (name.to_owned(), value.into())).collect::<serde_json::Map<_, Value>>().into())
}

/// Damage is an answer (`healthy: false`, with the faults), not a failure of the request.
async fn fsck(State(admin): Shared) -> Response {
    match admin.db.check_stored().await {
        Ok(report) => Json(json!({
            "healthy": report.faults == 0,
            "objects": report.objects,
            "pages": report.pages,
            "entries": report.entries,
            "bytes": report.bytes,
            "faults": report.faults,
            "details": report.details,
        }))
        .into_response(),
        Err(error) => failed(&error),
    }
}

async fn cost(State(admin): Shared) -> Json<Value> {
    Json(cost_report(&admin.db.stats(), admin.started.elapsed().as_secs_f64()))
}

/// Dollars for requests since the start and over the last minutes, and what they and the stored bytes come to in a month.
fn cost_report(stats: &Stats, uptime_seconds: f64) -> Value {
    let prices = &stats.prices;
    let count =
        |kinds: &[&str]| -> u64 { stats.requests.iter().filter(|r| kinds.contains(&r.kind)).map(|r| r.requests).sum() };
    // DELETE is free.
    let (writes, reads) = (count(&["put", "list"]), count(&["get", "head"]));
    let dollars = writes as f64 * prices.request(Kind::Put) + reads as f64 * prices.request(Kind::Get);
    let stored = stats.counters.iter().filter(|(name, _)| matches!(*name, "tree_bytes" | "tree_dead_bytes"));
    let stored: u64 = stored.map(|(_, bytes)| bytes).sum();
    json!({
        "put_and_list_requests": writes,
        "get_and_head_requests": reads,
        "request_dollars": dollars,
        "request_dollars_per_month_at_this_rate": dollars * SECONDS_A_MONTH / uptime_seconds.max(1.0),
        "stored_bytes": stored,
        "storage_dollars_per_month": prices.storage_per_month(stored),
        "since_start": spent(&stats.spent),
        "last_minutes": spent(&stats.spent_lately),
        "prices": {
            "put_per_1000": prices.put_per_1000,
            "get_per_1000": prices.get_per_1000,
            "gb_month": prices.gb_month,
        },
    })
}

fn spent(period: &Period) -> Value {
    let by_cause =
        period.by_cause.iter().map(|(cause, dollars)| (cause.name().to_owned(), period.per_hour(*dollars).into()));
    json!({
        "seconds": period.lasts.as_secs(),
        "transactions": period.commits,
        "dollars": period.dollars(),
        "dollars_per_hour": period.per_hour(period.dollars()),
        "dollars_per_million_transactions": period.per_million_commits(),
        "dollars_per_hour_by_cause": by_cause.collect::<serde_json::Map<String, Value>>(),
    })
}

#[cfg(test)]
mod tests {
    use holdfast::RequestStats;

    use super::*;

    #[test]
    fn cost_counts_requests_and_bytes() {
        let mut stats = Stats::default();
        stats.requests.push(RequestStats::new("put", "flush", 1000, 1, 0));
        stats.requests.push(RequestStats::new("get", "page", 10_000, 1, 0));
        stats.requests.push(RequestStats::new("delete", "gc", 5000, 0, 0));
        stats.counters.push(("tree_bytes", 10_000_000_000));
        let report = cost_report(&stats, 1.0);
        let close = |key: &str, expected: f64| {
            let value = report[key].as_f64().unwrap();
            assert!((value - expected).abs() < 1e-9, "{key}: {value}");
        };
        close("request_dollars", 0.005 + 0.004);
        close("request_dollars_per_month_at_this_rate", 0.009 * SECONDS_A_MONTH);
        assert!(report["storage_dollars_per_month"].as_f64().unwrap() > 0.2);
    }

    #[tokio::test]
    async fn healthz_says_when_the_database_has_ended() {
        let db = Db::open("memory:///", holdfast::Options::default()).await.unwrap();
        let admin = Arc::new(Admin {
            db: db.clone(),
            processes: ProcessList::new(1),
            metrics: crate::metrics::install().unwrap(),
            started: Instant::now(),
            store: "memory:///".to_owned(),
            mysql: String::new(),
            serving: AtomicBool::new(true),
            draining: AtomicBool::new(false),
        });
        assert_eq!(healthz(State(admin.clone())).await.status(), StatusCode::OK);
        let ended = tokio::spawn({
            let db = db.clone();
            async move { db.closed().await }
        });
        db.close().await.unwrap();
        assert!(matches!(ended.await.unwrap(), holdfast::Error::Closed(_)), "whoever waits for the end hears of it");
        let answer = healthz(State(admin)).await;
        assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
        let body = axum::body::to_bytes(answer.into_body(), 1000).await.unwrap();
        assert_eq!(body, "closed: the database was closed\n");
    }

    #[test]
    fn engine_figures_are_prometheus_lines() {
        let mut stats = Stats::default();
        stats.requests.push(RequestStats::new("get", "page", 3, 48, 1));
        stats.counters.push(("commits", 5));
        let mut text = String::new();
        engine_metrics(&mut text, &stats);
        assert!(text.contains("holdfast_store_requests_total{kind=\"get\",cause=\"page\"} 3\n"), "{text}");
        assert!(text.contains("holdfast_commits 5\n") && !text.contains("s3"), "{text}");
    }
}
