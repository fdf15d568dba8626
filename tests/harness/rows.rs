//! A table whose contents are known at every moment: clients write, delete and read it over MySQL, and whatever is read
//! is compared with what was acknowledged.
//!
//! A row's value is made from its number and version. Only one client writes a given row, so versions only grow; a read
//! may find any version between the last one acknowledged before it began and the last one begun before it ended.

use std::sync::{
    Arc,
    atomic::{AtomicU32, AtomicU64, Ordering::SeqCst},
};

use mysql_async::{Conn, Statement, prelude::Queryable};
use rand::{RngExt, SeedableRng, rngs::StdRng};

/// Rows that one statement writes.
const BATCH: usize = 64;
/// Rows that one range read wants.
const RANGE: u64 = 100;
/// Rows of one read of the final check.
const SCAN: u64 = 2000;
/// Every so many versions of a row is its absence; version 0 is one of them.
const ABSENT_EVERY: u32 = 8;

/// What a read found wrong.
pub type Wrong = String;

/// What clients do, in shares of 100; what is left over are point reads.
#[derive(Clone, Copy, Debug)]
pub struct Mix {
    /// Statements that replace 64 rows, or delete one.
    pub writes: u32,
    /// Range reads of 100 rows, in both directions.
    pub ranges: u32,
}

/// The table and what is known of it.
pub struct Rows {
    clients: u64,
    value_bytes: usize,
    acked: Vec<AtomicU32>,
    begun: Vec<AtomicU32>,
    written: AtomicU64,
    points: AtomicU64,
    ranges: AtomicU64,
}

fn is_absent(version: u32) -> bool {
    version.is_multiple_of(ABSENT_EVERY)
}

