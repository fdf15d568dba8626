//! System variables: what exists, which values are legal, and the values of one session and of the server.
//!
//! A variable is in the table only if setting it has its effect here, or if it is read-only. Variables whose legal
//! values all mean the same to this server (`foreign_key_checks` before foreign keys exist) say so in `Effect`.

use std::sync::Arc;

use rustc_hash::FxHashMap;

use crate::{errmap::error, sql::value::Value, wire::result::SqlError};

pub use self::table::{VARIABLES, VERSION};

mod table;

/// What a variable accepts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    Bool,
    Int {
        min: i64,
        max: i64,
    },
    Enum(&'static [&'static str]),
    /// A comma-separated set of `Enum`-like names.
    Set(&'static [&'static str]),
    Text,
    Charset,
    Collation,
    TimeZone,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    Global,
    Session,
    Both,
}

/// Who may change it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    ReadOnly,
    /// Only the listed default is accepted: any other value is 1231, since it would have no effect.
    Fixed,
    ReadWrite,
}

/// One system variable.
#[derive(Clone, Copy, Debug)]
pub struct Variable {
    pub name: &'static str,
    pub scope: Scope,
    pub access: Access,
    pub kind: Kind,
    pub default: &'static str,
}

/// Finds a variable by its lower-case name.
pub fn find(name: &str) -> Option<&'static Variable> {
    VARIABLES.iter().find(|v| v.name == name)
}

/// 1193.
pub fn unknown(name: &str) -> SqlError {
    error(1193, format!("Unknown system variable '{name}'"))
}

fn wrong(name: &str, value: &str) -> SqlError {
    error(1231, format!("Variable '{name}' can't be set to the value of '{value}'"))
}

/// The text that `kind` stores for a given value, or 1231 / 1232.
pub fn normalize(var: &Variable, value: &Value, text: &str) -> Result<String, SqlError> {
    let lower = text.to_ascii_lowercase();
    let text_out = match var.kind {
        Kind::Bool => match lower.as_str() {
            "1" | "on" | "true" => "ON".to_owned(),
            "0" | "off" | "false" => "OFF".to_owned(),
            _ => return Err(wrong(var.name, text)),
        },
        Kind::Int { min, max } => {
            if matches!(value, Value::Str(_) | Value::Null | Value::Double(_) | Value::Float(_)) {
                return Err(error(1232, format!("Incorrect argument type to variable '{}'", var.name)));
            }
            let n: i128 = text.parse().map_err(|_| wrong(var.name, text))?;
            n.clamp(min.into(), max.into()).to_string()
        }
        Kind::Enum(names) => choose(names, &lower).ok_or_else(|| wrong(var.name, text))?.to_owned(),
        Kind::Set(names) => {
            let mut out: Vec<&str> = Vec::new();
            for part in lower.split(',').map(str::trim).filter(|p| !p.is_empty()) {
                let name = choose(names, part).ok_or_else(|| wrong(var.name, part))?;
                if !out.contains(&name) {
                    out.push(name);
                }
            }
            out.join(",")
        }
        Kind::Text => text.to_owned(),
        Kind::Charset => match lower.as_str() {
            "utf8mb4" | "utf8mb3" | "utf8" | "latin1" | "ascii" | "binary" => lower,
            _ => return Err(error(1115, format!("Unknown character set: '{text}'"))),
        },
        Kind::Collation => lower,
        Kind::TimeZone => zone_offset(text)
            .map(|_| text.to_owned())
            .ok_or_else(|| error(1298, format!("Unknown or incorrect time zone: '{text}'")))?,
    };
    Ok(text_out)
}

fn choose(names: &[&'static str], given: &str) -> Option<&'static str> {
    if let Ok(i) = given.parse::<usize>() {
        return names.get(i).copied();
    }
    names.iter().copied().find(|n| n.eq_ignore_ascii_case(given))
}

/// Seconds east of UTC of `SYSTEM`, `UTC` or `+HH:MM`; named zones need tables that the server does not have.
pub fn zone_offset(zone: &str) -> Option<i32> {
    if zone.eq_ignore_ascii_case("SYSTEM") || zone.eq_ignore_ascii_case("UTC") {
        return Some(0);
    }
    let (sign, rest) = match zone.as_bytes().first()? {
        b'+' => (1, &zone[1..]),
        b'-' => (-1, &zone[1..]),
        _ => return None,
    };
    let (hours, minutes) = rest.split_once(':')?;
    let (h, m): (i32, i32) = (hours.parse().ok()?, minutes.parse().ok()?);
    let seconds = sign * (h * 3600 + m * 60);
    ((0..60).contains(&m) && hours.len() <= 2 && minutes.len() == 2 && (-50_340..=50_400).contains(&seconds))
        .then_some(seconds)
}

/// The values that differ from the defaults: one for the server, one copied into each session.
#[derive(Clone, Debug, Default)]
pub struct Values {
    set: FxHashMap<&'static str, Arc<str>>,
}

impl Values {
    /// Current text of a variable.
    pub fn text(&self, var: &'static Variable) -> Arc<str> {
        self.set.get(var.name).cloned().unwrap_or_else(|| var.default.into())
    }

    /// As `SELECT @@name` shows it: integers and booleans are numbers.
    pub fn value(&self, var: &'static Variable) -> Value {
        let text = self.text(var);
        match var.kind {
            Kind::Bool => Value::Int(i64::from(&*text == "ON")),
            Kind::Int { .. } => text.parse().map_or(Value::Null, |n: u64| Value::UInt(n)),
            _ => Value::Str(text.as_bytes().to_vec().into()),
        }
    }

    pub fn put(&mut self, name: &'static str, text: impl Into<Arc<str>>) {
        self.set.insert(name, text.into());
    }

    fn named(&self, name: &str) -> Arc<str> {
        find(name).map_or_else(|| "".into(), |var| self.text(var))
    }

    pub fn flag(&self, name: &str) -> bool {
        &*self.named(name) == "ON"
    }

    pub fn number(&self, name: &str) -> u64 {
        self.named(name).parse().unwrap_or(0)
    }

    pub fn string(&self, name: &str) -> Arc<str> {
        self.named(name)
    }
}

/// 1238: the variable has only the other scope.
pub fn wrong_scope(name: &str, its: &str) -> SqlError {
    error(1238, format!("Variable '{name}' is a {its} variable"))
}
