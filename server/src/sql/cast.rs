//! Owns CAST, COLLATE and the common type of alternatives.

use super::context::Context;
use super::convert::{to_date, to_datetime, to_decimal, to_f64, to_int, to_text_as, to_time};
use super::decimal::Decimal;
use super::error::{Result, shown, sql_error};
use super::types::{DataType, TypeKind};
use super::value::Value;

/// CAST(value AS target).
pub fn cast(value: &Value, from: &DataType, target: &DataType, cx: &Context<'_>) -> Result<Value> {
    if value.is_null() {
        return Ok(Value::Null);
    }
    Ok(match target.kind {
        _ if target.is_integer() => to_integer(value, target, cx),
        TypeKind::Decimal => to_decimal(value, cx).map_or(Value::Null, |number| fit_decimal(&number, target, cx)),
        TypeKind::Float => to_f64(value, cx).map_or(Value::Null, |number| Value::Float(number as f32)),
        TypeKind::Double => to_f64(value, cx).map_or(Value::Null, Value::Double),
        TypeKind::Date => checked_date(to_date(value, cx).map(Value::Date), value, cx),
        TypeKind::DateTime | TypeKind::Timestamp => {
            let at = to_datetime(value, cx).and_then(|at| at.round(target.scale));
            checked_date(at.map(Value::DateTime), value, cx)
        }
        TypeKind::Time => to_time(value, cx).map_or(Value::Null, |time| Value::Time(time.round(target.scale))),
        TypeKind::Json => super::json::from_value(value)?,
        _ if target.is_string() => to_string(value, from, target, cx),
        _ => value.clone(),
    })
}

fn to_integer(value: &Value, target: &DataType, cx: &Context<'_>) -> Value {
    let Some(wide) = to_int(value, cx) else { return Value::Null };
    if target.kind == TypeKind::Year {
        return match wide {
            0..=69 => Value::Int(wide as i64 + 2000),
            70..=99 => Value::Int(wide as i64 + 1900),
            _ => Value::Int(wide.clamp(0, 2155) as i64),
        };
    }
    let (low, high) = (i128::from(i64::MIN), i128::from(u64::MAX));
    if wide < low || wide > high {
        let text = super::convert::to_string(value).unwrap_or_default();
        cx.warn(super::error::truncated_wrong_value("INTEGER", text.as_bytes()));
    }
    // Between the two ranges the bits are reread, as MySQL does: CAST(-1 AS UNSIGNED) is 2^64-1.
    let exact = !matches!(value, Value::Decimal(_) | Value::Double(_) | Value::Float(_));
    if target.unsigned {
        let bits = if wide < 0 && !exact && !matches!(value, Value::Double(_) | Value::Float(_)) {
            0
        } else {
            wide.clamp(low, high) as u64
        };
        return Value::UInt(bits);
    }
    if wide > i128::from(i64::MAX) {
        return Value::Int(if exact { wide.min(high) as u64 as i64 } else { i64::MAX });
    }
    Value::Int(wide.max(low) as i64)
}

/// Rounds to the target's scale; the limit, with warning 1264, if there are too many digits.
pub fn fit_decimal(number: &Decimal, target: &DataType, cx: &Context<'_>) -> Value {
    let rounded = number.round(i32::from(target.scale));
    if rounded.integer_digits() > u32::from(target.precision.saturating_sub(target.scale))
        && !rounded.truncate(0).is_zero()
    {
        cx.warn(sql_error(1264, "Out of range value for column '' at row 1"));
        return Value::Decimal(Decimal::limit(target.precision, target.scale, number.is_negative()));
    }
    Value::Decimal(rounded)
}

fn checked_date(found: Option<Value>, value: &Value, cx: &Context<'_>) -> Value {
    let partial = match &found {
        Some(Value::Date(date)) => (date.is_zero(), date.is_partial()),
        Some(Value::DateTime(at)) => (at.date.is_zero(), at.date.is_partial()),
        _ => return Value::Null,
    };
    if (partial.0 && cx.mode.no_zero_date) || (partial.1 && !partial.0 && cx.mode.no_zero_in_date) {
        let text = super::convert::to_string(value).unwrap_or_default();
        cx.warn(sql_error(1292, format!("Incorrect datetime value: '{}'", shown(text.as_bytes()))));
        return Value::Null;
    }
    found.unwrap_or(Value::Null)
}

fn to_string(value: &Value, from: &DataType, target: &DataType, cx: &Context<'_>) -> Value {
    let Some(text) = to_text_as(value, from) else { return Value::Null };
    let mut bytes = text.into_owned();
    if target.is_binary() {
        let limit = target.length as usize;
        if !target.is_blob() && bytes.len() > limit {
            cx.warn(super::error::truncated_wrong_value(&format!("BINARY({limit})"), &bytes));
            bytes.truncate(limit);
        }
        if target.kind == TypeKind::Char {
            bytes.resize(limit, 0);
        }
        return Value::Bin(bytes.into());
    }
    if !target.is_blob() {
        let text = String::from_utf8_lossy(&bytes);
        if let Some((end, _)) = text.char_indices().nth(target.length as usize) {
            cx.warn(super::error::truncated_wrong_value(&format!("CHAR({})", target.length), &bytes));
            bytes = text[..end].as_bytes().to_vec();
        }
    }
    Value::Str(bytes.into())
}

/// The same text as another character set or collation.
pub fn recollate(value: &Value, from: &DataType, target: &DataType) -> Value {
    match value {
        Value::Null => Value::Null,
        Value::Str(bytes) | Value::Bin(bytes) | Value::Json(bytes) => {
            if target.is_binary() {
                Value::Bin(bytes.clone())
            } else {
                Value::Str(bytes.clone())
            }
        }
        other => {
            let bytes = to_text_as(other, from).unwrap_or_default().into_owned();
            if target.is_binary() { Value::Bin(bytes.into()) } else { Value::Str(bytes.into()) }
        }
    }
}

/// A value in the common type of alternatives; an unknown type (parameters only) keeps the value as it is.
pub fn unified(value: Value, from: &DataType, target: &DataType) -> Value {
    match (target.kind, &value) {
        (_, Value::Null) | (TypeKind::Null, _) => value,
        (TypeKind::Decimal, Value::Int(number)) => {
            Value::Decimal(Decimal::from(*number).round(i32::from(target.scale)))
        }
        (TypeKind::Decimal, Value::UInt(number)) => {
            Value::Decimal(Decimal::from(*number).round(i32::from(target.scale)))
        }
        (TypeKind::Decimal, Value::Decimal(number)) => Value::Decimal(number.round(i32::from(target.scale))),
        (TypeKind::Double, Value::Int(number)) => Value::Double(*number as f64),
        (TypeKind::Double, Value::UInt(number)) => Value::Double(*number as f64),
        (TypeKind::Double, Value::Float(number)) => Value::Double(f64::from(*number)),
        (TypeKind::Double, Value::Decimal(number)) => Value::Double(number.to_f64()),
        (TypeKind::DateTime | TypeKind::Timestamp, Value::Date(date)) => Value::DateTime(date.at_midnight()),
        _ if target.is_string() && (value.as_bytes().is_none() || matches!(value, Value::Json(_))) => {
            recollate(&value, from, target)
        }
        _ if target.is_binary() => recollate(&value, from, target),
        _ => value,
    }
}
