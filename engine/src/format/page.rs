//! The page: the unit of caching and of reading from the bucket. Searched in place; values are slices of it.
//!
//! ```text
//! offset size  field (little endian)
//!      0    4  magic "HFPG"
//!      4    1  version (1)
//!      5    1  kind: 1 leaf, 2 overflow
//!      6    1  codec of the body: 0 raw, 1 lz4 block
//!      7    1  0
//!      8    4  stored body length
//!     12    4  raw body length
//!     16    2  leaf: entries
//!     18    2  leaf: length of the prefix that all keys share
//!     20    8  leaf: least commit number in the page
//!     28    4  CRC-32 of bytes 0..28 and the stored body
//!     32    .  body
//! ```
//! A raw leaf body is: entries in the order (key ascending, commit number descending); then one u32 per entry: the
//! *head*, the first four key bytes behind the shared prefix, big-endian valued; then one u16 per entry: its offset in
//! the body. Searching touches heads only, until they tie. An entry is: op (0 put, 1 delete, 2 put with the value in
//! overflow pages), varint key length, varint value length, varint commit number less the page's least, key, value.
//! The value of op 2 is an [`Extent`]. A raw overflow body is a piece of one value.

use std::ops::Range;

use bytes::Bytes;

use super::{check_version, common_prefix, corrupt, get_varint, head4, put_varint, u16_at, u32_at, u64_at};
use crate::{
    error::Result,
    limits::{INLINE_VALUE_BYTES_MAX, KEY_BYTES_MAX},
    types::{CommitSeq, Op},
};

/// Bytes in front of the body.
pub const HEADER_BYTES: usize = 32;
/// Newest version that this build reads, and the one it writes.
pub const VERSION: u8 = 1;
const MAGIC: &[u8; 4] = b"HFPG";
const LEAF: u8 = 1;
const OVERFLOW: u8 = 2;
/// Bytes per entry behind the entries: head and offset.
const SLOT_BYTES: usize = 6;
/// No page's raw body is larger: an overflow piece, or a leaf whose single entry is as large as limits allow.
pub const BODY_BYTES_MAX: usize = 256 * 1024;

const _: () = assert!(KEY_BYTES_MAX + INLINE_VALUE_BYTES_MAX + 64 < BODY_BYTES_MAX);
// Offsets have 16 bits: an entry starts below the page target (16 KiB, at most 32) or is the only one.
const _: () = assert!(KEY_BYTES_MAX < u16::MAX as usize);

/// How a page's body is stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Codec {
    /// As is.
    #[default]
    Raw,
    /// LZ4 block, where it saves at least an eighth.
    Lz4,
}

/// Where a value too large for a leaf lives: consecutive overflow pages of the same object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Number of the first overflow page.
    pub first_page: u32,
    /// How many pages.
    pub pages: u32,
    /// Length of the value.
    pub len: u32,
}

/// Bytes of an encoded [`Extent`].
const EXTENT_BYTES: usize = 12;

impl Extent {
    fn encode(self) -> [u8; EXTENT_BYTES] {
        let mut out = [0; EXTENT_BYTES];
        for (field, chunk) in [self.first_page, self.pages, self.len].iter().zip(out.chunks_exact_mut(4)) {
            chunk.copy_from_slice(&field.to_le_bytes());
        }
        out
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let extent = Self { first_page: u32_at(bytes, 0)?, pages: u32_at(bytes, 4)?, len: u32_at(bytes, 8)? };
        (bytes.len() == EXTENT_BYTES).then_some(extent)
    }
}

/// What an entry says about its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cell<'a> {
    /// The value itself.
    Put(&'a [u8]),
    /// The key is absent.
    Delete,
    /// The value is elsewhere.
    Overflow(Extent),
}

/// What to write for a key.
#[derive(Clone, Copy, Debug)]
pub enum NewCell<'a> {
    /// A value of at most [`INLINE_VALUE_BYTES_MAX`] bytes.
    Put(&'a [u8]),
    /// A tombstone.
    Delete,
    /// A value in overflow pages.
    Overflow(Extent),
}

/// Gathers entries into one leaf.
#[derive(Debug, Default)]
pub struct LeafBuilder {
    entries: Vec<u8>,
    /// (offset, key range) of each entry.
    slots: Vec<(u32, Range<usize>)>,
    /// Commit numbers are deltas of this one, so it must be known before the first entry is added.
    base: Option<CommitSeq>,
    pending: Vec<Pending>,
    bytes: usize,
}

