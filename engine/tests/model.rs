//! The database against a `BTreeMap`: random steps with flushes, compactions and reopening in between.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed test may panic")]

use std::{collections::BTreeMap, ops::Bound, path::Path};

use bytes::Bytes;
use holdfast::{Db, Error, Keyspace, Options, ScanOptions, TxnOptions};
use proptest::prelude::*;

type Model = BTreeMap<Vec<u8>, Vec<u8>>;

#[derive(Clone, Debug)]
enum Write {
    Put(u8, u16),
    Delete(u8),
    DeleteRange(u8, u8),
}

#[derive(Clone, Debug)]
enum Step {
    /// Writes; those before the savepoint are kept, those after it undone; then commit or not.
    Txn {
        kept: Vec<Write>,
        undone: Vec<Write>,
        commit: bool,
    },
    Get(u8),
    Scan {
        from: u8,
        to: u8,
        reverse: bool,
    },
    Snapshot,
    Checkpoint,
    Reopen,
}

fn write() -> impl Strategy<Value = Write> {
    prop_oneof![
        6 => (0u8..40, any::<u16>()).prop_map(|(key, value)| Write::Put(key, value)),
        3 => (0u8..40).prop_map(Write::Delete),
        1 => (0u8..40, 1u8..10).prop_map(|(start, len)| Write::DeleteRange(start, start + len)),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let writes = || prop::collection::vec(write(), 0..8);
    prop_oneof![
        8 => (writes(), writes(), prop::bool::weighted(0.8))
            .prop_map(|(kept, undone, commit)| Step::Txn { kept, undone, commit }),
        3 => (0u8..40).prop_map(Step::Get),
        4 => (0u8..40, 0u8..45, any::<bool>()).prop_map(|(from, to, reverse)| Step::Scan { from, to, reverse }),
        1 => Just(Step::Snapshot),
        2 => Just(Step::Checkpoint),
        1 => Just(Step::Reopen),
    ]
}

fn key(number: u8) -> Vec<u8> {
    // Of different lengths, and prefixes of each other.
    vec![b'k'; 1 + usize::from(number % 3)].into_iter().chain([number]).collect()
}

/// Values of very different sizes, some above the inline limit.
fn value(seed: u16) -> Vec<u8> {
    let len = match seed % 8 {
        0 => 0,
        7 => 9000,
        other => usize::from(other) * 30,
    };
    vec![seed as u8; len]
}

async fn open(dir: &Path) -> (Db, Keyspace) {
    let mut options = Options::default();
    options.log_bytes = 64 << 20;
    options.memtable_bytes = 64 << 10;
    let db = Db::open(&format!("file://{}/bucket", dir.display()), options).await.unwrap();
    let keyspace = db.keyspace("model").await.unwrap();
    (db, keyspace)
}

fn apply(txn: &mut holdfast::Txn, keyspace: &Keyspace, model: &mut Model, writes: &[Write]) {
    for write in writes {
        match write {
            Write::Put(number, seed) => {
                txn.put(keyspace, key(*number), value(*seed)).unwrap();
                model.insert(key(*number), value(*seed));
            }
            Write::Delete(number) => {
                txn.delete(keyspace, key(*number)).unwrap();
                model.remove(&key(*number));
            }
            Write::DeleteRange(start, end) => {
                let (start, end) = (key(*start).min(key(*end)), key(*start).max(key(*end)));
                match txn.delete_range(keyspace, start.clone(), end.clone()) {
                    Ok(()) => model.retain(|key, _| !(start <= *key && *key < end)),
                    Err(Error::Invalid(_)) => assert!(start >= end),
                    Err(error) => panic!("{error}"),
                }
            }
        }
    }
}

async fn scan(scan: Result<holdfast::Scan, Error>) -> Vec<(Vec<u8>, Vec<u8>)> {
    let (mut scan, mut rows) = (scan.unwrap(), Vec::new());
    while scan.next_batch(&mut rows, 7).await.unwrap() > 0 {}
    rows.into_iter().map(|row| (row.key.to_vec(), row.value.to_vec())).collect()
}

fn expected(model: &Model, bounds: (Bound<Vec<u8>>, Bound<Vec<u8>>), reverse: bool) -> Vec<(Vec<u8>, Vec<u8>)> {
    let inside = |key: &Vec<u8>| std::ops::RangeBounds::contains(&bounds, key);
    let mut rows: Vec<_> = model.iter().filter(|(key, _)| inside(key)).map(|(k, v)| (k.clone(), v.clone())).collect();
    if reverse {
        rows.reverse();
    }
    rows
}

async fn run(steps: Vec<Step>) {
    let dir = tempfile::tempdir().unwrap();
    let (mut db, mut ks) = open(dir.path()).await;
    let mut model = Model::new();
    let mut snapshots = Vec::new();
    for step in steps {
        match step {
            Step::Txn { kept, undone, commit } => {
                let mut txn = db.begin(TxnOptions::default()).unwrap();
                let mut new = model.clone();
                apply(&mut txn, &ks, &mut new, &kept);
                let savepoint = txn.savepoint();
                apply(&mut txn, &ks, &mut new.clone(), &undone);
                txn.rollback_to(savepoint);
                let all = (Bound::Unbounded, Bound::Unbounded);
                assert_eq!(scan(txn.scan(&ks, ScanOptions::default())).await, expected(&new, all, false));
                if commit {
                    txn.commit().await.unwrap();
                    model = new;
                }
            }
            Step::Get(number) => {
                let found = db.get(&ks, &key(number)).await.unwrap().map(|value| value.to_vec());
                assert_eq!(found.as_ref(), model.get(&key(number)));
            }
            Step::Scan { from, to, reverse } => {
                let mut options = ScanOptions { reverse, ..ScanOptions::default() };
                options.start = Bound::Excluded(Bytes::from(key(from)));
                options.end = Bound::Included(Bytes::from(key(to)));
                let bounds = (Bound::Excluded(key(from)), Bound::Included(key(to)));
                assert_eq!(scan(db.scan(&ks, options)).await, expected(&model, bounds, reverse));
            }
            Step::Snapshot => snapshots.push((db.snapshot().unwrap(), model.clone())),
            Step::Checkpoint => db.checkpoint().await.unwrap(),
            Step::Reopen => {
                check(&snapshots, &ks).await;
                snapshots.clear();
                db.close().await.unwrap();
                (db, ks) = open(dir.path()).await;
            }
        }
    }
    check(&snapshots, &ks).await;
    db.close().await.unwrap();
}

/// Snapshots still show what they showed, whatever was flushed and compacted since.
async fn check(snapshots: &[(holdfast::Snapshot, Model)], ks: &Keyspace) {
    for (snapshot, model) in snapshots {
        for reverse in [false, true] {
            let options = ScanOptions { reverse, ..ScanOptions::default() };
            let all = (Bound::Unbounded, Bound::Unbounded);
            assert_eq!(scan(snapshot.scan(ks, options)).await, expected(model, all, reverse));
        }
        for number in 0..40 {
            let found = snapshot.get(ks, &key(number)).await.unwrap().map(|value| value.to_vec());
            assert_eq!(found.as_ref(), model.get(&key(number)));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn the_database_is_a_map(steps in prop::collection::vec(step(), 10..60)) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(run(steps));
    }
}
