//! Deleting what is out of force: objects that nothing refers to any more, after a grace period, and what older terms
//! left behind.
//!
//! An object leaves force when an accepted edit unlinks it. It is deleted once no version in this process holds it, the
//! grace period has passed, and that edit is in the log archive, if there is one: until then a rebuild from the bucket would
//! look for it. Before anything is deleted the owner record is read again (rule 2): of a superseded cluster's objects its
//! successor has some in force. What came from an earlier incarnation is never deleted here. Orphans (written, never put in force) are noted by whoever gives them up; those that a
//! crash left are recognised by their term: every edit of an older term is resolved before a new leader's first entry is
//! applied.

use std::{
    sync::{
        Arc,
        atomic::{
            AtomicU64,
            Ordering::{Acquire, Relaxed, Release},
        },
    },
    time::Duration,
};

use futures::{StreamExt as _, TryStreamExt as _, future::ready, stream};
use holdfast_cache::Cache;
use parking_lot::Mutex;
use rustc_hash::FxHashSet;

use crate::{
    error::Result,
    format::manifest::ManifestId,
    store::{Cause, Listed, owner},
    table::Table,
    tree::{Tree, manifest_key},
    version::Version,
};

/// Superseded manifests that stay, for whoever still holds a pointer to one.
const MANIFESTS_KEPT: usize = 4;
/// Objects that are deleted at the same time.
const DELETED_AT_ONCE: usize = 8;
/// Keys per listing request.
const LIST_PAGE: usize = 1000;

/// What has left force and is not deleted yet.
pub(crate) struct Graveyard {
    tables: Mutex<Vec<Dead>>,
    manifests: Mutex<Vec<DeadManifest>>,
    /// Other members need nothing that the edits up to this log entry unlinked.
    released: AtomicU64,
    /// Edits in log entries behind this one are not archived.
    archived: AtomicU64,
}

impl Default for Graveyard {
    fn default() -> Self {
        let all = || AtomicU64::new(u64::MAX);
        Self { tables: Mutex::default(), manifests: Mutex::default(), released: all(), archived: all() }
    }
}

/// A manifest that was superseded, or never in force.
#[derive(Clone, Copy)]
struct DeadManifest {
    since: Duration,
    /// Index of the log entry that superseded it; 0 if it was never in force.
    at: u64,
    id: ManifestId,
}

/// An object that has left force.
struct Dead {
    since: Duration,
    /// Index of the log entry that unlinked it.
    at: u64,
    table: Arc<Table>,
    /// Its pages are out of the cache.
    uncached: bool,
}

impl Graveyard {
    /// Edits up to this log entry are archived.
    pub(crate) fn archived_to(&self, index: u64) {
        self.archived.store(index, Relaxed);
    }

    /// Notes what `next`, put in force by the log entry at index `at`, no longer has of `current`.
    pub(crate) fn bury(&self, now: Duration, at: u64, current: &Version, next: &Version) {
        let kept: FxHashSet<_> = next.tables().map(|table| table.meta.id).collect();
        let gone = current.tables().filter(|table| !kept.contains(&table.meta.id));
        self.tables.lock().extend(gone.map(|table| Dead { since: now, at, table: table.clone(), uncached: false }));
        if current.manifest().id != ManifestId::default() {
            self.manifests.lock().push(DeadManifest { since: now, at, id: current.manifest().id });
        }
    }

    /// Notes a manifest that was never in force.
    pub(crate) fn bury_manifest(&self, now: Duration, id: ManifestId) {
        self.manifests.lock().push(DeadManifest { since: now, at: 0, id });
    }

    /// No reader of this node holds what the edits up to this log entry unlinked.
    fn held_after(&self) -> u64 {
        let tables = self.tables.lock();
        let held = tables.iter().filter(|dead| Arc::strong_count(&dead.table) > 1).map(|dead| dead.at);
        held.min().map_or(u64::MAX, |at| at.saturating_sub(1))
    }

    /// Bytes out of force that are not deleted yet.
    pub(crate) fn bytes(&self) -> u64 {
        self.tables.lock().iter().map(|dead| dead.table.meta.bytes).sum()
    }

    /// Takes the pages of objects that no reader holds any more out of the cache, long before their grace ends: they were
    /// read often, and would keep the pages that replace them out.
    fn uncache(&self, cache: &Cache) {
        let mut groups = Vec::new();
        for dead in self.tables.lock().iter_mut().filter(|dead| !dead.uncached && Arc::strong_count(&dead.table) == 1) {
            dead.uncached = true;
            groups.push(dead.table.meta.id);
        }
        cache.remove_groups(&groups);
    }
}

/// What a collection deleted, or would delete.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Garbage {
    /// Keys of objects and manifests.
    pub keys: Vec<String>,
    /// Bytes of the objects.
    pub bytes: u64,
    /// Objects out of force that a reader still holds, or whose grace period runs.
    pub waiting: usize,
}

