//! What the members told of themselves, and what follows from it for versions and dead objects (rule 8).

use std::{
    collections::BTreeMap,
    sync::{Arc, OnceLock, Weak, atomic::Ordering},
    time::Duration,
};

use bytes::Bytes;
use holdfast_wal::{Leadership, Reports};
use parking_lot::Mutex;

use super::{NodeInfo, lag::Pace, report::Report};
use crate::{
    clock::Clock,
    inner::Inner,
    pressure::{self, Runway},
    types::CommitSeq,
};

/// A member that was not heard for this long no longer holds anything back: its old snapshots answer an error.
pub(crate) const PIN_TTL: Duration = Duration::from_secs(30);
/// How old a report may be when it is sent again.
const FRESH: Duration = Duration::from_millis(20);

/// A voter that was not heard for this long no longer decides about commits: a quorum goes on without it.
const SILENT: Duration = Duration::from_secs(3);

/// A report and when it came.
#[derive(Clone)]
pub(crate) struct Heard {
    pub(crate) report: Report,
    pub(crate) at: Duration,
}

/// What this node heard, and what it says.
pub(crate) struct Members {
    info: NodeInfo,
    clock: Arc<dyn Clock>,
    inner: OnceLock<Weak<Inner>>,
    heard: Mutex<BTreeMap<u64, Heard>>,
    /// Since when this node waits for members that it never heard.
    since: Mutex<Duration>,
    said: Mutex<Option<(Duration, Bytes)>>,
    pace: Mutex<Pace>,
}

/// What the other members still need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Need {
    /// Versions that only readers below this reach.
    pub(crate) floor: CommitSeq,
    /// Objects and manifests that edits after this log entry unlinked.
    pub(crate) released: u64,
}

impl Need {
    /// Nothing.
    pub(crate) const NOTHING: Self = Self { floor: CommitSeq::MAX, released: u64::MAX };
    /// Everything.
    pub(crate) const ALL: Self = Self { floor: CommitSeq::ZERO, released: 0 };
}

impl Members {
    /// Nobody was heard.
    pub(crate) fn new(info: NodeInfo, clock: Arc<dyn Clock>) -> Self {
        let since = Mutex::new(clock.now());
        Self {
            info,
            clock,
            inner: OnceLock::new(),
            heard: Mutex::default(),
            since,
            said: Mutex::default(),
            pace: Mutex::default(),
        }
    }

    /// The database that this node tells of.
    pub(crate) fn attach(&self, inner: &Arc<Inner>) {
        // Set once, at open.
        let _ = self.inner.set(Arc::downgrade(inner));
    }

    /// What this node tells of itself.
    pub(crate) fn info(&self) -> &NodeInfo {
        &self.info
    }

    /// What a member told last, and how long ago.
    pub(crate) fn heard_of(&self, id: u64) -> Option<(Report, Duration)> {
        let now = self.clock.now();
        self.heard.lock().get(&id).map(|heard| (heard.report.clone(), now.saturating_sub(heard.at)))
    }

    /// What a member lacks that has everything up to `index`: bytes of log and time, about.
    pub(crate) fn behind(&self, index: u64) -> (u64, Duration) {
        self.pace.lock().behind(index, self.clock.now())
    }

    /// This node leads from now on: members that it never heard have the whole time to say what they need.
    pub(crate) fn lead(&self) {
        *self.since.lock() = self.clock.now();
    }

    /// Which of the other voters has the shortest runway in the best quorum, and which.
    pub(crate) fn quorums_runway(&self, others: &[u64]) -> Option<(u64, Runway)> {
        quorums_runway(others, &self.heard.lock(), self.clock.now())
    }

    /// What the others need, as this node may assume in its role.
    pub(crate) fn need(&self, leadership: Leadership, others: &[u64]) -> Option<Need> {
        if others.is_empty() {
            return Some(Need::NOTHING);
        }
        let heard = self.heard.lock();
        if leadership.is_leader {
            return Some(needed(others, &heard, *self.since.lock(), self.clock.now()));
        }
        // The leader's floor counts everyone. Whoever follows deletes nothing.
        let leader = heard.get(&leadership.leader?)?;
        Some(Need { floor: leader.report.floor, released: 0 })
    }
}

