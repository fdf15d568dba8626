//! Memtables that leave RAM for local disk while the bucket is away: what is read from there, what a restart finds, and
//! what is left when the bucket is back.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use holdfast::{Db, Error, Isolation, Keyspace, Options, ScanOptions, Snapshot, TxnOptions};

use crate::bucket::{Mood, TestBucket, count, counter, fill, open, options, put_at_last};

/// Bytes of a row's value.
const VALUE: usize = 1000;

/// Options with which all but the newest rows leave RAM.
fn small(dir: &tempfile::TempDir, bucket: &Arc<TestBucket>) -> Options {
    let mut options = options(dir, bucket);
    options.frozen_bytes = 512 << 10;
    // What is frozen waits for the bucket only, not for others.
    options.flush_bytes = Some(0);
    options
}

fn folder(dir: &tempfile::TempDir) -> PathBuf {
    dir.path().join("data").join("spill")
}

/// The files of a spill that end with `kind`.
fn files(folder: &Path, kind: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.is_file() && path.to_str().unwrap().ends_with(kind)).collect()
}

fn flip(file: &Path, at: u64) {
    let file = fs::File::options().read(true).write(true).open(file).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 1], at).unwrap();
}

async fn write_rows(db: &Db, ks: &Keyspace, rows: std::ops::Range<u32>) {
    for row in rows {
        db.put(ks, format!("{row:06}"), vec![row as u8; VALUE]).await.unwrap();
        let in_ram = counter(db, "memtables_frozen_bytes");
        assert!(in_ram <= 2 * (512 << 10), "{in_ram} bytes of frozen memtables in RAM");
    }
}

async fn check_rows(db: &Db, ks: &Keyspace, rows: u32) {
    assert_eq!(count(db, ks).await, rows as usize);
    for row in (0..rows).step_by(97) {
        let value = db.get(ks, format!("{row:06}").as_bytes()).await.unwrap();
        assert_eq!(value.unwrap(), vec![row as u8; VALUE], "row {row}");
    }
    assert_eq!(db.get(ks, b"absent").await.unwrap(), None);
}

