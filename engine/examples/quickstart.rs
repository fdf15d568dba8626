//! Opens a database in a local folder, writes, reads, and closes it: `cargo run --example quickstart`.
#![allow(clippy::print_stdout, reason = "an example talks")]

use holdfast::{Db, Options, Result};

#[tokio::main]
async fn main() -> Result<()> {
    let folder = std::env::temp_dir().join("holdfast-quickstart");
    let db = Db::open(&format!("file://{}", folder.display()), Options::default()).await?;
    let users = db.keyspace("users").await?;

    // Durable when this returns: the log has synced it.
    db.put(&users, "alice", "admin").await?;
    db.put(&users, "bob", "guest").await?;
    db.delete(&users, "bob").await?;

    let alice = db.get(&users, b"alice").await?;
    println!("alice is {}", String::from_utf8_lossy(alice.as_deref().unwrap_or_default()));
    println!("bob is {:?}", db.get(&users, b"bob").await?);

    // Rows leave for the bucket by themselves; this waits until all are there.
    db.checkpoint().await?;
    db.close().await
}
