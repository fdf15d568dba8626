//! FORMAT: what travels when a session moves to the leader: who it is, and all that later statements could notice.
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 4 | magic `HFSM` |
//! | 4 | 1 | version, 1 |
//! | 5 | 3 | reserved, 0 |
//! | 8 | 4 | length of the body |
//! | 12 | 4 | CRC-32 of the bytes before, then of the body |
//! | 16 | | body |
//!
//! The body, in the integers and strings of the MySQL protocol (`n`: length-encoded integer, `s`: string with its length
//! before it, `list`: `n` and so many): client capabilities (4), collation (2), flags (1: FOUND_ROWS, 2: multi-statements,
//! 4: TLS, 8: in a database), user `s`, host `s`, client address `s`, TLS cipher `s` and version `s`, database `s`,
//! LAST_INSERT_ID (8), ROW_COUNT (8), FOUND_ROWS (8), SET TRANSACTION for the next one (isolation, access: 1 each, 0 is none),
//! number of the last statement (4), then lists: system variables (name `s`, text `s`), user variables (name `s`, value), prepared
//! statements (number (4), text `s`, sql_mode `s`), named ones (name `s`, text `s`, sql_mode `s`), parameters (statement (4),
//! overflow (1), list of types (type and sign, 1 each), list of long data (parameter (2), bytes `s`)).
//!
//! A value is a tag and its content: 0 NULL, 1 signed (8), 2 unsigned (8), 3 FLOAT (4), 4 DOUBLE (8), 5 DECIMAL (scale (1), big-endian
//! two's complement `s`), 6 text `s`, 7 binary `s`, 8 DATE (4), 9 TIME (8), 10 DATETIME (8), 11 JSON `s`; dates are packed as in rows.

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::{
    errmap::error,
    row::{pack_date, pack_datetime, unpack_date, unpack_datetime},
    session::{Carried, Source},
    sql::{
        ast::Isolation,
        types::DECIMAL_MAX_SCALE,
        value::{Decimal, Time, Value},
    },
    wire::{
        codec::{Malformed, Put, Reader},
        params::{BoundParts, ParamType},
        result::SqlError,
    },
};

const MAGIC: [u8; 4] = *b"HFSM";
const VERSION: u8 = 1;
const HEAD: usize = 16;
/// Most bytes of a session that moves.
const BODY_MAX: usize = 64 << 20;
/// Bytes for which memory is taken before they have come.
const TRUST: usize = 64 << 10;
/// Bytes of the longest DECIMAL's coefficient, and some.
const DECIMAL_BYTES_MAX: usize = 40;

const FOUND_ROWS: u8 = 1;
const MULTI: u8 = 2;
const TLS: u8 = 4;
const DATABASE: u8 = 8;

/// A session on its way to the leader.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Handover {
    /// Capabilities that client and follower have.
    pub capabilities: u32,
    /// Number of the client's collation.
    pub collation: u16,
    /// CLIENT_FOUND_ROWS.
    pub found_rows: bool,
    /// Account name, which the follower has checked.
    pub user: String,
    /// The host part of USER().
    pub host: String,
    /// The client's address, for the process list.
    pub client: String,
    /// TLS cipher and version of the client's connection.
    pub tls: Option<(String, String)>,
    /// What the session remembers.
    pub session: Carried,
    /// Parameters bound to prepared statements.
    pub bound: Vec<(u32, BoundParts)>,
}

/// Why bytes are no handover.
#[derive(Debug, thiserror::Error)]
pub enum HandoverError {
    /// The stream ended or failed.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// Something else came.
    #[error("what came is no session")]
    Magic,
    /// Of a later release.
    #[error("a session in version {0} of its form, newer than this release's {VERSION}")]
    Newer(u8),
    /// Damaged on its way.
    #[error("a session whose checksum does not match")]
    Checksum,
    /// More than is taken.
    #[error("a session of {0} bytes; at most {BODY_MAX} are taken")]
    TooLong(u32),
    /// The body does not decode.
    #[error(transparent)]
    Malformed(#[from] Malformed),
}

impl Handover {
    /// Its bytes; 1105 if there are too many.
    pub fn encode(&self) -> Result<Vec<u8>, SqlError> {
        let mut out = vec![0; HEAD];
        self.encode_body(&mut out);
        let body = out.len() - HEAD;
        if body > BODY_MAX {
            let what = format!(
                "The session can't be forwarded to the leader: its user variables, prepared statements and long data take \
                 {body} bytes, at most {BODY_MAX} can travel"
            );
            return Err(error(1105, what));
        }
        out[..4].copy_from_slice(&MAGIC);
        out[4] = VERSION;
        out[8..12].copy_from_slice(&(body as u32).to_le_bytes());
        let crc = checksum(&out[..12], &out[HEAD..]);
        out[12..HEAD].copy_from_slice(&crc.to_le_bytes());
        Ok(out)
    }