#[derive(Debug)]
struct Pending {
    key: Range<usize>,
    value: Range<usize>,
    seq: CommitSeq,
    op: u8,
}

impl LeafBuilder {
    /// Bytes that the page has so far, within a few.
    pub fn len(&self) -> usize {
        self.bytes
    }

    /// Whether no entry was added.
    pub fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }

    /// Adds the next entry in order.
    pub fn add(&mut self, key: &[u8], seq: CommitSeq, cell: NewCell<'_>) {
        let extent;
        let (op, value): (u8, &[u8]) = match cell {
            NewCell::Put(value) => (0, value),
            NewCell::Delete => (1, &[]),
            NewCell::Overflow(at) => {
                extent = at.encode();
                (2, &extent)
            }
        };
        let start = self.entries.len();
        self.entries.extend_from_slice(key);
        self.entries.extend_from_slice(value);
        let middle = start + key.len();
        self.pending.push(Pending { key: start..middle, value: middle..self.entries.len(), seq, op });
        self.base = Some(self.base.map_or(seq, |base| base.min(seq)));
        self.bytes += key.len() + value.len() + SLOT_BYTES + 10;
    }

    /// Encodes the page and empties the builder.
    pub fn finish(&mut self, codec: Codec) -> Bytes {
        let base = self.base.take().unwrap_or_default();
        let pending = std::mem::take(&mut self.pending);
        let raw = std::mem::take(&mut self.entries);
        let prefix = match (pending.first(), pending.last()) {
            (Some(first), Some(last)) => common_prefix(&raw[first.key.clone()], &raw[last.key.clone()]),
            _ => 0,
        };
        let mut page = Vec::with_capacity(HEADER_BYTES + self.bytes + 64);
        page.resize(HEADER_BYTES, 0);
        self.slots.clear();
        for entry in &pending {
            let offset = (page.len() - HEADER_BYTES) as u32;
            page.push(entry.op);
            put_varint(&mut page, entry.key.len() as u64);
            put_varint(&mut page, entry.value.len() as u64);
            put_varint(&mut page, entry.seq.0 - base.0);
            page.extend_from_slice(&raw[entry.key.clone()]);
            page.extend_from_slice(&raw[entry.value.clone()]);
            self.slots.push((offset, entry.key.clone()));
        }
        for (_, key) in &self.slots {
            page.extend_from_slice(&head4(&raw[key.clone()][prefix..]).to_le_bytes());
        }
        for (offset, _) in &self.slots {
            page.extend_from_slice(&(*offset as u16).to_le_bytes());
        }
        self.bytes = 0;
        self.entries = raw;
        self.entries.clear();
        seal(page, LEAF, pending.len() as u16, prefix as u16, base.0, codec)
    }
}

/// Encodes one piece of a large value.
pub fn encode_overflow(piece: &[u8], codec: Codec) -> Bytes {
    let mut page = Vec::with_capacity(HEADER_BYTES + piece.len());
    page.resize(HEADER_BYTES, 0);
    page.extend_from_slice(piece);
    seal(page, OVERFLOW, 0, 0, 0, codec)
}

/// Compresses the body behind the blank header if that pays, and fills the header in.
fn seal(mut page: Vec<u8>, kind: u8, count: u16, prefix: u16, base: u64, codec: Codec) -> Bytes {
    let raw_len = (page.len() - HEADER_BYTES) as u32;
    let mut stored_codec = 0;
    if codec == Codec::Lz4 {
        let packed = lz4_flex::block::compress(&page[HEADER_BYTES..]);
        if packed.len() + packed.len() / 7 < raw_len as usize {
            page.truncate(HEADER_BYTES);
            page.extend_from_slice(&packed);
            stored_codec = 1;
        }
    }
    let stored_len = (page.len() - HEADER_BYTES) as u32;
    page[0..4].copy_from_slice(MAGIC);
    page[4..8].copy_from_slice(&[VERSION, kind, stored_codec, 0]);
    page[8..12].copy_from_slice(&stored_len.to_le_bytes());
    page[12..16].copy_from_slice(&raw_len.to_le_bytes());
    page[16..18].copy_from_slice(&count.to_le_bytes());
    page[18..20].copy_from_slice(&prefix.to_le_bytes());
    page[20..28].copy_from_slice(&base.to_le_bytes());
    let crc = page_crc(&page);
    page[28..32].copy_from_slice(&crc.to_le_bytes());
    page.shrink_to_fit();
    Bytes::from(page)
}

