//! Owns the table of scalar functions: names, argument counts, result types. The functions are grouped by theme below.

mod control;
mod date;
mod date_format;
mod info;
mod json;
mod numeric;
mod string;
mod string_codec;

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::OnceLock;

use bytes::Bytes;

use super::context::Context;
use super::convert;
use super::decimal::Decimal;
use super::error::Result;
use super::expr::Expr;
use super::types::DataType;
use super::value::Value;

/// A scalar function.
pub struct Function {
    /// Upper-case name.
    pub name: &'static str,
    /// Fewest arguments.
    pub min: u8,
    /// Most arguments; 255 is any number.
    pub max: u8,
    /// A NULL argument makes the result NULL, without a call.
    pub null_in: bool,
    /// Gives different results for equal arguments within a statement (RAND, UUID, SLEEP).
    pub volatile: bool,
    /// Reads the session or the clock: constant for a statement, not for a plan.
    pub session: bool,
    /// Result type for bound arguments.
    pub ty: fn(&[Expr]) -> DataType,
    /// The function.
    pub eval: fn(&Call<'_>) -> Result<Value>,
}

impl std::fmt::Debug for Function {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

/// A function's view of its evaluated arguments.
pub struct Call<'c> {
    /// Values, one for each argument.
    pub values: &'c [Cow<'c, Value>],
    /// The arguments as bound, for their types.
    pub exprs: &'c [Expr],
    /// Result type.
    pub ty: &'c DataType,
    /// Session and mode.
    pub cx: &'c Context<'c>,
}

impl Call<'_> {
    /// Number of arguments.
    #[allow(clippy::len_without_is_empty)] // the number of arguments; nobody asks for none
    pub fn len(&self) -> usize {
        self.values.len()
    }
    /// Argument, NULL if absent.
    pub fn value(&self, index: usize) -> &Value {
        self.values.get(index).map_or(&Value::Null, |value| value)
    }
    /// Argument as text in its declared type; empty if NULL or absent.
    pub fn text(&self, index: usize) -> Cow<'_, [u8]> {
        let ty = self.exprs.get(index).map_or(&DataType::NULL, |expr| &expr.ty);
        convert::to_text_as(self.value(index), ty).unwrap_or_default()
    }
    /// Argument as UTF-8 text.
    pub fn string(&self, index: usize) -> String {
        String::from_utf8_lossy(&self.text(index)).into_owned()
    }
    /// Argument as integer, 0 if NULL or absent.
    pub fn int(&self, index: usize) -> i64 {
        convert::to_i64(self.value(index), self.cx).unwrap_or(0)
    }
    /// Argument as double.
    pub fn f64(&self, index: usize) -> f64 {
        convert::to_f64(self.value(index), self.cx).unwrap_or(0.0)
    }
    /// Argument as decimal.
    pub fn decimal(&self, index: usize) -> Decimal {
        convert::to_decimal(self.value(index), self.cx).unwrap_or_else(Decimal::zero)
    }
    /// Whether the result is a binary string.
    pub fn is_binary(&self) -> bool {
        self.ty.is_binary()
    }
    /// A string result of the call's type.
    pub fn result(&self, bytes: impl Into<Bytes>) -> Value {
        if self.is_binary() { Value::Bin(bytes.into()) } else { Value::Str(bytes.into()) }
    }
}

/// Shorthand of the tables below: arguments from `min` to `max`, NULL gives NULL.
const fn function(
    name: &'static str,
    min: u8,
    max: u8,
    ty: fn(&[Expr]) -> DataType,
    eval: fn(&Call<'_>) -> Result<Value>,
) -> Function {
    Function { name, min, max, null_in: true, volatile: false, session: false, ty, eval }
}

impl Function {
    /// Takes NULLs itself.
    const fn sees_null(self) -> Self {
        Self { null_in: false, ..self }
    }
    /// Reads session or clock.
    const fn of_session(self) -> Self {
        Self { session: true, null_in: false, ..self }
    }
    /// Differs from call to call.
    const fn is_volatile(self) -> Self {
        Self { volatile: true, session: true, null_in: false, ..self }
    }
}

const TABLES: [&[Function]; 8] = [
    control::TABLE,
    date::TABLE,
    date_format::TABLE,
    info::TABLE,
    json::TABLE,
    numeric::TABLE,
    string::TABLE,
    string_codec::TABLE,
];

/// The function of an upper-case name.
pub fn find(name: &str) -> Option<&'static Function> {
    static BY_NAME: OnceLock<HashMap<&'static str, &'static Function>> = OnceLock::new();
    static ALL: OnceLock<Vec<&'static Function>> = OnceLock::new();
    let all = ALL.get_or_init(|| TABLES.iter().flat_map(|table| table.iter()).collect());
    BY_NAME.get_or_init(|| all.iter().map(|function| (function.name, *function)).collect()).get(name).copied()
}

/// WEEK(date, mode): week number and the year it belongs to. MySQL's own rules, step by step.
pub fn week(date: super::value::Date, mode: u8) -> (u8, u16) {
    use super::value::Date;
    let monday_first = mode & 1 != 0;
    let mut week_year = mode & 2 != 0;
    let first_weekday = (mode & 4 != 0) ^ !monday_first;
    let year_days = |year: u16| 337 + i64::from(super::temporal::days_in_month(year, 2));
    // Week 1 is the first full week, or the first with four days in the year.
    let starts_late = |lead: i64| if first_weekday { lead != 0 } else { lead >= 4 };

    let mut year = date.year;
    let first = Date { year, month: 1, day: 1 };
    let mut first_day = first.day_number();
    let monday_based = i64::from(first.weekday());
    let mut lead = if monday_first { monday_based } else { (monday_based + 1) % 7 };
    if date.month == 1 && i64::from(date.day) <= 7 - lead {
        if !week_year && starts_late(lead) {
            return (0, year);
        }
        week_year = true;
        year = year.saturating_sub(1);
        let days = year_days(year);
        first_day -= days;
        lead = (lead + 53 * 7 - days) % 7;
    }
    let begin = if starts_late(lead) { first_day + 7 - lead } else { first_day - lead };
    let days = date.day_number() - begin;
    if week_year && days >= 52 * 7 {
        lead = (lead + year_days(year)) % 7;
        if !starts_late(lead) {
            return (1, year + 1);
        }
    }
    ((days / 7 + 1).clamp(0, 54) as u8, year)
}
