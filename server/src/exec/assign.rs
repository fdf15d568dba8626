//! Owns how a statement's values become column values: defaults, NOT NULL, conversion to the column type.

use crate::{
    catalog::{Column, ColumnDefault},
    errmap::error,
    sql::{
        context::Context,
        error::Warning,
        plan::NewValue,
        types::{DataType, TypeKind},
        value::{Date, DateTime, Decimal, Time, Value},
    },
    wire::result::SqlError,
};

type Result<T> = std::result::Result<T, SqlError>;

/// The value of one column in one row: evaluated, checked, converted. `row` counts from 1, for messages.
pub fn column_value(new: &NewValue, column: &Column, slots: &[Value], row: u64, cx: &Context<'_>) -> Result<Value> {
    match new {
        NewValue::Default => default_value(column, cx),
        NewValue::Expr(e) => {
            let value = e.eval(slots, cx)?;
            stored(&value, &e.ty, column, row, cx)
        }
    }
}

/// Converts a value to the column's type; NULL into NOT NULL is 1048, or the type's zero if the statement is lenient.
pub fn stored(value: &Value, from: &DataType, column: &Column, row: u64, cx: &Context<'_>) -> Result<Value> {
    if value.is_null() {
        if column.nullable {
            return Ok(Value::Null);
        }
        let wrong = error(1048, format!("Column '{}' cannot be null", column.name));
        if cx.strict_data {
            return Err(wrong);
        }
        cx.warn(wrong);
        return Ok(zero(&column.ty));
    }
    super::store::store(value, from, &column.ty, super::store::Place { column: &column.name, row }, cx)
}

/// The column's default. 1364 if it has none, or the type's zero if the statement is lenient.
pub fn default_value(column: &Column, cx: &Context<'_>) -> Result<Value> {
    match &column.default {
        ColumnDefault::Value(value) => Ok(value.clone()),
        ColumnDefault::Now => Ok(now(&column.ty, cx)),
        ColumnDefault::None if column.nullable || column.auto_increment => Ok(Value::Null),
        ColumnDefault::None => {
            let missing = error(1364, format!("Field '{}' doesn't have a default value", column.name));
            if cx.strict_data {
                return Err(missing);
            }
            cx.warn(Warning::from(missing));
            Ok(zero(&column.ty))
        }
    }
}

/// CURRENT_TIMESTAMP with the type's fractional digits.
pub fn now(ty: &DataType, cx: &Context<'_>) -> Value {
    let unit = 10i64.pow(6 - u32::from(ty.scale.min(6)));
    let micros = cx.now_micros - cx.now_micros.rem_euclid(unit);
    DateTime::from_unix_micros(micros, cx.zone_offset_seconds).map_or(Value::Null, Value::DateTime)
}

/// MySQL's implicit default of a type.
pub fn zero(ty: &DataType) -> Value {
    match ty.kind {
        _ if ty.is_integer() && ty.unsigned => Value::UInt(0),
        _ if ty.is_integer() => Value::Int(0),
        TypeKind::Decimal => Value::Decimal(Decimal::new(0, ty.scale)),
        TypeKind::Float => Value::Float(0.0),
        TypeKind::Double => Value::Double(0.0),
        TypeKind::Date => Value::Date(Date::default()),
        TypeKind::Time => Value::Time(Time::default()),
        TypeKind::DateTime | TypeKind::Timestamp => Value::DateTime(DateTime::default()),
        TypeKind::Json => Value::Json("null".into()),
        _ if ty.is_binary() => Value::Bin(bytes::Bytes::new()),
        _ => Value::Str(bytes::Bytes::new()),
    }
}
