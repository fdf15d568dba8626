//! A data set of eight times the RAM cache and twice the NVMe cache, on a real S3 server: every read is right, the
//! process stays inside its stated memory, and the figures say which tier answered.
//! `HOLDFAST_CACHE_MIB` (default 16) is the RAM cache; everything else follows from it. The full run has 128.

use std::{process::Command, time::Instant};

use holdfast_tests::{
    process::run_measured,
    rows::{Mix, Rows},
    s3::S3Server,
    serve::{Serve, binary},
};

const MIB: u64 = 1 << 20;
const VALUE_BYTES: u64 = 1000;

/// Sizes in MiB.
struct Sizes {
    cache: u64,
    data: u64,
    nvme: u64,
    memtable: u64,
}

fn sizes() -> Sizes {
    let cache = std::env::var("HOLDFAST_CACHE_MIB").ok().and_then(|n| n.parse().ok()).unwrap_or(16);
    Sizes { cache, data: 8 * cache, nvme: 4 * cache, memtable: (cache / 2).min(64) }
}

/// What a process may have resident, by docs/memory.md: the caches' and memtables' settings, and what comes on top.
fn memory_bound(sizes: &Sizes) -> u64 {
    let memtables = 8 * sizes.memtable * 3 / 2;
    // Indexes of spilled memtables, and two objects while one is written: the load outruns its flushes.
    let spill = 32 + 2 * 16;
    (sizes.cache + memtables + spill + 240) * MIB + sizes.nvme * MIB / 50
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_are_right_and_memory_stays_bounded_over_mysql() {
    let sizes = sizes();
    let s3 = S3Server::start();
    let folder = tempfile::tempdir().unwrap();
    let mib = |n: u64| format!("{n}M");
    let server = Serve::new(&folder.path().join("data"))
        .args(["--store", &s3.url("big"), "--memory-cache", &mib(sizes.cache), "--nvme-cache", &mib(sizes.nvme)])
        .args(["--memtable-size", &mib(sizes.memtable)])
        .envs(s3.env())
        .start();
    let rows = Rows::new(sizes.data * MIB / VALUE_BYTES, VALUE_BYTES as usize, 8);
    let began = Instant::now();
    rows.load(&server.url("")).await.expect("load");
    println!("loaded {} rows, {} MiB, in {:.1?}", rows.len(), rows.written_bytes() / MIB, began.elapsed());
    server.admin("checkpoint").await;
    assert_eq!(server.opened_direct("pages.cache"), Some(true), "the NVMe cache bypasses the page cache");

    let before = server.status().await;
    let began = Instant::now();
    let wanted = sizes.cache * 50;
    let enough = {
        let rows = rows.clone();
        move || rows.verified().0 >= wanted
    };
    rows.work(&server.url(""), Mix { writes: 1, ranges: 10 }, 6, enough).await.unwrap();
    let there = rows.verify(&server.url("")).await.unwrap();
    let after = server.status().await;
    let (points, ranges) = rows.verified();
    println!("verified {points} points, {ranges} ranges, all {there} rows in order, in {:.1?}", began.elapsed());

    let grown = |name: &str| after.get(name).unwrap_or(&0) - before.get(name).unwrap_or(&0);
    let tiers = ["ram_hits", "nvme_hits", "fetches"].map(|tier| grown(&format!("Holdfast_cache_{tier}")));
    println!("page reads: RAM {}, NVMe {}, bucket {}", tiers[0], tiers[1], tiers[2]);
    let gets = grown("Holdfast_s3_get_page_requests");
    println!("bucket: {gets} GETs of pages");
    assert!(tiers.iter().all(|hits| *hits > 0), "every tier answers: {tiers:?}");
    assert!(gets > 0 && gets < tiers[2], "scans ask for runs of pages: {gets} GETs for {} pages", tiers[2]);
    let (ram, peak, bound) = (after["Holdfast_cache_ram_bytes"], server.peak_rss(), memory_bound(&sizes));
    println!("RSS: peak {} MiB of {} MiB; RAM cache {} MiB", peak / MIB, bound / MIB, ram / MIB);
    println!("all figures: {after:?}");
    assert!(ram <= sizes.cache * MIB, "the RAM cache has {ram} bytes");
    assert!(peak <= bound, "{peak} bytes resident, {bound} allowed");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_bench_checks_its_reads_and_shows_tiers_and_requests() {
    let sizes = sizes();
    let s3 = S3Server::start();
    let mut bench = Command::new(binary());
    let rows = (sizes.data * MIB / VALUE_BYTES).to_string();
    bench
        .args(["bench", "read-write", "--store", &s3.url("bench"), "--check", "--json", "--flush-after-load"])
        .args(["--rows", &rows, "--value-size", &VALUE_BYTES.to_string()])
        .args(["--operations", &(sizes.cache * 20).to_string()])
        .args(["--memory-cache", &format!("{}M", sizes.cache), "--nvme-cache", &format!("{}M", sizes.nvme)])
        .args(["--memtable-size", &format!("{}M", sizes.memtable)])
        .envs(s3.env());
    let (out, peak) = tokio::task::spawn_blocking(move || run_measured(bench)).await.unwrap();
    let report: serde_json::Value = serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}"));
    println!("{out}");
    let figure = |name: &str| report[name].as_u64().unwrap_or_else(|| panic!("no {name} in {out}"));
    for tier in ["ram_hits", "nvme_hits", "fetches", "verified"] {
        let value = if tier == "verified" { figure(tier) } else { report["engine"][tier].as_u64().unwrap_or(0) };
        assert!(value > 0, "{tier} is {value}");
    }
    for kind in ["get", "put"] {
        assert!(report["engine"]["requests"][kind]["requests"].as_u64() > Some(0), "no {kind} in {out}");
    }
    // The checker holds two numbers per row.
    let bound = memory_bound(&sizes) + sizes.data * MIB / VALUE_BYTES * 16;
    println!("RSS: peak {} MiB of {} MiB", peak / MIB, bound / MIB);
    assert!(peak <= bound, "{peak} bytes resident, {bound} allowed");
}
