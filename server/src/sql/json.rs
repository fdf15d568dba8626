//! Owns JSON values: validation, MySQL's text form, paths, comparison.

use std::cmp::Ordering;

use bytes::Bytes;
use serde_json::Value as Json;

use super::context::Context;
use super::error::{Result, shown, sql_error};
use super::value::Value;

/// Parses JSON text; 3140 with the position if it is not.
pub fn parse(text: &[u8]) -> Result<Json> {
    serde_json::from_slice(text).map_err(|error| {
        sql_error(
            3140,
            format!("Invalid JSON text: \"{error}\" at position {} in value for column ''.", error.column()),
        )
    })
}

/// Parses JSON text that an argument gave; 3141.
pub fn parse_argument(text: &[u8], index: usize, function: &str) -> Result<Json> {
    serde_json::from_slice(text).map_err(|error| {
        let at = error.column();
        let name = function.to_ascii_lowercase();
        sql_error(
            3141,
            format!("Invalid JSON text in argument {index} to function {name}: \"{error}\" at position {at}."),
        )
    })
}

/// Text as MySQL prints it: `{"a": 1, "b": [1, 2]}`, keys by length, then bytes.
pub fn print(json: &Json) -> Bytes {
    let mut out = String::new();
    write(json, &mut out);
    Bytes::from(out)
}

fn write(json: &Json, out: &mut String) {
    match json {
        Json::Array(items) => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                out.push_str(if index > 0 { ", " } else { "" });
                write(item, out);
            }
            out.push(']');
        }
        Json::Object(map) => {
            let mut keys: Vec<&String> = map.keys().collect();
            keys.sort_by(|a, b| a.len().cmp(&b.len()).then_with(|| a.cmp(b)));
            out.push('{');
            for (index, key) in keys.into_iter().enumerate() {
                out.push_str(if index > 0 { ", " } else { "" });
                out.push_str(&Json::String(key.clone()).to_string());
                out.push_str(": ");
                write(&map[key], out);
            }
            out.push('}');
        }
        Json::Number(number) if number.is_f64() => {
            let text = super::convert::format_f64(number.as_f64().unwrap_or(0.0));
            let whole = !text.contains(['.', 'e']);
            out.push_str(&text);
            out.push_str(if whole { ".0" } else { "" });
        }
        other => out.push_str(&other.to_string()),
    }
}

/// CAST(value AS JSON): text is parsed, numbers and truth values become scalars.
pub fn from_value(value: &Value) -> Result<Value> {
    Ok(match value {
        Value::Null => Value::Null,
        Value::Json(_) => value.clone(),
        Value::Str(text) | Value::Bin(text) => Value::Json(print(&parse_argument(text, 1, "cast_as_json")?)),
        other => Value::Json(print(&scalar(other))),
    })
}

/// A value as a JSON element: text stays text, JSON nests.
pub fn scalar(value: &Value) -> Json {
    match value {
        Value::Null => Json::Null,
        Value::Int(number) => Json::from(*number),
        Value::UInt(number) => Json::from(*number),
        Value::Float(number) => Json::from(f64::from(*number)),
        Value::Double(number) => Json::from(*number),
        Value::Decimal(number) => match number.small_coefficient() {
            Some(whole) if number.scale() == 0 && i64::try_from(whole).is_ok() => Json::from(whole as i64),
            _ => Json::from(number.to_f64()),
        },
        Value::Json(text) => serde_json::from_slice(text).unwrap_or(Json::Null),
        Value::DateTime(at) => Json::String(at.format(6)),
        Value::Time(time) => Json::String(time.format(6)),
        other => Json::String(super::convert::to_string(other).unwrap_or_default()),
    }
}

/// One step of a path.
#[derive(Clone, Debug, PartialEq)]
enum Leg {
    Member(String),
    AnyMember,
    Index(usize),
    FromLast(usize),
    AnyIndex,
    Descend,
}

/// A JSON path such as `$.a[0]."b c"`.
#[derive(Clone, Debug, PartialEq)]
pub struct Path(Vec<Leg>);

impl Path {
    /// Parses a path; 3143 with the position if it is none.
    pub fn parse(text: &[u8]) -> Result<Self> {
        let bad = |at: usize| {
            sql_error(3143, format!("Invalid JSON path expression. The error is around character position {at}."))
        };
        let source = std::str::from_utf8(text).map_err(|_| bad(0))?.trim();
        let mut rest = source.strip_prefix('$').ok_or_else(|| bad(1))?;
        let mut legs = Vec::new();
        while !rest.is_empty() {
            let at = source.len() - rest.len() + 1;
            let (leg, after) = parse_leg(rest.trim_start()).ok_or_else(|| bad(at))?;
            legs.push(leg);
            rest = after.trim_start();
        }
        if legs.last() == Some(&Leg::Descend) {
            return Err(bad(source.len()));
        }
        Ok(Self(legs))
    }

    /// Whether it can match more than one place.
    pub fn is_wild(&self) -> bool {
        self.0.iter().any(|leg| matches!(leg, Leg::AnyMember | Leg::AnyIndex | Leg::Descend))
    }

