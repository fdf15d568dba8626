//! Turns an access path and the values of its expressions into key ranges. Pure.
//!
//! A comparison value must become a value of the column's type before it can be a key. Where that is not exact
//! (`id = '5x'`, `name = 5`) the range is widened, and the caller is told to test the whole filter again.

use crate::{
    catalog::Table,
    key::{self, KeyPart},
    row::{FormatError, Kind, ZoneOffset},
    sql::{
        plan::access::{Access, Edge, Fixed, Stretch, index_of},
        value::{Date, DateTime, Value},
    },
};

/// Most ranges one statement visits by index; more IN values than this fall back to fewer fixed columns.
pub const MAX_RANGES: usize = 65_536;

/// One stretch of keys: `start <= key < end`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeyRange {
    pub start: Vec<u8>,
    pub end: Vec<u8>,
    /// `start` is the only key that can be in it.
    pub point: bool,
}

/// What to read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ranges {
    /// In key order, without overlap. Empty: no row can match.
    pub ranges: Vec<KeyRange>,
    /// The ranges hold exactly the rows that the served predicates select; otherwise test the whole filter.
    pub exact: bool,
}

/// What a comparison value is for a column.
#[derive(Debug, PartialEq)]
enum Fit {
    /// The same value in the column's type.
    Exact(Value),
    /// No value of the column equals it; the column's values below and above it are split by this one
    /// (`Some(v, true)`: the largest value below is v).
    Between(Value),
    /// Below or above everything that the column can hold.
    Below,
    Above,
    /// Comparison with it is never true.
    Never,
    /// The index can't serve it.
    Unusable,
}

/// Computes the ranges; `access` holds evaluated values.
pub fn ranges(table: &Table, access: &Access<Value>, zone: ZoneOffset) -> Result<Ranges, FormatError> {
    let index = index_of(table, access.index);
    let mut exact = true;
    let mut prefixes = vec![table.index_prefix(index.id)];
    let mut whole_key = true;
    for (part, fixed) in index.parts.iter().zip(&access.fixed) {
        let values = match fixed_values(part, fixed, &mut exact) {
            Some(values) if prefixes.len().saturating_mul(values.len()) <= MAX_RANGES => values,
            _ => {
                exact = false;
                whole_key = false;
                break;
            }
        };
        let mut next = Vec::with_capacity(prefixes.len() * values.len());
        for prefix in &prefixes {
            for value in &values {
                let mut longer = prefix.clone();
                part.encode(value, zone, &mut longer)?;
                next.push(longer);
            }
        }
        prefixes = next;
    }
    let fixed_all = whole_key && access.fixed.len() == index.parts.len();
    let next = (whole_key && !fixed_all).then(|| &index.parts[access.fixed.len()]);
    let mut ranges = Vec::with_capacity(prefixes.len());
    for prefix in prefixes {
        match next {
            Some(part) if !access.ranges.is_empty() => {
                for range in &access.ranges {
                    ranges.extend(stretch(&prefix, part, range, zone, &mut exact)?);
                }
            }
            _ => ranges.extend(prefix_range(prefix, fixed_all && access.unique)),
        }
    }
    Ok(Ranges { ranges: merged(ranges), exact })
}

/// The same keys in order, each once.
fn merged(mut ranges: Vec<KeyRange>) -> Vec<KeyRange> {
    if ranges.len() < 2 {
        return ranges;
    }
    ranges.sort_unstable();
    let mut out: Vec<KeyRange> = Vec::with_capacity(ranges.len());
    for range in ranges {
        match out.last_mut() {
            Some(last) if range.start < last.end => {
                if range.end > last.end {
                    last.end = range.end;
                    last.point = false;
                }
            }
            _ => out.push(range),
        }
    }
    out
}

fn prefix_range(prefix: Vec<u8>, point: bool) -> Option<KeyRange> {
    let end = key::prefix_end(&prefix)?;
    Some(KeyRange { start: prefix, end, point })
}

