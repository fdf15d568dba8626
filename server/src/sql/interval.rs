//! Owns INTERVAL arithmetic: DATE_ADD, EXTRACT, TIMESTAMPDIFF.

use super::ast::IntervalUnit as Unit;
use super::context::Context;
use super::convert::{to_datetime, to_decimal, to_int, to_text, to_time};
use super::error::{Result, sql_error};
use super::temporal::{DAY, SECOND, days_in_month, parse_datetime, parse_time};
use super::types::{DataType, TypeKind};
use super::value::{Date, DateTime, Time, Value};

impl Unit {
    /// By its MySQL name, upper case; `SQL_TSI_` prefixes are accepted.
    pub fn from_name(name: &str) -> Option<Self> {
        let upper = name.to_ascii_uppercase();
        Some(match upper.strip_prefix("SQL_TSI_").unwrap_or(&upper) {
            "MICROSECOND" => Self::Microsecond,
            "SECOND" => Self::Second,
            "MINUTE" => Self::Minute,
            "HOUR" => Self::Hour,
            "DAY" => Self::Day,
            "WEEK" => Self::Week,
            "MONTH" => Self::Month,
            "QUARTER" => Self::Quarter,
            "YEAR" => Self::Year,
            "SECOND_MICROSECOND" => Self::SecondMicrosecond,
            "MINUTE_MICROSECOND" => Self::MinuteMicrosecond,
            "MINUTE_SECOND" => Self::MinuteSecond,
            "HOUR_MICROSECOND" => Self::HourMicrosecond,
            "HOUR_SECOND" => Self::HourSecond,
            "HOUR_MINUTE" => Self::HourMinute,
            "DAY_MICROSECOND" => Self::DayMicrosecond,
            "DAY_SECOND" => Self::DaySecond,
            "DAY_MINUTE" => Self::DayMinute,
            "DAY_HOUR" => Self::DayHour,
            "YEAR_MONTH" => Self::YearMonth,
            _ => return None,
        })
    }

    /// Whether adding it can change the time of day.
    pub fn has_time(self) -> bool {
        !matches!(self, Self::Day | Self::Week | Self::Month | Self::Quarter | Self::Year | Self::YearMonth)
    }

    /// Fractional digits that adding it can bring, if the amount has `amount_scale` decimals.
    pub fn fsp(self, amount_scale: u8) -> u8 {
        match self {
            Self::Microsecond
            | Self::SecondMicrosecond
            | Self::MinuteMicrosecond
            | Self::HourMicrosecond
            | Self::DayMicrosecond => 6,
            Self::Second => amount_scale.min(6),
            _ => 0,
        }
    }
}

/// An amount: whole months and microseconds.
struct Amount {
    months: i64,
    micros: i64,
}

/// Reads an amount in a unit; `None` if it is out of every range.
fn amount(value: &Value, unit: Unit, cx: &Context<'_>) -> Option<Amount> {
    let months = |per: i64| {
        let whole = i64::try_from(to_int(value, cx)?).ok()?;
        Some(Amount { months: whole.checked_mul(per)?, micros: 0 })
    };
    let micros = |per: i64| {
        let whole = i64::try_from(to_int(value, cx)?).ok()?;
        Some(Amount { months: 0, micros: whole.checked_mul(per)? })
    };
    match unit {
        Unit::Year => months(12),
        Unit::Quarter => months(3),
        Unit::Month => months(1),
        Unit::Week => micros(7 * DAY),
        Unit::Day => micros(DAY),
        Unit::Hour => micros(3600 * SECOND),
        Unit::Minute => micros(60 * SECOND),
        Unit::Microsecond => micros(1),
        Unit::Second => {
            let scaled = to_decimal(value, cx)?.round(6).mul(&super::decimal::Decimal::from(SECOND))?;
            Some(Amount { months: 0, micros: i64::try_from(scaled.to_i128()?).ok()? })
        }
        _ => compound(&to_text(value)?, unit),
    }
}

