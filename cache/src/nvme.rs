//! The NVMe tier: an index in RAM, slots in one preallocated file, writes in the background.
//!
//! It never fails its reader: a bad slot, a device error or a full queue is a miss or a record not stored, and a count.
//! What is removed is forgotten at once, but its slot stays in the file until its zone is recycled, so it may be found
//! again after a restart. Keys must therefore never be used again for other content once they were removed.

pub mod device;
mod index;
mod pread;
mod ring;
mod scan;
pub(crate) mod slot;
mod writer;

use std::{
    collections::VecDeque,
    io,
    path::Path,
    sync::{Arc, mpsc},
    thread::{Builder, JoinHandle},
    time::Duration,
};

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};
use rustc_hash::FxHashSet;
use tokio::sync::{Semaphore, oneshot};

use self::{
    device::{AlignedBuf, Device, Direction, Transfer},
    index::{Index, Location},
    scan::offset,
    slot::{BLOCK, HEADER, ZONE_BYTES},
};
use crate::{
    Clock, Error, Key, NvmeOptions,
    admit::{Cause, QUEUE_BYTES, Verdict, admit},
    stats::{Stats, Striped},
    ttl::{Deadline, Expiry},
};

/// The cache file's name in its folder.
const FILE: &str = "pages.cache";
/// Fewer zones than this leave nothing to evict in turn.
const MIN_ZONES: u64 = 4;
/// Reads under way at once; more wait their turn.
const READS: usize = 128;

/// A record on its way to the device.
struct Job {
    key: Key,
    bytes: Bytes,
    blocks: u16,
    deadline: Deadline,
}

/// What readers, inserters and the writer share. Held for moments only, never across I/O.
struct State {
    index: Index,
    queue: VecDeque<Job>,
    queued_bytes: usize,
    /// Keys of the batch that is being written; a removal strikes them out, and they are not published.
    writing: FxHashSet<Key>,
    /// Told when nothing is queued or being written.
    idle_waiters: Vec<oneshot::Sender<()>>,
    /// Told when half of the queue is free.
    room_waiters: Vec<oneshot::Sender<()>>,
    phase: Phase,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Open,
    /// Write out the queue, then end.
    Closing,
    /// End after the write that is under way.
    Abandoned,
    Ended,
}

#[derive(Default)]
struct Counters {
    hits: Striped,
    writes: Striped,
    written_bytes: Striped,
    rejected: Striped,
    evictions: Striped,
    bad_slots: Striped,
    io_errors: Striped,
    expired: Striped,
}

struct Tier {
    device: Arc<dyn Device>,
    state: Mutex<State>,
    work: Condvar,
    reads: Semaphore,
    counters: Counters,
    capacity: u64,
}

/// The tier, as the cache holds it. Dropping it ends the writer without writing out the queue.
pub(crate) struct Nvme {
    tier: Arc<Tier>,
    writer: Mutex<Option<JoinHandle<()>>>,
    expiry: Expiry,
    clock: Arc<dyn Clock>,
}

/// A record read from the device, checked.
pub(crate) struct Record {
    buf: AlignedBuf,
    len: usize,
    pub(crate) deadline: Deadline,
    /// Time since the deadline, if it has come; within the grace.
    pub(crate) past: Option<Duration>,
}

impl Record {
    pub(crate) fn payload(&self) -> &[u8] {
        self.buf.as_slice().get(HEADER..HEADER + self.len).unwrap_or_default()
    }
}

