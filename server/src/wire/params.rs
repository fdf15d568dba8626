//! Parameters of COM_STMT_EXECUTE: the NULL bitmap, types that are sent once, and values sent ahead as long data.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::{
    codec::{Malformed, Reader},
    consts::ty,
};
use crate::sql::value::{Date, DateTime, Decimal, Time, Value};

/// 838:59:59, the largest TIME.
const TIME_MAX_MICROS: i64 = (838 * 3600 + 59 * 60 + 59) * 1_000_000;

/// Type of a parameter as the client bound it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParamType {
    /// MYSQL_TYPE_*.
    pub type_byte: u8,
    /// The client's integer has no sign.
    pub unsigned: bool,
}

/// All that a [`Bound`] holds, for a session that moves to another node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BoundParts {
    /// Types of the last execution that sent them.
    pub types: Vec<ParamType>,
    /// Data sent ahead, by parameter number.
    pub long_data: Vec<(u16, Vec<u8>)>,
    /// The next execution must fail.
    pub overflow: bool,
}

impl BoundParts {
    /// Whether there is nothing to remember.
    pub fn is_empty(&self) -> bool {
        self.types.is_empty() && self.long_data.is_empty() && !self.overflow
    }
}

impl From<BoundParts> for Bound {
    fn from(parts: BoundParts) -> Self {
        let long_bytes = parts.long_data.iter().map(|(_, data)| data.len()).sum();
        let long_data = parts.long_data.into_iter().collect();
        Self { types: parts.types, long_data, long_bytes, overflow: parts.overflow }
    }
}

/// What the connection remembers of a prepared statement between commands.
#[derive(Debug, Default)]
pub struct Bound {
    /// Types of the last execution that sent them.
    types: Vec<ParamType>,
    /// Data sent ahead, by parameter number.
    long_data: BTreeMap<u16, Vec<u8>>,
    /// Bytes in `long_data`.
    long_bytes: usize,
    /// Long data went over the limit: the next execution must fail.
    overflow: bool,
}

impl Bound {
    /// COM_STMT_SEND_LONG_DATA has no answer, so an overflow is told by the next execution.
    pub fn append(&mut self, param: u16, data: &[u8], limit: usize) {
        if self.overflow || self.long_bytes + data.len() > limit {
            self.overflow = true;
            self.long_data.clear();
            self.long_bytes = 0;
            return;
        }
        self.long_bytes += data.len();
        self.long_data.entry(param).or_default().extend_from_slice(data);
    }
    /// All that is held.
    pub fn parts(&self) -> BoundParts {
        let long_data = self.long_data.iter().map(|(param, data)| (*param, data.clone())).collect();
        BoundParts { types: self.types.clone(), long_data, overflow: self.overflow }
    }
    /// Bytes held of data sent ahead.
    pub fn long_bytes(&self) -> usize {
        self.long_bytes
    }
    /// Whether data sent ahead went over its limit.
    pub fn overflowed(&self) -> bool {
        self.overflow
    }
    /// COM_STMT_RESET, and the end of every execution: long data is used once. Types stay.
    pub fn clear_long_data(&mut self) {
        self.long_data.clear();
        self.long_bytes = 0;
        self.overflow = false;
    }

    /// Decodes an execution's `count` parameters into `out`, which is cleared first.
    pub fn decode(&mut self, body: &[u8], count: usize, out: &mut Vec<Value>) -> Result<(), Malformed> {
        out.clear();
        if count == 0 {
            return Ok(());
        }
        let mut r = Reader::new(body);
        let nulls = r.bytes(count.div_ceil(8), "NULL bitmap")?;
        if r.u8("new-parameters flag")? != 0 {
            let bytes = r.bytes(count * 2, "parameter types")?;
            let (pairs, _) = bytes.as_chunks::<2>();
            self.types.clear();
            self.types.extend(pairs.iter().map(|[t, f]| ParamType { type_byte: *t, unsigned: f & 0x80 != 0 }));
        }
        if self.types.len() != count {
            return Err(Malformed("parameter types were never sent"));
        }
        for (i, param_type) in self.types.iter().enumerate() {
            let long = u16::try_from(i).ok().and_then(|i| self.long_data.remove(&i));
            let null = nulls.get(i / 8).is_some_and(|byte| byte >> (i % 8) & 1 == 1);
            out.push(match long {
                Some(data) => string(*param_type, data.into()),
                None if null => Value::Null,
                None => value(&mut r, *param_type)?,
            });
        }
        Ok(())
    }
}

