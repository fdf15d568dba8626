//! A disk that is full, or fails: commits are refused with the reason, reads go on, and with room again so do commits; after a failed write the server ends.

use std::{
    fs::File,
    path::{Path, PathBuf},
};

use holdfast_tests::{fuse::MountedDisk, serve::Serve, volatile::Volatile};
use mysql_async::{Conn, Error, prelude::Queryable};

use crate::{fails, says, still_serves};

/// A disk of `bytes` on `folder/disk`, which is the data directory: what servers print goes to a file beside it.
fn mounted(bytes: u64, folder: &Path) -> (MountedDisk, PathBuf) {
    let mut disk = Volatile::default();
    disk.capacity = bytes;
    let at = folder.join("disk");
    std::fs::create_dir(&at).unwrap();
    (MountedDisk::mount(disk, &at).unwrap(), at)
}

#[tokio::test(flavor = "multi_thread")]
async fn from_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let (_disk, data) = mounted(8 << 20, folder.path());
    let exit = Serve::new(&data).refused();
    fails("8 MiB of disk for a new database", &exit, &[data.to_str().unwrap(), "No space left on device"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn under_load() {
    let folder = tempfile::tempdir().unwrap();
    let (mounted, data) = mounted(400 << 20, folder.path());
    let serve = || Serve::new(&data).args(["--memtable-size", "8M", "--memory-cache", "16M"]);
    let server = serve().start();
    let mut conn = Conn::from_url(server.url("")).await.unwrap();
    conn.query_drop("CREATE DATABASE d").await.unwrap();
    conn.query_drop("CREATE TABLE d.t (id INT PRIMARY KEY, v BLOB)").await.unwrap();
    let insert = conn.prep("INSERT INTO d.t VALUES (?, ?)").await.unwrap();
    let (mut id, mut state) = (0_u32, 1_u64);
    let error = loop {
        // Bytes that do not compress.
        let value = std::iter::repeat_with(|| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 56) as u8
        });
        match conn.exec_drop(&insert, (id, value.take(60_000).collect::<Vec<_>>())).await {
            Ok(()) => id += 1,
            Err(Error::Server(error)) => break error,
            Err(other) => panic!("{other}\n{}", server.log()),
        }
        assert!(id < 20_000, "1.2 GB on a disk of 400 MiB");
    };
    let printed = format!("after {id} rows of 60 kB, {}: {}", error.code, error.message);
    says("rows without an end on a disk of 400 MiB", &printed, &["try again later"]);
    assert_eq!(conn.query_first("SELECT COUNT(*) FROM d.t").await.unwrap(), Some(id), "reads go on");
    let log = server.log();
    let lines: Vec<_> = log.lines().filter(|line| line.contains("WARN") || line.contains("ERROR")).collect();
    let few =
        lines.iter().take(4).chain(lines.iter().rev().take(2)).map(|line| format!("{line}\n")).collect::<String>();
    says(&format!("what the server logged ({} lines; the first and last)", lines.len()), &few, &["No space left"]);

    mounted.with(|disk| disk.capacity = 4 << 30);
    let mut tries = 0;
    while let Err(error) = conn.query_drop(format!("INSERT INTO d.t VALUES ({id}, 'room again')")).await {
        assert!(matches!(&error, Error::Server(e) if e.code == 1105), "{error}");
        tries += 1;
        assert!(tries < 300, "still refused: {error}\n{}", server.log());
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    println!("\n* the disk has room again\n  -> committed after {tries} refusals 100 ms apart");
    still_serves(&server).await;
    server.kill();
    let server = serve().start();
    let mut conn = Conn::from_url(server.url("")).await.unwrap();
    assert_eq!(conn.query_first("SELECT COUNT(*) FROM d.t").await.unwrap(), Some(id + 1), "whole after a kill");
    drop(conn);
    server.kill();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_of_the_log_fails() {
    let folder = tempfile::tempdir().unwrap();
    let (mounted, data) = mounted(4 << 30, folder.path());
    let server = Serve::new(&data).start();
    let mut conn = Conn::from_url(server.url("")).await.unwrap();
    conn.query_drop("CREATE DATABASE d").await.unwrap();
    conn.query_drop("CREATE TABLE d.t (id INT PRIMARY KEY)").await.unwrap();
    conn.query_drop("INSERT INTO d.t VALUES (1)").await.unwrap();
    mounted.with(|disk| disk.fail_writes = true);
    let error = conn.query_drop("INSERT INTO d.t VALUES (2)").await.expect_err("the log can't be written");
    says("a commit when writes of the log fail with EIO", &error.to_string(), &[]);
    let log = server.wait_for_log("holdfast: error:").await;
    assert_eq!(server.ended().await, Some(1));
    says("then the server", &log, &["the database has failed", "Input/output error"]);
    mounted.with(|disk| disk.fail_writes = false);
    let server = Serve::new(&data).start();
    let mut conn = Conn::from_url(server.url("")).await.unwrap();
    assert_eq!(conn.query_first("SELECT MIN(id) FROM d.t").await.unwrap(), Some(1), "what was acknowledged is there");
    still_serves(&server).await;
    drop(conn);
    server.kill();
}

/// The server's own log can be on a full disk, too.
#[tokio::test]
async fn what_it_prints_has_no_room() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let full = File::options().write(true).open("/dev/full").unwrap();
    let server = Serve::new(&data).args(["--log-level", "debug"]).stderr(full).start();
    let mut conn = Conn::from_url(server.url("")).await.unwrap();
    conn.query_drop("CREATE DATABASE d").await.unwrap();
    still_serves(&server).await;
    println!("\n* stderr is /dev/full\n  -> served, exit code {:?}", server.terminate());
    let server = Serve::new(&data).start();
    assert_eq!(server.terminate(), Some(0));
}
