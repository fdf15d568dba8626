//! FORMAT: one record in the NVMe file, and the directory that closes a zone.
//!
//! The file is an array of zones of [`ZONE_BYTES`]. A zone is filled front to back with slots, each a whole number of
//! units of 64 bytes, and closed by a directory in its last blocks. A slot begins where the last one ended, or at the
//! next block of 4 KiB: the device is written in whole blocks. Integers are little-endian. Nothing here is trusted:
//! whatever does not check out is a miss.
//!
//! ```text
//! slot       0   4  magic "HFCS"
//!            4   2  version = 2
//!            6   2  zero
//!            8  16  key: group
//!           24   4  key: item
//!           28   4  length of the payload
//!           32   8  generation of the zone: a leftover of the zone's former life has another
//!           40   8  deadline, ms of the cache's clock; u64::MAX = never
//!           48   4  CRC32 of the payload
//!           52   8  zero
//!           60   4  CRC32 of bytes 0..60
//!           64   .  payload, then zeros up to the end of the last unit
//!
//! directory  .   .  entries of 32 bytes: group 16, item 4, first unit in the zone 2, units 2, deadline 8
//!                .  zeros, so that the directory takes whole blocks, as few as it can
//!                4  magic "HFCZ"
//!                2  version = 2
//!                2  zero
//!                4  count of entries
//!                8  generation of the zone
//!                8  zero
//!                4  CRC32 of the 28 bytes before and of the entries; the end of the zone
//! ```

use super::index::Location;
use crate::{Key, ttl::Deadline};

/// The unit of device I/O: O_DIRECT works on 512-byte and on 4 KiB sectors.
pub(crate) const BLOCK: usize = 4096;
/// The unit of eviction.
pub(crate) const ZONE_BYTES: usize = 4 << 20;
/// The unit of a slot.
pub(crate) const UNIT: usize = 64;
pub(crate) const HEADER: usize = 64;
/// The largest slot. Anything larger is not cached on NVMe.
const MAX_SLOT: usize = 1 << 20;
pub(crate) const MAX_PAYLOAD: usize = MAX_SLOT - HEADER;
/// What is read at a zone's end in the hope that it holds the whole directory.
pub(crate) const TAIL_BYTES: usize = 8 * BLOCK;

const SLOT_MAGIC: [u8; 4] = *b"HFCS";
const DIRECTORY_MAGIC: [u8; 4] = *b"HFCZ";
const VERSION: u16 = 2;
const ENTRY: usize = 32;
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
    pub(crate) payload_crc: u32,
}

impl Slot {
    /// Units that the slot takes.
    pub(crate) fn units(&self) -> u16 {
        units_for(self.len as usize).unwrap_or(1)
    }
}

/// How many units a payload takes, or `None` if it is larger than the largest slot.
pub(crate) fn units_for(payload: usize) -> Option<u16> {
    (payload <= MAX_PAYLOAD).then(|| (payload + HEADER).div_ceil(UNIT) as u16)
}

/// Encodes a slot into `out`, which must have room for its units, and zeroes the rest of its last unit. False if it has not.
pub(crate) fn encode(out: &mut [u8], key: Key, generation: u64, deadline: Deadline, payload: &[u8]) -> bool {
    let Some((header, rest)) = out.split_first_chunk_mut::<HEADER>() else { return false };
    let (Some((target, slack)), Ok(len)) = (rest.split_at_mut_checked(payload.len()), u32::try_from(payload.len()))
    else {
        return false;
    };
    *header = header_bytes(&Slot { key, len, generation, deadline, payload_crc: crc32fast::hash(payload) });
    target.copy_from_slice(payload);
    slack.fill(0);
    true
}

fn header_bytes(slot: &Slot) -> [u8; HEADER] {
    let mut h = [0; HEADER];
    h[0..4].copy_from_slice(&SLOT_MAGIC);
    h[4..6].copy_from_slice(&VERSION.to_le_bytes());
    h[8..24].copy_from_slice(&slot.key.group.to_le_bytes());
    h[24..28].copy_from_slice(&slot.key.item.to_le_bytes());
    h[28..32].copy_from_slice(&slot.len.to_le_bytes());
    h[32..40].copy_from_slice(&slot.generation.to_le_bytes());
    h[40..48].copy_from_slice(&slot.deadline.0.to_le_bytes());
    h[48..52].copy_from_slice(&slot.payload_crc.to_le_bytes());
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
        payload_crc: u32_at(h, 48),
    };
    units_for(slot.len as usize).map(|_| slot).ok_or(Bad::Garbage)
}

