//! How queued steps become groups: a pure plan over their sizes.

use crate::record::{BLOCK, blocks};

/// A group is closed once it is this long, so that reading one entry never reads much more.
pub const GROUP_TARGET: usize = 256 << 10;

/// What the plan needs to know of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Bytes on disk.
    pub len: usize,
    /// Must open a group: a cut or purge, so that the entries of a group are always contiguous.
    pub opens: bool,
}

/// Splits the leading steps into groups that fit `room` bytes together. Answers how many steps each group takes; steps that do
/// not fit are left for the next write.
pub fn plan(steps: impl IntoIterator<Item = Shape>, room: usize) -> Vec<usize> {
    let mut groups: Vec<usize> = Vec::new();
    let (mut start, mut len) = (0, 0);
    for step in steps {
        let joins = !groups.is_empty() && !step.opens && len < GROUP_TARGET;
        let (new_start, new_len) = if joins { (start, len + step.len) } else { (start + blocks(len), step.len) };
        if new_start + blocks(new_len) > room {
            break;
        }
        (start, len) = (new_start, new_len);
        match groups.last_mut().filter(|_| joins) {
            Some(count) => *count += 1,
            None => groups.push(1),
        }
    }
    groups
}

const _: () = assert!(GROUP_TARGET.is_multiple_of(BLOCK), "a full group should not leave a ragged block behind");

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn steps_share_a_group_until_it_is_long_enough_or_a_cut_opens_one() {
        let small = Shape { len: 72, opens: false };
        let cut = Shape { len: 64, opens: true };
        let big = Shape { len: GROUP_TARGET, opens: false };
        assert_eq!(plan([small; 3], 1 << 20), [3]);
        assert_eq!(plan([small, small, cut, small], 1 << 20), [2, 2]);
        assert_eq!(plan([big, small, small], 1 << 20), [1, 2]);
        assert_eq!(plan([small, big], BLOCK), [1]);
        assert_eq!(plan([big], BLOCK), [0; 0]);
    }

    proptest! {
        #[test]
        fn a_plan_fits_and_stops_only_for_want_of_room(
            lens in proptest::collection::vec((8_usize..50_000, any::<bool>()), 0..200),
            room in (0_usize..300).prop_map(|n| n * BLOCK),
        ) {
            let steps: Vec<Shape> = lens.iter().map(|&(len, opens)| Shape { len: len / 8 * 8, opens }).collect();
            let groups = plan(steps.iter().copied(), room);
            let (mut at, mut used) = (0, 0);
            for count in &groups {
                let group = &steps[at..at + count];
                prop_assert!(group.iter().skip(1).all(|step| !step.opens));
                used += blocks(group.iter().map(|step| step.len).sum());
                at += count;
            }
            prop_assert!(used <= room);
            if at < steps.len() {
                let last: usize = groups.last().map_or(0, |n| steps[at - n..at].iter().map(|step| step.len).sum());
                prop_assert!(used - blocks(last) + blocks(last + steps[at].len) > room || used + blocks(steps[at].len) > room);
            }
        }
    }
}
