//! Committing a transaction: lock what it writes, validate, take a place in the log order, release, wait (rule 7).

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::oneshot;

use super::Txn;
use crate::{
    Concurrency, Durability, LockMode, LockWait,
    commit::Submission,
    error::{Error, Result},
    format::batch::{BATCH_BYTES_MAX, BatchHeader, Payload, encode_batch},
    inner::{BigTurn, Inner},
    limits::PART_BYTES_MAX,
    outcomes::{Claim, rejected_before, unnamed},
    pending::{Order, Outcome, PendingBatch},
    scan::KeyRange,
    types::CommitSeq,
};

impl Txn {
    /// Commits. If this future is dropped the transaction is either committed or rolled back, never half of it.
    ///
    /// # Errors
    /// `Conflict` if validation failed, `Deadlock` or `LockTimeout` on the locks of an optimistic commit, `Retry` under
    /// overload: nothing was committed. `Unknown`: the database failed while the commit was under way.
    pub async fn commit(mut self) -> Result<()> {
        self.check()?;
        self.guards_fit()?;
        if self.writes.is_empty() && self.guards.iter().all(|guard| !guard.set) {
            return self.settle().await;
        }
        let inner = self.inner.clone();
        let named = self.id.map(|id| Claim::take(&inner, id)).transpose()?;
        let first = self.id.and_then(|id| inner.outcomes.lock().find(id));
        if let Some(first) = first {
            return self.repeated(first).await;
        }
        inner.admit().await?;
        inner.within_fence().await?;
        let mut unseen = None;
        if self.options.concurrency == Concurrency::Optimistic {
            self.lock_sets().await?;
            unseen = Some(self.validate().await?);
        }
        let (outcome, parts) = self.submit(&inner, unseen, named).await?;
        // The batch has its place: whoever locks these rows next reads it from the overlay.
        self.locks.release();
        self.pin = None;
        if self.options.durability == Durability::Queued {
            return Ok(());
        }
        let seq = outcome.await.unwrap_or_else(|_| Err(Error::Unknown("the database was closed".into())))?;
        if let Some(parts) = parts {
            parts.applied();
        }
        inner.within_fence().await.map_err(|error| Error::Unknown(error.to_string()))?;
        self.copied(seq).await
    }

    async fn copied(&self, seq: CommitSeq) -> Result<()> {
        match self.options.durability {
            Durability::Bucket => self.inner.wait_for_copy(seq).await,
            _ => Ok(()),
        }
    }

    /// The outcome of the first transaction of this id (rule 12).
    async fn repeated(&self, first: CommitSeq) -> Result<()> {
        if first == CommitSeq::ZERO { Err(rejected_before()) } else { self.copied(first).await }
    }

    /// Optimistic: locks the write set, and a serializable one's reads, in key order.
    async fn lock_sets(&mut self) -> Result<()> {
        let keys: Vec<Bytes> = self.writes.ops().keys().cloned().collect();
        for key in keys {
            self.lock_key(key, LockMode::Exclusive, LockWait::Timeout).await?;
        }
        let Some(reads) = &self.reads else { return Ok(()) };
        let mut keys: Vec<Bytes> = reads.keys.iter().cloned().collect();
        keys.sort_unstable();
        for key in keys {
            self.lock_key(key, LockMode::Shared, LockWait::Timeout).await?;
        }
        Ok(())
    }

    /// Checks the locked keys and the ranges against everything that has its place; answers the last place looked at.
    async fn validate(&self) -> Result<Order> {
        let inner = &self.inner;
        let looked = inner.pending.last();
        let Some(since) = self.pin.as_ref().map(|pin| pin.at()) else { return Ok(looked) };
        let read = self.reads.iter().flat_map(|reads| &reads.keys);
        for key in self.writes.ops().keys().chain(read) {
            if inner.pending.get(key).is_some() || inner.get_newest(key).await?.is_some_and(|(seq, _)| seq > since) {
                return Err(conflict(inner));
            }
        }
        for range in self.watched() {
            if inner.pending.touches(range.bounds()) || inner.changed_since(&range, since).await? {
                return Err(conflict(inner));
            }
        }
        Ok(looked)
    }

