//! Rows on the wire: every value in every column type, as text or binary.

use super::{
    codec::Put,
    consts::{NOT_FIXED_DECIMALS, flag, ty},
    packet::{begin_packet, end_packet},
    result::Column,
};
use crate::sql::value::{Date, DateTime, Time, Value};

/// What the encoding of a cell depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ColumnFormat {
    /// MYSQL_TYPE_*.
    pub type_byte: u8,
    /// Digits after the point; 31 = not fixed.
    pub decimals: u8,
    /// Binary integers have no sign.
    pub unsigned: bool,
}

impl ColumnFormat {
    /// Of a column as it is described to the client.
    pub fn of(column: &Column) -> Self {
        Self { type_byte: column.type_byte, decimals: column.decimals, unsigned: column.flags & flag::UNSIGNED != 0 }
    }
    fn is_integer(self) -> bool {
        matches!(self.type_byte, ty::TINY | ty::SHORT | ty::YEAR | ty::LONG | ty::INT24 | ty::LONGLONG)
    }
}

/// Writes one row into the connection's buffer, cell by cell in column order.
///
/// A value that the column's type cannot carry is a fault of the server; the sink turns it into an error for the client
/// instead of sending something else.
#[derive(Debug)]
pub struct RowWriter<'a> {
    buf: &'a mut Vec<u8>,
    seq: &'a mut u8,
    fault: &'a mut Option<String>,
    formats: &'a [ColumnFormat],
    binary: bool,
    start: usize,
    /// Cells written.
    index: usize,
}

impl<'a> RowWriter<'a> {
    pub(super) fn new(
        buf: &'a mut Vec<u8>,
        seq: &'a mut u8,
        fault: &'a mut Option<String>,
        formats: &'a [ColumnFormat],
        binary: bool,
    ) -> Self {
        let start = begin_packet(buf);
        if binary {
            buf.push(0);
            buf.resize(buf.len() + bitmap_len(formats.len()), 0);
        }
        Self { buf, seq, fault, formats, binary, start, index: 0 }
    }

    fn next(&mut self) -> ColumnFormat {
        let format = self.formats.get(self.index).copied();
        self.index += 1;
        format.unwrap_or_else(|| {
            self.fault.get_or_insert_with(|| format!("a row has more than its {} columns", self.formats.len()));
            ColumnFormat { type_byte: ty::VAR_STRING, decimals: 0, unsigned: false }
        })
    }

    /// SQL NULL.
    pub fn null(&mut self) {
        self.next();
        if self.binary {
            // The bitmap of result rows starts at bit 2.
            let bit = self.index - 1 + 2;
            if let Some(byte) = self.buf.get_mut(self.start + 5 + bit / 8) {
                *byte |= 1 << (bit % 8);
            }
        } else {
            self.buf.push(0xfb);
        }
    }

    /// A signed integer, for any numeric or text column.
    pub fn int(&mut self, n: i64) {
        let format = self.next();
        if self.binary {
            put_binary_int(self.buf, format, n.into(), self.fault);
        } else {
            put_text_int(self.buf, n < 0, n.unsigned_abs());
        }
    }

    /// An unsigned integer, for any numeric or text column.
    pub fn uint(&mut self, n: u64) {
        let format = self.next();
        if self.binary {
            put_binary_int(self.buf, format, n.into(), self.fault);
        } else {
            put_text_int(self.buf, false, n);
        }
    }

    /// Text, binary strings, JSON and decimals already in text form: anything that travels as a length and bytes.
    pub fn bytes(&mut self, text: &[u8]) {
        let format = self.next();
        if self.binary && is_fixed(format) {
            self.mismatch(format, "a string");
        }
        self.buf.put_lenenc_bytes(text);
    }

