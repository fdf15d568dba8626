//! Owns the cache file's space on its disk: what is allocated, given back, and cut off.

use std::{fs::File, io, os::unix::fs::MetadataExt};

use rustix::{
    fs::{FallocateFlags, fallocate, fstatvfs},
    io::Errno,
};

use super::slot::ZONE_BYTES;

/// Whether the disk has room for a file of so many zones, as it is now. Others use the disk too: they would be out of room
/// while this finds out by trying. Some file systems do not tell; then it is tried.
pub(super) fn check(file: &File, zones: u32) -> io::Result<()> {
    let (wanted, disk) = (u64::from(zones) * ZONE_BYTES as u64, fstatvfs(file)?);
    let (free, taken) = (disk.f_bavail.saturating_mul(disk.f_frsize), file.metadata()?.blocks() * 512);
    if disk.f_blocks == 0 || wanted.saturating_sub(taken) <= free {
        return Ok(());
    }
    let full = format!("{wanted} bytes do not fit: the disk has {free} left, and the file {taken}");
    Err(io::Error::new(io::ErrorKind::StorageFull, full))
}

/// Makes room for zones, in ascending order, so that a full disk is met now and not by a write.
pub(super) fn allocate(file: &File, zones: &[u32]) -> io::Result<()> {
    // One call for a run of neighbours: a large file has a hundred thousand zones.
    for run in zones.chunk_by(|zone, next| zone + 1 == *next) {
        let at = u64::from(run.first().copied().unwrap_or(0)) * ZONE_BYTES as u64;
        let len = run.len() as u64 * ZONE_BYTES as u64;
        if file.metadata()?.len() < at + len {
            file.set_len(at + len)?;
        }
        lenient(fallocate(file, FallocateFlags::empty(), at, len))?;
    }
    Ok(())
}

/// Gives a zone's space back; what it held reads as zeros.
pub(super) fn release(file: &File, zone: u32) -> io::Result<()> {
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    lenient(fallocate(file, flags, u64::from(zone) * ZONE_BYTES as u64, ZONE_BYTES as u64))
}

/// Cuts the file to so many zones, if it is longer.
pub(super) fn trim(file: &File, zones: u32) -> io::Result<()> {
    let len = u64::from(zones) * ZONE_BYTES as u64;
    if file.metadata()?.len() > len { file.set_len(len) } else { Ok(()) }
}

/// A file system without fallocate: space is taken as slots are written, and given back when the file goes.
fn lenient(result: rustix::io::Result<()>) -> io::Result<()> {
    match result {
        Err(Errno::OPNOTSUPP) => Ok(()),
        other => Ok(other?),
    }
}
