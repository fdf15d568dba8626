//! Steady writes on a real S3 server: no key is ever written twice (by the server's own log), the bucket does not hold
//! much more than what is alive, dead objects go, and the log stays small.
//! `HOLDFAST_WRITE_MIB` (default 256) is how much is to be stored in the bucket, all writes of the same bytes together;
//! everything else follows from it. The full run has 10240.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use holdfast_tests::{
    rows::{Mix, Rows},
    s3::S3Server,
    serve::{Serve, Server},
};

const MIB: u64 = 1 << 20;
const FLUSHES: u64 = 50;
const VALUE_BYTES: u64 = 1000;
/// How long the background may need to come to rest, the grace of dead objects included.
const REST: Duration = Duration::from_secs(120);

fn goal() -> u64 {
    std::env::var("HOLDFAST_WRITE_MIB").ok().and_then(|n| n.parse().ok()).unwrap_or(256) * MIB
}

/// Bytes of objects that were put.
fn put_bytes(status: &std::collections::BTreeMap<String, u64>) -> u64 {
    ["flush", "compaction"].iter().filter_map(|cause| status.get(&format!("Holdfast_s3_put_{cause}_bytes"))).sum()
}

fn folder_bytes(folder: &Path) -> u64 {
    let files = std::fs::read_dir(folder).expect("the log's folder").flatten();
    files.filter_map(|file| file.metadata().ok()).map(|metadata| metadata.len()).sum()
}

/// The highest figures while the load runs.
#[derive(Debug, Default)]
struct Peaks {
    log_bytes: u64,
    stored_bytes: u64,
    runs: u64,
    frozen_bytes: u64,
}

/// Watches until enough is stored in the bucket; then tells the clients.
async fn watch(server: &Server, log: &Path, enough: &AtomicBool) -> Peaks {
    let (goal, mut peaks) = (goal(), Peaks::default());
    while !enough.load(SeqCst) {
        let status = server.status().await;
        let figure = |name: &str| status[&format!("Holdfast_{name}")];
        peaks.log_bytes = peaks.log_bytes.max(folder_bytes(log));
        peaks.stored_bytes = peaks.stored_bytes.max(figure("tree_bytes") + figure("tree_dead_bytes"));
        peaks.runs = peaks.runs.max(figure("tree_runs"));
        peaks.frozen_bytes = peaks.frozen_bytes.max(figure("memtables_frozen_bytes"));
        enough.store(put_bytes(&status) >= goal && figure("flushes") >= FLUSHES, SeqCst);
        // Samples, not an event.
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    peaks
}

/// Waits until compaction has nothing to do and everything dead is deleted.
async fn rest(server: &Server) {
    let until = Instant::now() + REST;
    let mut last = 0;
    loop {
        let status = server.status().await;
        let (installed, dead) = (status["Holdfast_tree_installed"], status["Holdfast_tree_dead_bytes"]);
        if dead == 0 && status["Holdfast_tree_orphans"] == 0 && installed == last {
            return;
        }
        assert!(Instant::now() < until, "{dead} dead bytes are not deleted: {status:?}");
        last = installed;
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn steady_writes_keep_bucket_and_log_small() {
    let memtable = (goal() / 640).clamp(MIB, 16 * MIB);
    let data = (goal() / 40).max(8 * MIB);
    let s3 = S3Server::start();
    let folder = tempfile::tempdir().unwrap();
    let data_dir = folder.path().join("data");
    let server = Serve::new(&data_dir)
        .args(["--store", &s3.url("steady"), "--memory-cache", "64M", "--memtable-size", &memtable.to_string()])
        .args(["--nvme-cache", &(2 * data).max(64 * MIB).to_string()])
        .envs(s3.env())
        .start();
    let rows = Rows::new(data / VALUE_BYTES, VALUE_BYTES as usize, 8);
    let began = Instant::now();
    rows.load(&server.url("")).await.expect("load");
    let enough = Arc::new(AtomicBool::new(false));
    let stop = {
        let enough = enough.clone();
        move || enough.load(SeqCst)
    };
    let log = data_dir.join("log");
    let url = server.url("");
    let (worked, peaks) =
        tokio::join!(rows.work(&url, Mix { writes: 90, ranges: 2 }, 7, stop), watch(&server, &log, &enough));
    worked.unwrap();
    let took = began.elapsed();
    server.admin("checkpoint").await;
    rest(&server).await;
    rows.verify(&url).await.unwrap();

    let status = server.status().await;
    let figure = |name: &str| status[&format!("Holdfast_{name}")];
    let history = s3.bucket_log("steady");
    let (user, put, live, stored) = (rows.written_bytes(), put_bytes(&status), rows.live_bytes(), history.bytes_now());
    println!(
        "{} flushes and {} compactions in {took:.1?}: {} MiB written by users, {} MiB put into objects (x{:.1})",
        figure("flushes"),
        figure("compactions"),
        user / MIB,
        put / MIB,
        put as f64 / user as f64
    );
    println!("{} MiB alive, {} MiB stored at the end ({:.2})", live / MIB, stored / MIB, live as f64 / stored as f64);
    println!(
        "log: {} MiB at the end; peaks {peaks:?}; RSS peak {} MiB",
        folder_bytes(&log) / MIB,
        server.peak_rss() / MIB
    );
    println!("all figures: {status:?}");

    assert!(figure("flushes") >= FLUSHES && put >= goal());
    // The S3 server's own account. Owner and probe objects are the ones that are meant to be written again.
    let incarnation = history.0.keys().find_map(|key| key.split_once("/obj/")).map(|(folder, _)| folder.to_owned());
    let incarnation = incarnation.expect("objects are stored");
    let [objects, manifests] = ["obj", "manifest"].map(|folder| format!("{incarnation}/{folder}/"));
    let used_once: Vec<_> = history.below(&objects).chain(history.below(&manifests)).collect();
    println!("{} object and manifest keys in the S3 server's log", used_once.len());
    let twice: Vec<_> = used_once.iter().filter(|(_, history)| history.writes() != 1).collect();
    assert!(twice.is_empty(), "written more than once: {twice:?}");
    let logged: u64 = history.below(&objects).map(|(_, history)| history.bytes_written).sum();
    assert_eq!(logged, put, "bytes of objects by the S3 server's log and by our own count");
    let (alive, alive_bytes) = history
        .below(&objects)
        .filter_map(|(_, history)| history.bytes_now)
        .fold((0, 0), |(count, sum), bytes| (count + 1, sum + bytes));
    assert_eq!((alive, alive_bytes), (figure("tree_objects"), figure("tree_bytes")), "dead objects are gone");
    let kept = history.below(&manifests).filter(|(_, h)| h.bytes_now.is_some()).count();
    assert!(kept <= 6, "{kept} manifests are kept");
    assert!(live * 2 >= stored, "{live} bytes alive of {stored} stored");
    assert!(peaks.log_bytes <= LOG_BYTES, "the log had {} bytes", peaks.log_bytes);
}

/// Segments of 32 MiB: those that hold what is not flushed, the reserve, spares.
const LOG_BYTES: u64 = 512 * MIB;