    /// Any value; see the type's remark on values that don't fit.
    pub fn value(&mut self, value: &Value) {
        match value {
            Value::Null => self.null(),
            Value::Int(n) => self.int(*n),
            Value::UInt(n) => self.uint(*n),
            Value::Str(text) | Value::Bin(text) | Value::Json(text) => self.bytes(text),
            Value::Float(n) => self.double(f64::from(*n), |format| float_text(*n, format.decimals)),
            Value::Double(n) => self.double(*n, |format| double_text(*n, format.decimals)),
            Value::Decimal(n) => {
                let format = self.next();
                let text = n.to_string();
                self.number(format, &text);
            }
            Value::Date(date) => {
                let format = self.next();
                self.date(format, *date);
            }
            Value::DateTime(at) => {
                let format = self.next();
                self.datetime(format, at);
            }
            Value::Time(time) => {
                let format = self.next();
                self.time(format, *time);
            }
        }
    }

    /// Closes the row's packet.
    pub fn finish(self) {
        if self.index != self.formats.len() {
            let (index, columns) = (self.index, self.formats.len());
            self.fault.get_or_insert_with(|| format!("a row has {index} values for {columns} columns"));
        }
        end_packet(self.buf, self.start, self.seq);
    }

    fn double(&mut self, n: f64, text: impl FnOnce(ColumnFormat) -> String) {
        let format = self.next();
        match format.type_byte {
            ty::DOUBLE if self.binary => self.buf.put_u64(n.to_bits()),
            ty::FLOAT if self.binary => self.buf.put_u32((n as f32).to_bits()),
            _ => {
                let text = text(format);
                self.number(format, &text);
            }
        }
    }

    /// A number in text form, in a column that may be binary and of another numeric type.
    fn number(&mut self, format: ColumnFormat, text: &str) {
        if !self.binary || !is_fixed(format) {
            self.buf.put_lenenc_bytes(text.as_bytes());
            return;
        }
        let n = text.parse::<f64>().ok();
        match (format.type_byte, n) {
            (ty::DOUBLE, Some(n)) => self.buf.put_u64(n.to_bits()),
            (ty::FLOAT, Some(n)) => self.buf.put_u32((n as f32).to_bits()),
            (_, Some(_)) if format.is_integer() && text.parse::<i128>().is_ok() => {
                put_binary_int(self.buf, format, text.parse().unwrap_or_default(), self.fault);
            }
            _ => self.mismatch(format, "a number"),
        }
    }

    fn date(&mut self, format: ColumnFormat, date: Date) {
        match format.type_byte {
            ty::DATE | ty::NEWDATE | ty::DATETIME | ty::TIMESTAMP if self.binary => {
                if date == ZERO_DATE {
                    self.buf.push(0);
                } else {
                    self.buf.push(4);
                    put_date_fields(self.buf, date);
                }
            }
            _ if self.binary && is_fixed(format) => self.mismatch(format, "a date"),
            _ => {
                let mut text = Text::default();
                text.date(date);
                self.buf.put_lenenc_bytes(text.as_bytes());
            }
        }
    }

    fn datetime(&mut self, format: ColumnFormat, at: &DateTime) {
        match format.type_byte {
            ty::DATETIME | ty::TIMESTAMP | ty::DATE | ty::NEWDATE if self.binary => put_binary_datetime(self.buf, at),
            _ if self.binary && is_fixed(format) => self.mismatch(format, "a datetime"),
            _ => {
                let mut text = Text::default();
                text.date(at.date);
                text.push(b' ');
                text.clock(at.hour.into(), at.minute, at.second);
                text.fraction(at.micros, format.decimals);
                self.buf.put_lenenc_bytes(text.as_bytes());
            }
        }
    }

    fn time(&mut self, format: ColumnFormat, time: Time) {
        match format.type_byte {
            ty::TIME if self.binary => put_binary_time(self.buf, time),
            _ if self.binary && is_fixed(format) => self.mismatch(format, "a time"),
            _ => {
                let mut text = Text::default();
                if time.micros < 0 {
                    text.push(b'-');
                }
                let (seconds, micros) = split_micros(time);
                text.clock((seconds / 3600) as u32, (seconds / 60 % 60) as u8, (seconds % 60) as u8);
                text.fraction(micros, format.decimals);
                self.buf.put_lenenc_bytes(text.as_bytes());
            }
        }
    }

