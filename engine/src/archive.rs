//! The log archive: what it has, what waits for it, and whether this node keeps one (rules 2 and 6).
//!
//! `plan` decides (pure), `run` is the leader's task. How far the archive has come is known through log entries only.

pub mod plan;
pub mod run;

use std::{collections::VecDeque, os::unix::fs::MetadataExt as _, path::Path, time::Duration};

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use crate::{
    config::{Archiving, Options},
    error::{Error, Result},
    format::archive::ArchivePoint,
    store::{Place, Store},
};

/// Commits closer together than this share one mark.
const MARK_MILLIS: u64 = 50;

/// Entries that wait for the archive: neighbours share one.
#[derive(Clone, Copy, Debug)]
struct Mark {
    last: u64,
    entries: u64,
    bytes: u64,
    /// Commit time of the first of them that has one, in milliseconds since 1970.
    time: Option<u64>,
}

/// How far the archive is behind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lag {
    /// Entries that wait, other than those that only tell how far the archive has come.
    pub entries: u64,
    /// Their payload bytes.
    pub bytes: u64,
    /// Commit time of the oldest, in milliseconds since 1970.
    pub oldest: Option<u64>,
}

/// The archive as the parts of an open database share it.
pub struct Archive {
    /// This node writes the archive when it leads.
    pub on: bool,
    /// Least time between two objects that are not full.
    pub interval: Duration,
    /// Bytes of payload that fill an object.
    pub bytes: usize,
    point: watch::Sender<Option<ArchivePoint>>,
    waiting: Mutex<VecDeque<Mark>>,
    /// Something waits.
    wake: Notify,
    /// The last failure, until an object is stored.
    failure: Mutex<Option<Error>>,
}

impl Archive {
    /// An archive of which nothing is known yet.
    pub fn new(options: &Options, on: bool) -> Self {
        Self {
            on,
            interval: options.archive_interval,
            bytes: options.archive_bytes,
            point: watch::Sender::new(None),
            waiting: Mutex::default(),
            wake: Notify::new(),
            failure: Mutex::default(),
        }
    }

    /// How far it has come, as applied.
    pub fn point(&self) -> Option<ArchivePoint> {
        *self.point.borrow()
    }

    /// Apply learned how far it has come.
    pub fn set_point(&self, point: Option<ArchivePoint>) {
        let archived = point.map_or(0, |point| point.up_to.index);
        self.waiting.lock().retain(|mark| mark.last > archived);
        self.point.send_replace(point);
    }

    /// An entry was applied that is to be archived.
    pub fn applied(&self, index: u64, bytes: u64, time: Option<u64>) {
        if !self.on || self.point().is_some_and(|point| point.up_to.index >= index) {
            return;
        }
        let mut waiting = self.waiting.lock();
        let near = |mark: &&mut Mark| match (mark.time, time) {
            (Some(first), Some(time)) => time.saturating_sub(first) < MARK_MILLIS,
            _ => true,
        };
        match waiting.back_mut().filter(near) {
            Some(mark) => {
                (mark.last, mark.entries, mark.bytes) = (index, mark.entries + 1, mark.bytes + bytes);
                mark.time = mark.time.or(time);
            }
            None => waiting.push_back(Mark { last: index, entries: 1, bytes, time }),
        }
        drop(waiting);
        self.wake.notify_one();
    }

    /// How far it is behind.
    pub fn lag(&self) -> Lag {
        let waiting = self.waiting.lock();
        Lag {
            entries: waiting.iter().map(|mark| mark.entries).sum(),
            bytes: waiting.iter().map(|mark| mark.bytes).sum(),
            oldest: waiting.iter().find_map(|mark| mark.time),
        }
    }

    fn is_idle(&self) -> bool {
        self.waiting.lock().is_empty()
    }

    /// Nothing up to this index waits, whatever was noted.
    fn forget(&self, index: u64) {
        self.waiting.lock().retain(|mark| mark.last > index);
        self.point.send_modify(|_| ());
    }

