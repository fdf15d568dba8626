//! An in-process network: several nodes in one process, with links that can be cut. For tests and simulation.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use parking_lot::Mutex;

use super::{Handler, Peer, Transport, TransportError};
use crate::{BoxFuture, NodeId};

#[derive(Default)]
struct State {
    handlers: BTreeMap<NodeId, Arc<dyn Handler>>,
    cut: BTreeSet<(NodeId, NodeId)>,
}

/// The network; [`Loopback::transport`] makes each node's door to it. Cloning shares it.
#[derive(Clone, Default)]
pub struct Loopback(Arc<Mutex<State>>);

impl Loopback {
    /// A network without nodes.
    pub fn new() -> Self {
        Self::default()
    }

    /// The door of `node`.
    pub fn transport(&self, node: NodeId) -> LoopbackTransport {
        LoopbackTransport { node, net: self.clone() }
    }

    /// Cuts (or mends) every link of `node`, in both directions.
    pub fn isolate(&self, node: NodeId, others: impl IntoIterator<Item = NodeId>, cut: bool) {
        let mut state = self.0.lock();
        for other in others {
            for link in [(node, other), (other, node)] {
                if cut {
                    state.cut.insert(link);
                } else {
                    state.cut.remove(&link);
                }
            }
        }
    }

    fn handler(&self, from: NodeId, to: NodeId) -> Option<Arc<dyn Handler>> {
        let state = self.0.lock();
        if state.cut.contains(&(from, to)) {
            return None;
        }
        state.handlers.get(&to).cloned()
    }
}

/// One node's door to a [`Loopback`].
#[derive(Clone)]
pub struct LoopbackTransport {
    node: NodeId,
    net: Loopback,
}

impl Transport for LoopbackTransport {
    fn call(&self, peer: Peer, frame: Bytes, timeout: Duration) -> BoxFuture<'static, Result<Bytes, TransportError>> {
        let (from, net) = (self.node, self.net.clone());
        Box::pin(async move {
            let unreachable = || TransportError::Unreachable(peer.id, "cut, or no such node".into());
            let handler = net.handler(from, peer.id).ok_or_else(unreachable)?;
            let answer = tokio::time::timeout(timeout, handler.handle(frame))
                .await
                .map_err(|_| TransportError::Timeout(peer.id, timeout))?;
            // The answer travels the link too, which may have been cut meanwhile.
            net.handler(peer.id, from).ok_or_else(unreachable)?;
            answer.ok_or_else(unreachable)
        })
    }

    fn serve(&self, handler: Arc<dyn Handler>) {
        self.net.0.lock().handlers.insert(self.node, handler);
    }

    fn stop(&self) {
        self.net.0.lock().handlers.remove(&self.node);
    }
}
