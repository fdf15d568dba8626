//! Transactions: own writes over a snapshot, row locks, savepoints; committing is in `txn/commit`.

use std::sync::Arc;

use bytes::Bytes;
use rustc_hash::FxHashSet;
use smallvec::SmallVec;

use crate::{
    Concurrency, Isolation, LockMode, LockWait, Scan, ScanOptions, TxnOptions,
    error::{Error, Result},
    format::batch::Guard,
    inner::Inner,
    keyspace::Keyspace,
    limits::{BATCH_GUARDS_MAX, VALUE_BYTES_MAX},
    lock::LockSet,
    outcomes::named,
    pending::Order,
    scan::{KeyRange, Overlay, check_bounds},
    snapshot::PinnedSeq,
    types::Op,
};

mod commit;
mod writes;

use writes::WriteSet;

/// A savepoint inside a transaction: statement rollback and SQL SAVEPOINT.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Savepoint(u64);

/// What a serializable transaction read.
#[derive(Default)]
struct ReadSet {
    keys: FxHashSet<Bytes>,
    ranges: Vec<KeyRange>,
}

/// A transaction. Rolled back (and its locks released) on drop.
///
/// Optimistic transactions (the default) read one snapshot, taken at the first read; committing fails with
/// [`Error::Conflict`] if a key they write was committed by another since (snapshot isolation), or, when serializable,
/// if anything they read was. A transaction that only writes conflicts with nothing.
pub struct Txn {
    inner: Arc<Inner>,
    options: TxnOptions,
    term: u64,
    pin: Option<PinnedSeq>,
    writes: WriteSet,
    locks: LockSet,
    /// The newest pending batch that a current read saw.
    seen: Order,
    reads: Option<ReadSet>,
    guards: Vec<Guard>,
    /// The id that the caller gave it.
    id: Option<u128>,
    /// Keyspaces written to.
    keyspaces: SmallVec<[Keyspace; 2]>,
    dead: Option<Error>,
}

impl Txn {
    pub(crate) fn new(inner: &Arc<Inner>, options: TxnOptions) -> Result<Self> {
        inner.check()?;
        let serializable = options.isolation == Isolation::Serializable;
        if serializable && options.concurrency == Concurrency::Pessimistic {
            return Err(Error::Invalid("serializable transactions are optimistic".into()));
        }
        Ok(Self {
            term: inner.term(),
            pin: None,
            writes: WriteSet::new(inner.options.max_txn_bytes),
            locks: LockSet::new(&inner.locks, inner.options.max_txn_locks),
            seen: 0,
            reads: serializable.then(ReadSet::default),
            guards: Vec::new(),
            id: None,
            keyspaces: SmallVec::new(),
            dead: None,
            inner: Arc::clone(inner),
            options,
        })
    }

    fn check(&self) -> Result<()> {
        match &self.dead {
            Some(error) => Err(error.clone()),
            None => self.inner.check(),
        }
    }

    fn pin(&mut self) -> &PinnedSeq {
        let snapshots = &self.inner.snapshots;
        self.pin.get_or_insert_with(|| snapshots.pin())
    }

    /// Consistent read at the snapshot (taken at the first consistent read), own writes included.
    ///
    /// # Errors
    /// `Conflict` if the snapshot became too old; `Store` or `Corrupt` if a page can't be read.
    pub async fn get(&mut self, keyspace: &Keyspace, key: &[u8]) -> Result<Option<Bytes>> {
        self.check()?;
        let key = keyspace.key(key)?;
        if let Some(op) = self.writes.get(&key) {
            return Ok(op.into_value());
        }
        let at = self.pin().at();
        let value = self.inner.get_pinned(&key, at).await?;
        if let Some(reads) = &mut self.reads {
            reads.keys.insert(key);
        }
        Ok(value)
    }

    /// Consistent scan, own writes up to now included; later own writes are not seen.
    ///
    /// # Errors
    /// `TooLarge` for bounds over the key limit.
    pub fn scan(&mut self, keyspace: &Keyspace, options: ScanOptions) -> Result<Scan> {
        self.check()?;
        check_bounds(&options)?;
        let range = KeyRange::new(keyspace, &options);
        if let Some(reads) = &mut self.reads {
            reads.ranges.push(range.clone());
        }
        let pin = self.pin().clone();
        let overlay = self.own(&range);
        Ok(Scan::new(&self.inner, pin, range, &options, overlay))
    }

