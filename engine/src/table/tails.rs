//! Bounds the memory of indexes and filters: the least recently used ones go, and are read again when needed.

use std::sync::{
    Arc, Weak,
    atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
};

use parking_lot::Mutex;

use super::Table;

/// Loads between two clean-ups of the list.
const TIDY_EVERY: usize = 256;

/// Which tables have their tail in memory, and how much that is.
pub(crate) struct Tails {
    budget: u64,
    bytes: AtomicU64,
    /// Moves with every load; tables note it when they are used.
    tick: AtomicU32,
    loaded: Mutex<Vec<Weak<Table>>>,
}

impl Tails {
    pub(crate) fn new(budget: u64) -> Self {
        Self { budget, bytes: AtomicU64::new(0), tick: AtomicU32::new(0), loaded: Mutex::default() }
    }

    /// Bytes in memory now.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Relaxed)
    }

    pub(super) fn tick(&self) -> u32 {
        self.tick.load(Relaxed)
    }

    pub(super) fn unloaded(&self, bytes: u64) {
        self.bytes.fetch_sub(bytes, Relaxed);
    }

    /// Notes that `table` has loaded its tail, and unloads others until the budget holds. One that is larger than the
    /// whole budget stays until the next load.
    pub(super) fn loaded(&self, table: &Arc<Table>, bytes: u64) {
        self.tick.fetch_add(1, Relaxed);
        let now = self.bytes.fetch_add(bytes, Relaxed) + bytes;
        let mut loaded = self.loaded.lock();
        if now > self.budget {
            let mut tables: Vec<_> = loaded.drain(..).filter_map(|table| table.upgrade()).collect();
            tables.sort_by_key(|table| table.last_used());
            // An eighth of room, so that the next loads need no search.
            let goal = self.budget - self.budget / 8;
            let keep = tables.iter().position(|table| {
                let full = self.bytes() > goal;
                if full {
                    table.unload();
                }
                !full
            });
            loaded.extend(tables.split_off(keep.unwrap_or(tables.len())).iter().map(Arc::downgrade));
        } else if loaded.len() % TIDY_EVERY == TIDY_EVERY - 1 {
            loaded.retain(|table| table.strong_count() > 0);
        }
        loaded.push(Arc::downgrade(table));
    }
}
