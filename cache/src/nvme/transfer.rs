//! Owns transfers for callers that block, and where things lie in the file.

use std::{
    io,
    sync::{Arc, mpsc},
};

use super::{
    device::{AlignedBuf, Device, Direction, Transfer},
    index::Location,
    slot::{BLOCK, UNIT, ZONE_BYTES},
};

/// A transfer under way.
pub(super) struct Pending(mpsc::Receiver<io::Result<AlignedBuf>>);

impl Pending {
    pub(super) fn wait(self) -> io::Result<AlignedBuf> {
        self.0.recv().unwrap_or_else(|_| Err(io::Error::other("the device gave no answer")))
    }
}

pub(super) fn start(device: &Arc<dyn Device>, direction: Direction, offset: u64, buf: AlignedBuf) -> Pending {
    let (send, receive) = mpsc::sync_channel(1);
    let done = Box::new(move |result| drop(send.send(result)));
    device.submit(Transfer { direction, offset, buf, done });
    Pending(receive)
}

pub(super) fn start_read(device: &Arc<dyn Device>, offset: u64, len: usize) -> Pending {
    start(device, Direction::Read, offset, AlignedBuf::zeroed(len))
}

pub(super) fn read_at(device: &Arc<dyn Device>, offset: u64, len: usize) -> io::Result<AlignedBuf> {
    start_read(device, offset, len).wait()
}

/// The position of a byte of a zone in the file.
pub(super) fn offset(zone: u32, byte: usize) -> u64 {
    u64::from(zone) * ZONE_BYTES as u64 + byte as u64
}

/// The blocks that a slot lies in, and where in them it begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Extent {
    pub(super) offset: u64,
    pub(super) len: usize,
    pub(super) skip: usize,
}

impl Extent {
    pub(super) fn of(at: Location) -> Self {
        let start = usize::from(at.unit) * UNIT;
        let end = start + usize::from(at.units) * UNIT;
        let first = start / BLOCK * BLOCK;
        Self { offset: offset(at.zone, first), len: end.next_multiple_of(BLOCK) - first, skip: start - first }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_extent_covers_the_slot_in_whole_blocks() {
        let extent = |unit, units| Extent::of(Location { zone: 1, unit, units });
        let zone = ZONE_BYTES as u64;
        assert_eq!(extent(0, 64), Extent { offset: zone, len: BLOCK, skip: 0 });
        assert_eq!(extent(1, 64), Extent { offset: zone, len: 2 * BLOCK, skip: 64 });
        assert_eq!(extent(63, 1), Extent { offset: zone, len: BLOCK, skip: 4032 });
        assert_eq!(extent(130, 1 << 14), Extent { offset: zone + 8192, len: (1 << 20) + BLOCK, skip: 128 });
    }
}
