//! FORMAT: one record in the NVMe file, and the directory that closes a zone.
//!
//! The file is an array of zones of [`ZONE_BYTES`]. A zone is filled front to back with slots, each a whole number of
//! 4 KiB blocks (its size class), and closed by a directory in its last [`DIRECTORY_BLOCKS`] blocks. Integers are
//! little-endian. Nothing here is trusted: whatever does not check out is a miss.
//!
//! ```text
//! slot       0   4  magic "HFCS"
//!            4   2  version = 1
//!            6   2  blocks: 4 KiB blocks of the slot, header included
//!            8  16  key: group
//!           24   4  key: item
//!           28   4  length of the payload
//!           32   8  generation of the zone: a leftover of the zone's former life has another
//!           40   8  deadline, ms of the cache's clock; u64::MAX = never
//!           48   4  CRC32 of the payload
//!           52   8  zero
//!           60   4  CRC32 of bytes 0..60
//!           64   .  payload, then anything up to the end of the last block
//!
//! directory  0   4  magic "HFCZ"
//!            4   2  version = 1
//!            6   2  count of entries
//!            8   8  generation of the zone
//!           16  12  zero
//!           28   4  CRC32 of bytes 0..28 and of the entries
//!           32   .  entries of 32 bytes: group 16, item 4, first block in the zone 2, blocks 2, deadline 8
//! ```

use crate::{Key, ttl::Deadline};

/// The unit of device I/O: slots are whole blocks, so O_DIRECT works on 512-byte and on 4 KiB sectors.
pub(crate) const BLOCK: usize = 4096;
/// The unit of eviction.
pub(crate) const ZONE_BYTES: usize = 4 << 20;
pub(crate) const ZONE_BLOCKS: usize = ZONE_BYTES / BLOCK;
pub(crate) const DIRECTORY_BLOCKS: usize = 8;
/// Blocks of a zone that slots may use.
pub(crate) const SLOT_BLOCKS: usize = ZONE_BLOCKS - DIRECTORY_BLOCKS;
pub(crate) const HEADER: usize = 64;
/// The largest slot. Anything larger is not cached on NVMe.
pub(crate) const MAX_BLOCKS: usize = 256;
pub(crate) const MAX_PAYLOAD: usize = MAX_BLOCKS * BLOCK - HEADER;

const SLOT_MAGIC: [u8; 4] = *b"HFCS";
const DIRECTORY_MAGIC: [u8; 4] = *b"HFCZ";
const VERSION: u16 = 1;
const ENTRY: usize = 32;

// Even a zone of one-block slots fits its directory.
const _: () = assert!(ENTRY * (SLOT_BLOCKS + 1) <= DIRECTORY_BLOCKS * BLOCK);

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
    pub(crate) blocks: u16,
    pub(crate) len: u32,
    pub(crate) generation: u64,
    pub(crate) deadline: Deadline,
    pub(crate) payload_crc: u32,
}

/// How many blocks a payload takes, or `None` if it is larger than the largest slot.
pub(crate) fn blocks_for(payload: usize) -> Option<u16> {
    if payload > MAX_PAYLOAD {
        return None;
    }
    u16::try_from((HEADER + payload).div_ceil(BLOCK)).ok()
}

/// Encodes one slot into `out`, which is exactly its blocks. False if the payload does not fit.
pub(crate) fn encode(out: &mut [u8], key: Key, generation: u64, deadline: Deadline, payload: &[u8]) -> bool {
    let (Ok(blocks), Ok(len)) = (u16::try_from(out.len() / BLOCK), u32::try_from(payload.len())) else { return false };
    let Some((header, body)) = out.split_first_chunk_mut::<HEADER>() else { return false };
    let Some((target, slack)) = body.split_at_mut_checked(payload.len()) else { return false };
    *header = header_bytes(&Slot { key, blocks, len, generation, deadline, payload_crc: crc32fast::hash(payload) });
    target.copy_from_slice(payload);
    slack.fill(0);
    true
}

