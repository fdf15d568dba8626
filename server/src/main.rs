//! The `holdfast` binary: reads the command line, starts the runtime, prints the error.

use std::{io::Write, process::ExitCode};

use clap::{CommandFactory, FromArgMatches};
use holdfast_server::{
    admin, allocator, bench,
    cli::{Cli, Verb},
    config, logging, node, probe,
};

fn main() -> ExitCode {
    allocator::configure();
    let command = Cli::command();
    let (matches, s3) = match config::parse(command, std::env::args_os().collect()) {
        Ok(parsed) => parsed,
        Err(refused) => return refused.print(),
    };
    let cli = match Cli::from_arg_matches(&matches) {
        Ok(cli) => cli,
        Err(error) => error.exit(),
    };
    let threads = match &cli.command {
        Verb::Serve(settings) => settings.worker_threads,
        _ => None,
    };
    let outcome = runtime(threads).and_then(|runtime| {
        let outcome = runtime.block_on(run(cli, s3));
        // A second signal must not wait for what is still running.
        runtime.shutdown_background();
        outcome
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            logging::end();
            // Nothing is left to do if stderr is gone.
            let _ = writeln!(std::io::stderr(), "holdfast: error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn runtime(threads: Option<u16>) -> Result<tokio::runtime::Runtime, String> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    if let Some(threads) = threads {
        builder.worker_threads(threads.into());
    }
    builder.enable_all().thread_name("holdfast").build().map_err(|e| format!("the runtime can't start: {e}"))
}

async fn run(cli: Cli, s3: config::S3Settings) -> Result<(), String> {
    match cli.command {
        Verb::Serve(settings) => {
            logging::install(settings.log_level, settings.log_format)?;
            node::serve(*settings, s3).await
        }
        Verb::Bench(options) => bench::run(*options).await,
        Verb::Admin(verb) => admin::client::run(&verb).await,
        Verb::Store(verb) => probe::run(&verb).await,
    }
}
