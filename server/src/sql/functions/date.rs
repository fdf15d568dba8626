//! Date functions: clocks, parts, conversions between days, seconds and dates.

use super::{Call, Function, function, week};
use crate::sql::ast::IntervalUnit;
use crate::sql::cast::cast;
use crate::sql::collation::Collation;
use crate::sql::convert::{to_date, to_datetime, to_time};
use crate::sql::decimal::Decimal;
use crate::sql::error::{Result, sql_error};
use crate::sql::expr::{Expr, Node};
use crate::sql::infer::fsp_of;
use crate::sql::interval::extract;
use crate::sql::temporal::{SECOND, days_in_month, parse_datetime};
use crate::sql::types::{DataType, TypeKind};
use crate::sql::value::{Date, DateTime, Time, Value};

fn int(_: &[Expr]) -> DataType {
    DataType::BIGINT
}

fn date(_: &[Expr]) -> DataType {
    DataType::DATE
}

/// Fractional digits asked for by a constant argument.
fn asked(args: &[Expr]) -> u8 {
    match args.first().map(|arg| &arg.node) {
        Some(Node::Const(Value::Int(fsp))) => (*fsp).clamp(0, 6) as u8,
        _ => 0,
    }
}

fn clock(args: &[Expr]) -> DataType {
    DataType::datetime(asked(args))
}

fn time_of_day(args: &[Expr]) -> DataType {
    DataType::time(asked(args))
}

fn time_like(args: &[Expr]) -> DataType {
    DataType::time(args.iter().map(|arg| fsp_of(&arg.ty)).max().unwrap_or(0))
}

fn datetime_like(args: &[Expr]) -> DataType {
    DataType::datetime(args.first().map_or(0, |arg| if arg.ty.is_string() { parsed_fsp(arg) } else { fsp_of(&arg.ty) }))
}

/// A constant text shows how many fractional digits it has.
fn parsed_fsp(arg: &Expr) -> u8 {
    match &arg.node {
        Node::Const(Value::Str(text)) => {
            let fraction = text.iter().rposition(|byte| *byte == b'.').map_or(0, |at| text.len() - at - 1);
            fraction.min(6) as u8
        }
        _ => 6,
    }
}

fn name(_: &[Expr]) -> DataType {
    DataType::varchar(9, Collation::default())
}

const fn part(label: &'static str, eval: fn(&Call<'_>) -> Result<Value>) -> Function {
    function(label, 1, 1, int, eval)
}

