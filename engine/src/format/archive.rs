//! The archive object: a piece of the committed log in the bucket, from which a cluster can be rebuilt (rules 2, 3, 6).
//!
//! ```text
//! offset size  field (little endian)
//!      0    4  magic "HFAR"
//!      4    2  version (1)
//!      6    2  0
//!      8    8  length of the body
//!     16    4  CRC-32 of bytes 0..16 and the body
//!     20    .  body; numbers are varints, byte strings have a varint length in front:
//!              cluster (16), incarnation (16), term of the leader that wrote it, milliseconds between two objects,
//!              follows: term, index (zeros: nothing),
//!              manifest in force as of the last entry (24, zeros for none), what it covers: term, index,
//!              entries: count, then per entry, with consecutive indexes from the one behind `follows`:
//!                term, 0 blank / 1 normal / 2 membership, byte string: payload
//! ```
//!
//! Also here: how far an archive has come ([`ArchivePoint`]), as log entries and the machine's state carry it.

use bytes::Bytes;
use holdfast_wal::{Entry, LogId, Payload};

use super::{Reader, check_version, corrupt, manifest::ManifestId, put_bytes, put_varint, u16_at, u32_at, u64_at};
use crate::error::Result;

/// Bytes in front of the body.
pub const HEADER_BYTES: usize = 20;
/// Newest version that this build reads, and the one it writes.
pub const VERSION: u16 = 1;
const MAGIC: &[u8; 4] = b"HFAR";

/// How far the archive has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ArchivePoint {
    /// The last entry that is in the archive.
    pub up_to: LogId,
    /// The manifest in force as of that entry: a rebuild starts from it.
    pub manifest: ManifestId,
    /// What that manifest covers: a rebuild needs no entry up to it.
    pub covered: LogId,
}

/// A piece of the committed log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ArchiveObject {
    /// The cluster that wrote it.
    pub cluster: u128,
    /// The incarnation under which it was written.
    pub incarnation: u128,
    /// Raft term of the leader that wrote it.
    pub term: u64,
    /// Milliseconds between two objects: who looks for a living writer looks for longer.
    pub interval_millis: u64,
    /// The entry in front of the first one; zeros for none.
    pub follows: LogId,
    /// The manifest in force as of the last entry; zeros for none.
    pub manifest: ManifestId,
    /// What that manifest covers.
    pub covered: LogId,
    /// The entries.
    pub entries: Vec<Entry>,
}

impl ArchiveObject {
    /// Index of the first entry.
    pub fn first(&self) -> u64 {
        self.follows.index + 1
    }

    /// The last entry; what it follows if it has none.
    pub fn last(&self) -> LogId {
        self.entries.last().map_or(self.follows, |entry| entry.id)
    }

    /// Encodes the object.
    pub fn encode(&self) -> Bytes {
        let payloads: usize = self.entries.iter().map(|entry| payload(entry).1.len() + 16).sum();
        let mut out = Vec::with_capacity(HEADER_BYTES + 128 + payloads);
        out.resize(HEADER_BYTES, 0);
        out.extend_from_slice(&self.cluster.to_le_bytes());
        out.extend_from_slice(&self.incarnation.to_le_bytes());
        put_varint(&mut out, self.term);
        put_varint(&mut out, self.interval_millis);
        put_log_id(&mut out, self.follows);
        out.extend_from_slice(&self.manifest.to_bytes());
        put_log_id(&mut out, self.covered);
        put_varint(&mut out, self.entries.len() as u64);
        for entry in &self.entries {
            let (kind, bytes) = payload(entry);
            put_varint(&mut out, entry.id.term);
            out.push(kind);
            put_bytes(&mut out, bytes);
        }
        out[..4].copy_from_slice(MAGIC);
        out[4..6].copy_from_slice(&VERSION.to_le_bytes());
        let len = (out.len() - HEADER_BYTES) as u64;
        out[8..16].copy_from_slice(&len.to_le_bytes());
        let crc = checksum(&out);
        out[16..20].copy_from_slice(&crc.to_le_bytes());
        Bytes::from(out)
    }

    /// Decodes and verifies an object.
    pub fn decode(bytes: Bytes) -> Result<Self> {
        let header = bytes.get(..HEADER_BYTES).ok_or_else(|| corrupt("archive object shorter than its header"))?;
        if &header[..4] != MAGIC {
            return Err(corrupt("not an archive object (bad magic)"));
        }
        check_version("archive object", u16_at(header, 4).unwrap_or(0), VERSION)?;
        if u64_at(header, 8) != Some((bytes.len() - HEADER_BYTES) as u64) {
            return Err(corrupt("archive object: length does not match its header"));
        }
        if u32_at(header, 16) != Some(checksum(&bytes)) {
            return Err(corrupt("archive object: checksum mismatch"));
        }
        let mut body = Reader::new(bytes.slice(HEADER_BYTES..), "archive object");
        let mut object = Self {
            cluster: body.u128()?,
            incarnation: body.u128()?,
            term: body.varint()?,
            interval_millis: body.varint()?,
            follows: get_log_id(&mut body)?,
            manifest: get_manifest(&mut body)?,
            covered: get_log_id(&mut body)?,
            entries: Vec::new(),
        };
        let count = body.count(3)?;
        object.entries.reserve_exact(count);
        for _ in 0..count {
            object.entries.push(get_entry(&mut body, object.last())?);
        }
        body.finish()?;
        Ok(object)
    }
}

