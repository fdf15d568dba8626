//! The io_uring writer: one ring, owned by the log's thread, one write in flight.
//!
//! No polling modes (a log device rarely supports them, and they burn a core) and no linked fsync: a write carries DSYNC, or its
//! length is checked before the flush that follows (see `device`), so that no sync can hide a short write.

use std::{
    io,
    os::fd::AsRawFd,
    time::{Duration, Instant},
};

use io_uring::{IoUring, opcode, types};

use super::{DiskFile, Writer, device::Durability, file};

const ENTRIES: u32 = 4;

/// Writes through a ring.
pub struct UringWriter {
    ring: IoUring,
    durability: Durability,
}

impl UringWriter {
    /// Sets up a ring for the calling thread. Fails where the kernel or a seccomp profile forbids it.
    pub fn new(durability: Durability) -> io::Result<Self> {
        let lean = IoUring::builder().setup_single_issuer().setup_defer_taskrun().build(ENTRIES);
        let ring = lean.or_else(|_| IoUring::new(ENTRIES))?; // kernels before 6.1 lack the lean mode
        Ok(Self { ring, durability })
    }

    /// Waits until the only request in flight has completed, whatever happens meanwhile: the kernel uses the caller's buffer.
    fn complete(&mut self) -> io::Result<i32> {
        loop {
            if let Some(completion) = self.ring.completion().next() {
                return Ok(completion.result());
            }
            if let Err(error) = self.ring.submit_and_wait(1) {
                // Not taken by the kernel: nothing is in flight, and after this error the log never submits again.
                if error.kind() != io::ErrorKind::Interrupted && !self.ring.submission().is_empty() {
                    return Err(error);
                }
            }
        }
    }
}

impl Writer for UringWriter {
    #[allow(clippy::disallowed_methods, reason = "this is the device seam: it measures the device")]
    fn write(&mut self, file: &dyn DiskFile, bytes: &[u8], offset: u64) -> io::Result<Duration> {
        let fd = file.fd().ok_or(io::ErrorKind::Unsupported)?;
        let len = u32::try_from(bytes.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
        let flags = match self.durability {
            Durability::WithTheWrite => libc::RWF_DSYNC,
            Durability::ByFlush => 0,
        };
        let write =
            opcode::Write::new(types::Fd(fd.as_raw_fd()), bytes.as_ptr(), len).offset(offset).rw_flags(flags).build();
        let start = Instant::now();
        // SAFETY: descriptor and buffer outlive the request, because `complete` returns only when the request has completed
        // or was never taken by the kernel.
        unsafe { self.ring.submission().push(&write) }.map_err(io::Error::other)?;
        let result = self.complete()?;
        let written = usize::try_from(result).map_err(|_| io::Error::from_raw_os_error(-result))?;
        file::whole(written, bytes.len())?;
        if self.durability == Durability::ByFlush {
            rustix::fs::fdatasync(fd)?;
        }
        Ok(start.elapsed())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        disk::{Choice, Disk, buffer::AlignedBuffer},
        record::BLOCK,
    };

    /// The device decides between the two ways; both must work on every one.
    #[test]
    fn both_ways_of_syncing_write_what_they_are_given() {
        let dir = tempfile::tempdir().unwrap();
        let disk = file::open(dir.path(), Choice::Pwrite).unwrap();
        for (name, durability) in [("with", Durability::WithTheWrite), ("flush", Durability::ByFlush)] {
            let file: Arc<dyn DiskFile> = disk.create(name, 4 * BLOCK as u64, &[]).unwrap();
            let mut writer = UringWriter::new(durability).unwrap();
            let mut out = AlignedBuffer::new(2 * BLOCK);
            out.fill(7);
            writer.write(file.as_ref(), &out, BLOCK as u64).unwrap();
            let mut back = AlignedBuffer::new(4 * BLOCK);
            file.read(&mut back, 0).unwrap();
            let (zeros, sevens) = (back.iter().filter(|b| **b == 0).count(), back.iter().filter(|b| **b == 7).count());
            assert_eq!((zeros, sevens), (2 * BLOCK, 2 * BLOCK));
        }
    }
}
