//! Sessions there and back, and bytes that are none.

use proptest::prelude::*;

use super::*;
use crate::{
    session::NextTransaction,
    sql::{
        ast::Isolation,
        value::{Date, DateTime},
    },
};

fn read(mut bytes: &[u8]) -> Result<Handover, HandoverError> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(Handover::read(&mut bytes))
}

fn everything() -> Handover {
    let date = Date { year: 2026, month: 2, day: 29 };
    let values = [
        Value::Null,
        Value::Int(-5),
        Value::UInt(u64::MAX),
        Value::Float(1.5),
        Value::Double(-0.1),
        Value::Decimal(Decimal::parse(b"-12345678901234567890123456789012345678901234567890.123").unwrap()),
        Value::str("é"),
        Value::Bin(Bytes::from_static(&[0, 255])),
        Value::Date(date),
        Value::Time(Time { micros: -7 }),
        Value::DateTime(DateTime { date, hour: 23, minute: 59, second: 58, micros: 999_999 }),
        Value::Json(Bytes::from_static(b"{}")),
    ];
    let source = |text: &str| Source { text: text.as_bytes().into(), mode: "ANSI_QUOTES".into() };
    Handover {
        capabilities: 0x0102_0304,
        collation: 255,
        found_rows: true,
        user: "root".into(),
        host: "localhost".into(),
        client: "127.0.0.1:5".into(),
        tls: Some(("cipher".into(), "TLSv1.3".into())),
        session: Carried {
            database: Some("shop".into()),
            variables: vec![("autocommit".into(), "ON".into())],
            user_variables: values.into_iter().enumerate().map(|(i, value)| (format!("v{i}"), value)).collect(),
            last_insert_id: 7,
            row_count: -1,
            found_rows: 9,
            next: NextTransaction { isolation: Some(Isolation::ReadCommitted), read_only: Some(true) },
            multi_statements: true,
            last_statement: 3,
            prepared: vec![(3, source("SELECT ?"))],
            named: vec![("s".into(), source("SELECT 1"))],
        },
        bound: vec![(
            3,
            BoundParts {
                types: vec![ParamType { type_byte: 8, unsigned: true }],
                long_data: vec![(0, vec![1, 2, 3])],
                overflow: false,
            },
        )],
    }
}

#[test]
fn golden() {
    let bytes = Handover { user: "u".into(), ..Handover::default() }.encode().unwrap();
    assert_eq!(bytes[..12], *b"HFSM\x01\0\0\0\x31\0\0\0");
    let mut body = vec![0; 7];
    body.extend_from_slice(b"\x01u");
    body.resize(49, 0);
    assert_eq!(bytes[16..], body);
    assert_eq!(bytes[12..16], checksum(&bytes[..12], &body).to_le_bytes());
}

#[test]
fn a_session_comes_back_as_it_was() {
    for handover in [Handover::default(), everything()] {
        assert_eq!(read(&handover.encode().unwrap()).unwrap(), handover);
    }
}

#[test]
fn what_is_damaged_newer_or_too_long_is_refused() {
    let bytes = everything().encode().unwrap();
    for at in 0..bytes.len() {
        let mut bad = bytes.clone();
        bad[at] ^= 0x10;
        assert!(read(&bad).is_err(), "flip at {at}");
    }
    for len in 0..bytes.len() {
        assert!(read(&bytes[..len]).is_err(), "cut at {len}");
    }
    let mut newer = bytes.clone();
    newer[4] = 9;
    assert!(matches!(read(&newer), Err(HandoverError::Newer(9))));
    let mut long = bytes;
    long[8..12].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(matches!(read(&long), Err(HandoverError::TooLong(u32::MAX))));
    let mut large = Handover::default();
    large.session.user_variables.push(("x".into(), Value::Bin(vec![0; BODY_MAX].into())));
    assert_eq!(large.encode().unwrap_err().code, 1105);
}

proptest! {
    #[test]
    fn any_body_decodes_or_is_refused(body in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Handover::decode_body(&body);
    }
}
