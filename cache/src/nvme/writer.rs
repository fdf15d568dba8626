//! Owns the NVMe writer: a thread that indexes the file at start, then turns queued records into batched writes, zone
//! after zone.
//!
//! A zone is filled front to back. When it is full its directory closes it, and the oldest zone is emptied to be filled
//! next; records of that zone which were read since they were stored are carried over (FIFO with reinsertion).

use std::{fs::File, io, sync::Arc, time::Duration};

use super::{
    Tier,
    device::{AlignedBuf, Direction},
    layout::{self, Layout, Spot},
    queue::{Job, Work},
    scan,
    slot::{self, BLOCK, HEADER, Listed, Slot, UNIT, ZONE_BYTES},
    space,
    span::Span,
    transfer::{Extent, Pending, offset, start, start_read},
    zones::{Filled, Zone, Zones},
};
use crate::ttl::Deadline;

/// Bytes of records of one write at most, about.
const BATCH_BYTES: usize = 1 << 20;
/// Bytes of an emptied zone that may be carried over: half, so that every zone makes room.
const CARRIED_BYTES: u64 = (ZONE_BYTES / 2) as u64;

/// The zone that is being filled.
struct Open {
    zone: u32,
    generation: u64,
    /// It held nothing: what goes there pushes nothing out.
    free: bool,
    /// Where the next write goes: a block.
    next: usize,
    listed: Vec<Listed>,
}

impl Open {
    /// Bytes that slots may reach to once `more` of them are added to those listed.
    fn limit(&self, more: usize) -> usize {
        ZONE_BYTES - slot::directory_bytes(self.listed.len() + more)
    }
}

/// Records for one write.
#[derive(Default)]
struct Run {
    jobs: Vec<Job>,
    layout: Layout,
}

impl Run {
    /// Adds a record, unless it is too large for a slot.
    fn push(&mut self, job: Job) {
        if let Some(layout) = self.layout.with(job.bytes.len()) {
            self.layout = layout;
            self.jobs.push(job);
        }
    }
}

/// The writer's own state.
pub(super) struct Writer {
    tier: Arc<Tier>,
    file: Arc<File>,
    zones: Zones,
    open: Option<Open>,
    next_generation: u64,
}

impl Writer {
    pub(super) fn new(tier: Arc<Tier>, file: Arc<File>) -> Self {
        Self { tier, file, zones: Zones::default(), open: None, next_generation: 1 }
    }

    /// Indexes the file, which has `file_zones` zones, calls `indexed`, and works until the tier is closed. Then it
    /// closes the zone, so that the next start finds everything quickly.
    pub(super) fn run(mut self, target: u32, file_zones: u32, indexed: impl FnOnce()) {
        self.index(target, file_zones);
        indexed();
        if let Err(error) = self.resize(target) {
            tracing::warn!(%error, "NVMe cache: cannot be brought to its size");
        }
        loop {
            match self.tier.queue.next(BATCH_BYTES) {
                Work::Write(batch) => self.store(batch),
                Work::Resize(change) => {
                    // Whoever asked may not wait for the answer any more.
                    let _ = change.done.send(self.resize(change.zones));
                }
                Work::End => break,
            }
        }
        self.close_zone();
        self.tier.queue.ended();
    }

    fn index(&mut self, target: u32, file_zones: u32) {
        let mut filled: Vec<Filled> = Vec::new();
        let mut generations = vec![0; file_zones as usize];
        let tier = self.tier.clone();
        let outcome = scan::scan(&tier.device, file_zones, |zone| {
            filled.push(Filled { zone: zone.zone, generation: zone.generation });
            if let Some(generation) = generations.get_mut(zone.zone as usize) {
                *generation = zone.generation;
            }
            tier.found(&zone, &generations)
        });
        tier.counters.io_errors.add(outcome.io_errors);
        if let Some(version) = outcome.newer {
            tracing::warn!(version, "NVMe cache: written by a later version; starting empty");
            tier.index.remove_zones(|_| true);
            filled.clear();
        }
        tier.queue.lock().indexed();
        self.next_generation = filled.iter().map(|zone| zone.generation).max().map_or(1, |last| last.saturating_add(1));
        tracing::info!(records = tier.index.entries(), zones = filled.len(), "NVMe cache indexed");
        self.zones = Zones::new(target, file_zones, filled);
    }

