//! FORMAT: one record in the NVMe file, and the directory that closes a zone.
//!
//! The file is an array of zones of [`ZONE_BYTES`]. A zone is filled front to back with slots, each a whole number of
//! units of 64 bytes, and closed by a directory in its last blocks. A slot begins where the last one ended, or at the
//! next block of 4 KiB: the device is written in whole blocks. Integers are little-endian. Nothing here is trusted:
//! whatever does not check out is a miss.
//!
//! A payload of whole blocks lies apart from its header, so that to read it takes just these blocks: headers of such
//! slots follow each other, and their payloads come at the next block, in the same order. Readers check them by what
//! the index has of the header.
//!
//! ```text
//! slot       0   4  magic "HFCS"
//!            4   2  version = 3
//!            6   2  where the payload lies: 0 = behind the header, 1 = apart
//!            8  16  key: group
//!           24   4  key: item
//!           28   4  length of the payload
//!           32   8  generation of the zone: a leftover of the zone's former life has another
//!           40   8  deadline, ms of the cache's clock; u64::MAX = never
//!           48   4  CRC32 of bytes 8..28 (the key) and of the payload
//!           52   2  first unit in the zone of a payload that lies apart
//!           54   6  zero
//!           60   4  CRC32 of bytes 0..60
//!           64   .  payload, then zeros up to the end of the last unit; nothing if it lies apart
//!
//! directory  .   .  entries of 36 bytes: group 16, item 4, first unit in the zone 2, units 2, deadline 8, CRC32 4. Of a
//!                   payload that lies apart: its own units, 32768 added to their number, and the header's first CRC32
//!                .  zeros, so that the directory takes whole blocks, as few as it can
//!                4  magic "HFCZ"
//!                2  version = 3
//!                2  zero
//!                4  count of entries
//!                8  generation of the zone
//!                8  zero
//!                4  CRC32 of the 28 bytes before and of the entries; the end of the zone
//! ```

use std::ops::Range;

use super::index::Location;
use crate::{Key, ttl::Deadline};

/// The unit of device I/O: O_DIRECT works on 512-byte and on 4 KiB sectors.
pub(crate) const BLOCK: usize = 4096;
/// The unit of eviction.
pub(crate) const ZONE_BYTES: usize = 4 << 20;
/// The unit of a slot.
pub(crate) const UNIT: usize = 64;
pub(crate) const UNITS_OF_BLOCK: u16 = (BLOCK / UNIT) as u16;
pub(crate) const HEADER: usize = 64;
/// The largest slot. Anything larger is not cached on NVMe.
const MAX_SLOT: usize = 1 << 20;
pub(crate) const MAX_PAYLOAD: usize = MAX_SLOT - HEADER;
/// What is read at a zone's end in the hope that it holds the whole directory.
pub(crate) const TAIL_BYTES: usize = 8 * BLOCK;

const SLOT_MAGIC: [u8; 4] = *b"HFCS";
const DIRECTORY_MAGIC: [u8; 4] = *b"HFCZ";
const VERSION: u16 = 3;
const ENTRY: usize = 36;
/// Added to the units of a payload that lies apart, in a directory.
const APART: u16 = 1 << 15;
const FOOTER: usize = 32;

/// Why bytes are not the slot or directory that was looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bad {
    /// Not written, cut, overwritten or damaged.
    Garbage,
    /// Sound, but of a later version of the format.
    Newer(u16),
    /// Sound, but another key's: the slot was recycled.
    OtherKey,
}

/// A slot's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slot {
    pub(crate) key: Key,
    pub(crate) len: u32,
    pub(crate) generation: u64,
    pub(crate) deadline: Deadline,
    /// CRC32 of the key and the payload.
    pub(crate) crc: u32,
    /// First unit in the zone of a payload that lies apart.
    pub(crate) apart: Option<u16>,
}

/// Whether a payload of so many bytes lies apart from its header.
pub(crate) fn lies_apart(payload: usize) -> bool {
    payload > 0 && payload.is_multiple_of(BLOCK)
}

