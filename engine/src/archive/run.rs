//! The leader's archive task: copies what is committed and applied to the bucket, and deletes what no rebuild needs.
//!
//! The order makes a superseded cluster harmless (rule 2): an object is stored, then the owner record is read again, then
//! the log learns of it. What the log has not learned of holds up purging and the deletion of dead objects.

use std::{sync::Arc, time::Duration};

use holdfast_wal::{Wal, WalStatus};
use tokio::task::{JoinError, JoinSet};

use super::plan::{self, Name, Stored};
use crate::{
    background::Backoff,
    commit::log_error,
    error::{Error, Result},
    format::{
        archive::{ArchiveObject, ArchivePoint},
        batch::Payload,
    },
    inner::Inner,
    store::{Cause, owner},
};

/// Keys per listing request.
const LIST_PAGE: usize = 1000;

/// Objects that are deleted after one look at who owns the prefix.
const DELETED_TOGETHER: usize = 64;

/// When to look again for entries that are about to be applied.
const SOON: Duration = Duration::from_millis(2);

/// An object in the bucket.
struct Shelved {
    name: Name,
    /// When it was seen that no rebuild needs it.
    dead: Option<Duration>,
}

/// The task's own state while this node leads.
struct Archiver {
    inner: Arc<Inner>,
    wal: Wal,
    folder: String,
    shelf: Vec<Shelved>,
    last: Option<Stored>,
    /// The deletion under way, of none or one batch; ends with what it deleted. It goes on beside the next pieces, which
    /// commits may wait for: hundreds are due at once when a flush is in force.
    sweep: JoinSet<Result<Vec<Name>>>,
}

/// Archives for as long as the database is open, whenever this node leads.
pub async fn run(inner: Arc<Inner>, wal: Wal) {
    let mut backoff = Backoff::default();
    while inner.check().is_ok() {
        let Ok(now) = wal.leadership().wait_for(|now| now.ready).await.map(|now| *now) else { return };
        let mut leadership = wal.leadership();
        let deposed = async { drop(leadership.wait_for(|later| later.term != now.term || !later.ready).await) };
        tokio::select! {
            biased;
            () = deposed => {}
            ended = lead(&inner, &wal, &mut backoff) => match ended {
                // No archive is kept: again when this node leads again, in case another kept one meanwhile.
                Ok(()) => drop(wal.leadership().wait_for(|later| later.term != now.term).await),
                Err(Error::Closed(cause)) => inner.poison(&cause),
                Err(error) => {
                    *inner.archive.failure.lock() = Some(error.clone());
                    backoff.wait("the log archive", &error).await;
                }
            },
        }
    }
}

/// Archives while this node leads; returns at once if it keeps no archive.
async fn lead(inner: &Arc<Inner>, wal: &Wal, backoff: &mut Backoff) -> Result<()> {
    let folder = plan::folder(&inner.tree.owner().folder());
    let (inner, wal) = (Arc::clone(inner), wal.clone());
    let mut archiver = Archiver { inner, wal, folder, shelf: Vec::new(), last: None, sweep: JoinSet::new() };
    archiver.look().await?;
    if !archiver.inner.archive.on {
        return archiver.give_up().await;
    }
    loop {
        archiver.turn(backoff).await?;
    }
}

impl Archiver {
    /// Learns what is in the bucket.
    async fn look(&mut self) -> Result<()> {
        let names = list(self.inner.tree.store(), &self.folder).await?;
        self.shelf = names.into_iter().map(|name| Shelved { name, dead: None }).collect();
        Ok(())
    }

