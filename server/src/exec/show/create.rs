//! SHOW CREATE TABLE and DATABASE, byte for byte as MySQL 8 prints them: clients parse this text.

use std::fmt::Write;

use super::{Result, Table, database_or_current};
use crate::{
    catalog::{Column, ColumnDefault, HIDDEN_ID, Index, Table as StoredTable},
    exec::schema::now_text,
    session::state::State,
    sql::{ast::ObjectName, collation::Collation, convert, types::TypeKind, value::Value},
};

/// SHOW CREATE TABLE.
pub fn table(name: &ObjectName, state: &State) -> Result<Table> {
    let database = database_or_current(name.database.as_deref(), state)?;
    let catalog = state.shared.catalog.state();
    let table = catalog.table(&database, &name.name)?;
    let row = vec![table.name.as_str().into(), Value::str(text(table))];
    Ok(Table::new(&["Table", "Create Table"], vec![row]))
}

/// SHOW CREATE DATABASE.
pub fn database(name: &str, if_not_exists: bool, state: &State) -> Result<Table> {
    let database = database_or_current(Some(name), state)?;
    let catalog = state.shared.catalog.state();
    let collation = catalog.databases.get(&database).map_or_else(Collation::default, |d| d.collation);
    let condition = if if_not_exists { "/*!32312 IF NOT EXISTS*/ " } else { "" };
    let statement = format!(
        "CREATE DATABASE {condition}{} /*!40100 DEFAULT CHARACTER SET {}{} */ /*!80016 DEFAULT ENCRYPTION='N' */",
        quoted(&database),
        collation.charset(),
        collate(collation, " COLLATE "),
    );
    Ok(Table::new(&["Database", "Create Database"], vec![vec![Value::str(database), Value::str(statement)]]))
}

/// The statement that makes the table.
pub fn text(table: &StoredTable) -> String {
    let mut lines: Vec<String> = table.columns.iter().map(|c| column(c, table.collation)).collect();
    lines.extend(table.all_indexes().map(|i| index(i, table)));
    let mut out = format!("CREATE TABLE {} (\n  {}\n) ENGINE=InnoDB", quoted(&table.name), lines.join(",\n  "));
    if let Some(next) = table.counters.peek_auto().or(Some(table.auto_start)).filter(|n| *n > 1)
        && table.auto_increment.is_some()
    {
        let _ = write!(out, " AUTO_INCREMENT={next}");
    }
    let _ = write!(out, " DEFAULT CHARSET={}{}", table.collation.charset(), collate(table.collation, " COLLATE="));
    if !table.comment.is_empty() {
        let _ = write!(out, " COMMENT={}", literal(&table.comment));
    }
    out
}

/// The collation, unless the character set alone says it. utf8mb4 always names it, as MySQL 8 does.
fn collate(collation: Collation, before: &str) -> String {
    let default = Collation::default_of_charset(collation.charset()) == Some(collation);
    match default && collation.charset() != "utf8mb4" {
        true => String::new(),
        false => format!("{before}{}", collation.name()),
    }
}

fn column(c: &Column, table: Collation) -> String {
    let mut out = format!("{} {}", quoted(&c.name), c.ty);
    let text = c.ty.is_string() && !c.ty.is_binary();
    if text && c.ty.collation != table {
        let _ = write!(out, " CHARACTER SET {}{}", c.ty.collation.charset(), collate(c.ty.collation, " COLLATE "));
    }
    if !c.nullable {
        out.push_str(" NOT NULL");
    } else if c.ty.kind == TypeKind::Timestamp {
        out.push_str(" NULL");
    }
    if c.invisible {
        out.push_str(" /*!80023 INVISIBLE */");
    }
    match &c.default {
        ColumnDefault::None => {}
        ColumnDefault::Now => {
            let _ = write!(out, " DEFAULT {}", now_text(&c.ty));
        }
        // A BLOB or JSON column without default is NULL without saying so.
        ColumnDefault::Value(Value::Null) if c.ty.is_blob() => {}
        ColumnDefault::Value(Value::Null) => out.push_str(" DEFAULT NULL"),
        ColumnDefault::Value(Value::Bin(b)) if std::str::from_utf8(b).is_err() => {
            let hex: String = b.iter().map(|b| format!("{b:02X}")).collect();
            let _ = write!(out, " DEFAULT 0x{hex}");
        }
        ColumnDefault::Value(v) => {
            let text = convert::to_text_as(v, &c.ty).map(|t| String::from_utf8_lossy(&t).into_owned());
            let _ = write!(out, " DEFAULT {}", literal(&text.unwrap_or_default()));
        }
    }
    if c.on_update_now {
        let _ = write!(out, " ON UPDATE {}", now_text(&c.ty));
    }
    if c.auto_increment {
        out.push_str(" AUTO_INCREMENT");
    }
    if !c.comment.is_empty() {
        let _ = write!(out, " COMMENT {}", literal(&c.comment));
    }
    out
}

fn index(i: &Index, table: &StoredTable) -> String {
    let parts: Vec<String> = i
        .parts
        .iter()
        .filter(|p| p.column != HIDDEN_ID)
        .map(|p| {
            let prefix = p.prefix.map(|n| format!("({n})")).unwrap_or_default();
            format!("{}{prefix}", quoted(&table.columns[p.column].name))
        })
        .collect();
    let kind = match (i.is_primary(), i.unique) {
        (true, _) => "PRIMARY KEY".to_owned(),
        (false, true) => format!("UNIQUE KEY {}", quoted(&i.name)),
        (false, false) => format!("KEY {}", quoted(&i.name)),
    };
    let mut out = format!("{kind} ({})", parts.join(","));
    if !i.comment.is_empty() {
        let _ = write!(out, " COMMENT {}", literal(&i.comment));
    }
    if i.invisible {
        out.push_str(" /*!80000 INVISIBLE */");
    }
    out
}

/// An identifier in backticks.
pub fn quoted(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

/// A text literal.
fn literal(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('\'');
    for c in text.chars() {
        match c {
            '\'' => out.push_str("''"),
            '\\' => out.push_str("\\\\"),
            '\0' => out.push_str("\\0"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            c => out.push(c),
        }
    }
    out.push('\'');
    out
}