/// `'1:30'` MINUTE_SECOND and its kin: fields are right-aligned in the unit.
fn compound(text: &[u8], unit: Unit) -> Option<Amount> {
    // Microseconds of each field, from the largest; months for YEAR_MONTH.
    const ALL: [i64; 5] = [DAY, 3600 * SECOND, 60 * SECOND, SECOND, 1];
    let scales: &[i64] = match unit {
        Unit::YearMonth => &[12, 1],
        Unit::DayHour => &ALL[0..2],
        Unit::DayMinute => &ALL[0..3],
        Unit::DaySecond => &ALL[0..4],
        Unit::DayMicrosecond => &ALL[0..5],
        Unit::HourMinute => &ALL[1..3],
        Unit::HourSecond => &ALL[1..4],
        Unit::HourMicrosecond => &ALL[1..5],
        Unit::MinuteSecond => &ALL[2..4],
        Unit::MinuteMicrosecond => &ALL[2..5],
        _ => &ALL[3..5],
    };
    let negative = text.trim_ascii_start().first() == Some(&b'-');
    let runs: Vec<&[u8]> = text.split(|byte| !byte.is_ascii_digit()).filter(|run| !run.is_empty()).collect();
    let runs = &runs[..runs.len().min(scales.len())];
    let mut total: i64 = 0;
    for (run, scale) in runs.iter().zip(&scales[scales.len() - runs.len()..]) {
        let digits = std::str::from_utf8(run).ok()?;
        let mut field: i64 = digits.parse().ok()?;
        // A fraction: `1.5` is half a second, not 5 microseconds.
        if *scale == 1 && unit != Unit::YearMonth && run.len() < 6 {
            field *= 10i64.pow(6 - run.len() as u32);
        }
        total = total.checked_add(field.checked_mul(*scale)?)?;
    }
    let total = if negative { -total } else { total };
    Some(if unit == Unit::YearMonth {
        Amount { months: total, micros: 0 }
    } else {
        Amount { months: 0, micros: total }
    })
}

/// `value ± INTERVAL amount unit` as the bound type asks; text gives text. NULL (with a warning) out of range.
pub fn date_add(
    value: &Value,
    by: &Value,
    unit: Unit,
    subtract: bool,
    ty: &DataType,
    cx: &Context<'_>,
) -> Result<Value> {
    if value.is_null() || by.is_null() {
        return Ok(Value::Null);
    }
    let overflow = || {
        cx.warn(sql_error(1441, "Datetime function: datetime field overflow"));
        Ok(Value::Null)
    };
    let Some(mut by) = amount(by, unit, cx) else { return overflow() };
    if subtract {
        by = Amount { months: -by.months, micros: -by.micros };
    }
    let bare_time = match value {
        Value::Time(_) => true,
        Value::Str(text) => {
            unit.has_time() && parse_datetime(text, false).is_none() && parse_time(text).is_some_and(|p| p.clean)
        }
        _ => false,
    };
    if bare_time && ty.kind != TypeKind::DateTime && by.months == 0 {
        let Some(time) = to_time(value, cx) else { return Ok(Value::Null) };
        let sum = time.micros.saturating_add(by.micros);
        return Ok(if sum.abs() > super::temporal::TIME_MAX {
            return overflow();
        } else {
            shaped_time(Time { micros: sum }, ty)
        });
    }
    let Some(start) = to_datetime(value, cx) else { return Ok(Value::Null) };
    if start.date.is_partial() {
        cx.warn(super::error::truncated_wrong_value("datetime", start.format(0).as_bytes()));
        return Ok(Value::Null);
    }
    let had_time = match value {
        Value::Date(_) => unit.has_time(),
        Value::Str(text) | Value::Bin(text) => {
            unit.has_time() || parse_datetime(text, false).is_some_and(|p| p.has_time)
        }
        Value::Int(number) => unit.has_time() || *number > 99_991_231,
        _ => true,
    };
    match add(start, &by) {
        Some(at) => Ok(shaped(at, had_time, ty)),
        None => overflow(),
    }
}

fn shaped_time(time: Time, ty: &DataType) -> Value {
    if ty.is_string() { Value::str(time.format(super::temporal::shown_fsp(time.parts().3))) } else { Value::Time(time) }
}

fn shaped(at: DateTime, had_time: bool, ty: &DataType) -> Value {
    match ty.kind {
        TypeKind::Date => Value::Date(at.date),
        _ if !ty.is_string() => Value::DateTime(at),
        _ if had_time => Value::str(at.format(super::temporal::shown_fsp(at.micros))),
        _ => Value::str(at.date.to_string()),
    }
}

