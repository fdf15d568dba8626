//! The follower's end of a session that moved: passes on one command at a time and what the leader answers.

use std::{fmt, future::Future, pin::Pin};

use bytes::{Buf, BytesMut};
use holdfast::cluster::NodeStream;
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::frame::{self, Answered, FrameError, HEAD, Head, Kind};
use crate::{
    processlist::Process,
    wire::{
        packet::{ReadError, put_packet},
        reply::Output,
        result::SqlError,
    },
};

/// Bytes read at once.
const READ: usize = 16 << 10;

/// Why a session has no leader any more, or got none.
#[derive(Debug, thiserror::Error)]
pub enum Lost {
    /// The leader did not take it.
    #[error("{0}")]
    Refused(SqlError),
    /// It is over.
    #[error("node {0} has closed it")]
    Closed(u64),
    /// Another node leads.
    #[error("node {0} no longer leads")]
    Deposed(u64),
    /// The stream broke.
    #[error("{0}")]
    Failed(String),
    /// The client can't be written to.
    #[error(transparent)]
    Client(ReadError),
}

impl From<FrameError> for Lost {
    fn from(error: FrameError) -> Self {
        Self::Failed(error.to_string())
    }
}

impl From<std::io::Error> for Lost {
    fn from(error: std::io::Error) -> Self {
        Self::Failed(error.to_string())
    }
}

/// Resolves once another node than the relay's leads.
pub type Elsewhere = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A session that the leader runs.
pub struct Relay {
    leader: u64,
    stream: NodeStream,
    input: BytesMut,
    elsewhere: Elsewhere,
    answered: Answered,
}

impl fmt::Debug for Relay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Relay").field("leader", &self.leader).field("answered", &self.answered).finish_non_exhaustive()
    }
}

impl Relay {
    /// Sends a session over `stream` and waits until the leader has taken it.
    pub async fn start(
        leader: u64,
        mut stream: NodeStream,
        handover: &[u8],
        elsewhere: Elsewhere,
    ) -> Result<Self, Lost> {
        stream.write_all(handover).await?;
        stream.flush().await?;
        let mut input = BytesMut::new();
        let (kind, content) = next(&mut stream, &mut input, leader).await?;
        match kind {
            Kind::Answered => {
                let answered = Answered::decode(&content)?;
                Ok(Self { leader, stream, input, elsewhere, answered })
            }
            Kind::Refused => Err(Lost::Refused(frame::decode_refusal(&content)?)),
            other => Err(unexpected(other)),
        }
    }

    /// Who runs it.
    pub fn leader(&self) -> u64 {
        self.leader
    }

    /// Where the session stood after the last command.
    pub fn answered(&self) -> &Answered {
        &self.answered
    }

    /// Resolves once the session is over although no command runs.
    pub async fn ended(&mut self) -> Lost {
        tokio::select! {
            () = &mut self.elsewhere => Lost::Deposed(self.leader),
            got = next(&mut self.stream, &mut self.input, self.leader) => match got {
                Ok((kind, _)) => unexpected(kind),
                Err(lost) => lost,
            },
        }
    }

    /// Passes a command on, and its answer to `client`. KILL QUERY for `process` is passed on as well.
    pub async fn pass<W: AsyncWrite + Unpin>(
        &mut self,
        command: &[u8],
        process: &Process,
        out: &mut Output,
        client: &mut W,
    ) -> Result<(), Lost> {
        self.send(&command_frame(command)?).await?;
        let mut interrupted = false;
        loop {
            let Self { leader, stream, input, elsewhere, answered } = self;
            let (kind, content) = tokio::select! {
                biased;
                got = next(stream, input, *leader) => got?,
                () = elsewhere => return Err(Lost::Deposed(*leader)),
                _ = process.interrupted(), if !interrupted => {
                    interrupted = true;
                    self.send(&Head { kind: Kind::Kill, len: 0 }.encode()).await?;
                    continue;
                }
            };
            match kind {
                Kind::Bytes => {
                    out.relayed(&content);
                    out.send_much(client).await.map_err(|e| Lost::Client(e.into()))?;
                }
                Kind::Answered => {
                    *answered = Answered::decode(&content)?;
                    return Ok(());
                }
                other => return Err(unexpected(other)),
            }
        }
    }

    async fn send(&mut self, frame: &[u8]) -> Result<(), Lost> {
        let Self { leader, stream, elsewhere, .. } = self;
        let sending = async {
            stream.write_all(frame).await?;
            stream.flush().await
        };
        tokio::select! {
            biased;
            sent = sending => Ok(sent?),
            () = elsewhere => Err(Lost::Deposed(*leader)),
        }
    }
}

/// A frame of a command, as the packets that the client would send.
fn command_frame(command: &[u8]) -> Result<Vec<u8>, Lost> {
    let mut frame = Vec::with_capacity(2 * HEAD + command.len());
    frame.extend_from_slice(&[0; HEAD]);
    put_packet(&mut frame, command, &mut 0);
    let len = u32::try_from(frame.len() - HEAD).map_err(|_| Lost::Failed("a command over 4 GiB".to_owned()))?;
    frame[..HEAD].copy_from_slice(&Head { kind: Kind::Command, len }.encode());
    Ok(frame)
}

fn unexpected(kind: Kind) -> Lost {
    Lost::Failed(format!("a frame of kind {kind:?} came out of turn"))
}

/// The next whole frame. Cancel-safe: what has come stays in `input`.
async fn next(stream: &mut NodeStream, input: &mut BytesMut, leader: u64) -> Result<(Kind, BytesMut), Lost> {
    loop {
        if let Some(head) = input.first_chunk::<HEAD>() {
            let Head { kind, len } = Head::decode(*head)?;
            // A leader sends none of these, and their length has no bound.
            if kind == Kind::Command {
                return Err(unexpected(kind));
            }
            let len = len as usize;
            if input.len() - HEAD >= len {
                input.advance(HEAD);
                return Ok((kind, input.split_to(len)));
            }
        }
        input.reserve(READ);
        if stream.read_buf(input).await? == 0 {
            return Err(Lost::Closed(leader));
        }
    }
}