/// The key values of a fixed column; `None`: the index can't serve it.
fn fixed_values(part: &KeyPart, fixed: &Fixed<Value>, exact: &mut bool) -> Option<Vec<Value>> {
    let mut out = Vec::new();
    let list: &[Value] = match fixed {
        Fixed::Null if part.nullable => return Some(vec![Value::Null]),
        Fixed::Null => return Some(Vec::new()),
        Fixed::NullSafe(Value::Null) if part.nullable => return Some(vec![Value::Null]),
        Fixed::NullSafe(Value::Null) => return Some(Vec::new()),
        Fixed::NullSafe(v) => std::slice::from_ref(v),
        Fixed::AnyOf(list) => list,
    };
    for value in list {
        match fit(part.kind, value) {
            Fit::Exact(v) => out.push(v),
            Fit::Between(_) | Fit::Below | Fit::Above | Fit::Never => {}
            Fit::Unusable => {
                *exact = false;
                return None;
            }
        }
    }
    Some(out)
}

/// The range over one column after the fixed ones.
fn stretch(
    prefix: &[u8],
    part: &KeyPart,
    range: &Stretch<Value>,
    zone: ZoneOffset,
    exact: &mut bool,
) -> Result<Option<KeyRange>, FormatError> {
    // NULLs come first and match no range.
    let mut start = prefix.to_vec();
    if part.nullable {
        start.push(1);
    }
    let Some(mut end) = key::prefix_end(prefix) else { return Ok(None) };
    if let Some(Edge { value, inclusive }) = &range.low {
        let (v, inclusive) = match fit(part.kind, value) {
            Fit::Exact(v) => (v, *inclusive),
            Fit::Between(v) => (v, false),
            Fit::Above | Fit::Never => return Ok(None),
            Fit::Below => (Value::Null, true),
            Fit::Unusable => {
                *exact = false;
                (Value::Null, true)
            }
        };
        if !v.is_null() {
            start.truncate(prefix.len());
            part.encode(&v, zone, &mut start)?;
            if !inclusive {
                let Some(after) = key::prefix_end(&start) else { return Ok(None) };
                start = after;
            }
        }
    }
    if let Some(Edge { value, inclusive }) = &range.high {
        let (v, inclusive) = match fit(part.kind, value) {
            Fit::Exact(v) => (v, *inclusive),
            Fit::Between(v) => (v, true),
            Fit::Below | Fit::Never => return Ok(None),
            Fit::Above => (Value::Null, true),
            Fit::Unusable => {
                *exact = false;
                (Value::Null, true)
            }
        };
        if !v.is_null() {
            let mut edge = prefix.to_vec();
            part.encode(&v, zone, &mut edge)?;
            if inclusive {
                edge = key::prefix_end(&edge).unwrap_or(end);
            }
            end = edge;
        }
    }
    Ok((start < end).then_some(KeyRange { start, end, point: false }))
}

/// What `value` is among the values of a column stored as `kind`.
fn fit(kind: Kind, value: &Value) -> Fit {
    if value.is_null() {
        return Fit::Never;
    }
    match kind {
        Kind::Int { width, unsigned } => match integer(value) {
            Some(Whole::Exact(n)) => fit_int(n, width, unsigned),
            Some(Whole::Floor(n)) => match fit_int(n, width, unsigned) {
                Fit::Exact(v) => Fit::Between(v),
                other => other,
            },
            None => Fit::Unusable,
        },
        Kind::Text { .. } => match value {
            Value::Str(_) => Fit::Exact(value.clone()),
            _ => Fit::Unusable,
        },
        Kind::Binary => match value {
            Value::Bin(_) | Value::Str(_) => Fit::Exact(value.clone()),
            _ => Fit::Unusable,
        },
        Kind::Double => match value {
            Value::Double(_) => Fit::Exact(value.clone()),
            Value::Int(n) if n.unsigned_abs() < 1 << 53 => Fit::Exact(Value::Double(*n as f64)),
            Value::UInt(n) if *n < 1 << 53 => Fit::Exact(Value::Double(*n as f64)),
            _ => Fit::Unusable,
        },
        Kind::Float => match value {
            Value::Int(n) if n.unsigned_abs() < 1 << 24 => Fit::Exact(Value::Float(*n as f32)),
            Value::UInt(n) if *n < 1 << 24 => Fit::Exact(Value::Float(*n as f32)),
            _ => Fit::Unusable,
        },
        Kind::Decimal { precision, scale } => {
            crate::exec::number::fit_decimal(value, precision, scale).map_or(Fit::Unusable, Fit::Exact)
        }
        Kind::Date => match value {
            Value::Date(_) => Fit::Exact(value.clone()),
            Value::Str(text) => parse_date(text).map_or(Fit::Unusable, |d| Fit::Exact(Value::Date(d))),
            _ => Fit::Unusable,
        },
        Kind::DateTime | Kind::Timestamp => match value {
            Value::DateTime(_) => Fit::Exact(value.clone()),
            Value::Date(date) => Fit::Exact(Value::DateTime(DateTime { date: *date, ..DateTime::default() })),
            Value::Str(text) => match parse_datetime(text) {
                Some(v) => Fit::Exact(Value::DateTime(v)),
                None => Fit::Unusable,
            },
            _ => Fit::Unusable,
        },
        Kind::Time => match value {
            Value::Time(_) => Fit::Exact(value.clone()),
            _ => Fit::Unusable,
        },
        Kind::Json => Fit::Unusable,
    }
}