/// What `others` need at `now`, where members that were never heard are waited for since `since`.
fn needed(others: &[u64], heard: &BTreeMap<u64, Heard>, since: Duration, now: Duration) -> Need {
    let gone = |at: Duration| now.saturating_sub(at) > PIN_TTL;
    let of = |id: &u64| match heard.get(id) {
        Some(heard) if gone(heard.at.max(since)) => Need::NOTHING,
        Some(Heard { report, .. }) => Need { floor: report.floor, released: report.released.min(report.applied) },
        None if gone(since) => Need::NOTHING,
        None => Need::ALL,
    };
    others
        .iter()
        .map(of)
        .fold(Need::NOTHING, |a, b| Need { floor: a.floor.min(b.floor), released: a.released.min(b.released) })
}

/// The runway of the best quorum of this node and those of the `others` that are heard at `now`.
fn quorums_runway(others: &[u64], heard: &BTreeMap<u64, Heard>, now: Duration) -> Option<(u64, Runway)> {
    let told = others.iter().filter_map(|id| {
        let heard = heard.get(id).filter(|heard| now.saturating_sub(heard.at) <= SILENT)?;
        Some((*id, heard.report.runway?))
    });
    pressure::of_quorum(told, others.len().div_ceil(2))
}

impl Reports for Members {
    fn report(&self) -> Bytes {
        let now = self.clock.now();
        let mut said = self.said.lock();
        if let Some((at, bytes)) = &*said
            && now.saturating_sub(*at) < FRESH
        {
            return bytes.clone();
        }
        let Some(inner) = self.inner.get().and_then(Weak::upgrade) else {
            return Report { info: self.info.clone(), ..Report::default() }.encode();
        };
        let log_bytes = inner.counters.log_bytes.load(Ordering::Relaxed);
        self.pace.lock().note(inner.applied_index(), log_bytes, now);
        let report = Report {
            floor: inner.snapshots.needed(),
            released: inner.tree.released(),
            applied: inner.applied_index(),
            info: self.info.clone(),
            runway: *inner.runway.lock(),
        };
        let bytes = report.encode();
        *said = Some((now, bytes.clone()));
        bytes
    }

    fn heard(&self, from: u64, report: Bytes) {
        if report.is_empty() {
            return;
        }
        match Report::decode(report) {
            Ok(report) => {
                self.heard.lock().insert(from, Heard { report, at: self.clock.now() });
            }
            Err(error) => tracing::warn!(node = from, %error, "a report was not understood"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(floor: u64, released: u64, applied: u64, at: u64) -> Heard {
        let report = Report { floor: CommitSeq(floor), released, applied, ..Report::default() };
        Heard { report, at: Duration::from_secs(at) }
    }

    #[test]
    fn the_slowest_counts_until_it_is_not_heard_any_more() {
        let all = BTreeMap::from([(2, heard(50, 9, 9, 100)), (3, heard(70, u64::MAX, 4, 120))]);
        let at = |now| needed(&[2, 3], &all, Duration::from_secs(0), Duration::from_secs(now));
        assert_eq!(at(121), Need { floor: CommitSeq(50), released: 4 });
        assert_eq!(at(131), Need { floor: CommitSeq(70), released: 4 });
        assert_eq!(at(151), Need::NOTHING);
    }

    #[test]
    fn the_runway_of_the_best_quorum_of_those_that_are_heard_decides() {
        let of = |left, at| {
            let told = heard(0, 0, 0, at);
            Heard { report: Report { runway: Some(Runway { left, of: 100 }), ..told.report }, ..told }
        };
        let all = BTreeMap::from([(2, of(50, 100)), (3, of(1, 99)), (4, of(0, 100)), (5, heard(0, 0, 0, 100))]);
        let at = |others: &[u64], now| quorums_runway(others, &all, Duration::from_secs(now)).map(|(id, _)| id);
        // Node 4 does not vote, 5 does not say, 6 was never heard.
        assert_eq!(at(&[2, 3, 5, 6], 101), Some(3), "the leader needs two of four");
        assert_eq!(at(&[2, 3], 101), Some(2), "and one of two");
        assert_eq!(at(&[2, 3, 5, 6], 103), Some(2));
        assert_eq!(at(&[2, 3, 5, 6], 104), None);
        assert_eq!(at(&[3], 101), Some(3), "of two voters each is needed");
    }

    #[test]
    fn one_that_was_never_heard_holds_everything_for_a_while() {
        let all = BTreeMap::from([(2, heard(50, 9, 9, 100))]);
        let at = |now| needed(&[2, 3], &all, Duration::from_secs(100), Duration::from_secs(now));
        assert_eq!(at(120), Need::ALL);
        assert_eq!(at(131), Need::NOTHING);
        // A new leader gives those whom it heard long ago the same time.
        assert_eq!(
            needed(&[2], &all, Duration::from_secs(200), Duration::from_secs(220)),
            Need { floor: CommitSeq(50), released: 9 }
        );
    }
}
