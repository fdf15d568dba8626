//! One node's disk fails while the cluster serves: the node ends or refuses with a word about what is wrong, nothing that
//! was acknowledged is lost, and a node with a new disk takes its place from its peers, under a number of its own.

use std::{fs, os::unix::fs::FileExt};

use holdfast_tests::cluster::Cluster;
use mysql_async::{Conn, prelude::Queryable};

use crate::kill::{Load, progress};

const FLAGS: [&str; 4] = ["--memtable-size", "1M", "--memory-cache", "16M"];

/// A node that was taken out comes back with an empty disk, under a new number, and its old number goes.
async fn replace(cluster: &mut Cluster, old: u64, new: u64) {
    cluster.destroy(old);
    let refused = cluster.refused(old).await;
    assert!(refused.output.contains("give this machine a new number"), "{}", refused.output);
    cluster.join(new).await;
    let leader = cluster.leader().await;
    let removed = cluster.admin(leader, &["remove-node", "--id", &old.to_string()]).await;
    assert_eq!(removed.code, Some(0), "{}", removed.output);
    let mut conn = Conn::from_url(cluster.url(new)).await.unwrap();
    let rows: Option<u64> = conn.query_first("SELECT COUNT(*) FROM lin.registers").await.unwrap();
    assert_eq!(rows, Some(16));
    conn.disconnect().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_log_cannot_be_written_ends_and_is_replaced() {
    let mut cluster = Cluster::on_disks(&[1, 2, 3], &FLAGS).await;
    let load = Load::on(&cluster, cluster.all_urls()).await;
    let leader = cluster.leader().await;
    let follower = (1..=3).find(|id| *id != leader).unwrap();
    for (node, new) in [(follower, 4), (leader, 5)] {
        progress(&load.clients, 100).await;
        cluster.disk(node, |disk| disk.fail_writes = true);
        let server = cluster.take(node);
        let line = server.wait_for_log("holdfast: error:").await;
        assert!(line.contains("the database has failed") && line.contains("Input/output error"), "{line}");
        assert!(line.contains(".wal"), "it names the file: {line}");
        assert_eq!(server.ended().await, Some(1));
        println!("node {node}, writes of its log answer EIO: {line}");
        progress(&load.clients, 100).await;
        replace(&mut cluster, node, new).await;
    }
    progress(&load.clients, 100).await;
    load.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_whose_disk_is_full_ends_with_the_reason_and_comes_back_once_there_is_room() {
    let mut cluster = Cluster::on_disks(&[1, 2, 3], &FLAGS).await;
    let load = Load::on(&cluster, cluster.all_urls()).await;
    let leader = cluster.leader().await;
    let node = (1..=3).find(|id| *id != leader).unwrap();
    progress(&load.clients, 100).await;
    cluster.disk(node, |disk| disk.capacity = 0);
    let mut conn = Conn::from_url(cluster.url(leader)).await.unwrap();
    conn.query_drop("CREATE TABLE lin.big (id INT PRIMARY KEY, v MEDIUMBLOB)").await.unwrap();
    // Until it needs a segment that it cannot make.
    let mut id = 0;
    let of_log = |line: &&str| line.contains("holdfast: error:") && line.contains("No space left");
    let full = |text: &str| text.lines().find(of_log).map(ToOwned::to_owned);
    let line = loop {
        if let Some(line) = full(&cluster.node(node).log()) {
            break line;
        }
        assert!(id < 2_000, "2 GB of log and no word of it:\n{}", cluster.node(node).log());
        conn.exec_drop("INSERT INTO lin.big VALUES (?, ?)", (id, vec![id as u8; 1 << 20])).await.unwrap();
        id += 1;
    };
    println!("node {node}, its disk is full: {line}");
    progress(&load.clients, 100).await;
    cluster.disk(node, |disk| disk.capacity = u64::MAX);
    // A follower can't refuse what a majority has: once its reserve is used up it ends.
    assert!(line.contains("ran through its reserve"), "{line}");
    assert_eq!(cluster.take(node).ended().await, Some(1));
    cluster.restart(node).await;
    let mut at_node = Conn::from_url(cluster.url(node)).await.unwrap();
    let rows: Option<i32> = at_node.query_first("SELECT COUNT(*) FROM lin.big").await.unwrap();
    assert_eq!(rows, Some(id));
    for conn in [conn, at_node] {
        conn.disconnect().await.unwrap();
    }
    load.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_log_has_rotted_refuses_and_is_replaced() {
    let mut cluster = Cluster::start(&FLAGS).await;
    let load = Load::on(&cluster, cluster.all_urls()).await;
    let leader = cluster.leader().await;
    let node = (1..=3).find(|id| *id != leader).unwrap();
    progress(&load.clients, 300).await;
    let server = cluster.take(node);
    tokio::task::spawn_blocking(move || server.kill()).await.unwrap();
    let (file, offset) = flip_a_bit(&cluster.log_dir(node));
    let refused = cluster.refused(node).await;
    let line = refused.output.lines().find(|line| line.contains("corrupt log")).unwrap_or_default().to_owned();
    assert!(
        refused.code == Some(1) && line.contains(&file) && line.contains("offset") && line.contains("add-node"),
        "{}",
        refused.output
    );
    println!("node {node}, a bit of {file} flipped at offset {offset}: {line}");
    progress(&load.clients, 100).await;
    replace(&mut cluster, node, 4).await;
    progress(&load.clients, 100).await;
    load.end().await;
}

/// Flips a bit in the middle of what was written of a log.
fn flip_a_bit(log: &std::path::Path) -> (String, u64) {
    let segments = fs::read_dir(log).unwrap().flatten().map(|file| file.path());
    let written = segments.filter(|path| path.extension().is_some_and(|e| e == "wal")).map(|path| {
        let bytes = fs::read(&path).unwrap();
        let zero = bytes.chunks(4096).position(|block| block.iter().all(|byte| *byte == 0));
        (zero.unwrap_or(bytes.len() / 4096), path)
    });
    let (blocks, path) = written.max().unwrap();
    let offset = blocks as u64 / 2 * 4096 + 40;
    let file = fs::File::options().read(true).write(true).open(&path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).unwrap();
    file.write_all_at(&[byte[0] ^ 1], offset).unwrap();
    (path.file_name().unwrap().to_str().unwrap().to_owned(), offset)
}
