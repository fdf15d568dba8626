//! JSON functions over parsed documents.

use serde_json::Value as Json;

use super::{Call, Function, function};
use crate::sql::collation::Collation;
use crate::sql::error::{Result, sql_error, unsupported};
use crate::sql::expr::Expr;
use crate::sql::json::{Path, parse_argument, print, scalar, unquote};
use crate::sql::types::DataType;
use crate::sql::value::Value;

fn json(_: &[Expr]) -> DataType {
    DataType::JSON
}

fn int(_: &[Expr]) -> DataType {
    DataType::BIGINT
}

fn text(_: &[Expr]) -> DataType {
    DataType::text(Collation::Utf8mb4Bin)
}

pub(super) const TABLE: &[Function] = &[
    function("JSON_VALID", 1, 1, int, |call| {
        Ok(Value::bool(match call.value(0) {
            Value::Json(_) => true,
            Value::Str(text) => serde_json::from_slice::<serde::de::IgnoredAny>(text).is_ok(),
            _ => false,
        }))
    }),
    function("JSON_EXTRACT", 2, 255, json, extract),
    function("JSON_UNQUOTE", 1, 1, text, |call| Ok(Value::Str(unquote(&call.text(0))?))),
    function("JSON_QUOTE", 1, 1, text, |call| Ok(Value::str(Json::String(call.string(0)).to_string()))),
    function("JSON_OBJECT", 0, 255, json, object).sees_null(),
    function("JSON_ARRAY", 0, 255, json, |call| {
        let items = (0..call.len()).map(|index| scalar(call.value(index))).collect();
        Ok(Value::Json(print(&Json::Array(items))))
    })
    .sees_null(),
    function("JSON_LENGTH", 1, 2, int, |call| {
        Ok(located(call, "json_length")?.map_or(Value::Null, |found| {
            Value::Int(match found {
                Json::Array(items) => items.len() as i64,
                Json::Object(map) => map.len() as i64,
                _ => 1,
            })
        }))
    }),
    function("JSON_DEPTH", 1, 1, int, |call| Ok(Value::Int(depth(&document(call, 0, "json_depth")?)))),
    function("JSON_TYPE", 1, 1, text, |call| {
        Ok(Value::from(match document(call, 0, "json_type")? {
            Json::Null => "NULL",
            Json::Bool(_) => "BOOLEAN",
            Json::Number(number) if number.is_f64() => "DOUBLE",
            Json::Number(number) if number.is_u64() && !number.is_i64() => "UNSIGNED INTEGER",
            Json::Number(_) => "INTEGER",
            Json::String(_) => "STRING",
            Json::Array(_) => "ARRAY",
            Json::Object(_) => "OBJECT",
        }))
    }),
    function("JSON_KEYS", 1, 2, json, |call| {
        Ok(match located(call, "json_keys")? {
            Some(Json::Object(map)) => {
                let mut keys: Vec<String> = map.keys().cloned().collect();
                keys.sort_by(|a, b| a.len().cmp(&b.len()).then_with(|| a.cmp(b)));
                Value::Json(print(&Json::from(keys)))
            }
            _ => Value::Null,
        })
    }),
    function("JSON_CONTAINS", 2, 3, int, |call| {
        let (target, candidate) = (document(call, 0, "json_contains")?, document(call, 1, "json_contains")?);
        if call.len() < 3 {
            return Ok(Value::bool(contains(&target, &candidate)));
        }
        let path = Path::parse(&call.text(2))?;
        Ok(path.find(&target).first().map_or(Value::Null, |target| Value::bool(contains(target, &candidate))))
    }),
    function("JSON_CONTAINS_PATH", 3, 255, int, |call| {
        let target = document(call, 0, "json_contains_path")?;
        let all = match &*call.string(1).to_ascii_lowercase() {
            "all" => true,
            "one" => false,
            _ => {
                return Err(sql_error(
                    3154,
                    "The oneOrAll argument to json_contains_path may take these values: 'one' or 'all'.",
                ));
            }
        };
        let mut found = Vec::new();
        for index in 2..call.len() {
            found.push(!Path::parse(&call.text(index))?.find(&target).is_empty());
        }
        Ok(Value::bool(if all { found.iter().all(|hit| *hit) } else { found.contains(&true) }))
    }),
    function("JSON_PRETTY", 1, 1, text, |call| {
        let pretty = serde_json::to_string_pretty(&document(call, 0, "json_pretty")?).unwrap_or_default();
        Ok(Value::str(pretty))
    }),
    function("JSON_SET", 3, 255, json, |_| Err(unsupported("JSON_SET"))),
    function("JSON_INSERT", 3, 255, json, |_| Err(unsupported("JSON_INSERT"))),
    function("JSON_REPLACE", 3, 255, json, |_| Err(unsupported("JSON_REPLACE"))),
    function("JSON_REMOVE", 2, 255, json, |_| Err(unsupported("JSON_REMOVE"))),
    function("JSON_MERGE_PATCH", 2, 255, json, |_| Err(unsupported("JSON_MERGE_PATCH"))),
    function("JSON_MERGE_PRESERVE", 2, 255, json, |_| Err(unsupported("JSON_MERGE_PRESERVE"))),
    function("JSON_SEARCH", 3, 255, json, |_| Err(unsupported("JSON_SEARCH"))),
    function("JSON_STORAGE_SIZE", 1, 1, int, |call| Ok(Value::Int(call.text(0).len() as i64))),
];

