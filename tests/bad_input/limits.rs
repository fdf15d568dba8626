//! Values, keys, transactions and connections over their limit: MySQL's code, the limit in the text, the session goes on.

use holdfast_tests::serve::Serve;
use mysql_async::{Conn, Error, prelude::Queryable};

use crate::{refused, says, still_serves};

async fn shown(conn: &mut Conn, done: &str, sql: &str, parts: &[&str]) {
    let (code, text) = refused(conn, sql).await;
    says(done, &format!("{code}: {text}"), parts);
}

#[tokio::test]
async fn of_columns_keys_and_statements() {
    let folder = tempfile::tempdir().unwrap();
    let server = Serve::new(&folder.path().join("data")).start();
    let mut conn = Conn::from_url(server.url("")).await.unwrap();
    conn.query_drop("CREATE DATABASE d").await.unwrap();
    conn.query_drop("USE d").await.unwrap();
    conn.query_drop("CREATE TABLE t (id INT PRIMARY KEY, v VARCHAR(10), x TEXT)").await.unwrap();
    let c = &mut conn;
    shown(c, "a VARCHAR(10) of 11", "INSERT INTO t VALUES (1, '12345678901', '')", &["1406", "'v'"]).await;
    let text = format!("INSERT INTO t VALUES (1, '', '{}')", "x".repeat(65_536));
    shown(c, "a TEXT of 65,536 bytes", &text, &["1406", "'x'"]).await;
    let long = "x".repeat(65);
    shown(c, "a table name of 65 characters", &format!("CREATE TABLE {long} (a INT)"), &["1059", &long]).await;
    shown(c, "a VARCHAR(70000)", "CREATE TABLE u (a VARCHAR(70000))", &["1074", "'a'"]).await;
    shown(c, "an index on 4,000 characters", "CREATE TABLE u (a VARCHAR(4000), KEY (a))", &["1071", "3072"]).await;
    let columns: Vec<_> = (0..5_000).map(|i| format!("c{i} INT")).collect();
    shown(c, "a table of 5,000 columns", &format!("CREATE TABLE u ({})", columns.join(", ")), &["1117"]).await;
    let keys: Vec<_> = (0..70).map(|i| format!("KEY k{i} (a)")).collect();
    shown(c, "a table of 70 indexes", &format!("CREATE TABLE u (a INT, {})", keys.join(", ")), &["1069", "64"]).await;
    shown(c, "DECIMAL(70, 2)", "CREATE TABLE u (a DECIMAL(70, 2))", &["1426", "65"]).await;
    let marks = format!("SELECT 1 IN (?{})", ", ?".repeat(65_535));
    let error = c.prep(&marks).await.expect_err("65,536 placeholders");
    says("a prepared statement of 65,536 placeholders", &error.to_string(), &["1390"]);
    still_serves(&server).await;
}

#[tokio::test]
async fn of_connections() {
    let folder = tempfile::tempdir().unwrap();
    let server = Serve::new(&folder.path().join("data")).args(["--max-connections", "2"]).start();
    let one = Conn::from_url(server.url("")).await.unwrap();
    let two = Conn::from_url(server.url("")).await.unwrap();
    let Err(error) = Conn::from_url(server.url("")).await else { panic!("a third connection of two") };
    says("a third connection with --max-connections 2", &error.to_string(), &["1040", "Too many connections"]);
    one.disconnect().await.unwrap();
    two.disconnect().await.unwrap();
    // The server notices the end of the two in its own time.
    let again = server.connect_when_free().await;
    again.disconnect().await.unwrap();
}

/// A value over the engine's limit, and a transaction over its limit.
#[tokio::test]
async fn of_values_and_transactions() {
    let folder = tempfile::tempdir().unwrap();
    let server = Serve::new(&folder.path().join("data")).args(["--max-allowed-packet", "1G"]).start();
    let mut conn = Conn::from_url(server.url("")).await.unwrap();
    conn.query_drop("CREATE DATABASE d").await.unwrap();
    conn.query_drop("CREATE TABLE d.t (id INT PRIMARY KEY, v LONGBLOB)").await.unwrap();
    let insert = conn.prep("INSERT INTO d.t VALUES (?, ?)").await.unwrap();
    let value = vec![7_u8; (256 << 20) + 1];
    let Err(Error::Server(error)) = conn.exec_drop(&insert, (1, value)).await else { panic!("no server error") };
    let printed = format!("{}: {}", error.code, error.message);
    says("a value of 256 MiB + 1", &printed, &["1118", "268435456"]);

    let value = vec![7_u8; 40_000_000];
    conn.query_drop("BEGIN").await.unwrap();
    let mut taken = 0;
    let error = loop {
        match conn.exec_drop(&insert, (taken, &value)).await {
            Ok(()) => taken += 1,
            Err(Error::Server(error)) => break error,
            Err(other) => panic!("{other}"),
        }
        assert!(taken < 30, "no limit within 1.2 GB");
    };
    let printed = format!("{}: {} (after {taken} rows)", error.code, error.message);
    says("a transaction of 40 MB rows without an end", &printed, &["1197", "536870912"]);
    conn.query_drop("ROLLBACK").await.unwrap();
    assert_eq!(conn.query_first("SELECT COUNT(*) FROM d.t").await.unwrap(), Some(0));
    conn.query_drop("INSERT INTO d.t VALUES (1, 'small')").await.unwrap();
    still_serves(&server).await;
}