    fn mismatch(&mut self, format: ColumnFormat, what: &str) {
        let (index, type_byte) = (self.index, format.type_byte);
        self.fault.get_or_insert_with(|| format!("column {index} of type {type_byte} cannot carry {what}"));
    }
}

const ZERO_DATE: Date = Date { year: 0, month: 0, day: 0 };

/// Bytes of the NULL bitmap of a binary result row.
fn bitmap_len(columns: usize) -> usize {
    (columns + 7 + 2) / 8
}

/// Whether the binary protocol gives the type a form of its own, other than length and bytes.
fn is_fixed(format: ColumnFormat) -> bool {
    format.is_integer()
        || matches!(
            format.type_byte,
            ty::FLOAT | ty::DOUBLE | ty::DATE | ty::NEWDATE | ty::TIME | ty::DATETIME | ty::TIMESTAMP | ty::NULL
        )
}

fn put_binary_int(buf: &mut Vec<u8>, format: ColumnFormat, n: i128, fault: &mut Option<String>) {
    let fits = |bits: u32| {
        if format.unsigned {
            (0..1i128 << bits).contains(&n)
        } else {
            (-(1i128 << (bits - 1))..1i128 << (bits - 1)).contains(&n)
        }
    };
    let fit = match format.type_byte {
        ty::TINY => fits(8),
        ty::SHORT => fits(16),
        ty::LONG | ty::INT24 => fits(32),
        ty::LONGLONG => fits(64),
        _ => true,
    };
    if !fit {
        fault.get_or_insert_with(|| format!("{n} is out of range for a column of type {}", format.type_byte));
    }
    match format.type_byte {
        ty::TINY => buf.push(n as u8),
        ty::SHORT | ty::YEAR => buf.put_u16(n as u16),
        ty::LONG | ty::INT24 => buf.put_u32(n as u32),
        ty::LONGLONG => buf.put_u64(n as u64),
        ty::FLOAT => buf.put_u32((n as f32).to_bits()),
        ty::DOUBLE => buf.put_u64((n as f64).to_bits()),
        _ if is_fixed(format) => {
            fault.get_or_insert_with(|| format!("a column of type {} cannot carry an integer", format.type_byte));
        }
        _ => buf.put_lenenc_bytes(n.to_string().as_bytes()),
    }
}

/// Decimal digits with the length byte before them.
fn put_text_int(buf: &mut Vec<u8>, negative: bool, mut n: u64) {
    let mut digits = [0u8; 20];
    let mut at = digits.len();
    for slot in digits.iter_mut().rev() {
        *slot = b'0' + (n % 10) as u8;
        n /= 10;
        at -= 1;
        if n == 0 {
            break;
        }
    }
    let digits = digits.get(at..).unwrap_or_default();
    buf.push(digits.len() as u8 + u8::from(negative));
    if negative {
        buf.push(b'-');
    }
    buf.extend_from_slice(digits);
}

fn put_date_fields(buf: &mut Vec<u8>, date: Date) {
    buf.put_u16(date.year);
    buf.push(date.month);
    buf.push(date.day);
}

fn put_binary_datetime(buf: &mut Vec<u8>, at: &DateTime) {
    let midnight = at.hour == 0 && at.minute == 0 && at.second == 0;
    let len = match (at.micros, midnight, at.date == ZERO_DATE) {
        (1.., _, _) => 11,
        (0, false, _) => 7,
        (0, true, false) => 4,
        (0, true, true) => 0,
    };
    buf.push(len);
    if len >= 4 {
        put_date_fields(buf, at.date);
    }
    if len >= 7 {
        buf.extend_from_slice(&[at.hour, at.minute, at.second]);
    }
    if len == 11 {
        buf.put_u32(at.micros);
    }
}

