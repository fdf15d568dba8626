//! FORMAT: the stored row, and the storage kinds that rows and index keys share.
//!
//! ```text
//! offset            size        field
//! 0                 1           format version (1)
//! 1                 1           flags: bit 0 = variable offsets are u32 instead of u16
//! 2                 2  LE       n = number of columns in this row (a prefix of the table's columns)
//! 4                 (n + 7)/8   null bitmap, bit i of byte i/8 = column i is NULL
//! ...               sum         fixed columns in column order, each at a constant offset; zero when NULL
//! ...               v * 2 | 4   end offset of each variable column, relative to the start of the data, LE
//! ...               sum         variable data in column order
//! ```
//!
//! Fixed encodings: integers little-endian two's complement; FLOAT/DOUBLE IEEE bits little-endian; DECIMAL(p,s) the
//! unscaled integer, big-endian, sign bit flipped, [`decimal_width`] bytes; DATE `year << 9 | month << 5 | day` (u32);
//! TIME signed microseconds (i64); DATETIME [`pack_datetime`] (u64); TIMESTAMP microseconds since 1970 in UTC (i64).
//! Variable encodings: the bytes themselves. A column past `n` was added after the row was written: its value is the
//! column's instant default. A newer version byte is refused by name. Pages carry the checksum.

use bytes::Bytes;

use crate::sql::{
    collation::Collation,
    value::{Time, Value},
};

pub use self::pack::{
    get_decimal, pack_date, pack_datetime, put_decimal, timestamp_datetime, timestamp_micros, unpack_date,
    unpack_datetime,
};

mod pack;

/// The version this build writes, and the newest that it reads.
pub const VERSION: u8 = 1;
const FLAG_WIDE: u8 = 1;
const HEADER: usize = 4;

/// How a column is stored, in rows and in keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `width` is 1, 2, 4 or 8 bytes (MEDIUMINT takes 4).
    Int {
        width: u8,
        unsigned: bool,
    },
    Float,
    Double,
    Decimal {
        precision: u8,
        scale: u8,
    },
    Date,
    Time,
    DateTime,
    /// Microseconds in UTC; shown in the session's time zone.
    Timestamp,
    /// Text compared by a collation.
    Text {
        collation: Collation,
    },
    Binary,
    Json,
}

