//! Log payloads: what the engine puts into Raft entries. Every payload is at most [`ENTRY_BYTES_MAX`] (rule 10).
//!
//! ```text
//! offset size  field (little endian)
//!      0    4  magic "HFLP"
//!      4    1  version (1)
//!      5    1  kind
//!      6    2  0
//!      8    4  length of the body
//!     12    4  CRC-32 of bytes 0..12 and the body
//!     16    .  body, by kind; numbers are varints, byte strings have a varint length in front
//!
//! kind  name            body
//!    1  Group           count, then per batch: byte string of a batch
//!    2  Part            transaction id (16), number from 0, byte string: the next bytes of a batch too big for one entry
//!    3  Commit          transaction id (16), number of parts, total bytes, CRC-32 of the batch
//!    4  Abort           transaction id (16)
//!    5  Freeze          -
//!    6  Edit            base (24, zeros for none), manifest (24), up_to term, up_to index
//!    7  KeyspaceCreate  name
//!    8  KeyspaceDrop    keyspace id
//!    9  FormatLevel     level
//!   10  Archived        0: no archive, or 1: up_to term, up_to index, manifest (24), covered term, covered index
//!
//! batch: transaction id (16), lock term, commit time (ms since 1970),
//!        guards: count, then per guard: 0 check / 1 set, guard, version
//!        ranges: count, then per range delete: start, end (internal keys)
//!        ops: count, then per op: 0 delete / 1 put, internal key, value of a put
//! ```
//!
//! Within a batch range deletes come first: they hide what was there, never the batch's own operations.

use bytes::{BufMut, Bytes};
use holdfast_wal::LogId;

use super::{
    Reader,
    archive::{ArchivePoint, get_archived, put_archived},
    check_version, corrupt, get_varint,
    manifest::ManifestId,
    put_bytes, put_varint, u32_at,
};
use crate::{
    error::{Error, Result},
    limits::{BATCH_GUARDS_MAX, ENTRY_BATCHES_MAX, ENTRY_BYTES_MAX},
    types::{KeyspaceId, Op},
};

/// Bytes in front of the body.
pub const HEADER_BYTES: usize = 16;
/// Newest version that this build reads, and the one it writes.
pub const VERSION: u8 = 1;
const MAGIC: &[u8; 4] = b"HFLP";

/// A decoded log payload. Byte strings are slices of the entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Payload {
    /// Batches of transactions, each encoded by [`encode_batch`].
    Group(Vec<Bytes>),
    /// The next piece of a batch that is too big for one entry.
    Part {
        /// Transaction id.
        txn: u128,
        /// Number of the piece, from 0.
        number: u32,
        /// The piece.
        bytes: Bytes,
    },
    /// All parts are in the log: the batch takes this entry's commit number.
    Commit {
        /// Transaction id.
        txn: u128,
        /// How many parts there are.
        parts: u32,
        /// Bytes of the whole batch.
        bytes: u64,
        /// CRC-32 of the whole batch.
        crc: u32,
    },
    /// Forget the parts of this transaction.
    Abort {
        /// Transaction id.
        txn: u128,
    },
    /// The active memtable ends here, on every replica.
    Freeze,
    /// A new manifest, in force only if `base` is the current one (rule 1).
    Edit {
        /// The manifest this one was derived from; zeros for none.
        base: ManifestId,
        /// The new manifest.
        manifest: ManifestId,
        /// Every entry up to this one is in it.
        up_to: LogId,
    },
    /// Creates a keyspace; apply gives it the next number.
    KeyspaceCreate {
        /// Its name.
        name: String,
    },
    /// Drops a keyspace with all its rows.
    KeyspaceDrop {
        /// Its number.
        id: KeyspaceId,
    },
    /// Raises the cluster's format level (rule 9).
    FormatLevel {
        /// The new level.
        level: u32,
    },
    /// How far the archive has come; `None`: the cluster keeps no archive (any more).
    Archived(Option<ArchivePoint>),
}

