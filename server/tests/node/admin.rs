//! The admin port and `holdfast admin`.

use mysql_async::prelude::Queryable;

use crate::Node;

#[tokio::test]
async fn health_and_metrics_show_what_happened() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path(), &[]).await;
    assert!(node.get("/healthz").await.starts_with("HTTP/1.1 200"));
    let mut conn = node.login("root", "").await.unwrap();
    conn.query_drop("CREATE DATABASE shop").await.unwrap();
    let metrics = node.get("/metrics").await;
    for line in [
        "holdfast_connections 1\n",
        "holdfast_commands_total{command=\"query\"} ",
        "holdfast_commits ",
        "holdfast_command_seconds_bucket",
    ] {
        assert!(metrics.contains(line), "{line} is missing in {metrics}");
    }
}

/// A node whose table `shop.t` has two rows.
async fn node_with_rows(dir: &std::path::Path) -> Node {
    let node = Node::start(dir, &[]).await;
    let mut conn = node.login("root", "").await.unwrap();
    for sql in
        ["CREATE DATABASE shop", "CREATE TABLE shop.t (id INT PRIMARY KEY)", "INSERT INTO shop.t VALUES (1), (2)"]
    {
        conn.query_drop(sql).await.unwrap();
    }
    node
}

#[tokio::test]
async fn admin_verbs_act_and_print() {
    let dir = tempfile::tempdir().unwrap();
    let node = node_with_rows(dir.path()).await;
    let (ok, out, err) = node.admin(&["checkpoint", "--json"]).await;
    assert!(ok && out.contains("seconds"), "{out}{err}");
    let (ok, out, err) = node.admin(&["status", "--json"]).await;
    let status: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert!(ok && status["engine"]["tree_objects"].as_u64() > Some(0), "{out}{err}");
    assert_eq!(status["mysql"].as_str(), Some(node.mysql.as_str()));
    let (ok, out, err) = node.admin(&["status"]).await;
    assert!(ok && out.contains("engine.tree_objects"), "{out}{err}");
    let (ok, out, err) = node.admin(&["fsck", "--json"]).await;
    let report: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert!(ok && report["faults"] == 0 && report["pages"].as_u64() > Some(0), "{out}{err}");
    for verb in ["gc", "cost"] {
        let (ok, out, err) = node.admin(&[verb]).await;
        assert!(ok && !out.is_empty(), "{verb}: {err}");
    }
    for verb in ["branch", "restore", "backup"] {
        let (ok, _, err) = node.admin(&[verb]).await;
        assert!(!ok && err.contains("not built yet"), "{verb}: {err}");
    }
}

#[tokio::test]
async fn fsck_reports_a_damaged_object() {
    let dir = tempfile::tempdir().unwrap();
    let node = node_with_rows(dir.path()).await;
    assert!(node.admin(&["checkpoint"]).await.0);
    for object in objects(&dir.path().join("bucket")) {
        let mut bytes = std::fs::read(&object).unwrap();
        let at = bytes.len().min(64) / 2;
        bytes[at] ^= 0xff;
        std::fs::write(&object, bytes).unwrap();
    }
    let (ok, out, err) = node.admin(&["fsck", "--json"]).await;
    let report: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert!(!ok && report["faults"].as_u64() > Some(0), "{out}{err}");
    assert!(report["details"][0].as_str().unwrap().contains("obj"), "the fault names the object: {out}");
}

/// Files under an `obj` folder of the bucket.
fn objects(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(objects(&path));
        } else if path.components().any(|part| part.as_os_str() == "obj") {
            found.push(path);
        }
    }
    found
}
