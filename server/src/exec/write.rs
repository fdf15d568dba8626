//! Owns how one row and its index entries change: the locks, the unique checks and the engine writes, in that order.

use bytes::Bytes;
use holdfast::{Keyspace, LockMode, LockWait, Txn};

use crate::{
    catalog::{HIDDEN_ID, Index, Table},
    errmap,
    key::{self, KeyPart},
    row::ZoneOffset,
    sql::value::Value,
    wire::result::SqlError,
};

type Result<T> = std::result::Result<T, SqlError>;

/// A row that stands in the way of an insert or update.
#[derive(Clone, Debug)]
pub struct Duplicate {
    /// Name of the violated key.
    pub index: String,
    /// Primary key entry of the standing row.
    pub key: Bytes,
    /// The values of the violated key, joined by `-`.
    pub entry: String,
}

impl Duplicate {
    pub fn into_error(self, table: &Table) -> SqlError {
        errmap::duplicate(&self.entry, &table.name, &self.index)
    }
}

/// Where rows of one table are written.
#[derive(Clone, Copy)]
pub struct Target<'a> {
    pub rows: &'a Keyspace,
    pub table: &'a Table,
    pub zone: ZoneOffset,
}

/// A stored row and its decoded columns.
#[derive(Clone, Debug)]
pub struct StoredRow {
    /// Primary key entry.
    pub key: Bytes,
    pub values: Vec<Value>,
}