    fn own(&self, range: &KeyRange) -> Overlay {
        if range.is_empty() || self.writes.is_empty() {
            return Overlay::default();
        }
        let own = self.writes.range(range.bounds());
        Overlay { own, own_ranges: self.writes.ranges().to_vec(), ..Overlay::default() }
    }

    /// Current read: newest committed (pending overlay included) or own value, whatever the snapshot. Lock first.
    ///
    /// # Errors
    /// `Store` or `Corrupt` if a page can't be read.
    pub async fn get_current(&mut self, keyspace: &Keyspace, key: &[u8]) -> Result<Option<Bytes>> {
        self.check()?;
        let key = keyspace.key(key)?;
        self.current(&key).await
    }

    async fn current(&mut self, key: &Bytes) -> Result<Option<Bytes>> {
        if let Some(op) = self.writes.get(key) {
            return Ok(op.into_value());
        }
        if let Some((order, op)) = self.inner.pending.get(key) {
            self.seen = self.seen.max(order);
            return Ok(op.into_value());
        }
        Ok(self.inner.get_newest(key).await?.and_then(|(_, op)| op.into_value()))
    }

    /// Current scan at the moment of the call, own writes included. Rows are not locked: lock each, then `get_current`.
    ///
    /// # Errors
    /// `TooLarge` for bounds over the key limit.
    pub fn scan_current(&mut self, keyspace: &Keyspace, options: ScanOptions) -> Result<Scan> {
        self.check()?;
        check_bounds(&options)?;
        let range = KeyRange::new(keyspace, &options);
        if range.is_empty() {
            return Ok(Scan::empty());
        }
        let mut overlay = self.own(&range);
        // The overlay first: what left it meanwhile is visible by then.
        overlay.pending = self.inner.pending.range(range.bounds());
        self.seen = self.seen.max(overlay.pending.order);
        let pin = self.inner.snapshots.pin();
        Ok(Scan::new(&self.inner, pin, range, &options, overlay))
    }

    /// Takes a row lock, also on an absent key. Held to the end of the transaction.
    ///
    /// # Errors
    /// `LockTimeout` and `WouldBlock` leave the transaction as it is; `Deadlock` has rolled it back; `TooLarge` if it
    /// holds too many locks.
    pub async fn lock(&mut self, keyspace: &Keyspace, key: &[u8], mode: LockMode, wait: LockWait) -> Result<()> {
        self.check()?;
        let key = keyspace.key(key)?;
        self.lock_key(key, mode, wait).await
    }

    async fn lock_key(&mut self, key: Bytes, mode: LockMode, wait: LockWait) -> Result<()> {
        self.inner.check_term(self.term)?;
        let timeout = (wait == LockWait::Timeout).then_some(self.options.lock_wait_timeout);
        let Self { inner, locks, term, .. } = self;
        let locked = tokio::select! {
            biased;
            locked = locks.lock(key, mode, timeout) => locked,
            // Whoever holds it may never end once this node is deposed.
            () = inner.deposed(*term) => inner.check_term(*term),
        };
        if locked == Err(Error::Deadlock) {
            self.end(Error::Deadlock);
        }
        locked
    }

    /// Lock exclusively (waiting) and read currently, in one call: the hot path of UPDATE and DELETE by key.
    ///
    /// # Errors
    /// As [`Self::lock`] and [`Self::get_current`].
    pub async fn get_for_update(&mut self, keyspace: &Keyspace, key: &[u8]) -> Result<Option<Bytes>> {
        self.check()?;
        let key = keyspace.key(key)?;
        self.lock_key(key.clone(), LockMode::Exclusive, LockWait::Timeout).await?;
        self.current(&key).await
    }

    /// Buffers a write. In a pessimistic transaction the key must be locked exclusively already (debug-asserted).
    ///
    /// # Errors
    /// `TooLarge` for the key, the value or the transaction; `Invalid` if the keyspace was dropped.
    pub fn put(&mut self, keyspace: &Keyspace, key: impl Into<Bytes>, value: impl Into<Bytes>) -> Result<()> {
        let value = value.into();
        if value.len() > VALUE_BYTES_MAX {
            return Err(Error::TooLarge { what: "value bytes", limit: VALUE_BYTES_MAX as u64 });
        }
        self.write(keyspace, &key.into(), Op::Put(value))
    }

    /// Buffers a delete; otherwise as [`Self::put`].
    ///
    /// # Errors
    /// As [`Self::put`].
    pub fn delete(&mut self, keyspace: &Keyspace, key: impl Into<Bytes>) -> Result<()> {
        self.write(keyspace, &key.into(), Op::Delete)
    }

