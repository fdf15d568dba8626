//! FORMAT: what travels on a connection between two nodes: a greeting each way, then enveloped frames.
//!
//! Greeting, sent by the caller and answered by the listener:
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 4 | magic `HFTP` |
//! | 4 | 1 | version: 1, or 2 for all but frames, so that older releases refuse it |
//! | 5 | 1 | purpose, since version 2: 0 enveloped frames follow, 1 a stream of the layer above; the answer says 0 to refuse one |
//! | 6 | 2 | reserved, 0 |
//! | 8 | 16 | cluster |
//! | 24 | 8 | the speaker |
//! | 32 | 8 | whom it takes the other for |
//! | 40 | 4 | CRC-32 of the bytes before |
//!
//! Envelope, before each frame; the answer carries the call's number:
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 4 | length of the frame |
//! | 4 | 8 | number of the call |
//! | 12 | 4 | CRC-32 of the bytes before |
//!
//! The frame itself has magic, version and checksum of its own (`raft/message.rs`).

use crate::NodeId;

const MAGIC: [u8; 4] = *b"HFTP";
/// The newest version that is understood.
const VERSION: u8 = 2;
/// Where frames suffice.
const VERSION_FRAMES: u8 = 1;
/// Bytes of a greeting.
pub(super) const GREETING: usize = 44;
/// Bytes of an envelope.
pub(super) const ENVELOPE: usize = 16;
/// Bytes of the largest frame that is taken: what `raft/message.rs` makes at most, and its header.
pub(super) const FRAME_MAX: usize = (16 << 20) + 64;

/// Why a connection was given up.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum EnvelopeError {
    #[error("what it says is not Holdfast's node protocol")]
    Magic,
    #[error("it speaks version {0} of the node protocol, newer than this release's {VERSION}")]
    Newer(u8),
    #[error("it speaks TLS, and this node does not: turn TLS between nodes on here, or off there")]
    Tls,
    #[error("it connects for a purpose of number {0}, which this release does not know")]
    Purpose(u8),
    #[error("a checksum does not match")]
    Checksum,
    #[error("a frame of {0} bytes; at most {FRAME_MAX} are taken")]
    TooLong(u32),
}

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Calls and their answers.
    Frames = 0,
    /// Bytes that the layer above understands.
    Stream = 1,
}

/// Who speaks, to whom, and what for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Greeting {
    pub(super) cluster: u128,
    pub(super) from: NodeId,
    pub(super) to: NodeId,
    pub(super) purpose: Purpose,
}

impl Greeting {
    pub(super) fn encode(&self) -> [u8; GREETING] {
        let mut out = [0; GREETING];
        out[..4].copy_from_slice(&MAGIC);
        out[4] = if self.purpose == Purpose::Frames { VERSION_FRAMES } else { VERSION };
        out[5] = self.purpose as u8;
        out[8..24].copy_from_slice(&self.cluster.to_le_bytes());
        out[24..32].copy_from_slice(&self.from.to_le_bytes());
        out[32..40].copy_from_slice(&self.to.to_le_bytes());
        let crc = crc32fast::hash(&out[..40]);
        out[40..].copy_from_slice(&crc.to_le_bytes());
        out
    }

    pub(super) fn decode(bytes: &[u8; GREETING]) -> Result<Self, EnvelopeError> {
        if bytes[..4] != MAGIC {
            return Err(EnvelopeError::Magic);
        }
        if crc32fast::hash(&bytes[..40]) != u32::from_le_bytes(field(bytes, 40)) {
            return Err(EnvelopeError::Checksum);
        }
        if bytes[4] > VERSION {
            return Err(EnvelopeError::Newer(bytes[4]));
        }
        let purpose = match bytes[5] {
            _ if bytes[4] <= VERSION_FRAMES => Purpose::Frames,
            0 => Purpose::Frames,
            1 => Purpose::Stream,
            other => return Err(EnvelopeError::Purpose(other)),
        };
        Ok(Self {
            cluster: u128::from_le_bytes(field(bytes, 8)),
            from: u64::from_le_bytes(field(bytes, 24)),
            to: u64::from_le_bytes(field(bytes, 32)),
            purpose,
        })
    }