    /// Reads one. Memory grows with what has come, not with what was announced.
    pub async fn read(from: &mut (impl AsyncRead + Unpin)) -> Result<Self, HandoverError> {
        let mut head = [0; HEAD];
        from.read_exact(&mut head).await?;
        let [m0, m1, m2, m3, version, _, _, _, l0, l1, l2, l3, c0, c1, c2, c3] = head;
        if [m0, m1, m2, m3] != MAGIC {
            return Err(HandoverError::Magic);
        }
        if version > VERSION {
            return Err(HandoverError::Newer(version));
        }
        let len = u32::from_le_bytes([l0, l1, l2, l3]);
        if len as usize > BODY_MAX {
            return Err(HandoverError::TooLong(len));
        }
        let mut body = Vec::with_capacity((len as usize).min(TRUST));
        if from.take(len.into()).read_to_end(&mut body).await? < len as usize {
            return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into());
        }
        if checksum(&head[..12], &body) != u32::from_le_bytes([c0, c1, c2, c3]) {
            return Err(HandoverError::Checksum);
        }
        Ok(Self::decode_body(&body)?)
    }

    fn encode_body(&self, out: &mut Vec<u8>) {
        let session = &self.session;
        out.put_u32(self.capabilities);
        out.put_u16(self.collation);
        let flag = |set: bool, bit: u8| if set { bit } else { 0 };
        out.put_u8(
            flag(self.found_rows, FOUND_ROWS)
                | flag(session.multi_statements, MULTI)
                | flag(self.tls.is_some(), TLS)
                | flag(session.database.is_some(), DATABASE),
        );
        let (cipher, version) = self.tls.clone().unwrap_or_default();
        let database = session.database.clone().unwrap_or_default();
        for text in [&self.user, &self.host, &self.client, &cipher, &version, &database] {
            out.put_lenenc_bytes(text.as_bytes());
        }
        out.put_u64(session.last_insert_id);
        out.put_u64(session.row_count as u64);
        out.put_u64(session.found_rows);
        out.put_u8(isolation_code(session.next.isolation));
        out.put_u8(session.next.read_only.map_or(0, |read_only| 1 + u8::from(read_only)));
        out.put_u32(session.last_statement);
        put_list(out, &session.variables, |out, (name, text)| {
            out.put_lenenc_bytes(name.as_bytes());
            out.put_lenenc_bytes(text.as_bytes());
        });
        put_list(out, &session.user_variables, |out, (name, value)| {
            out.put_lenenc_bytes(name.as_bytes());
            put_value(out, value);
        });
        put_list(out, &session.prepared, |out, (id, source)| {
            out.put_u32(*id);
            put_source(out, source);
        });
        put_list(out, &session.named, |out, (name, source)| {
            out.put_lenenc_bytes(name.as_bytes());
            put_source(out, source);
        });
        put_list(out, &self.bound, |out, (id, bound)| {
            out.put_u32(*id);
            out.put_u8(u8::from(bound.overflow));
            put_list(out, &bound.types, |out, of| {
                out.put_u8(of.type_byte);
                out.put_u8(u8::from(of.unsigned));
            });
            put_list(out, &bound.long_data, |out, (param, data)| {
                out.put_u16(*param);
                out.put_lenenc_bytes(data);
            });
        });
    }

    fn decode_body(body: &[u8]) -> Result<Self, Malformed> {
        let mut r = Reader::new(body);
        let r = &mut r;
        let (capabilities, collation) = (r.u32("capabilities")?, r.u16("collation")?);
        let flags = r.u8("flags")?;
        let (user, host, client) = (text(r)?, text(r)?, text(r)?);
        let (tls, database) = ((text(r)?, text(r)?), text(r)?);
        let mut session = Carried {
            database: (flags & DATABASE != 0).then_some(database),
            multi_statements: flags & MULTI != 0,
            last_insert_id: r.u64("LAST_INSERT_ID")?,
            row_count: r.u64("ROW_COUNT")? as i64,
            found_rows: r.u64("FOUND_ROWS")?,
            ..Carried::default()
        };
        session.next.isolation = isolation(r.u8("isolation")?)?;
        session.next.read_only = match r.u8("access")? {
            0 => None,
            1 => Some(false),
            2 => Some(true),
            _ => return Err(Malformed("access")),
        };
        session.last_statement = r.u32("last statement")?;
        session.variables = list(r, |r| Ok((text(r)?, text(r)?)))?;
        session.user_variables = list(r, |r| Ok((text(r)?, value(r)?)))?;
        session.prepared = list(r, |r| Ok((r.u32("statement")?, source(r)?)))?;
        session.named = list(r, |r| Ok((text(r)?, source(r)?)))?;
        let bound = list(r, |r| Ok((r.u32("statement")?, bound(r)?)))?;
        if !r.is_empty() {
            return Err(Malformed("bytes behind a session"));
        }
        let (found_rows, tls) = (flags & FOUND_ROWS != 0, (flags & TLS != 0).then_some(tls));
        Ok(Self { capabilities, collation, found_rows, user, host, client, tls, session, bound })
    }
}

fn checksum(head: &[u8], body: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(head);
    crc.update(body);
    crc.finalize()
}

