//! The simulated disk: in memory, seeded, and honest about power loss. One seed replays one run.
//!
//! What was not synced when the power goes is lost sector by sector: each 512-byte sector of each unsynced write lands or not, in
//! no order. Workers have no threads: a turn runs inside `wake`, or, once [`SimDisk::on_wake`] took over, inside
//! [`SimDisk::step`], in an order that the seed chooses.

use std::{collections::BTreeMap, io, os::fd::BorrowedFd, sync::Arc, time::Duration};

use parking_lot::Mutex;

use super::{Disk, DiskFile, Turn, Worker, WorkerHandle, Writer};

/// The unit that a device writes wholly or not at all.
const SECTOR: usize = 512;

/// A disk in memory. Cloning shares it.
#[derive(Clone)]
pub struct SimDisk {
    inner: Arc<Inner>,
}

struct Inner {
    medium: Mutex<Medium>,
    workers: Mutex<Workers>,
}

type WakeHook = Arc<dyn Fn() + Send + Sync>;

#[derive(Default)]
struct Workers {
    slots: Vec<Slot>,
    /// A drain is under way in some `wake`.
    draining: bool,
    hook: Option<WakeHook>,
}

struct Slot {
    /// `None` while a turn runs and after the last one.
    worker: Option<Box<dyn Worker>>,
    woken: bool,
    stopped: bool,
}

#[derive(Clone, Default)]
struct File {
    /// What a reader sees.
    current: Vec<u8>,
    /// What survives for sure.
    durable: Vec<u8>,
    /// Unsynced writes: offset and length, in order.
    pending: Vec<(usize, Vec<u8>)>,
}

impl File {
    fn sync(&mut self) {
        // What is durable and what is pending make what is current: no need to copy the file.
        for (offset, bytes) in self.pending.drain(..) {
            self.durable[offset..offset + bytes.len()].copy_from_slice(&bytes);
        }
    }
}

struct Medium {
    files: BTreeMap<String, File>,
    /// Names whose directory entry is durable.
    durable_names: Vec<String>,
    random: u64,
    /// Bytes that all files may take.
    capacity: u64,
    /// Writes reach the platter when they say so. Off: the drive lies.
    sync_writes: bool,
    powered: bool,
    /// Counts restarts: handles of an earlier life are dead.
    life: u64,
    io_count: u64,
    cut_at: Option<u64>,
}

impl Medium {
    /// SplitMix64: small, seeded and the same on every platform.
    fn random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Starts an I/O. Answers whether the power goes while it runs.
    fn begin(&mut self, life: u64) -> io::Result<bool> {
        if !self.powered || life != self.life {
            return Err(no_power());
        }
        self.io_count += 1;
        Ok(self.cut_at == Some(self.io_count))
    }

    /// An I/O that a power cut leaves undone.
    fn pass(&mut self, life: u64) -> io::Result<()> {
        if self.begin(life)? {
            self.cut_power();
            return Err(no_power());
        }
        Ok(())
    }

    fn cut_power(&mut self) {
        self.powered = false;
        // Some cuts lose nearly all that was in flight, some nearly nothing.
        let lands_of_eight = self.random() % 9;
        let names = std::mem::take(&mut self.files);
        for (name, mut file) in names {
            if !self.durable_names.contains(&name) && self.random().is_multiple_of(2) {
                continue;
            }
            for (offset, bytes) in std::mem::take(&mut file.pending) {
                for (i, sector) in bytes.chunks(SECTOR).enumerate() {
                    if self.random() % 8 < lands_of_eight {
                        let at = offset + i * SECTOR;
                        file.durable[at..at + sector.len()].copy_from_slice(sector);
                    }
                }
            }
            file.current.clone_from(&file.durable);
            self.files.insert(name, file);
        }
        self.durable_names = self.files.keys().cloned().collect();
    }

