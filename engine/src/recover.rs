//! Recovery from the bucket alone (rules 2, 3): the manifest in force as of the archive's end, the archived entries behind
//! it, and everything flushed into a manifest of a new incarnation, one index and one term above.
//!
//! Nothing is copied where the new cluster takes over the old one's prefix: objects name the incarnation they came from.
//! Each step may be repeated: the data directory is marked until all are done, and does not open before.
//!
//! `choose` finds what there is, `replay` applies it, `copy` serves a recovery into another store.

mod choose;
mod copy;
mod replay;

use std::{io, path::Path, sync::Arc, time::Duration};

use holdfast_wal::{LogId, transport::Peer};

use crate::{
    archive::{plan, plan::Name, run::list},
    clock::{Clock, Entropy},
    config::{Options, Recovery},
    durable,
    error::{Error, Result},
    format::manifest::ManifestId,
    identity::{self, Identity},
    pointer,
    store::{
        Store, StoreOptions,
        owner::{self, Found, Owner, Successor},
        probe,
    },
};

/// Shortest look for a cluster that still writes.
const LOOK_MIN: Duration = Duration::from_millis(500);
/// Longest look.
const LOOK_MAX: Duration = Duration::from_secs(30);
/// A recovery that the old cluster outruns so often is given up.
const ROUNDS_MAX: usize = 10;
/// Stands in the data directory while a recovery is not finished.
const MARK: &str = "RECOVERING";

/// What a recovery works with.
pub struct Job<'a> {
    /// What was asked for.
    pub recovery: &'a Recovery,
    /// Options of the database.
    pub options: &'a Options,
    /// The store of the new cluster.
    pub store: &'a Store,
    /// How a store is opened.
    pub store_options: StoreOptions,
    /// The data directory, which is locked.
    pub data_dir: &'a Path,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub entropy: Arc<Entropy>,
    /// This node: the only voter of the new cluster.
    pub voter: Peer,
}

/// Where the old cluster's objects are.
struct Source {
    store: Store,
    /// The incarnation that wrote the archive.
    owner: Owner,
    /// The manifest that it began with, if it was recovered itself.
    base: Option<ManifestId>,
}

impl Source {
    fn folder(&self) -> String {
        self.owner.folder()
    }

    fn archive(&self) -> String {
        plan::folder(&self.folder())
    }

    fn at(&self, name: &Name) -> String {
        format!("{}/{}{}", self.store.url(), self.archive(), name.text())
    }
}

/// Refuses a data directory whose recovery was interrupted.
pub fn require_finished(data_dir: &Path) -> Result<()> {
    if has(&data_dir.join(MARK))? {
        return Err(Error::Invalid(format!(
            "the recovery into {} was interrupted: run it again (--recover-from), or remove the directory",
            data_dir.display()
        )));
    }
    Ok(())
}

/// Recovers into an empty data directory. Does nothing if that was done before.
pub async fn run(job: &Job<'_>) -> Result<()> {
    let mark = job.data_dir.join(MARK);
    let marked = has(&mark)?;
    let mine = identity::read(&job.data_dir.join("IDENTITY"))?.map(|identity| identity.owner);
    let current = owner::find(job.store).await?;
    let from = job.recovery.from.as_deref().map(|from| from.trim_end_matches('/'));
    let in_place = from.is_none_or(|from| from == job.store.url().trim_end_matches('/'));
    if in_place && current.is_none() {
        return Err(nothing(job.store));
    }
    if !marked
        && let (Some(mine), Some(current)) = (mine, &current)
        && mine == current.owner
    {
        tracing::info!(data_dir = %job.data_dir.display(), "the data directory is this cluster's: nothing to recover");
        return Ok(());
    }
    // A log is begun behind the last step only: with one, the mark is a restored copy's.
    if identity::log_was_used(&job.data_dir.join("LOG-USED"))? {
        let whose = mine.map_or_else(|| "an unknown cluster".to_owned(), |mine| mine.to_string());
        return Err(Error::Invalid(format!(
            "a recovery needs an empty data directory: {} holds the log of {whose}",
            job.data_dir.display()
        )));
    }
    if !marked {
        set_mark(&mark)?;
    }
    if in_place {
        take_over(job, mine.filter(|_| marked), current).await?;
    } else {
        let from = from.unwrap_or_default();
        let source = Store::open(from, job.store_options.clone())?;
        copy::copy(job, source, mine.filter(|_| marked), current).await?;
    }
    remove_mark(&mark)
}

