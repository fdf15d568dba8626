//! Owns SQL comparison of values: which type both sides take, and NULL.

use std::cmp::Ordering;

use super::collation::Collation;
use super::context::Context;
use super::convert::{parse_f64, to_datetime, to_decimal, to_f64};
use super::error::truncated_wrong_value;
use super::temporal::{parse_datetime, parse_time};
use super::value::Value;

/// Compares as MySQL does; `None` if either side is NULL. Text is compared by `collation`.
pub fn compare(a: &Value, b: &Value, collation: Collation, cx: &Context<'_>) -> Option<Ordering> {
    use Value as V;
    Some(match (a, b) {
        (V::Int(a), V::Int(b)) => a.cmp(b),
        (V::Null, _) | (_, V::Null) => return None,
        (V::Str(a), V::Str(b)) => collation.compare(a, b),
        (V::UInt(a), V::UInt(b)) => a.cmp(b),
        (V::Int(a), V::UInt(b)) => i128::from(*a).cmp(&i128::from(*b)),
        (V::UInt(a), V::Int(b)) => i128::from(*a).cmp(&i128::from(*b)),
        (V::Str(a) | V::Bin(a), V::Str(b) | V::Bin(b)) => a.cmp(b),
        (V::Date(a), V::Date(b)) => a.cmp(b),
        (V::DateTime(a), V::DateTime(b)) => a.cmp(b),
        (V::Time(a), V::Time(b)) => a.cmp(b),
        (V::Date(a), V::DateTime(b)) => a.at_midnight().cmp(b),
        (V::DateTime(a), V::Date(b)) => a.cmp(&b.at_midnight()),
        (V::Decimal(a), V::Decimal(b)) => a.cmp(b),
        (V::Decimal(_), V::Int(_) | V::UInt(_)) | (V::Int(_) | V::UInt(_), V::Decimal(_)) => {
            to_decimal(a, cx)?.cmp(&to_decimal(b, cx)?)
        }
        (V::Json(_), _) | (_, V::Json(_)) => super::json::compare(a, b, cx)?,
        _ if a.is_temporal() && b.as_bytes().is_some() => compare_temporal_text(a, b, collation, cx)?,
        _ if b.is_temporal() && a.as_bytes().is_some() => compare_temporal_text(b, a, collation, cx)?.reverse(),
        _ if a.is_temporal() && b.is_temporal() => to_datetime(a, cx)?.cmp(&to_datetime(b, cx)?),
        _ if exact(a) && exact(b) => to_decimal(a, cx)?.cmp(&to_decimal(b, cx)?),
        _ => to_f64(a, cx)?.partial_cmp(&to_f64(b, cx)?).unwrap_or(Ordering::Equal),
    })
}

/// Dates against numbers compare exactly.
fn exact(value: &Value) -> bool {
    value.is_temporal() || matches!(value, Value::Int(_) | Value::UInt(_) | Value::Decimal(_))
}

/// A date, time or datetime against text: the text is read as the same kind. Text that is none compares as text, with a warning.
fn compare_temporal_text(at: &Value, text: &Value, collation: Collation, cx: &Context<'_>) -> Option<Ordering> {
    let bytes = text.as_bytes()?;
    if let Value::Time(time) = at {
        if let Some(parsed) = parse_time(bytes) {
            return Some(time.cmp(&parsed.value));
        }
    } else if let Some(parsed) = parse_datetime(bytes, true) {
        return Some(to_datetime(at, cx)?.cmp(&parsed.value));
    }
    cx.warn(truncated_wrong_value("datetime", bytes));
    let shown = super::convert::to_text(at)?;
    Some(collation.compare(&shown, bytes))
}

/// Order for ORDER BY, MIN, MAX and GROUP BY: NULL is lowest.
pub fn order(a: &Value, b: &Value, collation: Collation, cx: &Context<'_>) -> Ordering {
    match (a.is_null(), b.is_null()) {
        (true, true) => Ordering::Equal,
        (true, false) => Ordering::Less,
        (false, true) => Ordering::Greater,
        (false, false) => compare(a, b, collation, cx).unwrap_or(Ordering::Equal),
    }
}

/// A constant turned into the type of the column that it is compared with, where that changes no comparison:
/// lets ranges be made from `int_col = '5'` or `date_col > '2024-01-01'`. `None`: compare row by row.
pub fn for_column(value: &Value, column: &super::types::DataType) -> Option<Value> {
    use super::types::TypeKind as K;
    let text = match value {
        Value::Str(text) | Value::Bin(text) => text,
        Value::Null => return None,
        Value::Int(_) | Value::UInt(_) => {
            return (column.is_integer() || column.kind == K::Decimal).then(|| value.clone());
        }
        Value::Decimal(_) => return (column.is_integer() || column.kind == K::Decimal).then(|| value.clone()),
        Value::Float(_) | Value::Double(_) => {
            return matches!(column.kind, K::Float | K::Double).then(|| value.clone());
        }
        Value::Date(date) => {
            return match column.kind {
                K::Date => Some(value.clone()),
                K::DateTime | K::Timestamp => Some(Value::DateTime(date.at_midnight())),
                _ => None,
            };
        }
        Value::DateTime(_) => {
            return matches!(column.kind, K::DateTime | K::Timestamp | K::Date).then(|| value.clone());
        }
        Value::Time(_) => return (column.kind == K::Time).then(|| value.clone()),
        Value::Json(_) => return None,
    };
    match column.kind {
        _ if column.is_string() => Some(value.clone()),
        K::Date | K::DateTime | K::Timestamp => {
            let parsed = parse_datetime(text, false).filter(|parsed| parsed.clean)?;
            Some(Value::DateTime(parsed.value))
        }
        K::Time => parse_time(text).filter(|parsed| parsed.clean).map(|parsed| Value::Time(parsed.value)),
        _ if column.is_integer() => {
            // Text and numbers compare as doubles, which is exact up to 2^53.
            let (number, clean) = parse_f64(text);
            let exact = clean && number.fract() == 0.0 && number.abs() <= (1u64 << 53) as f64;
            exact.then_some(Value::Int(number as i64))
        }
        K::Float | K::Double => {
            let (number, clean) = parse_f64(text);
            clean.then_some(Value::Double(number))
        }
        _ => None,
    }
}
