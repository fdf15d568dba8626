//! Whole runs on the embedded engine, with every value checked.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic, reason = "test code")]

use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use clap::{Parser, ValueEnum};
use holdfast_benches::{BenchOptions, Error, Progress, Report, workload::Workload};

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    bench: BenchOptions,
}

async fn bench(line: &str) -> Result<Report, Error> {
    let words = std::iter::once("bench").chain(line.split_whitespace());
    let options = Cli::try_parse_from(words).unwrap_or_else(|error| panic!("{error}")).bench;
    holdfast_benches::run(options, &|_| {}).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_workload_runs_and_reads_what_it_wrote() {
    for workload in Workload::value_variants() {
        let name = workload.to_possible_value().unwrap().get_name().to_owned();
        let line = "--store memory:/// --check --rows 500 --operations 300 --threads 4 --value-size 200";
        let report = bench(&format!("{name} {line}")).await.unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(report.operations, 300, "{name}");
        assert!(report.verified.unwrap() >= 500, "{name}: all rows are read at the end");
        let kinds = [report.reads, report.scans, report.commits, report.transactions];
        assert!(kinds.iter().flatten().map(|figures| figures.count).sum::<u64>() >= 300, "{name}");
        assert!(kinds.iter().flatten().all(|f| f.p50_us <= f.p95_us && f.p95_us <= f.p99_us && f.p99_us <= f.max_us));
        assert!(report.to_string().contains("operations/s"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_beyond_its_cache_shows_tiers_requests_and_their_price() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let base = folder.path().display();
    let target = format!("--store file://{base}/bucket --data-dir {base}/data --memory-cache 1M --nvme-cache 16M");
    let size = "--rows 10000 --value-size 1000 --threads 4";
    let load = format!("point-select {target} {size} --operations 5000 --flush-after-load --check");
    let report = bench(&load).await.unwrap();
    let engine = report.engine.as_ref().unwrap();
    assert!(engine.observed.ram_hits + engine.observed.nvme_hits + engine.observed.fetches > 0, "{report}");
    assert!(engine.observed.nvme_hits > 0, "10 MB do not fit 1 MiB of RAM: {report}");

    // The same rows again, in a process that begins with nothing in RAM; updates reach the bucket within the run.
    let again = format!("update {target} {size} --operations 500 --skip-load");
    let report = bench(&again).await.unwrap();
    assert!(report.load.is_none());
    let engine = report.engine.as_ref().unwrap();
    assert!(engine.observed.requests["put"].requests > 0, "{report}");
    assert!(engine.observed.requests["put"].bytes > 0, "{report}");
    assert!(engine.dollars_per_million_operations > 0.0, "{report}");
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["workload"], "update");
    assert!(json["engine"]["requests"]["put"]["requests"].as_u64().unwrap() > 0);
    assert!(json["commits"]["p99_us"].as_f64().unwrap() > 0.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_that_are_not_there_are_an_error() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let base = folder.path().display();
    let line = "point-select --rows 100 --operations 10 --skip-load";
    let target = format!("--store file://{base}/bucket --data-dir {base}/data");
    let error = bench(&format!("{line} {target}")).await.unwrap_err();
    assert!(matches!(&error, Error::Wrong(what) if what.contains("missing")), "{error}");
    bench(&format!("c {target} --rows 100 --operations 10")).await.unwrap();
    for workload in ["update", "insert", "write-only"] {
        let other_keys =
            bench(&format!("{workload} {target} --rows 100 --operations 10 --skip-load")).await.unwrap_err();
        assert!(other_keys.to_string().contains("the same keys"), "{workload}: {other_keys}");
    }
    let more = bench(&format!("a {target} --rows 101 --operations 10 --skip-load")).await.unwrap_err();
    assert!(more.to_string().contains("row 100 of 101"), "{more}");
    let error = bench(&format!("{line} --store file://{base}/other")).await.unwrap_err();
    assert!(error.to_string().contains("--data-dir"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_without_a_data_directory_can_be_repeated_and_leaves_no_folder() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    for _ in 0..2 {
        let line = format!("a --store file://{} --rows 100 --operations 100 --check", folder.path().display());
        bench(&line).await.unwrap();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn progress_is_given_while_it_loads_and_runs() {
    let (loads, runs) = (AtomicU64::new(0), AtomicU64::new(0));
    let options = Cli::try_parse_from("bench a --store memory:/// --rows 2000 --seconds 2".split(' ')).unwrap().bench;
    let sink = |progress: &Progress| match progress {
        Progress::Load { rows, total } => {
            assert!(rows <= total);
            loads.fetch_add(1, SeqCst);
        }
        Progress::Run { measured, .. } => {
            assert!(measured);
            runs.fetch_add(1, SeqCst);
        }
        _ => {}
    };
    let report = holdfast_benches::run(options, &sink).await.unwrap();
    assert!(runs.load(SeqCst) >= 1);
    assert!(loads.load(SeqCst) >= 1);
    assert!(report.operations > 0 && report.seconds >= 2.0);
}

#[tokio::test]
async fn a_server_that_is_not_there_is_a_clear_error() {
    let error = bench("c --addr 127.0.0.1:1 --rows 1").await.unwrap_err();
    assert!(matches!(error, Error::Login { .. }), "{error}");
    assert!(error.to_string().contains("--addr 127.0.0.1:1: cannot log in"), "{error}");
    let error = bench("c --addr nowhere --rows 1").await.unwrap_err();
    assert!(error.to_string().contains("HOST:PORT"), "{error}");
}
