//! What waits for a store that is slow, fails, or panics, what is refused, and that all drains once it is back.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use holdfast::{Error, TxnOptions, clock::Clock};

use crate::bucket::{Mood, TestBucket, count, counter, fill, open, options, put_at_last};

#[tokio::test(flavor = "multi_thread")]
async fn freezing_goes_on_while_a_flush_waits_for_the_store() {
    let (dir, bucket) = (tempfile::tempdir().unwrap(), TestBucket::new(Mood::Stalls));
    let (db, ks) = open(options(&dir, &bucket)).await;
    let value = vec![1u8; 1000];
    for row in 0..10_000 {
        db.put(&ks, format!("{row:05}"), value.clone()).await.unwrap();
        if counter(&db, "memtables_frozen") >= 3 {
            bucket.set(Mood::Works);
            db.checkpoint().await.unwrap();
            assert_eq!(counter(&db, "memtables_frozen"), 0);
            assert_eq!(count(&db, &ks).await, row + 1);
            return;
        }
    }
    panic!("10 MB in memtables of 64 KiB, and no third one was frozen");
}

#[tokio::test(flavor = "multi_thread")]
async fn at_the_bound_of_memtables_commits_wait_then_say_why_and_all_drains() {
    let (dir, bucket) = (tempfile::tempdir().unwrap(), TestBucket::new(Mood::Fails));
    let mut options = options(&dir, &bucket);
    options.frozen_bytes = 1 << 20;
    options.spill_bytes = Some(0);
    let (db, ks) = open(options.clone()).await;
    let (rows, why) = fill(&db, &ks, 16_000).await;
    assert!(why.contains("memtables wait for the store; the bound is 1048576"), "{why}");
    assert!(why.contains("the bucket is away"), "{why}");
    let frozen = counter(&db, "memtables_frozen");
    assert!(frozen <= 8, "{frozen} frozen memtables");
    assert!(counter(&db, "memtable_bytes") + counter(&db, "memtables_frozen_bytes") < 4 << 20);
    assert!(matches!(db.checkpoint().await, Err(Error::Store(why)) if why.contains("the bucket is away")));
    bucket.set(Mood::Works);
    put_at_last(&db, &ks, "back").await;
    db.checkpoint().await.unwrap();
    assert_eq!(counter(&db, "memtables_frozen"), 0);
    assert_eq!(count(&db, &ks).await, rows + 1);
    db.close().await.unwrap();
    drop((db, ks));
    let (db, ks) = open(options).await;
    assert_eq!(count(&db, &ks).await, rows + 1);
}

