//! ALTER TABLE, ALTER DATABASE.

use super::Parser;
use super::ddl::TableElement;
use super::ddl_column::ColumnExtras;
use crate::sql::ast::{AlterAction, ColumnPlace, Ddl, Statement};
use crate::sql::error::Result;
use crate::sql::lexer::Tok;

impl Parser<'_> {
    /// After ALTER.
    pub(super) fn alter(&mut self) -> Result<Statement> {
        if self.eat_any(&["DATABASE", "SCHEMA"]).is_some() {
            let options_follow = ["DEFAULT", "CHARACTER", "CHARSET", "COLLATE", "ENCRYPTION", "READ"];
            let name = if options_follow.iter().any(|word| self.is_word(word)) { None } else { Some(self.name()?) };
            let options = self.table_options()?;
            return if options.is_empty() {
                self.fail()
            } else {
                Ok(Statement::Ddl(Box::new(Ddl::AlterDatabase { name, options })))
            };
        }
        if self.eat("TABLE") {
            let name = self.object_name()?;
            let mut actions = Vec::new();
            if !self.at_end() && !self.is_op(";") {
                loop {
                    self.alter_action(&mut actions)?;
                    if !self.eat_op(",") {
                        break;
                    }
                }
            }
            return Ok(Statement::Ddl(Box::new(Ddl::AlterTable { name, actions })));
        }
        if self.eat("USER") {
            return self.alter_user();
        }
        self.unsupported_rest("ALTER")
    }

    fn alter_action(&mut self, actions: &mut Vec<AlterAction>) -> Result<()> {
        if self.eat("ADD") {
            return self.alter_add(actions);
        }
        if self.eat("DROP") {
            let action = self.alter_drop()?;
            actions.push(action);
            return Ok(());
        }
        let action = if self.eat("MODIFY") {
            self.eat("COLUMN");
            self.changed_column(None)?
        } else if self.eat("CHANGE") {
            self.eat("COLUMN");
            let old = self.name()?;
            self.changed_column(Some(old))?
        } else if self.eat("RENAME") {
            self.alter_rename()?
        } else if self.eat("ALTER") {
            self.alter_default()?
        } else if self.eat_words(&["CONVERT", "TO"]) {
            if !self.eat_words(&["CHARACTER", "SET"]) {
                self.expect("CHARSET")?;
            }
            let charset = self.name_or_text()?;
            let collation = if self.eat("COLLATE") { Some(self.name_or_text()?) } else { None };
            AlterAction::ConvertCharset { charset, collation }
        } else if let Some(which) = self.eat_any(&["DISABLE", "ENABLE"]) {
            self.expect("KEYS")?;
            AlterAction::Keys { enable: which == 1 }
        } else if self.eat("FORCE") {
            AlterAction::Force
        } else if self.algorithm_and_lock()? {
            AlterAction::Hint
        } else if self.eat_words(&["ORDER", "BY"]) {
            self.comma_list(Self::expr)?;
            AlterAction::Hint
        } else {
            self.alter_options()?
        };
        actions.push(action);
        Ok(())
    }

    fn alter_options(&mut self) -> Result<AlterAction> {
        let mut options = Vec::new();
        while let Some(option) = self.table_option()? {
            options.push(option);
        }
        if !options.is_empty() {
            return Ok(AlterAction::Options(options));
        }
        let Tok::Word(word) = self.peek() else { return self.fail() };
        let word = word.to_ascii_uppercase();
        let known = [
            "PARTITION",
            "REMOVE",
            "DISCARD",
            "IMPORT",
            "COALESCE",
            "REORGANIZE",
            "EXCHANGE",
            "ANALYZE",
            "CHECK",
            "OPTIMIZE",
            "REBUILD",
            "REPAIR",
            "TRUNCATE",
            "WITH",
            "WITHOUT",
        ];
        if !known.contains(&word.as_str()) {
            return self.fail();
        }
        self.skip_statement();
        Ok(AlterAction::Unsupported(format!("ALTER TABLE ... {word}")))
    }

    fn alter_add(&mut self, actions: &mut Vec<AlterAction>) -> Result<()> {
        if self.is_word("PARTITION") {
            self.skip_statement();
            actions.push(AlterAction::Unsupported("ALTER TABLE ... ADD PARTITION".into()));
            return Ok(());
        }
        match self.table_element()? {
            Some(TableElement::Index(index)) => actions.push(AlterAction::AddIndex(index)),
            Some(TableElement::ForeignKey(key)) => actions.push(AlterAction::AddForeignKey(key)),
            Some(TableElement::Check(check)) => actions.push(AlterAction::AddCheck(check)),
            None => {
                self.eat("COLUMN");
                let many = self.eat_op("(");
                loop {
                    self.added_column(actions, !many)?;
                    if !many || !self.eat_op(",") {
                        break;
                    }
                }
                if many {
                    self.expect_op(")")?;
                }
            }
        }
        Ok(())
    }

    fn added_column(&mut self, actions: &mut Vec<AlterAction>, placed: bool) -> Result<()> {
        let mut extras = ColumnExtras::default();
        let column = self.column_def(&mut extras)?;
        let place = if placed { self.column_place()? } else { ColumnPlace::Keep };
        actions.push(AlterAction::AddColumn { column, place, indexes: extras.indexes });
        actions.extend(extras.checks.into_iter().map(AlterAction::AddCheck));
        actions.extend(extras.foreign_keys.into_iter().map(AlterAction::AddForeignKey));
        Ok(())
    }

    /// The column of MODIFY (`old` absent) or CHANGE.
    fn changed_column(&mut self, old: Option<String>) -> Result<AlterAction> {
        let mut extras = ColumnExtras::default();
        let column = self.column_def(&mut extras)?;
        let place = self.column_place()?;
        if !extras.checks.is_empty() {
            return Ok(AlterAction::Unsupported("CHECK in MODIFY COLUMN".into()));
        }
        let old = old.unwrap_or_else(|| column.name.clone());
        Ok(AlterAction::ChangeColumn { old, column, place, indexes: extras.indexes })
    }

    fn column_place(&mut self) -> Result<ColumnPlace> {
        if self.eat("FIRST") {
            return Ok(ColumnPlace::First);
        }
        Ok(if self.eat("AFTER") { ColumnPlace::After(self.name()?) } else { ColumnPlace::Keep })
    }

    fn alter_drop(&mut self) -> Result<AlterAction> {
        Ok(if self.eat_words(&["PRIMARY", "KEY"]) {
            AlterAction::DropPrimaryKey
        } else if self.eat_words(&["FOREIGN", "KEY"]) {
            AlterAction::DropForeignKey(self.name()?)
        } else if self.eat_any(&["INDEX", "KEY"]).is_some() {
            AlterAction::DropIndex(self.name()?)
        } else if self.eat_any(&["CHECK", "CONSTRAINT"]).is_some() {
            AlterAction::DropConstraint(self.name()?)
        } else if self.is_word("PARTITION") {
            self.skip_statement();
            AlterAction::Unsupported("ALTER TABLE ... DROP PARTITION".into())
        } else {
            self.eat("COLUMN");
            AlterAction::DropColumn(self.name()?)
        })
    }

    fn alter_rename(&mut self) -> Result<AlterAction> {
        if let Some(which) = self.eat_any(&["COLUMN", "INDEX", "KEY"]) {
            let old = self.name()?;
            self.expect("TO")?;
            let new = self.name()?;
            return Ok(if which == 0 {
                AlterAction::RenameColumn { old, new }
            } else {
                AlterAction::RenameIndex { old, new }
            });
        }
        let _ = self.eat("TO") || self.eat("AS") || self.eat_op("=");
        Ok(AlterAction::RenameTable(self.object_name()?))
    }

    /// ALTER [COLUMN] c SET DEFAULT x | DROP DEFAULT; index visibility and check enforcement are refused when run.
    fn alter_default(&mut self) -> Result<AlterAction> {
        if self.eat_any(&["INDEX", "CHECK", "CONSTRAINT"]).is_some() {
            self.name()?;
            self.eat("NOT");
            let word = self.any_word()?;
            return Ok(AlterAction::Unsupported(format!("ALTER TABLE ... ALTER ... {word}")));
        }
        self.eat("COLUMN");
        let column = self.name()?;
        if self.eat_words(&["DROP", "DEFAULT"]) {
            return Ok(AlterAction::SetDefault { column, default: None });
        }
        self.expect("SET")?;
        if self.eat_any(&["VISIBLE", "INVISIBLE"]).is_some() {
            return Ok(AlterAction::Unsupported("ALTER COLUMN ... VISIBLE".into()));
        }
        self.expect("DEFAULT")?;
        Ok(AlterAction::SetDefault { column, default: Some(self.signed_literal()?) })
    }
}
