//! The `pwritev2` writer, for kernels and containers that refuse io_uring.

use std::{
    io,
    time::{Duration, Instant},
};

use rustix::io::ReadWriteFlags;

use super::{DiskFile, Writer, file};

/// Writes on the calling thread.
#[derive(Debug)]
pub struct PwriteWriter;

impl Writer for PwriteWriter {
    #[allow(clippy::disallowed_methods, reason = "this is the device seam: it measures the device")]
    fn write(&mut self, file: &dyn DiskFile, bytes: &[u8], offset: u64) -> io::Result<Duration> {
        let fd = file.fd().ok_or(io::ErrorKind::Unsupported)?;
        let start = Instant::now();
        file::write_all(fd, bytes, offset, ReadWriteFlags::DSYNC)?;
        Ok(start.elapsed())
    }
}
