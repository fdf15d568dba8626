//! The front of the log: open, propose, watch who leads, close.

use std::{collections::BTreeSet, future::Future, sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::sync::{oneshot, watch};

use crate::{
    Entry, Error, Log, LogId, LogOptions, Machine, NoReports, NodeId, Reports, Result,
    disk::Disk,
    host,
    in_flight::{InFlight, Share},
    raft::{Node, Start, to_entry},
    transport::{Peer, Transport},
};

/// How a [`Wal`] runs.
#[derive(Clone)]
pub struct WalOptions {
    /// This node. Never reused for another directory.
    pub node: NodeId,
    /// The local log; `log.cluster` names the cluster.
    pub log: LogOptions,
    /// The voters of a new cluster, this node among them: used when the log is empty, ignored later. `None` waits to be
    /// added by a running cluster.
    pub bootstrap: Option<Vec<Peer>>,
    /// Raft's clocks.
    pub timing: Timing,
    /// Bounds on what is in flight.
    pub limits: Limits,
    /// Runs Raft on a thread of its own (the default, and the fast way) or, when false, on the caller's runtime: for
    /// simulation, where all nodes share one deterministic runtime.
    pub own_thread: bool,
    /// What members tell each other with every frame.
    pub reports: Arc<dyn Reports>,
}

impl std::fmt::Debug for WalOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WalOptions").field("node", &self.node).field("log", &self.log).finish_non_exhaustive()
    }
}

impl WalOptions {
    /// A cluster of this node alone.
    pub fn single(node: NodeId, log: LogOptions) -> Self {
        Self {
            node,
            log,
            bootstrap: Some(vec![Peer { id: node, addr: String::new() }]),
            timing: Timing::default(),
            limits: Limits::default(),
            own_thread: true,
            reports: Arc::new(NoReports),
        }
    }
}

/// Raft's clocks. A follower starts an election after `election_max`, the leader's lease, and a random time between the other
/// two: with the defaults 1.2 to 1.6 s after the leader's last word, which leaves room for a device that stalls on a sync.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// The leader says that it lives this often.
    pub heartbeat: Duration,
    /// The shortest random part of a follower's patience.
    pub election_min: Duration,
    /// The longest; also the leader's lease, within which nobody else gets votes, and the silence of a quorum after which a
    /// leader takes no more writes.
    pub election_max: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_millis(100),
            election_min: Duration::from_millis(400),
            election_max: Duration::from_millis(800),
        }
    }
}

/// Bounds on proposals.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of one payload; a larger one is [`Error::TooLarge`].
    pub payload: u64,
    /// Proposals not yet applied; at most 32768. More is [`Error::Busy`].
    pub proposals: u64,
    /// Bytes of proposals not yet applied. More is [`Error::Busy`].
    pub bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { payload: 1 << 20, proposals: 16384, bytes: 64 << 20 }
    }
}

/// Who leads, as this node knows it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Leadership {
    /// The term.
    pub term: u64,
    /// Its leader, if known.
    pub leader: Option<NodeId>,
    /// This node leads.
    pub is_leader: bool,
    /// This node leads, its own no-op of `term` is applied here, so that its state holds everything committed before,
    /// and a quorum has answered lately.
    pub ready: bool,
}

/// How far another member is, as the leader knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The member.
    pub node: NodeId,
    /// The last entry that it has.
    pub matched: Option<LogId>,
    /// When it last answered.
    pub heard_ago: Option<Duration>,
}

/// A look at the log and its node, for metrics and status pages.
#[derive(Clone, Debug)]
pub struct WalStatus {
    /// Who leads.
    pub leadership: Leadership,
    /// First entry still in the log.
    pub first: Option<LogId>,
    /// Last entry in the log.
    pub last: Option<LogId>,
    /// Last entry known to be committed.
    pub committed: Option<LogId>,
    /// Index of the last entry applied here; 0 before the first.
    pub applied: u64,
    /// Last entry forgotten.
    pub purged: Option<LogId>,
    /// Bytes of disk in use.
    pub log_bytes: u64,
    /// Bytes that can still be written before proposals are refused.
    pub runway: u64,
    /// The runway of an empty log.
    pub capacity: u64,
    /// Grows by what is written to the log, in whole blocks; starts at what it held when it was opened.
    pub written: u64,
    /// Proposals in flight.
    pub in_flight: u64,
    /// Members and whether each votes.
    pub members: Vec<(Peer, bool)>,
    /// The other members, as the leader knows them; empty on others.
    pub replication: Vec<Progress>,
    /// The failure that stopped the node, if it has stopped.
    pub failure: Option<Error>,
}

