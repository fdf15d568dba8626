//! The NVMe tier: an index in RAM, slots in one preallocated file, writes in the background.
//!
//! It never fails its reader: a bad slot, a device error or a full queue is a miss or a record not stored, and a count.
//! What is removed is forgotten at once, but its slot stays in the file until its zone is recycled, so it may be found
//! again after a restart. Keys must therefore never be used again for other content once they were removed.

pub mod device;
mod index;
mod layout;
mod pread;
mod queue;
mod ring;
mod scan;
pub(crate) mod slot;
mod space;
mod span;
mod table;
mod transfer;
mod writer;
mod zones;

use std::{
    io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
        mpsc,
    },
    thread::{Builder, JoinHandle},
    time::Duration,
};

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use tokio::sync::{Semaphore, oneshot};

use self::{
    device::{AlignedBuf, Device, Direction, Pool, Transfer},
    index::{Apart, Index, Location, MAX_ZONES},
    queue::Queue,
    slot::{HEADER, Listed, ZONE_BYTES},
    span::Span,
    transfer::Extent,
    writer::Writer,
};
use crate::{
    Clock, Error, Key, NvmeOptions,
    admit::{Cause, Circumstances, Verdict, admit},
    key::Groups,
    seen::Seen,
    stats::{Stats, Striped},
    ttl::{Deadline, Expiry},
};

/// The cache file's name in its folder.
const FILE: &str = "pages.cache";
/// Fewer zones than this leave nothing to evict in turn.
const MIN_ZONES: u32 = 4;
/// Reads under way at once; more wait their turn.
const READS: usize = 128;
/// How large a record is taken to be: as many keys are remembered as fit.
const TYPICAL_RECORD: u64 = 8 << 10;

#[derive(Default)]
struct Counters {
    hits: Striped,
    writes: Striped,
    written_bytes: Striped,
    carried_bytes: Striped,
    declined: Striped,
    rejected: Striped,
    evictions: Striped,
    bad_slots: Striped,
    io_errors: Striped,
    expired: Striped,
}

/// What readers, inserters and the writer share. The queue's lock is taken before the others.
struct Tier {
    device: Arc<dyn Device>,
    index: Index,
    /// The deadlines of each zone's records.
    spans: RwLock<Vec<Span>>,
    queue: Queue,
    /// What was fetched of late.
    seen: Mutex<Seen>,
    /// Whether a record that is stored pushes others out.
    full: AtomicBool,
    reads: Semaphore,
    pool: Arc<Pool>,
    counters: Counters,
    capacity: AtomicU64,
    expiry: Expiry,
    clock: Arc<dyn Clock>,
}

/// The tier, as the cache holds it. Dropping it ends the writer without writing out the queue.
pub(crate) struct Nvme {
    tier: Arc<Tier>,
    path: PathBuf,
    writer: Mutex<Option<JoinHandle<()>>>,
}

/// A record read from the device, checked.
pub(crate) struct Record {
    buf: AlignedBuf,
    pool: Arc<Pool>,
    /// Where in the buffer the payload begins.
    at: usize,
    len: usize,
    pub(crate) deadline: Deadline,
    /// Time since the deadline, if it has come; within the grace.
    pub(crate) past: Option<Duration>,
}

impl Record {
    pub(crate) fn payload(&self) -> &[u8] {
        self.buf.as_slice().get(self.at..self.at + self.len).unwrap_or_default()
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        self.pool.give_back(std::mem::take(&mut self.buf));
    }
}

