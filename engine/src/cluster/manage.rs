//! What operators ask of a cluster and change in it, and reads that must be as new as the leader's.

use std::{collections::BTreeSet, time::Duration};

use holdfast_wal::{Wal, transport::Peer};

use super::{ClusterStatus, Member, NodeInfo, Role};
use crate::{
    Db,
    commit::log_error,
    error::{Error, Result},
};

/// Longest that a new member may take to come as far as the leader before it gets its vote.
const CATCH_UP: Duration = Duration::from_secs(60);
/// Entries that a member may lack and still count as up to date.
const NEAR: u64 = 1000;
/// A member that was not heard for this long counts as down.
const DOWN: Duration = Duration::from_secs(3);
/// Longest that handing over leadership may take.
const HAND_OVER: Duration = Duration::from_secs(5);
/// How often progress is looked at.
const LOOK: Duration = Duration::from_millis(20);

impl Db {
    pub(super) fn wal(&self) -> Result<Wal> {
        let wal = self.0.wal.lock().clone();
        wal.ok_or_else(|| self.0.inner.check().err().unwrap_or_else(|| Error::Closed("the log is gone".into())))
    }

    /// Whether this node leads, and takes writes.
    pub fn is_leader(&self) -> bool {
        self.0.inner.takes_writes()
    }

    /// Whether the database was opened without other nodes.
    pub fn is_single(&self) -> bool {
        self.0.inner.options.cluster.is_none()
    }

    /// This node's number.
    pub fn node_id(&self) -> u64 {
        self.0.node
    }

    /// The term in which this node leads; 0 while it does not.
    pub fn term(&self) -> u64 {
        self.0.inner.term()
    }

    /// Who leads, and what it told of itself.
    pub fn leader(&self) -> Option<(u64, Option<NodeInfo>)> {
        let Error::NotLeader { leader } = self.0.inner.not_leader() else { return None };
        let leader = leader?;
        Some((leader, self.0.members.heard_of(leader).map(|(report, _)| report.info)))
    }

    /// Waits until what was committed anywhere at the call can be read here, on any node: the leader is asked, and a
    /// quorum confirms it. A snapshot taken afterwards is linearizable.
    ///
    /// # Errors
    /// `Retry` if no confirmed leader answers in time; `Closed`.
    pub async fn read_barrier(&self) -> Result<()> {
        self.0.inner.check()?;
        self.wal()?.read_index().await.map(|_| ()).map_err(|error| log_error(&error))
    }

    /// Waits until a snapshot taken here shows everything that was acknowledged anywhere longer than `staleness` ago. By
    /// this node's own clock: what the leader confirmed at a moment is at least as new as that moment.
    ///
    /// # Errors
    /// As [`Db::read_barrier`]: the bound can't be kept.
    pub async fn read_bounded(&self, staleness: Duration) -> Result<()> {
        let inner = &self.0.inner;
        inner.check()?;
        let now = inner.clock.now();
        let confirmed = *inner.confirmed.lock();
        if confirmed.is_some_and(|at| now.saturating_sub(at) <= staleness) {
            return Ok(());
        }
        self.read_barrier().await?;
        let mut newest = inner.confirmed.lock();
        *newest = (*newest).max(Some(now));
        Ok(())
    }

    /// The commit token of everything that is visible here: give it to [`Db::wait_for_commit`] on another node to read
    /// one's own writes there.
    pub fn commit_token(&self) -> u64 {
        self.0.inner.snapshots.visible().index()
    }

    /// Waits until everything up to a commit token is visible here.
    ///
    /// # Errors
    /// `Closed`.
    pub async fn wait_for_commit(&self, token: u64) -> Result<()> {
        self.0.inner.check()?;
        self.wal()?.wait_applied(token).await.map_err(|error| log_error(&error))
    }

    /// The cluster, as this node knows it.
    ///
    /// # Errors
    /// `Closed`.
    pub fn cluster(&self) -> Result<ClusterStatus> {
        let status = self.wal()?.status();
        let node = self.0.node;
        let leader = status.leadership.leader;
        let last = status.last.map_or(0, |id| id.index);
        let members: Vec<Member> = status
            .members
            .iter()
            .map(|(peer, votes)| {
                let heard = self.0.members.heard_of(peer.id);
                let progress = status.replication.iter().find(|progress| progress.node == peer.id);
                let role = match votes {
                    _ if Some(peer.id) == leader => Role::Leader,
                    true => Role::Follower,
                    false => Role::Learner,
                };
                let matched = progress.map(|progress| progress.matched.map_or(0, |id| id.index));
                let behind = matched.map(|matched| self.0.members.behind(matched));
                Member {
                    id: peer.id,
                    address: peer.addr.clone(),
                    role,
                    lag_entries: if peer.id == node {
                        status.committed.map(|id| id.index.saturating_sub(status.applied))
                    } else {
                        matched.map(|matched| last.saturating_sub(matched))
                    },
                    lag_bytes: behind.map(|(bytes, _)| bytes),
                    lag_time: behind.map(|(_, time)| time),
                    heard_ago: if peer.id == node { Some(Duration::ZERO) } else { heard.as_ref().map(|(_, ago)| *ago) },
                    info: heard
                        .map(|(report, _)| report.info)
                        .or_else(|| (peer.id == node).then(|| self.0.members.info().clone())),
                }
            })
            .collect();
        let role = members.iter().find(|member| member.id == node).map_or(Role::Outside, |member| member.role);
        Ok(ClusterStatus {
            node,
            role,
            writable: self.is_leader(),
            term: status.leadership.term,
            leader,
            members,
            last,
            committed: status.committed.map_or(0, |id| id.index),
            applied: status.applied,
            flushed: *self.0.inner.flushed.borrow(),
        })
    }

