//! Owns what databases, tables and indexes exist: durable as MVCC rows, in memory as one immutable [`State`].
//!
//! A schema change is one engine transaction: exclusive metadata locks, the catalog rows, the table's guard (rule 11)
//! and, for DROP, one `delete_range`. The new [`State`] replaces the old one when the commit has applied. `epoch` is odd
//! while that happens: a statement that reads without locks notes the epoch before it takes its snapshot and starts
//! over if the epoch moved, so that it never reads one schema's rows with another's definition.
//!
//! Other nodes change the schema too: the epoch is also odd while the catalog's rows are newer than the state, and whoever
//! waits for a settled state loads them. Counters live with the leader: another term starts them anew.

use std::{
    collections::BTreeMap,
    ops::Bound,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use holdfast::{Concurrency, Db, Keyspace, LockMode, LockWait, ScanOptions, Txn, TxnOptions};
use parking_lot::RwLock;

use self::format::{CatalogKey, StoredDatabase};
pub use self::format::{StoredIndex, StoredPart, StoredTable};
pub use self::stored::stored_column;
pub use self::table::{Column, ColumnDefault, HIDDEN_ID, Index, IndexState, Table, metadata_key};
use crate::{errmap, sql::collation::Collation, wire::result::SqlError};

mod counter;
mod format;
mod stored;
mod table;

type Result<T> = std::result::Result<T, SqlError>;

/// One database.
#[derive(Clone, Debug)]
pub struct Database {
    pub collation: Collation,
    pub tables: BTreeMap<String, Arc<Table>>,
}

/// Everything that exists at one epoch.
#[derive(Clone, Debug, Default)]
pub struct State {
    pub epoch: u64,
    pub databases: BTreeMap<String, Database>,
    next_table: u32,
}

impl State {
    /// Finds a table: 1049, 1146.
    pub fn table(&self, database: &str, name: &str) -> Result<&Arc<Table>> {
        let db = self.databases.get(database).ok_or_else(|| errmap::unknown_database(database))?;
        db.tables.get(name).ok_or_else(|| errmap::no_such_table(database, name))
    }
}

impl State {
    /// Tables that are not as they were in `before` have changed now: an older snapshot must not be read with them.
    fn note_changes(&mut self, before: &Self) {
        for (database, tables) in &mut self.databases {
            let known = before.databases.get(database);
            for (name, table) in &mut tables.tables {
                let same = known.and_then(|known| known.tables.get(name));
                let same = same.filter(|same| same.id == table.id && same.version == table.version);
                // Nobody else holds what was just loaded.
                if let Some(table) = Arc::get_mut(table) {
                    table.changed_epoch = same.map_or(self.epoch, |same| same.changed_epoch);
                }
            }
        }
    }
}

/// The catalog of one server.
pub struct Catalog {
    db: Db,
    /// Table rows and index entries of every table.
    pub rows: Keyspace,
    /// Names of metadata locks; holds no rows.
    pub locks: Keyspace,
    catalog: Keyspace,
    state: RwLock<Arc<State>>,
    epoch: AtomicU64,
    /// The last change of the catalog's rows that `state` shows.
    loaded: AtomicU64,
    /// The term in which its counters were started; 0 while another node leads.
    term: AtomicU64,
    /// The term in which what interrupted schema changes left was removed.
    cleaned: tokio::sync::Mutex<u64>,
    /// Serialises commits of schema changes.
    change: tokio::sync::Mutex<()>,
}

/// One edit of a schema change.
pub enum Edit {
    PutDatabase(String, Collation),
    DropDatabase(String),
    /// Creates the table, or replaces its definition.
    PutTable(Box<Table>),
    /// Removes the definition; the rows go only with a `DropRows`.
    RemoveTable(Arc<Table>),
    /// Deletes all keys in a range of `rows`.
    DropRows(Vec<u8>, Vec<u8>),
}

impl Catalog {
    /// Loads the catalog, creating the keyspaces at first start.
    pub async fn open(db: Db) -> Result<Self> {
        let keyspace = async |name: &str| db.keyspace(name).await.map_err(errmap::from_engine);
        let (catalog, rows, locks) =
            (keyspace("sql.catalog").await?, keyspace("sql.rows").await?, keyspace("sql.locks").await?);
        let (term, loaded) = (db.term(), catalog.last_change());
        let state = load(&db, &catalog).await?;
        let this = Self {
            db,
            loaded: AtomicU64::new(loaded),
            term: AtomicU64::new(term),
            cleaned: tokio::sync::Mutex::new(0),
            rows,
            locks,
            catalog,
            epoch: AtomicU64::new(state.epoch),
            state: RwLock::new(Arc::new(state)),
            change: tokio::sync::Mutex::new(()),
        };
        Ok(this)
    }

    pub fn db(&self) -> &Db {
        &self.db
    }

    /// Moves with every schema change; odd while one is being put in force.
    pub fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire) | u64::from(self.is_stale())
    }

    /// Another node changed the schema, or leadership moved.
    fn is_stale(&self) -> bool {
        self.catalog.last_change() > self.loaded.load(Ordering::Acquire)
            || self.db.term() != self.term.load(Ordering::Acquire)
    }

    /// Loads what another node has changed. The caller holds `change`.
    async fn refresh(&self) -> Result<()> {
        if !self.is_stale() {
            return Ok(());
        }
        // Noted before the rows are read: what comes meanwhile is loaded the next time.
        let (term, loaded) = (self.db.term(), self.catalog.last_change());
        let mut next = load(&self.db, &self.catalog).await?;
        let before = self.state();
        next.epoch = before.epoch + 2;
        next.note_changes(&before);
        let epoch = next.epoch;
        *self.state.write() = Arc::new(next);
        self.loaded.store(loaded, Ordering::Release);
        self.term.store(term, Ordering::Release);
        self.epoch.store(epoch, Ordering::Release);
        Ok(())
    }

    pub fn state(&self) -> Arc<State> {
        self.state.read().clone()
    }

    /// Waits until no schema change is being put in force, and returns what is then in force.
    pub async fn settled_state(&self) -> Result<Arc<State>> {
        let state = self.state();
        if state.epoch == self.epoch() {
            return Ok(state);
        }
        let _quiet = self.change.lock().await;
        self.refresh().await?;
        Ok(self.state())
    }

    /// Starts a schema change: takes the exclusive metadata locks, waiting for transactions that use the tables.
    pub async fn begin_change(&self, lock_keys: &[Bytes], wait: std::time::Duration) -> Result<Txn> {
        self.clean_up().await?;
        self.begin_cleaned(lock_keys, wait).await
    }

    /// Before the first schema change of a term: removes what one of an earlier leader left half done.
    pub async fn clean_up(&self) -> Result<()> {
        let term = self.db.term();
        if term == 0 {
            return Ok(());
        }
        let mut cleaned = self.cleaned.lock().await;
        if *cleaned != term {
            self.settled_state().await?;
            Box::pin(crate::exec::ddl::clean_up(self)).await?;
            *cleaned = term;
        }
        Ok(())
    }

    /// As [`Self::begin_change`], for the clean-up itself.
    pub async fn begin_cleaned(&self, lock_keys: &[Bytes], wait: std::time::Duration) -> Result<Txn> {
        let options =
            TxnOptions { concurrency: Concurrency::Pessimistic, lock_wait_timeout: wait, ..TxnOptions::default() };
        let mut txn = self.db.begin(options).map_err(errmap::from_engine)?;
        let mut keys: Vec<&Bytes> = lock_keys.iter().collect();
        keys.sort();
        keys.dedup();
        for key in keys {
            txn.lock(&self.locks, key, LockMode::Exclusive, LockWait::Timeout).await.map_err(errmap::from_engine)?;
        }
        Ok(txn)
    }

    /// Commits a schema change. `plan` sees the newest state and says what to edit; its table ids are placeholders (0)
    /// for new tables and are filled here. Returns the new state.
    pub async fn commit_change(
        &self,
        mut txn: Txn,
        plan: impl FnOnce(&State) -> Result<Vec<Edit>>,
    ) -> Result<Arc<State>> {
        let _one = self.change.lock().await;
        self.refresh().await?;
        let term = self.db.term();
        let before = self.state();
        let edits = plan(&before)?;
        let mut next = State::clone(&before);
        next.epoch = before.epoch + 2;
        for edit in edits {
            self.apply_edit(&mut txn, &mut next, edit).await?;
        }
        if next.next_table != before.next_table {
            self.put(&mut txn, &CatalogKey::NextId, Some(encode(&next.next_table)?)).await?;
        }
        self.epoch.store(before.epoch + 1, Ordering::Release);
        let committed = txn.commit().await.map_err(errmap::from_engine);
        let next = Arc::new(next);
        if committed.is_ok() {
            // In the same term nobody else has changed it; after another the rows are loaded again.
            let loaded = self.catalog.last_change();
            if self.db.term() == term {
                self.loaded.store(loaded, Ordering::Release);
            }
            *self.state.write() = next.clone();
            self.epoch.store(next.epoch, Ordering::Release);
        } else {
            self.epoch.store(before.epoch, Ordering::Release);
        }
        committed.map(|()| next)
    }

    async fn apply_edit(&self, txn: &mut Txn, next: &mut State, edit: Edit) -> Result<()> {
        match edit {
            Edit::PutDatabase(name, collation) => {
                let row = encode(&StoredDatabase { collation: collation.id() })?;
                self.put(txn, &CatalogKey::Database(name.clone()), Some(row)).await?;
                let tables = next.databases.remove(&name).map(|d| d.tables).unwrap_or_default();
                next.databases.insert(name, Database { collation, tables });
            }
            Edit::DropDatabase(name) => {
                self.put(txn, &CatalogKey::Database(name.clone()), None).await?;
                next.databases.remove(&name);
            }
            Edit::PutTable(mut table) => {
                if table.id == 0 {
                    table.id = next.next_table;
                    next.next_table += 1;
                }
                table.changed_epoch = next.epoch;
                let row = encode(&stored::store(&table).map_err(damaged)?)?;
                self.put(txn, &table_key(&table), Some(row)).await?;
                txn.set_guard(u64::from(table.id), table.version);
                if let Some(db) = next.databases.get_mut(&table.database) {
                    db.tables.insert(table.name.clone(), Arc::new(*table));
                }
            }
            Edit::RemoveTable(table) => {
                self.put(txn, &table_key(&table), None).await?;
                txn.set_guard(u64::from(table.id), table.version + 1);
                if let Some(db) = next.databases.get_mut(&table.database) {
                    db.tables.remove(&table.name);
                }
            }
            Edit::DropRows(start, end) => {
                txn.delete_range(&self.rows, start, end).map_err(errmap::from_engine)?;
            }
        }
        Ok(())
    }

    async fn put(&self, txn: &mut Txn, key: &CatalogKey, row: Option<Vec<u8>>) -> Result<()> {
        let key = key.encode();
        let keyspace = &self.catalog;
        txn.lock(keyspace, &key, LockMode::Exclusive, LockWait::Timeout).await.map_err(errmap::from_engine)?;
        match row {
            Some(row) => txn.put(keyspace, key, row),
            None => txn.delete(keyspace, key),
        }
        .map_err(errmap::from_engine)
    }

    /// CREATE TABLE ... LIKE: the same definition under a new name, with counters of its own.
    pub fn copy_definition(&self, model: &Table, database: &str, name: &str, now: i64) -> Result<Table> {
        let mut definition = stored::store(model).map_err(damaged)?;
        (definition.id, definition.version, definition.created, definition.auto_start) = (0, 1, now, 0);
        definition.indexes.iter_mut().for_each(|i| i.building = false);
        new_table(database, name, &definition)
    }

    /// A changed copy of a table: same id and counters, next version. `change` edits the stored form.
    pub fn altered(&self, table: &Table, change: impl FnOnce(&mut Altered)) -> Result<Table> {
        let mut altered = Altered {
            database: table.database.clone(),
            name: table.name.clone(),
            table: stored::store(table).map_err(damaged)?,
        };
        altered.table.version += 1;
        change(&mut altered);
        stored::build(&altered.database, &altered.name, &altered.table, table.counters.clone()).map_err(damaged)
    }
}