impl Nvme {
    /// Opens the file and starts the writer, which finds what the file holds. Blocks for that as long as the options say.
    pub(crate) fn open(options: &NvmeOptions, expiry: Expiry, clock: Arc<dyn Clock>) -> Result<Self, Error> {
        let target = zones_of(options.bytes)?;
        let failed = |path: &Path| {
            let path = path.to_path_buf();
            move |source: io::Error| Error::Nvme { path, source: Arc::new(source) }
        };
        std::fs::create_dir_all(&options.dir).map_err(failed(&options.dir))?;
        let path = options.dir.join(FILE);
        let file = device::open_file(&path).map_err(failed(&path))?;
        let found = file.metadata().map_err(failed(&path))?.len() / ZONE_BYTES as u64;
        let found = u32::try_from(found).unwrap_or(MAX_ZONES).min(MAX_ZONES);
        if found <= target {
            let zones: Vec<u32> = (0..target).collect();
            space::check(&file, target).and_then(|()| space::allocate(&file, &zones)).map_err(failed(&path))?;
        }
        let device = device::start(&file, options.backend).map_err(failed(&path))?;
        let device = match &options.wrap {
            Some(wrap) => (wrap.0)(device),
            None => device,
        };
        let tier = Arc::new(Tier::new(device, target, expiry, clock));
        tier.queue.lock().indexing();
        let writer = Writer::new(tier.clone(), file);
        let (indexed, wait) = mpsc::sync_channel(1);
        let tell = move || {
            // Who opened the cache may not wait any more.
            let _ = indexed.send(());
        };
        let run = move || writer.run(target, found.max(target), tell);
        let thread = Builder::new().name("cache-writer".into()).spawn(run).map_err(failed(&path))?;
        // Too late is as good: what is not indexed yet is a miss.
        let _ = wait.recv_timeout(options.index_wait);
        Ok(Self { tier, path, writer: Mutex::new(Some(thread)) })
    }

    /// Reads a record, or finds that it is not here: unknown, past its grace, damaged or unreadable.
    pub(crate) async fn read(&self, key: Key) -> Option<Record> {
        let tier = &self.tier;
        let (location, apart) = tier.index.lookup(&key)?;
        let apart = apart.map(|apart| (apart, tier.span(location.zone).deadline(apart.deadline)));
        let extent = Extent::of(location);
        let permit = tier.reads.acquire().await.ok()?;
        let (send, receive) = oneshot::channel();
        tier.device.submit(Transfer {
            direction: Direction::Read,
            offset: extent.offset,
            buf: tier.pool.take(extent.len),
            done: Box::new(move |result| drop(send.send(result))),
        });
        let read = receive.await.unwrap_or_else(|_| Err(io::Error::other("the device gave no answer")));
        drop(permit);
        tier.check(key, location, apart, read)
    }

    /// Whether the index has a record. Counts as no use.
    pub(crate) fn contains(&self, key: &Key) -> bool {
        self.tier.index.contains(key)
    }

    /// Whether what is stored pushes out what is there.
    pub(crate) fn is_full(&self) -> bool {
        self.tier.full.load(Relaxed)
    }

    /// Queues a record for the writer, if admission lets it. Keeps `bytes` alive until it is written.
    pub(crate) fn offer(&self, key: Key, bytes: Bytes, deadline: Deadline, cause: Cause) {
        let tier = &self.tier;
        let mut queue = tier.queue.lock();
        if cause == Cause::Inserted {
            queue.strike(&key);
            tier.index.remove(&key, None);
        }
        let before = cause == Cause::Fetched && tier.seen.lock().note(&key);
        let now = Circumstances {
            present: queue.is_pending(&key) || tier.index.contains(&key),
            queued_bytes: queue.queued_bytes(),
            first_time: !before && tier.full.load(Relaxed),
        };
        match admit(cause, bytes.len(), now) {
            Verdict::Store if queue.is_open() => tier.queue.push(&mut queue, key, bytes, deadline),
            Verdict::Present => {}
            Verdict::Decline => tier.counters.declined.add(1),
            Verdict::Store | Verdict::Reject => tier.counters.rejected.add(1),
        }
    }

    pub(crate) fn remove(&self, key: &Key) {
        self.tier.queue.lock().strike(key);
        self.tier.index.remove(key, None);
    }

    pub(crate) fn remove_groups(&self, groups: &Groups) {
        self.tier.queue.lock().strike_groups(groups);
        self.tier.index.remove_groups(groups);
    }

    /// Changes the tier's size. Of what no longer fits the oldest goes, but for what was read since it was stored.
    pub(crate) async fn resize(&self, bytes: u64) -> Result<(), Error> {
        let zones = zones_of(bytes)?;
        let failed = |source: io::Error| Error::Nvme { path: self.path.clone(), source: Arc::new(source) };
        match self.tier.queue.resize(zones).await {
            Ok(result) => result.map_err(failed),
            Err(_) => Err(failed(io::Error::other("the cache is closed"))),
        }
    }

    /// Waits until everything queued so far has been written, or given up.
    pub(crate) async fn written(&self) {
        let idle = self.tier.queue.lock().wait_idle();
        wait(idle).await;
    }

