//! Slots and directories: their bytes, and what becomes of damaged ones.

use proptest::prelude::*;

use super::*;

const KEY: Key = Key { group: 0x0102_0304_0506_0708_090A_0B0C_0D0E_0F10, item: 0x1122_3344 };

fn slot_of(payload: &[u8]) -> Vec<u8> {
    let mut out = vec![0xEE; (HEADER + payload.len()).next_multiple_of(UNIT)];
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
        "4846435303000000100f0e0d0c0b0a090807060504030201443322110400000007000000000000000900000000000000\
         c88a585100000000000000003b0342b170616765"
    );
    assert_eq!(bytes.len(), 2 * UNIT);
}

#[test]
fn golden_directory() {
    let out = directory_of(7, &[Listed { key: KEY, unit: 3, units: 2, deadline: Deadline(9), apart: None }]);
    assert_eq!(hex(&out[..32]), "100f0e0d0c0b0a09080706050403020144332211030002000900000000000000");
    assert_eq!(hex(&out[BLOCK - 32..]), "4846435a0300000001000000070000000000000000000000000000002c986221");
    assert_eq!(out.len(), BLOCK);
}

#[test]
fn sizes_at_the_edges() {
    assert_eq!(units_for(0), Some(1));
    assert_eq!(units_for(1), Some(2));
    assert_eq!(units_for(UNIT), Some(2));
    assert_eq!(units_for(BLOCK - 1), Some(65));
    assert_eq!(units_for(BLOCK), Some(64));
    assert_eq!(units_for((1 << 20) - BLOCK), Some((1 << 14) - 64));
    assert_eq!(units_for(MAX_PAYLOAD), Some(1 << 14));
    assert_eq!(units_for(MAX_PAYLOAD + 1), None);
    assert_eq!(directory_bytes(112), BLOCK);
    assert_eq!(directory_bytes(113), 2 * BLOCK);
}

#[test]
fn a_newer_version_says_so_and_an_older_one_is_not_read() {
    for (version, expected) in [(4, Bad::Newer(4)), (2, Bad::Garbage)] {
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

/// A header whose payload lies apart, at a block of the zone; the checksum in it.
fn put_apart(zone: &mut [u8], at: usize, item: u32, generation: u64, block: usize, payload: &[u8]) -> u32 {
    let key = Key { item, ..KEY };
    let (len, crc) = (payload.len() as u32, checksum(&key, payload));
    let apart = Some((block * BLOCK / UNIT) as u16);
    let header = header_bytes(&Slot { key, len, generation, deadline: Deadline(9), crc, apart });
    zone[at..at + HEADER].copy_from_slice(&header);
    zone[block * BLOCK..block * BLOCK + payload.len()].copy_from_slice(payload);
    crc
}

#[test]
fn a_walk_steps_over_payloads_that_lie_apart_whatever_they_hold() {
    let mut zone = vec![0xEE; 12 * BLOCK];
    // A payload that looks like a slot of this zone's life.
    let trap: Vec<u8> = slot_of(&[1; BLOCK - HEADER]);
    assert!(encode(&mut zone[..192], Key { item: 1, ..KEY }, 7, Deadline(9), &[1; 100]));
    let first = put_apart(&mut zone, 192, 2, 7, 1, &trap);
    let second = put_apart(&mut zone, 256, 3, 7, 2, &[3; 2 * BLOCK]);
    // The next write.
    let third = put_apart(&mut zone, 4 * BLOCK, 4, 7, 5, &[4; BLOCK]);
    assert!(encode(&mut zone[6 * BLOCK..6 * BLOCK + 128], Key { item: 5, ..KEY }, 7, Deadline(9), &[5; 10]));
    let found: Vec<_> = walk(&zone, 7).iter().map(|slot| (slot.key.item, slot.unit, slot.units, slot.apart)).collect();
    let expected = [
        (1, 0, 3, None),
        (2, 64, 64, Some(first)),
        (3, 128, 128, Some(second)),
        (4, 320, 64, Some(third)),
        (5, 384, 2, None),
    ];
    assert_eq!(found, expected);
    assert_eq!(decode_apart(&zone[BLOCK..], Key { item: 2, ..KEY }, 64, first), Ok(&trap[..]));
    assert_eq!(decode_apart(&zone[BLOCK..], Key { item: 3, ..KEY }, 64, first), Err(Bad::Garbage), "another key's");
    zone[BLOCK + 77] ^= 1;
    assert_eq!(decode_apart(&zone[BLOCK..], Key { item: 2, ..KEY }, 64, first), Err(Bad::Garbage));
}

#[test]
fn golden_header_of_a_payload_that_lies_apart() {
    let mut zone = vec![0; 2 * BLOCK];
    put_apart(&mut zone, 0, KEY.item, 7, 1, &[1; BLOCK]);
    assert_eq!(
        hex(&zone[..64]),
        "4846435303000100100f0e0d0c0b0a0908070605040302014433221100100000\
         0700000000000000090000000000000070e905374000000000000000afd5c9de"
    );
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
    fn directories_round_trip(slots in prop::collection::vec((any::<u128>(), any::<u32>(), 0u16..450, 1u16..255, any::<u64>(), any::<Option<u32>>()), 0..1000)) {
        let listed: Vec<_> = slots
            .into_iter()
            .map(|(group, item, block, blocks, d, apart)| {
                let odd = u16::from(apart.is_none());
                let (unit, units) = (block * 64 + odd, blocks * 64 + odd);
                Listed { key: Key { group, item }, unit, units, deadline: Deadline(d), apart }
            })
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
