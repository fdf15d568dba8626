//! Owns the io_uring backend, and is the cache's only file that knows the io-uring crate.
//!
//! One thread owns the ring. Callers queue transfers and wake it through a pipe whose read end always has a read
//! pending in the ring, so the thread sleeps in one place only. Requests stay tied to that thread: a request submitted
//! from a thread that ends is cancelled by the kernel.

use std::{
    collections::VecDeque,
    fs::File,
    io::{self, PipeReader, PipeWriter, Write},
    os::fd::AsRawFd,
    sync::Arc,
    thread::{Builder, JoinHandle},
};

use io_uring::{IoUring, opcode, squeue, types::Fd};
use parking_lot::Mutex;

use super::device::{AlignedBuf, Device, Direction, Done, Transfer, came_short};

/// Transfers in the ring at once, the wake-up read not counted.
const DEPTH: usize = 128;
/// The user data of the wake-up read; transfers use their place in the table of those in flight.
const WAKE: u64 = u64::MAX;

#[derive(Default)]
struct Queue {
    transfers: VecDeque<Transfer>,
    closing: bool,
    /// Why the ring's thread ended; every later transfer fails with it.
    broken: Option<String>,
}

/// The ring's front. Its thread ends when this is dropped and nothing is in flight.
pub(super) struct Ring {
    queue: Arc<Mutex<Queue>>,
    wake: PipeWriter,
    thread: Option<JoinHandle<()>>,
}

impl Ring {
    /// Makes the ring and proves that it can read `file`; an error means that the fallback is to be used.
    pub(super) fn start(file: Arc<File>) -> io::Result<Self> {
        let (wake_reader, wake) = io::pipe()?;
        let queue = Arc::<Mutex<Queue>>::default();
        let (started, ready) = std::sync::mpsc::sync_channel(1);
        let of_thread = queue.clone();
        // The ring is made on its own thread, which is the one the kernel ties requests to.
        let thread = Builder::new().name("cache-ring".into()).spawn(move || {
            match IoUring::new(2 * DEPTH as u32).and_then(|mut ring| probe(&mut ring, &file).map(|()| ring)) {
                Ok(ring) => {
                    let _ = started.send(Ok(()));
                    Worker::new(ring, file, wake_reader, of_thread).run();
                }
                Err(error) => {
                    let _ = started.send(Err(error));
                }
            }
        })?;
        ready.recv().unwrap_or_else(|_| Err(io::Error::other("the ring's thread ended at its start")))?;
        Ok(Self { queue, wake, thread: Some(thread) })
    }

    fn wake(&self) {
        // One byte in the pipe is enough, and a closed pipe means that the thread has ended.
        let _ = (&self.wake).write(&[1]);
    }
}

impl Device for Ring {
    fn submit(&self, transfer: Transfer) {
        let mut queue = self.queue.lock();
        if let Some(cause) = &queue.broken {
            let error = io::Error::other(cause.clone());
            drop(queue);
            (transfer.done)(Err(error));
            return;
        }
        // A queue that is not empty has had its wake-up, or is drained as transfers complete.
        let idle = queue.transfers.is_empty();
        queue.transfers.push_back(transfer);
        drop(queue);
        if idle {
            self.wake();
        }
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        self.queue.lock().closing = true;
        self.wake();
        if let Some(thread) = self.thread.take() {
            // A thread that panicked has said so already.
            let _ = thread.join();
        }
    }
}

/// Reads one block through the ring: seccomp filters and old kernels fail here, not later.
fn probe(ring: &mut IoUring, file: &File) -> io::Result<()> {
    let mut buf = AlignedBuf::zeroed(1);
    let entry = transfer_entry(Direction::Read, file, 0, &mut buf);
    // SAFETY: the buffer and the file outlive the request: its completion is awaited below.
    unsafe { ring.submission().push(&entry) }.map_err(io::Error::other)?;
    while let Err(error) = ring.submit_and_wait(1) {
        if error.kind() != io::ErrorKind::Interrupted {
            // The request may still be in the kernel's hands.
            std::mem::forget(buf);
            return Err(error);
        }
    }
    match ring.completion().next().map(|completion| completion.result()) {
        Some(result) if result >= 0 => Ok(()),
        Some(error) => Err(io::Error::from_raw_os_error(-error)),
        None => {
            std::mem::forget(buf);
            Err(io::Error::other("the ring gave no completion"))
        }
    }
}

fn transfer_entry(direction: Direction, file: &File, offset: u64, buf: &mut AlignedBuf) -> squeue::Entry {
    let fd = Fd(file.as_raw_fd());
    let bytes = buf.as_mut_slice();
    let (at, len) = (bytes.as_mut_ptr(), bytes.len() as u32);
    match direction {
        Direction::Read => opcode::Read::new(fd, at, len).offset(offset).build(),
        Direction::Write => opcode::Write::new(fd, at, len).offset(offset).build(),
    }
}