/// How many units a payload takes, with its header if that lies before it; `None` if it is larger than the largest slot.
pub(crate) fn units_for(payload: usize) -> Option<u16> {
    let bytes = if lies_apart(payload) { payload } else { payload + HEADER };
    (payload <= MAX_PAYLOAD).then(|| bytes.div_ceil(UNIT) as u16)
}

/// The checksum of a record.
pub(crate) fn checksum(key: &Key, payload: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&key.group.to_le_bytes());
    crc.update(&key.item.to_le_bytes());
    crc.update(payload);
    crc.finalize()
}

/// Encodes a slot into `out`, which must have room for its units, and zeroes the rest of its last unit. False if it has not.
pub(crate) fn encode(out: &mut [u8], key: Key, generation: u64, deadline: Deadline, payload: &[u8]) -> bool {
    let Some((header, rest)) = out.split_first_chunk_mut::<HEADER>() else { return false };
    let (Some((target, slack)), Ok(len)) = (rest.split_at_mut_checked(payload.len()), u32::try_from(payload.len()))
    else {
        return false;
    };
    *header = header_bytes(&Slot { key, len, generation, deadline, crc: checksum(&key, payload), apart: None });
    target.copy_from_slice(payload);
    slack.fill(0);
    true
}

/// The bytes of a header.
pub(crate) fn header_bytes(slot: &Slot) -> [u8; HEADER] {
    let mut h = [0; HEADER];
    h[0..4].copy_from_slice(&SLOT_MAGIC);
    h[4..6].copy_from_slice(&VERSION.to_le_bytes());
    h[6..8].copy_from_slice(&u16::from(slot.apart.is_some()).to_le_bytes());
    h[8..24].copy_from_slice(&slot.key.group.to_le_bytes());
    h[24..28].copy_from_slice(&slot.key.item.to_le_bytes());
    h[28..32].copy_from_slice(&slot.len.to_le_bytes());
    h[32..40].copy_from_slice(&slot.generation.to_le_bytes());
    h[40..48].copy_from_slice(&slot.deadline.0.to_le_bytes());
    h[48..52].copy_from_slice(&slot.crc.to_le_bytes());
    h[52..54].copy_from_slice(&slot.apart.unwrap_or(0).to_le_bytes());
    let crc = crc32fast::hash(&h[..60]);
    h[60..64].copy_from_slice(&crc.to_le_bytes());
    h
}

/// Decodes a slot's header, and checks that its length can be.
pub(crate) fn decode_header(bytes: &[u8]) -> Result<Slot, Bad> {
    let h: &[u8; HEADER] = bytes.first_chunk().ok_or(Bad::Garbage)?;
    if h[0..4] != SLOT_MAGIC || crc32fast::hash(&h[..60]) != u32_at(h, 60) {
        return Err(Bad::Garbage);
    }
    check_version(u16_at(h, 4))?;
    let slot = Slot {
        key: Key { group: u128_at(h, 8), item: u32_at(h, 24) },
        len: u32_at(h, 28),
        generation: u64_at(h, 32),
        deadline: Deadline(u64_at(h, 40)),
        crc: u32_at(h, 48),
        apart: (u16_at(h, 6) == 1).then_some(u16_at(h, 52)),
    };
    let len = slot.len as usize;
    let sound = slot.apart.is_none_or(|unit| lies_apart(len) && unit.is_multiple_of(UNITS_OF_BLOCK));
    units_for(len).filter(|_| sound).map(|_| slot).ok_or(Bad::Garbage)
}

/// The payload of `key` that lies apart at the beginning of `bytes`, if its checksum is `crc`.
pub(crate) fn decode_apart(bytes: &[u8], key: Key, units: u16, crc: u32) -> Result<&[u8], Bad> {
    let payload = bytes.get(..usize::from(units) * UNIT).ok_or(Bad::Garbage)?;
    if checksum(&key, payload) == crc { Ok(payload) } else { Err(Bad::Garbage) }
}

