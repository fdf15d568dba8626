//! The bucket goes away under load, then refuses every other request, then is slow: commits and cached reads go on, other
//! reads are answered rightly or told at once to come again, and all mends itself.
//! `HOLDFAST_OUTAGE_SECONDS` (default 2) is the length of each of these phases.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;
use holdfast_tests::{
    proxy::{Fault, Proxy},
    s3::S3Server,
    serve::{Serve, Server},
};
use mysql_async::{Conn, Error, prelude::Queryable};
use parking_lot::Mutex;
use rand::{RngExt, SeedableRng, rngs::StdRng};

/// Rows of the table that is read; far more than the cache has room for.
const ROWS: u64 = 12_000;
/// The first of them are read all the time.
const HOT: u64 = 100;
const MIB: u64 = 1 << 20;
/// A look at something that changes.
const LOOK: Duration = Duration::from_millis(50);

/// What clients have seen.
#[derive(Default)]
struct Seen {
    /// Numbers below it are committed.
    committed: AtomicU64,
    /// How long the commits of this phase took.
    commits: Commits,
    hot: AtomicU64,
    cold: AtomicU64,
    /// Cold reads that were told that the bucket does not answer, since when.
    told: AtomicU64,
    /// Cold reads that were told otherwise to try again.
    refused: AtomicU64,
}

/// Microseconds.
struct Commits(Mutex<Histogram<u64>>);

impl Default for Commits {
    fn default() -> Self {
        Self(Mutex::new(Histogram::new(3).unwrap()))
    }
}

impl Commits {
    fn took(&self, time: Duration) {
        self.0.lock().record(time.as_micros() as u64).unwrap();
    }

    /// The median, the 99th percentile and the slowest since the last call, in milliseconds.
    fn of_phase(&self) -> String {
        let mut seen = self.0.lock();
        let [half, most, all] = [0.5, 0.99, 1.0].map(|share| seen.value_at_quantile(share) as f64 / 1e3);
        seen.reset();
        format!("p50 {half:.2} ms, p99 {most:.2} ms, max {all:.0} ms")
    }
}

impl Seen {
    fn counts(&self) -> [u64; 5] {
        [&self.committed, &self.hot, &self.cold, &self.told, &self.refused].map(|count| count.load(SeqCst))
    }
}

fn value(row: u64) -> String {
    format!("{row:08}").repeat(125)
}

async fn load(conn: &mut Conn) {
    conn.query_drop("CREATE DATABASE d").await.unwrap();
    conn.query_drop("CREATE TABLE d.t (id BIGINT PRIMARY KEY, v VARCHAR(1000))").await.unwrap();
    conn.query_drop("CREATE TABLE d.log (id BIGINT PRIMARY KEY, v VARCHAR(1000))").await.unwrap();
    for rows in (0..ROWS).collect::<Vec<_>>().chunks(400) {
        let rows: Vec<String> = rows.iter().map(|row| format!("({row},'{}')", value(*row))).collect();
        conn.query_drop(format!("INSERT INTO d.t VALUES {}", rows.join(","))).await.unwrap();
    }
}

/// Each commit must be taken, whatever the bucket does.
async fn write(url: String, seen: Arc<Seen>) {
    let mut conn = Conn::from_url(url).await.unwrap();
    for number in 0.. {
        let began = Instant::now();
        conn.query_drop(format!("INSERT INTO d.log VALUES ({number},'{}')", value(number))).await.unwrap();
        seen.commits.took(began.elapsed());
        seen.committed.store(number + 1, SeqCst);
    }
}

async fn read(conn: &mut Conn, row: u64) -> Result<(), Error> {
    let found: Option<String> = conn.query_first(format!("SELECT v FROM d.t WHERE id = {row}")).await?;
    assert_eq!(found, Some(value(row)), "row {row}");
    Ok(())
}

/// Each of these reads must be answered.
async fn read_hot(url: String, seen: Arc<Seen>) {
    let mut conn = Conn::from_url(url).await.unwrap();
    for row in (0..HOT).cycle() {
        read(&mut conn, row).await.unwrap();
        seen.hot.fetch_add(1, SeqCst);
    }
}

/// These are answered rightly, or told to try again.
async fn read_cold(url: String, seed: u64, seen: Arc<Seen>) {
    let (mut conn, mut random) = (Conn::from_url(url).await.unwrap(), StdRng::seed_from_u64(seed));
    loop {
        match read(&mut conn, random.random_range(HOT..ROWS)).await {
            Ok(()) => seen.cold.fetch_add(1, SeqCst),
            Err(Error::Server(error)) if error.code == 1105 && error.message.contains("try again later") => {
                let told = error.message.contains("the bucket has not answered since");
                if told { &seen.told } else { &seen.refused }.fetch_add(1, SeqCst)
            }
            Err(error) => panic!("{error}"),
        };
    }
}

