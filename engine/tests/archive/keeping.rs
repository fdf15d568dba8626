//! Keeping the archive: what is put when, what holds up the purge and the collection, and that both end.

use std::time::Duration;

use holdfast::{Archiving, Batch, Durability, format::archive::ArchiveObject};

use crate::bucket::*;

#[tokio::test(flavor = "multi_thread")]
async fn commits_are_archived_and_an_idle_database_goes_quiet() {
    let (dir, bucket) = (tempfile::tempdir().unwrap(), SharedBucket::new());
    let db = open(options(&dir.path().join("data"), &bucket)).await;
    let ks = db.keyspace("test").await.unwrap();
    // Few enough that the log behind the memtable does not ask for a flush, which would be news.
    for row in 0..20 {
        db.put(&ks, format!("{row:03}"), "v").await.unwrap();
    }
    archived(&db).await;
    assert!(counter(&db, "archived_index") > 20 && counter(&db, "archive_on") == 1);
    assert_eq!((counter(&db, "archive_lag_bytes"), counter(&db, "archive_lag_millis")), (0, 0));
    let puts = requests(&db, "put", "archive");
    assert!((1..=30).contains(&puts), "{puts}");
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(requests(&db, "put", "archive"), puts, "the archive's own marks are not archived for ever");

    // Its objects follow one upon the other.
    let mut last = 0;
    for key in bucket.keys("/wal/") {
        let body = holdfast::store::Bucket::get(&*bucket, &key, None).await.unwrap().bytes;
        let object = ArchiveObject::decode(body).unwrap();
        assert_eq!(object.follows.index, last, "{key}");
        last = object.last().index;
    }
    db.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_waits_for_the_bucket_waits_for_the_archive() {
    let (dir, bucket) = (tempfile::tempdir().unwrap(), SharedBucket::new());
    let db = open(options(&dir.path().join("data"), &bucket)).await;
    let ks = db.keyspace("test").await.unwrap();
    archived(&db).await;
    bucket.stalled.send_replace(Some("/wal/"));
    let mut batch = Batch::new();
    batch.put(&ks, "a", "1");
    let write = tokio::spawn({
        let db = db.clone();
        async move { db.write(batch, Durability::Bucket).await }
    });
    until("the commit waits", || counter(&db, "archive_lag_entries") > 0).await;
    assert!(!write.is_finished());
    assert!(bucket.keys("/obj/").is_empty(), "it needs no flush");
    bucket.stalled.send_replace(None);
    write.await.unwrap().unwrap();
    db.close().await.unwrap();
}

/// Rule 6: purged is what is flushed and archived. Rule 2: deleted is what was unlinked by an edit that is archived.
#[tokio::test(flavor = "multi_thread")]
async fn purge_and_collection_wait_for_the_archive() {
    let (dir, bucket) = (tempfile::tempdir().unwrap(), SharedBucket::new());
    let (options, clock) = clocked(&dir.path().join("data"), &bucket);
    let db = open(options).await;
    let ks = db.keyspace("test").await.unwrap();
    db.put(&ks, "first", "v").await.unwrap();
    archived(&db).await;
    let before = counter(&db, "archived_index");
    bucket.stalled.send_replace(Some("/wal/"));
    for round in 0..4 {
        for row in 0..20 {
            db.put(&ks, format!("{row:03}"), vec![round; 500]).await.unwrap();
        }
        db.checkpoint().await.unwrap();
    }
    until("a compaction", || counter(&db, "compactions") > 0).await;
    clock.advance(Duration::from_secs(60));
    let collected = db.collect_garbage(false).await.unwrap();
    assert!(collected.keys.is_empty() && collected.waiting > 0, "{collected:?}");
    assert!(counter(&db, "flushed_index") > before && counter(&db, "archived_index") == before);
    assert!(counter(&db, "log_first_index") <= before + 1, "the log keeps what is not archived");

    bucket.stalled.send_replace(None);
    archived(&db).await;
    until("the log forgets", || counter(&db, "log_first_index") > before + 1).await;
    clock.advance(Duration::from_secs(60));
    until("dead objects are deleted", || {
        counter(&db, "tree_dead_bytes") == 0 && bucket.keys("/obj/").len() as u64 == counter(&db, "tree_objects")
    })
    .await;
    db.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_bucket_does_not_grow_with_what_is_overwritten() {
    let (dir, bucket) = (tempfile::tempdir().unwrap(), SharedBucket::new());
    let (options, clock) = clocked(&dir.path().join("data"), &bucket);
    let db = open(options).await;
    let ks = db.keyspace("test").await.unwrap();
    let mut most = 0;
    for round in 0..30u8 {
        for row in 0..40 {
            db.put(&ks, format!("{row:03}"), vec![round; 1000]).await.unwrap();
        }
        db.checkpoint().await.unwrap();
        archived(&db).await;
        clock.advance(Duration::from_secs(15));
        most = most.max(bucket.keys("/wal/").len());
    }
    clock.advance(Duration::from_secs(60));
    db.put(&ks, "last", "v").await.unwrap();
    until("few archive objects are left", || bucket.keys("/wal/").len() < 20).await;
    until("few manifests are left", || bucket.keys("/manifest/").len() < 10).await;
    // 40 KB of rows, written 30 times; a few rounds of it may still be in archive and graveyard.
    until("little is left", || bucket.bytes() < 400_000).await;
    println!("at most {most} archive objects; {} bytes left", bucket.bytes());
    db.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn turned_off_it_lets_go_of_log_and_bucket() {
    let (dir, bucket) = (tempfile::tempdir().unwrap(), SharedBucket::new());
    let mut options = options(&dir.path().join("data"), &bucket);
    let db = open(options.clone()).await;
    let ks = db.keyspace("test").await.unwrap();
    db.put(&ks, "a", "1").await.unwrap();
    archived(&db).await;
    db.close().await.unwrap();
    options.archive = Archiving::Off;
    let db = open(options.clone()).await;
    until("the archive is gone", || bucket.keys("/wal/").is_empty() && counter(&db, "archived_index") == 0).await;
    let ks = db.keyspace("test").await.unwrap();
    db.put(&ks, "b", "1").await.unwrap();
    db.checkpoint().await.unwrap();
    let flushed = counter(&db, "flushed_index");
    until("the log forgets", || counter(&db, "log_first_index") > flushed).await;
    db.close().await.unwrap();

    // And on again: the archive starts with what the manifest does not cover.
    options.archive = Archiving::On;
    let db = open(options).await;
    archived(&db).await;
    assert!(!bucket.keys("/wal/").is_empty());
    db.close().await.unwrap();
}

/// Hundreds of objects are due at once when a flush is in force: deleting them one by one held up what commits wait for.
#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_waits_for_the_archive_does_not_wait_for_deletes() {
    let (dir, bucket) = (tempfile::tempdir().unwrap(), SharedBucket::new());
    let (options, clock) = clocked(&dir.path().join("data"), &bucket);
    let db = open(options).await;
    let ks = db.keyspace("test").await.unwrap();
    let commit = |value: u8| {
        let mut batch = Batch::new();
        batch.put(&ks, "row", vec![value]);
        db.write(batch, Durability::Bucket)
    };
    for value in 0..100 {
        commit(value).await.unwrap();
    }
    let shelved = bucket.keys("/wal/").len();
    bucket.undeleted.send_replace(Some("/wal/"));
    db.checkpoint().await.unwrap();
    archived(&db).await;
    // Until a delete waits: it may have become needless only now.
    while bucket.undeleted.receiver_count() == 0 {
        clock.advance(Duration::from_secs(60));
        commit(100).await.unwrap();
    }
    for value in 101..110 {
        commit(value).await.unwrap();
    }
    assert!(bucket.keys("/wal/").len() > shelved, "nothing is deleted yet");
    bucket.undeleted.send_replace(None);
    until("what is covered is deleted, batch after batch", || bucket.keys("/wal/").len() < 30).await;
    db.close().await.unwrap();
}
