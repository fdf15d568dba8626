//! Owns DECIMAL: exact numbers of up to 65 digits, 30 of them after the point.
//!
//! The coefficient is an i128 while it fits (38 digits, which is nearly always) and a big integer beyond.

use std::cmp::Ordering;

use bigdecimal::num_bigint::{BigInt, Sign};

use super::types::{DECIMAL_MAX_PRECISION, DECIMAL_MAX_SCALE};

/// An exact decimal: coefficient / 10^scale.
#[derive(Clone, Debug)]
pub struct Decimal {
    coefficient: Coefficient,
    scale: u8,
}

#[derive(Clone, Debug)]
enum Coefficient {
    /// An i128 in two words: keeps the alignment, and so the size of every value, at 8.
    Small([u64; 2]),
    Big(Box<BigInt>),
}

impl Coefficient {
    fn small(value: i128) -> Self {
        Self::Small([(value as u128 >> 64) as u64, value as u128 as u64])
    }
    fn from_big(value: BigInt) -> Self {
        i128::try_from(&value).map_or_else(|_| Self::Big(Box::new(value)), Self::small)
    }
    fn as_i128(&self) -> Option<i128> {
        match self {
            Self::Small([high, low]) => Some((u128::from(*high) << 64 | u128::from(*low)) as i128),
            Self::Big(_) => None,
        }
    }
    fn to_big(&self) -> BigInt {
        match self {
            Self::Small(_) => BigInt::from(self.as_i128().unwrap_or_default()),
            Self::Big(value) => (**value).clone(),
        }
    }
}

fn pow10(exponent: u32) -> Option<i128> {
    10i128.checked_pow(exponent)
}

fn big_pow10(exponent: u32) -> BigInt {
    BigInt::from(10).pow(exponent)
}

impl Decimal {
    /// Zero with no decimals.
    pub fn zero() -> Self {
        Self::new(0, 0)
    }

    /// `coefficient / 10^scale`; a scale over 30 is cut by rounding.
    pub fn new(coefficient: i128, scale: u8) -> Self {
        let value = Self { coefficient: Coefficient::small(coefficient), scale };
        if scale > DECIMAL_MAX_SCALE { value.round(i32::from(DECIMAL_MAX_SCALE)) } else { value }
    }

    fn from_big(coefficient: BigInt, scale: u8) -> Self {
        Self { coefficient: Coefficient::from_big(coefficient), scale }
    }

    /// Decimal places.
    pub fn scale(&self) -> u8 {
        self.scale
    }

    /// Coefficient, if it fits 128 bits. For compact encodings.
    pub fn small_coefficient(&self) -> Option<i128> {
        self.coefficient.as_i128()
    }

    /// Coefficient as big-endian two's complement bytes. For encodings; see [`Self::from_be_bytes`].
    pub fn to_be_bytes(&self) -> Vec<u8> {
        self.coefficient.to_big().to_signed_bytes_be()
    }

    /// Reads what [`Self::to_be_bytes`] wrote.
    pub fn from_be_bytes(bytes: &[u8], scale: u8) -> Self {
        Self::from_big(BigInt::from_signed_bytes_be(bytes), scale)
    }

    /// Whether it is zero.
    pub fn is_zero(&self) -> bool {
        self.coefficient.as_i128() == Some(0)
    }

    /// Whether it is below zero.
    pub fn is_negative(&self) -> bool {
        match &self.coefficient {
            Coefficient::Small(_) => self.coefficient.as_i128().is_some_and(|value| value < 0),
            Coefficient::Big(value) => value.sign() == Sign::Minus,
        }
    }

    /// Significant digits of the coefficient; 1 for zero.
    pub fn digits(&self) -> u32 {
        match self.coefficient.as_i128() {
            Some(value) => value.unsigned_abs().checked_ilog10().unwrap_or(0) + 1,
            None => self.coefficient.to_big().magnitude().to_string().len() as u32,
        }
    }