fn page_crc(page: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&page[..28]);
    crc.update(&page[HEADER_BYTES..]);
    crc.finalize()
}

/// The checksum that a stored page carries, for the object's index. 0 if `page` is too short to be one.
pub fn stored_crc(page: &[u8]) -> u32 {
    u32_at(page, 28).unwrap_or(0)
}

/// Verifies a page as read from a device and returns it with a raw body, ready for the cache and for [`Leaf`].
pub fn verify(stored: Bytes) -> Result<Bytes> {
    let header = stored.get(..HEADER_BYTES).ok_or_else(|| corrupt("page shorter than its header"))?;
    if &header[..4] != MAGIC {
        return Err(corrupt("not a page (bad magic)"));
    }
    check_version("page", u16::from(header[4]), u16::from(VERSION))?;
    let raw_len = u32_at(header, 12).unwrap_or(0) as usize;
    if u32_at(header, 8).map(|len| len as usize + HEADER_BYTES) != Some(stored.len()) || raw_len > BODY_BYTES_MAX {
        return Err(corrupt("page length does not match its header"));
    }
    if page_crc(&stored) != stored_crc(&stored) {
        return Err(corrupt("page checksum mismatch"));
    }
    match header[6] {
        0 if raw_len + HEADER_BYTES == stored.len() => Ok(stored),
        1 => unpack(&stored, raw_len),
        codec => Err(corrupt(format!("page body has codec {codec} and the wrong length"))),
    }
}

fn unpack(stored: &[u8], raw_len: usize) -> Result<Bytes> {
    let mut page = vec![0; HEADER_BYTES + raw_len];
    let body = lz4_flex::block::decompress_into(&stored[HEADER_BYTES..], &mut page[HEADER_BYTES..]);
    if body.ok() != Some(raw_len) {
        return Err(corrupt("page body does not decompress to its length"));
    }
    page[..HEADER_BYTES].copy_from_slice(&stored[..HEADER_BYTES]);
    page[6] = 0;
    page[8..12].copy_from_slice(&(raw_len as u32).to_le_bytes());
    let crc = page_crc(&page);
    page[28..32].copy_from_slice(&crc.to_le_bytes());
    Ok(Bytes::from(page))
}

/// The piece of a value in a verified overflow page.
pub fn overflow_piece(page: &Bytes) -> Result<Bytes> {
    if page.get(5) != Some(&OVERFLOW) || page.get(6) != Some(&0) || page.len() < HEADER_BYTES {
        return Err(corrupt("not a raw overflow page"));
    }
    Ok(page.slice(HEADER_BYTES..))
}

/// A verified leaf, read in place. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Leaf {
    bytes: Bytes,
    count: usize,
    prefix: usize,
    base: u64,
    /// Where heads start, from the page's start.
    heads: usize,
}

/// One entry of a [`Leaf`].
#[derive(Clone, Debug)]
pub struct Entry {
    key: Range<usize>,
    value: Range<usize>,
    op: u8,
    /// Commit number of this version.
    pub seq: CommitSeq,
}

impl Leaf {
    /// Opens a page that [`verify`] returned. Checks the geometry only: the checksum was checked on the way in.
    #[inline]
    pub fn open(bytes: Bytes) -> Result<Self> {
        let geometry = || {
            let header = bytes.get(..HEADER_BYTES)?;
            if &header[..4] != MAGIC || header[5] != LEAF || header[6] != 0 {
                return None;
            }
            let count = usize::from(u16_at(header, 16)?);
            let heads = bytes.len().checked_sub(count * SLOT_BYTES).filter(|heads| *heads >= HEADER_BYTES)?;
            Some((count, usize::from(u16_at(header, 18)?), u64_at(header, 20)?, heads))
        };
        let (count, prefix, base, heads) = geometry().ok_or_else(|| corrupt("not a raw leaf page"))?;
        Ok(Self { count, prefix, base, heads, bytes })
    }

    /// How many entries.
    #[inline]
    pub fn count(&self) -> usize {
        self.count
    }

    #[inline]
    fn head(&self, slot: usize) -> u32 {
        u32_at(&self.bytes, self.heads + slot * 4).unwrap_or(u32::MAX)
    }

