//! openraft's types for this log, and the one place where its indexes meet ours.

use std::fmt;

use bytes::Bytes;
use openraft::{BasicNode, impls::leader_id_std, raft::responder::Responder};
use tokio::sync::oneshot;

use crate::{LogId, NodeId, in_flight::Share, transport::Peer};

/// A proposal's bytes, as openraft carries them.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Data(pub(crate) Bytes);

impl fmt::Debug for Data {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

impl fmt::Display for Data {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

/// openraft's parameters: at most one leader in a term (`leader_id_std`), opaque payloads, no response data.
#[derive(Debug, Clone, Copy, Default, Eq, PartialEq, Ord, PartialOrd)]
pub(crate) struct TypeConfig;

impl openraft::RaftTypeConfig for TypeConfig {
    type D = Data;
    type R = ();
    type NodeId = NodeId;
    type Node = BasicNode;
    type Term = u64;
    type LeaderId = LeaderId;
    type Vote = RaftVote;
    type Payload = openraft::EntryPayload<Data, NodeId, BasicNode>;
    type Entry = RaftEntry;
    type AsyncRuntime = openraft::impls::TokioRuntime;
    type Responder<T>
        = Reply<T>
    where
        T: Send + 'static;
    type Batch<T>
        = openraft::impls::InlineBatch<T>
    where
        T: Send + 'static;
    type ErrorSource = openraft::impls::BoxedErrorSource;
}

pub(crate) type LeaderId = leader_id_std::LeaderId<u64, NodeId>;
pub(crate) type CommittedLeaderId = <LeaderId as openraft::vote::RaftLeaderId>::Committed;
pub(crate) type RaftLogId = openraft::LogId<CommittedLeaderId>;
pub(crate) type RaftVote = openraft::Vote<LeaderId>;
pub(crate) type RaftEntry = openraft::Entry<CommittedLeaderId, openraft::EntryPayload<Data, NodeId, BasicNode>>;
pub(crate) type RaftMembership = openraft::Membership<NodeId, BasicNode>;
pub(crate) type StoredMembership = openraft::StoredMembership<CommittedLeaderId, NodeId, BasicNode>;
pub(crate) type SnapshotMeta = openraft::SnapshotMeta<CommittedLeaderId, NodeId, BasicNode>;
pub(crate) type RaftSnapshot = openraft::Snapshot<CommittedLeaderId, NodeId, BasicNode, Bytes>;

/// Where openraft answers a proposal: straight to the waiting caller, and releases what the proposal held.
pub(crate) struct Reply<T> {
    tx: oneshot::Sender<T>,
    share: Share,
}

impl<T> Reply<T> {
    /// A reply and its receiver; `share` is given back once the proposal has its answer (or is forgotten).
    pub(crate) fn new(share: Share) -> (Self, oneshot::Receiver<T>) {
        let (tx, rx) = oneshot::channel();
        (Self { tx, share }, rx)
    }
}

impl<T: Send + 'static> Responder<TypeConfig, T> for Reply<T> {
    fn on_complete(self, result: T) {
        // Before the answer, or the caller's next proposal would count beside this one.
        drop(self.share);
        // The caller may have gone away; the entry is in force all the same.
        let _ = self.tx.send(result);
    }
}

/// openraft counts entries from 0, we from 1 (0 is "nothing" in `Applied::purge_to` and in records).
pub(crate) fn to_raft(id: LogId) -> RaftLogId {
    RaftLogId::new(CommittedLeaderId::new(id.term), id.index.saturating_sub(1))
}

/// See [`to_raft`].
pub(crate) fn from_raft(id: &RaftLogId) -> LogId {
    LogId { term: id.committed_leader_id().term, index: id.index() + 1 }
}

/// A vote that a node gives in a term.
pub(crate) fn vote(term: u64, node: NodeId, committed: bool) -> RaftVote {
    if committed { RaftVote::new_committed(term, node) } else { RaftVote::new(term, node) }
}

/// A member as openraft stores it.
pub(crate) fn to_peer(id: NodeId, node: &BasicNode) -> Peer {
    Peer { id, addr: node.addr.clone() }
}
