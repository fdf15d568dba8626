//! The io_uring writer: one ring, owned by the log's thread, one write in flight.
//!
//! No polling modes (a log device rarely supports them, and they burn a core) and no linked fsync: the write itself carries
//! DSYNC, so that a short write can never be followed by a sync that hides it.

use std::{
    io,
    os::fd::AsRawFd,
    time::{Duration, Instant},
};

use io_uring::{IoUring, opcode, types};

use super::{DiskFile, Writer, file};

const ENTRIES: u32 = 4;

/// Writes through a ring.
pub struct UringWriter {
    ring: IoUring,
}

impl UringWriter {
    /// Sets up a ring for the calling thread. Fails where the kernel or a seccomp profile forbids it.
    pub fn new() -> io::Result<Self> {
        let lean = IoUring::builder().setup_single_issuer().setup_defer_taskrun().build(ENTRIES);
        let ring = lean.or_else(|_| IoUring::new(ENTRIES))?; // kernels before 6.1 lack the lean mode
        Ok(Self { ring })
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
        let write = opcode::Write::new(types::Fd(fd.as_raw_fd()), bytes.as_ptr(), len)
            .offset(offset)
            .rw_flags(libc::RWF_DSYNC)
            .build();
        let start = Instant::now();
        // SAFETY: descriptor and buffer outlive the request, because `complete` returns only when the request has completed
        // or was never taken by the kernel.
        unsafe { self.ring.submission().push(&write) }.map_err(io::Error::other)?;
        let result = self.complete()?;
        let written = usize::try_from(result).map_err(|_| io::Error::from_raw_os_error(-result))?;
        file::whole(written, bytes.len())?;
        Ok(start.elapsed())
    }
}
