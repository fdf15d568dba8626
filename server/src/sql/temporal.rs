//! Owns dates and times: calendar arithmetic, reading and printing them as MySQL does.

use super::value::{Date, DateTime, Time};

/// Microseconds of a second.
pub const SECOND: i64 = 1_000_000;
/// Microseconds of a day.
pub const DAY: i64 = 86_400 * SECOND;
/// 838:59:59, the largest TIME.
pub const TIME_MAX: i64 = (838 * 3600 + 59 * 60 + 59) * SECOND;

/// Days of a month; 31 for month 0.
pub fn days_in_month(year: u16, month: u8) -> u8 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if is_leap(year) => 29,
        2 => 28,
        _ => 31,
    }
}

fn is_leap(year: u16) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

impl Date {
    /// A date of the calendar, or a zero date that MySQL stores. 31 February is neither.
    pub fn is_storable(self) -> bool {
        self.year <= 9999
            && self.month <= 12
            && self.day <= if self.month == 0 { 31 } else { days_in_month(self.year, self.month) }
    }
    /// 0000-00-00.
    pub fn is_zero(self) -> bool {
        self == Self::default()
    }
    /// Month or day is zero (the zero date included): no point on the calendar.
    pub fn is_partial(self) -> bool {
        self.month == 0 || self.day == 0
    }
    /// TO_DAYS(): days since year 0.
    pub fn day_number(self) -> i64 {
        if self.year == 0 && self.month == 0 {
            return 0;
        }
        let (year, month) = (i64::from(self.year), i64::from(self.month));
        let mut days = 365 * year + 31 * (month - 1) + i64::from(self.day);
        let year = if month <= 2 {
            year - 1
        } else {
            days -= (month * 4 + 23) / 10;
            year
        };
        let century = (year.div_euclid(100) + 1) * 3 / 4;
        days + year.div_euclid(4) - century
    }
    /// FROM_DAYS(): `None` outside year 1 to 9999.
    pub fn from_day_number(number: i64) -> Option<Self> {
        // Days since 0000-03-01, in eras of 400 years.
        let shifted = number.checked_sub(60)?;
        let era = shifted.div_euclid(146_097);
        let day_of_era = shifted.rem_euclid(146_097);
        let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let shifted_month = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
        let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
        let year = year_of_era + era * 400 + i64::from(month <= 2);
        if !(0..=9999).contains(&year) || number < 366 {
            return None;
        }
        Some(Self { year: year as u16, month: month as u8, day: day as u8 })
    }
    /// WEEKDAY(): 0 is Monday.
    pub fn weekday(self) -> u8 {
        (self.day_number() + 5).rem_euclid(7) as u8
    }
    /// DAYOFYEAR().
    pub fn day_of_year(self) -> i64 {
        self.day_number() - Self { month: 1, day: 1, ..self }.day_number() + 1
    }
    /// YYYYMMDD.
    pub fn to_number(self) -> i64 {
        i64::from(self.year) * 10_000 + i64::from(self.month) * 100 + i64::from(self.day)
    }
    /// At midnight.
    pub fn at_midnight(self) -> DateTime {
        DateTime { date: self, ..DateTime::default() }
    }
    /// From YYYYMMDD, YYMMDD and shorter.
    pub fn from_number(number: i64) -> Option<Self> {
        DateTime::from_number(number).map(|at| at.date)
    }
}

impl std::fmt::Display for Date {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:04}-{:02}-{:02}", self.year, self.month, self.day)
    }
}

