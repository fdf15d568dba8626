//! Owns the runtime value: what a column, parameter or expression holds.

use bytes::Bytes;

pub use super::decimal::Decimal;

/// A runtime value. `Str` is text in utf8mb4, `Bin` is a binary string.
///
/// Equality is structural, for tests and caches; SQL comparison is `sql::compare::compare`.
#[derive(Clone, Debug, PartialEq, Default)]
pub enum Value {
    /// SQL NULL.
    #[default]
    Null,
    /// Any signed integer type, and YEAR.
    Int(i64),
    /// Any unsigned integer type.
    UInt(u64),
    /// FLOAT.
    Float(f32),
    /// DOUBLE.
    Double(f64),
    /// DECIMAL; its scale travels with it.
    Decimal(Decimal),
    /// Text, valid UTF-8 unless a client stored otherwise.
    Str(Bytes),
    /// BINARY, VARBINARY, BLOB.
    Bin(Bytes),
    /// DATE, zero dates included.
    Date(Date),
    /// TIME.
    Time(Time),
    /// DATETIME, or TIMESTAMP in the session's time zone.
    DateTime(DateTime),
    /// JSON text, normalised as MySQL prints it.
    Json(Bytes),
}

/// Calendar day; month and day may be zero, as MySQL allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Date {
    /// 0 to 9999.
    pub year: u16,
    /// 0 to 12.
    pub month: u8,
    /// 0 to 31.
    pub day: u8,
}

/// Signed, up to 838:59:59.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Time {
    /// Microseconds, negative before zero.
    pub micros: i64,
}

/// Day and time of day, no zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct DateTime {
    /// The day.
    pub date: Date,
    /// 0 to 23.
    pub hour: u8,
    /// 0 to 59.
    pub minute: u8,
    /// 0 to 59.
    pub second: u8,
    /// 0 to 999999.
    pub micros: u32,
}

impl Value {
    /// A text value.
    pub fn str(text: impl Into<String>) -> Self {
        Self::Str(Bytes::from(text.into().into_bytes()))
    }

    /// MySQL's TRUE and FALSE.
    pub fn bool(truth: bool) -> Self {
        Self::Int(i64::from(truth))
    }

    /// Whether it is NULL.
    pub fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }

    /// Bytes of a string value, without conversion.
    pub fn as_bytes(&self) -> Option<&[u8]> {
        match self {
            Self::Str(bytes) | Self::Bin(bytes) | Self::Json(bytes) => Some(bytes),
            _ => None,
        }
    }

    /// Whether it is a date, time or datetime.
    pub fn is_temporal(&self) -> bool {
        matches!(self, Self::Date(_) | Self::Time(_) | Self::DateTime(_))
    }

    /// Whether it is an integer, decimal or floating number.
    pub fn is_number(&self) -> bool {
        matches!(self, Self::Int(_) | Self::UInt(_) | Self::Float(_) | Self::Double(_) | Self::Decimal(_))
    }
}

impl From<i64> for Value {
    fn from(value: i64) -> Self {
        Self::Int(value)
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Str(Bytes::copy_from_slice(text.as_bytes()))
    }
}
