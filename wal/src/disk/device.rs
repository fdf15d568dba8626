//! What kind of device lies under a folder: how a durable write reaches it.

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use rustix::fs::{major, minor};

/// How a ring makes a write durable. `pwritev2` needs no such choice: it stays on its thread either way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// The write carries DSYNC: the device has no volatile cache, or writes through it on request (FUA).
    WithTheWrite,
    /// The write, then `fdatasync` by the same thread, each checked. On a device that needs a flush the kernel would complete a
    /// DSYNC request of a ring on a worker thread, one more thread to wait for a turn. That is a small matter: on a quiet machine
    /// of two cores (virtio disk, volatile cache, no FUA; `examples/raw_append`) the medians of this way and of DSYNC are both
    /// 0.10 ms with 1 client, 0.22 and 0.29 ms with 16, 0.38 and 0.35 ms with 64; `pwritev2` is within noise of this way.
    ByFlush,
}

/// Asks the kernel about the device under `dir`. An unknown device is taken to need a flush, which is never wrong.
pub fn durability(dir: &Path) -> Durability {
    let queue = |name: &str| -> io::Result<String> {
        let device = fs::metadata(dir)?.dev();
        let device = PathBuf::from(format!("/sys/dev/block/{}:{}", major(device), minor(device)));
        // A partition has no queue of its own; its disk, one level up, does.
        let own = fs::read_to_string(device.join("queue").join(name));
        own.or_else(|_| fs::read_to_string(fs::canonicalize(&device)?.join("../queue").join(name)))
    };
    let is = |name, value| queue(name).is_ok_and(|text| text.trim() == value);
    decide(is("write_cache", "write through"), is("fua", "1"))
}

fn decide(writes_through: bool, has_fua: bool) -> Durability {
    if writes_through || has_fua { Durability::WithTheWrite } else { Durability::ByFlush }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_volatile_cache_without_fua_needs_a_flush() {
        assert_eq!(decide(false, false), Durability::ByFlush);
        assert_eq!(decide(true, false), Durability::WithTheWrite);
        assert_eq!(decide(false, true), Durability::WithTheWrite);
        assert_eq!(durability(Path::new("/proc")), Durability::ByFlush);
    }
}
