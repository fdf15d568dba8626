//! A bucket in a local folder. A put is on the device, name included, before it is reported.

use std::{
    ffi::OsStr,
    fs::{self, File},
    io::{self, Write as _},
    ops::Range,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use bytes::Bytes;
use parking_lot::Mutex;

use super::{Answer, Bucket, Failure, Got, Head, Listed, When};
use crate::error::{Error, Result};

/// Unfinished puts live here until they get their name.
const STAGING: &str = ".staging";
/// Holding its lock is owning the folder.
const LOCK: &str = ".lock";

/// A folder and the lock on it.
#[derive(Clone)]
pub(super) struct FileBucket(Arc<Folder>);

struct Folder {
    root: PathBuf,
    next: AtomicU64,
    /// Makes the check and the rename of a conditional overwrite one step; other processes are kept out by the lock.
    update: Mutex<()>,
    /// Keeps other processes out, where nothing else does.
    lock: Option<File>,
}

impl FileBucket {
    /// Opens or creates the folder and locks it against other processes.
    pub(super) fn open(path: &str) -> Result<Self> {
        let root = PathBuf::from(path);
        if !root.is_absolute() {
            return Err(Error::Invalid(format!("store URL file://{path}: the path must be absolute (file:///path)")));
        }
        let failed = |error: io::Error| Error::Store(format!("file://{path}: {error}"));
        make_dirs(&root).map_err(failed)?;
        let lock_path = root.join(LOCK);
        let file = File::options().read(true).write(true).create(true).truncate(false).open(&lock_path);
        let file = file.map_err(failed)?;
        if rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive).is_err() {
            return Err(Error::Invalid(format!(
                "store file://{path} is in use: {}; stop it, or use another folder",
                holder(&lock_path)
            )));
        }
        let pid = std::process::id().to_string();
        file.set_len(0).and_then(|()| file.write_all_at(pid.as_bytes(), 0)).map_err(failed)?;
        Self::start(root, Some(file)).map_err(failed)
    }

    /// Opens or creates a folder that the caller owns by other means.
    pub(super) fn owned(root: PathBuf) -> io::Result<Self> {
        make_dirs(&root)?;
        Self::start(root, None)
    }

    fn start(root: PathBuf, lock: Option<File>) -> io::Result<Self> {
        // Whatever a crash left there was never reported.
        let staging = root.join(STAGING);
        match fs::remove_dir_all(&staging) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => fs::create_dir(&staging)?,
        }
        Ok(Self(Arc::new(Folder { root, next: AtomicU64::new(0), update: Mutex::new(()), lock })))
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Folder) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Failure> {
        let folder = self.0.clone();
        let done = tokio::task::spawn_blocking(move || work(&folder)).await;
        done.unwrap_or_else(|error| Err(Failure::Fatal(error.to_string())))
    }
}

fn holder(lock: &Path) -> String {
    match fs::read_to_string(lock) {
        Ok(pid) if !pid.is_empty() => format!("process {pid} holds it"),
        _ => "another process holds it".to_owned(),
    }
}