/// A new table: its id is given when the change commits.
pub fn new_table(database: &str, name: &str, definition: &StoredTable) -> Result<Table> {
    stored::build(database, name, definition, Arc::default()).map_err(damaged)
}

/// The parts of a definition that [`Catalog::altered`] may change.
pub struct Altered {
    pub database: String,
    pub name: String,
    pub table: StoredTable,
}

fn table_key(table: &Table) -> CatalogKey {
    CatalogKey::Table { database: table.database.clone(), name: table.name.clone() }
}

fn encode<T: serde::Serialize>(value: &T) -> Result<Vec<u8>> {
    format::encode(value).map_err(damaged)
}

fn damaged(why: String) -> SqlError {
    errmap::error(1033, format!("Incorrect information in the catalog: {why}"))
}

async fn load(db: &Db, catalog: &Keyspace) -> Result<State> {
    let options = ScanOptions { start: Bound::Unbounded, end: Bound::Unbounded, reverse: false, limit_hint: 0 };
    let mut scan = db.scan(catalog, options).map_err(errmap::from_engine)?;
    let mut state = State { epoch: 0, databases: BTreeMap::new(), next_table: 1 };
    while let Some(row) = scan.next().await.map_err(errmap::from_engine)? {
        let named = |why: String| damaged(format!("{why} (key {:?})", String::from_utf8_lossy(&row.key)));
        match CatalogKey::decode(&row.key).ok_or_else(|| named("unknown key".to_owned()))? {
            CatalogKey::Database(name) => {
                let stored: StoredDatabase = format::decode(&row.value).map_err(named)?;
                let collation =
                    Collation::from_id(stored.collation).ok_or_else(|| named("unknown collation".into()))?;
                state.databases.insert(name, Database { collation, tables: BTreeMap::new() });
            }
            CatalogKey::Table { database, name } => {
                let stored: StoredTable = format::decode(&row.value).map_err(named)?;
                let table = stored::build(&database, &name, &stored, Arc::default()).map_err(named)?;
                let db = state.databases.get_mut(&database).ok_or_else(|| named("table without database".into()))?;
                db.tables.insert(name, Arc::new(table));
            }
            CatalogKey::NextId => state.next_table = format::decode(&row.value).map_err(named)?,
        }
    }
    Ok(state)
}
