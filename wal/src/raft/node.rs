//! One running Raft node: how it starts, what it watches, how it stops.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Waker},
    time::Duration,
};

use bytes::Bytes;
use openraft::{
    BasicNode, ChangeMembers, Config, Instant as _, Raft, SnapshotPolicy,
    async_runtime::watch::WatchReceiver as _,
    errors::{ClientWriteError, InitializeError, RaftError},
    raft::ClientWriteResult,
    storage::RaftLogStorage,
};
use tokio::{
    runtime::Handle,
    sync::{oneshot, watch},
};

use super::{
    health::{Health, Progress},
    machine::StateMachine,
    message::ReadIndexAnswer,
    pace::Pace,
    peer::{Answerer, Network},
    read::{self, Reads},
    store::Store,
    types::{Data, Reply, TypeConfig, from_raft, to_peer, vote},
};
use crate::{
    Error, Leadership, Log, LogId, LogState, Machine, NodeId, Result, WalOptions,
    disk::Disk,
    in_flight::{InFlight, Share},
    transport::{Peer, Transport},
};

/// What a node is started from.
pub(crate) struct Start {
    pub(crate) options: WalOptions,
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) machine: Box<dyn Machine>,
    pub(crate) in_flight: Arc<InFlight>,
}

/// A running node. All of its tasks run on the runtime that called [`Node::start`].
pub(crate) struct Node {
    id: NodeId,
    raft: Raft<TypeConfig, StateMachine>,
    log: Log,
    health: Arc<Health>,
    progress: Arc<Progress>,
    leadership: watch::Receiver<Leadership>,
    net: Network,
    reads: Reads,
    runtime: Handle,
}

/// The answer to a proposal, still to come.
pub(crate) struct Pending {
    answer: oneshot::Receiver<ClientWriteResult<TypeConfig>>,
    health: Arc<Health>,
}

impl Node {
    /// Recovers the log, starts Raft on it and, where this node alone is the quorum, makes it lead at once.
    pub(crate) async fn start(start: Start) -> Result<Self> {
        let Start { options, disk, transport, mut machine, in_flight } = start;
        let health = Arc::new(Health::new());
        let progress = Arc::new(Progress::new());
        let pace = Arc::new(Pace::new(in_flight, options.own_thread));
        let (log, state) = Log::open(disk, options.log.clone())?;
        machine.log_ends(state.last.or(state.purged));
        let restored = machine.restored();
        check_machine(restored.applied, &state)?;
        let mut store = Store::new(log.clone(), health.clone(), pace.clone());
        raise_vote(&mut store, options.node, restored.applied).await?;
        let machine = StateMachine::new(machine, health.clone(), progress.clone())?;
        // Before Raft starts: it replays, and what the machine asks for meanwhile must be heard.
        let asked = progress.watch_purge();
        let reports = options.reports.clone();
        let net = Network::new(options.log.cluster, options.node, transport.clone(), reports);
        let config = Arc::new(config(&options)?);
        let raft = Raft::new(options.node, config, net.clone(), store, machine).await.map_err(|fatal| {
            health.check().err().unwrap_or_else(|| Error::Failed { cause: fatal.to_string().into() })
        })?;
        let reads = Reads::start(raft.clone());
        let handler = Answerer { net: net.clone(), raft: raft.clone(), reads: reads.clone() };
        transport.serve(Arc::new(handler));
        let (leadership_tx, leadership) = watch::channel(Leadership::default());
        let watched = Watched { id: options.node, raft: raft.clone(), quorum_within: options.timing.election_max };
        tokio::spawn(watched.leadership(health.clone(), progress.clone(), leadership_tx));
        tokio::spawn(watch_members(options.node, raft.clone(), pace, net.clone()));
        tokio::spawn(purge(raft.clone(), asked));
        let runtime = Handle::current();
        let node = Self { id: options.node, raft, log, health, progress, leadership, net, reads, runtime };
        node.join(options.bootstrap).await?;
        Ok(node)
    }

