//! FORMAT: the log record, the only thing that a segment holds.
//!
//! A segment file is a row of 4 KiB blocks. The first block is the preamble, one write of its own, all of it inside the first
//! 512-byte sector, so that it lands wholly or not at all. Behind it come groups. A group starts on a block, holds records back
//! to back (each padded with zeros to 8 bytes), and counts only as a whole: the first record is flagged FIRST, the last LAST.
//!
//! All integers are little-endian.
//!
//! | offset | bytes | field      | meaning                                                                        |
//! |-------:|------:|------------|--------------------------------------------------------------------------------|
//! |      0 |     4 | magic      | `HFWL`                                                                         |
//! |      4 |     1 | version    | 1; place and meaning of magic, version, len and crc never change               |
//! |      5 |     1 | kind       | see [`Kind`]                                                                   |
//! |      6 |     1 | flags      | 1 FIRST of its group, 2 LAST of its group                                      |
//! |      7 |     1 | tag        | entry: the caller's kind; cut: 1 when everything is cut; else 0                |
//! |      8 |    16 | cluster    | the cluster that owns the log                                                  |
//! |     24 |     8 | position   | segment epoch << 32 \| offset in the segment: recycled or misplaced bytes never parse |
//! |     32 |     8 | durable_to | the position below which everything was synced when this was submitted (rule 4) |
//! |     40 |     8 | term       | entry, committed, purge: term of the log id; else 0                            |
//! |     48 |     8 | index      | entry, committed, purge: index of the log id; cut: the last index kept; else 0 |
//! |     56 |     4 | len        | bytes of payload behind the header                                             |
//! |     60 |     4 | crc        | CRC-32 (IEEE) of bytes 0..60 and the payload                                   |
//!
//! Payloads: entry and vote: the caller's bytes. Segment: `segment_bytes: u64, oldest: u32, zero: u32`. Purge: `oldest: u32`,
//! the oldest epoch that is still needed. Committed, cut and spare: none.

use crate::{LogEntry, LogId};
use bytes::Bytes;

/// The unit in which segments are laid out and written.
pub const BLOCK: usize = 4096;
/// Bytes of a record's header.
pub const HEADER: usize = 64;
/// The newest format version that this release reads, and the one that it writes.
pub const VERSION: u8 = 1;
/// A saved vote may have at most so many bytes: the preamble, which repeats it, must fit one sector.
pub const MAX_VOTE: usize = 128;

const MAGIC: [u8; 4] = *b"HFWL";
const SECTOR: usize = 512;
const FIRST: u8 = 1;
const LAST: u8 = 2;
const SEGMENT_PAYLOAD: usize = 16;
const PURGE_PAYLOAD: usize = 4;

const _: () = assert!(
    padded(HEADER + SEGMENT_PAYLOAD) + padded(HEADER + MAX_VOTE) + padded(HEADER) + padded(HEADER + PURGE_PAYLOAD)
        <= SECTOR,
    "the preamble must fit one sector"
);

/// Rounds a record's length up to where the next one starts.
pub const fn padded(len: usize) -> usize {
    len.next_multiple_of(8)
}

/// Rounds up to whole blocks.
pub const fn blocks(len: usize) -> usize {
    len.next_multiple_of(BLOCK)
}

/// A place in the log's whole life: segment epoch, then offset. Later places compare greater.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Position(pub u64);

impl Position {
    /// The place at `offset` of the segment with this epoch.
    pub const fn new(epoch: u32, offset: u32) -> Self {
        Self((epoch as u64) << 32 | offset as u64)
    }

    /// The segment's epoch; 0 means "no segment".
    pub const fn epoch(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// The offset in the segment.
    pub const fn offset(self) -> u32 {
        self.0 as u32
    }
}

impl std::fmt::Debug for Position {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.epoch(), self.offset())
    }
}

/// What a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// Opens a segment.
    Segment = 1,
    /// A log entry.
    Entry = 2,
    /// The vote, opaque.
    Vote = 3,
    /// The commit mark.
    Committed = 4,
    /// Entries after an index are gone.
    Cut = 5,
    /// Entries up to a log id are gone.
    Purge = 6,
    /// Opens a prepared file that no segment uses yet.
    Spare = 7,
}

impl Kind {
    fn from_byte(byte: u8) -> Option<Self> {
        [Self::Segment, Self::Entry, Self::Vote, Self::Committed, Self::Cut, Self::Purge, Self::Spare]
            .into_iter()
            .find(|kind| *kind as u8 == byte)
    }
}

