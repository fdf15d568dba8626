//! The state of a disk that forgets: what processes see now, and what a power cut would leave.
//!
//! File data becomes durable by `sync` of the file, names by `sync` of their directory, as POSIX promises and no more.
//! After [`Volatile::power_cut`] each unsynced 512-byte sector is old or new by a seeded coin, in no order: a torn write.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use rand::{RngExt, SeedableRng, rngs::StdRng};

/// Page of the in-memory files, in bytes.
const PAGE: usize = 4096;
/// What a device persists atomically, in bytes.
const SECTOR: usize = 512;
/// The root directory's inode.
pub const ROOT: u64 = 1;

type Page = Arc<[u8; PAGE]>;

/// An errno.
pub type Errno = i32;

#[derive(Clone, Default)]
struct File {
    pages: BTreeMap<u64, Page>,
    size: u64,
    durable: BTreeMap<u64, Page>,
    durable_size: u64,
    dirty: BTreeSet<u64>,
}

#[derive(Clone, Default)]
struct Dir {
    names: BTreeMap<String, u64>,
    durable: BTreeMap<String, u64>,
}

#[derive(Clone)]
enum Node {
    File(File),
    Dir(Dir),
}

/// A file system in memory, with its durable image beside it.
pub struct Volatile {
    nodes: BTreeMap<u64, Node>,
    next: u64,
    /// Bytes that files may hold together before writes fail with ENOSPC.
    pub capacity: u64,
    used: u64,
    /// A disk that lies: syncs return at once and keep nothing. Equal to a program without its sync calls.
    pub ignore_sync: bool,
    /// A disk that is failing: writes answer EIO.
    pub fail_writes: bool,
    zero: Page,
}

impl Default for Volatile {
    fn default() -> Self {
        let nodes = BTreeMap::from([(ROOT, Node::Dir(Dir::default()))]);
        Self {
            nodes,
            next: ROOT + 1,
            capacity: u64::MAX,
            used: 0,
            ignore_sync: false,
            fail_writes: false,
            zero: Arc::new([0; PAGE]),
        }
    }
}

impl Volatile {
    fn dir(&self, ino: u64) -> Result<&Dir, Errno> {
        match self.nodes.get(&ino) {
            Some(Node::Dir(dir)) => Ok(dir),
            Some(Node::File(_)) => Err(libc::ENOTDIR),
            None => Err(libc::ENOENT),
        }
    }

    fn dir_mut(&mut self, ino: u64) -> Result<&mut Dir, Errno> {
        match self.nodes.get_mut(&ino) {
            Some(Node::Dir(dir)) => Ok(dir),
            Some(Node::File(_)) => Err(libc::ENOTDIR),
            None => Err(libc::ENOENT),
        }
    }

    fn file(&self, ino: u64) -> Result<&File, Errno> {
        match self.nodes.get(&ino) {
            Some(Node::File(file)) => Ok(file),
            Some(Node::Dir(_)) => Err(libc::EISDIR),
            None => Err(libc::ENOENT),
        }
    }

    fn file_mut(&mut self, ino: u64) -> Result<&mut File, Errno> {
        match self.nodes.get_mut(&ino) {
            Some(Node::File(file)) => Ok(file),
            Some(Node::Dir(_)) => Err(libc::EISDIR),
            None => Err(libc::ENOENT),
        }
    }

    /// Finds a name in a directory.
    pub fn lookup(&self, parent: u64, name: &str) -> Result<u64, Errno> {
        self.dir(parent)?.names.get(name).copied().ok_or(libc::ENOENT)
    }

    /// `Some(size)` of a file, `None` for a directory.
    pub fn size(&self, ino: u64) -> Result<Option<u64>, Errno> {
        match self.nodes.get(&ino).ok_or(libc::ENOENT)? {
            Node::File(file) => Ok(Some(file.size)),
            Node::Dir(_) => Ok(None),
        }
    }

