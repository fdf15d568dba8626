//! Committing a transaction: lock what it writes, validate, take a place in the log order, release, wait (rule 7).

use bytes::Bytes;
use tokio::sync::oneshot;

use super::Txn;
use crate::{
    Concurrency, Durability, LockMode, LockWait,
    commit::Submission,
    error::{Error, Result},
    format::batch::{BATCH_BYTES_MAX, BatchHeader, Payload, encode_batch},
    inner::Inner,
    limits::PART_BYTES_MAX,
    pending::{Order, Outcome, PendingBatch},
    scan::KeyRange,
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
        inner.admit().await?;
        let mut unseen = None;
        if self.options.concurrency == Concurrency::Optimistic {
            self.lock_sets().await?;
            unseen = Some(self.validate().await?);
        }
        let outcome = self.submit(&inner, unseen).await?;
        // The batch has its place: whoever locks these rows next reads it from the overlay.
        self.locks.release();
        self.pin = None;
        if self.options.durability == Durability::Queued {
            return Ok(());
        }
        let seq = outcome.await.unwrap_or_else(|_| Err(Error::Unknown("the database was closed".into())))?;
        if self.options.durability == Durability::Bucket {
            inner.wait_for_bucket(seq).await?;
        }
        Ok(())
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
    async fn submit(&mut self, inner: &Inner, looked: Option<Order>) -> Result<oneshot::Receiver<Outcome>> {
        let watched = if looked.is_some() && self.pin.is_some() { self.watched() } else { Vec::new() };
        let txn = inner.entropy.next_u128();
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
            let (sent, commit) = Parts::send(inner, txn, batch).await?;
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
        if let Some(mut parts) = parts {
            parts.open = false;
        }
        Ok(outcome)
    }
}

fn conflict(inner: &Inner) -> Error {
    inner.counters.conflicts.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    Error::Conflict("another transaction committed first".into())
}

/// The parts of a big batch that are in the log; without a commit they are aborted.
struct Parts<'a> {
    inner: &'a Inner,
    txn: u128,
    open: bool,
    _permit: tokio::sync::SemaphorePermit<'a>,
}

impl<'a> Parts<'a> {
    /// Puts a batch into the log in parts; answers the payload that commits it.
    async fn send(inner: &'a Inner, txn: u128, batch: Bytes) -> Result<(Self, Bytes)> {
        let permit = inner.big.acquire().await.map_err(|_| Error::Closed("the database was closed".into()))?;
        let parts = Self { inner, txn, open: true, _permit: permit };
        let (total, crc) = (batch.len(), crc32fast::hash(&batch));
        let mut number = 0;
        let mut before: Option<oneshot::Receiver<Result<_>>> = None;
        let mut rest = batch;
        while !rest.is_empty() {
            let bytes = rest.split_to(rest.len().min(PART_BYTES_MAX));
            let placed = inner.queue.propose(inner, Payload::Part { txn, number, bytes }.encode(), || ())?;
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
}

async fn arrived(part: oneshot::Receiver<Result<holdfast_wal::LogId>>) -> Result<()> {
    part.await.map_err(|_| Error::Closed("the database was closed".into()))?.map(|_| ())
}

impl Drop for Parts<'_> {
    fn drop(&mut self) {
        if self.open {
            // If even this finds no place the database is closed, or a leader change aborts the parts.
            let _ = self.inner.queue.propose(self.inner, Payload::Abort { txn: self.txn }.encode(), || ());
        }
    }
}
