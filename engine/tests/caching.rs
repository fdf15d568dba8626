//! The page cache under a database: records expire on the database's clock, over restarts too.
#![allow(clippy::unwrap_used, reason = "a failed test may panic")]

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use holdfast::{Batch, Db, Durability, Keyspace, Options, ScanOptions, clock::Clock};

/// Started with the process, as the machine's monotonic clock is; the wall clock runs beside it.
struct SetClock {
    since_start: AtomicU64,
    started_at: u64,
}

impl SetClock {
    fn started_at(seconds: u64) -> Arc<Self> {
        Arc::new(Self { since_start: AtomicU64::new(0), started_at: seconds })
    }

    fn advance(&self, seconds: u64) {
        self.since_start.fetch_add(seconds, SeqCst);
    }
}

impl Clock for SetClock {
    fn now(&self) -> Duration {
        Duration::from_secs(self.since_start.load(SeqCst))
    }

    fn unix_millis(&self) -> u64 {
        (self.started_at + self.since_start.load(SeqCst)) * 1000
    }
}

async fn open(folder: &Path, clock: &Arc<SetClock>) -> Db {
    let mut options = Options::default();
    options.nvme_cache = Some(16 << 20);
    options.cache_ttl = Some(Duration::from_secs(60));
    options.clock = Some(clock.clone());
    Db::open(&format!("file://{}", folder.join("bucket").display()), options).await.unwrap()
}

/// A database with one row, whose page is in the bucket.
async fn open_with_a_row(folder: &Path, clock: &Arc<SetClock>) -> Db {
    let db = open(folder, clock).await;
    let keyspace = db.keyspace("k").await.unwrap();
    db.put(&keyspace, "key", "value").await.unwrap();
    db.checkpoint().await.unwrap();
    db
}

/// Pages fetched from the bucket while one row is read.
async fn fetches(db: &Db) -> u64 {
    let before = db.stats().cache.fetches;
    let keyspace = db.keyspace("k").await.unwrap();
    assert_eq!(db.get(&keyspace, b"key").await.unwrap().as_deref(), Some(&b"value"[..]));
    db.stats().cache.fetches - before
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_expire_on_the_clock_of_the_database_and_nvme_keeps_their_deadline_over_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let clock = SetClock::started_at(1_000_000);
    let db = open_with_a_row(folder.path(), &clock).await;
    clock.advance(30);
    assert_eq!(fetches(&db).await, 0, "the flush put the page into the cache");
    clock.advance(31);
    assert_eq!(fetches(&db).await, 1, "it expired in RAM and on NVMe");
    assert_eq!(fetches(&db).await, 0);
    db.close().await.unwrap();
    drop(db);

    // Another process: its monotonic clock starts again, 40 s later.
    let clock = SetClock::started_at(1_000_101);
    let db = open(folder.path(), &clock).await;
    assert_eq!(fetches(&db).await, 0, "NVMe still has it");
    clock.advance(20);
    assert_eq!(fetches(&db).await, 1, "60 s after it was fetched it is gone");
    db.close().await.unwrap();
}

/// A page is never wrong, only old: with the bucket away it is served past its TTL, which is for pages nobody wants.
#[tokio::test(flavor = "multi_thread")]
async fn an_expired_page_is_served_while_the_bucket_is_away() {
    let folder = tempfile::tempdir().unwrap();
    let clock = SetClock::started_at(1_000_000);
    let db = open_with_a_row(folder.path(), &clock).await;
    let keyspace = db.keyspace("k").await.unwrap();
    clock.advance(61);
    let (here, away) = (folder.path().join("bucket"), folder.path().join("away"));
    std::fs::rename(&here, &away).unwrap();
    assert_eq!(db.get(&keyspace, b"key").await.unwrap().as_deref(), Some(&b"value"[..]));
    assert_eq!(db.stats().cache.stale_on_error, 1);
    std::fs::rename(&away, &here).unwrap();
    assert_eq!(fetches(&db).await, 1, "back again, it is fetched");
    assert_eq!(fetches(&db).await, 0);
    db.close().await.unwrap();
}

/// Puts the rows from 0 on, of a kilobyte each.
async fn fill(db: &Db, keyspace: &Keyspace, rows: u64, byte: u8) {
    for rows in (0..rows).collect::<Vec<_>>().chunks(100) {
        let mut batch = Batch::new();
        rows.iter().for_each(|row| batch.put(keyspace, row.to_be_bytes().to_vec(), vec![byte; 1000]));
        db.write(batch, Durability::Quorum).await.unwrap();
    }
}

/// The value of a figure of the database.
fn figure(db: &Db, name: &str) -> u64 {
    db.stats().counters.iter().find(|(of, _)| *of == name).unwrap().1
}

