//! Rebuilding a database from the bucket alone: everything archived is there, and what stands in the way says so.

use std::{path::Path, sync::Arc, time::Duration};

use holdfast::{
    Archiving, Batch, Db, Durability, Error, Options, Recovery, TxnOptions,
    format::{archive::ArchiveObject, batch::Payload, manifest::Manifest},
    store::{Bucket, When},
};
use holdfast_wal::{Entry, LogId, Payload::Normal};

use crate::bucket::*;

fn recovering(mut options: Options, force: bool) -> Options {
    options.recover = Some(Recovery { from: None, force });
    options
}

/// Rows of every kind: flushed, compacted, deleted, in a dropped keyspace, in a big transaction, and only in the log.
async fn fill(db: &Db) {
    let (ks, other) = (db.keyspace("test").await.unwrap(), db.keyspace("dropped").await.unwrap());
    for round in 0..3u8 {
        for row in 0..30 {
            db.put(&ks, format!("{row:03}"), vec![round; 700]).await.unwrap();
            db.put(&other, format!("{row:03}"), "x").await.unwrap();
        }
        db.checkpoint().await.unwrap();
    }
    db.drop_keyspace("dropped").await.unwrap();
    let mut big = Batch::new();
    for row in 0..40 {
        big.put(&ks, format!("big{row:03}"), vec![7u8; 50_000]);
    }
    db.write(big, Durability::Quorum).await.unwrap();
    let mut txn = db.begin(TxnOptions::default()).unwrap();
    txn.delete_range(&ks, "010", "015").unwrap();
    txn.put(&ks, "012", "after").unwrap();
    txn.commit().await.unwrap();
    for row in 0..20 {
        db.delete(&ks, format!("{row:03}")).await.unwrap();
        db.put(&ks, format!("tail{row:03}"), "t").await.unwrap();
    }
}