    /// Everything the path matches, in document order.
    pub fn find<'j>(&self, json: &'j Json) -> Vec<&'j Json> {
        let mut found = Vec::new();
        walk(json, &self.0, &mut found);
        found
    }
}

fn parse_leg(text: &str) -> Option<(Leg, &str)> {
    if let Some(rest) = text.strip_prefix("**") {
        return Some((Leg::Descend, rest));
    }
    if let Some(rest) = text.strip_prefix('[') {
        let (inside, after) = rest.split_once(']')?;
        let inside = inside.trim();
        let leg = match inside.strip_prefix("last") {
            _ if inside == "*" => Leg::AnyIndex,
            Some("") => Leg::FromLast(0),
            Some(back) => Leg::FromLast(back.trim().strip_prefix('-')?.trim().parse().ok()?),
            None => Leg::Index(inside.parse().ok()?),
        };
        return Some((leg, after));
    }
    let rest = text.strip_prefix('.')?.trim_start();
    if let Some(after) = rest.strip_prefix('*') {
        return Some((Leg::AnyMember, after));
    }
    if rest.starts_with('"') {
        let mut stream = serde_json::Deserializer::from_str(rest).into_iter::<String>();
        let key = stream.next()?.ok()?;
        let used = stream.byte_offset();
        return Some((Leg::Member(key), &rest[used..]));
    }
    let end = rest.find(|ch: char| !(ch.is_alphanumeric() || ch == '_' || ch == '$')).unwrap_or(rest.len());
    if end == 0 || rest.starts_with(|ch: char| ch.is_ascii_digit()) {
        return None;
    }
    Some((Leg::Member(rest[..end].to_owned()), &rest[end..]))
}

fn walk<'j>(json: &'j Json, legs: &[Leg], found: &mut Vec<&'j Json>) {
    let Some((leg, rest)) = legs.split_first() else {
        found.push(json);
        return;
    };
    match (leg, json) {
        (Leg::Member(key), Json::Object(map)) => map.get(key).into_iter().for_each(|next| walk(next, rest, found)),
        (Leg::AnyMember, Json::Object(map)) => map.values().for_each(|next| walk(next, rest, found)),
        (Leg::Index(index), Json::Array(items)) => {
            items.get(*index).into_iter().for_each(|next| walk(next, rest, found))
        }
        (Leg::FromLast(back), Json::Array(items)) => {
            let index = items.len().checked_sub(back + 1);
            index.and_then(|index| items.get(index)).into_iter().for_each(|next| walk(next, rest, found));
        }
        // A scalar is an array of itself.
        (Leg::Index(0) | Leg::FromLast(0), _) => walk(json, rest, found),
        (Leg::AnyIndex, Json::Array(items)) => items.iter().for_each(|next| walk(next, rest, found)),
        (Leg::Descend, _) => {
            walk(json, rest, found);
            match json {
                Json::Array(items) => items.iter().for_each(|next| walk(next, legs, found)),
                Json::Object(map) => map.values().for_each(|next| walk(next, legs, found)),
                _ => {}
            }
        }
        _ => {}
    }
}

/// Compares JSON with JSON or with an SQL value; `None` if either is NULL.
pub fn compare(a: &Value, b: &Value, cx: &Context<'_>) -> Option<Ordering> {
    let _ = cx;
    let side = |value: &Value| if value.is_null() { None } else { Some(scalar(value)) };
    Some(compare_json(&side(a)?, &side(b)?))
}

fn precedence(json: &Json) -> u8 {
    match json {
        Json::Null => 0,
        Json::Number(_) => 1,
        Json::String(_) => 2,
        Json::Object(_) => 3,
        Json::Array(_) => 4,
        Json::Bool(_) => 5,
    }
}

fn compare_json(a: &Json, b: &Json) -> Ordering {
    match (a, b) {
        (Json::Number(x), Json::Number(y)) => match (x.as_i64(), y.as_i64()) {
            (Some(x), Some(y)) => x.cmp(&y),
            _ => x.as_f64().partial_cmp(&y.as_f64()).unwrap_or(Ordering::Equal),
        },
        (Json::String(x), Json::String(y)) => x.as_bytes().cmp(y.as_bytes()),
        (Json::Bool(x), Json::Bool(y)) => x.cmp(y),
        (Json::Array(x), Json::Array(y)) => x
            .iter()
            .zip(y)
            .map(|(x, y)| compare_json(x, y))
            .find(|order| *order != Ordering::Equal)
            .unwrap_or_else(|| x.len().cmp(&y.len())),
        (Json::Object(_), Json::Object(_)) => print(a).cmp(&print(b)),
        _ => precedence(a).cmp(&precedence(b)),
    }
}

/// JSON_UNQUOTE of a text: a quoted string is read, other text stays.
pub fn unquote(text: &[u8]) -> Result<Bytes> {
    if text.len() < 2 || text.first() != Some(&b'"') || text.last() != Some(&b'"') {
        return Ok(Bytes::copy_from_slice(text));
    }
    match serde_json::from_slice::<String>(text) {
        Ok(inner) => Ok(Bytes::from(inner)),
        Err(error) => Err(sql_error(
            3141,
            format!("Invalid JSON text in argument 1 to function json_unquote: \"{error}\" in {}", shown(text)),
        )),
    }
}
