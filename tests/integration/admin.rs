//! Admin verbs on a running server: the sizes of its caches, and what a collection would delete.

use holdfast_tests::serve::{Serve, Server};
use mysql_async::{Conn, prelude::Queryable};

const MIB: u64 = 1 << 20;

async fn admin(server: &Server, args: &[&str]) -> serde_json::Value {
    let text = server.try_admin(&[args, &["--json"]].concat()).await.unwrap();
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn caches_change_size_while_the_server_runs() {
    let folder = tempfile::tempdir().unwrap();
    let store = format!("file://{}", folder.path().join("bucket").display());
    let server = Serve::new(&folder.path().join("data"))
        .args(["--store", &store, "--memory-cache", "4M", "--nvme-cache", "16M", "--memtable-size", "1M"])
        .start();
    let mut conn = Conn::from_url(server.url("")).await.unwrap();
    conn.query_drop("CREATE DATABASE d").await.unwrap();
    conn.query_drop("CREATE TABLE d.t (id BIGINT PRIMARY KEY, v VARCHAR(1000))").await.unwrap();
    for chunk in 0..100 {
        let rows: Vec<_> = (0..200).map(|n| format!("({},'{}')", chunk * 200 + n, "x".repeat(900))).collect();
        conn.query_drop(format!("INSERT INTO d.t VALUES {}", rows.join(","))).await.unwrap();
    }
    server.admin("checkpoint").await;
    let count = async |conn: &mut Conn| {
        let rows: Option<u64> = conn.query_first("SELECT COUNT(*) FROM d.t WHERE v LIKE 'xx%'").await.unwrap();
        assert_eq!(rows, Some(20_000));
    };

    count(&mut conn).await;
    let larger = admin(&server, &["cache", "--nvme", "64M", "--memory", "32M"]).await;
    assert_eq!((&larger["nvme_capacity"], &larger["ram_capacity"]), (&(64 * MIB).into(), &(32 * MIB).into()));
    count(&mut conn).await;
    let smaller = admin(&server, &["cache", "--nvme", "20M", "--memory", "2M"]).await;
    assert_eq!((&smaller["nvme_capacity"], &smaller["ram_capacity"]), (&(20 * MIB).into(), &(2 * MIB).into()));
    assert!(smaller["ram_bytes"].as_u64() <= Some(2 * MIB) && smaller["nvme_bytes"].as_u64() <= Some(20 * MIB));
    count(&mut conn).await;
    assert_eq!(admin(&server, &["cache"]).await["nvme_capacity"], 20 * MIB);
    for (args, why) in [(["--nvme", "1M"], "the least is 16777216"), (["--memory", "10K"], "memory cache below")] {
        let refused = server.try_admin(&["cache", args[0], args[1]]).await.unwrap_err();
        assert!(refused.contains(why), "{args:?}: {refused}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_of_the_collector_names_what_it_leaves() {
    let folder = tempfile::tempdir().unwrap();
    let store = format!("file://{}", folder.path().join("bucket").display());
    let server = Serve::new(&folder.path().join("data")).args(["--store", &store]).start();
    let mut conn = Conn::from_url(server.url("")).await.unwrap();
    conn.query_drop("CREATE DATABASE d").await.unwrap();
    conn.query_drop("CREATE TABLE d.t (id BIGINT PRIMARY KEY, v INT)").await.unwrap();
    server.admin("checkpoint").await;
    let tried = admin(&server, &["gc", "--dry-run"]).await;
    assert!(tried["would_delete_objects"].is_u64() && tried["would_delete"].is_array(), "{tried}");
    assert!(tried.get("deleted").is_none(), "{tried}");
    let done = admin(&server, &["gc"]).await;
    assert!(done["deleted_objects"].is_u64() && done["deleted"].is_array(), "{done}");
}
