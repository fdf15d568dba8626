//! FORMAT: index keys, whose byte order is the order of the values.
//!
//! ```text
//! 4  BE   table id
//! 2  BE   index id (0 = the primary key, or the hidden row id of a table without one)
//! then per key column:
//!   [1]   only if the column is nullable: 0 = NULL (nothing follows), 1 = a value
//!   int   width bytes big-endian, sign bit flipped when signed
//!   float 4 / double 8 bytes big-endian, all bits flipped when negative, else the sign bit; -0 is stored as 0
//!   decimal, date (u32 BE), time and timestamp (i64 BE, sign flipped), datetime (u64 BE): as in the row format
//!   text  the collation's sort key (of the first `prefix` characters), 00 escaped as 00 FF, closed by 00 01
//!   bytes the bytes, escaped and closed the same way
//! ```
//!
//! A primary entry is `primary key -> row`. A non-unique secondary entry is `index columns, primary key columns ->
//! nothing`. A unique one is `index columns -> primary key columns`, unless one of them is NULL: then it is stored like
//! a non-unique one, so that many NULLs may stand.

use crate::row::{FormatError, Kind, ZoneOffset, decimal_width, get_decimal, pack_date, pack_datetime, put_decimal};
use crate::row::{timestamp_datetime, timestamp_micros, unpack_date, unpack_datetime};
use crate::sql::value::{Time, Value};

/// One column of an index: where its value comes from and how it is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyPart {
    /// Ordinal of the column in the table; `usize::MAX` for the hidden row id.
    pub column: usize,
    pub kind: Kind,
    pub nullable: bool,
    /// Only the first so many characters (text) or bytes are in the key.
    pub prefix: Option<u32>,
}

/// Longest key the server writes, as InnoDB's limit with DYNAMIC rows (error 1071).
pub const MAX_KEY: usize = 3072;
/// Length of the table and index ids in front of every key.
pub const ID_LEN: usize = 6;

type Result<T> = std::result::Result<T, FormatError>;

/// Starts a key: the table and index ids.
pub fn put_ids(table: u32, index: u16, out: &mut Vec<u8>) {
    out.extend_from_slice(&table.to_be_bytes());
    out.extend_from_slice(&index.to_be_bytes());
}

impl KeyPart {
    /// Whether the stored column value can be rebuilt from the key alone.
    pub fn is_reversible(&self) -> bool {
        self.prefix.is_none() && !matches!(self.kind, Kind::Text { .. } | Kind::Json)
    }

    /// Appends one value, which has the column's type already.
    pub fn encode(&self, value: &Value, offset: ZoneOffset, out: &mut Vec<u8>) -> Result<()> {
        if self.nullable {
            out.push(u8::from(!matches!(value, Value::Null)));
            if matches!(value, Value::Null) {
                return Ok(());
            }
        }
        match (self.kind, value) {
            (Kind::Int { width, unsigned }, Value::Int(v)) => put_int(*v as u64, width, unsigned, out),
            (Kind::Int { width, unsigned }, Value::UInt(v)) => put_int(*v, width, unsigned, out),
            (Kind::Float, Value::Float(v)) => {
                let bits = if *v == 0.0 { 0 } else { v.to_bits() };
                let mask = if bits >> 31 == 1 { u32::MAX } else { 1 << 31 };
                out.extend_from_slice(&(bits ^ mask).to_be_bytes());
            }
            (Kind::Double, Value::Double(v)) => {
                let bits = if *v == 0.0 { 0 } else { v.to_bits() };
                let mask = if bits >> 63 == 1 { u64::MAX } else { 1 << 63 };
                out.extend_from_slice(&(bits ^ mask).to_be_bytes());
            }
            (Kind::Decimal { precision, scale }, Value::Decimal(v)) => {
                let at = out.len();
                out.resize(at + decimal_width(precision), 0);
                put_decimal(v, scale, &mut out[at..])?;
            }
            (Kind::Date, Value::Date(v)) => out.extend_from_slice(&pack_date(*v).to_be_bytes()),
            (Kind::Time, Value::Time(v)) => put_int(v.micros as u64, 8, false, out),
            (Kind::DateTime, Value::DateTime(v)) => out.extend_from_slice(&pack_datetime(v).to_be_bytes()),
            (Kind::Timestamp, Value::DateTime(v)) => put_int(timestamp_micros(v, offset) as u64, 8, false, out),
            (Kind::Text { collation }, Value::Str(text)) => {
                let text = self.prefix.map_or(&text[..], |n| first_chars(text, n as usize));
                let at = out.len();
                collation.sort_key(text, out);
                escape_from(out, at);
            }
            (Kind::Binary, Value::Bin(b) | Value::Str(b)) => {
                let at = out.len();
                out.extend_from_slice(self.prefix.map_or(&b[..], |n| &b[..b.len().min(n as usize)]));
                escape_from(out, at);
            }
            _ => return Err(FormatError::Value("type differs from the key column's")),
        }
        Ok(())
    }

