//! The manifest: everything that is in force at one point of the log. Immutable, stored under a key that is used once.
//!
//! ```text
//! offset size  field (little endian)
//!      0    4  magic "HFMF"
//!      4    2  version (2; in version 1 objects have no origin)
//!      6    2  0
//!      8    8  length of the body
//!     16    4  CRC-32 of bytes 0..16 and the body
//!     20    .  body: varints, fixed 128-bit ids and length-prefixed strings in the order of `encode_body`
//! ```

use bytes::Bytes;
use holdfast_wal::LogId;

use super::{Reader, check_level, check_version, corrupt, put_bytes, put_varint, u16_at, u32_at, u64_at};
use crate::{
    error::Result,
    types::{CommitSeq, RangeDelete},
};

/// Bytes in front of the body.
pub const HEADER_BYTES: usize = 20;
/// Newest version that this build reads, and the one it writes.
pub const VERSION: u16 = 2;
const MAGIC: &[u8; 4] = b"HFMF";

/// Names a manifest: the term that wrote it and a ULID. Never reused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ManifestId {
    /// Raft term of the leader that wrote it.
    pub term: u64,
    /// ULID.
    pub ulid: u128,
}

impl ManifestId {
    /// Bytes of [`Self::to_bytes`].
    pub const BYTES: usize = 24;

    /// The id as log entries and snapshots carry it.
    pub fn to_bytes(self) -> [u8; Self::BYTES] {
        let mut out = [0; Self::BYTES];
        out[..8].copy_from_slice(&self.term.to_le_bytes());
        out[8..].copy_from_slice(&self.ulid.to_le_bytes());
        out
    }

    /// The inverse of [`Self::to_bytes`]; `None` if the length is wrong.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (term, ulid) = bytes.split_first_chunk::<8>()?;
        let ulid: [u8; 16] = ulid.try_into().ok()?;
        Some(Self { term: u64::from_le_bytes(*term), ulid: u128::from_le_bytes(ulid) })
    }
}

impl std::str::FromStr for ManifestId {
    type Err = crate::error::Error;

    /// The inverse of its text.
    fn from_str(text: &str) -> Result<Self> {
        let parts = text.split_once('-');
        let parsed = parts.and_then(|(term, ulid)| {
            Some(Self { term: u64::from_str_radix(term, 16).ok()?, ulid: ulid::Ulid::from_string(ulid).ok()?.0 })
        });
        parsed.ok_or_else(|| corrupt(format!("{text:?} is no manifest id")))
    }
}

impl std::fmt::Display for ManifestId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:08x}-{}", self.term, ulid::Ulid(self.ulid))
    }
}

/// A membership entry's payload, opaque, with the id of its log entry.
pub type Membership = Option<(Option<LogId>, Bytes)>;

/// An object as the manifest knows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ObjectMeta {
    /// ULID; also the cache group.
    pub id: u128,
    /// Raft term of the leader that wrote it.
    pub term: u64,
    /// Bytes stored.
    pub bytes: u64,
    /// Bytes of the tail: index, filter and footer.
    pub tail_bytes: u32,
    /// Entries, tombstones included.
    pub entries: u64,
    /// Tombstones among them.
    pub tombstones: u64,
    /// Least commit number in it.
    pub min_seq: CommitSeq,
    /// Greatest commit number in it.
    pub max_seq: CommitSeq,
    /// Range deletes up to this commit number have been applied to its content already.
    pub swept: CommitSeq,
    /// First key.
    pub first: Bytes,
    /// Last key, inclusive.
    pub last: Bytes,
    /// The incarnation under whose folder it lies, if that is not the manifest's own: recovery copies nothing.
    pub origin: Option<u128>,
}

/// A sorted sequence of objects whose key ranges do not overlap.
pub type RunMeta = Vec<ObjectMeta>;

