//! Three real `holdfast` processes as one cluster on one S3 server, and clients that check what they are told.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use mysql_async::{Conn, prelude::Queryable};
use parking_lot::Mutex;
use tempfile::TempDir;

use crate::{
    fuse::MountedDisk,
    linear::{Action, Op},
    netns::{Network, Way},
    ports,
    proxy::Proxy,
    s3::S3Server,
    serve::{self, Exit, Serve, Server},
    volatile::Volatile,
};

/// A look at a process that gives no event.
const LOOK: Duration = Duration::from_millis(10);
/// Longest that anything here may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// Root's, where clients do not come from loopback.
const PASSWORD: &str = "holdfast";
/// A client gives a statement up after this: the outcome is then unknown to it.
const STATEMENT: Duration = Duration::from_secs(8);

/// A cluster of real processes.
pub struct Cluster {
    // Dropped in this order: processes, then the disks below their folders.
    nodes: BTreeMap<u64, Server>,
    disks: BTreeMap<u64, MountedDisk>,
    dirs: TempDir,
    s3: S3Server,
    raft: BTreeMap<u64, u16>,
    mysql: BTreeMap<u64, u16>,
    flags: Vec<String>,
    /// What the nodes run, if it is not this workspace's binary.
    release: Option<PathBuf>,
    net: Option<(Network, Proxy)>,
}

/// How a node comes to its cluster.
#[derive(Clone, Copy)]
enum Start {
    /// As one of the first three.
    Founds,
    /// It waits to be added.
    Joins,
    /// It rebuilds the cluster from the bucket.
    Recovers,
}

impl Cluster {
    /// Starts nodes 1 to 3; addresses of two more are kept free for those that join later.
    pub async fn start(flags: &[&str]) -> Self {
        Self::start_in(None, &[], None, flags).await
    }

    /// The same with another release of the binary, until [`Self::upgrade`].
    pub async fn of_release(release: Option<PathBuf>, flags: &[&str]) -> Self {
        Self::start_in(None, &[], release, flags).await
    }

    /// Nodes that start from now on run this workspace's binary.
    pub fn upgrade(&mut self) {
        self.release = None;
    }

    /// The same, where these nodes' data directories are on disks that can be made to fail.
    pub async fn on_disks(nodes: &[u64], flags: &[&str]) -> Self {
        Self::start_in(None, nodes, None, flags).await
    }

    /// The same, each node in a network namespace of its own.
    pub async fn in_namespaces(flags: &[&str]) -> Self {
        Self::start_in(Some(Network::new(3)), &[], None, flags).await
    }

    async fn start_in(net: Option<Network>, disks: &[u64], release: Option<PathBuf>, flags: &[&str]) -> Self {
        // First: its ports are taken when ours are picked.
        let s3 = S3Server::start();
        let free = ports::free(10);
        let of = |from: usize| (1..).zip(free[from..from + 5].iter().copied()).collect();
        let mut cluster = Self {
            dirs: tempfile::tempdir().expect("a folder"),
            net: net.map(|net| {
                let bucket = Proxy::start_at(&net.host(), s3.port());
                (net, bucket)
            }),
            s3,
            raft: of(0),
            mysql: of(5),
            flags: flags.iter().map(|flag| (*flag).to_owned()).collect(),
            release,
            nodes: BTreeMap::new(),
            disks: BTreeMap::new(),
        };
        disks.iter().for_each(|id| cluster.mount(*id));
        // Together: none is ready before a majority runs.
        let starting: Vec<_> = [1, 2, 3].map(|id| cluster.serve(id, Start::Founds)).into_iter().collect();
        let started = starting.into_iter().map(|serve| tokio::task::spawn_blocking(move || serve.start()));
        for (id, server) in (1..).zip(futures::future::join_all(started).await) {
            cluster.nodes.insert(id, server.expect("a node starts"));
        }
        cluster
    }

    fn ip(&self, id: u64) -> String {
        self.net.as_ref().map_or_else(|| "127.0.0.1".to_owned(), |(net, _)| net.address(id))
    }

    /// Cuts a node off from the others.
    pub fn cut(&self, id: u64, way: Way) {
        self.net.as_ref().expect("in namespaces").0.cut(id, way);
    }

    /// Takes the cut back.
    pub fn heal(&self, id: u64) {
        self.net.as_ref().expect("in namespaces").0.heal(id);
    }

    fn dir(&self, id: u64) -> PathBuf {
        self.dirs.path().join(format!("node{id}"))
    }

