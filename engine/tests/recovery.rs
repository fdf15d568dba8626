//! What a restart finds: after close, after a drop, from log alone, from the bucket, and with parts of both.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed test may panic")]

use std::{path::Path, sync::Arc};

use holdfast::{Batch, Db, Durability, Error, Options, ScanOptions, TxnOptions, TxnStatus};

fn options() -> Options {
    let mut options = Options::default();
    options.log_bytes = 64 << 20;
    options
}

async fn open(dir: &Path, options: Options) -> Db {
    let url = format!("file://{}/bucket", dir.display());
    loop {
        match Db::open(&url, options.clone()).await {
            // A dropped database lets go of its directory when its threads have ended.
            Err(Error::Invalid(why)) if why.contains("in use") => tokio::task::yield_now().await,
            opened => return opened.unwrap(),
        }
    }
}

async fn count(db: &Db, keyspace: &str) -> usize {
    let keyspace = db.keyspace(keyspace).await.unwrap();
    let mut scan = db.scan(&keyspace, ScanOptions::default()).unwrap();
    let mut rows = Vec::new();
    while scan.next_batch(&mut rows, 1000).await.unwrap() > 0 {}
    rows.len()
}

fn counter(db: &Db, name: &str) -> u64 {
    db.stats().counters.iter().find(|(counter, _)| *counter == name).unwrap().1
}