    /// The entry in `slot`.
    #[inline]
    pub fn entry(&self, slot: usize) -> Result<Entry> {
        self.parse(slot).ok_or_else(|| corrupt(format!("entry {slot} of {} runs out of its page", self.count)))
    }

    #[inline]
    fn parse(&self, slot: usize) -> Option<Entry> {
        if slot >= self.count {
            return None;
        }
        let body = self.bytes.get(..self.heads)?;
        let offset = u16_at(&self.bytes, self.heads + self.count * 4 + slot * 2)?;
        let mut at = HEADER_BYTES + usize::from(offset);
        let op = *body.get(at)?;
        at += 1;
        let key_len = usize::try_from(get_varint(body, &mut at)?).ok()?;
        let value_len = usize::try_from(get_varint(body, &mut at)?).ok()?;
        let seq = CommitSeq(self.base.checked_add(get_varint(body, &mut at)?)?);
        let key = at..at.checked_add(key_len)?;
        let value = key.end..key.end.checked_add(value_len)?;
        (value.end <= self.heads).then_some(Entry { key, value, op, seq })
    }

    /// The entry's key.
    #[inline]
    pub fn key(&self, entry: &Entry) -> &[u8] {
        self.bytes.get(entry.key.clone()).unwrap_or_default()
    }

    /// The entry's key, sharing the page.
    #[inline]
    pub fn key_bytes(&self, entry: &Entry) -> Bytes {
        self.bytes.slice(entry.key.clone())
    }

    /// What the entry says.
    #[inline]
    pub fn cell(&self, entry: &Entry) -> Result<Cell<'_>> {
        let value = self.bytes.get(entry.value.clone()).unwrap_or_default();
        match entry.op {
            0 => Ok(Cell::Put(value)),
            1 => Ok(Cell::Delete),
            2 => Extent::decode(value).map(Cell::Overflow).ok_or_else(|| corrupt("bad overflow extent")),
            op => Err(corrupt(format!("unknown entry op {op}"))),
        }
    }

    /// The entry's operation sharing the page, or the extent where its value is.
    #[inline]
    pub fn op(&self, entry: &Entry) -> Result<Result<Op, Extent>> {
        Ok(match self.cell(entry)? {
            Cell::Put(_) => Ok(Op::Put(self.bytes.slice(entry.value.clone()))),
            Cell::Delete => Ok(Op::Delete),
            Cell::Overflow(extent) => Err(extent),
        })
    }

    /// The first slot whose (key, seq) is at or behind (`key`, `at`) in page order: the newest version of `key` that a
    /// reader at `at` may see, if its key is `key`; else the first greater key. [`Self::count`] if there is none.
    pub fn seek(&self, key: &[u8], at: CommitSeq) -> Result<usize> {
        if self.count == 0 {
            return Ok(0);
        }
        let first = self.entry(0)?;
        let prefix = self.key(&first).get(..self.prefix).unwrap_or_default();
        let Some(rest) = key.strip_prefix(prefix) else {
            return Ok(if key < prefix { 0 } else { self.count });
        };
        let head = head4(rest);
        let mut low = self.lower_bound(0, |found| found < head);
        let mut high = self.lower_bound(low, |found| found <= head);
        while low < high {
            let middle = low + (high - low) / 2;
            let entry = self.entry(middle)?;
            let found = self.key(&entry).get(self.prefix..).unwrap_or_default();
            if found.cmp(rest).then(at.cmp(&entry.seq)).is_lt() {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        Ok(low)
    }

    #[inline]
    fn lower_bound(&self, from: usize, before: impl Fn(u32) -> bool) -> usize {
        let (mut low, mut high) = (from, self.count);
        while low < high {
            let middle = low + (high - low) / 2;
            if before(self.head(middle)) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }

    /// The first slot whose key is at or above `key` (or above it, if `after`).
    pub fn seek_key(&self, key: &[u8], after: bool) -> Result<usize> {
        if !after {
            return self.seek(key, CommitSeq::MAX);
        }
        let mut slot = self.seek(key, CommitSeq::ZERO)?;
        while slot < self.count && self.key(&self.entry(slot)?) == key {
            slot += 1;
        }
        Ok(slot)
    }
}

#[cfg(test)]
#[path = "page_tests.rs"]
mod tests;
