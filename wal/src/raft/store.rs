//! openraft's log storage, over [`Log`].

use std::{fmt::Debug, io, ops::Bound, ops::RangeBounds, sync::Arc};

use futures::{Stream, stream};
use openraft::{
    EntryPayload, OptionalSend, RaftLogReader,
    entry::RaftEntry as _,
    storage::{IOFlushed, LogState, RaftLogStorage},
};
use tokio::sync::oneshot;

use super::{
    codec::{decode_vote, encode_vote},
    health::Health,
    membership,
    pace::Pace,
    types::{Data, RaftEntry, RaftLogId, RaftVote, TypeConfig, from_raft, to_raft},
};
use crate::{Entry, Error, Log, LogEntry, Payload};

/// Bytes of payload read at a time, for apply and for replication.
const READ_BYTES: usize = 4 << 20;

const BLANK: u8 = 0;
const NORMAL: u8 = 1;
const MEMBERSHIP: u8 = 2;

/// The log as openraft sees it; clones are its readers. Every error marks the node failed, with the cause, before openraft
/// hears of it.
#[derive(Clone)]
pub(crate) struct Store {
    log: Log,
    health: Arc<Health>,
    pace: Arc<Pace>,
}

impl Store {
    pub(crate) fn new(log: Log, health: Arc<Health>, pace: Arc<Pace>) -> Self {
        Self { log, health, pace }
    }

    fn fail(&self, error: &Error) -> io::Error {
        fail(&self.health, error)
    }

    /// Runs a log call and waits until it is durable.
    async fn durable(&self, call: impl FnOnce(Done)) -> io::Result<()> {
        let (tx, rx) = oneshot::channel();
        call(Box::new(move |result| {
            let _ = tx.send(result);
        }));
        let result = rx.await.unwrap_or(Err(Error::Closed));
        result.map_err(|e| self.fail(&e))
    }

    /// Entries of our index range `start..end`, at least one, never with a hole.
    fn read(&self, start: u64, end: u64) -> io::Result<Vec<RaftEntry>> {
        let entries = self.log.read(start..end, READ_BYTES).map_err(|e| self.fail(&e))?;
        if entries.is_empty() {
            return Err(self.fail(&Error::BeyondEnd { index: start, end: start }));
        }
        entries.into_iter().map(|e| from_log(e).map_err(|e| self.fail(&e))).collect()
    }
}

type Done = Box<dyn FnOnce(Result<(), Error>) + Send>;

fn fail(health: &Health, error: &Error) -> io::Error {
    health.fail(error);
    io::Error::other(error.to_string())
}

fn to_log(entry: RaftEntry) -> LogEntry {
    let id = from_raft(&entry.log_id);
    let (kind, payload) = match entry.payload {
        EntryPayload::Blank => (BLANK, bytes::Bytes::new()),
        EntryPayload::Normal(Data(bytes)) => (NORMAL, bytes),
        EntryPayload::Membership(m) => (MEMBERSHIP, membership::encode(&m)),
    };
    LogEntry { id, kind, payload }
}

/// An entry of the log as openraft's. The record's checksum held, so a bad kind or membership is a bug or a newer release.
fn from_log(entry: LogEntry) -> Result<RaftEntry, Error> {
    let Entry { id, payload } = to_entry(entry)?;
    let payload = match payload {
        Payload::Blank => EntryPayload::Blank,
        Payload::Normal(bytes) => EntryPayload::Normal(Data(bytes)),
        Payload::Membership(bytes) => {
            let decoded = membership::decode(bytes).map_err(|e| corrupt(id.index, format!("membership: {e}")));
            EntryPayload::Membership(decoded?)
        }
    };
    Ok(RaftEntry::new(to_raft(id), payload))
}

/// A committed entry as the machine sees it.
pub(crate) fn to_entry(entry: LogEntry) -> Result<Entry, Error> {
    let payload = match entry.kind {
        BLANK => Payload::Blank,
        NORMAL => Payload::Normal(entry.payload),
        MEMBERSHIP => Payload::Membership(entry.payload),
        other => return Err(corrupt(entry.id.index, format!("entry kind {other} is not known to this release"))),
    };
    Ok(Entry { id: entry.id, payload })
}

fn corrupt(index: u64, what: String) -> Error {
    Error::Corrupt { file: format!("log entry {index}"), offset: 0, what }
}

