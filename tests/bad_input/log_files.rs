//! Damage in the log: refused by file and offset where something acknowledged is lost, survived where nothing is.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use holdfast_tests::serve::Serve;
use mysql_async::{Conn, prelude::Queryable};

use crate::{fails, says};

/// Segments of the log, and where their first zero block after the start stands: what is before it was written.
fn segments(data: &Path) -> Vec<(PathBuf, u64)> {
    let mut found: Vec<_> = fs::read_dir(data.join("log"))
        .unwrap()
        .flatten()
        .map(|file| file.path())
        .filter(|path| path.extension().is_some_and(|e| e == "wal"))
        .map(|path| {
            let bytes = fs::read(&path).unwrap();
            let end = bytes.chunks(4096).position(|block| block.iter().all(|byte| *byte == 0)).unwrap_or(0);
            (path, end as u64 * 4096)
        })
        .collect();
    found.sort_by_key(|segment| std::cmp::Reverse(segment.1));
    found
}

/// A server that has committed rows one by one and was killed.
async fn written(data: &Path) -> PathBuf {
    let server = Serve::new(data).start();
    let mut conn = Conn::from_url(server.url("")).await.unwrap();
    conn.query_drop("CREATE DATABASE d").await.unwrap();
    conn.query_drop("CREATE TABLE d.t (id INT PRIMARY KEY, v VARCHAR(100))").await.unwrap();
    for id in 0..200 {
        conn.query_drop(format!("INSERT INTO d.t VALUES ({id}, 'row {id}')")).await.unwrap();
    }
    server.kill();
    let (segment, end) = segments(data).remove(0);
    assert!(end > 200 * 4096, "{} has {end} bytes", segment.display());
    segment
}

async fn rows(data: &Path) -> u64 {
    let server = Serve::new(data).start();
    let mut conn = Conn::from_url(server.url("d")).await.unwrap();
    conn.query_first("SELECT COUNT(*) FROM t").await.unwrap().unwrap()
}

#[tokio::test]
async fn damage_below_what_was_synced_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let segment = written(&data).await;
    let name = segment.file_name().unwrap().to_str().unwrap();
    let log = data.join("log").display().to_string();
    let intact = fs::read(&segment).unwrap();
    let file = File::options().write(true).open(&segment).unwrap();
    for (what, offset) in [("in the middle of the log", 100 * 4096 + 40), ("in the first entry", 4096 + 30)] {
        file.write_all_at(&[intact[offset] ^ 1], offset as u64).unwrap();
        let exit = Serve::new(&data).refused();
        let block = format!("at offset {}", offset / 4096 * 4096);
        fails(
            &format!("a bit flipped {what}, at offset {offset}"),
            &exit,
            &["corrupt log", name, &block, &log, "from a copy"],
        );
        file.write_all_at(&intact[offset..=offset], offset as u64).unwrap();
    }
    file.write_all_at(&[0; 4096], 0).unwrap();
    fails("the first block of the segment zeroed", &Serve::new(&data).refused(), &["corrupt log", name, "at offset 0"]);
    file.write_all_at(&intact[..4096], 0).unwrap();

    file.set_len(100 * 4096).unwrap();
    fails("the segment cut in the middle", &Serve::new(&data).refused(), &["corrupt log", name]);
    fs::write(&segment, &intact).unwrap();

    let mut newer = intact[..4096].to_vec();
    newer[4] = 99; // what stands at the version's place is found by the reader
    fs::write(&segment, [&newer[..], &intact[4096..]].concat()).unwrap();
    fails("the segment's header changed", &Serve::new(&data).refused(), &[name, "at offset 0"]);
    fs::write(&segment, &intact).unwrap();
    assert_eq!(rows(&data).await, 200, "restored, it is whole");
}

#[tokio::test]
async fn a_torn_end_is_cut() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let segment = written(&data).await;
    let (_, end) = segments(&data).remove(0);
    let file = File::options().write(true).open(&segment).unwrap();
    file.write_all_at(&[0xa5; 3000], end).unwrap();
    let count = rows(&data).await;
    let log = fs::read_to_string(data.with_extension("log")).unwrap();
    let line = log.lines().rev().find(|line| line.contains("erasing an unfinished write")).unwrap_or_default();
    says("3000 bytes of garbage behind the end of the log", &format!("{line}\n{count} rows"), &["erasing", "offset"]);
    assert_eq!(count, 200);
}

#[tokio::test]
async fn a_missing_segment_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let segment = written(&data).await;
    let aside = folder.path().join("aside");
    fs::rename(&segment, &aside).unwrap();
    let exit = Serve::new(&data).refused();
    let log = data.join("log").display().to_string();
    fails("the log's only used segment deleted", &exit, &["corrupt log", "files are missing", &log]);
    fs::rename(&aside, &segment).unwrap();
    assert_eq!(rows(&data).await, 200);
}
