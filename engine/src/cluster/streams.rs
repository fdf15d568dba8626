//! Raw streams between the nodes, for the layer above: to whoever leads, and from the others. What they say is not known
//! here, and neither side's Raft depends on them.

use holdfast_wal::transport::NodeStream;
use tokio::sync::mpsc;

use crate::{
    Db,
    error::{Error, Result},
};

impl Db {
    /// A stream to the leader, as soon as one is known; `None` if this node leads itself. Its other end comes out of
    /// [`Db::incoming_streams`] there.
    ///
    /// # Errors
    /// `Retry` if the leader can't be reached or takes none; `Closed`.
    pub async fn stream_to_leader(&self) -> Result<Option<(u64, NodeStream)>> {
        let mut leadership = self.wal()?.leadership();
        let mut term = self.0.inner.term_changes();
        loop {
            self.0.inner.check()?;
            let leader = leadership.borrow_and_update().leader;
            term.borrow_and_update();
            if self.is_leader() {
                return Ok(None);
            }
            if let Some(leader) = leader.filter(|leader| *leader != self.0.node) {
                return Ok(Some((leader, self.open_stream(leader).await?)));
            }
            tokio::select! {
                changed = leadership.changed() => {
                    changed.map_err(|_| Error::Closed("the log has stopped".into()))?;
                }
                // The sender lives as long as the database.
                _ = term.changed() => {}
            }
        }
    }

    async fn open_stream(&self, to: u64) -> Result<NodeStream> {
        let peer = self.wal()?.status().members.into_iter().map(|(peer, _)| peer).find(|peer| peer.id == to);
        let network = self.0.network.lock().clone();
        let (Some(peer), Some(network)) = (peer, network) else {
            return Err(Error::Retry(format!("there is no way to node {to}")));
        };
        network.open_stream(&peer).await.map_err(|error| Error::Retry(error.to_string()))
    }

    /// Takes streams of the other nodes from now on, each with the node that it came from. `None` if there is no network
    /// for them.
    pub fn incoming_streams(&self) -> Option<mpsc::Receiver<(u64, NodeStream)>> {
        self.0.network.lock().as_ref().map(holdfast_wal::transport::TcpTransport::accept_streams)
    }

    /// Resolves once another node than `leader` is known to lead, or the database has ended.
    pub async fn another_leads(&self, leader: u64) {
        let Ok(mut leadership) = self.wal().map(|wal| wal.leadership()) else { return };
        // An error means that the log is gone.
        let _ = leadership.wait_for(|now| now.leader.is_some_and(|now| now != leader)).await;
    }

    /// Resolves once this node no longer leads in `term`.
    pub async fn deposed(&self, term: u64) {
        let mut now = self.0.inner.term_changes();
        // The sender lives as long as the database.
        let _ = now.wait_for(|(now, _)| *now != term).await;
    }
}
