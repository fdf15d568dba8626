//! Errors, sorted by what the caller must do.

/// The engine's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Errors, sorted by what the caller must do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Optimistic validation failed, or a snapshot became too old: run the transaction again.
    #[error("conflict: {0}")]
    Conflict(String),
    /// This transaction was chosen as deadlock victim and is rolled back (MySQL 1213).
    #[error("deadlock found when trying to get lock")]
    Deadlock,
    /// A row lock could not be had in time; the transaction goes on (MySQL 1205).
    #[error("lock wait timeout exceeded")]
    LockTimeout,
    /// `LockWait::NoWait` and the row was locked (MySQL 3572).
    #[error("row is locked")]
    WouldBlock,
    /// Temporary: overload, log runway, store outage. Retry later.
    #[error("retry later: {0}")]
    Retry(String),
    /// This node does not lead; `leader` names who does, if known.
    #[error("not the leader (leader: {leader:?})")]
    NotLeader {
        /// Node id of the leader.
        leader: Option<u64>,
    },
    /// A limit of [`crate::limits`] was hit: which, and its value.
    #[error("{what} is over the limit of {limit}")]
    TooLarge {
        /// What was too large.
        what: &'static str,
        /// The limit it hit, in the unit that `what` names.
        limit: u64,
    },
    /// The caller asked for something that can't be: bad option, URL, key, keyspace.
    #[error("invalid: {0}")]
    Invalid(String),
    /// A checksum or format error, with file or object and offset.
    #[error("corrupt: {0}")]
    Corrupt(String),
    /// Object store error that retries did not mend.
    #[error("store: {0}")]
    Store(String),
    /// A commit whose outcome is unknown (rule 12). Never retryable.
    #[error("the commit's outcome is unknown: {0}")]
    Unknown(String),
    /// The database is closed or poisoned, with the cause.
    #[error("closed: {0}")]
    Closed(String),
}

impl Error {
    /// Whether running the whole transaction again may succeed.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Conflict(_) | Self::Deadlock | Self::LockTimeout | Self::WouldBlock | Self::Retry(_))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_outcome_is_never_retryable() {
        assert!(!Error::Unknown("deposed".into()).is_retryable());
        assert!(Error::Deadlock.is_retryable());
    }
}