/// Decodes the slot of `key` whose payload lies behind its header: the header, and the payload once the checksum fits.
pub(crate) fn decode(bytes: &[u8], key: Key) -> Result<(Slot, &[u8]), Bad> {
    let slot = decode_header(bytes)?;
    if slot.key != key {
        return Err(Bad::OtherKey);
    }
    let payload = bytes.get(HEADER..HEADER + slot.len as usize).ok_or(Bad::Garbage)?;
    if slot.apart.is_some() || checksum(&key, payload) != slot.crc {
        return Err(Bad::Garbage);
    }
    Ok((slot, payload))
}

/// Follows the slots of a zone that was not closed: each begins where the last one ended, or at the next block, and payloads
/// that lie apart are stepped over. Ends with the first that is not of the zone's present life.
pub(crate) fn walk(zone: &[u8], generation: u64) -> Vec<Listed> {
    let slot_at = |at: usize| {
        let slot = decode_header(zone.get(at..)?).ok().filter(|slot| slot.generation == generation)?;
        let apart = slot.apart.map(|_| slot.crc);
        let unit = slot.apart.or_else(|| u16::try_from(at / UNIT).ok())?;
        let units = units_for(slot.len as usize)?;
        Some((at, Listed { key: slot.key, unit, units, deadline: slot.deadline, apart }))
    };
    let mut slots = Vec::new();
    let mut next = 0;
    // Payloads that lie apart, of the headers read last: where they begin and end.
    let mut payloads: Option<(usize, usize)> = None;
    loop {
        let found = match payloads {
            Some((start, _)) if next >= start => None,
            Some(_) => slot_at(next),
            None => slot_at(next).or_else(|| slot_at(next.next_multiple_of(BLOCK))),
        };
        let Some((at, slot)) = found else {
            let Some((_, end)) = payloads.take() else { break };
            next = end;
            continue;
        };
        let bytes = slot.bytes();
        if bytes.end > zone.len() || slot.apart.is_some() && bytes.start < at + HEADER {
            break;
        }
        if slot.apart.is_some() {
            next = at + HEADER;
            payloads = Some((payloads.map_or(bytes.start, |(first, _)| first), bytes.end));
        } else {
            next = bytes.end;
        }
        slots.push(slot);
    }
    slots
}

/// One slot, as the directory of its zone lists it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Listed {
    pub(crate) key: Key,
    /// First unit within the zone.
    pub(crate) unit: u16,
    pub(crate) units: u16,
    pub(crate) deadline: Deadline,
    /// The checksum of a payload that lies apart from its header; the units are then those of the payload.
    pub(crate) apart: Option<u32>,
}

impl Listed {
    /// Where the slot lies, given its zone.
    pub(crate) fn at(&self, zone: u32) -> Location {
        Location { zone, unit: self.unit, units: self.units }
    }

    /// Where the slot, or its payload if that lies apart, is in the zone.
    fn bytes(&self) -> Range<usize> {
        let start = usize::from(self.unit) * UNIT;
        start..start + usize::from(self.units) * UNIT
    }
}

/// Bytes that the directory of so many slots takes, in whole blocks.
pub(crate) fn directory_bytes(slots: usize) -> usize {
    (slots * ENTRY + FOOTER).next_multiple_of(BLOCK)
}

/// Encodes a zone's directory into `out`, whose length is its [`directory_bytes`]. False if it is another.
pub(crate) fn encode_directory(out: &mut [u8], generation: u64, slots: &[Listed]) -> bool {
    let (Ok(count), true) = (u32::try_from(slots.len()), out.len() == directory_bytes(slots.len())) else {
        return false;
    };
    out.fill(0);
    for (entry, slot) in out.chunks_exact_mut(ENTRY).zip(slots) {
        entry[0..16].copy_from_slice(&slot.key.group.to_le_bytes());
        entry[16..20].copy_from_slice(&slot.key.item.to_le_bytes());
        entry[20..22].copy_from_slice(&slot.unit.to_le_bytes());
        let flag = slot.apart.map_or(0, |_| APART);
        entry[22..24].copy_from_slice(&(slot.units | flag).to_le_bytes());
        entry[24..32].copy_from_slice(&slot.deadline.0.to_le_bytes());
        entry[32..36].copy_from_slice(&slot.apart.unwrap_or(0).to_le_bytes());
    }
    let Some((entries, footer)) = out.split_last_chunk_mut::<FOOTER>() else { return false };
    footer[0..4].copy_from_slice(&DIRECTORY_MAGIC);
    footer[4..6].copy_from_slice(&VERSION.to_le_bytes());
    footer[8..12].copy_from_slice(&count.to_le_bytes());
    footer[12..20].copy_from_slice(&generation.to_le_bytes());
    let crc = directory_crc(footer, entries, slots.len());
    footer[28..32].copy_from_slice(&crc.to_le_bytes());
    true
}