impl DateTime {
    /// Microseconds since midnight.
    pub fn time_micros(self) -> i64 {
        ((i64::from(self.hour) * 60 + i64::from(self.minute)) * 60 + i64::from(self.second)) * SECOND
            + i64::from(self.micros)
    }
    /// Time of day.
    pub fn time(self) -> Time {
        Time { micros: self.time_micros() }
    }
    /// Microseconds since year 0.
    pub fn linear_micros(self) -> i64 {
        self.date.day_number() * DAY + self.time_micros()
    }
    /// From [`Self::linear_micros`].
    pub fn from_linear_micros(micros: i64) -> Option<Self> {
        let date = Date::from_day_number(micros.div_euclid(DAY))?;
        Some(Self::from_parts(date, micros.rem_euclid(DAY)))
    }
    /// A date and microseconds since its midnight (below a day).
    pub fn from_parts(date: Date, micros: i64) -> Self {
        let seconds = micros / SECOND;
        Self {
            date,
            hour: (seconds / 3600) as u8,
            minute: (seconds / 60 % 60) as u8,
            second: (seconds % 60) as u8,
            micros: (micros % SECOND) as u32,
        }
    }
    /// From microseconds since 1970 UTC, shown in a zone.
    pub fn from_unix_micros(micros: i64, zone_offset_seconds: i32) -> Option<Self> {
        let epoch = EPOCH_DAY * DAY;
        Self::from_linear_micros(micros.checked_add(epoch)?.checked_add(i64::from(zone_offset_seconds) * SECOND)?)
    }
    /// Microseconds since 1970 UTC of this wall clock in a zone.
    pub fn to_unix_micros(self, zone_offset_seconds: i32) -> i64 {
        self.linear_micros() - EPOCH_DAY * DAY - i64::from(zone_offset_seconds) * SECOND
    }
    /// YYYYMMDDhhmmss.
    pub fn to_number(self) -> i64 {
        self.date.to_number() * 1_000_000
            + i64::from(self.hour) * 10_000
            + i64::from(self.minute) * 100
            + i64::from(self.second)
    }
    /// From YYYYMMDDhhmmss, YYMMDDhhmmss, YYYYMMDD or YYMMDD.
    pub fn from_number(number: i64) -> Option<Self> {
        if number == 0 {
            return Some(Self::default());
        }
        let number = match number {
            101..=691_231 => (number + 20_000_000) * 1_000_000,
            700_101..=991_231 => (number + 19_000_000) * 1_000_000,
            10_000_101..=99_991_231 => number * 1_000_000,
            101_000_000..=691_231_235_959 => number + 20_000_000_000_000,
            700_101_000_000..=991_231_235_959 => number + 19_000_000_000_000,
            10_000_101_000_000..=99_991_231_235_959 => number,
            _ => return None,
        };
        let (date, time) = (number / 1_000_000, number % 1_000_000);
        let value = Self {
            date: Date { year: (date / 10_000) as u16, month: (date / 100 % 100) as u8, day: (date % 100) as u8 },
            hour: (time / 10_000) as u8,
            minute: (time / 100 % 100) as u8,
            second: (time % 100) as u8,
            micros: 0,
        };
        value.is_storable().then_some(value)
    }
    fn is_storable(self) -> bool {
        self.date.is_storable() && self.hour < 24 && self.minute < 60 && self.second < 60
    }
    /// Rounded to `fsp` fractional digits; `None` if that passes year 9999.
    pub fn round(self, fsp: u8) -> Option<Self> {
        let rounded = round_micros(i64::from(self.micros), fsp);
        if rounded < SECOND {
            return Some(Self { micros: rounded as u32, ..self });
        }
        if self.date.is_partial() {
            return Some(Self { micros: 0, ..self });
        }
        Self::from_linear_micros(Self { micros: 0, ..self }.linear_micros() + SECOND)
    }
    /// With `fsp` fractional digits.
    pub fn format(self, fsp: u8) -> String {
        let mut text = format!("{} {:02}:{:02}:{:02}", self.date, self.hour, self.minute, self.second);
        push_fraction(&mut text, self.micros, fsp);
        text
    }
}

/// TO_DAYS('1970-01-01').
pub const EPOCH_DAY: i64 = 719_528;

/// Nearest multiple of 10^(6-fsp).
fn round_micros(micros: i64, fsp: u8) -> i64 {
    let unit = 10i64.pow(6 - u32::from(fsp.min(6)));
    (micros + unit / 2) / unit * unit
}

fn push_fraction(text: &mut String, micros: u32, fsp: u8) {
    if fsp > 0 {
        let digits = format!("{micros:06}");
        text.push('.');
        text.push_str(&digits[..usize::from(fsp.min(6))]);
    }
}