impl Tree {
    /// The log is archived up to the entry with this index; `u64::MAX` where there is no archive.
    pub fn archived_to(&self, index: u64) {
        self.inner().graveyard.archived_to(index);
    }

    /// Whom the store belongs to.
    pub fn owner(&self) -> owner::Owner {
        self.inner().options.owner
    }

    /// How long what nothing refers to stays in the bucket.
    pub(crate) fn grace(&self) -> Duration {
        self.inner().options.grace
    }

    /// Other members need nothing that the edits up to this log entry unlinked.
    pub(crate) fn set_released(&self, index: u64) {
        self.inner().graveyard.released.store(index, Release);
    }

    /// See [`Self::set_released`].
    pub(crate) fn others_released(&self) -> u64 {
        self.inner().graveyard.released.load(Acquire)
    }

    /// No reader of this node needs what the edits up to this log entry unlinked.
    pub(crate) fn released(&self) -> u64 {
        self.inner().graveyard.held_after()
    }

    /// Whether something that has left force may be deleted by its age.
    pub(crate) fn has_garbage(&self) -> bool {
        let graveyard = &self.inner().graveyard;
        !graveyard.tables.lock().is_empty()
            || graveyard.manifests.lock().len() > MANIFESTS_KEPT
            || !self.inner().io.orphans.0.lock().is_empty()
    }

    /// Forgets what has left force and is no longer held here: whoever leads deletes it.
    pub(crate) fn forget_garbage(&self) {
        let graveyard = &self.inner().graveyard;
        graveyard.uncache(&self.inner().io.cache);
        graveyard.tables.lock().retain(|dead| Arc::strong_count(&dead.table) > 1);
        let mut manifests = graveyard.manifests.lock();
        let old = manifests.len().saturating_sub(MANIFESTS_KEPT);
        manifests.drain(..old);
    }

    /// Deletes what has left force here and may go (`dry_run`: only says what). Cheap when there is nothing to do.
    pub async fn collect(&self, dry_run: bool) -> Result<Garbage> {
        let inner = self.inner();
        let released = inner.graveyard.released.load(Acquire);
        let deadline = self.store().clock().now().checked_sub(inner.options.grace);
        let bound = released.min(inner.graveyard.archived.load(Relaxed));
        let due = |at: Duration, edit| edit <= bound && deadline.is_some_and(|deadline| at <= deadline);
        let mut garbage = Garbage::default();
        inner.graveyard.uncache(&inner.io.cache);
        let dead = {
            let mut tables = inner.graveyard.tables.lock();
            // Only versions and drafts hold tables; once the graveyard is the last holder no one can take another hold.
            let (dead, waiting): (Vec<_>, Vec<_>) =
                tables.drain(..).partition(|dead| due(dead.since, dead.at) && Arc::strong_count(&dead.table) == 1);
            garbage.waiting = waiting.len();
            *tables = waiting;
            dead
        };
        if !dry_run && let Err(error) = self.confirm_owner(!dead.is_empty(), &due).await {
            inner.graveyard.tables.lock().extend(dead);
            return Err(error);
        }
        // What lies under an earlier incarnation, whose folder is not ours to clean, is only forgotten.
        let (ours, others): (Vec<_>, Vec<_>) = dead.into_iter().partition(|dead| dead.table.meta.origin.is_none());
        garbage.bytes = ours.iter().map(|dead| dead.table.meta.bytes).sum();
        garbage.keys = ours.iter().map(|dead| dead.table.key()).collect();
        if dry_run {
            inner.graveyard.tables.lock().extend(ours.into_iter().chain(others));
        } else {
            let cached = ours.iter().chain(&others).filter(|dead| !dead.uncached);
            let cached: Vec<_> = cached.map(|dead| dead.table.meta.id).collect();
            inner.io.cache.remove_groups(&cached);
            self.delete_dead(ours).await?;
        }
        self.collect_orphans(dry_run, &due, &mut garbage).await?;
        self.collect_manifests(dry_run, &due, &mut garbage).await?;
        Ok(garbage)
    }

    /// Deletes objects that have left force, some at once, up to the first failure: the others wait for the next collection.
    async fn delete_dead(&self, mut dead: Vec<Dead>) -> Result<()> {
        let tables: Vec<_> = dead.iter().map(|dead| dead.table.clone()).collect();
        let deletes = tables.into_iter().map(|table| async move {
            self.store().delete(&table.key(), Cause::Gc).await?;
            Ok(table.meta.id)
        });
        let deleted = stream::iter(deletes).buffer_unordered(DELETED_AT_ONCE).try_for_each(|id| {
            dead.retain(|dead| dead.table.meta.id != id);
            ready(Ok(()))
        });
        let ended = deleted.await;
        self.inner().graveyard.tables.lock().extend(dead);
        ended
    }

