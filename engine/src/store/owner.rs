//! The owner record: which cluster a prefix belongs to (rule 2). Read before serving.

use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{Cause, Put, Store, When};
use crate::{
    error::{Error, Result},
    format::manifest::ManifestId,
};

/// Key of the record.
pub(super) const KEY: &str = "owner";
/// How long an opening waits for a store that says nothing.
const FIRST_CONTACT: Duration = Duration::from_secs(30);
/// Newest version that this build reads, and the one it writes.
const VERSION: u32 = 1;

/// Who owns a prefix, and since which incarnation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// Cluster id.
    pub cluster: u128,
    /// Bootstrap and recovery mint a new one; objects live under it.
    pub incarnation: u128,
}

impl Owner {
    /// The folder of everything that this incarnation stores, with a final slash.
    pub fn folder(&self) -> String {
        format!("{}/{}/", ulid::Ulid(self.cluster), ulid::Ulid(self.incarnation))
    }
}

impl std::fmt::Display for Owner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "cluster {}, incarnation {}", ulid::Ulid(self.cluster), ulid::Ulid(self.incarnation))
    }
}

/// The record as stored: text, since people look at it when two clusters meet.
#[derive(Serialize, Deserialize)]
struct Stored {
    format: u32,
    cluster: String,
    incarnation: String,
    created_unix_ms: u64,
    #[serde(default = "alone")]
    voters: Vec<u64>,
    /// The incarnation that this one was recovered from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    parent: Option<String>,
    /// When that was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    recovered_unix_ms: Option<u64>,
    /// The manifest that the recovery ended with: it stands for the archive until that has its first object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    manifest: Option<String>,
    /// The parent's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    parent_manifest: Option<String>,
}

impl Stored {
    fn new(store: &Store, owner: Owner, voters: &[u64]) -> Self {
        Self {
            format: VERSION,
            cluster: ulid::Ulid(owner.cluster).to_string(),
            incarnation: ulid::Ulid(owner.incarnation).to_string(),
            created_unix_ms: store.clock().unix_millis(),
            voters: voters.to_vec(),
            parent: None,
            recovered_unix_ms: None,
            manifest: None,
            parent_manifest: None,
        }
    }

    fn encode(&self) -> Result<Bytes> {
        let body = serde_json::to_vec_pretty(self).map_err(|error| Error::Invalid(error.to_string()))?;
        Ok(Bytes::from(body))
    }
}

/// Records that name no voters are of single nodes.
fn alone() -> Vec<u64> {
    vec![crate::cluster::join::ALONE]
}

/// Who owns a prefix, and who may start its log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The owner.
    pub owner: Owner,
    /// The numbers of the nodes that start the cluster together; all others are added to it by a leader.
    pub voters: Vec<u64>,
}

/// The whole record as found, for a recovery.
#[derive(Clone, Debug)]
pub struct Found {
    /// Who owns the store.
    pub owner: Owner,
    /// The incarnation that this one was recovered from.
    pub parent: Option<u128>,
    /// The manifest that the recovery ended with.
    pub manifest: Option<ManifestId>,
    /// The manifest that the parent's recovery ended with.
    pub parent_manifest: Option<ManifestId>,
    voters: Vec<u64>,
    etag: Option<String>,
}

/// Who takes a store over.
#[derive(Clone, Copy, Debug)]
pub struct Successor {
    /// The new owner.
    pub owner: Owner,
    /// The number of its first node.
    pub node: u64,
    /// The incarnation that it was recovered from.
    pub parent: u128,
    /// The manifest that the recovery ended with.
    pub manifest: ManifestId,
    /// The manifest that the parent's recovery ended with.
    pub parent_manifest: Option<ManifestId>,
}

fn decode(store: &Store, bytes: &[u8], etag: Option<String>) -> Result<Found> {
    let at = |why: String| Error::Corrupt(format!("{}/{KEY}: {why}", store.url()));
    let record: Stored = serde_json::from_slice(bytes).map_err(|error| at(error.to_string()))?;
    if record.format != VERSION {
        return Err(at(format!("format version {}; this build reads up to {VERSION}", record.format)));
    }
    let id = |text: &str| ulid::Ulid::from_string(text).map(|id| id.0).map_err(|error| at(error.to_string()));
    let manifest = |text: &Option<String>| text.as_deref().map(str::parse).transpose();
    Ok(Found {
        owner: Owner { cluster: id(&record.cluster)?, incarnation: id(&record.incarnation)? },
        parent: record.parent.as_deref().map(id).transpose()?,
        manifest: manifest(&record.manifest)?,
        parent_manifest: manifest(&record.parent_manifest)?,
        voters: record.voters,
        etag,
    })
}

