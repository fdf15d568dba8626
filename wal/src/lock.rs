//! The lock on a data directory: one process at a time, the holder named.

use std::{
    fs::{File, OpenOptions},
    io::{Read, Seek, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use rustix::fs::{FlockOperation, flock};

use crate::Error;

/// Name of the lock file in the directory.
pub const LOCK_FILE: &str = "LOCK";

/// Holds a directory until dropped. The kernel releases it when the process dies, however it dies.
#[derive(Debug)]
pub struct DirLock {
    _file: File,
}

impl DirLock {
    /// Takes the lock of `dir`, which must exist. [`Error::Locked`] names the process that has it.
    pub fn acquire(dir: &Path) -> Result<Self, Error> {
        let path = dir.join(LOCK_FILE);
        let fail = |what: &str, error| Error::io(format!("{what} {}", path.display()), error);
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(|error| fail("open lock file", error))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let mut holder = String::new();
                let read = file.read_to_string(&mut holder);
                let holder = holder.trim();
                let known = read.is_ok() && !holder.is_empty();
                let holder = if known { holder.to_owned() } else { "unknown".to_owned() };
                return Err(Error::Locked { dir: dir.to_owned(), holder });
            }
            Err(errno) => return Err(fail("lock", errno.into())),
        }
        let pid = std::process::id();
        file.set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| writeln!(file, "{pid}"))
            .map_err(|error| fail("write lock file", error))?;
        Ok(Self { _file: file })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_holder_learns_the_pid_and_a_later_one_gets_in() {
        let dir = tempfile::tempdir().unwrap();
        let lock = DirLock::acquire(dir.path()).unwrap();
        let refused = DirLock::acquire(dir.path()).unwrap_err();
        let Error::Locked { holder, .. } = &refused else { panic!("{refused}") };
        assert_eq!(*holder, std::process::id().to_string());
        assert!(refused.to_string().contains(&format!("in use by process {holder}")), "{refused}");
        drop(lock);
        DirLock::acquire(dir.path()).unwrap();
    }
}