    /// Reads the owner record once more if anything is to be deleted.
    async fn confirm_owner(&self, dead: bool, due: &impl Fn(Duration, u64) -> bool) -> Result<()> {
        let inner = self.inner();
        let orphans = || inner.io.orphans.0.lock().iter().any(|(at, ..)| due(*at, 0));
        let manifests = || !self.due_manifests(due).is_empty();
        if dead || orphans() || manifests() { owner::confirm(self.store(), self.owner()).await } else { Ok(()) }
    }

    /// Deletes what was written for steps that were given up.
    async fn collect_orphans(
        &self,
        dry_run: bool,
        due: &impl Fn(Duration, u64) -> bool,
        garbage: &mut Garbage,
    ) -> Result<()> {
        let io = &self.inner().io;
        let dead: Vec<_> = io.orphans.0.lock().iter().filter(|(at, ..)| due(*at, 0)).copied().collect();
        let version = self.version();
        for (_, term, id) in dead {
            // A belt: what is in force is never deleted, whoever gave it up.
            let in_force = version.tables().any(|table| table.meta.id == id);
            debug_assert!(!in_force, "an object in force was given up");
            let key = io.object_key(term, id);
            if !dry_run && !in_force {
                self.store().delete(&key, Cause::Gc).await?;
                io.cache.remove_groups(&[id]);
            }
            if !dry_run {
                io.orphans.0.lock().retain(|(_, _, orphan)| *orphan != id);
            }
            garbage.keys.push(key);
        }
        Ok(())
    }

    async fn collect_manifests(
        &self,
        dry_run: bool,
        due: &impl Fn(Duration, u64) -> bool,
        garbage: &mut Garbage,
    ) -> Result<()> {
        let inner = self.inner();
        for id in self.due_manifests(due) {
            let key = manifest_key(&inner.io, id);
            if !dry_run {
                self.store().delete(&key, Cause::Gc).await?;
                inner.graveyard.manifests.lock().retain(|buried| buried.id != id);
            }
            garbage.keys.push(key);
        }
        Ok(())
    }

    fn due_manifests(&self, due: &impl Fn(Duration, u64) -> bool) -> Vec<ManifestId> {
        let manifests = self.inner().graveyard.manifests.lock();
        let old = manifests.len().saturating_sub(MANIFESTS_KEPT);
        manifests.iter().take(old).take_while(|dead| due(dead.since, dead.at)).map(|dead| dead.id).collect()
    }

    /// Deletes objects and manifests of terms before `term` that are not in force (`dry_run`: only says which). Call it
    /// when this node leads `term`, has applied its first entry, and has that in the archive, if there is one; and only then.
    pub async fn sweep(&self, term: u64, dry_run: bool) -> Result<Garbage> {
        let inner = self.inner();
        let version = self.version();
        let manifest = version.manifest();
        let mut used: FxHashSet<String> = version.tables().map(|table| table.key()).collect();
        used.extend(inner.graveyard.tables.lock().iter().map(|dead| dead.table.key()));
        let manifests = [Some(manifest.id), manifest.previous].into_iter().flatten();
        used.extend(
            manifests
                .chain(inner.graveyard.manifests.lock().iter().map(|dead| dead.id))
                .map(|id| manifest_key(&inner.io, id)),
        );
        let mut garbage = Garbage::default();
        if !dry_run {
            owner::confirm(self.store(), self.owner()).await?;
        }
        for folder in ["obj/", "manifest/"] {
            let prefix = format!("{}{folder}", inner.io.folder);
            let mut after: Option<String> = None;
            loop {
                let page = self.store().list(&prefix, after.as_deref(), LIST_PAGE, Cause::Gc).await?;
                let full = page.len() == LIST_PAGE;
                after = page.last().map(|listed| listed.key.clone());
                for Listed { key, bytes } in page {
                    if used.contains(&key) || term_of(&key).is_none_or(|written| written >= term) {
                        continue;
                    }
                    if !dry_run {
                        self.store().delete(&key, Cause::Gc).await?;
                    }
                    garbage.bytes += bytes;
                    garbage.keys.push(key);
                }
                if !full {
                    break;
                }
            }
        }
        Ok(garbage)
    }
}

/// The term in a key's last part, `<term>-<ulid>`. Names of another shape are not ours to delete.
fn term_of(key: &str) -> Option<u64> {
    let (term, id) = key.rsplit('/').next()?.split_once('-')?;
    ulid::Ulid::from_string(id).ok()?;
    u64::from_str_radix(term, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_names_have_a_term() {
        assert_eq!(term_of("a/b/obj/0f3c/0000001a-01ARZ3NDEKTSV4RRFFQ69G5FAV"), Some(26));
        assert_eq!(term_of("a/b/obj/0f3c/notes.txt"), None);
        assert_eq!(term_of("a/b/obj/x-y"), None);
    }
}
