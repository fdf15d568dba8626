//! Owns current reads for FOR UPDATE, UPDATE and DELETE: find candidate rows, lock each, read it again, test it again.
//!
//! A row is locked only if its newest version passes the condition, so rows that a statement merely passes over stay free.

use holdfast::{KeyValue, LockMode, LockWait as EngineWait, Txn};

use super::{
    read::{Cursor, Reader, View},
    select::{Opened, open, passes},
    write::{StoredRow, Target},
};
use crate::{
    catalog::Catalog,
    errmap,
    sql::{
        ast::{LockWait, RowLock},
        context::Context,
        expr::Expr,
        plan::TableSource,
        value::Value,
    },
    wire::result::SqlError,
};

type Result<T> = std::result::Result<T, SqlError>;

/// What UPDATE and DELETE lock with.
pub const FOR_CHANGE: RowLock = RowLock { exclusive: true, wait: LockWait::Wait };

/// The rows of a table source, locked, one by one.
pub struct LockedRows<'p> {
    source: &'p TableSource,
    catalog: &'p Catalog,
    reader: Reader<'p>,
    cursor: Cursor,
    filter: Option<&'p Expr>,
    lock: RowLock,
    batch: Vec<KeyValue>,
    at: usize,
    slots: Vec<Value>,
}

impl<'p> LockedRows<'p> {
    pub fn open(source: &'p TableSource, catalog: &'p Catalog, cx: &Context<'_>, lock: RowLock) -> Result<Self> {
        let Opened { reader, cursor, filter } = open(source, cx, 0)?;
        let slots = vec![Value::Null; source.table.columns.len()];
        Ok(Self { source, catalog, reader, cursor, filter, lock, batch: Vec::new(), at: 0, slots })
    }

    /// The next row that passes, locked and with every column decoded.
    pub async fn next(&mut self, txn: &mut Txn, cx: &Context<'_>) -> Result<Option<StoredRow>> {
        loop {
            if self.at == self.batch.len() {
                if self.source.access.index.is_none()
                    && let Some(key) = self.cursor.take_point()
                {
                    match self.read_locked(txn, key, cx).await? {
                        Some(row) => return Ok(Some(row)),
                        None => continue,
                    }
                }
                self.batch.clear();
                self.at = 0;
                let mut view = View::Current(txn);
                if !self.cursor.fill(&mut view, &self.catalog.rows, &mut self.batch).await? {
                    return Ok(None);
                }
            }
            let entry = self.batch[self.at].clone();
            self.at += 1;
            let key = self.reader.primary_key(&entry)?;
            if !self.reader.needs_lookup() && self.filter.is_some() {
                self.reader.load(&entry.value, &self.source.filter_columns, &mut self.slots)?;
                if !passes(self.filter, &self.slots, cx)? {
                    continue;
                }
            }
            if let Some(row) = self.read_locked(txn, key, cx).await? {
                return Ok(Some(row));
            }
        }
    }

    async fn read_locked(&mut self, txn: &mut Txn, key: bytes::Bytes, cx: &Context<'_>) -> Result<Option<StoredRow>> {
        let rows = &self.catalog.rows;
        let found = if self.lock == FOR_CHANGE {
            txn.get_for_update(rows, &key).await.map_err(errmap::from_engine)?
        } else {
            let mode = if self.lock.exclusive { LockMode::Exclusive } else { LockMode::Shared };
            let wait = if self.lock.wait == LockWait::Wait { EngineWait::Timeout } else { EngineWait::NoWait };
            match txn.lock(rows, &key, mode, wait).await {
                Err(holdfast::Error::WouldBlock) if self.lock.wait == LockWait::SkipLocked => return Ok(None),
                other => other.map_err(errmap::from_engine)?,
            }
            txn.get_current(rows, &key).await.map_err(errmap::from_engine)?
        };
        let Some(found) = found else { return Ok(None) };
        let target = Target { rows, table: &self.source.table, zone: self.reader.zone };
        let values = target.decode(&found)?;
        // The ranges came from an index entry that may be stale by now: test everything again.
        let filter = if self.reader.index.is_some() { self.source.filter.as_ref() } else { self.filter };
        Ok(passes(filter, &values, cx)?.then_some(StoredRow { key, values }))
    }
}