fn value(r: &mut Reader<'_>, of: ParamType) -> Result<Value, Malformed> {
    const WHAT: &str = "parameter value";
    Ok(match of.type_byte {
        ty::NULL => Value::Null,
        ty::TINY if of.unsigned => Value::UInt(r.u8(WHAT)?.into()),
        ty::TINY => Value::Int((r.u8(WHAT)? as i8).into()),
        ty::SHORT | ty::YEAR if of.unsigned => Value::UInt(r.u16(WHAT)?.into()),
        ty::SHORT | ty::YEAR => Value::Int((r.u16(WHAT)? as i16).into()),
        ty::LONG | ty::INT24 if of.unsigned => Value::UInt(r.u32(WHAT)?.into()),
        ty::LONG | ty::INT24 => Value::Int((r.u32(WHAT)? as i32).into()),
        ty::LONGLONG if of.unsigned => Value::UInt(r.u64(WHAT)?),
        ty::LONGLONG => Value::Int(r.u64(WHAT)? as i64),
        ty::FLOAT => Value::Float(f32::from_bits(r.u32(WHAT)?)),
        ty::DOUBLE => Value::Double(f64::from_bits(r.u64(WHAT)?)),
        ty::DECIMAL | ty::NEWDECIMAL => {
            let text = r.lenenc_bytes(WHAT)?;
            Value::Decimal(Decimal::parse(text).ok_or(Malformed("decimal parameter"))?)
        }
        ty::DATE | ty::NEWDATE => Value::Date(datetime(r)?.date),
        ty::DATETIME | ty::TIMESTAMP => Value::DateTime(datetime(r)?),
        ty::TIME => Value::Time(time(r)?),
        ty::VARCHAR | ty::BIT | ty::JSON..=ty::STRING => string(of, Bytes::copy_from_slice(r.lenenc_bytes(WHAT)?)),
        _ => return Err(Malformed("parameter type")),
    })
}

/// Blob types carry bytes, the others text in the connection's character set.
fn string(of: ParamType, data: Bytes) -> Value {
    match of.type_byte {
        ty::TINY_BLOB | ty::MEDIUM_BLOB | ty::LONG_BLOB | ty::BLOB | ty::BIT => Value::Bin(data),
        _ => Value::Str(data),
    }
}

fn datetime(r: &mut Reader<'_>) -> Result<DateTime, Malformed> {
    const WHAT: &str = "date parameter";
    let len = r.u8(WHAT)?;
    if !matches!(len, 0 | 4 | 7 | 11) {
        return Err(Malformed(WHAT));
    }
    let mut at = DateTime { date: Date { year: 0, month: 0, day: 0 }, hour: 0, minute: 0, second: 0, micros: 0 };
    if len >= 4 {
        at.date = Date { year: r.u16(WHAT)?, month: r.u8(WHAT)?, day: r.u8(WHAT)? };
    }
    if len >= 7 {
        (at.hour, at.minute, at.second) = (r.u8(WHAT)?, r.u8(WHAT)?, r.u8(WHAT)?);
    }
    if len == 11 {
        at.micros = r.u32(WHAT)?;
    }
    let date = at.date.year <= 9999 && at.date.month <= 12 && at.date.day <= 31;
    let clock = at.hour <= 23 && at.minute <= 59 && at.second <= 59 && at.micros <= 999_999;
    if date && clock { Ok(at) } else { Err(Malformed(WHAT)) }
}

