//! A simulated machine: its disk, the log that runs on it, and its lives between losses of power.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use holdfast_wal::{
    LogOptions, NodeId, Timing, Wal, WalOptions,
    disk::{
        Disk,
        faulty::{Fault, FaultyDisk},
        sim::SimDisk,
    },
    transport::Peer,
};
use parking_lot::Mutex;
use tokio::{
    sync::{Notify, watch},
    time::sleep,
};

use crate::{
    bug::Bug,
    machine::{Bucket, List, Manifest, View},
    net::Net,
    oracle::Oracle,
    random::Random,
    trace,
};

/// The members.
pub const NODES: [NodeId; 3] = [1, 2, 3];

/// Milliseconds that a turn of a disk takes, at least and at most.
pub type Pace = (u64, u64);

/// What nodes share.
#[derive(Clone)]
pub struct Site {
    /// The network.
    pub net: Net,
    /// The bucket.
    pub bucket: Bucket,
    /// What must hold.
    pub oracle: Arc<Oracle>,
    /// What is wrong on purpose.
    pub bug: Bug,
    /// The pace of a healthy disk.
    pub pace: Pace,
    /// Starts with a disk that fails later on, in percent.
    pub bad_disks: u64,
}

/// A node that is up.
pub struct Up {
    /// Its log.
    pub wal: Wal,
    /// Its machine.
    pub view: View,
    dead: watch::Sender<bool>,
    /// Its disk will fail.
    bad: bool,
}

impl Up {
    /// Waits until the node goes down.
    pub async fn died(&self) {
        let _ = self.dead.subscribe().wait_for(|dead| *dead).await; // the sender lives in `self`
    }

    /// Whether it has gone down.
    pub fn is_dead(&self) -> bool {
        *self.dead.borrow()
    }
}

/// The machine.
pub struct Node {
    /// Who it is.
    pub id: NodeId,
    site: Site,
    disk: SimDisk,
    random: Mutex<Random>,
    up: Mutex<Option<Arc<Up>>>,
    manifest: Arc<Mutex<Option<Manifest>>>,
    life: AtomicU64,
    used: AtomicBool,
    /// The last life in which the disk was full.
    filled: AtomicU64,
    full: AtomicBool,
    pace: Mutex<Pace>,
    stalled: watch::Sender<bool>,
    /// Tells the keeper that the node is down.
    fell: Notify,
}

impl Node {
    /// A machine with an empty disk.
    pub fn new(id: NodeId, seed: u64, site: Site) -> Arc<Self> {
        let mut random = Random::new(seed, &format!("node {id}"));
        Arc::new(Self {
            id,
            disk: SimDisk::new(random.next()),
            random: Mutex::new(random),
            up: Mutex::default(),
            manifest: Arc::default(),
            life: AtomicU64::new(0),
            used: AtomicBool::new(false),
            filled: AtomicU64::new(0),
            full: AtomicBool::new(false),
            pace: Mutex::new(site.pace),
            stalled: watch::Sender::new(false),
            fell: Notify::new(),
            site,
        })
    }

    /// The node, if it is up.
    pub fn up(&self) -> Option<Arc<Up>> {
        self.up.lock().clone()
    }

    /// Sets how long the disk takes; `None` is its own pace.
    pub fn set_pace(&self, pace: Option<Pace>) {
        *self.pace.lock() = pace.unwrap_or(self.site.pace);
    }

    /// Lets the disk stand still, or go on.
    pub fn stall(&self, stall: bool) {
        self.stalled.send_replace(stall);
    }

    /// Leaves no room on the disk, or room again.
    pub fn fill(&self, full: bool) {
        self.filled.store(self.life.load(Relaxed), Relaxed);
        self.full.store(full, Relaxed);
        self.disk.set_capacity(if full { 0 } else { u64::MAX });
    }

    /// Whether this life has seen a full disk, which may end a log that others fill.
    fn was_full(&self) -> bool {
        self.filled.load(Relaxed) == self.life.load(Relaxed)
    }

    /// The power goes during the disk's `ios`th operation from now.
    pub fn tear(&self, ios: u64) {
        self.disk.cut_power_after(ios);
    }

    /// The power goes now.
    pub fn crash(&self) {
        if let Some(up) = self.fall("loses power") {
            self.disk.cut_power();
            drop(up);
        }
    }

    /// The process ends in good order.
    pub async fn stop(&self) {
        let up = self.up();
        if let Some(up) = up {
            up.wal.close().await;
            self.fall("is stopped");
        }
    }

    /// Takes the node out of the world: nothing that its old tasks still do is seen.
    fn fall(&self, why: &str) -> Option<Arc<Up>> {
        let up = self.up.lock().take()?;
        trace::event(format_args!("n{} {why}", self.id));
        self.site.net.down(self.id);
        self.life.fetch_add(1, Relaxed);
        up.dead.send_replace(true);
        self.fell.notify_one();
        Some(up)
    }

    /// Starts the node and starts it again whenever it has fallen, for as long as the simulation runs.
    pub async fn keep(self: Arc<Self>) {
        loop {
            while !self.clone().start().await {
                let pause = self.random.lock().millis(50, 1000);
                sleep(pause).await;
            }
            self.fell.notified().await;
            let pause = {
                let mut random = self.random.lock();
                let most = *random.pick(&[50, 500, 3000]);
                random.millis(1, most)
            };
            sleep(pause).await;
        }
    }

