//! When Raft's thread writes the log itself.
//!
//! Handing a write to the log's thread and being told of its end costs two changes of thread, which is much beside the sync
//! when one client waits for each commit in turn. But while Raft's thread waits for the device, nothing is applied and nobody
//! answered: as soon as proposals overlap, the log's thread writes, and Raft works meanwhile.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU32, Ordering::Relaxed},
};

use crate::in_flight::InFlight;

/// Appends in a row that must have met no other proposal.
const CALM: u32 = 8;

/// What the choice depends on.
pub(crate) struct Pace {
    in_flight: Arc<InFlight>,
    /// Raft's thread serves nobody else.
    own_thread: bool,
    /// No other member waits for what this node appends.
    alone: AtomicBool,
    /// Appends since proposals last overlapped.
    calm: AtomicU32,
}

impl Pace {
    pub(crate) fn new(in_flight: Arc<InFlight>, own_thread: bool) -> Self {
        Self { in_flight, own_thread, alone: AtomicBool::new(false), calm: AtomicU32::new(0) }
    }

    /// Whether this node is the only member.
    pub(crate) fn alone(&self, alone: bool) {
        self.alone.store(alone, Relaxed);
    }

    /// Whether the append that comes now may keep Raft's thread. Asked once an append, by that thread only.
    pub(crate) fn is_calm(&self) -> bool {
        let calm = if self.in_flight.proposals() > 1 { 0 } else { self.calm.load(Relaxed).saturating_add(1) };
        self.calm.store(calm, Relaxed);
        calm > CALM && self.own_thread && self.alone.load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Limits, in_flight::Share};

    fn alone(own_thread: bool) -> (Arc<InFlight>, Pace) {
        let in_flight: Arc<InFlight> = Arc::default();
        let pace = Pace::new(in_flight.clone(), own_thread);
        pace.alone(true);
        (in_flight, pace)
    }

    #[test]
    fn raft_writes_itself_once_proposals_come_one_by_one_for_a_while() {
        let (in_flight, pace) = alone(true);
        let share = || Share::take(&in_flight, 1, &Limits::default()).unwrap();
        let one = share();
        assert!((0..CALM).all(|_| !pace.is_calm()));
        assert!(pace.is_calm());
        let other = share();
        assert!(!pace.is_calm());
        drop((one, other));
        assert!((0..CALM).all(|_| !pace.is_calm()), "an overlap is remembered");
        assert!(pace.is_calm());
    }

    #[test]
    fn never_while_others_wait_for_the_entries_or_share_the_thread() {
        let (_, shared_thread) = alone(false);
        let (_, followed) = alone(true);
        followed.alone(false);
        assert!((0..2 * CALM).all(|_| !shared_thread.is_calm() && !followed.is_calm()));
    }
}