    /// Starts the cluster if it never was, or leads it if no other voter is needed.
    async fn join(&self, bootstrap: Option<Vec<Peer>>) -> Result<()> {
        let stopped = |e: String| self.health.check().err().unwrap_or(Error::Failed { cause: e.into() });
        if !self.raft.is_initialized().await.map_err(|e| stopped(e.to_string()))? {
            let Some(members) = bootstrap else { return Ok(()) };
            let members: BTreeMap<_, _> = members.into_iter().map(|p| (p.id, BasicNode { addr: p.addr })).collect();
            return match self.raft.initialize(members).await {
                // Another of the first voters was quicker: this one learns of the members from it.
                Ok(()) | Err(RaftError::APIError(InitializeError::NotAllowed(_))) => Ok(()),
                Err(RaftError::APIError(e)) => Err(Error::Options(format!("bootstrap: {e}"))),
                Err(RaftError::Fatal(e)) => Err(stopped(e.to_string())),
            };
        }
        let id = self.id;
        let alone = self
            .raft
            .with_raft_state(move |state| state.membership_state.effective().voter_ids().eq([id]))
            .await
            .map_err(|e| stopped(e.to_string()))?;
        if alone {
            self.raft.trigger().elect(false).await.map_err(|e| stopped(e.to_string()))?;
        }
        Ok(())
    }

    /// Puts a proposal in line. The line is taken before this returns; `share` is given back with the answer.
    pub(crate) fn propose(&self, payload: Bytes, share: Share) -> Pending {
        let (reply, rx) = Reply::new(share);
        let raft = self.raft.clone();
        let mut send = Box::pin(async move { raft.client_write_ff(Data(payload), Some(reply)).await });
        // The channel to Raft is wider than the bound on proposals, so that one poll sends. Unconstrained, because a task
        // that has used up its budget would otherwise see a full channel here.
        let mut send_now = tokio::task::unconstrained(send.as_mut());
        if Pin::new(&mut send_now).poll(&mut Context::from_waker(Waker::noop())).is_pending() {
            // Raft has stopped and is being joined; openraft wants that join finished. The reply is dropped by it.
            self.runtime.spawn(send);
        }
        Pending { answer: rx, health: self.health.clone() }
    }

    pub(crate) fn health(&self) -> &Health {
        &self.health
    }

    pub(crate) fn log(&self) -> &Log {
        &self.log
    }

    pub(crate) fn leadership(&self) -> watch::Receiver<Leadership> {
        self.leadership.clone()
    }

    pub(crate) fn applied(&self) -> u64 {
        self.progress.applied_index()
    }

    /// What Raft knows to be committed.
    pub(crate) fn committed(&self) -> Option<LogId> {
        self.raft.data_metrics().borrow_watched().local_committed.as_ref().map(from_raft)
    }

    /// All members, with whether each votes.
    pub(crate) fn members(&self) -> Vec<(Peer, bool)> {
        let metrics = self.raft.server_metrics();
        let metrics = metrics.borrow_watched();
        let membership = metrics.membership_config.membership();
        let voters: Vec<_> = membership.voter_ids().collect();
        membership.nodes().map(|(id, node)| (to_peer(*id, node), voters.contains(id))).collect()
    }

