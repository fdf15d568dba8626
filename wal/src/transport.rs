//! The transport seam: how one node's log sends a frame to a peer and hears the answer.
//!
//! A frame is opaque here: self-delimiting, checksummed and versioned by `raft/message.rs`, so that a transport only moves
//! bytes. Real sockets, the in-process [`Loopback`] and the simulation answer the same calls.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;

use crate::{BoxFuture, NodeId};

mod loopback;
mod tcp;

pub use loopback::{Loopback, LoopbackTransport};
pub use tcp::{NodeStream, NodeTls, StreamReader, StreamWriter, TcpTransport};

/// A member of the cluster and where it listens.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Peer {
    /// The member.
    pub id: NodeId,
    /// Its address, as the transport understands it.
    pub addr: String,
}

/// Why a frame got no answer. The caller assumes nothing about whether it arrived.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransportError {
    /// The peer can't be reached; worth backing off.
    #[error("node {0} is unreachable: {1}")]
    Unreachable(NodeId, String),
    /// No answer in time.
    #[error("node {0} did not answer within {1:?}")]
    Timeout(NodeId, Duration),
}

/// Answers the frames that arrive for this node.
pub trait Handler: Send + Sync + 'static {
    /// The answer to one request frame. `None`: the frame was not ours to answer (corrupt, other cluster, shutting down),
    /// drop the connection.
    fn handle(&self, frame: Bytes) -> BoxFuture<'_, Option<Bytes>>;
}

/// Moves frames between nodes.
pub trait Transport: Send + Sync + 'static {
    /// Sends `frame` to `peer` and waits up to `timeout` for the answer. Frames to one peer may overtake each other.
    fn call(&self, peer: Peer, frame: Bytes, timeout: Duration) -> BoxFuture<'static, Result<Bytes, TransportError>>;

    /// Installs the handler of frames that arrive here. Called once, before the first [`Transport::call`].
    fn serve(&self, handler: Arc<dyn Handler>);

    /// Stops answering: later frames find no handler.
    fn stop(&self);
}

/// No network: the transport of a cluster of one voter.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoTransport;

impl Transport for NoTransport {
    fn call(&self, peer: Peer, _: Bytes, _: Duration) -> BoxFuture<'static, Result<Bytes, TransportError>> {
        Box::pin(async move { Err(TransportError::Unreachable(peer.id, "this node has no network".into())) })
    }

    fn serve(&self, _: Arc<dyn Handler>) {}

    fn stop(&self) {}
}