impl Nvme {
    /// Opens the file, finds what it holds and starts the writer. Blocks.
    pub(crate) fn open(options: &NvmeOptions, expiry: Expiry, clock: Arc<dyn Clock>) -> Result<Self, Error> {
        let zones = options.bytes / ZONE_BYTES as u64;
        let zones = u32::try_from(zones).ok().filter(|&zones| u64::from(zones) >= MIN_ZONES).ok_or_else(|| {
            let least = MIN_ZONES * ZONE_BYTES as u64;
            Error::Invalid(format!("an NVMe cache of {} bytes: the least is {least}", options.bytes))
        })?;
        let failed = |path: &Path| {
            let path = path.to_path_buf();
            move |source: io::Error| Error::Nvme { path, source: Arc::new(source) }
        };
        std::fs::create_dir_all(&options.dir).map_err(failed(&options.dir))?;
        let path = options.dir.join(FILE);
        let capacity = u64::from(zones) * ZONE_BYTES as u64;
        let device = device::open(&path, capacity, options.backend).map_err(failed(&path))?;
        let device = match &options.wrap {
            Some(wrap) => (wrap.0)(device),
            None => device,
        };
        let found = scan::scan(&device, zones);
        if let Some(version) = found.newer {
            tracing::warn!(version, path = %path.display(), "NVMe cache: written by a later version; starting empty");
        }
        let counters = Counters::default();
        counters.io_errors.add(found.io_errors);
        let next_generation = found.zones.last().map_or(1, |zone| zone.generation.saturating_add(1));
        let index = rebuild(&found, zones, clock.now(), expiry);
        tracing::info!(records = index.entries(), zones, "NVMe cache indexed");
        let state = Mutex::new(State::new(index));
        let tier = Tier { device, state, work: Condvar::new(), reads: Semaphore::new(READS), counters, capacity };
        let tier = Arc::new(tier);
        let writer = writer::Writer::new(tier.clone(), next_generation);
        let thread = Builder::new().name("cache-writer".into()).spawn(move || writer.run()).map_err(failed(&path))?;
        Ok(Self { tier, writer: Mutex::new(Some(thread)), expiry, clock })
    }

    /// Reads a record, or finds that it is not here: unknown, past its grace, damaged or unreadable.
    pub(crate) async fn read(&self, key: Key) -> Option<Record> {
        let tier = &self.tier;
        let location = tier.state.lock().index.lookup(&key)?;
        let permit = tier.reads.acquire().await.ok()?;
        let (send, receive) = oneshot::channel();
        tier.device.submit(Transfer {
            direction: Direction::Read,
            offset: offset(location.zone, usize::from(location.block)),
            buf: AlignedBuf::zeroed(usize::from(location.blocks) * BLOCK),
            done: Box::new(move |result| drop(send.send(result))),
        });
        let read = receive.await.unwrap_or_else(|_| Err(io::Error::other("the device gave no answer")));
        drop(permit);
        let buf = read.inspect_err(|error| tier.read_failed(error)).ok()?;
        let Ok((slot, payload)) = slot::decode(buf.as_slice(), key) else {
            // Not where the index has it any more: the zone was recycled meanwhile, which is no damage.
            if tier.state.lock().index.remove(&key, Some(location)) {
                tier.counters.bad_slots.add(1);
            }
            return None;
        };
        let now = self.clock.now();
        if self.expiry.refuses(slot.deadline, now) {
            tier.state.lock().index.remove(&key, Some(location));
            tier.counters.expired.add(1);
            return None;
        }
        let (len, deadline) = (payload.len(), slot.deadline);
        let past = deadline.past(|| now);
        if past.is_none() {
            tier.counters.hits.add(1);
        }
        Some(Record { buf, len, deadline, past })
    }

    /// Whether the index has a record. Counts as no use.
    pub(crate) fn contains(&self, key: &Key) -> bool {
        self.tier.state.lock().index.contains(key)
    }

    /// Queues a record for the writer, if admission lets it. Keeps `bytes` alive until it is written.
    pub(crate) fn offer(&self, key: Key, bytes: Bytes, deadline: Deadline, cause: Cause) {
        let mut state = self.tier.state.lock();
        if cause == Cause::Inserted {
            state.forget(|other| *other == key);
            state.index.remove(&key, None);
        }
        let open = state.phase == Phase::Open;
        let verdict = admit(cause, bytes.len(), state.index.contains(&key), state.queued_bytes);
        match (verdict, slot::blocks_for(bytes.len())) {
            (Verdict::Store, Some(blocks)) if open => {
                state.queued_bytes += bytes.len();
                state.queue.push_back(Job { key, bytes, blocks, deadline });
                self.tier.work.notify_one();
            }
            (Verdict::Present, _) => {}
            _ => self.tier.counters.rejected.add(1),
        }
    }

