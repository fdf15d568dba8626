//! Which statements need the leader, and what of a session travels there.

use std::sync::Arc;

use super::{Kept, Parse, Result, Session, set::bare_word, state::Settings, transaction::NextTransaction};
use crate::{
    errmap::error,
    sql::{
        ast::{Expr, SetItem, SetValue, Statement, Transaction, VariableScope},
        context::SqlMode,
        convert,
        parse::{parse_first, parse_one},
        value::Value,
    },
    variables,
    wire::command::Command,
};

/// The name of the next transaction does not travel: it is given where that runs.
fn names_a_transaction(item: &SetItem) -> bool {
    matches!(item, SetItem::Variable { name, .. } if name.eq_ignore_ascii_case("holdfast_transaction_id"))
}

/// All of a session that later statements could notice.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Carried {
    /// Current database.
    pub database: Option<String>,
    /// System variables that a session can set.
    pub variables: Vec<(String, String)>,
    /// User variables.
    pub user_variables: Vec<(String, Value)>,
    /// LAST_INSERT_ID().
    pub last_insert_id: u64,
    /// ROW_COUNT().
    pub row_count: i64,
    /// FOUND_ROWS().
    pub found_rows: u64,
    /// SET TRANSACTION without a scope.
    pub next: NextTransaction,
    /// A query may hold several statements.
    pub multi_statements: bool,
    /// The newest prepared statement's number.
    pub last_statement: u32,
    /// Prepared statements, by number.
    pub prepared: Vec<(u32, Source)>,
    /// Statements of PREPARE.
    pub named: Vec<(String, Source)>,
}

/// What a prepared statement was made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Its text.
    pub text: Arc<[u8]>,
    /// The sql_mode that it was read in.
    pub mode: Arc<str>,
}

impl Source {
    fn parse(self) -> Result<Kept> {
        let mode = SqlMode::parse(&self.mode).map_err(|bad| error(1231, format!("sql_mode `{bad}`")))?;
        Ok(Kept { parse: Parse::new(parse_one(&self.text, mode)?), source: self })
    }
}

impl Session {
    /// Whether a command needs the leader, which is another node. A transaction that is open here ends here.
    pub fn needs_leader(&mut self, command: &Command<'_>) -> bool {
        if self.tx.is_open() || !self.state.shared.is_follower() {
            return false;
        }
        let settings = self.state.settings();
        match command {
            Command::Query(sql) => self.text_needs_leader(sql, &settings),
            Command::Execute { id, .. } => self
                .prepared
                .get(id)
                .is_some_and(|kept| self.statement_needs_leader(&kept.parse.statement, &settings, false)),
            _ => false,
        }
    }

    /// One statement of a text that needs the leader takes all of it there: its answers are one.
    fn text_needs_leader(&mut self, sql: &[u8], settings: &Settings) -> bool {
        if let Some(parse) = self.known_shape(sql, settings) {
            return self.statement_needs_leader(&parse.statement, settings, false);
        }
        let mut rest = sql;
        loop {
            // The error is told where the text runs: here if it is the first statement's.
            let Ok((parsed, next)) = parse_first(rest, settings.mode) else { return rest.len() < sql.len() };
            let alone = next >= sql.len();
            rest = rest.get(next..).unwrap_or_default();
            if !rest.is_empty() && !self.multi_statements {
                return false;
            }
            if self.statement_needs_leader(&parsed.statement, settings, !alone) {
                return true;
            }
            if rest.is_empty() {
                return false;
            }
        }
    }

    /// `among`: other statements of the same text may run before it.
    fn statement_needs_leader(&self, statement: &Statement, settings: &Settings, among: bool) -> bool {
        match statement {
            Statement::Insert(_) | Statement::Update(_) | Statement::Delete(_) => true,
            Statement::Truncate(_) | Statement::Ddl(_) | Statement::AlterUser(_) => true,
            // With autocommit off a query begins a transaction, in which anything may follow.
            Statement::Query(query) => query.lock.is_some() || !settings.autocommit,
            Statement::Transaction(t) => self.transaction_needs_leader(t, settings),
            Statement::Set(items) => {
                items.iter().any(|item| self.turns_autocommit_off(item) || names_a_transaction(item))
            }
            // What it names may be prepared anew before it.
            Statement::Execute { .. } if among => true,
            Statement::Execute { name, .. } => {
                let kept = self.named.get(&name.to_lowercase());
                kept.is_some_and(|kept| self.statement_needs_leader(&kept.parse.statement, settings, false))
            }
            _ => false,
        }
    }

    fn transaction_needs_leader(&self, t: &Transaction, settings: &Settings) -> bool {
        let writes = |read_only: Option<bool>| !read_only.or(self.tx.next.read_only).unwrap_or(settings.read_only);
        match t {
            Transaction::Begin { read_only, .. } => writes(*read_only),
            Transaction::Commit { chain, .. } | Transaction::Rollback { chain, .. } => *chain && writes(None),
            Transaction::Savepoint(_) => !settings.autocommit && writes(None),
            Transaction::RollbackTo(_)
            | Transaction::Release(_)
            | Transaction::LockTables(_)
            | Transaction::UnlockTables => false,
        }
    }

    /// `SET autocommit = 0`. A value that would have to be computed is left to the leader.
    fn turns_autocommit_off(&self, item: &SetItem) -> bool {
        let SetItem::Variable { scope, name, value } = item else { return false };
        let elsewhere = matches!(scope, VariableScope::Global | VariableScope::Persist | VariableScope::PersistOnly);
        let Some(var) = variables::find(name).filter(|var| var.name == "autocommit" && !elsewhere) else {
            return false;
        };
        match value {
            SetValue::Default => !self.state.shared.globals.read().flag(var.name),
            SetValue::Expr(e) => match bare_word(e) {
                Expr::Literal(value) => {
                    let text = convert::to_string(&value).unwrap_or_default();
                    variables::normalize(var, &value, &text).is_ok_and(|text| text == "OFF")
                }
                _ => true,
            },
        }
    }

    /// What travels when the session moves.
    pub fn carry(&self) -> Carried {
        Carried {
            next: self.tx.next,
            multi_statements: self.multi_statements,
            last_statement: self.next_id,
            prepared: self.prepared.iter().map(|(id, kept)| (*id, kept.source.clone())).collect(),
            named: self.named.iter().map(|(name, kept)| (name.clone(), kept.source.clone())).collect(),
            ..self.state.carry()
        }
    }

    /// Takes up what travelled, statements under their old numbers.
    pub fn adopt(&mut self, mut carried: Carried) -> Result<()> {
        self.tx.next = carried.next;
        self.multi_statements = carried.multi_statements;
        self.next_id = carried.last_statement;
        for (id, source) in std::mem::take(&mut carried.prepared) {
            self.prepared.insert(id, source.parse()?);
        }
        for (name, source) in std::mem::take(&mut carried.named) {
            self.named.insert(name, source.parse()?);
        }
        self.state.adopt(carried)
    }

    /// The session is back from the leader, and begins anew in the database that it chose there.
    pub fn came_back_in(&mut self, database: Option<&str>) {
        self.state.set_database(database);
    }
}
