//! Log lines to stderr, as text or JSON.

use std::{
    io::IsTerminal,
    sync::atomic::{AtomicBool, Ordering},
};

use tracing_subscriber::{EnvFilter, filter::LevelFilter, fmt::writer::MakeWriterExt};

use crate::cli::{LogFormat, LogLevel};

/// Nothing is logged any more.
static ENDED: AtomicBool = AtomicBool::new(false);

/// Drops what threads that are still running would log: the error that ends the process is its last line.
pub fn end() {
    ENDED.store(true, Ordering::Release);
}

/// Installs the process's subscriber. RUST_LOG, if set, picks lines by module instead of `level`.
pub fn install(level: LogLevel, format: LogFormat) -> Result<(), String> {
    let level = match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    // Raft's own lines are for its developers, unless they are asked for: what matters of them the log says in its words.
    let directives = match std::env::var("RUST_LOG") {
        Ok(directives) if !directives.is_empty() => directives,
        _ if level <= LevelFilter::INFO => format!("{level},openraft=off"),
        _ => level.to_string(),
    };
    let filter = EnvFilter::try_new(&directives).map_err(|e| format!("RUST_LOG: {e}"))?;
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        // It would tell of a failed write on stderr, which is what failed: a panic.
        .log_internal_errors(false)
        .with_writer(std::io::stderr.with_filter(|_| !ENDED.load(Ordering::Acquire)))
        .with_ansi(std::io::stderr().is_terminal());
    match format {
        LogFormat::Text => lines.try_init(),
        LogFormat::Json => lines.json().flatten_event(true).try_init(),
    }
    .map_err(|e| e.to_string())
}
