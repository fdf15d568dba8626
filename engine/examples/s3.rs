//! A database in an S3 bucket: `cargo run --example s3 -- s3://bucket/prefix`, with AWS_ACCESS_KEY_ID,
//! AWS_SECRET_ACCESS_KEY, AWS_REGION and, for other servers than AWS, AWS_ENDPOINT_URL in the environment.
#![allow(clippy::print_stdout, reason = "an example talks")]

use holdfast::{Batch, Db, Durability, Error, Options, Result};

#[tokio::main]
async fn main() -> Result<()> {
    let url = std::env::args().nth(1).ok_or_else(|| Error::Invalid("usage: s3 s3://bucket/prefix".into()))?;
    let mut options = Options::default();
    // The log stays on local disk: commits wait for it, not for S3. Keep it with the prefix it belongs to.
    options.data_dir = Some(std::env::temp_dir().join("holdfast-s3-example"));
    options.memory_cache = Some(64 << 20);

    let db = Db::open(&url, options).await?;
    let events = db.keyspace("events").await?;
    let mut batch = Batch::new();
    for number in 0..1000 {
        batch.put(&events, format!("{number:06}"), format!("event {number}"));
    }
    // This durability waits until the bucket alone could bring the rows back.
    db.write(batch, Durability::Bucket).await?;
    println!("{:?}", db.get(&events, b"000500").await?);
    for request in db.stats().requests {
        println!(
            "{:>6} {:<10} {:>5} requests {:>9} bytes",
            request.kind, request.cause, request.requests, request.bytes
        );
    }
    db.close().await
}