    /// Ranges that nobody else may have changed: those deleted, and those that a serializable transaction scanned.
    fn watched(&self) -> Vec<KeyRange> {
        let deleted = self.writes.ranges().iter().map(|(start, end)| KeyRange::half_open(start, end));
        let scanned =
            self.reads.iter().flat_map(|reads| reads.ranges.iter().filter(|range| !range.is_empty()).cloned());
        deleted.chain(scanned).collect()
    }

    /// Encodes the write set and takes its place. Parts of a big one go ahead.
    async fn submit(
        &mut self,
        inner: &Arc<Inner>,
        looked: Option<Order>,
        named: Option<Claim>,
    ) -> Result<(oneshot::Receiver<Outcome>, Option<Parts>)> {
        let watched = if looked.is_some() && self.pin.is_some() { self.watched() } else { Vec::new() };
        let txn = self.id.unwrap_or_else(|| unnamed(inner.entropy.next_u128()));
        let bytes_hint = self.writes.bytes() as usize;
        let (writes, ranges) = self.writes.take();
        let header = BatchHeader {
            txn,
            term: self.term,
            time: inner.clock.unix_millis(),
            guards: self.guards.clone(),
            ranges: ranges.clone(),
        };
        let batch = encode_batch(&header, writes.iter(), bytes_hint);
        let mut parts = None;
        let bytes = if batch.len() <= BATCH_BYTES_MAX {
            batch
        } else {
            let (sent, commit) = Parts::send(inner, txn, batch, named).await?;
            parts = Some(sent);
            commit
        };
        let submission = Submission {
            batch: PendingBatch { txn, writes, ranges },
            bytes,
            commit: parts.is_some(),
            term: self.term,
            guards: &self.guards,
            keyspaces: &self.keyspaces,
        };
        let outcome = inner.queue.submit(inner, submission, || {
            inner.pending.check_seen(self.seen)?;
            let changed = |range: &KeyRange| inner.pending.touched_after(range.bounds(), looked.unwrap_or_default());
            // Too much happened to tell: say so rather than guess.
            if watched.iter().any(|range| changed(range).unwrap_or(true)) {
                return Err(conflict(inner));
            }
            Ok(())
        })?;
        Ok((outcome, parts))
    }
}

fn conflict(inner: &Inner) -> Error {
    inner.counters.conflicts.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    Error::Conflict("another transaction committed first".into())
}

/// The parts of a big batch that are in the log. Unless their commit is known to be applied they are aborted, which does
/// no harm behind a commit; until then they keep the turn.
struct Parts {
    inner: Arc<Inner>,
    txn: u128,
    /// Gone once nothing is left to be aborted.
    turn: Option<BigTurn>,
}

impl Parts {
    /// Puts a batch into the log in parts; answers the payload that commits it.
    async fn send(inner: &Arc<Inner>, txn: u128, batch: Bytes, named: Option<Claim>) -> Result<(Self, Bytes)> {
        let closed = |_| Error::Closed("the database was closed".into());
        let permit = Arc::clone(&inner.big).acquire_owned().await.map_err(closed)?;
        let parts = Self { inner: Arc::clone(inner), txn, turn: Some(BigTurn::new(permit, named)) };
        let (total, crc) = (batch.len(), crc32fast::hash(&batch));
        let mut number = 0;
        let mut before: Option<oneshot::Receiver<Result<_>>> = None;
        let mut rest = batch;
        while !rest.is_empty() {
            inner.admit().await?;
            let bytes = rest.split_to(rest.len().min(PART_BYTES_MAX));
            let placed = inner.queue.propose(inner, Payload::Part { txn, number, bytes }.encode(), false)?;
            number += 1;
            // One part is on its way while the next is made: no more, so that others get their turns.
            if let Some(before) = before.replace(placed) {
                arrived(before).await?;
            }
        }
        if let Some(last) = before {
            arrived(last).await?;
        }
        let commit = Payload::Commit { txn, parts: number, bytes: total as u64, crc };
        Ok((parts, commit.encode()))
    }

    /// Apply has assembled them.
    fn applied(mut self) {
        self.turn = None;
    }
}

async fn arrived(part: oneshot::Receiver<Result<holdfast_wal::LogId>>) -> Result<()> {
    part.await.map_err(|_| Error::Closed("the database was closed".into()))?.map(|_| ())
}

impl Drop for Parts {
    fn drop(&mut self) {
        if let Some(turn) = self.turn.take() {
            self.inner.aborts.push(self.txn, turn);
        }
    }
}
