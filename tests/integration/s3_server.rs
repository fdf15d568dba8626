//! The S3 server of the harness is what the tests take it for: it answers, and it survives a kill.

use std::sync::Arc;

use holdfast_tests::s3::S3Server;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions, aws::AmazonS3Builder, path::Path};

fn client(server: &S3Server) -> Arc<dyn ObjectStore> {
    let mut builder = AmazonS3Builder::new().with_bucket_name("holdfast").with_allow_http(true);
    for (key, value) in server.env() {
        builder = builder.with_config(key.to_lowercase().parse().expect("an AWS_* setting"), value);
    }
    Arc::new(builder.build().expect("client"))
}

#[tokio::test]
async fn keeps_objects_over_a_kill_and_refuses_a_second_create() {
    let mut server = S3Server::start();
    let key = Path::from("a/b");
    client(&server).put(&key, "one".into()).await.expect("put");
    server.resume();
    let store = client(&server);
    assert_eq!(store.get(&key).await.expect("get").bytes().await.expect("body"), "one");
    let create = PutOptions::from(PutMode::Create);
    let second = store.put_opts(&key, "two".into(), create).await;
    assert!(matches!(second, Err(object_store::Error::AlreadyExists { .. })), "{second:?}");
}