struct Inner {
    node: Arc<Node>,
    limits: Limits,
    in_flight: Arc<InFlight>,
    stop: parking_lot::Mutex<Option<oneshot::Sender<()>>>,
    stopped: watch::Receiver<bool>,
}

/// The replicated log. Cloning shares it; when the last clone is dropped the node stops by itself, as after a crash:
/// nothing acknowledged is lost, nothing more is acknowledged.
#[derive(Clone)]
pub struct Wal {
    inner: Arc<Inner>,
}

impl Wal {
    /// Opens or creates the log on `disk` and starts Raft on it. Entries that are committed and that `machine` lacks are
    /// applied before this returns; a cluster of this node alone then leads within milliseconds ([`Wal::ready`]).
    ///
    /// # Errors
    /// Everything recovery can find ([`Error::Corrupt`], [`Error::OtherCluster`], ...), and [`Error::Options`] when
    /// machine and log do not meet.
    pub async fn open(
        options: WalOptions,
        disk: Arc<dyn Disk>,
        transport: Arc<dyn Transport>,
        machine: impl Machine,
    ) -> Result<Self> {
        let limits = options.limits;
        if limits.proposals > 32768 {
            return Err(Error::Options(format!("{} proposals in flight; at most 32768", limits.proposals)));
        }
        if limits.payload > options.log.max_payload as u64 {
            return Err(Error::Options(format!(
                "payloads of {} bytes do not fit the log's limit of {}",
                limits.payload, options.log.max_payload
            )));
        }
        let own_thread = options.own_thread;
        let in_flight: Arc<InFlight> = Arc::default();
        let start = Start { options, disk, transport, machine: Box::new(machine), in_flight: in_flight.clone() };
        let (stop, stop_rx) = oneshot::channel();
        let hosted =
            if own_thread { host::on_thread(start, stop_rx).await? } else { host::here(start, stop_rx).await? };
        let inner = Inner {
            node: hosted.node,
            limits,
            in_flight,
            stop: parking_lot::Mutex::new(Some(stop)),
            stopped: hosted.stopped,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Proposes an entry. The call itself takes the place in line, so that calls in one order give entries in that order
    /// (within a term); the future may be polled anywhere, or dropped: the proposal stands. It resolves once the entry is
    /// applied on this node's machine.
    ///
    /// # Errors
    /// Nothing was proposed: [`Error::NotLeader`], [`Error::TooLarge`], [`Error::Full`], [`Error::Busy`], and, once the node
    /// has stopped, [`Error::Failed`] with the cause or [`Error::Closed`]. Outcome not known: [`Error::Unknown`].
    pub fn propose(&self, payload: Bytes) -> impl Future<Output = Result<LogId>> + Send + 'static + use<> {
        let pending = self.enqueue(payload, Log::admit);
        async move { pending?.wait().await }
    }

    /// As [`Wal::propose`], for a small entry that makes room in the log: when the runway has ended it may use a part of
    /// the reserve (rule 5), so that a full log can be drained.
    ///
    /// # Errors
    /// As [`Wal::propose`].
    pub fn propose_reserved(&self, payload: Bytes) -> impl Future<Output = Result<LogId>> + Send + 'static + use<> {
        let pending = self.enqueue(payload, Log::admit_reserved);
        async move { pending?.wait().await }
    }

    fn enqueue(&self, payload: Bytes, admit: fn(&Log, usize) -> Result<()>) -> Result<crate::raft::Pending> {
        let inner = &*self.inner;
        inner.node.health().check()?;
        let len = payload.len() as u64;
        if len > inner.limits.payload {
            return Err(Error::TooLarge { len, max: inner.limits.payload });
        }
        let share = Share::take(&inner.in_flight, len, &inner.limits)?;
        admit(inner.node.log(), payload.len())?;
        Ok(inner.node.propose(payload, share))
    }

    /// Follows who leads.
    pub fn leadership(&self) -> watch::Receiver<Leadership> {
        self.inner.node.leadership()
    }

    /// Waits until this node leads and is ready; gives the term.
    ///
    /// # Errors
    /// The node has stopped.
    pub async fn ready(&self) -> Result<u64> {
        let mut leadership = self.leadership();
        match leadership.wait_for(|l| l.ready).await {
            Ok(l) => Ok(l.term),
            Err(_) => Err(self.failure().unwrap_or(Error::Closed)),
        }
    }

    /// Tries once more to grow the log, if its device had no room the last time. A refused proposal does the same; who
    /// proposes nothing because [`Wal::status`] shows no runway must ask from time to time.
    pub fn look_for_room(&self) {
        self.inner.node.log().look_for_room();
    }

