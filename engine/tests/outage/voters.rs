//! Three nodes while the bucket is away: followers spill as the leader does, and the runway of a quorum counts.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use holdfast::{
    Db, Error, Options,
    cluster::{ClusterOptions, Network, NodeInfo, Peer, Transport},
    store::Bucket,
};
use holdfast_wal::transport::Loopback;

use crate::bucket::{Mood, TestBucket, count, counter, put_at_last};

/// A look at something that changes.
const LOOK: Duration = Duration::from_millis(20);

struct Nodes {
    net: Loopback,
    bucket: Arc<TestBucket>,
    dirs: tempfile::TempDir,
}

impl Nodes {
    async fn open(&self, id: u64, spill_bytes: Option<u64>) -> Db {
        let mut options = Options::default();
        let net = self.net.clone();
        options.cluster = Some(ClusterOptions {
            node: id,
            network: Network::Custom(Arc::new(move |_, id| Arc::new(net.transport(id)) as Arc<dyn Transport>)),
            address: format!("node{id}"),
            voters: (1..=3).map(|id| Peer { id, addr: format!("node{id}") }).collect(),
            info: NodeInfo::default(),
        });
        options.data_dir = Some(self.dirs.path().join(id.to_string()));
        options.bucket = Some(Arc::clone(&self.bucket) as Arc<dyn Bucket>);
        options.log_bytes = 64 << 20;
        options.memtable_bytes = 64 << 10;
        options.frozen_bytes = 512 << 10;
        options.spill_bytes = spill_bytes;
        options.write_stall_timeout = Duration::from_millis(300);
        Db::open("test://", options).await.unwrap()
    }
}

async fn leader(nodes: &BTreeMap<u64, Db>) -> (u64, Db) {
    loop {
        if let Some((id, db)) = nodes.iter().find(|(_, db)| db.is_leader()) {
            return (*id, db.clone());
        }
        tokio::time::sleep(LOOK).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn followers_with_little_room_make_the_leader_refuse_with_their_name() {
    let site = Nodes { net: Loopback::new(), bucket: TestBucket::new(Mood::Fails), dirs: tempfile::tempdir().unwrap() };
    // Nodes 2 and 3 have no more than their RAM and a little disk. One alone would not count.
    let room = |id| if id == 1 { None } else { Some(512 << 10) };
    let opened = futures::future::join_all((1..=3).map(|id| site.open(id, room(id)))).await;
    let nodes: BTreeMap<u64, Db> = (1..).zip(opened).collect();
    let (mut id, mut db) = leader(&nodes).await;
    while id != 1 {
        // Refused while it is not up to date.
        let _ = db.failover(Some(1)).await;
        (id, db) = leader(&nodes).await;
    }
    let ks = db.keyspace("test").await.unwrap();
    let mut rows = 0;
    let why = loop {
        match db.put(&ks, format!("{rows:08}"), vec![rows as u8; 4000]).await {
            Ok(()) => rows += 1,
            Err(Error::Retry(why)) => break why,
            Err(error) => panic!("row {rows}: {error}"),
        }
    };
    let named = why.contains("node 2 has room for") || why.contains("node 3 has room for");
    assert!(named && why.contains("rows that wait for the store"), "{why}");
    assert!(counter(&nodes[&3], "spilled_bytes") <= 512 << 10);
    for (id, node) in &nodes {
        assert!(counter(node, "spilled_tables") > 0, "node {id} has spilled nothing");
        node.read_barrier().await.unwrap();
        let same = node.keyspace("test").await.unwrap();
        assert_eq!(count(node, &same).await, rows, "node {id}");
    }
    site.bucket.set(Mood::Works);
    put_at_last(&db, &ks, "back").await;
    db.checkpoint().await.unwrap();
    for (id, node) in &nodes {
        node.read_barrier().await.unwrap();
        while counter(node, "spilled_bytes") > 0 {
            tokio::time::sleep(LOOK).await;
        }
        let same = node.keyspace("test").await.unwrap();
        assert_eq!(count(node, &same).await, rows + 1, "node {id}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn followers_go_on_while_the_bucket_refuses_them_the_manifest_of_the_leader() {
    let site = Nodes { net: Loopback::new(), bucket: TestBucket::new(Mood::Works), dirs: tempfile::tempdir().unwrap() };
    let opened = futures::future::join_all((1..=3).map(|id| site.open(id, None))).await;
    let nodes: BTreeMap<u64, Db> = (1..).zip(opened).collect();
    let (_, db) = leader(&nodes).await;
    let ks = db.keyspace("test").await.unwrap();
    db.put(&ks, "before", "1").await.unwrap();
    site.bucket.set(Mood::RefusesManifests);
    db.checkpoint().await.unwrap();
    db.put(&ks, "behind", "2").await.unwrap();
    for (id, node) in &nodes {
        node.read_barrier().await.unwrap();
        let same = node.keyspace("test").await.unwrap();
        assert_eq!(count(node, &same).await, 2, "node {id}");
    }
    site.bucket.set(Mood::Works);
    for node in nodes.values() {
        while counter(node, "tree_installed") == 0 {
            assert_eq!(node.troubles().ended, None);
            // They look again with a later entry.
            db.put(&ks, "behind", "3").await.unwrap();
            tokio::time::sleep(LOOK).await;
        }
    }
}
