//! Real files: a locked directory, O_DIRECT where the file system has it, and the probe that chooses ring or `pwritev2`.

use std::{
    fs::{File, OpenOptions},
    io::{self, IoSlice, IoSliceMut},
    os::{
        fd::{AsFd, BorrowedFd},
        unix::fs::OpenOptionsExt,
    },
    path::{Path, PathBuf},
    sync::{Arc, mpsc},
    thread::{self, JoinHandle, Thread},
};

use parking_lot::Mutex;
use rustix::{
    fs::{FallocateFlags, FlockOperation, OFlags, fallocate, flock},
    io::{Errno, ReadWriteFlags, preadv2, pwritev2},
};

use super::{
    Choice, Disk, DiskFile, Turn, Worker, WorkerHandle, Writer,
    buffer::AlignedBuffer,
    device::{self, Durability},
    pwrite, uring,
};
use crate::{Error, lock::DirLock, lock::LOCK_FILE, record::BLOCK};

const TEMPORARY: &str = "prepare.tmp";
const PROBE: &str = "probe.tmp";
const ZERO_CHUNK: usize = 1 << 20;

/// A directory of real files.
#[derive(Debug)]
pub struct FileDisk {
    dir: PathBuf,
    /// The ring's way of syncing; `None` without a ring.
    ring: Option<Durability>,
    direct: bool,
    lock: Arc<DirLock>,
}

/// Opens `dir` (made if absent), locks it, and chooses how to write: the ring where the kernel allows it, else `pwritev2`;
/// past the page cache where the file system allows it. The choice is logged.
pub fn open(dir: &Path, choice: Choice) -> Result<Arc<FileDisk>, Error> {
    let fail = |what: &str, error| Error::io(format!("{what} {}", dir.display()), error);
    std::fs::create_dir_all(dir).map_err(|error| fail("make directory", error))?;
    let lock = Arc::new(DirLock::acquire(dir)?);
    let direct = match probe(dir, true, pwrite::PwriteWriter) {
        Ok(()) => true,
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
            probe(dir, false, pwrite::PwriteWriter).map_err(|error| fail("write to", error))?;
            false
        }
        Err(error) => return Err(fail("write to", error)),
    };
    let durability = match choice {
        Choice::UringWith(durability) => durability,
        _ => device::durability(dir),
    };
    let refused = match choice {
        Choice::Pwrite => Some("chosen by option".to_owned()),
        Choice::Auto | Choice::Uring | Choice::UringWith(_) => uring::UringWriter::new(durability)
            .and_then(|writer| probe(dir, direct, writer))
            .err()
            .map(|error| error.to_string()),
    };
    if let (Choice::Uring | Choice::UringWith(_), Some(reason)) = (choice, &refused) {
        return Err(Error::Options(format!("io_uring was asked for but does not work here: {reason}")));
    }
    let (writer, reason) = match refused {
        None => ("io_uring", format!("probe passed, durable {durability:?}")),
        Some(reason) => ("pwritev2", reason),
    };
    let cache = if direct { "O_DIRECT, DSYNC" } else { "buffered, DSYNC: the file system has no O_DIRECT" };
    tracing::info!(dir = %dir.display(), writer, reason, cache, "log device");
    let ring = (writer == "io_uring").then_some(durability);
    Ok(Arc::new(FileDisk { dir: dir.to_owned(), ring, direct, lock }))
}

/// Writes one block the way the log will.
fn probe(dir: &Path, direct: bool, mut writer: impl Writer) -> io::Result<()> {
    let path = dir.join(PROBE);
    let mut attempt = || {
        let file = open_file(&path, direct, true)?;
        let file = RealFile { name: PROBE.to_owned(), file, bytes: BLOCK as u64, _lock: None };
        writer.write(&file, &AlignedBuffer::new(BLOCK), 0).map(|_| ())
    };
    let result = attempt();
    let _ = std::fs::remove_file(&path); // absent when it could not be made
    result
}

