//! Small number helpers of execution that the value types do not offer.

use crate::sql::value::{Decimal, Value};

/// The value as DECIMAL(precision, scale) if it is exactly one.
pub fn fit_decimal(value: &Value, precision: u8, scale: u8) -> Option<Value> {
    let d = match value {
        Value::Decimal(d) => d.clone(),
        Value::Int(n) => Decimal::new(i128::from(*n), 0),
        Value::UInt(n) => Decimal::new(i128::from(*n), 0),
        _ => return None,
    };
    let rounded = d.round(i32::from(scale));
    let same = rounded.sub(&d).is_some_and(|rest| rest.is_zero());
    (same && rounded.integer_digits() <= u32::from(precision.saturating_sub(scale))).then_some(Value::Decimal(rounded))
}

/// The integer below, and whether the number is that integer.
pub fn floor(d: &Decimal) -> Option<(i128, bool)> {
    let floor = d.floor();
    let whole = floor.sub(d).is_some_and(|rest| rest.is_zero());
    floor.to_i128().map(|n| (n, whole))
}
