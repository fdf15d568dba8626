//! SET: variables, NAMES, TRANSACTION.

use super::Parser;
use crate::sql::ast::{AlterUser, Expr, Isolation, SetItem, SetValue, Statement, VariableScope};
use crate::sql::error::Result;
use crate::sql::lexer::Tok;
use crate::sql::value::Value;

impl Parser<'_> {
    /// After SET.
    pub(super) fn set(&mut self) -> Result<Statement> {
        if self.eat("PASSWORD") {
            return self.set_password();
        }
        if ["ROLE", "DEFAULT", "RESOURCE"].iter().any(|word| self.is_word(word))
            && !matches!(self.peek_at(1), Tok::Op("=" | ":="))
        {
            return self.unsupported_rest("SET");
        }
        let scope = self.scope_word();
        if self.is_word("TRANSACTION") && !matches!(self.peek_at(1), Tok::Op("=" | ":=")) {
            self.at += 1;
            return self.set_transaction(scope.unwrap_or(VariableScope::Next));
        }
        let mut items = vec![self.set_item(scope)?];
        while self.eat_op(",") {
            let scope = self.scope_word();
            items.push(self.set_item(scope)?);
        }
        Ok(Statement::Set(items))
    }

    fn scope_word(&mut self) -> Option<VariableScope> {
        // `SET session = 1` would be a variable of that name.
        if matches!(self.peek_at(1), Tok::Op(_)) {
            return None;
        }
        let scopes = [
            VariableScope::Global,
            VariableScope::Session,
            VariableScope::Session,
            VariableScope::Persist,
            VariableScope::PersistOnly,
        ];
        self.eat_any(&["GLOBAL", "SESSION", "LOCAL", "PERSIST", "PERSIST_ONLY"]).map(|which| scopes[which])
    }

    fn set_item(&mut self, scope: Option<VariableScope>) -> Result<SetItem> {
        if let Tok::UserVar(name) = self.peek() {
            let name = name.to_string();
            self.at += 1;
            self.assign_sign()?;
            return Ok(SetItem::User { name, value: self.expr()? });
        }
        if self.eat("NAMES") {
            if self.eat("DEFAULT") {
                return Ok(SetItem::Names { charset: None, collation: None });
            }
            let charset = Some(self.name_or_text()?);
            let collation = if self.eat("COLLATE") { Some(self.name_or_text()?) } else { None };
            return Ok(SetItem::Names { charset, collation });
        }
        let long = self.are_words(&["CHARACTER", "SET"]) || self.are_words(&["CHAR", "SET"]);
        if long || (self.is_word("CHARSET") && !matches!(self.peek_at(1), Tok::Op("=" | ":="))) {
            self.at += if long { 2 } else { 1 };
            return Ok(SetItem::CharacterSet(if self.eat("DEFAULT") { None } else { Some(self.name_or_text()?) }));
        }
        let (scope, name) = if self.eat_op("@@") {
            self.system_variable()?
        } else {
            let mut name = self.name_after_dot()?;
            if self.eat_op(".") {
                name = format!("{name}.{}", self.name_after_dot()?);
            }
            (scope.unwrap_or(VariableScope::Default), name.to_ascii_lowercase())
        };
        self.assign_sign()?;
        Ok(SetItem::Variable { scope, name, value: self.set_value()? })
    }

    fn assign_sign(&mut self) -> Result<()> {
        if self.eat_op(":=") { Ok(()) } else { self.expect_op("=") }
    }

    fn set_value(&mut self) -> Result<SetValue> {
        if self.is_word("DEFAULT") && !matches!(self.peek_at(1), Tok::Op("(")) {
            self.at += 1;
            return Ok(SetValue::Default);
        }
        // A bare word is a string: ON, OFF, ANSI, utf8mb4, SYSTEM.
        if let Tok::Word(word) = self.peek() {
            let ends = matches!(self.peek_at(1), Tok::Op("," | ";") | Tok::End);
            let constant = ["NULL", "TRUE", "FALSE"].iter().any(|known| word.eq_ignore_ascii_case(known));
            if ends && !constant && self.bare_call_name(word).is_none() {
                let value = Value::from(*word);
                self.at += 1;
                return Ok(SetValue::Expr(Expr::Literal(value)));
            }
        }
        Ok(SetValue::Expr(self.expr()?))
    }

    fn bare_call_name(&self, word: &str) -> Option<()> {
        ["CURRENT_TIMESTAMP", "CURRENT_DATE", "CURRENT_TIME", "CURRENT_USER"]
            .iter()
            .any(|known| word.eq_ignore_ascii_case(known))
            .then_some(())
    }

    fn set_transaction(&mut self, scope: VariableScope) -> Result<Statement> {
        let (mut isolation, mut read_only) = (None, None);
        loop {
            if self.eat_words(&["ISOLATION", "LEVEL"]) {
                isolation = Some(self.isolation()?);
            } else if self.eat_words(&["READ", "ONLY"]) {
                read_only = Some(true);
            } else if self.eat_words(&["READ", "WRITE"]) {
                read_only = Some(false);
            } else {
                return self.fail();
            }
            if !self.eat_op(",") {
                return Ok(Statement::Set(vec![SetItem::Transaction { scope, isolation, read_only }]));
            }
        }
    }

    fn isolation(&mut self) -> Result<Isolation> {
        for (words, level) in [
            (&["READ", "UNCOMMITTED"][..], Isolation::ReadUncommitted),
            (&["READ", "COMMITTED"], Isolation::ReadCommitted),
            (&["REPEATABLE", "READ"], Isolation::RepeatableRead),
            (&["SERIALIZABLE"], Isolation::Serializable),
        ] {
            if self.eat_words(words) {
                return Ok(level);
            }
        }
        self.fail()
    }

    fn set_password(&mut self) -> Result<Statement> {
        let user = if self.eat("FOR") { self.account()? } else { None };
        self.expect_op("=")?;
        Ok(Statement::AlterUser(vec![AlterUser { user, plugin: None, password: Some(self.text()?) }]))
    }

    /// `'user'@'host'`, `user`, CURRENT_USER, USER().
    pub(super) fn account(&mut self) -> Result<Option<(String, String)>> {
        if self.eat("CURRENT_USER")
            || (self.is_word("USER") && matches!(self.peek_at(1), Tok::Op("(")) && self.eat("USER"))
        {
            if self.eat_op("(") {
                self.expect_op(")")?;
            }
            return Ok(None);
        }
        let name = if matches!(self.peek(), Tok::Text(_)) { self.text()? } else { self.name()? };
        let host = match self.peek() {
            Tok::UserVar(host) => {
                let host = host.to_string();
                self.at += 1;
                host
            }
            _ => "%".to_owned(),
        };
        Ok(Some((name, host)))
    }

    /// After ALTER USER.
    pub(super) fn alter_user(&mut self) -> Result<Statement> {
        self.if_exists();
        let users = self.comma_list(|parser| {
            let user = parser.account()?;
            let mut found = AlterUser { user, plugin: None, password: None };
            if parser.eat("IDENTIFIED") {
                if parser.eat("WITH") {
                    found.plugin = Some(parser.name_or_text()?);
                }
                if parser.eat("BY") {
                    found.password = Some(parser.text()?);
                } else if found.plugin.is_none() {
                    return parser.fail();
                }
            }
            Ok(found)
        })?;
        if !self.at_end() && !self.is_op(";") {
            self.skip_statement();
            return Ok(Statement::Unsupported("ALTER USER with these options".into()));
        }
        Ok(Statement::AlterUser(users))
    }
}