fn add(start: DateTime, by: &Amount) -> Option<DateTime> {
    let mut at = start;
    if by.months != 0 {
        let total = i64::from(at.date.year) * 12 + i64::from(at.date.month) - 1;
        let total = total.checked_add(by.months)?;
        let (year, month) = (total.div_euclid(12), total.rem_euclid(12) as u8 + 1);
        let year = u16::try_from(year).ok().filter(|year| *year <= 9999)?;
        at.date = Date { year, month, day: at.date.day.min(days_in_month(year, month)) };
    }
    if by.micros != 0 {
        at = DateTime::from_linear_micros(at.linear_micros().checked_add(by.micros)?)?;
    }
    Some(at)
}

/// EXTRACT(unit FROM value).
pub fn extract(unit: Unit, value: &Value, cx: &Context<'_>) -> Value {
    if value.is_null() {
        return Value::Null;
    }
    let text_time = value.as_bytes().is_some_and(|text| parse_datetime(text, true).is_none());
    let (date, time) = if matches!(value, Value::Time(_)) || (unit.has_time() && text_time) {
        let Some(time) = to_time(value, cx) else { return Value::Null };
        (Date::default(), time)
    } else {
        let Some(at) = to_datetime(value, cx) else { return Value::Null };
        (at.date, at.time())
    };
    let (hour, minute, second, micros) = time.parts();
    let [hour, minute, second, micros] = [hour.into(), minute.into(), second.into(), i64::from(micros)];
    let (year, month, day) = (i64::from(date.year), i64::from(date.month), i64::from(date.day));
    let hms = hour * 10_000 + minute * 100 + second;
    let magnitude = match unit {
        Unit::Microsecond => micros,
        Unit::Second => second,
        Unit::Minute => minute,
        Unit::Hour => hour,
        Unit::Day => day,
        Unit::Week => i64::from(super::functions::week(date, 0).0),
        Unit::Month => month,
        Unit::Quarter => (month + 2) / 3,
        Unit::Year => year,
        Unit::YearMonth => year * 100 + month,
        Unit::DayHour => day * 100 + hour,
        Unit::DayMinute => day * 10_000 + hour * 100 + minute,
        Unit::DaySecond => day * 1_000_000 + hms,
        Unit::DayMicrosecond => (day * 1_000_000 + hms) * SECOND + micros,
        Unit::HourMinute => hour * 100 + minute,
        Unit::HourSecond => hms,
        Unit::HourMicrosecond => hms * SECOND + micros,
        Unit::MinuteSecond => minute * 100 + second,
        Unit::MinuteMicrosecond => (minute * 100 + second) * SECOND + micros,
        Unit::SecondMicrosecond => second * SECOND + micros,
    };
    Value::Int(if time.micros < 0 { -magnitude } else { magnitude })
}

/// TIMESTAMPDIFF(unit, from, to).
pub fn difference(unit: Unit, from: &Value, to: &Value, cx: &Context<'_>) -> Value {
    let (Some(from), Some(to)) = (to_datetime(from, cx), to_datetime(to, cx)) else { return Value::Null };
    if from.date.is_partial() || to.date.is_partial() {
        return Value::Null;
    }
    let micros = to.linear_micros() - from.linear_micros();
    let months = || {
        let (early, late) = if micros < 0 { (to, from) } else { (from, to) };
        let whole = |at: DateTime| i64::from(at.date.year) * 12 + i64::from(at.date.month);
        let rest = |at: DateTime| (at.date.day, at.time_micros());
        let count = whole(late) - whole(early) - i64::from(rest(late) < rest(early));
        if micros < 0 { -count } else { count }
    };
    Value::Int(match unit {
        Unit::Year => months() / 12,
        Unit::Quarter => months() / 3,
        Unit::Month => months(),
        Unit::Week => micros / (7 * DAY),
        Unit::Day => micros / DAY,
        Unit::Hour => micros / (3600 * SECOND),
        Unit::Minute => micros / (60 * SECOND),
        Unit::Second => micros / SECOND,
        _ => micros,
    })
}