fn time(r: &mut Reader<'_>) -> Result<Time, Malformed> {
    const WHAT: &str = "time parameter";
    let len = r.u8(WHAT)?;
    if !matches!(len, 0 | 8 | 12) {
        return Err(Malformed(WHAT));
    }
    if len == 0 {
        return Ok(Time { micros: 0 });
    }
    let negative = r.u8(WHAT)? != 0;
    let days = i64::from(r.u32(WHAT)?);
    let (hours, minutes, seconds) = (r.u8(WHAT)?, r.u8(WHAT)?, r.u8(WHAT)?);
    let micros = if len == 12 { r.u32(WHAT)? } else { 0 };
    if hours > 23 || minutes > 59 || seconds > 59 || micros > 999_999 {
        return Err(Malformed(WHAT));
    }
    let seconds = ((days * 24 + i64::from(hours)) * 60 + i64::from(minutes)) * 60 + i64::from(seconds);
    let micros = seconds.saturating_mul(1_000_000).saturating_add(micros.into()).min(TIME_MAX_MICROS);
    Ok(Time { micros: if negative { -micros } else { micros } })
}

#[cfg(test)]
mod tests {
    use mysql_common::{Value as Oracle, packets::ComStmtExecuteRequestBuilder};
    use proptest::prelude::*;

    use super::*;

    /// Lets the oracle encode an execution; returns what follows the iteration count.
    fn encoded(values: &[Oracle]) -> Vec<u8> {
        let (request, _) = ComStmtExecuteRequestBuilder::new(1).build(values);
        let mut bytes = Vec::new();
        mysql_common::proto::MySerialize::serialize(&request, &mut bytes);
        bytes.split_off(10)
    }

    fn decode(values: &[Oracle]) -> Vec<Value> {
        let mut out = Vec::new();
        Bound::default().decode(&encoded(values), values.len(), &mut out).unwrap();
        out
    }

    #[test]
    fn the_oracles_parameters_are_understood() {
        let at = DateTime { date: Date { year: 2024, month: 2, day: 29 }, hour: 1, minute: 2, second: 3, micros: 4 };
        let decoded = decode(&[
            Oracle::NULL,
            Oracle::Int(-5),
            Oracle::UInt(u64::MAX),
            Oracle::Float(1.5),
            Oracle::Double(-2.5),
            Oracle::Bytes(b"text".to_vec()),
            Oracle::Date(2024, 2, 29, 1, 2, 3, 4),
            Oracle::Time(true, 1, 2, 3, 4, 5),
        ]);
        let micros = -((26 * 3600 + 3 * 60 + 4) * 1_000_000i64 + 5);
        let expected = [
            Value::Null,
            Value::Int(-5),
            Value::UInt(u64::MAX),
            Value::Float(1.5),
            Value::Double(-2.5),
            Value::Str(Bytes::from_static(b"text")),
            Value::DateTime(at),
            Value::Time(Time { micros }),
        ];
        assert_eq!(decoded, expected);
    }

    #[test]
    fn types_are_remembered_and_required() {
        let mut bound = Bound::default();
        let mut out = Vec::new();
        assert!(bound.decode(&[0, 0, 5], 1, &mut out).is_err(), "no types yet");
        bound.decode(&[0, 1, ty::TINY, 0, 5], 1, &mut out).unwrap();
        bound.decode(&[0, 0, 6], 1, &mut out).unwrap();
        assert_eq!(out, [Value::Int(6)]);
    }

    #[test]
    fn long_data_replaces_the_value_once_and_is_bounded() {
        let mut bound = Bound::default();
        let mut out = Vec::new();
        bound.append(0, b"ab", 4);
        bound.append(0, b"cd", 4);
        bound.decode(&[0, 1, ty::BLOB, 0], 1, &mut out).unwrap();
        assert_eq!(out, [Value::Bin(Bytes::from_static(b"abcd"))]);
        bound.clear_long_data();
        bound.append(0, b"abcde", 4);
        assert!(bound.overflowed());
        assert_eq!(bound.long_bytes(), 0);
    }

    proptest! {
        #[test]
        fn garbage_is_malformed_not_a_panic(body in prop::collection::vec(any::<u8>(), 0..100), count in 0usize..70) {
            let mut bound = Bound::default();
            let mut out = Vec::new();
            let _ = bound.decode(&body, count, &mut out);
            let _ = bound.decode(&body, count, &mut out);
        }

        #[test]
        fn every_type_byte_is_read_or_refused(type_byte: u8, flags: u8, data in prop::collection::vec(any::<u8>(), 0..20)) {
            let mut body = vec![0, 1, type_byte, flags];
            body.extend(data);
            let _ = Bound::default().decode(&body, 1, &mut Vec::new());
        }
    }
}
