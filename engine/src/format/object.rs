//! The object: pages, then the tail that finds them. Immutable, stored under a key that is used once.
//!
//! ```text
//! pages, back to back           see `page`
//! index                         one varint record, see `encode_index`
//! filter                        64-byte blocks of a Bloom filter over the distinct keys; may be empty
//! footer, 64 bytes (little endian)
//!   offset size  field
//!        0    4  magic "HFOB"
//!        4    2  version (1)
//!        6    2  0
//!        8   16  object id
//!       24    8  offset of the index = length of all pages
//!       32    4  length of the index
//!       36    4  length of the filter
//!       40    8  entries
//!       48    4  number of pages
//!       52    4  CRC-32 of index and filter
//!       56    4  0
//!       60    4  CRC-32 of footer bytes 0..60
//! ```
//! The index is: varint page count, then per page varint length and CRC-32 (as in the page's header); varint leaf
//! count, then per leaf varint (page number * 2 + 1 if the previous leaf ends with versions of the same key), varint
//! commit number and length-prefixed key of its first entry.

use bytes::Bytes;

use super::{Reader, check_version, common_prefix, corrupt, get_varint, head8, put_bytes, put_varint};
use super::{u16_at, u32_at, u64_at};
use crate::{error::Result, types::CommitSeq};

/// Bytes of the footer.
pub const FOOTER_BYTES: usize = 64;
/// Newest version that this build reads, and the one it writes.
pub const VERSION: u16 = 1;
const MAGIC: &[u8; 4] = b"HFOB";
/// Bits of filter per distinct key: about 1 % false positives with [`FILTER_PROBES`].
const FILTER_BITS_PER_KEY: usize = 10;
const FILTER_PROBES: u32 = 6;
const FILTER_BLOCK_BYTES: usize = 64;

/// Where a page is in its object, and its checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageAt {
    /// Offset in the object.
    pub offset: u64,
    /// Stored length.
    pub len: u32,
    /// CRC-32 that the page's header carries.
    pub crc: u32,
}

/// The first entry of a leaf.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeafAt {
    /// Page number.
    pub page: u32,
    /// Whether the previous leaf ends with newer versions of the same key.
    pub continued: bool,
    /// Commit number of the first entry.
    pub seq: CommitSeq,
    /// Key of the first entry.
    pub key: Bytes,
}

/// Gathers what the tail says while pages are written.
#[derive(Debug, Default)]
pub struct TailBuilder {
    pages: Vec<(u32, u32)>,
    leaves: Vec<LeafAt>,
    hashes: Vec<u64>,
    pages_bytes: u64,
    entries: u64,
}

impl TailBuilder {
    /// Notes a page and returns its number.
    pub fn add_page(&mut self, len: u32, crc: u32) -> u32 {
        self.pages.push((len, crc));
        self.pages_bytes += u64::from(len);
        (self.pages.len() - 1) as u32
    }

    /// Notes a leaf.
    pub fn add_leaf(&mut self, leaf: LeafAt) {
        self.leaves.push(leaf);
    }

    /// Notes an entry; `new_key` if it is the first version of its key.
    pub fn add_entry(&mut self, key: &[u8], new_key: bool) {
        self.entries += 1;
        if new_key {
            self.hashes.push(hash(key));
        }
    }

    /// Number of the next page.
    pub fn next_page(&self) -> u32 {
        self.pages.len() as u32
    }

    /// Bytes of the pages so far.
    pub fn pages_bytes(&self) -> u64 {
        self.pages_bytes
    }

    /// Encodes index, filter and footer.
    pub fn finish(self, object: u128) -> Bytes {
        let index = encode_index(&self.pages, &self.leaves);
        let filter = build_filter(&self.hashes);
        let mut tail = Vec::with_capacity(index.len() + filter.len() + FOOTER_BYTES);
        tail.extend_from_slice(&index);
        tail.extend_from_slice(&filter);
        let crc = crc32fast::hash(&tail);
        let at = tail.len();
        tail.extend_from_slice(MAGIC);
        tail.extend_from_slice(&VERSION.to_le_bytes());
        tail.extend_from_slice(&[0; 2]);
        tail.extend_from_slice(&object.to_le_bytes());
        tail.extend_from_slice(&self.pages_bytes.to_le_bytes());
        tail.extend_from_slice(&(index.len() as u32).to_le_bytes());
        tail.extend_from_slice(&(filter.len() as u32).to_le_bytes());
        tail.extend_from_slice(&self.entries.to_le_bytes());
        tail.extend_from_slice(&(self.pages.len() as u32).to_le_bytes());
        tail.extend_from_slice(&crc.to_le_bytes());
        tail.extend_from_slice(&[0; 4]);
        let crc = crc32fast::hash(&tail[at..]);
        tail.extend_from_slice(&crc.to_le_bytes());
        Bytes::from(tail)
    }
}

