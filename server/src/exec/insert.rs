//! Runs INSERT and REPLACE: values, AUTO_INCREMENT, duplicates.

use std::ops::Bound;

use bytes::Bytes;
use holdfast::{ScanOptions, Txn};

use super::{
    assign::{column_value, default_value, now},
    write::{Duplicate, StoredRow, Target},
};
use crate::{
    catalog::{Catalog, Table},
    errmap::{self, error},
    row::ZoneOffset,
    session::state::{Level, State},
    sql::{
        context::{Context, SessionInfo},
        plan::{InsertPlan, NewValue},
        value::Value,
    },
    wire::result::SqlError,
};

type Result<T> = std::result::Result<T, SqlError>;

/// How a changing statement ended.
#[derive(Clone, Debug, Default)]
pub struct Changed {
    pub affected: u64,
    pub last_insert_id: u64,
    pub info: String,
}

/// One running INSERT.
struct Insert<'a> {
    plan: &'a InsertPlan,
    target: Target<'a>,
    state: &'a State,
    cx: &'a Context<'a>,
    /// Next value and increment of a block of AUTO_INCREMENT values taken for all rows.
    block: Option<(u64, u64)>,
    first_generated: Option<u64>,
    explicit: u64,
    duplicates: u64,
    affected: u64,
}

/// Runs the plan; nothing is committed here.
pub async fn run(plan: &InsertPlan, state: &State, cx: &Context<'_>, txn: &mut Txn) -> Result<Changed> {
    let catalog = &state.shared.catalog;
    let table = &*plan.table;
    start_counters(catalog, table, txn).await?;
    let zone = ZoneOffset(cx.zone_offset_seconds);
    let target = Target { rows: &catalog.rows, table, zone };
    let mut insert =
        Insert { plan, target, state, cx, block: None, first_generated: None, explicit: 0, duplicates: 0, affected: 0 };
    insert.take_block()?;
    let mut values = Vec::with_capacity(table.columns.len());
    for (i, row) in plan.rows.iter().enumerate() {
        insert.fill(row, i as u64 + 1, &mut values)?;
        insert.put(txn, &values).await?;
        if i % 256 == 255 {
            state.check_killed()?;
        }
    }
    Ok(insert.done(plan.rows.len()))
}

impl Insert<'_> {
    /// Takes consecutive values for all rows if every row leaves the AUTO_INCREMENT column out.
    fn take_block(&mut self) -> Result<()> {
        let table = self.target.table;
        let Some(auto) = table.auto_increment else { return Ok(()) };
        if self.plan.columns.contains(&auto) || self.plan.rows.is_empty() {
            return Ok(());
        }
        let first = self.take_auto(auto, self.plan.rows.len() as u64)?;
        let step = self.state.settings().auto_increment.max(1);
        self.block = Some((first, step));
        Ok(())
    }

    fn take_auto(&self, auto: usize, count: u64) -> Result<u64> {
        let (table, settings) = (self.target.table, self.state.settings());
        let max = table.columns[auto].ty.integer_range().1;
        let max = u64::try_from(max).unwrap_or(u64::MAX);
        let first = table.counters.take_auto(count, settings.auto_increment, settings.auto_offset, max);
        first.ok_or_else(|| error(1467, "Failed to read auto-increment value from storage engine"))
    }

    /// Builds one row's values.
    fn fill(&mut self, row: &[NewValue], number: u64, values: &mut Vec<Value>) -> Result<()> {
        let table = self.target.table;
        values.clear();
        values.resize(table.columns.len(), Value::Null);
        for (column, new) in self.plan.columns.iter().zip(row) {
            let definition = &table.columns[*column];
            values[*column] = if definition.auto_increment {
                self.auto_value(new, *column, values, number)?
            } else {
                column_value(new, definition, values, number, self.cx)?
            };
        }
        for (i, definition) in table.columns.iter().enumerate() {
            if self.plan.columns.contains(&i) {
                continue;
            }
            values[i] = if definition.auto_increment { self.generate(i)? } else { default_value(definition, self.cx)? };
        }
        Ok(())
    }

    /// A listed AUTO_INCREMENT column: NULL, DEFAULT and (by default) 0 ask for a generated value.
    fn auto_value(&mut self, new: &NewValue, column: usize, slots: &[Value], number: u64) -> Result<Value> {
        let definition = &self.target.table.columns[column];
        let NewValue::Expr(e) = new else { return self.generate(column) };
        let value = e.eval(slots, self.cx)?;
        if value.is_null() {
            return self.generate(column);
        }
        let value = super::assign::stored(&value, &e.ty, definition, number, self.cx)?;
        let n = match value {
            Value::Int(n) => u64::try_from(n).ok(),
            Value::UInt(n) => Some(n),
            _ => None,
        };
        if n == Some(0) && !self.cx.mode.no_auto_value_on_zero {
            return self.generate(column);
        }
        if let Some(n) = n {
            self.explicit = n;
            self.target.table.counters.raise_auto(n.saturating_add(1));
        }
        Ok(value)
    }

    fn generate(&mut self, column: usize) -> Result<Value> {
        let n = match &mut self.block {
            Some((next, step)) => {
                let n = *next;
                *next += *step;
                n
            }
            None => self.take_auto(column, 1)?,
        };
        self.first_generated.get_or_insert(n);
        Ok(match self.target.table.columns[column].ty.unsigned {
            true => Value::UInt(n),
            false => Value::Int(n as i64),
        })
    }

    /// Stores one row, or does what the statement says about a duplicate.
    async fn put(&mut self, txn: &mut Txn, values: &[Value]) -> Result<()> {
        let table = self.target.table;
        let row_id = if table.has_primary() { 0 } else { table.counters.take_row() };
        loop {
            let Err(duplicate) = self.target.insert(txn, values, row_id).await? else {
                self.affected += 1;
                return Ok(());
            };
            self.duplicates += 1;
            if self.plan.replace {
                self.remove_standing(txn, &duplicate).await?;
                self.affected += 1;
                continue;
            }
            if !self.plan.on_duplicate.is_empty() {
                return self.update_standing(txn, &duplicate, values).await;
            }
            if self.plan.ignore {
                let e = duplicate.into_error(table);
                self.state.diagnose(Level::Warning, e.code, e.message);
                return Ok(());
            }
            return Err(duplicate.into_error(table));
        }
    }

    async fn standing(&self, txn: &mut Txn, key: &Bytes) -> Result<Option<StoredRow>> {
        let row = txn.get_for_update(self.target.rows, key).await.map_err(errmap::from_engine)?;
        row.map(|row| Ok(StoredRow { key: key.clone(), values: self.target.decode(&row)? })).transpose()
    }

    async fn remove_standing(&self, txn: &mut Txn, duplicate: &Duplicate) -> Result<()> {
        match self.standing(txn, &duplicate.key).await? {
            Some(row) => self.target.delete(txn, &row).await,
            None => Err(orphan(self.target.table, duplicate)),
        }
    }

    /// ON DUPLICATE KEY UPDATE: 2 if the row changed, 0 if not (1 for clients that count found rows).
    async fn update_standing(&mut self, txn: &mut Txn, duplicate: &Duplicate, new: &[Value]) -> Result<()> {
        let table = self.target.table;
        let Some(old) = self.standing(txn, &duplicate.key).await? else { return Err(orphan(table, duplicate)) };
        let width = table.columns.len();
        let mut slots = old.values.clone();
        slots.extend_from_slice(new);
        for (column, value) in &self.plan.on_duplicate {
            slots[*column] = column_value(value, &table.columns[*column], &slots, 1, self.cx)?;
        }
        slots.truncate(width);
        if slots == old.values {
            self.affected += u64::from(self.state.login.found_rows);
            return Ok(());
        }
        touch(table, &mut slots, &self.plan.on_duplicate, self.cx);
        match self.target.update(txn, &old, &slots).await? {
            Ok(()) => self.affected += 2,
            Err(other) if self.plan.ignore => {
                let e = other.into_error(table);
                self.state.diagnose(Level::Warning, e.code, e.message);
            }
            Err(other) => return Err(other.into_error(table)),
        }
        // LAST_INSERT_ID() of the updated row, as MySQL reports it.
        if let Some(auto) = table.auto_increment
            && let Value::Int(n) = slots[auto]
        {
            self.explicit = n.max(0) as u64;
        }
        Ok(())
    }

    fn done(self, rows: usize) -> Changed {
        if let Some(first) = self.first_generated {
            self.state.set_last_insert_id(first);
        }
        let info = match rows {
            0 | 1 => String::new(),
            n => format!("Records: {n}  Duplicates: {}  Warnings: {}", self.duplicates, self.state.warning_count()),
        };
        Changed { affected: self.affected, last_insert_id: self.first_generated.unwrap_or(self.explicit), info }
    }
}

