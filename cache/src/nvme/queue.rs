//! Owns what waits for the NVMe writer: records, changes of size, and who waits for what. Bounded by
//! [`crate::admit::QUEUE_BYTES`].

use std::{collections::VecDeque, io};

use bytes::Bytes;
use parking_lot::{Condvar, Mutex, MutexGuard};
use rustc_hash::{FxHashMap, FxHashSet};
use tokio::sync::oneshot;

use crate::{Key, admit::QUEUE_BYTES, key::Groups, ttl::Deadline};

/// Removals remembered while the file is being indexed. Beyond it what is left of the file is not indexed.
const STRUCK_MAX: usize = 1 << 20;

/// A record on its way to the device.
pub(super) struct Job {
    pub(super) key: Key,
    pub(super) bytes: Bytes,
    pub(super) deadline: Deadline,
    /// Its number; only the last one of a key is stored.
    pub(super) id: u64,
}

/// A change of the number of zones.
pub(super) struct Resize {
    pub(super) zones: u32,
    pub(super) done: oneshot::Sender<io::Result<()>>,
}

/// What the writer does next.
pub(super) enum Work {
    Write(Vec<Job>),
    Resize(Resize),
    End,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Phase {
    #[default]
    Open,
    /// Write out the queue, then end.
    Closing,
    /// End after the write that is under way.
    Abandoned,
    Ended,
}

/// Keys and groups that went while the file was being indexed: what is found of them is not to come back.
#[derive(Default)]
struct Struck {
    keys: FxHashSet<Key>,
    groups: Groups,
    /// There were more.
    overflowed: bool,
}

impl Struck {
    /// Whether so many more are remembered.
    fn has_room(&mut self, more: usize) -> bool {
        self.overflowed |= self.keys.len() + self.groups.len() + more > STRUCK_MAX;
        !self.overflowed
    }
}

/// The queue's state. Held for moments only, never across I/O.
#[derive(Default)]
pub(super) struct State {
    jobs: VecDeque<Job>,
    queued_bytes: usize,
    /// The last job of each key that is queued or being written.
    pending: FxHashMap<Key, u64>,
    next_id: u64,
    writing: bool,
    resizes: VecDeque<Resize>,
    struck: Option<Struck>,
    idle_waiters: Vec<oneshot::Sender<()>>,
    room_waiters: Vec<oneshot::Sender<()>>,
    phase: Phase,
}

/// The queue.
#[derive(Default)]
pub(super) struct Queue {
    state: Mutex<State>,
    work: Condvar,
}

impl Queue {
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// Queues a record, under the lock that admission was decided under.
    pub(super) fn push(&self, state: &mut State, key: Key, bytes: Bytes, deadline: Deadline) {
        let id = state.register(key);
        state.queued_bytes += bytes.len();
        state.jobs.push_back(Job { key, bytes, deadline, id });
        self.work.notify_one();
    }

    /// Queues a change of size. The answer is an error if the writer has ended.
    pub(super) fn resize(&self, zones: u32) -> oneshot::Receiver<io::Result<()>> {
        let (done, receive) = oneshot::channel();
        let mut state = self.lock();
        if state.phase == Phase::Open {
            state.resizes.push_back(Resize { zones, done });
            self.work.notify_one();
        }
        receive
    }

    /// Waits for something to do: records of up to `max_bytes`, at least one.
    pub(super) fn next(&self, max_bytes: usize) -> Work {
        let mut state = self.lock();
        state.writing = false;
        loop {
            if state.phase == Phase::Abandoned {
                return Work::End;
            }
            if let Some(resize) = state.resizes.pop_front() {
                return Work::Resize(resize);
            }
            let batch = state.take(max_bytes);
            if !batch.is_empty() {
                return Work::Write(batch);
            }
            if state.phase != Phase::Open {
                return Work::End;
            }
            state.tell_idle();
            self.work.wait(&mut state);
        }
    }

    /// The writer has ended: nothing is under way, and nothing is taken any more.
    pub(super) fn ended(&self) {
        let mut state = self.lock();
        *state = State { phase: Phase::Ended, next_id: state.next_id, ..State::default() };
    }