fn fit_int(n: i128, width: u8, unsigned: bool) -> Fit {
    let bits = u32::from(width) * 8;
    let (min, max) = match unsigned {
        true => (0, (1i128 << bits) - 1),
        false => (-(1i128 << (bits - 1)), (1i128 << (bits - 1)) - 1),
    };
    match n {
        _ if n < min => Fit::Below,
        _ if n > max => Fit::Above,
        _ if unsigned => Fit::Exact(Value::UInt(n as u64)),
        _ => Fit::Exact(Value::Int(n as i64)),
    }
}

enum Whole {
    Exact(i128),
    /// Not whole: the integer below.
    Floor(i128),
}

/// A number, or text that is wholly a number, as an integer.
fn integer(value: &Value) -> Option<Whole> {
    match value {
        Value::Int(n) => Some(Whole::Exact((*n).into())),
        Value::UInt(n) => Some(Whole::Exact((*n).into())),
        Value::Double(f) => from_double(*f),
        Value::Float(f) => from_double(f64::from(*f)),
        Value::Decimal(d) => {
            let (floor, whole) = crate::exec::number::floor(d)?;
            Some(if whole { Whole::Exact(floor) } else { Whole::Floor(floor) })
        }
        // Text compares with numbers as DOUBLE: exact up to 15 digits.
        Value::Str(text) if text.len() <= 15 => {
            std::str::from_utf8(text).ok()?.trim().parse::<i64>().ok().map(|n| Whole::Exact(n.into()))
        }
        _ => None,
    }
}

fn from_double(f: f64) -> Option<Whole> {
    (f.is_finite() && f.abs() < 9.0e15)
        .then(|| if f.fract() == 0.0 { Whole::Exact(f as i128) } else { Whole::Floor(f.floor() as i128) })
}

/// `YYYY-MM-DD`, strictly; anything else is left to the filter.
fn parse_date(text: &[u8]) -> Option<Date> {
    let text = std::str::from_utf8(text).ok()?;
    let mut parts = text.splitn(3, '-');
    let (y, m, d) = (parts.next()?, parts.next()?, parts.next()?);
    if y.len() != 4 || m.len() != 2 || d.len() != 2 {
        return None;
    }
    Some(Date { year: y.parse().ok()?, month: m.parse().ok()?, day: d.parse().ok()? })
        .filter(|d| (1..=12).contains(&d.month) && (1..=31).contains(&d.day))
}

/// `YYYY-MM-DD` or `YYYY-MM-DD HH:MM:SS[.ffffff]`, strictly.
fn parse_datetime(text: &[u8]) -> Option<DateTime> {
    let (day, time) = (text.get(..10)?, &text[10..]);
    let date = parse_date(day)?;
    if time.is_empty() {
        return Some(DateTime { date, ..DateTime::default() });
    }
    let time = std::str::from_utf8(time).ok()?.strip_prefix([' ', 'T'])?;
    let (clock, fraction) = time.split_once('.').unwrap_or((time, ""));
    let mut parts = clock.splitn(3, ':');
    let mut two = || parts.next().filter(|p| p.len() == 2).and_then(|p| p.parse::<u8>().ok());
    let (hour, minute, second) = (two()?, two()?, two()?);
    if hour > 23 || minute > 59 || second > 59 || fraction.len() > 6 || !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let micros = format!("{fraction:0<6}").parse().ok()?;
    Some(DateTime { date, hour, minute, second, micros })
}
