//! The fence: without contact to the bucket nothing is acknowledged after a while, and a cluster that has a successor notices.

use std::{sync::atomic::Ordering::SeqCst, time::Duration};

use holdfast::{Archiving, Db, Error, Recovery};

use crate::bucket::*;

#[tokio::test(flavor = "multi_thread")]
async fn without_the_bucket_nothing_is_acknowledged_after_a_while() {
    let (dir, bucket) = (tempfile::tempdir().unwrap(), SharedBucket::new());
    let (mut with, clock) = clocked(&dir.path().join("data"), &bucket);
    with.archive = Archiving::Off;
    with.fence_after = Some(Duration::from_secs(600));
    let db = open(with).await;
    let ks = db.keyspace("test").await.unwrap();
    db.put(&ks, "a", "1").await.unwrap();
    let asked = requests(&db, "get", "owner");
    (0..100).for_each(|_| clock.advance(Duration::from_secs(2)));
    db.put(&ks, "a", "2").await.unwrap();
    assert_eq!(requests(&db, "get", "owner"), asked, "a fresh look is good for half of the time");

    bucket.away.store(true, SeqCst);
    clock.advance(Duration::from_secs(700));
    let refused = db.put(&ks, "a", "3").await.unwrap_err();
    assert!(matches!(&refused, Error::Retry(why) if why.contains("fence_after")), "{refused}");
    assert_eq!(db.get(&ks, b"a").await.unwrap().unwrap(), "2", "reads go on");
    bucket.away.store(false, SeqCst);
    db.put(&ks, "a", "4").await.unwrap();
    db.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_with_a_successor_notices_without_an_archive_too() {
    let (dir, bucket) = (tempfile::tempdir().unwrap(), SharedBucket::new());
    let (mut with, clock) = clocked(&dir.path().join("old"), &bucket);
    with.archive = Archiving::Off;
    with.fence_after = Some(Duration::from_secs(600));
    let old = open(with).await;
    let ks = old.keyspace("test").await.unwrap();
    old.put(&ks, "a", "1").await.unwrap();
    old.checkpoint().await.unwrap();
    let mut with = options(&dir.path().join("new"), &bucket);
    with.recover = Some(Recovery { from: None, force: true });
    let new = Db::open("test://", with).await.unwrap();

    clock.advance(Duration::from_secs(700));
    let ended = old.put(&ks, "a", "2").await.unwrap_err();
    assert!(matches!(&ended, Error::Closed(why) if why.contains("superseded")), "{ended}");
    let ks = new.keyspace("test").await.unwrap();
    assert_eq!(new.get(&ks, b"a").await.unwrap().unwrap(), "1");
    new.close().await.unwrap();
}
