//! The newest entries in RAM: every entry that is not durable yet, and older ones up to a bound in bytes.

use std::collections::VecDeque;

use super::LogEntry;

/// What an entry costs beside its payload.
const ENTRY_OVERHEAD: usize = size_of::<Held>() + 32;

#[derive(Debug)]
struct Held {
    entry: LogEntry,
    /// Place of the append in the stream: durable once the stream is durable up to it.
    sequence: u64,
}

/// Contiguous entries up to the last one.
#[derive(Debug)]
pub struct Tail {
    held: VecDeque<Held>,
    bytes: usize,
    max_bytes: usize,
}

impl Tail {
    /// An empty tail that keeps durable entries up to `max_bytes`.
    pub fn new(max_bytes: usize) -> Self {
        Self { held: VecDeque::new(), bytes: 0, max_bytes }
    }

    /// Adds an entry behind all others.
    pub fn push(&mut self, entry: LogEntry, sequence: u64) {
        self.bytes += cost(&entry);
        self.held.push_back(Held { entry, sequence });
    }

    /// Lets go of the oldest entries above the bound, as far as the stream is durable.
    pub fn evict(&mut self, durable: u64) {
        while self.bytes > self.max_bytes && self.held.front().is_some_and(|held| held.sequence <= durable) {
            self.pop_front();
        }
    }

    /// Drops entries from `next` on.
    pub fn cut(&mut self, next: u64) {
        while self.held.back().is_some_and(|held| held.entry.id.index >= next) {
            if let Some(held) = self.held.pop_back() {
                self.bytes -= cost(&held.entry);
            }
        }
    }

    /// Drops entries up to `up_to`.
    pub fn purge(&mut self, up_to: u64) {
        while self.held.front().is_some_and(|held| held.entry.id.index <= up_to) {
            self.pop_front();
        }
    }

    fn pop_front(&mut self) {
        if let Some(held) = self.held.pop_front() {
            self.bytes -= cost(&held.entry);
        }
    }

    /// The first index held.
    pub fn first(&self) -> Option<u64> {
        self.held.front().map(|held| held.entry.id.index)
    }

    /// Entries from `index` on, if it is held.
    pub fn from(&self, index: u64) -> Option<impl Iterator<Item = &LogEntry>> {
        let skip = usize::try_from(index.checked_sub(self.first()?)?).ok()?;
        (skip < self.held.len()).then(|| self.held.range(skip..).map(|held| &held.entry))
    }
}

fn cost(entry: &LogEntry) -> usize {
    entry.payload.len() + ENTRY_OVERHEAD
}