const GROUP: u8 = 1;
const PART: u8 = 2;
const COMMIT: u8 = 3;
const ABORT: u8 = 4;
const FREEZE: u8 = 5;
const EDIT: u8 = 6;
const KEYSPACE_CREATE: u8 = 7;
const KEYSPACE_DROP: u8 = 8;
const FORMAT_LEVEL: u8 = 9;
const ARCHIVED: u8 = 10;

impl Payload {
    /// Encodes one payload. Groups are built without copies twice by [`GroupWriter`] instead.
    pub fn encode(&self) -> Bytes {
        let mut out = header(self.kind(), 64);
        match self {
            Self::Group(batches) => {
                put_varint(&mut out, batches.len() as u64);
                batches.iter().for_each(|batch| put_bytes(&mut out, batch));
            }
            Self::Part { txn, number, bytes } => {
                out.put_u128_le(*txn);
                put_varint(&mut out, u64::from(*number));
                put_bytes(&mut out, bytes);
            }
            Self::Commit { txn, parts, bytes, crc } => {
                out.put_u128_le(*txn);
                put_varint(&mut out, u64::from(*parts));
                put_varint(&mut out, *bytes);
                put_varint(&mut out, u64::from(*crc));
            }
            Self::Abort { txn } => out.put_u128_le(*txn),
            Self::Freeze => {}
            Self::Edit { base, manifest, up_to } => {
                out.put_slice(&base.to_bytes());
                out.put_slice(&manifest.to_bytes());
                put_varint(&mut out, up_to.term);
                put_varint(&mut out, up_to.index);
            }
            Self::KeyspaceCreate { name } => put_bytes(&mut out, name.as_bytes()),
            Self::KeyspaceDrop { id } => put_varint(&mut out, u64::from(*id)),
            Self::FormatLevel { level } => put_varint(&mut out, u64::from(*level)),
            Self::Archived(point) => put_archived(&mut out, point.as_ref()),
        }
        seal(out)
    }

    fn kind(&self) -> u8 {
        match self {
            Self::Group(_) => GROUP,
            Self::Part { .. } => PART,
            Self::Commit { .. } => COMMIT,
            Self::Abort { .. } => ABORT,
            Self::Freeze => FREEZE,
            Self::Edit { .. } => EDIT,
            Self::KeyspaceCreate { .. } => KEYSPACE_CREATE,
            Self::KeyspaceDrop { .. } => KEYSPACE_DROP,
            Self::FormatLevel { .. } => FORMAT_LEVEL,
            Self::Archived(_) => ARCHIVED,
        }
    }

    /// Whether an encoded payload only tells how far the archive has come. Looks at the kind alone.
    pub fn is_archived(payload: &[u8]) -> bool {
        payload.get(5) == Some(&ARCHIVED)
    }

    /// Whether an encoded payload is an edit. Looks at the kind alone.
    pub fn is_edit(payload: &[u8]) -> bool {
        payload.get(5) == Some(&EDIT)
    }

    /// Commit time of the first transaction of a group, in milliseconds since 1970.
    pub fn commit_time(&self) -> Option<u64> {
        let Self::Group(batches) = self else { return None };
        let mut at = 16;
        let batch = batches.first()?;
        get_varint(batch, &mut at)?;
        get_varint(batch, &mut at)
    }

    /// Decodes and verifies a payload.
    pub fn decode(payload: &Bytes) -> Result<Self> {
        let kind = verify(payload)?;
        let mut body = Reader::new(payload.slice(HEADER_BYTES..), "log payload");
        let decoded = match kind {
            GROUP => {
                let count = body.count(1)?;
                if count > ENTRY_BATCHES_MAX {
                    return Err(corrupt(format!("log payload: {count} batches in one group")));
                }
                Self::Group((0..count).map(|_| body.bytes()).collect::<Result<_>>()?)
            }
            PART => Self::Part { txn: body.u128()?, number: body.u32()?, bytes: body.bytes()? },
            COMMIT => Self::Commit { txn: body.u128()?, parts: body.u32()?, bytes: body.varint()?, crc: body.u32()? },
            ABORT => Self::Abort { txn: body.u128()? },
            FREEZE => Self::Freeze,
            EDIT => Self::Edit {
                base: manifest_id(&mut body)?,
                manifest: manifest_id(&mut body)?,
                up_to: LogId { term: body.varint()?, index: body.varint()? },
            },
            KEYSPACE_CREATE => Self::KeyspaceCreate {
                name: String::from_utf8(body.bytes()?.into()).map_err(|_| corrupt("log payload: keyspace name"))?,
            },
            KEYSPACE_DROP => Self::KeyspaceDrop { id: body.u32()? },
            FORMAT_LEVEL => Self::FormatLevel { level: body.u32()? },
            ARCHIVED => Self::Archived(get_archived(&mut body)?),
            other => return Err(corrupt(format!("log payload of unknown kind {other}"))),
        };
        body.finish()?;
        Ok(decoded)
    }
}

