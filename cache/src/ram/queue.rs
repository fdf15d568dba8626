//! Owns a queue of records with a bound in bytes. Pure.

use std::collections::VecDeque;

use crate::Key;

/// Tickets of records that are gone, which are left where they are beside as many others.
const GONE: usize = 1024;

/// What a queue knows of a record: which one it is, and what it weighs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ticket {
    pub(super) key: Key,
    pub(super) id: u64,
    pub(super) weight: u64,
}

/// Records in the order in which they came. One that goes otherwise than by [`Queue::overflow`] leaves its ticket behind,
/// which weighs nothing any more.
#[derive(Debug, Default)]
pub(super) struct Queue {
    order: VecDeque<Ticket>,
    records: usize,
    bytes: u64,
    capacity: u64,
}

impl Queue {
    pub(super) fn set_capacity(&mut self, bytes: u64) {
        self.capacity = bytes;
    }

    /// Puts a record at the tail.
    pub(super) fn push(&mut self, ticket: Ticket) {
        self.records += 1;
        self.bytes += ticket.weight;
        self.order.push_back(ticket);
    }

    /// Whether a record can be put in without another going out.
    pub(super) fn has_room(&self, weight: u64) -> bool {
        self.bytes + weight <= self.capacity
    }

    /// The ticket at the head, if the records are over the bound. Its record, unless gone before, is to be [`Queue::lost`].
    pub(super) fn overflow(&mut self) -> Option<Ticket> {
        if self.bytes > self.capacity { self.order.pop_front() } else { None }
    }

    /// A record went that weighs so much.
    pub(super) fn lost(&mut self, weight: u64) {
        self.records = self.records.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(weight);
    }

    #[cfg(test)]
    pub(super) fn tickets(&self) -> impl Iterator<Item = &Ticket> {
        self.order.iter()
    }

    /// Records, and what they weigh together.
    #[cfg(test)]
    pub(super) fn load(&self) -> (usize, u64) {
        (self.records, self.bytes)
    }

    /// Drops the tickets of records that are gone, if they are most of all.
    pub(super) fn sweep(&mut self, is_here: impl Fn(&Ticket) -> bool) {
        if self.order.len() > 2 * self.records + GONE {
            self.order.retain(is_here);
        }
    }
}
