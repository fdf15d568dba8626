//! The registry of snapshots, and the version floor that follows from it (rule 8).
//!
//! The floor is the greatest commit number below which versions may have been dropped. Whoever reads at `at` checks
//! *after* the read that the floor has not passed `at`; for a registered snapshot it cannot, until it is too old.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;

use crate::{
    clock::Clock,
    error::{Error, Result},
    types::CommitSeq,
};

struct Pin {
    at: CommitSeq,
    readers: usize,
    since: Duration,
}

/// Every snapshot of this node.
pub struct Snapshots {
    /// Ordered by `at`: visible numbers only grow.
    pins: Mutex<VecDeque<Pin>>,
    visible: AtomicU64,
    floor: AtomicU64,
    /// What other members need: the floor does not rise above it.
    cap: AtomicU64,
    clock: Arc<dyn Clock>,
    max_age: Duration,
}

impl Snapshots {
    /// No snapshots; `visible` is what recovery starts from.
    pub fn new(clock: Arc<dyn Clock>, max_age: Duration) -> Self {
        Self {
            pins: Mutex::default(),
            visible: AtomicU64::new(0),
            floor: AtomicU64::new(0),
            cap: AtomicU64::new(u64::MAX),
            clock,
            max_age,
        }
    }

    /// The newest commit number whose whole transaction is readable.
    pub fn visible(&self) -> CommitSeq {
        CommitSeq(self.visible.load(Ordering::Acquire))
    }

    /// Apply has put everything up to `seq` in place.
    pub fn publish(&self, seq: CommitSeq) {
        self.visible.fetch_max(seq.0, Ordering::AcqRel);
    }

    /// Pins what is visible now.
    pub fn pin(self: &Arc<Self>) -> PinnedSeq {
        let mut pins = self.pins.lock();
        // Under the lock, so that no floor computed before can be above it.
        let at = self.visible();
        match pins.back_mut() {
            Some(last) if last.at == at && last.readers > 0 => last.readers += 1,
            Some(last) if last.at == at => *last = Pin { at, readers: 1, since: self.clock.now() },
            _ => pins.push_back(Pin { at, readers: 1, since: self.clock.now() }),
        }
        drop(pins);
        PinnedSeq { at, registry: Arc::clone(self) }
    }

    fn unpin(&self, at: CommitSeq) {
        let mut pins = self.pins.lock();
        if let Ok(found) = pins.binary_search_by_key(&at, |pin| pin.at) {
            pins[found].readers -= 1;
            if pins[found].readers == 0 && found + 1 == pins.len() {
                pins.pop_back();
            }
        }
        while pins.front().is_some_and(|pin| pin.readers == 0) {
            pins.pop_front();
        }
    }

    /// Raises the floor to the oldest snapshot (or what is visible) and answers it: versions that only older readers
    /// could see may be dropped afterwards. Snapshots over the maximum age don't hold it.
    pub fn raise_floor(&self) -> CommitSeq {
        let now = self.clock.now();
        let mut pins = self.pins.lock();
        let visible = self.visible();
        // What is visible now costs nothing to keep; and no later pin can have the number of one that is popped here.
        let expired = |pin: &Pin| pin.at < visible && now.saturating_sub(pin.since) > self.max_age;
        while pins.front().is_some_and(|pin| pin.readers == 0 || expired(pin)) {
            pins.pop_front();
        }
        let floor = pins.front().map_or(visible, |pin| pin.at).min(CommitSeq(self.cap.load(Ordering::Acquire)));
        // Published before the caller drops anything, and before a later pin can be taken.
        CommitSeq(self.floor.fetch_max(floor.0, Ordering::SeqCst).max(floor.0))
    }

    /// Other members still read at `cap` and above.
    pub fn set_cap(&self, cap: CommitSeq) {
        self.cap.store(cap.0, Ordering::Release);
    }

    /// Versions that only readers below `floor` reach are gone from what is installed next.
    pub fn raise_to(&self, floor: CommitSeq) {
        // Under the lock: a pin taken later is above it, since everything up to the floor is applied.
        let _pins = self.pins.lock();
        self.floor.fetch_max(floor.0, Ordering::SeqCst);
    }

