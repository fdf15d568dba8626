//! Owns the fallback backend: a few threads that pread and pwrite, for machines where io_uring is forbidden.

use std::{
    collections::VecDeque,
    fs::File,
    io,
    os::unix::fs::FileExt,
    sync::Arc,
    thread::{Builder, JoinHandle},
};

use parking_lot::{Condvar, Mutex};

use super::device::{AlignedBuf, Device, Direction, Transfer};

/// Transfers that run at once.
const THREADS: usize = 4;

#[derive(Default)]
struct Queue {
    transfers: VecDeque<Transfer>,
    closing: bool,
}

#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    wake: Condvar,
}

/// The threads, which end when this is dropped and the queue is empty.
pub(super) struct Threads {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl Threads {
    pub(super) fn start(file: Arc<File>) -> io::Result<Self> {
        let mut started = Self { shared: Arc::default(), threads: Vec::new() };
        for n in 0..THREADS {
            let (shared, file) = (started.shared.clone(), file.clone());
            let name = format!("cache-io-{n}");
            started.threads.push(Builder::new().name(name).spawn(move || work(&shared, &file))?);
        }
        Ok(started)
    }
}

impl Device for Threads {
    fn submit(&self, transfer: Transfer) {
        self.shared.queue.lock().transfers.push_back(transfer);
        self.shared.wake.notify_one();
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.shared.queue.lock().closing = true;
        self.shared.wake.notify_all();
        for thread in self.threads.drain(..) {
            // A thread that panicked has said so already.
            let _ = thread.join();
        }
    }
}

fn work(shared: &Shared, file: &File) {
    loop {
        let transfer = {
            let mut queue = shared.queue.lock();
            loop {
                if let Some(transfer) = queue.transfers.pop_front() {
                    break transfer;
                }
                if queue.closing {
                    return;
                }
                shared.wake.wait(&mut queue);
            }
        };
        let Transfer { direction, offset, mut buf, done } = transfer;
        done(run(file, direction, offset, &mut buf).map(|()| buf));
    }
}

/// One whole transfer; the std calls retry what comes short and what a signal interrupts.
fn run(file: &File, direction: Direction, offset: u64, buf: &mut AlignedBuf) -> io::Result<()> {
    match direction {
        Direction::Read => file.read_exact_at(buf.as_mut_slice(), offset),
        Direction::Write => file.write_all_at(buf.as_slice(), offset),
    }
}