/// Creates a folder and its parents, each entry synced.
fn make_dirs(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    if let Some(parent) = path.parent() {
        make_dirs(parent)?;
    }
    match fs::create_dir(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    path.parent().map_or(Ok(()), sync_dir)
}

fn sync_dir(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

fn failure(error: io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::NotFound => Failure::NotFound,
        io::ErrorKind::AlreadyExists => Failure::Exists,
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => Failure::Denied(error.to_string()),
        io::ErrorKind::UnexpectedEof => {
            Failure::Fatal("the object is shorter than it was when it was written".to_owned())
        }
        // Space may come back; a device error does not.
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Failure::Transient(error.to_string()),
        _ => Failure::Fatal(error.to_string()),
    }
}

impl Folder {
    fn path(&self, key: &str) -> Result<PathBuf, Failure> {
        let plain = key.split('/').all(|part| !part.is_empty() && !part.starts_with('.'));
        if plain { Ok(self.root.join(key)) } else { Err(Failure::Fatal(format!("bad key {key:?}"))) }
    }

    fn put(&self, key: &str, body: &[Bytes], when: &When) -> Result<Option<String>, Failure> {
        let path = self.path(key)?;
        let staged = self.root.join(STAGING).join(self.next.fetch_add(1, Relaxed).to_string());
        let stage = || {
            let mut file = File::create_new(&staged)?;
            body.iter().try_for_each(|chunk| file.write_all(chunk))?;
            file.sync_all()
        };
        let named = stage().map_err(failure).and_then(|()| self.name(&staged, &path, when));
        // Gone already if it was renamed.
        let _ = fs::remove_file(&staged);
        named?;
        Ok(Some(etag(body.iter().map(|chunk| &chunk[..]))))
    }

    fn name(&self, staged: &Path, path: &Path, when: &When) -> Result<(), Failure> {
        let parent = path.parent().ok_or_else(|| Failure::Fatal("key without a folder".to_owned()))?;
        make_dirs(parent).map_err(failure)?;
        match when {
            When::Absent => fs::hard_link(staged, path).map_err(failure)?,
            When::Always => fs::rename(staged, path).map_err(failure)?,
            When::Matches(expected) => {
                let _one_at_a_time = self.update.lock();
                let found = fs::read(path).map_err(|_| Failure::Exists)?;
                if etag([&found[..]].into_iter()) != *expected {
                    return Err(Failure::Exists);
                }
                fs::rename(staged, path).map_err(failure)?;
            }
        }
        sync_dir(parent).map_err(failure)
    }

    fn get(&self, key: &str, range: Option<Range<u64>>) -> Result<Got, Failure> {
        let path = self.path(key)?;
        match range {
            Some(range) => {
                let file = File::open(path).map_err(failure)?;
                let mut bytes = vec![0; (range.end - range.start) as usize];
                file.read_exact_at(&mut bytes, range.start).map_err(failure)?;
                Ok(Got { bytes: Bytes::from(bytes), etag: None })
            }
            None => {
                let bytes = fs::read(path).map_err(failure)?;
                let etag = Some(etag([&bytes[..]].into_iter()));
                Ok(Got { bytes: Bytes::from(bytes), etag })
            }
        }
    }

    fn list(&self, prefix: &str, after: Option<&str>, max: usize) -> Result<Vec<Listed>, Failure> {
        let mut found = Vec::new();
        // Keys are listed by folder, so walk from the deepest folder that the prefix names.
        let folder = prefix.rsplit_once('/').map_or("", |(folder, _)| folder);
        self.walk(&self.root.join(folder), &mut found).map_err(failure)?;
        found.retain(|listed| listed.key.starts_with(prefix) && after.is_none_or(|after| &listed.key[..] > after));
        found.sort_by(|a, b| a.key.cmp(&b.key));
        found.truncate(max);
        Ok(found)
    }

    fn walk(&self, folder: &Path, found: &mut Vec<Listed>) -> io::Result<()> {
        let entries = match fs::read_dir(folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            entries => entries?,
        };
        for entry in entries {
            let (entry, path) = entry.map(|entry| (entry.file_type(), entry.path()))?;
            if path.file_name().and_then(OsStr::to_str).is_none_or(|name| name.starts_with('.')) {
                continue;
            }
            if entry?.is_dir() {
                self.walk(&path, found)?;
            } else if let Some(key) = path.strip_prefix(&self.root).ok().and_then(Path::to_str) {
                match fs::metadata(&path) {
                    Ok(meta) => found.push(Listed { key: key.to_owned(), bytes: meta.len() }),
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }
}

/// An entity tag of the content: enough for the small objects that are ever overwritten.
fn etag<'a>(chunks: impl Iterator<Item = &'a [u8]>) -> String {
    let mut crc = crc32fast::Hasher::new();
    let mut len = 0;
    chunks.for_each(|chunk| {
        crc.update(chunk);
        len += chunk.len();
    });
    format!("{len}-{:08x}", crc.finalize())
}

impl Bucket for FileBucket {
    fn close(&self) {
        if let Some(lock) = &self.0.lock {
            // Of no consequence if it fails: the lock goes with the file.
            let _ = rustix::fs::flock(lock, rustix::fs::FlockOperation::Unlock);
        }
    }

    fn put<'a>(&'a self, key: &'a str, body: &'a [Bytes], when: When, _tag: u128) -> Answer<'a, Option<String>> {
        let (key, body) = (key.to_owned(), body.to_vec());
        Box::pin(self.blocking(move |folder| folder.put(&key, &body, &when)))
    }

    fn get<'a>(&'a self, key: &'a str, range: Option<Range<u64>>) -> Answer<'a, Got> {
        let key = key.to_owned();
        Box::pin(self.blocking(move |folder| folder.get(&key, range)))
    }

    fn head<'a>(&'a self, key: &'a str) -> Answer<'a, Head> {
        let key = key.to_owned();
        Box::pin(self.blocking(move |folder| {
            let meta = fs::metadata(folder.path(&key)?).map_err(failure)?;
            Ok(Head { bytes: meta.len(), tag: None })
        }))
    }

    fn list<'a>(&'a self, prefix: &'a str, after: Option<&'a str>, max: usize) -> Answer<'a, Vec<Listed>> {
        let (prefix, after) = (prefix.to_owned(), after.map(str::to_owned));
        Box::pin(self.blocking(move |folder| folder.list(&prefix, after.as_deref(), max)))
    }

    fn delete<'a>(&'a self, key: &'a str) -> Answer<'a, ()> {
        let key = key.to_owned();
        Box::pin(self.blocking(move |folder| fs::remove_file(folder.path(&key)?).map_err(failure)))
    }
}
