//! Three voters in one process, on simulated disks and an in-process network, under simulated time.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use holdfast_wal::{
    Error, Wal, WalOptions,
    disk::{Disk, sim::SimDisk},
    transport::{Loopback, Peer},
};

use crate::machine::*;

struct Member {
    id: u64,
    disk: SimDisk,
    wal: Wal,
    view: View,
}

struct Cluster {
    net: Loopback,
    bucket: Bucket,
    members: Vec<Member>,
}

fn peers() -> Vec<Peer> {
    (1..=3).map(|id| Peer { id, addr: format!("node{id}") }).collect()
}

impl Cluster {
    async fn new(seed: u64) -> Self {
        let mut cluster = Self { net: Loopback::new(), bucket: Bucket::default(), members: Vec::new() };
        for id in 1..=3 {
            // One member bootstraps; the others learn of the cluster from it.
            cluster.start(id, SimDisk::new(seed * 10 + id), (id == 1).then(peers), None).await;
        }
        cluster
    }

    async fn start(
        &mut self,
        id: u64,
        disk: SimDisk,
        bootstrap: Option<Vec<Peer>>,
        manifest: Option<(holdfast_wal::LogId, Bytes)>,
    ) {
        let (machine, view) = Recorder::new(&self.bucket, manifest);
        let options = WalOptions { node: id, bootstrap, ..options() };
        let shared: Arc<dyn Disk> = Arc::new(disk.clone());
        let wal = Wal::open(options, shared, Arc::new(self.net.transport(id)), machine).await.unwrap();
        self.members.push(Member { id, disk, wal, view });
    }

    /// The member that leads and is ready, of the last term.
    async fn leader(&self) -> &Member {
        loop {
            let ready = self.members.iter().filter(|m| m.wal.leadership().borrow().ready);
            if let Some(leader) = ready.max_by_key(|m| m.wal.leadership().borrow().term) {
                return leader;
            }
            tokio::time::sleep(Duration::from_millis(50)).await; // simulated
        }
    }

    /// Waits until all members have applied what the longest has.
    async fn converged(&self) -> Vec<Bytes> {
        for _ in 0..1000 {
            let all: Vec<_> = self.members.iter().map(|m| m.view.items()).collect();
            if all.windows(2).all(|w| w[0] == w[1]) {
                return self.members[0].view.payloads();
            }
            tokio::time::sleep(Duration::from_millis(50)).await; // simulated
        }
        panic!("the members never came to the same state");
    }

    fn others(&self, id: u64) -> Vec<u64> {
        self.members.iter().map(|m| m.id).filter(|other| *other != id).collect()
    }
}

