//! Faults as a wrapper: the n-th I/O of any disk fails in a chosen way.

use std::{
    io,
    os::fd::BorrowedFd,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use super::{Disk, DiskFile, Turn, Worker, WorkerHandle, Writer};
use crate::record::BLOCK;

/// How an I/O fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// EIO, nothing done.
    Error,
    /// EIO, though it was done.
    ErrorAfter,
    /// ENOSPC, nothing done.
    Full,
    /// Half of a write is done and the rest reported missing. Other operations: EIO.
    Short,
    /// A read succeeds with one bit wrong. Other operations: no fault.
    FlipBit,
}

/// Which I/O fails: the first has number 1; 0 never comes.
#[derive(Debug)]
struct Plan {
    count: AtomicU64,
    at: u64,
    /// Every later I/O fails as well.
    persistent: bool,
    fault: Fault,
}

impl Plan {
    fn next(&self) -> Option<Fault> {
        let number = self.count.fetch_add(1, Ordering::Relaxed) + 1;
        (self.at != 0 && (number == self.at || (self.persistent && number > self.at))).then_some(self.fault)
    }

    /// Runs an operation that is not a block write.
    fn run<T>(&self, operation: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        match self.next() {
            None | Some(Fault::FlipBit) => operation(),
            Some(Fault::ErrorAfter) => operation().and_then(|_| Err(broken())),
            Some(Fault::Full) => Err(io::ErrorKind::StorageFull.into()),
            Some(Fault::Error | Fault::Short) => Err(broken()),
        }
    }

    fn write<T>(&self, bytes: &[u8], write: impl FnOnce(&[u8]) -> io::Result<T>) -> io::Result<T> {
        match self.next() {
            Some(Fault::Short) => {
                let half = bytes.len() / 2 / BLOCK * BLOCK;
                if half > 0 {
                    write(&bytes[..half])?;
                }
                Err(io::Error::new(io::ErrorKind::WriteZero, format!("short write: {half} of {} bytes", bytes.len())))
            }
            Some(Fault::Error) => Err(broken()),
            Some(Fault::Full) => Err(io::ErrorKind::StorageFull.into()),
            Some(Fault::ErrorAfter) => write(bytes).and_then(|_| Err(broken())),
            None | Some(Fault::FlipBit) => write(bytes),
        }
    }
}

fn broken() -> io::Error {
    io::Error::from_raw_os_error(libc::EIO)
}

/// A disk whose n-th I/O fails.
pub struct FaultyDisk {
    inner: Arc<dyn Disk>,
    plan: Arc<Plan>,
}

impl FaultyDisk {
    /// Lets the I/O with number `at` (from 1; 0 for none) fail, and all later ones if `persistent`.
    pub fn new(inner: Arc<dyn Disk>, at: u64, persistent: bool, fault: Fault) -> Self {
        Self { inner, plan: Arc::new(Plan { count: AtomicU64::new(0), at, persistent, fault }) }
    }

    /// How many I/Os there were.
    pub fn count(&self) -> u64 {
        self.plan.count.load(Ordering::Relaxed)
    }

    fn wrap(&self, inner: Arc<dyn DiskFile>) -> Arc<dyn DiskFile> {
        Arc::new(FaultyFile { inner, plan: self.plan.clone() })
    }
}

impl Disk for FaultyDisk {
    fn kind(&self) -> &'static str {
        self.inner.kind()
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.plan.run(|| self.inner.list())
    }

    fn create(&self, name: &str, bytes: u64, front: &[u8]) -> io::Result<Arc<dyn DiskFile>> {
        self.plan.run(|| self.inner.create(name, bytes, front)).map(|file| self.wrap(file))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        self.plan.run(|| self.inner.open(name)).map(|file| self.wrap(file))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.plan.run(|| self.inner.remove(name))
    }

    fn start(&self, name: &str, worker: Box<dyn Worker>) -> io::Result<Arc<dyn WorkerHandle>> {
        self.inner.start(name, Box::new(FaultyWorker { inner: worker, plan: self.plan.clone() }))
    }
}

struct FaultyFile {
    inner: Arc<dyn DiskFile>,
    plan: Arc<Plan>,
}

impl DiskFile for FaultyFile {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn bytes(&self) -> u64 {
        self.inner.bytes()
    }

    fn read(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        match self.plan.next() {
            None => self.inner.read(buffer, offset),
            Some(Fault::FlipBit) => {
                self.inner.read(buffer, offset)?;
                let middle = buffer.len() / 2;
                buffer.get_mut(middle).into_iter().for_each(|byte| *byte ^= 1);
                Ok(())
            }
            Some(_) => Err(broken()),
        }
    }

    fn write(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.plan.write(bytes, |bytes| self.inner.write(bytes, offset))
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.inner.fd()
    }
}

struct FaultyWorker {
    inner: Box<dyn Worker>,
    plan: Arc<Plan>,
}

impl Worker for FaultyWorker {
    fn turn(&mut self, writer: &mut dyn Writer) -> Turn {
        self.inner.turn(&mut FaultyWriter { inner: writer, plan: &self.plan })
    }
}

struct FaultyWriter<'a> {
    inner: &'a mut dyn Writer,
    plan: &'a Plan,
}

impl Writer for FaultyWriter<'_> {
    fn write(&mut self, file: &dyn DiskFile, bytes: &[u8], offset: u64) -> io::Result<Duration> {
        self.plan.write(bytes, |bytes| self.inner.write(file, bytes, offset))
    }
}