/// The whole record, if there is one.
pub async fn find(store: &Store) -> Result<Option<Found>> {
    let got = store.get_all(KEY, Cause::Owner).await?;
    got.map(|got| decode(store, &got.bytes, got.etag)).transpose()
}

/// Who owns the store, if anyone.
pub async fn read(store: &Store) -> Result<Option<Record>> {
    Ok(find(store).await?.map(|found| Record { owner: found.owner, voters: found.voters }))
}

/// Mints a cluster for an empty data directory. The ids exist only once [`claim`] has succeeded.
pub fn mint(store: &Store) -> Owner {
    Owner { cluster: store.new_ulid(), incarnation: store.new_ulid() }
}

/// First contact with a store: who owns it, or that it does not answer.
pub async fn first_contact(store: &Store) -> Result<Option<Record>> {
    tokio::time::timeout(FIRST_CONTACT, read(store)).await.unwrap_or_else(|_| {
        Err(Error::Store(format!(
            "{}: no answer within {FIRST_CONTACT:?}: is the endpoint right, and can it be reached from here?",
            store.url()
        )))
    })
}

/// Makes sure that the store belongs to `owner`, taking it with these voters if it belongs to no one.
pub async fn claim(store: &Store, owner: Owner, voters: &[u64]) -> Result<Record> {
    if let Some(found) = read(store).await? {
        return check(store, owner, found.owner).map(|()| found);
    }
    let record = Stored::new(store, owner, voters);
    if let Put::Won(_) = store.put_when(KEY, &[record.encode()?], When::Absent, Cause::Owner).await? {
        tracing::info!(store = store.url(), %owner, "took ownership of the store");
    }
    // Read back, whoever won: a store that ignores conditions answers every writer with success.
    match read(store).await? {
        Some(found) => check(store, owner, found.owner).map(|()| found),
        None => Err(Error::Store(format!("{}/{KEY} vanished after it was written", store.url()))),
    }
}

/// Replaces the record that was `found`: from here on the old incarnation is superseded. `atomic`: the store refuses the
/// replacement of a record that has changed.
pub async fn succeed(store: &Store, found: &Found, next: Successor, atomic: bool) -> Result<()> {
    let record = Stored {
        parent: Some(ulid::Ulid(next.parent).to_string()),
        recovered_unix_ms: Some(store.clock().unix_millis()),
        manifest: Some(next.manifest.to_string()),
        parent_manifest: next.parent_manifest.map(|manifest| manifest.to_string()),
        ..Stored::new(store, next.owner, &[next.node])
    };
    let when = match &found.etag {
        Some(etag) if atomic => When::Matches(etag.clone()),
        _ => When::Always,
    };
    store.put_when(KEY, &[record.encode()?], when, Cause::Owner).await?;
    // Read back, whoever won.
    match find(store).await? {
        Some(now) if now.owner == next.owner && now.manifest == Some(next.manifest) => Ok(()),
        Some(now) => Err(Error::Invalid(format!(
            "store {} was taken by {} meanwhile: another recovery is under way",
            store.url(),
            now.owner
        ))),
        None => Err(Error::Store(format!("{}/{KEY} vanished after it was written", store.url()))),
    }
}

/// Makes sure that nobody has taken the store over: superseded means to stop acknowledging, and to delete nothing.
pub async fn confirm(store: &Store, owner: Owner) -> Result<()> {
    match find(store).await? {
        // Absent: someone deleted it by hand. Nobody has taken over.
        None => Ok(()),
        Some(found) if found.owner == owner => Ok(()),
        Some(found) => Err(Error::Closed(format!(
            "superseded: store {} now belongs to {}, recovered from it; this is {owner}, which acknowledges nothing any \
             more. What it acknowledged since the recovery is lost",
            store.url(),
            found.owner
        ))),
    }
}

/// Refuses a store that belongs to someone else.
pub fn check(store: &Store, owner: Owner, found: Owner) -> Result<()> {
    if found == owner {
        return Ok(());
    }
    Err(Error::Invalid(format!(
        "store {} belongs to {found}, but the data directory to {owner}: use the data directory of that cluster, \
         another prefix, or recover from the store",
        store.url()
    )))
}
