//! Owns the restart of the NVMe tier: finds what the file holds. Reads two small pieces per zone, and walks slot headers
//! only in zones that were not closed (a crash leaves one).

use std::{io, sync::Arc};

use super::{
    device::{AlignedBuf, Device},
    read_at,
    slot::{self, BLOCK, Bad, DIRECTORY_BLOCKS, HEADER, Listed, SLOT_BLOCKS, Slot, ZONE_BYTES},
    start_read,
};

/// Zones whose reads are under way at once.
const WINDOW: u32 = 32;

/// A zone that holds records.
pub(super) struct Zone {
    pub(super) zone: u32,
    pub(super) generation: u64,
    pub(super) slots: Vec<Listed>,
}

/// What the file holds.
#[derive(Default)]
pub(super) struct Found {
    /// Oldest first.
    pub(super) zones: Vec<Zone>,
    /// Reads that failed; their zones count as empty.
    pub(super) io_errors: u64,
    /// A later version of the format was met, so the file counts as empty.
    pub(super) newer: Option<u16>,
}

/// Reads the whole file's directories.
pub(super) fn scan(device: &Arc<dyn Device>, zones: u32) -> Found {
    let mut found = Found::default();
    for first in (0..zones).step_by(WINDOW as usize) {
        let window = first..zones.min(first + WINDOW);
        let reads: Vec<_> = window
            .map(|zone| {
                let header = start_read(device, offset(zone, 0), BLOCK);
                (zone, header, start_read(device, offset(zone, SLOT_BLOCKS), DIRECTORY_BLOCKS * BLOCK))
            })
            .collect();
        for (zone, header, directory) in reads {
            match load(device, zone, header.wait(), directory.wait()) {
                Ok(Some(loaded)) => found.zones.push(loaded),
                Ok(None) => {}
                Err(Trouble::Newer(version)) => {
                    return Found { newer: Some(version), ..Found::default() };
                }
                Err(Trouble::Io(error)) => {
                    tracing::warn!(%error, zone, "NVMe cache: a zone cannot be read at start; it counts as empty");
                    found.io_errors += 1;
                }
            }
        }
    }
    found.zones.sort_by_key(|zone| zone.generation);
    found
}

enum Trouble {
    Io(io::Error),
    Newer(u16),
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// One zone: by its directory if that is of the same life as the first slot, else slot by slot.
fn load(
    device: &Arc<dyn Device>,
    zone: u32,
    header: io::Result<AlignedBuf>,
    directory: io::Result<AlignedBuf>,
) -> Result<Option<Zone>, Trouble> {
    let first = match slot::decode_header(header?.as_slice()) {
        Ok(first) => first,
        Err(Bad::Newer(version)) => return Err(Trouble::Newer(version)),
        Err(_) => return Ok(None),
    };
    let slots = match slot::decode_directory(directory?.as_slice()) {
        Ok((generation, slots)) if generation == first.generation => slots,
        Err(Bad::Newer(version)) => return Err(Trouble::Newer(version)),
        _ => walk(device, zone, first)?,
    };
    Ok(Some(Zone { zone, generation: first.generation, slots }))
}

/// Follows the slots of a zone from one header to the next, to the first that is not of this life of the zone.
fn walk(device: &Arc<dyn Device>, zone: u32, first: Slot) -> io::Result<Vec<Listed>> {
    let mut slots = Vec::new();
    let (mut slot, mut block) = (first, 0);
    loop {
        let next = block + usize::from(slot.blocks);
        let (Ok(at), true) = (u16::try_from(block), next <= SLOT_BLOCKS) else { break };
        slots.push(Listed { key: slot.key, block: at, blocks: slot.blocks, deadline: slot.deadline });
        if next == SLOT_BLOCKS {
            break;
        }
        let header = read_at(device, offset(zone, next), HEADER)?;
        match slot::decode_header(header.as_slice()) {
            Ok(following) if following.generation == first.generation => (slot, block) = (following, next),
            _ => break,
        }
    }
    Ok(slots)
}

/// The position of a block of a zone in the file.
pub(super) fn offset(zone: u32, block: usize) -> u64 {
    u64::from(zone) * ZONE_BYTES as u64 + (block * BLOCK) as u64
}
