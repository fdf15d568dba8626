//! A byte stream between two nodes, plain or TLS, made from either side; and why one could not be made.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use rustls::{AlertDescription, CertificateError, ClientConfig, ServerConfig, pki_types::ServerName};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

/// On a raw stream the other machine is asked whether it is still there after so much silence ...
const QUIET: Duration = Duration::from_secs(2);
/// ... and then so often.
const ASK_EVERY: Duration = Duration::from_secs(1);

/// TLS between nodes: how this node proves who it is, and whom it believes.
#[derive(Clone, Debug)]
pub struct NodeTls {
    /// For connections of other nodes. Must ask for a certificate.
    pub listener: Arc<ServerConfig>,
    /// For connections to other nodes.
    pub caller: Arc<ClientConfig>,
}

/// The receiving half of a [`NodeStream`].
pub type StreamReader = Box<dyn AsyncRead + Send + Unpin>;
/// The sending half of a [`NodeStream`].
pub type StreamWriter = Box<dyn AsyncWrite + Send + Unpin>;

/// A byte stream between two nodes.
#[derive(Debug)]
pub struct NodeStream(Kind);

#[derive(Debug)]
enum Kind {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// Why there is no connection to a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) why: String,
    /// The peer is there and one of the two is set up wrong: an operator should know.
    pub(super) refused: bool,
}

impl Failure {
    pub(super) fn down(why: impl Into<String>) -> Self {
        Self { why: why.into(), refused: false }
    }

    pub(super) fn refused(why: impl Into<String>) -> Self {
        Self { why: why.into(), refused: true }
    }

    /// The same, with the address at fault.
    pub(super) fn at(self, addr: &str) -> Self {
        Self { why: format!("{addr}: {}", self.why), ..self }
    }
}

impl NodeStream {
    /// Connects to a peer, and checks that its certificate is of the common authority and names the address.
    pub(super) async fn connect(addr: &str, tls: Option<&NodeTls>) -> Result<Self, Failure> {
        let down = |e: io::Error| Failure::down(e.to_string());
        let socket = TcpStream::connect(addr).await.map_err(down)?;
        socket.set_nodelay(true).map_err(down)?;
        let Some(tls) = tls else { return Ok(Self(Kind::Plain(socket))) };
        let host = addr.rsplit_once(':').map_or(addr, |(host, _)| host).trim_matches(['[', ']']);
        let name = ServerName::try_from(host.to_owned())
            .map_err(|_| Failure::refused(format!("`{host}` is no name that a certificate can have")))?;
        match TlsConnector::from(tls.caller.clone()).connect(name, socket).await {
            Ok(stream) => Ok(Self(Kind::Tls(Box::new(stream.into())))),
            Err(e) if ended(&e) => Err(Failure::refused(
                "it ended the connection at the TLS handshake: is TLS between nodes on there too?",
            )),
            Err(e) => Err(explain(&e)),
        }
    }

    /// Takes a connection, and checks that its certificate is of the common authority.
    pub(super) async fn accept(socket: TcpStream, tls: Option<&NodeTls>) -> Result<Self, Failure> {
        socket.set_nodelay(true).map_err(|e| Failure::down(e.to_string()))?;
        let Some(tls) = tls else { return Ok(Self(Kind::Plain(socket))) };
        match TlsAcceptor::from(tls.listener.clone()).accept(socket).await {
            Ok(stream) => Ok(Self(Kind::Tls(Box::new(stream.into())))),
            Err(e) if ended(&e) => Err(Failure::down(e.to_string())),
            Err(e) => Err(explain(&e)),
        }
    }

    /// Makes the system find out that the other machine is gone, also while nothing is to be said. So does a reader that takes
    /// nothing for `patience`.
    pub(super) fn keep_alive(&self, patience: Duration) -> io::Result<()> {
        use rustix::net::sockopt;
        let socket = match &self.0 {
            Kind::Plain(socket) => socket,
            Kind::Tls(stream) => stream.get_ref().0,
        };
        sockopt::set_tcp_keepidle(socket, QUIET)?;
        sockopt::set_tcp_keepintvl(socket, ASK_EVERY)?;
        // Counts for questions without an answer as for bytes that were not received.
        sockopt::set_tcp_user_timeout(socket, u32::try_from(patience.as_millis()).unwrap_or(u32::MAX))?;
        Ok(sockopt::set_socket_keepalive(socket, true)?)
    }

    /// Both directions, for two tasks.
    pub fn split(self) -> (StreamReader, StreamWriter) {
        match self.0 {
            Kind::Plain(socket) => {
                let (reader, writer) = socket.into_split();
                (Box::new(reader), Box::new(writer))
            }
            Kind::Tls(stream) => {
                let (reader, writer) = tokio::io::split(stream);
                (Box::new(reader), Box::new(writer))
            }
        }
    }
}

/// The other side went without a word.
fn ended(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), UnexpectedEof | ConnectionReset | ConnectionAborted | BrokenPipe)
}

/// What an operator should do about a failed read, write or handshake.
pub(super) fn explain(error: &io::Error) -> Failure {
    use CertificateError::{
        BadSignature, Expired, ExpiredContext, NotValidForName, NotValidForNameContext, UnknownIssuer,
    };
    let Some(tls) = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) else {
        return Failure::down(error.to_string());
    };
    let hint = match tls {
        rustls::Error::InvalidMessage(_) => "it does not speak TLS: turn TLS between nodes on there, or off here",
        rustls::Error::NoCertificatesPresented => "it shows no certificate: it needs one of this cluster's authority",
        // The second: another authority of the same name.
        rustls::Error::InvalidCertificate(UnknownIssuer | BadSignature) => {
            "its certificate is not of the authority that this node trusts: all nodes need certificates of one authority"
        }
        rustls::Error::InvalidCertificate(NotValidForName | NotValidForNameContext { .. }) => {
            "its certificate does not name the address that it is called by: add that as a subjectAltName"
        }
        rustls::Error::InvalidCertificate(Expired | ExpiredContext { .. }) => {
            "its certificate has expired: make a new one"
        }
        rustls::Error::AlertReceived(
            AlertDescription::UnknownCA | AlertDescription::BadCertificate | AlertDescription::DecryptError,
        ) => "it does not trust this node's certificate: all nodes need certificates of one authority",
        rustls::Error::AlertReceived(AlertDescription::CertificateExpired) => {
            "this node's certificate has expired: make a new one"
        }
        _ => "TLS between nodes failed",
    };
    Failure::refused(format!("{hint} ({tls})"))
}

macro_rules! either {
    ($self:ident, $stream:ident => $call:expr) => {
        match &mut $self.get_mut().0 {
            Kind::Plain(stream) => {
                let $stream = Pin::new(stream);
                $call
            }
            Kind::Tls(stream) => {
                let $stream = Pin::new(stream.as_mut());
                $call
            }
        }
    };
}

impl AsyncRead for NodeStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        either!(self, stream => stream.poll_read(cx, buf))
    }
}

impl AsyncWrite for NodeStream {
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