    /// Waits until half of the queue is free.
    pub(crate) async fn room(&self) {
        let room = self.tier.queue.lock().wait_room();
        wait(room).await;
    }

    /// Writes out the queue and ends the writer. Reads go on.
    pub(crate) async fn close(&self) {
        wait(self.tier.queue.end(true)).await;
    }

    pub(crate) fn fill_stats(&self, stats: &mut Stats) {
        let tier = &self.tier;
        let counters = &tier.counters;
        stats.nvme_hits = counters.hits.total();
        stats.expired += counters.expired.total();
        stats.nvme_bytes = tier.index.bytes();
        stats.nvme_capacity = tier.capacity.load(Relaxed);
        stats.nvme_entries = tier.index.entries();
        stats.nvme_index_bytes = tier.index.memory() + tier.seen.lock().memory();
        stats.nvme_writes = counters.writes.total();
        stats.nvme_written_bytes = counters.written_bytes.total();
        stats.nvme_carried_bytes = counters.carried_bytes.total();
        stats.nvme_declined = counters.declined.total();
        stats.nvme_rejected = counters.rejected.total();
        stats.nvme_evictions = counters.evictions.total();
        stats.nvme_bad_slots = counters.bad_slots.total();
        stats.nvme_io_errors = counters.io_errors.total();
    }
}

impl Drop for Nvme {
    fn drop(&mut self) {
        drop(self.tier.queue.end(false));
        if let Some(thread) = self.writer.lock().take() {
            // A writer that panicked has said so already.
            let _ = thread.join();
        }
    }
}

/// Whole zones of `bytes`.
fn zones_of(bytes: u64) -> Result<u32, Error> {
    let zone = ZONE_BYTES as u64;
    let (least, most) = (u64::from(MIN_ZONES) * zone, u64::from(MAX_ZONES) * zone);
    let zones = u32::try_from(bytes / zone).ok().filter(|zones| (MIN_ZONES..=MAX_ZONES).contains(zones));
    zones.ok_or_else(|| {
        Error::Invalid(format!("an NVMe cache of {bytes} bytes: the least is {least}, the most is {most}"))
    })
}

/// Waits for the writer to tell. An error means that it has ended: nothing is under way then either.
async fn wait(told: Option<oneshot::Receiver<()>>) {
    if let Some(told) = told {
        let _ = told.await;
    }
}

/// What the writer asks of the tier, and the check of what was read.
impl Tier {
    fn new(device: Arc<dyn Device>, zones: u32, expiry: Expiry, clock: Arc<dyn Clock>) -> Self {
        let capacity = u64::from(zones) * ZONE_BYTES as u64;
        Self {
            device,
            index: Index::new(),
            spans: RwLock::default(),
            queue: Queue::default(),
            seen: Mutex::new(Seen::new(capacity / TYPICAL_RECORD)),
            full: AtomicBool::new(false),
            reads: Semaphore::new(READS),
            pool: Arc::default(),
            counters: Counters::default(),
            capacity: AtomicU64::new(capacity),
            expiry,
            clock,
        }
    }

    /// The record in what was read. Of a payload that lies `apart`: what the index had of its header, and its deadline.
    fn check(
        &self,
        key: Key,
        at: Location,
        apart: Option<(Apart, Deadline)>,
        read: io::Result<AlignedBuf>,
    ) -> Option<Record> {
        let skip = Extent::of(at).skip;
        let buf = match read {
            Ok(buf) => buf,
            // Not where the index has it any more: the zone was given up meanwhile, which is no trouble of the device.
            Err(_) if self.index.location(&key) != Some(at) => return None,
            Err(error) => {
                self.read_failed(&error);
                return None;
            }
        };
        let bytes = buf.as_slice().get(skip..).unwrap_or_default();
        let decoded = match apart {
            Some((apart, deadline)) => {
                slot::decode_apart(bytes, key, at.units, apart.crc).map(|all| (all.len(), 0, deadline))
            }
            None => slot::decode(bytes, key).map(|(slot, payload)| (payload.len(), HEADER, slot.deadline)),
        };
        let Ok((len, header, deadline)) = decoded else {
            // As above: recycled meanwhile is no damage.
            if self.index.remove(&key, Some(at)) {
                self.counters.bad_slots.add(1);
            }
            return None;
        };
        // If the zone was given up meanwhile, the span may have been that of its next life.
        if let Some((apart, _)) = apart
            && deadline != Deadline::NEVER
            && self.index.find(&key) != Some((at, Some(apart)))
        {
            return None;
        }
        let now = self.clock.now();
        if self.expiry.refuses(deadline, now) {
            self.index.remove(&key, Some(at));
            self.counters.expired.add(1);
            return None;
        }
        let past = deadline.past(|| now);
        if past.is_none() {
            self.counters.hits.add(1);
        }
        Some(Record { buf, pool: self.pool.clone(), at: skip + header, len, deadline, past })
    }