pub(super) const TABLE: &[Function] = &[
    function("NOW", 0, 1, clock, |call| now(call, call.cx.zone_offset_seconds)).of_session(),
    // The statement's clock: one statement is short, and replicas of a result agree.
    function("SYSDATE", 0, 1, clock, |call| now(call, call.cx.zone_offset_seconds)).of_session(),
    function("UTC_TIMESTAMP", 0, 1, clock, |call| now(call, 0)).of_session(),
    function("CURDATE", 0, 0, date, |call| Ok(Value::Date(clock_at(call, call.cx.zone_offset_seconds)?.date)))
        .of_session(),
    function("UTC_DATE", 0, 0, date, |call| Ok(Value::Date(clock_at(call, 0)?.date))).of_session(),
    function("CURTIME", 0, 1, time_of_day, |call| time_now(call, call.cx.zone_offset_seconds)).of_session(),
    function("UTC_TIME", 0, 1, time_of_day, |call| time_now(call, 0)).of_session(),
    function("DATE", 1, 1, date, |call| Ok(to_date(call.value(0), call.cx).map_or(Value::Null, Value::Date))),
    function("TIME", 1, 1, time_like, |call| {
        Ok(to_time(call.value(0), call.cx).map_or(Value::Null, |time| Value::Time(time.round(call.ty.scale))))
    }),
    function("TIMESTAMP", 1, 2, datetime_like, |call| {
        let Some(at) = to_datetime(call.value(0), call.cx) else { return Ok(Value::Null) };
        if call.len() == 1 {
            return Ok(Value::DateTime(at));
        }
        let Some(time) = to_time(call.value(1), call.cx) else { return Ok(Value::Null) };
        Ok(DateTime::from_linear_micros(at.linear_micros() + time.micros).map_or(Value::Null, Value::DateTime))
    }),
    part("YEAR", |call| Ok(of_date(call, |date| i64::from(date.year)))),
    part("MONTH", |call| Ok(of_date(call, |date| i64::from(date.month)))),
    part("DAYOFMONTH", |call| Ok(of_date(call, |date| i64::from(date.day)))),
    part("QUARTER", |call| Ok(of_date(call, |date| (i64::from(date.month) + 2) / 3))),
    part("DAYOFWEEK", |call| Ok(of_day(call, |date| (i64::from(date.weekday()) + 1) % 7 + 1))),
    part("WEEKDAY", |call| Ok(of_day(call, |date| i64::from(date.weekday())))),
    part("DAYOFYEAR", |call| Ok(of_day(call, Date::day_of_year))),
    part("TO_DAYS", |call| Ok(of_day(call, Date::day_number))),
    part("WEEKOFYEAR", |call| Ok(of_day(call, |date| i64::from(week(date, 3).0)))),
    function("WEEK", 1, 2, int, |call| {
        let mode = call.int(1).rem_euclid(8) as u8;
        Ok(of_day(call, |date| i64::from(week(date, mode).0)))
    }),
    function("YEARWEEK", 1, 2, int, |call| {
        let mode = call.int(1).rem_euclid(8) as u8 | 2;
        Ok(of_day(call, |date| {
            let (number, year) = week(date, mode);
            i64::from(year) * 100 + i64::from(number)
        }))
    }),
    part("HOUR", |call| Ok(of_time(call, IntervalUnit::Hour))),
    part("MINUTE", |call| Ok(of_time(call, IntervalUnit::Minute))),
    part("SECOND", |call| Ok(of_time(call, IntervalUnit::Second))),
    part("MICROSECOND", |call| Ok(of_time(call, IntervalUnit::Microsecond))),
    function("DAYNAME", 1, 1, name, |call| {
        Ok(whole_date(call, 0)
            .map_or(Value::Null, |date| Value::from(super::date_format::DAY_NAMES[usize::from(date.weekday())])))
    }),
    function("MONTHNAME", 1, 1, name, |call| {
        let month = to_date(call.value(0), call.cx).map_or(0, |date| date.month);
        let found = usize::from(month).checked_sub(1).and_then(|index| super::date_format::MONTH_NAMES.get(index));
        Ok(found.map_or(Value::Null, |name| Value::from(*name)))
    }),
    function("LAST_DAY", 1, 1, date, |call| {
        let found = to_date(call.value(0), call.cx).filter(|date| date.month != 0);
        Ok(found.map_or(Value::Null, |date| Value::Date(Date { day: days_in_month(date.year, date.month), ..date })))
    }),
    function("FROM_DAYS", 1, 1, date, |call| {
        Ok(Date::from_day_number(call.int(0)).map_or(Value::Date(Date::default()), Value::Date))
    }),
    function("MAKEDATE", 2, 2, date, |call| {
        let (year, day) = (call.int(0), call.int(1));
        let year = match year {
            0..=69 => year + 2000,
            70..=99 => year + 1900,
            _ => year,
        };
        let Ok(year) = u16::try_from(year) else { return Ok(Value::Null) };
        let first = Date { year, month: 1, day: 1 };
        let found =
            if day > 0 { first.day_number().checked_add(day - 1).and_then(Date::from_day_number) } else { None };
        Ok(found.map_or(Value::Null, Value::Date))
    }),
    function("MAKETIME", 3, 3, |args| DataType::time(args.get(2).map_or(0, |arg| fsp_of(&arg.ty))), maketime),
    function("DATEDIFF", 2, 2, int, |call| {
        let (a, b) = (whole_date(call, 0), whole_date(call, 1));
        Ok(a.zip(b).map_or(Value::Null, |(a, b)| Value::Int(a.day_number() - b.day_number())))
    }),
    function("TIMEDIFF", 2, 2, time_like, timediff),
    function("ADDTIME", 2, 2, shifted_type, |call| shifted(call, 1)),
    function("SUBTIME", 2, 2, shifted_type, |call| shifted(call, -1)),
    function("TIME_TO_SEC", 1, 1, int, |call| {
        Ok(to_time(call.value(0), call.cx).map_or(Value::Null, |time| Value::Int(time.micros / SECOND)))
    }),
    function("SEC_TO_TIME", 1, 1, time_like, |call| {
        let micros = call.decimal(0).mul(&Decimal::from(SECOND)).and_then(|scaled| scaled.to_i128()).unwrap_or(0);
        let micros = micros.clamp(i128::from(i64::MIN), i128::from(i64::MAX)) as i64;
        Ok(Value::Time(Time::clipped(micros)))
    }),
    function("TO_SECONDS", 1, 1, int, |call| {
        let at = to_datetime(call.value(0), call.cx).filter(|at| !at.date.is_partial());
        Ok(at.map_or(Value::Null, |at| Value::Int(at.linear_micros() / SECOND)))
    }),
    function("UNIX_TIMESTAMP", 0, 1, unix_type, unix_timestamp).of_session(),
    function("FROM_UNIXTIME", 1, 2, from_unix_type, from_unixtime).of_session(),
    function("PERIOD_ADD", 2, 2, int, |call| {
        let months = period_months(call.int(0)).saturating_add(call.int(1));
        Ok(Value::Int(months / 12 * 100 + months % 12 + 1))
    }),
    function("PERIOD_DIFF", 2, 2, int, |call| Ok(Value::Int(period_months(call.int(0)) - period_months(call.int(1))))),
    function("CONVERT_TZ", 3, 3, datetime_like, convert_tz),
];

