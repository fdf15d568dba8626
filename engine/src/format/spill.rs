//! The index of a spilled memtable: what a restart needs to go on behind it. Its rows lie beside it, as objects.
//!
//! ```text
//! offset size  field (little endian)
//!      0    4  magic "HFSP"
//!      4    2  version (1)
//!      6    2  0
//!      8    8  length of the body
//!     16    4  CRC-32 of bytes 0..16 and the body
//!     20    .  body: varint term and varint index of the entry behind which the memtable begins; varint term and ULID (16) of
//!              the manifest in force at its end; then, to the end, a manifest (see `manifest`) that has the memtable's objects
//!              as its one run, its range deletes, and machine state and membership at its end
//! ```

use bytes::{BufMut, Bytes};
use holdfast_wal::LogId;

use super::{
    Reader, check_version, corrupt,
    manifest::{Manifest, ManifestId, get_id, get_log_id, put_id, put_log_id},
    u16_at, u32_at, u64_at,
};
use crate::error::Result;

/// Bytes in front of the body.
pub const HEADER_BYTES: usize = 20;
/// Newest version that this build reads, and the one it writes.
pub const VERSION: u16 = 1;
const MAGIC: &[u8; 4] = b"HFSP";

/// A frozen memtable on local disk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SpillIndex {
    /// It holds what comes behind this log entry.
    pub base: LogId,
    /// The manifest in force at its end.
    pub in_force: ManifestId,
    /// Its rows, and all state at its end that is not rows.
    pub manifest: Manifest,
}

impl SpillIndex {
    /// Encodes the index.
    pub fn encode(&self) -> Bytes {
        let mut out = vec![0; HEADER_BYTES];
        put_log_id(&mut out, self.base);
        put_id(&mut out, self.in_force);
        out.put_slice(&self.manifest.encode());
        out[..4].copy_from_slice(MAGIC);
        out[4..6].copy_from_slice(&VERSION.to_le_bytes());
        let len = (out.len() - HEADER_BYTES) as u64;
        out[8..16].copy_from_slice(&len.to_le_bytes());
        let crc = checksum(&out);
        out[16..20].copy_from_slice(&crc.to_le_bytes());
        Bytes::from(out)
    }

    /// Decodes and verifies an index.
    pub fn decode(bytes: &Bytes) -> Result<Self> {
        if bytes.len() < HEADER_BYTES || &bytes[..4] != MAGIC {
            return Err(corrupt("not the index of a spill (bad magic)"));
        }
        check_version("spill index", u16_at(bytes, 4).unwrap_or(0), VERSION)?;
        if u64_at(bytes, 8) != Some((bytes.len() - HEADER_BYTES) as u64) {
            return Err(corrupt("spill index: length"));
        }
        if u32_at(bytes, 16) != Some(checksum(bytes)) {
            return Err(corrupt("spill index: checksum"));
        }
        let mut body = Reader::new(bytes.slice(HEADER_BYTES..), "spill index");
        let (base, in_force) = (get_log_id(&mut body)?, get_id(&mut body)?);
        Ok(Self { base, in_force, manifest: Manifest::decode(body.rest())? })
    }
}

fn checksum(bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&bytes[..16]);
    hasher.update(&bytes[HEADER_BYTES..]);
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sample() -> SpillIndex {
        let manifest = Manifest { up_to: LogId { term: 2, index: 300 }, state: "s".into(), ..Manifest::default() };
        SpillIndex { base: LogId { term: 1, index: 7 }, in_force: ManifestId { term: 1, ulid: 5 }, manifest }
    }

    #[test]
    fn golden_bytes() {
        let bytes = sample().encode();
        let hex: String = bytes[..HEADER_BYTES + 19].iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, GOLDEN);
        // Then comes the manifest, which has golden bytes of its own.
        assert!(bytes.ends_with(&sample().manifest.encode()));
    }

    const GOLDEN: &str = "484653500100000075000000000000006aadd47401070105000000000000000000000000000000";

    #[test]
    fn reads_back_and_refuses_damage() {
        let bytes = sample().encode();
        assert_eq!(SpillIndex::decode(&bytes), Ok(sample()));
        for at in 0..bytes.len() {
            let mut damaged = bytes.to_vec();
            damaged[at] ^= 0x10;
            assert!(SpillIndex::decode(&damaged.into()).is_err(), "byte {at}");
            assert!(SpillIndex::decode(&bytes.slice(..at)).is_err(), "cut at {at}");
        }
    }

    proptest! {
        #[test]
        fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = SpillIndex::decode(&bytes.into());
        }
    }
}
