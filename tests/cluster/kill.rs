//! The leader is killed, frozen or asked to step down, again and again, while clients write and read on all nodes: their
//! history must be linearizable. `HOLDFAST_LEADER_KILLS` (default 3) sets the rounds of each kind, `HOLDFAST_FROZEN_SECS` (default 0)
//! how long a frozen leader sleeps at least; `HOLDFAST_OLD_BIN` names an older release that the nodes run until they restart in
//! turn; `HOLDFAST_LOAD` (default 4) says how many clients write, and how many read.

use std::{
    sync::{Arc, atomic::Ordering::SeqCst},
    time::{Duration, Instant},
};

use holdfast_tests::{
    cluster::{Clients, Cluster},
    linear::{self, Action},
    process::Busy,
};
use mysql_async::{Conn, prelude::Queryable};

fn frozen() -> Duration {
    Duration::from_secs(std::env::var("HOLDFAST_FROZEN_SECS").ok().and_then(|n| n.parse().ok()).unwrap_or(0))
}

fn rounds() -> u64 {
    std::env::var("HOLDFAST_LEADER_KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(3)
}

fn load() -> usize {
    std::env::var("HOLDFAST_LOAD").ok().and_then(|n| n.parse().ok()).unwrap_or(4)
}

/// Clients that write and read single rows on all nodes of a cluster.
pub struct Load {
    pub clients: Arc<Clients>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
    busy: Busy,
}

impl Load {
    /// Makes the table and starts the clients.
    pub async fn start(cluster: &Cluster) -> Self {
        Self::on(cluster, cluster.urls()).await
    }

    /// The same, with clients of these nodes.
    pub async fn on(cluster: &Cluster, urls: Vec<String>) -> Self {
        let clients = Clients::new(urls, 16, Duration::from_millis(2));
        let first = cluster.leader().await;
        clients.create(&cluster.node(first).url("")).await;
        let tasks = clients.run(load(), load());
        Self { clients, tasks, busy: Busy::begin() }
    }

    /// Ends the clients and checks what they saw.
    pub async fn end(self) {
        println!("the CPU was busy for {} % of the time, restarts included", self.busy.percent());
        end(&self.clients, self.tasks).await;
    }
}

/// Waits for some more acknowledged writes.
pub async fn progress(clients: &Clients, more: u64) {
    let want = clients.acked.load(SeqCst) + more;
    let until = Instant::now() + Duration::from_secs(60);
    while clients.acked.load(SeqCst) < want {
        assert!(Instant::now() < until, "no progress within a minute");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// How long until a write is acknowledged that was sent after `since`, on whichever node takes it. The writers can't tell:
/// they may all wait for a leader that is frozen.
pub async fn writable_again(cluster: &Cluster, since: Instant) -> Duration {
    let until = since + Duration::from_secs(60);
    while Instant::now() < until {
        for url in cluster.urls() {
            let write = async {
                let mut conn = Conn::from_url(url.as_str()).await?;
                // A row of its own.
                conn.query_drop("REPLACE INTO lin.registers VALUES (-1, 0)").await
            };
            if let Ok(Ok(())) = tokio::time::timeout(Duration::from_millis(200), write).await {
                return since.elapsed();
            }
        }
    }
    panic!("not writable within a minute");
}

pub fn show(what: &str, mut times: Vec<Duration>) {
    times.sort();
    let worst = times.last().copied().unwrap_or_default();
    println!("{what}: {} rounds, writable again p50 {:?}, worst {worst:?}", times.len(), times[times.len() / 2]);
}

async fn end(clients: &Clients, tasks: Vec<tokio::task::JoinHandle<()>>) {
    clients.stop();
    for task in tasks {
        task.await.unwrap();
    }
    let history = clients.history();
    linear::check(&history).unwrap_or_else(|why| panic!("the history is not linearizable: {why}"));
    let unknown = history.iter().filter(|op| op.ret.is_none()).count();
    println!(
        "{} operations, {} writes acknowledged, {unknown} of unknown outcome: linearizable",
        history.len(),
        clients.acked.load(SeqCst)
    );
    // The checker is awake: the same history with one stale read is refused.
    let mut tampered = history;
    let last = tampered.iter().rev().find(|op| matches!(op.action, Action::Write(_)) && op.ret.is_some());
    let mut stale = *last.expect("something was written");
    let after = tampered.iter().filter_map(|op| op.ret).max().unwrap_or(0);
    (stale.action, stale.call, stale.ret) = (Action::Read(0), after + 1, Some(after + 2));
    tampered.push(stale);
    assert!(linear::check(&tampered).is_err(), "a tampered history passed");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_acknowledged_is_lost_when_leaders_are_killed() {
    let mut cluster = Cluster::start(&["--memtable-size", "1M", "--memory-cache", "16M"]).await;
    let load = Load::start(&cluster).await;
    let mut times = Vec::new();
    for _ in 0..rounds() {
        progress(&load.clients, 100).await;
        let leader = cluster.leader().await;
        let server = cluster.take(leader);
        let at = Instant::now();
        server.kill();
        times.push(writable_again(&cluster, at).await);
        cluster.restart(leader).await;
    }
    show("leader killed", times);
    load.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_wakes_acknowledges_nothing_old() {
    let cluster = Cluster::start(&["--memtable-size", "1M", "--memory-cache", "16M"]).await;
    let load = Load::start(&cluster).await;
    let mut times = Vec::new();
    for _ in 0..rounds() {
        progress(&load.clients, 100).await;
        let leader = cluster.leader().await;
        let at = Instant::now();
        cluster.node(leader).pause();
        times.push(writable_again(&cluster, at).await);
        progress(&load.clients, 100).await;
        tokio::time::sleep(frozen().saturating_sub(at.elapsed())).await;
        cluster.node(leader).resume();
        progress(&load.clients, 100).await;
        let status = cluster.admin(leader, &["status", "--json"]).await;
        let status: serde_json::Value = serde_json::from_str(&status.output).unwrap();
        println!(
            "woken: {}, its deletes {}, its flushes {} and edits in force {}",
            status["cluster"]["role"],
            status["engine"]["s3_delete_gc_requests"],
            status["engine"]["flushes"],
            status["engine"]["tree_installed"],
        );
    }
    show("leader frozen", times);
    // Everything that is in force is in the bucket, whole: nothing was deleted that counts.
    let leader = cluster.leader().await;
    let fsck = cluster.admin(leader, &["fsck"]).await;
    assert!(fsck.code == Some(0) && fsck.output.contains("healthy"), "{}", fsck.output);
    load.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn leadership_is_handed_over_with_a_short_pause() {
    let cluster = Cluster::start(&["--memory-cache", "16M"]).await;
    let load = Load::start(&cluster).await;
    let mut times = Vec::new();
    for _ in 0..rounds() {
        progress(&load.clients, 100).await;
        let leader = cluster.leader().await;
        let at = Instant::now();
        let answer = cluster.node(leader).admin("failover").await;
        assert!(answer.contains("leads"), "{answer}");
        times.push(writable_again(&cluster, at).await);
    }
    show("planned", times);
    load.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_node_restarts_in_turn() {
    let before = std::env::var_os("HOLDFAST_OLD_BIN").map(Into::into);
    let mut cluster = Cluster::of_release(before, &["--memory-cache", "16M"]).await;
    let load = Load::start(&cluster).await;
    cluster.upgrade();
    for id in 1..=3 {
        progress(&load.clients, 100).await;
        let server = cluster.take(id);
        let ended = tokio::task::spawn_blocking(move || server.terminate()).await.unwrap();
        assert_eq!(ended, Some(0), "SIGTERM ends a node with 0");
        cluster.restart(id).await;
    }
    progress(&load.clients, 100).await;
    let mut conn = Conn::from_url(cluster.node(1).url("")).await.unwrap();
    let rows: Option<u64> = conn.query_first("SELECT COUNT(*) FROM lin.registers").await.unwrap();
    assert_eq!(rows, Some(16));
    conn.disconnect().await.unwrap();
    for (id, tally) in (1..).zip(&load.clients.tallies) {
        println!(
            "node {id}: {} statements answered, {} writes refused as a follower, {} failed",
            tally.done.load(SeqCst),
            tally.refused.load(SeqCst),
            tally.failed.load(SeqCst)
        );
    }
    load.end().await;
}