    /// Steps over one encoded value.
    pub fn skip(&self, key: &mut &[u8]) -> Result<()> {
        if self.nullable && take(key, 1)?[0] == 0 {
            return Ok(());
        }
        match self.kind.fixed_width() {
            Some(width) => take(key, width).map(|_| ()),
            None => {
                let end = closed_at(key)?;
                take(key, end + 2).map(|_| ())
            }
        }
    }

    /// Decodes one value of a reversible part.
    pub fn decode(&self, key: &mut &[u8], offset: ZoneOffset) -> Result<Value> {
        if self.nullable && take(key, 1)?[0] == 0 {
            return Ok(Value::Null);
        }
        let Some(width) = self.kind.fixed_width() else {
            let end = closed_at(key)?;
            let body = take(key, end + 2)?;
            return Ok(Value::Bin(unescape(&body[..end]).into()));
        };
        let b = take(key, width)?;
        Ok(match self.kind {
            Kind::Int { unsigned: true, .. } => Value::UInt(get_int(b, true) as u64),
            Kind::Int { .. } => Value::Int(get_int(b, false)),
            Kind::Float => {
                let bits = get_int(b, true) as u32;
                Value::Float(f32::from_bits(bits ^ if bits >> 31 == 0 { u32::MAX } else { 1 << 31 }))
            }
            Kind::Double => {
                let bits = get_int(b, true) as u64;
                Value::Double(f64::from_bits(bits ^ if bits >> 63 == 0 { u64::MAX } else { 1 << 63 }))
            }
            Kind::Decimal { scale, .. } => Value::Decimal(get_decimal(b, scale)),
            Kind::Date => Value::Date(unpack_date(get_int(b, true) as u32)),
            Kind::Time => Value::Time(Time { micros: get_int(b, false) }),
            Kind::DateTime => Value::DateTime(unpack_datetime(get_int(b, true) as u64)),
            Kind::Timestamp => Value::DateTime(timestamp_datetime(get_int(b, false), offset)),
            Kind::Text { .. } | Kind::Binary | Kind::Json => return Err(FormatError::Damaged("not a reversible key")),
        })
    }
}

/// The smallest key that is greater than every key starting with `prefix`; `None` if there is none.
pub fn prefix_end(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|b| *b != 0xff)?;
    let mut end = prefix[..=last].to_vec();
    end[last] += 1;
    Some(end)
}

fn put_int(v: u64, width: u8, unsigned: bool, out: &mut Vec<u8>) {
    let bytes = v.to_be_bytes();
    let at = out.len();
    out.extend_from_slice(&bytes[8 - (width as usize).clamp(1, 8)..]);
    if !unsigned {
        out[at] ^= 0x80;
    }
}

fn get_int(b: &[u8], unsigned: bool) -> i64 {
    let mut v = 0u64;
    for byte in b {
        v = v << 8 | u64::from(*byte);
    }
    if unsigned {
        return v as i64;
    }
    let bits = 64 - 8 * b.len() as u32;
    let flipped = v ^ 1 << (8 * b.len() - 1);
    ((flipped << bits) as i64) >> bits
}

fn take<'a>(key: &mut &'a [u8], n: usize) -> Result<&'a [u8]> {
    let (head, rest) = key.split_at_checked(n).ok_or(FormatError::Damaged("key is cut short"))?;
    *key = rest;
    Ok(head)
}

/// Escapes `out[at..]` in place and closes it.
fn escape_from(out: &mut Vec<u8>, at: usize) {
    if out[at..].contains(&0) {
        let raw = out.split_off(at);
        for byte in raw {
            out.push(byte);
            if byte == 0 {
                out.push(0xff);
            }
        }
    }
    out.extend_from_slice(&[0, 1]);
}

fn closed_at(key: &[u8]) -> Result<usize> {
    let mut at = 0;
    while let Some(zero) = key.get(at..).and_then(|rest| rest.iter().position(|b| *b == 0)) {
        match key.get(at + zero + 1) {
            Some(1) => return Ok(at + zero),
            Some(0xff) => at += zero + 2,
            _ => return Err(FormatError::Damaged("bad escape in a key")),
        }
    }
    Err(FormatError::Damaged("key column is not closed"))
}

fn unescape(b: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(b.len());
    let mut skip = false;
    for byte in b {
        if skip {
            skip = false;
            continue;
        }
        out.push(*byte);
        skip = *byte == 0;
    }
    out
}