/// Everything in force at one point of the log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Manifest {
    /// This manifest's own name.
    pub id: ManifestId,
    /// The one it was made from.
    pub previous: Option<ManifestId>,
    /// The cluster that owns it.
    pub cluster: u128,
    /// The incarnation under which it was written.
    pub incarnation: u128,
    /// Format level of the cluster (rule 9).
    pub format_level: u32,
    /// Everything up to this log entry is in the objects and in `state`.
    pub up_to: LogId,
    /// Membership at `up_to`.
    pub membership: Membership,
    /// Versions that only readers below this reach may be missing.
    pub floor: CommitSeq,
    /// All state that is not rows, opaque.
    pub state: Bytes,
    /// Flushed runs, newest first: every version in a run is newer than any version of its key in later ones.
    pub fresh: Vec<RunMeta>,
    /// The levels below, newest first; one run each, possibly empty.
    pub levels: Vec<RunMeta>,
    /// Range deletes that may still hide versions in the objects, in commit order.
    pub range_deletes: Vec<RangeDelete>,
}

impl Manifest {
    /// Every run, newest first.
    pub fn runs(&self) -> impl Iterator<Item = &RunMeta> {
        self.fresh.iter().chain(&self.levels).filter(|run| !run.is_empty())
    }

    /// Every object, newest run first.
    pub fn objects(&self) -> impl Iterator<Item = &ObjectMeta> {
        self.runs().flatten()
    }

    /// Encodes the manifest.
    pub fn encode(&self) -> Bytes {
        let mut out = vec![0; HEADER_BYTES];
        self.encode_body(&mut out);
        out[..4].copy_from_slice(MAGIC);
        out[4..6].copy_from_slice(&VERSION.to_le_bytes());
        let len = (out.len() - HEADER_BYTES) as u64;
        out[8..16].copy_from_slice(&len.to_le_bytes());
        let crc = crc(&out);
        out[16..20].copy_from_slice(&crc.to_le_bytes());
        Bytes::from(out)
    }

    fn encode_body(&self, out: &mut Vec<u8>) {
        put_id(out, self.id);
        out.push(u8::from(self.previous.is_some()));
        put_id(out, self.previous.unwrap_or_default());
        out.extend_from_slice(&self.cluster.to_le_bytes());
        out.extend_from_slice(&self.incarnation.to_le_bytes());
        put_varint(out, u64::from(self.format_level));
        put_log_id(out, self.up_to);
        out.push(match &self.membership {
            None => 0,
            Some((None, _)) => 1,
            Some((Some(_), _)) => 2,
        });
        if let Some((at, payload)) = &self.membership {
            put_log_id(out, at.unwrap_or_default());
            put_bytes(out, payload);
        }
        put_varint(out, self.floor.0);
        put_bytes(out, &self.state);
        for runs in [&self.fresh, &self.levels] {
            put_varint(out, runs.len() as u64);
            for run in runs {
                put_varint(out, run.len() as u64);
                run.iter().for_each(|object| put_object(out, object));
            }
        }
        put_varint(out, self.range_deletes.len() as u64);
        for range in &self.range_deletes {
            put_varint(out, range.seq.0);
            put_bytes(out, &range.start);
            put_bytes(out, &range.end);
        }
    }

    /// Decodes a manifest and checks that it is whole and well ordered.
    pub fn decode(bytes: Bytes) -> Result<Self> {
        let header = bytes.get(..HEADER_BYTES).ok_or_else(|| corrupt("manifest shorter than its header"))?;
        if &header[..4] != MAGIC {
            return Err(corrupt("not a manifest (bad magic)"));
        }
        let version = u16_at(header, 4).unwrap_or(0);
        check_version("manifest", version, VERSION)?;
        if u64_at(header, 8) != Some((bytes.len() - HEADER_BYTES) as u64) {
            return Err(corrupt("manifest length does not match its header"));
        }
        if u32_at(header, 16) != Some(crc(&bytes)) {
            return Err(corrupt("manifest checksum mismatch"));
        }
        let mut reader = Reader::new(bytes.slice(HEADER_BYTES..), "manifest");
        let manifest = Self::decode_body(&mut reader, version)?;
        reader.finish()?;
        manifest.check_order()?;
        Ok(manifest)
    }

