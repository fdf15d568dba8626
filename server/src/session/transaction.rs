//! Owns the session's transaction: begin, statement savepoints, SQL savepoints, metadata locks, commit and rollback.

use std::time::Duration;

use holdfast::{Concurrency, Db, LockMode, LockWait, Savepoint, Snapshot, Txn, TxnOptions};

use super::state::Settings;
use crate::{
    catalog::{Catalog, Table},
    errmap::{self, error},
    exec::read::View,
    sql::ast::Isolation,
    wire::result::SqlError,
};

type Result<T> = std::result::Result<T, SqlError>;

/// `SET TRANSACTION` without a scope: for the next transaction only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NextTransaction {
    /// ISOLATION LEVEL.
    pub isolation: Option<Isolation>,
    /// READ ONLY or READ WRITE.
    pub read_only: Option<bool>,
}

/// A running transaction.
pub struct Active {
    pub txn: Txn,
    pub read_only: bool,
    isolation: Isolation,
    /// False: begun by an autocommit statement and ended with it.
    explicit: bool,
    savepoints: Vec<(String, Savepoint)>,
    /// Tables whose metadata lock is held, with the version that it protects.
    tables: Vec<(u32, u64)>,
    /// Start of the running statement.
    statement: Option<Savepoint>,
    /// Catalog epoch when the consistent snapshot was taken, if it was.
    snapshot_epoch: Option<u64>,
}

/// The session's transaction, if any.
#[derive(Default)]
pub struct Transactions {
    active: Option<Active>,
    pub next: NextTransaction,
    /// The id of the next transaction that commits writes (`holdfast_transaction_id`).
    pub name: Option<u128>,
}

impl Transactions {
    /// Inside BEGIN ... COMMIT, or with autocommit off and something touched.
    pub fn is_open(&self) -> bool {
        self.active.as_ref().is_some_and(|a| a.explicit)
    }

    /// Whether the next consistent read takes a snapshot.
    pub fn reads_anew(&self) -> bool {
        self.active.as_ref().is_none_or(|a| a.snapshot_epoch.is_none() || reads_committed(a.isolation))
    }

    pub fn is_read_only(&self) -> bool {
        self.active.as_ref().is_some_and(|a| a.explicit && a.read_only)
    }

    /// BEGIN, after the old transaction is gone.
    pub fn begin(&mut self, db: &Db, settings: &Settings, read_only: Option<bool>) -> Result<&mut Active> {
        self.start(db, settings, read_only, true)
    }

    fn start(&mut self, db: &Db, settings: &Settings, read_only: Option<bool>, explicit: bool) -> Result<&mut Active> {
        let next = if explicit { std::mem::take(&mut self.next) } else { self.next };
        let isolation = next.isolation.unwrap_or(settings.isolation);
        if isolation == Isolation::Serializable {
            return Err(errmap::unsupported("transaction isolation level SERIALIZABLE"));
        }
        let txn = db.begin(options(settings.lock_wait)).map_err(errmap::from_engine)?;
        Ok(self.active.insert(Active {
            txn,
            read_only: read_only.or(next.read_only).unwrap_or(settings.read_only),
            isolation,
            explicit,
            savepoints: Vec::new(),
            tables: Vec::new(),
            statement: None,
            snapshot_epoch: None,
        }))
    }

    /// The transaction that a writing or locking statement runs in; one is begun if there is none. In an explicit
    /// transaction the statement can be undone alone.
    pub fn for_statement(&mut self, db: &Db, settings: &Settings, writes: bool) -> Result<&mut Active> {
        if self.active.is_none() {
            self.start(db, settings, None, !settings.autocommit)?;
        }
        let Some(active) = self.active.as_mut() else { return Err(error(1105, "no transaction")) };
        if writes && active.read_only {
            return Err(error(1792, "Cannot execute statement in a READ ONLY transaction."));
        }
        if active.explicit && writes {
            active.statement = Some(active.txn.savepoint());
        }
        if reads_committed(active.isolation) {
            active.txn.refresh_snapshot();
            active.snapshot_epoch = None;
        }
        Ok(active)
    }

    /// Whether a plain SELECT must read through the transaction.
    pub fn reads_inside(&self, settings: &Settings) -> bool {
        self.active.is_some() || !settings.autocommit
    }

    /// Ends a statement: commits an autocommit one; waits for what current reads saw before the client hears of it.
    pub async fn end_statement(&mut self, outcome: Result<()>) -> Result<()> {
        let Some(active) = self.active.as_mut() else { return outcome };
        let statement = active.statement.take();
        match outcome {
            Ok(()) if active.explicit => active.txn.settle().await.map_err(errmap::from_engine),
            Ok(()) => self.commit().await,
            Err(e) => {
                // 1213 and a dead engine take the whole transaction with them; other errors only the statement.
                if !active.explicit || e.code == 1213 || e.fatal {
                    self.rollback();
                } else if let Some(savepoint) = statement {
                    active.txn.rollback_to(savepoint);
                }
                Err(e)
            }
        }
    }

