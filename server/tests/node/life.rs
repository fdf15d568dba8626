//! Start, what keeps a server from starting, and the end.

use mysql_async::prelude::Queryable;
use rustix::process::Signal;

use crate::{Node, holdfast, output, serve};

#[tokio::test]
async fn sigterm_closes_idle_clients_and_exits_0_and_the_data_is_there_after() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path(), &[]).await;
    let mut conn = node.login("root", "").await.unwrap();
    conn.query_drop("CREATE DATABASE shop").await.unwrap();
    conn.query_drop("CREATE TABLE shop.t (id INT PRIMARY KEY, v VARCHAR(10))").await.unwrap();
    conn.query_drop("INSERT INTO shop.t VALUES (1, 'one')").await.unwrap();
    node.signal(Signal::TERM);
    assert_eq!(node.exit_code().await, Some(0));
    assert!(conn.ping().await.is_err());

    let node = Node::start(dir.path(), &[]).await;
    let mut conn = node.login("root", "").await.unwrap();
    let row: Option<(u32, String)> = conn.query_first("SELECT id, v FROM shop.t").await.unwrap();
    assert_eq!(row, Some((1, "one".to_owned())));
}

#[tokio::test]
async fn sigterm_waits_for_a_transaction_and_a_second_signal_does_not() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path(), &[]).await;
    let mut conn = node.login("root", "").await.unwrap();
    conn.query_drop("BEGIN").await.unwrap();
    node.signal(Signal::TERM);
    while !node.get("/healthz").await.contains("draining") {
        tokio::task::yield_now().await;
    }
    conn.ping().await.expect("a transaction is spared while the drain lasts");
    node.signal(Signal::TERM);
    assert_eq!(node.exit_code().await, Some(1));
}

#[tokio::test]
async fn a_locked_data_directory_names_its_holder() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path(), &[]).await;
    let (ok, out, err) = output(&mut serve(dir.path(), &[])).await;
    assert!(!ok && out.is_empty(), "{out}");
    let last = err.lines().last().unwrap_or_default();
    assert!(last.starts_with("holdfast: error: ") && last.contains(&node.pid().to_string()), "{err}");
}

#[tokio::test]
async fn a_taken_port_names_the_address_and_the_flag() {
    let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = taken.local_addr().unwrap().to_string();
    let dir = tempfile::tempdir().unwrap();
    for flag in ["--listen", "--admin-listen"] {
        let mut command = holdfast();
        command.args(["serve", "--data-dir"]).arg(dir.path());
        let other = if flag == "--listen" { "--admin-listen" } else { "--listen" };
        let (ok, _, err) = output(command.args([flag, &addr, other, "127.0.0.1:0"])).await;
        assert!(!ok && err.contains(&addr) && err.contains(flag), "{err}");
    }
}

#[tokio::test]
async fn what_cannot_be_is_refused_in_one_line() {
    let dir = tempfile::tempdir().unwrap();
    for (arguments, expected) in [
        (&["--store", "ftp://x"][..], "ftp"),
        (&["--peers", "1=a:1"], "--node-id"),
        (&["--recover-from", "memory:///"], "there is nothing to recover"),
        (&["--root-password-file", "/nowhere/pw"], "/nowhere/pw"),
        (&["--tls-cert", "/nowhere/c", "--tls-key", "/nowhere/k"], "/nowhere/c"),
        (&["--memory-cache", "5"], "--memory-cache"),
    ] {
        let (ok, out, err) = output(&mut serve(dir.path(), arguments)).await;
        assert!(!ok && out.is_empty(), "{arguments:?}: {out}");
        let last = err.lines().last().unwrap_or_default();
        assert!(last.starts_with("holdfast: error: ") && last.contains(expected), "{arguments:?}: {err}");
    }
}

#[tokio::test]
async fn json_logs_are_json() {
    let dir = tempfile::tempdir().unwrap();
    let (_, _, err) =
        output(&mut serve(dir.path(), &["--log-format", "json", "--tls-cert", "/n", "--tls-key", "/n"])).await;
    let lines: Vec<&str> = err.lines().filter(|line| !line.starts_with("holdfast: error")).collect();
    assert!(!lines.is_empty());
    for line in lines {
        let line: serde_json::Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{line}: {e}"));
        assert!(line.get("level").is_some() && line.get("message").is_some(), "{line}");
    }
}
