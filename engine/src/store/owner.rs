//! The owner record: which cluster a prefix belongs to (rule 2). Read before serving.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{Cause, Put, Store, When};
use crate::error::{Error, Result};

/// Key of the record.
const KEY: &str = "owner";
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
struct Record {
    format: u32,
    cluster: String,
    incarnation: String,
    created_unix_ms: u64,
}

fn decode(store: &Store, bytes: &[u8]) -> Result<Owner> {
    let at = |why: String| Error::Corrupt(format!("{}/{KEY}: {why}", store.url()));
    let record: Record = serde_json::from_slice(bytes).map_err(|error| at(error.to_string()))?;
    if record.format != VERSION {
        return Err(at(format!("format version {}; this build reads up to {VERSION}", record.format)));
    }
    let id = |text: &str| ulid::Ulid::from_string(text).map(|id| id.0).map_err(|error| at(error.to_string()));
    Ok(Owner { cluster: id(&record.cluster)?, incarnation: id(&record.incarnation)? })
}

/// Who owns the store, if anyone.
pub async fn read(store: &Store) -> Result<Option<Owner>> {
    let got = store.get_all(KEY, Cause::Owner).await?;
    got.map(|got| decode(store, &got.bytes)).transpose()
}

/// Mints a cluster for an empty data directory. The ids exist only once [`claim`] has succeeded.
pub fn mint(store: &Store) -> Owner {
    Owner { cluster: store.new_ulid(), incarnation: store.new_ulid() }
}

/// Makes sure that the store belongs to `owner`, taking it if it belongs to no one.
pub async fn claim(store: &Store, owner: Owner) -> Result<()> {
    if let Some(found) = read(store).await? {
        return check(store, owner, found);
    }
    let record = Record {
        format: VERSION,
        cluster: ulid::Ulid(owner.cluster).to_string(),
        incarnation: ulid::Ulid(owner.incarnation).to_string(),
        created_unix_ms: store.clock().unix_millis(),
    };
    let body = serde_json::to_vec_pretty(&record).map_err(|error| Error::Invalid(error.to_string()))?;
    if let Put::Won(_) = store.put_when(KEY, &[Bytes::from(body)], When::Absent, Cause::Owner).await? {
        tracing::info!(store = store.url(), %owner, "took ownership of the store");
    }
    // Read back, whoever won: a store that ignores conditions answers every writer with success.
    match read(store).await? {
        Some(found) => check(store, owner, found),
        None => Err(Error::Store(format!("{}/{KEY} vanished after it was written", store.url()))),
    }
}

fn check(store: &Store, owner: Owner, found: Owner) -> Result<()> {
    if found == owner {
        return Ok(());
    }
    Err(Error::Invalid(format!(
        "store {} belongs to {found}, but the data directory to {owner}: use the data directory of that cluster, \
         another prefix, or recover from the store",
        store.url()
    )))
}