    /// Puts a node's data directory, which is not there yet, on a disk that can be made to fail.
    fn mount(&mut self, id: u64) {
        let at = self.dir(id);
        std::fs::create_dir(&at).expect("a new folder");
        self.disks.insert(id, MountedDisk::mount(Volatile::default(), &at).expect("FUSE"));
    }

    /// Changes how a node's disk behaves.
    pub fn disk<T>(&self, id: u64, change: impl FnOnce(&mut Volatile) -> T) -> T {
        self.disks[&id].with(change)
    }

    /// The folder of a node's log.
    pub fn log_dir(&self, id: u64) -> PathBuf {
        self.dir(id).join("log")
    }

    /// Destroys the disk of a node that does not run.
    pub fn destroy(&mut self, id: u64) {
        assert!(!self.nodes.contains_key(&id), "node {id} runs");
        self.disks.remove(&id);
        std::fs::remove_dir_all(self.dir(id)).expect("a folder that nobody uses");
    }

    /// The S3 server.
    pub fn s3(&self) -> &S3Server {
        &self.s3
    }

    /// Gives a node that does not run another port for its peers.
    pub fn move_to_another_port(&mut self, id: u64) {
        let port = ports::free(1)[0];
        let before = self.raft.insert(id, port);
        assert_ne!(before, Some(port), "another one");
    }

    /// The address of a node for its peers.
    pub fn raft_address(&self, id: u64) -> String {
        format!("{}:{}", self.ip(id), self.raft[&id])
    }

    fn serve(&self, id: u64, start: Start) -> Serve {
        let peers: Vec<_> = (1..=3).map(|peer| format!("{peer}={}", self.raft_address(peer))).collect();
        let serve = match &self.net {
            None => match &self.release {
                Some(binary) => Serve::of_release(binary, &self.dir(id)),
                None => Serve::new(&self.dir(id)),
            },
            Some((net, _)) => {
                let serve = Serve::in_namespace(&net.namespace(id), &self.dir(id));
                serve.password(&self.dirs.path().join("password"), PASSWORD)
            }
        };
        let serve = serve.args(["--store", &self.s3.url("cluster"), "--node-id", &id.to_string()]);
        let serve = serve.listen(&format!("{}:{}", self.ip(id), self.mysql[&id]));
        let serve = serve.admin_listen(&format!("{}:0", self.ip(id)));
        let serve = match start {
            Start::Founds => serve.args(["--peers", &peers.join(",")]),
            Start::Joins => serve.args(["--raft-listen", &self.raft_address(id)]),
            Start::Recovers => {
                serve.args(["--raft-listen", &self.raft_address(id), "--recover-from", &self.s3.url("cluster")])
            }
        };
        let mut env = self.s3.env();
        if let Some((net, bucket)) = &self.net {
            let endpoint = format!("http://{}:{}", net.host(), bucket.port());
            env.retain(|(name, _)| name != "AWS_ENDPOINT_URL");
            env.push(("AWS_ENDPOINT_URL".to_owned(), endpoint));
        }
        serve.args(&self.flags).envs(env)
    }

    /// Starts a node (again) and waits until it is ready.
    pub async fn restart(&mut self, id: u64) {
        let server = self.restarting(id).await.expect("a node starts");
        self.nodes.insert(id, server);
    }

    /// Starts a node again that may not be ready before something else happens.
    pub fn restarting(&self, id: u64) -> tokio::task::JoinHandle<Server> {
        let serve = self.serve(id, if id > 3 { Start::Joins } else { Start::Founds });
        tokio::task::spawn_blocking(move || serve.start())
    }

