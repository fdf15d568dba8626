//! Three databases of one cluster in one process: who leads, what followers read, flush and collection by the leader
//! alone, members that come and go.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed test may panic")]

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use bytes::Bytes;
use holdfast::{
    Concurrency, Db, Error, Keyspace, LockMode, LockWait, Options, ScanOptions, TxnOptions, TxnStatus,
    cluster::{ClusterOptions, Network, NodeInfo, Peer, Role, Transport},
    store::{self, Bucket},
};
use holdfast_wal::transport::Loopback;
use tempfile::TempDir;

/// A look at something that changes.
const LOOK: Duration = Duration::from_millis(20);

struct Cluster {
    net: Loopback,
    bucket: Arc<dyn Bucket>,
    dirs: TempDir,
    memtable: usize,
    hot_lists: Option<Duration>,
    nodes: BTreeMap<u64, Db>,
}

impl Cluster {
    fn empty() -> Self {
        let (net, bucket) = (Loopback::new(), store::in_memory());
        let (dirs, nodes) = (tempfile::tempdir().unwrap(), BTreeMap::new());
        Self { net, bucket, dirs, memtable: 1 << 20, hot_lists: None, nodes }
    }

    async fn of_three() -> Self {
        let mut cluster = Self::empty();
        cluster.start_all(&[1, 2, 3]).await;
        cluster
    }

    async fn start_all(&mut self, ids: &[u64]) {
        let opened = futures::future::join_all(ids.iter().map(|id| self.open(*id))).await;
        for (id, db) in ids.iter().zip(opened) {
            self.nodes.insert(*id, db.unwrap());
        }
    }

    fn dir(&self, id: u64) -> PathBuf {
        self.dirs.path().join(id.to_string())
    }

    fn open(&self, id: u64) -> impl Future<Output = holdfast::Result<Db>> + use<> {
        let mut options = Options::default();
        let net = self.net.clone();
        let voters = (1..=3).map(|id| Peer { id, addr: format!("node{id}") }).collect();
        options.cluster = Some(ClusterOptions {
            node: id,
            network: Network::Custom(Arc::new(move |_, id| Arc::new(net.transport(id)) as Arc<dyn Transport>)),
            address: format!("node{id}"),
            voters,
            info: NodeInfo { sql: format!("sql{id}"), ..NodeInfo::default() },
        });
        options.data_dir = Some(self.dir(id));
        options.bucket = Some(Arc::clone(&self.bucket));
        options.memtable_bytes = self.memtable;
        options.log_bytes = 64 << 20;
        options.hot_list_interval = self.hot_lists;
        async move { Db::open("memory:///", options).await }
    }

