//! Tests of the page format.

use proptest::prelude::*;

use super::*;

fn page_of(items: &[(&[u8], u64, NewCell<'_>)], codec: Codec) -> Bytes {
    let mut builder = LeafBuilder::default();
    for (key, seq, cell) in items {
        builder.add(key, CommitSeq(*seq), *cell);
    }
    builder.finish(codec)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn golden_bytes() {
    let extent = Extent { first_page: 7, pages: 2, len: 300_000 };
    let page = page_of(
        &[(b"ka", 9, NewCell::Put(b"v")), (b"ka", 5, NewCell::Delete), (b"kbc", 6, NewCell::Overflow(extent))],
        Codec::Raw,
    );
    assert_eq!(
        hex(&page),
        concat!(
            "48465047",
            "01010000",
            "32000000",
            "32000000",
            "0300",
            "0100",
            "0500000000000000",
            "604f4f9b",
            "00020104",
            "6b61",
            "76",
            "01020000",
            "6b61",
            "02030c01",
            "6b6263",
            "0700000002000000e0930400",
            "00000061",
            "00000061",
            "00006362",
            "0000",
            "0700",
            "0d00",
        )
    );
    assert_eq!(
        hex(&encode_overflow(b"xyz", Codec::Raw)),
        "484650470102000003000000030000000000000000000000000000008de518a378797a"
    );
}

/// Key, commit number, value.
type Row = (Vec<u8>, u64, Option<Vec<u8>>);

fn items() -> impl Strategy<Value = Vec<Row>> {
    let key = prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..12),
        proptest::collection::vec(0u8..2, 0..6),
        (0u32..300).prop_map(|n| [b"prefix".as_slice(), &n.to_be_bytes()].concat()),
    ];
    let value = proptest::option::of(proptest::collection::vec(any::<u8>(), 0..40));
    proptest::collection::btree_map((key, 1u64..20), value, 1..200)
        .prop_map(|map| map.into_iter().map(|((key, seq), value)| (key, seq, value)).collect::<Vec<_>>())
        .prop_map(|mut items: Vec<_>| {
            items.sort_by(|a, b| a.0.cmp(&b.0).then(b.1.cmp(&a.1)));
            items
        })
}

fn build(items: &[Row], codec: Codec) -> Bytes {
    let mut builder = LeafBuilder::default();
    for (key, seq, value) in items {
        builder.add(key, CommitSeq(*seq), value.as_deref().map_or(NewCell::Delete, NewCell::Put));
    }
    builder.finish(codec)
}

proptest! {
    #[test]
    fn round_trips_and_finds(items in items(), lz4: bool, probe in proptest::collection::vec(any::<u8>(), 0..8), at in 0u64..22) {
        let codec = if lz4 { Codec::Lz4 } else { Codec::Raw };
        let leaf = Leaf::open(verify(build(&items, codec)).unwrap()).unwrap();
        prop_assert_eq!(leaf.count(), items.len());
        for (slot, (key, seq, value)) in items.iter().enumerate() {
            let entry = leaf.entry(slot).unwrap();
            prop_assert_eq!(leaf.key(&entry), &key[..]);
            prop_assert_eq!(entry.seq, CommitSeq(*seq));
            let op = leaf.op(&entry).unwrap().unwrap();
            prop_assert_eq!(op.into_value().map(|value| value.to_vec()), value.clone());
        }
        for key in items.iter().map(|item| &item.0).chain([&probe]) {
            let expected = items.iter().position(|(k, s, _)| k > key || (k == key && *s <= at)).unwrap_or(items.len());
            prop_assert_eq!(leaf.seek(key, CommitSeq(at)).unwrap(), expected);
            let above = items.iter().position(|item| item.0 > *key).unwrap_or(items.len());
            prop_assert_eq!(leaf.seek_key(key, true).unwrap(), above);
            let from = items.iter().position(|item| item.0 >= *key).unwrap_or(items.len());
            prop_assert_eq!(leaf.seek_key(key, false).unwrap(), from);
        }
    }

    #[test]
    fn any_changed_byte_is_detected(items in items(), lz4: bool, place: prop::sample::Index, flip in 1u8..) {
        let page = build(&items, if lz4 { Codec::Lz4 } else { Codec::Raw });
        let mut bad = page.to_vec();
        let place = place.index(bad.len());
        bad[place] ^= flip;
        prop_assert!(verify(Bytes::from(bad)).is_err());
        prop_assert!(verify(page.slice(..place)).is_err());
    }

    #[test]
    fn garbage_never_panics(mut garbage in proptest::collection::vec(any::<u8>(), 0..200), as_leaf: bool) {
        if as_leaf && garbage.len() > HEADER_BYTES {
            garbage[..8].copy_from_slice(&[b'H', b'F', b'P', b'G', 1, 1, 0, 0]);
        }
        let garbage = Bytes::from(garbage);
        let _ = verify(garbage.clone());
        let _ = overflow_piece(&garbage);
        if let Ok(leaf) = Leaf::open(garbage) {
            for slot in 0..leaf.count().min(50) {
                if let Ok(entry) = leaf.entry(slot) {
                    let _ = leaf.op(&entry);
                }
            }
            let _ = leaf.seek(b"key", CommitSeq(3));
            let _ = leaf.seek_key(b"key", true);
        }
    }
}

#[test]
fn a_newer_version_says_so() {
    let mut page = encode_overflow(b"x", Codec::Raw).to_vec();
    page[4] = 9;
    let error = verify(Bytes::from(page)).unwrap_err().to_string();
    assert!(error.contains("format version 9"), "{error}");
}

#[test]
fn lz4_is_kept_only_where_it_pays() {
    let random: Vec<u8> = (0..4000u32).flat_map(|n| (n.wrapping_mul(2_654_435_761) ^ n << 7).to_le_bytes()).collect();
    let packed = encode_overflow(&vec![7; 16_000], Codec::Lz4);
    assert!(packed.len() < 1000);
    assert_eq!(overflow_piece(&verify(packed).unwrap()).unwrap(), vec![7; 16_000]);
    let stored = encode_overflow(&random, Codec::Lz4);
    assert_eq!(overflow_piece(&verify(stored).unwrap()).unwrap(), random);
}