    /// Waits until this node belongs to a cluster whose leader it has caught up with.
    ///
    /// # Errors
    /// `Closed`.
    pub async fn joined(&self) -> Result<()> {
        let wal = self.wal()?;
        let mut leadership = wal.leadership();
        loop {
            self.0.inner.check()?;
            let known = leadership.borrow_and_update().leader.is_some();
            if known && wal.read_index().await.is_ok() {
                return Ok(());
            }
            // Closed with the log, which the next round says.
            let _ = tokio::time::timeout(LOOK * 10, leadership.changed()).await;
        }
    }

    fn leads(&self) -> Result<()> {
        if self.is_leader() { Ok(()) } else { Err(self.0.inner.not_leader()) }
    }

    /// Adds a node: it gets the log or the pointer to a manifest first, and its vote once it has caught up.
    ///
    /// # Errors
    /// `NotLeader`; `Invalid` if its number is taken; `Retry` if it does not catch up within a minute: it then stays as a
    /// member without a vote.
    pub async fn add_node(&self, id: u64, address: &str) -> Result<()> {
        self.leads()?;
        let wal = self.wal()?;
        let status = wal.status();
        if let Some((peer, votes)) = status.members.iter().find(|(peer, _)| peer.id == id)
            && (*votes || peer.addr != address)
        {
            return Err(Error::Invalid(format!("node {id} is a member already, at {}", peer.addr)));
        }
        let failed = |error: holdfast_wal::Error| log_error(&error);
        wal.add_learner(Peer { id, addr: address.to_owned() }).await.map_err(failed)?;
        let near = async {
            loop {
                let status = wal.status();
                let last = status.last.map_or(0, |id| id.index);
                let matched = status.replication.iter().find(|of| of.node == id).and_then(|of| of.matched);
                if matched.is_some_and(|matched| matched.index + NEAR >= last) || !self.is_leader() {
                    return;
                }
                tokio::time::sleep(LOOK).await;
            }
        };
        if tokio::time::timeout(CATCH_UP, near).await.is_err() {
            return Err(Error::Retry(format!(
                "node {id} at {address} did not catch up within {CATCH_UP:?}: is it running, and can it be reached? It \
                 stays as a member without a vote; add it again once it runs, or remove it"
            )));
        }
        let mut voters = self.voters(&wal);
        voters.insert(id);
        wal.set_voters(voters, true).await.map(|_| ()).map_err(failed)
    }

    /// Changes the address of a member, for one that runs at another now. `force` leaves out the check that the others can go on
    /// without it if that address is wrong.
    ///
    /// # Errors
    /// `NotLeader`; `Invalid` if it is no member or leads, or if it answers where it is and too few others do.
    pub async fn move_node(&self, id: u64, address: &str, force: bool) -> Result<()> {
        self.leads()?;
        let wal = self.wal()?;
        let status = wal.status();
        let Some((peer, votes)) = status.members.iter().find(|(peer, _)| peer.id == id) else {
            return Err(no_member(id));
        };
        if id == self.0.node {
            return Err(leads_itself(id));
        }
        if *votes && peer.addr != address && !force {
            let without = format!("if node {id} can't be reached at {address}");
            self.would_have_quorum(&wal, &self.voters(&wal), Some(id), &without)?;
        }
        wal.move_member(Peer { id, addr: address.to_owned() }).await.map(|_| ()).map_err(|error| log_error(&error))
    }

    fn voters(&self, wal: &Wal) -> BTreeSet<u64> {
        wal.status().members.iter().filter(|(_, votes)| *votes).map(|(peer, _)| peer.id).collect()
    }

    /// Takes a node out of the cluster. `force` leaves out the check that enough of the others answer.
    ///
    /// # Errors
    /// `NotLeader`; `Invalid` if it is no member, leads, is the last voter, or if too few of the others answer to go on
    /// without it.
    pub async fn remove_node(&self, id: u64, force: bool) -> Result<()> {
        self.leads()?;
        let wal = self.wal()?;
        let status = wal.status();
        let Some((_, votes)) = status.members.iter().find(|(peer, _)| peer.id == id) else {
            return Err(no_member(id));
        };
        let failed = |error: holdfast_wal::Error| log_error(&error);
        if !votes {
            return wal.remove_learner(id).await.map(|_| ()).map_err(failed);
        }
        if id == self.0.node {
            return Err(leads_itself(id));
        }
        let mut voters = self.voters(&wal);
        voters.remove(&id);
        if !force {
            self.would_have_quorum(&wal, &voters, None, &format!("without node {id}"))?;
        }
        wal.set_voters(voters, false).await.map(|_| ()).map_err(failed)
    }

