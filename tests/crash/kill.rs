//! kill -9 under load, round after round: every acknowledged transaction is there afterwards, whole; also when the NVMe
//! cache was deleted or filled with garbage meanwhile. `HOLDFAST_KILL_ROUNDS` (default 4) sets the rounds.

use std::{
    path::Path,
    sync::{Arc, atomic::AtomicBool},
    time::Instant,
};

use holdfast_tests::{ledger::Ledger, s3::S3Server, serve::Serve};
use rand::{RngExt, SeedableRng, rngs::StdRng};

fn rounds() -> u64 {
    std::env::var("HOLDFAST_KILL_ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(4)
}

/// What happens to the cache files while the server is down.
fn spoil_cache(data: &Path, round: u64) {
    let Ok(files) = std::fs::read_dir(data.join("cache")) else { return };
    for file in files.flatten().filter(|f| f.path().is_file()) {
        match round % 3 {
            0 => {}
            1 => std::fs::remove_file(file.path()).expect("delete a cache file"),
            _ => {
                let len = file.metadata().expect("metadata").len() as usize;
                std::fs::write(file.path(), vec![0xA5; len]).expect("overwrite a cache file");
            }
        }
    }
}

async fn kill_rounds(store: &str, env: Vec<(String, String)>) {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let store = store.replace("{folder}", &folder.path().display().to_string());
    let serve = || {
        let small = ["--memory-cache", "16M", "--nvme-cache", "64M", "--memtable-size", "4M"];
        Serve::new(&data).args(["--store", &store]).args(small).envs(env.clone())
    };
    let ledger = Ledger::new(8);
    let mut rng = StdRng::seed_from_u64(20);
    for round in 0..rounds() {
        let started = Instant::now();
        let server = serve().start();
        println!("round {round}: ready after {:?}", started.elapsed());
        let url = server.url("");
        if round == 0 {
            ledger.create(&url).await.expect("create the tables");
        }
        ledger.check(&url).await.unwrap_or_else(|loss| panic!("round {round}: {loss}"));
        let load = tokio::spawn({
            let (ledger, url) = (ledger.clone(), url.clone());
            async move { ledger.run(&url, Arc::new(AtomicBool::new(false))).await }
        });
        ledger.progress(rng.random_range(50..2_000)).await.unwrap();
        server.kill();
        load.await.unwrap();
        spoil_cache(&data, round);
    }
    let server = serve().start();
    ledger.check(&server.url("")).await.unwrap();
    println!("{} transactions acknowledged, all there", ledger.acked());
    assert_eq!(server.terminate(), Some(0), "SIGTERM ends the server with 0");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_acknowledged_is_lost_on_a_folder() {
    kill_rounds("file://{folder}/bucket", Vec::new()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_acknowledged_is_lost_on_s3() {
    let s3 = S3Server::start();
    kill_rounds(&s3.url("kill"), s3.env()).await;
}