    /// Waits until the leader takes a node for gone.
    pub async fn silent(&self, leader: u64, id: u64) {
        let until = Instant::now() + PATIENCE;
        loop {
            let nodes = self.admin(leader, &["nodes", "--json"]).await;
            let nodes: serde_json::Value = serde_json::from_str(&nodes.output).expect("JSON");
            let node =
                nodes["nodes"].as_array().expect("nodes").iter().find(|node| node["id"] == id).expect("a member");
            if node["heard_seconds_ago"].as_f64().is_some_and(|ago| ago > 4.0) {
                return;
            }
            assert!(Instant::now() < until, "{nodes}");
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Rebuilds the cluster from the bucket on this node, which has an empty disk and is its only voter then.
    pub async fn recover(&mut self, id: u64) {
        let serve = self.serve(id, Start::Recovers);
        self.started(id, serve).await;
    }

    async fn started(&mut self, id: u64, serve: Serve) {
        let server = tokio::task::spawn_blocking(move || serve.start()).await.expect("a node starts");
        self.nodes.insert(id, server);
    }

    /// Tries to start a node that must not come up.
    pub async fn refused(&self, id: u64) -> Exit {
        let serve = self.serve(id, if id > 3 { Start::Joins } else { Start::Founds });
        tokio::task::spawn_blocking(move || serve.refused()).await.expect("a node ends")
    }

    /// Starts a node that is to join: it is ready only once it was added.
    pub fn joining(&self, id: u64) -> tokio::task::JoinHandle<Server> {
        let serve = self.serve(id, Start::Joins);
        tokio::task::spawn_blocking(move || serve.start())
    }

    /// Adds a node with an empty disk to the cluster, and waits until it serves.
    pub async fn join(&mut self, id: u64) {
        let (leader, joining) = (self.leader().await, self.joining(id));
        let (id_text, address) = (id.to_string(), self.raft_address(id));
        let added = self.admin(leader, &["add-node", "--id", &id_text, "--node-addr", &address]).await;
        assert_eq!(added.code, Some(0), "{}", added.output);
        let server = joining.await.expect("it starts");
        self.joined(id, server);
    }

    /// Runs `holdfast admin ARGS` against a node.
    pub async fn admin(&self, id: u64, args: &[&str]) -> Exit {
        let args = [&["admin"], args, &["--addr", &self.nodes[&id].admin]].concat();
        let args: Vec<String> = args.into_iter().map(ToOwned::to_owned).collect();
        tokio::task::spawn_blocking(move || serve::run(args, Vec::new())).await.expect("it ends")
    }

    /// Takes a node that has joined among the others.
    pub fn joined(&mut self, id: u64, server: Server) {
        self.nodes.insert(id, server);
    }

    /// A node that runs.
    pub fn node(&self, id: u64) -> &Server {
        &self.nodes[&id]
    }

    /// Takes a node out, to be killed or stopped.
    pub fn take(&mut self, id: u64) -> Server {
        self.nodes.remove(&id).expect("it runs")
    }

    /// MySQL URLs of the first three nodes, also of those that do not run.
    pub fn urls(&self) -> Vec<String> {
        (1..=3).map(|id| self.url(id)).collect()
    }

    /// As [`Self::urls`], with those of the nodes that may join.
    pub fn all_urls(&self) -> Vec<String> {
        self.mysql.keys().map(|id| self.url(*id)).collect()
    }

    /// A node's MySQL URL.
    pub fn url(&self, id: u64) -> String {
        let login = if self.net.is_some() { format!("root:{PASSWORD}") } else { "root".to_owned() };
        format!("mysql://{login}@{}:{}/?prefer_socket=false", self.ip(id), self.mysql[&id])
    }

    /// Waits for a node that takes writes.
    pub async fn leader(&self) -> u64 {
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            for (id, server) in &self.nodes {
                if writable(&server.url("")).await {
                    return *id;
                }
            }
            tokio::time::sleep(LOOK).await;
        }
        let logs: Vec<_> = self.nodes.values().map(Server::log).collect();
        panic!("no node takes writes within {PATIENCE:?}:\n{}", logs.join("\n---\n"));
    }
}

/// Whether the node behind the URL takes writes.
pub async fn writable(url: &str) -> bool {
    let asked = async {
        let mut conn = Conn::from_url(url).await.ok()?;
        let read_only: Option<u8> = conn.query_first("SELECT @@global.read_only").await.ok()?;
        conn.disconnect().await.ok()?;
        Some(read_only? == 0)
    };
    tokio::time::timeout(Duration::from_secs(1), asked).await.ok().flatten().unwrap_or(false)
}

/// How one node answered statements.
#[derive(Debug, Default)]
pub struct Tally {
    /// Answered.
    pub done: AtomicU64,
    /// Writes that a follower did not take.
    pub refused: AtomicU64,
    /// Failed, or got no answer.
    pub failed: AtomicU64,
}

/// Clients that write and read single rows on any node and note all they see.
pub struct Clients {
    urls: Vec<String>,
    keys: u64,
    clock: Instant,
    next_value: AtomicU64,
    history: Mutex<Vec<Op>>,
    pause: Duration,
    stop: AtomicBool,
    /// Acknowledged writes.
    pub acked: AtomicU64,
    /// By node, in the order of the URLs.
    pub tallies: Vec<Tally>,
}

impl Clients {
    /// Clients of these nodes; they rest for `pause` after each operation.
    pub fn new(urls: Vec<String>, keys: u64, pause: Duration) -> Arc<Self> {
        Arc::new(Self {
            tallies: urls.iter().map(|_| Tally::default()).collect(),
            urls,
            keys,
            clock: Instant::now(),
            next_value: AtomicU64::new(1),
            history: Mutex::default(),
            pause,
            stop: AtomicBool::new(false),
            acked: AtomicU64::new(0),
        })
    }

