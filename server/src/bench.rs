//! `holdfast bench`: runs a workload of the benches library, with progress on stderr and the report on stdout.

use std::io::{IsTerminal, Write};

use holdfast_benches::{BenchOptions, Progress};

/// Runs the benchmark and prints its table, or JSON.
pub async fn run(options: BenchOptions) -> Result<(), String> {
    let json = options.json;
    let on_terminal = std::io::stderr().is_terminal();
    let progress = move |progress: &Progress| {
        // Progress is a courtesy: a closed stderr must not end the run.
        let _ = match on_terminal {
            true => write!(std::io::stderr(), "\r\x1b[K{progress}"),
            false => writeln!(std::io::stderr(), "{progress}"),
        };
    };
    let outcome = holdfast_benches::run(options, &progress).await;
    if on_terminal {
        let _ = write!(std::io::stderr(), "\r\x1b[K");
    }
    let report = outcome.map_err(|e| e.to_string())?;
    let text = if json {
        serde_json::to_string_pretty(&report).map_err(|e| e.to_string())? + "\n"
    } else {
        format!("{report}\n")
    };
    std::io::stdout().write_all(text.as_bytes()).map_err(|e| format!("stdout: {e}"))
}