    /// COMMIT; nothing if there is no transaction.
    pub async fn commit(&mut self) -> Result<()> {
        let Some(mut active) = self.active.take() else { return Ok(()) };
        if active.txn.has_writes() {
            for (table, version) in &active.tables {
                active.txn.check_guard(u64::from(*table), *version);
            }
            if let Some(id) = self.name.take() {
                active.txn.set_id(id);
            }
            active.txn.commit().await.map_err(errmap::from_engine)
        } else {
            let settled = active.txn.settle().await.map_err(errmap::from_engine);
            active.txn.rollback();
            settled
        }
    }

    pub fn rollback(&mut self) {
        self.name = None;
        if let Some(active) = self.active.take() {
            active.txn.rollback();
        }
    }

    /// Undoes a statement that was cut off (KILL QUERY) before it ended.
    pub fn abandon_statement(&mut self) {
        if let Some(active) = self.active.as_mut() {
            match active.statement.take() {
                _ if !active.explicit => self.rollback(),
                Some(savepoint) => active.txn.rollback_to(savepoint),
                None => {}
            }
        }
    }

    pub fn savepoint(&mut self, name: &str) {
        if let Some(active) = self.active.as_mut() {
            active.savepoints.retain(|(n, _)| !n.eq_ignore_ascii_case(name));
            let at = active.txn.savepoint();
            active.savepoints.push((name.to_owned(), at));
        }
    }

    pub fn rollback_to(&mut self, name: &str) -> Result<()> {
        let active = self.active.as_mut();
        let found = active.and_then(|a| find(&a.savepoints, name).map(|at| (a, at)));
        let Some((active, at)) = found else { return Err(no_savepoint(name)) };
        active.savepoints.truncate(at + 1);
        let savepoint = active.savepoints[at].1;
        active.txn.rollback_to(savepoint);
        Ok(())
    }

    pub fn release(&mut self, name: &str) -> Result<()> {
        let active = self.active.as_mut();
        let found = active.and_then(|a| find(&a.savepoints, name).map(|at| (a, at)));
        let Some((active, at)) = found else { return Err(no_savepoint(name)) };
        active.savepoints.truncate(at);
        Ok(())
    }
}

impl Active {
    /// Registers a table that the statement uses. An explicit transaction holds its metadata lock to the end; an
    /// autocommit statement only has its guard checked at commit (rule 11).
    pub async fn use_table(&mut self, catalog: &Catalog, table: &Table) -> Result<()> {
        if self.tables.iter().any(|(id, version)| *id == table.id && *version == table.version) {
            return Ok(());
        }
        // A follower's transactions only read, and its snapshot knows which definition it needs.
        if self.explicit && catalog.db().term() != 0 {
            let lock = self.txn.lock(&catalog.locks, &table.lock_key, LockMode::Shared, LockWait::Timeout);
            lock.await.map_err(errmap::from_engine)?;
        }
        self.tables.push((table.id, table.version));
        Ok(())
    }

    /// Forgets a table version that turned out to be stale before anything was done with it.
    pub fn forget_table(&mut self, table: &Table) {
        self.tables.retain(|(id, version)| *id != table.id || *version != table.version);
    }

    /// A consistent read view. 1412 if the table's definition is newer than the transaction's snapshot.
    pub fn consistent(&mut self, catalog: &Catalog, changed_at: u64) -> Result<View<'_>> {
        let changed = || error(1412, "Table definition has changed, please retry transaction");
        let epoch = match self.snapshot_epoch {
            Some(epoch) => epoch,
            None => {
                let epoch = catalog.epoch();
                self.txn.take_snapshot();
                // On a follower no lock keeps a schema change out.
                if catalog.epoch() != epoch {
                    self.txn.refresh_snapshot();
                    return Err(changed());
                }
                *self.snapshot_epoch.insert(epoch)
            }
        };
        if changed_at > epoch { Err(changed()) } else { Ok(View::Consistent(&mut self.txn)) }
    }
}

fn options(lock_wait: Duration) -> TxnOptions {
    TxnOptions { concurrency: Concurrency::Pessimistic, lock_wait_timeout: lock_wait, ..TxnOptions::default() }
}

/// READ UNCOMMITTED is given READ COMMITTED, which it allows.
fn reads_committed(isolation: Isolation) -> bool {
    matches!(isolation, Isolation::ReadUncommitted | Isolation::ReadCommitted)
}

fn find(savepoints: &[(String, Savepoint)], name: &str) -> Option<usize> {
    savepoints.iter().position(|(n, _)| n.eq_ignore_ascii_case(name))
}

fn no_savepoint(name: &str) -> SqlError {
    error(1305, format!("SAVEPOINT {name} does not exist"))
}

/// A snapshot taken while the catalog stood at `epoch`; `None` if a schema change came between.
pub fn snapshot_at(catalog: &Catalog, epoch: u64) -> Result<Option<Snapshot>> {
    if catalog.epoch() != epoch {
        return Ok(None);
    }
    let snapshot = catalog.db().snapshot().map_err(errmap::from_engine)?;
    Ok((catalog.epoch() == epoch).then_some(snapshot))
}