    fn span(&self, zone: u32) -> Span {
        self.spans.read().get(zone as usize).copied().unwrap_or_default()
    }

    fn set_span(&self, zone: u32, span: Span) {
        let mut spans = self.spans.write();
        let len = spans.len().max(zone as usize + 1);
        spans.resize(len, Span::default());
        if let Some(place) = spans.get_mut(zone as usize) {
            *place = span;
        }
    }

    /// Enters a record that lies in a zone, if its deadline has a place in the zone's span.
    fn enter(&self, zone: u32, listed: &Listed) -> bool {
        let apart = match listed.apart {
            None => None,
            Some(crc) => match self.span(zone).shorten(listed.deadline) {
                Some(deadline) => Some(Apart { crc, deadline }),
                None => return false,
            },
        };
        self.index.publish(&listed.key, listed.at(zone), apart);
        true
    }

    /// Indexes a zone that was found in the file, as far as no younger zone has its records, and as long as it is known
    /// what was removed meanwhile. False if the cache is closed.
    fn found(&self, zone: &scan::Zone, generations: &[u64]) -> bool {
        let generation_of = |zone: u32| generations.get(zone as usize).copied().unwrap_or(0);
        let now = self.clock.now();
        let queue = self.queue.lock();
        let slots = if queue.may_index() { &zone.slots[..] } else { &[] };
        self.set_span(zone.zone, Span::over(slots.iter().map(|slot| slot.deadline)));
        for slot in slots {
            let younger = |at: Location| generation_of(at.zone) > zone.generation;
            if queue.may_come_back(&slot.key)
                && !self.expiry.refuses(slot.deadline, now)
                && !self.index.location(&slot.key).is_some_and(younger)
            {
                self.enter(zone.zone, slot);
            }
        }
        queue.is_open()
    }

    /// Lets records that have been written be found, but for those that were struck out meanwhile.
    fn publish(&self, zone: u32, placed: &[(Listed, u64)]) {
        let mut queue = self.queue.lock();
        for (listed, id) in placed {
            if queue.settle(&listed.key, *id) && self.enter(zone, listed) {
                self.counters.writes.add(1);
            }
        }
    }

    /// Takes a zone's records out of the index. Those that are to be stored again come back, each with its number.
    fn evict(&self, zone: u32, listed: &[Listed], hot_bytes: u64) -> Vec<(Listed, u64)> {
        // Under the queue's lock, so that a removal finds each record in the index or among those on their way.
        let mut queue = self.queue.lock();
        let evicted = self.index.take_zone(zone, listed, hot_bytes);
        self.counters.evictions.add(evicted.dropped);
        let mut hot = Vec::with_capacity(evicted.hot.len());
        for listed in evicted.hot {
            if !queue.is_pending(&listed.key) {
                hot.push((listed, queue.register(listed.key)));
            }
        }
        hot
    }

    fn set_full(&self, full: bool) {
        self.full.store(full, Relaxed);
    }

    fn set_capacity(&self, zones: u32) {
        let capacity = u64::from(zones) * ZONE_BYTES as u64;
        if self.capacity.swap(capacity, Relaxed) != capacity {
            *self.seen.lock() = Seen::new(capacity / TYPICAL_RECORD);
        }
    }

    fn write_failed(&self, error: &io::Error, placed: &[(Listed, u64)]) {
        tracing::warn!(%error, records = placed.len(), "NVMe cache: a write failed; its records are not stored");
        self.counters.io_errors.add(1);
        self.counters.rejected.add(placed.len() as u64);
        let mut queue = self.queue.lock();
        for (listed, id) in placed {
            queue.settle(&listed.key, *id);
        }
    }

    fn read_failed(&self, error: &io::Error) {
        tracing::warn!(%error, "NVMe cache: a read failed; it counts as a miss");
        self.counters.io_errors.add(1);
    }
}
