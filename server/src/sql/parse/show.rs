//! SHOW.

use super::Parser;
use crate::sql::ast::{ObjectName, Show, ShowFilter, ShowKind, Statement};
use crate::sql::error::Result;
use crate::sql::lexer::Tok;

impl Parser<'_> {
    /// After SHOW.
    pub(super) fn show(&mut self) -> Result<Statement> {
        let what = self.show_kind()?;
        let filter = self.show_filter()?;
        Ok(Statement::Show(Box::new(Show { what, filter })))
    }

    fn show_kind(&mut self) -> Result<ShowKind> {
        let extended = self.eat("EXTENDED");
        let full = self.eat("FULL");
        let scope = self.eat_any(&["GLOBAL", "SESSION", "LOCAL"]);
        let global = scope == Some(0);
        if self.eat("VARIABLES") {
            return Ok(ShowKind::Variables { global });
        }
        if self.eat("STATUS") {
            return Ok(ShowKind::Status { global });
        }
        if scope.is_some() {
            return self.fail();
        }
        if self.eat("TABLES") {
            return Ok(ShowKind::Tables { full, database: self.from_database()? });
        }
        if self.eat_any(&["COLUMNS", "FIELDS"]).is_some() {
            return Ok(ShowKind::Columns { full, table: self.from_table()? });
        }
        if self.eat("PROCESSLIST") {
            return Ok(ShowKind::ProcessList { full });
        }
        if self.eat_any(&["INDEX", "INDEXES", "KEYS"]).is_some() {
            return Ok(ShowKind::Index { table: self.from_table()? });
        }
        if full || extended {
            return self.fail();
        }
        self.show_simple()
    }

    fn show_simple(&mut self) -> Result<ShowKind> {
        let word = self.any_word()?;
        Ok(match word.as_str() {
            "DATABASES" | "SCHEMAS" => ShowKind::Databases,
            "TABLE" => {
                self.expect("STATUS")?;
                ShowKind::TableStatus { database: self.from_database()? }
            }
            "OPEN" => {
                self.expect("TABLES")?;
                ShowKind::OpenTables { database: self.from_database()? }
            }
            "CREATE" => return self.show_create(),
            "WARNINGS" => ShowKind::Warnings { limit: self.limit()? },
            "ERRORS" => ShowKind::Errors { limit: self.limit()? },
            "COUNT" => {
                self.expect_op("(")?;
                self.expect_op("*")?;
                self.expect_op(")")?;
                match self.eat_any(&["WARNINGS", "ERRORS"]) {
                    Some(which) => ShowKind::CountWarnings { errors: which == 1 },
                    None => return self.fail(),
                }
            }
            "ENGINES" => ShowKind::Engines,
            "STORAGE" => {
                self.expect("ENGINES")?;
                ShowKind::Engines
            }
            "ENGINE" => {
                let name = self.name_or_text()?;
                self.any_word()?;
                ShowKind::EngineStatus(name)
            }
            "COLLATION" => ShowKind::Collation,
            "CHARSET" => ShowKind::CharacterSet,
            "CHARACTER" => {
                self.expect("SET")?;
                ShowKind::CharacterSet
            }
            "GRANTS" => {
                let user = if self.eat("FOR") { self.account()? } else { None };
                ShowKind::Grants { user }
            }
            "PLUGINS" => ShowKind::Plugins,
            "PRIVILEGES" => ShowKind::Privileges,
            "TRIGGERS" => ShowKind::Triggers { database: self.from_database()? },
            "EVENTS" => ShowKind::Events { database: self.from_database()? },
            "PROCEDURE" | "FUNCTION" => {
                self.expect("STATUS")?;
                ShowKind::Routines { function: word == "FUNCTION" }
            }
            "MASTER" | "BINARY" => self.show_binary(&word)?,
            "SLAVE" | "REPLICA" => {
                let rest = self.any_word()?;
                if rest == "STATUS" { ShowKind::ReplicaStatus } else { ShowKind::Other(format!("{word} {rest}")) }
            }
            "TRANSACTION" => {
                self.expect("OUTCOME")?;
                ShowKind::TransactionOutcome(self.text()?)
            }
            "PROFILES" | "PROFILE" => ShowKind::Profiles,
            "BINLOG" | "RELAYLOG" | "REPLICAS" | "PARSE_TREE" => {
                self.skip_statement();
                ShowKind::Other(word)
            }
            _ => {
                self.at -= 1;
                return self.fail();
            }
        })
    }

    fn show_binary(&mut self, word: &str) -> Result<ShowKind> {
        if self.eat("LOGS") {
            return Ok(ShowKind::BinaryLogs);
        }
        if word == "BINARY" {
            self.expect("LOG")?;
        }
        self.expect("STATUS")?;
        Ok(ShowKind::MasterStatus)
    }

    fn show_create(&mut self) -> Result<ShowKind> {
        if self.eat("TABLE") {
            return Ok(ShowKind::CreateTable(self.object_name()?));
        }
        if self.eat_any(&["DATABASE", "SCHEMA"]).is_some() {
            let if_not_exists = self.if_not_exists();
            return Ok(ShowKind::CreateDatabase { name: self.name()?, if_not_exists });
        }
        let word = self.any_word()?;
        if !["VIEW", "PROCEDURE", "FUNCTION", "TRIGGER", "EVENT", "USER"].contains(&word.as_str()) {
            self.at -= 1;
            return self.fail();
        }
        self.skip_statement();
        Ok(ShowKind::Other(format!("CREATE {word}")))
    }

    fn from_database(&mut self) -> Result<Option<String>> {
        if self.eat_any(&["FROM", "IN"]).is_some() { self.name().map(Some) } else { Ok(None) }
    }

    /// `FROM table [FROM db]`
    fn from_table(&mut self) -> Result<ObjectName> {
        if self.eat_any(&["FROM", "IN"]).is_none() {
            return self.fail();
        }
        let mut table = self.object_name()?;
        if let Some(database) = self.from_database()? {
            table.database = Some(database);
        }
        Ok(table)
    }

    fn show_filter(&mut self) -> Result<Option<ShowFilter>> {
        if self.eat("LIKE") {
            return self.text().map(|pattern| Some(ShowFilter::Like(pattern)));
        }
        if self.eat("WHERE") {
            return self.expr().map(|expr| Some(ShowFilter::Where(expr)));
        }
        Ok(None)
    }

    /// After DESCRIBE, DESC or EXPLAIN, when a table follows.
    pub(super) fn describe(&mut self) -> Result<Statement> {
        let table = self.object_name()?;
        let column = match self.peek() {
            Tok::Text(_) => Some(self.text()?),
            _ if self.is_name() => Some(self.name()?),
            _ => None,
        };
        Ok(Statement::Describe { table, column })
    }
}
