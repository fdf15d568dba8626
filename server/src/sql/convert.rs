//! Owns conversion of a value to another type inside expressions: number, text, date, truth.

use std::borrow::Cow;
use std::io::Write as _;

use super::context::Context;
use super::decimal::Decimal;
use super::error::truncated_wrong_value;
use super::temporal::{parse_datetime, parse_time, shown_fsp};
use super::types::{DataType, NOT_FIXED, TypeKind};
use super::value::{Date, DateTime, Time, Value};

/// Longest prefix of `text` that is a number, and whether anything but white space follows it.
pub fn number_prefix(text: &[u8]) -> (&[u8], bool) {
    let trimmed = text.trim_ascii_start();
    let mut at = usize::from(matches!(trimmed.first(), Some(b'+' | b'-')));
    let digits = |from: usize| trimmed[from..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    let whole = digits(at);
    at += whole;
    let mut fraction = 0;
    if trimmed.get(at) == Some(&b'.') {
        fraction = digits(at + 1);
        if whole + fraction > 0 {
            at += 1 + fraction;
        }
    }
    if whole + fraction == 0 {
        return (&[], true);
    }
    if matches!(trimmed.get(at), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(trimmed.get(at + 1), Some(b'+' | b'-')));
        if at + 1 + sign < trimmed.len() {
            let exponent = digits(at + 1 + sign);
            if exponent > 0 {
                at += 1 + sign + exponent;
            }
        }
    }
    (&trimmed[..at], !trimmed[at..].trim_ascii_start().is_empty())
}

/// Text as a double, and whether the text was a clean number.
pub fn parse_f64(text: &[u8]) -> (f64, bool) {
    let (number, rest) = number_prefix(text);
    let value: f64 = std::str::from_utf8(number).ok().and_then(|text| text.parse().ok()).unwrap_or(0.0);
    if value.is_infinite() { (f64::MAX.copysign(value), false) } else { (value, !rest) }
}

/// Any value as a double; text that is no number warns (1292). NULL is `None`.
pub fn to_f64(value: &Value, cx: &Context<'_>) -> Option<f64> {
    Some(match value {
        Value::Null => return None,
        Value::Int(number) => *number as f64,
        Value::UInt(number) => *number as f64,
        Value::Float(number) => f64::from(*number),
        Value::Double(number) => *number,
        Value::Decimal(number) => number.to_f64(),
        Value::Str(text) | Value::Bin(text) => {
            let (number, clean) = parse_f64(text);
            if !clean {
                cx.warn(truncated_wrong_value("DOUBLE", text));
            }
            number
        }
        Value::Json(text) => parse_f64(json_scalar_text(text)).0,
        Value::Date(date) => date.to_number() as f64,
        Value::Time(time) => time.to_number() as f64 + fraction(*time),
        Value::DateTime(at) => at.to_number() as f64 + f64::from(at.micros) / 1e6,
    })
}

fn fraction(time: Time) -> f64 {
    let micros = f64::from(time.parts().3) / 1e6;
    if time.micros < 0 { -micros } else { micros }
}

fn json_scalar_text(text: &[u8]) -> &[u8] {
    match text {
        b"true" => b"1",
        b"false" => b"0",
        [b'"', inner @ .., b'"'] => inner,
        other => other,
    }
}

/// Any value as an exact decimal; text that is no number warns. NULL is `None`.
pub fn to_decimal(value: &Value, cx: &Context<'_>) -> Option<Decimal> {
    Some(match value {
        Value::Null => return None,
        Value::Int(number) => Decimal::from(*number),
        Value::UInt(number) => Decimal::from(*number),
        Value::Float(number) => Decimal::from_f64(f64::from(*number)),
        Value::Double(number) => Decimal::from_f64(*number),
        Value::Decimal(number) => number.clone(),
        Value::Str(text) | Value::Bin(text) => {
            let (number, rest) = number_prefix(text);
            if rest {
                cx.warn(truncated_wrong_value("DECIMAL", text));
            }
            Decimal::parse_prefix(number).0
        }
        Value::Json(text) => Decimal::parse_prefix(number_prefix(json_scalar_text(text)).0).0,
        Value::Date(date) => Decimal::from(date.to_number()),
        Value::Time(time) => with_micros(time.to_number(), time.parts().3),
        Value::DateTime(at) => with_micros(at.to_number(), at.micros),
    })
}

fn with_micros(number: i64, micros: u32) -> Decimal {
    if micros == 0 {
        return Decimal::from(number);
    }
    let sign = if number < 0 { -1 } else { 1 };
    Decimal::new(i128::from(number) * 1_000_000 + i128::from(micros) * sign, 6)
}

