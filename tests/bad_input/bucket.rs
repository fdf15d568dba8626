//! Buckets that are missing, closed to us, slow, failing or deaf to conditions: at the start and under a running server.

use std::time::{Duration, Instant};

use holdfast_tests::{
    proxy::{Fault, Proxy},
    s3::S3Server,
    serve::{Serve, run},
};
use mysql_async::{Conn, prelude::Queryable};

use crate::{admin, checkpoint, fails, says, still_serves};

/// The environment of `s3`, but through `endpoint`.
fn through(s3: &S3Server, endpoint: &str) -> Vec<(String, String)> {
    let mut env = s3.env();
    env.push(("AWS_ENDPOINT_URL".to_owned(), endpoint.to_owned()));
    env
}

#[test]
fn missing_or_closed() {
    let folder = tempfile::tempdir().unwrap();
    let s3 = S3Server::start();
    let start = |url: &str, env| Serve::new(&folder.path().join("data")).args(["--store", url]).envs(env).refused();

    let missing = "s3://no-such-bucket/p";
    fails("a bucket that is missing", &start(missing, s3.env()), &[missing, "bucket does not exist"]);
    let exit = run(["store", "probe", missing], s3.env());
    fails("store probe of a bucket that is missing", &exit, &[missing, "bucket does not exist"]);

    let url = s3.url("p");
    let exit = start(&url, s3.read_only_env());
    fails("credentials that may only read", &exit, &[&url, "access denied", "AccessDenied"]);
    let exit = run(["store", "probe", &url], s3.read_only_env());
    fails("store probe with credentials that may only read", &exit, &[&url, "access denied"]);

    let mut wrong = s3.env();
    wrong.push(("AWS_SECRET_ACCESS_KEY".to_owned(), "wrong".to_owned()));
    fails("a wrong secret key", &start(&url, wrong), &[&url, "access denied", "SignatureDoesNotMatch"]);

    let exit = start(&url, through(&s3, "http://127.0.0.1:1"));
    fails("an endpoint where nobody listens", &exit, &[&url, "127.0.0.1:1", "refused"]);

    let exit = start("file:///proc/nothing/bucket", Vec::new());
    fails("a folder that cannot be made", &exit, &["/proc/nothing/bucket"]);
}

#[test]
fn silent_from_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let s3 = S3Server::start();
    let proxy = Proxy::start(s3.port());
    proxy.set(Fault::Silent);
    let began = Instant::now();
    let env = through(&s3, &proxy.endpoint());
    let exit = Serve::new(&folder.path().join("data")).args(["--store", &s3.url("p")]).envs(env).refused();
    let done = format!("an endpoint that takes requests and never answers (gave up after {:?})", began.elapsed());
    fails(&done, &exit, &[&s3.url("p"), "no answer within"]);
}

#[tokio::test]
async fn slow() {
    let folder = tempfile::tempdir().unwrap();
    let s3 = S3Server::start();
    let proxy = Proxy::start(s3.port());
    proxy.set(Fault::Slow(Duration::from_millis(60)));
    let began = Instant::now();
    let (url, env) = (s3.url("p"), through(&s3, &proxy.endpoint()));
    let server = Serve::new(&folder.path().join("data")).args(["--store", &url]).envs(env).start();
    let ready = began.elapsed();
    proxy.set(Fault::Slow(Duration::from_secs(2)));
    let mut conn = Conn::from_url(server.url("")).await.unwrap();
    conn.query_drop("CREATE DATABASE d").await.unwrap();
    conn.query_drop("CREATE TABLE d.t (id INT PRIMARY KEY)").await.unwrap();
    let began = Instant::now();
    for id in 0..200 {
        conn.query_drop(format!("INSERT INTO d.t VALUES ({id})")).await.unwrap();
    }
    let inserts = began.elapsed();
    let began = Instant::now();
    checkpoint(&server);
    let flush = began.elapsed();
    let printed = format!("ready after {ready:?}; 200 commits took {inserts:?}; the checkpoint {flush:?}");
    says("a bucket that takes 60 ms, later 2 s for each request", &printed, &[]);
    assert!(inserts < flush, "commits do not wait for the bucket: {printed}");
    still_serves(&server).await;
}