fn payload(entry: &Entry) -> (u8, &[u8]) {
    match &entry.payload {
        Payload::Blank => (0, &[]),
        Payload::Normal(bytes) => (1, bytes),
        Payload::Membership(bytes) => (2, bytes),
    }
}

fn get_entry(body: &mut Reader, before: LogId) -> Result<Entry> {
    let index = before.index.checked_add(1).ok_or_else(|| corrupt("archive object: index"))?;
    let (term, kind, bytes) = (body.varint()?, body.u8()?, body.bytes()?);
    if term < before.term {
        return Err(corrupt(format!("archive object: entry {index} goes back from term {} to {term}", before.term)));
    }
    let payload = match kind {
        0 => Payload::Blank,
        1 => Payload::Normal(bytes),
        2 => Payload::Membership(bytes),
        other => return Err(corrupt(format!("archive object: entry {index} of unknown kind {other}"))),
    };
    Ok(Entry { id: LogId { term, index }, payload })
}

fn checksum(bytes: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&bytes[..16]);
    crc.update(&bytes[HEADER_BYTES..]);
    crc.finalize()
}

fn put_log_id(out: &mut Vec<u8>, id: LogId) {
    put_varint(out, id.term);
    put_varint(out, id.index);
}

fn get_log_id(reader: &mut Reader) -> Result<LogId> {
    Ok(LogId { term: reader.varint()?, index: reader.varint()? })
}

fn get_manifest(reader: &mut Reader) -> Result<ManifestId> {
    let mut bytes = [0; ManifestId::BYTES];
    for byte in &mut bytes {
        *byte = reader.u8()?;
    }
    ManifestId::from_bytes(&bytes).ok_or_else(|| corrupt("archive: manifest id"))
}

/// Appends how far an archive has come.
pub(crate) fn put_archived(out: &mut Vec<u8>, point: Option<&ArchivePoint>) {
    out.push(u8::from(point.is_some()));
    if let Some(point) = point {
        put_log_id(out, point.up_to);
        out.extend_from_slice(&point.manifest.to_bytes());
        put_log_id(out, point.covered);
    }
}

/// Reads what [`put_archived`] wrote.
pub(crate) fn get_archived(reader: &mut Reader) -> Result<Option<ArchivePoint>> {
    match reader.u8()? {
        0 => Ok(None),
        1 => Ok(Some(ArchivePoint {
            up_to: get_log_id(reader)?,
            manifest: get_manifest(reader)?,
            covered: get_log_id(reader)?,
        })),
        other => Err(corrupt(format!("archive point of unknown kind {other}"))),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sample() -> ArchiveObject {
        let entry = |term, index, payload| Entry { id: LogId { term, index }, payload };
        ArchiveObject {
            cluster: 0x01,
            incarnation: 0x02,
            term: 4,
            interval_millis: 1000,
            follows: LogId { term: 2, index: 300 },
            manifest: ManifestId { term: 2, ulid: 7 },
            covered: LogId { term: 2, index: 290 },
            entries: vec![
                entry(2, 301, Payload::Normal(Bytes::from_static(b"row"))),
                entry(3, 302, Payload::Blank),
                entry(3, 303, Payload::Membership(Bytes::from_static(b"m"))),
            ],
        }
    }

    #[test]
    fn golden_bytes() {
        let hex: String = sample().encode().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(
            hex,
            concat!(
                "48464152010000004f0000000000000085cb6cd401000000000000000000000000000000020000000000000000000000",
                "0000000004e80702ac0202000000000000000700000000000000000000000000000002a20203020103726f7703000003",
                "02016d",
            )
        );
    }

    #[test]
    fn round_trips() {
        let object = sample();
        assert_eq!((object.first(), object.last()), (301, LogId { term: 3, index: 303 }));
        assert_eq!(ArchiveObject::decode(object.encode()), Ok(object));
        assert_eq!(ArchiveObject::decode(ArchiveObject::default().encode()), Ok(ArchiveObject::default()));
    }

    #[test]
    fn every_changed_byte_is_detected() {
        let bytes = sample().encode();
        for place in 0..bytes.len() {
            let mut bad = bytes.to_vec();
            bad[place] ^= 0x41;
            assert!(ArchiveObject::decode(Bytes::from(bad)).is_err(), "byte {place}");
            assert!(ArchiveObject::decode(bytes.slice(..place)).is_err(), "cut at {place}");
        }
    }

    #[test]
    fn a_term_that_goes_back_is_refused() {
        let mut object = sample();
        object.entries[2].id.term = 1;
        let refused = ArchiveObject::decode(object.encode()).unwrap_err().to_string();
        assert!(refused.contains("entry 303 goes back from term 3 to 1"), "{refused}");
    }

    proptest! {
        #[test]
        fn garbage_never_panics(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut bytes = sample().encode()[..HEADER_BYTES].to_vec();
            bytes.extend_from_slice(&body);
            bytes[8..16].copy_from_slice(&(body.len() as u64).to_le_bytes());
            let sum = checksum(&bytes);
            bytes[16..20].copy_from_slice(&sum.to_le_bytes());
            let _ = ArchiveObject::decode(Bytes::from(bytes));
        }
    }
}
