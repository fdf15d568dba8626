//! Numeric functions: rounding, powers, logarithms, trigonometry, RAND.

use super::{Call, Function, function};
use crate::sql::arith::negate;
use crate::sql::decimal::Decimal;
use crate::sql::error::{Result, out_of_range, sql_error};
use crate::sql::expr::{Expr, Node};
use crate::sql::types::{DECIMAL_MAX_SCALE, DataType, TypeKind};
use crate::sql::value::Value;

fn double(_: &[Expr]) -> DataType {
    DataType::DOUBLE
}

fn int(_: &[Expr]) -> DataType {
    DataType::BIGINT
}

/// The number type of the first argument; text is a double.
fn same(args: &[Expr]) -> DataType {
    let Some(arg) = args.first() else { return DataType::DOUBLE };
    match arg.ty.kind {
        _ if arg.ty.is_integer() => DataType { precision: 0, zerofill: false, kind: TypeKind::Big, ..arg.ty },
        TypeKind::Decimal => arg.ty,
        _ if arg.ty.is_temporal() => DataType::BIGINT,
        _ => DataType::DOUBLE,
    }
}

/// CEIL and FLOOR: integers where the number is exact and fits.
fn whole(args: &[Expr]) -> DataType {
    let ty = same(args);
    match ty.kind {
        TypeKind::Decimal if ty.integer_digits() < 18 => DataType::BIGINT,
        TypeKind::Decimal => DataType::decimal(ty.integer_digits() + 1, 0),
        _ => ty,
    }
}

/// ROUND and TRUNCATE: the scale asked for, if it is constant.
fn rounded(args: &[Expr]) -> DataType {
    let ty = same(args);
    if ty.kind != TypeKind::Decimal {
        return ty;
    }
    let scale = match args.get(1).map(|arg| &arg.node) {
        None => 0,
        Some(Node::Const(Value::Int(scale))) => (*scale).clamp(0, i64::from(ty.scale)) as u32,
        _ => u32::from(ty.scale),
    };
    DataType::decimal(ty.integer_digits() + 1 + scale, scale)
}

/// A double function that gives NULL outside its domain, and 1690 if the result is infinite.
fn checked(call: &Call<'_>, name: &str, result: f64) -> Result<Value> {
    if result.is_nan() {
        return Ok(Value::Null);
    }
    if result.is_infinite() {
        return Err(out_of_range("DOUBLE", &format!("{name}({})", call.string(0))));
    }
    Ok(Value::Double(result))
}

/// LN and its kin warn 3020 below or at zero.
fn logarithm(call: &Call<'_>, name: &str, argument: f64, result: f64) -> Result<Value> {
    if argument <= 0.0 {
        call.cx.warn(sql_error(3020, "Invalid argument for logarithm".to_string()));
        return Ok(Value::Null);
    }
    checked(call, name, result)
}

pub(super) const TABLE: &[Function] = &[
    function("ABS", 1, 1, same, |call| match call.value(0) {
        Value::Int(i64::MIN) => Err(out_of_range("BIGINT", "abs(-9223372036854775808)")),
        Value::Int(number) => Ok(Value::Int(number.abs())),
        Value::UInt(number) => Ok(Value::UInt(*number)),
        Value::Decimal(number) if number.is_negative() => Ok(Value::Decimal(number.neg())),
        Value::Decimal(number) => Ok(Value::Decimal(number.clone())),
        Value::DateTime(_) | Value::Date(_) | Value::Time(_) => Ok(Value::Int(call.int(0).abs())),
        _ => Ok(Value::Double(call.f64(0).abs())),
    }),
    function("CEIL", 1, 1, whole, |call| to_whole(call, Decimal::ceil, f64::ceil)),
    function("FLOOR", 1, 1, whole, |call| to_whole(call, Decimal::floor, f64::floor)),
    function("ROUND", 1, 2, rounded, |call| round(call, true)),
    function("TRUNCATE", 2, 2, rounded, |call| round(call, false)),
    function("SIGN", 1, 1, int, |call| {
        let number = call.f64(0);
        Ok(Value::Int(if number > 0.0 {
            1
        } else if number < 0.0 {
            -1
        } else {
            0
        }))
    }),
    function("POW", 2, 2, double, |call| checked(call, "pow", call.f64(0).powf(call.f64(1)))),
    function("SQRT", 1, 1, double, |call| checked(call, "sqrt", call.f64(0).sqrt())),
    function("EXP", 1, 1, double, |call| checked(call, "exp", call.f64(0).exp())),
    function("LN", 1, 1, double, |call| logarithm(call, "ln", call.f64(0), call.f64(0).ln())),
    function("LOG10", 1, 1, double, |call| logarithm(call, "log10", call.f64(0), call.f64(0).log10())),
    function("LOG2", 1, 1, double, |call| logarithm(call, "log2", call.f64(0), call.f64(0).log2())),
    function("LOG", 1, 2, double, |call| {
        if call.len() == 1 {
            return logarithm(call, "log", call.f64(0), call.f64(0).ln());
        }
        let (base, argument) = (call.f64(0), call.f64(1));
        if base <= 0.0 || base == 1.0 {
            return logarithm(call, "log", 0.0, 0.0);
        }
        logarithm(call, "log", argument, argument.ln() / base.ln())
    }),
    function("PI", 0, 0, |_| DataType { scale: 6, ..DataType::DOUBLE }, |_| Ok(Value::Double(std::f64::consts::PI))),
    function("SIN", 1, 1, double, |call| checked(call, "sin", call.f64(0).sin())),
    function("COS", 1, 1, double, |call| checked(call, "cos", call.f64(0).cos())),
    function("TAN", 1, 1, double, |call| checked(call, "tan", call.f64(0).tan())),
    function("COT", 1, 1, double, |call| checked(call, "cot", call.f64(0).tan().recip())),
    function("ASIN", 1, 1, double, |call| checked(call, "asin", call.f64(0).asin())),
    function("ACOS", 1, 1, double, |call| checked(call, "acos", call.f64(0).acos())),
    function("ATAN", 1, 2, double, atan),
    function("ATAN2", 1, 2, double, atan),
    function("DEGREES", 1, 1, double, |call| checked(call, "degrees", call.f64(0).to_degrees())),
    function("RADIANS", 1, 1, double, |call| checked(call, "radians", call.f64(0).to_radians())),
    function("BIT_COUNT", 1, 1, int, |call| {
        if let Value::Bin(bytes) = call.value(0) {
            return Ok(Value::Int(bytes.iter().map(|byte| i64::from(byte.count_ones())).sum()));
        }
        let bits = crate::sql::convert::to_bits(call.value(0), call.cx).unwrap_or(0);
        Ok(Value::Int(i64::from(bits.count_ones())))
    }),
    function("RAND", 0, 1, double, |call| {
        // A seed gives the first number of its sequence, as MySQL does for a constant in a single row.
        Ok(Value::Double(if call.len() == 0 { call.cx.session.random() } else { seeded(call.int(0) as u32) }))
    })
    .is_volatile(),
];

