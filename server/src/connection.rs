//! One client connection: login, then commands one after another until it leaves.

mod login;
mod stream;

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use rustc_hash::FxHashMap;
use tokio::{io::AsyncWriteExt, net::TcpStream};
use tokio_rustls::TlsAcceptor;

use self::{login::Link, stream::Stream};
use crate::{
    backend::{Backend, Conversation},
    metrics::WireMetrics,
    processlist::{Kill, Process, ProcessList, Registered},
    session::Login,
    sql::value::Value,
    users::Authenticator,
    wire::{
        auth::RsaKey,
        codec::Malformed,
        command::{self, Command},
        consts::{cap, com, status},
        packet::ReadError,
        params::Bound,
        reply::{Output, Reply},
        result::{ColumnSet, Done, SqlError},
    },
};

/// What an oversized packet may still send before its sender must read the error.
const DISCARD_MAX: usize = 256 << 20;
const DISCARD_TIME: Duration = Duration::from_secs(10);

/// What all connections share.
pub struct Server<B> {
    /// Accounts and sessions.
    pub backend: B,
    /// All connections.
    pub processes: Arc<ProcessList>,
    /// Digests of the fast path.
    pub authenticator: Authenticator,
    /// Protects passwords without TLS.
    pub rsa: RsaKey,
    /// `None`: TLS is not offered.
    pub tls: Option<TlsAcceptor>,
    /// Refuses clients that don't use TLS (3159).
    pub require_tls: bool,
    /// Largest command in bytes (1153).
    pub max_allowed_packet: usize,
    /// Time for the whole login.
    pub connect_timeout: Duration,
    /// For uptimes.
    pub started: Instant,
    /// Commands since the start.
    pub questions: AtomicU64,
    /// Counters.
    pub metrics: WireMetrics,
}

/// Why a connection ended other than by the client's wish.
#[derive(Debug, thiserror::Error)]
enum End {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error("login refused: {0}")]
    Refused(SqlError),
    #[error("{0}")]
    Fatal(SqlError),
    #[error("TLS: {0}")]
    Tls(std::io::Error),
    #[error("no login within {0:?}")]
    LoginTimeout(Duration),
}

impl From<std::io::Error> for End {
    fn from(error: std::io::Error) -> Self {
        Self::Read(ReadError::Io(error))
    }
}

/// Serves one client to the end. The connection leaves the process list when `registered` drops with this future.
pub async fn serve<B: Backend>(server: Arc<Server<B>>, socket: TcpStream, peer: SocketAddr, registered: Registered) {
    let id = registered.process().id();
    match run(&server, socket, peer, &registered).await {
        Ok(()) | Err(End::Read(ReadError::Eof)) => tracing::debug!(id, %peer, "connection closed"),
        Err(end @ (End::Refused(_) | End::Tls(_) | End::LoginTimeout(_))) => {
            server.metrics.aborted_logins.increment(1);
            tracing::info!(id, %peer, "{end}");
        }
        Err(end) => tracing::info!(id, %peer, "connection ended: {end}"),
    }
}

async fn run<B: Backend>(
    server: &Arc<Server<B>>,
    socket: TcpStream,
    peer: SocketAddr,
    registered: &Registered,
) -> Result<(), End> {
    socket.set_nodelay(true)?;
    let process = registered.process();
    let mut link = Link::new(Stream::Plain(socket), peer.ip().to_canonical());
    let login = tokio::time::timeout(server.connect_timeout, link.login(server, process))
        .await
        .unwrap_or(Err(End::LoginTimeout(server.connect_timeout)));
    let (login, session) = match login {
        Ok(accepted) => accepted,
        Err(end) => return link.farewell(end).await,
    };
    let mut connection = Connection {
        server: server.clone(),
        process: process.clone(),
        link,
        login,
        session,
        bound: FxHashMap::default(),
        params: Vec::new(),
        answered_at: Instant::now(),
    };
    connection.greet();
    match connection.commands().await {
        Ok(()) => connection.link.close().await,
        Err(end) => connection.link.farewell(end).await,
    }
}

struct Connection<B: Backend> {
    server: Arc<Server<B>>,
    process: Arc<Process>,
    link: Link,
    login: Login,
    session: B::Session,
    /// Parameter types and long data of prepared statements.
    bound: FxHashMap<u32, Bound>,
    /// Reused between executions.
    params: Vec<Value>,
    /// When the last answer was ready: one reading of the clock for metrics and process list.
    answered_at: Instant,
}