    /// Waits for something to do, and does it.
    async fn turn(&mut self, backoff: &mut Backoff) -> Result<()> {
        let inner = Arc::clone(&self.inner);
        let archive = &inner.archive;
        if archive.is_idle() {
            // Marks what the last piece made needless, so that the pause below knows.
            self.mark_dead();
            let grace = grace_ends(self.grace_left());
            tokio::select! {
                () = archive.wake.notified() => return Ok(()),
                Some(swept) = self.sweep.join_next() => return self.swept(swept),
                () = grace, if self.sweep.is_empty() => {}
            }
            // Nobody has looked who owns the prefix just now.
            owner::confirm(inner.tree.store(), inner.tree.owner()).await?;
            self.sweep_due();
            return Ok(());
        }
        let full = archive.bytes as u64;
        let pause = || plan::pause(self.last, inner.clock.now(), archive.interval, archive.lag().bytes, full);
        while let Some(left) = Some(pause()).filter(|left| !left.is_zero()) {
            // Woken by each commit: it may fill the object.
            let _ = tokio::time::timeout(left, archive.wake.notified()).await;
            inner.check()?;
        }
        let stored = self.step().await?;
        *backoff = Backoff::default();
        *archive.failure.lock() = None;
        if let Some(swept) = self.sweep.try_join_next() {
            self.swept(swept)?;
        }
        if stored {
            self.mark_dead();
            self.sweep_due();
        }
        Ok(())
    }

    /// Stores the next piece, if there is one, and lets the log know.
    async fn step(&mut self) -> Result<bool> {
        let inner = Arc::clone(&self.inner);
        let taken = inner.clock.now();
        let (from, entries) = self.read().await?;
        let Some(point) = plan::piece(from, &entries)? else {
            inner.archive.forget(entries.last().map_or(from.up_to.index, |entry| entry.id.index));
            if entries.is_empty() {
                // The log counts an entry as applied a moment after apply has noted it, and tells nobody.
                tokio::time::sleep(SOON).await;
            }
            return Ok(false);
        };
        let (owner, store) = (inner.tree.owner(), inner.tree.store());
        let object = ArchiveObject {
            cluster: owner.cluster,
            incarnation: owner.incarnation,
            term: self.wal.leadership().borrow().term,
            interval_millis: inner.archive.interval.as_millis() as u64,
            follows: from.up_to,
            manifest: point.manifest,
            covered: point.covered,
            entries,
        };
        let name = Name { first: object.first(), last: point.up_to.index, term: object.term, ulid: store.new_ulid() };
        store.put_new(&format!("{}{}", self.folder, name.text()), &[object.encode()], Cause::Archive).await?;
        self.shelf.push(Shelved { name, dead: None });
        let asked = inner.clock.now();
        owner::confirm(store, owner).await?;
        inner.fence.seen(asked);
        let mark = Payload::Archived(Some(point)).encode();
        self.wal.propose_reserved(mark).await.map_err(|error| log_error(&error))?;
        self.last = Some(Stored { taken, told: inner.clock.now() });
        Ok(true)
    }

    /// What follows on what is archived. Where the log does not reach back that far, or nothing is archived yet, what
    /// follows on the manifest in force: a rebuild needs nothing before.
    async fn read(&self) -> Result<(ArchivePoint, Vec<holdfast_wal::Entry>)> {
        let inner = &self.inner;
        let begin = || {
            let version = inner.tree.version();
            let manifest = version.manifest();
            ArchivePoint { up_to: manifest.up_to, manifest: manifest.id, covered: manifest.up_to }
        };
        let mut from = inner.archive.point().unwrap_or_else(begin);
        loop {
            let bytes = plan::size(inner.archive.lag().bytes, inner.archive.bytes);
            let (wal, next) = (self.wal.clone(), from.up_to.index + 1);
            let read = tokio::task::spawn_blocking(move || wal.read_applied(next, bytes)).await;
            match read.map_err(|error| Error::Closed(error.to_string()))? {
                Ok(entries) => return Ok((from, entries)),
                Err(holdfast_wal::Error::Purged { .. }) if from != begin() => from = begin(),
                Err(error) => return Err(log_error(&error)),
            }
        }
    }

    /// Notes which objects no rebuild needs: those that the manifest in force as of the archive's end covers.
    fn mark_dead(&mut self) {
        let covered = self.inner.archive.point().map_or(0, |point| point.covered.index);
        let now = self.inner.clock.now();
        for object in self.shelf.iter_mut().filter(|object| object.dead.is_none() && object.name.last <= covered) {
            object.dead = Some(now);
        }
    }

