//! String functions: length, cutting, padding, searching, replacing. Positions count characters, bytes if the string is binary.

use std::borrow::Cow;

use super::{Call, Function, function};
use crate::sql::collation::Collation;
use crate::sql::compare::compare;
use crate::sql::error::{Result, sql_error};
use crate::sql::expr::Expr;
use crate::sql::infer::{collation_of, string_of, text_length};
use crate::sql::types::DataType;
use crate::sql::value::Value;

/// Longest string a function may build: max_allowed_packet.
pub(super) const MAX_RESULT: usize = 64 << 20;

fn int(_: &[Expr]) -> DataType {
    DataType::BIGINT
}

/// As long as the first argument.
fn first(args: &[Expr]) -> DataType {
    string_of(args.first().map_or(0, |arg| u64::from(text_length(&arg.ty))), args)
}

/// As long as all arguments together.
fn all(args: &[Expr]) -> DataType {
    string_of(args.iter().map(|arg| u64::from(text_length(&arg.ty))).sum(), args)
}

/// Of unknown length.
fn long(args: &[Expr]) -> DataType {
    DataType::text(collation_of(args))
}

/// As long as the alternatives after the first argument.
fn later(args: &[Expr]) -> DataType {
    string_of(args.iter().skip(1).map(|arg| u64::from(text_length(&arg.ty))).max().unwrap_or(0), &args[1..])
}

pub(super) const TABLE: &[Function] = &[
    function("CONCAT", 1, 255, all, concat),
    function("CONCAT_WS", 2, 255, all, concat_ws).sees_null(),
    function("LENGTH", 1, 1, int, |call| Ok(Value::Int(call.text(0).len() as i64))),
    function("BIT_LENGTH", 1, 1, int, |call| Ok(Value::Int(call.text(0).len() as i64 * 8))),
    function("CHAR_LENGTH", 1, 1, int, |call| Ok(Value::Int(Chars::of(call, 0).count() as i64))),
    function("SUBSTRING", 2, 3, first, substring),
    function("LEFT", 2, 2, first, |call| {
        let chars = Chars::of(call, 0);
        let count = call.int(1).max(0) as usize;
        Ok(call.result(chars.range(0, count).to_vec()))
    }),
    function("RIGHT", 2, 2, first, |call| {
        let chars = Chars::of(call, 0);
        let total = chars.count();
        let count = (call.int(1).max(0) as usize).min(total);
        Ok(call.result(chars.range(total - count, count).to_vec()))
    }),
    function("UPPER", 1, 1, first, |call| Ok(recased(call, str::to_uppercase))),
    function("LOWER", 1, 1, first, |call| Ok(recased(call, str::to_lowercase))),
    function("TRIM", 1, 2, first, |call| Ok(trimmed(call, true, true))),
    function("LTRIM", 1, 2, first, |call| Ok(trimmed(call, true, false))),
    function("RTRIM", 1, 2, first, |call| Ok(trimmed(call, false, true))),
    function("REPLACE", 3, 3, long, replace),
    function("LPAD", 3, 3, long, |call| pad(call, true)),
    function("RPAD", 3, 3, long, |call| pad(call, false)),
    function("REPEAT", 2, 2, long, repeat),
    function("SPACE", 1, 1, long, |call| {
        bounded(call, call.int(0).max(0) as usize, || vec![b' '; call.int(0).max(0) as usize])
    }),
    function("REVERSE", 1, 1, first, |call| {
        let chars = Chars::of(call, 0);
        let mut out = Vec::with_capacity(chars.text.len());
        for index in (0..chars.count()).rev() {
            out.extend_from_slice(chars.range(index, 1));
        }
        Ok(call.result(out))
    }),
    function("INSTR", 2, 2, int, |call| Ok(Value::Int(locate(call, 0, 1, 0)))),
    function("LOCATE", 2, 3, int, |call| {
        let start = if call.len() > 2 { call.int(2) } else { 1 };
        if start < 1 {
            return Ok(Value::Int(0));
        }
        Ok(Value::Int(locate(call, 1, 0, start as usize - 1)))
    }),
    function("ASCII", 1, 1, int, |call| Ok(Value::Int(i64::from(call.text(0).first().copied().unwrap_or(0))))),
    function("ORD", 1, 1, int, |call| {
        let chars = Chars::of(call, 0);
        Ok(Value::Int(chars.range(0, 1).iter().fold(0, |number, byte| number << 8 | i64::from(*byte))))
    }),
    function("CHAR", 1, 255, |_| DataType::varchar(1020, Collation::Binary), char_of).sees_null(),
    function("FIELD", 2, 255, int, field).sees_null(),
    function("ELT", 2, 255, later, |call| {
        let index = call.int(0);
        let chosen = usize::try_from(index).ok().filter(|index| *index >= 1 && *index < call.len());
        Ok(chosen.map_or(Value::Null, |index| {
            if call.value(index).is_null() { Value::Null } else { call.result(call.text(index).into_owned()) }
        }))
    })
    .sees_null(),
    function("FIND_IN_SET", 2, 2, int, find_in_set),
    function("INSERT", 4, 4, long, insert),
    function("STRCMP", 2, 2, int, |call| {
        let order = collation_of(call.exprs).compare(&call.text(0), &call.text(1));
        Ok(Value::Int(order as i64))
    }),
    function("SUBSTRING_INDEX", 3, 3, first, substring_index),
    function("MAKE_SET", 2, 255, later, make_set).sees_null(),
    function("EXPORT_SET", 3, 5, long, export_set),
    function("SOUNDEX", 1, 1, first, |call| Ok(call.result(soundex(&call.string(0))))),
    function(
        "REGEXP_LIKE",
        2,
        3,
        |_| DataType::BOOL,
        |call| Ok(Value::bool(regex(call, 1, 2)?.is_match(&call.text(0)))),
    ),
    function("REGEXP_REPLACE", 3, 6, long, |call| {
        let replaced = regex(call, 1, 5)?.replace_all(&call.text(0), &*call.text(2)).into_owned();
        Ok(call.result(replaced))
    }),
    function("REGEXP_SUBSTR", 2, 5, first, |call| {
        let text = call.text(0);
        Ok(regex(call, 1, 4)?.find(&text).map_or(Value::Null, |found| call.result(found.as_bytes().to_vec())))
    }),
    function("REGEXP_INSTR", 2, 6, int, |call| {
        let text = call.text(0);
        let at = regex(call, 1, 5)?
            .find(&text)
            .map_or(0, |found| String::from_utf8_lossy(&text[..found.start()]).chars().count() + 1);
        Ok(Value::Int(at as i64))
    }),
];

