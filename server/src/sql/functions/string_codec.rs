//! String functions that encode: HEX, BASE64, hashes, QUOTE, FORMAT, number bases, compression checks.

use md5::Digest as _;

use super::{Call, Function, function};
use crate::sql::collation::Collation;
use crate::sql::convert::to_bits;
use crate::sql::error::Result;
use crate::sql::expr::Expr;
use crate::sql::infer::text_length;
use crate::sql::types::DataType;
use crate::sql::value::Value;

fn text(length: u32) -> DataType {
    DataType::varchar(length, Collation::default())
}

fn long(_: &[Expr]) -> DataType {
    DataType::text(Collation::default())
}

fn bytes(args: &[Expr]) -> DataType {
    let length = args.first().map_or(0, |arg| text_length(&arg.ty).saturating_mul(4));
    if length > 65_535 { DataType::text(Collation::Binary) } else { DataType::varchar(length, Collation::Binary) }
}

pub(super) const TABLE: &[Function] = &[
    function("HEX", 1, 1, long, |call| {
        Ok(Value::str(match call.value(0) {
            value if value.is_number() => format!("{:X}", to_bits(value, call.cx).unwrap_or(0)),
            _ => hex(&call.text(0)).to_ascii_uppercase(),
        }))
    }),
    function("UNHEX", 1, 1, bytes, |call| {
        Ok(unhex(&call.text(0)).map_or(Value::Null, |bytes| Value::Bin(bytes.into())))
    }),
    function(
        "BIN",
        1,
        1,
        |_| text(64),
        |call| Ok(Value::str(format!("{:b}", to_bits(call.value(0), call.cx).unwrap_or(0)))),
    ),
    function(
        "OCT",
        1,
        1,
        |_| text(64),
        |call| Ok(Value::str(format!("{:o}", to_bits(call.value(0), call.cx).unwrap_or(0)))),
    ),
    function("CONV", 3, 3, |_| text(64), conv),
    function("TO_BASE64", 1, 1, long, |call| Ok(Value::str(to_base64(&call.text(0))))),
    function("FROM_BASE64", 1, 1, bytes, |call| {
        Ok(from_base64(&call.text(0)).map_or(Value::Null, |bytes| Value::Bin(bytes.into())))
    }),
    function("MD5", 1, 1, |_| text(32), |call| Ok(Value::str(hex(&md5::Md5::digest(&*call.text(0)))))),
    function(
        "SHA1",
        1,
        1,
        |_| text(40),
        |call| Ok(Value::str(hex(&<sha1::Sha1 as sha1::Digest>::digest(&*call.text(0))))),
    ),
    function("SHA2", 2, 2, |_| text(128), sha2),
    function("CRC32", 1, 1, |_| DataType::UBIGINT, |call| Ok(Value::UInt(u64::from(crc32(&call.text(0)))))),
    function("QUOTE", 1, 1, long, quote).sees_null(),
    function("FORMAT", 2, 3, long, format_number),
    function(
        "UUID_TO_BIN",
        1,
        2,
        |_| DataType::varchar(16, Collation::Binary),
        |call| {
            let digits: Vec<u8> =
                call.text(0).iter().copied().filter(|byte| !matches!(byte, b'-' | b'{' | b'}')).collect();
            match unhex(&digits).filter(|bytes| bytes.len() == 16) {
                Some(bytes) => Ok(Value::Bin(if call.int(1) != 0 { swapped(&bytes) } else { bytes }.into())),
                None => Err(crate::sql::error::sql_error(
                    1411,
                    format!("Incorrect string value: '{}' for function uuid_to_bin", call.string(0)),
                )),
            }
        },
    ),
    function(
        "BIN_TO_UUID",
        1,
        2,
        |_| text(36),
        |call| {
            let raw = call.text(0);
            if raw.len() != 16 {
                let shown = call.string(0);
                return Err(crate::sql::error::sql_error(
                    1411,
                    format!("Incorrect string value: '{shown}' for function bin_to_uuid"),
                ));
            }
            let digits = hex(&if call.int(1) != 0 { unswapped(&raw) } else { raw.into_owned() });
            let parts = [&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]];
            Ok(Value::str(parts.join("-")))
        },
    ),
    function(
        "IS_UUID",
        1,
        1,
        |_| DataType::BOOL,
        |call| {
            let text = call.string(0);
            let plain: String = text.trim_matches(['{', '}']).replace('-', "");
            Ok(Value::bool(
                plain.len() == 32
                    && plain.bytes().all(|byte| byte.is_ascii_hexdigit())
                    && matches!(text.len(), 32 | 36 | 38),
            ))
        },
    ),
    function(
        "INET_ATON",
        1,
        1,
        |_| DataType::UBIGINT,
        |call| {
            let address: Option<std::net::Ipv4Addr> = call.string(0).parse().ok();
            Ok(address.map_or(Value::Null, |address| Value::UInt(u64::from(u32::from(address)))))
        },
    ),
    function(
        "INET_NTOA",
        1,
        1,
        |_| text(15),
        |call| {
            Ok(u32::try_from(call.int(0))
                .map_or(Value::Null, |number| Value::str(std::net::Ipv4Addr::from(number).to_string())))
        },
    ),
];

fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes
        .iter()
        .flat_map(|byte| [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]])
        .map(char::from)
        .collect()
}

fn unhex(digits: &[u8]) -> Option<Vec<u8>> {
    let value = |byte: &u8| char::from(*byte).to_digit(16).map(|digit| digit as u8);
    let (lead, pairs) = digits.split_at(digits.len() % 2);
    let mut out: Vec<u8> = lead.iter().map(value).collect::<Option<_>>()?;
    for pair in pairs.chunks(2) {
        let [high, low] = pair else { return None };
        out.push(value(high)? << 4 | value(low)?);
    }
    Some(out)
}