    /// Runs `call` on the node's own runtime, so that the caller's needs no timers.
    async fn on_runtime<T: Send + 'static>(&self, call: impl Future<Output = Result<T>> + Send + 'static) -> Result<T> {
        self.health.check()?;
        match self.runtime.spawn(call).await {
            Ok(result) => result.map_err(|e| self.health.check().err().unwrap_or(e)),
            Err(_) => Err(self.health.check().err().unwrap_or(Error::Closed)),
        }
    }

    /// Waits until everything that was committed anywhere when this was called is applied here. The leader is asked, and
    /// confirmed by a quorum first (ReadIndex, no lease).
    pub(crate) async fn read_index(&self) -> Result<LogId> {
        let (net, reads, raft) = (self.net.clone(), self.reads.clone(), self.raft.clone());
        let leadership = self.leadership.clone();
        let find = async move { read::find(&net, &reads, leadership, |leader| address(&raft, leader)).await };
        let id = self.on_runtime(find).await?;
        self.wait_applied(id.index).await?;
        Ok(id)
    }

    /// A quorum confirms that this very node leads.
    pub(crate) async fn confirm_lead(&self) -> Result<()> {
        let reads = self.reads.clone();
        self.on_runtime(async move {
            match reads.lead().await {
                ReadIndexAnswer::Index(_) => Ok(()),
                ReadIndexAnswer::NotLeader(leader) => Err(Error::NotLeader { leader }),
                ReadIndexAnswer::Unavailable(cause) => Err(Error::Unavailable { cause: cause.into() }),
            }
        })
        .await
    }

    /// Waits until the entry at `index` is applied here.
    pub(crate) async fn wait_applied(&self, index: u64) -> Result<()> {
        let mut failed = self.health.watch();
        tokio::select! {
            biased;
            () = self.progress.wait_applied(index) => Ok(()),
            _ = failed.wait_for(Option::is_some) => Err(self.health.check().err().unwrap_or(Error::Closed)),
        }
    }

    /// As leader: how far each other member has the log, and when it last answered.
    pub(crate) fn replication(&self) -> Vec<crate::wal::Progress> {
        let metrics = self.raft.data_metrics();
        let metrics = metrics.borrow_watched();
        let Some(replication) = &metrics.replication else { return Vec::new() };
        let heard = |id: &NodeId| metrics.heartbeat.as_ref().and_then(|all| all.get(id).copied().flatten());
        let progress = |(id, matched): (&NodeId, &Option<super::types::RaftLogId>)| crate::wal::Progress {
            node: *id,
            matched: matched.as_ref().map(from_raft),
            heard_ago: heard(id).map(|at| at.into_inner().elapsed()),
        };
        replication.iter().filter(|(id, _)| **id != self.id).map(progress).collect()
    }

    /// Changes the address of a member.
    pub(crate) async fn move_member(&self, peer: Peer) -> Result<LogId> {
        let raft = self.raft.clone();
        let nodes = BTreeMap::from([(peer.id, BasicNode { addr: peer.addr })]);
        self.on_runtime(async move { written(raft.change_membership(ChangeMembers::SetNodes(nodes), true).await) })
            .await
    }

    /// Adds a member that does not vote; returns once the entry is applied.
    pub(crate) async fn add_learner(&self, peer: Peer) -> Result<LogId> {
        let raft = self.raft.clone();
        self.on_runtime(async move { written(raft.add_learner(peer.id, BasicNode { addr: peer.addr }, false).await) })
            .await
    }

    /// Makes exactly these members voters; others stay as learners when `keep`, or leave.
    pub(crate) async fn set_voters(&self, voters: BTreeSet<NodeId>, keep: bool) -> Result<LogId> {
        let raft = self.raft.clone();
        self.on_runtime(async move { written(raft.change_membership(voters, keep).await) }).await
    }

    /// Takes a member that does not vote out of the cluster.
    pub(crate) async fn remove_learner(&self, id: NodeId) -> Result<LogId> {
        let raft = self.raft.clone();
        let gone = ChangeMembers::RemoveNodes(BTreeSet::from([id]));
        self.on_runtime(async move { written(raft.change_membership(gone, true).await) }).await
    }

    /// Hands leadership to a voter that is up to date. Returns when asked; watch the leadership for the outcome.
    pub(crate) async fn transfer(&self, to: NodeId) -> Result<()> {
        let raft = self.raft.clone();
        let asked = async move { raft.trigger().transfer_leader(to).await };
        self.on_runtime(async move { asked.await.map_err(|e| Error::Failed { cause: e.to_string().into() }) }).await
    }

    /// Runs until told to stop or failed, then stops Raft and the log.
    pub(crate) async fn run(self: Arc<Self>, stop: impl Future<Output = ()>) {
        let mut failed = self.health.watch();
        tokio::select! {
            () = stop => {}
            _ = failed.wait_for(Option::is_some) => {}
        }
        self.health.fail(&Error::Closed);
        self.net.transport.stop();
        let _ = self.raft.shutdown().await;
        if let Err(e) = self.log.close() {
            tracing::debug!("closing the log: {e}");
        }
    }
}

