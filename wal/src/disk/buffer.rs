//! A buffer aligned for O_DIRECT.

use std::ops::{Deref, DerefMut};

use crate::record::BLOCK;

/// Zeroed bytes whose address is a multiple of [`BLOCK`].
#[derive(Debug)]
pub struct AlignedBuffer {
    /// One block longer than asked for; never grown, so its address stays.
    raw: Vec<u8>,
    start: usize,
    len: usize,
}

impl AlignedBuffer {
    /// Allocates `len` zero bytes.
    pub fn new(len: usize) -> Self {
        let raw = vec![0; len + BLOCK];
        let start = raw.as_ptr().align_offset(BLOCK);
        // `align_offset` of a byte pointer is below the alignment at run time; the fallback only makes O_DIRECT refuse.
        Self { start: if start < BLOCK { start } else { 0 }, raw, len }
    }
}

impl Deref for AlignedBuffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.raw[self.start..self.start + self.len]
    }
}

impl DerefMut for AlignedBuffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.raw[self.start..self.start + self.len]
    }
}
