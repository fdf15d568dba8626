//! Rows of the virtual tables.

use super::VirtualTable;
use crate::{
    catalog::{Column, ColumnDefault, Index, Table},
    session::state::State,
    sql::{
        collation::Collation,
        convert,
        types::{DataType, TypeKind},
        value::{DateTime, Value},
    },
    variables,
    wire::result::SqlError,
};

/// All rows of a virtual table, as wide as its columns.
pub fn rows(table: VirtualTable, state: &State) -> Result<Vec<Vec<Value>>, SqlError> {
    let catalog = state.shared.catalog.state();
    let mut out = Vec::new();
    let stored = catalog.databases.values().flat_map(|db| db.tables.values());
    match table {
        VirtualTable::Schemata => {
            for (name, collation) in std::iter::once((super::DATABASE, Collation::default()))
                .chain(catalog.databases.iter().map(|(n, d)| (n.as_str(), d.collation)))
            {
                let (charset, collation) = (collation.charset(), collation.name());
                out.push(vec!["def".into(), name.into(), charset.into(), collation.into(), Value::Null, "NO".into()]);
            }
        }
        VirtualTable::Tables => {
            out.extend(VirtualTable::all().iter().map(|t| view_row(t.name())));
            out.extend(stored.map(|t| table_row(t, state)));
        }
        VirtualTable::Columns => {
            for t in VirtualTable::all() {
                for (i, c) in t.scope_columns().iter().enumerate() {
                    let column = Column {
                        name: c.name.clone(),
                        ty: c.ty,
                        nullable: true,
                        default: ColumnDefault::Value(Value::Null),
                        on_update_now: false,
                        auto_increment: false,
                        comment: String::new(),
                        invisible: false,
                        instant: Value::Null,
                    };
                    out.push(column_row(super::DATABASE, t.name(), i, &column, ""));
                }
            }
            for t in stored {
                for (i, c) in t.columns.iter().enumerate() {
                    out.push(column_row(&t.database, &t.name, i, c, t.key_mark(i)));
                }
            }
        }
        VirtualTable::Statistics => {
            for t in stored {
                for index in t.all_indexes() {
                    statistics_rows(t, index, &mut out);
                }
            }
        }
        VirtualTable::KeyColumnUsage => {
            for t in stored {
                for index in t.all_indexes().filter(|i| i.unique) {
                    for (n, part) in index.parts.iter().enumerate() {
                        let column = t.columns[part.column].name.as_str();
                        let mut row: Vec<Value> =
                            vec!["def".into(), t.database.as_str().into(), index.name.as_str().into()];
                        row.extend(["def".into(), t.database.as_str().into(), t.name.as_str().into(), column.into()]);
                        row.push(Value::UInt(n as u64 + 1));
                        row.resize(12, Value::Null);
                        out.push(row);
                    }
                }
            }
        }
        VirtualTable::TableConstraints => {
            for t in stored {
                for index in t.all_indexes().filter(|i| i.unique) {
                    let kind = if index.is_primary() { "PRIMARY KEY" } else { "UNIQUE" };
                    let (db, name) = (t.database.as_str(), t.name.as_str());
                    out.push(["def", db, &index.name, db, name, kind, "YES"].map(Value::from).to_vec());
                }
            }
        }
        VirtualTable::Partitions => {
            for t in stored {
                let mut row: Vec<Value> = vec!["def".into(), t.database.as_str().into(), t.name.as_str().into()];
                row.resize(9, Value::Null);
                out.push(row);
            }
        }
        VirtualTable::Engines => {
            let comment = "Supports transactions, row-level locking; pages live in an object store";
            out.push(["InnoDB", "DEFAULT", comment, "YES", "NO", "YES"].map(Value::from).to_vec());
        }
        VirtualTable::Collations => {
            for c in Collation::all() {
                let default = Collation::default_of_charset(c.charset()) == Some(c);
                let pad = if c.pad_space() { "PAD SPACE" } else { "NO PAD" };
                out.push(vec![
                    c.name().into(),
                    c.charset().into(),
                    Value::UInt(c.id().into()),
                    if default { "Yes" } else { "" }.into(),
                    "Yes".into(),
                    Value::UInt(1),
                    pad.into(),
                ]);
            }
        }
        VirtualTable::CharacterSets => {
            let mut seen: Vec<&str> = Vec::new();
            for c in Collation::all() {
                if seen.contains(&c.charset()) {
                    continue;
                }
                seen.push(c.charset());
                let default = Collation::default_of_charset(c.charset()).unwrap_or(c);
                let width = Value::UInt(c.max_bytes_per_char().into());
                out.push(vec![c.charset().into(), default.name().into(), description(c.charset()).into(), width]);
            }
        }
        VirtualTable::Processlist => {
            for p in state.shared.processes.rows() {
                out.push(vec![
                    Value::UInt(p.id.into()),
                    Value::str(p.user),
                    Value::str(p.host),
                    p.database.map_or(Value::Null, Value::str),
                    p.command.into(),
                    Value::Int(p.seconds.min(i32::MAX as u64) as i64),
                    Value::str(p.state),
                    p.info.map_or(Value::Null, Value::str),
                ]);
            }
        }
        VirtualTable::Plugins => {
            for name in ["mysql_native_password", "caching_sha2_password"] {
                let row = [name, variables::VERSION, "ACTIVE", "AUTHENTICATION"].map(Value::from);
                let mut row = row.to_vec();
                row.extend([Value::Null, "Apache-2.0".into(), "ON".into()]);
                out.push(row);
            }
        }
        // Objects that do not exist in this server: the tables are empty.
        VirtualTable::ReferentialConstraints
        | VirtualTable::CheckConstraints
        | VirtualTable::Views
        | VirtualTable::Routines
        | VirtualTable::Parameters
        | VirtualTable::Triggers
        | VirtualTable::Events => {}
    }
    Ok(out)
}

