//! What must hold at every moment, checked as it happens: one entry for one index, one leader for one term.

use std::collections::BTreeMap;

use holdfast_wal::{LogId, NodeId};
use parking_lot::Mutex;

/// What an entry carries, as the checks see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// A leader's no-op.
    Blank,
    /// A membership.
    Membership,
    /// A client's append.
    Append(u64),
    /// The state was saved, the log may forget.
    Checkpoint,
}

/// An entry that was applied somewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Applied {
    /// Where.
    pub id: LogId,
    /// What.
    pub content: Content,
}

/// Everything that any node applied or claimed.
#[derive(Default)]
pub struct Oracle {
    applied: Mutex<BTreeMap<u64, Applied>>,
    leaders: Mutex<BTreeMap<u64, NodeId>>,
}

impl Oracle {
    /// A node applies an entry.
    pub fn applied(&self, node: NodeId, entry: Applied) {
        let mut all = self.applied.lock();
        let first = *all.entry(entry.id.index).or_insert(entry);
        assert!(first == entry, "divergence: node {node} applies {entry:?}, another node applied {first:?}");
        let before = all.range(..entry.id.index).next_back().map_or(0, |(_, before)| before.id.term);
        let after = all.range(entry.id.index + 1..).next().map_or(u64::MAX, |(_, after)| after.id.term);
        assert!((before..=after).contains(&entry.id.term), "terms go back around {entry:?}: {before}, {after}");
    }

    /// A node leads.
    pub fn leads(&self, node: NodeId, term: u64) {
        let first = *self.leaders.lock().entry(term).or_insert(node);
        assert!(first == node, "two leaders: node {node} and node {first} both lead term {term}");
    }

    /// Terms that had a leader.
    pub fn terms(&self) -> usize {
        self.leaders.lock().len()
    }
}