fn wipe(data: &Path) {
    std::fs::remove_dir_all(data).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_archived_is_rebuilt_again_and_again() {
    let (dir, bucket) = (tempfile::tempdir().unwrap(), SharedBucket::new());
    let data = dir.path().join("data");
    let mut db = open(options(&data, &bucket)).await;
    fill(&db).await;
    for life in 0..3 {
        archived(&db).await;
        let expected = rows(&db).await;
        let (term, index) = (counter(&db, "raft_term"), counter(&db, "archived_index"));
        db.close().await.unwrap();
        wipe(&data);
        let (end, manifests) = (stored_end(&bucket), bucket.keys("/manifest/"));
        db = open(recovering(options(&data, &bucket), false)).await;
        // Whoever still holds an entry of the old log with this index or term must not take it for the new one's.
        let begins = manifests_but(&bucket, &manifests).map(|manifest| manifest.up_to).min();
        assert_eq!(begins, Some(LogId { term: end.term + 1, index: end.index + 1 }), "life {life}");
        assert!(rows(&db).await == expected, "life {life}: other rows");
        assert!(counter(&db, "raft_term") > term && counter(&db, "log_applied_index") > index);
        assert!(db.check_stored().await.unwrap().faults == 0);
        // It goes on as any database: writes, restarts, flushes, compacts.
        let ks = db.keyspace("test").await.unwrap();
        for row in 0..30 {
            db.put(&ks, format!("{row:03}"), format!("life {life}")).await.unwrap();
        }
        if life > 0 {
            db.checkpoint().await.unwrap();
            let expected = rows(&db).await;
            db.close().await.unwrap();
            db = open(recovering(options(&data, &bucket), false)).await;
            assert!(rows(&db).await == expected, "life {life}: a restart with the same options");
        }
    }
    db.close().await.unwrap();
}

fn manifests_but(bucket: &SharedBucket, known: &[String]) -> impl Iterator<Item = Manifest> {
    let keys = bucket.keys("/manifest/").into_iter().filter(|key| !known.contains(key));
    keys.map(|key| Manifest::decode(bucket.body(&key)).unwrap())
}

/// The last log entry that the bucket has, in a manifest or in the archive.
fn stored_end(bucket: &SharedBucket) -> LogId {
    let objects = bucket.keys("/wal/").into_iter();
    let archived = objects.map(|key| ArchiveObject::decode(bucket.body(&key)).unwrap().last());
    archived.chain(manifests_but(bucket, &[]).map(|manifest| manifest.up_to)).max_by_key(|id| id.index).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_lost_is_what_was_not_archived() {
    let (dir, bucket) = (tempfile::tempdir().unwrap(), SharedBucket::new());
    let data = dir.path().join("data");
    let db = open(options(&data, &bucket)).await;
    let ks = db.keyspace("test").await.unwrap();
    for row in 0..10 {
        db.put(&ks, format!("{row:03}"), "kept").await.unwrap();
    }
    archived(&db).await;
    let expected = rows(&db).await;
    bucket.stalled.send_replace(Some("/wal/"));
    for row in 10..20 {
        db.put(&ks, format!("{row:03}"), "lost").await.unwrap();
    }
    let bucket = bucket.copy();
    drop(db);
    let db = open(recovering(options(&dir.path().join("new"), &bucket), false)).await;
    assert_eq!(rows(&db).await, expected);
    db.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn open_parts_of_a_big_transaction_are_aborted() {
    let (dir, bucket) = (tempfile::tempdir().unwrap(), SharedBucket::new());
    let data = dir.path().join("data");
    let db = open(options(&data, &bucket)).await;
    let ks = db.keyspace("test").await.unwrap();
    db.put(&ks, "before", "v").await.unwrap();
    archived(&db).await;
    let expected = rows(&db).await;
    let indexes = counter(&db, "archived_index");
    let mut batch = Batch::new();
    (0..2000).for_each(|row| batch.put(&ks, format!("{row:05}"), vec![1u8; 20_000]));
    let write = tokio::spawn({
        let db = db.clone();
        async move { db.write(batch, Durability::Quorum).await }
    });
    until("some parts are archived", || counter(&db, "archived_index") > indexes + 3).await;
    let copy = bucket.copy();
    let whole = rows(&db).await.len() > 1;
    drop(db);
    let _ = write.await.unwrap();
    let db = open(recovering(options(&dir.path().join("new"), &copy), false)).await;
    // Whole or not at all, whichever it was when the bucket was copied.
    let found = rows(&db).await;
    assert!(found == expected || whole && found.len() == 2001, "{} rows", found.len());
    db.put(&db.keyspace("test").await.unwrap(), "after", "v").await.unwrap();
    db.checkpoint().await.unwrap();
    db.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_superseded_cluster_stops_and_deletes_nothing() {
    let (dir, bucket) = (tempfile::tempdir().unwrap(), SharedBucket::new());
    let old = open(options(&dir.path().join("old"), &bucket)).await;
    fill(&old).await;
    archived(&old).await;
    let expected = rows(&old).await;
    let new = open(recovering(options(&dir.path().join("new"), &bucket), false)).await;
    assert!(rows(&new).await == expected);
    let known = counter(&old, "archived_index");
    // The old one sleeps still: it has written nothing since. What it acknowledges now is lost, but it is little.
    let ks = old.keyspace("test").await.unwrap();
    let mut acknowledged = 0;
    let cause = loop {
        match old.put(&ks, format!("late{acknowledged:06}"), "v").await {
            Ok(()) => acknowledged += 1,
            Err(error) => break error,
        }
    };
    let (Error::Closed(cause) | Error::Unknown(cause)) = cause else { panic!("{cause}") };
    assert!(cause.contains("superseded") && cause.contains("acknowledges nothing"), "{cause}");
    let why = old.closed().await.to_string();
    assert!(why.contains("superseded"), "{why}");
    assert_eq!(counter(&old, "archived_index"), known, "what no recovery has seen counts as archived");
    assert!(old.collect_garbage(false).await.is_err());
    assert!(rows(&new).await == expected, "nothing of the old one's comes through");
    assert_eq!(new.check_stored().await.unwrap().faults, 0);
    let ks = new.keyspace("test").await.unwrap();
    new.put(&ks, "new", "v").await.unwrap();
    archived(&new).await;
    new.close().await.unwrap();
    println!("the old cluster acknowledged {acknowledged} commits before it noticed");
}

/// What a superseded cluster is about to delete may be what the new one reads.
#[tokio::test(flavor = "multi_thread")]
async fn a_superseded_collector_asks_and_deletes_nothing() {
    let (dir, bucket) = (tempfile::tempdir().unwrap(), SharedBucket::new());
    let (settings, clock) = clocked(&dir.path().join("old"), &bucket);
    let old = open(settings).await;
    let ks = old.keyspace("test").await.unwrap();
    for round in 0..4 {
        for row in 0..20 {
            old.put(&ks, format!("{row:03}"), vec![round; 500]).await.unwrap();
        }
        old.checkpoint().await.unwrap();
    }
    until("a compaction", || counter(&old, "compactions") > 0).await;
    archived(&old).await;
    assert!(counter(&old, "tree_dead_bytes") > 0, "they wait for their grace");
    let new = open(recovering(options(&dir.path().join("new"), &bucket), false)).await;
    let objects = bucket.keys("/obj/");
    clock.advance(Duration::from_secs(60));
    let refused = old.collect_garbage(false).await.unwrap_err().to_string();
    assert!(refused.contains("superseded"), "{refused}");
    let left = bucket.keys("/obj/");
    assert!(objects.iter().all(|key| left.contains(key)), "{objects:?} became {left:?}");
    new.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_still_writes_is_named() {
    let (dir, bucket) = (tempfile::tempdir().unwrap(), SharedBucket::new());
    let old = open(options(&dir.path().join("old"), &bucket)).await;
    let ks = old.keyspace("test").await.unwrap();
    old.put(&ks, "a", "1").await.unwrap();
    let writer = tokio::spawn({
        let (old, ks) = (old.clone(), ks.clone());
        async move { while old.put(&ks, "a", "2").await.is_ok() {} }
    });
    let data = dir.path().join("new");
    let refused = Db::open("test://", recovering(options(&data, &bucket), false)).await.err().unwrap().to_string();
    assert!(refused.contains("the old cluster still writes") && refused.contains("/wal/"), "{refused}");
    let unfinished = Db::open("test://", options(&data, &bucket)).await.err().unwrap().to_string();
    assert!(unfinished.contains("was interrupted"), "{unfinished}");
    let new = open(recovering(options(&data, &bucket), true)).await;
    writer.await.unwrap();
    assert!(old.closed().await.to_string().contains("superseded"));
    // Whatever the old one was told is archived is here: it stored it before it read the record.
    let ks = new.keyspace("test").await.unwrap();
    assert_eq!(new.get(&ks, b"a").await.unwrap().unwrap(), "2");
    new.close().await.unwrap();
}

/// Puts of the last steps fail one after the other; each attempt leaves what the next one goes on from.
#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_recovery_is_repeated() {
    let (dir, bucket) = (tempfile::tempdir().unwrap(), SharedBucket::new());
    let data = dir.path().join("data");
    let db = open(options(&data, &bucket)).await;
    fill(&db).await;
    archived(&db).await;
    let expected = rows(&db).await;
    db.close().await.unwrap();
    for stalled in ["/obj/", "/manifest/", "owner"] {
        wipe(&data);
        bucket.stalled.send_replace(Some(stalled));
        let attempt = tokio::time::timeout(
            Duration::from_secs(3),
            Db::open("test://", recovering(options(&data, &bucket), false)),
        );
        assert!(attempt.await.is_err(), "{stalled} stalls it");
        bucket.stalled.send_replace(None);
        let refused = Db::open("test://", options(&data, &bucket)).await.err().unwrap().to_string();
        assert!(refused.contains("interrupted") || refused.contains("in use"), "{refused}");
    }
    // Interrupted behind the last step: the record is the new cluster's, the directory is still marked.
    bucket.unanswered.send_replace(Some("owner"));
    let attempt = Db::open("test://", recovering(options(&data, &bucket), false));
    let before = bucket.body("owner");
    tokio::select! {
        opened = attempt => panic!("{:?}", opened.err()),
        () = until("the owner record is replaced", || bucket.body("owner") != before) => {}
    }
    bucket.unanswered.send_replace(None);
    let refused = Db::open("test://", options(&data, &bucket)).await.err().unwrap().to_string();
    assert!(refused.contains("interrupted") || refused.contains("in use"), "{refused}");
    let db = open_free(recovering(options(&data, &bucket), false)).await;
    assert!(rows(&db).await == expected);
    archived(&db).await;
    db.close().await.unwrap();
    // And with the directory lost as well.
    wipe(&data);
    let db = open(recovering(options(&data, &bucket), false)).await;
    assert!(rows(&db).await == expected);
    db.close().await.unwrap();
}

/// A directory that is marked again, as a restored copy of an early hour is, does not take the cluster back to its start.
#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_has_served_is_not_recovered_from_its_parent() {
    let (dir, bucket) = (tempfile::tempdir().unwrap(), SharedBucket::new());
    let data = dir.path().join("data");
    let db = open(options(&data, &bucket)).await;
    fill(&db).await;
    archived(&db).await;
    db.close().await.unwrap();
    wipe(&data);
    let db = open(recovering(options(&data, &bucket), false)).await;
    let ks = db.keyspace("test").await.unwrap();
    db.put(&ks, "acknowledged", "after the recovery").await.unwrap();
    archived(&db).await;
    let expected = rows(&db).await;
    db.close().await.unwrap();
    std::fs::write(data.join("RECOVERING"), "").unwrap();
    let refused = Db::open("test://", recovering(options(&data, &bucket), false)).await.err().unwrap().to_string();
    assert!(refused.contains("holds the log of"), "{refused}");
    wipe_but_identity(&data);
    let refused = Db::open("test://", options(&data, &bucket)).await.err().unwrap().to_string();
    assert!(refused.contains("interrupted"), "{refused}");
    let db = open(recovering(options(&data, &bucket), false)).await;
    assert!(rows(&db).await == expected);
    assert_eq!(db.check_stored().await.unwrap().faults, 0);
    db.close().await.unwrap();
}

/// An attempt that was dropped lets go of the directory when its threads have ended.
async fn open_free(options: Options) -> Db {
    loop {
        match Db::open("test://", options.clone()).await {
            Err(Error::Invalid(why)) if why.contains("in use") => tokio::task::yield_now().await,
            opened => return opened.unwrap(),
        }
    }
}

fn wipe_but_identity(data: &Path) {
    let identity = std::fs::read(data.join("IDENTITY")).unwrap();
    wipe(data);
    std::fs::create_dir(data).unwrap();
    std::fs::write(data.join("IDENTITY"), identity).unwrap();
    std::fs::write(data.join("RECOVERING"), "").unwrap();
}

/// A database whose archive has an object for each of some rows, none of them flushed.
async fn in_pieces(data: &Path, bucket: &Arc<SharedBucket>) -> Vec<String> {
    let db = open(options(data, bucket)).await;
    let ks = db.keyspace("test").await.unwrap();
    // Else the first row may share its object with the keyspace.
    archived(&db).await;
    for row in 0..6 {
        let mut batch = Batch::new();
        batch.put(&ks, format!("{row}"), "v");
        db.write(batch, Durability::Bucket).await.unwrap();
    }
    db.close().await.unwrap();
    bucket.keys("/wal/")
}

async fn read(bucket: &Arc<SharedBucket>, key: &str) -> ArchiveObject {
    ArchiveObject::decode(Bucket::get(&**bucket, key, None).await.unwrap().bytes).unwrap()
}

async fn refused(data: &Path, bucket: &Arc<SharedBucket>) -> String {
    let _ = std::fs::remove_dir_all(data);
    Db::open("test://", recovering(options(data, bucket), false)).await.err().unwrap().to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_names_the_object_and_what_can_be_had() {
    let (dir, original) = (tempfile::tempdir().unwrap(), SharedBucket::new());
    let keys = in_pieces(&dir.path().join("old"), &original).await;
    assert!(keys.len() >= 7, "{keys:?}");
    let (data, damaged) = (dir.path().join("data"), &keys[keys.len() - 3]);
    let left =
        |key: &str| u64::from_str_radix(key.rsplit('/').next().unwrap().split('-').next().unwrap(), 16).unwrap() - 1;

    let bucket = original.copy();
    bucket.damage(damaged);
    let why = refused(&data, &bucket).await;
    let up_to = format!("log entries up to {}: --recover-force", left(damaged));
    assert!(why.contains(damaged) && why.contains("checksum") && why.contains(&up_to), "{why}");
    let db = open(recovering(options(&data, &bucket), true)).await;
    let kept = rows(&db).await.len();
    assert!((3..6).contains(&kept), "{kept} rows");
    db.close().await.unwrap();

    let bucket = original.copy();
    bucket.remove(damaged);
    let why = refused(&data, &bucket).await;
    let (before, behind) = (&keys[keys.len() - 4], &keys[keys.len() - 2]);
    assert!(why.contains("no archive object holds log entries") && why.contains(&up_to), "{why}");
    assert!(why.contains(before) && why.contains(behind), "{why}");

    // The newest one gone or damaged is a shorter archive: nothing tells the first from one that never was.
    let bucket = original.copy();
    bucket.damage(keys.last().unwrap());
    let why = refused(&data, &bucket).await;
    assert!(why.contains(keys.last().unwrap()) && why.contains("--recover-force"), "{why}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_dead_leader_stored_twice_does_no_harm() {
    let (dir, original) = (tempfile::tempdir().unwrap(), SharedBucket::new());
    let keys = in_pieces(&dir.path().join("old"), &original).await;
    let data = dir.path().join("data");
    let bucket = original.copy();
    for key in &keys {
        let twin = format!("{}{}", &key[..key.len() - 26], "01ARZ3NDEKTSV4RRFFQ69G5FAV");
        bucket.duplicate(key, &twin);
    }
    // Damage in one of two is made up for by the other.
    bucket.damage(&keys[2]);
    let db = open(recovering(options(&data, &bucket), false)).await;
    assert_eq!(rows(&db).await.len(), 6);
    db.close().await.unwrap();

    // Two that disagree are corruption, whatever is forced.
    let bucket = original.copy();
    let mut object = read(&bucket, &keys[3]).await;
    let row = |entry: &&mut Entry| matches!(&entry.payload, Normal(payload) if !Payload::is_archived(payload));
    object.entries.iter_mut().find(row).unwrap().payload = Normal(Payload::Freeze.encode());
    let twin = format!("{}{}", &keys[3][..keys[3].len() - 26], "01ARZ3NDEKTSV4RRFFQ69G5FAV");
    let put = Bucket::put(&*bucket, &twin, &[object.encode()], When::Absent, 1).await;
    put.unwrap();
    let why = refused(&data, &bucket).await;
    assert!(why.contains("disagrees with") && why.contains(&keys[3]), "{why}");
}

#[tokio::test(flavor = "multi_thread")]
async fn where_there_is_no_archive_the_newest_manifest_takes_a_word() {
    let (dir, bucket) = (tempfile::tempdir().unwrap(), SharedBucket::new());
    let data = dir.path().join("data");
    let nothing = refused(&data, &bucket).await;
    assert!(nothing.contains("nothing to recover") && nothing.contains("no owner"), "{nothing}");
    wipe(&data);
    let mut off = options(&data, &bucket);
    off.archive = Archiving::Off;
    let db = open(off.clone()).await;
    let ks = db.keyspace("test").await.unwrap();
    db.put(&ks, "flushed", "v").await.unwrap();
    db.checkpoint().await.unwrap();
    db.put(&ks, "only in the log", "v").await.unwrap();
    db.close().await.unwrap();
    let in_use = Db::open("test://", recovering(off.clone(), false)).await.unwrap();
    in_use.close().await.unwrap();
    let why = refused(&data, &bucket).await;
    assert!(why.contains("no archive of the log is there") && why.contains("--recover-force"), "{why}");
    wipe(&data);
    let db = open(recovering(off, true)).await;
    let rows = rows(&db).await;
    assert_eq!(rows.keys().map(|(_, key)| &key[..]).collect::<Vec<_>>(), [b"flushed"]);
    db.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_in_use_is_not_recovered_into() {
    let (dir, bucket) = (tempfile::tempdir().unwrap(), SharedBucket::new());
    let data = dir.path().join("data");
    open(options(&data, &bucket)).await.close().await.unwrap();
    let other = SharedBucket::new();
    open(options(&dir.path().join("other"), &other)).await.close().await.unwrap();
    let why = Db::open("test://", recovering(options(&data, &other), true)).await.err().unwrap().to_string();
    assert!(why.contains("needs an empty data directory") && why.contains("holds the log of cluster"), "{why}");
}

#[tokio::test(flavor = "multi_thread")]
async fn into_another_store_everything_is_copied() {
    let dir = tempfile::tempdir().unwrap();
    let url = |name: &str| format!("file://{}/{name}", dir.path().display());
    let on = |data: &str, recover| {
        let mut options = options(&dir.path().join(data), &SharedBucket::new());
        (options.bucket, options.recover) = (None, recover);
        options
    };
    let from = |name: &str| Some(Recovery { from: Some(url(name)), force: false });
    let old = Db::open(&url("a"), on("old", None)).await.unwrap();
    fill(&old).await;
    archived(&old).await;
    let expected = rows(&old).await;
    let busy = Db::open(&url("b"), on("busy", from("a"))).await.err().unwrap().to_string();
    assert!(busy.contains("in use"), "a folder has one process: {busy}");
    old.close().await.unwrap();
    let new = Db::open(&url("b"), on("new", from("a"))).await.unwrap();
    assert!(rows(&new).await == expected);
    new.close().await.unwrap();
    std::fs::remove_dir_all(dir.path().join("a")).unwrap();
    let new = Db::open(&url("b"), on("new", None)).await.unwrap();
    assert!(rows(&new).await == expected && new.check_stored().await.unwrap().faults == 0);
    new.close().await.unwrap();
    let why = Db::open(&url("b"), on("again", from("c"))).await.err().unwrap().to_string();
    assert!(why.contains("belongs to") && why.contains("empty prefix"), "{why}");
}
