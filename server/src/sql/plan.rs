//! Statements as they run: names resolved to one table, access path chosen, expressions bound.
//!
//! Plans are immutable and shared: a prepared statement keeps its plan as long as the catalog's epoch stands. One table
//! at a time; joins, subqueries and set operations will become further variants of [`Source`].

use std::sync::Arc;

use self::access::Access;
use super::{
    ast::RowLock,
    expr::{AggregateCall, Expr},
    types::DataType,
};
use crate::{
    catalog::Table,
    wire::result::{Column, ColumnSet},
};

pub mod access;
pub mod dml;
pub mod explain;
pub mod scope;
pub mod select;

/// Where a SELECT's rows come from.
#[derive(Clone, Debug)]
pub enum Source {
    /// No FROM: one empty row.
    Nothing,
    Table(Box<TableSource>),
    /// A table of information_schema, made when read.
    Virtual(crate::exec::schema::VirtualTable),
}

/// A stored table, how it is read, and which rows of it.
#[derive(Clone, Debug)]
pub struct TableSource {
    pub table: Arc<Table>,
    pub alias: String,
    pub access: Access<Expr>,
    /// The whole condition.
    pub filter: Option<Expr>,
    /// What is left of it when the key ranges were exact.
    pub residual: Option<Expr>,
    /// Columns that a condition reads, then the others.
    pub filter_columns: Vec<usize>,
    pub other_columns: Vec<usize>,
}

/// GROUP BY and aggregates. The grouped row is the group's first input row, then the aggregates.
#[derive(Clone, Debug)]
pub struct Grouping {
    pub keys: Vec<Expr>,
    pub aggregates: Vec<AggregateCall>,
    pub having: Option<Expr>,
}

/// A SELECT.
#[derive(Clone, Debug)]
pub struct SelectPlan {
    pub source: Source,
    /// Slots of the input row; aggregates come after them.
    pub width: usize,
    /// Condition of a source that is not a stored table.
    pub filter: Option<Expr>,
    pub grouping: Option<Grouping>,
    pub outputs: Vec<Expr>,
    pub columns: Vec<Column>,
    pub column_set: ColumnSet,
    pub distinct: bool,
    /// Keys and whether each descends; empty if rows come in order already.
    pub order: Vec<(Expr, bool)>,
    pub limit: Option<Expr>,
    pub offset: Option<Expr>,
    pub lock: Option<RowLock>,
    pub calc_found_rows: bool,
    /// SELECT ... INTO @a, @b.
    pub into: Vec<String>,
}

/// How a statement gets a column's value.
#[derive(Clone, Debug)]
pub enum NewValue {
    Expr(Expr),
    Default,
}

/// INSERT and REPLACE.
#[derive(Clone, Debug)]
pub struct InsertPlan {
    pub table: Arc<Table>,
    pub replace: bool,
    pub ignore: bool,
    /// Ordinals of the columns that the rows list.
    pub columns: Vec<usize>,
    /// Each as long as `columns`.
    pub rows: Vec<Vec<NewValue>>,
    /// ON DUPLICATE KEY UPDATE: slots 0..n are the standing row, n..2n the row that was to be inserted.
    pub on_duplicate: Vec<(usize, NewValue)>,
}

/// UPDATE.
#[derive(Clone, Debug)]
pub struct UpdatePlan {
    pub source: TableSource,
    pub ignore: bool,
    pub assignments: Vec<(usize, NewValue)>,
    pub order: Vec<(Expr, bool)>,
    pub limit: Option<Expr>,
}

/// DELETE.
#[derive(Clone, Debug)]
pub struct DeletePlan {
    pub source: TableSource,
    pub order: Vec<(Expr, bool)>,
    pub limit: Option<Expr>,
}

/// A planned statement.
#[derive(Clone, Debug)]
pub enum Plan {
    Select(Box<SelectPlan>),
    Insert(Box<InsertPlan>),
    Update(Box<UpdatePlan>),
    Delete(Box<DeletePlan>),
}

impl Plan {
    /// What a client is told of the result's columns.
    pub fn columns(&self) -> &[Column] {
        match self {
            Self::Select(plan) if plan.into.is_empty() => &plan.columns,
            _ => &[],
        }
    }
}

impl SelectPlan {}

/// A result column of this type.
pub fn result_column(name: &str, ty: &DataType, nullable: bool) -> Column {
    use crate::wire::consts::flag;
    let mut flags = 0;
    if !nullable {
        flags |= flag::NOT_NULL;
    }
    if ty.unsigned {
        flags |= flag::UNSIGNED;
    }
    if ty.zerofill {
        flags |= flag::ZEROFILL;
    }
    if ty.is_blob() {
        flags |= flag::BLOB;
    }
    let text = ty.is_string() && !ty.is_binary();
    if !text {
        flags |= flag::BINARY;
    }
    Column {
        name: name.to_owned(),
        type_byte: ty.type_byte(),
        flags,
        // The client's character set is utf8mb4: text is sent as its default collation.
        collation: if text { 255 } else { 63 },
        length: ty.display_length(),
        decimals: ty.scale,
        ..Column::default()
    }
}