fn atan(call: &Call<'_>) -> Result<Value> {
    let result = if call.len() == 2 { call.f64(0).atan2(call.f64(1)) } else { call.f64(0).atan() };
    checked(call, "atan", result)
}

/// First number of MySQL's generator for a seed.
fn seeded(seed: u32) -> f64 {
    const MODULUS: u64 = 0x3fff_ffff;
    let first = u64::from(seed.wrapping_mul(0x10001).wrapping_add(55_555_555)) % MODULUS;
    let second = u64::from(seed.wrapping_mul(0x1000_0001)) % MODULUS;
    let next = (first * 3 + second) % MODULUS;
    next as f64 / MODULUS as f64
}

fn to_whole(call: &Call<'_>, exact: fn(&Decimal) -> Decimal, double: fn(f64) -> f64) -> Result<Value> {
    Ok(match call.value(0) {
        Value::Int(_) | Value::UInt(_) => call.value(0).clone(),
        Value::Decimal(number) => {
            let whole = exact(number);
            let fits = whole.to_i128().and_then(|wide| i64::try_from(wide).ok());
            match fits {
                Some(number) if call.ty.kind != TypeKind::Decimal => Value::Int(number),
                _ => Value::Decimal(whole),
            }
        }
        value if value.is_temporal() => Value::Int(call.int(0)),
        _ => Value::Double(double(call.f64(0))),
    })
}

fn round(call: &Call<'_>, up: bool) -> Result<Value> {
    let digits = if call.len() > 1 { call.int(1).clamp(-70, 30) as i32 } else { 0 };
    let exact = |number: &Decimal| {
        // A constant scale is in the type; a scale from a column may be larger than the value's.
        let scale = digits.min(i32::from(number.scale())).min(i32::from(DECIMAL_MAX_SCALE));
        if up { number.round(scale) } else { number.truncate(scale) }
    };
    Ok(match call.value(0) {
        Value::Int(number) if digits >= 0 => Value::Int(*number),
        Value::UInt(number) if digits >= 0 => Value::UInt(*number),
        value @ (Value::Int(_) | Value::UInt(_)) => {
            let unsigned = matches!(value, Value::UInt(_));
            let wide = exact(&call.decimal(0)).to_i128().unwrap_or(0);
            let overflow = || {
                out_of_range(
                    if unsigned { "BIGINT UNSIGNED" } else { "BIGINT" },
                    &format!("round({},{digits})", call.string(0)),
                )
            };
            if unsigned {
                Value::UInt(u64::try_from(wide).map_err(|_| overflow())?)
            } else {
                Value::Int(i64::try_from(wide).map_err(|_| overflow())?)
            }
        }
        Value::Decimal(number) => Value::Decimal(exact(number)),
        value if value.is_temporal() => negate(&negate(value, call.cx)?, call.cx)?,
        _ => Value::Double(round_double(call.f64(0), digits, up)),
    })
}

fn round_double(number: f64, digits: i32, up: bool) -> f64 {
    let power = 10f64.powi(digits.abs());
    let scaled = if digits >= 0 { number * power } else { number / power };
    if !scaled.is_finite() {
        return number;
    }
    let whole = if up { scaled.round_ties_even() } else { scaled.trunc() };
    if digits >= 0 { whole / power } else { whole * power }
}