    /// Brings the file to `target` zones. Of what no longer fits the oldest goes, but for what was read since it was stored.
    fn resize(&mut self, target: u32) -> io::Result<()> {
        space::check(&self.file, target)?;
        let added = self.zones.grow(target);
        if let Err(error) = space::allocate(&self.file, &added) {
            // What was allocated of it is given back, as far as that works: the error says it all.
            let before = self.zones.in_use() - added.len() as u32;
            while let Some(zone) = self.zones.retire(before) {
                let _ = space::release(&self.file, zone.number());
            }
            let _ = space::trim(&self.file, self.zones.trim());
            return Err(error);
        }
        while let Some(victim) = self.zones.retire(target) {
            let carried = self.empty(victim);
            space::release(&self.file, victim.number())?;
            self.store(carried);
        }
        self.tier.set_capacity(self.zones.in_use());
        self.tier.set_full(self.is_full());
        space::trim(&self.file, self.zones.trim())
    }

    /// Writes `jobs` in order, in as few writes as zones allow.
    fn store(&mut self, jobs: Vec<Job>) {
        let mut run = Run::default();
        for job in jobs {
            let Some(with) = run.layout.with(job.bytes.len()) else { continue };
            let fits = |open: &Open| open.next + with.bytes() <= open.limit(run.jobs.len() + 1);
            if !self.open.as_ref().is_some_and(fits) {
                self.write_run(std::mem::take(&mut run));
                self.close_zone();
                self.open_zone();
            }
            run.push(job);
        }
        self.write_run(run);
    }

    /// One contiguous write, then its records can be found. If it fails they are not stored, and the place is skipped.
    fn write_run(&mut self, run: Run) {
        let Some(open) = self.open.as_mut().filter(|_| !run.jobs.is_empty()) else { return };
        let mut buf = AlignedBuf::zeroed(run.layout.bytes());
        let mut placed: Vec<(Listed, u64)> = Vec::with_capacity(run.jobs.len());
        let spots = layout::spots(run.layout, run.jobs.iter().map(|job| job.bytes.len()));
        for (job, spot) in run.jobs.iter().zip(spots) {
            placed.extend(put(buf.as_mut_slice(), open, job, spot).map(|listed| (listed, job.id)));
        }
        let written = buf.as_slice().len();
        let write = start(&self.tier.device, Direction::Write, offset(open.zone, open.next), buf);
        open.next += written;
        match write.wait() {
            Ok(_) => {
                self.tier.counters.written_bytes.add(written as u64);
                self.tier.publish(open.zone, &placed);
                open.listed.extend(placed.into_iter().map(|(listed, _)| listed));
            }
            Err(error) => self.tier.write_failed(&error, &placed),
        }
    }

    fn close_zone(&mut self) {
        let Some(open) = self.open.take() else { return };
        let bytes = slot::directory_bytes(open.listed.len());
        let mut buf = AlignedBuf::zeroed(bytes);
        if !slot::encode_directory(buf.as_mut_slice(), open.generation, &open.listed) {
            return;
        }
        match start(&self.tier.device, Direction::Write, offset(open.zone, ZONE_BYTES - bytes), buf).wait() {
            Ok(_) => self.tier.counters.written_bytes.add(bytes as u64),
            // The next start walks the zone's slots instead.
            Err(error) => self.tier.write_failed(&error, &[]),
        }
    }

    /// Empties the next zone and starts it with what is carried over.
    fn open_zone(&mut self) {
        let Some(next) = self.zones.next() else { return };
        let zone = next.number();
        let carried = self.empty(next);
        let generation = self.next_generation;
        self.next_generation += 1;
        self.zones.opened(zone, generation);
        let free = matches!(next, Zone::Free(_));
        self.open = Some(Open { zone, generation, free, next: 0, listed: Vec::new() });
        self.tier.set_span(zone, self.span(carried.as_slice()));
        let mut carried = carried.into_iter().peekable();
        self.tier.set_full(self.is_full());
        while carried.peek().is_some() {
            let mut run = Run::default();
            while let Some(job) = carried.next_if(|_| run.layout.bytes() < BATCH_BYTES) {
                run.push(job);
            }
            self.write_run(run);
        }
    }