    /// Digits before the point.
    pub fn integer_digits(&self) -> u32 {
        self.digits().saturating_sub(u32::from(self.scale))
    }

    /// Whether it has at most 65 digits.
    pub fn fits(&self) -> bool {
        self.digits() <= u32::from(DECIMAL_MAX_PRECISION)
    }

    /// The largest number of DECIMAL(precision, scale), negative if asked.
    pub fn limit(precision: u8, scale: u8, negative: bool) -> Self {
        let value = big_pow10(u32::from(precision)) - BigInt::from(1);
        Self::from_big(if negative { -value } else { value }, scale)
    }

    /// Reads `[+-]digits[.digits][e[+-]digits]` from the start of `text`. Returns the number and the bytes read;
    /// 0 read means no number. Over 30 decimals are rounded away; over 65 digits give the limit.
    pub fn parse_prefix(text: &[u8]) -> (Self, usize) {
        let mut at = usize::from(matches!(text.first(), Some(b'+' | b'-')));
        let negative = text.first() == Some(&b'-');
        let mut digits: Vec<u8> = Vec::new();
        let mut scale: i64 = 0;
        let (mut seen, mut point) = (false, false);
        while let Some(&byte) = text.get(at) {
            match byte {
                b'0'..=b'9' => {
                    seen = true;
                    scale += i64::from(point);
                    if !(digits.is_empty() && byte == b'0') {
                        digits.push(byte);
                    }
                }
                b'.' if !point => point = true,
                _ => break,
            }
            at += 1;
        }
        if !seen {
            return (Self::zero(), 0);
        }
        if let Some((exponent, used)) = parse_exponent(&text[at..]) {
            scale -= exponent;
            at += used;
        }
        (Self::from_digits(&digits, scale, negative), at)
    }

    fn from_digits(digits: &[u8], scale: i64, negative: bool) -> Self {
        if digits.is_empty() {
            return Self::new(0, scale.clamp(0, i64::from(DECIMAL_MAX_SCALE)) as u8);
        }
        let integer_digits = digits.len() as i64 - scale;
        if integer_digits > i64::from(DECIMAL_MAX_PRECISION) {
            return Self::limit(DECIMAL_MAX_PRECISION, 0, negative);
        }
        if integer_digits < -i64::from(DECIMAL_MAX_SCALE) {
            return Self::new(0, DECIMAL_MAX_SCALE);
        }
        // Bounded now: at most 65 digits before the point; drop what rounding to 30 decimals cannot see.
        let keep = (integer_digits + i64::from(DECIMAL_MAX_SCALE) + 1).clamp(0, digits.len() as i64) as usize;
        let scale = scale - (digits.len() - keep) as i64;
        let mut value = match std::str::from_utf8(&digits[..keep]).ok().and_then(|text| text.parse::<i128>().ok()) {
            Some(value) => BigInt::from(value),
            None => BigInt::parse_bytes(&digits[..keep], 10).unwrap_or_default(),
        };
        if negative {
            value = -value;
        }
        if scale < 0 {
            value *= big_pow10((-scale) as u32);
        }
        let wide = Self::from_big(value, scale.clamp(0, 255) as u8);
        if wide.scale > DECIMAL_MAX_SCALE { wide.round(i32::from(DECIMAL_MAX_SCALE)) } else { wide }
    }

