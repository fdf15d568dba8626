//! Sessions that move from a follower to the leader (`--forward-writes`): the follower's decision where to, and the parts
//! of the way: [`handover`] is what travels, [`relay`] the follower's end, [`host`] the leader's.
//!
//! A session moves between two statements, outside of a transaction, so no snapshot has to travel. From then on the
//! follower passes on commands and answers; it does so until the connection ends or begins anew (COM_CHANGE_USER,
//! COM_RESET_CONNECTION). When the leader goes or is deposed, the client's connection ends with it: whether a statement
//! under way took effect is not known (rule 12).

use std::time::Duration;

use holdfast::{Db, Error};

use self::{
    handover::Handover,
    relay::{Lost, Relay},
};
use crate::{errmap, wire::result::SqlError};

pub mod frame;
pub mod handover;
pub mod host;
pub mod relay;

/// Longest that a statement waits for a leader that takes its session. Elections take half of it.
const WAIT: Duration = Duration::from_secs(3);
/// A pause between two tries.
const PAUSE: Duration = Duration::from_millis(50);

/// Moves sessions to the leader.
pub struct Forward {
    db: Db,
}

impl Forward {
    /// To whoever leads among the nodes of `db`.
    pub fn new(db: Db) -> Self {
        Self { db }
    }

    /// Hands a session over to the leader, waiting for one if need be. `None`: this node leads meanwhile.
    ///
    /// # Errors
    /// 1290 if no leader took it in time; what the leader refused it with (1040 at its limit of connections). The session
    /// has not moved then, and nothing of its statement was done.
    pub async fn session(&self, handover: &Handover) -> Result<Option<Relay>, SqlError> {
        let bytes = handover.encode()?;
        let mut last = None;
        let moving = async {
            loop {
                match self.attempt(&bytes).await {
                    Ok(moved) => return Ok(moved),
                    Err(Lost::Refused(error)) if error.code != errmap::READ_ONLY => return Err(error),
                    Err(why) => last = Some(why),
                }
                tokio::time::sleep(PAUSE).await;
            }
        };
        match tokio::time::timeout(WAIT, moving).await {
            Ok(moved) => moved,
            Err(_) => Err(self.not_moved(last)),
        }
    }

    async fn attempt(&self, handover: &[u8]) -> Result<Option<Relay>, Lost> {
        let Some((leader, stream)) = self.db.stream_to_leader().await.map_err(|e| Lost::Failed(e.to_string()))? else {
            return Ok(None);
        };
        let db = self.db.clone();
        let elsewhere = Box::pin(async move { db.another_leads(leader).await });
        Relay::start(leader, stream, handover, elsewhere).await.map(Some)
    }

    /// The error of a write that came to a follower, with what was in the way.
    fn not_moved(&self, last: Option<Lost>) -> SqlError {
        let leader = self.db.leader().map(|(leader, _)| leader);
        let mut error = errmap::from_engine(Error::NotLeader { leader });
        let why = match last {
            None => format!("no leader was found within {WAIT:?}"),
            Some(Lost::Refused(error)) => error.message,
            Some(why) => format!("{why} (is --forward-writes on there, and the port between nodes open?)"),
        };
        error.message = format!("{}; the session could not be forwarded: {why}", error.message);
        error
    }
}
