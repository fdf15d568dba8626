//! What is big but below its limit works, within bounds (rule 10): a 40 MB value, an UPDATE of very many rows, DROP of a big
//! table under a reader. `HOLDFAST_BIG_ROWS` (default 200,000) sets the rows; run a release build for 1,000,000.

use std::time::Instant;

use holdfast_tests::serve::{Serve, Server};
use mysql_async::{Conn, prelude::Queryable};

use crate::{checkpoint, says, still_serves};

fn rows() -> u64 {
    std::env::var("HOLDFAST_BIG_ROWS").ok().and_then(|n| n.parse().ok()).unwrap_or(200_000)
}

/// The most memory that the server has had, in MiB.
fn peak_mib(server: &Server) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.split_whitespace().next().unwrap().parse::<u64>().unwrap() / 1024
}

async fn fill(conn: &mut Conn, rows: u64) {
    conn.query_drop("CREATE DATABASE IF NOT EXISTS d").await.unwrap();
    conn.query_drop("CREATE TABLE d.t (id INT PRIMARY KEY, n INT NOT NULL, v VARCHAR(60), KEY (n))").await.unwrap();
    for from in (0..rows).step_by(10_000) {
        let row = |id| format!("({id},{},'some text of row {id}')", id % 1000);
        let batch: Vec<_> = (from..rows.min(from + 10_000)).map(row).collect();
        conn.query_drop(format!("INSERT INTO d.t VALUES {}", batch.join(","))).await.unwrap();
    }
}

#[tokio::test]
async fn a_value_of_40_mb() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let server = Serve::new(&data).args(["--memory-cache", "16M"]).start();
    let mut conn = Conn::from_url(server.url("")).await.unwrap();
    conn.query_drop("CREATE DATABASE d").await.unwrap();
    conn.query_drop("CREATE TABLE d.t (id INT PRIMARY KEY, v LONGBLOB)").await.unwrap();
    let value: Vec<u8> = (0..40_000_000_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let began = Instant::now();
    conn.exec_drop("INSERT INTO d.t VALUES (1, ?)", (&value,)).await.unwrap();
    let write = began.elapsed();
    let began = Instant::now();
    let read: Vec<u8> = conn.query_first("SELECT v FROM d.t").await.unwrap().unwrap();
    let from_memory = began.elapsed();
    assert!(read == value, "the value comes back as it went");
    checkpoint(&server);
    let peak = peak_mib(&server);
    conn.disconnect().await.unwrap();
    server.kill();
    let server = Serve::new(&data).args(["--memory-cache", "16M"]).start();
    let mut conn = Conn::from_url(server.url("d")).await.unwrap();
    let began = Instant::now();
    let read: Vec<u8> = conn.query_first("SELECT v FROM t").await.unwrap().unwrap();
    let printed = format!(
        "inserted in {write:?}, read in {from_memory:?}, from the bucket in {:?}; peak RSS {peak} MiB, after the restart {} MiB",
        began.elapsed(),
        peak_mib(&server)
    );
    says("a value of 40,000,000 bytes", &printed, &[]);
    assert!(read == value, "the value comes back from the bucket");
    assert!(peak < 1024, "{peak} MiB");
}

#[tokio::test]
async fn an_update_of_every_row() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let server = Serve::new(&data).start();
    let mut conn = Conn::from_url(server.url("")).await.unwrap();
    let rows = rows();
    let began = Instant::now();
    fill(&mut conn, rows).await;
    let load = began.elapsed();
    let before = peak_mib(&server);
    let began = Instant::now();
    conn.query_drop("UPDATE d.t SET n = n + 1, v = CONCAT(v, '!')").await.unwrap();
    let update = began.elapsed();
    assert_eq!(conn.affected_rows(), rows);
    let peak = peak_mib(&server);
    let check = "SELECT COUNT(*), SUM(n), MIN(RIGHT(v, 1)) FROM d.t";
    let sums: Option<(u64, u64, String)> = conn.query_first(check).await.unwrap();
    let sum: u64 = (0..rows).map(|id| id % 1000 + 1).sum();
    assert_eq!(sums, Some((rows, sum, "!".to_owned())));
    server.kill();
    let began = Instant::now();
    let server = Serve::new(&data).start();
    let restart = began.elapsed();
    let mut conn = Conn::from_url(server.url("")).await.unwrap();
    assert_eq!(conn.query_first(check).await.unwrap(), sums, "whole after a kill");
    let printed = format!(
        "loaded in {load:?}, updated in {update:?}; peak RSS {before} MiB after the load, {peak} MiB after the UPDATE; \
         restarted after kill -9 in {restart:?}"
    );
    says(&format!("UPDATE of {rows} rows, two columns, one of them indexed"), &printed, &[]);
    still_serves(&server).await;
}

#[tokio::test]
async fn a_big_table_dropped_under_a_reader() {
    let folder = tempfile::tempdir().unwrap();
    let server =
        Serve::new(&folder.path().join("data")).args(["--memory-cache", "16M", "--memtable-size", "8M"]).start();
    let mut conn = Conn::from_url(server.url("")).await.unwrap();
    let rows = rows();
    fill(&mut conn, rows).await;
    checkpoint(&server);

    // A reader with a snapshot, and one in the middle of a result.
    let mut reader = Conn::from_url(server.url("d")).await.unwrap();
    reader.query_drop("START TRANSACTION WITH CONSISTENT SNAPSHOT").await.unwrap();
    let mut result = reader.query_iter("SELECT id, v FROM t").await.unwrap();
    assert!(result.next().await.unwrap().is_some());
    let began = Instant::now();
    conn.query_drop("SET lock_wait_timeout = 2").await.unwrap();
    let waited = conn.query_drop("DROP TABLE d.t").await;
    let waited = format!("{} after {:?}", waited.err().map_or("OK".to_owned(), |e| e.to_string()), began.elapsed());
    let mut read = 1;
    while result.next().await.unwrap().is_some() {
        read += 1;
    }
    drop(result);
    assert_eq!(read, rows, "the reader reads to the end");
    reader.query_drop("COMMIT").await.unwrap();
    let began = Instant::now();
    conn.query_drop("DROP TABLE IF EXISTS d.t").await.unwrap();
    let dropped = began.elapsed();
    let (code, text) = crate::refused(&mut reader, "SELECT COUNT(*) FROM t").await;
    let printed = format!("while it was read: {waited}; then in {dropped:?}; a read afterwards: {code} {text}");
    says(&format!("DROP TABLE of {rows} rows"), &printed, &["1146"]);
    conn.query_drop("CREATE TABLE d.t (id INT PRIMARY KEY)").await.unwrap();
    assert_eq!(conn.query_first("SELECT COUNT(*) FROM d.t").await.unwrap(), Some(0));
    still_serves(&server).await;
}