fn encode_index(pages: &[(u32, u32)], leaves: &[LeafAt]) -> Vec<u8> {
    let mut out = Vec::new();
    put_varint(&mut out, pages.len() as u64);
    for (len, crc) in pages {
        put_varint(&mut out, u64::from(*len));
        out.extend_from_slice(&crc.to_le_bytes());
    }
    put_varint(&mut out, leaves.len() as u64);
    for leaf in leaves {
        put_varint(&mut out, u64::from(leaf.page) << 1 | u64::from(leaf.continued));
        put_varint(&mut out, leaf.seq.0);
        put_bytes(&mut out, &leaf.key);
    }
    out
}

/// An object's index and filter, held in memory while the object is in use.
#[derive(Debug)]
pub struct Tail {
    pages: Vec<PageAt>,
    leaves: Vec<LeafAt>,
    /// Bytes that all first keys share, and the eight behind them of each.
    prefix: Bytes,
    heads: Vec<u64>,
    filter: Bytes,
    entries: u64,
}

impl Tail {
    /// Decodes the last `tail.len()` bytes of the object, which must begin at its index.
    pub fn decode(tail: Bytes, object: u128, object_bytes: u64) -> Result<Self> {
        let at = tail.len().checked_sub(FOOTER_BYTES).ok_or_else(|| corrupt("object shorter than its footer"))?;
        let footer = &tail[at..];
        if &footer[..4] != MAGIC {
            return Err(corrupt("not an object (bad footer magic)"));
        }
        check_version("object", u16_at(footer, 4).unwrap_or(0), VERSION)?;
        let field32 = |at| u32_at(footer, at).unwrap_or(0);
        if crc32fast::hash(&footer[..60]) != field32(60) {
            return Err(corrupt("object footer checksum mismatch"));
        }
        if footer[8..24] != object.to_le_bytes() {
            return Err(corrupt("object footer names another object"));
        }
        let pages_bytes = u64_at(footer, 24).unwrap_or(0);
        let (index_len, filter_len) = (field32(32) as usize, field32(36) as usize);
        if index_len + filter_len != at || pages_bytes.checked_add(tail.len() as u64) != Some(object_bytes) {
            return Err(corrupt("object sections do not add up to its length"));
        }
        if crc32fast::hash(&tail[..at]) != field32(52) {
            return Err(corrupt("object index checksum mismatch"));
        }
        let (pages, leaves) = decode_index(tail.slice(..index_len), pages_bytes)?;
        if pages.len() != field32(48) as usize || filter_len % FILTER_BLOCK_BYTES != 0 {
            return Err(corrupt("object index and footer disagree"));
        }
        let entries = u64_at(footer, 40).unwrap_or(0);
        let shared = match (leaves.first(), leaves.last()) {
            (Some(first), Some(last)) => common_prefix(&first.key, &last.key),
            _ => 0,
        };
        let prefix = leaves.first().map_or_else(Bytes::new, |leaf| leaf.key.slice(..shared));
        let heads = leaves.iter().map(|leaf| head8(leaf.key.get(shared..).unwrap_or_default())).collect();
        Ok(Self { pages, leaves, prefix, heads, filter: tail.slice(index_len..at), entries })
    }

    /// Where page `page` is.
    #[inline]
    pub fn page(&self, page: u32) -> Result<PageAt> {
        let found = self.pages.get(page as usize).copied();
        found.ok_or_else(|| corrupt(format!("page {page} of an object with {} pages", self.pages.len())))
    }

    /// All pages, overflow pages included.
    pub fn pages(&self) -> &[PageAt] {
        &self.pages
    }

    /// The leaves in key order.
    #[inline]
    pub fn leaves(&self) -> &[LeafAt] {
        &self.leaves
    }

    /// Entries in the object.
    pub fn entries(&self) -> u64 {
        self.entries
    }

    /// Bytes of memory that the tail holds.
    pub fn memory(&self) -> usize {
        self.pages.len() * 16
            + self.leaves.len() * 64
            + self.filter.len()
            + self.leaves.iter().map(|leaf| leaf.key.len()).sum::<usize>()
    }

