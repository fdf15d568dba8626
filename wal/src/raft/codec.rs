//! Little-endian writing and bounds-checked reading, shared by the formats of this folder.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::types::{RaftLogId, RaftVote, from_raft, to_raft, vote};
use crate::LogId;

/// Why bytes did not decode. Carries the place, so that the message can name it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DecodeError {
    #[error("cut short at byte {0}")]
    Short(usize),
    #[error("bad {what} at byte {at}")]
    Bad { what: &'static str, at: usize },
    #[error("format version {0} is newer than this release reads ({1})")]
    Newer(u8, u8),
    #[error("checksum does not match")]
    Checksum,
}

/// Reads a buffer from its start; never panics, never copies payloads.
pub(crate) struct Reader {
    whole: usize,
    rest: Bytes,
}

impl Reader {
    pub(crate) fn new(bytes: Bytes) -> Self {
        Self { whole: bytes.len(), rest: bytes }
    }

    pub(crate) fn at(&self) -> usize {
        self.whole - self.rest.len()
    }

    fn need(&self, n: usize) -> Result<(), DecodeError> {
        if self.rest.len() < n { Err(DecodeError::Short(self.at())) } else { Ok(()) }
    }

    pub(crate) fn u8(&mut self) -> Result<u8, DecodeError> {
        self.need(1)?;
        Ok(self.rest.get_u8())
    }

    pub(crate) fn u16(&mut self) -> Result<u16, DecodeError> {
        self.need(2)?;
        Ok(self.rest.get_u16_le())
    }

    pub(crate) fn u32(&mut self) -> Result<u32, DecodeError> {
        self.need(4)?;
        Ok(self.rest.get_u32_le())
    }

    pub(crate) fn u64(&mut self) -> Result<u64, DecodeError> {
        self.need(8)?;
        Ok(self.rest.get_u64_le())
    }

    pub(crate) fn u128(&mut self) -> Result<u128, DecodeError> {
        self.need(16)?;
        Ok(self.rest.get_u128_le())
    }

    pub(crate) fn bool(&mut self) -> Result<bool, DecodeError> {
        let at = self.at();
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(DecodeError::Bad { what: "flag", at }),
        }
    }

    /// A length (u32) and that many bytes.
    pub(crate) fn bytes(&mut self) -> Result<Bytes, DecodeError> {
        let len = self.u32()? as usize;
        self.need(len)?;
        Ok(self.rest.split_to(len))
    }

    pub(crate) fn string(&mut self) -> Result<String, DecodeError> {
        let at = self.at();
        let bytes = self.bytes()?;
        String::from_utf8(bytes.into()).map_err(|_| DecodeError::Bad { what: "text", at })
    }

    /// A count that can't exceed what the rest of the buffer could hold at `each` bytes an item.
    pub(crate) fn count(&mut self, each: usize) -> Result<usize, DecodeError> {
        let at = self.at();
        let n = self.u32()? as usize;
        if n > self.rest.len() / each { Err(DecodeError::Bad { what: "count", at }) } else { Ok(n) }
    }

    pub(crate) fn log_id(&mut self) -> Result<RaftLogId, DecodeError> {
        let at = self.at();
        let id = LogId { term: self.u64()?, index: self.u64()? };
        if id.index == 0 { Err(DecodeError::Bad { what: "log index", at }) } else { Ok(to_raft(id)) }
    }

    pub(crate) fn option_log_id(&mut self) -> Result<Option<RaftLogId>, DecodeError> {
        if self.bool()? { self.log_id().map(Some) } else { Ok(None) }
    }

    pub(crate) fn vote(&mut self) -> Result<RaftVote, DecodeError> {
        Ok(vote(self.u64()?, self.u64()?, self.bool()?))
    }

    /// The end of the buffer: anything left is an error.
    pub(crate) fn end(self) -> Result<(), DecodeError> {
        if self.rest.is_empty() { Ok(()) } else { Err(DecodeError::Bad { what: "end", at: self.at() }) }
    }
}

/// The writing half.
pub(crate) trait Write: BufMut {
    fn put_blob(&mut self, bytes: &[u8]) {
        self.put_u32_le(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
        self.put_slice(bytes);
    }

    fn put_log_id(&mut self, id: &RaftLogId) {
        let id = from_raft(id);
        self.put_u64_le(id.term);
        self.put_u64_le(id.index);
    }

    fn put_option_log_id(&mut self, id: Option<&RaftLogId>) {
        self.put_u8(id.is_some().into());
        if let Some(id) = id {
            self.put_log_id(id);
        }
    }

    fn put_vote(&mut self, vote: &RaftVote) {
        self.put_u64_le(vote.leader_id.term);
        self.put_u64_le(vote.leader_id.voted_for);
        self.put_u8(vote.committed.into());
    }
}

impl Write for BytesMut {}

/// A vote as the log keeps it: version (1), term, node, committed.
pub(crate) fn encode_vote(vote: &RaftVote) -> Bytes {
    let mut out = BytesMut::with_capacity(18);
    out.put_u8(1);
    out.put_vote(vote);
    out.freeze()
}

/// See [`encode_vote`].
pub(crate) fn decode_vote(bytes: Bytes) -> Result<RaftVote, DecodeError> {
    let mut r = Reader::new(bytes);
    match r.u8()? {
        1 => {}
        0 => return Err(DecodeError::Bad { what: "vote version", at: 0 }),
        newer => return Err(DecodeError::Newer(newer, 1)),
    }
    let vote = r.vote()?;
    r.end()?;
    Ok(vote)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vote_golden() {
        let bytes = encode_vote(&vote(7, 3, true));
        assert_eq!(&bytes[..], [1, 7, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 1]);
        assert_eq!(decode_vote(bytes.clone()).unwrap(), vote(7, 3, true));
        for cut in 0..bytes.len() {
            assert!(decode_vote(bytes.slice(..cut)).is_err());
        }
        assert_eq!(decode_vote(Bytes::from_static(&[9])), Err(DecodeError::Newer(9, 1)));
    }
}