#[tokio::test(flavor = "multi_thread")]
async fn acknowledged_rows_survive_close_and_drop() {
    let dir = tempfile::tempdir().unwrap();
    for round in 0..4 {
        let db = open(dir.path(), options()).await;
        assert_eq!(count(&db, "test").await, round * 5);
        let ks = db.keyspace("test").await.unwrap();
        for row in 0..5 {
            db.put(&ks, format!("{round}/{row}"), "v").await.unwrap();
        }
        if round % 2 == 0 {
            db.close().await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_database_says_so_and_closing_twice_is_fine() {
    let dir = tempfile::tempdir().unwrap();
    let db = open(dir.path(), options()).await;
    let ks = db.keyspace("test").await.unwrap();
    let mut txn = db.begin(TxnOptions::default()).unwrap();
    txn.put(&ks, "a", "1").unwrap();
    db.close().await.unwrap();
    db.close().await.unwrap();
    assert!(matches!(txn.commit().await, Err(Error::Closed(_))));
    assert!(matches!(db.get(&ks, b"a").await, Err(Error::Closed(_))));
    assert!(matches!(db.put(&ks, "a", "1").await, Err(Error::Closed(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_moves_rows_to_the_bucket_and_frees_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let db = open(dir.path(), options()).await;
    let ks = db.keyspace("test").await.unwrap();
    for row in 0..100 {
        db.put(&ks, format!("{row:03}"), "old").await.unwrap();
    }
    let old = db.snapshot().unwrap();
    db.checkpoint().await.unwrap();
    assert_eq!((counter(&db, "memtables_frozen"), counter(&db, "memtable_versions")), (0, 0));
    assert!(counter(&db, "tree_entries") >= 100);
    for row in 50..60 {
        db.put(&ks, format!("{row:03}"), "new").await.unwrap();
        db.delete(&ks, format!("{:03}", row + 10)).await.unwrap();
    }
    // Pages under memtable, forwards and backwards.
    assert_eq!(count(&db, "test").await, 90);
    let mut rows = Vec::new();
    let range = ScanOptions::range("045", "075").reversed();
    db.scan(&ks, range).unwrap().next_batch(&mut rows, 100).await.unwrap();
    let expected: Vec<_> =
        (45..75).rev().filter(|row| !(60..70).contains(row)).map(|row| format!("{row:03}")).collect();
    assert_eq!(rows.iter().map(|row| String::from_utf8_lossy(&row.key)).collect::<Vec<_>>(), expected);
    assert_eq!(db.get(&ks, b"055").await.unwrap().unwrap(), "new");
    assert_eq!(old.get(&ks, b"055").await.unwrap().unwrap(), "old");
    // The snapshot keeps its versions through another flush.
    db.checkpoint().await.unwrap();
    assert_eq!(old.get(&ks, b"055").await.unwrap().unwrap(), "old");
    assert_eq!(old.get(&ks, b"065").await.unwrap().unwrap(), "old");
    drop(old);
    db.close().await.unwrap();

    let db = open(dir.path(), options()).await;
    assert_eq!((counter(&db, "memtable_versions"), count(&db, "test").await), (0, 90));
}

#[tokio::test(flavor = "multi_thread")]
async fn small_memtables_flush_by_themselves_under_load() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = options();
    options.memtable_bytes = 64 << 10;
    let db = open(dir.path(), options.clone()).await;
    let ks = db.keyspace("test").await.unwrap();
    let value = vec![7u8; 500];
    for round in 0..40 {
        let mut batch = Batch::new();
        for row in 0..50 {
            batch.put(&ks, format!("{:04}", (round * 37 + row) % 1000), value.clone());
        }
        db.write(batch, Durability::Quorum).await.unwrap();
    }
    let rows = count(&db, "test").await;
    db.checkpoint().await.unwrap();
    assert!(counter(&db, "tree_installed") >= 2);
    assert_eq!(count(&db, "test").await, rows);
    drop((db, ks));
    let db = open(dir.path(), options).await;
    assert_eq!(count(&db, "test").await, rows);
}

#[tokio::test(flavor = "multi_thread")]
async fn durability_bucket_waits_for_the_manifest() {
    let dir = tempfile::tempdir().unwrap();
    let db = open(dir.path(), options()).await;
    let ks = db.keyspace("test").await.unwrap();
    let mut batch = Batch::new();
    batch.put(&ks, "a", "1");
    db.write(batch, Durability::Bucket).await.unwrap();
    assert_eq!(counter(&db, "tree_entries"), 1);
    let mut batch = Batch::new();
    batch.put(&ks, "b", "1");
    db.write(batch, Durability::Queued).await.unwrap();
    db.close().await.unwrap();
    assert_eq!(count(&open(dir.path(), options()).await, "test").await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn keyspaces_guards_and_drops_survive_log_and_bucket() {
    let dir = tempfile::tempdir().unwrap();
    for checkpoint in [false, true] {
        let dir = dir.path().join(checkpoint.to_string());
        let db = open(&dir, options()).await;
        let (kept, gone) = (db.keyspace("kept").await.unwrap(), db.keyspace("gone").await.unwrap());
        db.put(&kept, "a", "1").await.unwrap();
        db.put(&gone, "a", "1").await.unwrap();
        let mut ddl = db.begin(TxnOptions::default()).unwrap();
        ddl.set_guard(1, 5);
        ddl.commit().await.unwrap();
        db.drop_keyspace("gone").await.unwrap();
        if checkpoint {
            db.checkpoint().await.unwrap();
        }
        db.close().await.unwrap();
        let db = open(&dir, options()).await;
        assert_eq!(db.keyspaces(), ["kept"]);
        let again = db.keyspace("gone").await.unwrap();
        assert!(again.id() > kept.id() && again.id() != gone.id());
        assert_eq!((count(&db, "kept").await, count(&db, "gone").await), (1, 0));
        let mut stale = db.begin(TxnOptions::default()).unwrap();
        stale.check_guard(1, 4);
        stale.put(&again, "a", "1").unwrap();
        assert!(matches!(stale.commit().await, Err(Error::Conflict(_))));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_in_use_and_a_foreign_bucket_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let db = open(dir.path(), options()).await;
    let url = format!("file://{}/bucket", dir.path().display());
    let error = Db::open(&url, options()).await.err().unwrap();
    let pid = std::process::id().to_string();
    assert!(matches!(&error, Error::Invalid(why) if why.contains(&pid)), "{error}");
    db.close().await.unwrap();
    let mut elsewhere = options();
    elsewhere.data_dir = Some(dir.path().join("other-data"));
    let error = Db::open(&url, elsewhere).await.err().unwrap();
    assert!(matches!(&error, Error::Invalid(why) if why.contains("belongs to")), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn half_a_big_batch_is_no_batch() {
    let dir = tempfile::tempdir().unwrap();
    let db = Arc::new(open(dir.path(), options()).await);
    let ks = db.keyspace("test").await.unwrap();
    let mut batch = Batch::new();
    batch.put(&ks, "big", vec![1u8; 5 << 20]);
    // Dropped at its first wait: some part is in the log, no commit is.
    let mut write = Box::pin(db.write(batch, Durability::Quorum));
    assert!(futures::poll!(write.as_mut()).is_pending());
    drop(write);
    db.put(&ks, "small", "1").await.unwrap();
    assert_eq!(db.get(&ks, b"big").await.unwrap(), None);
    // The aborted parts no longer hold back a freeze.
    db.checkpoint().await.unwrap();
    drop((db, ks));
    assert_eq!(count(&open(dir.path(), options()).await, "test").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_named_transaction_commits_once_and_tells_how_it_ended_after_restarts_too() {
    const ID: u128 = 0x0192_0000_0000_7000_8000_0000_0000_0001;
    let dir = tempfile::tempdir().unwrap();
    let db = open(dir.path(), options()).await;
    let ks = db.keyspace("test").await.unwrap();
    assert_eq!(db.txn_status(ID).await.unwrap(), TxnStatus::NotFound);
    // The first attempt, and one of somebody who did not hear of it: a small one and one in parts.
    for (id, value) in [(ID, 10), (ID + 1, 3 << 20)] {
        for attempt in 1..=2_u8 {
            let mut txn = db.begin(TxnOptions::default()).unwrap();
            txn.set_id(id);
            txn.put(&ks, format!("{id}"), vec![attempt; value]).unwrap();
            txn.put(&ks, format!("{id}/{attempt}"), "").unwrap();
            txn.commit().await.unwrap();
        }
        assert!(db.get(&ks, format!("{id}").as_bytes()).await.unwrap().unwrap().iter().all(|byte| *byte == 1));
    }
    assert_eq!(count(&db, "test").await, 4);
    let status = db.txn_status(ID).await.unwrap();
    let TxnStatus::Committed { token } = status else { panic!("{status:?}") };
    db.wait_for_commit(token).await.unwrap();
    // One that is refused before it has its place leaves the id free.
    let mut txn = db.begin(TxnOptions::default()).unwrap();
    txn.set_id(ID + 2);
    txn.put(&ks, "refused", "").unwrap();
    txn.check_guard(7, 1);
    assert!(matches!(txn.commit().await, Err(Error::Conflict(_))));
    assert_eq!(db.txn_status(ID + 2).await.unwrap(), TxnStatus::NotFound);
    // Not named: nothing is kept of it.
    db.put(&ks, "other", "").await.unwrap();
    for flushed in [false, true] {
        if flushed {
            open(dir.path(), options()).await.checkpoint().await.unwrap();
        } else {
            db.close().await.unwrap();
        }
        let db = open(dir.path(), options()).await;
        assert_eq!(db.txn_status(ID).await.unwrap(), status, "flushed: {flushed}");
        assert_eq!(db.txn_status(ID + 3).await.unwrap(), TxnStatus::NotFound);
        let ks = db.keyspace("test").await.unwrap();
        let mut txn = db.begin(TxnOptions::default()).unwrap();
        txn.set_id(ID + 1);
        txn.put(&ks, "again", "").unwrap();
        txn.commit().await.unwrap();
        assert_eq!(count(&db, "test").await, 5);
    }
}