    fn file(&mut self, name: &str) -> io::Result<&mut File> {
        self.files.get_mut(name).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn write(&mut self, life: u64, name: &str, bytes: &[u8], offset: u64) -> io::Result<()> {
        let cut = self.begin(life)?;
        let sync = self.sync_writes;
        let file = self.file(name)?;
        let range = range(&file.current, bytes.len(), offset)?;
        file.current[range.clone()].copy_from_slice(bytes);
        file.pending.push((range.start, bytes.to_vec()));
        if cut {
            self.cut_power();
            return Err(no_power());
        }
        if sync {
            // DSYNC covers this write only; with one writer to a file nothing else is pending but lies told before.
            file.sync();
        }
        Ok(())
    }

    fn create(&mut self, life: u64, name: &str, bytes: u64, front: &[u8]) -> io::Result<()> {
        let len = usize::try_from(bytes).map_err(io::Error::other)?;
        let used: u64 = self.files.values().map(|file| file.current.len() as u64).sum();
        // Allocate, fill, sync, rename, sync the directory: a cut before the rename leaves nothing that a list shows.
        for _ in 0..3 {
            self.pass(life)?;
        }
        if used + bytes > self.capacity {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let mut current = vec![0; len];
        let front_range = range(&current, front.len(), 0)?;
        current[front_range].copy_from_slice(front);
        self.files.insert(name.to_owned(), File { durable: current.clone(), current, pending: Vec::new() });
        self.pass(life)?;
        self.durable_names.push(name.to_owned());
        Ok(())
    }
}

fn no_power() -> io::Error {
    io::Error::other("the simulated power is off")
}

fn range(file: &[u8], len: usize, offset: u64) -> io::Result<std::ops::Range<usize>> {
    let start = usize::try_from(offset).map_err(io::Error::other)?;
    let end = start.checked_add(len).filter(|end| *end <= file.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
    Ok(start..end)
}

impl SimDisk {
    /// An empty disk.
    pub fn new(seed: u64) -> Self {
        let medium = Medium {
            files: BTreeMap::new(),
            durable_names: Vec::new(),
            random: seed,
            capacity: u64::MAX,
            sync_writes: true,
            powered: true,
            life: 0,
            io_count: 0,
            cut_at: None,
        };
        Self { inner: Arc::new(Inner { medium: Mutex::new(medium), workers: Mutex::default() }) }
    }

    /// Takes the sync out of every write from now on: what a lying drive does. Power-loss tests must fail on it.
    pub fn lie_about_sync(&self) {
        self.inner.medium.lock().sync_writes = false;
    }

    /// Bounds the bytes of all files together.
    pub fn set_capacity(&self, bytes: u64) {
        self.inner.medium.lock().capacity = bytes;
    }

    /// Cuts the power during the I/O that comes `ios` after now (1 = the next one).
    pub fn cut_power_after(&self, ios: u64) {
        let mut medium = self.inner.medium.lock();
        medium.cut_at = Some(medium.io_count + ios);
    }

    /// Cuts the power now.
    pub fn cut_power(&self) {
        let mut medium = self.inner.medium.lock();
        if medium.powered {
            medium.cut_power();
        }
    }

    /// Whether a planned cut has come.
    pub fn is_powered(&self) -> bool {
        self.inner.medium.lock().powered
    }

    /// I/Os so far.
    pub fn io_count(&self) -> u64 {
        self.inner.medium.lock().io_count
    }

    /// Turns the power on again. Handles, workers and the wake hook of the earlier life are dead.
    pub fn restart(&self) {
        let mut medium = self.inner.medium.lock();
        if medium.powered {
            medium.cut_power();
        }
        (medium.powered, medium.cut_at) = (true, None);
        medium.life += 1;
        drop(medium);
        let old = std::mem::take(&mut *self.inner.workers.lock());
        drop(old); // outside the lock: a dropped worker answers its callers
    }

    /// Changes bytes behind everybody's back: what a bad cell does.
    pub fn corrupt(&self, name: &str, offset: usize, change: impl FnOnce(&mut u8)) {
        let mut medium = self.inner.medium.lock();
        if let Some(file) = medium.files.get_mut(name) {
            file.current.get_mut(offset).map(change);
            file.durable.clone_from(&file.current);
            file.pending.clear();
        }
    }

    /// All bytes of a file.
    pub fn contents(&self, name: &str) -> Option<Vec<u8>> {
        self.inner.medium.lock().files.get(name).map(|file| file.current.clone())
    }

    /// An independent disk with the same files, all durable, and its own seed.
    pub fn fork(&self, seed: u64) -> Self {
        let copy = Self::new(seed);
        let medium = self.inner.medium.lock();
        let mut other = copy.inner.medium.lock();
        for (name, file) in &medium.files {
            let current = file.current.clone();
            other.files.insert(name.clone(), File { durable: current.clone(), current, pending: Vec::new() });
        }
        other.durable_names = other.files.keys().cloned().collect();
        drop(other);
        copy
    }

    /// Takes turns out of `wake`: from now on it calls `hook`, and the driver calls [`SimDisk::step`] when it sees fit.
    pub fn on_wake(&self, hook: impl Fn() + Send + Sync + 'static) {
        self.inner.workers.lock().hook = Some(Arc::new(hook));
    }

    /// Runs one turn of a worker that wants one, chosen by the seed. Answers whether there was one.
    pub fn step(&self) -> bool {
        let choice = self.inner.medium.lock().random();
        let mut workers = self.inner.workers.lock();
        let ready = |slot: &Slot| slot.woken && slot.worker.is_some();
        let count = workers.slots.iter().filter(|slot| ready(slot)).count() as u64;
        let Some(pick) = choice.checked_rem(count) else { return false };
        let found = workers.slots.iter().enumerate().filter(|(_, slot)| ready(slot)).nth(pick as usize);
        let Some(at) = found.map(|(at, _)| at) else { return false };
        let slot = &mut workers.slots[at];
        slot.woken = false;
        let Some(mut worker) = slot.worker.take() else { return false };
        drop(workers);
        let life = self.inner.medium.lock().life;
        let turn = worker.turn(&mut SimWriter { disk: self.clone(), life });
        let mut workers = self.inner.workers.lock();
        let Some(slot) = workers.slots.get_mut(at) else { return true }; // restarted meanwhile
        match turn {
            Turn::Again => slot.woken = true,
            Turn::Idle => {}
            Turn::Stop => slot.stopped = true,
        }
        if turn != Turn::Stop {
            slot.worker = Some(worker);
        }
        true
    }

    fn wake(&self, at: usize) {
        let mut workers = self.inner.workers.lock();
        if let Some(slot) = workers.slots.get_mut(at) {
            slot.woken = true;
        }
        if let Some(hook) = workers.hook.clone() {
            drop(workers);
            return hook();
        }
        if std::mem::replace(&mut workers.draining, true) {
            return;
        }
        drop(workers);
        self.drain();
    }

    /// Runs turns until nobody wants one.
    fn drain(&self) {
        loop {
            while self.step() {}
            // Checked again under the lock: a wake in between found `draining` set and relied on this loop.
            let mut workers = self.inner.workers.lock();
            if !workers.slots.iter().any(|slot| slot.woken && slot.worker.is_some()) {
                workers.draining = false;
                return;
            }
        }
    }
}

impl Disk for SimDisk {
    fn kind(&self) -> &'static str {
        "simulated"
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut medium = self.inner.medium.lock();
        let life = medium.life;
        medium.pass(life)?;
        Ok(medium.files.keys().cloned().collect())
    }

    fn create(&self, name: &str, bytes: u64, front: &[u8]) -> io::Result<Arc<dyn DiskFile>> {
        let mut medium = self.inner.medium.lock();
        let life = medium.life;
        medium.create(life, name, bytes, front)?;
        Ok(Arc::new(SimFile { disk: self.clone(), name: name.to_owned(), bytes, life }))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let mut medium = self.inner.medium.lock();
        let life = medium.life;
        medium.pass(life)?;
        let file = medium.file(name)?;
        file.sync();
        let bytes = file.current.len() as u64;
        Ok(Arc::new(SimFile { disk: self.clone(), name: name.to_owned(), bytes, life }))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut medium = self.inner.medium.lock();
        let life = medium.life;
        medium.pass(life)?;
        medium.files.remove(name).ok_or(io::ErrorKind::NotFound)?;
        medium.durable_names.retain(|durable| durable != name);
        Ok(())
    }

    fn start(&self, _name: &str, worker: Box<dyn Worker>) -> io::Result<Arc<dyn WorkerHandle>> {
        let life = self.inner.medium.lock().life;
        let mut workers = self.inner.workers.lock();
        workers.slots.push(Slot { worker: Some(worker), woken: false, stopped: false });
        Ok(Arc::new(SimHandle { disk: self.clone(), at: workers.slots.len() - 1, life }))
    }
}

struct SimFile {
    disk: SimDisk,
    name: String,
    bytes: u64,
    life: u64,
}

impl DiskFile for SimFile {
    fn name(&self) -> &str {
        &self.name
    }

    fn bytes(&self) -> u64 {
        self.bytes
    }

    fn read(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let mut medium = self.disk.inner.medium.lock();
        medium.pass(self.life)?;
        let file = medium.file(&self.name)?;
        let range = range(&file.current, buffer.len(), offset)?;
        buffer.copy_from_slice(&file.current[range]);
        Ok(())
    }

    fn write(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.disk.inner.medium.lock().write(self.life, &self.name, bytes, offset)
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}

struct SimWriter {
    disk: SimDisk,
    life: u64,
}

impl Writer for SimWriter {
    fn write(&mut self, file: &dyn DiskFile, bytes: &[u8], offset: u64) -> io::Result<Duration> {
        self.disk.inner.medium.lock().write(self.life, file.name(), bytes, offset)?;
        Ok(Duration::ZERO)
    }
}

struct SimHandle {
    disk: SimDisk,
    at: usize,
    life: u64,
}

impl SimHandle {
    fn is_current(&self) -> bool {
        self.disk.inner.medium.lock().life == self.life
    }
}

impl WorkerHandle for SimHandle {
    fn wake(&self) {
        if self.is_current() {
            self.disk.wake(self.at);
        }
    }

    /// Turns have no thread here: where they run is up to the driver.
    fn run(&self) {
        self.wake();
    }

    fn join(&self) {
        let stopped = || {
            let workers = self.disk.inner.workers.lock();
            workers.slots.get(self.at).is_none_or(|slot| slot.stopped || slot.worker.is_none())
        };
        while self.is_current() && !stopped() && self.disk.step() {}
    }
}