    async fn leader(&self) -> (u64, Db) {
        loop {
            if let Some((id, db)) = self.nodes.iter().find(|(_, db)| db.is_leader()) {
                return (*id, db.clone());
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    fn followers(&self) -> Vec<Db> {
        self.nodes.values().filter(|db| !db.is_leader()).cloned().collect()
    }

    fn isolate(&self, id: u64, cut: bool) {
        self.net.isolate(id, self.nodes.keys().copied().filter(|other| *other != id), cut);
    }
}

async fn rows(db: &Db, rows: &Keyspace) -> Vec<(Bytes, Bytes)> {
    let mut scan = db.scan(rows, ScanOptions::default()).unwrap();
    let mut all = Vec::new();
    while let Some(row) = scan.next().await.unwrap() {
        all.push((row.key, row.value));
    }
    all
}

fn key(n: u32) -> Bytes {
    format!("key{n:08}").into()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn followers_read_what_the_leader_acknowledged_and_take_no_writes() {
    let cluster = Cluster::of_three().await;
    let (id, leader) = cluster.leader().await;
    let table = leader.keyspace("t").await.unwrap();
    for n in 0..50 {
        leader.put(&table, key(n), "v").await.unwrap();
        for follower in cluster.followers() {
            follower.read_barrier().await.unwrap();
            let same = follower.keyspace("t").await.unwrap();
            assert_eq!(follower.get(&same, &key(n)).await.unwrap().as_deref(), Some(&b"v"[..]));
        }
    }
    let token = leader.commit_token();
    for follower in cluster.followers() {
        follower.wait_for_commit(token).await.unwrap();
        assert_eq!(rows(&follower, &table).await, rows(&leader, &table).await);
        let refused = follower.put(&table, "x", "y").await;
        assert_eq!(refused, Err(Error::NotLeader { leader: Some(id) }));
        let options = TxnOptions { concurrency: Concurrency::Pessimistic, ..TxnOptions::default() };
        let mut txn = follower.begin(options).unwrap();
        let refused = txn.lock(&table, b"x", LockMode::Exclusive, LockWait::Timeout).await;
        assert_eq!(refused, Err(Error::NotLeader { leader: Some(id) }));
        let status = follower.cluster().unwrap();
        assert_eq!((status.role, status.leader, status.writable), (Role::Follower, Some(id), false));
        let told = status.members.iter().find(|member| member.id == id).unwrap().info.clone().unwrap();
        assert_eq!(told.sql, format!("sql{id}"));
    }
    assert_eq!(leader.cluster().unwrap().role, Role::Leader);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_leads_when_the_leader_is_gone_and_nothing_is_lost() {
    let mut cluster = Cluster::of_three().await;
    let (first, leader) = cluster.leader().await;
    let table = leader.keyspace("t").await.unwrap();
    for n in 0..100 {
        leader.put(&table, key(n), "v").await.unwrap();
    }
    // Gone without a word, as after a crash.
    drop(cluster.nodes.remove(&first));
    drop(leader);
    let (_, next) = cluster.leader().await;
    for n in 100..200 {
        next.put(&table, key(n), "v").await.unwrap();
    }
    assert_eq!(rows(&next, &table).await.len(), 200);
    // It comes back with its directory, and catches up.
    let back = cluster.open(first).await.unwrap();
    back.joined().await.unwrap();
    assert_eq!(rows(&back, &table).await, rows(&next, &table).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_cut_off_acknowledges_nothing_and_ends_its_transactions() {
    let cluster = Cluster::of_three().await;
    let (id, old) = cluster.leader().await;
    let table = old.keyspace("t").await.unwrap();
    old.put(&table, "a", "1").await.unwrap();
    let options = TxnOptions { concurrency: Concurrency::Pessimistic, ..TxnOptions::default() };
    let mut open = old.begin(options.clone()).unwrap();
    open.lock(&table, b"a", LockMode::Exclusive, LockWait::Timeout).await.unwrap();
    let mut waits = old.begin(options).unwrap();
    cluster.isolate(id, true);
    let mut named = old.begin(TxnOptions::default()).unwrap();
    named.set_id(7);
    named.put(&table, "b", "1").unwrap();
    let lost = named.commit();
    let waiting = waits.lock(&table, b"a", LockMode::Exclusive, LockWait::Timeout);
    let (lost, waiting) = tokio::join!(lost, waiting);
    assert!(matches!(lost, Err(Error::Unknown(_))), "{lost:?}");
    assert!(matches!(waiting, Err(Error::NotLeader { .. } | Error::Conflict(_))), "{waiting:?}");
    assert!(!old.is_leader());
    open.put(&table, "a", "2").unwrap();
    assert!(open.commit().await.is_err());
    let stale = old.read_barrier().await;
    assert!(matches!(stale, Err(Error::Retry(_))), "{stale:?}");

    let (next, new) = cluster.leader().await;
    assert_ne!(next, id);
    new.put(&table, "a", "3").await.unwrap();
    // What the old leader could not tell, the new one can; the same id counts once.
    assert_eq!(new.txn_status(7).await.unwrap(), TxnStatus::NotFound);
    for value in ["2", "3"] {
        let mut again = new.begin(TxnOptions::default()).unwrap();
        again.set_id(7);
        again.put(&table, "b", value).unwrap();
        again.commit().await.unwrap();
    }
    cluster.isolate(id, false);
    let status = old.txn_status(7).await.unwrap();
    assert!(matches!(status, TxnStatus::Committed { .. }), "{status:?}");
    assert!(
        matches!(old.txn_status(8).await, Err(Error::NotLeader { .. })),
        "a follower can't tell that there is none"
    );
    assert_eq!(old.get(&table, b"a").await.unwrap().as_deref(), Some(&b"3"[..]));
    assert_eq!(old.get(&table, b"b").await.unwrap().as_deref(), Some(&b"2"[..]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_the_leader_flushes_and_a_new_one_goes_on() {
    let mut cluster = Cluster::empty();
    cluster.memtable = 256 << 10;
    cluster.start_all(&[1, 2, 3]).await;
    let (first, leader) = cluster.leader().await;
    let table = leader.keyspace("t").await.unwrap();
    let value = Bytes::from(vec![b'v'; 1000]);
    for n in 0..2000 {
        leader.put(&table, key(n), value.clone()).await.unwrap();
    }
    leader.checkpoint().await.unwrap();
    for follower in cluster.followers() {
        follower.read_barrier().await.unwrap();
        let status = follower.cluster().unwrap();
        assert_eq!(status.flushed, leader.cluster().unwrap().flushed);
        let puts = follower.stats().requests.iter().filter(|r| r.kind == "put" && r.cause == "flush").count();
        assert_eq!(puts, 0, "a follower flushed");
        assert_eq!(rows(&follower, &table).await.len(), 2000);
    }
    leader.failover(None).await.unwrap();
    let (second, next) = cluster.leader().await;
    assert_ne!(first, second);
    for n in 2000..4000 {
        next.put(&table, key(n), value.clone()).await.unwrap();
    }
    next.checkpoint().await.unwrap();
    leader.read_barrier().await.unwrap();
    assert_eq!(rows(&leader, &table).await.len(), 4000);
}

/// Rule 8: a snapshot on a follower keeps what it needs in the bucket, whatever the leader flushes and compacts.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_followers_snapshot_outlives_compactions_of_the_leader() {
    let mut cluster = Cluster::empty();
    cluster.memtable = 64 << 10;
    cluster.start_all(&[1, 2, 3]).await;
    let (_, leader) = cluster.leader().await;
    let table = leader.keyspace("t").await.unwrap();
    let write = async |version: u8| {
        for n in 0..200 {
            leader.put(&table, key(n), vec![version; 1000]).await.unwrap();
        }
        leader.checkpoint().await.unwrap();
    };
    write(0).await;
    let follower = cluster.followers().remove(0);
    follower.read_barrier().await.unwrap();
    let snapshot = follower.snapshot().unwrap();
    assert_eq!(snapshot.get(&table, &key(7)).await.unwrap().unwrap(), vec![0; 1000]);
    let compactions = || leader.stats().counters.iter().find(|(name, _)| *name == "compactions").unwrap().1;
    let mut version = 1;
    while compactions() < 3 {
        write(version).await;
        version += 1;
        leader.collect_garbage(false).await.unwrap();
    }
    follower.read_barrier().await.unwrap();
    for n in 0..200 {
        assert_eq!(snapshot.get(&table, &key(n)).await.unwrap().unwrap(), vec![0; 1000], "row {n}");
        let newest = follower.get(&table, &key(n)).await.unwrap().unwrap();
        assert_eq!(newest, vec![version - 1; 1000], "row {n}");
    }
}

/// No cold start: whoever takes over fetches what the readers of the old leader had in RAM, although it never read any of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_leader_fetches_the_pages_that_were_hot() {
    let mut cluster = Cluster::empty();
    cluster.hot_lists = Some(Duration::from_millis(50));
    cluster.start_all(&[1, 2, 3]).await;
    let figure = |db: &Db, name| db.stats().counters.iter().find(|(of, _)| *of == name).unwrap().1;
    let (first, leader) = cluster.leader().await;
    let table = leader.keyspace("t").await.unwrap();
    for n in 0..2000 {
        leader.put(&table, key(n), vec![7; 1000]).await.unwrap();
    }
    leader.checkpoint().await.unwrap();
    let read_all = async || {
        for n in 0..2000 {
            leader.get(&table, &key(n)).await.unwrap().unwrap();
        }
    };
    read_all().await;
    // One list may be under way that lacks some. A list needs reads since the one before.
    let whole = figure(&leader, "hot_lists_written") + 2;
    while figure(&leader, "hot_lists_written") < whole {
        read_all().await;
        tokio::time::sleep(LOOK).await;
    }
    assert!(cluster.followers().iter().all(|db| figure(db, "warmed_pages") == 0));
    drop(cluster.nodes.remove(&first));
    drop(leader);
    let (_, next) = cluster.leader().await;
    while figure(&next, "hot_lists_read") < 2 {
        tokio::time::sleep(LOOK).await;
    }
    assert!(figure(&next, "warmed_pages") > 100);
    let before = next.stats().cache.fetches;
    assert_eq!(rows(&next, &table).await.len(), 2000);
    assert_eq!(next.stats().cache.fetches - before, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_join_and_leave_while_it_serves() {
    let mut cluster = Cluster::of_three().await;
    let (_, leader) = cluster.leader().await;
    let table = leader.keyspace("t").await.unwrap();
    for n in 0..100 {
        leader.put(&table, key(n), "v").await.unwrap();
    }
    leader.checkpoint().await.unwrap();
    let joiner = cluster.open(4).await.unwrap();
    assert_eq!(joiner.cluster().unwrap().role, Role::Outside);
    cluster.nodes.insert(4, joiner.clone());
    leader.add_node(4, "node4").await.unwrap();
    joiner.joined().await.unwrap();
    assert_eq!(rows(&joiner, &table).await.len(), 100);
    assert_eq!(joiner.cluster().unwrap().role, Role::Follower);

    let refused = leader.add_node(4, "elsewhere").await;
    assert!(matches!(&refused, Err(Error::Invalid(why)) if why.contains("member already")), "{refused:?}");
    let refused = leader.remove_node(9, false).await;
    assert!(matches!(&refused, Err(Error::Invalid(why)) if why.contains("no member")), "{refused:?}");
    let (id, _) = cluster.leader().await;
    let refused = leader.remove_node(id, false).await;
    assert!(matches!(&refused, Err(Error::Invalid(why)) if why.contains("failover")), "{refused:?}");

    // Two of four silent: without a third one that answers there would be no quorum.
    let followers: Vec<u64> = cluster.nodes.keys().copied().filter(|other| *other != id).collect();
    cluster.isolate(followers[0], true);
    let silent = async {
        while leader
            .cluster()
            .unwrap()
            .members
            .iter()
            .all(|m| m.heard_ago.is_none_or(|ago| ago < Duration::from_secs(4)))
        {
            tokio::time::sleep(LOOK).await;
        }
    };
    silent.await;
    leader.remove_node(followers[0], false).await.unwrap();
    cluster.isolate(followers[1], true);
    while leader.cluster().unwrap().members.iter().all(|m| m.heard_ago.is_none_or(|ago| ago < Duration::from_secs(4))) {
        tokio::time::sleep(LOOK).await;
    }
    let refused = leader.remove_node(followers[2], false).await;
    assert!(matches!(&refused, Err(Error::Invalid(why)) if why.contains("are needed")), "{refused:?}");
    leader.put(&table, "last", "v").await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_lost_its_directory_does_not_come_back_under_its_number() {
    let mut cluster = Cluster::of_three().await;
    let (first, leader) = cluster.leader().await;
    let table = leader.keyspace("t").await.unwrap();
    leader.put(&table, "a", "1").await.unwrap();
    let gone = cluster.nodes.keys().copied().find(|id| *id != first).unwrap();
    cluster.nodes.remove(&gone).unwrap().close().await.unwrap();
    std::fs::remove_dir_all(cluster.dir(gone)).unwrap();
    let error = cluster.open(gone).await.err().unwrap();
    assert!(matches!(&error, Error::Invalid(why) if why.contains("another data directory")), "{error}");
    // Nor does its directory serve another number.
    let other = cluster.nodes.keys().copied().find(|id| *id != first).unwrap();
    cluster.nodes.remove(&other).unwrap().close().await.unwrap();
    std::fs::rename(cluster.dir(other), cluster.dir(7)).unwrap();
    let error = cluster.open(7).await.err().unwrap();
    assert!(matches!(&error, Error::Invalid(why) if why.contains("belongs to node")), "{error}");
}