#[tokio::test]
async fn failing_now_and_then() {
    let folder = tempfile::tempdir().unwrap();
    let s3 = S3Server::start();
    let proxy = Proxy::start(s3.port());
    proxy.set(Fault::Fails { status: 503, code: "SlowDown", every: 3 });
    let (url, env) = (s3.url("p"), through(&s3, &proxy.endpoint()));
    let data = folder.path().join("data");
    let serve = || Serve::new(&data).args(["--store", &url, "--memory-cache", "1M"]).envs(env.clone());
    let server = serve().start();
    let mut conn = Conn::from_url(server.url("")).await.unwrap();
    conn.query_drop("CREATE DATABASE d").await.unwrap();
    conn.query_drop("CREATE TABLE d.t (id INT PRIMARY KEY, v VARCHAR(100))").await.unwrap();
    for id in 0..300 {
        conn.query_drop(format!("INSERT INTO d.t VALUES ({id}, 'row {id}')")).await.unwrap();
        if id % 100 == 99 {
            checkpoint(&server);
        }
    }
    assert_eq!(server.terminate(), Some(0));
    let server = serve().start();
    let mut conn = Conn::from_url(server.url("d")).await.unwrap();
    let count: Option<u64> = conn.query_first("SELECT COUNT(v) FROM t").await.unwrap();
    says("every third request answered 503 SlowDown", &format!("started twice, {count:?} rows of 300"), &["Some(300)"]);
    still_serves(&server).await;
}

#[tokio::test]
async fn failing_for_a_while() {
    let folder = tempfile::tempdir().unwrap();
    let s3 = S3Server::start();
    let proxy = Proxy::start(s3.port());
    let (url, env) = (s3.url("p"), through(&s3, &proxy.endpoint()));
    let server = Serve::new(&folder.path().join("data")).args(["--store", &url]).envs(env).start();
    let mut conn = Conn::from_url(server.url("")).await.unwrap();
    conn.query_drop("CREATE DATABASE d").await.unwrap();
    conn.query_drop("CREATE TABLE d.t (id INT PRIMARY KEY)").await.unwrap();
    proxy.set(Fault::Fails { status: 500, code: "InternalError", every: 1 });
    for id in 0..100 {
        conn.query_drop(format!("INSERT INTO d.t VALUES ({id})")).await.unwrap();
    }
    let waiting = tokio::task::spawn_blocking({
        let addr = server.admin.clone();
        move || run(["admin", "checkpoint", "--addr", &addr], Vec::new())
    });
    let failed = server.wait_for_log("flush failed").await;
    says(
        "every request answered 500; 100 commits, then a checkpoint",
        &failed,
        &["flush failed", &url, "next attempt"],
    );
    assert_eq!(conn.query_first("SELECT COUNT(*) FROM d.t").await.unwrap(), Some(100));
    proxy.set(Fault::Fails { status: 403, code: "AccessDenied", every: 1 });
    // The archive is denied as well.
    let denied = server.wait_for_line(&["flush failed", "access denied"]).await;
    says("then 403", &denied, &["flush failed", &url, "access denied"]);
    let exit = waiting.await.unwrap();
    fails("the checkpoint", &exit, &[&url, "500 Internal Server Error"]);
    proxy.set(Fault::None);
    // A flush that began before may still fail.
    let mut exit = admin(&server, "checkpoint");
    for _ in 0..10 {
        if exit.code == Some(0) {
            break;
        }
        exit = admin(&server, "checkpoint");
    }
    says("healed: another checkpoint", &exit.output, &["seconds"]);
    let exit = admin(&server, "fsck");
    assert_eq!(exit.code, Some(0), "{exit:?}");
    still_serves(&server).await;
}

#[test]
fn deaf_to_conditions() {
    let folder = tempfile::tempdir().unwrap();
    let s3 = S3Server::start();
    let proxy = Proxy::start(s3.port());
    proxy.set(Fault::Unconditional);
    let env = s3.unsigned_env(&proxy.endpoint());
    let url = s3.url("p");
    let serve = || Serve::new(&folder.path().join("data")).args(["--store", &url]).envs(env.clone());
    let parts = [&url[..], "If-None-Match is not atomic", "If-Match", "overwrites"];
    fails("a store that ignores If-Match and If-None-Match", &serve().refused(), &parts);
    assert!(serve().refused().output.contains("--allow-unsafe-store"));
    let exit = run(["store", "probe", &url], env.clone());
    says("store probe of the same", &exit.output, &["UNSAFE", "OVERWRITTEN", "is not safe to use"]);
    assert_eq!(exit.code, Some(1));
    let server = serve().args(["--allow-unsafe-store"]).start();
    says("the same with --allow-unsafe-store", &server.log(), &["WARN", "unsafe store is used all the same"]);
    assert_eq!(server.terminate(), Some(0));
}
