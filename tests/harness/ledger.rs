//! A checking workload over the MySQL wire: each writer commits numbered transactions of several rows in two tables
//! and notes what was acknowledged; afterwards every acknowledged one must be there whole, and no other may be there in part.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use mysql_async::{Conn, prelude::Queryable};

/// Rows of one transaction in `parts`, beside the one in `heads`.
const PARTS: u64 = 3;

/// What the writers know of their own commits.
pub struct Ledger {
    /// Highest acknowledged transaction of each writer; 0 = none.
    acked: Vec<AtomicU64>,
}

/// What was acknowledged when a server was killed under load.
pub struct Killed {
    /// By each writer, the allowed lag before the end.
    pub archived: Vec<u64>,
    /// All together, at times before the end.
    samples: Vec<(Instant, u64)>,
    at: Instant,
}

impl Killed {
    /// Time from the last moment when no more than this was acknowledged until the end: what was lost is newer.
    pub fn lost(&self, kept: u64) -> Duration {
        let sample = self.samples.iter().rev().find(|(_, acked)| *acked <= kept);
        sample.map_or(Duration::MAX, |(at, _)| self.at - *at)
    }
}

/// Why a check failed.
pub type Loss = String;

impl Ledger {
    /// A ledger of `writers` writers.
    pub fn new(writers: usize) -> Arc<Self> {
        Arc::new(Self { acked: (0..writers).map(|_| AtomicU64::new(0)).collect() })
    }

    /// Transactions acknowledged so far, all writers together.
    pub fn acked(&self) -> u64 {
        self.acked.iter().map(|a| a.load(SeqCst)).sum()
    }

    /// Highest acknowledged transaction of each writer.
    pub fn acknowledged(&self) -> Vec<u64> {
        self.acked.iter().map(|acked| acked.load(SeqCst)).collect()
    }

    /// Takes what a database has for what was acknowledged, after a loss that was to be expected; answers it.
    pub async fn rebase(&self, url: &str) -> Result<Vec<u64>, Loss> {
        let mut conn = Conn::from_url(url).await.map_err(|e| format!("connect: {e}"))?;
        let rows: Vec<(usize, u64)> =
            conn.query("SELECT writer, last FROM ledger.heads").await.map_err(|e| format!("heads: {e}"))?;
        for (writer, last) in rows {
            self.acked[writer].store(last, SeqCst);
        }
        conn.disconnect().await.map_err(|e| e.to_string())?;
        Ok(self.acknowledged())
    }

