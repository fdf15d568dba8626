//! The loss of every node and disk under load: a new server is rebuilt from the bucket alone, on a real S3 server. What is lost
//! is what the archive's lag says; all else is there, whole.

use std::{
    path::Path,
    sync::{Arc, atomic::AtomicBool},
    time::{Duration, Instant},
};

use holdfast_tests::{
    ledger::Ledger,
    s3::S3Server,
    serve::{Serve, run},
};

fn serve(s3: &S3Server, data: &Path, store: &str) -> Serve {
    Serve::new(data).args(["--store", store, "--memtable-size", "1M", "--memory-cache", "16M"]).envs(s3.env())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_loss_of_node_and_disk_costs_the_lag_and_no_more() {
    let (s3, folder) = (S3Server::start(), tempfile::tempdir().unwrap());
    let store = s3.url("loss");
    let ledger = Ledger::new(8);
    let mut data = folder.path().join("node0");
    let mut server = serve(&s3, &data, &store).start();
    ledger.create(&server.url("")).await.unwrap();
    for life in 1..=2 {
        // An object each second, and the time to store one; the machine may be busy.
        let lag = Duration::from_secs(5);
        let url = server.url("");
        let killed = ledger.kill_under_load(&url, lag, || server.kill()).await;
        let acked = ledger.acked();
        std::fs::remove_dir_all(&data).unwrap();
        data = folder.path().join(format!("node{life}"));
        // Without a word a new directory does not take the bucket.
        let refused = serve(&s3, &data, &store).refused();
        assert!(refused.output.contains("belongs to cluster"), "{}", refused.output);

        let began = Instant::now();
        server = serve(&s3, &data, &store).args(["--recover-from", &store]).start();
        let took = began.elapsed();
        let found = ledger.rebase(&server.url("")).await.unwrap();
        let kept: u64 = found.iter().sum();
        println!(
            "life {life}: {acked} acknowledged, {kept} recovered, {} lost, of the last {:?}; ready after {took:?}",
            acked.saturating_sub(kept),
            killed.lost(kept)
        );
        for (writer, (found, archived)) in found.iter().zip(&killed.archived).enumerate() {
            assert!(found >= archived, "writer {writer}: {found} of {archived} acknowledged before the lag");
        }
        // Every transaction that is there is whole, and none is missing before it.
        ledger.check(&server.url("")).await.unwrap();
        let status = server.status().await;
        assert!(status.contains_key("Holdfast_archived_index") && status.contains_key("Holdfast_archive_lag_millis"));
    }
    let fsck = server.admin("fsck").await;
    assert!(fsck.contains("healthy"), "{fsck}");
    assert_eq!(server.terminate(), Some(0));
    // The same command line starts it again.
    let server = serve(&s3, &data, &store).args(["--recover-from", &store]).start();
    ledger.check(&server.url("")).await.unwrap();
    assert_eq!(server.terminate(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_woken_server_notices_and_ends() {
    let (s3, folder) = (S3Server::start(), tempfile::tempdir().unwrap());
    let store = s3.url("woken");
    let ledger = Ledger::new(4);
    let old = serve(&s3, &folder.path().join("old"), &store).start();
    ledger.create(&old.url("")).await.unwrap();
    let load = tokio::spawn({
        let (ledger, url) = (ledger.clone(), old.url(""));
        async move { ledger.run(&url, Arc::new(AtomicBool::new(false))).await }
    });
    ledger.progress(200).await.unwrap();
    let data = folder.path().join("new");
    let arguments =
        ["admin", "recover", "--from", &store, "--data-dir", data.to_str().unwrap()].map(ToOwned::to_owned).to_vec();
    let refused = run(&arguments, s3.env());
    assert!(refused.output.contains("the old cluster still writes"), "{}", refused.output);

    old.pause();
    let recovered = run(&arguments, s3.env());
    assert_eq!(recovered.code, Some(0), "{}", recovered.output);
    assert!(recovered.output.contains("log_index"), "{}", recovered.output);
    let new = serve(&s3, &data, &store).start();
    ledger.rebase(&new.url("")).await.unwrap();
    old.resume();
    let began = Instant::now();
    load.await.unwrap();
    let line = old.wait_for_log("superseded").await;
    assert!(line.contains("acknowledges nothing"), "{line}");
    assert_eq!(old.ended().await, Some(1));
    let acked = ledger.acked();
    let kept: u64 = ledger.rebase(&new.url("")).await.unwrap().iter().sum();
    println!("the woken server ended after {:?}; of {acked} acknowledged {kept} are kept", began.elapsed());
    ledger.check(&new.url("")).await.unwrap();
    assert_eq!(new.terminate(), Some(0));
}
