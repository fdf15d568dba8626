//! What a session does in a cluster: reads that are as new as asked for, and errors that name the leader.

use super::{
    Result, Session,
    state::{Consistency, Settings},
};
use crate::{errmap, wire::result::SqlError};

impl Session {
    /// Waits until a snapshot taken here is as new as the session wants its reads.
    pub(super) async fn read_barrier(&self, settings: &Settings) -> Result<()> {
        let db = self.state.shared.catalog.db();
        if db.is_single() {
            return Ok(());
        }
        let waited = match settings.consistency {
            Consistency::Linearizable => db.read_barrier().await,
            Consistency::Session => db.wait_for_commit(settings.read_after).await,
            Consistency::Bounded => db.read_bounded(settings.staleness).await,
        };
        waited.map_err(errmap::from_engine)
    }

    /// Adds to the error of a write that came to a follower where the leader serves clients.
    pub(super) fn name_leader(&self, mut e: SqlError) -> SqlError {
        if e.code == errmap::READ_ONLY
            && let Some((_, Some(info))) = self.state.shared.catalog.db().leader()
            && !info.sql.is_empty()
        {
            e.message = format!("{} at {}", e.message, info.sql);
        }
        e
    }
}
