//! Fixed-width packing of decimals and dates, shared by stored rows and index keys. Part of the row FORMAT.

use super::{FormatError, ZoneOffset};
use crate::sql::value::{Date, DateTime, Decimal};

/// The unscaled integer at `scale`, big-endian with the sign bit flipped, so that bytes sort like numbers.
pub fn put_decimal(value: &Decimal, scale: u8, out: &mut [u8]) -> Result<(), FormatError> {
    let bytes = match value.scale() == scale {
        true => value.to_be_bytes(),
        false => value.round(i32::from(scale)).to_be_bytes(),
    };
    let pad = out.len().checked_sub(bytes.len()).ok_or(FormatError::Value("decimal has too many digits"))?;
    let fill = if bytes.first().is_some_and(|b| b & 0x80 != 0) { 0xff } else { 0 };
    out[..pad].fill(fill);
    out[pad..].copy_from_slice(&bytes);
    out[0] ^= 0x80;
    Ok(())
}

/// Inverse of [`put_decimal`]; total, because every bit pattern is a number.
pub fn get_decimal(bytes: &[u8], scale: u8) -> Decimal {
    let mut copy = [0u8; 28];
    let len = bytes.len().min(copy.len());
    copy[..len].copy_from_slice(&bytes[..len]);
    copy[0] ^= 0x80;
    Decimal::from_be_bytes(&copy[..len], scale)
}

/// `year << 9 | month << 5 | day`: sorts like the date; zero dates are representable.
pub fn pack_date(d: Date) -> u32 {
    u32::from(d.year) << 9 | u32::from(d.month) << 5 | u32::from(d.day)
}

/// Inverse of [`pack_date`].
pub fn unpack_date(v: u32) -> Date {
    Date { year: (v >> 9) as u16, month: (v >> 5 & 15) as u8, day: (v & 31) as u8 }
}

/// Packed date, then hour (5 bits), minute (6), second (6), microseconds (20): sorts like the instant.
pub fn pack_datetime(v: &DateTime) -> u64 {
    let time = u64::from(v.hour) << 32 | u64::from(v.minute) << 26 | u64::from(v.second) << 20 | u64::from(v.micros);
    u64::from(pack_date(v.date)) << 37 | time
}

/// Inverse of [`pack_datetime`].
pub fn unpack_datetime(v: u64) -> DateTime {
    DateTime {
        date: unpack_date((v >> 37) as u32),
        hour: (v >> 32 & 31) as u8,
        minute: (v >> 26 & 63) as u8,
        second: (v >> 20 & 63) as u8,
        micros: (v & 0xf_ffff) as u32,
    }
}

/// The zero TIMESTAMP `0000-00-00 00:00:00`, which no instant has.
const ZERO_TIMESTAMP: i64 = i64::MIN;

/// Microseconds since 1970 in UTC of a local time `offset` seconds east of it.
pub fn timestamp_micros(v: &DateTime, offset: ZoneOffset) -> i64 {
    if v.date.month == 0 || v.date.day == 0 {
        return ZERO_TIMESTAMP;
    }
    let days = days_from_civil(i64::from(v.date.year), i64::from(v.date.month), i64::from(v.date.day));
    let seconds = days * 86_400 + i64::from(v.hour) * 3600 + i64::from(v.minute) * 60 + i64::from(v.second);
    (seconds - i64::from(offset.0)) * 1_000_000 + i64::from(v.micros)
}

/// Inverse of [`timestamp_micros`].
pub fn timestamp_datetime(micros: i64, offset: ZoneOffset) -> DateTime {
    if micros == ZERO_TIMESTAMP {
        let date = Date { year: 0, month: 0, day: 0 };
        return DateTime { date, hour: 0, minute: 0, second: 0, micros: 0 };
    }
    let seconds = micros.div_euclid(1_000_000) + i64::from(offset.0);
    let (year, month, day) = civil_from_days(seconds.div_euclid(86_400));
    let second = seconds.rem_euclid(86_400);
    DateTime {
        date: Date { year: year as u16, month: month as u8, day: day as u8 },
        hour: (second / 3600) as u8,
        minute: (second / 60 % 60) as u8,
        second: (second % 60) as u8,
        micros: micros.rem_euclid(1_000_000) as u32,
    }
}

/// Days since 1970-01-01 in the proleptic Gregorian calendar.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

/// Inverse of [`days_from_civil`].
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let doe = days.rem_euclid(146_097);
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    (yoe + era * 400 + i64::from(month <= 2), month, doy - (153 * mp + 2) / 5 + 1)
}
