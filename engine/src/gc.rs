//! Deleting what is out of force: objects that nothing refers to any more, after a grace period, and what older terms
//! left behind.
//!
//! An object leaves force when an accepted edit unlinks it. It is deleted once no version in this process holds it and
//! the grace period has passed. Orphans (written, never put in force) are recognised by their term: every edit of an
//! older term is resolved before a new leader's first entry is applied.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use rustc_hash::FxHashSet;

use crate::{
    error::Result,
    format::manifest::ManifestId,
    store::{Cause, Listed},
    table::Table,
    tree::{Tree, manifest_key},
    version::Version,
};

/// Superseded manifests that stay, for whoever still holds a pointer to one.
const MANIFESTS_KEPT: usize = 4;
/// Keys per listing request.
const LIST_PAGE: usize = 1000;

/// What has left force and is not deleted yet.
#[derive(Default)]
pub(crate) struct Graveyard {
    tables: Mutex<Vec<(Duration, Arc<Table>)>>,
    manifests: Mutex<Vec<(Duration, ManifestId)>>,
}

impl Graveyard {
    /// Notes what `next` no longer has of `current`.
    pub(crate) fn bury(&self, now: Duration, current: &Version, next: &Version) {
        let kept: FxHashSet<_> = next.tables().map(|table| table.meta.id).collect();
        let gone = current.tables().filter(|table| !kept.contains(&table.meta.id));
        self.tables.lock().extend(gone.map(|table| (now, table.clone())));
        if current.manifest().id != ManifestId::default() {
            self.manifests.lock().push((now, current.manifest().id));
        }
    }

    /// Bytes out of force that are not deleted yet.
    pub(crate) fn bytes(&self) -> u64 {
        self.tables.lock().iter().map(|(_, table)| table.meta.bytes).sum()
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
    /// Deletes what has left force here and may go (`dry_run`: only says what). Cheap when there is nothing to do.
    pub async fn collect(&self, dry_run: bool) -> Result<Garbage> {
        let inner = self.inner();
        let deadline = self.store().clock().now().checked_sub(inner.options.grace);
        let due = |at: Duration| deadline.is_some_and(|deadline| at <= deadline);
        let mut garbage = Garbage::default();
        let dead = {
            let mut tables = inner.graveyard.tables.lock();
            // Only versions and drafts hold tables; once the graveyard is the last holder no one can take another hold.
            let (dead, waiting): (Vec<_>, Vec<_>) =
                tables.drain(..).partition(|(at, table)| due(*at) && Arc::strong_count(table) == 1);
            garbage.waiting = waiting.len();
            *tables = waiting;
            dead
        };
        for slot in 0..dead.len() {
            let (_, table) = &dead[slot];
            garbage.bytes += table.meta.bytes;
            garbage.keys.push(table.key());
            if dry_run {
                continue;
            }
            if let Err(error) = self.store().delete(&table.key(), Cause::Gc).await {
                inner.graveyard.tables.lock().extend(dead[slot..].iter().cloned());
                return Err(error);
            }
            inner.io.cache.remove_group(table.meta.id);
        }
        if dry_run {
            inner.graveyard.tables.lock().extend(dead);
        }
        self.collect_manifests(dry_run, due, &mut garbage).await?;
        Ok(garbage)
    }

    async fn collect_manifests(
        &self,
        dry_run: bool,
        due: impl Fn(Duration) -> bool,
        garbage: &mut Garbage,
    ) -> Result<()> {
        let inner = self.inner();
        let dead: Vec<ManifestId> = {
            let manifests = inner.graveyard.manifests.lock();
            let old = manifests.len().saturating_sub(MANIFESTS_KEPT);
            manifests.iter().take(old).take_while(|(at, _)| due(*at)).map(|(_, id)| *id).collect()
        };
        for id in dead {
            let key = manifest_key(&inner.io, id);
            if !dry_run {
                self.store().delete(&key, Cause::Gc).await?;
                inner.graveyard.manifests.lock().retain(|(_, buried)| *buried != id);
            }
            garbage.keys.push(key);
        }
        Ok(())
    }

    /// Deletes objects and manifests of terms before `term` that are not in force (`dry_run`: only says which). Call it
    /// when this node leads `term` and has applied its first entry, and only then.
    pub async fn sweep(&self, term: u64, dry_run: bool) -> Result<Garbage> {
        let inner = self.inner();
        let version = self.version();
        let manifest = version.manifest();
        let mut used: FxHashSet<String> = version.tables().map(|table| table.key()).collect();
        used.extend(inner.graveyard.tables.lock().iter().map(|(_, table)| table.key()));
        let manifests = [Some(manifest.id), manifest.previous].into_iter().flatten();
        used.extend(
            manifests
                .chain(inner.graveyard.manifests.lock().iter().map(|(_, id)| *id))
                .map(|id| manifest_key(&inner.io, id)),
        );
        let mut garbage = Garbage::default();
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
