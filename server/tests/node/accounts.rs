//! Accounts live in the database.

use mysql_async::prelude::Queryable;
use rustix::process::Signal;

use crate::Node;

#[tokio::test]
async fn a_root_password_from_a_file_is_asked_for_ever_after() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("password");
    std::fs::write(&file, "first\n").unwrap();
    let data = dir.path().join("data");
    let node = Node::start(&data, &["--root-password-file", file.to_str().unwrap()]).await;
    assert!(node.login("root", "").await.is_err());
    node.login("root", "first").await.unwrap();
    node.signal(Signal::TERM);
    assert_eq!(node.exit_code().await, Some(0));

    // Root exists now: the file no longer counts.
    std::fs::write(&file, "second\n").unwrap();
    let node = Node::start(&data, &["--root-password-file", file.to_str().unwrap()]).await;
    assert!(node.login("root", "second").await.is_err());
    node.login("root", "first").await.unwrap();
}

#[tokio::test]
async fn alter_user_changes_the_password_durably() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path(), &[]).await;
    let mut conn = node.login("root", "").await.unwrap();
    conn.query_drop("ALTER USER root IDENTIFIED BY 's3cret'").await.unwrap();
    assert!(node.login("root", "").await.is_err());
    node.login("root", "s3cret").await.unwrap();
    node.signal(Signal::KILL);
    assert_eq!(node.exit_code().await, None);
    let node = Node::start(dir.path(), &[]).await;
    assert!(node.login("root", "").await.is_err());
    node.login("root", "s3cret").await.unwrap();
}