/// Where a member listens.
fn address(raft: &Raft<TypeConfig, StateMachine>, id: NodeId) -> Option<Peer> {
    let metrics = raft.server_metrics();
    let metrics = metrics.borrow_watched();
    metrics.membership_config.membership().get_node(&id).map(|node| to_peer(id, node))
}

type Written =
    Result<openraft::raft::ClientWriteResponse<TypeConfig>, RaftError<TypeConfig, ClientWriteError<TypeConfig>>>;

fn written(result: Written) -> Result<LogId> {
    match result {
        Ok(response) => Ok(from_raft(&response.log_id)),
        Err(RaftError::APIError(e)) => Err(write_error(e)),
        Err(RaftError::Fatal(e)) => Err(Error::Failed { cause: e.to_string().into() }),
    }
}

fn write_error(error: ClientWriteError<TypeConfig>) -> Error {
    match error {
        ClientWriteError::ForwardToLeader(f) => Error::NotLeader { leader: f.leader_id },
        ClientWriteError::LogEntryDiscarded(f) => {
            let cause = format!("leadership was lost to node {:?} before the entry was committed", f.leader_id);
            Error::Unknown { cause: cause.into() }
        }
        other => Error::Membership(other.to_string()),
    }
}

impl Pending {
    /// The entry's place, once it is applied here.
    pub(crate) async fn wait(self) -> Result<LogId> {
        match self.answer.await {
            Ok(Ok(response)) => Ok(from_raft(&response.log_id)),
            Ok(Err(e)) => Err(write_error(e)),
            Err(_) => {
                let why = self.health.check().err().map(|error| format!(": {error}"));
                let cause = format!("the node stopped before it answered{}", why.unwrap_or_default());
                Err(Error::Unknown { cause: cause.into() })
            }
        }
    }
}

/// A machine behind the purged log can't be brought up to date from it.
fn check_machine(applied: Option<LogId>, log: &LogState) -> Result<()> {
    match log.purged {
        Some(purged) if applied.is_none_or(|a| a.index < purged.index) => Err(Error::Options(format!(
            "the log starts after index {}, but the machine stands at {}: the state between them is missing",
            purged.index,
            applied.map_or(0, |a| a.index)
        ))),
        _ => Ok(()),
    }
}

/// After recovery from the bucket the log is empty and its term zero: start above the machine's term (rule 3).
async fn raise_vote(store: &mut Store, node: NodeId, applied: Option<LogId>) -> Result<()> {
    let failed = |e: std::io::Error| Error::Failed { cause: e.to_string().into() };
    let known = openraft::RaftLogReader::read_vote(store).await.map_err(failed)?;
    let term = known.map_or(0, |v| v.leader_id.term);
    match applied {
        Some(applied) if applied.term > term => store.save_vote(&vote(applied.term, node, false)).await.map_err(failed),
        _ => Ok(()),
    }
}

fn config(options: &WalOptions) -> Result<Config> {
    let millis = |d: std::time::Duration| u64::try_from(d.as_millis()).unwrap_or(u64::MAX);
    let config = Config {
        cluster_name: format!("{:032x}", options.log.cluster),
        heartbeat_interval: millis(options.timing.heartbeat),
        election_timeout_min: millis(options.timing.election_min),
        election_timeout_max: millis(options.timing.election_max),
        enable_pre_vote: Some(true),
        // A leader that restarts may have lost an unflushed tail that followers hold: in the same term it would give
        // those indexes to other entries. It must win a new term.
        enable_leader_restore: Some(false),
        // Snapshots are pointers, renewed when the machine says what may be purged; openraft never decides itself.
        snapshot_policy: SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: u64::MAX,
        ..Config::default()
    };
    config.validate().map_err(|e| Error::Options(e.to_string()))
}