    /// Runs every writer for `lag` and some time before, until `kill` ends the server under way.
    pub async fn kill_under_load(self: &Arc<Self>, url: &str, lag: Duration, kill: impl FnOnce()) -> Killed {
        let load = tokio::spawn({
            let (ledger, url) = (self.clone(), url.to_owned());
            async move { ledger.run(&url, Arc::new(AtomicBool::new(false))).await }
        });
        self.progress(1_500).await.expect("it serves");
        let (archived, begin) = (self.acknowledged(), Instant::now());
        let mut samples = Vec::new();
        while begin.elapsed() < lag {
            samples.push((Instant::now(), self.acked()));
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let at = Instant::now();
        kill();
        load.await.expect("writers do not panic");
        samples.push((at, self.acked()));
        Killed { archived, samples, at }
    }

    /// Makes the tables, each writer's head row among them.
    pub async fn create(&self, url: &str) -> mysql_async::Result<()> {
        let mut conn = Conn::from_url(url).await?;
        conn.query_drop("CREATE DATABASE IF NOT EXISTS ledger").await?;
        conn.query_drop("CREATE TABLE IF NOT EXISTS ledger.heads (writer INT PRIMARY KEY, last BIGINT NOT NULL)")
            .await?;
        conn.query_drop(
            "CREATE TABLE IF NOT EXISTS ledger.parts (writer INT, txn BIGINT, part INT, pad VARCHAR(200) NOT NULL, \
             PRIMARY KEY (writer, txn, part), KEY by_part (part, writer))",
        )
        .await?;
        for writer in 0..self.acked.len() {
            conn.query_drop(format!("INSERT IGNORE INTO ledger.heads VALUES ({writer}, 0)")).await?;
        }
        conn.disconnect().await
    }

    /// Runs every writer until `stop`, or until the server goes away. Returns when all have ended.
    pub async fn run(self: &Arc<Self>, url: &str, stop: Arc<AtomicBool>) {
        let writers = (0..self.acked.len()).map(|writer| {
            let (ledger, url, stop) = (self.clone(), url.to_owned(), stop.clone());
            tokio::spawn(async move { ledger.write(writer, &url, &stop).await })
        });
        for writer in writers.collect::<Vec<_>>() {
            // An error only says that the server went away: that is what these tests are about.
            let _ = writer.await.expect("a writer does not panic");
        }
    }

    async fn write(&self, writer: usize, url: &str, stop: &AtomicBool) -> mysql_async::Result<()> {
        let mut conn = Conn::from_url(url).await?;
        // The transaction in flight at a crash may have committed unseen: go on after what is there.
        let found: Option<u64> =
            conn.query_first(format!("SELECT last FROM ledger.heads WHERE writer = {writer}")).await?;
        let mut txn = found.unwrap_or(0);
        self.acked[writer].fetch_max(txn, SeqCst);
        while !stop.load(SeqCst) {
            txn += 1;
            conn.query_drop("BEGIN").await?;
            for part in 0..PARTS {
                let pad = "x".repeat((txn * 37 % 180) as usize);
                conn.exec_drop("INSERT INTO ledger.parts VALUES (?, ?, ?, ?)", (writer, txn, part, pad)).await?;
            }
            conn.exec_drop("UPDATE ledger.heads SET last = ? WHERE writer = ?", (txn, writer)).await?;
            conn.query_drop("COMMIT").await?;
            self.acked[writer].store(txn, SeqCst);
        }
        conn.disconnect().await
    }

    /// Compares the database with what was acknowledged.
    pub async fn check(&self, url: &str) -> Result<(), Loss> {
        let mut conn = Conn::from_url(url).await.map_err(|e| format!("connect: {e}"))?;
        for (writer, acked) in self.acked.iter().enumerate() {
            let acked = acked.load(SeqCst);
            let last: Option<u64> = conn
                .query_first(format!("SELECT last FROM ledger.heads WHERE writer = {writer}"))
                .await
                .map_err(|e| format!("heads: {e}"))?;
            let last = last.ok_or_else(|| format!("writer {writer}: its head row is gone"))?;
            if last < acked || last > acked + 1 {
                return Err(format!("writer {writer}: acknowledged up to {acked}, head says {last}"));
            }
            for path in ["PRIMARY", "by_part"] {
                let rows: Vec<(u64, u64)> = conn
                    .query(format!(
                        "SELECT txn, part FROM ledger.parts FORCE INDEX ({path}) WHERE writer = {writer} ORDER BY txn, part"
                    ))
                    .await
                    .map_err(|e| format!("parts by {path}: {e}"))?;
                let want: Vec<(u64, u64)> =
                    (1..=last).flat_map(|txn| (0..PARTS).map(move |part| (txn, part))).collect();
                if rows != want {
                    let at = rows.iter().zip(&want).position(|(a, b)| a != b).unwrap_or(rows.len().min(want.len()));
                    return Err(format!(
                        "writer {writer} by {path}: {} rows instead of {}, first difference {:?} instead of {:?} (acknowledged {acked}, head {last})",
                        rows.len(),
                        want.len(),
                        rows.get(at),
                        want.get(at)
                    ));
                }
            }
        }
        conn.disconnect().await.map_err(|e| e.to_string())
    }

    /// Waits until `more` further transactions are acknowledged; an error if that takes over a minute.
    pub async fn progress(&self, more: u64) -> Result<(), Loss> {
        let goal = self.acked() + more;
        for _ in 0..6_000 {
            if self.acked() >= goal {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Err(format!("only {} of {goal} transactions within a minute", self.acked()))
    }
}
