//! All three nodes and their disks are destroyed under load, after leaders were killed: the cluster is rebuilt from the bucket,
//! by one node that two others join. What is lost is what the archive's lag says; all else is there, whole, on every node.

use std::time::{Duration, Instant};

use holdfast_tests::{cluster::Cluster, ledger::Ledger, serve::Server};

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_is_gone_comes_back_from_the_bucket() {
    let mut cluster = Cluster::start(&["--memtable-size", "1M", "--memory-cache", "16M"]).await;
    let ledger = Ledger::new(8);
    let leader = cluster.leader().await;
    ledger.create(&cluster.url(leader)).await.unwrap();
    // The archive goes from leader to leader.
    for _ in 0..2 {
        let leader = cluster.leader().await;
        let (url, server) = (cluster.url(leader), cluster.take(leader));
        ledger.kill_under_load(&url, Duration::from_secs(1), || server.kill()).await;
        cluster.restart(leader).await;
    }
    let leader = cluster.leader().await;
    let url = cluster.url(leader);
    let servers = [1, 2, 3].map(|id| cluster.take(id));
    // All stop at once, then end.
    let kill = || {
        servers.iter().for_each(Server::pause);
        servers.into_iter().for_each(Server::kill);
    };
    // An object each second, and the time to store one; the machine may be busy.
    let killed = ledger.kill_under_load(&url, Duration::from_secs(5), kill).await;
    let acked = ledger.acked();
    (1..=3).for_each(|id| cluster.destroy(id));

    let began = Instant::now();
    cluster.recover(1).await;
    let found = ledger.rebase(&cluster.url(1)).await.unwrap();
    let (kept, one): (u64, _) = (found.iter().sum(), began.elapsed());
    cluster.join(2).await;
    cluster.join(3).await;
    let all = began.elapsed();
    let lost = killed.lost(kept);
    println!(
        "{acked} acknowledged, {kept} recovered, {} lost, of the last {lost:?}; one node ready after {one:?}, three after {all:?}",
        acked.saturating_sub(kept),
    );
    for (writer, (found, archived)) in found.iter().zip(&killed.archived).enumerate() {
        assert!(found >= archived, "writer {writer}: {found} of {archived} acknowledged before the lag");
    }
    // Every transaction that is there is whole, and none is missing before it: on each node.
    for id in 1..=3 {
        ledger.check(&cluster.url(id)).await.unwrap();
    }
    let fsck = cluster.admin(1, &["fsck"]).await;
    assert!(fsck.code == Some(0) && fsck.output.contains("healthy"), "{}", fsck.output);
    // It is a cluster again: it outlives its leader.
    let leader = cluster.leader().await;
    let server = cluster.take(leader);
    tokio::task::spawn_blocking(move || server.kill()).await.unwrap();
    let next = cluster.leader().await;
    ledger.check(&cluster.url(next)).await.unwrap();
}
