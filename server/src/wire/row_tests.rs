//! Cells by column type, against bytes written down by hand.

use bytes::Bytes;

use super::*;

fn column(type_byte: u8, flags: u16, decimals: u8) -> ColumnFormat {
    ColumnFormat::of(&Column { type_byte, flags, decimals, ..Column::default() })
}

/// Encodes one row; returns its payload and the fault.
fn encode(formats: &[ColumnFormat], values: &[Value], binary: bool) -> (Vec<u8>, Option<String>) {
    let (mut buf, mut seq, mut fault) = (Vec::new(), 0, None);
    let mut row = RowWriter::new(&mut buf, &mut seq, &mut fault, formats, binary);
    for value in values {
        row.value(value);
    }
    row.finish();
    (buf.split_off(4), fault)
}

fn text(format: ColumnFormat, value: Value) -> String {
    let (row, fault) = encode(&[format], &[value], false);
    assert_eq!(fault, None);
    assert_eq!(usize::from(row[0]), row.len() - 1);
    String::from_utf8(row[1..].to_vec()).unwrap()
}

fn binary(format: ColumnFormat, value: Value) -> Vec<u8> {
    let (row, fault) = encode(&[format], &[value], true);
    assert_eq!(fault, None);
    assert_eq!(&row[..2], &[0, 0]);
    row[2..].to_vec()
}

const AT: DateTime =
    DateTime { date: Date { year: 2024, month: 2, day: 29 }, hour: 23, minute: 5, second: 9, micros: 120_000 };

#[test]
fn integers() {
    assert_eq!(text(column(ty::LONGLONG, 0, 0), Value::Int(i64::MIN)), "-9223372036854775808");
    assert_eq!(text(column(ty::LONGLONG, 32, 0), Value::UInt(u64::MAX)), "18446744073709551615");
    assert_eq!(text(column(ty::LONG, 0, 0), Value::Int(0)), "0");
    assert_eq!(binary(column(ty::LONG, 0, 0), Value::Int(-2)), (-2i32).to_le_bytes());
    assert_eq!(binary(column(ty::TINY, 32, 0), Value::UInt(255)), [255]);
    assert_eq!(binary(column(ty::SHORT, 0, 0), Value::Int(-300)), (-300i16).to_le_bytes());
    assert_eq!(binary(column(ty::YEAR, 32, 0), Value::UInt(2024)), 2024u16.to_le_bytes());
    assert_eq!(binary(column(ty::LONGLONG, 32, 0), Value::UInt(u64::MAX)), u64::MAX.to_le_bytes());
    assert_eq!(binary(column(ty::VAR_STRING, 0, 0), Value::Int(12)), b"\x0212");
}

#[test]
fn temporals_as_text() {
    assert_eq!(text(column(ty::DATE, 0, 0), Value::Date(AT.date)), "2024-02-29");
    assert_eq!(text(column(ty::DATETIME, 0, 0), Value::DateTime(AT)), "2024-02-29 23:05:09");
    assert_eq!(text(column(ty::DATETIME, 0, 3), Value::DateTime(AT)), "2024-02-29 23:05:09.120");
    let micros = -((838 * 3600 + 59 * 60 + 59) * 1_000_000i64);
    assert_eq!(text(column(ty::TIME, 0, 0), Value::Time(Time { micros })), "-838:59:59");
    assert_eq!(text(column(ty::TIME, 0, 6), Value::Time(Time { micros: 1 })), "00:00:00.000001");
    assert_eq!(text(column(ty::DATE, 0, 0), Value::Date(ZERO_DATE)), "0000-00-00");
}

#[test]
fn temporals_as_binary() {
    assert_eq!(
        binary(column(ty::DATETIME, 0, 6), Value::DateTime(AT)),
        [11, 0xe8, 7, 2, 29, 23, 5, 9, 0xc0, 0xd4, 1, 0]
    );
    let whole = DateTime { micros: 0, ..AT };
    assert_eq!(binary(column(ty::TIMESTAMP, 0, 0), Value::DateTime(whole)), [7, 0xe8, 7, 2, 29, 23, 5, 9]);
    assert_eq!(binary(column(ty::DATE, 0, 0), Value::Date(AT.date)), [4, 0xe8, 7, 2, 29]);
    assert_eq!(binary(column(ty::DATE, 0, 0), Value::Date(ZERO_DATE)), [0]);
    let micros = -(26 * 3_600_000_000 + 61_000_000i64);
    assert_eq!(binary(column(ty::TIME, 0, 0), Value::Time(Time { micros })), [8, 1, 1, 0, 0, 0, 2, 1, 1]);
    assert_eq!(binary(column(ty::TIME, 0, 0), Value::Time(Time { micros: 0 })), [0]);
}

#[test]
fn floats() {
    let any = NOT_FIXED_DECIMALS;
    for (n, shown) in [
        (0.0, "0"),
        (-0.0, "-0"),
        (0.1, "0.1"),
        (-1.5, "-1.5"),
        (1e14, "100000000000000"),
        (1e15, "1e15"),
        (1.25e20, "1.25e20"),
        (1e-15, "0.000000000000001"),
        (1e-16, "1e-16"),
        (123456.789, "123456.789"),
        (f64::MAX, "1.7976931348623157e308"),
    ] {
        assert_eq!(text(column(ty::DOUBLE, 0, any), Value::Double(n)), shown);
    }
    assert_eq!(text(column(ty::FLOAT, 0, any), Value::Float(0.1)), "0.1");
    assert_eq!(text(column(ty::FLOAT, 0, any), Value::Float(16_777_216.0)), "16777200");
    assert_eq!(text(column(ty::DOUBLE, 0, 2), Value::Double(1.0)), "1.00");
    assert_eq!(binary(column(ty::DOUBLE, 0, any), Value::Double(2.5)), 2.5f64.to_le_bytes());
    assert_eq!(binary(column(ty::FLOAT, 0, any), Value::Float(2.5)), 2.5f32.to_le_bytes());
    assert_eq!(binary(column(ty::DOUBLE, 0, any), Value::Int(2)), 2f64.to_le_bytes());
}

#[test]
fn nulls_and_strings() {
    let formats = [column(ty::VAR_STRING, 0, 0); 8];
    let mut values = vec![Value::Str(Bytes::from_static(b"ab")); 8];
    values[0] = Value::Null;
    values[6] = Value::Null;
    let (row, fault) = encode(&formats, &values, true);
    assert_eq!((&row[..3], fault), (&[0, 0b0000_0100, 0b0000_0001][..], None));
    assert_eq!(row.len(), 3 + 6 * 3);
    let (row, _) = encode(&formats[..2], &[Value::Null, Value::Bin(Bytes::new())], false);
    assert_eq!(row, [0xfb, 0]);
}

#[test]
fn a_value_its_column_cannot_carry_is_a_fault_not_a_lie() {
    let long = column(ty::LONG, 0, 0);
    for (format, value) in [
        (long, Value::Str(Bytes::from_static(b"x"))),
        (long, Value::Int(1 << 40)),
        (column(ty::DATE, 0, 0), Value::Int(1)),
        (column(ty::TIME, 0, 0), Value::DateTime(AT)),
    ] {
        assert!(encode(&[format], &[value], true).1.is_some());
    }
    assert!(encode(&[long, long], &[Value::Int(1)], false).1.is_some());
    assert!(encode(&[long], &[Value::Int(1), Value::Int(2)], false).1.is_some());
}
