//! The one place that turns engine errors into MySQL errors, and the texts of the errors that execution raises.

use holdfast::Error;

pub use crate::sql::error::sql_error as error;
use crate::{row::FormatError, wire::result::SqlError};

/// A write that came to a follower.
pub const READ_ONLY: u16 = 1290;

/// What a client sees of an engine error. Rule 12: an unknown outcome closes the connection and is never retryable.
pub fn from_engine(e: Error) -> SqlError {
    match e {
        Error::Deadlock => error(1213, "Deadlock found when trying to get lock; try restarting transaction"),
        Error::Conflict(why) => {
            error(1213, format!("Conflict with a concurrent change ({why}); try restarting transaction"))
        }
        Error::LockTimeout => error(1205, "Lock wait timeout exceeded; try restarting transaction"),
        Error::WouldBlock => {
            error(3572, "Statement aborted because lock(s) could not be acquired immediately and NOWAIT is set.")
        }
        Error::Retry(why) => error(1105, format!("The server can't do this now, try again later: {why}")),
        Error::NotLeader { leader } => {
            let who = leader.map_or_else(|| "no leader is known".to_owned(), |id| format!("node {id} leads"));
            error(
                READ_ONLY,
                format!(
                    "The server is running with the --read-only option so it cannot execute this statement: it is a \
                     follower, and {who}"
                ),
            )
        }
        Error::TooLarge { what, limit } if what.contains("lock") => {
            error(1206, format!("The total number of locks exceeds the lock table size ({what}: {limit})"))
        }
        Error::TooLarge { what, limit } if what.contains("value") || what.contains("key") => {
            error(1118, format!("Row size too large: {what} is over the limit of {limit} bytes"))
        }
        Error::TooLarge { what, limit } => {
            error(1197, format!("Multi-statement transaction required more than the limit of {limit} for {what}"))
        }
        Error::Corrupt(what) => error(1034, format!("Corrupt data refused: {what}")),
        Error::Store(why) => error(1030, format!("Got error from the object store: {why}")),
        Error::Unknown(why) => {
            SqlError { fatal: true, ..error(1180, format!("Got error during COMMIT, its outcome is unknown: {why}")) }
        }
        Error::Closed(why) => SqlError { fatal: true, ..error(1053, format!("Server shutdown in progress: {why}")) },
        Error::Invalid(why) => error(1105, format!("Invalid request to the storage engine: {why}")),
        other => error(1105, other.to_string()),
    }
}

/// A row or key that does not decode, with the table it belongs to.
pub fn from_format(table: &str, e: &FormatError) -> SqlError {
    match e {
        FormatError::Newer(_) => error(1033, format!("Incorrect information in table '{table}': {e}")),
        FormatError::Damaged(_) => error(1034, format!("Incorrect data in table '{table}': {e}")),
        FormatError::Value(_) => error(1105, format!("Table '{table}': {e}")),
    }
}

/// 1235: a part of SQL that is not there yet, named.
pub fn unsupported(what: impl std::fmt::Display) -> SqlError {
    error(1235, format!("This version of Holdfast doesn't yet support '{what}'"))
}

pub fn no_database() -> SqlError {
    error(1046, "No database selected")
}

pub fn unknown_database(name: &str) -> SqlError {
    error(1049, format!("Unknown database '{name}'"))
}

pub fn no_such_table(database: &str, table: &str) -> SqlError {
    error(1146, format!("Table '{database}.{table}' doesn't exist"))
}

pub fn unknown_column(name: &str, clause: &str) -> SqlError {
    error(1054, format!("Unknown column '{name}' in '{clause}'"))
}

/// 1062, with the key's values joined by `-` as MySQL prints them.
pub fn duplicate(entry: &str, table: &str, key: &str) -> SqlError {
    error(1062, format!("Duplicate entry '{entry}' for key '{table}.{key}'"))
}

/// 1064 at the start of `rest`.
pub fn syntax_near(rest: &[u8]) -> SqlError {
    let near: String = String::from_utf8_lossy(&rest[..rest.len().min(320)]).chars().take(80).collect();
    error(
        1064,
        format!(
            "You have an error in your SQL syntax; check the manual that corresponds to your MySQL server version for the right syntax to use near '{near}' at line 1"
        ),
    )
}
