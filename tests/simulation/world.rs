//! One run of one seed: sets the scene, lets clients and faults loose, heals everything and checks.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::time::{sleep, timeout};

use crate::{
    bug::Bug,
    client::Client,
    history::{Append, History, Outcome, Read},
    machine::Bucket,
    nemesis::{self, Fault},
    net::{Net, Weather},
    node::{NODES, Node, Site},
    oracle::Oracle,
    random::Random,
    trace,
};

/// A run has at least so many acknowledged appends.
const COMMITS: u64 = 500;
/// ... and so many faults.
const FAULTS: u64 = 20;
/// A run that does not get there in this simulated time is stuck.
const PATIENCE: Duration = Duration::from_secs(600);

/// What the seed says about a run.
pub struct Plan {
    /// The seed.
    pub seed: u64,
    /// How links behave on a good day.
    pub weather: Weather,
    /// Clients.
    pub clients: u64,
    /// Milliseconds that a client thinks, at most.
    pub think: u64,
    /// Milliseconds between faults, at most.
    pub calm: u64,
    faults: (Vec<Fault>, Vec<Fault>),
}

/// Everything in the run.
pub struct World {
    /// What the seed says.
    pub plan: Plan,
    /// What nodes share.
    pub site: Site,
    /// The nodes.
    pub nodes: Vec<Arc<Node>>,
    history: Mutex<History>,
    commits: AtomicU64,
    faults: Mutex<BTreeMap<String, u64>>,
    over: AtomicBool,
}

/// What a run was.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Acknowledged appends.
    pub commits: u64,
    /// Reads.
    pub reads: u64,
    /// Faults.
    pub faults: u64,
    /// Terms that had a leader.
    pub terms: u64,
    /// Simulated milliseconds.
    pub millis: u64,
    /// Hash of all events.
    pub trace: u64,
}

impl World {
    fn new(seed: u64, bug: Bug) -> Arc<Self> {
        let random = &mut Random::new(seed, "plan");
        let (lost, doubled) = (*random.pick(&[0, 0, 1, 3]), *random.pick(&[0, 0, 1, 5]));
        let weather = Weather { lost, doubled, delay: *random.pick(&[0, 1, 3, 10]), late: *random.pick(&[0, 2, 10]) };
        let plan = Plan {
            seed,
            weather,
            clients: random.within(3, 8),
            think: *random.pick(&[60, 150, 300]),
            calm: *random.pick(&[150, 600, 2000]),
            faults: nemesis::choose(random),
        };
        let site = Site {
            net: Net::new(seed, weather, &NODES, bug),
            bucket: Bucket::default(),
            oracle: Arc::new(Oracle::default()),
            bug,
            pace: *random.pick(&[(0, 0), (0, 2), (1, 5), (0, 20)]),
            bad_disks: *random.pick(&[0, 0, 30]),
        };
        let nodes = NODES.iter().map(|id| Node::new(*id, seed, site.clone())).collect();
        Arc::new(Self {
            plan,
            site,
            nodes,
            history: Mutex::default(),
            commits: AtomicU64::new(0),
            faults: Mutex::default(),
            over: AtomicBool::new(false),
        })
    }

    /// Whether clients and faults should end.
    pub fn is_over(&self) -> bool {
        self.over.load(Relaxed)
    }

    /// Acknowledged appends so far.
    pub fn commits(&self) -> u64 {
        self.commits.load(Relaxed)
    }

    /// Notes an append.
    pub fn appended(&self, append: Append) {
        if matches!(append.outcome, Outcome::Done(_)) {
            self.commits.fetch_add(1, Relaxed);
        }
        self.history.lock().appends.push(append);
    }

    /// Notes a read.
    pub fn read(&self, read: Read) {
        self.history.lock().reads.push(read);
    }

    /// Notes a fault.
    pub fn struck(&self, fault: Fault) {
        *self.faults.lock().entry(format!("{fault:?}")).or_default() += 1;
    }

    fn faults(&self) -> u64 {
        self.faults.lock().values().sum()
    }

    async fn ready(&self) {
        let ready = || self.nodes.iter().any(|node| node.up().is_some_and(|up| up.wal.leadership().borrow().ready));
        while !ready() {
            sleep(Duration::from_millis(10)).await;
        }
    }

    async fn work(self: &Arc<Self>) {
        let mut tasks = Vec::new();
        for name in 1..=self.plan.clients {
            tasks.push(tokio::spawn(Client::new(self.clone(), name).run()));
        }
        let (of_nodes, of_surroundings) = self.plan.faults.clone();
        tasks.push(tokio::spawn(nemesis::run(self.clone(), "nodes", of_nodes)));
        tasks.push(tokio::spawn(nemesis::run(self.clone(), "surroundings", of_surroundings)));
        while self.commits() < COMMITS || self.faults() < FAULTS {
            sleep(Duration::from_millis(20)).await;
        }
        self.over.store(true, Relaxed);
        for task in tasks {
            task.await.expect("a panic ends the process");
        }
    }

    /// Waits until all nodes are up and have applied the same.
    async fn converged(&self) {
        loop {
            let ups: Vec<_> = self.nodes.iter().filter_map(|node| node.up()).collect();
            let last: Vec<_> = ups.iter().map(|up| up.view.last()).collect();
            let in_flight = ups.iter().any(|up| up.wal.status().last.map(|last| last.index) != last.first().copied());
            if last.len() == NODES.len() && last.windows(2).all(|pair| pair[0] == pair[1]) && !in_flight {
                return;
            }
            sleep(Duration::from_millis(20)).await;
        }
    }

    fn check(&self) {
        let states: Vec<_> = self.nodes.iter().filter_map(|node| node.up()).map(|up| up.view.state()).collect();
        for pair in states.windows(2) {
            assert!(pair[0].items == pair[1].items, "divergence: two nodes end with different states");
        }
        let history = self.history.lock();
        if let Err(what) = history.check(&states[0].items) {
            panic!("{what}");
        }
    }
}

/// Runs a seed on the caller's runtime. A violation panics.
pub async fn run(seed: u64, bug: Bug) -> Report {
    trace::start();
    let world = World::new(seed, bug);
    for node in &world.nodes {
        tokio::spawn(node.clone().keep());
    }
    let stuck = |doing: &str| format!("stuck: {doing} takes more than {PATIENCE:?} of simulated time");
    timeout(PATIENCE, world.ready()).await.unwrap_or_else(|_| panic!("{}", stuck("the first election")));
    timeout(PATIENCE, world.work()).await.unwrap_or_else(|_| panic!("{}", stuck("the work")));
    trace::event("all is healed");
    let last = Client::new(world.clone(), 0).last();
    timeout(PATIENCE, last).await.unwrap_or_else(|_| panic!("{}", stuck("the last append")));
    timeout(PATIENCE, world.converged()).await.unwrap_or_else(|_| panic!("{}", stuck("convergence")));
    world.check();
    let reads = world.history.lock().reads.len() as u64;
    let trace = trace::sum();
    let terms = world.site.oracle.terms() as u64;
    Report { commits: world.commits(), reads, faults: world.faults(), terms, millis: trace::now() / 1000, trace }
}
