//! Transactions over a real log: visibility, isolation levels, conflicts, savepoints, batches.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed test may panic")]

use std::time::Duration;

use holdfast::{
    Batch, Concurrency, Db, Durability, Error, Isolation, Keyspace, LockMode, LockWait, Options, ScanOptions,
    TxnOptions,
};

async fn open(dir: &tempfile::TempDir) -> (Db, Keyspace) {
    let db = Db::open(&format!("file://{}/bucket", dir.path().display()), Options::default()).await.unwrap();
    let keyspace = db.keyspace("test").await.unwrap();
    (db, keyspace)
}

fn pessimistic() -> TxnOptions {
    TxnOptions { concurrency: Concurrency::Pessimistic, ..TxnOptions::default() }
}

async fn keys(mut scan: holdfast::Scan) -> Vec<String> {
    let mut rows = Vec::new();
    while scan.next_batch(&mut rows, 3).await.unwrap() > 0 {}
    rows.into_iter().map(|row| String::from_utf8(row.key.to_vec()).unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_is_visible_whole_and_a_snapshot_does_not_move() {
    let dir = tempfile::tempdir().unwrap();
    let (db, ks) = open(&dir).await;
    let before = db.snapshot().unwrap();
    let mut txn = db.begin(TxnOptions::default()).unwrap();
    txn.put(&ks, "a", "1").unwrap();
    txn.put(&ks, "b", "2").unwrap();
    assert_eq!(db.get(&ks, b"a").await.unwrap(), None);
    assert_eq!(txn.get(&ks, b"a").await.unwrap().unwrap(), "1");
    txn.commit().await.unwrap();
    assert_eq!(db.get(&ks, b"a").await.unwrap().unwrap(), "1");
    assert_eq!(before.get(&ks, b"b").await.unwrap(), None);
    assert_eq!(keys(before.scan(&ks, ScanOptions::default()).unwrap()).await, Vec::<String>::new());
    assert_eq!(keys(db.scan(&ks, ScanOptions::default()).unwrap()).await, ["a", "b"]);
    db.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_second_writer_of_a_key_conflicts_and_may_try_again() {
    let dir = tempfile::tempdir().unwrap();
    let (db, ks) = open(&dir).await;
    db.put(&ks, "n", "0").await.unwrap();
    let (mut a, mut b) = (db.begin(TxnOptions::default()).unwrap(), db.begin(TxnOptions::default()).unwrap());
    for txn in [&mut a, &mut b] {
        txn.get(&ks, b"n").await.unwrap();
        txn.put(&ks, "n", "1").unwrap();
    }
    a.commit().await.unwrap();
    let error = b.commit().await.unwrap_err();
    assert!(matches!(error, Error::Conflict(_)) && error.is_retryable(), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn write_skew_passes_snapshot_isolation_and_fails_serializable() {
    for (isolation, both) in [(Isolation::Snapshot, true), (Isolation::Serializable, false)] {
        let dir = tempfile::tempdir().unwrap();
        let (db, ks) = open(&dir).await;
        db.put(&ks, "x", "1").await.unwrap();
        db.put(&ks, "y", "1").await.unwrap();
        let options = TxnOptions { isolation, ..TxnOptions::default() };
        let (mut a, mut b) = (db.begin(options.clone()).unwrap(), db.begin(options).unwrap());
        for txn in [&mut a, &mut b] {
            txn.get(&ks, b"x").await.unwrap();
            txn.get(&ks, b"y").await.unwrap();
        }
        a.put(&ks, "x", "0").unwrap();
        b.put(&ks, "y", "0").unwrap();
        a.commit().await.unwrap();
        assert_eq!(b.commit().await.is_ok(), both, "{isolation:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_phantom_in_a_scanned_range_fails_serializable() {
    let dir = tempfile::tempdir().unwrap();
    let (db, ks) = open(&dir).await;
    let options = TxnOptions { isolation: Isolation::Serializable, ..TxnOptions::default() };
    let mut txn = db.begin(options.clone()).unwrap();
    assert!(keys(txn.scan(&ks, ScanOptions::prefix("user/")).unwrap()).await.is_empty());
    txn.put(&ks, "count", "0").unwrap();
    db.put(&ks, "user/1", "new").await.unwrap();
    assert!(matches!(txn.commit().await, Err(Error::Conflict(_))));

    let mut txn = db.begin(options).unwrap();
    keys(txn.scan(&ks, ScanOptions::prefix("user/")).unwrap()).await;
    txn.put(&ks, "count", "1").unwrap();
    db.put(&ks, "other", "outside").await.unwrap();
    txn.commit().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn pessimistic_increments_lose_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (db, ks) = open(&dir).await;
    let clients: Vec<_> = (0..8)
        .map(|_| {
            let (db, ks) = (db.clone(), ks.clone());
            tokio::spawn(async move {
                for _ in 0..25 {
                    let mut txn = db.begin(pessimistic()).unwrap();
                    let value = txn.get_for_update(&ks, b"n").await.unwrap();
                    let n: u32 = value.map_or(0, |value| std::str::from_utf8(&value).unwrap().parse().unwrap());
                    txn.put(&ks, "n", (n + 1).to_string()).unwrap();
                    txn.commit().await.unwrap();
                }
            })
        })
        .collect();
    for client in clients {
        client.await.unwrap();
    }
    assert_eq!(db.get(&ks, b"n").await.unwrap().unwrap(), "200");
    db.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deadlock_has_one_victim_and_its_locks_go() {
    let dir = tempfile::tempdir().unwrap();
    let (db, ks) = open(&dir).await;
    let (mut a, mut b) = (db.begin(pessimistic()).unwrap(), db.begin(pessimistic()).unwrap());
    a.lock(&ks, b"x", LockMode::Exclusive, LockWait::NoWait).await.unwrap();
    b.lock(&ks, b"y", LockMode::Exclusive, LockWait::NoWait).await.unwrap();
    assert_eq!(a.lock(&ks, b"y", LockMode::Shared, LockWait::NoWait).await, Err(Error::WouldBlock));
    let (first, second) = tokio::join!(
        a.lock(&ks, b"y", LockMode::Exclusive, LockWait::Timeout),
        b.lock(&ks, b"x", LockMode::Exclusive, LockWait::Timeout),
    );
    assert_eq!([first.is_err(), second.is_err()].iter().filter(|failed| **failed).count(), 1);
    let mut victim = if first.is_err() { a } else { b };
    assert_eq!(victim.put(&ks, "x", "1"), Err(Error::Deadlock));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_wait_times_out_and_the_transaction_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let (db, ks) = open(&dir).await;
    let mut holder = db.begin(pessimistic()).unwrap();
    holder.lock(&ks, b"x", LockMode::Exclusive, LockWait::NoWait).await.unwrap();
    let options = TxnOptions { lock_wait_timeout: Duration::from_millis(20), ..pessimistic() };
    let mut txn = db.begin(options).unwrap();
    assert_eq!(txn.get_for_update(&ks, b"x").await, Err(Error::LockTimeout));
    txn.get_for_update(&ks, b"y").await.unwrap();
    txn.put(&ks, "y", "1").unwrap();
    txn.commit().await.unwrap();
    assert_eq!(db.get(&ks, b"y").await.unwrap().unwrap(), "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn current_reads_see_the_newest_and_consistent_reads_the_snapshot() {
    let dir = tempfile::tempdir().unwrap();
    let (db, ks) = open(&dir).await;
    db.put(&ks, "k", "old").await.unwrap();
    let mut txn = db.begin(pessimistic()).unwrap();
    assert_eq!(txn.get(&ks, b"k").await.unwrap().unwrap(), "old");
    db.put(&ks, "k", "new").await.unwrap();
    db.put(&ks, "l", "new").await.unwrap();
    assert_eq!(txn.get(&ks, b"k").await.unwrap().unwrap(), "old");
    assert_eq!(txn.get_for_update(&ks, b"k").await.unwrap().unwrap(), "new");
    assert_eq!(keys(txn.scan(&ks, ScanOptions::default()).unwrap()).await, ["k"]);
    assert_eq!(keys(txn.scan_current(&ks, ScanOptions::default()).unwrap()).await, ["k", "l"]);
    txn.settle().await.unwrap();
    txn.refresh_snapshot();
    assert_eq!(keys(txn.scan(&ks, ScanOptions::default().reversed()).unwrap()).await, ["l", "k"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn savepoints_undo_writes_but_not_locks() {
    let dir = tempfile::tempdir().unwrap();
    let (db, ks) = open(&dir).await;
    let mut txn = db.begin(pessimistic()).unwrap();
    txn.get_for_update(&ks, b"a").await.unwrap();
    txn.put(&ks, "a", "1").unwrap();
    let savepoint = txn.savepoint();
    txn.get_for_update(&ks, b"b").await.unwrap();
    txn.put(&ks, "a", "2").unwrap();
    txn.put(&ks, "b", "2").unwrap();
    txn.rollback_to(savepoint);
    assert_eq!((txn.get(&ks, b"a").await.unwrap().unwrap(), txn.locks_held()), ("1".into(), 2));
    txn.commit().await.unwrap();
    assert_eq!(keys(db.scan(&ks, ScanOptions::default()).unwrap()).await, ["a"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_transaction_leaves_neither_rows_nor_locks() {
    let dir = tempfile::tempdir().unwrap();
    let (db, ks) = open(&dir).await;
    let mut txn = db.begin(pessimistic()).unwrap();
    txn.get_for_update(&ks, b"a").await.unwrap();
    txn.put(&ks, "a", "1").unwrap();
    drop(txn);
    let mut next = db.begin(pessimistic()).unwrap();
    next.lock(&ks, b"a", LockMode::Exclusive, LockWait::NoWait).await.unwrap();
    assert_eq!(next.get_current(&ks, b"a").await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_guard_rejects_the_commit() {
    let dir = tempfile::tempdir().unwrap();
    let (db, ks) = open(&dir).await;
    let mut old = db.begin(TxnOptions::default()).unwrap();
    old.check_guard(7, 0);
    old.put(&ks, "a", "1").unwrap();
    let mut ddl = db.begin(TxnOptions::default()).unwrap();
    ddl.set_guard(7, 1);
    ddl.commit().await.unwrap();
    assert!(matches!(old.commit().await, Err(Error::Conflict(_))));
    let mut new = db.begin(TxnOptions::default()).unwrap();
    new.check_guard(7, 1);
    new.put(&ks, "a", "1").unwrap();
    new.commit().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn batches_span_keyspaces_and_ranges_go_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let (db, ks) = open(&dir).await;
    let other = db.keyspace("other").await.unwrap();
    let mut batch = Batch::new();
    for row in 0..10 {
        batch.put(&ks, format!("row{row}"), "v");
        batch.put(&other, format!("row{row}"), "v");
    }
    db.write(batch, Durability::Quorum).await.unwrap();
    let mut batch = Batch::new();
    batch.delete_range(&ks, "row2", "row8");
    batch.put(&ks, "row5", "again");
    batch.delete(&other, "row0");
    db.write(batch, Durability::Quorum).await.unwrap();
    assert_eq!(keys(db.scan(&ks, ScanOptions::default()).unwrap()).await, ["row0", "row1", "row5", "row8", "row9"]);
    assert_eq!(keys(db.scan(&other, ScanOptions::range("row0", "row3")).unwrap()).await, ["row1", "row2"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn dropping_a_keyspace_hides_its_rows_and_its_handles() {
    let dir = tempfile::tempdir().unwrap();
    let (db, ks) = open(&dir).await;
    db.put(&ks, "a", "1").await.unwrap();
    let mut late = db.begin(TxnOptions::default()).unwrap();
    late.put(&ks, "b", "1").unwrap();
    db.drop_keyspace("test").await.unwrap();
    assert!(matches!(late.commit().await, Err(Error::Invalid(_))));
    assert!(db.keyspaces().is_empty());
    assert!(matches!(db.drop_keyspace("test").await, Err(Error::Invalid(_))));
    let again = db.keyspace("test").await.unwrap();
    assert!(keys(db.scan(&again, ScanOptions::default()).unwrap()).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scan_is_a_stream() {
    use futures::TryStreamExt;
    let dir = tempfile::tempdir().unwrap();
    let (db, ks) = open(&dir).await;
    for row in 0..5 {
        db.put(&ks, format!("{row}"), "v").await.unwrap();
    }
    let rows: Vec<_> = db.scan(&ks, ScanOptions::default()).unwrap().try_collect().await.unwrap();
    assert_eq!(rows.len(), 5);
}