    /// Reads a whole text; `None` if anything else than a number is in it.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let (value, used) = Self::parse_prefix(text);
        (used > 0 && used == text.len()).then_some(value)
    }

    /// From a double, with its shortest decimal form.
    pub fn from_f64(value: f64) -> Self {
        Self::parse_prefix(format!("{value:e}").as_bytes()).0
    }

    /// Nearest double.
    pub fn to_f64(&self) -> f64 {
        match self.coefficient.as_i128() {
            // Both exact, so one rounding.
            Some(value) if value.unsigned_abs() < 1 << 53 && self.scale <= 22 => {
                value as f64 / 10f64.powi(i32::from(self.scale))
            }
            _ => self.to_string().parse().unwrap_or(0.0),
        }
    }

    /// Rounded half away from zero to an integer, if that fits 128 bits.
    pub fn to_i128(&self) -> Option<i128> {
        self.round(0).coefficient.as_i128()
    }

    /// Same value, other sign.
    pub fn neg(&self) -> Self {
        match self.coefficient.as_i128().and_then(i128::checked_neg) {
            Some(value) => Self { coefficient: Coefficient::small(value), scale: self.scale },
            None => Self::from_big(-self.coefficient.to_big(), self.scale),
        }
    }

    /// Coefficient at a larger or equal scale.
    fn scaled(&self, scale: u8) -> Coefficient {
        let up = u32::from(scale.saturating_sub(self.scale));
        if up == 0 {
            return self.coefficient.clone();
        }
        let small = self.coefficient.as_i128().zip(pow10(up)).and_then(|(value, factor)| value.checked_mul(factor));
        small.map_or_else(|| Coefficient::from_big(self.coefficient.to_big() * big_pow10(up)), Coefficient::small)
    }

    fn aligned(&self, other: &Self) -> (Coefficient, Coefficient, u8) {
        let scale = self.scale.max(other.scale);
        (self.scaled(scale), other.scaled(scale), scale)
    }

    /// Sum; `None` above 65 digits.
    pub fn add(&self, other: &Self) -> Option<Self> {
        let (a, b, scale) = self.aligned(other);
        let small = a.as_i128().zip(b.as_i128()).and_then(|(a, b)| a.checked_add(b));
        Self::checked(small.map_or_else(|| Coefficient::from_big(a.to_big() + b.to_big()), Coefficient::small), scale)
    }

    /// Difference; `None` above 65 digits.
    pub fn sub(&self, other: &Self) -> Option<Self> {
        self.add(&other.neg())
    }

    /// Product, its scale the sum of both, rounded to 30; `None` above 65 digits.
    pub fn mul(&self, other: &Self) -> Option<Self> {
        let (a, b) = (&self.coefficient, &other.coefficient);
        let small = a.as_i128().zip(b.as_i128()).and_then(|(a, b)| a.checked_mul(b));
        let product = small.map_or_else(|| Coefficient::from_big(a.to_big() * b.to_big()), Coefficient::small);
        let wide = Self { coefficient: product, scale: self.scale + other.scale };
        let value = if wide.scale > DECIMAL_MAX_SCALE { wide.round(i32::from(DECIMAL_MAX_SCALE)) } else { wide };
        value.fits().then_some(value)
    }

    /// Quotient with `increment` more decimals than the dividend, rounded. The divisor must not be zero.
    pub fn div(&self, other: &Self, increment: u8) -> Option<Self> {
        if other.is_zero() {
            return None;
        }
        let scale = self.scale.saturating_add(increment).min(DECIMAL_MAX_SCALE);
        // self / other = (a / 10^s) / (b / 10^t); the quotient at `scale` is a * 10^(scale + t - s) / b.
        let shift = i32::from(scale) + i32::from(other.scale) - i32::from(self.scale);
        let (a, b) = (self.coefficient.to_big(), other.coefficient.to_big());
        let (a, b) = if shift >= 0 { (a * big_pow10(shift as u32), b) } else { (a, b * big_pow10((-shift) as u32)) };
        let value = Self::from_big(div_round(a, &b), scale);
        value.fits().then_some(value)
    }

    /// Quotient cut to an integer. The divisor must not be zero.
    pub fn int_div(&self, other: &Self) -> Option<Self> {
        let (a, b, _) = self.aligned(other);
        if other.is_zero() {
            return None;
        }
        Some(Self::from_big(a.to_big() / b.to_big(), 0))
    }

    /// Remainder with the dividend's sign. The divisor must not be zero.
    pub fn rem(&self, other: &Self) -> Option<Self> {
        let (a, b, scale) = self.aligned(other);
        if other.is_zero() {
            return None;
        }
        match a.as_i128().zip(b.as_i128()).and_then(|(a, b)| a.checked_rem(b)) {
            Some(value) => Some(Self { coefficient: Coefficient::small(value), scale }),
            None => Some(Self::from_big(a.to_big() % b.to_big(), scale)),
        }
    }

    fn checked(coefficient: Coefficient, scale: u8) -> Option<Self> {
        let value = Self { coefficient, scale };
        value.fits().then_some(value)
    }

    /// Exactly `scale` decimals, rounding half away from zero. Negative: zeros before the point, none after.
    pub fn round(&self, scale: i32) -> Self {
        self.with_scale(scale, true)
    }

    /// Exactly `scale` decimals, cutting.
    pub fn truncate(&self, scale: i32) -> Self {
        self.with_scale(scale, false)
    }

    fn with_scale(&self, scale: i32, round: bool) -> Self {
        let scale = scale.clamp(-i32::from(DECIMAL_MAX_PRECISION) - 1, i32::from(DECIMAL_MAX_SCALE));
        let down = i32::from(self.scale) - scale;
        if down <= 0 {
            return Self { coefficient: self.scaled(scale as u8), scale: scale as u8 };
        }
        let cut = match (self.coefficient.as_i128(), pow10(down as u32)) {
            (Some(value), Some(factor)) => {
                let quotient = value / factor;
                // `2 * rest >= factor` without overflow.
                let rest = (value % factor).unsigned_abs();
                let up = round && rest >= factor.unsigned_abs() - rest;
                Coefficient::small(if up { quotient + value.signum() } else { quotient })
            }
            _ => {
                let factor = big_pow10(down as u32);
                let value = self.coefficient.to_big();
                Coefficient::from_big(if round { div_round(value, &factor) } else { value / factor })
            }
        };
        let value = Self { coefficient: cut, scale: scale.max(0) as u8 };
        if scale >= 0 {
            return value;
        }
        Self::from_big(value.coefficient.to_big() * big_pow10(scale.unsigned_abs()), 0)
    }

    /// Largest integer not above.
    pub fn floor(&self) -> Self {
        let cut = self.truncate(0);
        if self.is_negative() && cut != *self { cut.sub(&Self::new(1, 0)).unwrap_or(cut) } else { cut }
    }

    /// Smallest integer not below.
    pub fn ceil(&self) -> Self {
        self.neg().floor().neg()
    }
}

