//! `holdfast store probe URL`: checks a store's promises and prints what was seen.

use std::{io::Write, sync::Arc};

use holdfast::{
    clock::{Entropy, SystemClock},
    store::{Limits, RetryPolicy, Store, StoreOptions, probe::probe},
};

use crate::cli::StoreVerb;

/// Probes the store; an unsafe one is an error after its report is printed.
pub async fn run(verb: &StoreVerb) -> Result<(), String> {
    let StoreVerb::Probe { url, json } = verb;
    let options = StoreOptions {
        s3: Vec::new(),
        retry: RetryPolicy::default(),
        limits: Limits::default(),
        clock: Arc::new(SystemClock::new()),
        entropy: Arc::new(Entropy::from_os()),
    };
    let store = Store::open(url, options).map_err(|e| e.to_string())?;
    let report = probe(&store).await.map_err(|e| e.to_string())?;
    let text = if *json {
        serde_json::to_string_pretty(&report).map_err(|e| e.to_string())? + "\n"
    } else {
        format!("{report}\n")
    };
    std::io::stdout().write_all(text.as_bytes()).map_err(|e| e.to_string())?;
    if report.is_safe() { Ok(()) } else { Err(format!("{url} is not safe to use: {}", report.faults().join("; "))) }
}
