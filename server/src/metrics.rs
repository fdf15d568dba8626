//! What the server counts, and the registry that /metrics prints.

use std::{sync::OnceLock, time::Duration};

use metrics::{Counter, Histogram, counter, describe_counter, describe_histogram, histogram};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};

use crate::wire::consts::com;

/// Upper bounds in seconds of the latency histograms.
const BUCKETS: [f64; 14] =
    [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 10.0];

static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();

/// Installs the process's recorder; call before anything is counted. Later calls return the first one's handle.
pub fn install() -> Result<PrometheusHandle, String> {
    if let Some(handle) = HANDLE.get() {
        return Ok(handle.clone());
    }
    let recorder = PrometheusBuilder::new().set_buckets(&BUCKETS).map_err(|e| e.to_string())?.build_recorder();
    let handle = recorder.handle();
    metrics::set_global_recorder(recorder).map_err(|e| e.to_string())?;
    describe_counter!("holdfast_commands_total", "MySQL commands answered, by command");
    describe_counter!("holdfast_command_errors_total", "MySQL commands answered with an error");
    describe_counter!("holdfast_connections_total", "MySQL connections accepted");
    describe_counter!("holdfast_connections_refused_total", "MySQL connections refused (1040)");
    describe_counter!("holdfast_aborted_logins_total", "MySQL connections that never logged in");
    describe_counter!("holdfast_forwarded_sessions_total", "Sessions that moved from here to the leader");
    describe_counter!("holdfast_hosted_sessions_total", "Sessions that came here from followers");
    describe_histogram!("holdfast_command_seconds", "Time from a command's arrival to its answer");
    Ok(HANDLE.get_or_init(|| handle).clone())
}

/// Handles of the connections' counters: looked up once, so that a command costs a few atomic additions.
pub struct WireMetrics {
    /// Accepted.
    pub connections: Counter,
    /// Refused at the limit or in shutdown.
    pub refused: Counter,
    /// Never logged in.
    pub aborted_logins: Counter,
    /// Commands answered with an error.
    pub errors: Counter,
    /// Sessions that moved to the leader.
    pub forwarded: Counter,
    /// Sessions that came from followers.
    pub hosted: Counter,
    query: (Counter, Histogram),
    execute: (Counter, Histogram),
    prepare: (Counter, Histogram),
    other: (Counter, Histogram),
}

impl Default for WireMetrics {
    fn default() -> Self {
        let of = |name: &'static str| {
            (
                counter!("holdfast_commands_total", "command" => name),
                histogram!("holdfast_command_seconds", "command" => name),
            )
        };
        Self {
            connections: counter!("holdfast_connections_total"),
            refused: counter!("holdfast_connections_refused_total"),
            aborted_logins: counter!("holdfast_aborted_logins_total"),
            errors: counter!("holdfast_command_errors_total"),
            forwarded: counter!("holdfast_forwarded_sessions_total"),
            hosted: counter!("holdfast_hosted_sessions_total"),
            query: of("query"),
            execute: of("execute"),
            prepare: of("prepare"),
            other: of("other"),
        }
    }
}

impl WireMetrics {
    /// Counts one answered command.
    pub fn command(&self, command: u8, took: Duration) {
        let (count, seconds) = match command {
            com::QUERY => &self.query,
            com::STMT_EXECUTE => &self.execute,
            com::STMT_PREPARE => &self.prepare,
            _ => &self.other,
        };
        count.increment(1);
        seconds.record(took.as_secs_f64());
    }
}
