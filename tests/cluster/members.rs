//! Nodes that join and leave through `holdfast admin`, and refuse what would lose quorum.

use holdfast_tests::cluster::Cluster;
use mysql_async::{Conn, prelude::Queryable};

#[tokio::test(flavor = "multi_thread")]
async fn a_fourth_node_joins_and_one_leaves() {
    let mut cluster = Cluster::start(&["--memory-cache", "16M"]).await;
    let leader = cluster.leader().await;
    let (addr, url) = (cluster.node(leader).admin.clone(), cluster.node(leader).url(""));
    let mut conn = Conn::from_url(url).await.unwrap();
    conn.query_drop("CREATE DATABASE d").await.unwrap();
    conn.query_drop("CREATE TABLE d.t (id INT PRIMARY KEY)").await.unwrap();
    conn.query_drop("INSERT INTO d.t VALUES (1), (2), (3)").await.unwrap();
    cluster.node(leader).admin("checkpoint").await;

    let joining = cluster.joining(4);
    let address = cluster.raft_address(4);
    let added = cluster.admin(leader, &["add-node", "--id", "4", "--node-addr", &address]).await;
    assert_eq!(added.code, Some(0), "{}", added.output);
    let server = joining.await.unwrap();
    let mut at_joiner = Conn::from_url(server.url("")).await.unwrap();
    let rows: Option<u64> = at_joiner.query_first("SELECT COUNT(*) FROM d.t").await.unwrap();
    assert_eq!(rows, Some(3));
    at_joiner.disconnect().await.unwrap();
    cluster.joined(4, server);
    let nodes = cluster.admin(leader, &["nodes", "--json"]).await;
    assert!(nodes.output.contains("\"id\": 4") && nodes.output.contains("follower"), "{}", nodes.output);

    // A follower does not change members, and says who does.
    let follower = (1..=3).find(|id| *id != leader).unwrap();
    let refused = cluster.admin(follower, &["remove-node", "--id", "4"]).await;
    assert!(refused.code != Some(0) && refused.output.contains(&addr), "{}", refused.output);
    let refused = cluster.admin(leader, &["remove-node", "--id", &leader.to_string()]).await;
    assert!(refused.code != Some(0) && refused.output.contains("failover"), "{}", refused.output);
    let refused = cluster.admin(leader, &["add-node", "--id", "4", "--node-addr", "127.0.0.1:1"]).await;
    assert!(refused.code != Some(0) && refused.output.contains("member already"), "{}", refused.output);
    let planned = cluster.admin(leader, &["failover", "--dry-run"]).await;
    assert!(planned.code == Some(0) && planned.output.contains("would_lead"), "{}", planned.output);

    let removed = cluster.admin(leader, &["remove-node", "--id", &follower.to_string()]).await;
    assert_eq!(removed.code, Some(0), "{}", removed.output);
    conn.query_drop("INSERT INTO d.t VALUES (4)").await.unwrap();
    conn.disconnect().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_comes_back_under_another_address() {
    let mut cluster = Cluster::start(&["--memory-cache", "16M"]).await;
    let leader = cluster.leader().await;
    let mut conn = Conn::from_url(cluster.url(leader)).await.unwrap();
    conn.query_drop("CREATE DATABASE d").await.unwrap();
    conn.query_drop("CREATE TABLE d.t (id INT PRIMARY KEY)").await.unwrap();
    let moves = (1..=3).find(|id| *id != leader).unwrap();
    let text = moves.to_string();
    let refused =
        cluster.admin(leader, &["move-node", "--id", &leader.to_string(), "--node-addr", "127.0.0.1:1"]).await;
    assert!(refused.code != Some(0) && refused.output.contains("failover"), "{}", refused.output);
    let refused = cluster.admin(leader, &["move-node", "--id", "9", "--node-addr", "127.0.0.1:1"]).await;
    assert!(refused.code != Some(0) && refused.output.contains("no member"), "{}", refused.output);

    let server = cluster.take(moves);
    let ended = tokio::task::spawn_blocking(move || server.terminate()).await.unwrap();
    assert_eq!(ended, Some(0));
    conn.query_drop("INSERT INTO d.t VALUES (1), (2)").await.unwrap();
    // The one that is left must not go under an address that may be wrong.
    let stays = (1..=3).find(|id| *id != leader && *id != moves).unwrap().to_string();
    cluster.silent(leader, moves).await;
    let refused = cluster.admin(leader, &["move-node", "--id", &stays, "--node-addr", "127.0.0.1:1"]).await;
    assert!(refused.code != Some(0) && refused.output.contains("2 are needed"), "{}", refused.output);

    cluster.move_to_another_port(moves);
    let (starting, address) = (cluster.restarting(moves), cluster.raft_address(moves));
    let told = cluster.admin(leader, &["move-node", "--id", &text, "--node-addr", &address]).await;
    assert!(told.code == Some(0) && told.output.contains(&address), "{}", told.output);
    let server = starting.await.unwrap();
    let mut at_moved = Conn::from_url(server.url("")).await.unwrap();
    let rows: Option<u64> = at_moved.query_first("SELECT COUNT(*) FROM d.t").await.unwrap();
    assert_eq!(rows, Some(2), "a linearizable read");
    cluster.joined(moves, server);
    // It votes as before: it can lead.
    let led = cluster.admin(leader, &["failover", "--to", &text]).await;
    assert_eq!(led.code, Some(0), "{}", led.output);
    assert_eq!(cluster.leader().await, moves);
    for conn in [conn, at_moved] {
        conn.disconnect().await.unwrap();
    }
}
