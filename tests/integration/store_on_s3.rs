//! The engine's store on a real S3 server: conditional writes, ranges, counting, and errors that say what is wrong.

use std::sync::Arc;

use bytes::Bytes;
use holdfast::{
    Error,
    clock::{Entropy, SystemClock},
    store::{Cause, Kind, Limits, Put, RetryPolicy, Store, StoreOptions, When, owner, probe},
};
use holdfast_tests::s3::S3Server;

fn open(server: &S3Server, url: &str, changes: &[(&str, &str)]) -> Store {
    let mut s3: Vec<(String, String)> = server.env().into_iter().map(|(key, value)| (key.to_string(), value)).collect();
    s3.extend(changes.iter().map(|(key, value)| (key.to_string(), value.to_string())));
    let (clock, entropy) = (Arc::new(SystemClock::new()), Arc::new(Entropy::from_os()));
    Store::open(url, StoreOptions { s3, retry: RetryPolicy::default(), limits: Limits::default(), clock, entropy })
        .expect("open store")
}

fn body(bytes: usize) -> [Bytes; 2] {
    [Bytes::from(vec![1; bytes / 2]), Bytes::from(vec![2; bytes - bytes / 2])]
}

#[tokio::test]
async fn passes_the_probe_and_keeps_what_it_is_given() {
    let server = S3Server::start();
    let store = open(&server, "s3://holdfast/some/prefix", &[]);
    let report = probe::probe(&store).await.expect("probe");
    assert!(report.is_safe(), "{report}");

    store.put_new("obj/1", &body(9_000_000), Cause::Flush).await.expect("put");
    let range = store.get("obj/1", 4_499_999..4_500_001, Cause::Page).await.expect("range");
    assert_eq!(range[..], [1, 2]);
    let again = store.put_new("obj/1", &body(10), Cause::Flush).await;
    assert!(matches!(&again, Err(Error::Store(why)) if why.contains("used once")), "{again:?}");
    assert!(store.get("obj/2", 0..1, Cause::Page).await.is_err());

    let etag = store.get_all("obj/1", Cause::Page).await.expect("get").and_then(|got| got.etag).expect("entity tag");
    let won = store.put_when("obj/1", &body(10), When::Matches(etag.clone()), Cause::Owner).await.expect("update");
    assert!(matches!(won, Put::Won(_)));
    assert_eq!(store.put_when("obj/1", &body(10), When::Matches(etag), Cause::Owner).await, Ok(Put::Lost));

    store.put_new("obj/3", &body(10), Cause::Flush).await.expect("put");
    let listed = store.list("obj/", None, 10, Cause::Gc).await.expect("list");
    assert_eq!(
        listed.iter().map(|listed| (&listed.key[..], listed.bytes)).collect::<Vec<_>>(),
        [("obj/1", 10), ("obj/3", 10)]
    );
    store.delete("obj/1", Cause::Gc).await.expect("delete");
    store.delete("obj/1", Cause::Gc).await.expect("delete twice");
    assert_eq!(store.list("obj/", Some("obj/0"), 10, Cause::Gc).await.expect("list").len(), 1);
    let requests = store.requests();
    let page_reads = requests.0.iter().find(|count| (count.kind, count.cause) == (Kind::Get, Cause::Page));
    assert_eq!(page_reads.map(|count| count.requests), Some(3));
}

#[tokio::test]
async fn says_what_is_wrong_with_bucket_credentials_and_owner() {
    let server = S3Server::start();
    let missing = open(&server, "s3://no-such-bucket/p", &[]);
    // Opening reads the owner record first; a put would make the bucket on this server.
    let error = owner::read(&missing).await.expect_err("no bucket").to_string();
    assert!(error.contains("s3://no-such-bucket/p") && error.contains("bucket does not exist"), "{error}");

    let denied = open(&server, "s3://holdfast/p", &[("AWS_SECRET_ACCESS_KEY", "wrong")]);
    let error = denied.put_new("a", &body(1), Cause::Flush).await.expect_err("bad secret").to_string();
    assert!(error.contains("access denied") && error.contains("SignatureDoesNotMatch"), "{error}");

    let store = open(&server, "s3://holdfast/p", &[]);
    let (ours, theirs) = (owner::mint(&store), owner::mint(&store));
    owner::claim(&store, ours, &[1]).await.expect("claim");
    owner::claim(&store, ours, &[1]).await.expect("claim again");
    let error = owner::claim(&store, theirs, &[1]).await.expect_err("owned").to_string();
    assert!(error.contains(&format!("belongs to {ours}")), "{error}");
}
