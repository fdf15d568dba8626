//! Transfers between accounts, by many tasks at once, with retry: `cargo run --example transactions`.
#![allow(clippy::print_stdout, reason = "an example talks")]

use holdfast::{Db, Error, Isolation, Keyspace, Options, Result, ScanOptions, Txn, TxnOptions};

const ACCOUNTS: u32 = 10;
const START: i64 = 100;

async fn balance(txn: &mut Txn, accounts: &Keyspace, account: u32) -> Result<i64> {
    let value = txn.get(accounts, &account.to_be_bytes()).await?.unwrap_or_default();
    let bytes = value.first_chunk().ok_or_else(|| Error::Invalid(format!("there is no account {account}")))?;
    Ok(i64::from_be_bytes(*bytes))
}

async fn try_transfer(db: &Db, accounts: &Keyspace, from: u32, to: u32, amount: i64) -> Result<bool> {
    let mut txn = db.begin(TxnOptions { isolation: Isolation::Serializable, ..TxnOptions::default() })?;
    let mine = balance(&mut txn, accounts, from).await?;
    let theirs = balance(&mut txn, accounts, to).await?;
    if mine < amount {
        return Ok(false);
    }
    txn.put(accounts, from.to_be_bytes().to_vec(), (mine - amount).to_be_bytes().to_vec())?;
    txn.put(accounts, to.to_be_bytes().to_vec(), (theirs + amount).to_be_bytes().to_vec())?;
    txn.commit().await?;
    Ok(true)
}

/// Runs the transaction until it commits, or fails for a reason that running it again would not mend.
async fn transfer(db: &Db, accounts: &Keyspace, from: u32, to: u32, amount: i64) -> Result<bool> {
    loop {
        match try_transfer(db, accounts, from, to, amount).await {
            Err(error) if error.is_retryable() => tokio::task::yield_now().await,
            other => return other,
        }
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let db = Db::open("memory:///", Options::default()).await?;
    let accounts = db.keyspace("accounts").await?;
    for account in 0..ACCOUNTS {
        db.put(&accounts, account.to_be_bytes().to_vec(), START.to_be_bytes().to_vec()).await?;
    }

    let tasks = (0..8).map(|task| {
        let (db, accounts) = (db.clone(), accounts.clone());
        tokio::spawn(async move {
            let mut done = 0;
            for step in 0..50 {
                let (from, to) = ((task * 3 + step) % ACCOUNTS, (task + step * 7 + 1) % ACCOUNTS);
                if from != to && transfer(&db, &accounts, from, to, 10).await? {
                    done += 1;
                }
            }
            Ok::<_, Error>(done)
        })
    });
    let mut done = 0;
    for task in futures::future::join_all(tasks).await {
        done += task.map_err(|error| Error::Invalid(error.to_string()))??;
    }

    let mut rows = Vec::new();
    db.scan(&accounts, ScanOptions::default())?.next_batch(&mut rows, ACCOUNTS as usize).await?;
    let total: i64 =
        rows.iter().filter_map(|row| row.value.first_chunk()).map(|bytes| i64::from_be_bytes(*bytes)).sum();
    println!("{done} transfers; {total} in all accounts, as at the start ({})", i64::from(ACCOUNTS) * START);
    db.close().await
}