/// Decodes the slot of `key`: its header, and its payload once the checksum fits.
pub(crate) fn decode(bytes: &[u8], key: Key) -> Result<(Slot, &[u8]), Bad> {
    let slot = decode_header(bytes)?;
    if slot.key != key {
        return Err(Bad::OtherKey);
    }
    let payload = bytes.get(HEADER..HEADER + slot.len as usize).ok_or(Bad::Garbage)?;
    if crc32fast::hash(payload) != slot.payload_crc {
        return Err(Bad::Garbage);
    }
    Ok((slot, payload))
}

/// Follows the slots of a zone that was not closed: each begins where the last one ended, or at the next block. Ends with
/// the first that is not of the zone's present life.
pub(crate) fn walk(zone: &[u8], generation: u64) -> Vec<Listed> {
    let slot_at = |at: usize| {
        let slot = decode_header(zone.get(at..)?).ok().filter(|slot| slot.generation == generation)?;
        let unit = u16::try_from(at / UNIT).ok()?;
        Some((at, Listed { key: slot.key, unit, units: slot.units(), deadline: slot.deadline }))
    };
    let mut slots = Vec::new();
    let mut next = 0;
    while let Some((at, slot)) = slot_at(next).or_else(|| slot_at(next.next_multiple_of(BLOCK))) {
        next = at + usize::from(slot.units) * UNIT;
        if next > zone.len() {
            break;
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
}

impl Listed {
    /// Where the slot lies, given its zone.
    pub(crate) fn at(&self, zone: u32) -> Location {
        Location { zone, unit: self.unit, units: self.units }
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
        entry[22..24].copy_from_slice(&slot.units.to_le_bytes());
        entry[24..32].copy_from_slice(&slot.deadline.0.to_le_bytes());
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
        units: u16_at(e, 22),
        deadline: Deadline(u64_at(e, 24)),
    });
    let end = |slot: &Listed| (usize::from(slot.unit) + usize::from(slot.units)) * UNIT;
    let inside =
        |slot: &Listed| slot.units > 0 && usize::from(slot.units) * UNIT <= MAX_SLOT && end(slot) <= ZONE_BYTES - bytes;
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
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KEY: Key = Key { group: 0x0102_0304_0506_0708_090A_0B0C_0D0E_0F10, item: 0x1122_3344 };

    fn slot_of(payload: &[u8]) -> Vec<u8> {
        let mut out = vec![0xEE; usize::from(units_for(payload.len()).unwrap()) * UNIT];
        assert!(encode(&mut out, KEY, 7, Deadline(9), payload));
        out
    }

    fn directory_of(generation: u64, listed: &[Listed]) -> Vec<u8> {
        let mut out = vec![0xEE; directory_bytes(listed.len())];
        assert!(encode_directory(&mut out, generation, listed));
        out
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|b| format!("{b:02x}")).collect()
    }

    #[test]
    fn golden_slot() {
        let bytes = slot_of(b"page");
        assert_eq!(
            hex(&bytes[..68]),
            "4846435302000000100f0e0d0c0b0a090807060504030201443322110400000007000000000000000900000000000000\
             20b60a1400000000000000001cacdae970616765"
        );
        assert_eq!(bytes.len(), 2 * UNIT);
    }

    #[test]
    fn golden_directory() {
        let out = directory_of(7, &[Listed { key: KEY, unit: 3, units: 2, deadline: Deadline(9) }]);
        assert_eq!(hex(&out[..32]), "100f0e0d0c0b0a09080706050403020144332211030002000900000000000000");
        assert_eq!(hex(&out[BLOCK - 32..]), "4846435a020000000100000007000000000000000000000000000000ced4ae4f");
        assert_eq!(out.len(), BLOCK);
    }

    #[test]
    fn sizes_at_the_edges() {
        assert_eq!(units_for(0), Some(1));
        assert_eq!(units_for(1), Some(2));
        assert_eq!(units_for(UNIT), Some(2));
        assert_eq!(units_for(MAX_PAYLOAD), Some(1 << 14));
        assert_eq!(units_for(MAX_PAYLOAD + 1), None);
        assert_eq!(directory_bytes(127), BLOCK);
        assert_eq!(directory_bytes(128), 2 * BLOCK);
    }

    #[test]
    fn a_newer_version_says_so_and_an_older_one_is_not_read() {
        for (version, expected) in [(3, Bad::Newer(3)), (1, Bad::Garbage)] {
            let mut bytes = slot_of(b"page");
            bytes[4] = version;
            let crc = crc32fast::hash(&bytes[..60]);
            bytes[60..64].copy_from_slice(&crc.to_le_bytes());
            assert_eq!(decode(&bytes, KEY), Err(expected));
        }
    }

    #[test]
    fn another_keys_slot_is_told_from_garbage() {
        assert_eq!(decode(&slot_of(b"page"), Key { item: 1, ..KEY }), Err(Bad::OtherKey));
    }

    #[test]
    fn a_walk_finds_slots_behind_each_other_and_at_the_next_block() {
        let mut zone = vec![0xEE; 8 * BLOCK];
        let mut put = |at: usize, item: u32, generation, payload: &[u8]| {
            let len = usize::from(units_for(payload.len()).unwrap()) * UNIT;
            assert!(encode(&mut zone[at..at + len], Key { item, ..KEY }, generation, Deadline::NEVER, payload));
        };
        put(0, 1, 7, &[1; 100]);
        put(192, 2, 7, &[2; 10]);
        put(BLOCK, 3, 7, &[3; 4032]);
        put(2 * BLOCK, 4, 7, &[]);
        put(3 * BLOCK, 5, 6, &[5]);
        put(4 * BLOCK, 6, 7, &[6]);
        let found: Vec<_> = walk(&zone, 7).iter().map(|slot| (slot.key.item, slot.unit, slot.units)).collect();
        assert_eq!(found, [(1, 0, 3), (2, 3, 2), (3, 64, 64), (4, 128, 1)]);
    }

    proptest! {
        #[test]
        fn slots_round_trip(payload in prop::collection::vec(any::<u8>(), 0..20_000)) {
            let bytes = slot_of(&payload);
            let (slot, read) = decode(&bytes, KEY).unwrap();
            prop_assert_eq!(read, &payload[..]);
            prop_assert_eq!((slot.generation, slot.deadline), (7, Deadline(9)));
        }

        #[test]
        fn a_flipped_bit_is_found(payload in prop::collection::vec(any::<u8>(), 1..9000), at in any::<prop::sample::Index>(), bit in 0u32..8) {
            let mut bytes = slot_of(&payload);
            let at = at.index(HEADER + payload.len());
            bytes[at] ^= 1u8 << bit;
            prop_assert!(decode(&bytes, KEY).is_err());
        }

        #[test]
        fn any_bytes_decode_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..5000), count in any::<u32>()) {
            let _ = decode(&bytes, KEY);
            let _ = decode_directory(&bytes);
            let _ = walk(&bytes, 7);
            // With a footer that lies about its size.
            let mut tail = directory_of(7, &[]);
            tail[BLOCK - 24..BLOCK - 20].copy_from_slice(&count.to_le_bytes());
            prop_assert!(count == 0 || decode_directory(&tail).is_err());
        }

        #[test]
        fn directories_round_trip(slots in prop::collection::vec((any::<u128>(), any::<u32>(), 0u16..30_000, 1u16..1 << 14, any::<u64>()), 0..1000)) {
            let listed: Vec<_> = slots
                .into_iter()
                .map(|(group, item, unit, units, d)| Listed { key: Key { group, item }, unit, units, deadline: Deadline(d) })
                .collect();
            let count = listed.len();
            let mut out = directory_of(3, &listed);
            prop_assert_eq!(directory_extent(&out), Some(out.len()));
            prop_assert_eq!(decode_directory(&out), Ok((3, listed.clone())));
            let longer = [vec![0xEE; 3 * BLOCK], out.clone()].concat();
            prop_assert_eq!(decode_directory(&longer), Ok((3, listed)));
            out[40] ^= 1;
            prop_assert!(decode_directory(&out).is_err() || count < 2, "past the second entry, or padding");
        }
    }
}
