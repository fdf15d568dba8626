//! Owns the io_uring backend, and is the cache's only file that knows the io-uring crate.
//!
//! One thread owns the ring. Callers queue transfers and, if it sleeps, wake it through a pipe whose read end always has
//! a read pending in the ring, so the thread sleeps in one place only. While it works, what is queued goes into its next
//! round: under load transfers are submitted in batches, and nobody pays for waking. Requests stay tied to that thread: a
//! request submitted from a thread that ends is cancelled by the kernel.

use std::{
    collections::VecDeque,
    fs::File,
    io::{self, PipeReader, PipeWriter, Write},
    os::fd::AsRawFd,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
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

#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    /// The thread waits in the kernel, or is about to.
    sleeping: AtomicBool,
}

/// The ring's front. Its thread ends when this is dropped and nothing is in flight.
pub(super) struct Ring {
    shared: Arc<Shared>,
    wake: PipeWriter,
    thread: Option<JoinHandle<()>>,
}

impl Ring {
    /// Makes the ring and proves that it can read `file`; an error means that the fallback is to be used.
    pub(super) fn start(file: Arc<File>) -> io::Result<Self> {
        let (wake_reader, wake) = io::pipe()?;
        let shared = Arc::<Shared>::default();
        let (started, ready) = std::sync::mpsc::sync_channel(1);
        let of_thread = shared.clone();
        // The ring is made on its own thread, which is the one the kernel ties requests to.
        let thread = Builder::new().name("cache-ring".into()).spawn(move || {
            match make_ring().and_then(|mut ring| probe(&mut ring, &file).map(|()| ring)) {
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
        Ok(Self { shared, wake, thread: Some(thread) })
    }

    fn wake_if_asleep(&self) {
        if self.shared.sleeping.swap(false, SeqCst) {
            // A closed pipe means that the thread has ended.
            let _ = (&self.wake).write(&[1]);
        }
    }
}

impl Device for Ring {
    fn submit(&self, transfer: Transfer) {
        let mut queue = self.shared.queue.lock();
        if let Some(cause) = &queue.broken {
            let error = io::Error::other(cause.clone());
            drop(queue);
            (transfer.done)(Err(error));
            return;
        }
        queue.transfers.push_back(transfer);
        drop(queue);
        self.wake_if_asleep();
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        self.shared.queue.lock().closing = true;
        self.wake_if_asleep();
        if let Some(thread) = self.thread.take() {
            // A thread that panicked has said so already.
            let _ = thread.join();
        }
    }
}

/// A ring whose completions are reaped when its thread asks for them, and not by interrupting it (Linux 6.1).
fn make_ring() -> io::Result<IoUring> {
    let entries = 2 * DEPTH as u32;
    match IoUring::builder().setup_single_issuer().setup_defer_taskrun().build(entries) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => IoUring::new(entries),
        made => made,
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
    shared: Arc<Shared>,
    flying: Vec<Option<InFlight>>,
    free: Vec<usize>,
}

impl Worker {
    fn new(ring: IoUring, file: Arc<File>, wake: PipeReader, shared: Arc<Shared>) -> Self {
        let flying = (0..DEPTH).map(|_| None).collect();
        Self { ring, file, wake, wake_bytes: Box::new([0; 64]), shared, flying, free: (0..DEPTH).collect() }
    }

    fn run(mut self) {
        let result = self.serve();
        let shared = self.shared.clone();
        let mut queue = shared.queue.lock();
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
            // Whoever changes the queue after this look at it sees that the thread sleeps, and wakes it.
            self.shared.sleeping.store(true, SeqCst);
            let submitted = if self.must_not_sleep() { self.ring.submit() } else { self.ring.submit_and_wait(1) };
            self.shared.sleeping.store(false, SeqCst);
            match submitted {
                Ok(_) => {}
                Err(error) if matches!(error.raw_os_error(), Some(libc::EINTR | libc::EAGAIN | libc::EBUSY)) => {}
                Err(error) => return Err(error),
            }
            self.reap()?;
        }
    }

    /// Moves queued transfers into the ring. True if the queue is closed and empty.
    fn fill(&mut self) -> io::Result<bool> {
        let shared = self.shared.clone();
        let mut queue = shared.queue.lock();
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

    /// Whether there is something to do that no completion will tell of.
    fn must_not_sleep(&self) -> bool {
        let queue = self.shared.queue.lock();
        let has_work = !self.free.is_empty() && !queue.transfers.is_empty();
        has_work || (queue.closing && self.free.len() == DEPTH)
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