/// Sets ON UPDATE CURRENT_TIMESTAMP columns of a changed row that the statement did not assign.
pub fn touch(table: &Table, values: &mut [Value], assigned: &[(usize, NewValue)], cx: &Context<'_>) {
    for (i, column) in table.columns.iter().enumerate() {
        if column.on_update_now && !assigned.iter().any(|(c, _)| *c == i) {
            values[i] = now(&column.ty, cx);
        }
    }
}

fn orphan(table: &Table, duplicate: &Duplicate) -> SqlError {
    error(
        1034,
        format!("Incorrect key file for table '{}': key '{}' names a row that is gone", table.name, duplicate.index),
    )
}

/// Starts the table's counters from the largest stored values.
pub async fn start_counters(catalog: &Catalog, table: &Table, txn: &mut Txn) -> Result<()> {
    if let Some(auto) = table.auto_increment
        && !table.counters.auto_started()
    {
        let index = table.all_indexes().find(|i| i.parts.first().is_some_and(|p| p.column == auto));
        let prefix = table.index_prefix(index.map_or(0, |i| i.id));
        let mut largest = 0;
        if let (Some(key), Some(index)) = (last_key(catalog, prefix, txn).await?, index) {
            let mut rest = key.get(crate::key::ID_LEN..).unwrap_or_default();
            let value = index.parts[0].decode(&mut rest, ZoneOffset(0));
            largest = match value.map_err(|e| errmap::from_format(&table.name, &e))? {
                Value::Int(n) => u64::try_from(n).unwrap_or(0),
                Value::UInt(n) => n,
                _ => 0,
            };
        }
        table.counters.raise_auto(largest.saturating_add(1).max(table.auto_start));
    }
    if !table.has_primary() && !table.counters.row_started() {
        let key = last_key(catalog, table.index_prefix(0), txn).await?;
        let id = key.and_then(|k| k.get(crate::key::ID_LEN..)?.try_into().ok()).map_or(0, u64::from_be_bytes);
        table.counters.raise_row(id + 1);
    }
    Ok(())
}

async fn last_key(catalog: &Catalog, prefix: Vec<u8>, txn: &mut Txn) -> Result<Option<Bytes>> {
    let end = crate::key::prefix_end(&prefix).map_or(Bound::Unbounded, |end| Bound::Excluded(end.into()));
    let options = ScanOptions { start: Bound::Included(prefix.into()), end, reverse: true, limit_hint: 1 };
    let mut scan = txn.scan_current(&catalog.rows, options).map_err(errmap::from_engine)?;
    Ok(scan.next().await.map_err(errmap::from_engine)?.map(|row| row.key))
}