    /// The leaf where the first entry at or behind (`key`, `at`) is, if there is one; where `key` itself is absent it may
    /// be the first entry of the next leaf instead. An index into [`Self::leaves`].
    pub fn find_leaf(&self, key: &[u8], at: CommitSeq) -> usize {
        let Some(rest) = key.strip_prefix(&self.prefix[..]) else {
            return if key < &self.prefix[..] { 0 } else { self.leaves.len().saturating_sub(1) };
        };
        let head = head8(rest);
        let low = self.heads.partition_point(|found| *found < head);
        let high = low + self.heads.get(low..).map_or(0, |rest| rest.partition_point(|found| *found == head));
        let ties = self.leaves.get(low..high).unwrap_or_default();
        let mut found = (low + ties.partition_point(|leaf| leaf.key[..] <= *key)).saturating_sub(1);
        // Versions of one key may fill several leaves.
        while self.leaves.get(found).is_some_and(|leaf| leaf.continued && leaf.seq < at && leaf.key[..] == *key) {
            found = found.saturating_sub(1);
        }
        found
    }

    /// Whether the object may hold `key`, whose [`hash`] is `hash`. `false` is certain.
    #[inline]
    pub fn may_contain(&self, hash: u64) -> bool {
        let blocks = self.filter.len() / FILTER_BLOCK_BYTES;
        if blocks == 0 {
            return true;
        }
        let start = block_of(hash, blocks) * FILTER_BLOCK_BYTES;
        let block = self.filter.get(start..start + FILTER_BLOCK_BYTES).unwrap_or_default();
        probes(hash).all(|bit| block.get(bit / 8).is_some_and(|byte| byte & (1 << (bit % 8)) != 0))
    }
}

fn decode_index(index: Bytes, pages_bytes: u64) -> Result<(Vec<PageAt>, Vec<LeafAt>)> {
    let mut at = 0;
    let short = || corrupt("object index ends early");
    let count = get_varint(&index, &mut at).ok_or_else(short)? as usize;
    if count > index.len() / 5 {
        return Err(short());
    }
    let mut pages = Vec::with_capacity(count);
    let mut offset = 0u64;
    for _ in 0..count {
        let len = u32::try_from(get_varint(&index, &mut at).ok_or_else(short)?).map_err(|_| short())?;
        let crc = u32_at(&index, at).ok_or_else(short)?;
        at += 4;
        pages.push(PageAt { offset, len, crc });
        offset += u64::from(len);
    }
    if offset != pages_bytes {
        return Err(corrupt("object index does not cover its pages"));
    }
    let mut reader = Reader::new(index.slice(at..), "object index");
    let leaves = reader.count(3)?;
    let leaves = (0..leaves)
        .map(|_| {
            let page = reader.varint()?;
            let (page, continued) = (u32::try_from(page >> 1).map_err(|_| short())?, page & 1 == 1);
            Ok(LeafAt { page, continued, seq: CommitSeq(reader.varint()?), key: reader.bytes()? })
        })
        .collect::<Result<Vec<_>>>()?;
    reader.finish()?;
    Ok((pages, leaves))
}

fn build_filter(hashes: &[u64]) -> Vec<u8> {
    let blocks = (hashes.len() * FILTER_BITS_PER_KEY).div_ceil(FILTER_BLOCK_BYTES * 8);
    let mut filter = vec![0u8; blocks * FILTER_BLOCK_BYTES];
    for hash in hashes {
        let start = block_of(*hash, blocks) * FILTER_BLOCK_BYTES;
        for bit in probes(*hash) {
            filter[start + bit / 8] |= 1 << (bit % 8);
        }
    }
    filter
}

#[inline]
fn block_of(hash: u64, blocks: usize) -> usize {
    ((u128::from(hash) * blocks as u128) >> 64) as usize
}

/// Bits of the 512-bit block that a key sets; from the low half of the hash, as the high half chose the block.
#[inline]
fn probes(hash: u64) -> impl Iterator<Item = usize> {
    let mut bits = hash.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (0..FILTER_PROBES).map(move |_| {
        let bit = (bits & 511) as usize;
        bits >>= 9;
        bit
    })
}