fn view_row(name: &str) -> Vec<Value> {
    let mut row: Vec<Value> = vec!["def".into(), super::DATABASE.into(), name.into(), "SYSTEM VIEW".into()];
    row.resize(21, Value::Null);
    row[20] = "".into();
    row
}

fn table_row(t: &Table, state: &State) -> Vec<Value> {
    let created =
        DateTime::from_unix_micros(t.created - t.created.rem_euclid(1_000_000), state.settings().zone_offset_seconds);
    let auto =
        t.auto_increment.map_or(Value::Null, |_| Value::UInt(t.counters.peek_auto().unwrap_or(t.auto_start.max(1))));
    vec![
        "def".into(),
        t.database.as_str().into(),
        t.name.as_str().into(),
        "BASE TABLE".into(),
        "InnoDB".into(),
        Value::Int(10),
        "Dynamic".into(),
        // Row counts and sizes are not estimated yet: NULL says so.
        Value::Null,
        Value::Null,
        Value::Null,
        Value::Null,
        Value::Null,
        Value::Null,
        auto,
        created.map_or(Value::Null, Value::DateTime),
        Value::Null,
        Value::Null,
        t.collation.name().into(),
        Value::Null,
        "".into(),
        t.comment.as_str().into(),
    ]
}

fn column_row(database: &str, table: &str, at: usize, c: &Column, mark: &str) -> Vec<Value> {
    let ty = &c.ty;
    let text = ty.is_string();
    let chars = match ty.kind {
        TypeKind::Char | TypeKind::VarChar => Some(u64::from(ty.length)),
        _ if text => ty.max_bytes(),
        _ => None,
    };
    let octets = match ty.kind {
        TypeKind::Char | TypeKind::VarChar => Some(u64::from(ty.length) * u64::from(ty.collation.max_bytes_per_char())),
        _ => chars,
    };
    let number = |n: Option<u64>| n.map_or(Value::Null, Value::UInt);
    let (precision, scale) = numeric(ty);
    let temporal = matches!(ty.kind, TypeKind::Time | TypeKind::DateTime | TypeKind::Timestamp);
    let charset = text && !ty.is_binary();
    vec![
        "def".into(),
        database.into(),
        table.into(),
        c.name.as_str().into(),
        Value::UInt(at as u64 + 1),
        column_default_text(c).map_or(Value::Null, Value::str),
        if c.nullable { "YES" } else { "NO" }.into(),
        Value::str(base_name(ty)),
        chars.map_or(Value::Null, |n| Value::Int(n as i64)),
        octets.map_or(Value::Null, |n| Value::Int(n as i64)),
        number(precision),
        number(scale),
        number(temporal.then_some(u64::from(ty.scale))),
        if charset { ty.collation.charset().into() } else { Value::Null },
        if charset { ty.collation.name().into() } else { Value::Null },
        Value::str(ty.to_string()),
        mark.into(),
        Value::str(extra_of(c)),
        "select,insert,update,references".into(),
        c.comment.as_str().into(),
        "".into(),
        Value::Null,
    ]
}

