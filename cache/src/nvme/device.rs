//! Owns the device seam of the NVMe tier: aligned buffers, asynchronous reads and writes, and the choice of who does them.
//!
//! Faults are wrappers of [`Device`], given in [`crate::NvmeOptions::wrap`].

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt,
    path::Path,
    sync::Arc,
};

use parking_lot::Mutex;

use super::{pread, ring, slot::BLOCK};

/// A buffer whose address and length suit O_DIRECT (4 KiB). Zero-filled when made.
#[derive(Default)]
pub struct AlignedBuf {
    memory: Vec<u8>,
    start: usize,
    len: usize,
}

impl AlignedBuf {
    /// A buffer of `len` bytes, rounded up to whole blocks.
    pub fn zeroed(len: usize) -> Self {
        let len = len.next_multiple_of(BLOCK);
        let memory = vec![0u8; len + BLOCK];
        let start = memory.as_ptr().align_offset(BLOCK).min(BLOCK);
        Self { memory, start, len }
    }

    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        self.memory.get(self.start..self.start + self.len).unwrap_or_default()
    }

    /// The bytes, to be filled.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        self.memory.get_mut(self.start..self.start + self.len).unwrap_or_default()
    }
}

/// Buffers that were used and can be again: a read then neither allocates nor zeroes. Bounded.
#[derive(Default)]
pub(super) struct Pool([Mutex<Vec<AlignedBuf>>; POOLED_BLOCKS]);

/// Larger buffers than this many blocks are not kept.
const POOLED_BLOCKS: usize = 16;
/// Bytes kept of each size.
const POOLED_BYTES: usize = 1 << 20;

impl Pool {
    /// A buffer of `len` bytes, a multiple of 4 KiB, with anything in it.
    pub(super) fn take(&self, len: usize) -> AlignedBuf {
        let kept = self.of(len).and_then(|pool| pool.lock().pop());
        kept.unwrap_or_else(|| AlignedBuf::zeroed(len))
    }

    pub(super) fn give_back(&self, buf: AlignedBuf) {
        let len = buf.len;
        if let Some(pool) = self.of(len) {
            let mut pool = pool.lock();
            if pool.len() < POOLED_BYTES / len {
                pool.push(buf);
            }
        }
    }

    fn of(&self, len: usize) -> Option<&Mutex<Vec<AlignedBuf>>> {
        self.0.get((len / BLOCK).checked_sub(1)?)
    }
}

/// Which way the bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Fill the buffer from the device.
    Read,
    /// Write the buffer to the device.
    Write,
}

/// Called once with the buffer, or with the error; a transfer that came short is an error.
pub type Done = Box<dyn FnOnce(io::Result<AlignedBuf>) + Send>;

/// One transfer of a whole buffer.
pub struct Transfer {
    /// Read or write.
    pub direction: Direction,
    /// Position in the file, a multiple of 4 KiB.
    pub offset: u64,
    /// What is filled or written. The device owns it until `done`.
    pub buf: AlignedBuf,
    /// Told the outcome, on a thread of the device; it must not block.
    pub done: Done,
}

/// A block device, or a file that acts as one.
pub trait Device: Send + Sync + 'static {
    /// Starts a transfer. Never blocks on the device. `done` is called exactly once, whatever happens.
    fn submit(&self, transfer: Transfer);
}

/// Who does the I/O.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Backend {
    /// io_uring where a probe finds it usable, else threads. Many container runtimes forbid io_uring.
    #[default]
    Auto,
    /// io_uring, or an error at open.
    Ring,
    /// A few threads with pread and pwrite.
    Threads,
}

/// Opens the cache file, made if missing.
pub(super) fn open_file(path: &Path) -> io::Result<Arc<File>> {
    let (file, direct) = open_direct(path)?;
    tracing::info!(path = %path.display(), direct, "NVMe cache opened");
    Ok(Arc::new(file))
}

/// Starts the backend. The choice is logged.
pub(super) fn start(file: &Arc<File>, backend: Backend) -> io::Result<Arc<dyn Device>> {
    let threads = || Ok::<_, io::Error>(Arc::new(pread::Threads::start(file.clone())?));
    let ring = || Ok::<_, io::Error>(Arc::new(ring::Ring::start(file.clone())?));
    let (device, io): (Arc<dyn Device>, _) = match backend {
        Backend::Threads => (threads()?, "threads"),
        Backend::Ring => (ring()?, "io_uring"),
        Backend::Auto => match ring() {
            Ok(ring) => (ring, "io_uring"),
            Err(error) => {
                tracing::warn!(%error, "NVMe cache: io_uring is not usable here, falling back to pread/pwrite threads");
                (threads()?, "threads")
            }
        },
    };
    tracing::info!(io, "NVMe cache started");
    Ok(device)
}

/// Opens with O_DIRECT, or without it where the file system refuses (tmpfs): correct, but then the kernel caches too.
fn open_direct(path: &Path) -> io::Result<(File, bool)> {
    let open =
        |flags| OpenOptions::new().read(true).write(true).create(true).truncate(false).custom_flags(flags).open(path);
    match open(libc::O_DIRECT) {
        Ok(file) => Ok((file, true)),
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok((open(0)?, false)),
        Err(error) => Err(error),
    }
}

/// The error of a transfer that moved fewer bytes than asked.
pub(super) fn came_short(moved: usize, asked: usize) -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, format!("{moved} of {asked} bytes were transferred"))
}