    /// Room for the deadlines of what is carried over, and of what is stored within a TTL from now.
    fn span(&self, carried: &[Job]) -> Span {
        let (now, expiry) = (self.tier.clock.now(), &self.tier.expiry);
        let last = expiry.latest(now).and_then(|latest| expiry.latest(Duration::from_millis(latest.0)));
        let ends = last.map(|last| [Deadline::at(now), last]);
        Span::over(carried.iter().map(|job| job.deadline).chain(ends.into_iter().flatten()))
    }

    /// Whether what is stored pushes out what is there.
    fn is_full(&self) -> bool {
        self.zones.is_full() && !self.open.as_ref().is_some_and(|open| open.free)
    }

    /// Takes a zone's records out of the index, and reads those that are to move.
    fn empty(&self, zone: Zone) -> Vec<Job> {
        let Zone::Oldest(Filled { zone, generation }) = zone else { return Vec::new() };
        let tier = &self.tier;
        let Some(listed) = scan::directory(&tier.device, zone, generation) else {
            // It was never closed, or can't be read.
            tier.counters.evictions.add(tier.index.remove_zones(|other| other == zone));
            return Vec::new();
        };
        let hot = tier.evict(zone, &listed, CARRIED_BYTES);
        let reads = hot.into_iter().map(|(listed, id)| {
            let extent = Extent::of(listed.at(zone));
            (listed, id, extent.skip, start_read(&tier.device, extent.offset, extent.len))
        });
        let reads: Vec<_> = reads.collect();
        reads.into_iter().filter_map(|(listed, id, skip, read)| self.carry(listed, id, skip, read)).collect()
    }

    /// A record that is to move; one that cannot be read is dropped.
    fn carry(&self, listed: Listed, id: u64, skip: usize, read: Pending) -> Option<Job> {
        let (tier, key, deadline) = (&self.tier, listed.key, listed.deadline);
        let read = || -> Option<bytes::Bytes> {
            let buf = read.wait().inspect_err(|error| tier.read_failed(error)).ok()?;
            let bytes = buf.as_slice().get(skip..).unwrap_or_default();
            let payload = match listed.apart {
                Some(crc) => slot::decode_apart(bytes, key, listed.units, crc),
                None => slot::decode(bytes, key).map(|(_, payload)| payload),
            };
            let payload = payload.inspect_err(|_| tier.counters.bad_slots.add(1)).ok()?;
            Some(bytes::Bytes::copy_from_slice(payload))
        };
        let found = read();
        if found.is_none() {
            tier.queue.lock().settle(&key, id);
        }
        let bytes = found?;
        tier.counters.carried_bytes.add(bytes.len() as u64);
        Some(Job { key, bytes, deadline, id })
    }
}

/// Puts a record into the buffer of a write that begins where the zone goes on; how the directory lists it.
fn put(buf: &mut [u8], open: &Open, job: &Job, spot: Spot) -> Option<Listed> {
    let (key, deadline, generation) = (job.key, job.deadline, open.generation);
    let units = slot::units_for(job.bytes.len())?;
    let unit = |at: usize| u16::try_from((open.next + at) / UNIT).ok();
    match spot {
        Spot::Packed { at, bytes } => {
            let encoded = slot::encode(buf.get_mut(at..at + bytes)?, key, generation, deadline, &job.bytes);
            encoded.then_some(Listed { key, unit: unit(at)?, units, deadline, apart: None })
        }
        Spot::Apart { header, payload } => {
            let (len, crc) = (u32::try_from(job.bytes.len()).ok()?, slot::checksum(&key, &job.bytes));
            let unit = unit(payload)?;
            let slot = Slot { key, len, generation, deadline, crc, apart: Some(unit) };
            buf.get_mut(header..header + HEADER)?.copy_from_slice(&slot::header_bytes(&slot));
            buf.get_mut(payload..payload + job.bytes.len())?.copy_from_slice(&job.bytes);
            Some(Listed { key, unit, units, deadline, apart: Some(crc) })
        }
    }
}

// A run's buffer is whole blocks, and zones are whole blocks, so every write is aligned.
const _: () = assert!(ZONE_BYTES.is_multiple_of(BLOCK) && BLOCK.is_multiple_of(UNIT));