fn clock_at(call: &Call<'_>, offset: i32) -> Result<DateTime> {
    DateTime::from_unix_micros(call.cx.now_micros, offset).ok_or_else(|| sql_error(1105, "The clock is out of range"))
}

fn now(call: &Call<'_>, offset: i32) -> Result<Value> {
    check_fsp(call)?;
    let at = clock_at(call, offset)?;
    // MySQL cuts the clock, it does not round it.
    let unit = 10u32.pow(6 - u32::from(call.ty.scale));
    Ok(Value::DateTime(DateTime { micros: at.micros / unit * unit, ..at }))
}

fn time_now(call: &Call<'_>, offset: i32) -> Result<Value> {
    check_fsp(call)?;
    let unit = 10i64.pow(6 - u32::from(call.ty.scale));
    Ok(Value::Time(Time { micros: clock_at(call, offset)?.time_micros() / unit * unit }))
}

fn check_fsp(call: &Call<'_>) -> Result<()> {
    if call.len() > 0 && !(0..=6).contains(&call.int(0)) {
        return Err(sql_error(1426, format!("Too-big precision {} specified for 'now'. Maximum is 6.", call.int(0))));
    }
    Ok(())
}

/// Part of a date that may be partial.
fn of_date(call: &Call<'_>, part: fn(Date) -> i64) -> Value {
    to_date(call.value(0), call.cx).map_or(Value::Null, |date| Value::Int(part(date)))
}

/// A date that is a day of the calendar.
fn whole_date(call: &Call<'_>, index: usize) -> Option<Date> {
    to_date(call.value(index), call.cx).filter(|date| !date.is_partial())
}

fn of_day(call: &Call<'_>, part: impl Fn(Date) -> i64) -> Value {
    whole_date(call, 0).map_or(Value::Null, |date| Value::Int(part(date)))
}

fn of_time(call: &Call<'_>, unit: IntervalUnit) -> Value {
    match extract(unit, call.value(0), call.cx) {
        Value::Int(number) => Value::Int(number.abs()),
        other => other,
    }
}

fn maketime(call: &Call<'_>) -> Result<Value> {
    let (hours, minutes, seconds) = (call.int(0), call.int(1), call.decimal(2));
    let micros = seconds.mul(&Decimal::from(SECOND)).and_then(|scaled| scaled.to_i128()).unwrap_or(-1);
    if !(0..60).contains(&minutes) || !(0..i128::from(60 * SECOND)).contains(&micros) {
        return Ok(Value::Null);
    }
    let plain = hours.unsigned_abs().min(1000) as i64 * 3600 * SECOND + minutes * 60 * SECOND + micros as i64;
    Ok(Value::Time(Time::clipped(if hours < 0 { -plain } else { plain })))
}

fn is_datetime(value: &Value) -> bool {
    match value {
        Value::DateTime(_) | Value::Date(_) => true,
        Value::Str(text) => {
            parse_datetime(text, true).is_some_and(|parsed| parsed.clean)
                && text.len() >= 8
                && text.iter().filter(|b| **b == b'-').count() >= 2
        }
        _ => false,
    }
}

fn timediff(call: &Call<'_>) -> Result<Value> {
    let (a, b) = (call.value(0), call.value(1));
    if is_datetime(a) != is_datetime(b) {
        return Ok(Value::Null);
    }
    let micros = if is_datetime(a) {
        to_datetime(a, call.cx).zip(to_datetime(b, call.cx)).map(|(a, b)| a.linear_micros() - b.linear_micros())
    } else {
        to_time(a, call.cx).zip(to_time(b, call.cx)).map(|(a, b)| a.micros - b.micros)
    };
    Ok(micros.map_or(Value::Null, |micros| Value::Time(Time::clipped(micros))))
}

fn shifted_type(args: &[Expr]) -> DataType {
    let fsp = args.iter().map(|arg| fsp_of(&arg.ty)).max().unwrap_or(0);
    match args.first().map(|arg| arg.ty.kind) {
        Some(TypeKind::DateTime | TypeKind::Timestamp) => DataType::datetime(fsp),
        Some(TypeKind::Time) => DataType::time(fsp),
        _ => DataType::varchar(29, Collation::default()),
    }
}

