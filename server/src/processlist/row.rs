//! What SHOW PROCESSLIST shows of a connection.

use std::sync::Arc;

use crate::wire::consts::com;

/// Bytes of a statement kept for SHOW FULL PROCESSLIST.
pub(super) const INFO_MAX: usize = 1024;

/// One line of SHOW PROCESSLIST.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessRow {
    /// CONNECTION_ID().
    pub id: u32,
    /// Account name.
    pub user: String,
    /// The client's address.
    pub host: String,
    /// Current database.
    pub database: Option<String>,
    /// `Query`, `Sleep`, ...
    pub command: &'static str,
    /// Seconds in the current state.
    pub seconds: u64,
    /// What it is doing.
    pub state: String,
    /// The running statement, at most 1 KiB of it.
    pub info: Option<String>,
}

/// Which node runs a connection's session, and which has its client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Via {
    /// Both this one.
    #[default]
    Here,
    /// The session moved to this node.
    To(u64),
    /// The session came from this node, which has the client.
    From(u64),
}

impl Via {
    pub(super) fn state(self, busy: bool) -> String {
        match self {
            Self::Here if busy => "executing".to_owned(),
            Self::Here => String::new(),
            Self::To(node) => format!("forwarded to node {node}"),
            Self::From(node) if busy => format!("executing for node {node}"),
            Self::From(node) => format!("held for node {node}"),
        }
    }
}

/// What SHOW PROCESSLIST shows of a statement: its first KiB.
pub fn shown(sql: &[u8]) -> Arc<[u8]> {
    sql.get(..INFO_MAX.min(sql.len())).unwrap_or_default().into()
}

/// The name of a command byte.
pub(super) fn command_name(command: u8) -> &'static str {
    match command {
        com::SLEEP => "Sleep",
        com::QUIT => "Quit",
        com::INIT_DB => "Init DB",
        com::QUERY => "Query",
        com::FIELD_LIST => "Field List",
        com::STATISTICS => "Statistics",
        com::PROCESS_KILL => "Kill",
        com::PING => "Ping",
        com::CHANGE_USER => "Change user",
        com::STMT_PREPARE => "Prepare",
        com::STMT_EXECUTE => "Execute",
        com::STMT_SEND_LONG_DATA => "Long Data",
        com::STMT_CLOSE => "Close stmt",
        com::STMT_RESET => "Reset stmt",
        com::SET_OPTION => "Set option",
        com::STMT_FETCH => "Fetch",
        com::RESET_CONNECTION => "Reset Connection",
        _ => "Error",
    }
}