/// What a record says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// See [`Kind::Segment`].
    Segment {
        /// Bytes of the segment.
        segment_bytes: u64,
        /// The oldest epoch still needed when this segment was opened.
        oldest: u32,
    },
    /// See [`Kind::Entry`].
    Entry(LogEntry),
    /// See [`Kind::Vote`].
    Vote(Bytes),
    /// See [`Kind::Committed`].
    Committed(LogId),
    /// See [`Kind::Cut`]; `None` cuts everything.
    Cut(Option<u64>),
    /// See [`Kind::Purge`].
    Purge {
        /// The last purged entry.
        up_to: LogId,
        /// The oldest epoch still needed afterwards.
        oldest: u32,
    },
    /// See [`Kind::Spare`].
    Spare,
}

impl Body {
    /// Bytes on disk, padding included.
    pub fn encoded_len(&self) -> usize {
        padded(HEADER + self.payload_len())
    }

    fn payload_len(&self) -> usize {
        match self {
            Self::Segment { .. } => SEGMENT_PAYLOAD,
            Self::Entry(entry) => entry.payload.len(),
            Self::Vote(vote) => vote.len(),
            Self::Purge { .. } => PURGE_PAYLOAD,
            Self::Committed(_) | Self::Cut(_) | Self::Spare => 0,
        }
    }

    fn kind(&self) -> Kind {
        match self {
            Self::Segment { .. } => Kind::Segment,
            Self::Entry(_) => Kind::Entry,
            Self::Vote(_) => Kind::Vote,
            Self::Committed(_) => Kind::Committed,
            Self::Cut(_) => Kind::Cut,
            Self::Purge { .. } => Kind::Purge,
            Self::Spare => Kind::Spare,
        }
    }

    fn id_and_tag(&self) -> (LogId, u8) {
        match self {
            Self::Entry(entry) => (entry.id, entry.kind),
            Self::Committed(id) | Self::Purge { up_to: id, .. } => (*id, 0),
            Self::Cut(Some(index)) => (LogId { term: 0, index: *index }, 0),
            Self::Cut(None) => (LogId::default(), 1),
            Self::Segment { .. } | Self::Vote(_) | Self::Spare => (LogId::default(), 0),
        }
    }
}

/// Where a record stands, and what was durable when it was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The owner of the log.
    pub cluster: u128,
    /// The record's own position.
    pub position: Position,
    /// Everything below was synced when the record was submitted.
    pub durable_to: Position,
    /// First record of its group.
    pub first: bool,
    /// Last record of its group.
    pub last: bool,
}

/// Writes the record at the start of `out` and zeroes its padding. Returns the padded length, or `None` if `out` is too small.
pub fn encode(place: Place, body: &Body, out: &mut [u8]) -> Option<usize> {
    let payload_len = body.payload_len();
    let end = HEADER + payload_len;
    let out = out.get_mut(..padded(end))?;
    let (id, tag) = body.id_and_tag();
    out[0..4].copy_from_slice(&MAGIC);
    out[4] = VERSION;
    out[5] = body.kind() as u8;
    out[6] = if place.first { FIRST } else { 0 } | if place.last { LAST } else { 0 };
    out[7] = tag;
    out[8..24].copy_from_slice(&place.cluster.to_le_bytes());
    out[24..32].copy_from_slice(&place.position.0.to_le_bytes());
    out[32..40].copy_from_slice(&place.durable_to.0.to_le_bytes());
    out[40..48].copy_from_slice(&id.term.to_le_bytes());
    out[48..56].copy_from_slice(&id.index.to_le_bytes());
    out[56..60].copy_from_slice(&u32::try_from(payload_len).ok()?.to_le_bytes());
    match body {
        Body::Entry(LogEntry { payload, .. }) | Body::Vote(payload) => out[HEADER..end].copy_from_slice(payload),
        Body::Segment { segment_bytes, oldest } => {
            out[HEADER..HEADER + 8].copy_from_slice(&segment_bytes.to_le_bytes());
            out[HEADER + 8..HEADER + 12].copy_from_slice(&oldest.to_le_bytes());
            out[HEADER + 12..end].fill(0);
        }
        Body::Purge { oldest, .. } => out[HEADER..end].copy_from_slice(&oldest.to_le_bytes()),
        Body::Committed(_) | Body::Cut(_) | Body::Spare => {}
    }
    out[end..].fill(0);
    let crc = checksum(&out[..60], &out[HEADER..end]);
    out[60..64].copy_from_slice(&crc.to_le_bytes());
    Some(padded(end))
}

fn checksum(header: &[u8], payload: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(header);
    crc.update(payload);
    crc.finalize()
}

/// Why bytes are not a record of this log at this place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Bad {
    /// Eight zero bytes where a header should start: never written.
    Blank,
    /// No magic.
    Magic,
    /// The record would run past the end of the bytes.
    Truncated,
    /// The checksum differs.
    Checksum,
    /// Intact, but of a newer format version.
    Newer(u8),
    /// Intact, but of another cluster.
    OtherCluster(u128),
    /// Intact, but written for another position: recycled or misplaced.
    OtherPosition(Position),
    /// Intact, but says what no release writes.
    Nonsense(&'static str),
}

