//! A server over MySQL as a target.

use std::{fmt::Write, time::Instant};

use bytes::Bytes;
use mysql_async::{Conn, Opts, OptsBuilder, Statement, Value, prelude::Queryable};

use super::{Committed, Failure, Row, Transaction};
use crate::{Error, observe::Observed, options::BenchOptions};

/// The longest value that the table's VARBINARY takes; above it the column is a MEDIUMBLOB.
const VARBINARY_MAX: usize = 60_000;
/// What a transaction may meet that running it again mends: deadlock, lock wait timeout, NOWAIT.
const AGAIN: [u16; 3] = [1213, 1205, 3572];

/// A server that answers.
pub(crate) struct Target {
    opts: Opts,
    addr: String,
}

/// One connection, with its prepared statements.
pub(crate) struct Session {
    conn: Conn,
    read: Statement,
    scan: Statement,
    update: Statement,
    insert: Statement,
}

impl Target {
    pub(super) async fn open(addr: &str, bench: &BenchOptions) -> Result<Self, Error> {
        let (host, port) = addr
            .rsplit_once(':')
            .and_then(|(host, port)| Some((host.trim_matches(['[', ']']), port.parse::<u16>().ok()?)))
            .ok_or_else(|| Error::Options(format!("--addr {addr}: expected HOST:PORT")))?;
        if !bench.database.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
            return Err(Error::Options(format!("--database {}: letters, digits and _ only", bench.database)));
        }
        let builder = OptsBuilder::default()
            .ip_or_hostname(host)
            .tcp_port(port)
            .user(Some(&bench.user))
            .pass(Some(&bench.password).filter(|password| !password.is_empty()))
            .prefer_socket(false);
        let reached = Conn::new(builder.clone()).await;
        let mut conn = reached.map_err(|error| Error::Login { addr: addr.to_owned(), source: Box::new(error) })?;
        conn.query_drop(format!("CREATE DATABASE IF NOT EXISTS {}", bench.database)).await?;
        conn.query_drop(format!("USE {}", bench.database)).await?;
        if !bench.skip_load {
            let size = bench.value_size();
            let column = if size <= VARBINARY_MAX { format!("VARBINARY({size})") } else { "MEDIUMBLOB".into() };
            conn.query_drop("DROP TABLE IF EXISTS usertable").await?;
            let table =
                format!("CREATE TABLE usertable (id BIGINT UNSIGNED NOT NULL PRIMARY KEY, v {column} NOT NULL)");
            conn.query_drop(table).await?;
        }
        conn.disconnect().await?;
        Ok(Self { opts: builder.db_name(Some(&bench.database)).into(), addr: addr.to_owned() })
    }

    pub(super) fn addr(&self) -> &str {
        &self.addr
    }

    pub(super) async fn session(&self) -> Result<Session, Error> {
        let mut conn = Conn::new(self.opts.clone()).await?;
        Ok(Session {
            read: conn.prep("SELECT v FROM usertable WHERE id = ?").await?,
            scan: conn.prep("SELECT id, v FROM usertable WHERE id >= ? ORDER BY id LIMIT ?").await?,
            update: conn.prep("UPDATE usertable SET v = ? WHERE id = ?").await?,
            insert: conn.prep("INSERT INTO usertable (id, v) VALUES (?, ?)").await?,
            conn,
        })
    }

    pub(super) async fn observe(&self) -> Result<Option<Observed>, Error> {
        let mut conn = Conn::new(self.opts.clone()).await?;
        let rows: Vec<(String, String)> = conn.query("SHOW GLOBAL STATUS").await?;
        conn.disconnect().await?;
        let numbers = rows.into_iter().filter_map(|(name, value)| Some((name, value.parse().ok()?)));
        Ok(Observed::from_variables(numbers))
    }
}

impl Session {
    pub(super) async fn load(&mut self, rows: &[Row]) -> Result<(), Failure> {
        let mut statement = String::from("INSERT INTO usertable (id, v) VALUES ");
        for (n, (key, value)) in rows.iter().enumerate() {
            let separator = if n == 0 { "" } else { "," };
            // Writing to a String cannot fail.
            let _ = write!(statement, "{separator}({key},x'");
            for byte in value {
                let _ = write!(statement, "{byte:02x}");
            }
            statement.push_str("')");
        }
        Ok(self.conn.query_drop(statement).await?)
    }

    pub(super) async fn read(&mut self, key: u64) -> Result<Option<Bytes>, Failure> {
        let value: Option<Vec<u8>> = self.conn.exec_first(&self.read, (key,)).await?;
        Ok(value.map(Bytes::from))
    }

    pub(super) async fn update(&mut self, key: u64, value: Bytes) -> Result<(), Failure> {
        Ok(self.conn.exec_drop(&self.update, (Value::Bytes(value.into()), key)).await?)
    }

    pub(super) async fn insert(&mut self, key: u64, value: Bytes) -> Result<(), Failure> {
        Ok(self.conn.exec_drop(&self.insert, (key, Value::Bytes(value.into()))).await?)
    }

    pub(super) async fn scan(&mut self, start: u64, limit: usize) -> Result<Vec<Row>, Failure> {
        let rows: Vec<(u64, Vec<u8>)> = self.conn.exec(&self.scan, (start, limit as u64)).await?;
        Ok(rows.into_iter().map(|(key, value)| (key, Bytes::from(value))).collect())
    }

    pub(super) async fn transaction(&mut self, transaction: Transaction<'_>) -> Result<Committed, Failure> {
        match self.try_transaction(&transaction).await {
            // A deadlock has rolled the transaction back, a lock wait timeout has not.
            Err(Failure::Again) => {
                self.conn.query_drop("ROLLBACK").await?;
                Err(Failure::Again)
            }
            other => other,
        }
    }

    async fn try_transaction(&mut self, transaction: &Transaction<'_>) -> Result<Committed, Failure> {
        let mut committed = Committed::default();
        self.conn.query_drop("BEGIN").await?;
        for key in transaction.points {
            committed.points.push(self.read(*key).await?);
        }
        for (start, limit) in transaction.ranges {
            committed.ranges.push(self.scan(*start, *limit).await?);
        }
        for (key, value) in transaction.writes {
            self.update(*key, value.clone()).await?;
        }
        let begun = Instant::now();
        self.conn.query_drop("COMMIT").await?;
        committed.commit = begun.elapsed();
        Ok(committed)
    }
}

impl From<mysql_async::Error> for Failure {
    fn from(error: mysql_async::Error) -> Self {
        match &error {
            mysql_async::Error::Server(server) if AGAIN.contains(&server.code) => Self::Again,
            _ => Self::Fatal(Error::Mysql(Box::new(error))),
        }
    }
}