    /// Names and inodes of a directory.
    pub fn list(&self, ino: u64) -> Result<Vec<(String, u64)>, Errno> {
        Ok(self.dir(ino)?.names.iter().map(|(name, ino)| (name.clone(), *ino)).collect())
    }

    /// Makes an empty file or directory.
    pub fn create(&mut self, parent: u64, name: &str, directory: bool) -> Result<u64, Errno> {
        if self.dir(parent)?.names.contains_key(name) {
            return Err(libc::EEXIST);
        }
        let ino = self.next;
        self.next += 1;
        let node = if directory { Node::Dir(Dir::default()) } else { Node::File(File::default()) };
        self.nodes.insert(ino, node);
        self.dir_mut(parent)?.names.insert(name.to_owned(), ino);
        Ok(ino)
    }

    /// Removes a name. The node stays for those who hold it open, and for the durable image.
    pub fn remove(&mut self, parent: u64, name: &str, directory: bool) -> Result<(), Errno> {
        let ino = self.lookup(parent, name)?;
        if directory && !self.dir(ino)?.names.is_empty() {
            return Err(libc::ENOTEMPTY);
        }
        self.dir_mut(parent)?.names.remove(name);
        self.free_if_nameless(ino);
        Ok(())
    }

    /// A file's space is free once its last name is gone.
    fn free_if_nameless(&mut self, ino: u64) {
        let named = |node: &Node| matches!(node, Node::Dir(dir) if dir.names.values().any(|child| *child == ino));
        if let Some(Node::File(file)) = self.nodes.get(&ino)
            && !self.nodes.values().any(named)
        {
            self.used = self.used.saturating_sub(file.pages.len() as u64 * PAGE as u64);
        }
    }

    /// Gives a file a second name.
    pub fn link(&mut self, ino: u64, parent: u64, name: &str) -> Result<u64, Errno> {
        self.file(ino)?;
        if self.dir(parent)?.names.contains_key(name) {
            return Err(libc::EEXIST);
        }
        self.dir_mut(parent)?.names.insert(name.to_owned(), ino);
        Ok(ino)
    }

    /// Renames, replacing what was there.
    pub fn rename(&mut self, parent: u64, name: &str, to: u64, new_name: &str) -> Result<(), Errno> {
        let ino = self.lookup(parent, name)?;
        self.dir(to)?;
        self.dir_mut(parent)?.names.remove(name);
        if let Some(replaced) = self.dir_mut(to)?.names.insert(new_name.to_owned(), ino) {
            self.free_if_nameless(replaced);
        }
        Ok(())
    }

    /// Reads; short at the end of the file.
    pub fn read(&self, ino: u64, offset: u64, len: usize) -> Result<Vec<u8>, Errno> {
        let file = self.file(ino)?;
        let end = file.size.min(offset.saturating_add(len as u64));
        let mut out = Vec::with_capacity(end.saturating_sub(offset) as usize);
        let mut at = offset;
        while at < end {
            let within = (at % PAGE as u64) as usize;
            let n = (PAGE - within).min((end - at) as usize);
            let page = file.pages.get(&(at / PAGE as u64)).unwrap_or(&self.zero);
            out.extend_from_slice(&page[within..within + n]);
            at += n as u64;
        }
        Ok(out)
    }

    /// Writes, unsynced.
    pub fn write(&mut self, ino: u64, offset: u64, data: &[u8]) -> Result<(), Errno> {
        if self.fail_writes {
            return Err(libc::EIO);
        }
        let zero = self.zero.clone();
        let (capacity, mut used) = (self.capacity, self.used);
        let file = self.file_mut(ino)?;
        let mut done = 0;
        while done < data.len() {
            let at = offset + done as u64;
            let within = (at % PAGE as u64) as usize;
            let n = (PAGE - within).min(data.len() - done);
            let number = at / PAGE as u64;
            if !file.pages.contains_key(&number) {
                if used + PAGE as u64 > capacity {
                    return Err(libc::ENOSPC);
                }
                used += PAGE as u64;
            }
            let part = &data[done..done + n];
            let page = file.pages.entry(number).or_insert_with(|| zero.clone());
            if page[within..within + n] != *part {
                Arc::make_mut(page)[within..within + n].copy_from_slice(part);
            }
            file.dirty.insert(number);
            done += n;
        }
        file.size = file.size.max(offset + data.len() as u64);
        self.used = used;
        Ok(())
    }

