//! Converts a value to the type of the column that stores it, as MySQL's strict and lenient modes do.
//!
//! Strict: what does not fit is an error. Lenient: the nearest value is stored, with a warning of the same code.

use bytes::Bytes;

use crate::{
    errmap::error,
    sql::{
        context::Context,
        convert::{number_prefix, parse_f64, to_decimal, to_f64, to_int, to_text_as, to_time},
        decimal::Decimal,
        error::{Result, shown},
        json,
        temporal::parse_datetime,
        types::{DataType, NOT_FIXED, TypeKind},
        value::{Date, DateTime, Time, Value},
    },
    wire::result::SqlError,
};

/// Where a value goes, for messages.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    pub column: &'a str,
    /// Counted from 1.
    pub row: u64,
}

/// Converts a non-NULL value of type `from` to the column type `to`.
pub fn store(value: &Value, from: &DataType, to: &DataType, place: Place<'_>, cx: &Context<'_>) -> Result<Value> {
    match (to.kind, value) {
        // What is already right takes no further look.
        (TypeKind::Big, Value::Int(_)) if !to.unsigned => Ok(value.clone()),
        (TypeKind::Double, Value::Double(_)) if to.scale == NOT_FIXED && !to.unsigned => Ok(value.clone()),
        _ if to.is_integer() => integer(value, to, place, cx),
        (TypeKind::Decimal, _) => decimal(value, to, place, cx),
        (TypeKind::Float | TypeKind::Double, _) => floating(value, to, place, cx),
        (TypeKind::Date | TypeKind::DateTime | TypeKind::Timestamp, _) => datetime(value, to, place, cx),
        (TypeKind::Time, _) => time(value, to, place, cx),
        (TypeKind::Json, _) => json_document(value, place),
        _ => string(value, from, to, place, cx),
    }
}

/// An error if strict, else a warning and the nearest value.
fn misfit(e: SqlError, nearest: Value, cx: &Context<'_>) -> Result<Value> {
    if cx.strict_data {
        return Err(e);
    }
    cx.warn(e);
    Ok(nearest)
}

fn out_of_range(place: Place<'_>) -> SqlError {
    error(1264, format!("Out of range value for column '{}' at row {}", place.column, place.row))
}

fn incorrect(kind: &str, value: &Value, place: Place<'_>) -> SqlError {
    let text = crate::sql::convert::to_text(value).unwrap_or_default();
    let code = if matches!(kind, "integer" | "decimal" | "double" | "string") { 1366 } else { 1292 };
    error(
        code,
        format!("Incorrect {kind} value: '{}' for column '{}' at row {}", shown(&text), place.column, place.row),
    )
}

fn truncated(place: Place<'_>) -> SqlError {
    error(1265, format!("Data truncated for column '{}' at row {}", place.column, place.row))
}

/// Text must be a number from end to end: nothing of one is 1366, a tail is 1265.
fn check_number(value: &Value, kind: &str, place: Place<'_>, cx: &Context<'_>) -> Result<()> {
    let (Value::Str(text) | Value::Bin(text)) = value else { return Ok(()) };
    let (number, rest) = number_prefix(text);
    if number.is_empty() {
        misfit(incorrect(kind, value, place), Value::Null, cx)?;
    } else if rest {
        misfit(truncated(place), Value::Null, cx)?;
    }
    Ok(())
}

fn integer(value: &Value, to: &DataType, place: Place<'_>, cx: &Context<'_>) -> Result<Value> {
    let n = match value {
        Value::Int(n) => i128::from(*n),
        Value::UInt(n) => i128::from(*n),
        Value::Str(text) | Value::Bin(text) => {
            check_number(value, "integer", place, cx)?;
            let number = number_prefix(text).0;
            // Through DECIMAL, so that '1.5' and '1e3' are exact.
            Decimal::parse_prefix(number).0.to_i128().unwrap_or(i128::MAX)
        }
        Value::Float(n) => f64::from(*n).round() as i128,
        Value::Double(n) => n.round() as i128,
        other => to_int(other, cx).unwrap_or(0),
    };
    let n = match (to.kind, n) {
        (TypeKind::Year, 1..=69) => n + 2000,
        (TypeKind::Year, 70..=99) => n + 1900,
        (TypeKind::Year, 0 | 1901..=2155) => n,
        (TypeKind::Year, _) => return misfit(out_of_range(place), Value::Int(0), cx),
        _ => n,
    };
    let (low, high) = to.integer_range();
    let make =
        |n: i128| if to.unsigned && to.kind != TypeKind::Year { Value::UInt(n as u64) } else { Value::Int(n as i64) };
    match n < low || n > high {
        true => misfit(out_of_range(place), make(n.clamp(low, high)), cx),
        false => Ok(make(n)),
    }
}

