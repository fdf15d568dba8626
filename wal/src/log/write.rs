//! The log's writer: takes what has gathered while the last write was under way, and writes it as one.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};

use super::{
    index::GroupRef,
    plan::{Shape, plan},
    state::{Done, Live, Op, Queued, Shared, State},
};
use crate::{
    LogId,
    disk::{Turn, Worker, Writer, buffer::AlignedBuffer},
    record::{self, BLOCK, Body, Place, Position, blocks},
    segment::Preamble,
};

/// Owns the end of the log.
pub struct LogWriter {
    shared: Arc<Shared>,
    buffer: AlignedBuffer,
    /// Steps taken from the queue and not yet written.
    staged: VecDeque<Queued>,
    /// Live segments; the last is being written. The shared copy follows each write.
    segments: VecDeque<Live>,
    /// What the stream says up to its written end: the next preamble repeats it.
    written: Preamble,
    /// The next segment's epoch.
    next_epoch: u32,
    /// The last entry index written.
    last_index: Option<u64>,
    metrics: WriteMetrics,
}

struct WriteMetrics {
    sync_seconds: Histogram,
    group_records: Histogram,
    bytes: Counter,
    runway: Gauge,
}

impl WriteMetrics {
    fn new() -> Self {
        Self {
            sync_seconds: histogram!("wal_sync_seconds"),
            group_records: histogram!("wal_write_records"),
            bytes: counter!("wal_written_bytes_total"),
            runway: gauge!("wal_runway_bytes"),
        }
    }
}

/// What a write leaves to do once it is durable.
#[derive(Default)]
struct Written {
    groups: Vec<GroupRef>,
    /// Cuts and purges, each after this many of `groups`.
    changes: Vec<(usize, Change)>,
    dones: Vec<Done>,
    purged: bool,
    /// Sequence of the last step.
    sequence: u64,
    /// Bytes and payload of each step, which leave the queue's account.
    sizes: Vec<(usize, usize)>,
    records: usize,
    /// Bytes on disk, whole blocks.
    bytes: u64,
}

enum Change {
    Cut(u64),
    Purge(u64),
}

impl LogWriter {
    /// A writer that goes on at the end of the last of `segments`.
    pub fn new(
        shared: Arc<Shared>,
        segments: VecDeque<Live>,
        written: Preamble,
        next_epoch: u32,
        last: Option<u64>,
    ) -> Self {
        let buffer = AlignedBuffer::new(shared.options.max_write_bytes);
        let metrics = WriteMetrics::new();
        Self { shared, buffer, staged: VecDeque::new(), segments, written, next_epoch, last_index: last, metrics }
    }

    /// Takes the queue. Answers what to do when nothing is there to be written.
    fn gather(&mut self) -> Option<Turn> {
        let mut state = self.shared.lock();
        if let Some(error) = state.ended.clone() {
            drop(state);
            let taken = self.take_dones();
            self.shared.end(error, taken);
            return Some(Turn::Stop);
        }
        self.staged.extend(state.queue.drain(..));
        let committed = state.committed.filter(|committed| self.may_note(*committed));
        if self.staged.is_empty() && !state.closing {
            return Some(Turn::Idle);
        }
        if let Some(committed) = committed {
            self.staged.push_front(Queued { op: Some(Op::Committed(committed)), done: None, sequence: 0 });
        }
        if self.staged.is_empty() {
            return Some(Turn::Stop);
        }
        None
    }

    /// A commit mark rides along once it is news and the entry it names is written.
    fn may_note(&self, committed: LogId) -> bool {
        let known = self.last_index.is_some_and(|last| committed.index <= last);
        let staged = self.staged.front().is_some_and(|front| matches!(front.op, Some(Op::Committed(_))));
        known && !staged && self.written.committed != Some(committed)
    }

    fn take_dones(&mut self) -> Vec<Done> {
        self.staged.drain(..).filter_map(|queued| queued.done).collect()
    }

    fn fail(&mut self, cause: String) -> Turn {
        let taken = self.take_dones();
        self.shared.fail(&cause, taken);
        Turn::Stop
    }

    /// Bytes left in the segment being written.
    fn left(&self) -> usize {
        let left = |segment: &Live| segment.file.bytes().saturating_sub(u64::from(segment.end));
        self.segments.back().map_or(0, |segment| usize::try_from(left(segment)).unwrap_or(usize::MAX))
    }