/// What is watched to tell who leads.
struct Watched {
    id: NodeId,
    raft: Raft<TypeConfig, StateMachine>,
    /// A leader that no quorum has answered for this long is not one any more, whether it knows its successor or not.
    quorum_within: Duration,
}

impl Watched {
    /// Publishes who leads, and whether this node may act as leader: only after its own no-op of the term is applied, and
    /// while a quorum answers.
    async fn leadership(self, health: Arc<Health>, progress: Arc<Progress>, tx: watch::Sender<Leadership>) {
        let mut server = self.raft.server_metrics();
        let mut blank = progress.watch_blank();
        loop {
            let (now, alone) = {
                let m = server.borrow_and_update();
                let term = m.vote.leader_id.term;
                let is_leader = m.state.is_leader() && m.current_leader == Some(self.id);
                let alone = m.membership_config.membership().voter_ids().all(|voter| voter == self.id);
                let led = is_leader && *blank.borrow_and_update() == term;
                let ready = led && (alone || self.quorum_answers());
                (Leadership { term, leader: m.current_leader, is_leader, ready }, alone)
            };
            tx.send_if_modified(|old| std::mem::replace(old, now) != now);
            let look_again = now.is_leader && !alone;
            tokio::select! {
                biased;
                changed = server.changed() => if changed.is_err() { break },
                changed = blank.changed() => if changed.is_err() { break },
                () = tokio::time::sleep(self.quorum_within / 8), if look_again => {}
            }
        }
        let cause = self.raft.metrics().borrow_watched().running_state.clone().err();
        if let Some(fatal) = cause {
            health.fail(&match fatal {
                openraft::errors::Fatal::Stopped => Error::Closed,
                other => Error::Failed { cause: other.to_string().into() },
            });
        }
        tx.send_modify(|l| *l = Leadership { term: l.term, ..Leadership::default() });
    }

    fn quorum_answers(&self) -> bool {
        let metrics = self.raft.data_metrics();
        let acked = metrics.borrow_watched().last_quorum_acked;
        acked.is_some_and(|at| at.into_inner().elapsed() < self.quorum_within)
    }
}

/// Tells the pace whether anyone else waits for what this node appends, and the network who has moved.
async fn watch_members(id: NodeId, raft: Raft<TypeConfig, StateMachine>, pace: Arc<Pace>, net: Network) {
    let mut server = raft.server_metrics();
    loop {
        let members = server.borrow_and_update().membership_config.clone();
        pace.alone(members.membership().nodes().all(|(member, _)| *member == id));
        net.know(members.membership().nodes().map(|(member, node)| to_peer(*member, node)));
        if server.changed().await.is_err() {
            return;
        }
    }
}

/// Drives openraft's own purge (rule 6): renew the snapshot pointer, then purge below it.
async fn purge(raft: Raft<TypeConfig, StateMachine>, mut asked: watch::Receiver<u64>) {
    let mut data = raft.data_metrics();
    loop {
        if asked.changed().await.is_err() {
            return;
        }
        let target = *asked.borrow_and_update();
        if raft.trigger().snapshot().await.is_err() {
            return;
        }
        // Ours count from 1: the snapshot covers `target` when openraft's index is at least one below.
        while data.borrow_watched().snapshot.as_ref().is_none_or(|s| from_raft(s).index < target) {
            if data.changed().await.is_err() {
                return;
            }
        }
        if raft.trigger().purge_log(target.saturating_sub(1)).await.is_err() {
            return;
        }
    }
}