/// Reads would look into ever more runs.
#[tokio::test(flavor = "multi_thread")]
async fn commits_are_refused_while_compaction_fails_and_are_told_why() {
    let (dir, bucket) = (tempfile::tempdir().unwrap(), TestBucket::new(Mood::Rots));
    let (db, ks) = open(options(&dir, &bucket)).await;
    let mut written = 0;
    let why = loop {
        // Keys from all over: runs that don't overlap would be merged without a read.
        let (key, round) = (written * 37 % 50, written / 50);
        match db.put(&ks, format!("{key:02}"), vec![round as u8; 16_000]).await {
            Ok(()) => written += 1,
            Err(Error::Retry(why)) => break why,
            Err(error) => panic!("row {written}: {error}"),
        }
    };
    assert!(why.contains("compaction is 40 flushed runs behind, of at most 40; the last compaction failed: "), "{why}");
    assert!(why.contains("/obj/"), "no object is named: {why}");
    let troubles = db.troubles();
    assert!(troubles.compaction.is_some_and(|compaction| why.contains(&compaction)), "{why}");
    assert_eq!(troubles.commits_refused.as_ref(), Some(&why));
    bucket.set(Mood::Works);
    put_at_last(&db, &ks, "back").await;
    assert_eq!(db.troubles().compaction, None);
    assert_eq!(count(&db, &ks).await, 51);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waiting_commit_goes_on_when_the_store_is_back() {
    let (dir, bucket) = (tempfile::tempdir().unwrap(), TestBucket::new(Mood::Stalls));
    let mut options = options(&dir, &bucket);
    options.frozen_bytes = 256 << 10;
    options.spill_bytes = Some(0);
    options.write_stall_timeout = Duration::from_secs(600);
    let (db, ks) = open(options).await;
    let writer = {
        let (db, ks) = (db.clone(), ks.clone());
        tokio::spawn(async move {
            for row in 0..2000 {
                db.put(&ks, format!("{row:05}"), vec![1u8; 1000]).await.unwrap();
            }
        })
    };
    // 2 MB do not fit; the writer stands still somewhere above 256 KiB.
    while counter(&db, "memtables_frozen_bytes") < 256 << 10 {
        tokio::task::yield_now().await;
    }
    bucket.set(Mood::Works);
    writer.await.unwrap();
    assert_eq!(count(&db, &ks).await, 2000);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_filled_up_during_an_outage_drains() {
    let (dir, bucket) = (tempfile::tempdir().unwrap(), TestBucket::new(Mood::Fails));
    let mut options = options(&dir, &bucket);
    options.memtable_bytes = 64 << 20;
    let (db, ks) = open(options.clone()).await;
    let (rows, why) = fill(&db, &ks, 200_000).await;
    assert!(why.contains("the log has room for") && why.contains("kept back"), "{why}");
    assert!(counter(&db, "log_runway_bytes") > 0);
    bucket.set(Mood::Works);
    put_at_last(&db, &ks, "back").await;
    db.checkpoint().await.unwrap();
    assert_eq!(count(&db, &ks).await, rows + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_the_log_cannot_hold_is_refused_and_holds_nothing_up() {
    let (dir, bucket) = (tempfile::tempdir().unwrap(), TestBucket::new(Mood::Works));
    let (db, ks) = open(options(&dir, &bucket)).await;
    let refused = db.put(&ks, "big", vec![1u8; 60_000_000]).await.unwrap_err();
    assert!(matches!(&refused, Error::Retry(why) if why.contains("the log")), "{refused}");
    put_at_last(&db, &ks, "small").await;
    // Its parts are aborted, so this can freeze, and the log is free again.
    db.checkpoint().await.unwrap();
    db.put(&ks, "medium", vec![1u8; 5_000_000]).await.unwrap();
    assert_eq!(count(&db, &ks).await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn small_commits_freeze_the_memtable_by_the_blocks_that_they_take() {
    let (dir, bucket) = (tempfile::tempdir().unwrap(), TestBucket::new(Mood::Works));
    let mut options = options(&dir, &bucket);
    options.memtable_bytes = 64 << 20;
    let (db, ks) = open(options).await;
    // A block of 4 KiB each: 20 MB of log, but less than 1 MB of payload.
    for row in 0..5000u32 {
        db.put(&ks, row.to_be_bytes().to_vec(), "v").await.unwrap();
    }
    db.checkpoint().await.unwrap();
    assert!(counter(&db, "tree_installed") >= 2, "only the checkpoint froze");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_in_the_background_ends_the_database_with_its_message() {
    let (dir, bucket) = (tempfile::tempdir().unwrap(), TestBucket::new(Mood::Panics));
    let (db, ks) = open(options(&dir, &bucket)).await;
    let error = db.checkpoint().await.unwrap_err();
    assert!(matches!(&error, Error::Closed(why) if why.contains("the bucket lost its mind")), "{error}");
    assert_eq!(db.put(&ks, "a", "1").await.unwrap_err(), error);
    // What /healthz asks.
    assert_eq!(db.snapshot().err().unwrap(), error);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cold_read_ends_however_many_commits_overtake_it() {
    let (dir, bucket) = (tempfile::tempdir().unwrap(), TestBucket::new(Mood::Works));
    let mut options = options(&dir, &bucket);
    // Nothing stays: each attempt reads its page from the bucket.
    options.memory_cache = Some(0);
    let (db, ks) = open(options).await;
    db.put(&ks, "cold", "1").await.unwrap();
    db.checkpoint().await.unwrap();
    let (reads, mut arrivals) = tokio::sync::mpsc::unbounded_channel();
    *bucket.reads.lock().unwrap() = Some(reads);
    let mut read = Box::pin(db.get(&ks, b"cold"));
    for attempt in 0..8 {
        tokio::select! {
            value = &mut read => {
                assert!(attempt >= 2, "nothing overtook it");
                assert_eq!(value.unwrap().unwrap(), "1");
                return;
            }
            arrived = arrivals.recv() => {
                // Two commits: the second moves the floor past what the read began with.
                db.put(&ks, "other", "1").await.unwrap();
                db.put(&ks, "other", "2").await.unwrap();
                arrived.unwrap().send(()).unwrap();
            }
        }
    }
    panic!("still reading");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_ends_when_only_guards_or_keyspaces_changed() {
    let (dir, bucket) = (tempfile::tempdir().unwrap(), TestBucket::new(Mood::Works));
    let (db, _ks) = open(options(&dir, &bucket)).await;
    db.checkpoint().await.unwrap();
    let before = counter(&db, "flushed_index");
    let mut ddl = db.begin(TxnOptions::default()).unwrap();
    ddl.set_guard(1, 5);
    ddl.commit().await.unwrap();
    db.checkpoint().await.unwrap();
    let after = counter(&db, "flushed_index");
    assert!(after > before);
    db.keyspace("another").await.unwrap();
    db.checkpoint().await.unwrap();
    assert!(counter(&db, "flushed_index") > after);
    assert!(!bucket.keys("/manifest/").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn many_range_deletes_freeze_the_memtable_and_never_slow_down_reads_without_bound() {
    let (dir, bucket) = (tempfile::tempdir().unwrap(), TestBucket::new(Mood::Works));
    let mut options = options(&dir, &bucket);
    options.memtable_bytes = 64 << 20;
    let (db, ks) = open(options).await;
    for row in 0..3000u32 {
        let mut txn = db.begin(TxnOptions::default()).unwrap();
        txn.put(&ks, row.to_be_bytes().to_vec(), "v").unwrap();
        if row > 0 {
            txn.delete_range(&ks, (row - 1).to_be_bytes().to_vec(), row.to_be_bytes().to_vec()).unwrap();
        }
        txn.commit().await.unwrap();
    }
    assert_eq!(count(&db, &ks).await, 1);
    db.checkpoint().await.unwrap();
    assert!(counter(&db, "tree_installed") >= 2, "only the checkpoint froze");
    assert_eq!(count(&db, &ks).await, 1);
}

/// Time stands still until the test moves it.
struct Stopped(Mutex<Duration>);

impl Clock for Stopped {
    fn now(&self) -> Duration {
        *self.0.lock().unwrap()
    }

    fn unix_millis(&self) -> u64 {
        0
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_of_failed_flushes_are_deleted() {
    let (dir, bucket) = (tempfile::tempdir().unwrap(), TestBucket::new(Mood::FailsManifests));
    let clock = Arc::new(Stopped(Mutex::new(Duration::ZERO)));
    let mut options = options(&dir, &bucket);
    options.clock = Some(clock.clone());
    let (db, ks) = open(options).await;
    for row in 0..20 {
        db.put(&ks, format!("{row:02}"), vec![1u8; 10_000]).await.unwrap();
    }
    // Every attempt leaves an object.
    while bucket.keys("/obj/").len() < 3 {
        tokio::task::yield_now().await;
    }
    bucket.set(Mood::Works);
    db.checkpoint().await.unwrap();
    *clock.0.lock().unwrap() = Duration::from_secs(60);
    for _ in 0..10_000 {
        db.collect_garbage(false).await.unwrap();
        // A compaction may be under way.
        if bucket.keys("/obj/").len() as u64 == counter(&db, "tree_objects") {
            assert_eq!(count(&db, &ks).await, 20);
            return;
        }
        tokio::task::yield_now().await;
    }
    panic!("{:?} for {} objects", bucket.keys("/obj/"), counter(&db, "tree_objects"));
}