impl Time {
    /// Clipped to the range of TIME.
    pub fn clipped(micros: i64) -> Self {
        Self { micros: micros.clamp(-TIME_MAX, TIME_MAX) }
    }
    /// Hours, minutes, seconds, microseconds without sign.
    pub fn parts(self) -> (u32, u8, u8, u32) {
        let micros = self.micros.unsigned_abs();
        let seconds = micros / SECOND as u64;
        let fraction = (micros % SECOND as u64) as u32;
        ((seconds / 3600) as u32, (seconds / 60 % 60) as u8, (seconds % 60) as u8, fraction)
    }
    /// hhmmss, with sign.
    pub fn to_number(self) -> i64 {
        let (hours, minutes, seconds, _) = self.parts();
        let number = i64::from(hours) * 10_000 + i64::from(minutes) * 100 + i64::from(seconds);
        if self.micros < 0 { -number } else { number }
    }
    /// From hhmmss; `None` if minutes or seconds are not.
    pub fn from_number(number: i64) -> Option<Self> {
        let plain = i64::try_from(number.unsigned_abs()).ok()?;
        let (hours, minutes, seconds) = (plain / 10_000, plain / 100 % 100, plain % 100);
        if minutes > 59 || seconds > 59 {
            return None;
        }
        let micros = hours.min(1_000_000) * 3600 * SECOND + (minutes * 60 + seconds) * SECOND;
        Some(Self { micros: if number < 0 { -micros } else { micros } })
    }
    /// Rounded to `fsp` fractional digits.
    pub fn round(self, fsp: u8) -> Self {
        let rounded = round_micros(self.micros.abs(), fsp);
        Self { micros: if self.micros < 0 { -rounded } else { rounded } }
    }
    /// With `fsp` fractional digits.
    pub fn format(self, fsp: u8) -> String {
        let (hours, minutes, seconds, micros) = self.parts();
        let sign = if self.micros < 0 { "-" } else { "" };
        let mut text = format!("{sign}{hours:02}:{minutes:02}:{seconds:02}");
        push_fraction(&mut text, micros, fsp);
        text
    }
}

/// Fewest fractional digits that show all of `micros`: 0 or 6, for values whose declared precision is unknown.
pub fn shown_fsp(micros: u32) -> u8 {
    if micros == 0 { 0 } else { 6 }
}

/// What reading a text as a date or time found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parsed<T> {
    /// The value.
    pub value: T,
    /// Nothing but white space was left over.
    pub clean: bool,
    /// A time of day was written (for datetimes).
    pub has_time: bool,
}

fn trim(text: &[u8]) -> &[u8] {
    text.trim_ascii()
}

/// Digits from `at`, at most `limit`; returns value and count.
fn digits(text: &[u8], at: usize, limit: usize) -> (u32, usize) {
    let run = text.get(at..).unwrap_or_default().iter().take(limit).take_while(|b| b.is_ascii_digit());
    run.fold((0u32, 0), |(value, count), byte| (value.wrapping_mul(10).wrapping_add(u32::from(byte - b'0')), count + 1))
}

/// A fraction after the point at `at`: microseconds (the seventh digit rounds) and bytes read.
fn fraction(text: &[u8], at: usize) -> (u32, usize) {
    if text.get(at) != Some(&b'.') {
        return (0, 0);
    }
    let (mut micros, count) = digits(text, at + 1, 6);
    micros *= 10u32.pow(6 - count as u32);
    let (next, _) = digits(text, at + 1 + count, 1);
    let rest = text.get(at + 1 + count..).unwrap_or_default().iter().take_while(|b| b.is_ascii_digit()).count();
    (micros + u32::from(count == 6 && rest > 0 && next >= 5), 1 + count + rest)
}

fn full_year(year: u32, written: usize) -> u32 {
    match year {
        _ if written > 2 => year,
        0..=69 => 2000 + year,
        _ => 1900 + year,
    }
}

