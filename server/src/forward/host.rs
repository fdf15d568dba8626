//! The leader's end of sessions that moved: takes them from the other nodes, and makes each a stream of packets that an
//! ordinary connection serves.
//!
//! The follower has checked who the client is: whoever can open such a stream is believed, as in all that nodes tell
//! each other.

use std::{
    fmt, io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf, Bytes, BytesMut};
use holdfast::{
    Db, Error,
    cluster::{NodeStream, StreamReader, StreamWriter},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf},
    sync::{mpsc, watch},
};

use super::{
    frame::{self, Answered, BYTES_MAX, HEAD, Head, Kind},
    handover::Handover,
};
use crate::{
    backend::{Backend, Conversation},
    connection::{self, Server},
    errmap,
    processlist::{Kill, ProcessList, Registered, Via},
    session::Login,
    wire::{reply::within, result::SqlError},
};

/// Longest that a session may take to come.
const ARRIVAL: Duration = Duration::from_secs(3);
/// A refused follower has this long to take its error.
const REFUSE_TIME: Duration = Duration::from_secs(2);
/// A statement of a leader that was deposed has this long to end, so that the client hears how.
const GRACE: Duration = Duration::from_secs(3);
/// Bytes read at once.
const READ: usize = 16 << 10;
/// Pieces of a command that may wait for the session.
const PIECES: usize = 4;
/// An answer is sent in pieces of this size.
const PENDING_MAX: usize = 64 << 10;

/// Takes sessions until `stop` changes. Each is a task of its own, in the process list as any connection.
pub async fn accept<B: Backend>(
    mut streams: mpsc::Receiver<(u64, NodeStream)>,
    server: Arc<Server<B>>,
    db: Db,
    mut stop: watch::Receiver<bool>,
) {
    loop {
        let (from, stream) = tokio::select! {
            biased;
            // A sender that is gone means stop as well.
            _ = stop.wait_for(|stop| *stop) => return,
            next = streams.recv() => match next {
                Some(next) => next,
                None => return,
            },
        };
        match server.processes.register(format!("node {from}")) {
            Ok(registered) => {
                registered.process().set_via(Via::From(from));
                let process = registered.process().clone();
                let task = tokio::spawn(take(server.clone(), db.clone(), stream, registered));
                process.set_task(task.abort_handle());
            }
            Err(error) => {
                server.metrics.refused.increment(1);
                tokio::spawn(refuse(stream, error));
            }
        }
    }
}

/// Tells a follower why its session does not move.
async fn refuse(mut stream: NodeStream, error: SqlError) {
    let mut out = Vec::new();
    frame::put(&mut out, Kind::Refused, &frame::encode_refusal(&error));
    let told = async {
        stream.write_all(&out).await?;
        stream.shutdown().await?;
        // What is left unread would take the answer with it.
        tokio::io::copy(&mut stream, &mut tokio::io::sink()).await
    };
    let _ = tokio::time::timeout(REFUSE_TIME, told).await;
}

/// Opens a session that came, and serves it to its end.
async fn take<B: Backend>(server: Arc<Server<B>>, db: Db, mut stream: NodeStream, registered: Registered) {
    let handover = match tokio::time::timeout(ARRIVAL, Handover::read(&mut stream)).await {
        Ok(Ok(handover)) => handover,
        Ok(Err(error)) => return refuse(stream, SqlError::new(1105, b"HY000", error.to_string())).await,
        Err(_) => return tracing::info!("a session of another node did not come within {ARRIVAL:?}"),
    };
    let term = db.term();
    let opened = match term != 0 && db.is_leader() {
        true => open(&server, &handover, &registered).await,
        false => Err(errmap::from_engine(Error::NotLeader { leader: db.leader().map(|(leader, _)| leader) })),
    };
    let (login, session) = match opened {
        Ok(opened) => opened,
        Err(error) => return refuse(stream, error).await,
    };
    server.metrics.hosted.increment(1);
    let (reader, writer) = stream.split();
    let (pieces, commands) = mpsc::channel(PIECES);
    let id = registered.process().id();
    tokio::spawn(listen(reader, pieces, server.processes.clone(), id, db, term));
    let hosted = Hosted { commands, piece: Bytes::new(), writer, pending: BytesMut::new() };
    connection::serve_hosted(server, hosted, handover, login, session, registered).await;
}