    /// What the readers of this node need: versions that only readers below it reach are not missed here.
    pub fn needed(&self) -> CommitSeq {
        let pins = self.pins.lock();
        let oldest = pins.iter().find(|pin| pin.readers > 0).map(|pin| pin.at);
        oldest.unwrap_or_else(|| self.visible()).max(CommitSeq(self.floor.load(Ordering::SeqCst)))
    }

    /// Whether every version that a reader at `at` needs was there until now. Ask after reading.
    pub fn check(&self, at: CommitSeq) -> Result<()> {
        if self.floor.load(Ordering::SeqCst) > at.0 {
            return Err(Error::Conflict(format!(
                "snapshot too old: its versions are gone (it was over {} s old, or the leader changed)",
                self.max_age.as_secs()
            )));
        }
        Ok(())
    }

    /// The oldest snapshot's number and age, if there is one.
    pub fn oldest(&self) -> Option<(CommitSeq, Duration)> {
        let now = self.clock.now();
        self.pins.lock().iter().find(|pin| pin.readers > 0).map(|pin| (pin.at, now.saturating_sub(pin.since)))
    }
}

/// A pinned commit number; unpinned on drop.
pub struct PinnedSeq {
    at: CommitSeq,
    registry: Arc<Snapshots>,
}

impl PinnedSeq {
    /// The number.
    pub fn at(&self) -> CommitSeq {
        self.at
    }
}

impl Clone for PinnedSeq {
    fn clone(&self) -> Self {
        let mut pins = self.registry.pins.lock();
        if let Ok(found) = pins.binary_search_by_key(&self.at, |pin| pin.at) {
            pins[found].readers += 1;
        }
        drop(pins);
        Self { at: self.at, registry: Arc::clone(&self.registry) }
    }
}

impl Drop for PinnedSeq {
    fn drop(&mut self) {
        self.registry.unpin(self.at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Stopped(Mutex<Duration>);
    impl Clock for Stopped {
        fn now(&self) -> Duration {
            *self.0.lock()
        }
        fn unix_millis(&self) -> u64 {
            0
        }
    }

    fn registry() -> (Arc<Snapshots>, Arc<Stopped>) {
        let clock = Arc::new(Stopped(Mutex::new(Duration::ZERO)));
        (Arc::new(Snapshots::new(clock.clone(), Duration::from_secs(60))), clock)
    }

    #[test]
    fn the_oldest_snapshot_holds_the_floor() {
        let (registry, _) = registry();
        registry.publish(CommitSeq(5));
        let old = registry.pin();
        registry.publish(CommitSeq(9));
        let (new, again) = (registry.pin(), old.clone());
        assert_eq!(registry.raise_floor(), CommitSeq(5));
        drop(old);
        assert_eq!(registry.raise_floor(), CommitSeq(5));
        drop(again);
        assert_eq!(registry.raise_floor(), CommitSeq(9));
        assert!(registry.check(CommitSeq(8)).is_err() && registry.check(new.at()).is_ok());
    }

    #[test]
    fn a_snapshot_over_its_age_loses_its_hold() {
        let (registry, clock) = registry();
        registry.publish(CommitSeq(5));
        let old = registry.pin();
        registry.publish(CommitSeq(9));
        *clock.0.lock() = Duration::from_secs(61);
        assert_eq!(registry.raise_floor(), CommitSeq(9));
        assert!(registry.check(old.at()).unwrap_err().is_retryable());
    }

    #[test]
    fn released_snapshots_in_the_middle_leave_no_trace() {
        let (registry, _) = registry();
        let pins: Vec<_> = (1..=3)
            .map(|seq| {
                registry.publish(CommitSeq(seq));
                registry.pin()
            })
            .collect();
        let [a, b, c] = pins.try_into().ok().unwrap();
        drop(b);
        drop(c);
        drop(a);
        assert_eq!(registry.oldest().map(|(at, _)| at), None);
    }
}
