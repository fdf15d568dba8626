//! Owns the NVMe writer: a thread that indexes the file at start, then turns queued records into batched writes, zone
//! after zone.
//!
//! A zone is filled front to back. When it is full its directory closes it, and the oldest zone is emptied to be filled
//! next; records of that zone which were read since they were stored are carried over (FIFO with reinsertion).

use std::{fs::File, io, sync::Arc};

use super::{
    Tier,
    device::{AlignedBuf, Direction},
    queue::{Job, Work},
    scan,
    slot::{self, BLOCK, Listed, UNIT, ZONE_BYTES},
    space,
    transfer::{Extent, Pending, offset, start, start_read},
    zones::{Filled, Zone, Zones},
};
use crate::{Key, ttl::Deadline};

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

/// Slots placed one behind the other, for one write.
#[derive(Default)]
struct Run {
    jobs: Vec<Job>,
    bytes: usize,
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
            let Some(units) = slot::units_for(job.bytes.len()) else { continue };
            let bytes = usize::from(units) * UNIT;
            let end = |open: &Open| open.next + run.bytes + bytes <= open.limit(run.jobs.len() + 1);
            if !self.open.as_ref().is_some_and(end) {
                self.write_run(std::mem::take(&mut run));
                self.close_zone();
                self.open_zone();
            }
            run.bytes += bytes;
            run.jobs.push(job);
        }
        self.write_run(run);
    }

    /// One contiguous write, then its records can be found. If it fails they are not stored, and the place is skipped.
    fn write_run(&mut self, run: Run) {
        let Some(open) = self.open.as_mut().filter(|_| !run.jobs.is_empty()) else { return };
        let mut buf = AlignedBuf::zeroed(run.bytes);
        let mut placed: Vec<(Listed, u64)> = Vec::with_capacity(run.jobs.len());
        let mut rest = buf.as_mut_slice();
        let mut at = open.next;
        for job in &run.jobs {
            let Some(units) = slot::units_for(job.bytes.len()) else { break };
            let Some((out, after)) = rest.split_at_mut_checked(usize::from(units) * UNIT) else { break };
            rest = after;
            if slot::encode(out, job.key, open.generation, job.deadline, &job.bytes) {
                let unit = (at / UNIT) as u16;
                placed.push((Listed { key: job.key, unit, units, deadline: job.deadline }, job.id));
            }
            at += usize::from(units) * UNIT;
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
        let mut carried = self.empty(next).into_iter().peekable();
        let generation = self.next_generation;
        self.next_generation += 1;
        self.zones.opened(zone, generation);
        let free = matches!(next, Zone::Free(_));
        self.open = Some(Open { zone, generation, free, next: 0, listed: Vec::new() });
        self.tier.set_full(self.is_full());
        while carried.peek().is_some() {
            let mut run = Run::default();
            while let Some(job) = carried.next_if(|_| run.bytes < BATCH_BYTES) {
                run.bytes += slot::units_for(job.bytes.len()).map_or(0, usize::from) * UNIT;
                run.jobs.push(job);
            }
            self.write_run(run);
        }
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
        let reads = hot.into_iter().map(|(key, location, id)| {
            let extent = Extent::of(location);
            (key, id, extent.skip, start_read(&tier.device, extent.offset, extent.len))
        });
        let reads: Vec<_> = reads.collect();
        reads.into_iter().filter_map(|(key, id, skip, read)| self.carry(key, id, skip, read)).collect()
    }

    /// A record that is to move; one that cannot be read is dropped.
    fn carry(&self, key: Key, id: u64, skip: usize, read: Pending) -> Option<Job> {
        let tier = &self.tier;
        let read = || -> Option<(bytes::Bytes, Deadline)> {
            let buf = read.wait().inspect_err(|error| tier.read_failed(error)).ok()?;
            let bytes = buf.as_slice().get(skip..).unwrap_or_default();
            let (slot, payload) = slot::decode(bytes, key).inspect_err(|_| tier.counters.bad_slots.add(1)).ok()?;
            Some((bytes::Bytes::copy_from_slice(payload), slot.deadline))
        };
        let found = read();
        if found.is_none() {
            tier.queue.lock().settle(&key, id);
        }
        let (bytes, deadline) = found?;
        tier.counters.carried_bytes.add(bytes.len() as u64);
        Some(Job { key, bytes, deadline, id })
    }
}

// A run's buffer is whole blocks, and zones are whole blocks, so every write is aligned.
const _: () = assert!(ZONE_BYTES.is_multiple_of(BLOCK) && BLOCK.is_multiple_of(UNIT));
