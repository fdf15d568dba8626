//! A database of several nodes: what a node is told of the others, and what it tells about them.

use std::{fmt, sync::Arc, time::Duration};

pub use holdfast_wal::transport::{
    Handler, NodeStream, NodeTls, Peer, StreamReader, StreamWriter, Transport, TransportError,
};

use crate::{Error, Result};

pub(crate) mod join;
pub(crate) mod lag;
pub(crate) mod manage;
pub(crate) mod members;
pub(crate) mod report;
mod streams;

/// This node among others.
#[derive(Clone, Debug)]
pub struct ClusterOptions {
    /// This node's number. Never used again for another data directory.
    pub node: u64,
    /// How the nodes reach each other.
    pub network: Network,
    /// Where the others reach this node.
    pub address: String,
    /// The voters of a new cluster, this node among them. Only looked at while the store belongs to no one yet; a node
    /// that is none of them waits to be added.
    pub voters: Vec<Peer>,
    /// What the others may know of this node.
    pub info: NodeInfo,
}

/// What nodes tell each other about themselves, for whoever has to find a node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeInfo {
    /// Where it serves clients.
    pub sql: String,
    /// Where its admin port is.
    pub admin: String,
    /// The release that it runs.
    pub release: String,
}

/// How the nodes reach each other.
#[derive(Clone)]
pub enum Network {
    /// TCP, listening on this address.
    Tcp {
        /// `host:port`.
        listen: String,
        /// TLS, then in both directions and on all nodes.
        tls: Option<NodeTls>,
    },
    /// The caller's own, made for a cluster and a node: for simulations.
    Custom(Arc<dyn Fn(u128, u64) -> Arc<dyn Transport> + Send + Sync>),
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { listen, tls } => write!(f, "Tcp({listen}, TLS: {})", tls.is_some()),
            Self::Custom(_) => write!(f, "Custom"),
        }
    }
}

impl ClusterOptions {
    /// Refuses what contradicts itself.
    pub(crate) fn check(&self) -> Result<()> {
        let invalid = |text: String| Err(Error::Invalid(text));
        if self.node == 0 {
            return invalid("node numbers start at 1".into());
        }
        let mut ids: Vec<u64> = self.voters.iter().map(|peer| peer.id).collect();
        ids.sort_unstable();
        if let Some(twice) = ids.windows(2).find(|pair| pair[0] == pair[1]) {
            return invalid(format!("node {} is named twice among the peers", twice[0]));
        }
        if ids.first() == Some(&0) {
            return invalid("node numbers start at 1".into());
        }
        Ok(())
    }
}

/// What a node does in its cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Takes writes.
    Leader,
    /// Has a vote, and follows the leader.
    Follower,
    /// Has no vote yet, and follows the leader.
    Learner,
    /// Belongs to no cluster yet, or to none any more.
    Outside,
}

impl Role {
    /// Its name in status and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Leader => "leader",
            Self::Follower => "follower",
            Self::Learner => "learner",
            Self::Outside => "outside",
        }
    }
}

/// A member, as this node knows it. Only the leader knows how far the others are.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Member {
    /// Its number.
    pub id: u64,
    /// Where the other nodes reach it.
    pub address: String,
    /// What it does.
    pub role: Role,
    /// What it told of itself, if it was heard.
    pub info: Option<NodeInfo>,
    /// Entries that it lacks.
    pub lag_entries: Option<u64>,
    /// Bytes of log that it lacks, about.
    pub lag_bytes: Option<u64>,
    /// How long ago the first entry that it lacks was committed, about.
    pub lag_time: Option<Duration>,
    /// When it was last heard.
    pub heard_ago: Option<Duration>,
}

/// The cluster, as this node knows it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ClusterStatus {
    /// This node.
    pub node: u64,
    /// What it does.
    pub role: Role,
    /// It leads, and takes writes.
    pub writable: bool,
    /// The term.
    pub term: u64,
    /// Who leads, if known.
    pub leader: Option<u64>,
    /// Everyone.
    pub members: Vec<Member>,
    /// Last entry of this node's log.
    pub last: u64,
    /// Last entry that this node knows to be committed.
    pub committed: u64,
    /// Last entry applied here.
    pub applied: u64,
    /// Last entry that is in the bucket, as far as this node knows.
    pub flushed: u64,
}
