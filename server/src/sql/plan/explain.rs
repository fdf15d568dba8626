//! EXPLAIN: the access path as MySQL's table. Pure.

use super::{
    Plan, Source, TableSource,
    access::{Fixed, index_of},
};
use crate::sql::{expr::Expr, value::Value};

/// Column names, in order.
pub const COLUMNS: [&str; 12] = [
    "id",
    "select_type",
    "table",
    "partitions",
    "type",
    "possible_keys",
    "key",
    "key_len",
    "ref",
    "rows",
    "filtered",
    "Extra",
];

/// One row of EXPLAIN.
pub fn row(plan: &Plan) -> Vec<Value> {
    let (kind, source, extra) = match plan {
        Plan::Select(p) => {
            let mut extra = Vec::new();
            if p.grouping.as_ref().is_some_and(|g| !g.keys.is_empty()) || p.distinct {
                extra.push("Using temporary");
            }
            if !p.order.is_empty() {
                extra.push("Using filesort");
            }
            match &p.source {
                Source::Table(source) => ("SIMPLE", Some(&**source), extra),
                Source::Virtual(table) => return line("SIMPLE", Value::from(table.name()), "ALL", &[], extra),
                Source::Nothing => return line("SIMPLE", Value::Null, "", &[], vec!["No tables used"]),
            }
        }
        Plan::Insert(p) => return line("INSERT", Value::from(p.table.name.as_str()), "ALL", &[], Vec::new()),
        Plan::Update(p) => ("UPDATE", Some(&p.source), filesort(&p.order)),
        Plan::Delete(p) => ("DELETE", Some(&p.source), filesort(&p.order)),
    };
    match source {
        Some(source) => table_line(kind, source, extra),
        None => line(kind, Value::Null, "", &[], extra),
    }
}

fn filesort(order: &[(Expr, bool)]) -> Vec<&'static str> {
    if order.is_empty() { Vec::new() } else { vec!["Using filesort"] }
}

fn table_line(kind: &str, source: &TableSource, mut extra: Vec<&'static str>) -> Vec<Value> {
    let (access, table) = (&source.access, &source.table);
    let index = index_of(table, access.index);
    let ranged = !access.ranges.is_empty();
    let single = |f: &Fixed<Expr>| match f {
        Fixed::AnyOf(list) => list.len() == 1,
        Fixed::NullSafe(_) | Fixed::Null => true,
    };
    let lists = !access.fixed.iter().all(single);
    let join_type = match (access.fixed.is_empty(), ranged || lists) {
        (false, false) if access.unique => "const",
        (false, false) => "ref",
        (_, true) => "range",
        (true, false) if access.index.is_some() || (access.ordered && table.has_primary()) => "index",
        (true, false) => "ALL",
    };
    if source.residual.is_some() {
        extra.insert(0, "Using where");
    }
    if access.covering {
        extra.insert(0, "Using index");
    }
    if access.reverse {
        extra.push("Backward index scan");
    }
    let used = access.fixed.len() + usize::from(ranged);
    let parts: usize = if join_type == "index" { index.parts.len() } else { used };
    let key_len: u32 = index.parts.iter().take(parts).map(|p| key_length(table, p)).sum();
    let key = if join_type == "ALL" { Value::Null } else { Value::from(index.name.as_str()) };
    let reference = match join_type {
        "const" | "ref" => Value::str(vec!["const"; access.fixed.len()].join(",")),
        _ => Value::Null,
    };
    let rows = if join_type == "const" { Value::UInt(1) } else { Value::Null };
    let possible = if used > 0 { key.clone() } else { Value::Null };
    let length = if key.is_null() { Value::Null } else { Value::str(key_len.to_string()) };
    line(kind, Value::from(source.alias.as_str()), join_type, &[possible, key, length, reference, rows], extra)
}

/// Bytes that MySQL counts for a key part.
fn key_length(table: &crate::catalog::Table, part: &crate::key::KeyPart) -> u32 {
    let null = u32::from(part.nullable);
    if let Some(width) = part.kind.fixed_width() {
        return width as u32 + null;
    }
    let Some(column) = table.columns.get(part.column) else { return 0 };
    let chars = part.prefix.unwrap_or(column.ty.length);
    let variable = if column.ty.kind == crate::sql::types::TypeKind::Char { 0 } else { 2 };
    chars * column.ty.collation.max_bytes_per_char() + variable + null
}

fn line(kind: &str, table: Value, join_type: &str, key: &[Value], extra: Vec<&'static str>) -> Vec<Value> {
    let mut row = vec![Value::Int(1), Value::from(kind), table, Value::Null];
    row.push(if join_type.is_empty() { Value::Null } else { Value::from(join_type) });
    row.extend(key.iter().cloned());
    row.resize(10, Value::Null);
    row.push(if join_type.is_empty() { Value::Null } else { Value::Double(100.0) });
    row.push(if extra.is_empty() { Value::Null } else { Value::str(extra.join("; ")) });
    row
}
