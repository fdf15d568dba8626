//! Owns which zones of the file are in use, and the order in which they are filled. Pure.

use std::collections::{BTreeSet, VecDeque};

/// A zone that holds records, and the generation under which they were written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Filled {
    pub(super) zone: u32,
    pub(super) generation: u64,
}

/// A zone that is to be filled next, or to be given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Zone {
    /// It holds nothing.
    Free(u32),
    /// It holds records, the oldest of all, which are to be evicted.
    Oldest(Filled),
}

impl Zone {
    pub(super) fn number(self) -> u32 {
        match self {
            Self::Free(zone) | Self::Oldest(Filled { zone, .. }) => zone,
        }
    }
}

/// The zones.
#[derive(Debug, Default)]
pub(super) struct Zones {
    /// Zones that hold nothing; the lowest is filled next.
    free: BTreeSet<u32>,
    /// Zones that hold records, the oldest first. The last may be the one that is being filled.
    filled: VecDeque<Filled>,
    /// Zones below the file's end that are not in use.
    retired: BTreeSet<u32>,
}

impl Zones {
    /// The zones of a file of `file` zones, of which these hold records. As many are in use as hold records, or `target`
    /// if that is more: [`Zones::retire`] gives up what is over the target.
    pub(super) fn new(target: u32, file: u32, mut filled: Vec<Filled>) -> Self {
        filled.sort_unstable_by_key(|zone| zone.generation);
        let holding: BTreeSet<u32> = filled.iter().map(|zone| zone.zone).collect();
        let retired = (0..file).filter(|zone| !holding.contains(zone)).collect();
        let mut zones = Self { free: BTreeSet::new(), filled: filled.into(), retired };
        zones.grow(target);
        zones
    }

    /// The zone to fill next: a free one, else the oldest. It belongs to the caller until [`Zones::opened`].
    pub(super) fn next(&mut self) -> Option<Zone> {
        self.free.pop_first().map(Zone::Free).or_else(|| self.filled.pop_front().map(Zone::Oldest))
    }

    /// The zone of [`Zones::next`] is being filled.
    pub(super) fn opened(&mut self, zone: u32, generation: u64) {
        self.filled.push_back(Filled { zone, generation });
    }

    /// Takes zones into use until there are `target`, and returns them.
    pub(super) fn grow(&mut self, target: u32) -> Vec<u32> {
        let wanted = target.saturating_sub(self.in_use()) as usize;
        let again = std::iter::from_fn(|| self.retired.pop_first()).take(wanted).collect::<Vec<_>>();
        let end = self.end().max(again.last().map_or(0, |zone| zone + 1));
        let added: Vec<u32> = again.iter().copied().chain(end..).take(wanted).collect();
        self.free.extend(&added);
        added
    }

    /// Gives up one zone if more than `target` are in use: a free one, else the oldest.
    pub(super) fn retire(&mut self, target: u32) -> Option<Zone> {
        if self.in_use() <= target {
            return None;
        }
        let zone = self.free.pop_last().map(Zone::Free).or_else(|| self.filled.pop_front().map(Zone::Oldest))?;
        self.retired.insert(zone.number());
        Some(zone)
    }

    /// Forgets retired zones at the end, and returns how many zones the file must have.
    pub(super) fn trim(&mut self) -> u32 {
        while self.retired.last().is_some_and(|zone| zone + 1 == self.end()) {
            self.retired.pop_last();
        }
        self.end()
    }

    /// Whether the next zone to be filled holds records.
    pub(super) fn is_full(&self) -> bool {
        self.free.is_empty()
    }

    pub(super) fn in_use(&self) -> u32 {
        (self.free.len() + self.filled.len()) as u32
    }

    /// The first number beyond all zones.
    fn end(&self) -> u32 {
        let filled = self.filled.iter().map(|zone| zone.zone).max();
        let last = [self.free.last().copied(), self.retired.last().copied(), filled].into_iter().flatten().max();
        last.map_or(0, |zone| zone + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(zone: u32, generation: u64) -> Filled {
        Filled { zone, generation }
    }

    #[test]
    fn free_zones_are_filled_first_then_the_oldest() {
        let mut zones = Zones::new(4, 4, vec![filled(2, 9), filled(0, 7)]);
        let mut order = Vec::new();
        for generation in 10..16 {
            assert_eq!(zones.is_full(), order.len() >= 2);
            let zone = zones.next().unwrap();
            zones.opened(zone.number(), generation);
            order.push(zone);
        }
        let oldest = |zone, generation| Zone::Oldest(filled(zone, generation));
        let expected = [Zone::Free(1), Zone::Free(3), oldest(0, 7), oldest(2, 9), oldest(1, 10), oldest(3, 11)];
        assert_eq!(order, expected);
    }

    #[test]
    fn shrinking_gives_up_free_zones_then_the_oldest_and_growing_takes_them_back() {
        let mut zones = Zones::new(6, 6, (0..5).map(|zone| filled(zone, 10 - u64::from(zone))).collect());
        let given_up: Vec<_> = std::iter::from_fn(|| zones.retire(4)).collect();
        assert_eq!(given_up, [Zone::Free(5), Zone::Oldest(filled(4, 6))]);
        assert_eq!((zones.in_use(), zones.trim()), (4, 4), "both lay at the end");
        assert_eq!(zones.retire(3), Some(Zone::Oldest(filled(3, 7))));
        assert_eq!(zones.grow(6), [3, 4, 5]);
        assert_eq!(zones.in_use(), 6);
    }

    #[test]
    fn a_hole_in_the_middle_stays_until_it_is_used_again() {
        let mut zones = Zones::new(4, 4, vec![filled(1, 1), filled(3, 2), filled(0, 3), filled(2, 4)]);
        assert_eq!(zones.retire(3), Some(Zone::Oldest(filled(1, 1))));
        assert_eq!(zones.trim(), 4);
        assert_eq!(zones.grow(5), [1, 4]);
    }

    #[test]
    fn a_file_with_more_zones_than_wanted_keeps_those_that_hold_records_until_they_are_retired() {
        let mut zones = Zones::new(2, 8, vec![filled(7, 3), filled(5, 1), filled(6, 2)]);
        assert_eq!(zones.in_use(), 3);
        assert_eq!(zones.retire(2), Some(Zone::Oldest(filled(5, 1))));
        assert_eq!(zones.retire(2), None);
        assert_eq!(zones.trim(), 8);
    }
}