fn open_file(path: &Path, direct: bool, create: bool) -> io::Result<File> {
    let flags = if direct { OFlags::DIRECT } else { OFlags::empty() };
    let flags = i32::try_from(flags.bits()).map_err(io::Error::other)?;
    OpenOptions::new().read(true).write(true).create(create).truncate(false).mode(0o600).custom_flags(flags).open(path)
}

impl FileDisk {
    fn sync_dir(&self) -> io::Result<()> {
        File::open(&self.dir)?.sync_all()
    }

    fn prepare(&self, path: &Path, bytes: u64, front: &[u8]) -> io::Result<()> {
        let file = open_file(path, self.direct, true)?;
        file.set_len(0)?;
        match fallocate(&file, FallocateFlags::empty(), 0, bytes) {
            Ok(()) | Err(Errno::OPNOTSUPP) => {} // the zeros below allocate as well, only less well in one piece
            Err(errno) => return Err(errno.into()),
        }
        // Written zeros, not only allocated: an unwritten extent costs a metadata update at its first write.
        let mut zeros = AlignedBuffer::new(ZERO_CHUNK);
        let front_len = front.len().min(ZERO_CHUNK);
        zeros[..front_len].copy_from_slice(&front[..front_len]);
        let mut offset = 0;
        while offset < bytes {
            let len = usize::try_from(bytes - offset).unwrap_or(usize::MAX).min(ZERO_CHUNK);
            write_all(&file, &zeros[..len], offset, ReadWriteFlags::empty())?;
            zeros[..front_len].fill(0);
            offset += len as u64;
        }
        file.sync_all()
    }
}

impl Disk for FileDisk {
    fn kind(&self) -> &'static str {
        if self.ring.is_some() { "io_uring" } else { "pwritev2" }
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&self.dir)? {
            let name = entry?.file_name();
            names
                .extend(name.into_string().ok().filter(|name| ![LOCK_FILE, TEMPORARY, PROBE].contains(&name.as_str())));
        }
        names.sort();
        Ok(names)
    }

    fn create(&self, name: &str, bytes: u64, front: &[u8]) -> io::Result<Arc<dyn DiskFile>> {
        let temporary = self.dir.join(TEMPORARY);
        let made =
            self.prepare(&temporary, bytes, front).and_then(|()| std::fs::rename(&temporary, self.dir.join(name)));
        if let Err(error) = made {
            let _ = std::fs::remove_file(&temporary); // what matters is the first error
            return Err(error);
        }
        self.open(name)
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let file = open_file(&self.dir.join(name), self.direct, false)?;
        // The ring of a killed process may still be writing: its request holds the old descriptor, and with it this lock.
        flock(&file, FlockOperation::LockExclusive)?;
        file.sync_all()?;
        self.sync_dir()?;
        let bytes = file.metadata()?.len();
        Ok(Arc::new(RealFile { name: name.to_owned(), file, bytes, _lock: Some(self.lock.clone()) }))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        std::fs::remove_file(self.dir.join(name))?;
        self.sync_dir()
    }

    fn start(&self, name: &str, worker: Box<dyn Worker>) -> io::Result<Arc<dyn WorkerHandle>> {
        let ring = self.ring;
        start_thread(name, worker, move || -> io::Result<Box<dyn Writer>> {
            Ok(match ring {
                Some(durability) => Box::new(uring::UringWriter::new(durability)?),
                None => Box::new(pwrite::PwriteWriter),
            })
        })
    }
}

struct RealFile {
    name: String,
    file: File,
    bytes: u64,
    /// The directory stays locked while any of its files is open.
    _lock: Option<Arc<DirLock>>,
}

impl DiskFile for RealFile {
    fn name(&self) -> &str {
        &self.name
    }

    fn bytes(&self) -> u64 {
        self.bytes
    }