#[tokio::test(start_paused = true)]
async fn three_nodes_elect_replicate_and_survive_the_leaders_stop() {
    let mut cluster = Cluster::new(1).await;
    let leader = cluster.leader().await;
    let first = leader.id;
    for n in 0..100 {
        leader.wal.propose(payload(n)).await.unwrap();
    }
    assert_eq!(cluster.converged().await, (0..100).map(payload).collect::<Vec<_>>());
    let follower = cluster.members.iter().find(|m| m.id != first).unwrap();
    let refused = follower.wal.propose(payload(0)).await;
    assert!(matches!(refused, Err(Error::NotLeader { leader: Some(l) }) if l == first), "{refused:?}");

    let at = cluster.members.iter().position(|m| m.id == first).unwrap();
    let stopped = cluster.members.remove(at);
    stopped.wal.close().await;
    let next = cluster.leader().await;
    assert_ne!(next.id, first);
    for n in 100..150 {
        next.wal.propose(payload(n)).await.unwrap();
    }
    // The stopped one comes back with its disk and catches up.
    cluster.start(first, stopped.disk, None, None).await;
    assert_eq!(cluster.converged().await, (0..150).map(payload).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_is_cut_off_commits_nothing() {
    let cluster = Cluster::new(2).await;
    let old = cluster.leader().await;
    old.wal.propose(payload(0)).await.unwrap();
    cluster.net.isolate(old.id, cluster.others(old.id), true);
    let lost = tokio::spawn(old.wal.propose(payload(1)));
    // The other two elect; the old one stays alone with its entry.
    let new = loop {
        let new = cluster.leader().await;
        if new.id != old.id {
            break new;
        }
        tokio::time::sleep(Duration::from_millis(50)).await; // simulated
    };
    new.wal.propose(payload(2)).await.unwrap();
    assert_eq!(old.view.payloads(), [payload(0)], "applied without a quorum");
    // It does not know its successor, but that no quorum answers: it neither acts as leader nor answers reads.
    let mut known = old.wal.leadership();
    assert!(!known.wait_for(|l| !l.ready).await.unwrap().ready);
    assert!(old.wal.confirm_lead().await.is_err());
    let read = old.wal.read_index().await;
    assert!(matches!(read, Err(Error::Unavailable { .. })), "{read:?}");
    cluster.net.isolate(old.id, cluster.others(old.id), false);
    assert_eq!(cluster.converged().await, [payload(0), payload(2)]);
    // It reads what the new leader confirms, and is told that it does not lead itself.
    old.wal.read_index().await.unwrap();
    let confirmed = old.wal.confirm_lead().await;
    assert!(matches!(confirmed, Err(Error::NotLeader { leader: Some(l) }) if l == new.id), "{confirmed:?}");
    new.wal.confirm_lead().await.unwrap();
    let lost = lost.await.unwrap();
    assert!(matches!(lost, Err(Error::Unknown { .. })), "{lost:?}");
}

#[tokio::test(start_paused = true)]
async fn a_member_that_comes_too_late_for_the_log_starts_from_the_pointer() {
    let mut cluster = Cluster::new(3).await;
    let leader = cluster.leader().await;
    for n in 0..40 {
        leader.wal.propose(payload(n)).await.unwrap();
    }
    let checkpoint = leader.wal.propose(Bytes::from_static(CHECKPOINT)).await.unwrap();
    leader.wal.propose(payload(40)).await.unwrap();
    cluster.converged().await;
    let id = leader.id;
    while leader.wal.status().purged != Some(checkpoint) {
        tokio::time::sleep(Duration::from_millis(50)).await; // simulated
    }
    cluster.start(4, SimDisk::new(99), None, None).await;
    let leader = cluster.members.iter().find(|m| m.id == id).unwrap();
    leader.wal.add_learner(Peer { id: 4, addr: "node4".into() }).await.unwrap();
    leader.wal.set_voters((1..=4).collect(), true).await.unwrap();
    assert_eq!(cluster.converged().await, (0..=40).map(payload).collect::<Vec<_>>());
    let newcomer = cluster.members.iter().find(|m| m.id == 4).unwrap();
    assert_eq!(newcomer.view.installs(), 1);
    assert!(newcomer.wal.status().members.iter().all(|(_, votes)| *votes));
}

#[tokio::test(start_paused = true)]
async fn leadership_can_be_handed_over() {
    let cluster = Cluster::new(4).await;
    let old = cluster.leader().await;
    old.wal.propose(payload(0)).await.unwrap();
    cluster.converged().await;
    let to = cluster.others(old.id)[0];
    old.wal.transfer_leadership(to).await.unwrap();
    let heir = cluster.members.iter().find(|m| m.id == to).unwrap();
    heir.wal.ready().await.unwrap();
    heir.wal.propose(payload(1)).await.unwrap();
    heir.wal.read_index().await.unwrap();
    assert_eq!(cluster.converged().await, [payload(0), payload(1)]);
}

#[tokio::test(start_paused = true)]
async fn a_follower_reads_what_was_acknowledged_before() {
    let cluster = Cluster::new(5).await;
    let leader = cluster.leader().await;
    let follower = cluster.members.iter().find(|m| m.id != leader.id).unwrap();
    for n in 0..20 {
        let written = leader.wal.propose(payload(n)).await.unwrap();
        let reads = futures::future::try_join_all((0..10).map(|_| follower.wal.read_index())).await.unwrap();
        assert!(reads.iter().all(|read| *read >= written), "{reads:?} after {written:?}");
        assert_eq!(follower.view.payloads(), (0..=n).map(payload).collect::<Vec<_>>());
    }
    // Cut off from the leader it finds none, rather than answering what it has.
    cluster.net.isolate(follower.id, cluster.others(follower.id), true);
    leader.wal.propose(payload(20)).await.unwrap();
    let read = follower.wal.read_index().await;
    assert!(matches!(read, Err(Error::Unavailable { .. })), "{read:?}");
    cluster.net.isolate(follower.id, cluster.others(follower.id), false);
    follower.wal.read_index().await.unwrap();
    assert_eq!(follower.view.payloads().len(), 21);
}

#[tokio::test(start_paused = true)]
async fn members_report_move_and_leave() {
    let mut cluster = Cluster::new(6).await;
    cluster.start(4, SimDisk::new(98), None, None).await;
    let leader = cluster.leader().await;
    leader.wal.add_learner(Peer { id: 4, addr: "nowhere".into() }).await.unwrap();
    leader.wal.move_member(Peer { id: 4, addr: "node4".into() }).await.unwrap();
    leader.wal.propose(payload(0)).await.unwrap();
    assert_eq!(cluster.converged().await, [payload(0)]);
    let last = leader.wal.status().last;
    while leader.wal.status().replication.iter().any(|of| of.matched != last || of.heard_ago.is_none()) {
        tokio::time::sleep(Duration::from_millis(50)).await; // simulated
    }
    assert_eq!(leader.wal.status().replication.len(), 3);
    leader.wal.remove_learner(4).await.unwrap();
    let members: Vec<_> = leader.wal.status().members.into_iter().map(|(peer, _)| peer.id).collect();
    assert_eq!(members, [1, 2, 3]);
}
