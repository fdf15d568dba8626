//! Owns the cache's counters: striped so that counting a hit never bounces a cache line between cores.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

const STRIPES: usize = 16;

#[derive(Default)]
#[repr(align(128))]
struct Stripe(AtomicU64);

/// A counter that many threads raise and few read.
#[derive(Default)]
pub(crate) struct Striped([Stripe; STRIPES]);

impl Striped {
    pub(crate) fn add(&self, n: u64) {
        // `stripe()` is below STRIPES by construction; `get` keeps the hot path free of a panic branch.
        if let Some(stripe) = self.0.get(stripe()) {
            stripe.0.fetch_add(n, Relaxed);
        }
    }

    pub(crate) fn total(&self) -> u64 {
        self.0.iter().map(|s| s.0.load(Relaxed)).sum()
    }
}

/// This thread's stripe, handed out round robin at the thread's first count.
fn stripe() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local!(static MINE: usize = NEXT.fetch_add(1, Relaxed) % STRIPES);
    MINE.try_with(|mine| *mine).unwrap_or(0)
}

/// Events of the cache, counted since it was opened.
#[derive(Default)]
pub(crate) struct Counters {
    pub(crate) ram_hits: Striped,
    pub(crate) ram_misses: Striped,
    pub(crate) coalesced: Striped,
    pub(crate) fetches: Striped,
    pub(crate) fetch_errors: Striped,
    pub(crate) fetched_bytes: Striped,
    pub(crate) fetches_withheld: Striped,
    pub(crate) refreshes: Striped,
    pub(crate) refresh_errors: Striped,
    pub(crate) stale_hits: Striped,
    pub(crate) stale_on_error: Striped,
    pub(crate) expired: Striped,
}

/// What a cache did since it was opened, and what it holds now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Reads answered from RAM.
    pub ram_hits: u64,
    /// Reads that RAM could not answer. A peek that misses and the get that follows it count once: only gets count.
    pub ram_misses: u64,
    /// Reads answered from NVMe with a fresh record, waiters of one read counted once.
    pub nvme_hits: u64,
    /// Readers that waited for a fetch which another reader had started.
    pub coalesced_waits: u64,
    /// Calls of [`crate::Origin::fetch`].
    pub fetches: u64,
    /// Calls of [`crate::Origin::fetch`] that failed.
    pub fetch_errors: u64,
    /// Bytes that the origin returned.
    pub fetched_bytes: u64,
    /// Fetches not made because the key's last one had failed a moment ago.
    pub fetches_withheld: u64,
    /// Fetches made in the background to replace an expired record that was served; in `fetches` too.
    pub refreshes: u64,
    /// Refreshes that failed; in `fetch_errors` too.
    pub refresh_errors: u64,
    /// Reads answered with an expired record that is refreshed in the background.
    pub stale_hits: u64,
    /// Reads answered with an expired record because the origin failed.
    pub stale_on_error: u64,
    /// Records dropped because their TTL, and the time that they may be served stale, had passed, in either tier.
    pub expired: u64,
    /// Bytes that the RAM tier holds, the estimated overhead of each entry included.
    pub ram_bytes: u64,
    /// The bound of `ram_bytes`.
    pub ram_capacity: u64,
    /// Records in RAM.
    pub ram_entries: u64,
    /// Records that left RAM for want of room.
    pub ram_evictions: u64,
    /// Bytes of NVMe that hold indexed records, headers included.
    pub nvme_bytes: u64,
    /// Bytes of NVMe preallocated for records.
    pub nvme_capacity: u64,
    /// Records on NVMe.
    pub nvme_entries: u64,
    /// Records written to NVMe.
    pub nvme_writes: u64,
    /// Bytes of RAM that the index of the NVMe tier takes, and its memory of what was fetched of late; in no bound.
    pub nvme_index_bytes: u64,
    /// Bytes written to NVMe: records, headers, directories, and what was carried over.
    pub nvme_written_bytes: u64,
    /// Bytes of records that were written again because they had been read when their zone was recycled.
    pub nvme_carried_bytes: u64,
    /// Records not written to a full NVMe tier because they had not been fetched before, of late.
    pub nvme_declined: u64,
    /// Records not written to NVMe: the write queue was full, or the record is larger than the largest slot.
    pub nvme_rejected: u64,
    /// Records that left NVMe for want of room.
    pub nvme_evictions: u64,
    /// Slots whose magic, key, length or checksum was wrong; each was a miss.
    pub nvme_bad_slots: u64,
    /// NVMe reads and writes that failed or came short; each was a miss or a record not stored.
    pub nvme_io_errors: u64,
}

impl Stats {
    /// What only grows, by name.
    pub fn counters(&self) -> [(&'static str, u64); 22] {
        [
            ("ram_hits", self.ram_hits),
            ("ram_misses", self.ram_misses),
            ("nvme_hits", self.nvme_hits),
            ("coalesced_waits", self.coalesced_waits),
            ("fetches", self.fetches),
            ("fetch_errors", self.fetch_errors),
            ("fetched_bytes", self.fetched_bytes),
            ("fetches_withheld", self.fetches_withheld),
            ("refreshes", self.refreshes),
            ("refresh_errors", self.refresh_errors),
            ("stale_hits", self.stale_hits),
            ("stale_on_error", self.stale_on_error),
            ("expired", self.expired),
            ("ram_evictions", self.ram_evictions),
            ("nvme_writes", self.nvme_writes),
            ("nvme_written_bytes", self.nvme_written_bytes),
            ("nvme_carried_bytes", self.nvme_carried_bytes),
            ("nvme_declined", self.nvme_declined),
            ("nvme_rejected", self.nvme_rejected),
            ("nvme_evictions", self.nvme_evictions),
            ("nvme_bad_slots", self.nvme_bad_slots),
            ("nvme_io_errors", self.nvme_io_errors),
        ]
    }

    /// What is held now, by name.
    pub fn gauges(&self) -> [(&'static str, u64); 7] {
        [
            ("ram_bytes", self.ram_bytes),
            ("ram_capacity", self.ram_capacity),
            ("ram_entries", self.ram_entries),
            ("nvme_bytes", self.nvme_bytes),
            ("nvme_capacity", self.nvme_capacity),
            ("nvme_entries", self.nvme_entries),
            ("nvme_index_bytes", self.nvme_index_bytes),
        ]
    }

    /// Publishes every figure through the `metrics` facade, as `holdfast_cache_*`.
    pub(crate) fn publish(&self) {
        for (name, total) in self.counters() {
            metrics::counter!(format!("holdfast_cache_{name}_total")).absolute(total);
        }
        for (name, now) in self.gauges() {
            metrics::gauge!(format!("holdfast_cache_{name}")).set(now as f64);
        }
    }
}
