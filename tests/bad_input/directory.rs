//! A data directory that is locked, of another cluster, damaged or no directory at all; a bucket prefix that another
//! cluster owns.

use std::{fs, path::Path};

use holdfast_tests::{s3::S3Server, serve::Serve};

use crate::{checkpoint, fails, still_serves};

/// A data directory that some server has used, and its bucket.
fn used(data: &Path, store: &str) {
    let server = Serve::new(data).args(["--store", store]).start();
    assert_eq!(server.terminate(), Some(0));
}

#[tokio::test]
async fn locked() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let server = Serve::new(&data).start();
    let pid = server.pid().to_string();
    let other = format!("file://{}", folder.path().join("other").display());
    let exit = Serve::new(&data).args(["--store", &other]).refused();
    fails(
        "a second server on a data directory",
        &exit,
        &["data/log is in use by process", &pid, "another data directory"],
    );
    let bucket = format!("file://{}", data.join("bucket").display());
    let exit = Serve::new(&folder.path().join("second")).args(["--store", &bucket]).refused();
    fails("a second server on a bucket folder", &exit, &["data/bucket is in use: process", &pid, "another folder"]);
    still_serves(&server).await;
}

#[test]
fn of_another_cluster() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let store = |name: &str| format!("file://{}", path(name).display());
    used(&path("a"), &store("bucket-a"));
    used(&path("b"), &store("bucket-b"));
    let exit = Serve::new(&path("a")).args(["--store", &store("bucket-b")]).refused();
    let parts = [&store("bucket-b")[..], "belongs to cluster", "but the data directory to cluster", "another prefix"];
    fails("the data directory of one cluster with the bucket of another", &exit, &parts);
    let exit = Serve::new(&path("new")).args(["--store", &store("bucket-b")]).refused();
    fails("a new data directory with the bucket of a cluster", &exit, &parts[..2]);

    fs::remove_dir_all(path("a").join("log")).unwrap();
    copy(&path("b").join("log"), &path("a").join("log"));
    let exit = Serve::new(&path("a")).args(["--store", &store("bucket-a")]).refused();
    let log = path("a").join("log").display().to_string();
    fails("the log of another cluster", &exit, &[&log, ".wal belongs to cluster", "wrong data directory?"]);
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for file in fs::read_dir(from).unwrap().flatten() {
        fs::copy(file.path(), to.join(file.file_name())).unwrap();
    }
}

#[test]
fn a_prefix_that_another_cluster_owns() {
    let folder = tempfile::tempdir().unwrap();
    let s3 = S3Server::start();
    let first = Serve::new(&folder.path().join("a")).args(["--store", &s3.url("shared")]).envs(s3.env()).start();
    let exit = Serve::new(&folder.path().join("b")).args(["--store", &s3.url("shared")]).envs(s3.env()).refused();
    let parts = ["s3://holdfast/shared belongs to cluster", "but the data directory to cluster", "another prefix"];
    fails("a second cluster on a prefix, the first still running", &exit, &parts);
    assert_eq!(first.terminate(), Some(0));
    let exit = Serve::new(&folder.path().join("b")).args(["--store", &s3.url("shared")]).envs(s3.env()).refused();
    fails("the same, the first gone", &exit, &parts);
}

#[test]
fn damaged_or_none() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    fs::write(path("file"), "x").unwrap();
    let exit = Serve::new(&path("file")).refused();
    fails("a file as data directory", &exit, &["--data-dir", path("file").to_str().unwrap()]);

    let data = path("data");
    let server = Serve::new(&data).args(["--store", &format!("file://{}", path("bucket").display())]).start();
    checkpoint(&server);
    assert_eq!(server.terminate(), Some(0));
    let refused = || Serve::new(&data).args(["--store", &format!("file://{}", path("bucket").display())]).refused();
    for (name, what) in [("IDENTITY", "identity file"), ("MANIFEST", "manifest pointer")] {
        let file = data.join(name);
        let intact = fs::read(&file).unwrap_or_else(|e| panic!("{name}: {e}"));
        let mut bad = intact.clone();
        bad[10] ^= 0x40;
        fs::write(&file, &bad).unwrap();
        fails(&format!("a bit of {name} flipped"), &refused(), &[file.to_str().unwrap(), what, "checksum"]);
        fs::write(&file, &intact[..7]).unwrap();
        fails(&format!("{name} cut to 7 bytes"), &refused(), &[file.to_str().unwrap(), what]);
        fs::write(&file, &intact).unwrap();
    }
    used(&data, &format!("file://{}", path("bucket").display()));
}