fn decimal(value: &Value, to: &DataType, place: Place<'_>, cx: &Context<'_>) -> Result<Value> {
    let number = match value {
        Value::Decimal(d) => d.clone(),
        Value::Str(text) | Value::Bin(text) => {
            check_number(value, "decimal", place, cx)?;
            Decimal::parse_prefix(number_prefix(text).0).0
        }
        other => to_decimal(other, cx).unwrap_or_else(Decimal::zero),
    };
    if to.unsigned && number.is_negative() {
        return misfit(out_of_range(place), Value::Decimal(Decimal::new(0, to.scale)), cx);
    }
    let rounded = if number.scale() == to.scale { number } else { number.round(i32::from(to.scale)) };
    if rounded.integer_digits() > u32::from(to.precision.saturating_sub(to.scale)) && !rounded.is_zero() {
        let limit = Decimal::limit(to.precision, to.scale, rounded.is_negative());
        return misfit(out_of_range(place), Value::Decimal(limit), cx);
    }
    Ok(Value::Decimal(rounded))
}

fn floating(value: &Value, to: &DataType, place: Place<'_>, cx: &Context<'_>) -> Result<Value> {
    let mut n = match value {
        Value::Str(text) | Value::Bin(text) => {
            check_number(value, "double", place, cx)?;
            parse_f64(text).0
        }
        other => to_f64(other, cx).unwrap_or(0.0),
    };
    let mut limit = if to.kind == TypeKind::Float { f64::from(f32::MAX) } else { f64::MAX };
    if to.scale < NOT_FIXED {
        let unit = 10f64.powi(i32::from(to.scale));
        n = (n * unit).round() / unit;
        limit = 10f64.powi(i32::from(to.precision) - i32::from(to.scale)) - 1.0 / unit;
    }
    let make = |n: f64| if to.kind == TypeKind::Float { Value::Float(n as f32) } else { Value::Double(n) };
    let low = if to.unsigned { 0.0 } else { -limit };
    if n.is_nan() || n < low || n > limit {
        let nearest = if n.is_nan() { 0.0 } else { n.clamp(low, limit) };
        return misfit(out_of_range(place), make(nearest), cx);
    }
    Ok(make(n))
}

fn datetime(value: &Value, to: &DataType, place: Place<'_>, cx: &Context<'_>) -> Result<Value> {
    let kind = if to.kind == TypeKind::Date { "date" } else { "datetime" };
    let zero = match to.kind {
        TypeKind::Date => Value::Date(Date::default()),
        _ => Value::DateTime(DateTime::default()),
    };
    let found = match value {
        Value::DateTime(at) => Some(*at),
        Value::Date(date) => Some(date.at_midnight()),
        Value::Str(text) | Value::Bin(text) => match parse_datetime(text, cx.mode.allow_invalid_dates) {
            Some(parsed) if !parsed.clean => {
                misfit(truncated(place), Value::Null, cx)?;
                Some(parsed.value)
            }
            parsed => parsed.map(|p| p.value),
        },
        Value::Int(n) => DateTime::from_number(*n),
        Value::UInt(n) => i64::try_from(*n).ok().and_then(DateTime::from_number),
        other => crate::sql::convert::to_datetime(other, cx),
    };
    let Some(at) = found else { return misfit(incorrect(kind, value, place), zero, cx) };
    let refused = (at.date.is_zero() && cx.mode.no_zero_date)
        || (at.date.is_partial() && !at.date.is_zero() && cx.mode.no_zero_in_date);
    if refused {
        return misfit(incorrect(kind, value, place), zero, cx);
    }
    if to.kind == TypeKind::Date {
        return Ok(Value::Date(at.date));
    }
    let rounded = if at.micros == 0 { Some(at) } else { at.round(to.scale) };
    let Some(at) = rounded else { return misfit(incorrect(kind, value, place), zero, cx) };
    if to.kind == TypeKind::Timestamp && !at.date.is_zero() {
        // 1970-01-01 00:00:01 to 2038-01-19 03:14:07 UTC.
        let seconds = at.to_unix_micros(cx.zone_offset_seconds).div_euclid(1_000_000);
        if at.date.is_partial() || !(1..=i64::from(i32::MAX)).contains(&seconds) {
            return misfit(incorrect(kind, value, place), zero, cx);
        }
    }
    Ok(Value::DateTime(at))
}

