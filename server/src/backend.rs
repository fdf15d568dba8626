//! What a connection needs of the server behind it. One implementation serves; tests script their own.

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use holdfast::Db;

use crate::{
    processlist::ProcessList,
    session::{Carried, Login, Prepared, Session, Shared},
    sql::value::Value,
    users::{Account, Users},
    wire::{
        command::Command,
        result::{ResultSink, SqlError},
    },
};

/// Opens sessions and knows accounts.
pub trait Backend: Send + Sync + 'static {
    /// What it opens.
    type Session: Conversation;
    /// Starts a session for a client whose login was accepted.
    fn open(&self, login: Login) -> impl Future<Output = Result<Self::Session, SqlError>> + Send;
    /// The account of a name, if there is one.
    fn account(&self, user: &str) -> impl Future<Output = Result<Option<Account>, SqlError>> + Send;
}

/// One client's session, as commands use it. Dropping it rolls its transaction back.
pub trait Conversation: Send {
    /// COM_QUERY: one or more statements.
    fn query<S: ResultSink>(&mut self, sql: &[u8], sink: &mut S) -> impl Future<Output = Result<(), SqlError>> + Send;
    /// COM_STMT_PREPARE.
    fn prepare(&mut self, sql: &[u8]) -> impl Future<Output = Result<Prepared, SqlError>> + Send;
    /// COM_STMT_EXECUTE, parameters decoded.
    fn execute<S: ResultSink>(
        &mut self,
        id: u32,
        params: &[Value],
        sink: &mut S,
    ) -> impl Future<Output = Result<(), SqlError>> + Send;
    /// `None`: no such statement.
    fn param_count(&self, id: u32) -> Option<usize>;
    /// COM_STMT_CLOSE; an unknown statement is nothing to complain about.
    fn close_statement(&mut self, id: u32);
    /// COM_INIT_DB.
    fn init_db(&mut self, name: &str) -> impl Future<Output = Result<(), SqlError>> + Send;
    /// COM_RESET_CONNECTION: rolls back, forgets variables and statements.
    fn reset(&mut self) -> impl Future<Output = Result<(), SqlError>> + Send;
    /// COM_SET_OPTION.
    fn set_multi_statements(&mut self, on: bool);
    /// SERVER_STATUS_* bits.
    fn status(&self) -> u16;
    /// Whether a command needs the leader, which is another node, and the session could move there now.
    fn needs_leader(&mut self, command: &Command<'_>) -> bool {
        let _ = command;
        false
    }
    /// What travels when the session moves.
    fn carry(&self) -> Carried {
        Carried::default()
    }
    /// Takes up what travelled; once, before anything else.
    fn adopt(&mut self, carried: Carried) -> Result<(), SqlError> {
        let _ = carried;
        Ok(())
    }
    /// Another node changed the current database of the session, which is back here.
    fn came_back_in(&mut self, database: Option<&str>) {
        let _ = database;
    }
}

/// What the node gives to [`Shared::open`].
pub struct Parts {
    /// The database.
    pub db: Db,
    /// Accounts, for ALTER USER.
    pub users: Users,
    /// All connections, for SHOW PROCESSLIST and KILL.
    pub processes: Arc<ProcessList>,
    /// What variables show.
    pub settings: ServerSettings,
}

/// Settings of the command line that SQL can see.
#[derive(Clone, Debug)]
pub struct ServerSettings {
    /// --max-connections.
    pub max_connections: u32,
    /// --max-allowed-packet, in bytes.
    pub max_allowed_packet: u64,
    /// --connect-timeout.
    pub connect_timeout: Duration,
    /// --require-tls.
    pub require_tls: bool,
    /// Port that MySQL clients are served on.
    pub port: u16,
    /// --data-dir, absolute.
    pub data_dir: PathBuf,
    /// For Uptime.
    pub started: Instant,
}

/// The server's own backend.
pub struct Front {
    /// What sessions share.
    pub shared: Arc<Shared>,
    /// Accounts.
    pub users: Users,
}

impl Backend for Front {
    type Session = Session;
    async fn open(&self, login: Login) -> Result<Session, SqlError> {
        Session::open(self.shared.clone(), login).await
    }
    async fn account(&self, user: &str) -> Result<Option<Account>, SqlError> {
        self.users.account(user).await
    }
}

impl Conversation for Session {
    async fn query<S: ResultSink>(&mut self, sql: &[u8], sink: &mut S) -> Result<(), SqlError> {
        Self::query(self, sql, sink).await
    }
    async fn prepare(&mut self, sql: &[u8]) -> Result<Prepared, SqlError> {
        Self::prepare(self, sql).await
    }
    async fn execute<S: ResultSink>(&mut self, id: u32, params: &[Value], sink: &mut S) -> Result<(), SqlError> {
        Self::execute(self, id, params, sink).await
    }
    fn param_count(&self, id: u32) -> Option<usize> {
        Self::param_count(self, id)
    }
    fn close_statement(&mut self, id: u32) {
        Self::close_statement(self, id);
    }
    async fn init_db(&mut self, name: &str) -> Result<(), SqlError> {
        Self::init_db(self, name).await
    }
    async fn reset(&mut self) -> Result<(), SqlError> {
        Self::reset(self).await
    }
    fn set_multi_statements(&mut self, on: bool) {
        Self::set_multi_statements(self, on);
    }
    fn status(&self) -> u16 {
        Self::status(self)
    }
    fn needs_leader(&mut self, command: &Command<'_>) -> bool {
        Self::needs_leader(self, command)
    }
    fn carry(&self) -> Carried {
        Self::carry(self)
    }
    fn adopt(&mut self, carried: Carried) -> Result<(), SqlError> {
        Self::adopt(self, carried)
    }
    fn came_back_in(&mut self, database: Option<&str>) {
        Self::came_back_in(self, database);
    }
}
