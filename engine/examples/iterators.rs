//! Keyspaces, atomic batches across them, and scans in both directions: `cargo run --example iterators`.
#![allow(clippy::print_stdout, reason = "an example talks")]

use futures::TryStreamExt;
use holdfast::{Batch, Db, Durability, Options, Result, ScanOptions};

#[tokio::main]
async fn main() -> Result<()> {
    let db = Db::open("memory:///", Options::default()).await?;
    let (orders, by_customer) = (db.keyspace("orders").await?, db.keyspace("orders_by_customer").await?);

    // A row and its index entry, together or not at all.
    for (number, customer) in [(1, "ann"), (2, "bob"), (3, "ann"), (4, "cem")] {
        let mut batch = Batch::new();
        batch.put(&orders, format!("{number:08}"), customer);
        batch.put(&by_customer, format!("{customer}/{number:08}"), "");
        db.write(batch, Durability::Quorum).await?;
    }

    // Row by row, over one snapshot.
    let snapshot = db.snapshot()?;
    db.put(&orders, "00000005", "too late for the snapshot").await?;
    let mut scan = snapshot.scan(&orders, ScanOptions::default().reversed())?;
    while let Some(row) = scan.next().await? {
        println!("order {} by {}", String::from_utf8_lossy(&row.key), String::from_utf8_lossy(&row.value));
    }

    // As a stream.
    let of_ann: Vec<_> = snapshot.scan(&by_customer, ScanOptions::prefix("ann/"))?.try_collect().await?;
    println!("ann has {} orders", of_ann.len());

    // In batches: the fast way over many rows.
    let (mut scan, mut rows) = (db.scan(&orders, ScanOptions::range("00000002", "00000004"))?, Vec::new());
    while scan.next_batch(&mut rows, 1000).await? > 0 {}
    println!("{} orders from 2 up to 4", rows.len());

    let mut batch = Batch::new();
    batch.delete_range(&by_customer, "ann/", "ann0");
    db.write(batch, Durability::Quorum).await?;
    println!("after the range delete: {:?}", db.scan(&by_customer, ScanOptions::prefix("ann/"))?.next().await?);
    println!("keyspaces: {:?}", db.keyspaces());
    db.close().await
}
