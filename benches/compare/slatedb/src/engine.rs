//! What both engines do, and the rows they do it with.

use std::{collections::BTreeMap, sync::Arc};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use rand::{Rng, SeedableRng, rngs::SmallRng};

/// An engine with the table in it.
pub trait Engine: Send + Sync + Sized + 'static {
    const NAME: &'static str;

    /// One row.
    fn get(&self, key: u64) -> impl Future<Output = Result<Option<Bytes>>> + Send;
    /// The values of up to `rows` rows with their keys, from `start` on.
    fn range(&self, start: u64, rows: usize) -> impl Future<Output = Result<Vec<(Bytes, Bytes)>>> + Send;
    /// Writes one row. `durable`: at the level that outlives this machine. Tells how often it was tried again.
    fn put(&self, key: u64, value: Bytes, durable: bool) -> impl Future<Output = Result<u64>> + Send;
    /// Writes rows as fast as it goes.
    fn load(&self, rows: Vec<(u64, Bytes)>) -> impl Future<Output = Result<()>> + Send;
    /// Brings what is in memory to the bucket.
    fn flush(&self) -> impl Future<Output = Result<()>> + Send;
    /// Requests to the bucket so far by what they were for, if it tells.
    fn causes(&self) -> BTreeMap<String, u64> {
        BTreeMap::new()
    }
    /// Ends it, so that it can be opened again.
    fn close(self) -> impl Future<Output = Result<()>> + Send;
}

/// Closes an engine that nobody uses any more.
pub async fn close<E: Engine>(engine: Arc<E>) -> Result<()> {
    Arc::into_inner(engine).context("a client still runs")?.close().await
}

/// Keys are big endian, so that rows lie in the order of their numbers.
pub fn key_bytes(key: u64) -> Bytes {
    Bytes::copy_from_slice(&key.to_be_bytes())
}

/// A value: its key, and noise that does not compress.
pub fn value(key: u64, noise: &mut SmallRng, size: usize) -> Bytes {
    let mut bytes = vec![0; size];
    noise.fill(&mut bytes[8..]);
    bytes[..8].copy_from_slice(&key.to_be_bytes());
    bytes.into()
}

/// Noise that is another for every seed.
pub fn noise(seed: u64) -> SmallRng {
    SmallRng::seed_from_u64(seed)
}

/// What was read is a value of this key.
pub fn check(key: u64, value: &[u8], size: usize) -> Result<()> {
    ensure!(value.len() == size && value.starts_with(&key.to_be_bytes()), "row {key} has a value that is not its own");
    Ok(())
}

/// What was read are `rows` rows from `start` on, or all to the end of the table.
pub fn check_range(start: u64, rows: &[(Bytes, Bytes)], wanted: u64, size: usize) -> Result<()> {
    ensure!(rows.len() as u64 == wanted, "a range of {wanted} rows from {start} has {}", rows.len());
    for (key, (got, value)) in (start..).zip(rows) {
        ensure!(got[..] == key.to_be_bytes(), "a range from {start} has {got:?} instead of row {key}");
        check(key, value, size)?;
    }
    Ok(())
}
