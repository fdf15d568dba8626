//! The network between nodes: one connection to each peer, calls pipelined over it, in TLS if the caller brings what that
//! needs. Beside them raw streams, of whose bytes only the layer above this crate knows.
//!
//! Sockets live on the runtime that called [`TcpTransport::bind`], not on Raft's thread, which only waits for answers.

mod dial;
mod envelope;
mod inbound;
mod link;
mod stream;
mod told;

use std::{collections::HashMap, io, net::SocketAddr, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpListener,
    runtime::Handle,
    sync::{mpsc, oneshot, watch},
};

pub use self::stream::{NodeStream, NodeTls, StreamReader, StreamWriter};

use self::{
    envelope::{ENVELOPE, Envelope, Greeting, Purpose},
    inbound::{Door, Streams},
    link::{Call, Link},
    told::Told,
};
use super::{Handler, Peer, Transport, TransportError};
use crate::{BoxFuture, NodeId};

/// Bytes of a frame for which memory is taken before they have come.
const TRUST: usize = 1 << 20;
/// A raw stream whose listener takes nothing, or is not there, for this long is given up.
const STREAM_PATIENCE: Duration = Duration::from_secs(5);
/// Streams of the layer above that may wait to be taken.
const STREAMS_WAITING: usize = 64;

/// This node's door to its peers over TCP. Cloning shares it.
#[derive(Clone)]
pub struct TcpTransport(Arc<Shared>);

struct Shared {
    cluster: u128,
    node: NodeId,
    listener: Arc<TcpListener>,
    runtime: Handle,
    tls: Option<NodeTls>,
    streams: Streams,
    told: Told,
    links: Mutex<HashMap<NodeId, (String, mpsc::Sender<Call>)>>,
    stopped: watch::Sender<bool>,
}

impl TcpTransport {
    /// Listens on `addr` (`host:port`) for the other nodes of `cluster`, in TLS if `tls` is given: then with TLS only, in
    /// both directions. Nobody is answered before [`Transport::serve`].
    ///
    /// # Errors
    /// The address can't be had.
    pub async fn bind(cluster: u128, node: NodeId, addr: &str, tls: Option<NodeTls>) -> io::Result<Self> {
        Ok(Self(Arc::new(Shared {
            cluster,
            node,
            listener: Arc::new(TcpListener::bind(addr).await?),
            runtime: Handle::current(),
            tls,
            streams: Streams::default(),
            told: Told::default(),
            links: Mutex::default(),
            stopped: watch::Sender::new(false),
        })))
    }

    /// Opens a raw stream to a peer, which must have asked for them by [`TcpTransport::accept_streams`]. It is as trusted
    /// as all that comes from that peer.
    ///
    /// # Errors
    /// The peer can't be reached, is another one, or takes no streams.
    pub async fn open_stream(&self, peer: &Peer) -> Result<NodeStream, TransportError> {
        let shared = &self.0;
        let failed = |why: String| TransportError::Unreachable(peer.id, why);
        if *shared.stopped.borrow() {
            return Err(failed("this node is closing".to_owned()));
        }
        let greeting = shared.greeting(peer.id, Purpose::Stream);
        let stream =
            dial::dial(&peer.addr, greeting, shared.tls.as_ref()).await.map_err(|failure| failed(failure.why))?;
        stream.keep_alive(STREAM_PATIENCE).map_err(|e| failed(e.to_string()))?;
        Ok(stream)
    }

    /// Takes streams of other nodes from now on, each with the node that it came from. Those whom nobody takes in time are
    /// refused; all are once the receiver is gone.
    pub fn accept_streams(&self) -> mpsc::Receiver<(NodeId, NodeStream)> {
        let (sender, receiver) = mpsc::channel(STREAMS_WAITING);
        *self.0.streams.lock() = Some(sender);
        receiver
    }

    /// Where it listens.
    ///
    /// # Errors
    /// The system can't tell.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.listener.local_addr()
    }
}

