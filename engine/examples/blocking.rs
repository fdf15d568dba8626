//! The same without an async runtime: `cargo run --example blocking`.
#![allow(clippy::print_stdout, reason = "an example talks")]

use holdfast::blocking::{Db, Options, Result, ScanOptions, TxnOptions};

fn main() -> Result<()> {
    let db = Db::open("memory:///", Options::default())?;
    let fruit = db.keyspace("fruit")?;
    let mut txn = db.begin(TxnOptions::default())?;
    for (name, count) in [("apple", "3"), ("pear", "5"), ("plum", "8")] {
        txn.put(&fruit, name, count)?;
    }
    txn.commit()?;

    // A scan is an iterator here.
    for row in db.scan(&fruit, ScanOptions::prefix("p"))? {
        let row = row?;
        println!("{} {}", String::from_utf8_lossy(&row.key), String::from_utf8_lossy(&row.value));
    }
    db.close()
}