async fn open<B: Backend>(
    server: &Server<B>,
    handover: &Handover,
    registered: &Registered,
) -> Result<(Login, B::Session), SqlError> {
    let process = registered.process();
    process.set_host(&handover.client);
    process.set_user(&handover.user);
    let login = Login {
        connection_id: process.id(),
        user: handover.user.clone(),
        host: handover.host.clone(),
        // Not checked again: a session may stand in a database that is gone.
        database: None,
        collation: handover.collation,
        found_rows: handover.found_rows,
        multi_statements: handover.session.multi_statements,
        tls: handover.tls.clone(),
        process: Some(process.clone()),
    };
    let mut session = server.backend.open(login.clone()).await?;
    session.adopt(handover.session.clone())?;
    Ok((login, session))
}

/// Gives the follower's commands to the session until either is gone or this node no longer leads; then ends the session.
async fn listen(
    mut reader: StreamReader,
    pieces: mpsc::Sender<Bytes>,
    processes: Arc<ProcessList>,
    id: u32,
    db: Db,
    term: u64,
) {
    let deposed = tokio::select! {
        biased;
        () = pieces.closed() => return,
        () = db.deposed(term) => true,
        why = pass_on(&mut reader, &pieces, &processes, id) => {
            tracing::debug!(id, "the session of another node ended: {why}");
            false
        }
    };
    // The session finds no further command.
    drop(pieces);
    if deposed {
        let mut nowhere = tokio::io::sink();
        let gone = tokio::io::copy(&mut reader, &mut nowhere);
        let _ = tokio::time::timeout(GRACE, gone).await;
    }
    // An error means that it is gone.
    let _ = processes.kill(0, id.into(), Kill::Connection);
}

/// Reads frames until the stream ends; says why it did.
async fn pass_on(
    reader: &mut StreamReader,
    pieces: &mpsc::Sender<Bytes>,
    processes: &Arc<ProcessList>,
    id: u32,
) -> String {
    let mut input = BytesMut::new();
    // Bytes of the command that are still to come.
    let mut left = 0;
    loop {
        if left > 0 && !input.is_empty() {
            let piece = input.split_to(input.len().min(left)).freeze();
            left -= piece.len();
            if pieces.send(piece).await.is_err() {
                return "it was closed here".to_owned();
            }
            continue;
        }
        if left == 0
            && let Some(head) = input.first_chunk::<HEAD>()
        {
            match Head::decode(*head) {
                Ok(Head { kind: Kind::Command, len }) => left = len as usize,
                Ok(Head { kind: Kind::Kill, .. }) => {
                    // An error means that it is gone.
                    let _ = processes.kill(0, id.into(), Kill::Query);
                }
                Ok(Head { kind, .. }) => return format!("a frame of kind {kind:?} came out of turn"),
                Err(error) => return error.to_string(),
            }
            input.advance(HEAD);
            continue;
        }
        input.reserve(READ);
        match reader.read_buf(&mut input).await {
            Ok(0) => return "the follower has closed it".to_owned(),
            Ok(_) => {}
            Err(error) => return error.to_string(),
        }
    }
}

/// The client's byte stream of a session that moved here, as its connection reads and writes it.
pub struct Hosted {
    commands: mpsc::Receiver<Bytes>,
    /// What of a command was not read yet.
    piece: Bytes,
    writer: StreamWriter,
    /// Frames to be sent.
    pending: BytesMut,
}

impl fmt::Debug for Hosted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hosted").field("pending", &self.pending.len()).finish_non_exhaustive()
    }
}

impl Hosted {
    /// The answer is complete: sends what is left of it, and where the session stands.
    pub async fn answered(&mut self, answered: &Answered) -> io::Result<()> {
        frame::put(&mut self.pending, Kind::Answered, &answered.encode());
        within(std::future::poll_fn(|cx| self.poll_drain(cx))).await
    }

    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.pending.is_empty() {
            match ready!(Pin::new(&mut self.writer).poll_write(cx, &self.pending))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => self.pending.advance(written),
            }
        }
        Pin::new(&mut self.writer).poll_flush(cx)
    }
}

impl AsyncRead for Hosted {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        while self.piece.is_empty() {
            match ready!(self.commands.poll_recv(cx)) {
                Some(piece) => self.piece = piece,
                None => return Poll::Ready(Ok(())),
            }
        }
        let len = self.piece.len().min(buf.remaining());
        buf.put_slice(&self.piece.split_to(len));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Hosted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.pending.len() >= PENDING_MAX {
            ready!(self.poll_drain(cx))?;
        }
        let len = buf.len().min(BYTES_MAX);
        frame::put(&mut self.pending, Kind::Bytes, &buf[..len]);
        Poll::Ready(Ok(len))
    }

    /// Holds a small answer back: it leaves together with the word that it is complete.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_drain(cx))?;
        Pin::new(&mut self.writer).poll_shutdown(cx)
    }
}