impl Shared {
    fn greeting(&self, to: NodeId, purpose: Purpose) -> Greeting {
        Greeting { cluster: self.cluster, from: self.node, to, purpose }
    }

    /// The queue of calls to a peer; a peer that moved gets a new connection.
    fn link(&self, peer: &Peer) -> mpsc::Sender<Call> {
        let mut links = self.links.lock();
        if let Some((addr, calls)) = links.get(&peer.id)
            && *addr == peer.addr
            && !calls.is_closed()
        {
            return calls.clone();
        }
        let (sender, calls) = mpsc::channel(link::QUEUE);
        let greeting = self.greeting(peer.id, Purpose::Frames);
        let (addr, tls, told) = (peer.addr.clone(), self.tls.clone(), self.told.clone());
        let link = Link { addr, greeting, tls, told, calls };
        self.runtime.spawn(link.run(self.stopped.subscribe()));
        links.insert(peer.id, (peer.addr.clone(), sender.clone()));
        sender
    }
}

impl Transport for TcpTransport {
    fn call(&self, peer: Peer, frame: Bytes, timeout: Duration) -> BoxFuture<'static, Result<Bytes, TransportError>> {
        let (answer, answered) = oneshot::channel();
        // The call itself takes the place in line, so that frames leave in the order of the calls.
        let queued = match *self.0.stopped.borrow() {
            true => Err("this node is closing"),
            false => self.0.link(&peer).try_send(Call { frame, answer }).map_err(|error| match error {
                mpsc::error::TrySendError::Full(_) => "too many calls wait for it",
                mpsc::error::TrySendError::Closed(_) => "this node is closing",
            }),
        };
        Box::pin(async move {
            let unreachable = |why: String| TransportError::Unreachable(peer.id, why);
            queued.map_err(|why| unreachable(why.to_owned()))?;
            match tokio::time::timeout(timeout, answered).await {
                Ok(Ok(answer)) => answer.map_err(unreachable),
                Ok(Err(_)) => Err(unreachable("this node is closing".to_owned())),
                Err(_) => Err(TransportError::Timeout(peer.id, timeout)),
            }
        })
    }

    fn serve(&self, handler: Arc<dyn Handler>) {
        let shared = &self.0;
        let door = Door {
            cluster: shared.cluster,
            node: shared.node,
            tls: shared.tls.clone(),
            handler,
            streams: shared.streams.clone(),
            told: shared.told.clone(),
        };
        shared.runtime.spawn(inbound::accept(shared.listener.clone(), door, shared.stopped.subscribe()));
    }

    fn stop(&self) {
        self.0.stopped.send_replace(true);
        self.0.links.lock().clear();
        *self.0.streams.lock() = None;
    }
}

/// Writes an envelope and its frame.
async fn write_frame(output: &mut (impl AsyncWrite + Unpin), call: u64, frame: &[u8]) -> io::Result<()> {
    let len = u32::try_from(frame.len()).unwrap_or(u32::MAX);
    output.write_all(&Envelope { len, call }.encode()).await?;
    output.write_all(frame).await
}

/// Reads an envelope and its frame. Memory grows with what has come, not with what was announced.
async fn read_frame(input: &mut (impl AsyncRead + Unpin)) -> Result<(u64, Bytes), String> {
    let mut head = [0; ENVELOPE];
    input.read_exact(&mut head).await.map_err(|e| e.to_string())?;
    let Envelope { len, call } = Envelope::decode(&head).map_err(|e| e.to_string())?;
    let len = len as usize;
    let mut frame = BytesMut::with_capacity(len.min(TRUST));
    let mut rest = input.take(len as u64);
    while frame.len() < len {
        if rest.read_buf(&mut frame).await.map_err(|e| e.to_string())? == 0 {
            return Err(format!("cut short: {} of a frame's {len} bytes came", frame.len()));
        }
    }
    Ok((call, frame.freeze()))
}
