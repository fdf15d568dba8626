//! What apply makes of entries that a leader of another term, or one that has not heard of the newest, put into the log:
//! the rules as apply itself keeps them, whoever proposes.

use super::*;
use crate::{
    Db, Options,
    format::batch::{BatchHeader, GroupWriter, encode_batch},
    keyspace::Keyspace as Handle,
    outcomes::named,
};

async fn open() -> (Db, Handle) {
    let options = Options { log_bytes: 64 << 20, ..Options::default() };
    let db = Db::open("memory:///apply-tests", options).await.unwrap();
    let keyspace = db.keyspace("test").await.unwrap();
    (db, keyspace)
}

async fn propose(db: &Db, payload: &Payload) {
    let wal = db.0.wal.lock().clone().unwrap();
    let index = wal.propose(payload.encode()).await.unwrap().index;
    wal.wait_applied(index).await.unwrap();
}

/// A batch that puts one row.
fn put(keyspace: &Handle, txn: u128, term: u64, value: &'static str) -> Bytes {
    let header = BatchHeader { txn, term, time: 1, guards: Vec::new(), ranges: Vec::new() };
    let ops = [(keyspace.key(b"row").unwrap(), crate::types::Op::Put(Bytes::from(value)))];
    encode_batch(&header, ops.iter().map(|(key, op)| (key, op)), 0)
}

fn group(batch: Bytes) -> Payload {
    let mut group = GroupWriter::new();
    group.push(batch);
    Payload::decode(&group.finish()).unwrap()
}

async fn row(db: &Db, keyspace: &Handle) -> Option<Bytes> {
    db.get(keyspace, b"row").await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_1_an_edit_made_from_another_manifest_changes_nothing() {
    let (db, ks) = open().await;
    db.put(&ks, "a", "1").await.unwrap();
    db.checkpoint().await.unwrap();
    let manifest = *db.0.inner.in_force.lock();
    db.put(&ks, "b", "2").await.unwrap();
    propose(&db, &Payload::Freeze).await;
    let late = Payload::Edit {
        base: ManifestId { term: 1, ulid: 1 },
        manifest: ManifestId { term: 1, ulid: 2 },
        up_to: LogId { term: 1, index: db.0.inner.applied_index() },
    };
    propose(&db, &late).await;
    // The background may flush meanwhile; the edit's manifest is in force in no case.
    assert_ne!(*db.0.inner.in_force.lock(), ManifestId { term: 1, ulid: 2 });
    assert!(*db.0.inner.in_force.lock() >= manifest);
    db.checkpoint().await.unwrap();
    assert_eq!(db.get(&ks, b"b").await.unwrap().unwrap(), "2");
    db.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_7_a_commit_under_locks_of_another_term_is_rejected() {
    let (db, ks) = open().await;
    let term = db.term();
    propose(&db, &group(put(&ks, 1, term - 1, "old"))).await;
    assert_eq!(row(&db, &ks).await, None);
    propose(&db, &group(put(&ks, 2, term, "new"))).await;
    assert_eq!(row(&db, &ks).await.unwrap(), "new");
    db.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_10_no_freeze_passes_the_first_part_of_an_open_batch() {
    let (db, ks) = open().await;
    let batch = put(&ks, 9, db.term(), "whole");
    let (first, second) = (batch.slice(..10), batch.slice(10..));
    let crc = crc32fast::hash(&batch);
    // Otherwise there is nothing to freeze.
    db.put(&ks, "other", "1").await.unwrap();
    propose(&db, &Payload::Part { txn: 9, number: 0, bytes: first }).await;
    propose(&db, &Payload::Freeze).await;
    assert!(db.0.inner.read_state().frozen.is_empty() && db.stats().counters.contains(&("flushes", 0)));
    propose(&db, &Payload::Part { txn: 9, number: 1, bytes: second }).await;
    propose(&db, &Payload::Commit { txn: 9, parts: 2, bytes: batch.len() as u64, crc }).await;
    assert_eq!(row(&db, &ks).await.unwrap(), "whole");
    propose(&db, &Payload::Freeze).await;
    db.checkpoint().await.unwrap();
    assert_eq!(row(&db, &ks).await.unwrap(), "whole");
    db.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_10_a_new_leader_aborts_what_the_old_one_had_half_in_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let url = format!("file://{}/bucket", dir.path().display());
    let db = Db::open(&url, Options::default()).await.unwrap();
    let ks = db.keyspace("test").await.unwrap();
    // Under the locks of the term to come, so that only the parts' own term speaks against it.
    let batch = put(&ks, 9, db.term() + 1, "half");
    let crc = crc32fast::hash(&batch);
    propose(&db, &Payload::Part { txn: 9, number: 0, bytes: batch.clone() }).await;
    let before = db.term();
    db.close().await.unwrap();
    let db = Db::open(&url, Options::default()).await.unwrap();
    assert_eq!(db.term(), before + 1);
    propose(&db, &Payload::Commit { txn: 9, parts: 1, bytes: batch.len() as u64, crc }).await;
    assert_eq!(row(&db, &ks).await, None);
    db.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_12_the_first_outcome_of_an_id_counts() {
    let (db, ks) = open().await;
    for value in ["first", "second"] {
        propose(&db, &group(put(&ks, named(5), db.term(), value))).await;
    }
    assert_eq!(row(&db, &ks).await.unwrap(), "first");
    db.close().await.unwrap();
}
