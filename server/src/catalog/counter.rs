//! Owns the counters of a table that are not rows: AUTO_INCREMENT and the hidden row id.
//!
//! They live in memory and start from the largest stored value, so that nothing is written to keep them.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counters of one table, shared by all versions of its definition. Zero means not started.
#[derive(Debug, Default)]
pub struct Counters {
    next_auto: AtomicU64,
    next_row: AtomicU64,
}

impl Counters {
    /// The next AUTO_INCREMENT value, if the counter was started: for SHOW TABLE STATUS.
    pub fn peek_auto(&self) -> Option<u64> {
        Some(self.next_auto.load(Ordering::Relaxed)).filter(|n| *n != 0)
    }

    pub fn auto_started(&self) -> bool {
        self.next_auto.load(Ordering::Relaxed) != 0
    }

    pub fn row_started(&self) -> bool {
        self.next_row.load(Ordering::Relaxed) != 0
    }

    /// Starts (or moves up) the counter so that the next value is at least `next`.
    pub fn raise_auto(&self, next: u64) {
        self.next_auto.fetch_max(next.max(1), Ordering::Relaxed);
    }

    pub fn raise_row(&self, next: u64) {
        self.next_row.fetch_max(next.max(1), Ordering::Relaxed);
    }

    /// Sets the counter back, for TRUNCATE.
    pub fn reset(&self, next_auto: u64) {
        self.next_auto.store(next_auto.max(1), Ordering::Relaxed);
    }

    /// Takes `count` values of the series `offset, offset + increment, ...` and returns the first; `None` past `max`.
    pub fn take_auto(&self, count: u64, increment: u64, offset: u64, max: u64) -> Option<u64> {
        let increment = increment.max(1);
        let first = |next: u64| {
            let offset = if offset > increment { 1 } else { offset };
            match next.checked_sub(offset) {
                None => Some(offset),
                Some(past) => offset.checked_add(past.div_ceil(increment).checked_mul(increment)?),
            }
        };
        let taken = self.next_auto.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |next| {
            let last = first(next)?.checked_add(increment.checked_mul(count.saturating_sub(1))?)?;
            if last > max { None } else { last.checked_add(1) }
        });
        taken.ok().and_then(first)
    }

    pub fn take_row(&self) -> u64 {
        self.next_row.fetch_add(1, Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_series_follows_increment_and_offset() {
        let c = Counters::default();
        c.raise_auto(1);
        assert_eq!(c.take_auto(3, 1, 1, 100), Some(1));
        assert_eq!(c.take_auto(1, 1, 1, 100), Some(4));
        assert_eq!(c.take_auto(1, 10, 5, 100), Some(5));
        assert_eq!(c.take_auto(2, 10, 5, 100), Some(15));
        assert_eq!(c.take_auto(1, 1, 1, 100), Some(26));
        c.raise_auto(100);
        assert_eq!(c.take_auto(2, 1, 1, 100), None);
        assert_eq!(c.take_auto(1, 1, 1, 100), Some(100));
        assert_eq!(c.take_auto(1, 1, 1, 100), None);
    }
}
