//! The statement's first word decides; transactions, prepared statements and administration are here.

use super::Parser;
use crate::sql::ast::{MaintainVerb, ObjectName, PrepareSource, Statement, Transaction};
use crate::sql::error::Result;
use crate::sql::lexer::Tok;

impl Parser<'_> {
    pub(super) fn statement(&mut self) -> Result<Statement> {
        if self.is_op("(") {
            return Ok(Statement::Query(Box::new(self.query()?)));
        }
        let word = self.any_word()?;
        match word.as_str() {
            "SELECT" | "WITH" | "TABLE" | "VALUES" => {
                self.at -= 1;
                Ok(Statement::Query(Box::new(self.query()?)))
            }
            "INSERT" => self.insert(false),
            "REPLACE" => self.insert(true),
            "UPDATE" => self.update(),
            "DELETE" => self.delete(),
            "TRUNCATE" => {
                self.eat("TABLE");
                Ok(Statement::Truncate(self.object_name()?))
            }
            "CREATE" => self.create(),
            "DROP" => self.drop_statement(),
            "ALTER" => self.alter(),
            "RENAME" => self.rename(),
            "SET" => self.set(),
            "USE" => Ok(Statement::Use(self.name()?)),
            "SHOW" => self.show(),
            "DESCRIBE" | "DESC" | "EXPLAIN" => self.explain(),
            "KILL" => {
                let query = self.eat_any(&["CONNECTION", "QUERY"]) == Some(1);
                Ok(Statement::Kill { query, id: self.expr()? })
            }
            "PREPARE" => self.prepare(),
            "EXECUTE" => {
                let name = self.name()?;
                let using = if self.eat("USING") { self.comma_list(Self::user_variable)? } else { Vec::new() };
                Ok(Statement::Execute { name, using })
            }
            "DEALLOCATE" => {
                self.expect("PREPARE")?;
                Ok(Statement::Deallocate(self.name()?))
            }
            "DO" => Ok(Statement::Do(self.comma_list(Self::expr)?)),
            "FLUSH" => self.flush(),
            "LOCK" | "UNLOCK" => self.table_locks(word == "LOCK"),
            "ANALYZE" | "CHECK" | "OPTIMIZE" | "REPAIR" | "CHECKSUM" => self.maintain(&word),
            "BEGIN" | "START" | "COMMIT" | "ROLLBACK" | "SAVEPOINT" | "RELEASE" => {
                self.transaction(&word).map(Statement::Transaction)
            }
            "GRANT" | "REVOKE" | "CALL" | "LOAD" | "HANDLER" | "XA" | "INSTALL" | "UNINSTALL" | "RESET" | "CHANGE"
            | "PURGE" | "STOP" | "BINLOG" | "CACHE" | "CLONE" | "GET" | "SIGNAL" | "RESIGNAL" | "HELP" | "IMPORT"
            | "RESTART" | "SHUTDOWN" => {
                self.skip_statement();
                Ok(Statement::Unsupported(word))
            }
            _ => {
                self.at -= 1;
                self.fail()
            }
        }
    }

    fn transaction(&mut self, word: &str) -> Result<Transaction> {
        match word {
            "BEGIN" => {
                self.eat("WORK");
                Ok(Transaction::Begin { consistent_snapshot: false, read_only: None })
            }
            "START" => self.start_transaction(),
            "SAVEPOINT" => Ok(Transaction::Savepoint(self.name()?)),
            "RELEASE" => {
                self.expect("SAVEPOINT")?;
                Ok(Transaction::Release(self.name()?))
            }
            _ => self.end_transaction(word == "COMMIT"),
        }
    }

    fn start_transaction(&mut self) -> Result<Transaction> {
        self.expect("TRANSACTION")?;
        let (mut consistent_snapshot, mut read_only) = (false, None);
        let mut first = true;
        loop {
            if self.eat("WITH") {
                self.expect_words(&["CONSISTENT", "SNAPSHOT"])?;
                consistent_snapshot = true;
            } else if self.eat("READ") {
                read_only = self.eat_any(&["ONLY", "WRITE"]).map(|which| which == 0);
                if read_only.is_none() {
                    return self.fail();
                }
            } else if !first {
                return self.fail();
            }
            first = false;
            if !self.eat_op(",") {
                return Ok(Transaction::Begin { consistent_snapshot, read_only });
            }
        }
    }

    fn end_transaction(&mut self, commit: bool) -> Result<Transaction> {
        self.eat("WORK");
        if !commit && self.eat("TO") {
            self.eat("SAVEPOINT");
            return Ok(Transaction::RollbackTo(self.name()?));
        }
        let (mut chain, mut release) = (false, false);
        if self.eat("AND") {
            chain = !self.eat("NO");
            self.expect("CHAIN")?;
        }
        if self.is_word("NO") || self.is_word("RELEASE") {
            release = !self.eat("NO");
            self.expect("RELEASE")?;
        }
        Ok(if commit { Transaction::Commit { chain, release } } else { Transaction::Rollback { chain, release } })
    }

    fn explain(&mut self) -> Result<Statement> {
        let analyze = self.eat("ANALYZE");
        let mut format = None;
        if self.is_word("FORMAT") && matches!(self.peek_at(1), Tok::Op("=")) {
            self.at += 2;
            format = Some(self.name_or_text()?.to_ascii_uppercase());
        }
        if self.eat_any(&["EXTENDED", "PARTITIONS"]).is_none() && self.is_word("FOR") {
            return self.unsupported_rest("EXPLAIN");
        }
        let explainable = ["SELECT", "INSERT", "UPDATE", "DELETE", "REPLACE", "WITH", "TABLE"];
        if self.is_op("(") || explainable.iter().any(|word| self.is_word(word)) {
            let statement = Box::new(self.deeper(Self::statement)?);
            return Ok(Statement::Explain { analyze, format, statement });
        }
        self.describe()
    }

    fn prepare(&mut self) -> Result<Statement> {
        let name = self.name()?;
        self.expect("FROM")?;
        let source = match self.peek() {
            Tok::UserVar(_) => PrepareSource::Variable(self.user_variable()?),
            _ => PrepareSource::Text(self.text()?),
        };
        Ok(Statement::Prepare { name, source })
    }

    fn flush(&mut self) -> Result<Statement> {
        self.eat_any(&["NO_WRITE_TO_BINLOG", "LOCAL"]);
        let mut words = vec![self.any_word()?];
        while !self.at_end() && !self.is_op(";") {
            match self.next() {
                Tok::Word(word) => words.push(word.to_ascii_uppercase()),
                Tok::Quoted(name) => words.push(name.into_owned()),
                Tok::Op(op @ ("," | ".")) => words.push(op.to_owned()),
                _ => {
                    self.at -= 1;
                    return self.fail();
                }
            }
        }
        Ok(Statement::Flush(words))
    }

    fn table_locks(&mut self, lock: bool) -> Result<Statement> {
        if self.eat("INSTANCE") {
            self.skip_statement();
            return Ok(Statement::Unsupported("LOCK INSTANCE".into()));
        }
        if self.eat_any(&["TABLES", "TABLE"]).is_none() {
            return self.fail();
        }
        if !lock {
            return Ok(Statement::Transaction(Transaction::UnlockTables));
        }
        let tables = self.comma_list(|parser| {
            let name: ObjectName = parser.object_name()?;
            let alias = parser.table_alias()?;
            parser.eat("LOW_PRIORITY");
            let write = match parser.eat_any(&["READ", "WRITE"]) {
                Some(which) => which == 1,
                None => return parser.fail(),
            };
            parser.eat("LOCAL");
            Ok((name, alias, write))
        })?;
        Ok(Statement::Transaction(Transaction::LockTables(tables)))
    }

    fn maintain(&mut self, word: &str) -> Result<Statement> {
        let verb = match word {
            "ANALYZE" => MaintainVerb::Analyze,
            "CHECK" => MaintainVerb::Check,
            "OPTIMIZE" => MaintainVerb::Optimize,
            "REPAIR" => MaintainVerb::Repair,
            _ => MaintainVerb::Checksum,
        };
        self.eat_any(&["NO_WRITE_TO_BINLOG", "LOCAL"]);
        if self.eat_any(&["TABLE", "TABLES"]).is_none() {
            return self.fail();
        }
        let tables = self.comma_list(Self::object_name)?;
        while self.eat_any(&["QUICK", "FAST", "MEDIUM", "EXTENDED", "CHANGED", "FOR", "UPGRADE", "USE_FRM"]).is_some() {
        }
        if self.is_word("UPDATE") || self.is_word("DROP") {
            self.skip_statement();
            return Ok(Statement::Unsupported("ANALYZE TABLE ... HISTOGRAM".into()));
        }
        Ok(Statement::Maintain { verb, tables })
    }
}
