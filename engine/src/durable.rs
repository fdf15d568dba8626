//! Small files of the data directory that are on the device, name included, when a call returns. All calls block.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::Path,
};

/// Makes `path` hold `bytes`: the old content or the new one, whatever happens meanwhile.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let staged = path.with_extension("new");
    write(&staged, bytes)?;
    fs::rename(&staged, path)?;
    sync_parent(path)
}

/// Creates a file whose being there is what counts.
pub fn mark(path: &Path, text: &str) -> io::Result<()> {
    write(path, text.as_bytes())?;
    sync_parent(path)
}

/// Removes a file.
pub fn remove(path: &Path) -> io::Result<()> {
    fs::remove_file(path)?;
    sync_parent(path)
}

fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn sync_parent(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), |parent| File::open(parent)?.sync_all())
}
