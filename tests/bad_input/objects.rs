//! Damage in the bucket and in the NVMe cache: no corrupt byte reaches a client, the error names the object and place,
//! and what is intact stays readable.

use std::{
    fs,
    path::{Path, PathBuf},
};

use futures::TryStreamExt;
use holdfast_tests::{
    s3::S3Server,
    serve::{Serve, Server},
};
use mysql_async::{Conn, prelude::Queryable};
use object_store::{ObjectStore as _, ObjectStoreExt as _, path::Path as Key};

use crate::{admin, checkpoint, fails, refused, says, still_serves};

/// Rows of the table; some 4 MB.
const ROWS: u64 = 4_000;

/// Fills `d.big`, of which no cache of 1 MiB can hold more than a part, and the small `d.other`; all in the bucket.
async fn fill(server: &Server) {
    let mut conn = Conn::from_url(server.url("")).await.unwrap();
    conn.query_drop("CREATE DATABASE d").await.unwrap();
    conn.query_drop("CREATE TABLE d.big (id INT PRIMARY KEY, v VARCHAR(1000))").await.unwrap();
    for from in (0..ROWS).step_by(500) {
        // Text that does not compress to nothing.
        let row = |id: u64| {
            let words = (0..60).map(|i| format!("{:016x}", (id * 61 + i + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)));
            format!("({id}, '{}')", words.collect::<String>())
        };
        let rows: Vec<_> = (from..from + 500).map(row).collect();
        conn.query_drop(format!("INSERT INTO d.big VALUES {}", rows.join(", "))).await.unwrap();
    }
    checkpoint(server);
    conn.query_drop("CREATE TABLE d.other (id INT PRIMARY KEY)").await.unwrap();
    conn.query_drop("INSERT INTO d.other VALUES (1), (2), (3)").await.unwrap();
    checkpoint(server);
    conn.disconnect().await.unwrap();
}

fn files_below(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap().flatten() {
        if entry.path().is_dir() {
            found.extend(files_below(&entry.path()));
        } else {
            found.push(entry.path());
        }
    }
    found
}

/// Files of the bucket folder whose path has `part` in it, largest first.
fn bucket_files(bucket: &Path, part: &str) -> Vec<PathBuf> {
    let mut found = files_below(bucket);
    found.retain(|path| path.strip_prefix(bucket).unwrap().to_string_lossy().contains(part));
    found.sort_by_key(|path| std::cmp::Reverse(path.metadata().unwrap().len()));
    found
}

const SMALL: [&str; 2] = ["--memory-cache", "1M"];
const SUM: &str = "SELECT COUNT(v), SUM(LENGTH(v)) FROM d.big";

#[tokio::test]
async fn a_page_in_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let server = Serve::new(&data).args(SMALL).start();
    fill(&server).await;
    assert_eq!(server.terminate(), Some(0));
    let bucket = data.join("bucket");
    let object = bucket_files(&bucket, "/obj/").remove(0);
    let intact = fs::read(&object).unwrap();
    let mut bad = intact.clone();
    bad[intact.len() / 2] ^= 1;
    fs::write(&object, &bad).unwrap();

    let server = Serve::new(&data).args(SMALL).start();
    let mut conn = Conn::from_url(server.url("d")).await.unwrap();
    let name = object.file_name().unwrap().to_str().unwrap();
    let (code, text) = refused(&mut conn, SUM).await;
    says("a bit of a stored page flipped, the table read", &format!("{code}: {text}"), &["1034", name, "checksum"]);
    assert_eq!(conn.query_first::<u64, _>("SELECT COUNT(*) FROM other").await.unwrap(), Some(3));
    let exit = admin(&server, "fsck");
    says("holdfast admin fsck", &exit.output, &["faults", name, "reports damage"]);
    assert_eq!(exit.code, Some(1));
    still_serves(&server).await;

    fs::write(&object, &intact).unwrap();
    let sums: Option<(u64, u64)> = conn.query_first(SUM).await.unwrap();
    assert_eq!(sums, Some((ROWS, ROWS * 960)), "restored, it is read again without a restart");
    assert_eq!(server.terminate(), Some(0));

    fs::write(&object, &intact[..intact.len() - 1]).unwrap();
    let text = opened_or_read(&data).await;
    says("an object cut by one byte", &text, &[name]);
    let mut bad = intact.clone();
    let footer = bad.len() - 20;
    bad[footer] ^= 1;
    fs::write(&object, &bad).unwrap();
    says("a bit of an object's footer flipped", &opened_or_read(&data).await, &[name]);
    fs::remove_file(&object).unwrap();
    says("an object deleted", &opened_or_read(&data).await, &[name, "missing"]);
    fs::write(&object, &intact).unwrap();
    assert_eq!(opened_or_read(&data).await, "no error");
}

/// The error of the server's start, or else of reading the table.
async fn opened_or_read(data: &Path) -> String {
    let server = match Serve::new(data).args(SMALL).try_start() {
        Ok(server) => server,
        Err(log) => return log.lines().rev().find(|line| line.contains("error")).unwrap_or_default().to_owned(),
    };
    let mut conn = Conn::from_url(server.url("d")).await.unwrap();
    match conn.query_first::<(u64, u64), _>(SUM).await {
        Ok(sums) => {
            assert_eq!(sums, Some((ROWS, ROWS * 960)));
            "no error".to_owned()
        }
        Err(error) => error.to_string(),
    }
}