    /// One start. False when the power went meanwhile, or the disk failed.
    async fn start(self: Arc<Self>) -> bool {
        let life = self.life.fetch_add(1, Relaxed) + 1;
        self.disk.restart();
        if self.full.load(Relaxed) {
            self.filled.store(life, Relaxed);
        }
        self.site.bug.disk(&self.disk, life == 1);
        trace::event(format_args!("n{} starts life {life}", self.id));
        let work = Arc::new(Notify::new());
        self.disk.on_wake({
            let work = work.clone();
            move || work.notify_one()
        });
        tokio::spawn(self.clone().drive(life, work));
        let machine = List::new(self.id, self.site.bucket.clone(), self.site.oracle.clone(), self.manifest.clone());
        let view = machine.view();
        let door = Arc::new(self.site.net.door(self.id, life));
        let (disk, bad) = self.device();
        let opened = tokio::select! {
            biased;
            opened = Wal::open(self.options(), disk, door, machine) => opened,
            () = self.lost_power() => return false,
        };
        let wal = match opened {
            Ok(wal) => wal,
            Err(error) => {
                assert!(bad || self.was_full() || !self.disk.is_powered(), "node {} does not start: {error}", self.id);
                trace::event(format_args!("n{} does not start: {error}", self.id));
                self.site.net.down(self.id);
                self.life.fetch_add(1, Relaxed);
                return false;
            }
        };
        if !self.disk.is_powered() {
            return false;
        }
        self.used.store(true, Relaxed);
        let up = Arc::new(Up { wal, view, dead: watch::Sender::new(false), bad });
        *self.up.lock() = Some(up.clone());
        trace::event(format_args!("n{} is up", self.id));
        tokio::spawn(self.clone().watch(up));
        true
    }

    /// Waits until the disk has no power. For a start only: afterwards `drive` tells.
    async fn lost_power(&self) {
        while self.disk.is_powered() {
            sleep(Duration::from_millis(1)).await;
        }
    }

    /// The disk of a life: some fail at some operation, which must stop the node and lose nothing.
    fn device(&self) -> (Arc<dyn Disk>, bool) {
        let random = &mut *self.random.lock();
        let sound: Arc<dyn Disk> = Arc::new(self.disk.clone());
        if !random.chance(self.site.bad_disks) {
            return (sound, false);
        }
        let fault = *random.pick(&[Fault::Error, Fault::ErrorAfter, Fault::Short]);
        (Arc::new(FaultyDisk::new(sound, random.within(1, 400), true, fault)), true)
    }

    fn options(&self) -> WalOptions {
        let used = self.used.load(Relaxed);
        let peers = || NODES.iter().map(|id| Peer { id: *id, addr: format!("node{id}") }).collect();
        // Small segments, so that a run crosses many of their borders.
        let log = LogOptions {
            cluster: 0x51,
            was_used: used,
            segment_bytes: 256 << 10,
            max_bytes: 4 << 20,
            max_payload: 64 << 10,
            max_write_bytes: 128 << 10,
            ram_tail_bytes: 64 << 10,
            ..LogOptions::default()
        };
        let millis = Duration::from_millis;
        let timing = Timing { heartbeat: millis(50), election_min: millis(300), election_max: millis(600) };
        let mut options = WalOptions { own_thread: false, timing, ..WalOptions::single(self.id, log) };
        options.limits.payload = 64 << 10;
        // One member starts the cluster; the others learn of it.
        options.bootstrap = (self.id == NODES[0] && !used).then(peers);
        options
    }

    /// Runs the disk of one life: each turn of its workers takes its time.
    async fn drive(self: Arc<Self>, life: u64, work: Arc<Notify>) {
        loop {
            work.notified().await;
            loop {
                self.site.net.running(self.id).await;
                let _ = self.stalled.subscribe().wait_for(|stalled| !stalled).await; // the sender lives in `self`
                let (low, high) = *self.pace.lock();
                let pause = self.random.lock().within(low, high);
                match pause {
                    0 => tokio::task::yield_now().await,
                    millis => sleep(Duration::from_millis(millis)).await,
                }
                if self.life.load(Relaxed) != life {
                    return;
                }
                let before = self.disk.io_count();
                let more = self.disk.step();
                let after = self.disk.io_count();
                if after != before {
                    trace::event(format_args!("n{} disk at {after}", self.id));
                }
                if !self.disk.is_powered() {
                    self.fall("loses power in a write");
                    return;
                }
                if !more {
                    break;
                }
            }
        }
    }

    /// Follows one life: who leads, and its end by a failure.
    async fn watch(self: Arc<Self>, up: Arc<Up>) {
        let mut leadership = up.wal.leadership();
        loop {
            let now = *leadership.borrow_and_update();
            if now.is_leader && !up.is_dead() {
                trace::event(format_args!("n{} leads term {}, ready {}", self.id, now.term, now.ready));
                self.site.oracle.leads(self.id, now.term);
            }
            tokio::select! {
                biased;
                changed = leadership.changed() => if changed.is_err() { break },
                () = up.died() => return,
            }
        }
        let error = up.wal.stopped().await;
        if up.is_dead() {
            return;
        }
        assert!(
            up.bad || self.was_full() || !self.disk.is_powered() || matches!(error, holdfast_wal::Error::Closed),
            "node {} failed on a sound disk: {error}",
            self.id
        );
        self.fall("has failed");
    }
}