/// A stored row or key that does not decode: the reason, for the error that names table and key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    #[error("stored row has format version {0}, newer than this build's {VERSION}")]
    Newer(u8),
    #[error("stored row is damaged: {0}")]
    Damaged(&'static str),
    #[error("stored row can't hold this value: {0}")]
    Value(&'static str),
}
type Result<T> = std::result::Result<T, FormatError>;

impl Kind {
    /// Bytes in the fixed area, or `None` for a variable column.
    pub fn fixed_width(self) -> Option<usize> {
        Some(match self {
            Self::Int { width, .. } => width as usize,
            Self::Float | Self::Date => 4,
            Self::Double | Self::Time | Self::DateTime | Self::Timestamp => 8,
            Self::Decimal { precision, .. } => decimal_width(precision),
            Self::Text { .. } | Self::Binary | Self::Json => return None,
        })
    }
}

/// Bytes of a DECIMAL's unscaled integer: 8 up to 18 digits, 16 up to 38, 28 up to 65.
pub fn decimal_width(precision: u8) -> usize {
    match precision {
        0..=18 => 8,
        19..=38 => 16,
        _ => 28,
    }
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    kind: Kind,
    /// Fixed: offset in the fixed area. Variable: ordinal among the variable columns.
    at: u32,
}

/// Where each column of a table lies. Built once per table version.
#[derive(Clone, Debug, Default)]
pub struct Layout {
    slots: Vec<Slot>,
    /// Value of each column in rows that were written before the column existed.
    instant: Vec<Value>,
    /// Fixed bytes and number of variable columns of the first i columns.
    prefix: Vec<(u32, u32)>,
}

impl Layout {
    pub fn new(columns: impl IntoIterator<Item = (Kind, Value)>) -> Self {
        let mut layout = Self { prefix: vec![(0, 0)], ..Self::default() };
        let (mut fixed, mut vars) = (0, 0);
        for (kind, instant) in columns {
            let at = match kind.fixed_width() {
                Some(width) => {
                    let at = fixed;
                    fixed += width as u32;
                    at
                }
                None => {
                    vars += 1;
                    vars - 1
                }
            };
            layout.slots.push(Slot { kind, at });
            layout.instant.push(instant);
            layout.prefix.push((fixed, vars));
        }
        layout
    }

    pub fn len(&self) -> usize {
        self.slots.len()
    }

    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    pub fn kind(&self, column: usize) -> Kind {
        self.slots[column].kind
    }

    /// Encodes one value per column, already converted to the column types; `offset` is the session's time zone.
    pub fn encode(&self, values: &[Value], offset: ZoneOffset) -> Result<Vec<u8>> {
        if values.len() != self.slots.len() {
            return Err(FormatError::Value("wrong number of columns"));
        }
        let n = self.slots.len();
        let bitmap = n.div_ceil(8);
        let (fixed, vars) = self.prefix[n];
        let data_len: usize = values.iter().map(var_len).sum();
        let wide = data_len > u16::MAX as usize;
        let entry = if wide { 4 } else { 2 };
        let fixed_at = HEADER + bitmap;
        let ends_at = fixed_at + fixed as usize;
        let mut out = Vec::with_capacity(ends_at + vars as usize * entry + data_len);
        out.extend_from_slice(&[VERSION, if wide { FLAG_WIDE } else { 0 }]);
        out.extend_from_slice(&(n as u16).to_le_bytes());
        out.resize(ends_at + vars as usize * entry, 0);
        let mut end = 0usize;
        for (i, (slot, value)) in self.slots.iter().zip(values).enumerate() {
            if matches!(value, Value::Null) {
                out[HEADER + i / 8] |= 1 << (i % 8);
            }
            match slot.kind.fixed_width() {
                Some(width) => {
                    let at = fixed_at + slot.at as usize;
                    put_fixed(slot.kind, value, offset, &mut out[at..at + width])?;
                }
                None => {
                    if let Some(bytes) = var_bytes(value)? {
                        out.extend_from_slice(bytes);
                        end += bytes.len();
                    }
                    let at = ends_at + slot.at as usize * entry;
                    out[at..at + entry].copy_from_slice(&(end as u32).to_le_bytes()[..entry]);
                }
            }
        }
        Ok(out)
    }

    /// Opens a stored row for reading single columns.
    pub fn read<'a>(&'a self, bytes: &'a Bytes) -> Result<RowRef<'a>> {
        let head: &[u8; HEADER] = bytes.first_chunk().ok_or(FormatError::Damaged("shorter than its header"))?;
        if head[0] != VERSION {
            return Err(if head[0] > VERSION {
                FormatError::Newer(head[0])
            } else {
                FormatError::Damaged("version 0")
            });
        }
        let n = u16::from_le_bytes([head[2], head[3]]) as usize;
        if n > self.slots.len() {
            return Err(FormatError::Damaged("more columns than the table has"));
        }
        let (fixed, vars) = self.prefix[n];
        let fixed_at = HEADER + n.div_ceil(8);
        let ends_at = fixed_at + fixed as usize;
        let wide = head[1] & FLAG_WIDE != 0;
        let data_at = ends_at + vars as usize * if wide { 4 } else { 2 };
        if bytes.len() < data_at {
            return Err(FormatError::Damaged("shorter than its fixed part"));
        }
        Ok(RowRef { layout: self, bytes, n, fixed_at, ends_at, data_at, wide })
    }
}

/// One stored row; columns decode on demand.
#[derive(Clone, Copy)]
pub struct RowRef<'a> {
    layout: &'a Layout,
    bytes: &'a Bytes,
    n: usize,
    fixed_at: usize,
    ends_at: usize,
    data_at: usize,
    wide: bool,
}

impl RowRef<'_> {
    /// Decodes one column. `offset` is the session's time zone, for TIMESTAMP.
    pub fn get(&self, column: usize, offset: ZoneOffset) -> Result<Value> {
        if column >= self.n {
            return Ok(self.layout.instant[column].clone());
        }
        if self.bytes[HEADER + column / 8] & (1 << (column % 8)) != 0 {
            return Ok(Value::Null);
        }
        let slot = self.layout.slots[column];
        match slot.kind.fixed_width() {
            Some(width) => {
                let at = self.fixed_at + slot.at as usize;
                get_fixed(slot.kind, &self.bytes[at..at + width], offset)
            }
            None => {
                let start = if slot.at == 0 { 0 } else { self.end_of(slot.at as usize - 1) };
                let (start, end) = (self.data_at + start, self.data_at + self.end_of(slot.at as usize));
                if start > end || end > self.bytes.len() {
                    return Err(FormatError::Damaged("variable column outside the row"));
                }
                let data = self.bytes.slice(start..end);
                Ok(match slot.kind {
                    Kind::Text { .. } => Value::Str(data),
                    Kind::Json => Value::Json(data),
                    _ => Value::Bin(data),
                })
            }
        }
    }

    fn end_of(&self, var: usize) -> usize {
        if self.wide {
            let at = self.ends_at + var * 4;
            u32::from_le_bytes([self.bytes[at], self.bytes[at + 1], self.bytes[at + 2], self.bytes[at + 3]]) as usize
        } else {
            let at = self.ends_at + var * 2;
            u16::from_le_bytes([self.bytes[at], self.bytes[at + 1]]) as usize
        }
    }
}