    fn write(&mut self, keyspace: &Keyspace, key: &[u8], op: Op) -> Result<()> {
        self.check()?;
        self.writes_to(keyspace)?;
        let key = keyspace.key(key)?;
        debug_assert!(
            self.options.concurrency == Concurrency::Optimistic || self.locks.holds_exclusive(&key),
            "a pessimistic transaction writes {key:?} without its exclusive lock"
        );
        self.writes.write(key, op)
    }

    fn writes_to(&mut self, keyspace: &Keyspace) -> Result<()> {
        keyspace.check()?;
        if !self.keyspaces.iter().any(|known| known.id() == keyspace.id()) {
            self.keyspaces.push(keyspace.clone());
        }
        Ok(())
    }

    /// Deletes a whole key range (DROP / TRUNCATE), `start <= key < end`: one operation whatever the size. A pessimistic
    /// caller keeps others out of the range by a lock of its own (a table's guard).
    ///
    /// # Errors
    /// As [`Self::put`]; `Invalid` if the range is empty.
    pub fn delete_range(&mut self, keyspace: &Keyspace, start: impl Into<Bytes>, end: impl Into<Bytes>) -> Result<()> {
        self.check()?;
        self.writes_to(keyspace)?;
        let (start, end) = (keyspace.key(&start.into())?, keyspace.key(&end.into())?);
        if start >= end {
            return Err(Error::Invalid("a range delete whose start is not below its end".into()));
        }
        self.writes.delete_range(start, end)
    }

    /// Takes the snapshot of consistent reads now, if it was not taken yet.
    pub fn take_snapshot(&mut self) {
        self.pin();
    }

    /// READ COMMITTED: the next consistent read takes a new snapshot.
    pub fn refresh_snapshot(&mut self) {
        self.pin = None;
    }

    /// A point that [`Self::rollback_to`] returns to.
    pub fn savepoint(&mut self) -> Savepoint {
        Savepoint(self.writes.savepoint())
    }

    /// Undoes the writes since; locks stay, as in InnoDB.
    pub fn rollback_to(&mut self, savepoint: Savepoint) {
        self.writes.rollback_to(savepoint.0);
    }

    /// Rule 11: the commit is rejected with `Conflict` if the guard's version is not `version` when it gets its place.
    /// A guard that was never set has version 0.
    pub fn check_guard(&mut self, guard: u64, version: u64) {
        let check = Guard { guard, version, set: false };
        if !self.guards.contains(&check) {
            self.guards.push(check);
        }
    }

    /// Rule 11: sets a guard's version (DDL).
    pub fn set_guard(&mut self, guard: u64, version: u64) {
        self.guards.push(Guard { guard, version, set: true });
    }

    /// Names the transaction, so that its outcome can be asked for by this id ([`crate::Db::txn_status`]) when the answer to
    /// the commit was lost, and so that it commits only once however often it is tried. The highest bit is not looked at.
    /// Use ids that are unique for all clients, such as UUIDs.
    pub fn set_id(&mut self, id: u128) {
        self.id = Some(named(id));
    }

    /// Rule 7: waits until everything that current reads of this transaction saw has been applied. Call before a
    /// result derived from current reads leaves the server. Returns at once (no await) in the common case.
    ///
    /// # Errors
    /// `Conflict` if something it read was not committed after all; `Closed`.
    pub async fn settle(&mut self) -> Result<()> {
        if self.seen == 0 {
            return Ok(());
        }
        self.inner.pending.wait(self.seen).await?;
        self.inner.pending.check_seen(self.seen)
    }

    /// Whether it has buffered writes.
    pub fn has_writes(&self) -> bool {
        !self.writes.is_empty()
    }

    /// How many rows it has locked.
    pub fn locks_held(&self) -> usize {
        self.locks.len()
    }

    /// Forgets everything and releases the locks.
    pub fn rollback(self) {}

    /// Rolled back by the engine: every later call answers `cause`.
    fn end(&mut self, cause: Error) {
        self.writes = WriteSet::new(0);
        self.locks.release();
        self.pin = None;
        self.dead = Some(cause);
    }

    fn guards_fit(&self) -> Result<()> {
        if self.guards.len() > BATCH_GUARDS_MAX {
            return Err(Error::TooLarge { what: "guards of a transaction", limit: BATCH_GUARDS_MAX as u64 });
        }
        Ok(())
    }
}