    /// Whether these are the first bytes of a TLS record instead.
    pub(super) fn is_tls(bytes: &[u8]) -> bool {
        matches!(bytes, [0x14..=0x17, 3, ..])
    }
}

/// What stands before a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Envelope {
    pub(super) len: u32,
    pub(super) call: u64,
}

impl Envelope {
    pub(super) fn encode(&self) -> [u8; ENVELOPE] {
        let mut out = [0; ENVELOPE];
        out[..4].copy_from_slice(&self.len.to_le_bytes());
        out[4..12].copy_from_slice(&self.call.to_le_bytes());
        let crc = crc32fast::hash(&out[..12]);
        out[12..].copy_from_slice(&crc.to_le_bytes());
        out
    }

    pub(super) fn decode(bytes: &[u8; ENVELOPE]) -> Result<Self, EnvelopeError> {
        if crc32fast::hash(&bytes[..12]) != u32::from_le_bytes(field(bytes, 12)) {
            return Err(EnvelopeError::Checksum);
        }
        let len = u32::from_le_bytes(field(bytes, 0));
        if len as usize > FRAME_MAX {
            return Err(EnvelopeError::TooLong(len));
        }
        Ok(Self { len, call: u64::from_le_bytes(field(bytes, 4)) })
    }
}

/// The `N` bytes at `at`, which the caller's array has.
fn field<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut out = [0; N];
    if let Some(found) = bytes.get(at..at + N) {
        out.copy_from_slice(found);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden() {
        let greeting = Greeting { cluster: 0xC1, from: 2, to: 3, purpose: Purpose::Frames }.encode();
        assert_eq!(greeting[..9], [b'H', b'F', b'T', b'P', 1, 0, 0, 0, 0xC1]);
        let stream = Greeting { cluster: 0xC1, from: 2, to: 3, purpose: Purpose::Stream }.encode();
        assert_eq!(stream[..9], [b'H', b'F', b'T', b'P', 2, 1, 0, 0, 0xC1]);
        assert_eq!(stream[8..40], greeting[8..40]);
        assert_eq!((greeting[24], greeting[32]), (2, 3));
        assert_eq!(greeting[40..], crc32fast::hash(&greeting[..40]).to_le_bytes());
        let envelope = Envelope { len: 5, call: 7 }.encode();
        assert_eq!(envelope[..12], [5, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(envelope[12..], crc32fast::hash(&envelope[..12]).to_le_bytes());
    }

    #[test]
    fn every_flip_is_an_error() {
        let greeting = Greeting { cluster: 1 << 100, from: 2, to: 3, purpose: Purpose::Frames };
        let stream = Greeting { purpose: Purpose::Stream, ..greeting };
        assert_eq!(Greeting::decode(&greeting.encode()), Ok(greeting));
        assert_eq!(Greeting::decode(&stream.encode()), Ok(stream));
        let envelope = Envelope { len: 1 << 20, call: 1 << 50 };
        assert_eq!(Envelope::decode(&envelope.encode()), Ok(envelope));
        for at in 0..GREETING {
            let mut bad = greeting.encode();
            bad[at] ^= 0x10;
            assert!(Greeting::decode(&bad).is_err(), "flip at {at}");
        }
        for at in 0..ENVELOPE {
            let mut bad = envelope.encode();
            bad[at] ^= 0x10;
            assert!(Envelope::decode(&bad).is_err(), "flip at {at}");
        }
    }

    #[test]
    fn newer_versions_and_long_frames_say_so() {
        let changed = |at: usize, to: u8| {
            let mut greeting = Greeting { cluster: 1, from: 2, to: 3, purpose: Purpose::Stream }.encode();
            greeting[at] = to;
            let crc = crc32fast::hash(&greeting[..40]);
            greeting[40..].copy_from_slice(&crc.to_le_bytes());
            Greeting::decode(&greeting)
        };
        assert_eq!(changed(4, 9), Err(EnvelopeError::Newer(9)));
        assert_eq!(changed(5, 7), Err(EnvelopeError::Purpose(7)));
        let long = Envelope { len: FRAME_MAX as u32 + 1, call: 0 };
        assert_eq!(Envelope::decode(&long.encode()), Err(EnvelopeError::TooLong(FRAME_MAX as u32 + 1)));
    }
}
