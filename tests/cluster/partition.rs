//! The leader is cut off from the others in its network namespace, in both directions or in one, while clients still reach
//! every node. `HOLDFAST_PARTITIONS` (default 3) sets the rounds; each kind of cut takes its turn.

use std::time::Instant;

use holdfast_tests::{cluster::Cluster, netns::Way};

use crate::kill::{Load, progress, show, writable_again};
fn rounds() -> usize {
    std::env::var("HOLDFAST_PARTITIONS").ok().and_then(|n| n.parse().ok()).unwrap_or(3)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_is_cut_off_acknowledges_nothing_and_reads_nothing_stale() {
    let cluster = Cluster::in_namespaces(&["--memtable-size", "1M", "--memory-cache", "16M"]).await;
    let load = Load::start(&cluster).await;
    let mut times = Vec::new();
    for round in 0..rounds() {
        progress(&load.clients, 100).await;
        let leader = cluster.leader().await;
        let way = [Way::Both, Way::Inward, Way::Outward][round % 3];
        let at = Instant::now();
        cluster.cut(leader, way);
        times.push(writable_again(&cluster, at).await);
        progress(&load.clients, 100).await;
        cluster.heal(leader);
    }
    show("leader cut off", times);
    load.end().await;
}
