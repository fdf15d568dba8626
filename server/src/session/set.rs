//! SET: user variables, system variables, NAMES, TRANSACTION.

use super::{Result, Session, state::Settings, transaction::NextTransaction};
use crate::{
    errmap::{self, error},
    exec::show::outcome,
    sql::{
        ast::{Expr, Isolation, SetItem, SetValue, VariableScope},
        collation::Collation,
        context::{SessionInfo, SqlMode},
        convert,
        value::Value,
    },
    variables::{self, Access, Kind, Scope, Values, Variable},
    wire::result::SqlError,
};

impl Session {
    pub(super) fn set(&mut self, items: &[SetItem], params: &[Value], settings: &Settings) -> Result<()> {
        for item in items {
            match item {
                SetItem::User { name, value } => {
                    let value = self.constant(value, params, settings)?;
                    self.state.set_user_var(name, value);
                }
                SetItem::Variable { scope, name, value } => self.set_variable(*scope, name, value, params, settings)?,
                SetItem::Names { charset, collation } => self.set_names(charset.as_deref(), collation.as_deref())?,
                SetItem::CharacterSet(charset) => self.set_names(charset.as_deref(), None)?,
                SetItem::Transaction { scope, isolation, read_only } => {
                    self.set_transaction(*scope, *isolation, *read_only)?
                }
            }
        }
        Ok(())
    }

    /// SET NAMES: the three client character sets and the connection's collation. Only UTF-8 can be spoken: others are 1115
    /// or, where they exist but are not converted, 1235.
    fn set_names(&self, charset: Option<&str>, collation: Option<&str>) -> Result<()> {
        let charset = charset.unwrap_or("utf8mb4").to_ascii_lowercase();
        let default = crate::exec::ddl::create::charset_collation(&charset)?;
        let chosen = match collation {
            None => default,
            Some(name) => crate::exec::ddl::create::collation(name)?,
        };
        if chosen.charset() != default.charset() {
            return Err(error(
                1253,
                format!("COLLATION '{}' is not valid for CHARACTER SET '{charset}'", chosen.name()),
            ));
        }
        check_charset(&charset)?;
        self.state.change_variables(|vars| {
            for name in ["character_set_client", "character_set_connection", "character_set_results"] {
                vars.put(name, charset.as_str());
            }
            vars.put("collation_connection", chosen.name());
        });
        Ok(())
    }

    fn set_transaction(
        &mut self,
        scope: VariableScope,
        isolation: Option<Isolation>,
        read_only: Option<bool>,
    ) -> Result<()> {
        if isolation == Some(Isolation::Serializable) {
            return Err(errmap::unsupported("transaction isolation level SERIALIZABLE"));
        }
        match scope {
            VariableScope::Next | VariableScope::Default => {
                if self.tx.is_open() {
                    return Err(error(
                        1568,
                        "Transaction characteristics can't be changed while a transaction is in progress",
                    ));
                }
                let next = &mut self.tx.next;
                *next = NextTransaction {
                    isolation: isolation.or(next.isolation),
                    read_only: read_only.or(next.read_only),
                };
            }
            VariableScope::Session => {
                self.state.change_variables(|vars| put_characteristics(vars, isolation, read_only))
            }
            VariableScope::Global => put_characteristics(&mut self.state.shared.globals.write(), isolation, read_only),
            VariableScope::Persist | VariableScope::PersistOnly => return Err(errmap::unsupported("SET PERSIST")),
        }
        Ok(())
    }

    fn set_variable(
        &mut self,
        scope: VariableScope,
        name: &str,
        value: &SetValue,
        params: &[Value],
        settings: &Settings,
    ) -> Result<()> {
        let var = variables::find(name).ok_or_else(|| variables::unknown(name))?;
        let global = match scope {
            VariableScope::Persist | VariableScope::PersistOnly => return Err(errmap::unsupported("SET PERSIST")),
            VariableScope::Global => true,
            _ => false,
        };
        check_access(var, global)?;
        let default = matches!(value, SetValue::Default);
        let (value, text) = match value {
            SetValue::Default if global => (Value::Null, var.default.to_owned()),
            SetValue::Default => (Value::Null, self.state.shared.globals.read().text(var).to_string()),
            SetValue::Expr(e) => {
                let value = self.constant(&bare_word(e), params, settings)?;
                let text = convert::to_string(&value);
                let text =
                    text.ok_or_else(|| error(1231, format!("Variable '{name}' can't be set to the value of 'NULL'")))?;
                (value, text)
            }
        };
        let text = if default { text } else { variables::normalize(var, &value, &text)? };
        check_value(var, &text)?;
        if var.access == Access::Fixed && !text.eq_ignore_ascii_case(var.default) {
            return Err(error(1231, format!("Variable '{name}' can't be set to the value of '{text}'")));
        }
        if name == "last_insert_id" {
            self.state.set_last_insert_id(text.parse().unwrap_or(0));
            return Ok(());
        }
        if name == "holdfast_transaction_id" {
            self.tx.name = if text.is_empty() { None } else { Some(outcome::id(&text)?) };
            return Ok(());
        }
        if global {
            put(&mut self.state.shared.globals.write(), var, &text);
            return Ok(());
        }
        self.state.change_variables(|vars| put(vars, var, &text));
        Ok(())
    }

