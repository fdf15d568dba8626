//! Keyspaces: named, ordered maps, and the handle that callers hold.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use parking_lot::RwLock;

use crate::{
    error::{Error, Result},
    limits::{KEY_BYTES_MAX, KEYSPACE_NAME_BYTES_MAX},
    types::{CommitSeq, KeyspaceId, internal_key},
};

#[derive(Debug)]
struct Handle {
    name: Arc<str>,
    id: KeyspaceId,
    dropped: AtomicBool,
    /// Number of the last commit that wrote to it.
    changed: AtomicU64,
}

/// A named, ordered map of keys to values. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Keyspace(Arc<Handle>);

impl Keyspace {
    pub(crate) fn new(name: &str, id: KeyspaceId) -> Self {
        let (dropped, changed) = (AtomicBool::new(false), AtomicU64::new(0));
        Self(Arc::new(Handle { name: name.into(), id, dropped, changed }))
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Its number, never reused.
    pub fn id(&self) -> KeyspaceId {
        self.0.id
    }

    /// Moves with every commit that wrote to it and is visible here, whichever node made it; what was there when the
    /// database was opened does not count. For whoever keeps something that is derived from its rows.
    pub fn last_change(&self) -> u64 {
        self.0.changed.load(Ordering::Acquire)
    }

    /// A commit wrote to it. Called before the commit is visible.
    pub(crate) fn mark_changed(&self, seq: CommitSeq) {
        self.0.changed.fetch_max(seq.0, Ordering::AcqRel);
    }

    pub(crate) fn mark_dropped(&self) {
        self.0.dropped.store(true, Ordering::Release);
    }

    /// The drop got no place in the log after all.
    pub(crate) fn unmark_dropped(&self) {
        self.0.dropped.store(false, Ordering::Release);
    }

    /// `Invalid` once the keyspace is dropped.
    pub(crate) fn check(&self) -> Result<()> {
        if self.0.dropped.load(Ordering::Acquire) {
            return Err(Error::Invalid(format!("keyspace {:?} was dropped", self.name())));
        }
        Ok(())
    }

    /// The internal key of a user key, within its limit.
    pub(crate) fn key(&self, user_key: &[u8]) -> Result<Bytes> {
        if user_key.len() > KEY_BYTES_MAX {
            return Err(Error::TooLarge { what: "key bytes", limit: KEY_BYTES_MAX as u64 });
        }
        Ok(internal_key(self.0.id, user_key))
    }
}

/// The keyspaces that exist, as applied.
#[derive(Default)]
pub struct Keyspaces(RwLock<BTreeMap<Arc<str>, Keyspace>>);

impl Keyspaces {
    /// The keyspace of that name.
    pub fn get(&self, name: &str) -> Option<Keyspace> {
        self.0.read().get(name).cloned()
    }

    /// Everything may have changed up to `seq`.
    pub fn mark_changed(&self, seq: CommitSeq) {
        self.0.read().values().for_each(|keyspace| keyspace.mark_changed(seq));
    }

    /// All names, in order.
    pub fn names(&self) -> Vec<String> {
        self.0.read().keys().map(|name| name.to_string()).collect()
    }

    /// Exactly these exist.
    pub fn reset(&self, keyspaces: &BTreeMap<String, KeyspaceId>) {
        let mut known = self.0.write();
        known.retain(|name, keyspace| {
            let keep = keyspaces.get(&**name) == Some(&keyspace.id());
            if !keep {
                keyspace.mark_dropped();
            }
            keep
        });
        for (name, id) in keyspaces {
            known.entry(name.as_str().into()).or_insert_with(|| Keyspace::new(name, *id));
        }
    }

    /// Apply created it.
    pub fn insert(&self, name: &str, id: KeyspaceId) -> Keyspace {
        let keyspace = Keyspace::new(name, id);
        self.0.write().insert(name.into(), keyspace.clone());
        keyspace
    }

    /// Apply dropped it.
    pub fn remove(&self, name: &str) {
        if let Some(keyspace) = self.0.write().remove(name) {
            keyspace.mark_dropped();
        }
    }
}

/// Refuses names that are empty or too long.
pub fn check_name(name: &str) -> Result<()> {
    if name.is_empty() {
        return Err(Error::Invalid("a keyspace needs a name".into()));
    }
    if name.len() > KEYSPACE_NAME_BYTES_MAX {
        return Err(Error::TooLarge { what: "keyspace name bytes", limit: KEYSPACE_NAME_BYTES_MAX as u64 });
    }
    Ok(())
}
