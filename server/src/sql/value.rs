//! SKELETON. A MySQL value and its type. Owner: the SQL front.

use bytes::Bytes;

/// A runtime value. `Str` is text in utf8mb4, `Bin` is a binary string.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Null,
    Int(i64),
    UInt(u64),
    Float(f32),
    Double(f64),
    Decimal(bigdecimal::BigDecimal), // the SQL front may put a faster fixed type here
    Str(Bytes),
    Bin(Bytes),
    /// Days and time fields; see the SQL front for `Date`, `Time`, `DateTime`.
    Date(Date),
    Time(Time),
    DateTime(DateTime),
    Json(Bytes),
}
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Date {
    pub year: u16,
    pub month: u8,
    pub day: u8,
}
/// Signed, up to 838:59:59.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time {
    pub micros: i64,
}
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DateTime {
    pub date: Date,
    pub hour: u8,
    pub minute: u8,
    pub second: u8,
    pub micros: u32,
}
