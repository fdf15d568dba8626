//! The S3 server of the harness is what the tests take it for: it answers, and it survives a kill.

use holdfast_tests::s3::S3Server;
use object_store::{ObjectStore as _, ObjectStoreExt as _, PutMode, PutOptions, path::Path};

#[tokio::test]
async fn keeps_objects_over_a_kill_and_refuses_a_second_create() {
    let mut server = S3Server::start();
    let key = Path::from("a/b");
    server.client().put(&key, "one".into()).await.expect("put");
    server.resume();
    let store = server.client();
    assert_eq!(store.get(&key).await.expect("get").bytes().await.expect("body"), "one");
    let create = PutOptions::from(PutMode::Create);
    let second = store.put_opts(&key, "two".into(), create).await;
    assert!(matches!(second, Err(object_store::Error::AlreadyExists { .. })), "{second:?}");
}

/// What the proof that no key is written twice rests on.
#[tokio::test]
async fn its_log_tells_creations_overwrites_and_deletions_apart() {
    let server = S3Server::start();
    let store = server.client();
    let big = vec![7u8; 20 << 20];
    store.put(&Path::from("p/once"), big.into()).await.expect("put");
    let create = PutOptions::from(PutMode::Create);
    store.put_opts(&Path::from("p/new"), "one".into(), create.clone()).await.expect("put");
    assert!(store.put_opts(&Path::from("p/new"), "two".into(), create).await.is_err());
    for body in ["one", "three"] {
        store.put(&Path::from("p/f/twice"), body.into()).await.expect("put");
    }
    store.delete(&Path::from("p/new")).await.expect("delete");
    store.put(&Path::from("other"), "x".into()).await.expect("put");
    let log = server.bucket_log("p");
    let figures = log.0.iter().map(|(key, h)| (&key[..], h.created, h.overwritten, h.deleted, h.bytes_now));
    assert_eq!(
        figures.collect::<Vec<_>>(),
        [("f/twice", 1, 1, 0, Some(5)), ("new", 1, 0, 1, None), ("once", 1, 0, 0, Some(20 << 20))]
    );
}