fn manifest_id(body: &mut Reader) -> Result<ManifestId> {
    let mut bytes = [0; ManifestId::BYTES];
    for byte in &mut bytes {
        *byte = body.u8()?;
    }
    ManifestId::from_bytes(&bytes).ok_or_else(|| corrupt("log payload: manifest id"))
}

fn header(kind: u8, capacity: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEADER_BYTES + capacity);
    out.put_slice(MAGIC);
    out.put_slice(&[VERSION, kind, 0, 0]);
    out.put_u64_le(0);
    out
}

/// Writes length and checksum.
fn seal(mut out: Vec<u8>) -> Bytes {
    let len = (out.len() - HEADER_BYTES) as u32;
    out[8..12].copy_from_slice(&len.to_le_bytes());
    let crc = checksum(&out);
    out[12..16].copy_from_slice(&crc.to_le_bytes());
    Bytes::from(out)
}

fn checksum(payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&payload[..12]);
    hasher.update(&payload[HEADER_BYTES..]);
    hasher.finalize()
}

/// Checks everything about the header; answers the kind.
fn verify(payload: &Bytes) -> Result<u8> {
    if payload.len() < HEADER_BYTES || &payload[..4] != MAGIC {
        return Err(corrupt("log payload without its magic"));
    }
    check_version("log payload", u16::from(payload[4]), u16::from(VERSION))?;
    if u32_at(payload, 8) != u32::try_from(payload.len() - HEADER_BYTES).ok() {
        return Err(corrupt("log payload: length"));
    }
    let (found, expected) = (checksum(payload), u32_at(payload, 12));
    if Some(found) != expected {
        return Err(corrupt(format!("log payload: checksum {found:08x}, expected {expected:08x?}")));
    }
    Ok(payload[5])
}

/// Collects encoded batches into one group payload.
pub struct GroupWriter {
    batches: Vec<Bytes>,
    bytes: usize,
}

impl GroupWriter {
    /// An empty group.
    pub fn new() -> Self {
        Self { batches: Vec::new(), bytes: HEADER_BYTES + 10 }
    }

    /// Whether a batch of `len` bytes still fits. An empty group takes any batch up to [`BATCH_BYTES_MAX`].
    pub fn fits(&self, len: usize) -> bool {
        self.batches.len() < ENTRY_BATCHES_MAX && self.bytes + len + 10 <= ENTRY_BYTES_MAX
    }

    /// Adds a batch that [`Self::fits`].
    pub fn push(&mut self, batch: Bytes) {
        self.bytes += batch.len() + 10;
        self.batches.push(batch);
    }

    /// How many batches it has.
    pub fn len(&self) -> usize {
        self.batches.len()
    }

    /// Whether nothing was added.
    pub fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }

    /// The payload.
    pub fn finish(self) -> Bytes {
        let mut out = header(GROUP, self.bytes);
        put_varint(&mut out, self.batches.len() as u64);
        self.batches.iter().for_each(|batch| put_bytes(&mut out, batch));
        seal(out)
    }
}

impl Default for GroupWriter {
    fn default() -> Self {
        Self::new()
    }
}

/// The longest batch that fits into a group; longer ones travel as parts.
pub const BATCH_BYTES_MAX: usize = ENTRY_BYTES_MAX - HEADER_BYTES - 20;