    /// Makes the writer end: after what is queued with `clean`, else at once. A receiver if it has not ended yet.
    pub(super) fn end(&self, clean: bool) -> Option<oneshot::Receiver<()>> {
        let mut state = self.lock();
        if state.phase == Phase::Ended {
            return None;
        }
        if !clean {
            state.phase = Phase::Abandoned;
        } else if state.phase == Phase::Open {
            state.phase = Phase::Closing;
        }
        self.work.notify_one();
        Some(waiter(&mut state.idle_waiters))
    }
}

impl State {
    pub(super) fn is_open(&self) -> bool {
        self.phase == Phase::Open
    }

    pub(super) fn queued_bytes(&self) -> usize {
        self.queued_bytes
    }

    /// Whether a record of the key is queued or being written.
    pub(super) fn is_pending(&self, key: &Key) -> bool {
        self.pending.contains_key(key)
    }

    /// Numbers a record that will be written: from now on it can be struck out.
    pub(super) fn register(&mut self, key: Key) -> u64 {
        self.next_id += 1;
        self.pending.insert(key, self.next_id);
        self.next_id
    }

    /// A record has been written, or given up. Whether it is still wanted: neither struck out nor replaced meanwhile.
    pub(super) fn settle(&mut self, key: &Key, id: u64) -> bool {
        let wanted = self.pending.get(key) == Some(&id);
        if wanted {
            self.pending.remove(key);
        }
        wanted
    }

    /// Keeps records of a key that are queued, being written or not indexed yet from being found.
    pub(super) fn strike(&mut self, key: &Key) {
        self.pending.remove(key);
        if let Some(struck) = &mut self.struck
            && struck.has_room(1)
        {
            struck.keys.insert(*key);
        }
    }

    /// [`State::strike`] for groups.
    pub(super) fn strike_groups(&mut self, groups: &Groups) {
        self.pending.retain(|key, _| !groups.contains(&key.group));
        if let Some(struck) = &mut self.struck
            && struck.has_room(groups.len())
        {
            struck.groups.extend(groups);
        }
    }

    /// From now on removals are remembered, until [`State::indexed`].
    pub(super) fn indexing(&mut self) {
        self.struck = Some(Struck::default());
    }

    pub(super) fn indexed(&mut self) {
        self.struck = None;
    }

    /// Whether a record found in the file may be indexed.
    pub(super) fn may_come_back(&self, key: &Key) -> bool {
        self.struck.as_ref().is_none_or(|struck| !struck.keys.contains(key) && !struck.groups.contains(&key.group))
    }

    /// Whether all is known that must not be indexed: not too much was removed to be remembered.
    pub(super) fn may_index(&self) -> bool {
        self.struck.as_ref().is_none_or(|struck| !struck.overflowed)
    }

    /// A receiver if something is queued or being written.
    pub(super) fn wait_idle(&mut self) -> Option<oneshot::Receiver<()>> {
        if self.phase == Phase::Ended || (self.jobs.is_empty() && !self.writing) {
            return None;
        }
        Some(waiter(&mut self.idle_waiters))
    }

    /// A receiver if more than half of the queue is taken.
    pub(super) fn wait_room(&mut self) -> Option<oneshot::Receiver<()>> {
        if self.phase == Phase::Ended || self.has_room() {
            return None;
        }
        Some(waiter(&mut self.room_waiters))
    }

    fn has_room(&self) -> bool {
        self.queued_bytes <= QUEUE_BYTES / 2
    }

    fn take(&mut self, max_bytes: usize) -> Vec<Job> {
        let (mut batch, mut bytes) = (Vec::new(), 0);
        while let Some(job) = self.jobs.front() {
            bytes += job.bytes.len();
            if !batch.is_empty() && bytes > max_bytes {
                break;
            }
            let Some(job) = self.jobs.pop_front() else { break };
            self.queued_bytes -= job.bytes.len();
            if self.pending.get(&job.key) == Some(&job.id) {
                batch.push(job);
            }
        }
        self.writing = !batch.is_empty();
        if self.has_room() {
            tell(&mut self.room_waiters);
        }
        batch
    }

    fn tell_idle(&mut self) {
        tell(&mut self.idle_waiters);
        tell(&mut self.room_waiters);
    }
}

fn waiter(waiters: &mut Vec<oneshot::Sender<()>>) -> oneshot::Receiver<()> {
    let (send, receive) = oneshot::channel();
    waiters.push(send);
    receive
}

fn tell(waiters: &mut Vec<oneshot::Sender<()>>) {
    for waiter in waiters.drain(..) {
        // Who no longer waits need not be told.
        let _ = waiter.send(());
    }
}
