//! Owns comparable byte keys of values, for ORDER BY, GROUP BY and DISTINCT: byte order is SQL order, byte equality is
//! SQL equality. Keys live for one statement; nothing is stored.

use crate::{
    row::{pack_date, pack_datetime},
    sql::{collation::Collation, value::Value},
};

/// Scale and width at which decimals are compared: 65 digits and 30 decimals fit.
const DECIMAL_SCALE: i32 = 30;
const DECIMAL_WIDTH: usize = 44;

/// Appends the key of one value. Text is ordered by `collation`; NULL is lowest.
pub fn push(value: &Value, collation: Collation, descending: bool, out: &mut Vec<u8>) {
    let start = out.len();
    out.push(u8::from(!value.is_null()));
    match value {
        Value::Null => {}
        Value::Int(n) => push_integer((*n).into(), out),
        Value::UInt(n) => push_integer((*n).into(), out),
        Value::Float(n) => push_double(f64::from(*n), out),
        Value::Double(n) => push_double(*n, out),
        Value::Decimal(d) => {
            let bytes = d.round(DECIMAL_SCALE).to_be_bytes();
            let negative = bytes.first().is_some_and(|b| b & 0x80 != 0);
            let at = out.len();
            out.resize(at + DECIMAL_WIDTH.saturating_sub(bytes.len()), if negative { 0xff } else { 0 });
            out.extend_from_slice(&bytes);
            out[at] ^= 0x80;
        }
        Value::Str(text) => push_text(text, collation, out),
        Value::Bin(bytes) | Value::Json(bytes) => push_text(bytes, Collation::Binary, out),
        Value::Date(d) => out.extend_from_slice(&(u64::from(pack_date(*d)) << 37).to_be_bytes()),
        Value::DateTime(t) => out.extend_from_slice(&pack_datetime(t).to_be_bytes()),
        Value::Time(t) => out.extend_from_slice(&((t.micros as u64) ^ 1 << 63).to_be_bytes()),
    }
    if descending {
        for byte in &mut out[start..] {
            *byte = !*byte;
        }
    }
}

fn push_integer(n: i128, out: &mut Vec<u8>) {
    // i64 and u64 together need 65 bits.
    out.push(u8::from(n >= 0));
    out.extend_from_slice(&(n as u64).to_be_bytes());
}

fn push_double(n: f64, out: &mut Vec<u8>) {
    let bits = if n == 0.0 { 0 } else { n.to_bits() };
    let mask = if bits >> 63 == 1 { u64::MAX } else { 1 << 63 };
    out.extend_from_slice(&(bits ^ mask).to_be_bytes());
}

fn push_text(text: &[u8], collation: Collation, out: &mut Vec<u8>) {
    collation.sort_key_terminated(text, out);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::sql::decimal::Decimal;

    fn key(value: &Value, descending: bool) -> Vec<u8> {
        let mut out = Vec::new();
        push(value, Collation::Binary, descending, &mut out);
        out
    }

    proptest! {
        #[test]
        fn integers_order(a: i64, b: u64) {
            let expected = i128::from(a).cmp(&i128::from(b));
            prop_assert_eq!(key(&Value::Int(a), false).cmp(&key(&Value::UInt(b), false)), expected);
            prop_assert_eq!(key(&Value::Int(a), true).cmp(&key(&Value::UInt(b), true)), expected.reverse());
        }

        #[test]
        fn doubles_order(a: f64, b: f64) {
            prop_assume!(!a.is_nan() && !b.is_nan());
            let expected = a.partial_cmp(&b).unwrap();
            prop_assert_eq!(key(&Value::Double(a), false).cmp(&key(&Value::Double(b), false)), expected);
        }

        #[test]
        fn decimals_order(a in -1_000_000i128..1_000_000, b in -1_000_000i128..1_000_000, s in 0u8..6) {
            let (x, y) = (Decimal::new(a, s), Decimal::new(b, s));
            prop_assert_eq!(key(&Value::Decimal(x), false).cmp(&key(&Value::Decimal(y), false)), a.cmp(&b));
        }

        #[test]
        fn bytes_order(a: Vec<u8>, b: Vec<u8>) {
            let (x, y) = (Value::Bin(a.clone().into()), Value::Bin(b.clone().into()));
            prop_assert_eq!(key(&x, false).cmp(&key(&y, false)), a.cmp(&b));
        }
    }

    #[test]
    fn null_is_lowest_ascending_and_highest_descending() {
        assert!(key(&Value::Null, false) < key(&Value::Int(i64::MIN), false));
        assert!(key(&Value::Null, true) > key(&Value::Int(i64::MIN), true));
    }
}