fn put_list<T>(out: &mut Vec<u8>, items: &[T], put: impl Fn(&mut Vec<u8>, &T)) {
    out.put_lenenc(items.len() as u64);
    for item in items {
        put(out, item);
    }
}

/// Memory for an element is taken once it has been read: a claimed length costs nothing.
fn list<T>(r: &mut Reader<'_>, item: impl Fn(&mut Reader<'_>) -> Result<T, Malformed>) -> Result<Vec<T>, Malformed> {
    (0..r.lenenc("length of a list")?).map(|_| item(r)).collect()
}

fn text(r: &mut Reader<'_>) -> Result<String, Malformed> {
    let bytes = r.lenenc_bytes("text")?;
    std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| Malformed("text that is not UTF-8"))
}

fn isolation_code(level: Option<Isolation>) -> u8 {
    match level {
        None => 0,
        Some(Isolation::ReadUncommitted) => 1,
        Some(Isolation::ReadCommitted) => 2,
        Some(Isolation::RepeatableRead) => 3,
        Some(Isolation::Serializable) => 4,
    }
}

fn isolation(code: u8) -> Result<Option<Isolation>, Malformed> {
    Ok(match code {
        0 => None,
        1 => Some(Isolation::ReadUncommitted),
        2 => Some(Isolation::ReadCommitted),
        3 => Some(Isolation::RepeatableRead),
        4 => Some(Isolation::Serializable),
        _ => return Err(Malformed("isolation")),
    })
}

fn put_source(out: &mut Vec<u8>, source: &Source) {
    out.put_lenenc_bytes(&source.text);
    out.put_lenenc_bytes(source.mode.as_bytes());
}

fn source(r: &mut Reader<'_>) -> Result<Source, Malformed> {
    Ok(Source { text: r.lenenc_bytes("statement")?.into(), mode: text(r)?.into() })
}

fn bound(r: &mut Reader<'_>) -> Result<BoundParts, Malformed> {
    let overflow = r.u8("overflow")? != 0;
    let types = list(r, |r| Ok(ParamType { type_byte: r.u8("type")?, unsigned: r.u8("sign")? != 0 }))?;
    let long_data = list(r, |r| Ok((r.u16("parameter")?, r.lenenc_bytes("long data")?.to_vec())))?;
    Ok(BoundParts { types, long_data, overflow })
}

fn put_value(out: &mut Vec<u8>, value: &Value) {
    let mut string = |tag, bytes: &[u8]| {
        out.put_u8(tag);
        out.put_lenenc_bytes(bytes);
    };
    match value {
        Value::Str(bytes) => return string(6, bytes),
        Value::Bin(bytes) => return string(7, bytes),
        Value::Json(bytes) => return string(11, bytes),
        _ => {}
    }
    let mut number = |tag, bits: u64| {
        out.put_u8(tag);
        out.put_u64(bits);
    };
    match value {
        Value::Int(n) => number(1, *n as u64),
        Value::UInt(n) => number(2, *n),
        Value::Double(n) => number(4, n.to_bits()),
        Value::Time(time) => number(9, time.micros as u64),
        Value::DateTime(at) => number(10, pack_datetime(at)),
        Value::Float(n) => {
            out.put_u8(3);
            out.put_u32(n.to_bits());
        }
        Value::Date(date) => {
            out.put_u8(8);
            out.put_u32(pack_date(*date));
        }
        Value::Decimal(n) => {
            out.put_u8(5);
            out.put_u8(n.scale());
            out.put_lenenc_bytes(&n.to_be_bytes());
        }
        Value::Null | Value::Str(_) | Value::Bin(_) | Value::Json(_) => out.put_u8(0),
    }
}

fn value(r: &mut Reader<'_>) -> Result<Value, Malformed> {
    const WHAT: &str = "value of a user variable";
    let bytes = |r: &mut Reader<'_>| r.lenenc_bytes(WHAT).map(Bytes::copy_from_slice);
    Ok(match r.u8(WHAT)? {
        0 => Value::Null,
        1 => Value::Int(r.u64(WHAT)? as i64),
        2 => Value::UInt(r.u64(WHAT)?),
        3 => Value::Float(f32::from_bits(r.u32(WHAT)?)),
        4 => Value::Double(f64::from_bits(r.u64(WHAT)?)),
        5 => {
            let (scale, digits) = (r.u8(WHAT)?, r.lenenc_bytes(WHAT)?);
            if scale > DECIMAL_MAX_SCALE || digits.len() > DECIMAL_BYTES_MAX {
                return Err(Malformed(WHAT));
            }
            Value::Decimal(Decimal::from_be_bytes(digits, scale))
        }
        6 => Value::Str(bytes(r)?),
        7 => Value::Bin(bytes(r)?),
        8 => Value::Date(unpack_date(r.u32(WHAT)?)),
        9 => Value::Time(Time { micros: r.u64(WHAT)? as i64 }),
        10 => Value::DateTime(unpack_datetime(r.u64(WHAT)?)),
        11 => Value::Json(bytes(r)?),
        _ => return Err(Malformed(WHAT)),
    })
}

#[cfg(test)]
mod tests;