    /// Whether a majority of `voters` answers, even if this one no longer does; one that is silent already can't get worse.
    fn would_have_quorum(&self, wal: &Wal, voters: &BTreeSet<u64>, lost: Option<u64>, when: &str) -> Result<()> {
        let replication = wal.status().replication;
        let up = |id: &u64| {
            *id == self.0.node
                || replication.iter().any(|of| of.node == *id && of.heard_ago.is_some_and(|ago| ago < DOWN))
        };
        if lost.is_some_and(|lost| !up(&lost)) {
            return Ok(());
        }
        let down: Vec<String> =
            voters.iter().filter(|id| Some(**id) == lost || !up(id)).map(ToString::to_string).collect();
        let needed = voters.len() / 2 + 1;
        if voters.is_empty() || voters.len() - down.len() < needed {
            return Err(Error::Invalid(format!(
                "{when} the cluster would have {} voters of which {} answer, and {needed} are needed (silent: {})",
                voters.len(),
                voters.len() - down.len(),
                if down.is_empty() { "none".to_owned() } else { down.join(", ") }
            )));
        }
        Ok(())
    }

    /// Which voter leadership would go to: the one asked for, or the one that is the furthest.
    ///
    /// # Errors
    /// `NotLeader`; `Invalid` if there is no other voter that answers and is up to date.
    pub fn plan_failover(&self, to: Option<u64>) -> Result<u64> {
        self.leads()?;
        let wal = self.wal()?;
        let (status, voters) = (wal.status(), self.voters(&wal));
        let last = status.last.map_or(0, |id| id.index);
        let lag = |of: &holdfast_wal::Progress| last.saturating_sub(of.matched.map_or(0, |id| id.index));
        let fit = |of: &&holdfast_wal::Progress| {
            voters.contains(&of.node) && of.heard_ago.is_some_and(|ago| ago < DOWN) && lag(of) <= NEAR
        };
        match to {
            Some(to) if to == self.0.node => Err(Error::Invalid(format!("node {to} leads already"))),
            Some(to) => match status.replication.iter().find(|of| of.node == to) {
                Some(of) if fit(&of) => Ok(to),
                Some(of) if !voters.contains(&to) => Err(Error::Invalid(format!("node {} has no vote", of.node))),
                Some(of) => Err(Error::Invalid(format!(
                    "node {to} can't take over: it lacks {} entries, and was last heard {:?} ago",
                    lag(of),
                    of.heard_ago.unwrap_or(Duration::MAX)
                ))),
                None => Err(Error::Invalid(format!("node {to} is no member of this cluster"))),
            },
            None => {
                let best = status.replication.iter().filter(fit).min_by_key(|of| lag(of));
                best.map(|of| of.node).ok_or_else(|| {
                    Error::Invalid("no other voter answers and is up to date: nobody could take over".into())
                })
            }
        }
    }

    /// Hands leadership to another voter; returns once that one leads. Transactions that are open are aborted; commits
    /// under way end first.
    ///
    /// # Errors
    /// As [`Db::plan_failover`]; `Retry` if it did not happen in time: this node may lead again then.
    pub async fn failover(&self, to: Option<u64>) -> Result<u64> {
        let to = self.plan_failover(to)?;
        let wal = self.wal()?;
        let _paused = Paused::start(self).await;
        let moved = async {
            let mut leadership = wal.leadership();
            wal.transfer_leadership(to).await.map_err(|error| log_error(&error))?;
            // Closed with the log.
            let _ = leadership.wait_for(|now| now.leader == Some(to)).await;
            Ok(())
        };
        match tokio::time::timeout(HAND_OVER, moved).await {
            Ok(moved) => moved.map(|()| to),
            Err(_) => Err(Error::Retry(format!("node {to} did not take over within {HAND_OVER:?}"))),
        }
    }
}

fn no_member(id: u64) -> Error {
    Error::Invalid(format!("node {id} is no member of this cluster"))
}

fn leads_itself(id: u64) -> Error {
    Error::Invalid(format!("node {id} leads: hand leadership over first (`admin failover`)"))
}

/// Commits are held back while this lives.
struct Paused<'a>(&'a Db);

impl<'a> Paused<'a> {
    async fn start(db: &'a Db) -> Self {
        let paused = Self(db);
        db.0.inner.queue.pause(&db.0.inner).await;
        paused
    }
}

impl Drop for Paused<'_> {
    fn drop(&mut self) {
        self.0.0.inner.queue.resume(&self.0.0.inner);
    }
}