/// A string seen as characters, or bytes if it is binary.
struct Chars<'t> {
    text: Cow<'t, [u8]>,
    binary: bool,
}

impl<'t> Chars<'t> {
    fn of(call: &'t Call<'_>, index: usize) -> Self {
        let binary = matches!(call.value(index), Value::Bin(_));
        Self { text: call.text(index), binary }
    }
    fn count(&self) -> usize {
        if self.binary { self.text.len() } else { self.text.iter().filter(|byte| is_start(**byte)).count() }
    }
    /// Byte position of a character; the end if there are fewer.
    fn offset(&self, index: usize) -> usize {
        if self.binary {
            return index.min(self.text.len());
        }
        if self.text.is_ascii() {
            return index.min(self.text.len());
        }
        self.text
            .iter()
            .enumerate()
            .filter(|(_, byte)| is_start(**byte))
            .nth(index)
            .map_or(self.text.len(), |(at, _)| at)
    }
    fn range(&self, start: usize, count: usize) -> &[u8] {
        &self.text[self.offset(start)..self.offset(start.saturating_add(count))]
    }
}

/// First byte of a UTF-8 character.
fn is_start(byte: u8) -> bool {
    byte & 0xc0 != 0x80
}

/// NULL with warning 1301 if the result would pass max_allowed_packet.
fn bounded(call: &Call<'_>, length: usize, build: impl FnOnce() -> Vec<u8>) -> Result<Value> {
    if length > MAX_RESULT {
        call.cx.warn(sql_error(
            1301,
            format!("Result of function was larger than max_allowed_packet ({MAX_RESULT}) - truncated"),
        ));
        return Ok(Value::Null);
    }
    Ok(call.result(build()))
}

fn concat(call: &Call<'_>) -> Result<Value> {
    let parts: Vec<Cow<'_, [u8]>> = (0..call.len()).map(|index| call.text(index)).collect();
    bounded(call, parts.iter().map(|part| part.len()).sum(), || parts.concat())
}

fn concat_ws(call: &Call<'_>) -> Result<Value> {
    if call.value(0).is_null() {
        return Ok(Value::Null);
    }
    let separator = call.text(0);
    let parts: Vec<Cow<'_, [u8]>> =
        (1..call.len()).filter(|index| !call.value(*index).is_null()).map(|index| call.text(index)).collect();
    let length = parts.iter().map(|part| part.len() + separator.len()).sum();
    bounded(call, length, || parts.join(&*separator))
}