/// Any value as an integer wide enough for both signs; fractions are rounded, text is cut at its integer prefix (with a warning).
pub fn to_int(value: &Value, cx: &Context<'_>) -> Option<i128> {
    Some(match value {
        Value::Null => return None,
        Value::Int(number) => i128::from(*number),
        Value::UInt(number) => i128::from(*number),
        Value::Float(number) => f64::from(*number).round_ties_even() as i128,
        Value::Double(number) => number.round_ties_even() as i128,
        Value::Decimal(number) => clamp_decimal(number),
        Value::Str(text) | Value::Bin(text) => text_to_int(text, cx),
        Value::Json(text) => text_to_int(json_scalar_text(text), cx),
        Value::Date(date) => i128::from(date.to_number()),
        Value::Time(time) => i128::from(time.round(0).to_number()),
        Value::DateTime(at) => i128::from(at.round(0).unwrap_or(*at).to_number()),
    })
}

fn clamp_decimal(number: &Decimal) -> i128 {
    number.to_i128().unwrap_or(if number.is_negative() { i128::MIN } else { i128::MAX })
}

/// CAST(text AS SIGNED): the integer prefix.
fn text_to_int(text: &[u8], cx: &Context<'_>) -> i128 {
    let trimmed = text.trim_ascii();
    let sign = usize::from(matches!(trimmed.first(), Some(b'+' | b'-')));
    let end = sign + trimmed[sign..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    if end < trimmed.len() || end == sign {
        cx.warn(truncated_wrong_value("INTEGER", text));
    }
    if end == sign {
        return 0;
    }
    let digits = std::str::from_utf8(&trimmed[..end]).unwrap_or("0");
    digits.parse().unwrap_or(if trimmed.first() == Some(&b'-') { i128::MIN } else { i128::MAX })
}

/// To an i64, saturating.
pub fn to_i64(value: &Value, cx: &Context<'_>) -> Option<i64> {
    match value {
        Value::Int(number) => Some(*number),
        other => to_int(other, cx).map(|wide| wide.clamp(i128::from(i64::MIN), i128::from(i64::MAX)) as i64),
    }
}

/// Bits of a number, for bit operators: negative numbers wrap.
pub fn to_bits(value: &Value, cx: &Context<'_>) -> Option<u64> {
    Some(match value {
        Value::Int(number) => *number as u64,
        Value::UInt(number) => *number,
        other => {
            let wide = to_int(other, cx)?;
            if wide < 0 { wide.max(i128::from(i64::MIN)) as i64 as u64 } else { wide.min(i128::from(u64::MAX)) as u64 }
        }
    })
}

/// Truth of a value: `None` is NULL.
pub fn to_bool(value: &Value, cx: &Context<'_>) -> Option<bool> {
    match value {
        Value::Int(number) => Some(*number != 0),
        Value::Decimal(number) => Some(!number.is_zero()),
        other => to_f64(other, cx).map(|number| number != 0.0),
    }
}

/// Text of a value; NULL is `None`. Dates and times show their fraction only if there is one; see [`to_text_as`].
pub fn to_text(value: &Value) -> Option<Cow<'_, [u8]>> {
    let owned = match value {
        Value::Null => return None,
        Value::Str(text) | Value::Bin(text) | Value::Json(text) => return Some(Cow::Borrowed(text)),
        Value::Int(number) => number.to_string(),
        Value::UInt(number) => number.to_string(),
        Value::Float(number) => format_f32(*number),
        Value::Double(number) => format_f64(*number),
        Value::Decimal(number) => number.to_string(),
        Value::Date(date) => date.to_string(),
        Value::Time(time) => time.format(shown_fsp(time.parts().3)),
        Value::DateTime(at) => at.format(shown_fsp(at.micros)),
    };
    Some(Cow::Owned(owned.into_bytes()))
}

/// Text of a value of a known type: the type's fractional digits, ZEROFILL and fixed decimals apply.
pub fn to_text_as<'a>(value: &'a Value, ty: &DataType) -> Option<Cow<'a, [u8]>> {
    let owned = match value {
        Value::Time(time) if ty.kind == TypeKind::Time => time.format(ty.scale),
        Value::DateTime(at) if matches!(ty.kind, TypeKind::DateTime | TypeKind::Timestamp) => at.format(ty.scale),
        Value::Double(number) if ty.scale < NOT_FIXED => format!("{number:.*}", usize::from(ty.scale)),
        Value::UInt(number) if ty.zerofill => format!("{number:0width$}", width = ty.display_length() as usize),
        Value::Int(year) if ty.kind == TypeKind::Year => format!("{year:04}"),
        other => return to_text(other),
    };
    Some(Cow::Owned(owned.into_bytes()))
}

/// Text of a value as UTF-8; bytes that are not become U+FFFD.
pub fn to_string(value: &Value) -> Option<String> {
    to_text(value).map(|text| String::from_utf8_lossy(&text).into_owned())
}

/// A double as MySQL prints it: shortest digits, scientific below 1e-15 and from 1e15.
pub fn format_f64(value: f64) -> String {
    scientific_or_plain(value, &format!("{value:e}"))
}

/// A float as MySQL prints it: six significant digits.
pub fn format_f32(value: f32) -> String {
    let shortest = format!("{value:e}");
    let mantissa_digits = shortest.split('e').next().unwrap_or_default().bytes().filter(u8::is_ascii_digit).count();
    let text = if mantissa_digits > 6 { format!("{value:.5e}") } else { shortest };
    scientific_or_plain(f64::from(value), &text)
}

