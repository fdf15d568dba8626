//! The disk seam: what the log asks of a device. Two real disks and a simulated one answer the same calls.
//!
//! Everything that depends on time, threads or the kernel lies behind it, so that the log above can be run by hand on
//! [`sim::SimDisk`], one seed replaying one run.

use std::{io, sync::Arc, time::Duration};

pub mod buffer;
mod device;
pub mod faulty;
pub mod file;
mod pwrite;
pub mod sim;
mod uring;

pub use device::Durability;

/// A directory of log files on some device.
pub trait Disk: Send + Sync + 'static {
    /// Which implementation this is, for messages.
    fn kind(&self) -> &'static str;

    /// Names of the files there.
    fn list(&self) -> io::Result<Vec<String>>;

    /// Makes a file of `bytes` bytes, all zero but for `front` at its start, durable with its directory entry when this
    /// returns. A failure leaves no file behind. Takes long; not for a hot path.
    fn create(&self, name: &str, bytes: u64, front: &[u8]) -> io::Result<Arc<dyn DiskFile>>;

    /// Opens a file, and syncs it and its directory first: what is read afterwards is what the device holds.
    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>>;

    /// Removes a file, durably.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Starts a worker. It gets the writer that its thread owns.
    fn start(&self, name: &str, worker: Box<dyn Worker>) -> io::Result<Arc<dyn WorkerHandle>>;
}

/// An open file. Buffers, offsets and lengths are multiples of [`crate::record::BLOCK`].
pub trait DiskFile: Send + Sync {
    /// Its name in the directory.
    fn name(&self) -> &str;

    /// Its length.
    fn bytes(&self) -> u64;

    /// Fills the buffer from `offset`, wholly or not at all.
    fn read(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;

    /// Writes durably on the caller's thread: for recovery, before workers start.
    fn write(&self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// The descriptor of a real file.
    fn fd(&self) -> Option<std::os::fd::BorrowedFd<'_>>;
}

/// Writes files on behalf of one worker.
pub trait Writer: Send {
    /// Writes all of `bytes`. They are durable when this returns, and the buffer is no longer in use, also on failure.
    /// Answers how long the device took.
    fn write(&mut self, file: &dyn DiskFile, bytes: &[u8], offset: u64) -> io::Result<Duration>;
}

/// Work that runs in turns, so that a simulation can run it without threads.
pub trait Worker: Send {
    /// Does what can be done now.
    fn turn(&mut self, writer: &mut dyn Writer) -> Turn;
}

/// What a worker wants next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Another turn.
    Again,
    /// A turn after the next [`WorkerHandle::wake`].
    Idle,
    /// No more turns: the worker is dropped.
    Stop,
}

/// The outside of a running worker.
pub trait WorkerHandle: Send + Sync {
    /// Makes sure that a turn starts after this call. Cheap when the worker is busy.
    fn wake(&self);

    /// [`WorkerHandle::wake`], but the turns are taken by the caller, who waits for the device, where the worker's own
    /// thread is not at it: two changes of thread less. The worker goes on by itself with whatever is left.
    fn run(&self);

    /// Waits until the worker has stopped. Returns at once when called by the worker itself.
    fn join(&self);
}

/// Which real disk to use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Choice {
    /// The ring where the kernel allows it, else `pwritev2`.
    #[default]
    Auto,
    /// io_uring, or an error.
    Uring,
    /// The ring, made durable in this way whatever the device says: to measure.
    UringWith(Durability),
    /// `pwritev2` on the log's thread.
    Pwrite,
}

/// Whether an error means that the device or a quota is full.
pub fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