fn substring(call: &Call<'_>) -> Result<Value> {
    let chars = Chars::of(call, 0);
    let (total, position) = (chars.count() as i64, call.int(1));
    let count = if call.len() > 2 { call.int(2) } else { i64::MAX };
    let start = if position < 0 { total.saturating_add(position) } else { position - 1 };
    if position == 0 || start < 0 || count <= 0 {
        return Ok(call.result(Vec::new()));
    }
    Ok(call.result(chars.range(start as usize, usize::try_from(count).unwrap_or(usize::MAX)).to_vec()))
}

fn recased(call: &Call<'_>, change: fn(&str) -> String) -> Value {
    let text = call.text(0);
    if call.is_binary() {
        return call.result(text.into_owned());
    }
    call.result(change(&String::from_utf8_lossy(&text)).into_bytes())
}

fn trimmed(call: &Call<'_>, left: bool, right: bool) -> Value {
    let text = call.text(0);
    let cut = if call.len() > 1 { call.text(1) } else { Cow::Borrowed(&b" "[..]) };
    let mut rest: &[u8] = &text;
    if !cut.is_empty() {
        while let Some(shorter) = rest.strip_prefix(&*cut).filter(|_| left) {
            rest = shorter;
        }
        while let Some(shorter) = rest.strip_suffix(&*cut).filter(|_| right) {
            rest = shorter;
        }
    }
    call.result(rest.to_vec())
}

/// REPLACE compares bytes, whatever the collation.
fn replace(call: &Call<'_>) -> Result<Value> {
    let (text, from, to) = (call.text(0), call.text(1), call.text(2));
    if from.is_empty() {
        return Ok(call.result(text.into_owned()));
    }
    let mut out = Vec::with_capacity(text.len());
    let mut rest: &[u8] = &text;
    while let Some(at) = find(rest, &from) {
        out.extend_from_slice(&rest[..at]);
        out.extend_from_slice(&to);
        rest = &rest[at + from.len()..];
        if out.len() > MAX_RESULT {
            return bounded(call, out.len(), Vec::new);
        }
    }
    out.extend_from_slice(rest);
    Ok(call.result(out))
}

fn find(text: &[u8], needle: &[u8]) -> Option<usize> {
    if needle.is_empty() { Some(0) } else { text.windows(needle.len()).position(|window| window == needle) }
}

fn pad(call: &Call<'_>, left: bool) -> Result<Value> {
    let (chars, fill) = (Chars::of(call, 0), Chars::of(call, 2));
    let wanted = call.int(1);
    let Ok(wanted) = usize::try_from(wanted) else { return Ok(Value::Null) };
    let (have, fill_count) = (chars.count(), fill.count());
    if wanted <= have {
        return Ok(call.result(chars.range(0, wanted).to_vec()));
    }
    if fill_count == 0 {
        return Ok(Value::Null);
    }
    let missing = wanted - have;
    bounded(call, chars.text.len().saturating_add(missing.saturating_mul(4)), || {
        let mut padding = fill.text.repeat(missing / fill_count);
        padding.extend_from_slice(fill.range(0, missing % fill_count));
        if left { [&padding, &*chars.text].concat() } else { [&chars.text, &*padding].concat() }
    })
}

fn repeat(call: &Call<'_>) -> Result<Value> {
    let text = call.text(0);
    let count = usize::try_from(call.int(1).max(0)).unwrap_or(0);
    bounded(call, text.len().saturating_mul(count), || text.repeat(count))
}

/// Character position of a needle from 1, 0 if absent, under the arguments' collation.
fn locate(call: &Call<'_>, text: usize, needle: usize, skip: usize) -> i64 {
    let (chars, wanted) = (Chars::of(call, text), Chars::of(call, needle));
    let (total, length) = (chars.count(), wanted.count());
    let binary = chars.binary || wanted.binary;
    let collation = if binary { Collation::Binary } else { collation_of(call.exprs) };
    if skip > total {
        return 0;
    }
    let last = total.saturating_sub(length);
    let found =
        (skip..=last).find(|at| *at + length <= total && collation.equal(chars.range(*at, length), &wanted.text));
    found.map_or(0, |at| at as i64 + 1)
}

fn char_of(call: &Call<'_>) -> Result<Value> {
    let mut out = Vec::new();
    for index in (0..call.len()).filter(|index| !call.value(*index).is_null()) {
        let bytes = (call.int(index) as u32).to_be_bytes();
        let skip = bytes.iter().take(3).take_while(|byte| **byte == 0).count();
        out.extend_from_slice(&bytes[skip..]);
    }
    Ok(Value::Bin(out.into()))
}