fn numeric(ty: &DataType) -> (Option<u64>, Option<u64>) {
    match ty.kind {
        TypeKind::Tiny => (Some(3), Some(0)),
        TypeKind::Small => (Some(5), Some(0)),
        TypeKind::Medium => (Some(7), Some(0)),
        TypeKind::Int => (Some(10), Some(0)),
        TypeKind::Big if ty.unsigned => (Some(20), Some(0)),
        TypeKind::Big => (Some(19), Some(0)),
        TypeKind::Decimal => (Some(ty.precision.into()), Some(ty.scale.into())),
        TypeKind::Float => (Some(12), None),
        TypeKind::Double => (Some(22), None),
        _ => (None, None),
    }
}

/// The type's name without length and attributes.
fn base_name(ty: &DataType) -> String {
    let full = ty.to_string();
    full.split(['(', ' ']).next().unwrap_or_default().to_owned()
}

/// The `Extra` column of DESCRIBE.
pub fn extra_of(c: &Column) -> String {
    let mut extra = Vec::new();
    if c.auto_increment {
        extra.push("auto_increment".to_owned());
    }
    if c.default == ColumnDefault::Now {
        extra.push("DEFAULT_GENERATED".to_owned());
    }
    if c.on_update_now {
        extra.push(format!("on update {}", now_text(&c.ty)));
    }
    if c.invisible {
        extra.push("INVISIBLE".to_owned());
    }
    extra.join(" ")
}

/// `CURRENT_TIMESTAMP` with the type's fractional digits.
pub fn now_text(ty: &DataType) -> String {
    if ty.scale > 0 { format!("CURRENT_TIMESTAMP({})", ty.scale) } else { "CURRENT_TIMESTAMP".to_owned() }
}

/// A column's default as DESCRIBE shows it; `None` for NULL or no default.
pub fn column_default_text(c: &Column) -> Option<String> {
    match &c.default {
        ColumnDefault::None | ColumnDefault::Value(Value::Null) => None,
        ColumnDefault::Now => Some(now_text(&c.ty)),
        ColumnDefault::Value(v) => convert::to_text_as(v, &c.ty).map(|t| String::from_utf8_lossy(&t).into_owned()),
    }
}

fn statistics_rows(t: &Table, index: &Index, out: &mut Vec<Vec<Value>>) {
    for (n, part) in index.parts.iter().enumerate() {
        let column = &t.columns[part.column];
        out.push(vec![
            "def".into(),
            t.database.as_str().into(),
            t.name.as_str().into(),
            Value::Int(i64::from(!index.unique)),
            t.database.as_str().into(),
            index.name.as_str().into(),
            Value::UInt(n as u64 + 1),
            column.name.as_str().into(),
            "A".into(),
            Value::Null,
            part.prefix.map_or(Value::Null, |p| Value::Int(p.into())),
            Value::Null,
            if column.nullable { "YES" } else { "" }.into(),
            "BTREE".into(),
            "".into(),
            index.comment.as_str().into(),
            if index.invisible { "NO" } else { "YES" }.into(),
            Value::Null,
        ]);
    }
}

fn description(charset: &str) -> &'static str {
    match charset {
        "utf8mb4" => "UTF-8 Unicode",
        "utf8mb3" => "UTF-8 Unicode",
        "latin1" => "cp1252 West European",
        "ascii" => "US ASCII",
        "binary" => "Binary pseudo charset",
        _ => "",
    }
}