    fn decode_body(reader: &mut Reader, version: u16) -> Result<Self> {
        let id = get_id(reader)?;
        let has_previous = reader.u8()? != 0;
        let previous = Some(get_id(reader)?).filter(|_| has_previous);
        let (cluster, incarnation) = (reader.u128()?, reader.u128()?);
        let format_level = reader.u32()?;
        check_level("the manifest", format_level)?;
        let up_to = get_log_id(reader)?;
        let membership = match reader.u8()? {
            0 => None,
            kind => {
                let at = get_log_id(reader)?;
                Some((Some(at).filter(|_| kind == 2), reader.bytes()?))
            }
        };
        let floor = CommitSeq(reader.varint()?);
        let state = reader.bytes()?;
        let (fresh, levels) = (get_runs(reader, version)?, get_runs(reader, version)?);
        let count = reader.count(3)?;
        let range_deletes = (0..count)
            .map(|_| Ok(RangeDelete { seq: CommitSeq(reader.varint()?), start: reader.bytes()?, end: reader.bytes()? }))
            .collect::<Result<_>>()?;
        Ok(Self {
            id,
            previous,
            cluster,
            incarnation,
            format_level,
            up_to,
            membership,
            floor,
            state,
            fresh,
            levels,
            range_deletes,
        })
    }

    /// Objects of a run are in key order and share no key.
    pub fn check_order(&self) -> Result<()> {
        for run in self.runs() {
            let misplaced = run.iter().find(|object| object.first > object.last);
            let overlap = run.windows(2).find(|pair| pair[0].last >= pair[1].first).map(|pair| &pair[1]);
            if let Some(object) = misplaced.or(overlap) {
                return Err(corrupt(format!("object {} is out of order in its run", ulid::Ulid(object.id))));
            }
        }
        Ok(())
    }
}

fn crc(bytes: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&bytes[..16]);
    crc.update(&bytes[HEADER_BYTES..]);
    crc.finalize()
}

pub(super) fn put_id(out: &mut Vec<u8>, id: ManifestId) {
    put_varint(out, id.term);
    out.extend_from_slice(&id.ulid.to_le_bytes());
}

pub(super) fn get_id(reader: &mut Reader) -> Result<ManifestId> {
    Ok(ManifestId { term: reader.varint()?, ulid: reader.u128()? })
}

pub(super) fn put_log_id(out: &mut Vec<u8>, id: LogId) {
    put_varint(out, id.term);
    put_varint(out, id.index);
}

pub(super) fn get_log_id(reader: &mut Reader) -> Result<LogId> {
    Ok(LogId { term: reader.varint()?, index: reader.varint()? })
}

fn put_object(out: &mut Vec<u8>, object: &ObjectMeta) {
    out.extend_from_slice(&object.id.to_le_bytes());
    for number in [
        object.term,
        object.bytes,
        u64::from(object.tail_bytes),
        object.entries,
        object.tombstones,
        object.min_seq.0,
        object.max_seq.0,
        object.swept.0,
    ] {
        put_varint(out, number);
    }
    put_bytes(out, &object.first);
    put_bytes(out, &object.last);
    out.push(u8::from(object.origin.is_some()));
    out.extend(object.origin.iter().flat_map(|origin| origin.to_le_bytes()));
}

fn get_object(reader: &mut Reader, version: u16) -> Result<ObjectMeta> {
    Ok(ObjectMeta {
        id: reader.u128()?,
        term: reader.varint()?,
        bytes: reader.varint()?,
        tail_bytes: reader.u32()?,
        entries: reader.varint()?,
        tombstones: reader.varint()?,
        min_seq: CommitSeq(reader.varint()?),
        max_seq: CommitSeq(reader.varint()?),
        swept: CommitSeq(reader.varint()?),
        first: reader.bytes()?,
        last: reader.bytes()?,
        origin: if version > 1 && reader.u8()? != 0 { Some(reader.u128()?) } else { None },
    })
}