    /// Waits until the entry at `index` is archived. `check` ends it with the database's end.
    pub async fn wait(&self, index: u64, check: impl Fn() -> Result<()>) -> Result<()> {
        self.wait_for(index, || false, check).await
    }

    /// As [`Self::wait`], for an entry that is applied, or that only tells how far the archive has come.
    pub async fn settled(&self, index: u64, check: impl Fn() -> Result<()>) -> Result<()> {
        self.wait_for(index, || self.is_idle(), check).await
    }

    async fn wait_for(&self, index: u64, enough: impl Fn() -> bool, check: impl Fn() -> Result<()>) -> Result<()> {
        let mut point = self.point.subscribe();
        loop {
            let archived = point.borrow_and_update().map_or(0, |point| point.up_to.index);
            if archived >= index || enough() {
                return Ok(());
            }
            check()?;
            // The sender lives as long as this.
            let _ = point.changed().await;
        }
    }

    /// The last failure, until an object is stored.
    pub fn failure(&self) -> Option<Error> {
        self.failure.lock().clone()
    }

    /// Tells those who wait that the database has ended.
    pub fn ended(&self) {
        self.wake.notify_one();
        self.point.send_modify(|_| ());
    }
}

/// Whether a node with this store keeps an archive.
pub fn wanted(options: &Options, store: &Store, data_dir: &Path) -> Result<bool> {
    match (options.archive, store.place()) {
        (Archiving::On, _) => Ok(true),
        (Archiving::Auto, Place::S3) => Ok(true),
        (Archiving::Off, _) | (Archiving::Auto, Place::Memory | Place::Custom) => Ok(false),
        // What takes the device takes both.
        (Archiving::Auto, Place::File) => {
            let folder = store.url().trim_start_matches("file://");
            Ok(device(Path::new(folder))? != device(data_dir)?)
        }
    }
}

fn device(path: &Path) -> Result<u64> {
    let metadata = std::fs::metadata(path);
    metadata.map(|metadata| metadata.dev()).map_err(|error| Error::Invalid(format!("{}: {error}", path.display())))
}

#[cfg(test)]
mod tests {
    use holdfast_wal::LogId;

    use super::*;

    fn archive() -> Archive {
        Archive::new(&Options::default(), true)
    }

    fn point(index: u64) -> ArchivePoint {
        ArchivePoint { up_to: LogId { term: 1, index }, ..ArchivePoint::default() }
    }

    #[test]
    fn the_lag_is_what_was_applied_and_not_archived() {
        let archive = archive();
        archive.applied(1, 0, None);
        archive.applied(2, 10, Some(1000));
        archive.applied(3, 10, Some(1049));
        archive.applied(4, 10, Some(1050));
        archive.applied(5, 1, None);
        assert_eq!(archive.lag(), Lag { entries: 5, bytes: 31, oldest: Some(1000) });
        archive.set_point(Some(point(3)));
        assert_eq!(archive.lag(), Lag { entries: 2, bytes: 11, oldest: Some(1050) });
        archive.applied(3, 10, Some(1049));
        archive.set_point(Some(point(5)));
        assert_eq!((archive.lag(), archive.is_idle()), (Lag::default(), true));
    }

    #[tokio::test]
    async fn who_waits_hears_of_the_archive_and_of_the_end() {
        let archive = archive();
        archive.applied(7, 1, None);
        let (waited, ()) = tokio::join!(archive.wait(7, || Ok(())), async { archive.set_point(Some(point(7))) });
        assert_eq!(waited, Ok(()));
        archive.applied(8, 1, None);
        assert!(archive.wait(8, || Err(Error::Closed("end".into()))).await.is_err());
        archive.forget(8);
        assert_eq!(archive.settled(8, || Err(Error::Closed("end".into()))).await, Ok(()));
    }
}