/// Seconds east of UTC, for TIMESTAMP columns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ZoneOffset(pub i32);

fn var_len(value: &Value) -> usize {
    match value {
        Value::Str(b) | Value::Bin(b) | Value::Json(b) => b.len(),
        _ => 0,
    }
}

fn var_bytes(value: &Value) -> Result<Option<&[u8]>> {
    match value {
        Value::Null => Ok(None),
        Value::Str(b) | Value::Bin(b) | Value::Json(b) => Ok(Some(b)),
        _ => Err(FormatError::Value("not a string")),
    }
}

fn put_fixed(kind: Kind, value: &Value, offset: ZoneOffset, out: &mut [u8]) -> Result<()> {
    if matches!(value, Value::Null) {
        return Ok(());
    }
    let width = out.len();
    match (kind, value) {
        (Kind::Int { .. }, Value::Int(v)) => out.copy_from_slice(&v.to_le_bytes()[..width]),
        (Kind::Int { .. }, Value::UInt(v)) => out.copy_from_slice(&v.to_le_bytes()[..width]),
        (Kind::Float, Value::Float(v)) => out.copy_from_slice(&v.to_le_bytes()),
        (Kind::Double, Value::Double(v)) => out.copy_from_slice(&v.to_le_bytes()),
        (Kind::Decimal { scale, .. }, Value::Decimal(v)) => put_decimal(v, scale, out)?,
        (Kind::Date, Value::Date(v)) => out.copy_from_slice(&pack_date(*v).to_le_bytes()),
        (Kind::Time, Value::Time(v)) => out.copy_from_slice(&v.micros.to_le_bytes()),
        (Kind::DateTime, Value::DateTime(v)) => out.copy_from_slice(&pack_datetime(v).to_le_bytes()),
        (Kind::Timestamp, Value::DateTime(v)) => out.copy_from_slice(&timestamp_micros(v, offset).to_le_bytes()),
        _ => return Err(FormatError::Value("type differs from the column's")),
    }
    Ok(())
}