    /// How long the first grace period still lasts, if anything is dead.
    fn grace_left(&self) -> Option<Duration> {
        let dead = self.shelf.iter().filter_map(|object| object.dead).min()?;
        Some((dead + self.inner.tree.grace()).saturating_sub(self.inner.clock.now()))
    }

    /// Begins to delete, oldest first, what has been needless for the grace period, unless a deletion is under way. Who
    /// owns the prefix was confirmed just now.
    fn sweep_due(&mut self) {
        let (now, grace) = (self.inner.clock.now(), self.inner.tree.grace());
        let due = |object: &&Shelved| object.dead.is_some_and(|dead| dead + grace <= now);
        let names: Vec<Name> = self.shelf.iter().filter(due).take(DELETED_TOGETHER).map(|object| object.name).collect();
        if names.is_empty() || !self.sweep.is_empty() {
            return;
        }
        let (inner, folder) = (Arc::clone(&self.inner), self.folder.clone());
        self.sweep.spawn(async move {
            for name in &names {
                inner.tree.store().delete(&format!("{folder}{}", name.text()), Cause::Archive).await?;
            }
            Ok(names)
        });
    }

    /// A deletion has ended.
    fn swept(&mut self, ended: std::result::Result<Result<Vec<Name>>, JoinError>) -> Result<()> {
        let names = ended.map_err(|error| Error::Closed(error.to_string()))??;
        self.shelf.retain(|object| !names.contains(&object.name));
        Ok(())
    }

    /// Ends an archive that an earlier configuration kept: the log may forget again, and nobody takes what is left in the
    /// bucket for an archive.
    async fn give_up(&mut self) -> Result<()> {
        let (store, owner) = (self.inner.tree.store(), self.inner.tree.owner());
        if self.inner.archive.point().is_some() {
            let mark = Payload::Archived(None).encode();
            self.wal.propose_reserved(mark).await.map_err(|error| log_error(&error))?;
            tracing::info!("the log archive is off; what it held is deleted");
        }
        if !self.shelf.is_empty() {
            owner::confirm(store, owner).await?;
        }
        for object in self.shelf.drain(..) {
            store.delete(&format!("{}{}", self.folder, object.name.text()), Cause::Archive).await?;
        }
        Ok(())
    }
}

/// Ends when a grace period does that still lasts so long; never if there is none.
async fn grace_ends(left: Option<Duration>) {
    match left {
        Some(left) => tokio::time::sleep(left).await,
        None => std::future::pending().await,
    }
}

/// The archive objects in a folder, by their first entry.
pub async fn list(store: &crate::store::Store, folder: &str) -> Result<Vec<Name>> {
    let mut names = Vec::new();
    let mut after: Option<String> = None;
    loop {
        let page = store.list(folder, after.as_deref(), LIST_PAGE, Cause::Archive).await?;
        names.extend(page.iter().filter_map(|listed| Name::parse(&listed.key)));
        if page.len() < LIST_PAGE {
            names.sort_unstable();
            return Ok(names);
        }
        after = page.last().map(|listed| listed.key.clone());
    }
}

/// The archive's figures for `Stats`.
pub fn counters(inner: &Inner, status: Option<&WalStatus>) -> [(&'static str, u64); 6] {
    let (lag, point) = (inner.archive.lag(), inner.archive.point());
    let behind = lag.oldest.map_or(0, |oldest| inner.clock.unix_millis().saturating_sub(oldest));
    let leads = status.is_some_and(|status| status.leadership.is_leader);
    [
        ("archive_on", u64::from(inner.archive.on && leads)),
        ("archived_index", point.map_or(0, |point| point.up_to.index)),
        ("archive_lag_entries", lag.entries),
        ("archive_lag_bytes", lag.bytes),
        ("archive_lag_millis", behind),
        ("archive_failing", u64::from(inner.archive.failure().is_some())),
    ]
}
