//! INSERT, REPLACE, UPDATE, DELETE.

use super::Parser;
use crate::sql::ast::{
    Assignment, ColumnName, Delete, Expr, Insert, InsertSource, ObjectName, Statement, TableRef, Update,
};
use crate::sql::error::Result;
use crate::sql::lexer::Tok;

impl Parser<'_> {
    /// After INSERT or REPLACE.
    pub(super) fn insert(&mut self, replace: bool) -> Result<Statement> {
        let mut ignore = false;
        while let Some(which) = self.eat_any(&["LOW_PRIORITY", "HIGH_PRIORITY", "DELAYED", "IGNORE"]) {
            ignore |= which == 3;
        }
        self.eat("INTO");
        let table = self.object_name()?;
        if self.is_word("PARTITION") {
            self.skip_statement();
            return Ok(Statement::Unsupported("INSERT ... PARTITION".into()));
        }
        let mut insert = Insert {
            replace,
            ignore,
            table,
            columns: Vec::new(),
            source: InsertSource::Values(Vec::new()),
            row_alias: None,
            on_duplicate: Vec::new(),
        };
        if self.is_op("(") && !self.query_follows_paren() {
            insert.columns = self.column_list()?;
        }
        self.insert_source(&mut insert)?;
        if self.eat("AS") {
            let alias = self.name()?;
            let columns = if self.is_op("(") { self.paren_list(Self::name)? } else { Vec::new() };
            insert.row_alias = Some((alias, columns));
        }
        if self.eat_words(&["ON", "DUPLICATE"]) {
            self.expect_words(&["KEY", "UPDATE"])?;
            insert.on_duplicate = self.comma_list(Self::assignment)?;
        }
        Ok(Statement::Insert(Box::new(insert)))
    }

    fn insert_source(&mut self, insert: &mut Insert) -> Result<()> {
        if self.eat("SET") {
            let mut row = Vec::new();
            for assignment in self.comma_list(Self::assignment)? {
                insert.columns.push(assignment.column.name);
                row.push(assignment.value);
            }
            insert.source = InsertSource::Values(vec![row]);
        } else if self.eat_any(&["VALUES", "VALUE"]).is_some() {
            insert.source = InsertSource::Values(self.comma_list(Self::row_of_values)?);
        } else {
            insert.source = InsertSource::Query(Box::new(self.query()?));
        }
        Ok(())
    }

    fn row_of_values(&mut self) -> Result<Vec<Expr>> {
        self.eat("ROW");
        self.expect_op("(")?;
        if self.eat_op(")") {
            return Ok(Vec::new());
        }
        let row = self.comma_list(Self::expr)?;
        self.expect_op(")")?;
        Ok(row)
    }

    /// `(a, t.b, ...)`, possibly empty.
    fn column_list(&mut self) -> Result<Vec<String>> {
        self.expect_op("(")?;
        if self.eat_op(")") {
            return Ok(Vec::new());
        }
        let names = self.comma_list(Self::column_name)?;
        self.expect_op(")")?;
        Ok(names.into_iter().map(|column: ColumnName| column.name).collect())
    }

    fn assignment(&mut self) -> Result<Assignment> {
        let column = self.column_name()?;
        if !self.eat_op(":=") {
            self.expect_op("=")?;
        }
        Ok(Assignment { column, value: self.expr()? })
    }

    /// After UPDATE.
    pub(super) fn update(&mut self) -> Result<Statement> {
        let mut ignore = false;
        while let Some(which) = self.eat_any(&["LOW_PRIORITY", "IGNORE"]) {
            ignore |= which == 1;
        }
        let tables = self.table_refs()?;
        self.expect("SET")?;
        let assignments = self.comma_list(Self::assignment)?;
        let filter = if self.eat("WHERE") { Some(self.expr()?) } else { None };
        let (order_by, limit) = (self.order_by()?, self.limit()?);
        Ok(Statement::Update(Box::new(Update { ignore, tables, assignments, filter, order_by, limit })))
    }

    /// After DELETE.
    pub(super) fn delete(&mut self) -> Result<Statement> {
        let mut delete = Delete {
            ignore: false,
            targets: Vec::new(),
            from: Vec::new(),
            filter: None,
            order_by: Vec::new(),
            limit: None,
        };
        while let Some(which) = self.eat_any(&["LOW_PRIORITY", "QUICK", "IGNORE"]) {
            delete.ignore |= which == 2;
        }
        if self.eat("FROM") {
            let first = self.delete_target()?;
            if self.is_op(",") || self.is_word("USING") {
                delete.targets.push(first);
                while self.eat_op(",") {
                    delete.targets.push(self.delete_target()?);
                }
                self.expect("USING")?;
                delete.from = self.table_refs()?;
            } else {
                let alias = self.table_alias()?;
                delete.from = vec![TableRef::Table { name: first, alias, hints: Vec::new() }];
            }
        } else {
            delete.targets = self.comma_list(Self::delete_target)?;
            self.expect("FROM")?;
            delete.from = self.table_refs()?;
        }
        if self.eat("WHERE") {
            delete.filter = Some(self.expr()?);
        }
        if delete.targets.is_empty() {
            delete.order_by = self.order_by()?;
            delete.limit = self.limit()?;
        }
        Ok(Statement::Delete(Box::new(delete)))
    }

    /// `table` or `table.*`
    fn delete_target(&mut self) -> Result<ObjectName> {
        let first = self.name()?;
        let mut name = ObjectName { database: None, name: first };
        while self.is_op(".") {
            self.at += 1;
            if matches!(self.peek(), Tok::Op("*")) {
                self.at += 1;
                break;
            }
            name = ObjectName { database: Some(name.name), name: self.name_after_dot()? };
        }
        Ok(name)
    }
}