/// A guard in a batch (rule 11).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Guard {
    /// Which guard; 0 is its version before it was ever set.
    pub guard: u64,
    /// The version to find, or to set.
    pub version: u64,
    /// Set it (otherwise: reject the batch unless it has this version).
    pub set: bool,
}

/// What precedes a batch's operations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchHeader {
    /// Transaction id: outcomes are kept by it (rule 12).
    pub txn: u128,
    /// Term in which its locks were taken (rule 7).
    pub term: u64,
    /// Milliseconds since 1970 at the leader when it was committed.
    pub time: u64,
    /// Guards to check and set.
    pub guards: Vec<Guard>,
    /// Ranges to delete, before the operations: internal keys `[start, end)`.
    pub ranges: Vec<(Bytes, Bytes)>,
}

/// Encodes a batch: header, then `count` operations.
pub fn encode_batch<'a>(
    header: &BatchHeader,
    ops: impl ExactSizeIterator<Item = (&'a Bytes, &'a Op)>,
    hint: usize,
) -> Bytes {
    let mut out = Vec::with_capacity(64 + header.guards.len() * 21 + hint);
    out.put_u128_le(header.txn);
    put_varint(&mut out, header.term);
    put_varint(&mut out, header.time);
    put_varint(&mut out, header.guards.len() as u64);
    for guard in &header.guards {
        out.push(u8::from(guard.set));
        put_varint(&mut out, guard.guard);
        put_varint(&mut out, guard.version);
    }
    put_varint(&mut out, header.ranges.len() as u64);
    for (start, end) in &header.ranges {
        put_bytes(&mut out, start);
        put_bytes(&mut out, end);
    }
    put_varint(&mut out, ops.len() as u64);
    for (key, op) in ops {
        match op {
            Op::Delete => {
                out.push(0);
                put_bytes(&mut out, key);
            }
            Op::Put(value) => {
                out.push(1);
                put_bytes(&mut out, key);
                put_bytes(&mut out, value);
            }
        }
    }
    Bytes::from(out)
}

/// Reads a batch: the header at once, the operations one by one.
pub struct BatchReader {
    /// What precedes the operations.
    pub header: BatchHeader,
    body: Reader,
    left: usize,
}

impl BatchReader {
    /// Reads the header.
    pub fn new(batch: Bytes) -> Result<Self> {
        let mut body = Reader::new(batch, "batch");
        let (txn, term, time) = (body.u128()?, body.varint()?, body.varint()?);
        let count = body.count(3)?;
        if count > BATCH_GUARDS_MAX {
            return Err(corrupt(format!("batch: {count} guards")));
        }
        let mut guards = Vec::with_capacity(count);
        for _ in 0..count {
            let set = body.u8()? != 0;
            guards.push(Guard { set, guard: body.varint()?, version: body.varint()? });
        }
        let count = body.count(2)?;
        let ranges = (0..count).map(|_| Ok((body.bytes()?, body.bytes()?))).collect::<Result<_>>()?;
        let left = body.count(2)?;
        Ok(Self { header: BatchHeader { txn, term, time, guards, ranges }, body, left })
    }

    /// How many operations are left.
    pub fn len(&self) -> usize {
        self.left
    }

    /// Whether no operation is left.
    pub fn is_empty(&self) -> bool {
        self.left == 0
    }