    /// Makes the table on the node that leads.
    pub async fn create(&self, url: &str) {
        let mut conn = Conn::from_url(url).await.expect("connect");
        conn.query_drop("CREATE DATABASE IF NOT EXISTS lin").await.expect("database");
        conn.query_drop("CREATE TABLE IF NOT EXISTS lin.registers (k BIGINT PRIMARY KEY, v BIGINT NOT NULL)")
            .await
            .expect("table");
        conn.disconnect().await.expect("disconnect");
    }

    /// Starts `writers` and `readers`; they end after [`Self::stop`].
    pub fn run(self: &Arc<Self>, writers: usize, readers: usize) -> Vec<tokio::task::JoinHandle<()>> {
        let writers = (0..writers).map(|n| tokio::spawn(self.clone().write(n)));
        let readers = (0..readers).map(|n| tokio::spawn(self.clone().read(n)));
        writers.chain(readers).collect()
    }

    /// Tells all to end.
    pub fn stop(&self) {
        self.stop.store(true, SeqCst);
    }

    /// What they saw.
    pub fn history(&self) -> Vec<Op> {
        self.history.lock().clone()
    }

    fn now(&self) -> u64 {
        u64::try_from(self.clock.elapsed().as_nanos()).expect("short")
    }

    async fn write(self: Arc<Self>, start: usize) {
        let mut at = start;
        let mut conn = None;
        while !self.stop.load(SeqCst) {
            let Some(client) = self.connected(&mut conn, at).await else {
                at += 1;
                continue;
            };
            let value = self.next_value.fetch_add(1, SeqCst);
            let key = value % self.keys;
            let call = self.now();
            let statement = client.query_drop(format!("REPLACE INTO lin.registers VALUES ({key}, {value})"));
            let outcome = tokio::time::timeout(STATEMENT, statement).await;
            let ret = self.now();
            let op = |ret| Op { key, action: Action::Write(value), call, ret };
            self.count(at, &outcome);
            match outcome {
                Ok(Ok(())) => {
                    self.acked.fetch_add(1, SeqCst);
                    self.history.lock().push(op(Some(ret)));
                }
                // Refused: nothing was written.
                Ok(Err(mysql_async::Error::Server(e))) if e.code == 1290 || e.code == 1213 => {
                    (at, conn) = (at + 1, None);
                    tokio::time::sleep(LOOK).await;
                }
                _ => {
                    self.history.lock().push(op(None));
                    (at, conn) = (at + 1, None);
                }
            }
            tokio::time::sleep(self.pause).await;
        }
    }

    async fn read(self: Arc<Self>, start: usize) {
        let mut at = start;
        let mut conn = None;
        let mut n = start as u64;
        while !self.stop.load(SeqCst) {
            let Some(client) = self.connected(&mut conn, at).await else {
                at += 1;
                continue;
            };
            n += 7;
            let key = n % self.keys;
            let call = self.now();
            let statement = client.query_first(format!("SELECT v FROM lin.registers WHERE k = {key}"));
            let outcome: Result<Result<Option<u64>, _>, _> = tokio::time::timeout(STATEMENT, statement).await;
            let ret = Some(self.now());
            self.count(at, &outcome);
            match outcome {
                Ok(Ok(found)) => {
                    let action = Action::Read(found.unwrap_or(0));
                    self.history.lock().push(Op { key, action, call, ret });
                    // Another node the next time, now and then.
                    if n.is_multiple_of(13) {
                        (at, conn) = (at + 1, None);
                    }
                }
                _ => (at, conn) = (at + 1, None),
            }
            tokio::time::sleep(self.pause).await;
        }
    }

    fn count<T>(&self, at: usize, outcome: &Result<mysql_async::Result<T>, tokio::time::error::Elapsed>) {
        let tally = &self.tallies[at % self.urls.len()];
        let counter = match outcome {
            Ok(Ok(_)) => &tally.done,
            Ok(Err(mysql_async::Error::Server(e))) if e.code == 1290 => &tally.refused,
            _ => &tally.failed,
        };
        counter.fetch_add(1, SeqCst);
    }

    async fn connected<'a>(&self, conn: &'a mut Option<Conn>, at: usize) -> Option<&'a mut Conn> {
        if conn.is_none() {
            let url = self.urls[at % self.urls.len()].as_str();
            let connecting = tokio::time::timeout(Duration::from_secs(1), Conn::from_url(url)).await;
            *conn = connecting.ok().and_then(Result::ok);
            if conn.is_none() {
                tokio::time::sleep(LOOK).await;
            }
        }
        conn.as_mut()
    }
}