/// a / b, half away from zero.
fn div_round(a: BigInt, b: &BigInt) -> BigInt {
    let quotient = &a / b;
    let rest = &a - &quotient * b;
    if (rest.magnitude() * 2u8) < *b.magnitude() {
        return quotient;
    }
    if (a.sign() == Sign::Minus) == (b.sign() == Sign::Minus) { quotient + 1 } else { quotient - 1 }
}

fn parse_exponent(text: &[u8]) -> Option<(i64, usize)> {
    if !matches!(text.first(), Some(b'e' | b'E')) {
        return None;
    }
    let mut at = 1 + usize::from(matches!(text.get(1), Some(b'+' | b'-')));
    let negative = text.get(1) == Some(&b'-');
    let start = at;
    let mut value: i64 = 0;
    while let Some(byte) = text.get(at).filter(|byte| byte.is_ascii_digit()) {
        value = (value * 10 + i64::from(byte - b'0')).min(100_000);
        at += 1;
    }
    (at > start).then_some((if negative { -value } else { value }, at))
}

impl PartialEq for Decimal {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}
impl Eq for Decimal {}
impl PartialOrd for Decimal {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Decimal {
    fn cmp(&self, other: &Self) -> Ordering {
        let (a, b, _) = self.aligned(other);
        match (a.as_i128(), b.as_i128()) {
            (Some(a), Some(b)) => a.cmp(&b),
            _ => a.to_big().cmp(&b.to_big()),
        }
    }
}

impl From<i64> for Decimal {
    fn from(value: i64) -> Self {
        Self::new(i128::from(value), 0)
    }
}
impl From<u64> for Decimal {
    fn from(value: u64) -> Self {
        Self::new(i128::from(value), 0)
    }
}

impl std::fmt::Display for Decimal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let digits = match self.coefficient.as_i128() {
            Some(value) => value.unsigned_abs().to_string(),
            None => self.coefficient.to_big().magnitude().to_string(),
        };
        if self.is_negative() {
            f.write_str("-")?;
        }
        let scale = usize::from(self.scale);
        if scale == 0 {
            return f.write_str(&digits);
        }
        let padded = format!("{digits:0>width$}", width = scale + 1);
        let (whole, fraction) = padded.split_at(padded.len() - scale);
        write!(f, "{whole}.{fraction}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn d(text: &str) -> Decimal {
        Decimal::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn arithmetic_keeps_mysql_scales() {
        assert_eq!(d("1.1").mul(&d("1.1")).unwrap().to_string(), "1.21");
        assert_eq!(d("1").div(&d("2"), 4).unwrap().to_string(), "0.5000");
        assert_eq!(d("2").div(&d("3"), 4).unwrap().to_string(), "0.6667");
        assert_eq!(d("-2").div(&d("3"), 4).unwrap().to_string(), "-0.6667");
        assert_eq!(d("5.5").rem(&d("-2")).unwrap().to_string(), "1.5");
        assert_eq!(d("0.1").add(&d("0.25")).unwrap().to_string(), "0.35");
        assert_eq!(d("-7").int_div(&d("2")).unwrap().to_string(), "-3");
    }

    #[test]
    fn rounding_is_half_away_from_zero() {
        for (text, scale, expected) in [
            ("2.5", 0, "3"),
            ("-2.5", 0, "-3"),
            ("1.245", 2, "1.25"),
            ("155", -1, "160"),
            ("0.4", 0, "0"),
            ("1.5", 3, "1.500"),
        ] {
            assert_eq!(d(text).round(scale).to_string(), expected);
        }
        assert_eq!(d("-1.9").truncate(0).to_string(), "-1");
        assert_eq!(d("-1.1").floor().to_string(), "-2");
        assert_eq!(d("1.1").ceil().to_string(), "2");
    }

    #[test]
    fn sixty_five_digits() {
        let nines = "9".repeat(65);
        assert_eq!(d(&nines).to_string(), nines);
        assert!(d(&nines).add(&d("1")).is_none());
        assert_eq!(Decimal::parse(b"1e70").unwrap().to_string(), nines);
        assert_eq!(Decimal::parse(b"1e-70").unwrap().round(0).to_string(), "0");
        let value = d("12345678901234567890123456789012345678901234567890.5");
        assert_eq!(Decimal::from_be_bytes(&value.to_be_bytes(), 1), value);
    }

    proptest! {
        #[test]
        fn any_bytes_parse_without_panic(text in proptest::collection::vec(any::<u8>(), 0..40)) {
            let _ = Decimal::parse_prefix(&text);
        }
        #[test]
        fn text_round_trips(text in "-?[1-9][0-9]{0,33}\\.[0-9]{1,30}") {
            prop_assert_eq!(d(&text).to_string(), text);
        }
        #[test]
        fn add_then_sub_returns(a in "-?[0-9]{1,40}\\.[0-9]{1,10}", b in "-?[0-9]{1,40}\\.[0-9]{1,10}") {
            prop_assert_eq!(d(&a).add(&d(&b)).unwrap().sub(&d(&b)).unwrap(), d(&a));
        }
    }
}
