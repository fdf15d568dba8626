//! Who this node is: the identity of its data directory, the cluster that owns the store, and the mark that a node
//! number was used.
//!
//! A number is used once: a node that lost its disk has lost votes and entries that others count on, and must come back
//! under another number. The mark `nodes/<number>` in the store tells a first start from a start after such a loss.

use std::path::Path;

use bytes::Bytes;
use holdfast_wal::transport::Peer;
use serde::{Deserialize, Serialize};

use super::ClusterOptions;
use crate::{
    error::{Error, Result},
    identity::{self, Identity},
    store::{
        Cause, Put, Store, When,
        owner::{self, Owner, Record},
    },
};

/// The number of the only node of a database that is not told of others.
pub(crate) const ALONE: u64 = 1;

/// The mark of a node number.
#[derive(Serialize, Deserialize)]
struct Mark {
    node: u64,
    /// The data directory that has the number.
    directory: String,
    address: String,
}

/// Who this node is, and whom it starts a cluster with.
pub(crate) struct Joined {
    pub(crate) identity: Identity,
    /// The voters of the new cluster; `None` if there is one already, or this node is to be added.
    pub(crate) bootstrap: Option<Vec<Peer>>,
}

impl Joined {
    /// Whom the store belongs to.
    pub(crate) fn owner(&self) -> Owner {
        self.identity.owner
    }
}

/// Finds out who this node is (`fresh`: its log was never used); makes the identity of a new data directory, and takes a store that belongs to no one.
pub(crate) async fn join(
    store: &Store,
    options: Option<&ClusterOptions>,
    path: &Path,
    fresh: bool,
    allow_unsafe: bool,
) -> Result<Joined> {
    let node = options.map_or(ALONE, |options| options.node);
    let known = identity::read(path)?;
    if let Some(known) = known
        && known.node != node
    {
        return Err(Error::Invalid(format!(
            "the data directory belongs to node {}, not to node {node}: node numbers stay with their data directory ({})",
            known.node,
            path.display()
        )));
    }
    let found = owner::first_contact(store).await?;
    let owner = match (&known, &found) {
        (Some(known), _) => known.owner,
        // A new directory of a database without other nodes never takes over a store.
        (None, Some(found)) if options.is_some() => found.owner,
        (None, _) => owner::mint(store),
    };
    let identity = match known {
        Some(known) => known,
        None => identity::make(path, Identity { owner, node, nonce: store.new_ulid() })?,
    };
    if let Some(found) = &found
        && let Err(error) = owner::check(store, identity.owner, found.owner)
    {
        // Stopped after it had lost the store to another node of its cluster, before its log was used.
        return if fresh && known.is_some() && options.is_some() {
            again(store, options, path).await
        } else {
            Err(error)
        };
    }
    crate::store::probe::require_safe(store, allow_unsafe).await?;
    let voters: Vec<u64> = match options {
        Some(options) => options.voters.iter().map(|peer| peer.id).collect(),
        None => vec![ALONE],
    };
    if found.is_none() && !voters.contains(&node) {
        return Err(Error::Invalid(format!(
            "node {node} is not among the peers, and the store {} belongs to no cluster that it could join: start the \
             cluster's nodes first",
            store.url()
        )));
    }
    let record = match claim(store, identity, &voters).await {
        // Another node of the same cluster was first: its cluster is ours.
        Err(Error::Invalid(_)) if known.is_none() && options.is_some() => return again(store, options, path).await,
        claimed => claimed?,
    };
    mark(store, identity, options).await?;
    Ok(Joined { identity, bootstrap: bootstrap(node, &record, options)? })
}

async fn claim(store: &Store, identity: Identity, voters: &[u64]) -> Result<Record> {
    owner::claim(store, identity.owner, voters).await
}

/// The directory was made for a cluster that lost the store to another: it is made anew for the winner's.
async fn again(store: &Store, options: Option<&ClusterOptions>, path: &Path) -> Result<Joined> {
    identity::forget(path)?;
    Box::pin(join(store, options, path, true, true)).await
}

/// The voters to start with, if the store's owner says that this node is one of the first.
fn bootstrap(node: u64, record: &Record, options: Option<&ClusterOptions>) -> Result<Option<Vec<Peer>>> {
    if !record.voters.contains(&node) {
        return Ok(None);
    }
    let Some(options) = options else {
        return Ok((record.voters == [node]).then(|| vec![Peer { id: node, addr: String::new() }]));
    };
    let peer = |id: &u64| options.voters.iter().find(|peer| peer.id == *id).cloned();
    // A member that restarts needs no list of peers any more, and one of another length does no harm: its log knows.
    Ok(record.voters.iter().map(peer).collect())
}

/// Makes sure that the node's number was never used by another data directory.
async fn mark(store: &Store, identity: Identity, options: Option<&ClusterOptions>) -> Result<()> {
    if identity.nonce == 0 {
        return Ok(());
    }
    let key = format!("{}nodes/{}", identity.owner.folder(), identity.node);
    let directory = ulid::Ulid(identity.nonce).to_string();
    if let Some(got) = store.get_all(&key, Cause::Owner).await? {
        return check_mark(store, &key, &got.bytes, &directory, identity.node);
    }
    let address = options.map(|options| options.address.clone()).unwrap_or_default();
    let mark = Mark { node: identity.node, directory: directory.clone(), address };
    let body = serde_json::to_vec_pretty(&mark).map_err(|error| Error::Invalid(error.to_string()))?;
    if let Put::Won(_) = store.put_when(&key, &[Bytes::from(body)], When::Absent, Cause::Owner).await? {
        return Ok(());
    }
    match store.get_all(&key, Cause::Owner).await? {
        Some(got) => check_mark(store, &key, &got.bytes, &directory, identity.node),
        None => Err(Error::Store(format!("{}/{key} vanished after it was written", store.url()))),
    }
}

fn check_mark(store: &Store, key: &str, bytes: &[u8], directory: &str, node: u64) -> Result<()> {
    let mark: Mark =
        serde_json::from_slice(bytes).map_err(|error| Error::Corrupt(format!("{}/{key}: {error}", store.url())))?;
    if mark.directory == directory {
        return Ok(());
    }
    Err(Error::Invalid(format!(
        "node {node} has been a member of this cluster with another data directory{}. Votes and commits that it gave are \
         in there: start it with that directory, or, if it is lost, give this machine a new number and replace node \
         {node} by it (`holdfast admin add-node`, then `remove-node`)",
        if mark.address.is_empty() { String::new() } else { format!(" (at {})", mark.address) },
    )))
}
