//! Owns reading a table along an access path: key ranges, batches of entries, row lookups, lazy column decode.

use std::ops::Bound;

use bytes::Bytes;
use holdfast::{KeyValue, Keyspace, Scan, ScanOptions, Snapshot, Txn};

use crate::{
    catalog::{HIDDEN_ID, Index, Table},
    errmap,
    exec::range::{KeyRange, Ranges},
    key,
    row::{FormatError, ZoneOffset},
    sql::{plan::access::index_of, value::Value},
    wire::result::SqlError,
};

type Result<T> = std::result::Result<T, SqlError>;

/// First and largest number of entries fetched at once.
const BATCH_MIN: usize = 32;
const BATCH_MAX: usize = 512;

/// Whose data is read.
pub enum View<'a> {
    /// An autocommit SELECT: no transaction, no locks.
    Snapshot(&'a Snapshot),
    /// A consistent read inside a transaction.
    Consistent(&'a mut Txn),
    /// What is newest now: for rows that will be locked or changed.
    Current(&'a mut Txn),
}

impl View<'_> {
    pub async fn get(&mut self, keyspace: &Keyspace, key: &[u8]) -> Result<Option<Bytes>> {
        match self {
            Self::Snapshot(s) => s.get(keyspace, key).await,
            Self::Consistent(t) => t.get(keyspace, key).await,
            Self::Current(t) => t.get_current(keyspace, key).await,
        }
        .map_err(errmap::from_engine)
    }

    fn scan(&mut self, keyspace: &Keyspace, options: ScanOptions) -> Result<Scan> {
        match self {
            Self::Snapshot(s) => s.scan(keyspace, options),
            Self::Consistent(t) => t.scan(keyspace, options),
            Self::Current(t) => t.scan_current(keyspace, options),
        }
        .map_err(errmap::from_engine)
    }
}

/// The entries of an index in the given ranges, in order.
pub struct Cursor {
    ranges: std::vec::IntoIter<KeyRange>,
    reverse: bool,
    scan: Option<Scan>,
    batch: usize,
    limit_hint: usize,
}

impl Cursor {
    /// `limit_hint`: how many rows will be wanted, 0 if unknown.
    pub fn new(ranges: Ranges, reverse: bool, limit_hint: usize) -> Self {
        let mut list = ranges.ranges;
        if reverse {
            list.reverse();
        }
        let batch = if limit_hint == 0 { BATCH_MIN } else { limit_hint.clamp(1, BATCH_MAX) };
        Self { ranges: list.into_iter(), reverse, scan: None, batch, limit_hint }
    }

    /// Takes the next range if it is a single key of the primary index: the caller locks and reads it in one step.
    pub fn take_point(&mut self) -> Option<Bytes> {
        if self.scan.is_some() || !self.ranges.as_slice().first()?.point {
            return None;
        }
        self.ranges.next().map(|range| range.start.into())
    }

    /// Appends the next entries to `out`; false at the end.
    pub async fn fill(&mut self, view: &mut View<'_>, rows: &Keyspace, out: &mut Vec<KeyValue>) -> Result<bool> {
        let before = out.len();
        while out.len() - before < self.batch {
            if let Some(scan) = &mut self.scan {
                let want = self.batch - (out.len() - before);
                let got = scan.next_batch(out, want).await.map_err(errmap::from_engine)?;
                if got == 0 {
                    self.scan = None;
                }
                continue;
            }
            let Some(range) = self.ranges.next() else { break };
            if range.point {
                if let Some(value) = view.get(rows, &range.start).await? {
                    out.push(KeyValue { key: range.start.into(), value });
                }
                continue;
            }
            let options = ScanOptions {
                start: Bound::Included(range.start.into()),
                end: Bound::Excluded(range.end.into()),
                reverse: self.reverse,
                limit_hint: self.limit_hint,
            };
            self.scan = Some(view.scan(rows, options)?);
        }
        self.batch = (self.batch * 2).min(BATCH_MAX);
        Ok(out.len() > before)
    }
}

/// Which part of a table's rows a statement reads, and how entries become column values.
#[derive(Clone, Copy)]
pub struct Reader<'a> {
    pub table: &'a Table,
    /// As in [`crate::sql::plan::access::Access`].
    pub index: Option<usize>,
    pub covering: bool,
    pub zone: ZoneOffset,
}

impl Reader<'_> {
    fn bad(&self, e: &FormatError) -> SqlError {
        errmap::from_format(&self.table.name, e)
    }

    fn index(&self) -> &Index {
        index_of(self.table, self.index)
    }

    /// Whether an entry must be followed to its row.
    pub fn needs_lookup(&self) -> bool {
        self.index.is_some() && !self.covering
    }

    /// Primary key entry of the row that an index entry names.
    pub fn primary_key(&self, entry: &KeyValue) -> Result<Bytes> {
        if self.index.is_none() {
            return Ok(entry.key.clone());
        }
        let suffix = self.primary_suffix(entry)?;
        let mut out = self.table.index_prefix(0);
        out.extend_from_slice(suffix);
        Ok(out.into())
    }

    fn primary_suffix<'e>(&self, entry: &'e KeyValue) -> Result<&'e [u8]> {
        if !entry.value.is_empty() {
            return Ok(&entry.value);
        }
        let mut rest = entry.key.get(key::ID_LEN..).unwrap_or_default();
        for part in &self.index().parts {
            part.skip(&mut rest).map_err(|e| self.bad(&e))?;
        }
        Ok(rest)
    }

    /// Decodes `columns` of a stored row into their slots.
    pub fn load(&self, row: &Bytes, columns: &[usize], slots: &mut [Value]) -> Result<()> {
        let row = self.table.layout.read(row).map_err(|e| self.bad(&e))?;
        for column in columns {
            slots[*column] = row.get(*column, self.zone).map_err(|e| self.bad(&e))?;
        }
        Ok(())
    }

    /// Decodes from an entry of a covering index every column that it has.
    pub fn load_covering(&self, entry: &KeyValue, slots: &mut [Value]) -> Result<()> {
        let mut rest = entry.key.get(key::ID_LEN..).unwrap_or_default();
        let parts = &self.index().parts;
        let mut load = |parts: &[key::KeyPart], rest: &mut &[u8]| {
            for part in parts {
                if part.column != HIDDEN_ID && part.is_reversible() {
                    slots[part.column] = part.decode(rest, self.zone)?;
                } else {
                    part.skip(rest)?;
                }
            }
            Ok(())
        };
        let loaded = load(parts, &mut rest);
        let mut suffix = if entry.value.is_empty() { rest } else { &entry.value[..] };
        loaded.and_then(|()| load(&self.table.primary.parts, &mut suffix)).map_err(|e| self.bad(&e))
    }
}
