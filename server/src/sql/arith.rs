//! Owns arithmetic and bit operators on values: MySQL's result types, overflow (1690) and division by zero (1365).

use super::context::Context;
use super::convert::{to_bits, to_decimal, to_f64};
use super::decimal::Decimal;
use super::error::{Result, out_of_range, shown, sql_error};
use super::expr::{ArithOp, BitOp};
use super::infer::DIV_INCREMENT;
use super::value::Value;

/// A number in the widest form that keeps it exact.
enum Number {
    Int(i64),
    UInt(u64),
    Decimal(Decimal),
    Double(f64),
}

fn number(value: &Value, cx: &Context<'_>) -> Option<Number> {
    Some(match value {
        Value::Null => return None,
        Value::Int(number) => Number::Int(*number),
        Value::UInt(number) => Number::UInt(*number),
        Value::Decimal(number) => Number::Decimal(number.clone()),
        Value::Date(date) => Number::Int(date.to_number()),
        Value::Time(time) if time.parts().3 == 0 => Number::Int(time.to_number()),
        Value::DateTime(at) if at.micros == 0 => Number::Int(at.to_number()),
        Value::Time(_) | Value::DateTime(_) => Number::Decimal(to_decimal(value, cx)?),
        other => Number::Double(to_f64(other, cx)?),
    })
}

impl Number {
    fn wide(&self) -> Option<i128> {
        match self {
            Self::Int(number) => Some(i128::from(*number)),
            Self::UInt(number) => Some(i128::from(*number)),
            _ => None,
        }
    }
    fn decimal(&self) -> Option<Decimal> {
        match self {
            Self::Int(number) => Some(Decimal::from(*number)),
            Self::UInt(number) => Some(Decimal::from(*number)),
            Self::Decimal(number) => Some(number.clone()),
            Self::Double(_) => None,
        }
    }
    fn double(&self) -> f64 {
        match self {
            Self::Int(number) => *number as f64,
            Self::UInt(number) => *number as f64,
            Self::Decimal(number) => number.to_f64(),
            Self::Double(number) => *number,
        }
    }
    fn is_zero(&self) -> bool {
        match self {
            Self::Int(number) => *number == 0,
            Self::UInt(number) => *number == 0,
            Self::Decimal(number) => number.is_zero(),
            Self::Double(number) => *number == 0.0,
        }
    }
}

/// `a op b`.
pub fn arithmetic(op: ArithOp, a: &Value, b: &Value, cx: &Context<'_>) -> Result<Value> {
    // The common case first.
    if let (Value::Int(x), Value::Int(y)) = (a, b) {
        let fast = match op {
            ArithOp::Add => x.checked_add(*y),
            ArithOp::Sub => x.checked_sub(*y),
            ArithOp::Mul => x.checked_mul(*y),
            _ => None,
        };
        if let Some(result) = fast {
            return Ok(Value::Int(result));
        }
    }
    let (Some(x), Some(y)) = (number(a, cx), number(b, cx)) else { return Ok(Value::Null) };
    if matches!(op, ArithOp::Div | ArithOp::IntDiv | ArithOp::Mod) && y.is_zero() {
        return division_by_zero(cx);
    }
    let overflow = |kind: &str| out_of_range(kind, &expression(op, a, b));
    if let (Some(i), Some(j)) = (x.wide(), y.wide())
        && op != ArithOp::Div
    {
        return integers(op, i, j, &x, &y, cx).map_err(&overflow);
    }
    if let (Some(i), Some(j)) = (x.decimal(), y.decimal()) {
        return decimals(op, &i, &j, unsigned(&x) || unsigned(&y)).map_err(overflow);
    }
    doubles(op, x.double(), y.double()).ok_or_else(|| overflow(if op == ArithOp::IntDiv { "BIGINT" } else { "DOUBLE" }))
}

fn unsigned(number: &Number) -> bool {
    matches!(number, Number::UInt(_))
}

fn integers(
    op: ArithOp,
    i: i128,
    j: i128,
    x: &Number,
    y: &Number,
    cx: &Context<'_>,
) -> std::result::Result<Value, &'static str> {
    let mut unsigned_result = unsigned(x) || unsigned(y);
    let result = match op {
        ArithOp::Add => i.checked_add(j),
        ArithOp::Sub => {
            unsigned_result &= !cx.mode.no_unsigned_subtraction;
            i.checked_sub(j)
        }
        ArithOp::Mul => i.checked_mul(j),
        ArithOp::IntDiv | ArithOp::Div => i.checked_div(j),
        ArithOp::Mod => {
            unsigned_result = unsigned(x);
            i.checked_rem(j)
        }
    };
    if unsigned_result {
        let fits = result.and_then(|wide| u64::try_from(wide).ok());
        return fits.map(Value::UInt).ok_or("BIGINT UNSIGNED");
    }
    result.and_then(|wide| i64::try_from(wide).ok()).map(Value::Int).ok_or("BIGINT")
}