    /// The next operation: internal key and what happened to it.
    pub fn next_op(&mut self) -> Result<Option<(Bytes, Op)>> {
        if self.left == 0 {
            return Ok(None);
        }
        self.left -= 1;
        let kind = self.body.u8()?;
        let key = self.body.bytes()?;
        match kind {
            0 => Ok(Some((key, Op::Delete))),
            1 => Ok(Some((key, Op::Put(self.body.bytes()?)))),
            other => Err(Error::Corrupt(format!("batch: operation of unknown kind {other}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn batch() -> Bytes {
        let header = BatchHeader {
            txn: 0x0102,
            term: 3,
            time: 300,
            guards: vec![Guard { guard: 9, version: 4, set: true }],
            ranges: vec![(Bytes::from_static(b"a"), Bytes::from_static(b"c"))],
        };
        let ops =
            [(Bytes::from_static(b"k"), Op::Put(Bytes::from_static(b"v"))), (Bytes::from_static(b"z"), Op::Delete)];
        encode_batch(&header, ops.iter().map(|(key, op)| (key, op)), 0)
    }

    #[test]
    fn golden_bytes() {
        let mut group = GroupWriter::new();
        group.push(batch());
        let payload = group.finish();
        let hex: String = payload.iter().map(|byte| format!("{byte:02x}")).collect();
        let header = "48464c50010100002700000094f578e7";
        let batch_header = "01250201000000000000000000000000000003ac02";
        assert_eq!(hex, format!("{header}{batch_header}0101090401016101630201016b017600017a"));
        assert_eq!(Payload::decode(&payload).unwrap(), Payload::Group(vec![batch()]));
    }

    #[test]
    fn a_batch_reads_back() {
        let mut reader = BatchReader::new(batch()).unwrap();
        assert_eq!((reader.header.txn, reader.header.term, reader.header.time), (0x0102, 3, 300));
        assert_eq!(reader.header.guards, [Guard { guard: 9, version: 4, set: true }]);
        assert_eq!(reader.header.ranges, [(Bytes::from_static(b"a"), Bytes::from_static(b"c"))]);
        assert_eq!(reader.next_op().unwrap(), Some((Bytes::from_static(b"k"), Op::Put(Bytes::from_static(b"v")))));
        assert_eq!(reader.next_op().unwrap(), Some((Bytes::from_static(b"z"), Op::Delete)));
        assert_eq!(reader.next_op().unwrap(), None);
        assert_eq!(Payload::Group(vec![batch(), Bytes::new()]).commit_time(), Some(300));
        assert_eq!((Payload::Group(vec![]).commit_time(), Payload::Freeze.commit_time()), (None, None));
    }

    #[test]
    fn every_kind_reads_back() {
        let manifest = ManifestId { term: 2, ulid: 77 };
        for payload in [
            Payload::Part { txn: 5, number: 6, bytes: Bytes::from_static(b"abc") },
            Payload::Commit { txn: 5, parts: 7, bytes: 1 << 33, crc: 9 },
            Payload::Abort { txn: u128::MAX },
            Payload::Freeze,
            Payload::Edit { base: ManifestId::default(), manifest, up_to: LogId { term: 1, index: 300 } },
            Payload::Edit { base: manifest, manifest, up_to: LogId { term: 1, index: 300 } },
            Payload::KeyspaceCreate { name: "täble".into() },
            Payload::KeyspaceDrop { id: 70_000 },
            Payload::FormatLevel { level: 2 },
            Payload::Archived(None),
            Payload::Archived(Some(ArchivePoint {
                up_to: LogId { term: 3, index: 900 },
                manifest: ManifestId { term: 2, ulid: 7 },
                covered: LogId { term: 2, index: 500 },
            })),
        ] {
            assert_eq!(Payload::decode(&payload.encode()).unwrap(), payload);
        }
    }

    #[test]
    fn a_newer_version_says_so() {
        let mut bytes = Payload::Freeze.encode().to_vec();
        bytes[4] = VERSION + 1;
        let error = Payload::decode(&bytes.into()).unwrap_err().to_string();
        assert!(error.contains("version 2"), "{error}");
    }

    proptest! {
        #[test]
        fn a_flipped_bit_is_found(at in 0usize..1000, bit in 0u8..8) {
            let mut bytes = Payload::Group(vec![batch()]).encode().to_vec();
            let at = at % bytes.len();
            bytes[at] ^= 1 << bit;
            // Bytes 6 and 7 are covered by the checksum too: any flip must be refused.
            prop_assert!(Payload::decode(&bytes.into()).is_err());
        }

        #[test]
        fn garbage_never_panics(bytes: Vec<u8>) {
            let bytes = Bytes::from(bytes);
            let _ = Payload::decode(&bytes);
            if let Ok(mut reader) = BatchReader::new(bytes) {
                while let Ok(Some(_)) = reader.next_op() {}
            }
        }
    }
}