/// ADDTIME and SUBTIME: text gives text.
fn shifted(call: &Call<'_>, sign: i64) -> Result<Value> {
    let Some(by) = to_time(call.value(1), call.cx) else { return Ok(Value::Null) };
    let result = if is_datetime(call.value(0)) {
        let at = to_datetime(call.value(0), call.cx);
        at.and_then(|at| DateTime::from_linear_micros(at.linear_micros() + sign * by.micros)).map(Value::DateTime)
    } else {
        to_time(call.value(0), call.cx).map(|time| Value::Time(Time::clipped(time.micros + sign * by.micros)))
    };
    let Some(result) = result else { return Ok(Value::Null) };
    if call.ty.is_string() {
        cast(&result, &crate::sql::infer::type_of_value(&result), call.ty, call.cx)
    } else {
        Ok(result)
    }
}

fn unix_type(args: &[Expr]) -> DataType {
    let fsp = args.first().map_or(0, |arg| if arg.ty.is_string() { parsed_fsp(arg) } else { fsp_of(&arg.ty) });
    if fsp == 0 { DataType::BIGINT } else { DataType::decimal(11 + u32::from(fsp), u32::from(fsp)) }
}

fn unix_timestamp(call: &Call<'_>) -> Result<Value> {
    if call.len() == 0 {
        return Ok(Value::Int(call.cx.now_micros / SECOND));
    }
    let Some(at) = to_datetime(call.value(0), call.cx) else { return Ok(Value::Null) };
    let micros = if at.date.is_partial() { 0 } else { at.to_unix_micros(call.cx.zone_offset_seconds).max(0) };
    if call.ty.kind != TypeKind::Decimal {
        return Ok(Value::Int(micros / SECOND));
    }
    Ok(Value::Decimal(Decimal::new(i128::from(micros), 6).round(i32::from(call.ty.scale))))
}

fn from_unix_type(args: &[Expr]) -> DataType {
    if args.len() > 1 {
        DataType::varchar(255, Collation::default())
    } else {
        DataType::datetime(args.first().map_or(0, |arg| fsp_of(&arg.ty)))
    }
}

fn from_unixtime(call: &Call<'_>) -> Result<Value> {
    if call.value(0).is_null() {
        return Ok(Value::Null);
    }
    let micros = call
        .decimal(0)
        .mul(&Decimal::from(SECOND))
        .and_then(|scaled| scaled.to_i128())
        .and_then(|wide| i64::try_from(wide).ok());
    let at = micros
        .filter(|micros| *micros >= 0)
        .and_then(|micros| DateTime::from_unix_micros(micros, call.cx.zone_offset_seconds));
    let Some(at) = at else { return Ok(Value::Null) };
    if call.len() == 1 {
        return Ok(Value::DateTime(at));
    }
    if call.value(1).is_null() {
        return Ok(Value::Null);
    }
    Ok(super::date_format::format(at, None, &call.string(1)).map_or(Value::Null, Value::str))
}

fn period_months(period: i64) -> i64 {
    let (year, month) = (period / 100, period % 100);
    let year = match year {
        0..=69 => year + 2000,
        70..=99 => year + 1900,
        _ => year,
    };
    year.saturating_mul(12) + month - 1
}

/// Offsets only: `+02:00`, `UTC`, `SYSTEM`. Named zones need tables, which are not loaded: NULL, as MySQL answers then.
fn convert_tz(call: &Call<'_>) -> Result<Value> {
    let Some(at) = to_datetime(call.value(0), call.cx) else { return Ok(Value::Null) };
    let zone = |index: usize| match &*call.string(index).to_ascii_uppercase() {
        "UTC" | "GMT" | "SYSTEM" => Some(0),
        text => zone_offset(text),
    };
    let (Some(from), Some(to)) = (zone(1), zone(2)) else { return Ok(Value::Null) };
    if at.date.is_partial() {
        return Ok(Value::Null);
    }
    let moved = DateTime::from_linear_micros(at.linear_micros() + (i64::from(to) - i64::from(from)) * SECOND);
    Ok(moved.map_or(Value::Null, Value::DateTime))
}

/// Seconds of `+hh:mm`, from -13:59 to +14:00.
pub(crate) fn zone_offset(text: &str) -> Option<i32> {
    let (sign, rest) = match text.as_bytes().first()? {
        b'+' => (1, &text[1..]),
        b'-' => (-1, &text[1..]),
        _ => return None,
    };
    let (hours, minutes) = rest.split_once(':')?;
    let (hours, minutes): (i32, i32) = (hours.parse().ok()?, minutes.parse().ok()?);
    let seconds = sign * (hours * 3600 + minutes * 60);
    let valid = (0..=14).contains(&hours) && (0..60).contains(&minutes) && (-50_340..=50_400).contains(&seconds);
    valid.then_some(seconds)
}