/// An argument as a document; text is parsed.
fn document(call: &Call<'_>, index: usize, name: &str) -> Result<Json> {
    match call.value(index) {
        Value::Json(text) | Value::Str(text) | Value::Bin(text) => parse_argument(text, index + 1, name),
        _ => Err(sql_error(
            3146,
            format!(
                "Invalid data type for JSON data in argument {} to function {name}; a JSON string or JSON type is required.",
                index + 1
            ),
        )),
    }
}

/// The document, or what an optional path finds in it.
fn located(call: &Call<'_>, name: &str) -> Result<Option<Json>> {
    let document = document(call, 0, name)?;
    if call.len() < 2 {
        return Ok(Some(document));
    }
    let path = Path::parse(&call.text(1))?;
    if path.is_wild() {
        return Err(sql_error(
            3149,
            "In this situation, path expressions may not contain the * and ** tokens or an array range.",
        ));
    }
    Ok(path.find(&document).first().map(|found| (*found).clone()))
}

fn extract(call: &Call<'_>) -> Result<Value> {
    let document = document(call, 0, "json_extract")?;
    let mut found = Vec::new();
    let mut many = call.len() > 2;
    for index in 1..call.len() {
        let path = Path::parse(&call.text(index))?;
        many |= path.is_wild();
        found.extend(path.find(&document).into_iter().cloned());
    }
    Ok(match found.as_slice() {
        [] => Value::Null,
        [one] if !many => Value::Json(print(one)),
        _ => Value::Json(print(&Json::Array(found))),
    })
}

fn object(call: &Call<'_>) -> Result<Value> {
    if !call.len().is_multiple_of(2) {
        return Err(crate::sql::error::wrong_argument_count("JSON_OBJECT"));
    }
    let mut map = serde_json::Map::new();
    for index in (0..call.len()).step_by(2) {
        if call.value(index).is_null() {
            return Err(sql_error(3158, "JSON documents may not contain NULL member names."));
        }
        map.insert(call.string(index), scalar(call.value(index + 1)));
    }
    Ok(Value::Json(print(&Json::Object(map))))
}

fn depth(json: &Json) -> i64 {
    1 + match json {
        Json::Array(items) => items.iter().map(depth).max().unwrap_or(0),
        Json::Object(map) => map.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

fn contains(target: &Json, candidate: &Json) -> bool {
    match (target, candidate) {
        (Json::Array(items), Json::Array(wanted)) => {
            wanted.iter().all(|one| items.iter().any(|item| contains(item, one)))
        }
        (Json::Array(items), one) => items.iter().any(|item| contains(item, one)),
        (Json::Object(map), Json::Object(wanted)) => {
            wanted.iter().all(|(key, value)| map.get(key).is_some_and(|own| contains(own, value)))
        }
        (Json::Number(a), Json::Number(b)) => a.as_f64() == b.as_f64(),
        (a, b) => a == b,
    }
}