/// openraft's range, as our indexes, cut to what the log holds.
fn held(log: &Log, range: &impl RangeBounds<u64>) -> Option<(u64, u64)> {
    let state = log.state();
    let (first, last) = (state.first?.index, state.last?.index);
    let start = match range.start_bound() {
        Bound::Included(i) => i.saturating_add(1),
        Bound::Excluded(i) => i.saturating_add(2),
        Bound::Unbounded => first,
    };
    let end = match range.end_bound() {
        Bound::Included(i) => i.saturating_add(2),
        Bound::Excluded(i) => i.saturating_add(1),
        Bound::Unbounded => last + 1,
    };
    let (start, end) = (start.max(first), end.min(last + 1));
    (start < end).then_some((start, end))
}

impl RaftLogReader<TypeConfig> for Store {
    /// A window of the range at a time, so that replaying a long log does not hold it in memory.
    async fn entries_stream<RB>(&mut self, range: RB) -> impl Stream<Item = io::Result<RaftEntry>> + OptionalSend
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let (start, end) = held(&self.log, &range).unwrap_or((1, 1));
        let store = self.clone();
        let window = Vec::new().into_iter();
        stream::unfold((store, window, start, end), |(store, mut window, next, end)| async move {
            if let Some(entry) = window.next() {
                return Some((Ok(entry), (store, window, next, end)));
            }
            if next >= end {
                return None;
            }
            match store.read(next, end) {
                Ok(entries) => {
                    let next = next + entries.len() as u64;
                    window = entries.into_iter();
                    let entry = window.next()?;
                    Some((Ok(entry), (store, window, next, end)))
                }
                Err(e) => Some((Err(e), (store, window, end, end))),
            }
        })
    }

    async fn try_get_log_entries<RB>(&mut self, range: RB) -> io::Result<Vec<RaftEntry>>
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let Some((mut next, end)) = held(&self.log, &range) else { return Ok(Vec::new()) };
        let mut all = Vec::new();
        while next < end {
            let entries = self.read(next, end)?;
            next += entries.len() as u64;
            all.extend(entries);
        }
        Ok(all)
    }

    /// For replication: a prefix of at most [`READ_BYTES`]. Never empty: openraft keeps what it still has to send.
    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<RaftEntry>> {
        if start >= end { Ok(Vec::new()) } else { self.read(start + 1, end + 1) }
    }

    async fn read_vote(&mut self) -> io::Result<Option<RaftVote>> {
        let Some(bytes) = self.log.state().vote else { return Ok(None) };
        decode_vote(bytes)
            .map(Some)
            .map_err(|e| self.fail(&Error::Corrupt { file: "the log's vote".into(), offset: 0, what: e.to_string() }))
    }
}

impl RaftLogStorage<TypeConfig> for Store {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> io::Result<LogState<TypeConfig>> {
        let state = self.log.state();
        Ok(LogState {
            last_purged_log_id: state.purged.map(to_raft),
            last_log_id: state.last.or(state.purged).map(to_raft),
        })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &RaftVote) -> io::Result<()> {
        let bytes = encode_vote(vote);
        self.durable(|done| self.log.save_vote(bytes, done)).await
    }

    /// No sync: it rides on the next write.
    async fn save_committed(&mut self, committed: Option<RaftLogId>) -> io::Result<()> {
        self.log.save_committed(committed.as_ref().map(from_raft));
        Ok(())
    }

    async fn read_committed(&mut self) -> io::Result<Option<RaftLogId>> {
        let state = self.log.state();
        // Never beyond the log: a mark may outlive a tail that was cut as torn.
        Ok(state.committed.min(state.last.or(state.purged)).map(to_raft))
    }

    /// Readable when this returns; the callback runs once durable, in order.
    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> io::Result<()>
    where
        I: IntoIterator<Item = RaftEntry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries = entries.into_iter().map(to_log).collect();
        let health = self.health.clone();
        let done = move |result: Result<(), Error>| callback.io_completed(result.map_err(|e| fail(&health, &e)));
        if self.pace.is_calm() {
            self.log.append_here(entries, done);
        } else {
            self.log.append(entries, done);
        }
        Ok(())
    }

    async fn truncate_after(&mut self, last: Option<RaftLogId>) -> io::Result<()> {
        let last = last.as_ref().map(|id| from_raft(id).index);
        self.durable(|done| self.log.truncate_after(last, done)).await
    }

    /// Returns at once: the log itself keeps the segments until the purge record is durable, and a purge that a crash
    /// forgets is made again.
    async fn purge(&mut self, id: RaftLogId) -> io::Result<()> {
        let health = self.health.clone();
        self.log.purge(from_raft(&id), move |result| {
            if let Err(e) = result {
                health.fail(&e);
            }
        });
        Ok(())
    }
}