fn header_bytes(slot: &Slot) -> [u8; HEADER] {
    let mut h = [0; HEADER];
    h[0..4].copy_from_slice(&SLOT_MAGIC);
    h[4..6].copy_from_slice(&VERSION.to_le_bytes());
    h[6..8].copy_from_slice(&slot.blocks.to_le_bytes());
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

/// Decodes a slot's header, and checks that its sizes can be.
pub(crate) fn decode_header(bytes: &[u8]) -> Result<Slot, Bad> {
    let h: &[u8; HEADER] = bytes.first_chunk().ok_or(Bad::Garbage)?;
    if h[0..4] != SLOT_MAGIC || crc32fast::hash(&h[..60]) != u32_at(h, 60) {
        return Err(Bad::Garbage);
    }
    let version = u16_at(h, 4);
    if version > VERSION {
        return Err(Bad::Newer(version));
    }
    let slot = Slot {
        key: Key { group: u128_at(h, 8), item: u32_at(h, 24) },
        blocks: u16_at(h, 6),
        len: u32_at(h, 28),
        generation: u64_at(h, 32),
        deadline: Deadline(u64_at(h, 40)),
        payload_crc: u32_at(h, 48),
    };
    match blocks_for(slot.len as usize) {
        Some(blocks) if blocks == slot.blocks => Ok(slot),
        _ => Err(Bad::Garbage),
    }
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

/// One slot, as the directory of its zone lists it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Listed {
    pub(crate) key: Key,
    /// First block within the zone.
    pub(crate) block: u16,
    pub(crate) blocks: u16,
    pub(crate) deadline: Deadline,
}

/// Encodes a zone's directory into `out` (at least [`DIRECTORY_BLOCKS`] blocks). False if it does not fit.
pub(crate) fn encode_directory(out: &mut [u8], generation: u64, slots: &[Listed]) -> bool {
    let (Ok(count), true) = (u16::try_from(slots.len()), out.len() >= (slots.len() + 1) * ENTRY) else { return false };
    out.fill(0);
    for (entry, slot) in out.chunks_exact_mut(ENTRY).skip(1).zip(slots) {
        entry[0..16].copy_from_slice(&slot.key.group.to_le_bytes());
        entry[16..20].copy_from_slice(&slot.key.item.to_le_bytes());
        entry[20..22].copy_from_slice(&slot.block.to_le_bytes());
        entry[22..24].copy_from_slice(&slot.blocks.to_le_bytes());
        entry[24..32].copy_from_slice(&slot.deadline.0.to_le_bytes());
    }
    out[0..4].copy_from_slice(&DIRECTORY_MAGIC);
    out[4..6].copy_from_slice(&VERSION.to_le_bytes());
    out[6..8].copy_from_slice(&count.to_le_bytes());
    out[8..16].copy_from_slice(&generation.to_le_bytes());
    let crc = directory_crc(out, slots.len());
    out[28..32].copy_from_slice(&crc.to_le_bytes());
    true
}

/// Decodes a directory: the zone's generation and its slots.
pub(crate) fn decode_directory(bytes: &[u8]) -> Result<(u64, Vec<Listed>), Bad> {
    let h: &[u8; ENTRY] = bytes.first_chunk().ok_or(Bad::Garbage)?;
    let count = usize::from(u16_at(h, 6));
    if h[0..4] != DIRECTORY_MAGIC || bytes.len() < (count + 1) * ENTRY || directory_crc(bytes, count) != u32_at(h, 28) {
        return Err(Bad::Garbage);
    }
    let version = u16_at(h, 4);
    if version > VERSION {
        return Err(Bad::Newer(version));
    }
    let listed = bytes.chunks_exact(ENTRY).skip(1).take(count).map(|e| Listed {
        key: Key { group: u128_at(e, 0), item: u32_at(e, 16) },
        block: u16_at(e, 20),
        blocks: u16_at(e, 22),
        deadline: Deadline(u64_at(e, 24)),
    });
    let inside = |slot: &Listed| slot.blocks > 0 && usize::from(slot.block) + usize::from(slot.blocks) <= SLOT_BLOCKS;
    let listed: Vec<_> = listed.collect();
    if !listed.iter().all(inside) {
        return Err(Bad::Garbage);
    }
    Ok((u64_at(h, 8), listed))
}

fn directory_crc(bytes: &[u8], count: usize) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(bytes.get(..28).unwrap_or_default());
    crc.update(bytes.get(ENTRY..(count + 1) * ENTRY).unwrap_or_default());
    crc.finalize()
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
        let mut out = vec![0xEE; usize::from(blocks_for(payload.len()).unwrap()) * BLOCK];
        assert!(encode(&mut out, KEY, 7, Deadline(9), payload));
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
            "4846435301000100100f0e0d0c0b0a090807060504030201443322110400000007000000000000000900000000000000\
             20b60a140000000000000000d331c0ce70616765"
        );
        assert_eq!(bytes.len(), BLOCK);
    }

    #[test]
    fn golden_directory() {
        let mut out = vec![0xEE; DIRECTORY_BLOCKS * BLOCK];
        assert!(encode_directory(&mut out, 7, &[Listed { key: KEY, block: 3, blocks: 2, deadline: Deadline(9) }]));
        assert_eq!(
            hex(&out[..64]),
            "4846435a0100010007000000000000000000000000000000000000007ac17a77\
             100f0e0d0c0b0a09080706050403020144332211030002000900000000000000"
        );
    }

    #[test]
    fn sizes_at_the_edges() {
        assert_eq!(blocks_for(0), Some(1));
        assert_eq!(blocks_for(BLOCK - HEADER), Some(1));
        assert_eq!(blocks_for(BLOCK - HEADER + 1), Some(2));
        assert_eq!(blocks_for(MAX_PAYLOAD), Some(MAX_BLOCKS as u16));
        assert_eq!(blocks_for(MAX_PAYLOAD + 1), None);
    }

    #[test]
    fn a_newer_version_says_so() {
        let mut bytes = slot_of(b"page");
        bytes[4] = 2;
        let crc = crc32fast::hash(&bytes[..60]);
        bytes[60..64].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(decode(&bytes, KEY), Err(Bad::Newer(2)));
    }

    #[test]
    fn another_keys_slot_is_told_from_garbage() {
        assert_eq!(decode(&slot_of(b"page"), Key { item: 1, ..KEY }), Err(Bad::OtherKey));
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
        fn any_bytes_decode_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..5000)) {
            let _ = decode(&bytes, KEY);
            let _ = decode_directory(&bytes);
        }

        #[test]
        fn directories_round_trip(slots in prop::collection::vec((any::<u128>(), any::<u32>(), 0u16..700, 1u16..256, any::<u64>()), 0..SLOT_BLOCKS)) {
            let listed: Vec<_> = slots
                .into_iter()
                .map(|(group, item, block, blocks, d)| Listed { key: Key { group, item }, block, blocks, deadline: Deadline(d) })
                .collect();
            let mut out = vec![0; DIRECTORY_BLOCKS * BLOCK];
            prop_assert!(encode_directory(&mut out, 3, &listed));
            prop_assert_eq!(decode_directory(&out), Ok((3, listed)));
            out[40] ^= 1;
            prop_assert!(decode_directory(&out).is_err() || u16_at(&out, 6) == 0);
        }
    }
}
