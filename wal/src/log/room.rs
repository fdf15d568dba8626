//! How much may still be written: the runway, and the reserve behind it (rule 5). Pure arithmetic.

use std::sync::Arc;

use super::LogOptions;
use crate::{
    Error,
    record::{BLOCK, HEADER, blocks, padded},
};

/// What a proposal may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Share {
    /// The runway only.
    Runway,
    /// The runway, then half of the reserve: for small entries that make room. The other half is Raft's own.
    Reserve,
}

/// What bounds the log.
#[derive(Clone, Debug)]
pub struct Room {
    /// Bytes that a fresh segment is sure to take: all but its preamble and what a record that does not fit may leave unused.
    usable: u64,
    /// Files that may exist.
    max_files: u64,
    /// Bytes kept back.
    reserved: u64,
    /// Bytes left in the segment being written.
    pub active_left: u64,
    /// Files that exist.
    pub files: u64,
    /// Why the last attempt to prepare a file failed.
    pub refused: Option<Arc<str>>,
    /// Decaying maximum of live segments: spares up to it are worth keeping.
    peak: u64,
    queued: u64,
    queued_payload: u64,
    max_queued: u64,
}

impl Room {
    /// The bounds that the options set.
    pub fn new(options: &LogOptions) -> Self {
        let waste = blocks(padded(HEADER + options.max_payload)) as u64;
        Self {
            usable: options.segment_bytes.saturating_sub(BLOCK as u64 + waste),
            max_files: (options.max_bytes / options.segment_bytes.max(1)).max(u64::from(options.reserved_segments) + 2),
            reserved: u64::from(options.reserved_segments) * options.segment_bytes,
            active_left: 0,
            files: 0,
            refused: None,
            peak: 0,
            queued: 0,
            queued_payload: 0,
            max_queued: options.max_queued_bytes as u64,
        }
    }

    /// Files that could be made, as far as is known.
    fn creatable(&self) -> u64 {
        if self.refused.is_some() { 0 } else { self.max_files.saturating_sub(self.files) }
    }

    /// Whether another file may be made.
    pub fn may_create(&self) -> bool {
        self.files < self.max_files
    }

    /// Bytes that can be written outside the reserve, beyond what is queued. Never overstated: each step counts as its own block.
    pub fn runway(&self, spares: usize) -> u64 {
        self.beyond(self.reserved, spares)
    }

    fn beyond(&self, kept: u64, spares: usize) -> u64 {
        let all = self.active_left + (spares as u64 + self.creatable()) * self.usable;
        all.saturating_sub(kept + self.queued)
    }

    /// The runway of an empty log on a disk with room for it.
    pub fn capacity(&self) -> u64 {
        (self.max_files * self.usable).saturating_sub(self.reserved)
    }

    /// Whether `payload` more bytes may be proposed.
    pub fn admit(&self, payload: usize, spares: usize, share: Share) -> Result<(), Error> {
        let needed = blocks(padded(HEADER + payload)) as u64;
        let kept = if share == Share::Reserve { self.reserved / 2 } else { self.reserved };
        let runway = self.beyond(kept, spares);
        if needed > runway {
            let reason = self.refused.clone().unwrap_or_else(|| "the configured size is reached".into());
            return Err(Error::Full { needed, runway, reason });
        }
        if share == Share::Runway && self.queued_payload + payload as u64 > self.max_queued {
            let reason = "too much waits to be written".into();
            let runway = self.max_queued.saturating_sub(self.queued_payload);
            return Err(Error::Full { needed: payload as u64, runway, reason });
        }
        Ok(())
    }

    /// How many spares to give back after a purge that took the live segments from `before` to `live`. As many stay as the log
    /// lately filled between purges, because zeroing a new file costs as much as writing one; the rest goes.
    pub fn unwanted(&mut self, before: usize, live: usize, spares: usize, ready: usize) -> usize {
        self.peak = (before as u64).max(self.peak - self.peak / 4);
        let wanted = self.peak.saturating_sub(live as u64) + ready as u64;
        (spares as u64).saturating_sub(wanted) as usize // at most `spares`
    }

    /// A step was queued.
    pub fn queue(&mut self, encoded: usize, payload: usize) {
        self.queued += blocks(encoded) as u64;
        self.queued_payload += payload as u64;
    }

    /// A step was written, or refused.
    pub fn unqueue(&mut self, encoded: usize, payload: usize) {
        self.queued = self.queued.saturating_sub(blocks(encoded) as u64);
        self.queued_payload = self.queued_payload.saturating_sub(payload as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_that_make_room_fit_when_nothing_else_does() {
        let options =
            LogOptions { segment_bytes: 1 << 20, max_bytes: 8 << 20, max_payload: 64 << 10, ..LogOptions::default() };
        let mut room = Room::new(&options);
        (room.files, room.active_left) = (8, 0);
        // Only the two reserved segments are left.
        assert_eq!(room.runway(2), 0);
        assert!(matches!(room.admit(100, 2, Share::Runway), Err(Error::Full { runway: 0, .. })));
        room.admit(100, 2, Share::Reserve).unwrap();
        // The last of them is Raft's.
        assert!(room.admit(100, 1, Share::Reserve).is_err());
    }

    #[test]
    fn an_empty_log_has_its_whole_capacity_as_runway() {
        let options =
            LogOptions { segment_bytes: 1 << 20, max_bytes: 8 << 20, max_payload: 64 << 10, ..LogOptions::default() };
        let mut room = Room::new(&options);
        (room.files, room.active_left) = (1, room.usable);
        assert_eq!(room.runway(0), room.capacity());
    }
}