fn get_runs(reader: &mut Reader, version: u16) -> Result<Vec<RunMeta>> {
    let runs = reader.count(1)?;
    (0..runs)
        .map(|_| {
            let objects = reader.count(26)?;
            (0..objects).map(|_| get_object(reader, version)).collect()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sample() -> Manifest {
        let object = |id, first: &'static [u8], last: &'static [u8]| ObjectMeta {
            id,
            term: 3,
            bytes: 5000,
            tail_bytes: 100,
            entries: 9,
            tombstones: 1,
            min_seq: CommitSeq(5),
            max_seq: CommitSeq(300),
            swept: CommitSeq(4),
            first: Bytes::from_static(first),
            last: Bytes::from_static(last),
            origin: (id == 2).then_some(9),
        };
        Manifest {
            id: ManifestId { term: 3, ulid: 77 },
            previous: Some(ManifestId { term: 2, ulid: 76 }),
            cluster: 1,
            incarnation: 2,
            format_level: 1,
            up_to: LogId { term: 3, index: 200 },
            membership: Some((Some(LogId { term: 1, index: 1 }), Bytes::from_static(b"members"))),
            floor: CommitSeq(6),
            state: Bytes::from_static(b"state"),
            fresh: vec![vec![object(1, b"a", b"k")]],
            levels: vec![vec![object(2, b"a", b"c"), object(3, b"d", b"z")], vec![]],
            range_deletes: vec![RangeDelete {
                start: Bytes::from_static(b"d"),
                end: Bytes::from_static(b"e"),
                seq: CommitSeq(250),
            }],
        }
    }

    #[test]
    fn golden_bytes() {
        let hex: String = sample().encode().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(
            hex,
            concat!(
                "48464d4602000000d200000000000000d59d8cd4034d00000000000000000000000000000001024c0000000000000000",
                "0000000000000001000000000000000000000000000000020000000000000000000000000000000103c801020101076d",
                "656d626572730605737461746501010100000000000000000000000000000003882764090105ac02040161016b000202",
                "0200000000000000000000000000000003882764090105ac020401610163010900000000000000000000000000000003",
                "00000000000000000000000000000003882764090105ac02040164017a000001fa0101640165",
            )
        );
    }

    #[test]
    fn the_first_version_had_no_origins() {
        let first = concat!(
            "48464d4601000000bf00000000000000c874a2a1034d00000000000000000000000000000001024c0000000000000000",
            "0000000000000001000000000000000000000000000000020000000000000000000000000000000103c801020101076d",
            "656d626572730605737461746501010100000000000000000000000000000003882764090105ac02040161016b020202",
            "00000000000000000000000000000003882764090105ac02040161016303000000000000000000000000000000038827",
            "64090105ac02040164017a0001fa0101640165",
        );
        let bytes: Vec<u8> =
            (0..first.len()).step_by(2).map(|at| u8::from_str_radix(&first[at..at + 2], 16).unwrap()).collect();
        let mut expected = sample();
        expected.levels[0][0].origin = None;
        assert_eq!(Manifest::decode(bytes.into()).unwrap(), expected);
    }

    #[test]
    fn round_trips() {
        for membership in [None, Some((None, Bytes::from_static(b"m"))), sample().membership] {
            let manifest = Manifest { membership, ..sample() };
            assert_eq!(Manifest::decode(manifest.encode()).unwrap(), manifest);
        }
        assert_eq!(Manifest::decode(Manifest::default().encode()).unwrap(), Manifest::default());
        let id = sample().id;
        assert_eq!(ManifestId::from_bytes(&id.to_bytes()), Some(id));
    }

    #[test]
    fn every_changed_byte_is_detected() {
        let bytes = sample().encode();
        for place in 0..bytes.len() {
            let mut bad = bytes.to_vec();
            bad[place] ^= 0x41;
            assert!(Manifest::decode(Bytes::from(bad)).is_err(), "byte {place}");
            assert!(Manifest::decode(bytes.slice(..place)).is_err(), "cut at {place}");
        }
    }

    #[test]
    fn overlapping_objects_are_refused() {
        let mut manifest = sample();
        manifest.levels[0].swap(0, 1);
        assert!(Manifest::decode(manifest.encode()).is_err());
    }

    proptest! {
        #[test]
        fn garbage_never_panics(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut bytes = sample().encode()[..HEADER_BYTES].to_vec();
            bytes.extend_from_slice(&body);
            bytes[8..16].copy_from_slice(&(body.len() as u64).to_le_bytes());
            let sum = crc(&bytes);
            bytes[16..20].copy_from_slice(&sum.to_le_bytes());
            let _ = Manifest::decode(Bytes::from(bytes));
        }
    }
}