/// Pages that were read often die in each compaction. What replaces them must be in RAM in their stead, although nobody
/// has read it yet.
#[tokio::test(flavor = "multi_thread")]
async fn pages_that_readers_want_stay_in_ram_through_flushes_and_compactions() {
    const ROWS: u64 = 2000;
    let folder = tempfile::tempdir().unwrap();
    let mut options = Options::default();
    options.memory_cache = Some(6 << 20);
    let db = Db::open(&format!("file://{}", folder.path().join("bucket").display()), options).await.unwrap();
    let keyspace = db.keyspace("k").await.unwrap();
    let key = |row: u64| row.to_be_bytes().to_vec();
    let mut fetched = Vec::new();
    for round in 0..8u8 {
        fill(&db, &keyspace, ROWS, round).await;
        db.checkpoint().await.unwrap();
        // Well before the grace of the dead objects ends, only what is alive is in RAM.
        let settled = async {
            while figure(&db, "tree_runs") > 1 || db.stats().cache.ram_bytes > 3 << 20 {
                db.collect_garbage(false).await.unwrap();
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(5), settled).await.unwrap();
        let before = db.stats().cache.fetches;
        for _ in 0..20 {
            for row in 0..ROWS {
                assert_eq!(db.get(&keyspace, &key(row)).await.unwrap().unwrap()[..], [round; 1000]);
            }
        }
        fetched.push(db.stats().cache.fetches - before);
    }
    // 2 MiB of pages are alive, some 130 of them; RAM has room for three times that.
    assert!(fetched.iter().skip(1).all(|pages| *pages < 20), "pages fetched per round: {fetched:?}");
    db.close().await.unwrap();
}

/// A process that begins with a cold cache fetches what was hot before, with a few requests for all of it, so that readers find
/// it in RAM.
#[tokio::test(flavor = "multi_thread")]
async fn a_restart_is_warm_before_its_readers_ask() {
    const ROWS: u64 = 4000;
    let (folder, bucket) = (tempfile::tempdir().unwrap(), holdfast::store::in_memory());
    let open = async || {
        let mut options = Options::default();
        options.data_dir = Some(folder.path().to_owned());
        options.bucket = Some(bucket.clone());
        options.hot_list_interval = Some(Duration::from_millis(50));
        Db::open("memory:///warm", options).await.unwrap()
    };
    let until = async |db: &Db, name: &str, least: u64| {
        let reached = async {
            while figure(db, name) < least {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), reached).await.unwrap_or_else(|_| panic!("{name} < {least}"));
    };
    let key = |row: u64| row.to_be_bytes().to_vec();
    let read = async |db: &Db| {
        let keyspace = db.keyspace("k").await.unwrap();
        let before = db.stats().cache.fetches;
        for row in 0..ROWS {
            assert_eq!(db.get(&keyspace, &key(row)).await.unwrap().unwrap()[..], [7; 1000]);
        }
        db.stats().cache.fetches - before
    };
    let db = open().await;
    let keyspace = db.keyspace("k").await.unwrap();
    for rows in (0..ROWS).collect::<Vec<_>>().chunks(100) {
        let mut batch = Batch::new();
        rows.iter().for_each(|row| batch.put(&keyspace, key(*row), vec![7; 1000]));
        db.write(batch, Durability::Quorum).await.unwrap();
    }
    db.checkpoint().await.unwrap();
    read(&db).await;
    until(&db, "hot_lists_written", 1).await;
    let listed = figure(&db, "hot_lists_written");
    // Each list replaces the one before, and an idle database writes none.
    read(&db).await;
    until(&db, "hot_lists_written", listed + 1).await;
    let replaced = async {
        while bucket.list("", None, 1000).await.unwrap().iter().filter(|of| of.key.contains("/hot/")).count() != 1 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), replaced).await.unwrap();
    db.close().await.unwrap();
    drop(db);

    let db = open().await;
    until(&db, "hot_lists_read", 1).await;
    let pages = figure(&db, "warmed_pages");
    assert!(pages > 200, "{pages} pages were fetched");
    let requests: u64 =
        db.stats().requests.iter().filter(|of| of.kind == "get" && of.cause == "warm").map(|of| of.requests).sum();
    assert!(requests * 20 < pages, "{requests} requests for {pages} pages");
    assert_eq!(read(&db).await, 0);
    db.close().await.unwrap();
}

#[tokio::test]
async fn a_ttl_of_nothing_is_refused() {
    let mut options = Options::default();
    options.cache_ttl = Some(Duration::ZERO);
    let error = Db::open("memory:///", options).await.err().unwrap().to_string();
    assert!(error.contains("cache_ttl"), "{error}");
}

/// Requests for pages so far, and pages that they brought.
fn page_reads(db: &Db) -> (u64, u64) {
    let stats = db.stats();
    let requests = stats.requests.iter().filter(|count| (count.kind, count.cause) == ("get", "page"));
    (requests.map(|count| count.requests).sum(), stats.cache.fetches)
}