/// What follows a command.
enum Next {
    Continue,
    Quit,
    /// Needs the whole connection: the body of COM_CHANGE_USER.
    ChangeUser(Vec<u8>),
}

impl<B: Backend> Connection<B> {
    /// The OK that ends a login.
    fn greet(&mut self) {
        self.link.out.ok(Done::default(), self.session.status(), "");
        self.process.set_user(&self.login.user);
        self.process.set_database(self.login.database.as_deref());
    }

    async fn commands(&mut self) -> Result<(), End> {
        loop {
            // A pipelining client gets its answers together.
            if !self.link.input.has_next() {
                self.link.out.send(&mut self.link.stream).await?;
            }
            if !self.process.end(self.session.status() & status::IN_TRANS != 0, self.answered_at) {
                return Err(End::Fatal(shutdown()));
            }
            match self.step().await? {
                Next::Continue => {}
                Next::Quit => return Ok(()),
                Next::ChangeUser(body) => self.change_user(&body).await?,
            }
        }
    }

    /// Reads one command and answers it into the buffer.
    async fn step(&mut self) -> Result<Next, End> {
        let Self { server, process, link, session, bound, params, answered_at, .. } = self;
        let Link { stream, input, out, .. } = link;
        let packet = input.read_command(stream, server.max_allowed_packet).await?;
        let began = Instant::now();
        out.begin(packet.next_seq, false);
        let kind = packet.bytes.first().copied().unwrap_or(com::SLEEP);
        if !process.begin(kind, began) {
            return Err(End::Fatal(shutdown()));
        }
        server.questions.fetch_add(1, Ordering::Relaxed);
        let command = match command::decode(packet.bytes) {
            Ok(Command::Quit) => return Ok(Next::Quit),
            Ok(Command::ChangeUser(body)) => return Ok(Next::ChangeUser(body.to_vec())),
            Ok(command) => Ok(command),
            Err(malformed) => Err(refuse(malformed)),
        };
        let mut context = Context { server, process, stream, out, session, bound, params };
        let answered = match command {
            Ok(command) => context.answer(command).await,
            Err(error) => Err(error),
        };
        if let Err(error) = answered {
            if error.fatal {
                return Err(End::Fatal(error));
            }
            server.metrics.errors.increment(1);
            out.error(&error);
        }
        *answered_at = Instant::now();
        server.metrics.command(kind, answered_at.duration_since(began));
        Ok(Next::Continue)
    }

    /// COM_CHANGE_USER: a full login on the open connection, and a new session. A refusal closes the connection.
    async fn change_user(&mut self, body: &[u8]) -> Result<(), End> {
        let (login, session) = self.link.change_user(&self.server, &self.login, body).await?;
        (self.login, self.session) = (login, session);
        self.bound.clear();
        self.greet();
        Ok(())
    }
}

fn shutdown() -> SqlError {
    SqlError::new(1053, b"08S01", "Server shutdown in progress").fatal()
}

fn refuse(malformed: Malformed) -> SqlError {
    SqlError::new(1835, b"HY000", format!("Malformed communication packet: {}", malformed.0))
}

fn unknown_statement(id: u32, command: &str) -> SqlError {
    SqlError::new(1243, b"HY000", format!("Unknown prepared statement handler ({id}) given to {command}"))
}

/// A client's text that should be UTF-8.
fn text<'a>(bytes: &'a [u8], what: &'static str) -> Result<&'a str, SqlError> {
    std::str::from_utf8(bytes).map_err(|_| refuse(Malformed(what)))
}

/// What a command may touch: everything of the connection but the packet it came in.
struct Context<'a, B: Backend> {
    server: &'a Server<B>,
    process: &'a Process,
    stream: &'a mut Stream,
    out: &'a mut Output,
    session: &'a mut B::Session,
    bound: &'a mut FxHashMap<u32, Bound>,
    params: &'a mut Vec<Value>,
}

