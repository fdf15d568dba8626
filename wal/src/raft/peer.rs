//! openraft's network, over [`Transport`]: requests go out as frames, frames that arrive are answered.

use std::{collections::BTreeMap, future::Future, sync::Arc, time::Duration};

use bytes::Bytes;
use openraft::{AnyError, RPCTypes};
use openraft::{
    BasicNode, OptionalSend, Raft, RaftNetworkFactory, RaftNetworkV2,
    errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Timeout, Unreachable},
    network::RPCOption,
    raft::{
        AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest, TransferLeaderResponse,
        VoteRequest, VoteResponse,
    },
};
use parking_lot::Mutex;

use super::{
    machine::StateMachine,
    message::{Frame, Message},
    read::Reads,
    types::{RaftSnapshot, RaftVote, TypeConfig, to_peer},
};
use crate::{
    BoxFuture, NodeId, Reports,
    transport::{Handler, Peer, Transport, TransportError},
};

/// Makes a [`Client`] for each peer.
#[derive(Clone)]
pub(crate) struct Network {
    pub(crate) cluster: u128,
    pub(crate) node: NodeId,
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) reports: Arc<dyn Reports>,
    /// Where members are by the newest membership: openraft keeps the client of a member that moves.
    addresses: Arc<Mutex<BTreeMap<NodeId, String>>>,
}

impl Network {
    pub(crate) fn new(cluster: u128, node: NodeId, transport: Arc<dyn Transport>, reports: Arc<dyn Reports>) -> Self {
        Self { cluster, node, transport, reports, addresses: Arc::default() }
    }

    /// The members are these now.
    pub(crate) fn know(&self, members: impl Iterator<Item = Peer>) {
        *self.addresses.lock() = members.map(|peer| (peer.id, peer.addr)).collect();
    }

    /// The peer, where it is now.
    fn now(&self, peer: &Peer) -> Peer {
        let addr = self.addresses.lock().get(&peer.id).cloned();
        Peer { id: peer.id, addr: addr.unwrap_or_else(|| peer.addr.clone()) }
    }

    /// One call to a peer, whatever it is about. Both sides' reports travel with it.
    pub(crate) async fn ask(&self, peer: Peer, message: Message, timeout: Duration) -> Result<Message, AskError> {
        let frame = Frame { cluster: self.cluster, from: self.node, report: self.reports.report(), message };
        let id = peer.id;
        let answer = self.transport.call(peer, frame.encode(), timeout).await?;
        let frame = Frame::decode(answer).map_err(|e| AskError::Bad(format!("answer of node {id}: {e}")))?;
        if frame.cluster != self.cluster || frame.from != id {
            return Err(AskError::Bad(format!("the answer is of node {}, not {id}", frame.from)));
        }
        self.reports.heard(frame.from, frame.report);
        Ok(frame.message)
    }
}

/// Why [`Network::ask`] got no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AskError {
    #[error(transparent)]
    Transport(#[from] TransportError),
    #[error("{0}")]
    Bad(String),
}

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = Client;

    async fn new_client(&mut self, target: NodeId, node: &BasicNode) -> Client {
        Client { net: self.clone(), peer: to_peer(target, node) }
    }
}

/// One peer, as openraft calls it.
pub(crate) struct Client {
    net: Network,
    peer: Peer,
}

type Rpc<T> = Result<T, RPCError<TypeConfig>>;

impl Client {
    async fn call<T>(&self, message: Message, option: &RPCOption, answer: impl FnOnce(Message) -> Option<T>) -> Rpc<T> {
        self.call_as(RPCTypes::AppendEntries, message, option.hard_ttl(), answer).await
    }

    async fn call_as<T>(
        &self,
        action: RPCTypes,
        message: Message,
        timeout: Duration,
        answer: impl FnOnce(Message) -> Option<T>,
    ) -> Rpc<T> {
        let bad = |what: String| RPCError::Network(NetworkError::new(&AnyError::error(what)));
        let message = self.net.ask(self.net.now(&self.peer), message, timeout).await.map_err(|e| match e {
            AskError::Transport(e @ TransportError::Unreachable(..)) => RPCError::Unreachable(Unreachable::new(&e)),
            AskError::Transport(TransportError::Timeout(..)) => {
                RPCError::Timeout(Timeout { action, id: self.net.node, target: self.peer.id, timeout })
            }
            AskError::Bad(what) => bad(what),
        })?;
        answer(message).ok_or_else(|| bad(format!("node {} gave an answer of another kind", self.peer.id)))
    }
}

