//! Mounts a [`Volatile`] disk through FUSE, so that a real process can lose its unsynced data.

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use fuser::{
    BackgroundSession, BsdFileFlags, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation,
    INodeNo, KernelConfig, LockOwner, MountOption, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData,
    ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyWrite, Request, TimeOrNow, WriteFlags,
};

use crate::volatile::{self, Volatile};

/// The kernel may cache nothing: every look goes to the model.
const NO_CACHE: Duration = Duration::ZERO;

/// A mounted disk. Dropping it unmounts.
pub struct MountedDisk {
    state: Arc<Mutex<Volatile>>,
    session: Option<BackgroundSession>,
    at: PathBuf,
}

impl MountedDisk {
    /// Mounts `disk` at `at`, an existing folder.
    pub fn mount(disk: Volatile, at: &Path) -> std::io::Result<Self> {
        let state = Arc::new(Mutex::new(disk));
        let mut config = Config::default();
        config.mount_options = vec![MountOption::FSName("holdfast-volatile".into()), MountOption::RW];
        let session = fuser::spawn_mount(Shell { state: state.clone() }, at, &config)?;
        Ok(Self { state, session: Some(session), at: at.to_owned() })
    }

    /// Changes the disk's behaviour while it is mounted (capacity, lying syncs).
    pub fn with<T>(&self, change: impl FnOnce(&mut Volatile) -> T) -> T {
        change(&mut lock(&self.state))
    }

    /// Cuts the power (kill the processes first), unmounts, and returns the disk as the next start finds it.
    pub fn power_cut(mut self, seed: u64) -> Volatile {
        let after = lock(&self.state).power_cut(seed);
        if let Some(session) = self.session.take() {
            match session.umount_and_join() {
                // The kernel ended the connection before the session looked: an unmount like the other.
                Err(error) if error.raw_os_error() == Some(libc::ECONNABORTED) && !self.is_mounted() => {}
                unmounted => unmounted.expect("unmount"),
            }
        }
        after
    }

    fn is_mounted(&self) -> bool {
        let mounts = std::fs::read_to_string("/proc/self/mounts").expect("/proc/self/mounts");
        mounts.lines().any(|line| line.split(' ').nth(1).is_some_and(|at| Path::new(at) == self.at))
    }
}

fn lock(state: &Mutex<Volatile>) -> MutexGuard<'_, Volatile> {
    state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

struct Shell {
    state: Arc<Mutex<Volatile>>,
}

fn errno(code: volatile::Errno) -> Errno {
    Errno::from_i32(code)
}

fn text(name: &OsStr) -> &str {
    name.to_str().unwrap_or_default()
}

fn attr(disk: &Volatile, ino: u64) -> Result<FileAttr, Errno> {
    let size = disk.size(ino).map_err(errno)?;
    let kind = if size.is_some() { FileType::RegularFile } else { FileType::Directory };
    let size = size.unwrap_or(0);
    Ok(FileAttr {
        ino: INodeNo(ino),
        size,
        blocks: size.div_ceil(512),
        atime: UNIX_EPOCH,
        mtime: UNIX_EPOCH,
        ctime: UNIX_EPOCH,
        crtime: UNIX_EPOCH,
        kind,
        perm: 0o755,
        nlink: if kind == FileType::Directory { 2 } else { 1 },
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: 4096,
        flags: 0,
    })
}

/// Runs a model call, replies with the entry that it made or found.
fn reply_entry(disk: &Volatile, found: Result<u64, volatile::Errno>, reply: ReplyEntry) {
    match found.map_err(errno).and_then(|ino| attr(disk, ino)) {
        Ok(attr) => reply.entry(&NO_CACHE, &attr, Generation(0)),
        Err(e) => reply.error(e),
    }
}

fn reply_empty(done: Result<(), volatile::Errno>, reply: ReplyEmpty) {
    match done {
        Ok(()) => reply.ok(),
        Err(e) => reply.error(errno(e)),
    }
}

impl Filesystem for Shell {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> std::io::Result<()> {
        let _ = config.set_max_write(1 << 20);
        Ok(())
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let disk = lock(&self.state);
        reply_entry(&disk, disk.lookup(parent.0, text(name)), reply);
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match attr(&lock(&self.state), ino.0) {
            Ok(attr) => reply.attr(&NO_CACHE, &attr),
            Err(e) => reply.error(e),
        }
    }