    pub(crate) fn remove(&self, key: &Key) {
        let mut state = self.tier.state.lock();
        state.forget(|other| other == key);
        state.index.remove(key, None);
    }

    pub(crate) fn remove_group(&self, group: u128) {
        let mut state = self.tier.state.lock();
        state.forget(|key| key.group == group);
        state.index.remove_group(group);
    }

    /// Waits until everything queued so far has been written, or given up.
    pub(crate) async fn written(&self) {
        let idle = {
            let mut state = self.tier.state.lock();
            if state.is_idle() {
                return;
            }
            let (send, receive) = oneshot::channel();
            state.idle_waiters.push(send);
            receive
        };
        // An error means that the writer has ended: nothing is under way then either.
        let _ = idle.await;
    }

    /// Waits until half of the queue is free.
    pub(crate) async fn room(&self) {
        let room = {
            let mut state = self.tier.state.lock();
            if state.has_room() {
                return;
            }
            let (send, receive) = oneshot::channel();
            state.room_waiters.push(send);
            receive
        };
        // An error means that the writer has ended: nothing is taken any more then.
        let _ = room.await;
    }

    /// Writes out the queue and ends the writer. Reads go on.
    pub(crate) async fn close(&self) {
        self.end(Phase::Closing);
        let (send, receive) = oneshot::channel();
        {
            let mut state = self.tier.state.lock();
            if state.phase == Phase::Ended {
                return;
            }
            state.idle_waiters.push(send);
        }
        let _ = receive.await;
    }

    pub(crate) fn fill_stats(&self, stats: &mut Stats) {
        let (blocks, entries) = {
            let state = self.tier.state.lock();
            (state.index.blocks(), state.index.entries())
        };
        let counters = &self.tier.counters;
        stats.nvme_hits = counters.hits.total();
        stats.expired += counters.expired.total();
        stats.nvme_bytes = blocks * BLOCK as u64;
        stats.nvme_capacity = self.tier.capacity;
        stats.nvme_entries = entries;
        stats.nvme_writes = counters.writes.total();
        stats.nvme_written_bytes = counters.written_bytes.total();
        stats.nvme_rejected = counters.rejected.total();
        stats.nvme_evictions = counters.evictions.total();
        stats.nvme_bad_slots = counters.bad_slots.total();
        stats.nvme_io_errors = counters.io_errors.total();
    }

    fn end(&self, phase: Phase) {
        let mut state = self.tier.state.lock();
        if matches!(state.phase, Phase::Open | Phase::Closing) {
            state.phase = phase;
        }
        self.tier.work.notify_one();
    }
}

impl Drop for Nvme {
    fn drop(&mut self) {
        self.end(Phase::Abandoned);
        if let Some(thread) = self.writer.lock().take() {
            // A writer that panicked has said so already.
            let _ = thread.join();
        }
    }
}

impl State {
    fn new(index: Index) -> Self {
        let (queue, writing) = (VecDeque::new(), FxHashSet::default());
        let (idle_waiters, room_waiters) = (Vec::new(), Vec::new());
        Self { index, queue, queued_bytes: 0, writing, idle_waiters, room_waiters, phase: Phase::Open }
    }

    fn is_idle(&self) -> bool {
        self.phase == Phase::Ended || (self.queue.is_empty() && self.writing.is_empty())
    }

    fn has_room(&self) -> bool {
        self.phase == Phase::Ended || self.queued_bytes <= QUEUE_BYTES / 2
    }

    /// Keeps queued and half-written records from being published.
    fn forget(&mut self, matches: impl Fn(&Key) -> bool) {
        self.queue.retain(|job| !matches(&job.key));
        self.queued_bytes = self.queue.iter().map(|job| job.bytes.len()).sum();
        self.writing.retain(|key| !matches(key));
    }
}