/// The value of a version: both numbers, then filler that depends on them and does not compress.
fn value(row: u64, version: u32, bytes: usize) -> Vec<u8> {
    let mut value = Vec::with_capacity(bytes + 8);
    value.extend_from_slice(&row.to_be_bytes());
    value.extend_from_slice(&version.to_be_bytes());
    let mut state = row << 32 ^ u64::from(version);
    while value.len() < bytes {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = (state ^ state >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        value.extend_from_slice(&(mixed ^ mixed >> 31).to_le_bytes());
    }
    value.truncate(bytes);
    value
}

/// One client's connection.
struct Session {
    conn: Conn,
    replace: Statement,
    delete: Statement,
    point: Statement,
    forward: Statement,
    backward: Statement,
}

impl Session {
    async fn open(url: &str) -> mysql_async::Result<Self> {
        let mut conn = Conn::from_url(url).await?;
        conn.query_drop("USE model").await?;
        let replace = format!("REPLACE INTO t VALUES (?, ?){}", ", (?, ?)".repeat(BATCH - 1));
        Ok(Self {
            replace: conn.prep(replace).await?,
            delete: conn.prep("DELETE FROM t WHERE id = ?").await?,
            point: conn.prep("SELECT v FROM t WHERE id = ?").await?,
            forward: conn.prep("SELECT id, v FROM t WHERE id >= ? AND id < ? ORDER BY id").await?,
            backward: conn.prep("SELECT id, v FROM t WHERE id >= ? AND id < ? ORDER BY id DESC").await?,
            conn,
        })
    }
}

impl Rows {
    /// A table of `rows` rows (rounded up to whole statements) of `value_bytes` each, written by `clients` clients.
    pub fn new(rows: u64, value_bytes: usize, clients: u64) -> Arc<Self> {
        let rows = rows.next_multiple_of(clients * BATCH as u64);
        let versions = || (0..rows).map(|_| AtomicU32::new(0)).collect();
        Arc::new(Self {
            clients,
            value_bytes,
            acked: versions(),
            begun: versions(),
            written: AtomicU64::new(0),
            points: AtomicU64::new(0),
            ranges: AtomicU64::new(0),
        })
    }

    /// Rows that there may be.
    pub fn len(&self) -> u64 {
        self.acked.len() as u64
    }

    /// Whether there may be none.
    pub fn is_empty(&self) -> bool {
        self.acked.is_empty()
    }

    /// Bytes of keys and values written and acknowledged so far.
    pub fn written_bytes(&self) -> u64 {
        self.written.load(SeqCst)
    }

    /// Bytes of keys and values that are there now, while nobody writes.
    pub fn live_bytes(&self) -> u64 {
        let there = self.acked.iter().filter(|version| !is_absent(version.load(SeqCst))).count();
        there as u64 * (8 + self.value_bytes as u64)
    }

    /// Point reads and range reads verified so far.
    pub fn verified(&self) -> (u64, u64) {
        (self.points.load(SeqCst), self.ranges.load(SeqCst))
    }

    /// Makes the table and fills it, all clients at once, each its own rows in order.
    pub async fn load(self: &Arc<Self>, url: &str) -> mysql_async::Result<()> {
        let mut conn = Conn::from_url(url).await?;
        conn.query_drop("CREATE DATABASE model").await?;
        let table = "CREATE TABLE model.t (id BIGINT UNSIGNED PRIMARY KEY, v VARBINARY(16000) NOT NULL)";
        conn.query_drop(table).await?;
        conn.disconnect().await?;
        let clients = (0..self.clients).map(|client| {
            let (rows, url) = (self.clone(), url.to_owned());
            tokio::spawn(async move {
                let mut session = Session::open(&url).await?;
                let own: Vec<u64> = (client..rows.len()).step_by(rows.clients as usize).collect();
                for batch in own.chunks(BATCH) {
                    rows.replace(&mut session, batch).await?;
                }
                session.conn.disconnect().await
            })
        });
        for client in clients.collect::<Vec<_>>() {
            client.await.expect("a client does not panic")?;
        }
        Ok(())
    }

    /// Runs every client until `enough`, or until something is wrong.
    pub async fn work(
        self: &Arc<Self>,
        url: &str,
        mix: Mix,
        seed: u64,
        enough: impl Fn() -> bool + Clone + Send + 'static,
    ) -> Result<(), Wrong> {
        let clients = (0..self.clients).map(|client| {
            let (rows, url, enough) = (self.clone(), url.to_owned(), enough.clone());
            let rng = StdRng::seed_from_u64(seed << 16 | client);
            tokio::spawn(async move { rows.client(&url, client, mix, rng, enough).await })
        });
        for client in clients.collect::<Vec<_>>() {
            client.await.expect("a client does not panic")?;
        }
        Ok(())
    }

    async fn client(
        &self,
        url: &str,
        client: u64,
        mix: Mix,
        mut rng: StdRng,
        enough: impl Fn() -> bool,
    ) -> Result<(), Wrong> {
        let mut session = Session::open(url).await.map_err(|error| error.to_string())?;
        while !enough() {
            let roll = rng.random_range(0..100);
            if roll < mix.writes {
                self.write(&mut session, client, &mut rng).await.map_err(|error| format!("a write: {error}"))?;
            } else if roll < mix.writes + mix.ranges {
                let first = rng.random_range(0..self.len());
                let end = self.len().min(first + RANGE);
                self.range(&mut session, first, end, rng.random_range(0..2) == 1).await?;
            } else {
                self.point(&mut session, rng.random_range(0..self.len())).await?;
            }
        }
        session.conn.disconnect().await.map_err(|error| error.to_string())
    }

    /// Replaces rows that this client owns, wherever they are; a row whose next version is its absence is deleted.
    async fn write(&self, session: &mut Session, client: u64, rng: &mut StdRng) -> mysql_async::Result<()> {
        let mut batch = Vec::with_capacity(BATCH);
        while batch.len() < BATCH {
            let row = rng.random_range(0..self.len() / self.clients) * self.clients + client;
            if batch.contains(&row) {
                continue;
            }
            if is_absent(self.acked[row as usize].load(SeqCst) + 1) {
                self.delete(session, row).await?;
            } else {
                batch.push(row);
            }
        }
        self.replace(session, &batch).await
    }

    async fn replace(&self, session: &mut Session, batch: &[u64]) -> mysql_async::Result<()> {
        let mut parameters: Vec<mysql_async::Value> = Vec::with_capacity(2 * batch.len());
        for row in batch {
            let version = self.begun[*row as usize].fetch_add(1, SeqCst) + 1;
            parameters.extend([(*row).into(), value(*row, version, self.value_bytes).into()]);
        }
        session.conn.exec_drop(&session.replace, parameters).await?;
        for row in batch {
            self.acked[*row as usize].fetch_add(1, SeqCst);
        }
        self.written.fetch_add(batch.len() as u64 * (8 + self.value_bytes as u64), SeqCst);
        Ok(())
    }

    async fn delete(&self, session: &mut Session, row: u64) -> mysql_async::Result<()> {
        self.begun[row as usize].fetch_add(1, SeqCst);
        session.conn.exec_drop(&session.delete, (row,)).await?;
        self.acked[row as usize].fetch_add(1, SeqCst);
        self.written.fetch_add(8, SeqCst);
        Ok(())
    }

    async fn point(&self, session: &mut Session, row: u64) -> Result<(), Wrong> {
        let least = self.acked[row as usize].load(SeqCst);
        let read = session.conn.exec_first(&session.point, (row,)).await;
        let read: Option<Vec<u8>> = read.map_err(|error| format!("row {row}: {error}"))?;
        self.check(row, least, read.as_deref())?;
        self.points.fetch_add(1, SeqCst);
        Ok(())
    }

    async fn range(&self, session: &mut Session, first: u64, end: u64, reverse: bool) -> Result<(), Wrong> {
        let least: Vec<u32> = (first..end).map(|row| self.acked[row as usize].load(SeqCst)).collect();
        let statement = if reverse { &session.backward } else { &session.forward };
        let read = session.conn.exec(statement, (first, end)).await;
        let mut read: Vec<(u64, Vec<u8>)> = read.map_err(|error| format!("rows {first}..{end}: {error}"))?;
        if reverse {
            read.reverse();
        }
        if !read.is_sorted_by(|(a, _), (b, _)| a < b) {
            return Err(format!("rows {first}..{end} (reverse: {reverse}) are out of order"));
        }
        let mut read = read.into_iter().peekable();
        for (row, least) in (first..end).zip(least) {
            let value = read.next_if(|(id, _)| *id == row).map(|(_, value)| value);
            self.check(row, least, value.as_deref()).map_err(|why| format!("range {first}..{end}: {why}"))?;
        }
        if let Some((id, _)) = read.next() {
            return Err(format!("rows {first}..{end}: there is a row {id}"));
        }
        self.ranges.fetch_add(1, SeqCst);
        Ok(())
    }

    /// Compares what a read found with what it may find.
    fn check(&self, row: u64, least: u32, read: Option<&[u8]>) -> Result<(), Wrong> {
        let mut may = least..=self.begun[row as usize].load(SeqCst);
        let Some(read) = read else {
            let fine = may.clone().any(is_absent);
            return if fine { Ok(()) } else { Err(format!("row {row} is missing, versions {may:?} may be there")) };
        };
        if may.any(|version| !is_absent(version) && read == value(row, version, self.value_bytes)) {
            return Ok(());
        }
        let version = read.get(8..12).and_then(|bytes| bytes.try_into().ok()).map(u32::from_be_bytes);
        Err(format!("row {row} has {} bytes that say version {version:?}; from {least} on may be there", read.len()))
    }

    /// Reads the whole table in order, each client a part of it, with nobody writing; returns the rows found.
    pub async fn verify(self: &Arc<Self>, url: &str) -> Result<u64, Wrong> {
        let part = self.len().div_ceil(self.clients);
        let readers = (0..self.clients).map(|reader| {
            let (rows, url) = (self.clone(), url.to_owned());
            tokio::spawn(async move {
                let mut session = Session::open(&url).await.map_err(|error| error.to_string())?;
                let end = rows.len().min((reader + 1) * part);
                for first in (reader * part..end).step_by(SCAN as usize) {
                    rows.range(&mut session, first, end.min(first + SCAN), false).await?;
                }
                session.conn.disconnect().await.map_err(|error| error.to_string())
            })
        });
        for reader in readers.collect::<Vec<_>>() {
            reader.await.expect("a reader does not panic")?;
        }
        let mut conn = Conn::from_url(url).await.map_err(|error| error.to_string())?;
        let beyond = format!("SELECT COUNT(*) FROM model.t WHERE id >= {}", self.len());
        let beyond: Option<u64> = conn.query_first(beyond).await.map_err(|error| error.to_string())?;
        if beyond != Some(0) {
            return Err(format!("{beyond:?} rows that were never written"));
        }
        conn.disconnect().await.map_err(|error| error.to_string())?;
        Ok(self.acked.iter().filter(|version| !is_absent(version.load(SeqCst))).count() as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_may_find_what_was_acknowledged_or_is_under_way() {
        let rows = Rows::new(1, 100, 1);
        rows.begun[3].store(2, SeqCst);
        assert!(rows.check(3, 1, Some(&value(3, 1, 100))).is_ok());
        assert!(rows.check(3, 1, Some(&value(3, 2, 100))).is_ok());
        assert!(rows.check(3, 2, Some(&value(3, 1, 100))).is_err());
        assert!(rows.check(3, 1, Some(&value(3, 3, 100))).is_err());
        assert!(rows.check(3, 1, Some(&value(2, 1, 100))).is_err());
        assert!(rows.check(3, 1, None).is_err());
        assert!(rows.check(3, 0, None).is_ok());
        rows.begun[3].store(ABSENT_EVERY, SeqCst);
        assert!(rows.check(3, ABSENT_EVERY, None).is_ok());
        assert!(rows.check(3, ABSENT_EVERY, Some(&value(3, ABSENT_EVERY, 100))).is_err());
    }
}
