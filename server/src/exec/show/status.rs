//! SHOW STATUS: the session's TLS, the server's connections, those that other nodes have a part in, its uptime, and every counter of the engine.

use super::Table;
use crate::{session::state::State, sql::value::Value};

/// Rows of SHOW [GLOBAL | SESSION] STATUS, by name.
pub fn status(_global: bool, state: &State) -> Table {
    let shared = &state.shared;
    let (connections, running) = shared.processes.counts();
    let (forwarded, hosted) = shared.processes.forwarded();
    let tls = state.login.tls.clone().unwrap_or_default();
    let mut rows: Vec<(String, String)> = vec![
        ("Holdfast_sessions_forwarded".into(), forwarded.to_string()),
        ("Holdfast_sessions_hosted".into(), hosted.to_string()),
        ("Max_connections".into(), shared.processes.max_connections().to_string()),
        ("Ssl_cipher".into(), tls.0),
        ("Ssl_version".into(), tls.1),
        ("Threads_connected".into(), connections.to_string()),
        ("Threads_running".into(), running.to_string()),
        ("Uptime".into(), shared.started.elapsed().as_secs().to_string()),
    ];
    let engine = shared.catalog.db().stats().variables();
    rows.extend(engine.into_iter().map(|(name, n)| (name, n.to_string())));
    rows.sort();
    Table::new(&["Variable_name", "Value"], rows.into_iter().map(|(n, v)| vec![Value::str(n), Value::str(v)]).collect())
}