    /// A look at the node.
    pub fn status(&self) -> WalStatus {
        let node = &self.inner.node;
        let log = node.log().state();
        WalStatus {
            leadership: *node.leadership().borrow(),
            first: log.first,
            last: log.last.or(log.purged),
            committed: node.committed(),
            applied: node.applied(),
            purged: log.purged,
            log_bytes: log.bytes,
            runway: log.runway,
            capacity: log.capacity,
            written: log.written,
            in_flight: self.inner.in_flight.proposals(),
            members: node.members(),
            replication: node.replication(),
            failure: self.failure(),
        }
    }

    /// Why the node stopped, if it did.
    pub fn failure(&self) -> Option<Error> {
        self.inner.node.health().check().err()
    }

    /// Waits until the node stops, by [`Wal::close`] or by a failure; gives the cause.
    pub async fn stopped(&self) -> Error {
        let mut failed = self.inner.node.health().watch();
        match failed.wait_for(Option::is_some).await {
            Ok(error) => error.clone().unwrap_or(Error::Closed),
            Err(_) => Error::Closed,
        }
    }

    /// Entries that are committed and applied here, from index `from` on (0 counts as 1), until `max_bytes` of payload are reached: at
    /// least one unless nothing is applied from there on, never a hole. Blocks on the disk when it starts below the RAM tail.
    ///
    /// # Errors
    /// [`Error::Purged`] when `from` is no longer in the log; [`Error::Corrupt`] and others of the device.
    pub fn read_applied(&self, from: u64, max_bytes: usize) -> Result<Vec<Entry>> {
        let (from, end) = (from.max(1), self.inner.node.applied() + 1);
        if from >= end {
            return Ok(Vec::new());
        }
        self.inner.node.log().read(from..end, max_bytes)?.into_iter().map(to_entry).collect()
    }

    /// Waits until all that was committed anywhere at the call is applied here, on any member (ReadIndex: the leader is
    /// asked, and a quorum confirms it). Calls that come together share a round.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when no confirmed leader answers within 3 s.
    pub async fn read_index(&self) -> Result<LogId> {
        self.inner.node.read_index().await
    }

    /// A quorum confirms that this very node leads, now: for what only a leader may do outside the log. [`Wal::read_index`]
    /// does not tell, since another leader may answer it.
    ///
    /// # Errors
    /// [`Error::NotLeader`]; [`Error::Unavailable`] when no quorum answers within 3 s.
    pub async fn confirm_lead(&self) -> Result<()> {
        self.inner.node.confirm_lead().await
    }

    /// Waits until the entry at `index` is applied here.
    ///
    /// # Errors
    /// The node has stopped.
    pub async fn wait_applied(&self, index: u64) -> Result<()> {
        self.inner.node.wait_applied(index).await
    }

    /// Changes the address of a member.
    ///
    /// # Errors
    /// As [`Wal::set_voters`].
    pub async fn move_member(&self, peer: Peer) -> Result<LogId> {
        self.inner.node.move_member(peer).await
    }

    /// Takes a member that does not vote out of the cluster.
    ///
    /// # Errors
    /// As [`Wal::set_voters`].
    pub async fn remove_learner(&self, id: NodeId) -> Result<LogId> {
        self.inner.node.remove_learner(id).await
    }

    /// Adds a member that receives the log but does not vote.
    ///
    /// # Errors
    /// [`Error::NotLeader`], [`Error::Membership`] while another change is under way.
    pub async fn add_learner(&self, peer: Peer) -> Result<LogId> {
        self.inner.node.add_learner(peer).await
    }

    /// Makes exactly these members the voters. Those that no longer vote stay as learners when `keep`, else they leave.
    ///
    /// # Errors
    /// [`Error::NotLeader`], [`Error::Membership`] when one of them is not a member or another change is under way.
    pub async fn set_voters(&self, voters: BTreeSet<NodeId>, keep: bool) -> Result<LogId> {
        self.inner.node.set_voters(voters, keep).await
    }

    /// Asks to hand leadership to voter `to`; the outcome shows in [`Wal::leadership`].
    ///
    /// # Errors
    /// The node has stopped.
    pub async fn transfer_leadership(&self, to: NodeId) -> Result<()> {
        self.inner.node.transfer(to).await
    }

    /// Stops Raft, finishes what the log has queued, and releases disk, transport and machine. Proposals in flight answer
    /// [`Error::Unknown`], later calls [`Error::Closed`]. Calling it again waits for the same end.
    pub async fn close(&self) {
        if let Some(stop) = self.inner.stop.lock().take() {
            let _ = stop.send(());
        }
        let mut stopped = self.inner.stopped.clone();
        // An error means that the host is gone, which is the end too.
        let _ = stopped.wait_for(|s| *s).await;
    }
}
