//! FORMAT: what travels on the stream of a session that moved, after its [`super::handover`]: frames in both directions.
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 1 | kind |
//! | 1 | 4 | length of what follows, little-endian |
//!
//! | kind | from | what follows |
//! |---|---|---|
//! | 1 command | follower | a command of the client, as MySQL packets that start at sequence id 0. One at a time |
//! | 2 kill | follower | nothing: interrupts the running command |
//! | 3 bytes | leader | bytes for the client, as they are; at most 64 KiB |
//! | 4 answered | leader | the command is answered, or the session has moved: a byte of flags (1: in a transaction), then the current database |
//! | 5 refused | leader | the session does not move: error code (2 bytes), SQLSTATE (5), text. The stream ends |
//!
//! The stream belongs to a connection whose greeting has a version; a kind that is not known ends it.

use crate::wire::{
    codec::{Put, Reader},
    result::SqlError,
};

/// Bytes before each frame's content.
pub const HEAD: usize = 5;
/// Most bytes of a frame for the client.
pub const BYTES_MAX: usize = 64 << 10;
/// Most bytes of the other frames: a name, or an error's text.
const SHORT_MAX: usize = 4 << 10;

const IN_TRANSACTION: u8 = 1;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A command of the client.
    Command = 1,
    /// Interrupts the running command.
    Kill = 2,
    /// Bytes for the client.
    Bytes = 3,
    /// The command is answered.
    Answered = 4,
    /// The session does not move.
    Refused = 5,
}

/// What stands before a frame's content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// What it is.
    pub kind: Kind,
    /// Bytes that follow.
    pub len: u32,
}

/// Bytes that are no frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Of another release, or no frame at all.
    #[error("a frame of unknown kind {0}")]
    Kind(u8),
    /// Longer than its kind may be.
    #[error("a frame of kind {0:?} and {1} bytes")]
    Length(Kind, u32),
    /// Its content does not decode.
    #[error("a frame of kind {0:?} that is cut short")]
    Content(Kind),
}

impl Head {
    /// Its bytes.
    pub fn encode(self) -> [u8; HEAD] {
        let [a, b, c, d] = self.len.to_le_bytes();
        [self.kind as u8, a, b, c, d]
    }

    /// Reads it; bounds what will have to be read.
    pub fn decode([kind, len @ ..]: [u8; HEAD]) -> Result<Self, FrameError> {
        let kind = match kind {
            1 => Kind::Command,
            2 => Kind::Kill,
            3 => Kind::Bytes,
            4 => Kind::Answered,
            5 => Kind::Refused,
            other => return Err(FrameError::Kind(other)),
        };
        let len = u32::from_le_bytes(len);
        let most = match kind {
            // Read piece by piece, and bounded by max_allowed_packet.
            Kind::Command => u32::MAX as usize,
            Kind::Kill => 0,
            Kind::Bytes => BYTES_MAX,
            Kind::Answered | Kind::Refused => SHORT_MAX,
        };
        if len as usize > most { Err(FrameError::Length(kind, len)) } else { Ok(Self { kind, len }) }
    }
}

/// Where a session stands between two commands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answered {
    /// In a transaction.
    pub in_transaction: bool,
    /// Current database.
    pub database: Option<String>,
}

/// Appends a frame.
pub fn put(out: &mut impl bytes::BufMut, kind: Kind, content: &[u8]) {
    let len = u32::try_from(content.len()).unwrap_or(u32::MAX);
    out.put_slice(&Head { kind, len }.encode());
    out.put_slice(content);
}

impl Answered {
    /// The content of its frame.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![if self.in_transaction { IN_TRANSACTION } else { 0 }];
        out.extend_from_slice(self.database.as_deref().unwrap_or_default().as_bytes());
        out
    }

    /// Reads it.
    pub fn decode(content: &[u8]) -> Result<Self, FrameError> {
        let (flags, name) = content.split_first().ok_or(FrameError::Content(Kind::Answered))?;
        let database = (!name.is_empty()).then(|| String::from_utf8_lossy(name).into_owned());
        Ok(Self { in_transaction: flags & IN_TRANSACTION != 0, database })
    }
}

/// The content of a refusal.
pub fn encode_refusal(error: &SqlError) -> Vec<u8> {
    let mut out = Vec::new();
    out.put_u16(error.code);
    out.extend_from_slice(&error.sqlstate);
    let end = error.message.floor_char_boundary(SHORT_MAX / 2);
    out.extend_from_slice(error.message.get(..end).unwrap_or_default().as_bytes());
    out
}

/// Reads it.
pub fn decode_refusal(content: &[u8]) -> Result<SqlError, FrameError> {
    let cut = |_| FrameError::Content(Kind::Refused);
    let mut r = Reader::new(content);
    let code = r.u16("code").map_err(cut)?;
    let state = r.bytes(5, "state").map_err(cut)?;
    let state: [u8; 5] = state.try_into().map_err(|_| FrameError::Content(Kind::Refused))?;
    Ok(SqlError::new(code, &state, String::from_utf8_lossy(r.rest()).into_owned()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn golden() {
        let mut out = Vec::new();
        put(&mut out, Kind::Kill, b"");
        put(&mut out, Kind::Bytes, b"ab");
        let answered = Answered { in_transaction: true, database: Some("shop".into()) };
        put(&mut out, Kind::Answered, &answered.encode());
        put(&mut out, Kind::Refused, &encode_refusal(&SqlError::new(1040, b"08004", "no")));
        let golden = b"\x02\0\0\0\0\x03\x02\0\0\0ab\x04\x05\0\0\0\x01shop\x05\x09\0\0\0\x10\x0408004no";
        assert_eq!(out, golden);
        assert_eq!(Answered::decode(b"\x01shop"), Ok(answered));
        assert_eq!(Answered::decode(b"\0"), Ok(Answered::default()));
        let refused = decode_refusal(b"\x10\x0408004no").unwrap();
        assert_eq!((refused.code, &refused.sqlstate, &refused.message[..]), (1040, b"08004", "no"));
    }

    #[test]
    fn what_is_unknown_or_too_long_is_refused() {
        assert_eq!(Head::decode([9, 0, 0, 0, 0]), Err(FrameError::Kind(9)));
        assert_eq!(Head::decode([2, 1, 0, 0, 0]), Err(FrameError::Length(Kind::Kill, 1)));
        assert_eq!(Head::decode([3, 1, 0, 1, 0]), Err(FrameError::Length(Kind::Bytes, 65_537)));
        assert_eq!(Answered::decode(b""), Err(FrameError::Content(Kind::Answered)));
        assert_eq!(decode_refusal(b"\x10\x04080").err(), Some(FrameError::Content(Kind::Refused)));
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(head: [u8; HEAD], content in prop::collection::vec(any::<u8>(), 0..40)) {
            if let Ok(head) = Head::decode(head) {
                prop_assert_eq!(Head::decode(head.encode()), Ok(head));
            }
            let _ = (Answered::decode(&content), decode_refusal(&content));
        }
    }
}
