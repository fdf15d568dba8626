//! Builds and removes secondary indexes while statements run.
//!
//! An index is first put in force as *building*: from then on every statement writes its entries. The rows that were
//! there before are added in transactions of a bounded size, each row locked while its entry is made. Then the index is
//! made public. A crash in between leaves a building index, which is removed at the next start.

use std::{ops::Bound, time::Duration};

use bytes::Bytes;
use holdfast::{Concurrency, KeyValue, LockMode, LockWait, ScanOptions, TxnOptions};

use super::super::write::{StoredRow, Target};
use crate::{
    catalog::{Catalog, Edit, IndexState, StoredIndex, Table, metadata_key},
    errmap, key,
    row::ZoneOffset,
    session::state::State,
    wire::result::SqlError,
};

type Result<T> = std::result::Result<T, SqlError>;

/// Rows added in one transaction: small enough that neither its locks nor its writes come near their bounds.
const CHUNK_ROWS: usize = 2000;

/// Adds an index to a table that may hold rows. `index.building` must be set.
pub async fn add(database: &str, name: &str, index: StoredIndex, state: &State) -> Result<()> {
    let catalog = &state.shared.catalog;
    let wait = state.settings().metadata_wait;
    let index_name = index.name.clone();
    let txn = catalog.begin_change(&[metadata_key(database, name)], wait).await?;
    let put = |s: &crate::catalog::State| {
        let table = s.table(database, name)?;
        let next = catalog.altered(table, |t| {
            t.table.next_index = index.id + 1;
            t.table.indexes.push(index);
        })?;
        Ok(vec![Edit::PutTable(Box::new(next))])
    };
    let next = catalog.commit_change(txn, put).await?;
    let table = next.table(database, name)?;
    match fill(table, &index_name, state).await {
        Ok(()) => publish(catalog, database, name, &index_name, wait).await,
        Err(e) => {
            // The original error is the one to report; a failed removal is repeated at the next start.
            let _ = remove(catalog, database, name, &index_name, wait).await;
            Err(e)
        }
    }
}

/// Adds the entries of all rows, chunk by chunk in primary key order.
async fn fill(table: &Table, name: &str, state: &State) -> Result<()> {
    let catalog = &state.shared.catalog;
    let Some(index) = table.indexes.iter().find(|i| i.name == name) else { return Ok(()) };
    let prefix = table.index_prefix(0);
    let end = key::prefix_end(&prefix).map_or(Bound::Unbounded, |e| Bound::Excluded(Bytes::from(e)));
    let mut start = Bound::Included(Bytes::from(prefix));
    loop {
        state.check_killed()?;
        let options = TxnOptions {
            concurrency: Concurrency::Pessimistic,
            lock_wait_timeout: state.settings().lock_wait,
            ..TxnOptions::default()
        };
        let mut txn = catalog.db().begin(options).map_err(errmap::from_engine)?;
        let scan = ScanOptions { start: start.clone(), end: end.clone(), reverse: false, limit_hint: CHUNK_ROWS };
        let mut scan = txn.scan_current(&catalog.rows, scan).map_err(errmap::from_engine)?;
        let mut rows: Vec<KeyValue> = Vec::with_capacity(CHUNK_ROWS);
        while rows.len() < CHUNK_ROWS {
            let want = CHUNK_ROWS - rows.len();
            if scan.next_batch(&mut rows, want).await.map_err(errmap::from_engine)? == 0 {
                break;
            }
        }
        let Some(last) = rows.last() else { return Ok(()) };
        start = Bound::Excluded(last.key.clone());
        let target = Target { rows: &catalog.rows, table, zone: ZoneOffset(0) };
        for row in rows {
            let lock = txn.lock(&catalog.rows, &row.key, LockMode::Shared, LockWait::Timeout);
            lock.await.map_err(errmap::from_engine)?;
            let current = txn.get_current(&catalog.rows, &row.key).await.map_err(errmap::from_engine)?;
            let Some(current) = current else { continue };
            let row = StoredRow { key: row.key, values: target.decode(&current)? };
            if let Err(duplicate) = target.backfill(&mut txn, index, &row).await? {
                return Err(duplicate.into_error(table));
            }
        }
        txn.check_guard(u64::from(table.id), table.version);
        txn.commit().await.map_err(errmap::from_engine)?;
    }
}

async fn publish(catalog: &Catalog, database: &str, name: &str, index: &str, wait: Duration) -> Result<()> {
    let txn = catalog.begin_change(&[metadata_key(database, name)], wait).await?;
    let put = |s: &crate::catalog::State| {
        let table = s.table(database, name)?;
        let columns = table.columns.clone();
        if !table.indexes.iter().any(|i| i.name == index) {
            // A change of leader in between has undone it.
            return Err(errmap::error(1412, "Table definition has changed, please retry transaction"));
        }
        let next = catalog.altered(table, |t| {
            for i in t.table.indexes.iter_mut().filter(|i| i.name == index) {
                i.building = false;
            }
            super::create::sort_indexes(&mut t.table.indexes, &columns);
        })?;
        Ok(vec![Edit::PutTable(Box::new(next))])
    };
    catalog.commit_change(txn, put).await.map(|_| ())
}

/// Removes an index and all its entries.
pub async fn remove(catalog: &Catalog, database: &str, name: &str, index: &str, wait: Duration) -> Result<()> {
    let txn = catalog.begin_cleaned(&[metadata_key(database, name)], wait).await?;
    let put = |s: &crate::catalog::State| {
        let table = s.table(database, name)?;
        let Some(found) = table.indexes.iter().find(|i| i.name.eq_ignore_ascii_case(index)) else {
            return Err(errmap::error(1091, format!("Can't DROP '{index}'; check that column/key exists")));
        };
        let start = table.index_prefix(found.id);
        let end = key::prefix_end(&start).unwrap_or_else(|| table.key_range().1);
        let id = found.id;
        let next = catalog.altered(table, |t| t.table.indexes.retain(|i| i.id != id))?;
        Ok(vec![Edit::DropRows(start, end), Edit::PutTable(Box::new(next))])
    };
    catalog.commit_change(txn, put).await.map(|_| ())
}

/// Whether an index is still being built.
pub fn is_building(table: &Table) -> bool {
    table.indexes.iter().any(|i| i.state == IndexState::Building)
}