/// The first `n` characters of UTF-8 text; damaged text counts bytes.
fn first_chars(text: &[u8], n: usize) -> &[u8] {
    let starts = text.iter().enumerate().filter(|(_, b)| **b & 0xc0 != 0x80);
    match starts.map(|(i, _)| i).nth(n) {
        Some(end) => &text[..end],
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use std::cmp::Ordering;

    use proptest::prelude::*;

    use super::*;
    use crate::sql::{collation::Collation, decimal::Decimal};

    const ZONE: ZoneOffset = ZoneOffset(0);

    fn part(kind: Kind, nullable: bool) -> KeyPart {
        KeyPart { column: 0, kind, nullable, prefix: None }
    }

    fn key(part: &KeyPart, value: &Value) -> Vec<u8> {
        let mut out = Vec::new();
        part.encode(value, ZONE, &mut out).unwrap();
        out
    }

    /// Order of keys is order of values, and a reversible key gives its value back.
    fn check(kind: Kind, a: &Value, b: &Value, expected: Ordering) {
        for nullable in [false, true] {
            let part = part(kind, nullable);
            assert_eq!(key(&part, a).cmp(&key(&part, b)), expected, "{a:?} and {b:?}");
            if part.is_reversible() {
                let bytes = key(&part, a);
                let mut rest = &bytes[..];
                assert_eq!(part.decode(&mut rest, ZONE).unwrap(), *a);
                assert!(rest.is_empty());
            }
            let bytes = [key(&part, a), vec![9]].concat();
            let mut rest = &bytes[..];
            part.skip(&mut rest).unwrap();
            assert_eq!(rest, [9]);
        }
    }

    #[test]
    fn golden_bytes() {
        let mut out = Vec::new();
        put_ids(7, 2, &mut out);
        part(Kind::Int { width: 4, unsigned: false }, true).encode(&Value::Int(-1), ZONE, &mut out).unwrap();
        part(Kind::Binary, false).encode(&Value::Bin("a\0".into()), ZONE, &mut out).unwrap();
        part(Kind::Date, true).encode(&Value::Null, ZONE, &mut out).unwrap();
        let expected: &[u8] = &[0, 0, 0, 7, 0, 2, 1, 0x7f, 0xff, 0xff, 0xff, b'a', 0, 0xff, 0, 1, 0];
        assert_eq!(out, expected);
    }

    #[test]
    fn null_comes_first() {
        let part = part(Kind::Int { width: 8, unsigned: false }, true);
        assert!(key(&part, &Value::Null) < key(&part, &Value::Int(i64::MIN)));
    }

    #[test]
    fn text_follows_its_collation() {
        let kind = Kind::Text { collation: Collation::from_name("utf8mb4_0900_ai_ci").unwrap() };
        check(kind, &Value::from("a"), &Value::from("A"), Ordering::Equal);
        check(kind, &Value::from("é"), &Value::from("f"), Ordering::Less);
        check(kind, &Value::from("b"), &Value::from("A"), Ordering::Greater);
    }

    #[test]
    fn a_prefix_counts_characters() {
        let collation = Collation::from_name("utf8mb4_bin").unwrap();
        let cut = KeyPart { prefix: Some(2), ..part(Kind::Text { collation }, false) };
        assert_eq!(key(&cut, &Value::from("éab")), key(&cut, &Value::from("éaz")));
        assert_ne!(key(&cut, &Value::from("éa")), key(&cut, &Value::from("éb")));
    }

    #[test]
    fn the_end_of_a_prefix_is_tight() {
        assert_eq!(prefix_end(&[1, 0xff, 0xff]), Some(vec![2]));
        assert_eq!(prefix_end(&[0xff]), None);
        assert_eq!(prefix_end(&[1, 2]), Some(vec![1, 3]));
    }

    proptest! {
        #[test]
        fn integers(a: i32, b: i32) {
            check(Kind::Int { width: 4, unsigned: false }, &Value::Int(a.into()), &Value::Int(b.into()), a.cmp(&b));
        }

        #[test]
        fn unsigned(a: u64, b: u64) {
            check(Kind::Int { width: 8, unsigned: true }, &Value::UInt(a), &Value::UInt(b), a.cmp(&b));
        }

        #[test]
        fn doubles(a in -1e300f64..1e300, b in -1e300f64..1e300) {
            check(Kind::Double, &Value::Double(a), &Value::Double(b), a.partial_cmp(&b).unwrap());
        }

        #[test]
        fn decimals(a in -99_999_999i128..99_999_999, b in -99_999_999i128..99_999_999, wide: bool) {
            let kind = Kind::Decimal { precision: if wide { 40 } else { 8 }, scale: 3 };
            let value = |n| Value::Decimal(Decimal::new(n, 3));
            check(kind, &value(a), &value(b), a.cmp(&b));
        }

        #[test]
        fn bytes(a: Vec<u8>, b: Vec<u8>) {
            check(Kind::Binary, &Value::Bin(a.clone().into()), &Value::Bin(b.clone().into()), a.cmp(&b));
        }

        #[test]
        fn tuples(a: (Vec<u8>, i16), b: (Vec<u8>, i16)) {
            let both = |v: &(Vec<u8>, i16)| {
                let int = Kind::Int { width: 2, unsigned: false };
                [key(&part(Kind::Binary, false), &Value::Bin(v.0.clone().into())), key(&part(int, false), &Value::Int(v.1.into()))].concat()
            };
            prop_assert_eq!(both(&a).cmp(&both(&b)), a.cmp(&b));
        }

        #[test]
        fn garbage_never_panics(bytes: Vec<u8>) {
            for kind in [Kind::Binary, Kind::Date, Kind::Double, Kind::Decimal { precision: 65, scale: 0 }] {
                let part = part(kind, true);
                let _ = part.decode(&mut &bytes[..], ZONE);
                let _ = part.skip(&mut &bytes[..]);
            }
        }
    }
}