    /// SET autocommit = 1 inside a transaction commits it.
    pub(super) async fn after_set(&mut self, before: &Settings) -> Result<()> {
        if !before.autocommit && self.state.settings().autocommit {
            self.tx.commit().await?;
        }
        Ok(())
    }
}

fn put_characteristics(vars: &mut Values, isolation: Option<Isolation>, read_only: Option<bool>) {
    if let Some(level) = isolation {
        let text = match level {
            Isolation::ReadUncommitted => "READ-UNCOMMITTED",
            Isolation::ReadCommitted => "READ-COMMITTED",
            Isolation::RepeatableRead => "REPEATABLE-READ",
            Isolation::Serializable => "SERIALIZABLE",
        };
        vars.put("transaction_isolation", text);
        vars.put("tx_isolation", text);
    }
    if let Some(read_only) = read_only {
        let text = if read_only { "ON" } else { "OFF" };
        vars.put("transaction_read_only", text);
        vars.put("tx_read_only", text);
    }
}

/// Stores a value; variables with two names change together.
fn put(vars: &mut Values, var: &'static Variable, text: &str) {
    vars.put(var.name, text);
    let other = match var.name {
        "transaction_isolation" => Some(("tx_isolation", text.to_owned())),
        "tx_isolation" => Some(("transaction_isolation", text.to_owned())),
        "transaction_read_only" => Some(("tx_read_only", text.to_owned())),
        "tx_read_only" => Some(("transaction_read_only", text.to_owned())),
        "collation_connection" => {
            Collation::from_name(text).map(|c| ("character_set_connection", c.charset().to_owned()))
        }
        "character_set_connection" => {
            Collation::default_of_charset(text).map(|c| ("collation_connection", c.name().to_owned()))
        }
        _ => None,
    };
    if let Some((name, text)) = other {
        vars.put(name, text);
    }
}

fn check_access(var: &Variable, global: bool) -> Result<()> {
    let name = var.name;
    match (var.access, global) {
        (Access::ReadOnly, _) => Err(error(1238, format!("Variable '{name}' is a read only variable"))),
        _ if global && var.scope == Scope::Session => {
            Err(error(1228, format!("Variable '{name}' is a SESSION variable and can't be used with SET GLOBAL")))
        }
        _ if !global && var.scope == Scope::Global => {
            Err(error(1229, format!("Variable '{name}' is a GLOBAL variable and should be set with SET GLOBAL")))
        }
        _ => Ok(()),
    }
}

/// Values that the kind allows but this server does not do.
fn check_value(var: &Variable, text: &str) -> Result<()> {
    match (var.name, var.kind) {
        ("transaction_isolation" | "tx_isolation", _) if text == "SERIALIZABLE" => {
            Err(errmap::unsupported("transaction isolation level SERIALIZABLE"))
        }
        ("sql_mode", _) => SqlMode::parse(text).map(|_| ()).map_err(|bad| wrong(var.name, &bad)),
        (_, Kind::Charset) => check_charset(text),
        (_, Kind::Collation) => {
            let known = Collation::from_name(text);
            known.map(|_| ()).ok_or_else(|| error(1273, format!("Unknown collation: '{text}'")))
        }
        _ => Ok(()),
    }
}

/// Text travels as UTF-8: other client character sets would need conversion.
fn check_charset(charset: &str) -> Result<()> {
    match charset.to_ascii_lowercase().as_str() {
        "utf8mb4" | "utf8mb3" | "utf8" | "binary" | "ascii" => Ok(()),
        _ => Err(errmap::unsupported(format!("character set {charset} for a connection"))),
    }
}

fn wrong(name: &str, value: &str) -> SqlError {
    error(1231, format!("Variable '{name}' can't be set to the value of '{value}'"))
}

/// `SET x = ON` and the like: a bare column name is a word.
pub(super) fn bare_word(e: &Expr) -> Expr {
    match e {
        Expr::Column(name) if name.table.is_none() => Expr::Literal(Value::from(name.name.as_str())),
        other => other.clone(),
    }
}