#[tokio::test]
async fn a_manifest_and_the_owner_record() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let server = Serve::new(&data).start();
    fill(&server).await;
    assert_eq!(server.terminate(), Some(0));
    let bucket = data.join("bucket");
    for manifest in bucket_files(&bucket, "/manifest/") {
        let mut bytes = fs::read(&manifest).unwrap();
        let at = bytes.len() / 2;
        bytes[at] ^= 1;
        fs::write(&manifest, &bytes).unwrap();
    }
    let current = bucket_files(&bucket, "/manifest/");
    let exit = Serve::new(&data).refused();
    fails("a bit of every manifest flipped", &exit, &["corrupt", "/manifest/", "checksum"]);
    for manifest in &current {
        let mut bytes = fs::read(manifest).unwrap();
        let at = bytes.len() / 2;
        bytes[at] ^= 1;
        fs::write(manifest, &bytes).unwrap();
        fs::rename(manifest, manifest.with_extension("aside")).unwrap();
    }
    fails("every manifest missing", &Serve::new(&data).refused(), &["/manifest/", "missing"]);
    for manifest in &current {
        fs::rename(manifest.with_extension("aside"), manifest).unwrap();
    }
    let owner = bucket.join("owner");
    let intact = fs::read(&owner).unwrap();
    fs::write(&owner, &intact[..20]).unwrap();
    fails("the owner record cut", &Serve::new(&data).refused(), &["corrupt", "bucket/owner"]);
    fs::write(&owner, String::from_utf8(intact.clone()).unwrap().replace("\"format\": 1", "\"format\": 9")).unwrap();
    fails("an owner record of version 9", &Serve::new(&data).refused(), &["bucket/owner", "version 9", "up to 1"]);
    fs::write(&owner, &intact).unwrap();
    assert_eq!(opened_or_read(&data).await, "no error");
}

#[tokio::test]
async fn objects_on_s3_while_the_server_runs() {
    let folder = tempfile::tempdir().unwrap();
    let s3 = S3Server::start();
    let args = ["--store", &s3.url("p"), "--memory-cache", "1M", "--nvme-cache", "0"];
    let server = Serve::new(&folder.path().join("data")).args(args).envs(s3.env()).start();
    fill(&server).await;
    let client = s3.client();
    let objects: Vec<_> = client.list(Some(&Key::from("p"))).try_collect().await.unwrap();
    let objects = objects.into_iter().filter(|object| object.location.as_ref().contains("/obj/"));
    let object = objects.max_by_key(|object| object.size).unwrap().location;
    let intact = client.get(&object).await.unwrap().bytes().await.unwrap();
    let mut bad = intact.to_vec();
    for at in (0..bad.len() - 100_000).step_by(8192) {
        bad[at] ^= 1;
    }
    client.put(&object, bad.into()).await.unwrap();
    let mut conn = Conn::from_url(server.url("d")).await.unwrap();
    let name = object.filename().unwrap().to_owned();
    let (code, text) = refused(&mut conn, SUM).await;
    says("bits of an object on S3 flipped under a running server", &format!("{code}: {text}"), &["1034", &name]);
    client.delete(&object).await.unwrap();
    let (code, text) = refused(&mut conn, SUM).await;
    says("the object deleted", &format!("{code}: {text}"), &["1030", &name, "missing"]);
    client.put(&object, intact.into()).await.unwrap();
    let sums: Option<(u64, u64)> = conn.query_first(SUM).await.unwrap();
    assert_eq!(sums, Some((ROWS, ROWS * 960)));
    still_serves(&server).await;
}

#[tokio::test]
async fn slots_of_the_nvme_cache() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let args = ["--memory-cache", "1M", "--nvme-cache", "64M"];
    let server = Serve::new(&data).args(args).start();
    fill(&server).await;
    let mut conn = Conn::from_url(server.url("d")).await.unwrap();
    assert_eq!(conn.query_first(SUM).await.unwrap(), Some((ROWS, ROWS * 960)));
    assert_eq!(server.terminate(), Some(0));
    let mut flipped = 0;
    for file in files_below(&data.join("cache")) {
        let mut bytes = fs::read(&file).unwrap();
        for block in bytes.chunks_mut(4096).filter(|block| block.iter().any(|byte| *byte != 0)) {
            block[1000] ^= 1;
            flipped += 1;
        }
        fs::write(&file, &bytes).unwrap();
    }
    assert!(flipped > 500, "{flipped} blocks");
    let server = Serve::new(&data).args(args).start();
    let mut conn = Conn::from_url(server.url("d")).await.unwrap();
    let sums: Option<(u64, u64)> = conn.query_first(SUM).await.unwrap();
    let bad: Vec<(String, u64)> = conn.query("SHOW GLOBAL STATUS LIKE 'Holdfast%nvme%'").await.unwrap();
    says(&format!("a bit in each of {flipped} cache blocks flipped"), &format!("{sums:?}; {bad:?}"), &[]);
    assert_eq!(sums, Some((ROWS, ROWS * 960)));
    still_serves(&server).await;
}