/// The filter's hash of a key. Part of the format: it never changes within a version.
pub fn hash(key: &[u8]) -> u64 {
    const A: u64 = 0xa076_1d64_78bd_642f;
    const B: u64 = 0xe703_7ed1_a0b4_28db;
    fn fold(a: u64, b: u64) -> u64 {
        let product = u128::from(a) * u128::from(b);
        product as u64 ^ (product >> 64) as u64
    }
    let mut state = A ^ key.len() as u64;
    let (chunks, rest) = key.as_chunks::<8>();
    for chunk in chunks {
        state = fold(state ^ u64::from_le_bytes(*chunk), B);
    }
    fold(fold(state ^ head8(rest), B) ^ A, B)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sample(keys: &[Vec<u8>]) -> (TailBuilder, Vec<LeafAt>) {
        let mut builder = TailBuilder::default();
        let mut leaves = Vec::new();
        for (n, key) in keys.iter().enumerate() {
            let page = builder.add_page(100 + n as u32, n as u32 * 7);
            builder.add_entry(key, true);
            let leaf = LeafAt { page, continued: false, seq: CommitSeq(n as u64), key: Bytes::copy_from_slice(key) };
            builder.add_leaf(leaf.clone());
            leaves.push(leaf);
        }
        (builder, leaves)
    }

    #[test]
    fn golden_bytes() {
        let (builder, _) = sample(&[b"a".to_vec(), b"bc".to_vec()]);
        let tail = builder.finish(0x0102_0304);
        let hex: String = tail.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(
            hex,
            concat!(
                "026400000000650700000002000001610201026263000000000200000000000088000010000000000001020000000020",
                "0000000080000000000000004000000000040000000000020000000000000000000000400048464f4201000000040302",
                "01000000000000000000000000c900000000000000150000004000000002000000000000000200000025d319f7000000",
                "00bd177bf2",
            )
        );
        assert_eq!(hash(b"holdfast"), 320_628_406_015_458_037);
    }

    proptest! {
        #[test]
        fn round_trips(keys in proptest::collection::btree_set(proptest::collection::vec(any::<u8>(), 0..12), 1..60),
                       probe in proptest::collection::vec(any::<u8>(), 0..12)) {
            let keys: Vec<_> = keys.into_iter().collect();
            let (builder, leaves) = sample(&keys);
            let pages_bytes = builder.pages_bytes();
            let bytes = builder.finish(5);
            let tail = Tail::decode(bytes.clone(), 5, pages_bytes + bytes.len() as u64).unwrap();
            prop_assert_eq!(tail.leaves(), &leaves[..]);
            prop_assert_eq!(tail.entries(), keys.len() as u64);
            for key in keys.iter().chain([&probe]) {
                let expected = leaves.iter().rposition(|leaf| leaf.key <= key[..]).unwrap_or(0);
                prop_assert_eq!(tail.find_leaf(key, CommitSeq::ZERO), expected);
            }
            for key in &keys {
                prop_assert!(tail.may_contain(hash(key)));
            }
        }

        #[test]
        fn any_changed_byte_is_detected(place: prop::sample::Index, flip in 1u8..) {
            let (builder, _) = sample(&[b"a".to_vec(), b"bc".to_vec(), b"bd".to_vec()]);
            let pages_bytes = builder.pages_bytes();
            let mut bytes = builder.finish(5).to_vec();
            let size = pages_bytes + bytes.len() as u64;
            let place = place.index(bytes.len());
            bytes[place] ^= flip;
            prop_assert!(Tail::decode(Bytes::from(bytes.clone()), 5, size).is_err());
            bytes.truncate(place);
            prop_assert!(Tail::decode(Bytes::from(bytes), 5, size).is_err());
        }
    }

    #[test]
    fn filters_rarely_lie() {
        let keys: Vec<_> = (0..10_000u32).map(|n| n.to_be_bytes().to_vec()).collect();
        let (builder, _) = sample(&keys);
        let pages_bytes = builder.pages_bytes();
        let bytes = builder.finish(5);
        let tail = Tail::decode(bytes.clone(), 5, pages_bytes + bytes.len() as u64).unwrap();
        let lies = (10_000..20_000u32).filter(|n| tail.may_contain(hash(&n.to_be_bytes()))).count();
        assert!(lies < 300, "{lies} of 10000");
    }

    #[test]
    fn another_objects_tail_is_refused() {
        let (builder, _) = sample(&[b"a".to_vec()]);
        let pages_bytes = builder.pages_bytes();
        let bytes = builder.finish(5);
        let error = Tail::decode(bytes.clone(), 6, pages_bytes + bytes.len() as u64).unwrap_err();
        assert!(error.to_string().contains("another object"));
    }
}
