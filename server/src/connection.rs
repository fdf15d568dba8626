//! One client connection: login, then commands one after another until it leaves. The session that answers them is this
//! node's, or, once it has moved, the leader's.

mod answer;
mod login;
mod moved;
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

pub(crate) use self::moved::serve_hosted;

use self::{
    answer::{Context, refuse},
    login::Link,
    moved::Place,
    stream::Stream,
};
use crate::{
    backend::{Backend, Conversation},
    forward::{
        Forward,
        frame::Answered,
        relay::{Lost, Relay},
    },
    metrics::WireMetrics,
    processlist::{Process, ProcessList, Registered, Via},
    session::Login,
    sql::value::Value,
    users::Authenticator,
    wire::{
        auth::RsaKey,
        command::{self, Command},
        consts::{cap, com, status},
        packet::ReadError,
        params::Bound,
        result::{Done, SqlError},
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
    /// Moves sessions that want to write to the leader; `None`: their writes are refused here.
    pub forward: Option<Forward>,
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
    #[error("the leader's session is gone: {0}")]
    Leader(Lost),
}

impl From<Lost> for End {
    fn from(lost: Lost) -> Self {
        match lost {
            Lost::Client(error) => Self::Read(error),
            other => Self::Leader(other),
        }
    }
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
        relay: None,
        prepared: FxHashMap::default(),
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
    /// The session moved to the leader; the one here is as it was then.
    relay: Option<Relay>,
    prepared: FxHashMap<u32, PreparedHere>,
    /// Reused between executions.
    params: Vec<Value>,
    /// When the last answer was ready: one reading of the clock for metrics and process list.
    answered_at: Instant,
}

/// What the connection keeps of a prepared statement.
#[derive(Default)]
struct PreparedHere {
    /// Parameter types and long data.
    bound: Bound,
    /// For SHOW PROCESSLIST.
    shown: Arc<[u8]>,
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
            let in_transaction = self.in_transaction();
            if !self.process.end(in_transaction, self.answered_at) {
                return Err(End::Fatal(shutdown()));
            }
            let process = &self.process;
            self.link.stream.answered(|| Answered { in_transaction, database: process.database() }).await?;
            match self.step().await? {
                Next::Continue => {}
                Next::Quit => return Ok(()),
                Next::ChangeUser(body) => self.change_user(&body).await?,
            }
        }
    }

    /// Whether the session is in a transaction, wherever it runs.
    fn in_transaction(&self) -> bool {
        match &self.relay {
            Some(relay) => relay.answered().in_transaction,
            None => self.session.status() & status::IN_TRANS != 0,
        }
    }

    /// Reads one command and answers it into the buffer.
    async fn step(&mut self) -> Result<Next, End> {
        let Self { server, process, link, login, session, relay, prepared, params, answered_at } = self;
        let capabilities = link.capabilities;
        let Link { stream, input, out, .. } = link;
        let reading = input.read_command(stream, server.max_allowed_packet);
        let packet = match relay {
            None => reading.await?,
            Some(relay) => tokio::select! {
                biased;
                lost = relay.ended() => return Err(End::Leader(lost)),
                packet = reading => packet?,
            },
        };
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
        let answered = match command {
            Ok(command) => {
                let (session, relay) = (&mut *session, &mut *relay);
                let settled = Place { server, process, login, capabilities, session, relay, prepared }.settle(&command);
                match (settled.await, relay) {
                    (Err(error), _) => Err(error),
                    (Ok(()), Some(relay)) => {
                        relay.pass(packet.bytes, process, out, stream).await?;
                        process.set_database(relay.answered().database.as_deref());
                        Ok(())
                    }
                    (Ok(()), None) => {
                        Context { server, process, stream, out, session, prepared, params }.answer(command).await
                    }
                }
            }
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
        // A session that the leader ran ends there.
        self.relay = None;
        self.process.set_via(Via::Here);
        self.prepared.clear();
        self.greet();
        Ok(())
    }
}

fn shutdown() -> SqlError {
    SqlError::new(1053, b"08S01", "Server shutdown in progress").fatal()
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
        if matches!(end, End::Leader(_)) {
            // Also the leader's own last word, if it had one.
            let _ = self.close().await;
        }
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
