//! What apply makes of entries that a leader of another term, or one that has not heard of the newest, put into the log:
//! the rules as apply itself keeps them, whoever proposes.

use super::*;
use crate::{
    Db, Options, TxnOptions,
    format::batch::{BatchHeader, GroupWriter, Guard, encode_batch},
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

fn group(batches: impl IntoIterator<Item = Bytes>) -> Payload {
    let mut group = GroupWriter::new();
    batches.into_iter().for_each(|batch| group.push(batch));
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
async fn rule_3_a_commit_comes_after_those_before_it_in_the_same_entry() {
    let (db, ks) = open().await;
    let (start, end) = (ks.key(b"").unwrap(), ks.key(b"z").unwrap());
    let header = BatchHeader { txn: 2, term: db.term(), time: 1, guards: Vec::new(), ranges: vec![(start, end)] };
    let clear = encode_batch(&header, std::iter::empty(), 0);
    // A range delete spares the rows of its own commit number.
    propose(&db, &group([put(&ks, 1, db.term(), "before"), clear])).await;
    assert_eq!(row(&db, &ks).await, None);
    db.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_5_a_start_goes_on_behind_spilled_memtables_only_up_to_the_end_of_its_log() {
    let (db, _) = open().await;
    let inner = Arc::clone(&db.0.inner);
    let at = |index| LogId { term: 1, index };
    let spilled = |range: (u64, u64)| {
        let state = MachineState::default();
        let table = Arc::new(Memtable::new());
        Arc::new(Frozen::new(table, (at(range.0), at(range.1)), (state.encode(), 1), None, ManifestId::default()))
    };
    let start = |ends: u64| {
        let applier = Applier::new(
            Arc::clone(&inner),
            tokio::runtime::Handle::current(),
            MachineState::default(),
            LogId::default(),
            None,
        );
        let mut applier = applier.with_spilled(vec![spilled((0, 100)), spilled((100, 200))]);
        applier.log_ends(Some(at(ends)));
        applier.restored().applied
    };
    assert_eq!(start(200), Some(at(200)));
    assert_eq!(start(199), Some(at(100)), "its disk never had entry 200");
    assert_eq!(start(99), None);
    db.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_7_a_commit_is_checked_against_what_has_its_place_in_the_log() {
    let (db, ks) = open().await;
    let options = TxnOptions::default;
    let (mut first, mut second) = (db.begin(options()).unwrap(), db.begin(options()).unwrap());
    for txn in [&mut first, &mut second] {
        assert_eq!(txn.get(&ks, b"row").await.unwrap(), None);
        txn.put(&ks, "row", "mine").unwrap();
    }
    let inner = &db.0.inner;
    inner.queue.pause(inner).await;
    let before = inner.pending.last();
    let placed = async |count| {
        while inner.pending.last() < before + count {
            tokio::task::yield_now().await;
        }
    };
    let first = tokio::spawn(first.commit());
    placed(1).await;
    let refused = tokio::select! {
        ended = second.commit() => ended,
        () = placed(2) => panic!("it got its place although the first one wrote the row"),
    };
    assert!(matches!(refused, Err(Error::Conflict(_))), "{refused:?}");
    inner.queue.resume(inner);
    first.await.unwrap().unwrap();
    db.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_7_a_commit_under_locks_of_another_term_is_rejected() {
    let (db, ks) = open().await;
    let term = db.term();
    propose(&db, &group([put(&ks, 1, term - 1, "old")])).await;
    assert_eq!(row(&db, &ks).await, None);
    propose(&db, &group([put(&ks, 2, term, "new")])).await;
    assert_eq!(row(&db, &ks).await.unwrap(), "new");
    db.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_9_a_node_that_does_not_know_the_formats_to_come_stops() {
    let (db, ks) = open().await;
    propose(&db, &Payload::FormatLevel { level: crate::format::FORMAT_LEVEL }).await;
    db.put(&ks, "row", "v").await.unwrap();
    let wal = db.0.wal.lock().clone().unwrap();
    // Nobody waits for the entry to be applied: it can't be.
    let _ = wal.propose(Payload::FormatLevel { level: 2 }.encode()).await;
    let why = db.closed().await.to_string();
    assert!(why.contains("format level 2") && why.contains("up to 1"), "{why}");
    assert!(db.put(&ks, "row", "w").await.is_err());
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
async fn rule_11_a_commit_is_rejected_when_a_table_that_it_used_was_changed() {
    let (db, ks) = open().await;
    let guarded = |txn, version, set| {
        let guards = vec![Guard { guard: 7, version, set }];
        let header = BatchHeader { txn, term: db.term(), time: 1, guards, ranges: Vec::new() };
        let op = crate::types::Op::Put(Bytes::from(format!("under {version}")));
        encode_batch(&header, [(&ks.key(b"row").unwrap(), &op)].into_iter(), 0)
    };
    propose(&db, &group([guarded(1, 5, true), guarded(2, 5, false)])).await;
    propose(&db, &group([guarded(3, 4, false)])).await;
    assert_eq!(row(&db, &ks).await.unwrap(), "under 5");
    db.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_12_the_first_outcome_of_an_id_counts() {
    let (db, ks) = open().await;
    for value in ["first", "second"] {
        propose(&db, &group([put(&ks, named(5), db.term(), value)])).await;
    }
    assert_eq!(row(&db, &ks).await.unwrap(), "first");
    db.close().await.unwrap();
}