fn get_fixed(kind: Kind, b: &[u8], offset: ZoneOffset) -> Result<Value> {
    fn le<const N: usize>(b: &[u8]) -> Result<[u8; N]> {
        b.try_into().map_err(|_| FormatError::Damaged("fixed column has the wrong width"))
    }
    Ok(match kind {
        Kind::Int { width: 1, unsigned: false } => Value::Int(i8::from_le_bytes(le(b)?).into()),
        Kind::Int { width: 1, .. } => Value::UInt(u8::from_le_bytes(le(b)?).into()),
        Kind::Int { width: 2, unsigned: false } => Value::Int(i16::from_le_bytes(le(b)?).into()),
        Kind::Int { width: 2, .. } => Value::UInt(u16::from_le_bytes(le(b)?).into()),
        Kind::Int { width: 4, unsigned: false } => Value::Int(i32::from_le_bytes(le(b)?).into()),
        Kind::Int { width: 4, .. } => Value::UInt(u32::from_le_bytes(le(b)?).into()),
        Kind::Int { unsigned: false, .. } => Value::Int(i64::from_le_bytes(le(b)?)),
        Kind::Int { .. } => Value::UInt(u64::from_le_bytes(le(b)?)),
        Kind::Float => Value::Float(f32::from_le_bytes(le(b)?)),
        Kind::Double => Value::Double(f64::from_le_bytes(le(b)?)),
        Kind::Decimal { scale, .. } => Value::Decimal(get_decimal(b, scale)),
        Kind::Date => Value::Date(unpack_date(u32::from_le_bytes(le(b)?))),
        Kind::Time => Value::Time(Time { micros: i64::from_le_bytes(le(b)?) }),
        Kind::DateTime => Value::DateTime(unpack_datetime(u64::from_le_bytes(le(b)?))),
        Kind::Timestamp => Value::DateTime(timestamp_datetime(i64::from_le_bytes(le(b)?), offset)),
        Kind::Text { .. } | Kind::Binary | Kind::Json => return Err(FormatError::Damaged("not a fixed column")),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::sql::decimal::Decimal;

    fn layout(kinds: &[Kind]) -> Layout {
        Layout::new(kinds.iter().map(|k| (*k, Value::Null)))
    }

    fn decoded(layout: &Layout, row: Vec<u8>) -> Vec<Value> {
        let bytes = row.into();
        let row = layout.read(&bytes).unwrap();
        (0..layout.len()).map(|c| row.get(c, ZoneOffset(0)).unwrap()).collect()
    }

    #[test]
    fn golden_bytes() {
        let kinds = [
            Kind::Int { width: 4, unsigned: false },
            Kind::Text { collation: Collation::default() },
            Kind::Int { width: 1, unsigned: true },
            Kind::Decimal { precision: 5, scale: 2 },
            Kind::Binary,
        ];
        let values = [
            Value::Int(-2),
            Value::from("ab"),
            Value::Null,
            Value::Decimal(Decimal::new(-150, 2)),
            Value::Bin(Bytes::from_static(b"\x00\xff")),
        ];
        let row = layout(&kinds).encode(&values, ZoneOffset(0)).unwrap();
        let expected: &[u8] = &[
            1, 0, 5, 0,     // version, flags, columns
            0b100, // the third column is NULL
            0xfe, 0xff, 0xff, 0xff, // -2
            0,    // NULL
            0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x6a, // -150, sign flipped
            2, 0, 4, 0, // ends
            b'a', b'b', 0, 0xff,
        ];
        assert_eq!(row, expected);
        assert_eq!(decoded(&layout(&kinds), row), values);
    }

    #[test]
    fn a_newer_version_is_named() {
        let kinds = [Kind::Date];
        let bytes = Bytes::from_static(&[9, 0, 1, 0, 0, 0, 0, 0, 0]);
        assert_eq!(layout(&kinds).read(&bytes).err(), Some(FormatError::Newer(9)));
    }

    #[test]
    fn a_column_added_later_has_its_instant_value() {
        let int = Kind::Int { width: 4, unsigned: false };
        let old = layout(&[int]).encode(&[Value::Int(1)], ZoneOffset(0)).unwrap();
        let new = Layout::new([(int, Value::Null), (Kind::Binary, Value::Bin("d".into())), (int, Value::Int(7))]);
        assert_eq!(decoded(&new, old), [Value::Int(1), Value::Bin("d".into()), Value::Int(7)]);
    }

    #[test]
    fn timestamps_are_stored_in_utc() {
        let layout = layout(&[Kind::Timestamp]);
        let noon = unpack_datetime(pack_datetime(&crate::sql::value::DateTime {
            date: crate::sql::value::Date { year: 2024, month: 3, day: 1 },
            hour: 0,
            minute: 30,
            second: 0,
            micros: 5,
        }));
        let bytes = layout.encode(&[Value::DateTime(noon)], ZoneOffset(3600)).unwrap().into();
        let row = layout.read(&bytes).unwrap();
        assert_eq!(row.get(0, ZoneOffset(3600)).unwrap(), Value::DateTime(noon));
        let Value::DateTime(utc) = row.get(0, ZoneOffset(0)).unwrap() else { panic!() };
        assert_eq!((utc.date.month, utc.date.day, utc.hour, utc.minute), (2, 29, 23, 30));
    }

    #[test]
    fn wide_rows_have_wide_offsets() {
        let kinds = [Kind::Binary, Kind::Binary];
        let values = [Value::Bin(vec![7; 70_000].into()), Value::Bin("x".into())];
        let row = layout(&kinds).encode(&values, ZoneOffset(0)).unwrap();
        assert_eq!(decoded(&layout(&kinds), row), values);
    }

    proptest! {
        #[test]
        fn rows_round_trip(a: Option<i64>, b: Option<u16>, c: Option<Vec<u8>>, d: Option<String>, e: Option<i32>) {
            let kinds = [
                Kind::Int { width: 8, unsigned: false },
                Kind::Int { width: 2, unsigned: true },
                Kind::Binary,
                Kind::Text { collation: Collation::default() },
                Kind::Time,
            ];
            let values = [
                a.map_or(Value::Null, Value::Int),
                b.map_or(Value::Null, |b| Value::UInt(b.into())),
                c.map_or(Value::Null, |c| Value::Bin(c.into())),
                d.map_or(Value::Null, Value::str),
                e.map_or(Value::Null, |e| Value::Time(Time { micros: e.into() })),
            ];
            let row = layout(&kinds).encode(&values, ZoneOffset(0)).unwrap();
            prop_assert_eq!(decoded(&layout(&kinds), row), values);
        }

        #[test]
        fn garbage_never_panics(bytes: Vec<u8>) {
            let layout = layout(&[Kind::Date, Kind::Binary, Kind::Decimal { precision: 65, scale: 30 }, Kind::Json]);
            let bytes = bytes.into();
            if let Ok(row) = layout.read(&bytes) {
                for column in 0..4 {
                    let _ = row.get(column, ZoneOffset(0));
                }
            }
        }

        #[test]
        fn dates_round_trip(days in -700_000i64..2_900_000) {
            let micros = days * 86_400_000_000 + 123;
            let shown = timestamp_datetime(micros, ZoneOffset(7200));
            prop_assume!((0..=9999).contains(&shown.date.year));
            prop_assert_eq!(timestamp_micros(&shown, ZoneOffset(7200)), micros);
        }
    }
}
