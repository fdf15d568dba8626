//! The preparer: makes segment files ahead of need and removes those no longer wanted, off the write path.

use std::sync::Arc;

use super::state::Shared;
use crate::{
    disk::{self, Disk, DiskFile, Turn, Worker, Writer, buffer::AlignedBuffer},
    record::BLOCK,
    segment,
};

const PREFIX: &str = "segment-";
const SUFFIX: &str = ".wal";

/// The name of the `number`th file. Files keep their name for life; which segment a file holds is said inside.
pub fn file_name(number: u64) -> String {
    format!("{PREFIX}{number:08}{SUFFIX}")
}

/// The number in a file's name, if it is one of the log's.
pub fn file_number(name: &str) -> Option<u64> {
    name.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?.parse().ok()
}

/// Makes a spare file.
pub fn create(disk: &dyn Disk, cluster: u128, number: u64, bytes: u64) -> std::io::Result<Arc<dyn DiskFile>> {
    let mut front = AlignedBuffer::new(BLOCK);
    segment::encode_spare(cluster, &mut front);
    disk.create(&file_name(number), bytes, &front)
}

/// Keeps spares ready.
pub struct Preparer {
    shared: Arc<Shared>,
    disk: Arc<dyn Disk>,
    next_number: u64,
}

enum Task {
    Remove(Arc<dyn DiskFile>),
    Create,
    Nothing,
    Stop,
}

impl Preparer {
    /// A preparer that names new files from `next_number` on.
    pub fn new(shared: Arc<Shared>, disk: Arc<dyn Disk>, next_number: u64) -> Self {
        Self { shared, disk, next_number }
    }

    fn next_task(&self) -> Task {
        let mut state = self.shared.lock();
        if state.ended.is_some() {
            return Task::Stop;
        }
        if let Some(file) = state.surplus.pop() {
            return Task::Remove(file);
        }
        // After a refusal one more than needed, if need be: only a file that could be made proves that there is room again.
        let wanted = state.spares.len() < self.shared.options.ready_files() || state.room.refused.is_some();
        if wanted && state.room.may_create() {
            return Task::Create;
        }
        Task::Nothing
    }

    fn create(&mut self) -> Turn {
        let options = &self.shared.options;
        let made = create(self.disk.as_ref(), options.cluster, self.next_number, options.segment_bytes);
        match made {
            Ok(file) => {
                self.next_number += 1;
                let mut state = self.shared.lock();
                state.spares.push(file);
                state.room.files += 1;
                state.room.refused = None;
                drop(state);
                self.shared.wake_writer();
                Turn::Again
            }
            Err(error) if disk::is_full(&error) => {
                let refused = format!("preparing a segment of {} bytes: {error}", options.segment_bytes);
                let mut state = self.shared.lock();
                if state.room.refused.is_none() {
                    tracing::warn!(refused, "the log cannot grow");
                }
                state.room.refused = Some(refused.into());
                drop(state);
                self.shared.wake_writer(); // it may be waiting for this file, in vain
                Turn::Idle
            }
            Err(error) => {
                self.shared.fail(&format!("preparing {}: {error}", file_name(self.next_number)), Vec::new());
                self.shared.wake_writer();
                Turn::Stop
            }
        }
    }

    fn remove(&mut self, file: Arc<dyn DiskFile>) -> Turn {
        match self.disk.remove(file.name()) {
            Ok(()) => {
                self.shared.lock().room.files -= 1;
                Turn::Again
            }
            Err(error) => {
                self.shared.fail(&format!("removing {}: {error}", file.name()), Vec::new());
                self.shared.wake_writer();
                Turn::Stop
            }
        }
    }
}

impl Worker for Preparer {
    fn turn(&mut self, _writer: &mut dyn Writer) -> Turn {
        match self.next_task() {
            Task::Remove(file) => self.remove(file),
            Task::Create => self.create(),
            Task::Nothing => Turn::Idle,
            Task::Stop => Turn::Stop,
        }
    }
}
