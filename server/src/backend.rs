//! What a connection needs of the server behind it. One implementation serves; tests script their own.

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use holdfast::Db;

use crate::{
    processlist::ProcessList,
    session::{Login, Prepared, Session, Shared},
    sql::value::Value,
    users::{Account, Users},
    wire::result::{ResultSink, SqlError},
};

/// Opens sessions and knows accounts.
pub trait Backend: Send + Sync + 'static {
    type Session: Conversation;
    /// Starts a session for a client whose login was accepted.
    fn open(&self, login: Login) -> impl Future<Output = Result<Self::Session, SqlError>> + Send;
    fn account(&self, user: &str) -> impl Future<Output = Result<Option<Account>, SqlError>> + Send;
}

/// One client's session, as commands use it. Dropping it rolls its transaction back.
pub trait Conversation: Send {
    fn query<S: ResultSink>(&mut self, sql: &[u8], sink: &mut S) -> impl Future<Output = Result<(), SqlError>> + Send;
    fn prepare(&mut self, sql: &[u8]) -> impl Future<Output = Result<Prepared, SqlError>> + Send;
    fn execute<S: ResultSink>(
        &mut self,
        id: u32,
        params: &[Value],
        sink: &mut S,
    ) -> impl Future<Output = Result<(), SqlError>> + Send;
    /// `None`: no such statement.
    fn param_count(&self, id: u32) -> Option<usize>;
    fn close_statement(&mut self, id: u32);
    fn init_db(&mut self, name: &str) -> impl Future<Output = Result<(), SqlError>> + Send;
    fn reset(&mut self) -> impl Future<Output = Result<(), SqlError>> + Send;
    /// COM_SET_OPTION.
    fn set_multi_statements(&mut self, on: bool);
    /// SERVER_STATUS_* bits.
    fn status(&self) -> u16;
}

/// What the node gives to [`Shared::open`].
pub struct Parts {
    pub db: Db,
    pub users: Users,
    pub processes: Arc<ProcessList>,
    pub settings: ServerSettings,
}

/// Settings of the command line that SQL can see.
#[derive(Clone, Debug)]
pub struct ServerSettings {
    pub max_connections: u32,
    pub max_allowed_packet: u64,
    pub connect_timeout: Duration,
    pub require_tls: bool,
    /// Port that MySQL clients are served on.
    pub port: u16,
    pub data_dir: PathBuf,
    /// For Uptime.
    pub started: Instant,
}

/// The server's own backend.
pub struct Front {
    pub shared: Arc<Shared>,
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
}
