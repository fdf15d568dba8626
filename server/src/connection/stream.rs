//! A client's byte stream: plain, encrypted, or by way of another node.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::server::TlsStream;

use crate::forward::{frame::Answered, host::Hosted};

/// Reads and writes of the client's socket.
#[derive(Debug)]
pub enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
    /// The session moved here from a follower, which holds the client's socket.
    Hosted(Box<Hosted>),
    /// Between the two, and after a TLS handshake that failed: every use is an error.
    Closed,
}

impl Stream {
    /// TLS cipher and version, for SHOW STATUS.
    pub fn tls(&self) -> Option<(String, String)> {
        let Self::Tls(stream) = self else { return None };
        let session = &stream.get_ref().1;
        let cipher =
            session.negotiated_cipher_suite().map(|suite| format!("{:?}", suite.suite()).replace("TLS13_", "TLS_"));
        let version = session.protocol_version().map(|version| match version {
            rustls::ProtocolVersion::TLSv1_2 => "TLSv1.2".to_owned(),
            rustls::ProtocolVersion::TLSv1_3 => "TLSv1.3".to_owned(),
            other => format!("{other:?}"),
        });
        Some((cipher.unwrap_or_default(), version.unwrap_or_default()))
    }

    /// The session waits for the next command: a follower in between must know, a client sees it by the answer.
    pub async fn answered(&mut self, stands: impl FnOnce() -> Answered) -> io::Result<()> {
        match self {
            Self::Hosted(stream) => stream.answered(&stands()).await,
            Self::Plain(_) | Self::Tls(_) | Self::Closed => Ok(()),
        }
    }
}

macro_rules! either {
    ($self:ident, $stream:ident => $call:expr) => {
        match $self.get_mut() {
            Stream::Plain(stream) => {
                let $stream = Pin::new(stream);
                $call
            }
            Stream::Tls(stream) => {
                let $stream = Pin::new(stream.as_mut());
                $call
            }
            Stream::Hosted(stream) => {
                let $stream = Pin::new(stream.as_mut());
                $call
            }
            Stream::Closed => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    };
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        either!(self, stream => stream.poll_read(cx, buf))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        either!(self, stream => stream.poll_write(cx, buf))
    }
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, stream => stream.poll_flush(cx))
    }
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, stream => stream.poll_shutdown(cx))
    }
}
