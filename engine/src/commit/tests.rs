//! The queue over a log that is full, and under big transactions.

use super::*;
use crate::{
    Db, Options,
    format::batch::{BatchHeader, Payload, encode_batch},
    inner::{BIG_TXNS, BigTurn},
};

const BIG: u128 = 77;

async fn open() -> Db {
    let options = Options { log_bytes: 64 << 20, memtable_bytes: 64 << 10, ..Options::default() };
    Db::open("memory:///commit-tests", options).await.unwrap()
}

fn wal(db: &Db) -> Wal {
    db.0.wal.lock().clone().unwrap()
}

/// Parts of a transaction that nobody ends, until no more fits.
async fn fill_log(db: &Db) {
    let mut number = 0;
    for bytes in [1_000_000, 1] {
        loop {
            let part = Payload::Part { txn: BIG, number, bytes: vec![0; bytes].into() };
            match wal(db).propose(part.encode()).await {
                Ok(_) => number += 1,
                Err(holdfast_wal::Error::Full { .. }) => break,
                Err(error) => panic!("{error}"),
            }
        }
    }
}

async fn abort(db: &Db) {
    let turn = Arc::clone(&db.0.inner.big).acquire_owned().await.unwrap();
    db.0.inner.aborts.push(BIG, BigTurn::new(turn, None));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_log_drains_once_the_parts_in_it_are_aborted() {
    let db = open().await;
    let ks = db.keyspace("test").await.unwrap();
    db.put(&ks, "a", "1").await.unwrap();
    fill_log(&db).await;
    abort(&db).await;
    db.checkpoint().await.unwrap();
    db.put(&ks, "b", "1").await.unwrap();
    db.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_batch_leaves_no_guards() {
    let db = open().await;
    let inner = Arc::clone(&db.0.inner);
    fill_log(&db).await;
    let guards = [Guard { guard: 1, version: 5, set: true }, Guard { guard: 1, version: 6, set: true }];
    let header = BatchHeader { txn: 1, term: inner.term(), time: 0, guards: guards.to_vec(), ranges: Vec::new() };
    let submission = Submission {
        batch: PendingBatch { txn: 1, writes: std::collections::BTreeMap::new(), ranges: Vec::new() },
        bytes: encode_batch(&header, std::iter::empty(), 0),
        commit: false,
        term: inner.term(),
        guards: &guards,
        keyspaces: &[],
    };
    let outcome = inner.queue.submit(&inner, submission, || Ok(())).unwrap().await.unwrap();
    assert!(matches!(outcome, Err(Error::Retry(_))), "{outcome:?}");
    assert_eq!(inner.queue.0.lock().guards.get(&1), None);
    // Nothing is left to wait for.
    inner.drain().await;
    abort(&db).await;
    db.checkpoint().await.unwrap();
    let mut txn = db.begin(crate::TxnOptions::default()).unwrap();
    txn.check_guard(1, 0);
    txn.set_guard(1, 1);
    txn.commit().await.unwrap();
    db.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_drop_leaves_the_keyspace_as_it_was() {
    let db = open().await;
    let ks = db.keyspace("test").await.unwrap();
    db.put(&ks, "a", "1").await.unwrap();
    fill_log(&db).await;
    assert!(matches!(db.drop_keyspace("test").await, Err(Error::Retry(_))));
    abort(&db).await;
    db.checkpoint().await.unwrap();
    db.put(&ks, "b", "1").await.unwrap();
    db.drop_keyspace("test").await.unwrap();
    assert!(matches!(db.put(&ks, "c", "1").await, Err(Error::Invalid(_))));
    db.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn no_freeze_is_proposed_while_a_big_transaction_has_its_turn() {
    let db = open().await;
    let ks = db.keyspace("test").await.unwrap();
    let turn = Arc::clone(&db.0.inner.big).acquire_owned().await.unwrap();
    // Answers come from within apply: the log's own count of it may lag behind them.
    let applied = async || wal(&db).read_index().await.unwrap().index;
    let before = applied().await;
    for row in 0..20 {
        db.put(&ks, format!("{row}"), vec![0; 10_000]).await.unwrap();
    }
    assert_eq!(applied().await, before + 20);
    drop(turn);
    db.checkpoint().await.unwrap();
    assert_eq!(db.0.inner.big.available_permits(), BIG_TXNS as usize);
    db.close().await.unwrap();
}
