//! The end of a replay: what a recovery takes over from a machine that will apply nothing more.

use std::sync::Arc;

use holdfast_wal::LogId;

use super::Applier;
use crate::{format::manifest::Membership, read::Frozen};

impl Applier {
    /// Ends here, for a new cluster that begins at `up_to` (rule 3): what big batches left open is aborted, the archive was
    /// the old cluster's, and everything is frozen. Answers the memtables, newest first.
    pub fn conclude(mut self, up_to: LogId, membership: Membership) -> Vec<Arc<Frozen>> {
        self.parts.clear();
        (self.archived, self.membership) = (None, membership);
        self.active.touch();
        self.freeze(up_to);
        self.inner.read_state().frozen.clone()
    }

    /// Commit time of the newest commit that was applied, in milliseconds since 1970.
    pub fn newest_commit(&self) -> Option<u64> {
        self.newest
    }
}
