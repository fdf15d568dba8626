//! FORMAT: what a node says of itself with every frame (rule 8).
//!
//! ```text
//! version (2), then varints: version floor, released, applied;
//! then length-prefixed strings: SQL address, admin address, release;
//! since version 2 the runway: 0 not known yet, or 1, varint bytes left, varint bytes when nothing waits
//! ```
//!
//! Integrity is the frame's, which has a checksum. A newer version only adds fields at the end.

use bytes::Bytes;

use super::NodeInfo;
use crate::{
    error::Result,
    format::{Reader, corrupt, put_bytes, put_varint},
    pressure::Runway,
    types::CommitSeq,
};

const VERSION: u8 = 2;

/// What a node says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Report {
    /// No reader here needs versions that only readers below this reach.
    pub(crate) floor: CommitSeq,
    /// No reader here needs what the edits up to this log entry unlinked.
    pub(crate) released: u64,
    /// Last entry applied here.
    pub(crate) applied: u64,
    /// Who it is.
    pub(crate) info: NodeInfo,
    /// What it can still take; older releases do not say.
    pub(crate) runway: Option<Runway>,
}

impl Report {
    /// The report's bytes.
    pub(crate) fn encode(&self) -> Bytes {
        let mut out = Vec::with_capacity(96);
        out.push(VERSION);
        for number in [self.floor.0, self.released, self.applied] {
            put_varint(&mut out, number);
        }
        for text in [&self.info.sql, &self.info.admin, &self.info.release] {
            put_bytes(&mut out, text.as_bytes());
        }
        out.push(u8::from(self.runway.is_some()));
        if let Some(Runway { left, of }) = self.runway {
            put_varint(&mut out, left);
            put_varint(&mut out, of);
        }
        out.into()
    }

    /// See [`Self::encode`].
    pub(crate) fn decode(bytes: Bytes) -> Result<Self> {
        let mut reader = Reader::new(bytes, "report");
        let version = reader.u8()?;
        if version == 0 {
            return Err(corrupt("report of version 0"));
        }
        let (floor, released, applied) = (CommitSeq(reader.varint()?), reader.varint()?, reader.varint()?);
        let mut text = || String::from_utf8(reader.bytes()?.to_vec()).map_err(|_| corrupt("report that is not UTF-8"));
        let info = NodeInfo { sql: text()?, admin: text()?, release: text()? };
        let runway = match version > 1 && reader.u8()? != 0 {
            true => Some(Runway { left: reader.varint()?, of: reader.varint()? }),
            false => None,
        };
        if version <= VERSION {
            reader.finish()?;
        }
        Ok(Self { floor, released, applied, info, runway })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sample() -> Report {
        let info = NodeInfo { sql: "a:1".into(), admin: "b:2".into(), release: "3".into() };
        Report { floor: CommitSeq(300), released: 7, applied: 9, info, runway: Some(Runway { left: 5, of: 300 }) }
    }

    #[test]
    fn golden_bytes() {
        let golden = [&[2, 0xac, 2, 7, 9, 3][..], b"a:1", &[3], b"b:2", &[1], b"3", &[1, 5, 0xac, 2]].concat();
        assert_eq!(&sample().encode()[..], &golden[..]);
        assert_eq!(Report::decode(golden.into()), Ok(sample()));
        let unknown = Report { runway: None, ..sample() };
        assert_eq!(Report::decode(unknown.encode()), Ok(unknown));
    }

    #[test]
    fn the_first_version_has_no_runway() {
        let first = [&[1, 0xac, 2, 7, 9, 3][..], b"a:1", &[3], b"b:2", &[1], b"3"].concat();
        assert_eq!(Report::decode(first.into()), Ok(Report { runway: None, ..sample() }));
    }

    #[test]
    fn a_newer_one_is_understood_as_far_as_it_goes() {
        let mut bytes = sample().encode().to_vec();
        bytes.push(1);
        assert!(Report::decode(bytes.clone().into()).is_err());
        bytes[0] = 3;
        assert_eq!(Report::decode(bytes.into()), Ok(sample()));
        for cut in 0..sample().encode().len() {
            assert!(Report::decode(sample().encode().slice(..cut)).is_err(), "cut at {cut}");
        }
    }

    proptest! {
        #[test]
        fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = Report::decode(bytes.into());
        }
    }
}