async fn status(server: &Server) -> serde_json::Value {
    let text = server.admin_json("status").await;
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// Waits for a look at the status that pleases.
async fn until(server: &Server, what: &str, pleases: impl Fn(&serde_json::Value) -> bool) -> serde_json::Value {
    for _ in 0..600 {
        let status = status(server).await;
        if pleases(&status) {
            return status;
        }
        tokio::time::sleep(LOOK).await;
    }
    panic!("{what} did not come about: {:#}", status(server).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn commits_and_cached_reads_go_on_and_all_mends_itself() {
    let seconds = std::env::var("HOLDFAST_OUTAGE_SECONDS").ok().and_then(|n| n.parse().ok()).unwrap_or(2);
    let phase = Duration::from_secs(seconds);
    let s3 = S3Server::start();
    let proxy = Proxy::start(s3.port());
    let folder = tempfile::tempdir().unwrap();
    let mut env = s3.env();
    env.push(("AWS_ENDPOINT_URL".to_owned(), proxy.endpoint()));
    let server = Serve::new(&folder.path().join("data"))
        .args(["--store", &s3.url("outage"), "--memory-cache", "4M", "--nvme-cache", "0", "--memtable-size", "2M"])
        .envs(env)
        .start();
    let mut conn = Conn::from_url(server.url("")).await.unwrap();
    load(&mut conn).await;
    server.admin("checkpoint").await;

    let seen = Arc::new(Seen::default());
    let mut clients = tokio::task::JoinSet::new();
    clients.spawn(read_hot(server.url(""), seen.clone()));
    while seen.hot.load(SeqCst) < HOT * 20 {
        tokio::time::sleep(LOOK).await;
    }
    clients.spawn(write(server.url(""), seen.clone()));
    for seed in 0..4 {
        clients.spawn(read_cold(server.url(""), seed, seen.clone()));
    }
    let phases = [
        ("well", Fault::None),
        ("gone", Fault::Gone),
        ("half refused", Fault::Fails { status: 503, code: "SlowDown", every: 2 }),
        ("slow", Fault::Slow(Duration::from_secs(2))),
        ("silent", Fault::Silent),
        ("well again", Fault::None),
    ];
    for (name, fault) in phases {
        let (before, requests) = (seen.counts(), proxy.requests());
        proxy.set(fault.clone());
        match fault {
            Fault::Gone | Fault::Silent => {
                let down = until(&server, name, |status| status["troubles"]["bucket"].is_string()).await;
                println!("{name}: {}, {}", down["troubles"]["bucket"], down["outage"]);
                assert!(down["outage"]["log_runway_minutes"].as_f64() > Some(0.0), "{down:#}");
                let (told, hot) = (seen.told.load(SeqCst), seen.hot.load(SeqCst));
                while seen.told.load(SeqCst) < told + 4 || seen.hot.load(SeqCst) < hot + 100 {
                    tokio::time::sleep(LOOK).await;
                }
            }
            _ => {
                until(&server, name, |status| status["troubles"]["bucket"].is_null()).await;
                let cold = seen.cold.load(SeqCst);
                while seen.cold.load(SeqCst) < cold + 4 {
                    tokio::time::sleep(LOOK).await;
                }
            }
        }
        tokio::time::sleep(phase).await;
        let after = seen.counts();
        let [committed, hot, cold, told, refused] = std::array::from_fn(|n| after[n] - before[n]);
        println!(
            "{name}: {committed} commits ({}), {hot} cached reads, {cold} others, {told} told at once, {refused} refused, {} \
             requests; RSS: peak {} MiB",
            seen.commits.of_phase(),
            proxy.requests() - requests,
            server.peak_rss() / MIB
        );
        assert!(committed > 100 && hot > 100, "{name}");
        if let Some(ended) = clients.try_join_next() {
            panic!("{name}: a client has ended: {ended:?}");
        }
    }
    server.admin("checkpoint").await;
    let committed = seen.committed.load(SeqCst);
    clients.shutdown().await;
    let found: Option<(u64, u64)> =
        conn.query_first(format!("SELECT COUNT(*), SUM(id) FROM d.log WHERE id < {committed}")).await.unwrap();
    assert_eq!(found, Some((committed, committed * (committed - 1) / 2)));
    for row in (0..ROWS).step_by(97) {
        read(&mut conn, row).await.unwrap();
    }
    // As docs/memory.md has it: long outages take more for what is on disk meanwhile.
    let away = if seconds > 20 { 80 } else { 0 };
    let (peak, bound) = (server.peak_rss(), (4 + 12 * 2 + 240 + away) * MIB);
    println!("RSS: peak {} MiB of {} MiB", peak / MIB, bound / MIB);
    assert!(peak <= bound, "{peak} bytes resident, {bound} allowed");
    assert_eq!(server.terminate(), Some(0));
}
