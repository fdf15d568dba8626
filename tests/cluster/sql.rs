//! What SQL clients see of a cluster: schema changes everywhere, reads as new as asked for, errors that name the leader.

use holdfast_tests::cluster::Cluster;
use mysql_async::{Conn, prelude::Queryable};

#[tokio::test(flavor = "multi_thread")]
async fn followers_serve_reads_and_name_the_leader() {
    let cluster = Cluster::start(&["--memory-cache", "16M"]).await;
    let leader = cluster.leader().await;
    let follower = (1..=3).find(|id| *id != leader).unwrap();
    let mut at_leader = Conn::from_url(cluster.node(leader).url("")).await.unwrap();
    let mut at_follower = Conn::from_url(cluster.node(follower).url("")).await.unwrap();
    at_leader.query_drop("CREATE DATABASE shop").await.unwrap();
    at_leader.query_drop("CREATE TABLE shop.item (id INT PRIMARY KEY AUTO_INCREMENT, name VARCHAR(20))").await.unwrap();
    for n in 1..=50 {
        at_leader.query_drop(format!("INSERT INTO shop.item (name) VALUES ('item {n}')")).await.unwrap();
        let seen: Option<u64> = at_follower.query_first("SELECT COUNT(*) FROM shop.item").await.unwrap();
        assert_eq!(seen, Some(n));
    }
    // A schema change of the leader shows at once, also to a statement that was planned before.
    at_leader.query_drop("ALTER TABLE shop.item ADD COLUMN price INT DEFAULT 7").await.unwrap();
    let row: Option<(u64, String, u32)> = at_follower.query_first("SELECT * FROM shop.item LIMIT 1").await.unwrap();
    assert_eq!(row, Some((1, "item 1".into(), 7)));

    let refused = at_follower.query_drop("INSERT INTO shop.item (name) VALUES ('x')").await.unwrap_err().to_string();
    let address = &cluster.node(leader).mysql;
    assert!(refused.contains("1290") && refused.contains("--read-only") && refused.contains(address), "{refused}");
    for statement in ["CREATE TABLE shop.t (a INT)", "SELECT * FROM shop.item FOR UPDATE", "DELETE FROM shop.item"] {
        let refused = at_follower.query_drop(statement).await.unwrap_err().to_string();
        assert!(refused.contains("1290"), "{statement}: {refused}");
    }
    let read_only: Option<u8> = at_follower.query_first("SELECT @@read_only").await.unwrap();
    assert_eq!(read_only, Some(1));
    let node: Option<u64> = at_follower.query_first("SELECT @@holdfast_node_id").await.unwrap();
    assert_eq!(node, Some(follower));

    // Transactions that only read, one's own writes by token, and bounded staleness.
    at_follower.query_drop("START TRANSACTION").await.unwrap();
    let before: Option<u64> = at_follower.query_first("SELECT COUNT(*) FROM shop.item").await.unwrap();
    at_leader.query_drop("INSERT INTO shop.item (name) VALUES ('later')").await.unwrap();
    let token: Option<u64> = at_leader.query_first("SELECT @@holdfast_commit_token").await.unwrap();
    let same: Option<u64> = at_follower.query_first("SELECT COUNT(*) FROM shop.item").await.unwrap();
    assert_eq!((before, same), (Some(50), Some(50)), "a transaction reads one snapshot");
    at_leader.query_drop("ALTER TABLE shop.item ADD COLUMN more INT").await.unwrap();
    // A transaction asks nobody: another session waits until the follower has the change.
    let mut beside = Conn::from_url(cluster.node(follower).url("")).await.unwrap();
    let _: Option<u64> = beside.query_first("SELECT COUNT(*) FROM shop.item").await.unwrap();
    beside.disconnect().await.unwrap();
    let changed = at_follower.query_drop("SELECT * FROM shop.item").await;
    let changed = changed.expect_err("an old snapshot is not read with a new definition").to_string();
    assert!(changed.contains("1412"), "{changed}");
    at_follower.query_drop("COMMIT").await.unwrap();
    at_follower.query_drop("SET holdfast_read_consistency = 'session'").await.unwrap();
    at_follower.query_drop(format!("SET holdfast_read_after = {}", token.unwrap())).await.unwrap();
    let own: Option<u64> = at_follower.query_first("SELECT COUNT(*) FROM shop.item").await.unwrap();
    assert_eq!(own, Some(51));
    at_follower.query_drop("SET holdfast_read_consistency = 'bounded', holdfast_max_staleness = 1000").await.unwrap();
    let bounded: Option<u64> = at_follower.query_first("SELECT COUNT(*) FROM shop.item").await.unwrap();
    assert_eq!(bounded, Some(51));
    let status: Option<mysql_async::Row> = at_follower.query_first("SHOW REPLICA STATUS").await.unwrap();
    let behind: Option<u64> = status.unwrap().get("Seconds_Behind_Source");
    assert!(behind.is_some_and(|seconds| seconds < 5), "{behind:?}");

    // AUTO_INCREMENT goes on where the old leader ended.
    let answer = cluster.node(leader).admin("failover").await;
    assert!(answer.contains("leads"), "{answer}");
    let next = cluster.leader().await;
    assert_ne!(next, leader);
    let mut at_next = Conn::from_url(cluster.node(next).url("")).await.unwrap();
    at_next.query_drop("INSERT INTO shop.item (name) VALUES ('by another')").await.unwrap();
    assert_eq!(at_next.last_insert_id(), Some(52));
    for conn in [at_leader, at_follower, at_next] {
        conn.disconnect().await.unwrap();
    }
}