impl<B: Backend> Context<'_, B> {
    async fn answer(&mut self, command: Command<'_>) -> Result<(), SqlError> {
        match command {
            Command::Query(sql) => self.query(sql).await,
            Command::Execute { id, params } => self.execute(id, params).await,
            Command::Prepare(sql) => self.prepare(sql).await,
            Command::InitDb(name) => {
                let name = text(name, "database name")?;
                self.session.init_db(name).await?;
                self.process.set_database(Some(name));
                self.ok()
            }
            Command::Ping => self.ok(),
            Command::Statistics => {
                self.out.packet(self.statistics().as_bytes());
                Ok(())
            }
            Command::Kill(id) => {
                self.server.processes.kill(self.process.id(), id.into(), Kill::Connection)?;
                self.ok()
            }
            Command::ResetConnection => {
                self.session.reset().await?;
                self.bound.clear();
                self.ok()
            }
            Command::SetOption(option) => self.set_option(option),
            Command::FieldList { table, wildcard } => self.field_list(table, wildcard).await,
            Command::LongData { id, param, data } => {
                self.long_data(id, param, data);
                Ok(())
            }
            Command::CloseStatement(id) => {
                self.session.close_statement(id);
                self.bound.remove(&id);
                Ok(())
            }
            Command::ResetStatement(id) => {
                self.session.param_count(id).ok_or_else(|| unknown_statement(id, "mysqld_stmt_reset"))?;
                self.bound.entry(id).or_default().clear_long_data();
                self.ok()
            }
            Command::Fetch { id } => {
                self.session.param_count(id).ok_or_else(|| unknown_statement(id, "mysqld_stmt_fetch"))?;
                Err(SqlError::new(1421, b"HY000", format!("The statement ({id}) has no open cursor.")))
            }
            Command::Quit | Command::ChangeUser(_) | Command::Unknown(_) => {
                Err(SqlError::new(1047, b"08S01", "Unknown command"))
            }
        }
    }

    fn ok(&mut self) -> Result<(), SqlError> {
        self.out.ok(Done::default(), self.session.status(), "");
        Ok(())
    }

    async fn query(&mut self, sql: &[u8]) -> Result<(), SqlError> {
        self.process.set_info(sql);
        let mut reply = Reply { stream: self.stream, out: self.out };
        self.session.query(sql, &mut reply).await?;
        self.check_answered()
    }

    /// An answer left out would let the client wait for ever.
    fn check_answered(&self) -> Result<(), SqlError> {
        if self.out.answered() {
            return Ok(());
        }
        Err(SqlError::new(1105, b"HY000", "The statement ended without a result"))
    }

    async fn prepare(&mut self, sql: &[u8]) -> Result<(), SqlError> {
        self.process.set_info(sql);
        let prepared = self.session.prepare(sql).await?;
        let counts = (u16::try_from(prepared.columns.len()), u16::try_from(prepared.params.len()));
        let (Ok(columns), Ok(params)) = counts else {
            self.session.close_statement(prepared.id);
            return Err(SqlError::new(1390, b"HY000", "Prepared statement contains too many placeholders"));
        };
        let status = self.session.status();
        self.out.prepared(prepared.id, columns, params);
        if params > 0 {
            self.out.definitions(&ColumnSet::new(&prepared.params), status);
        }
        if columns > 0 {
            self.out.definitions(&ColumnSet::new(&prepared.columns), status);
        }
        Ok(())
    }

    async fn execute(&mut self, id: u32, body: &[u8]) -> Result<(), SqlError> {
        let count = self.session.param_count(id).ok_or_else(|| unknown_statement(id, "mysqld_stmt_execute"))?;
        let bound = self.bound.entry(id).or_default();
        if bound.overflowed() {
            bound.clear_long_data();
            let what = "Parameter of prepared statement which is set through mysql_send_long_data() is longer than \
                        'max_allowed_packet' bytes";
            return Err(SqlError::new(1105, b"HY000", what));
        }
        let decoded = bound.decode(body, count, self.params).map_err(refuse);
        bound.clear_long_data();
        decoded?;
        self.out.set_binary(true);
        let mut reply = Reply { stream: self.stream, out: self.out };
        let done = self.session.execute(id, self.params, &mut reply).await;
        self.params.clear();
        done?;
        self.check_answered()
    }

    /// All long data of a connection together stays below max_allowed_packet.
    fn long_data(&mut self, id: u32, param: u16, data: &[u8]) {
        if self.session.param_count(id).is_none_or(|count| usize::from(param) >= count) {
            return;
        }
        let others: usize = self.bound.iter().filter(|(other, _)| **other != id).map(|(_, b)| b.long_bytes()).sum();
        let limit = self.server.max_allowed_packet.saturating_sub(others);
        self.bound.entry(id).or_default().append(param, data, limit);
    }

    fn set_option(&mut self, option: u16) -> Result<(), SqlError> {
        match option {
            0 => self.session.set_multi_statements(true),
            1 => self.session.set_multi_statements(false),
            _ => return Err(SqlError::new(1047, b"08S01", "Unknown command")),
        }
        self.out.end_of_definitions(self.session.status());
        Ok(())
    }

    /// COM_FIELD_LIST, by way of preparing a SELECT of the table.
    async fn field_list(&mut self, table: &[u8], wildcard: &[u8]) -> Result<(), SqlError> {
        let table = text(table, "table name")?.replace('`', "``");
        let wildcard = text(wildcard, "wildcard")?.trim_end_matches('\0').to_lowercase();
        let prepared = self.session.prepare(format!("SELECT * FROM `{table}`").as_bytes()).await?;
        self.session.close_statement(prepared.id);
        let mut columns = prepared.columns;
        if !wildcard.is_empty() {
            columns.retain(|column| like(column.name.to_lowercase().as_bytes(), wildcard.as_bytes()));
        }
        self.out.field_list(&columns, self.session.status());
        Ok(())
    }

    fn statistics(&self) -> String {
        let uptime = self.server.started.elapsed().as_secs();
        let questions = self.server.questions.load(Ordering::Relaxed);
        let (threads, _) = self.server.processes.counts();
        let average = questions as f64 / uptime.max(1) as f64;
        format!(
            "Uptime: {uptime}  Threads: {threads}  Questions: {questions}  Slow queries: 0  Opens: 0  Flush tables: 0  \
             Open tables: 0  Queries per second avg: {average:.3}"
        )
    }
}

