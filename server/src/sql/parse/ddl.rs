//! CREATE, DROP, RENAME: databases, tables, indexes.

use super::Parser;
use super::ddl_column::ColumnExtras;
use crate::sql::ast::{CreateTable, Ddl, ForeignKey, IndexDef, IndexKind, IndexPart, Statement, TableOption};
use crate::sql::error::Result;
use crate::sql::lexer::Tok;

fn ddl(ddl: Ddl) -> Result<Statement> {
    Ok(Statement::Ddl(Box::new(ddl)))
}

/// An element of CREATE TABLE or ADD that is not a column.
pub(super) enum TableElement {
    Index(IndexDef),
    ForeignKey(ForeignKey),
    Check(super::super::ast::Check),
}

impl Parser<'_> {
    /// After CREATE.
    pub(super) fn create(&mut self) -> Result<Statement> {
        if self.eat_any(&["DATABASE", "SCHEMA"]).is_some() {
            let if_not_exists = self.if_not_exists();
            let name = self.name()?;
            return ddl(Ddl::CreateDatabase { name, if_not_exists, options: self.table_options()? });
        }
        let temporary = self.eat("TEMPORARY");
        if self.eat("TABLE") {
            return self.create_table(temporary);
        }
        let kind = match self.eat_any(&["UNIQUE", "FULLTEXT", "SPATIAL"]) {
            Some(0) => IndexKind::Unique,
            Some(1) => IndexKind::FullText,
            Some(_) => IndexKind::Spatial,
            None => IndexKind::Plain,
        };
        if self.eat("INDEX") {
            let name = self.name()?;
            self.index_type()?;
            self.expect("ON")?;
            let table = self.object_name()?;
            let mut index =
                IndexDef { name: Some(name), kind, parts: self.index_parts()?, comment: None, invisible: false };
            self.index_options(&mut index)?;
            self.algorithm_and_lock()?;
            return ddl(Ddl::CreateIndex { table, index });
        }
        if kind != IndexKind::Plain || !matches!(self.peek(), Tok::Word(_)) {
            return self.fail();
        }
        self.unsupported_rest("CREATE")
    }

    /// Names the statement by its first words and skips the rest.
    pub(super) fn unsupported_rest(&mut self, verb: &str) -> Result<Statement> {
        let word = match self.peek() {
            Tok::Word(word) => word.to_ascii_uppercase(),
            _ => return self.fail(),
        };
        self.skip_statement();
        Ok(Statement::Unsupported(format!("{verb} {word}")))
    }

    fn create_table(&mut self, temporary: bool) -> Result<Statement> {
        let if_not_exists = self.if_not_exists();
        let name = self.object_name()?;
        if self.eat("LIKE") {
            let like = self.object_name()?;
            return ddl(Ddl::CreateTableLike { name, like, if_not_exists, temporary });
        }
        if matches!(self.peek(), Tok::Op("(")) && self.is_word_at(1, "LIKE") {
            self.at += 2;
            let like = self.object_name()?;
            self.expect_op(")")?;
            return ddl(Ddl::CreateTableLike { name, like, if_not_exists, temporary });
        }
        let mut table = CreateTable {
            name,
            temporary,
            if_not_exists,
            columns: Vec::new(),
            indexes: Vec::new(),
            foreign_keys: Vec::new(),
            checks: Vec::new(),
            options: Vec::new(),
            partitioned: false,
            query: None,
        };
        if self.is_op("(") && !self.query_follows_paren() {
            self.table_elements(&mut table)?;
        }
        table.options = self.table_options()?;
        if self.is_word("PARTITION") {
            table.partitioned = true;
            self.skip_statement();
        }
        if self.eat_any(&["IGNORE", "REPLACE"]).is_some() | self.eat("AS") || self.is_word("SELECT") || self.is_op("(")
        {
            table.query = Some(Box::new(self.query()?));
        }
        if table.columns.is_empty() && table.query.is_none() {
            return self.fail();
        }
        ddl(Ddl::CreateTable(table))
    }

    fn table_elements(&mut self, table: &mut CreateTable) -> Result<()> {
        self.expect_op("(")?;
        loop {
            match self.table_element()? {
                Some(TableElement::Index(index)) => table.indexes.push(index),
                Some(TableElement::ForeignKey(key)) => table.foreign_keys.push(key),
                Some(TableElement::Check(check)) => table.checks.push(check),
                None => {
                    let mut extras = ColumnExtras::default();
                    table.columns.push(self.column_def(&mut extras)?);
                    table.indexes.append(&mut extras.indexes);
                    table.checks.append(&mut extras.checks);
                    table.foreign_keys.append(&mut extras.foreign_keys);
                }
            }
            if !self.eat_op(",") {
                return self.expect_op(")");
            }
        }
    }

    /// An index or constraint; `None` if a column comes next.
    pub(super) fn table_element(&mut self) -> Result<Option<TableElement>> {
        let constrained = self.eat("CONSTRAINT");
        let starts = ["PRIMARY", "UNIQUE", "FOREIGN", "CHECK"];
        let symbol =
            if constrained && !starts.iter().any(|word| self.is_word(word)) { Some(self.name()?) } else { None };
        let kind = match self.eat_any(&["PRIMARY", "UNIQUE", "FULLTEXT", "SPATIAL", "INDEX", "KEY"]) {
            Some(0) => {
                self.expect("KEY")?;
                IndexKind::Primary
            }
            Some(which @ 1..=3) => {
                let _ = self.eat("INDEX") || self.eat("KEY");
                [IndexKind::Unique, IndexKind::FullText, IndexKind::Spatial][which - 1]
            }
            Some(_) => IndexKind::Plain,
            None if self.is_word("FOREIGN") => {
                self.expect_words(&["FOREIGN", "KEY"])?;
                let name = if self.is_op("(") { symbol } else { Some(self.name()?).or(symbol) };
                let columns = self.paren_list(Self::name)?;
                return Ok(Some(TableElement::ForeignKey(self.references(name, columns)?)));
            }
            None if self.is_word("CHECK") => return Ok(Some(TableElement::Check(self.check(symbol)?))),
            None if constrained => return self.fail(),
            None => return Ok(None),
        };
        let mut index = IndexDef { name: symbol, kind, parts: Vec::new(), comment: None, invisible: false };
        if self.is_name() && !self.is_word("USING") {
            index.name = Some(self.name()?);
        }
        self.index_type()?;
        index.parts = self.index_parts()?;
        self.index_options(&mut index)?;
        Ok(Some(TableElement::Index(index)))
    }

    /// USING BTREE.
    fn index_type(&mut self) -> Result<()> {
        if self.eat_any(&["USING", "TYPE"]).is_some() {
            self.any_word()?;
        }
        Ok(())
    }

    fn index_parts(&mut self) -> Result<Vec<IndexPart>> {
        self.paren_list(|parser| {
            let mut part = IndexPart { column: String::new(), prefix: None, descending: false, expr: None };
            if parser.eat_op("(") {
                part.expr = Some(parser.expr()?);
                parser.expect_op(")")?;
            } else {
                part.column = parser.name()?;
                if parser.eat_op("(") {
                    part.prefix = Some(u32::try_from(parser.unsigned()?).unwrap_or(u32::MAX));
                    parser.expect_op(")")?;
                }
            }
            part.descending = parser.eat_any(&["ASC", "DESC"]) == Some(1);
            Ok(part)
        })
    }

    fn index_options(&mut self, index: &mut IndexDef) -> Result<()> {
        loop {
            if self.eat("COMMENT") {
                index.comment = Some(self.text()?);
            } else if let Some(which) = self.eat_any(&["VISIBLE", "INVISIBLE"]) {
                index.invisible = which == 1;
            } else if self.eat("KEY_BLOCK_SIZE") {
                self.eat_op("=");
                self.unsigned()?;
            } else if self.is_word("USING") {
                self.index_type()?;
            } else if self.eat_words(&["WITH", "PARSER"]) {
                self.name()?;
            } else {
                return Ok(());
            }
        }
    }

    /// ALGORITHM=..., LOCK=...: hints without effect.
    pub(super) fn algorithm_and_lock(&mut self) -> Result<bool> {
        let mut found = false;
        while self.eat_any(&["ALGORITHM", "LOCK"]).is_some() {
            self.eat_op("=");
            self.any_word()?;
            found = true;
        }
        Ok(found)
    }

    /// Table and database options up to something else.
    pub(super) fn table_options(&mut self) -> Result<Vec<TableOption>> {
        let mut options = Vec::new();
        loop {
            let comma = self.is_op(",") && !options.is_empty();
            if comma {
                self.at += 1;
            }
            match self.table_option()? {
                Some(option) => options.push(option),
                None => {
                    self.at -= usize::from(comma);
                    return Ok(options);
                }
            }
        }
    }

    pub(super) fn table_option(&mut self) -> Result<Option<TableOption>> {
        let start = self.at;
        self.eat("DEFAULT");
        let name = if self.eat_words(&["CHARACTER", "SET"]) || self.eat_words(&["CHAR", "SET"]) {
            "CHARSET".to_owned()
        } else if self.eat_words(&["DATA", "DIRECTORY"]) {
            "DATA DIRECTORY".to_owned()
        } else if self.eat_words(&["INDEX", "DIRECTORY"]) {
            "INDEX DIRECTORY".to_owned()
        } else {
            const KNOWN: [&str; 25] = [
                "ENGINE",
                "CHARSET",
                "COLLATE",
                "COMMENT",
                "AUTO_INCREMENT",
                "ROW_FORMAT",
                "KEY_BLOCK_SIZE",
                "AVG_ROW_LENGTH",
                "CHECKSUM",
                "COMPRESSION",
                "CONNECTION",
                "DELAY_KEY_WRITE",
                "ENCRYPTION",
                "INSERT_METHOD",
                "MAX_ROWS",
                "MIN_ROWS",
                "PACK_KEYS",
                "PASSWORD",
                "STATS_AUTO_RECALC",
                "STATS_PERSISTENT",
                "STATS_SAMPLE_PAGES",
                "TABLESPACE",
                "UNION",
                "SECONDARY_ENGINE",
                "AUTOEXTEND_SIZE",
            ];
            let Some(which) = self.eat_any(&KNOWN) else {
                self.at = start;
                return Ok(None);
            };
            KNOWN[which].to_owned()
        };
        self.eat_op("=");
        let value = match self.peek() {
            Tok::Number(text) => {
                let text = (*text).to_owned();
                self.at += 1;
                text
            }
            Tok::Op("(") => self.paren_list(Self::name)?.join(","),
            _ => self.name_or_text()?,
        };
        Ok(Some(TableOption { name, value }))
    }

    /// After DROP.
    pub(super) fn drop_statement(&mut self) -> Result<Statement> {
        if self.eat_any(&["DATABASE", "SCHEMA"]).is_some() {
            let if_exists = self.if_exists();
            return ddl(Ddl::DropDatabase { name: self.name()?, if_exists });
        }
        let temporary = self.eat("TEMPORARY");
        if self.eat_any(&["TABLE", "TABLES"]).is_some() {
            let if_exists = self.if_exists();
            let names = self.comma_list(Self::object_name)?;
            self.eat_any(&["RESTRICT", "CASCADE"]);
            return ddl(Ddl::DropTable { names, if_exists, temporary });
        }
        if self.eat("VIEW") {
            let if_exists = self.if_exists();
            let names = self.comma_list(Self::object_name)?;
            self.eat_any(&["RESTRICT", "CASCADE"]);
            return ddl(Ddl::DropView { names, if_exists });
        }
        if self.eat("INDEX") {
            let name = if self.eat("PRIMARY") { "PRIMARY".into() } else { self.name()? };
            self.expect("ON")?;
            let table = self.object_name()?;
            self.algorithm_and_lock()?;
            return ddl(Ddl::DropIndex { table, name });
        }
        if self.eat("PREPARE") {
            return Ok(Statement::Deallocate(self.name()?));
        }
        self.unsupported_rest("DROP")
    }

    /// After RENAME.
    pub(super) fn rename(&mut self) -> Result<Statement> {
        if self.eat_any(&["TABLE", "TABLES"]).is_none() {
            return self.unsupported_rest("RENAME");
        }
        let pairs = self.comma_list(|parser| {
            let from = parser.object_name()?;
            parser.expect("TO")?;
            Ok((from, parser.object_name()?))
        })?;
        ddl(Ddl::RenameTable(pairs))
    }
}
