//! Values and transactions below their limits work, however big; above, the error names the limit.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed test may panic")]

use holdfast::{
    Batch, Concurrency, Db, Durability, Error, LockMode, LockWait, Options, ScanOptions, TxnOptions, limits,
};

fn options() -> Options {
    let mut options = Options::default();
    options.log_bytes = 512 << 20;
    options
}

async fn open(dir: &tempfile::TempDir, options: Options) -> Db {
    Db::open(&format!("file://{}/bucket", dir.path().display()), options).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_of_40_mb_goes_through_log_memtable_pages_and_restart() {
    let dir = tempfile::tempdir().unwrap();
    let db = open(&dir, options()).await;
    let ks = db.keyspace("test").await.unwrap();
    let value: Vec<u8> = (0..40_000_000u32).map(|byte| (byte % 251) as u8).collect();
    db.put(&ks, "big", value.clone()).await.unwrap();
    assert!(db.get(&ks, b"big").await.unwrap().unwrap() == value);
    db.checkpoint().await.unwrap();
    assert!(db.get(&ks, b"big").await.unwrap().unwrap() == value);
    db.put(&ks, "small", "1").await.unwrap();
    db.close().await.unwrap();
    let db = open(&dir, options()).await;
    assert!(db.get(&ks, b"big").await.unwrap().unwrap() == value);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_of_many_rows_commits_whole() {
    const ROWS: u32 = 100_000;
    let dir = tempfile::tempdir().unwrap();
    let db = open(&dir, options()).await;
    let ks = db.keyspace("test").await.unwrap();
    let mut txn = db.begin(TxnOptions::default()).unwrap();
    for row in 0..ROWS {
        txn.put(&ks, row.to_be_bytes().to_vec(), vec![1u8; 100]).unwrap();
    }
    txn.commit().await.unwrap();
    let mut scan = db.scan(&ks, ScanOptions::default()).unwrap();
    let mut rows = Vec::new();
    while scan.next_batch(&mut rows, 10_000).await.unwrap() > 0 {}
    assert_eq!(rows.len(), ROWS as usize);
    assert!(rows.is_sorted_by(|a, b| a.key < b.key));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_over_a_limit_is_refused_with_its_name() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = options();
    options.max_txn_bytes = 10_000;
    options.max_txn_locks = 3;
    let db = open(&dir, options).await;
    let ks = db.keyspace("test").await.unwrap();
    let too_large = |what, limit| Err::<(), _>(Error::TooLarge { what, limit });

    let long_key = vec![b'k'; limits::KEY_BYTES_MAX + 1];
    assert_eq!(db.put(&ks, long_key.clone(), "v").await, too_large("key bytes", limits::KEY_BYTES_MAX as u64));
    assert!(db.get(&ks, &long_key).await.is_err());
    assert!(db.scan(&ks, ScanOptions::range(long_key.clone(), "x")).is_err());
    let mut txn = db.begin(TxnOptions::default()).unwrap();
    assert_eq!(txn.put(&ks, "k", vec![0; 20_000]), too_large("bytes written by a transaction", 10_000));
    txn.put(&ks, "k", vec![0; 5_000]).unwrap();
    assert_eq!(txn.put(&ks, "l", vec![0; 5_000]), too_large("bytes written by a transaction", 10_000));
    txn.commit().await.unwrap();
    let mut txn = db.begin(TxnOptions { concurrency: Concurrency::Pessimistic, ..TxnOptions::default() }).unwrap();
    for key in [b"a", b"b", b"c"] {
        txn.lock(&ks, key, LockMode::Exclusive, LockWait::NoWait).await.unwrap();
    }
    let fourth = txn.lock(&ks, b"d", LockMode::Exclusive, LockWait::NoWait).await;
    assert_eq!(fourth, too_large("row locks of a transaction", 3));
    let name = "n".repeat(limits::KEYSPACE_NAME_BYTES_MAX + 1);
    let refused = db.keyspace(&name).await.map(|_| ());
    assert_eq!(refused, too_large("keyspace name bytes", limits::KEYSPACE_NAME_BYTES_MAX as u64));
    assert!(matches!(db.keyspace("").await, Err(Error::Invalid(_))));
}

#[tokio::test]
async fn bad_options_and_urls_are_refused() {
    let mut small = Options::default();
    small.memtable_bytes = 1;
    let mut big = Options::default();
    big.max_txn_bytes = u64::MAX;
    for (url, options) in [
        ("memory:///", small),
        ("memory:///", big),
        ("ftp://host/", Options::default()),
        ("nonsense", Options::default()),
        ("s3://bucket/prefix", Options::default()),
    ] {
        let error = Db::open(url, options).await.err().unwrap();
        assert!(matches!(error, Error::Invalid(_)), "{url}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_memory_store_works_and_takes_its_directory_along() {
    let db = Db::open("memory:///limits-test", options()).await.unwrap();
    let ks = db.keyspace("test").await.unwrap();
    let mut batch = Batch::new();
    batch.put(&ks, "a", "1");
    db.write(batch, Durability::Bucket).await.unwrap();
    assert_eq!(db.get(&ks, b"a").await.unwrap().unwrap(), "1");
    db.close().await.unwrap();
}