/// The time parts of a version 1 UUID, most significant first.
fn swapped(b: &[u8]) -> Vec<u8> {
    [&b[6..8], &b[4..6], &b[0..4], &b[8..]].concat()
}

fn unswapped(b: &[u8]) -> Vec<u8> {
    [&b[4..8], &b[2..4], &b[0..2], &b[8..]].concat()
}

fn conv(call: &Call<'_>) -> Result<Value> {
    let (from, to) = (call.int(1), call.int(2));
    let (Ok(from_base), Ok(to_base)) = (u32::try_from(from.abs()), u32::try_from(to.abs())) else {
        return Ok(Value::Null);
    };
    if !(2..=36).contains(&from_base) || !(2..=36).contains(&to_base) {
        return Ok(Value::Null);
    }
    let source = call.string(0);
    let source = source.trim_start();
    let negative = source.starts_with('-');
    let mut number: u128 = 0;
    for digit in source.trim_start_matches(['-', '+']).chars().map_while(|ch| ch.to_digit(from_base)) {
        number = (number * u128::from(from_base) + u128::from(digit)).min(u128::from(u64::MAX));
    }
    let mut number = number as u64;
    if negative {
        number = (number as i64).wrapping_neg() as u64;
    }
    let signed = to < 0 && (number as i64) < 0;
    let mut rest = if signed { (number as i64).unsigned_abs() } else { number };
    let mut digits = Vec::new();
    loop {
        let digit = char::from_digit((rest % u64::from(to_base)) as u32, to_base).unwrap_or('0');
        digits.push(digit.to_ascii_uppercase());
        rest /= u64::from(to_base);
        if rest == 0 {
            break;
        }
    }
    if signed {
        digits.push('-');
    }
    Ok(Value::str(digits.into_iter().rev().collect::<String>()))
}

const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Lines of 76 characters, as MySQL writes them.
fn to_base64(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len() * 4 / 3 + 4);
    for (index, chunk) in bytes.chunks(3).enumerate() {
        if index > 0 && index % 19 == 0 {
            out.push('\n');
        }
        let word = chunk.iter().fold(0u32, |word, byte| word << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for position in 0..4 {
            let digit = BASE64[(word >> (18 - 6 * position) & 63) as usize];
            out.push(if position <= chunk.len() { char::from(digit) } else { '=' });
        }
    }
    out
}

fn from_base64(text: &[u8]) -> Option<Vec<u8>> {
    let digits: Vec<u8> = text.iter().copied().filter(|byte| !byte.is_ascii_whitespace()).collect();
    if !digits.len().is_multiple_of(4) {
        return None;
    }
    let mut out = Vec::with_capacity(digits.len() / 4 * 3);
    for (index, chunk) in digits.chunks(4).enumerate() {
        let padding = chunk.iter().rev().take_while(|byte| **byte == b'=').count();
        if padding > 2 || (padding > 0 && (index + 1) * 4 != digits.len()) {
            return None;
        }
        let mut word = 0u32;
        for byte in chunk {
            let digit = if *byte == b'=' { 0 } else { BASE64.iter().position(|known| known == byte)? as u32 };
            word = word << 6 | digit;
        }
        out.extend_from_slice(&word.to_be_bytes()[1..4 - padding]);
    }
    Some(out)
}

fn sha2(call: &Call<'_>) -> Result<Value> {
    use sha2::{Digest as _, Sha224, Sha256, Sha384, Sha512};
    let input = call.text(0);
    Ok(Value::str(match call.int(1) {
        0 | 256 => hex(&Sha256::digest(&*input)),
        224 => hex(&Sha224::digest(&*input)),
        384 => hex(&Sha384::digest(&*input)),
        512 => hex(&Sha512::digest(&*input)),
        _ => return Ok(Value::Null),
    }))
}

/// The zlib polynomial, bit by bit: rare, so no table.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 })
    })
}

fn quote(call: &Call<'_>) -> Result<Value> {
    if call.value(0).is_null() {
        return Ok(Value::from("NULL"));
    }
    let text = call.text(0);
    let mut out = vec![b'\''];
    for byte in text.iter() {
        match byte {
            b'\'' | b'\\' => out.extend_from_slice(&[b'\\', *byte]),
            0 => out.extend_from_slice(b"\\0"),
            26 => out.extend_from_slice(b"\\Z"),
            other => out.push(*other),
        }
    }
    out.push(b'\'');
    Ok(call.result(out))
}

/// FORMAT(number, decimals): groups of three, in the en_US locale.
fn format_number(call: &Call<'_>) -> Result<Value> {
    let decimals = call.int(1).clamp(0, 30);
    let rounded = match call.value(0) {
        Value::Float(_) | Value::Double(_) | Value::Str(_) | Value::Bin(_) => {
            crate::sql::decimal::Decimal::from_f64(call.f64(0)).round(decimals as i32)
        }
        _ => call.decimal(0).round(decimals as i32),
    };
    let text = rounded.to_string();
    let (sign, digits) = text.strip_prefix('-').map_or(("", text.as_str()), |rest| ("-", rest));
    let (whole, fraction) = digits.split_once('.').map_or((digits, None), |(whole, rest)| (whole, Some(rest)));
    let mut out = sign.to_owned();
    for (index, digit) in whole.chars().enumerate() {
        if index > 0 && (whole.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    if let Some(fraction) = fraction {
        out.push('.');
        out.push_str(fraction);
    }
    Ok(Value::str(out))
}