impl std::fmt::Display for Bad {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Blank => f.write_str("zeros where a record was"),
            Self::Magic => f.write_str("no record here"),
            Self::Truncated => f.write_str("the record runs past the end of the segment"),
            Self::Checksum => f.write_str("the checksum differs"),
            Self::Newer(version) => write!(f, "format version {version} is newer than {VERSION}"),
            Self::OtherCluster(cluster) => write!(f, "the record belongs to cluster {cluster:032x}"),
            Self::OtherPosition(position) => write!(f, "the record was written for position {position:?}"),
            Self::Nonsense(what) => f.write_str(what),
        }
    }
}

/// A decoded record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Where it stands.
    pub place: Place,
    /// What it says.
    pub body: Body,
    /// Bytes on disk, padding included.
    pub len: usize,
}

/// Reads the record at the start of `bytes`, which must be of this cluster and position.
pub fn decode(bytes: &[u8], cluster: u128, position: Position) -> Result<Record, Bad> {
    let record = decode_anywhere(bytes)?;
    if record.place.cluster != cluster {
        return Err(Bad::OtherCluster(record.place.cluster));
    }
    if record.place.position != position {
        return Err(Bad::OtherPosition(record.place.position));
    }
    Ok(record)
}

/// Reads the record at the start of `bytes`, of whatever cluster and position.
pub fn decode_anywhere(bytes: &[u8]) -> Result<Record, Bad> {
    let header: &[u8; HEADER] = bytes.first_chunk().ok_or(Bad::Truncated)?;
    if header[0..4] != MAGIC {
        return Err(if header[0..8] == [0; 8] { Bad::Blank } else { Bad::Magic });
    }
    let len = u32_at(header, 56) as usize;
    let payload = HEADER.checked_add(len).and_then(|end| bytes.get(HEADER..end)).ok_or(Bad::Truncated)?;
    if checksum(&header[..60], payload) != u32_at(header, 60) {
        return Err(Bad::Checksum);
    }
    if header[4] > VERSION {
        return Err(Bad::Newer(header[4]));
    }
    if header[4] == 0 {
        return Err(Bad::Nonsense("format version 0"));
    }
    let place = Place {
        cluster: u128::from_le_bytes(array_at(header, 8)),
        position: Position(u64_at(header, 24)),
        durable_to: Position(u64_at(header, 32)),
        first: header[6] & FIRST != 0,
        last: header[6] & LAST != 0,
    };
    Ok(Record { place, body: decode_body(header, payload)?, len: padded(HEADER + len) })
}

fn decode_body(header: &[u8; HEADER], payload: &[u8]) -> Result<Body, Bad> {
    let kind = Kind::from_byte(header[5]).ok_or(Bad::Nonsense("unknown record kind"))?;
    let tag = header[7];
    let id = LogId { term: u64_at(header, 40), index: u64_at(header, 48) };
    let sized = |len: usize| {
        if payload.len() == len { Ok(()) } else { Err(Bad::Nonsense("payload length does not fit the kind")) }
    };
    Ok(match kind {
        Kind::Segment => {
            sized(SEGMENT_PAYLOAD)?;
            Body::Segment { segment_bytes: u64_at(payload, 0), oldest: u32_at(payload, 8) }
        }
        Kind::Entry => Body::Entry(LogEntry { id, kind: tag, payload: Bytes::copy_from_slice(payload) }),
        Kind::Vote => Body::Vote(Bytes::copy_from_slice(payload)),
        Kind::Committed => sized(0).map(|()| Body::Committed(id))?,
        Kind::Cut => sized(0).map(|()| Body::Cut((tag == 0).then_some(id.index)))?,
        Kind::Purge => {
            sized(PURGE_PAYLOAD)?;
            Body::Purge { up_to: id, oldest: u32_at(payload, 0) }
        }
        Kind::Spare => sized(0).map(|()| Body::Spare)?,
    })
}