/// Reads a date or datetime. `None`: not a date at all, or no such day (unless `allow_invalid`, up to day 31).
pub fn parse_datetime(text: &[u8], allow_invalid: bool) -> Option<Parsed<DateTime>> {
    let text = trim(text);
    let leading = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (fields, written, mut at) = match leading {
        // All digits: fixed columns.
        8 | 14 | 5.. if leading != 4 => packed_fields(text, leading)?,
        1..=4 => separated_fields(text)?,
        _ => return None,
    };
    let [year, month, day, hour, minute, second] = fields;
    let (micros, used) = if written == 6 { fraction(text, at) } else { (0, 0) };
    at += used;
    let date = Date { year: u16::try_from(year).ok()?, month: u8::try_from(month).ok()?, day: u8::try_from(day).ok()? };
    let valid = date.is_storable() || (allow_invalid && date.month <= 12 && date.day <= 31 && date.year <= 9999);
    if !valid || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let mut value = DateTime { date, hour: hour as u8, minute: minute as u8, second: second as u8, micros: 0 };
    if micros >= SECOND as u32 {
        value = DateTime { micros: 999_999, ..value }.round(0)?;
    } else {
        value.micros = micros;
    }
    Some(Parsed { value, clean: at >= text.len(), has_time: written > 3 })
}

type Fields = ([u32; 6], usize, usize);

/// YYYYMMDD[hhmmss] or YYMMDD[hhmmss].
fn packed_fields(text: &[u8], leading: usize) -> Option<Fields> {
    let year_digits = if leading == 8 || leading >= 14 { 4 } else { 2 };
    let mut fields = [0u32; 6];
    let (year, _) = digits(text, 0, year_digits);
    fields[0] = full_year(year, year_digits);
    let (mut at, mut written) = (year_digits, 1);
    while written < 6 && at < leading {
        let (value, count) = digits(text, at, 2.min(leading - at));
        fields[written] = value;
        written += 1;
        at += count;
    }
    // A T may stand between date and time.
    if written == 3 && text.get(at) == Some(&b'T') && text.get(at + 1).is_some_and(u8::is_ascii_digit) {
        at += 1;
        while written < 6 {
            let (value, count) = digits(text, at, 2);
            if count == 0 {
                break;
            }
            fields[written] = value;
            written += 1;
            at += count;
        }
    }
    (written >= 3).then_some((fields, written, at))
}

/// Y-M-D[ h:m:s] with any punctuation between.
fn separated_fields(text: &[u8]) -> Option<Fields> {
    let mut fields = [0u32; 6];
    let (mut at, mut written) = (0, 0);
    while written < 6 {
        let (value, count) = digits(text, at, if written == 0 { 4 } else { 2 });
        if count == 0 {
            break;
        }
        fields[written] = if written == 0 { full_year(value, count) } else { value };
        written += 1;
        at += count;
        let mark = match text.get(at) {
            _ if written == 6 => break,
            Some(byte) if written == 3 && (*byte == b'T' || byte.is_ascii_whitespace()) => {
                let spaces = text[at..].iter().take_while(|b| b.is_ascii_whitespace()).count();
                spaces.max(1)
            }
            Some(byte) if byte.is_ascii_punctuation() => 1,
            _ => break,
        };
        if !text.get(at + mark).is_some_and(u8::is_ascii_digit) {
            break;
        }
        at += mark;
    }
    (written >= 3).then_some((fields, written, at))
}

/// Reads a TIME. A value over the range is clipped and not clean. `None`: no time at all.
pub fn parse_time(text: &[u8]) -> Option<Parsed<Time>> {
    let text = trim(text);
    let negative = text.first() == Some(&b'-');
    let body = text.get(usize::from(negative || text.first() == Some(&b'+'))..)?;
    let leading = body.iter().take_while(|byte| byte.is_ascii_digit()).count();
    if leading == 0 && body.first() != Some(&b'.') {
        return None;
    }
    // A full datetime gives its time part.
    if !negative
        && (leading >= 12 || matches!(body.get(leading), Some(b'-' | b'/')))
        && let Some(parsed) = parse_datetime(text, false)
    {
        return Some(Parsed { value: parsed.value.time(), clean: parsed.clean, has_time: true });
    }
    let (hours, minutes, seconds, mut at) = time_fields(body, leading)?;
    let (micros, used) = fraction(body, at);
    at += used;
    if minutes > 59 || seconds > 59 {
        return None;
    }
    let total = (i64::from(hours) * 3600 + i64::from(minutes) * 60 + i64::from(seconds)) * SECOND + i64::from(micros);
    let value = Time::clipped(if negative { -total } else { total });
    Some(Parsed { value, clean: at >= body.len() && total <= TIME_MAX, has_time: true })
}

