//! The cluster on the admin port: nodes, adding and removing one, handing leadership over.

use std::{sync::Arc, time::Instant};

use axum::{
    Json, Router,
    extract::{Query, State},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use holdfast::{Db, Error, cluster::Member};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Admin, failed};

type Shared = State<Arc<Admin>>;

/// The routes.
pub fn routes() -> Router<Arc<Admin>> {
    Router::new()
        .route("/admin/nodes", get(nodes))
        .route("/admin/add-node", post(add))
        .route("/admin/move-node", post(moved))
        .route("/admin/remove-node", post(remove))
        .route("/admin/failover", post(failover))
}

#[derive(Deserialize)]
struct Add {
    id: u64,
    addr: String,
}

#[derive(Deserialize)]
struct Move {
    id: u64,
    addr: String,
    #[serde(default)]
    force: bool,
}

#[derive(Deserialize)]
struct Remove {
    id: u64,
    #[serde(default)]
    force: bool,
}

#[derive(Deserialize)]
struct Failover {
    to: Option<u64>,
    #[serde(default)]
    dry_run: bool,
}

/// The cluster as JSON, as this node knows it.
pub fn status(db: &Db) -> Result<Value, Error> {
    let status = db.cluster()?;
    Ok(json!({
        "node": status.node,
        "role": status.role.name(),
        "writable": status.writable,
        "term": status.term,
        "leader": status.leader,
        "last_index": status.last,
        "committed_index": status.committed,
        "applied_index": status.applied,
        "flushed_index": status.flushed,
        "nodes": status.members.iter().map(member).collect::<Vec<_>>(),
    }))
}

fn member(member: &Member) -> Value {
    let info = member.info.clone().unwrap_or_default();
    json!({
        "id": member.id,
        "role": member.role.name(),
        "address": member.address,
        "mysql": info.sql,
        "admin": info.admin,
        "release": info.release,
        "lag_entries": member.lag_entries,
        "lag_bytes": member.lag_bytes,
        "lag_seconds": member.lag_time.map(|time| time.as_secs_f64()),
        "heard_seconds_ago": member.heard_ago.map(|ago| ago.as_secs_f64()),
    })
}

/// An error, with the leader's admin port if it is the one to ask.
fn refused(admin: &Admin, error: &Error) -> Response {
    match (error, admin.db.leader()) {
        (Error::NotLeader { .. }, Some((id, Some(info)))) if !info.admin.is_empty() => {
            let told = Error::Invalid(format!("this node follows; ask node {id}, which leads: --addr {}", info.admin));
            failed(&told)
        }
        _ => failed(error),
    }
}

async fn nodes(State(admin): Shared) -> Response {
    match status(&admin.db) {
        Ok(status) => Json(status).into_response(),
        Err(error) => failed(&error),
    }
}

async fn add(State(admin): Shared, Query(node): Query<Add>) -> Response {
    let began = Instant::now();
    match admin.db.add_node(node.id, &node.addr).await {
        Ok(()) => Json(json!({ "added": node.id, "seconds": began.elapsed().as_secs_f64() })).into_response(),
        Err(error) => refused(&admin, &error),
    }
}

async fn moved(State(admin): Shared, Query(node): Query<Move>) -> Response {
    match admin.db.move_node(node.id, &node.addr, node.force).await {
        Ok(()) => Json(json!({ "moved": node.id, "address": node.addr })).into_response(),
        Err(error) => refused(&admin, &error),
    }
}

async fn remove(State(admin): Shared, Query(node): Query<Remove>) -> Response {
    match admin.db.remove_node(node.id, node.force).await {
        Ok(()) => Json(json!({ "removed": node.id })).into_response(),
        Err(error) => refused(&admin, &error),
    }
}

async fn failover(State(admin): Shared, Query(what): Query<Failover>) -> Response {
    if what.dry_run {
        return match admin.db.plan_failover(what.to) {
            Ok(to) => Json(json!({ "would_lead": to })).into_response(),
            Err(error) => refused(&admin, &error),
        };
    }
    let began = Instant::now();
    match admin.db.failover(what.to).await {
        Ok(to) => Json(json!({ "leads": to, "seconds": began.elapsed().as_secs_f64() })).into_response(),
        Err(error) => refused(&admin, &error),
    }
}