fn time(value: &Value, to: &DataType, place: Place<'_>, cx: &Context<'_>) -> Result<Value> {
    let found = match value {
        Value::Str(text) | Value::Bin(text) => {
            crate::sql::temporal::parse_time(text).map(|parsed| (parsed.value, parsed.clean))
        }
        other => to_time(other, cx).map(|time| (time, true)),
    };
    match found {
        None => misfit(incorrect("time", value, place), Value::Time(Time::default()), cx),
        Some((time, clean)) => {
            if !clean {
                misfit(truncated(place), Value::Null, cx)?;
            }
            Ok(Value::Time(time.round(to.scale)))
        }
    }
}

fn json_document(value: &Value, place: Place<'_>) -> Result<Value> {
    match value {
        Value::Json(_) => Ok(value.clone()),
        Value::Str(text) => {
            let parsed = json::parse(text);
            let invalid = |e: SqlError| {
                error(3140, format!("{} for column '{}'.", e.message.trim_end_matches('.'), place.column))
            };
            Ok(Value::Json(json::print(&parsed.map_err(invalid)?)))
        }
        Value::Bin(_) => Err(error(3144, "Cannot create a JSON value from a string with CHARACTER SET 'binary'.")),
        other => json::from_value(other),
    }
}

fn string(value: &Value, from: &DataType, to: &DataType, place: Place<'_>, cx: &Context<'_>) -> Result<Value> {
    let binary = to.is_binary();
    let bytes: Bytes = match value {
        Value::Str(b) | Value::Bin(b) | Value::Json(b) => b.clone(),
        other => Bytes::from(to_text_as(other, from).unwrap_or_default().into_owned()),
    };
    // A literal is text by its place in the statement only: its bytes are the client's.
    if !binary && !matches!(value, Value::Json(_)) && std::str::from_utf8(&bytes).is_err() {
        return misfit(incorrect("string", value, place), Value::Str(Bytes::new()), cx);
    }
    let make = |b: Bytes| if binary { Value::Bin(b) } else { Value::Str(b) };
    let fitted = cut(&bytes, to);
    let char_type = to.kind == TypeKind::Char;
    if fitted < bytes.len() {
        let lost = &bytes[fitted..];
        // Trailing spaces beyond the length vanish: silently for CHAR, with a note for VARCHAR.
        let spaces = !binary && lost.iter().all(|b| *b == b' ');
        if !spaces {
            let e = error(1406, format!("Data too long for column '{}' at row {}", place.column, place.row));
            return misfit(e, make(bytes.slice(..fitted)), cx);
        }
    }
    let mut kept = bytes.slice(..fitted);
    if char_type && binary && kept.len() < to.length as usize {
        let mut padded = kept.to_vec();
        padded.resize(to.length as usize, 0);
        kept = padded.into();
    } else if char_type && !binary {
        let end = kept.iter().rposition(|b| *b != b' ').map_or(0, |at| at + 1);
        kept.truncate(end);
    }
    Ok(make(kept))
}

/// How many bytes of the text fit the type.
fn cut(bytes: &[u8], to: &DataType) -> usize {
    match to.max_bytes() {
        Some(most) => {
            let most = usize::try_from(most).unwrap_or(usize::MAX);
            if bytes.len() <= most {
                return bytes.len();
            }
            // Text is cut between characters.
            let inside = |at: &usize| !to.is_binary() && bytes.get(*at).is_some_and(|b| b & 0xc0 == 0x80);
            (0..=most).rev().find(|at| !inside(at)).unwrap_or(0)
        }
        None if bytes.len() <= to.length as usize => bytes.len(),
        None => {
            let mut starts = bytes.iter().enumerate().filter(|(_, b)| **b & 0xc0 != 0x80).map(|(i, _)| i);
            starts.nth(to.length as usize).unwrap_or(bytes.len())
        }
    }
}
