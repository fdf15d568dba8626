//! DATE_FORMAT, TIME_FORMAT, STR_TO_DATE, GET_FORMAT.

use super::{Call, Function, function, week};
use crate::sql::collation::Collation;
use crate::sql::convert::{to_datetime, to_time};
use crate::sql::error::{Result, sql_error};
use crate::sql::expr::{Expr, Node};
use crate::sql::temporal::SECOND;
use crate::sql::types::{DataType, TypeKind};
use crate::sql::value::{Date, DateTime, Time, Value};

/// From Monday.
pub(super) const DAY_NAMES: [&str; 7] = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];
/// From January.
pub(super) const MONTH_NAMES: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

fn text(_: &[Expr]) -> DataType {
    DataType::varchar(1024, Collation::default())
}

pub(super) const TABLE: &[Function] = &[
    function("DATE_FORMAT", 2, 3, text, |call| {
        let Some(at) = to_datetime(call.value(0), call.cx) else { return Ok(Value::Null) };
        Ok(format(at, None, &call.string(1)).map_or(Value::Null, Value::str))
    }),
    function("TIME_FORMAT", 2, 2, text, |call| {
        let Some(time) = to_time(call.value(0), call.cx) else { return Ok(Value::Null) };
        Ok(format(DateTime::default(), Some(time), &call.string(1)).map_or(Value::Null, Value::str))
    }),
    function("STR_TO_DATE", 2, 2, parsed_type, str_to_date),
    function("GET_FORMAT", 2, 2, text, |_| Err(crate::sql::error::unsupported("GET_FORMAT"))),
];

fn ordinal(day: u8) -> &'static str {
    match day {
        11..=13 => "th",
        _ => match day % 10 {
            1 => "st",
            2 => "nd",
            3 => "rd",
            _ => "th",
        },
    }
}

/// A date and time by MySQL's `%` codes; `time` replaces the time of day and allows more than 24 hours. `None`: a name of no month or day.
pub(super) fn format(at: DateTime, time: Option<Time>, pattern: &str) -> Option<String> {
    let (hours, minute, second, micros) = time.unwrap_or_else(|| at.time()).parts();
    let hour12 = (hours % 24 + 11) % 12 + 1;
    let half = if hours % 24 < 12 { "AM" } else { "PM" };
    let date = at.date;
    let month_name = || usize::from(date.month).checked_sub(1).and_then(|index| MONTH_NAMES.get(index)).copied();
    let day_name = || (!date.is_partial()).then(|| DAY_NAMES[usize::from(date.weekday())]);
    let whole = |text: String| (!date.is_partial()).then_some(text);
    let mut out = String::new();
    if time.is_some_and(|time| time.micros < 0) {
        out.push('-');
    }
    let mut chars = pattern.chars();
    while let Some(ch) = chars.next() {
        if ch != '%' {
            out.push(ch);
            continue;
        }
        let Some(code) = chars.next() else {
            out.push('%');
            break;
        };
        let piece = match code {
            'Y' => format!("{:04}", date.year),
            'y' => format!("{:02}", date.year % 100),
            'm' => format!("{:02}", date.month),
            'c' => date.month.to_string(),
            'M' => month_name()?.to_owned(),
            'b' => month_name()?[..3].to_owned(),
            'd' => format!("{:02}", date.day),
            'e' => date.day.to_string(),
            'D' => format!("{}{}", date.day, ordinal(date.day)),
            'j' => whole(format!("{:03}", date.day_of_year()))?,
            'W' => day_name()?.to_owned(),
            'a' => day_name()?[..3].to_owned(),
            'w' => whole(((date.weekday() + 1) % 7).to_string())?,
            'U' => whole(format!("{:02}", week(date, 0).0))?,
            'u' => whole(format!("{:02}", week(date, 1).0))?,
            'V' => whole(format!("{:02}", week(date, 2).0))?,
            'v' => whole(format!("{:02}", week(date, 3).0))?,
            'X' => whole(format!("{:04}", week(date, 2).1))?,
            'x' => whole(format!("{:04}", week(date, 3).1))?,
            'H' => format!("{hours:02}"),
            'k' => hours.to_string(),
            'h' | 'I' => format!("{hour12:02}"),
            'l' => hour12.to_string(),
            'i' => format!("{minute:02}"),
            's' | 'S' => format!("{second:02}"),
            'f' => format!("{micros:06}"),
            'p' => half.to_owned(),
            'r' => format!("{hour12:02}:{minute:02}:{second:02} {half}"),
            'T' => format!("{hours:02}:{minute:02}:{second:02}"),
            other => other.to_string(),
        };
        out.push_str(&piece);
    }
    Some(out)
}

/// DATE, TIME or DATETIME, as the constant pattern asks.
fn parsed_type(args: &[Expr]) -> DataType {
    let Some(Node::Const(Value::Str(pattern))) = args.get(1).map(|arg| &arg.node) else { return DataType::datetime(6) };
    let codes: Vec<u8> = pattern.windows(2).filter(|pair| pair[0] == b'%').map(|pair| pair[1]).collect();
    let has = |set: &[u8]| codes.iter().any(|code| set.contains(code));
    let fsp = if has(b"f") { 6 } else { 0 };
    match (has(b"YymcMbdeDjWawUuVvXx"), has(b"HkhIlisSfprT")) {
        (true, false) => DataType::DATE,
        (false, true) => DataType::time(fsp),
        _ => DataType::datetime(fsp),
    }
}

