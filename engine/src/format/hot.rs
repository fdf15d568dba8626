//! The list of hot pages: which pages a leader had in RAM, so that another node can fetch them before its readers ask.
//!
//! ```text
//! offset size  field (little endian)
//!      0    4  magic "HFHT"
//!      4    2  version (1)
//!      6    2  0
//!      8    8  length of the body
//!     16    4  CRC-32 of bytes 0..16 and the body
//!     20    .  body: varint number of objects, at most PAGES_MAX; for each in ascending order of its id: id (16), varint number of
//!              pages (1 or more), varint first page, then for each further page a varint: how far it lies behind the one before, less one
//! ```

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::{Reader, check_version, corrupt, put_varint, u16_at, u32_at, u64_at};
use crate::error::Result;

/// Bytes in front of the body.
pub const HEADER_BYTES: usize = 20;
/// Newest version that this build reads, and the one it writes.
pub const VERSION: u16 = 1;
/// Pages of a list: 4 GiB of them.
pub const PAGES_MAX: usize = 1 << 18;
const MAGIC: &[u8; 4] = b"HFHT";

/// Pages by object.
pub type Pages = BTreeMap<u128, BTreeSet<u32>>;

/// Encodes a list; of more than [`PAGES_MAX`] pages the first ones.
pub fn encode(pages: &Pages) -> Bytes {
    let mut out = vec![0; HEADER_BYTES];
    let mut left = PAGES_MAX;
    let mut groups = Vec::new();
    for (id, pages) in pages.iter().filter(|(_, pages)| !pages.is_empty()) {
        let count = pages.len().min(left);
        if count == 0 {
            break;
        }
        left -= count;
        groups.push((id, pages.iter().take(count)));
    }
    put_varint(&mut out, groups.len() as u64);
    for (id, pages) in groups {
        out.extend_from_slice(&id.to_le_bytes());
        put_varint(&mut out, pages.len() as u64);
        let mut next = 0;
        for page in pages {
            put_varint(&mut out, u64::from(*page) - next);
            next = u64::from(*page) + 1;
        }
    }
    out[..4].copy_from_slice(MAGIC);
    out[4..6].copy_from_slice(&VERSION.to_le_bytes());
    let len = (out.len() - HEADER_BYTES) as u64;
    out[8..16].copy_from_slice(&len.to_le_bytes());
    let crc = checksum(&out);
    out[16..20].copy_from_slice(&crc.to_le_bytes());
    Bytes::from(out)
}

/// Decodes and verifies a list.
pub fn decode(bytes: &Bytes) -> Result<Pages> {
    if bytes.len() < HEADER_BYTES || &bytes[..4] != MAGIC {
        return Err(corrupt("not a list of hot pages (bad magic)"));
    }
    check_version("list of hot pages", u16_at(bytes, 4).unwrap_or(0), VERSION)?;
    if u64_at(bytes, 8) != Some((bytes.len() - HEADER_BYTES) as u64) {
        return Err(corrupt("list of hot pages: length"));
    }
    if u32_at(bytes, 16) != Some(checksum(bytes)) {
        return Err(corrupt("list of hot pages: checksum"));
    }
    let mut body = Reader::new(bytes.slice(HEADER_BYTES..), "list of hot pages");
    let mut pages = Pages::new();
    for _ in 0..body.count(18)? {
        let id = body.u128()?;
        if pages.last_key_value().is_some_and(|(last, _)| *last >= id) {
            return Err(corrupt("list of hot pages: objects out of order"));
        }
        let mut of = BTreeSet::new();
        let mut next = 0u32;
        for _ in 0..body.count(1)? {
            let page = next.checked_add(body.u32()?).filter(|page| *page < u32::MAX);
            let page = page.ok_or_else(|| corrupt("list of hot pages: page number over 32 bits"))?;
            of.insert(page);
            next = page + 1;
        }
        pages.insert(id, of);
    }
    body.finish()?;
    Ok(pages)
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

    fn sample() -> Pages {
        Pages::from([(7, BTreeSet::from([3, 4, 300])), (1 << 100, BTreeSet::from([0]))])
    }

    #[test]
    fn golden_bytes() {
        let hex: String = encode(&sample()).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, GOLDEN);
    }

    const GOLDEN: &str = "48464854010000002800000000000000f10fdc3c0207000000000000000000000000000000030300a702000000000000000000000000100000000100";

    #[test]
    fn reads_back_and_refuses_damage() {
        let bytes = encode(&sample());
        assert_eq!(decode(&bytes), Ok(sample()));
        for at in 0..bytes.len() {
            let mut damaged = bytes.to_vec();
            damaged[at] ^= 0x10;
            assert!(decode(&damaged.into()).is_err(), "byte {at}");
            assert!(decode(&bytes.slice(..at)).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn a_list_is_bounded() {
        let all = Pages::from([(1, (0..10).collect()), (2, (0..PAGES_MAX as u32).collect()), (3, BTreeSet::from([1]))]);
        let kept = decode(&encode(&all)).unwrap();
        assert_eq!(kept.values().map(BTreeSet::len).sum::<usize>(), PAGES_MAX);
        assert_eq!(kept[&2].len(), PAGES_MAX - 10);
    }

    proptest! {
        #[test]
        fn round_trips(raw in proptest::collection::btree_map(any::<u128>(), proptest::collection::btree_set(0..u32::MAX, 1..20), 0..10)) {
            prop_assert_eq!(decode(&encode(&raw)), Ok(raw));
        }

        #[test]
        fn garbage_never_panics(body in proptest::collection::vec(any::<u8>(), 0..64)) {
            let mut bytes = encode(&Pages::new())[..HEADER_BYTES].to_vec();
            bytes.extend(&body);
            bytes[8..16].copy_from_slice(&(body.len() as u64).to_le_bytes());
            let crc = checksum(&bytes);
            bytes[16..20].copy_from_slice(&crc.to_le_bytes());
            let _ = decode(&bytes.into());
        }
    }
}