impl RaftNetworkV2<TypeConfig> for Client {
    type SnapshotData = Bytes;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Rpc<AppendEntriesResponse<TypeConfig>> {
        self.call(Message::Append(rpc), &option, |m| match m {
            Message::AppendAnswer(a) => Some(a),
            _ => None,
        })
        .await
    }

    async fn vote(&mut self, rpc: VoteRequest<TypeConfig>, option: RPCOption) -> Rpc<VoteResponse<TypeConfig>> {
        self.call_as(RPCTypes::Vote, Message::Vote(rpc), option.hard_ttl(), |m| match m {
            Message::VoteAnswer(a) => Some(a),
            _ => None,
        })
        .await
    }

    async fn pre_vote(&mut self, rpc: VoteRequest<TypeConfig>, option: RPCOption) -> Rpc<VoteResponse<TypeConfig>> {
        self.call_as(RPCTypes::Vote, Message::PreVote(rpc), option.hard_ttl(), |m| match m {
            Message::VoteAnswer(a) => Some(a),
            _ => None,
        })
        .await
    }

    /// A pointer: one small frame, whatever the size of the state.
    async fn full_snapshot(
        &mut self,
        vote: RaftVote,
        snapshot: RaftSnapshot,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let answer = self.call_as(
            RPCTypes::InstallSnapshot,
            Message::Snapshot(vote, snapshot),
            option.hard_ttl(),
            |m| match m {
                Message::SnapshotAnswer(a) => Some(a),
                _ => None,
            },
        );
        tokio::select! {
            answer = answer => Ok(answer?),
            closed = cancel => Err(closed.into()),
        }
    }

    async fn transfer_leader(
        &mut self,
        req: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Rpc<TransferLeaderResponse<TypeConfig>> {
        self.call_as(RPCTypes::TransferLeader, Message::Transfer(req), option.hard_ttl(), |m| match m {
            Message::TransferAnswer(a) => Some(a),
            _ => None,
        })
        .await
    }
}

/// Answers the frames that reach this node.
pub(crate) struct Answerer {
    pub(crate) net: Network,
    pub(crate) raft: Raft<TypeConfig, StateMachine>,
    pub(crate) reads: Reads,
}

impl Answerer {
    async fn answer(&self, message: Message) -> Option<Message> {
        Some(match message {
            Message::Append(m) => Message::AppendAnswer(self.raft.append_entries(m).await.ok()?),
            Message::Vote(m) => Message::VoteAnswer(self.raft.vote(m).await.ok()?),
            Message::PreVote(m) => Message::VoteAnswer(self.raft.pre_vote(m).await.ok()?),
            Message::Snapshot(vote, s) => Message::SnapshotAnswer(self.raft.install_full_snapshot(vote, s).await.ok()?),
            Message::Transfer(m) => Message::TransferAnswer(self.raft.handle_transfer_leader(m).await.ok()?),
            Message::ReadIndex => Message::ReadIndexAnswer(self.reads.lead().await),
            Message::AppendAnswer(_)
            | Message::VoteAnswer(_)
            | Message::SnapshotAnswer(_)
            | Message::TransferAnswer(_)
            | Message::ReadIndexAnswer(_) => return None,
        })
    }
}

impl Handler for Answerer {
    fn handle(&self, frame: Bytes) -> BoxFuture<'_, Option<Bytes>> {
        Box::pin(async move {
            let frame = match Frame::decode(frame) {
                Ok(frame) if frame.cluster == self.net.cluster => frame,
                Ok(frame) => {
                    tracing::warn!(from = frame.from, "a frame of another cluster was dropped");
                    return None;
                }
                Err(e) => {
                    tracing::warn!("a frame was dropped: {e}");
                    return None;
                }
            };
            self.net.reports.heard(frame.from, frame.report);
            let message = self.answer(frame.message).await?;
            let report = self.net.reports.report();
            Some(Frame { cluster: self.net.cluster, from: self.net.node, report, message }.encode())
        })
    }
}
