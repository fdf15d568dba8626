//! Where entries stand on disk and which terms they have: small maps that grow with groups and terms, not with entries.

use std::collections::VecDeque;

use crate::{LogId, record::Position};

/// A group on disk that holds entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupRef {
    /// Index of its first entry.
    pub first: u64,
    /// How many of its entries still count; they are contiguous.
    pub count: u32,
    /// Where it starts.
    pub position: Position,
    /// Its bytes.
    pub len: u32,
}

impl GroupRef {
    fn end(&self) -> u64 {
        self.first.saturating_add(u64::from(self.count))
    }
}

/// All groups that hold entries, in index order, without overlap.
#[derive(Clone, Debug, Default)]
pub struct GroupIndex {
    groups: VecDeque<GroupRef>,
}

impl GroupIndex {
    /// Adds a group behind all others.
    pub fn push(&mut self, group: GroupRef) {
        self.groups.push_back(group);
    }

    /// Drops entries from `next` on.
    pub fn cut(&mut self, next: u64) {
        while self.groups.back().is_some_and(|group| group.first >= next) {
            self.groups.pop_back();
        }
        if let Some(group) = self.groups.back_mut().filter(|group| group.end() > next) {
            group.count = (next - group.first) as u32; // below the old count, which is a u32
        }
    }

    /// Drops groups that hold nothing above `up_to`.
    pub fn purge(&mut self, up_to: u64) {
        while self.groups.front().is_some_and(|group| group.end() <= up_to.saturating_add(1)) {
            self.groups.pop_front();
        }
    }

    /// The group that holds the entry.
    pub fn find(&self, index: u64) -> Option<GroupRef> {
        let behind = self.groups.partition_point(|group| group.first <= index);
        let group = self.groups.get(behind.checked_sub(1)?)?;
        (index < group.end()).then_some(*group)
    }
}

/// The term of every entry, as runs.
#[derive(Clone, Debug, Default)]
pub struct Terms {
    /// (first index, term), both ascending.
    runs: VecDeque<(u64, u64)>,
}

impl Terms {
    /// Notes an entry behind all others.
    pub fn push(&mut self, id: LogId) {
        if self.last() != Some(id.term) {
            self.runs.push_back((id.index, id.term));
        }
    }

    /// The term of the last entry.
    pub fn last(&self) -> Option<u64> {
        self.runs.back().map(|run| run.1)
    }

    /// The term of the entry, which must be held.
    pub fn at(&self, index: u64) -> Option<u64> {
        let behind = self.runs.partition_point(|run| run.0 <= index);
        self.runs.get(behind.checked_sub(1)?).map(|run| run.1)
    }

    /// Drops entries from `next` on.
    pub fn cut(&mut self, next: u64) {
        while self.runs.back().is_some_and(|run| run.0 >= next) {
            self.runs.pop_back();
        }
    }

    /// Drops runs that end at or below `up_to`.
    pub fn purge(&mut self, up_to: u64) {
        while self.runs.get(1).is_some_and(|run| run.0 <= up_to.saturating_add(1)) {
            self.runs.pop_front();
        }
    }
}
