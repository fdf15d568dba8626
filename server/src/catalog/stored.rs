//! Turns stored table definitions into [`Table`]s and back.

use std::sync::Arc;

use super::{
    counter::Counters,
    format::{StoredColumn, StoredDefault, StoredIndex, StoredPart, StoredTable},
    table::{Column, ColumnDefault, HIDDEN_ID, Index, IndexState, Table, metadata_key, storage_kind},
};
use crate::{
    key::KeyPart,
    row::{Kind, Layout, ZoneOffset},
    sql::{
        collation::Collation,
        types::{DataType, TypeKind},
        value::Value,
    },
};

/// Part of the hidden row id.
const HIDDEN_PART: KeyPart =
    KeyPart { column: HIDDEN_ID, kind: Kind::Int { width: 8, unsigned: true }, nullable: false, prefix: None };

/// Builds the runtime definition; the error names what is wrong with the stored one.
pub fn build(database: &str, name: &str, stored: &StoredTable, counters: Arc<Counters>) -> Result<Table, String> {
    let columns: Vec<Column> = stored.columns.iter().map(column).collect::<Result<_, _>>()?;
    let part = |p: &StoredPart| {
        let c = columns.get(p.column as usize).ok_or_else(|| format!("index part names column {}", p.column))?;
        Ok::<_, String>(KeyPart { column: p.column as usize, kind: c.kind(), nullable: c.nullable, prefix: p.prefix })
    };
    let primary_parts = match stored.primary.is_empty() {
        true => vec![HIDDEN_PART],
        false => stored.primary.iter().map(part).collect::<Result<_, _>>()?,
    };
    let mut indexes = Vec::with_capacity(stored.indexes.len());
    for index in &stored.indexes {
        indexes.push(Index {
            id: index.id,
            name: index.name.clone(),
            unique: index.unique,
            parts: index.parts.iter().map(part).collect::<Result<_, _>>()?,
            state: if index.building { IndexState::Building } else { IndexState::Public },
            comment: index.comment.clone(),
            invisible: index.invisible,
        });
    }
    Ok(Table {
        id: stored.id,
        version: stored.version,
        database: database.to_owned(),
        name: name.to_owned(),
        primary: Index {
            id: 0,
            name: "PRIMARY".to_owned(),
            unique: true,
            parts: primary_parts,
            state: IndexState::Public,
            comment: String::new(),
            invisible: false,
        },
        indexes,
        collation: collation(stored.collation)?,
        comment: stored.comment.clone(),
        created: stored.created,
        layout: Layout::new(columns.iter().map(|c| (c.kind(), c.instant.clone()))),
        auto_increment: columns.iter().position(|c| c.auto_increment),
        auto_start: stored.auto_start,
        counters,
        next_index: stored.next_index,
        lock_key: metadata_key(database, name),
        changed_epoch: 0,
        columns,
    })
}

/// The stored form of a definition.
pub fn store(table: &Table) -> Result<StoredTable, String> {
    let part = |p: &KeyPart| StoredPart { column: p.column as u16, prefix: p.prefix };
    Ok(StoredTable {
        id: table.id,
        version: table.version,
        columns: table.columns.iter().map(stored_column).collect::<Result<_, _>>()?,
        primary: match table.has_primary() {
            true => table.primary.parts.iter().map(part).collect(),
            false => Vec::new(),
        },
        indexes: table
            .indexes
            .iter()
            .map(|i| StoredIndex {
                id: i.id,
                name: i.name.clone(),
                unique: i.unique,
                parts: i.parts.iter().map(part).collect(),
                building: i.state == IndexState::Building,
                comment: i.comment.clone(),
                invisible: i.invisible,
            })
            .collect(),
        next_index: table.next_index,
        collation: table.collation.id(),
        comment: table.comment.clone(),
        created: table.created,
        auto_start: table.auto_start,
    })
}

fn collation(id: u16) -> Result<Collation, String> {
    Collation::from_id(id).ok_or_else(|| format!("unknown collation id {id}"))
}

fn column(c: &StoredColumn) -> Result<Column, String> {
    let ty = DataType {
        kind: type_kind(c.kind)?,
        unsigned: c.unsigned,
        zerofill: c.zerofill,
        precision: c.precision,
        scale: c.scale,
        length: c.length,
        collation: collation(c.collation)?,
    };
    Ok(Column {
        name: c.name.clone(),
        nullable: c.nullable,
        default: match &c.default {
            StoredDefault::None => ColumnDefault::None,
            StoredDefault::Now => ColumnDefault::Now,
            StoredDefault::Row(hex) => ColumnDefault::Value(value_of(&ty, hex)?),
        },
        on_update_now: c.on_update_now,
        auto_increment: c.auto_increment,
        comment: c.comment.clone(),
        invisible: c.invisible,
        instant: match &c.instant {
            StoredDefault::Row(hex) => value_of(&ty, hex)?,
            _ => Value::Null,
        },
        ty,
    })
}

/// The stored form of one column.
pub fn stored_column(c: &Column) -> Result<StoredColumn, String> {
    Ok(StoredColumn {
        name: c.name.clone(),
        kind: c.ty.kind as u8,
        unsigned: c.ty.unsigned,
        zerofill: c.ty.zerofill,
        precision: c.ty.precision,
        scale: c.ty.scale,
        length: c.ty.length,
        collation: c.ty.collation.id(),
        nullable: c.nullable,
        default: match &c.default {
            ColumnDefault::None => StoredDefault::None,
            ColumnDefault::Now => StoredDefault::Now,
            ColumnDefault::Value(v) => StoredDefault::Row(hex_of(&c.ty, v)?),
        },
        on_update_now: c.on_update_now,
        auto_increment: c.auto_increment,
        comment: c.comment.clone(),
        invisible: c.invisible,
        instant: match &c.instant {
            Value::Null => StoredDefault::None,
            v => StoredDefault::Row(hex_of(&c.ty, v)?),
        },
    })
}

fn type_kind(number: u8) -> Result<TypeKind, String> {
    use TypeKind::*;
    const KINDS: [TypeKind; 21] = [
        Null, Tiny, Small, Medium, Int, Big, Decimal, Float, Double, Date, Time, DateTime, Timestamp, Year, Char,
        VarChar, TinyText, Text, MediumText, LongText, Json,
    ];
    let kind = KINDS.get(number as usize).copied().filter(|k| *k as u8 == number);
    kind.ok_or_else(|| format!("unknown type number {number}"))
}

fn hex_of(ty: &DataType, value: &Value) -> Result<String, String> {
    let layout = Layout::new([(storage_kind(ty), Value::Null)]);
    let row = layout.encode(std::slice::from_ref(value), ZoneOffset(0)).map_err(|e| e.to_string())?;
    Ok(row.iter().map(|b| format!("{b:02x}")).collect())
}

fn value_of(ty: &DataType, hex: &str) -> Result<Value, String> {
    let digits = hex.as_bytes();
    let byte = |pair: &[u8]| std::str::from_utf8(pair).ok().and_then(|p| u8::from_str_radix(p, 16).ok());
    let row: Vec<u8> = digits.chunks(2).map(byte).collect::<Option<_>>().ok_or("default is not hex")?;
    let layout = Layout::new([(storage_kind(ty), Value::Null)]);
    let bytes = row.into();
    layout.read(&bytes).and_then(|r| r.get(0, ZoneOffset(0))).map_err(|e| e.to_string())
}