/// Recovers where the old cluster lived, and takes the prefix from it.
async fn take_over(job: &Job<'_>, mine: Option<Owner>, current: Option<Found>) -> Result<()> {
    let mut current = current.ok_or_else(|| nothing(job.store))?;
    let force = job.recovery.force;
    let report = probe::require_safe(job.store, job.options.allow_unsafe_store || force).await?;
    let atomic = report.is_none_or(|report| report.is_safe());
    let cluster = current.owner.cluster;
    // Interrupted after the record was replaced: what is recovered is the parent. Not if the new cluster has archived
    // anything: then it has served, and it is what is recovered.
    let replaced =
        mine == Some(current.owner) && list(job.store, &plan::folder(&current.owner.folder())).await?.is_empty();
    let (old, base) = match (replaced, current.parent) {
        (true, Some(parent)) => (parent, current.parent_manifest),
        (true, None) => return Ok(()),
        (false, _) => (current.owner.incarnation, current.manifest),
    };
    let free = mine.filter(|mine| mine.cluster == cluster && mine.incarnation != old);
    let incarnation = free.map_or_else(|| job.store.new_ulid(), |mine| mine.incarnation);
    let owner = Owner { cluster, incarnation };
    let source = Source { store: job.store.clone(), owner: Owner { cluster, incarnation: old }, base };
    let mut names = look(job, &source).await?;
    for _ in 0..ROUNDS_MAX {
        let rebuilt = replay::rebuild(job, &source, owner, &names, true).await?;
        settle(job, owner, rebuilt.manifest)?;
        let node = job.voter.id;
        let next = Successor { owner, node, parent: old, manifest: rebuilt.manifest, parent_manifest: base };
        owner::succeed(job.store, &current, next, atomic).await?;
        // Whatever the old cluster stored before it can have seen the new record is in this listing (rule 2).
        let again = list(&source.store, &source.archive()).await?;
        if !again.iter().any(|name| name.last > rebuilt.end.index && !names.contains(name)) {
            rebuilt.tell(&source, owner);
            return Ok(());
        }
        tracing::warn!("the old cluster archived more while it was recovered: once more, with that");
        names = again;
        current = owner::find(job.store).await?.ok_or_else(|| nothing(job.store))?;
    }
    Err(Error::Invalid(format!("{}: the old cluster still writes; stop it first", job.store.url())))
}

fn nothing(store: &Store) -> Error {
    Error::Invalid(format!("there is nothing to recover: store {} has no owner", store.url()))
}

/// The archive's objects, once it is clear that nobody adds to them.
async fn look(job: &Job<'_>, source: &Source) -> Result<Vec<Name>> {
    let before = list(&source.store, &source.archive()).await?;
    let interval = choose::interval(source, &before).await.mul_f64(2.5).clamp(LOOK_MIN, LOOK_MAX);
    tokio::time::sleep(interval).await;
    let after = list(&source.store, &source.archive()).await?;
    match after.iter().find(|name| !before.contains(name)) {
        Some(new) if !job.recovery.force => Err(Error::Invalid(format!(
            "the old cluster still writes: {} appeared within {interval:?}. Stop it first; --recover-force recovers all the \
             same, and what it acknowledges until it notices is lost",
            source.at(new)
        ))),
        _ => Ok(after),
    }
}

/// Makes the data directory the new cluster's.
fn settle(job: &Job<'_>, owner: Owner, manifest: ManifestId) -> Result<()> {
    identify(job, owner)?;
    pointer::write(&job.data_dir.join("MANIFEST"), manifest)
}

/// Gives the directory its identity, with an id of its own: once for each owner.
fn identify(job: &Job<'_>, owner: Owner) -> Result<()> {
    let (path, node) = (job.data_dir.join("IDENTITY"), job.voter.id);
    if identity::read(&path)?.is_some_and(|known| known.owner == owner && known.node == node) {
        return Ok(());
    }
    identity::make(&path, Identity { owner, node, nonce: job.store.new_ulid() }).map(|_| ())
}

/// A new cluster's state, in the bucket under its own incarnation; not in force before the data directory and the owner
/// record say so.
struct Rebuilt {
    manifest: ManifestId,
    /// The last entry of the old cluster that is in it.
    end: LogId,
    /// Entries replayed.
    entries: u64,
    /// Commit time of the newest commit among them, in milliseconds since 1970.
    newest: Option<u64>,
    /// Time it took.
    took: Duration,
}

impl Rebuilt {
    fn tell(&self, source: &Source, owner: Owner) {
        let behind = self.newest.map(|newest| source.store.clock().unix_millis().saturating_sub(newest) / 1000);
        tracing::info!(
            from = %source.owner, to = %owner, entry = self.end.index, term = self.end.term, replayed = self.entries,
            newest_commit_unix_ms = self.newest, newest_commit_seconds_ago = behind, manifest = %self.manifest,
            took = ?self.took, "recovered from the bucket"
        );
    }
}

fn has(path: &Path) -> Result<bool> {
    path.try_exists().map_err(|error| Error::Invalid(format!("{}: {error}", path.display())))
}

fn set_mark(path: &Path) -> Result<()> {
    let text = "A recovery from the bucket into this directory is not finished. Run it again.\n";
    durable::mark(path, text).map_err(|error| failed(path, &error))
}

fn remove_mark(path: &Path) -> Result<()> {
    durable::remove(path).map_err(|error| failed(path, &error))
}

fn failed(path: &Path, error: &io::Error) -> Error {
    Error::Invalid(format!("{}: {error}", path.display()))
}
