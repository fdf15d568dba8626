//! Power loss of the whole machine: the server's data folder lies on a FUSE disk that drops and tears what was not
//! synced. A disk that ignores syncs must be caught, else the test proves nothing. `HOLDFAST_POWER_RUNS` (default 2).

use std::{
    path::Path,
    sync::{Arc, atomic::AtomicBool},
};

use holdfast_tests::{fuse::MountedDisk, ledger::Ledger, serve::Serve, volatile::Volatile};

fn serve(mount: &Path) -> Serve {
    let store = format!("file://{}/bucket", mount.display());
    let small = ["--memory-cache", "16M", "--nvme-cache", "16M", "--memtable-size", "2M"];
    Serve::new(&mount.join("data")).args(["--store", &store]).args(small)
}

/// Loads, cuts the power, starts again and checks. Returns the disk for the next run.
async fn one_run(disk: Volatile, ledger: &Arc<Ledger>, seed: u64) -> Result<Volatile, String> {
    let folder = tempfile::tempdir().map_err(|e| e.to_string())?;
    let at = folder.path();
    let mounted = MountedDisk::mount(disk, at).map_err(|e| format!("mount: {e}"))?;
    let server = serve(at).try_start()?;
    let url = server.url("");
    ledger.create(&url).await.map_err(|e| e.to_string())?;
    ledger.check(&url).await?;
    let load = tokio::spawn({
        let (ledger, url) = (ledger.clone(), url.clone());
        async move { ledger.run(&url, Arc::new(AtomicBool::new(false))).await }
    });
    let progress = ledger.progress(100 + seed % 7 * 100).await;
    server.kill();
    load.await.map_err(|e| e.to_string())?;
    let after = mounted.power_cut(seed);
    progress.map(|()| after)
}

async fn check_after(disk: Volatile, ledger: &Arc<Ledger>) -> Result<Volatile, String> {
    let folder = tempfile::tempdir().map_err(|e| e.to_string())?;
    let mounted = MountedDisk::mount(disk, folder.path()).map_err(|e| format!("mount: {e}"))?;
    let server = serve(folder.path()).try_start()?;
    let checked = ledger.check(&server.url("")).await;
    server.kill();
    let after = mounted.power_cut(0);
    checked.map(|()| after)
}

#[tokio::test(flavor = "multi_thread")]
async fn no_acknowledged_commit_is_lost_with_the_power() {
    let runs = std::env::var("HOLDFAST_POWER_RUNS").ok().and_then(|n| n.parse().ok()).unwrap_or(2);
    let ledger = Ledger::new(6);
    let mut disk = Volatile::default();
    for seed in 1..=runs {
        disk = one_run(disk, &ledger, seed).await.unwrap_or_else(|loss| panic!("run {seed}: {loss}"));
        disk = check_after(disk, &ledger).await.unwrap_or_else(|loss| panic!("after run {seed}: {loss}"));
        println!("run {seed}: {} transactions acknowledged, all there", ledger.acked());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_test_notices_when_syncs_do_nothing() {
    let ledger = Ledger::new(6);
    let mut lying = Volatile::default();
    lying.ignore_sync = true;
    let lost = match one_run(lying, &ledger, 1).await {
        Ok(disk) => check_after(disk, &ledger).await.err(),
        Err(e) => panic!("the run itself failed: {e}"),
    };
    assert!(lost.is_some(), "{} transactions survived a disk that syncs nothing", ledger.acked());
}
