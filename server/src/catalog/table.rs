//! Owns the definition of a table as statements use it: columns, indexes, the row layout and key parts.

use std::sync::Arc;

use bytes::Bytes;

use super::counter::Counters;
use crate::{
    key::{self, KeyPart},
    row::{Kind, Layout},
    sql::{
        types::{DataType, TypeKind},
        value::Value,
    },
};

/// `KeyPart::column` of the hidden row id of a table without a primary key.
pub const HIDDEN_ID: usize = usize::MAX;

/// What an omitted column gets.
#[derive(Clone, Debug, PartialEq)]
pub enum ColumnDefault {
    /// No DEFAULT clause: NULL if the column is nullable, else error 1364 (or the type's zero when not strict).
    None,
    /// A constant of the column's type.
    Value(Value),
    /// CURRENT_TIMESTAMP with the column's fractional digits.
    Now,
}

/// One column.
#[derive(Clone, Debug)]
pub struct Column {
    pub name: String,
    pub ty: DataType,
    pub nullable: bool,
    pub default: ColumnDefault,
    /// ON UPDATE CURRENT_TIMESTAMP.
    pub on_update_now: bool,
    pub auto_increment: bool,
    pub comment: String,
    pub invisible: bool,
    /// Value in rows older than the column.
    pub instant: Value,
}

/// Whether an index may be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IndexState {
    /// Complete.
    Public,
    /// Written by every statement, not yet complete: never read.
    Building,
}

/// One index. The primary key's entries are the rows themselves.
#[derive(Clone, Debug)]
pub struct Index {
    pub id: u16,
    pub name: String,
    pub unique: bool,
    pub parts: Vec<KeyPart>,
    pub state: IndexState,
    pub comment: String,
    pub invisible: bool,
}

/// One table at one schema version. Shared by plans; never changed in place.
#[derive(Debug)]
pub struct Table {
    pub id: u32,
    /// Moves with every change of the definition; the engine's guard of the table (rule 11).
    pub version: u64,
    pub database: String,
    pub name: String,
    pub columns: Vec<Column>,
    /// Id 0. Its one part is [`HIDDEN_ID`] if the table has no primary key.
    pub primary: Index,
    /// Secondary indexes, unique ones first, as MySQL orders them.
    pub indexes: Vec<Index>,
    pub collation: crate::sql::collation::Collation,
    pub comment: String,
    /// Microseconds since 1970 UTC.
    pub created: i64,
    pub layout: Layout,
    /// Ordinal of the AUTO_INCREMENT column.
    pub auto_increment: Option<usize>,
    /// AUTO_INCREMENT=n of the table options: the counter starts no lower.
    pub auto_start: u64,
    /// Shared by all versions of the table.
    pub counters: Arc<Counters>,
    /// Next free index id.
    pub next_index: u16,
    /// Key of the metadata lock.
    pub lock_key: Bytes,
    /// Catalog epoch at which this version came into force; 0 if it was there at start.
    pub changed_epoch: u64,
}

/// How a column of this type is stored.
pub fn storage_kind(ty: &DataType) -> Kind {
    let int = |width| Kind::Int { width, unsigned: ty.unsigned };
    match ty.kind {
        TypeKind::Tiny => int(1),
        TypeKind::Small => int(2),
        TypeKind::Year => Kind::Int { width: 2, unsigned: false },
        TypeKind::Medium | TypeKind::Int => int(4),
        TypeKind::Big => int(8),
        TypeKind::Decimal => Kind::Decimal { precision: ty.precision, scale: ty.scale },
        TypeKind::Float => Kind::Float,
        TypeKind::Double => Kind::Double,
        TypeKind::Date => Kind::Date,
        TypeKind::Time => Kind::Time,
        TypeKind::DateTime => Kind::DateTime,
        TypeKind::Timestamp => Kind::Timestamp,
        TypeKind::Json => Kind::Json,
        _ if ty.is_binary() => Kind::Binary,
        _ => Kind::Text { collation: ty.collation },
    }
}

/// Key of a table's metadata lock.
pub fn metadata_key(database: &str, table: &str) -> Bytes {
    let mut key = Vec::with_capacity(database.len() + table.len() + 1);
    key.extend_from_slice(database.as_bytes());
    key.push(0);
    key.extend_from_slice(table.as_bytes());
    key.into()
}

impl Column {
    pub fn kind(&self) -> Kind {
        storage_kind(&self.ty)
    }
}

impl Index {
    pub fn is_primary(&self) -> bool {
        self.id == 0
    }

    pub fn is_readable(&self) -> bool {
        self.state == IndexState::Public && !self.invisible
    }
}

impl Table {
    /// Finds a column by name, as MySQL does: without regard to case.
    pub fn column(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|c| c.name.eq_ignore_ascii_case(name) || same_name(&c.name, name))
    }

    pub fn has_primary(&self) -> bool {
        self.primary.parts.first().is_some_and(|p| p.column != HIDDEN_ID)
    }

    /// The primary key and every secondary index.
    pub fn all_indexes(&self) -> impl Iterator<Item = &Index> {
        std::iter::once(&self.primary).filter(|_| self.has_primary()).chain(&self.indexes)
    }

    pub fn index(&self, name: &str) -> Option<&Index> {
        self.all_indexes().find(|i| i.name.eq_ignore_ascii_case(name))
    }

    /// First bytes of every key of an index.
    pub fn index_prefix(&self, index: u16) -> Vec<u8> {
        let mut out = Vec::with_capacity(64);
        key::put_ids(self.id, index, &mut out);
        out
    }

    /// Every key of the table lies in `start..end`.
    pub fn key_range(&self) -> (Vec<u8>, Vec<u8>) {
        (self.id.to_be_bytes().to_vec(), (self.id + 1).to_be_bytes().to_vec())
    }

    /// How the column's key parts are marked in DESCRIBE: PRI, UNI, MUL or nothing.
    pub fn key_mark(&self, column: usize) -> &'static str {
        let first = |i: &Index| i.parts.first().is_some_and(|p| p.column == column);
        if self.has_primary() && self.primary.parts.iter().any(|p| p.column == column) {
            "PRI"
        } else if self.indexes.iter().any(|i| i.unique && i.parts.len() == 1 && first(i)) {
            "UNI"
        } else if self.indexes.iter().any(first) {
            "MUL"
        } else {
            ""
        }
    }
}

fn same_name(a: &str, b: &str) -> bool {
    !(a.is_ascii() && b.is_ascii()) && a.to_lowercase() == b.to_lowercase()
}