    /// Opens the next segment. Its preamble is a write of its own, so that an epoch is on disk before any record of it.
    fn rotate(&mut self, writer: &mut dyn Writer) -> Result<Option<()>, String> {
        let Some(file) = self.take_spare()? else { return Ok(None) };
        let epoch = self.next_epoch;
        self.next_epoch = epoch.checked_add(1).ok_or("segment epochs are used up")?;
        self.written.segment_bytes = file.bytes();
        self.written.oldest = self.segments.front().map_or(epoch, |oldest| oldest.epoch);
        self.written.previous_end =
            self.segments.back().map_or(Position::default(), |segment| Position::new(segment.epoch, segment.end));
        let block = self.buffer.get_mut(..BLOCK).ok_or("write buffer below one block")?;
        self.written.encode(self.shared.options.cluster, epoch, block).ok_or("the preamble does not fit its block")?;
        let describe = |error| format!("write of {} at offset 0: {error}", file.name());
        let took = writer.write(file.as_ref(), block, 0).map_err(describe)?;
        self.metrics.sync_seconds.record(took);
        let live = Live { epoch, file, greatest: None, end: BLOCK as u32 };
        self.segments.push_back(live.clone());
        let mut state = self.shared.lock();
        state.room.active_left = live.file.bytes() - BLOCK as u64;
        state.segments.push_back(live);
        drop(state);
        self.shared.wake_preparer();
        Ok(Some(()))
    }

    /// The next prepared file; `None` while the preparer is still at it.
    fn take_spare(&self) -> Result<Option<Arc<dyn crate::disk::DiskFile>>, String> {
        let mut state = self.shared.lock();
        if !state.spares.is_empty() {
            return Ok(Some(state.spares.remove(0)));
        }
        if let Some(refused) = &state.room.refused {
            return Err(format!("the log ran through its reserve: {refused}"));
        }
        if !state.room.may_create() {
            return Err("the log ran through its reserve: the configured size is reached".into());
        }
        Ok(None)
    }

    /// Encodes the leading steps into the buffer. Answers the bytes to write.
    fn encode(&mut self, groups: &[usize], start: Position, written: &mut Written) -> Result<usize, String> {
        let mut at = 0;
        for count in groups {
            let mut len = 0;
            let mut held: Option<GroupRef> = None;
            let records = self.staged.iter().take(*count).filter(|queued| queued.op.is_some()).count();
            let mut record = 0;
            for _ in 0..*count {
                let Some(Queued { op, done, sequence }) = self.staged.pop_front() else { break };
                written.dones.extend(done);
                written.sequence = written.sequence.max(sequence);
                let Some(op) = op else { continue };
                if sequence != 0 {
                    written.sizes.push((op.encoded_len(), op.payload_len()));
                }
                record += 1;
                let position = Position(start.0 + (at + len) as u64);
                let place = Place {
                    cluster: self.shared.options.cluster,
                    position,
                    durable_to: start,
                    first: record == 1,
                    last: record == records,
                };
                let body = self.body(op, written, &mut held, Position(start.0 + at as u64));
                let out = self.buffer.get_mut(at + len..).unwrap_or_default();
                len += record::encode(place, &body, out).ok_or("the write buffer is too small")?;
                written.records += 1;
            }
            let end = at + blocks(len);
            self.buffer.get_mut(at + len..end).ok_or("the write buffer is too small")?.fill(0);
            if let Some(mut held) = held {
                held.len = len as u32;
                written.groups.push(held);
            }
            at = end;
        }
        Ok(at)
    }

    /// The record of a step, and what it changes.
    fn body(&mut self, op: Op, written: &mut Written, held: &mut Option<GroupRef>, group: Position) -> Body {
        match op {
            Op::Entry(entry) => {
                let index = entry.id.index;
                held.get_or_insert(GroupRef { first: index, count: 0, position: group, len: 0 }).count += 1;
                self.last_index = Some(index);
                if let Some(active) = self.segments.back_mut() {
                    active.greatest = active.greatest.max(Some(index));
                }
                Body::Entry(entry)
            }
            Op::Vote(vote) => {
                self.written.vote = Some(vote.clone());
                Body::Vote(vote)
            }
            Op::Committed(id) => {
                self.written.committed = Some(id);
                Body::Committed(id)
            }
            Op::Cut(last) => {
                self.last_index = self.last_index.min(last);
                let next = last.map_or(0, |last| last.saturating_add(1));
                written.changes.push((written.groups.len(), Change::Cut(next)));
                Body::Cut(last)
            }
            Op::Purge(up_to) => {
                self.written.purged = self.written.purged.max(Some(up_to));
                self.last_index = self.last_index.max(Some(up_to.index));
                written.purged = true;
                written.changes.push((written.groups.len(), Change::Purge(up_to.index)));
                let oldest = self.segments.iter().take(self.segments.len().saturating_sub(1));
                let purged = self.written.purged.map(|purged| purged.index);
                let needed = oldest.skip_while(|segment| segment.greatest <= purged).map(|segment| segment.epoch);
                let active = self.segments.back().map_or(0, |segment| segment.epoch);
                Body::Purge { up_to, oldest: needed.min().unwrap_or(active) }
            }
        }
    }

