//! Names that a statement over one table may use.

use std::cell::RefCell;

use crate::{
    errmap::error,
    sql::{ast::ColumnName, bind::Scope, error::Result, expr::Expr, types::DataType},
};

/// One column as the scope knows it.
#[derive(Clone, Debug)]
pub struct ScopeColumn {
    pub name: String,
    pub ty: DataType,
    pub nullable: bool,
}

/// Whether select-list aliases are names too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Aliases {
    #[default]
    Hidden,
    /// GROUP BY: columns first.
    AfterColumns,
    /// ORDER BY and HAVING: aliases first.
    BeforeColumns,
}

/// The columns of one table, and aliases of the select list once it is bound.
#[derive(Debug, Default)]
pub struct TableScope {
    pub database: String,
    /// Alias or name: what qualifiers must say.
    pub table: String,
    pub columns: Vec<ScopeColumn>,
    /// VALUES(column) refers to slots after the table's own.
    pub with_inserted: bool,
    /// `AS alias` of the new row in INSERT.
    pub row_alias: Option<(String, Vec<String>)>,
    pub(crate) aliases: RefCell<(Aliases, Vec<(String, Expr)>)>,
}

impl TableScope {
    /// Sets how aliases are seen from now on.
    pub fn see_aliases(&self, mode: Aliases) {
        self.aliases.borrow_mut().0 = mode;
    }

    /// Adds an alias of the select list.
    pub fn add_alias(&self, name: &str, expr: &Expr) {
        self.aliases.borrow_mut().1.push((name.to_owned(), expr.clone()));
    }

    /// Ordinal of a column of the table itself; 1054 if there is none.
    pub fn ordinal(&self, name: &ColumnName, clause: &str) -> Result<usize> {
        let found = if self.qualified_here(name) { self.position(&name.name) } else { None };
        found.ok_or_else(|| crate::errmap::unknown_column(&name.to_string(), clause))
    }

    fn qualified_here(&self, name: &ColumnName) -> bool {
        let table = name.table.as_deref().is_none_or(|t| t == self.table);
        let database = name.database.as_deref().is_none_or(|d| d.eq_ignore_ascii_case(&self.database));
        table && database
    }

    fn position(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|c| c.name.eq_ignore_ascii_case(name)).or_else(|| {
            let lower = (!name.is_ascii()).then(|| name.to_lowercase())?;
            self.columns.iter().position(|c| c.name.to_lowercase() == lower)
        })
    }

    fn slot(&self, at: usize, shift: usize) -> Expr {
        let column = &self.columns[at];
        Expr::slot((at + shift) as u32, column.ty, column.nullable)
    }

    fn own(&self, name: &ColumnName) -> Option<Expr> {
        let at = self.qualified_here(name).then(|| self.position(&name.name)).flatten()?;
        Some(self.slot(at, 0))
    }

    fn alias(&self, name: &ColumnName) -> Result<Option<Expr>> {
        if name.table.is_some() {
            return Ok(None);
        }
        let aliases = self.aliases.borrow();
        let mut found = aliases.1.iter().filter(|(alias, _)| alias.eq_ignore_ascii_case(&name.name));
        let first = found.next();
        if let Some((_, a)) = first
            && found.any(|(_, b)| a.as_slot().is_none() || a.as_slot() != b.as_slot())
        {
            return Err(error(1052, format!("Column '{}' in order clause is ambiguous", name.name)));
        }
        Ok(first.map(|(_, e)| e.clone()))
    }

    /// A column of the new row by its INSERT alias.
    fn by_row_alias(&self, name: &ColumnName) -> Option<Expr> {
        let (alias, names) = self.row_alias.as_ref()?;
        let named = names.iter().position(|n| n.eq_ignore_ascii_case(&name.name));
        match &name.table {
            Some(table) if table == alias => {}
            None if named.is_some() => {}
            _ => return None,
        }
        let at = if names.is_empty() { self.position(&name.name)? } else { named? };
        Some(self.slot(at, self.columns.len()))
    }
}

impl Scope for TableScope {
    fn column(&self, name: &ColumnName) -> Result<Option<Expr>> {
        let mode = self.aliases.borrow().0;
        if mode == Aliases::BeforeColumns
            && let Some(found) = self.alias(name)?
        {
            return Ok(Some(found));
        }
        if let Some(found) = self.own(name).or_else(|| self.by_row_alias(name)) {
            return Ok(Some(found));
        }
        if mode == Aliases::AfterColumns { self.alias(name) } else { Ok(None) }
    }

    fn inserted(&self, name: &ColumnName) -> Result<Option<Expr>> {
        if !self.with_inserted {
            return Ok(None);
        }
        let at = self.ordinal(name, "field list")?;
        Ok(Some(self.slot(at, self.columns.len())))
    }
}