async fn scan(db: &Db, keyspace: &Keyspace, options: ScanOptions, rows: usize) -> usize {
    let (mut scan, mut found) = (db.scan(keyspace, options).unwrap(), Vec::new());
    while found.len() < rows && scan.next_batch(&mut found, 100).await.unwrap() > 0 {}
    assert!(found.is_sorted_by(|a, b| a.key < b.key) || found.is_sorted_by(|a, b| a.key > b.key));
    found.len()
}

/// Page by page a scan would make as many requests as there are pages.
#[tokio::test(flavor = "multi_thread")]
async fn a_scan_asks_for_many_pages_at_once_and_for_none_twice() {
    const ROWS: usize = 8000;
    let folder = tempfile::tempdir().unwrap();
    let url = format!("file://{}", folder.path().join("bucket").display());
    let mut options = Options::default();
    // Too small to keep what is read ahead.
    options.memory_cache = Some(64 << 10);
    let db = Db::open(&url, options).await.unwrap();
    let keyspace = db.keyspace("k").await.unwrap();
    fill(&db, &keyspace, ROWS as u64, 7).await;
    db.put(&keyspace, "large", vec![9; 3 << 20]).await.unwrap();
    db.checkpoint().await.unwrap();
    let pages = figure(&db, "tree_bytes") / ((16 << 10) - 64);
    assert!(pages > 500);
    let end = ScanOptions::range(0u64.to_be_bytes().to_vec(), (ROWS as u64).to_be_bytes().to_vec());
    // Who wants little gets little.
    let before = page_reads(&db);
    assert_eq!(scan(&db, &keyspace, end.clone(), 100).await, 100);
    let fetched = page_reads(&db).1 - before.1;
    assert!(fetched <= 40, "{fetched} pages fetched for 100 rows");
    let before = page_reads(&db);
    assert_eq!(db.get(&keyspace, b"large").await.unwrap().unwrap(), vec![9; 3 << 20]);
    let requests = page_reads(&db).0 - before.0;
    assert!(requests <= 6, "{requests} requests for a value of 3 MiB");
    for options in [end.clone(), end.clone().reversed()] {
        let (before, runs) = (page_reads(&db), figure(&db, "tree_runs"));
        assert_eq!(scan(&db, &keyspace, options, usize::MAX).await, ROWS);
        let after = page_reads(&db);
        let (requests, fetched) = (after.0 - before.0, after.1 - before.1);
        assert!(fetched > 480 && fetched <= pages, "{fetched} of {pages} pages fetched");
        // In each run the window grows from one page to 64. There is one run, or more if a slow machine flushed meanwhile.
        assert!(requests <= 8 * runs + fetched / 32, "{requests} requests for {fetched} pages in {runs} runs");
    }
    // A scan that ends early leaves the rest alone. The last one here: what it read ahead may still come after it.
    let before = page_reads(&db);
    assert_eq!(scan(&db, &keyspace, end, 2000).await, 2000);
    let fetched = page_reads(&db).1 - before.1;
    assert!(fetched * 4 < pages * 3, "{fetched} of {pages} pages fetched for a quarter of the rows");
    db.close().await.unwrap();
}

/// A request costs more than the pages between two that are missing.
#[tokio::test(flavor = "multi_thread")]
async fn a_range_with_some_pages_in_the_cache_takes_one_request_for_the_others() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("file://{}", folder.path().join("bucket").display());
    let mut options = Options::default();
    options.data_dir = Some(folder.path().join("data"));
    let db = Db::open(&url, options.clone()).await.unwrap();
    let keyspace = db.keyspace("k").await.unwrap();
    fill(&db, &keyspace, 500, 1).await;
    db.checkpoint().await.unwrap();
    db.close().await.unwrap();
    drop(db);

    // Nothing is in RAM.
    let db = Db::open(&url, options).await.unwrap();
    let keyspace = db.keyspace("k").await.unwrap();
    for row in [130u64, 170] {
        db.get(&keyspace, &row.to_be_bytes()).await.unwrap().unwrap();
    }
    let range = ScanOptions { limit_hint: 100, ..ScanOptions::range(105u64.to_be_bytes().to_vec(), vec![255]) };
    let before = page_reads(&db);
    assert_eq!(scan(&db, &keyspace, range.clone(), 100).await, 100);
    let after = page_reads(&db);
    assert!(after.1 - before.1 >= 4, "{} pages", after.1 - before.1);
    assert_eq!(after.0 - before.0, 1);
    assert_eq!(scan(&db, &keyspace, range, 100).await, 100);
    assert_eq!(page_reads(&db), after);
    db.close().await.unwrap();
}