/// Waits until nothing is spilled any more: files go when the last reader is done with them.
async fn drained(db: &Db, dir: &tempfile::TempDir) {
    db.checkpoint().await.unwrap();
    while counter(db, "spilled_bytes") > 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!((counter(db, "memtables_frozen"), counter(db, "spilled_tables")), (0, 0));
    let left = files(&folder(dir), "");
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn commits_go_on_beyond_the_ram_and_a_restart_does_not_replay_them() {
    let (dir, bucket) = (tempfile::tempdir().unwrap(), TestBucket::new(Mood::Fails));
    let (db, ks) = open(small(&dir, &bucket)).await;
    write_rows(&db, &ks, 0..4000).await;
    let spilled = counter(&db, "spilled_bytes");
    assert!(spilled > 3 << 20, "{spilled} bytes on disk");
    check_rows(&db, &ks, 4000).await;
    drop((db, ks));

    let (db, ks) = open(small(&dir, &bucket)).await;
    assert!(counter(&db, "spilled_tables") > 10);
    let replayed = counter(&db, "log_applied_bytes");
    assert!(replayed < 1 << 20, "{replayed} bytes were applied again");
    check_rows(&db, &ks, 4000).await;
    write_rows(&db, &ks, 4000..5000).await;
    check_rows(&db, &ks, 5000).await;
    db.close().await.unwrap();
    drop((db, ks));

    let (db, ks) = open(small(&dir, &bucket)).await;
    check_rows(&db, &ks, 5000).await;
    bucket.set(Mood::Works);
    drained(&db, &dir).await;
    check_rows(&db, &ks, 5000).await;
    assert_eq!(counter(&db, "spill_failures"), 0);
    db.close().await.unwrap();
    drop((db, ks));
    let (db, ks) = open(small(&dir, &bucket)).await;
    check_rows(&db, &ks, 5000).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flush_that_waits_for_the_store_and_an_open_scan_hold_no_rows_in_ram() {
    let (dir, bucket) = (tempfile::tempdir().unwrap(), TestBucket::new(Mood::Stalls));
    let (db, ks) = open(small(&dir, &bucket)).await;
    write_rows(&db, &ks, 0..100).await;
    let snapshot = db.snapshot().unwrap();
    let mut scan = snapshot.scan(&ks, ScanOptions::default()).unwrap();
    let mut seen = Vec::new();
    scan.next_batch(&mut seen, 10).await.unwrap();
    write_rows(&db, &ks, 100..3000).await;
    assert!(counter(&db, "spilled_tables") > 5);
    while scan.next_batch(&mut seen, 10).await.unwrap() > 0 {}
    assert_eq!(seen.len(), 100);
    drop((scan, snapshot));
    bucket.set(Mood::Works);
    drained(&db, &dir).await;
    check_rows(&db, &ks, 3000).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn files_stay_for_as_long_as_a_scan_reads_them() {
    let (dir, bucket) = (tempfile::tempdir().unwrap(), TestBucket::new(Mood::Fails));
    let mut options = small(&dir, &bucket);
    // Each read goes to the file.
    options.memory_cache = Some(0);
    let (db, ks) = open(options).await;
    write_rows(&db, &ks, 0..3000).await;
    let mut scan = db.scan(&ks, ScanOptions::default()).unwrap();
    let mut seen = Vec::new();
    scan.next_batch(&mut seen, 1).await.unwrap();
    bucket.set(Mood::Works);
    db.checkpoint().await.unwrap();
    while counter(&db, "spilled_tables") > 0 {
        tokio::task::yield_now().await;
    }
    while scan.next_batch(&mut seen, 100).await.unwrap() > 0 {}
    assert_eq!(seen.len(), 3000);
    drop(scan);
    drained(&db, &dir).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_its_spill_a_restart_replays_the_log_and_spills_again() {
    let (dir, bucket) = (tempfile::tempdir().unwrap(), TestBucket::new(Mood::Fails));
    let (db, ks) = open(small(&dir, &bucket)).await;
    write_rows(&db, &ks, 0..3000).await;
    db.close().await.unwrap();
    drop((db, ks));
    fs::remove_dir_all(folder(&dir)).unwrap();
    let (db, ks) = open(small(&dir, &bucket)).await;
    assert!(counter(&db, "log_applied_bytes") > 2 << 20);
    assert!(counter(&db, "spilled_tables") > 10);
    assert!(counter(&db, "memtables_frozen_bytes") <= 512 << 10);
    check_rows(&db, &ks, 3000).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn at_the_bound_of_the_spill_commits_are_refused_with_it_and_all_drains() {
    let (dir, bucket) = (tempfile::tempdir().unwrap(), TestBucket::new(Mood::Fails));
    let mut options = small(&dir, &bucket);
    options.spill_bytes = Some(1 << 20);
    let (db, ks) = open(options.clone()).await;
    let (rows, why) = fill(&db, &ks, 4000).await;
    assert!(why.contains("memtables wait for the store; the bound is 524288 in RAM"), "{why}");
    assert!(why.contains("of 1048576 on disk are taken") && why.contains("the bucket is away"), "{why}");
    let taken: u64 = files(&folder(&dir), "").iter().map(|file| file.metadata().unwrap().len()).sum();
    assert!(taken <= 1 << 20 && taken == counter(&db, "spilled_bytes"), "{taken} bytes");
    assert_eq!(count(&db, &ks).await, rows);
    bucket.set(Mood::Works);
    put_at_last(&db, &ks, "back").await;
    drained(&db, &dir).await;
    assert_eq!(count(&db, &ks).await, rows + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_spill_that_fails_loses_nothing_and_goes_on_when_the_disk_does() {
    let (dir, bucket) = (tempfile::tempdir().unwrap(), TestBucket::new(Mood::Fails));
    let (db, ks) = open(small(&dir, &bucket)).await;
    let staging = folder(&dir).join(".staging");
    fs::remove_dir_all(&staging).unwrap();
    let (rows, why) = fill(&db, &ks, 4000).await;
    assert!(why.contains("the last spill to disk failed"), "{why}");
    assert!(counter(&db, "spill_failures") > 0);
    assert_eq!((counter(&db, "spilled_tables"), count(&db, &ks).await), (0, rows));
    fs::create_dir(&staging).unwrap();
    put_at_last(&db, &ks, "back").await;
    assert!(counter(&db, "spilled_tables") > 0);
    assert_eq!(count(&db, &ks).await, rows + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_spill_is_named_and_a_restart_replays_the_log_instead() {
    let (dir, bucket) = (tempfile::tempdir().unwrap(), TestBucket::new(Mood::Fails));
    let mut options = small(&dir, &bucket);
    // Each read goes to the file.
    options.memory_cache = Some(0);
    let (db, ks) = open(options.clone()).await;
    write_rows(&db, &ks, 0..3000).await;
    let rows = files(&folder(&dir), ".rows");
    rows.iter().for_each(|file| flip(file, 5000));
    let mut refused = 0;
    for row in 0..3000u32 {
        match db.get(&ks, format!("{row:06}").as_bytes()).await {
            Ok(value) => assert_eq!(value.unwrap(), vec![row as u8; VALUE]),
            Err(Error::Corrupt(why)) => {
                assert!(why.contains("/spill/") && why.contains(".rows: page 0 at offset 0"), "{why}");
                refused += 1;
            }
            Err(error) => panic!("{error}"),
        }
    }
    assert!(refused > 0);
    // Nothing of this goes to the bucket.
    bucket.set(Mood::Works);
    let failed = db.checkpoint().await.unwrap_err();
    assert!(matches!(&failed, Error::Corrupt(why) if why.contains("/spill/")), "{failed}");
    bucket.set(Mood::Fails);
    drop((db, ks));
    let (db, ks) = open(options.clone()).await;
    assert!(counter(&db, "log_applied_bytes") > 2 << 20);
    check_rows(&db, &ks, 3000).await;
    // An index, too: what comes behind the gap is replayed.
    while counter(&db, "spilled_tables") < 3 {
        tokio::task::yield_now().await;
    }
    db.close().await.unwrap();
    drop((db, ks));
    flip(&files(&folder(&dir), ".index")[1], 60);
    bucket.set(Mood::Works);
    let (db, ks) = open(options).await;
    check_rows(&db, &ks, 3000).await;
    drained(&db, &dir).await;
    check_rows(&db, &ks, 3000).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conflict_is_found_in_what_was_spilled() {
    let (dir, bucket) = (tempfile::tempdir().unwrap(), TestBucket::new(Mood::Fails));
    let (db, ks) = open(small(&dir, &bucket)).await;
    write_rows(&db, &ks, 0..10).await;
    let begin = || db.begin(TxnOptions { isolation: Isolation::Serializable, ..TxnOptions::default() }).unwrap();
    let (mut changed, mut ranged, mut calm) = (begin(), begin(), begin());
    for (txn, key) in [(&mut changed, "000003"), (&mut ranged, "000007"), (&mut calm, "000009")] {
        txn.get(&ks, key.as_bytes()).await.unwrap();
        txn.put(&ks, format!("of {key}"), "1").unwrap();
    }
    db.put(&ks, "000003", "2").await.unwrap();
    let mut delete = db.begin(TxnOptions::default()).unwrap();
    delete.delete_range(&ks, "000006", "000008").unwrap();
    delete.commit().await.unwrap();
    write_rows(&db, &ks, 1000..3000).await;
    assert!(counter(&db, "spilled_tables") > 3);
    assert!(matches!(changed.commit().await, Err(Error::Conflict(_))));
    assert!(matches!(ranged.commit().await, Err(Error::Conflict(_))));
    calm.commit().await.unwrap();
}

/// The next number of a fixed sequence.
fn random(state: &mut u64, below: u64) -> u64 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (*state >> 33) % below
}

type Model = BTreeMap<Bytes, Bytes>;

fn key(n: u64) -> Bytes {
    format!("{n:03}").into()
}

/// One random commit, also made in the model.
async fn step(db: &Db, ks: &Keyspace, model: &mut Model, state: &mut u64) {
    let mut txn = db.begin(TxnOptions::default()).unwrap();
    let at = random(state, 300);
    match random(state, 20) {
        0 => {
            let end = at + 1 + random(state, 30);
            txn.delete_range(ks, key(at), key(end)).unwrap();
            model.retain(|found, _| *found < key(at) || *found >= key(end));
            // Survives the delete that it comes with.
            txn.put(ks, key(at), "kept").unwrap();
            model.insert(key(at), "kept".into());
        }
        1..4 => {
            txn.delete(ks, key(at)).unwrap();
            model.remove(&key(at));
        }
        kind => {
            // Now and then one that needs overflow pages.
            let len = if kind == 4 { 9_000 + random(state, 200_000) } else { random(state, 3000) };
            let value = Bytes::from(vec![random(state, 256) as u8; len as usize]);
            txn.put(ks, key(at), value.clone()).unwrap();
            model.insert(key(at), value);
        }
    }
    txn.commit().await.unwrap();
}

async fn agrees(snapshot: &Snapshot, ks: &Keyspace, model: &Model, state: &mut u64) {
    for n in 0..330 {
        assert_eq!(snapshot.get(ks, &key(n)).await.unwrap().as_ref(), model.get(&key(n)), "key {n}");
    }
    for reverse in [false, true] {
        let (start, len) = (random(state, 300), random(state, 300));
        let range = ScanOptions::range(key(start), key(start + len));
        let range = if reverse { range.reversed() } else { range };
        let mut scan = snapshot.scan(ks, range).unwrap();
        let mut found = Vec::new();
        while let Some(row) = scan.next().await.unwrap() {
            found.push((row.key, row.value));
        }
        let mut expected: Vec<_> =
            model.range(key(start)..key(start + len)).map(|(k, v)| (k.clone(), v.clone())).collect();
        if reverse {
            expected.reverse();
        }
        assert!(found == expected, "{start}..{} reverse {reverse}", start + len);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_spilled_answers_as_before_to_every_snapshot() {
    for seed in 1..4 {
        let (dir, bucket) = (tempfile::tempdir().unwrap(), TestBucket::new(Mood::Fails));
        let mut options = options(&dir, &bucket);
        // Whatever is frozen goes to disk.
        options.frozen_bytes = 1;
        let (db, ks) = open(options.clone()).await;
        let (mut model, mut state) = (Model::new(), seed);
        let mut snapshots = Vec::new();
        for round in 0..400 {
            step(&db, &ks, &mut model, &mut state).await;
            if round % 80 == 40 {
                snapshots.push((db.snapshot().unwrap(), model.clone()));
            }
        }
        assert!(counter(&db, "spilled_tables") > 10);
        snapshots.push((db.snapshot().unwrap(), model.clone()));
        for (snapshot, model) in &snapshots {
            agrees(snapshot, &ks, model, &mut state).await;
        }
        // The same rows from pages, still to each of them.
        bucket.set(Mood::Works);
        db.checkpoint().await.unwrap();
        assert_eq!(counter(&db, "spilled_tables"), 0);
        for (snapshot, model) in &snapshots {
            agrees(snapshot, &ks, model, &mut state).await;
        }
        drop(snapshots);
        drained(&db, &dir).await;
        bucket.set(Mood::Fails);
        for _ in 0..200 {
            step(&db, &ks, &mut model, &mut state).await;
        }
        db.close().await.unwrap();
        drop((db, ks));
        let (db, ks) = open(options).await;
        assert!(counter(&db, "spilled_tables") > 5);
        agrees(&db.snapshot().unwrap(), &ks, &model, &mut state).await;
    }
}