    /// The write is durable: says so, in order.
    fn complete(&mut self, written: Written) {
        let shared = self.shared.clone();
        let mut state = shared.lock();
        let mut changes = written.changes.into_iter().peekable();
        for (i, group) in written.groups.iter().enumerate() {
            while let Some((_, change)) = changes.next_if(|(after, _)| *after <= i) {
                apply(&mut state, change);
            }
            state.index.push(*group);
        }
        changes.for_each(|(_, change)| apply(&mut state, change));
        state.tail.evict(written.sequence);
        for (encoded, payload) in written.sizes {
            state.room.unqueue(encoded, payload);
        }
        if let (Some(live), Some(active)) = (state.segments.back_mut(), self.segments.back()) {
            live.clone_from(active);
        }
        state.written += written.bytes;
        state.room.active_left = self.left() as u64;
        let purged = written.purged && self.release(&mut state);
        let runway = state.room.runway(state.spares.len());
        drop(state);
        self.metrics.group_records.record(written.records as f64);
        self.metrics.runway.set(runway as f64);
        written.dones.into_iter().for_each(|done| done(Ok(())));
        if purged {
            self.shared.wake_preparer();
        }
    }

    /// Frees segments that hold nothing above the purge, now that the purge is durable.
    fn release(&mut self, state: &mut State) -> bool {
        let purged = self.written.purged.map(|purged| purged.index);
        let before = self.segments.len();
        while self.segments.len() > 1 && self.segments.front().is_some_and(|segment| segment.greatest <= purged) {
            self.segments.pop_front();
            let Some(segment) = state.segments.pop_front() else { break };
            let fits = segment.file.bytes() == self.shared.options.segment_bytes;
            let list = if fits { &mut state.spares } else { &mut state.surplus };
            list.push(segment.file);
        }
        let State { room, spares, surplus, .. } = state;
        let unwanted = room.unwanted(before, self.segments.len(), spares.len(), self.shared.options.ready_files());
        surplus.extend(spares.drain(..unwanted.min(spares.len())));
        before != self.segments.len()
    }
}

fn apply(state: &mut State, change: Change) {
    match change {
        Change::Cut(next) => state.index.cut(next),
        Change::Purge(up_to) => state.index.purge(up_to),
    }
}

impl Worker for LogWriter {
    fn turn(&mut self, writer: &mut dyn Writer) -> Turn {
        if let Some(turn) = self.gather() {
            return turn;
        }
        let room = self.left().min(self.buffer.len());
        let shape = |queued: &Queued| Shape {
            len: queued.op.as_ref().map_or(0, Op::encoded_len),
            opens: matches!(queued.op, Some(Op::Cut(_) | Op::Purge(_))),
        };
        let groups = plan(self.staged.iter().map(shape), room);
        if groups.is_empty() {
            return match self.rotate(writer) {
                Ok(Some(())) => Turn::Again,
                Ok(None) => {
                    self.shared.wake_preparer(); // which wakes this worker once a file is there
                    Turn::Idle
                }
                Err(cause) => self.fail(cause),
            };
        }
        let Some((file, start)) =
            self.segments.back().map(|active| (active.file.clone(), Position::new(active.epoch, active.end)))
        else {
            return self.fail("no segment is open".into());
        };
        let mut written = Written::default();
        let result = self.encode(&groups, start, &mut written).and_then(|len| {
            if len == 0 {
                return Ok((0, Duration::ZERO)); // only empty calls, which wait for those before them
            }
            let bytes = self.buffer.get(..len).unwrap_or_default();
            let describe = |error| format!("write of {} at offset {}: {error}", file.name(), start.offset());
            writer.write(file.as_ref(), bytes, u64::from(start.offset())).map(|took| (len, took)).map_err(describe)
        });
        match result {
            Ok((len, took)) => {
                self.metrics.sync_seconds.record(took);
                self.metrics.bytes.increment(len as u64);
                written.bytes = len as u64;
                if let Some(active) = self.segments.back_mut() {
                    active.end += len as u32; // a segment's length is below 4 GiB, checked when the log opens
                }
                self.complete(written);
                Turn::Again
            }
            Err(cause) => {
                let mut taken = written.dones;
                taken.extend(self.take_dones());
                self.shared.fail(&cause, taken);
                Turn::Stop
            }
        }
    }
}

impl Drop for LogWriter {
    /// However the worker ends, nobody waits for ever.
    fn drop(&mut self) {
        let taken = self.take_dones();
        let closed = self.shared.lock().closing;
        let error = if closed {
            crate::Error::Closed
        } else {
            crate::Error::Failed { cause: "the log's worker is gone".into() }
        };
        self.shared.end(error, taken);
    }
}