fn field(call: &Call<'_>) -> Result<Value> {
    let collation = collation_of(call.exprs);
    let same = |index: &usize| {
        compare(call.value(0), call.value(*index), collation, call.cx) == Some(std::cmp::Ordering::Equal)
    };
    Ok(Value::Int((1..call.len()).find(same).unwrap_or(0) as i64))
}

fn find_in_set(call: &Call<'_>) -> Result<Value> {
    let (wanted, list) = (call.text(0), call.text(1));
    if list.is_empty() || wanted.contains(&b',') {
        return Ok(Value::Int(0));
    }
    let collation = collation_of(call.exprs);
    let at = list.split(|byte| *byte == b',').position(|item| collation.equal(item, &wanted));
    Ok(Value::Int(at.map_or(0, |at| at as i64 + 1)))
}

fn insert(call: &Call<'_>) -> Result<Value> {
    let chars = Chars::of(call, 0);
    let (total, position, count) = (chars.count() as i64, call.int(1), call.int(2));
    if position < 1 || position > total {
        return Ok(call.result(chars.text.to_vec()));
    }
    let start = position as usize - 1;
    let end = if count < 0 { total as usize } else { start.saturating_add(count as usize).min(total as usize) };
    let new = call.text(3);
    bounded(call, chars.text.len() + new.len(), || {
        [chars.range(0, start), &new, &chars.text[chars.offset(end)..]].concat()
    })
}

fn substring_index(call: &Call<'_>) -> Result<Value> {
    let (text, mark, count) = (call.text(0), call.text(1), call.int(2));
    if mark.is_empty() || count == 0 {
        return Ok(call.result(Vec::new()));
    }
    let mut marks = Vec::new();
    let mut at = 0;
    while let Some(offset) = find(&text[at..], &mark) {
        marks.push(at + offset);
        at += offset + mark.len();
    }
    let wanted = usize::try_from(count.unsigned_abs()).unwrap_or(usize::MAX);
    let part = if wanted > marks.len() {
        &text[..]
    } else if count > 0 {
        &text[..marks[wanted - 1]]
    } else {
        &text[marks[marks.len() - wanted] + mark.len()..]
    };
    Ok(call.result(part.to_vec()))
}

fn make_set(call: &Call<'_>) -> Result<Value> {
    if call.value(0).is_null() {
        return Ok(Value::Null);
    }
    let bits = call.int(0);
    let chosen =
        (1..call.len()).filter(|index| *index <= 64 && bits >> (index - 1) & 1 == 1 && !call.value(*index).is_null());
    let parts: Vec<Cow<'_, [u8]>> = chosen.map(|index| call.text(index)).collect();
    Ok(call.result(parts.join(&b","[..])))
}

fn export_set(call: &Call<'_>) -> Result<Value> {
    let bits = call.int(0) as u64;
    let separator = if call.len() > 3 { call.text(3) } else { Cow::Borrowed(&b","[..]) };
    let count = if call.len() > 4 { call.int(4).clamp(0, 64) } else { 64 };
    let parts: Vec<Cow<'_, [u8]>> = (0..count).map(|bit| call.text(if bits >> bit & 1 == 1 { 1 } else { 2 })).collect();
    Ok(call.result(parts.join(&*separator)))
}

fn soundex(text: &str) -> Vec<u8> {
    const CODES: &[u8; 26] = b"01230120022455012623010202";
    let mut out = Vec::new();
    let mut last = 0;
    for letter in text.bytes().filter(u8::is_ascii_alphabetic).map(|byte| byte.to_ascii_uppercase()) {
        let code = CODES[usize::from(letter - b'A')];
        if out.is_empty() {
            out.push(letter);
        } else if code != b'0' && code != last {
            out.push(code);
        }
        last = code;
    }
    while !out.is_empty() && out.len() < 4 {
        out.push(b'0');
    }
    out
}

/// The pattern of argument `pattern`, with the match type of argument `flags` (`c`, `i`, `m`, `n`).
fn regex(call: &Call<'_>, pattern: usize, flags: usize) -> Result<regex::bytes::Regex> {
    let mut ignore_case = collation_of(call.exprs).is_case_insensitive();
    let mut prefix = String::new();
    for flag in call.string(flags).chars() {
        match flag {
            'c' => ignore_case = false,
            'i' => ignore_case = true,
            'm' => prefix.push_str("(?m)"),
            'n' => prefix.push_str("(?s)"),
            'u' => {}
            _ => return Err(crate::sql::error::wrong_arguments("regexp_like")),
        }
    }
    let mut source = prefix.into_bytes();
    source.extend_from_slice(&call.text(pattern));
    crate::sql::like::compile_regexp(&source, ignore_case)
}