/// Turns Rust's `d.ddde±x` into MySQL's choice of notation.
fn scientific_or_plain(value: f64, text: &str) -> String {
    if value == 0.0 || !value.is_finite() {
        return if value.is_sign_negative() && value == 0.0 { "-0".into() } else { "0".into() };
    }
    let (mantissa, exponent) = text.split_once('e').unwrap_or((text, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let negative = mantissa.starts_with('-');
    let mut digits: String = mantissa.chars().filter(char::is_ascii_digit).collect();
    while digits.len() > 1 && digits.ends_with('0') {
        digits.pop();
    }
    let mut out = Vec::with_capacity(24);
    if negative {
        out.push(b'-');
    }
    // The point stands after `point` digits.
    let point = exponent + 1;
    if !(-14..=15).contains(&point) {
        let (first, rest) = digits.split_at(1);
        let dot = if rest.is_empty() { "" } else { "." };
        let _ = write!(out, "{first}{dot}{rest}e{exponent}");
    } else if point <= 0 {
        let _ = write!(out, "0.{}{digits}", "0".repeat((-point) as usize));
    } else if digits.len() <= point as usize {
        let _ = write!(out, "{digits}{}", "0".repeat(point as usize - digits.len()));
    } else {
        let (whole, rest) = digits.split_at(point as usize);
        let _ = write!(out, "{whole}.{rest}");
    }
    String::from_utf8(out).unwrap_or_default()
}

/// A date and time; text and numbers are read. `None`: NULL, or no date (which warns 1292).
pub fn to_datetime(value: &Value, cx: &Context<'_>) -> Option<DateTime> {
    let found = match value {
        Value::Null => return None,
        Value::DateTime(at) => return Some(*at),
        Value::Date(date) => return Some(date.at_midnight()),
        Value::Time(time) => {
            let today = DateTime::from_unix_micros(cx.now_micros, cx.zone_offset_seconds)?.date;
            return DateTime::from_linear_micros(today.at_midnight().linear_micros() + time.micros);
        }
        Value::Str(text) | Value::Bin(text) => {
            let parsed = parse_datetime(text, cx.mode.allow_invalid_dates);
            if parsed.is_some_and(|p| !p.clean) {
                cx.warn(truncated_wrong_value("datetime", text));
            }
            parsed.map(|p| p.value)
        }
        Value::Json(text) => parse_datetime(json_scalar_text(text), false).map(|p| p.value),
        Value::Decimal(number) => decimal_to_datetime(number),
        Value::Int(_) | Value::UInt(_) | Value::Float(_) | Value::Double(_) => {
            to_i64(value, cx).and_then(DateTime::from_number)
        }
    };
    if found.is_none() {
        cx.warn(incorrect("datetime", value));
    }
    found
}

fn decimal_to_datetime(number: &Decimal) -> Option<DateTime> {
    let whole = number.truncate(0);
    let at = DateTime::from_number(i64::try_from(whole.to_i128()?).ok()?)?;
    let micros = number.sub(&whole)?.round(6).small_coefficient()?;
    if micros >= 1_000_000 { at.round(0) } else { Some(DateTime { micros: micros as u32, ..at }) }
}

/// A date; as [`to_datetime`].
pub fn to_date(value: &Value, cx: &Context<'_>) -> Option<Date> {
    match value {
        Value::Date(date) => Some(*date),
        other => to_datetime(other, cx).map(|at| at.date),
    }
}

/// A time; text and numbers are read. `None`: NULL, or no time (which warns).
pub fn to_time(value: &Value, cx: &Context<'_>) -> Option<Time> {
    let found = match value {
        Value::Null => return None,
        Value::Time(time) => return Some(*time),
        Value::DateTime(at) => return Some(at.time()),
        Value::Date(_) => return Some(Time::default()),
        Value::Str(text) | Value::Bin(text) | Value::Json(text) => {
            let parsed = parse_time(json_scalar_text(text));
            if parsed.is_some_and(|p| !p.clean) {
                cx.warn(truncated_wrong_value("time", text));
            }
            parsed.map(|p| p.value)
        }
        other => {
            let number = to_decimal(other, cx)?;
            let whole = number.truncate(0);
            let time = whole.to_i128().and_then(|n| i64::try_from(n).ok()).and_then(Time::from_number);
            let micros = number.sub(&whole).and_then(|rest| rest.round(6).small_coefficient()).unwrap_or(0) as i64;
            time.map(|time| Time::clipped(time.micros + micros))
        }
    };
    if found.is_none() {
        cx.warn(incorrect("time", value));
    }
    found
}

fn incorrect(kind: &str, value: &Value) -> super::error::Warning {
    let text = to_text(value).unwrap_or_default();
    super::error::sql_error(1292, format!("Incorrect {kind} value: '{}'", super::error::shown(&text))).into()
}