    fn read(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let mut done = 0;
        while done < buffer.len() {
            let rest = IoSliceMut::new(&mut buffer[done..]);
            match preadv2(&self.file, &mut [rest], offset + done as u64, ReadWriteFlags::empty()) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(n) => done += n,
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(())
    }

    fn write(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        write_all(&self.file, bytes, offset, ReadWriteFlags::DSYNC)
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.file.as_fd())
    }
}

/// One write; a short one is a failure, never continued: what the device did with the rest is unknown.
pub(super) fn write_all(file: impl AsFd, bytes: &[u8], offset: u64, flags: ReadWriteFlags) -> io::Result<()> {
    loop {
        return match pwritev2(&file, &[IoSlice::new(bytes)], offset, flags) {
            Ok(written) => whole(written, bytes.len()),
            Err(Errno::INTR) => continue, // nothing was written
            Err(errno) => Err(errno.into()),
        };
    }
}

/// Checks the length that a write answered.
pub(super) fn whole(written: usize, wanted: usize) -> io::Result<()> {
    if written == wanted {
        return Ok(());
    }
    Err(io::Error::new(io::ErrorKind::WriteZero, format!("short write: {written} of {wanted} bytes")))
}

/// A worker as its thread and the callers of [`WorkerHandle::run`] share it; `None` once it has stopped.
type Seat = Mutex<Option<Box<dyn Worker>>>;

struct ThreadHandle {
    seat: Arc<Seat>,
    thread: Thread,
    join: Mutex<Option<JoinHandle<()>>>,
}

impl WorkerHandle for ThreadHandle {
    fn wake(&self) {
        self.thread.unpark();
    }

    fn run(&self) {
        // Taken by the worker's thread, or by the caller itself higher up its stack: either gives another turn.
        let Some(mut seat) = self.seat.try_lock() else { return self.wake() };
        // A single write that the caller waits for gains nothing from a ring, and a ring belongs to one thread.
        while turn(&mut seat, &mut pwrite::PwriteWriter) == Turn::Again {}
        let stopped = seat.is_none();
        drop(seat);
        if stopped {
            self.wake();
        }
    }

    fn join(&self) {
        if thread::current().id() == self.thread.id() {
            return;
        }
        if let Some(join) = self.join.lock().take() {
            let _ = join.join(); // a panic has already failed the log, see the worker's drop
        }
    }
}

/// One turn of whoever sits there. A worker that panics is dropped, which fails the log.
fn turn(seat: &mut Option<Box<dyn Worker>>, writer: &mut dyn Writer) -> Turn {
    let Some(mut worker) = seat.take() else { return Turn::Stop };
    let turn = worker.turn(writer);
    if turn != Turn::Stop {
        *seat = Some(worker);
    }
    turn
}

/// Runs the worker on a thread of its own, with a writer made there: a ring belongs to the thread that made it.
fn start_thread(
    name: &str,
    worker: Box<dyn Worker>,
    make_writer: impl FnOnce() -> io::Result<Box<dyn Writer>> + Send + 'static,
) -> io::Result<Arc<dyn WorkerHandle>> {
    let seat: Arc<Seat> = Arc::new(Mutex::new(Some(worker)));
    let shared = seat.clone();
    let (ready, started) = mpsc::channel();
    let join = thread::Builder::new().name(name.to_owned()).spawn(move || {
        let mut writer = match make_writer() {
            Ok(writer) => {
                let _ = ready.send(Ok(()));
                writer
            }
            Err(error) => {
                let _ = ready.send(Err(error));
                return;
            }
        };
        loop {
            let turn = turn(&mut shared.lock(), writer.as_mut());
            match turn {
                Turn::Again => {}
                Turn::Idle => thread::park(),
                Turn::Stop => return,
            }
        }
    })?;
    started.recv().map_err(io::Error::other)??;
    Ok(Arc::new(ThreadHandle { seat, thread: join.thread().clone(), join: Mutex::new(Some(join)) }))
}
