//! A start that goes on behind spilled memtables, instead of applying their entries again.

use std::sync::Arc;

use holdfast_wal::LogId;

use super::Applier;
use crate::{
    error::Result,
    format::state::MachineState,
    read::{Frozen, ReadState},
};

impl Applier {
    /// As [`Self::new`], with what an earlier process spilled behind the manifest, oldest first.
    pub fn with_spilled(self, spilled: Vec<Arc<Frozen>>) -> Self {
        Self { spilled, ..self }
    }

    /// Takes the spilled memtables up to `last`, the end of the log: an entry may be applied before its own disk has it, and
    /// behind the end of the log there is no going on. The rest is replayed.
    pub(super) fn go_on(&mut self, last: LogId) {
        let mut spilled = std::mem::take(&mut self.spilled);
        spilled.retain(|frozen| frozen.up_to.index <= last.index);
        // Else an edit came in between, which a replay tells of.
        while spilled.last().is_some_and(|newest| newest.in_force != self.in_force()) {
            spilled.pop();
        }
        let Some(newest) = spilled.last().cloned() else { return };
        if let Err(error) = self.stand_at(&newest, spilled) {
            tracing::warn!(%error, "spilled memtables are discarded: the log replays them");
        }
    }

    fn stand_at(&mut self, newest: &Frozen, mut spilled: Vec<Arc<Frozen>>) -> Result<()> {
        let state = MachineState::decode(&newest.state)?;
        let current = self.inner.read_state();
        spilled.reverse();
        let (active, version) = (Arc::clone(&current.active), Arc::clone(&current.version));
        self.inner.set_read_state(ReadState { active, frozen: spilled, version });
        let (inner, runtime) = (Arc::clone(&self.inner), self.runtime.clone());
        *self = Self::new(inner, runtime, state, newest.up_to, newest.membership.clone());
        self.inner.applied.store(newest.up_to.index, std::sync::atomic::Ordering::Release);
        Ok(())
    }
}