/// What STR_TO_DATE has read so far.
#[derive(Default)]
struct Fields {
    year: i64,
    month: i64,
    day: i64,
    day_of_year: Option<i64>,
    hour: i64,
    minute: i64,
    second: i64,
    micros: i64,
    pm: Option<bool>,
    hour12: bool,
}

fn str_to_date(call: &Call<'_>) -> Result<Value> {
    let (source, pattern) = (call.string(0), call.string(1));
    let found = read(source.trim_start(), &pattern).and_then(|fields| assemble(&fields, call.ty));
    Ok(found.unwrap_or_else(|| {
        call.cx.warn(sql_error(1411, format!("Incorrect datetime value: '{source}' for function str_to_date")));
        Value::Null
    }))
}

fn number(text: &mut &str, limit: usize) -> Option<i64> {
    let end = text.bytes().take(limit).take_while(u8::is_ascii_digit).count();
    let value = text[..end].parse().ok();
    *text = &text[end..];
    value
}

fn named(text: &mut &str, names: &[&str], length: Option<usize>) -> Option<i64> {
    for (index, name) in names.iter().enumerate() {
        let name = &name[..length.unwrap_or(name.len())];
        if text.get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name)) {
            *text = &text[name.len()..];
            return Some(index as i64 + 1);
        }
    }
    None
}

fn read(text: &str, pattern: &str) -> Option<Fields> {
    let mut fields = Fields::default();
    let mut rest = text;
    let mut chars = pattern.chars();
    while let Some(ch) = chars.next() {
        if ch.is_whitespace() {
            rest = rest.trim_start();
            continue;
        }
        if ch != '%' {
            rest = rest.strip_prefix(ch)?;
            continue;
        }
        read_code(chars.next()?, &mut rest, &mut fields)?;
    }
    Some(fields)
}

fn read_code(code: char, rest: &mut &str, fields: &mut Fields) -> Option<()> {
    *rest = rest.trim_start();
    match code {
        'Y' => fields.year = number(rest, 4)?,
        'y' => {
            let year = number(rest, 2)?;
            fields.year = if year < 70 { 2000 + year } else { 1900 + year };
        }
        'm' | 'c' => fields.month = number(rest, 2)?,
        'M' => fields.month = named(rest, &MONTH_NAMES, None)?,
        'b' => fields.month = named(rest, &MONTH_NAMES, Some(3))?,
        'd' | 'e' => fields.day = number(rest, 2)?,
        'D' => {
            fields.day = number(rest, 2)?;
            *rest = rest.get(2..)?;
        }
        'j' => fields.day_of_year = Some(number(rest, 3)?),
        'W' => drop(named(rest, &DAY_NAMES, None)?),
        'a' => drop(named(rest, &DAY_NAMES, Some(3))?),
        'w' => drop(number(rest, 1)?),
        'H' | 'k' => fields.hour = number(rest, 2)?,
        'h' | 'I' | 'l' => {
            fields.hour = number(rest, 2)?;
            fields.hour12 = true;
        }
        'i' => fields.minute = number(rest, 2)?,
        's' | 'S' => fields.second = number(rest, 2)?,
        'f' => {
            let digits = rest.bytes().take(6).take_while(u8::is_ascii_digit).count();
            fields.micros = number(rest, 6)? * 10i64.pow(6 - digits as u32);
        }
        'p' => fields.pm = Some(named(rest, &["AM", "PM"], None)? == 2),
        'T' => read_time(rest, fields, false)?,
        'r' => read_time(rest, fields, true)?,
        '%' => *rest = rest.strip_prefix('%')?,
        _ => return None,
    }
    Some(())
}

fn read_time(rest: &mut &str, fields: &mut Fields, half: bool) -> Option<()> {
    fields.hour = number(rest, 2)?;
    *rest = rest.strip_prefix(':')?;
    fields.minute = number(rest, 2)?;
    *rest = rest.strip_prefix(':')?;
    fields.second = number(rest, 2)?;
    if half {
        fields.hour12 = true;
        read_code('p', rest, fields)?;
    }
    Some(())
}

fn assemble(fields: &Fields, ty: &DataType) -> Option<Value> {
    let mut hour = fields.hour;
    if fields.hour12 {
        if !(1..=12).contains(&hour) {
            return None;
        }
        hour = hour % 12 + if fields.pm == Some(true) { 12 } else { 0 };
    }
    if hour > 23 || fields.minute > 59 || fields.second > 59 {
        return None;
    }
    let micros = ((hour * 60 + fields.minute) * 60 + fields.second) * SECOND + fields.micros;
    if ty.kind == TypeKind::Time {
        return Some(Value::Time(Time { micros }));
    }
    let mut date = Date { year: fields.year as u16, month: fields.month as u8, day: fields.day as u8 };
    if let Some(day) = fields.day_of_year {
        let first = Date { month: 1, day: 1, ..date };
        date = Date::from_day_number(first.day_number() + day - 1)?;
    }
    if !date.is_storable() {
        return None;
    }
    Some(if ty.kind == TypeKind::Date {
        Value::Date(date)
    } else {
        Value::DateTime(DateTime::from_parts(date, micros))
    })
}