/// `N` bytes at `at`; zeros past the end, which callers exclude by checking lengths first.
fn array_at<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).copied().unwrap_or([0; N])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(array_at(bytes, at))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(array_at(bytes, at))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn place(position: Position) -> Place {
        Place { cluster: 0x0102, position, durable_to: Position::new(3, 4096), first: true, last: false }
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn encoded(body: &Body) -> Vec<u8> {
        let mut out = vec![0xee; body.encoded_len()];
        assert_eq!(encode(place(Position::new(3, 8192)), body, &mut out), Some(out.len()));
        out
    }

    #[test]
    fn golden() {
        let payload = Bytes::from_static(b"payload");
        let entry = Body::Entry(LogEntry { id: LogId { term: 5, index: 0x0607 }, kind: 9, payload });
        let expected = concat!(
            "4846574c",
            "01",
            "02",
            "01",
            "09",
            "02010000000000000000000000000000",
            "0020000003000000",
            "0010000003000000",
            "0500000000000000",
            "0706000000000000",
            "07000000",
            "2549d72b",
            "7061796c6f6164",
            "00",
        );
        let bytes = encoded(&entry);
        assert_eq!(hex(&bytes), expected);
        let bodies = [
            (Body::Segment { segment_bytes: 1 << 26, oldest: 2 }, "01"),
            (Body::Vote(Bytes::from_static(b"vote")), "03"),
            (Body::Committed(LogId { term: 1, index: 2 }), "04"),
            (Body::Cut(Some(3)), "05"),
            (Body::Cut(None), "05"),
            (Body::Purge { up_to: LogId { term: 1, index: 2 }, oldest: 1 }, "06"),
            (Body::Spare, "07"),
        ];
        for (body, kind) in bodies {
            let bytes = encoded(&body);
            assert_eq!(hex(&bytes[5..6]), kind);
            assert_eq!(decode(&bytes, 0x0102, Position::new(3, 8192)).unwrap().body, body);
        }
    }

    #[test]
    fn a_newer_version_says_so_and_a_damaged_version_does_not() {
        let mut bytes = encoded(&Body::Spare);
        bytes[4] = VERSION + 1;
        assert_eq!(decode_anywhere(&bytes), Err(Bad::Checksum));
        let crc = checksum(&bytes[..60], &[]);
        bytes[60..64].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(decode_anywhere(&bytes), Err(Bad::Newer(VERSION + 1)));
    }

    #[test]
    fn records_parse_only_where_and_for_whom_they_were_written() {
        let bytes = encoded(&Body::Committed(LogId { term: 1, index: 1 }));
        let here = Position::new(3, 8192);
        assert_eq!(decode(&bytes, 0x0103, here), Err(Bad::OtherCluster(0x0102)));
        assert_eq!(decode(&bytes, 0x0102, Position::new(4, 8192)), Err(Bad::OtherPosition(here)));
        assert_eq!(decode(&[0; 64], 0x0102, here), Err(Bad::Blank));
        assert_eq!(decode(&bytes[..63], 0x0102, here), Err(Bad::Truncated));
    }

    fn any_body() -> impl Strategy<Value = Body> {
        let id = (any::<u64>(), any::<u64>()).prop_map(|(term, index)| LogId { term, index });
        let bytes = proptest::collection::vec(any::<u8>(), 0..300).prop_map(Bytes::from);
        prop_oneof![
            (id.clone(), any::<u8>(), bytes.clone()).prop_map(|(id, kind, payload)| Body::Entry(LogEntry {
                id,
                kind,
                payload
            })),
            bytes.prop_map(Body::Vote),
            id.clone().prop_map(Body::Committed),
            any::<Option<u64>>().prop_map(Body::Cut),
            (id, any::<u32>()).prop_map(|(up_to, oldest)| Body::Purge { up_to, oldest }),
            (any::<u64>(), any::<u32>()).prop_map(|(segment_bytes, oldest)| Body::Segment { segment_bytes, oldest }),
            Just(Body::Spare),
        ]
    }

    proptest! {
        #[test]
        fn what_is_encoded_decodes_and_every_flipped_bit_is_found(body in any_body(), flip in any::<prop::sample::Index>()) {
            let mut bytes = encoded(&body);
            let record = decode(&bytes, 0x0102, Position::new(3, 8192)).unwrap();
            prop_assert_eq!(&record.body, &body);
            prop_assert_eq!(record.place, place(Position::new(3, 8192)));
            prop_assert_eq!(record.len, bytes.len());
            let covered = HEADER + body.payload_len();
            let bit = flip.index(covered * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(decode(&bytes, 0x0102, Position::new(3, 8192)).is_err());
        }

        /// What a fuzzer would feed: bytes that are nearly a record.
        #[test]
        fn no_bytes_make_the_decoder_panic(
            body in any_body(),
            changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
            cut in any::<prop::sample::Index>(),
            repair in any::<bool>(),
        ) {
            let mut bytes = encoded(&body);
            for (at, value) in changes {
                let at = at.index(bytes.len());
                bytes[at] = value;
            }
            let keep = cut.index(bytes.len() + 1);
            bytes.truncate(keep);
            let len = bytes.get(56..60).map_or(0, |_| u32_at(&bytes, 56) as usize);
            if repair && bytes.len() >= HEADER + len {
                let crc = checksum(&bytes[..60], &bytes[HEADER..HEADER + len]);
                bytes[60..64].copy_from_slice(&crc.to_le_bytes());
            }
            if let Ok(record) = decode_anywhere(&bytes) {
                prop_assert!(record.len <= padded(bytes.len()));
            }
        }
    }
}
