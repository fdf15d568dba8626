//! Owns the restart of the NVMe tier: finds what the file holds. Reads two small pieces per zone, and the whole zone only if it
//! was not closed (a crash leaves one).

use std::{io, sync::Arc};

use super::{
    device::{AlignedBuf, Device},
    slot::{self, BLOCK, Bad, Listed, TAIL_BYTES, ZONE_BYTES},
    transfer::{offset, read_at, start_read},
};

/// Zones whose reads are under way at once.
const WINDOW: u32 = 32;

/// A zone that holds records.
pub(super) struct Zone {
    pub(super) zone: u32,
    pub(super) generation: u64,
    pub(super) slots: Vec<Listed>,
}

/// How a scan ended.
#[derive(Default)]
pub(super) struct Outcome {
    /// Reads that failed; their zones count as empty.
    pub(super) io_errors: u64,
    /// A later version of the format was met, so the file counts as empty.
    pub(super) newer: Option<u16>,
}

/// Reads the directories of `zones` zones, and hands each zone that holds records to `found`, until that says no.
pub(super) fn scan(device: &Arc<dyn Device>, zones: u32, mut found: impl FnMut(Zone) -> bool) -> Outcome {
    let mut outcome = Outcome::default();
    for first in (0..zones).step_by(WINDOW as usize) {
        let window = first..zones.min(first + WINDOW);
        let reads: Vec<_> = window
            .map(|zone| {
                let header = start_read(device, offset(zone, 0), BLOCK);
                (zone, header, start_read(device, offset(zone, ZONE_BYTES - TAIL_BYTES), TAIL_BYTES))
            })
            .collect();
        for (zone, header, tail) in reads {
            match load(device, zone, header.wait(), tail.wait()) {
                Ok(Some(loaded)) => {
                    if !found(loaded) {
                        return outcome;
                    }
                }
                Ok(None) => {}
                Err(Trouble::Newer(version)) => {
                    outcome.newer = Some(version);
                    return outcome;
                }
                Err(Trouble::Io(error)) => {
                    tracing::warn!(%error, zone, "NVMe cache: a zone cannot be read at start; it counts as empty");
                    outcome.io_errors += 1;
                }
            }
        }
    }
    outcome
}

/// The slots of a closed zone as its directory lists them, if that can be read and is of this life of the zone.
pub(super) fn directory(device: &Arc<dyn Device>, zone: u32, generation: u64) -> Option<Vec<Listed>> {
    let tail = read_at(device, offset(zone, ZONE_BYTES - TAIL_BYTES), TAIL_BYTES).ok()?;
    let (found, slots) = whole_directory(device, zone, &tail).ok()?.ok()?;
    (found == generation).then_some(slots)
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

/// One zone: by its directory if that is not of a former life, else slot by slot.
fn load(
    device: &Arc<dyn Device>,
    zone: u32,
    header: io::Result<AlignedBuf>,
    tail: io::Result<AlignedBuf>,
) -> Result<Option<Zone>, Trouble> {
    let first = match slot::decode_header(header?.as_slice()) {
        Err(Bad::Newer(version)) => return Err(Trouble::Newer(version)),
        first => first.ok().map(|first| first.generation),
    };
    let directory = match whole_directory(device, zone, &tail?)? {
        Err(Bad::Newer(version)) => return Err(Trouble::Newer(version)),
        directory => directory.ok().filter(|(generation, _)| first.is_none_or(|first| *generation >= first)),
    };
    Ok(match (directory, first) {
        (Some((generation, slots)), _) => Some(Zone { zone, generation, slots }),
        (None, Some(generation)) => {
            let slots = slot::walk(read_at(device, offset(zone, 0), ZONE_BYTES)?.as_slice(), generation);
            Some(Zone { zone, generation, slots })
        }
        (None, None) => None,
    })
}

/// The directory that ends in `tail`, which is read anew if it is longer.
fn whole_directory(
    device: &Arc<dyn Device>,
    zone: u32,
    tail: &AlignedBuf,
) -> io::Result<Result<(u64, Vec<Listed>), Bad>> {
    match slot::directory_extent(tail.as_slice()) {
        Some(bytes) if bytes > TAIL_BYTES => {
            let whole = read_at(device, offset(zone, ZONE_BYTES - bytes), bytes)?;
            Ok(slot::decode_directory(whole.as_slice()))
        }
        _ => Ok(slot::decode_directory(tail.as_slice())),
    }
}
