//! A thousand readers of one page that no cache has: the bucket sees one GET, and few if it fails.

use std::time::Duration;

use futures::future::join_all;
use holdfast::{Batch, Db, Durability, Error, Keyspace, Options};
use holdfast_tests::{
    proxy::{Fault, Proxy},
    s3::S3Server,
};

const READERS: usize = 1000;
const ROWS: u64 = 4000;

fn value(row: u64) -> Vec<u8> {
    row.to_be_bytes().repeat(125)
}

async fn open(folder: &std::path::Path, server: &S3Server, proxy: &Proxy) -> Db {
    let mut options = Options::default();
    options.data_dir = Some(folder.to_owned());
    options.nvme_cache = Some(0);
    options.s3 = server.env().into_iter().map(|(key, value)| (key.to_string(), value)).collect();
    options.s3.push(("AWS_ENDPOINT".into(), proxy.endpoint()));
    options.read_timeout = Duration::from_secs(3);
    // A second request for a slow page is another feature.
    options.hedge_share = 0.0;
    options.hot_list_interval = None;
    Db::open("s3://holdfast/crowd", options).await.unwrap()
}

/// GETs of pages that were sent.
fn gets(db: &Db) -> u64 {
    db.stats().requests.iter().filter(|of| of.kind == "get" && of.cause == "page").map(|of| of.requests).sum()
}

/// All readers at once; how many GETs it took.
async fn crowd(db: &Db, keyspace: &Keyspace, row: u64) -> (Vec<Result<Option<bytes::Bytes>, Error>>, u64) {
    let before = gets(db);
    let readers = (0..READERS).map(|_| {
        let (db, keyspace) = (db.clone(), keyspace.clone());
        tokio::spawn(async move { db.get(&keyspace, &row.to_be_bytes()).await })
    });
    let answers = join_all(readers.collect::<Vec<_>>()).await.into_iter().map(Result::unwrap).collect();
    (answers, gets(db) - before)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_thousand_readers_of_a_cold_page_are_one_get_and_of_a_failing_one_a_few() {
    let (folder, server) = (tempfile::tempdir().unwrap(), S3Server::start());
    let proxy = Proxy::start(server.port());
    let db = open(folder.path(), &server, &proxy).await;
    let keyspace = db.keyspace("k").await.unwrap();
    for rows in (0..ROWS).collect::<Vec<_>>().chunks(500) {
        let mut batch = Batch::new();
        rows.iter().for_each(|row| batch.put(&keyspace, row.to_be_bytes().to_vec(), value(*row)));
        db.write(batch, Durability::Quorum).await.unwrap();
    }
    db.checkpoint().await.unwrap();
    db.close().await.unwrap();
    drop(db);

    let db = open(folder.path(), &server, &proxy).await;
    let keyspace = db.keyspace("k").await.unwrap();
    // The object's index is read once, with another page.
    assert_eq!(db.get(&keyspace, &0u64.to_be_bytes()).await.unwrap().unwrap(), value(0));
    proxy.set(Fault::Slow(Duration::from_millis(500)));
    let (answers, sent) = crowd(&db, &keyspace, 2000).await;
    assert!(answers.iter().all(|answer| answer.as_ref().unwrap().as_ref().unwrap() == &value(2000)));
    assert_eq!(sent, 1);

    proxy.set(Fault::Fails { status: 500, code: "InternalError", every: 1 });
    let (answers, sent) = crowd(&db, &keyspace, 3000).await;
    assert!(answers.iter().all(|answer| answer.as_ref().is_err_and(Error::is_retryable)), "{:?}", answers[0]);
    println!("a failing page: {READERS} readers got an error each, {sent} GETs were sent");
    assert!((1..=16).contains(&sent), "{sent} GETs");

    proxy.set(Fault::None);
    let (answers, sent) = crowd(&db, &keyspace, 3000).await;
    // While the bucket is taken to be down, readers are told so at once; one of them finds it back.
    let served = answers.iter().filter(|answer| answer.is_ok()).count();
    assert!(sent <= 2, "{sent} GETs for {served} answers");
    while db.get(&keyspace, &3000u64.to_be_bytes()).await.is_err() {
        tokio::task::yield_now().await;
    }
    db.close().await.unwrap();
}