/// Hours, minutes, seconds, bytes read.
fn time_fields(body: &[u8], leading: usize) -> Option<(u32, u32, u32, usize)> {
    let (first, _) = digits(body, 0, 9);
    let (mut hours, mut at) = (0, 0);
    let spaces = body[leading..].iter().take_while(|b| **b == b' ').count();
    let day_form = spaces > 0 && body.get(leading + spaces).is_some_and(u8::is_ascii_digit);
    if day_form {
        hours = first.min(40) * 24;
        at = leading + spaces;
    } else if body.get(leading) != Some(&b':') {
        // hhmmss, mmss or ss.
        let seconds = first;
        return Some((seconds / 10_000, seconds / 100 % 100, seconds % 100, leading));
    }
    let (value, count) = digits(body, at, 9);
    hours += value.min(1_000_000);
    at += count;
    let mut rest = [0u32; 2];
    for slot in &mut rest {
        if body.get(at) != Some(&b':') || !body.get(at + 1).is_some_and(u8::is_ascii_digit) {
            break;
        }
        let (value, count) = digits(body, at + 1, 2);
        *slot = value;
        at += 1 + count;
    }
    Some((hours, rest[0], rest[1], at))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn dt(text: &str) -> Option<String> {
        parse_datetime(text.as_bytes(), false).map(|p| p.value.format(shown_fsp(p.value.micros)))
    }

    #[test]
    fn datetimes_are_read_as_mysql_reads_them() {
        for (text, expected) in [
            ("2024-02-29", "2024-02-29 00:00:00"),
            ("2024-2-9 1:2:3", "2024-02-09 01:02:03"),
            ("20240229", "2024-02-29 00:00:00"),
            ("240229", "2024-02-29 00:00:00"),
            ("20240229123456", "2024-02-29 12:34:56"),
            ("2024-02-29T12:34:56.789", "2024-02-29 12:34:56.789000"),
            ("70/1/1", "1970-01-01 00:00:00"),
            ("69-1-1", "2069-01-01 00:00:00"),
            ("0000-00-00", "0000-00-00 00:00:00"),
            ("2024-12-31 23:59:59.9999999", "2025-01-01 00:00:00"),
        ] {
            assert_eq!(dt(text).as_deref(), Some(expected), "{text}");
        }
        for text in ["2023-02-29", "abc", "", "2024-13-01", "2024-01-01 25:00:00", "2024"] {
            assert_eq!(dt(text), None, "{text}");
        }
        assert!(!parse_datetime(b"2024-01-01abc", false).unwrap().clean);
    }

    #[test]
    fn times_are_read_as_mysql_reads_them() {
        for (text, expected) in [
            ("12:34:56", "12:34:56"),
            ("-1:02", "-01:02:00"),
            ("123456", "12:34:56"),
            ("56", "00:00:56"),
            ("1 2:03", "26:03:00"),
            ("900:00:00", "838:59:59"),
            ("2024-01-01 05:06:07", "05:06:07"),
        ] {
            assert_eq!(parse_time(text.as_bytes()).unwrap().value.format(0), expected, "{text}");
        }
        assert!(parse_time(b"12:60:00").is_none());
    }

    proptest! {
        #[test]
        fn no_panic(text in proptest::collection::vec(any::<u8>(), 0..24)) {
            let _ = parse_datetime(&text, true);
            let _ = parse_time(&text);
        }
        #[test]
        fn near_dates_no_panic(text in "[0-9:. T/-]{0,24}") {
            let _ = parse_datetime(text.as_bytes(), true);
            let _ = parse_time(text.as_bytes());
        }
        #[test]
        fn day_numbers_round_trip(number in 366i64..3_652_424) {
            let date = Date::from_day_number(number).unwrap();
            prop_assert!(date.is_storable());
            prop_assert_eq!(date.day_number(), number);
        }
    }
}