impl Target<'_> {
    fn bad(&self, e: &crate::row::FormatError) -> SqlError {
        errmap::from_format(&self.table.name, e)
    }

    /// Decodes every column of a stored row.
    pub fn decode(&self, row: &Bytes) -> Result<Vec<Value>> {
        let row = self.table.layout.read(row).map_err(|e| self.bad(&e))?;
        (0..self.table.columns.len())
            .map(|c| row.get(c, self.zone))
            .collect::<std::result::Result<_, _>>()
            .map_err(|e| self.bad(&e))
    }

    /// The primary key entry of these values; `row_id` for tables without a primary key.
    pub fn primary_key(&self, values: &[Value], row_id: u64) -> Result<Vec<u8>> {
        let mut out = self.table.index_prefix(0);
        for part in &self.table.primary.parts {
            let hidden = Value::UInt(row_id);
            let value = if part.column == HIDDEN_ID { &hidden } else { &values[part.column] };
            part.encode(value, self.zone, &mut out).map_err(|e| self.bad(&e))?;
        }
        check_length(&out)?;
        Ok(out)
    }

    /// An index's entry for a row: key, and value (the primary key columns if the key alone names the row).
    pub fn entry(&self, index: &Index, values: &[Value], primary: &[u8]) -> Result<(Vec<u8>, Bytes)> {
        let mut out = self.table.index_prefix(index.id);
        for part in &index.parts {
            part.encode(&values[part.column], self.zone, &mut out).map_err(|e| self.bad(&e))?;
        }
        check_length(&out)?;
        let suffix = &primary[key::ID_LEN..];
        if is_unique_for(index, values) {
            Ok((out, Bytes::copy_from_slice(suffix)))
        } else {
            out.extend_from_slice(suffix);
            Ok((out, Bytes::new()))
        }
    }

    /// Inserts a row whose values have the column types. Nothing is written if a unique key is violated.
    pub async fn insert(
        &self,
        txn: &mut Txn,
        values: &[Value],
        row_id: u64,
    ) -> Result<std::result::Result<(), Duplicate>> {
        let primary = self.primary_key(values, row_id)?;
        if txn.get_for_update(self.rows, &primary).await.map_err(errmap::from_engine)?.is_some() {
            return Ok(Err(self.duplicate(&self.table.primary, values, primary.into())));
        }
        let mut entries = Vec::with_capacity(self.table.indexes.len());
        for index in &self.table.indexes {
            let (key, value) = self.entry(index, values, &primary)?;
            if let Some(found) = self.claim(txn, index, &key, values).await? {
                return Ok(Err(found));
            }
            entries.push((key, value));
        }
        let row = self.table.layout.encode(values, self.zone).map_err(|e| self.bad(&e))?;
        txn.put(self.rows, primary, row).map_err(errmap::from_engine)?;
        for (key, value) in entries {
            txn.put(self.rows, key, value).map_err(errmap::from_engine)?;
        }
        Ok(Ok(()))
    }

    /// Replaces the values of a stored row that is locked and was read currently.
    pub async fn update(
        &self,
        txn: &mut Txn,
        old: &StoredRow,
        values: &[Value],
    ) -> Result<std::result::Result<(), Duplicate>> {
        let moved = self.table.has_primary() && self.differs(&self.table.primary.parts, &old.values, values);
        let primary = if moved { Bytes::from(self.primary_key(values, 0)?) } else { old.key.clone() };
        let moved = primary != old.key;
        if moved && txn.get_for_update(self.rows, &primary).await.map_err(errmap::from_engine)?.is_some() {
            return Ok(Err(self.duplicate(&self.table.primary, values, primary)));
        }
        let mut changes = Vec::new();
        for index in &self.table.indexes {
            if !moved && !self.differs(&index.parts, &old.values, values) {
                continue;
            }
            let (old_key, old_value) = self.entry(index, &old.values, &old.key)?;
            let (key, value) = self.entry(index, values, &primary)?;
            if key == old_key && value == old_value {
                continue;
            }
            if key != old_key
                && let Some(found) = self.claim(txn, index, &key, values).await?
            {
                return Ok(Err(found));
            }
            self.lock(txn, &old_key).await?;
            changes.push((old_key, key, value));
        }
        let row = self.table.layout.encode(values, self.zone).map_err(|e| self.bad(&e))?;
        if moved {
            txn.delete(self.rows, old.key.clone()).map_err(errmap::from_engine)?;
        }
        txn.put(self.rows, primary, row).map_err(errmap::from_engine)?;
        for (old_key, key, value) in changes {
            if old_key != key {
                txn.delete(self.rows, old_key).map_err(errmap::from_engine)?;
            }
            txn.put(self.rows, key, value).map_err(errmap::from_engine)?;
        }
        Ok(Ok(()))
    }

    /// Deletes a stored row that is locked and was read currently.
    pub async fn delete(&self, txn: &mut Txn, old: &StoredRow) -> Result<()> {
        for index in &self.table.indexes {
            let (key, _) = self.entry(index, &old.values, &old.key)?;
            self.lock(txn, &key).await?;
            txn.delete(self.rows, key).map_err(errmap::from_engine)?;
        }
        txn.delete(self.rows, old.key.clone()).map_err(errmap::from_engine)
    }

    /// Writes the entry of an index that is being built, unless another row has the key.
    pub async fn backfill(
        &self,
        txn: &mut Txn,
        index: &Index,
        row: &StoredRow,
    ) -> Result<std::result::Result<(), Duplicate>> {
        let (key, value) = self.entry(index, &row.values, &row.key)?;
        if is_unique_for(index, &row.values) {
            let standing = txn.get_for_update(self.rows, &key).await.map_err(errmap::from_engine)?;
            match standing {
                Some(suffix) if suffix == value => return Ok(Ok(())),
                Some(suffix) => {
                    let standing = self.primary_of(&suffix);
                    return Ok(Err(self.duplicate(index, &row.values, standing)));
                }
                None => {}
            }
        } else {
            self.lock(txn, &key).await?;
        }
        txn.put(self.rows, key, value).map_err(errmap::from_engine)?;
        Ok(Ok(()))
    }

    /// Locks an entry's key; for a unique entry also looks whether it stands.
    async fn claim(&self, txn: &mut Txn, index: &Index, key: &[u8], values: &[Value]) -> Result<Option<Duplicate>> {
        if !is_unique_for(index, values) {
            self.lock(txn, key).await?;
            return Ok(None);
        }
        let found = txn.get_for_update(self.rows, key).await.map_err(errmap::from_engine)?;
        Ok(found.map(|suffix| self.duplicate(index, values, self.primary_of(&suffix))))
    }

    async fn lock(&self, txn: &mut Txn, key: &[u8]) -> Result<()> {
        txn.lock(self.rows, key, LockMode::Exclusive, LockWait::Timeout).await.map_err(errmap::from_engine)
    }

    /// Primary key entry from the value of a unique index entry.
    pub fn primary_of(&self, suffix: &[u8]) -> Bytes {
        let mut out = self.table.index_prefix(0);
        out.extend_from_slice(suffix);
        out.into()
    }

    fn differs(&self, parts: &[KeyPart], old: &[Value], new: &[Value]) -> bool {
        parts.iter().any(|p| p.column != HIDDEN_ID && old[p.column] != new[p.column])
    }

    fn duplicate(&self, index: &Index, values: &[Value], key: Bytes) -> Duplicate {
        let shown = index.parts.iter().filter(|p| p.column != HIDDEN_ID).map(|p| shown(&values[p.column], p));
        Duplicate { index: index.name.clone(), key, entry: shown.collect::<Vec<_>>().join("-") }
    }
}

/// Whether this row's entry in `index` is unique: unique indexes hold any number of NULLs.
pub fn is_unique_for(index: &Index, values: &[Value]) -> bool {
    index.unique && !index.parts.iter().any(|p| values[p.column].is_null())
}

/// A key value as error 1062 prints it.
fn shown(value: &Value, part: &KeyPart) -> String {
    let text = match value {
        Value::Null => "NULL".to_owned(),
        Value::Int(n) => n.to_string(),
        Value::UInt(n) => n.to_string(),
        Value::Float(n) => n.to_string(),
        Value::Double(n) => n.to_string(),
        Value::Decimal(n) => n.to_string(),
        Value::Str(b) | Value::Bin(b) | Value::Json(b) => String::from_utf8_lossy(b).into_owned(),
        other => format!("{other:?}"),
    };
    text.chars().take(part.prefix.map_or(64, |n| n as usize)).collect()
}

/// 1071: keys are bounded as InnoDB's.
fn check_length(key: &[u8]) -> Result<()> {
    match key.len() > key::ID_LEN + key::MAX_KEY {
        true => {
            Err(errmap::error(1071, format!("Specified key was too long; max key length is {} bytes", key::MAX_KEY)))
        }
        false => Ok(()),
    }
}
