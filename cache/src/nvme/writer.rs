//! Owns the NVMe writer: a thread that turns queued records into batched writes, zone after zone.
//!
//! A zone is filled front to back. When it is full its directory closes it, and the oldest zone is emptied to be filled
//! next; records of that zone which were read since they were stored are carried over (FIFO with reinsertion).

use std::{io, sync::Arc};

use super::{
    Job, Tier,
    device::{AlignedBuf, Direction},
    index::Location,
    read_at,
    scan::offset,
    slot::{self, BLOCK, DIRECTORY_BLOCKS, Listed, SLOT_BLOCKS},
    start,
};
use crate::Key;

/// Blocks of one write at most.
const BATCH_BLOCKS: usize = 256;
/// Blocks of an emptied zone that may be carried over: half, so that every zone makes room.
const CARRIED_BLOCKS: u16 = (SLOT_BLOCKS / 2) as u16;

/// The zone that is being filled.
struct Open {
    zone: u32,
    generation: u64,
    next_block: usize,
    listed: Vec<Listed>,
}

/// The writer's own state.
pub(super) struct Writer {
    tier: Arc<Tier>,
    open: Option<Open>,
    next_generation: u64,
}

impl Writer {
    pub(super) fn new(tier: Arc<Tier>, next_generation: u64) -> Self {
        Self { tier, open: None, next_generation }
    }

    /// Works until the tier is closed, and then closes the zone, so that the next start finds everything quickly.
    pub(super) fn run(mut self) {
        while let Some(batch) = self.tier.next_batch(BATCH_BLOCKS) {
            self.store(batch);
        }
        self.close_zone();
        self.tier.writer_ended();
    }

    /// Writes `jobs` in order, in as few writes as zones allow.
    fn store(&mut self, jobs: Vec<Job>) {
        let mut run = Vec::new();
        let mut run_blocks = 0;
        for job in jobs {
            let blocks = usize::from(job.blocks);
            let room = self.open.as_ref().map_or(0, |open| SLOT_BLOCKS - open.next_block);
            if run_blocks + blocks > room {
                self.write_run(std::mem::take(&mut run));
                run_blocks = 0;
                self.close_zone();
                self.open_zone();
            }
            run_blocks += blocks;
            run.push(job);
        }
        self.write_run(run);
    }

    /// One contiguous write, then its records can be found. If it fails they are not stored, and the place is skipped.
    fn write_run(&mut self, jobs: Vec<Job>) {
        let Some(open) = &mut self.open else { return };
        let blocks: usize = jobs.iter().map(|job| usize::from(job.blocks)).sum();
        if blocks == 0 {
            return;
        }
        let mut buf = AlignedBuf::zeroed(blocks * BLOCK);
        let mut placed: Vec<(Key, Location, Listed)> = Vec::with_capacity(jobs.len());
        let mut rest = buf.as_mut_slice();
        let mut block = open.next_block;
        for job in &jobs {
            let Some((out, after)) = rest.split_at_mut_checked(usize::from(job.blocks) * BLOCK) else { break };
            rest = after;
            if slot::encode(out, job.key, open.generation, job.deadline, &job.bytes) {
                let location = Location { zone: open.zone, block: block as u16, blocks: job.blocks };
                let listed = Listed { key: job.key, block: block as u16, blocks: job.blocks, deadline: job.deadline };
                placed.push((job.key, location, listed));
            }
            block += usize::from(job.blocks);
        }
        let at = offset(open.zone, open.next_block);
        open.next_block = block;
        match start(&self.tier.device, Direction::Write, at, buf).wait() {
            Ok(_) => {
                self.tier.counters.written_bytes.add((blocks * BLOCK) as u64);
                self.tier.publish(placed.iter().map(|(key, location, _)| (*key, *location)));
                open.listed.extend(placed.into_iter().map(|(_, _, listed)| listed));
            }
            Err(error) => self.tier.write_failed(&error, placed.len()),
        }
    }

    fn close_zone(&mut self) {
        let Some(open) = self.open.take() else { return };
        let mut buf = AlignedBuf::zeroed(DIRECTORY_BLOCKS * BLOCK);
        if !slot::encode_directory(buf.as_mut_slice(), open.generation, &open.listed) {
            return;
        }
        if let Err(error) = start(&self.tier.device, Direction::Write, offset(open.zone, SLOT_BLOCKS), buf).wait() {
            // The next start walks the zone's slots instead.
            self.tier.write_failed(&error, 0);
        }
    }

    /// Empties the next zone and starts it with what is carried over.
    fn open_zone(&mut self) {
        let Some((zone, hot)) = self.tier.empty_zone(CARRIED_BLOCKS) else { return };
        let carried: Vec<Job> = hot.into_iter().filter_map(|(key, location)| self.carry(key, location)).collect();
        self.open = Some(Open { zone, generation: self.next_generation, next_block: 0, listed: Vec::new() });
        self.next_generation += 1;
        self.tier.begin_carrying(&carried);
        let mut carried = carried.into_iter().peekable();
        while carried.peek().is_some() {
            self.write_run(carried.by_ref().take(BATCH_BLOCKS / 4).collect());
        }
    }

    /// Reads a record that is to move; one that cannot be read is dropped.
    fn carry(&self, key: Key, location: Location) -> Option<Job> {
        let at = offset(location.zone, usize::from(location.block));
        let read: io::Result<AlignedBuf> = read_at(&self.tier.device, at, usize::from(location.blocks) * BLOCK);
        let buf = read.inspect_err(|error| self.tier.read_failed(error)).ok()?;
        let (slot, payload) =
            slot::decode(buf.as_slice(), key).inspect_err(|_| self.tier.counters.bad_slots.add(1)).ok()?;
        let bytes = bytes::Bytes::copy_from_slice(payload);
        Some(Job { key, bytes, blocks: location.blocks, deadline: slot.deadline })
    }
}