/// A transfer that the kernel holds: the buffer must not move or go before its completion.
struct InFlight {
    buf: AlignedBuf,
    done: Done,
}

struct Worker {
    ring: IoUring,
    file: Arc<File>,
    wake: PipeReader,
    /// Where wake-up bytes go; boxed, because the kernel writes there.
    wake_bytes: Box<[u8; 64]>,
    queue: Arc<Mutex<Queue>>,
    flying: Vec<Option<InFlight>>,
    free: Vec<usize>,
}

impl Worker {
    fn new(ring: IoUring, file: Arc<File>, wake: PipeReader, queue: Arc<Mutex<Queue>>) -> Self {
        let flying = (0..DEPTH).map(|_| None).collect();
        Self { ring, file, wake, wake_bytes: Box::new([0; 64]), queue, flying, free: (0..DEPTH).collect() }
    }

    fn run(mut self) {
        let result = self.serve();
        let mut queue = self.queue.lock();
        let cause = match result {
            Ok(()) => "the cache is closed".to_string(),
            Err(error) => {
                tracing::error!(%error, "NVMe cache: the ring failed; the tier serves nothing until the next start");
                format!("the ring failed: {error}")
            }
        };
        queue.broken = Some(cause.clone());
        let waiting: Vec<Transfer> = queue.transfers.drain(..).collect();
        drop(queue);
        for transfer in waiting {
            (transfer.done)(Err(io::Error::other(cause.clone())));
        }
        for flying in self.flying.drain(..).flatten() {
            // The kernel may still write there: the memory is given up rather than reused.
            std::mem::forget(flying.buf);
            (flying.done)(Err(io::Error::other(cause.clone())));
        }
        // Likewise the target of the wake-up read, which is still pending.
        std::mem::forget(self.wake_bytes);
    }

    fn serve(&mut self) -> io::Result<()> {
        self.arm_wake()?;
        loop {
            if self.fill()? && self.free.len() == DEPTH {
                return Ok(());
            }
            match self.ring.submit_and_wait(1) {
                Ok(_) => {}
                Err(error) if matches!(error.raw_os_error(), Some(libc::EINTR | libc::EAGAIN | libc::EBUSY)) => {}
                Err(error) => return Err(error),
            }
            self.reap()?;
        }
    }

    /// Moves queued transfers into the ring. True if the queue is closed and empty.
    fn fill(&mut self) -> io::Result<bool> {
        let queue = self.queue.clone();
        let mut queue = queue.lock();
        while let Some(&place) = self.free.last() {
            let Some(transfer) = queue.transfers.pop_front() else { break };
            let Transfer { direction, offset, mut buf, done } = transfer;
            let entry = transfer_entry(direction, &self.file, offset, &mut buf).user_data(place as u64);
            if let Some(slot) = self.flying.get_mut(place) {
                *slot = Some(InFlight { buf, done });
            }
            self.free.pop();
            self.push(entry)?;
        }
        Ok(queue.closing && queue.transfers.is_empty())
    }

    /// Puts the read of the wake-up pipe into the ring, where one always is.
    fn arm_wake(&mut self) -> io::Result<()> {
        let bytes: &mut [u8] = self.wake_bytes.as_mut_slice();
        let entry = opcode::Read::new(Fd(self.wake.as_raw_fd()), bytes.as_mut_ptr(), bytes.len() as u32).build();
        self.push(entry.user_data(WAKE))
    }

    fn push(&mut self, entry: squeue::Entry) -> io::Result<()> {
        // SAFETY: what the entry points to lives in `flying` or `wake_bytes` until its completion is reaped; heap
        // memory stays put when its owner moves, and `run` leaks it if the ring fails first.
        unsafe { self.ring.submission().push(&entry) }.map_err(io::Error::other)
    }

    fn reap(&mut self) -> io::Result<()> {
        let completed: Vec<(u64, i32)> = self.ring.completion().map(|c| (c.user_data(), c.result())).collect();
        for (id, result) in completed {
            if id == WAKE {
                self.arm_wake()?;
                continue;
            }
            let place = id as usize;
            let Some(InFlight { buf, done }) = self.flying.get_mut(place).and_then(Option::take) else { continue };
            self.free.push(place);
            done(match usize::try_from(result) {
                Ok(moved) if moved == buf.as_slice().len() => Ok(buf),
                Ok(moved) => Err(came_short(moved, buf.as_slice().len())),
                Err(_) => Err(io::Error::from_raw_os_error(-result)),
            });
        }
        Ok(())
    }
}
