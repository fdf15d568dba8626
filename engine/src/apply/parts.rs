//! Batches that are too big for one entry: gathered part by part, whole at their `Commit` (rule 10).

use bytes::{Bytes, BytesMut};
use holdfast_wal::LogId;

use super::Applier;
use crate::error::{Error, Result};

/// Pieces of a batch that is too big for one entry.
#[derive(Default)]
pub(super) struct Parts {
    pub(super) term: u64,
    pieces: Vec<Bytes>,
    bytes: usize,
}

impl Applier {
    pub(super) fn part(&mut self, id: LogId, txn: u128, number: u32, bytes: Bytes) -> Result<()> {
        if number == 0 {
            self.parts.insert(txn, Parts { term: id.term, ..Parts::default() });
        }
        // Parts of an aborted batch may still come: they have no beginning here.
        if let Some(parts) = self.parts.get_mut(&txn) {
            if parts.pieces.len() != number as usize {
                return Err(Error::Corrupt(format!(
                    "log entry {}: part {number} of a batch that has {} parts",
                    id.index,
                    parts.pieces.len()
                )));
            }
            parts.bytes += bytes.len();
            parts.pieces.push(bytes);
        }
        Ok(())
    }

    /// The whole batch from its parts; `None` if a leader change aborted it.
    pub(super) fn assemble(&mut self, txn: u128, parts: u32, bytes: u64, crc: u32) -> Result<Option<Bytes>> {
        let Some(found) = self.parts.remove(&txn) else { return Ok(None) };
        let mut whole = BytesMut::with_capacity(found.bytes);
        found.pieces.iter().for_each(|piece| whole.extend_from_slice(piece));
        if found.pieces.len() != parts as usize || found.bytes as u64 != bytes || crc32fast::hash(&whole) != crc {
            return Err(Error::Corrupt(format!(
                "batch {txn:032x}: {} parts with {} bytes, expected {parts} with {bytes} and checksum {crc:08x}",
                found.pieces.len(),
                found.bytes
            )));
        }
        Ok(Some(whole.freeze()))
    }
}