    /// Truncates or extends.
    pub fn truncate(&mut self, ino: u64, size: u64) -> Result<(), Errno> {
        let file = self.file_mut(ino)?;
        let first_gone = size.div_ceil(PAGE as u64);
        let gone = file.pages.split_off(&first_gone);
        file.dirty.extend(gone.keys().copied());
        let within = (size % PAGE as u64) as usize;
        if within != 0
            && let Some(page) = file.pages.get_mut(&(size / PAGE as u64))
        {
            Arc::make_mut(page)[within..].fill(0);
            file.dirty.insert(size / PAGE as u64);
        }
        file.size = size;
        self.used = self.used.saturating_sub(gone.len() as u64 * PAGE as u64);
        Ok(())
    }

    /// Reserves space as fallocate(2) does: the range reads as zeros, and a full disk says so now.
    pub fn allocate(&mut self, ino: u64, end: u64) -> Result<(), Errno> {
        let zero = self.zero.clone();
        let (capacity, mut used) = (self.capacity, self.used);
        let file = self.file_mut(ino)?;
        let missing: Vec<u64> = (0..end.div_ceil(PAGE as u64)).filter(|n| !file.pages.contains_key(n)).collect();
        used += missing.len() as u64 * PAGE as u64;
        if used > capacity {
            return Err(libc::ENOSPC);
        }
        for number in missing {
            file.pages.insert(number, zero.clone());
            file.dirty.insert(number);
        }
        file.size = file.size.max(end);
        self.used = used;
        Ok(())
    }

    /// What an O_DSYNC write promises: its own pages and the size that it needs, nothing else of the file.
    pub fn sync_range(&mut self, ino: u64, offset: u64, len: usize) -> Result<(), Errno> {
        if self.ignore_sync || len == 0 {
            return Ok(());
        }
        let file = self.file_mut(ino)?;
        let end = offset + len as u64;
        for number in offset / PAGE as u64..end.div_ceil(PAGE as u64) {
            if file.dirty.remove(&number)
                && let Some(page) = file.pages.get(&number)
            {
                file.durable.insert(number, page.clone());
            }
        }
        file.durable_size = file.durable_size.max(end);
        Ok(())
    }

    /// fsync(2) of a file or a directory.
    pub fn sync(&mut self, ino: u64) -> Result<(), Errno> {
        if self.ignore_sync {
            return Ok(());
        }
        match self.nodes.get_mut(&ino).ok_or(libc::ENOENT)? {
            Node::File(file) => {
                for number in std::mem::take(&mut file.dirty) {
                    match file.pages.get(&number) {
                        Some(page) => file.durable.insert(number, page.clone()),
                        None => file.durable.remove(&number),
                    };
                }
                file.durable_size = file.size;
            }
            Node::Dir(dir) => dir.durable = dir.names.clone(),
        }
        Ok(())
    }

    /// The power goes: returns the disk as the next start finds it.
    pub fn power_cut(&self, seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut nodes = BTreeMap::new();
        let mut used = 0;
        let mut reach = vec![ROOT];
        while let Some(ino) = reach.pop() {
            let node = match &self.nodes[&ino] {
                Node::Dir(dir) => {
                    reach.extend(dir.durable.values());
                    Node::Dir(Dir { names: dir.durable.clone(), durable: dir.durable.clone() })
                }
                Node::File(file) => {
                    let torn = file.after_cut(&mut rng, &self.zero);
                    used += torn.pages.len() as u64 * PAGE as u64;
                    Node::File(torn)
                }
            };
            nodes.insert(ino, node);
        }
        Self {
            nodes,
            next: self.next,
            capacity: self.capacity,
            used,
            ignore_sync: self.ignore_sync,
            fail_writes: false,
            zero: self.zero.clone(),
        }
    }
}