fn put_binary_time(buf: &mut Vec<u8>, time: Time) {
    let (seconds, micros) = split_micros(time);
    if time.micros == 0 {
        buf.push(0);
        return;
    }
    buf.push(if micros == 0 { 8 } else { 12 });
    buf.push(u8::from(time.micros < 0));
    buf.put_u32((seconds / 86_400) as u32);
    buf.extend_from_slice(&[(seconds / 3600 % 24) as u8, (seconds / 60 % 60) as u8, (seconds % 60) as u8]);
    if micros != 0 {
        buf.put_u32(micros);
    }
}

fn split_micros(time: Time) -> (u64, u32) {
    let micros = time.micros.unsigned_abs();
    (micros / 1_000_000, (micros % 1_000_000) as u32)
}

/// A short text built on the stack: dates and times are never longer than this.
#[derive(Default)]
struct Text {
    bytes: [u8; 32],
    len: usize,
}

impl Text {
    fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
    fn push(&mut self, byte: u8) {
        if let Some(slot) = self.bytes.get_mut(self.len) {
            *slot = byte;
            self.len += 1;
        }
    }
    /// At least `width` digits, zeros in front.
    fn digits(&mut self, n: u32, width: u32) {
        let width = width.max(n.checked_ilog10().unwrap_or(0) + 1);
        for place in (0..width).rev() {
            self.push(b'0' + (n / 10u32.pow(place) % 10) as u8);
        }
    }
    fn date(&mut self, date: Date) {
        self.digits(date.year.into(), 4);
        self.push(b'-');
        self.digits(date.month.into(), 2);
        self.push(b'-');
        self.digits(date.day.into(), 2);
    }
    fn clock(&mut self, hour: u32, minute: u8, second: u8) {
        self.digits(hour, 2);
        self.push(b':');
        self.digits(minute.into(), 2);
        self.push(b':');
        self.digits(second.into(), 2);
    }
    /// The column's number of decimals; all six, if there are any, when the column leaves it open.
    fn fraction(&mut self, micros: u32, decimals: u8) {
        let decimals = match decimals {
            0..=6 => decimals,
            _ if micros == 0 => 0,
            _ => 6,
        };
        if decimals > 0 {
            self.push(b'.');
            self.digits(micros / 10u32.pow(u32::from(6 - decimals)), decimals.into());
        }
    }
}

/// A DOUBLE as MySQL prints it: shortest digits that read back the same, exponent form outside 1e-15..1e15.
pub fn double_text(n: f64, decimals: u8) -> String {
    if decimals < NOT_FIXED_DECIMALS { format!("{n:.*}", decimals.into()) } else { general(&format!("{n:e}")) }
}

/// A FLOAT as MySQL prints it: six significant digits.
pub fn float_text(n: f32, decimals: u8) -> String {
    if decimals < NOT_FIXED_DECIMALS { format!("{n:.*}", decimals.into()) } else { general(&format!("{n:.5e}")) }
}

/// From Rust's `d.ddde±x` to the server's choice between plain and exponent form.
fn general(scientific: &str) -> String {
    let Some((mantissa, exponent)) = scientific.split_once('e') else { return scientific.to_owned() };
    let Ok(exponent) = exponent.parse::<i32>() else { return scientific.to_owned() };
    let (sign, mantissa) = mantissa.strip_prefix('-').map_or(("", mantissa), |m| ("-", m));
    let digits: String = mantissa.chars().filter(|c| *c != '.').collect();
    let digits = digits.trim_end_matches('0');
    if digits.is_empty() {
        return format!("{sign}0");
    }
    let point = exponent + 1;
    let (lead, tail) = digits.split_at(1);
    if !(-14..=15).contains(&point) {
        let dot = if tail.is_empty() { "" } else { "." };
        return format!("{sign}{lead}{dot}{tail}e{exponent}");
    }
    if point <= 0 {
        return format!("{sign}0.{}{digits}", "0".repeat(point.unsigned_abs() as usize));
    }
    let point = point as usize;
    if digits.len() <= point {
        return format!("{sign}{digits}{}", "0".repeat(point - digits.len()));
    }
    let (whole, fraction) = digits.split_at(point);
    format!("{sign}{whole}.{fraction}")
}

#[cfg(test)]
#[path = "row_tests.rs"]
mod tests;