fn decimals(op: ArithOp, i: &Decimal, j: &Decimal, unsigned: bool) -> std::result::Result<Value, &'static str> {
    let result = match op {
        ArithOp::Add => i.add(j),
        ArithOp::Sub => i.sub(j),
        ArithOp::Mul => i.mul(j),
        ArithOp::Div => i.div(j, DIV_INCREMENT),
        ArithOp::Mod => i.rem(j),
        ArithOp::IntDiv => {
            let wide = i.int_div(j).and_then(|whole| whole.to_i128());
            return match wide {
                Some(wide) if unsigned => u64::try_from(wide).map(Value::UInt).map_err(|_| "BIGINT UNSIGNED"),
                Some(wide) => i64::try_from(wide).map(Value::Int).map_err(|_| "BIGINT"),
                None => Err("BIGINT"),
            };
        }
    };
    result.map(Value::Decimal).ok_or("DECIMAL")
}

fn doubles(op: ArithOp, x: f64, y: f64) -> Option<Value> {
    let result = match op {
        ArithOp::Add => x + y,
        ArithOp::Sub => x - y,
        ArithOp::Mul => x * y,
        ArithOp::Div => x / y,
        ArithOp::Mod => x % y,
        ArithOp::IntDiv => {
            let whole = (x / y).trunc();
            let fits = whole >= i64::MIN as f64 && whole < i64::MAX as f64;
            return fits.then_some(Value::Int(whole as i64));
        }
    };
    result.is_finite().then_some(Value::Double(result))
}

/// NULL with warning 1365, or the error when writing in strict mode.
pub fn division_by_zero(cx: &Context<'_>) -> Result<Value> {
    if cx.mode.error_for_division_by_zero {
        let error = sql_error(1365, "Division by 0");
        if cx.strict_data {
            return Err(error);
        }
        cx.warn(error);
    }
    Ok(Value::Null)
}

fn expression(op: ArithOp, a: &Value, b: &Value) -> String {
    let symbol = match op {
        ArithOp::Add => "+",
        ArithOp::Sub => "-",
        ArithOp::Mul => "*",
        ArithOp::Div => "/",
        ArithOp::IntDiv => "DIV",
        ArithOp::Mod => "%",
    };
    format!("({} {symbol} {})", operand(a), operand(b))
}

fn operand(value: &Value) -> String {
    let text = super::convert::to_text(value).map_or_else(|| "NULL".to_owned(), |text| shown(&text));
    if value.as_bytes().is_some() { format!("'{text}'") } else { text }
}

/// `-value`.
pub fn negate(value: &Value, cx: &Context<'_>) -> Result<Value> {
    Ok(match number(value, cx) {
        None => Value::Null,
        Some(Number::Int(i64::MIN)) => Value::Decimal(Decimal::from(i64::MIN).neg()),
        Some(Number::Int(number)) => Value::Int(-number),
        Some(Number::UInt(number)) => match i64::try_from(-i128::from(number)) {
            Ok(number) => Value::Int(number),
            Err(_) => return Err(out_of_range("BIGINT", &format!("-({number})"))),
        },
        Some(Number::Decimal(number)) => Value::Decimal(number.neg()),
        Some(Number::Double(number)) => Value::Double(-number),
    })
}

/// `& | ^ << >>`: 64-bit unsigned, or byte by byte on two binary strings of equal length.
pub fn bits(op: BitOp, a: &Value, b: &Value, cx: &Context<'_>) -> Result<Value> {
    if let (Value::Bin(x), Value::Bin(y)) = (a, b)
        && matches!(op, BitOp::And | BitOp::Or | BitOp::Xor)
    {
        if x.len() != y.len() {
            return Err(sql_error(3513, "Binary operands of bitwise operators must be of equal length"));
        }
        let each = |(x, y): (&u8, &u8)| match op {
            BitOp::And => x & y,
            BitOp::Or => x | y,
            _ => x ^ y,
        };
        return Ok(Value::Bin(x.iter().zip(y).map(each).collect()));
    }
    let (Some(x), Some(y)) = (to_bits(a, cx), to_bits(b, cx)) else { return Ok(Value::Null) };
    Ok(Value::UInt(match op {
        BitOp::And => x & y,
        BitOp::Or => x | y,
        BitOp::Xor => x ^ y,
        BitOp::Shl => u32::try_from(y).ok().and_then(|y| x.checked_shl(y)).unwrap_or(0),
        BitOp::Shr => u32::try_from(y).ok().and_then(|y| x.checked_shr(y)).unwrap_or(0),
    }))
}
