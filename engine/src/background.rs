//! Background work of the leader: freezing, flushing, compacting, collecting, and the pressure that writers feel.
//!
//! Two tasks make drafts, one at a time turns a draft into an edit: whoever comes second rebases (rule 1).

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use holdfast_wal::Wal;

use crate::{
    commit::log_error,
    error::{Error, Result},
    format::batch::Payload,
    inner::{Inner, REFUSE},
    read::Frozen,
    tree::{Draft, FlushInput, Source},
};

/// How often pressure is measured and idle work looked for.
const TICK: Duration = Duration::from_millis(100);
/// Longest pause after a failure of the store.
const BACKOFF_MAX: Duration = Duration::from_secs(10);
/// Longest that one commit is slowed down.
const DELAY_MAX_MICROS: u64 = 50_000;

/// What both tasks share.
pub struct Background {
    inner: Arc<Inner>,
    wal: Wal,
    /// Held from a draft's base check to its edit's apply.
    editor: tokio::sync::Mutex<()>,
}

impl Background {
    /// Work on this database.
    pub fn new(inner: Arc<Inner>, wal: Wal) -> Self {
        Self { inner, wal, editor: tokio::sync::Mutex::new(()) }
    }

    /// Freezes and flushes for as long as the database is open.
    pub async fn flush(self: Arc<Self>) {
        let mut backoff = Backoff::default();
        let mut frozen_at = 0;
        while self.inner.check().is_ok() {
            let _ = tokio::time::timeout(TICK, self.inner.work.notified()).await;
            self.measure();
            if self.wants_freeze(frozen_at) {
                frozen_at = self.inner.counters.log_bytes.load(Ordering::Relaxed);
                if let Err(error) = self.propose(Payload::Freeze).await {
                    backoff.wait("freeze", &error).await;
                    continue;
                }
            }
            let frozen = self.inner.read_state().frozen.clone();
            if frozen.is_empty() {
                continue;
            }
            match self.flush_all(&frozen).await {
                Ok(()) => backoff = Backoff::default(),
                Err(error) => backoff.wait("flush", &error).await,
            }
            self.measure();
        }
    }

    /// Compacts and collects for as long as the database is open.
    pub async fn compact(self: Arc<Self>) {
        let mut backoff = Backoff::default();
        let mut flushed = self.inner.flushed.subscribe();
        while self.inner.check().is_ok() {
            match self.compact_once().await {
                Ok(true) => backoff = Backoff::default(),
                Ok(false) => {
                    let _ = tokio::time::timeout(TICK * 10, flushed.changed()).await;
                }
                Err(error) => backoff.wait("compaction", &error).await,
            }
            if let Err(error) = self.inner.tree.collect(false).await {
                backoff.wait("collection of dead objects", &error).await;
            }
        }
    }

    /// Deletes what earlier terms left behind.
    pub async fn sweep(self: Arc<Self>) {
        let mut backoff = Backoff::default();
        while let Err(error) = self.inner.tree.sweep(self.inner.term(), false).await {
            backoff.wait("sweep", &error).await;
        }
    }

    /// Whether the active memtable is full, holds up too much log, or is waited for.
    fn wants_freeze(&self, frozen_at: u64) -> bool {
        let inner = &self.inner;
        let state = inner.read_state();
        if state.active.is_empty() {
            return false;
        }
        let options = &inner.options;
        let log = inner.counters.log_bytes.load(Ordering::Relaxed).saturating_sub(frozen_at);
        let log_max = (options.memtable_bytes as u64 * 4).min(options.log_bytes / 8);
        let newest_frozen = state.frozen.first().map_or(*inner.flushed.borrow(), |frozen| frozen.up_to.index);
        state.active.bytes() >= options.memtable_bytes
            || log >= log_max
            || inner.flush_wanted.load(Ordering::Acquire) > newest_frozen
    }

    async fn propose(&self, payload: Payload) -> Result<()> {
        self.wal.propose(payload.encode()).await.map(|_| ()).map_err(|error| log_error(&error))
    }

    /// Flushes all frozen memtables as one run.
    async fn flush_all(&self, frozen: &[Arc<Frozen>]) -> Result<()> {
        let Some(newest) = frozen.first() else { return Ok(()) };
        let floor = self.inner.snapshots.raise_floor();
        let input = FlushInput {
            term: self.inner.term(),
            sources: frozen.iter().map(|frozen| -> Source { Box::new(frozen.table.items(floor)) }).collect(),
            range_deletes: frozen.iter().rev().flat_map(|frozen| frozen.table.range_deletes()).collect(),
            base: self.inner.tree.version().manifest().id,
            state: newest.state.clone(),
            format_level: newest.format_level,
            up_to: newest.up_to,
            membership: newest.membership.clone(),
            floor,
        };
        let draft = self.inner.tree.flush(input).await?;
        self.edit(draft).await
    }

    /// Makes the next compaction step; `false` if none is due.
    async fn compact_once(&self) -> Result<bool> {
        let floor = self.inner.snapshots.raise_floor();
        let Some(draft) = self.inner.tree.compact(self.inner.term(), floor).await? else { return Ok(false) };
        match self.edit(draft).await {
            // What it was made from is gone: plan again.
            Err(Error::Conflict(_)) => Ok(true),
            other => other.map(|()| true),
        }
    }

    /// Puts a draft in force: proposes it until an edit of it is accepted.
    async fn edit(&self, mut draft: Draft) -> Result<()> {
        let _one_at_a_time = self.editor.lock().await;
        let current = || self.inner.tree.version().manifest().id;
        loop {
            if current() != draft.base {
                draft = self.inner.tree.rebase(&draft, self.inner.term()).await?;
            }
            let (base, manifest, up_to) = (draft.base, draft.manifest, draft.up_to);
            self.propose(Payload::Edit { base, manifest, up_to }).await?;
            if current() == manifest {
                tracing::debug!(%manifest, reason = draft.reason, up_to = up_to.index, "manifest in force");
                return Ok(());
            }
        }
    }

    /// Sets the pressure from what waits for the store and from what the log has left.
    fn measure(&self) {
        let options = &self.inner.options;
        let state = self.inner.read_state();
        let frozen: usize = state.frozen.iter().map(|frozen| frozen.table.bytes()).sum();
        let log = options.log_bytes.saturating_sub(self.wal.status().runway) as f64 / options.log_bytes as f64;
        let ram = frozen as f64 / options.frozen_bytes as f64;
        self.inner.pressure.store(pressure(log.max(ram)), Ordering::Relaxed);
    }
}

/// How long a commit waits when this share of the bound is used: nothing up to a half, then ever longer, then refused.
fn pressure(used: f64) -> u64 {
    if used >= 1.0 {
        return REFUSE;
    }
    let over = ((used - 0.5) * 2.0).max(0.0);
    (over * over * DELAY_MAX_MICROS as f64) as u64
}

#[derive(Default)]
struct Backoff(u32);

impl Backoff {
    /// Waits longer after each failure in a row.
    async fn wait(&mut self, what: &str, error: &Error) {
        let pause = (TICK * 2u32.saturating_pow(self.0)).min(BACKOFF_MAX);
        self.0 = (self.0 + 1).min(16);
        tracing::warn!(%error, "{what} failed; next attempt in {pause:?}");
        tokio::time::sleep(pause).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pressure_starts_at_half_and_ends_in_refusal() {
        assert_eq!((pressure(0.0), pressure(0.5)), (0, 0));
        assert!(pressure(0.6) < pressure(0.9) && pressure(0.99) <= DELAY_MAX_MICROS);
        assert_eq!(pressure(1.0), REFUSE);
    }
}
