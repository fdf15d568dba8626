//! Owns where the records of one write lie in it. Pure.
//!
//! First the slots whose payload lies behind their header, one behind the other, then the headers of the others, then from
//! the next block on their payloads.

use super::slot::{self, BLOCK, HEADER, UNIT};

/// A slot may begin at the next block, if then it lies in fewer blocks, and this share of its size at most is left empty.
const PADDING: usize = 16;

/// What the records of a write take so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Layout {
    /// Bytes of slots with their payload, and of gaps between them.
    packed: usize,
    /// Headers of payloads that lie apart.
    headers: usize,
    /// Bytes of payloads that lie apart.
    apart: usize,
}

/// Where a record lies, in bytes from the beginning of the write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spot {
    Packed { at: usize, bytes: usize },
    Apart { header: usize, payload: usize },
}

impl Layout {
    /// With one record more. `None` if it is too large for a slot.
    pub(super) fn with(self, payload: usize) -> Option<Self> {
        let bytes = usize::from(slot::units_for(payload)?) * UNIT;
        Some(if slot::lies_apart(payload) {
            Self { headers: self.headers + 1, apart: self.apart + bytes, ..self }
        } else {
            Self { packed: start(self.packed, bytes) + bytes, ..self }
        })
    }

    /// Bytes that the write takes.
    pub(super) fn bytes(&self) -> usize {
        self.payloads() + self.apart
    }

    /// Where payloads that lie apart begin.
    fn payloads(&self) -> usize {
        (self.packed + self.headers * HEADER).next_multiple_of(BLOCK)
    }
}

/// Where each of the payloads of a write lies, in their order; those that are too large for a slot are left out.
pub(super) fn spots(whole: Layout, payloads: impl Iterator<Item = usize>) -> Vec<Spot> {
    let mut so_far = Layout::default();
    let spot = |payload| {
        let before = so_far;
        so_far = so_far.with(payload)?;
        Some(if slot::lies_apart(payload) {
            let header = whole.packed + before.headers * HEADER;
            Spot::Apart { header, payload: whole.payloads() + before.apart }
        } else {
            let bytes = usize::from(slot::units_for(payload)?) * UNIT;
            Spot::Packed { at: so_far.packed - bytes, bytes }
        })
    };
    payloads.filter_map(spot).collect()
}

/// Where a slot of so many bytes begins, if the last one ended at `end`.
fn start(end: usize, bytes: usize) -> usize {
    let aligned = end.next_multiple_of(BLOCK);
    let blocks = |at: usize| (at + bytes).div_ceil(BLOCK) - at / BLOCK;
    if aligned - end <= bytes / PADDING && blocks(aligned) < blocks(end) { aligned } else { end }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn whole(payloads: &[usize]) -> Layout {
        payloads.iter().fold(Layout::default(), |layout, payload| layout.with(*payload).unwrap_or(layout))
    }

    fn spots_of(payloads: &[usize]) -> Vec<Spot> {
        spots(whole(payloads), payloads.iter().copied())
    }

    fn packed(at: usize, bytes: usize) -> Spot {
        Spot::Packed { at, bytes }
    }

    #[test]
    fn payloads_of_whole_blocks_lie_apart_and_others_behind_each_other() {
        let sizes = [100, BLOCK, 10, 4 * BLOCK];
        let expected = [
            packed(0, 192),
            Spot::Apart { header: 320, payload: BLOCK },
            packed(192, 128),
            Spot::Apart { header: 384, payload: 2 * BLOCK },
        ];
        assert_eq!(spots_of(&sizes), expected);
    }

    #[test]
    fn a_slot_that_fills_blocks_nearly_begins_at_one() {
        let page = 4 * BLOCK - HEADER - 200;
        let expected = [packed(0, 4 * BLOCK - 192), packed(4 * BLOCK, 4 * BLOCK - 192)];
        assert_eq!(spots_of(&[page, page]), expected);
        let half = 2 * BLOCK + 100;
        assert_eq!(spots_of(&[half, half]), [packed(0, 8384), packed(8384, 8384)], "too much would be left empty");
    }

    proptest! {
        #[test]
        fn nothing_overlaps_and_all_lies_in_the_write(
            sizes in prop::collection::vec(prop_oneof![0usize..20_000, (0usize..6).prop_map(|n| n * BLOCK), (0usize..2 << 20)], 0..40)
        ) {
            let layout = whole(&sizes);
            let fit: Vec<usize> = sizes.iter().copied().filter(|size| slot::units_for(*size).is_some()).collect();
            let spots = spots_of(&sizes);
            prop_assert_eq!(spots.len(), fit.len());
            let mut ranges = Vec::new();
            for (spot, size) in spots.iter().zip(fit) {
                match *spot {
                    Spot::Packed { at, bytes } => {
                        prop_assert!(bytes >= HEADER + size && bytes < HEADER + size + UNIT && at.is_multiple_of(UNIT));
                        ranges.push(at..at + bytes);
                    }
                    Spot::Apart { header, payload } => {
                        prop_assert!(payload.is_multiple_of(BLOCK) && header.is_multiple_of(UNIT));
                        ranges.extend([header..header + HEADER, payload..payload + size]);
                    }
                }
            }
            ranges.sort_by_key(|range| range.start);
            prop_assert!(ranges.windows(2).all(|pair| pair[0].end <= pair[1].start));
            prop_assert!(ranges.iter().all(|range| range.end <= layout.bytes()));
        }
    }
}