/// What the writer asks of the tier.
impl Tier {
    /// Waits for records to write: up to `max_blocks` blocks of them, at least one. `None` ends the writer.
    fn next_batch(&self, max_blocks: usize) -> Option<Vec<Job>> {
        let mut state = self.state.lock();
        state.writing.clear();
        loop {
            if state.phase == Phase::Abandoned || (state.queue.is_empty() && state.phase != Phase::Open) {
                return None;
            }
            if !state.queue.is_empty() {
                break;
            }
            let State { idle_waiters, room_waiters, .. } = &mut *state;
            for waiter in idle_waiters.drain(..).chain(room_waiters.drain(..)) {
                let _ = waiter.send(());
            }
            self.work.wait(&mut state);
        }
        let (mut batch, mut blocks) = (Vec::new(), 0);
        while let Some(job) = state.queue.front() {
            blocks += usize::from(job.blocks);
            if !batch.is_empty() && blocks > max_blocks {
                break;
            }
            let Some(job) = state.queue.pop_front() else { break };
            state.queued_bytes -= job.bytes.len();
            state.writing.insert(job.key);
            batch.push(job);
        }
        if state.has_room() {
            for waiter in state.room_waiters.drain(..) {
                let _ = waiter.send(());
            }
        }
        Some(batch)
    }

    /// Records carried over can be struck out like those of a batch.
    fn begin_carrying(&self, carried: &[Job]) {
        self.state.lock().writing.extend(carried.iter().map(|job| job.key));
    }

    fn publish(&self, placed: impl Iterator<Item = (Key, Location)>) {
        let mut state = self.state.lock();
        for (key, location) in placed {
            if state.writing.contains(&key) {
                state.index.publish(key, location);
                self.counters.writes.add(1);
            }
        }
    }

    fn empty_zone(&self, carried_blocks: u16) -> Option<(u32, Vec<(Key, Location)>)> {
        let (zone, evicted) = self.state.lock().index.next_zone(carried_blocks)?;
        self.counters.evictions.add(evicted.dropped);
        Some((zone, evicted.hot))
    }

    fn write_failed(&self, error: &io::Error, records: usize) {
        tracing::warn!(%error, records, "NVMe cache: a write failed; its records are not stored");
        self.counters.io_errors.add(1);
        self.counters.rejected.add(records as u64);
    }

    fn read_failed(&self, error: &io::Error) {
        tracing::warn!(%error, "NVMe cache: a read failed; it counts as a miss");
        self.counters.io_errors.add(1);
    }

    fn writer_ended(&self) {
        let mut state = self.state.lock();
        state.phase = Phase::Ended;
        state.queue.clear();
        state.queued_bytes = 0;
        state.idle_waiters.clear();
        state.room_waiters.clear();
    }
}

/// The index of what a scan found: later zones override earlier ones, and empty zones are filled first.
fn rebuild(found: &scan::Found, zones: u32, now: Duration, expiry: Expiry) -> Index {
    let mut used = vec![false; zones as usize];
    for zone in &found.zones {
        if let Some(used) = used.get_mut(zone.zone as usize) {
            *used = true;
        }
    }
    let unused = (0..zones).filter(|&zone| used.get(zone as usize) == Some(&false));
    let mut index = Index::new(unused.chain(found.zones.iter().map(|zone| zone.zone)).collect());
    for zone in &found.zones {
        for slot in zone.slots.iter().filter(|slot| !expiry.refuses(slot.deadline, now)) {
            index.publish(slot.key, Location { zone: zone.zone, block: slot.block, blocks: slot.blocks });
        }
    }
    index
}

/// A transfer under way, for callers that block.
struct Pending(mpsc::Receiver<io::Result<AlignedBuf>>);

impl Pending {
    fn wait(self) -> io::Result<AlignedBuf> {
        self.0.recv().unwrap_or_else(|_| Err(io::Error::other("the device gave no answer")))
    }
}

fn start(device: &Arc<dyn Device>, direction: Direction, offset: u64, buf: AlignedBuf) -> Pending {
    let (send, receive) = mpsc::sync_channel(1);
    let done = Box::new(move |result| drop(send.send(result)));
    device.submit(Transfer { direction, offset, buf, done });
    Pending(receive)
}

fn start_read(device: &Arc<dyn Device>, offset: u64, len: usize) -> Pending {
    start(device, Direction::Read, offset, AlignedBuf::zeroed(len))
}

fn read_at(device: &Arc<dyn Device>, offset: u64, len: usize) -> io::Result<AlignedBuf> {
    start_read(device, offset, len).wait()
}