    fn setattr(
        &self,
        _: &Request,
        ino: INodeNo,
        _: Option<u32>,
        _: Option<u32>,
        _: Option<u32>,
        size: Option<u64>,
        _: Option<TimeOrNow>,
        _: Option<TimeOrNow>,
        _: Option<SystemTime>,
        _: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let mut disk = lock(&self.state);
        let sized = size.map_or(Ok(()), |size| disk.truncate(ino.0, size)).map_err(errno);
        match sized.and_then(|()| attr(&disk, ino.0)) {
            Ok(attr) => reply.attr(&NO_CACHE, &attr),
            Err(e) => reply.error(e),
        }
    }

    fn mkdir(&self, _: &Request, parent: INodeNo, name: &OsStr, _: u32, _: u32, reply: ReplyEntry) {
        let mut disk = lock(&self.state);
        let made = disk.create(parent.0, text(name), true);
        reply_entry(&disk, made, reply);
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        reply_empty(lock(&self.state).remove(parent.0, text(name), false), reply);
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        reply_empty(lock(&self.state).remove(parent.0, text(name), true), reply);
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        to: INodeNo,
        new_name: &OsStr,
        _: RenameFlags,
        reply: ReplyEmpty,
    ) {
        reply_empty(lock(&self.state).rename(parent.0, text(name), to.0, text(new_name)), reply);
    }

    fn link(&self, _: &Request, ino: INodeNo, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let mut disk = lock(&self.state);
        let made = disk.link(ino.0, parent.0, text(name));
        reply_entry(&disk, made, reply);
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        reply.opened(FileHandle(0), FopenFlags::FOPEN_DIRECT_IO);
    }

    fn create(&self, _: &Request, parent: INodeNo, name: &OsStr, _: u32, _: u32, _: i32, reply: ReplyCreate) {
        let mut disk = lock(&self.state);
        let made = disk.create(parent.0, text(name), false).map_err(errno);
        match made.and_then(|ino| attr(&disk, ino)) {
            Ok(attr) => reply.created(&NO_CACHE, &attr, Generation(0), FileHandle(0), FopenFlags::FOPEN_DIRECT_IO),
            Err(e) => reply.error(e),
        }
    }

    fn read(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        match lock(&self.state).read(ino.0, offset, size as usize) {
            Ok(data) => reply.data(&data),
            Err(e) => reply.error(errno(e)),
        }
    }

    fn write(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        flags: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        // The kernel puts O_DSYNC here for files opened so and for RWF_DSYNC writes; no fsync follows.
        let synced = flags.0 & (libc::O_DSYNC | libc::O_SYNC) != 0;
        let mut disk = lock(&self.state);
        let done = disk.write(ino.0, offset, data);
        match done.and_then(|()| if synced { disk.sync_range(ino.0, offset, data.len()) } else { Ok(()) }) {
            Ok(()) => reply.written(data.len() as u32),
            Err(e) => reply.error(errno(e)),
        }
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok(); // close(2) promises nothing
    }

    fn fsync(&self, _: &Request, ino: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        reply_empty(lock(&self.state).sync(ino.0), reply);
    }

    fn fsyncdir(&self, _: &Request, ino: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        reply_empty(lock(&self.state).sync(ino.0), reply);
    }

    fn readdir(&self, _: &Request, ino: INodeNo, _: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let disk = lock(&self.state);
        match disk.list(ino.0) {
            Ok(names) => {
                for (at, (name, child)) in names.into_iter().enumerate().skip(offset as usize) {
                    let kind = match disk.size(child) {
                        Ok(Some(_)) => FileType::RegularFile,
                        _ => FileType::Directory,
                    };
                    if reply.add(INodeNo(child), at as u64 + 1, kind, name) {
                        break;
                    }
                }
                reply.ok();
            }
            Err(e) => reply.error(errno(e)),
        }
    }

    fn fallocate(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        if mode != 0 {
            return reply.error(Errno::EOPNOTSUPP);
        }
        reply_empty(lock(&self.state).allocate(ino.0, offset + length), reply);
    }
}