/// SQL LIKE without escapes, for the wildcard of COM_FIELD_LIST: linear in the text for each `%`.
fn like(text: &[u8], pattern: &[u8]) -> bool {
    let (mut t, mut p, mut retry) = (0, 0, None);
    while t < text.len() {
        match pattern.get(p) {
            Some(b'%') => {
                retry = Some((t, p));
                p += 1;
            }
            Some(c) if *c == b'_' || text.get(t) == Some(c) => (t, p) = (t + 1, p + 1),
            _ => match retry {
                Some((from, at)) => {
                    (t, p) = (from + 1, at + 1);
                    retry = Some((from + 1, at));
                }
                None => return false,
            },
        }
    }
    pattern.get(p..).unwrap_or_default().iter().all(|c| *c == b'%')
}

impl Link {
    /// Tells the client why, if it can still be told, and closes.
    async fn farewell(&mut self, end: End) -> Result<(), End> {
        let error = match &end {
            End::Refused(error) | End::Fatal(error) => Some(error.clone()),
            End::Read(ReadError::TooLarge { claimed, seq, .. }) => {
                self.out.begin(*seq, false);
                let rest = (*claimed).min(DISCARD_MAX);
                let drained = self.input.discard(&mut self.stream, rest);
                let _ = tokio::time::timeout(DISCARD_TIME, drained).await;
                Some(SqlError::new(1153, b"08S01", "Got a packet bigger than 'max_allowed_packet' bytes"))
            }
            End::Read(ReadError::OutOfOrder { got, .. }) => {
                self.out.begin(got.wrapping_add(1), false);
                Some(SqlError::new(1156, b"08S01", "Got packets out of order"))
            }
            _ => None,
        };
        if let Some(error) = error {
            if self.capabilities & cap::PROTOCOL_41 != 0 {
                self.out.error(&error)
            } else {
                self.out.early_error(&error)
            }
            let _ = self.close().await;
        }
        Err(end)
    }

    /// Sends what is left and shuts the stream down, so that TLS clients see a proper end.
    async fn close(&mut self) -> Result<(), End> {
        self.out.send(&mut self.stream).await?;
        let _ = self.stream.shutdown().await;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::like;

    #[test]
    fn wildcards() {
        assert!(like(b"name", b"n%") && like(b"name", b"_am_") && like(b"", b"%") && like(b"aab", b"%ab"));
        assert!(!like(b"name", b"n") && !like(b"", b"_") && !like(b"abc", b"%d"));
    }
}