/// How many bytes at the end of a zone its directory says it takes; `tail` is the zone's end.
pub(crate) fn directory_extent(tail: &[u8]) -> Option<usize> {
    let footer: &[u8; FOOTER] = tail.last_chunk()?;
    let bytes = directory_bytes(u32_at(footer, 8) as usize);
    (footer[0..4] == DIRECTORY_MAGIC && bytes <= ZONE_BYTES).then_some(bytes)
}

/// Decodes a directory at the end of `tail`: the zone's generation and its slots.
pub(crate) fn decode_directory(tail: &[u8]) -> Result<(u64, Vec<Listed>), Bad> {
    let bytes = directory_extent(tail).ok_or(Bad::Garbage)?;
    let at = tail.len().checked_sub(bytes).ok_or(Bad::Garbage)?;
    let (entries, footer) = tail.get(at..).and_then(|all| all.split_last_chunk::<FOOTER>()).ok_or(Bad::Garbage)?;
    let count = u32_at(footer, 8) as usize;
    if directory_crc(footer, entries, count) != u32_at(footer, 28) {
        return Err(Bad::Garbage);
    }
    check_version(u16_at(footer, 4))?;
    let listed = entries.chunks_exact(ENTRY).take(count).map(|e| Listed {
        key: Key { group: u128_at(e, 0), item: u32_at(e, 16) },
        unit: u16_at(e, 20),
        units: u16_at(e, 22) & !APART,
        deadline: Deadline(u64_at(e, 24)),
        apart: (u16_at(e, 22) & APART != 0).then_some(u32_at(e, 32)),
    });
    let whole = |units: u16| units.is_multiple_of(UNITS_OF_BLOCK);
    let inside = |slot: &Listed| {
        let fits = slot.bytes().len() <= MAX_SLOT && slot.bytes().end <= ZONE_BYTES - bytes;
        slot.units > 0 && fits && (slot.apart.is_none() || whole(slot.unit) && whole(slot.units))
    };
    let listed: Vec<_> = listed.collect();
    if !listed.iter().all(inside) {
        return Err(Bad::Garbage);
    }
    Ok((u64_at(footer, 12), listed))
}

fn directory_crc(footer: &[u8], entries: &[u8], count: usize) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(footer.get(..28).unwrap_or_default());
    crc.update(entries.get(..count * ENTRY).unwrap_or_default());
    crc.finalize()
}

/// An earlier version is not read: a cache can start empty.
fn check_version(version: u16) -> Result<(), Bad> {
    match version.cmp(&VERSION) {
        std::cmp::Ordering::Less => Err(Bad::Garbage),
        std::cmp::Ordering::Equal => Ok(()),
        std::cmp::Ordering::Greater => Err(Bad::Newer(version)),
    }
}

/// `N` bytes at `at`, zeros if there are not as many: every caller has checked the length already.
fn array_at<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes.get(at..).and_then(|tail| tail.first_chunk()).copied().unwrap_or([0; N])
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(array_at(bytes, at))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(array_at(bytes, at))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(array_at(bytes, at))
}

fn u128_at(bytes: &[u8], at: usize) -> u128 {
    u128::from_le_bytes(array_at(bytes, at))
}

#[cfg(test)]
#[path = "slot_tests.rs"]
mod tests;