impl File {
    fn after_cut(&self, rng: &mut StdRng, zero: &Page) -> Self {
        let mut pages = self.durable.clone();
        // The new size may or may not have reached the disk with the data.
        let size = if rng.random_bool(0.5) { self.size } else { self.durable_size };
        for number in &self.dirty {
            let new = self.pages.get(number).unwrap_or(zero);
            let mut page = **pages.get(number).unwrap_or(zero);
            for sector in (0..PAGE).step_by(SECTOR) {
                if rng.random_bool(0.5) {
                    page[sector..sector + SECTOR].copy_from_slice(&new[sector..sector + SECTOR]);
                }
            }
            pages.insert(*number, Arc::new(page));
        }
        pages.split_off(&size.div_ceil(PAGE as u64));
        Self { durable: pages.clone(), pages, size, durable_size: size, dirty: BTreeSet::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk_with_file(synced: &[u8], unsynced: &[u8]) -> Volatile {
        let mut disk = Volatile::default();
        let file = disk.create(ROOT, "f", false).unwrap();
        disk.sync(ROOT).unwrap();
        disk.write(file, 0, synced).unwrap();
        disk.sync(file).unwrap();
        disk.write(file, 0, unsynced).unwrap();
        disk
    }

    #[test]
    fn a_cut_keeps_what_was_synced_and_tears_what_was_not() {
        let disk = disk_with_file(&[1; 8192], &[2; 8192]);
        let (mut old, mut new) = (0, 0);
        for seed in 0..32 {
            let after = disk.power_cut(seed);
            let data = after.read(after.lookup(ROOT, "f").unwrap(), 0, 8192).unwrap();
            for sector in data.chunks(SECTOR) {
                assert!(sector.iter().all(|b| *b == sector[0]), "a sector is atomic");
                if sector[0] == 1 { old += 1 } else { new += 1 }
            }
        }
        assert!(old > 100 && new > 100, "{old} old, {new} new");
    }

    #[test]
    fn a_name_that_was_not_synced_is_gone() {
        let mut disk = Volatile::default();
        let file = disk.create(ROOT, "f", false).unwrap();
        disk.write(file, 0, b"x").unwrap();
        disk.sync(file).unwrap();
        assert_eq!(disk.power_cut(1).lookup(ROOT, "f"), Err(libc::ENOENT));
        disk.sync(ROOT).unwrap();
        let after = disk.power_cut(1);
        assert_eq!(after.read(after.lookup(ROOT, "f").unwrap(), 0, 9).unwrap(), b"x");
    }

    #[test]
    fn a_lying_disk_loses_synced_data() {
        let mut disk = disk_with_file(&[], &[]);
        disk.ignore_sync = true;
        let file = disk.lookup(ROOT, "f").unwrap();
        disk.write(file, 0, &[7; 65536]).unwrap();
        disk.sync(file).unwrap();
        assert_ne!(disk.power_cut(3).read(file, 0, 65536).unwrap(), vec![7; 65536]);
    }

    #[test]
    fn a_full_disk_says_so() {
        let mut disk = Volatile { capacity: 8192, ..Volatile::default() };
        let file = disk.create(ROOT, "f", false).unwrap();
        assert_eq!(disk.allocate(file, 12288), Err(libc::ENOSPC));
        disk.write(file, 0, &[1; 4096]).unwrap();
        assert_eq!(disk.write(file, 4096, &[1; 8192]), Err(libc::ENOSPC));
        disk.link(file, ROOT, "g").unwrap();
        disk.remove(ROOT, "f", false).unwrap();
        let other = disk.create(ROOT, "h", false).unwrap();
        assert_eq!(disk.write(other, 0, &[1; 8192]), Err(libc::ENOSPC), "the file has another name");
        disk.rename(ROOT, "h", ROOT, "g").unwrap();
        assert_eq!(disk.write(other, 0, &[1; 8192]), Ok(()));
    }
}
