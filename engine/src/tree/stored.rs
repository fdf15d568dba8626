//! Manifests as they are stored: their keys, and reading them back.

use std::sync::Arc;

use super::{Manifest, ManifestId};
use crate::{
    error::{Error, Result},
    store::{Cause, Store, owner::Owner},
    table::TableIo,
};

pub(crate) fn manifest_key(io: &TableIo, id: ManifestId) -> String {
    format!("{}manifest/{id}", io.folder)
}

/// Reads a manifest and checks that it is the one asked for, of this cluster.
pub(crate) async fn read_manifest(io: &Arc<TableIo>, owner: &Owner, id: ManifestId) -> Result<Manifest> {
    fetch_manifest(&io.store, &io.folder, owner.cluster, id).await
}

/// As [`read_manifest`]; `None` if there is no such object.
pub(crate) async fn find_manifest(io: &Arc<TableIo>, owner: &Owner, id: ManifestId) -> Result<Option<Manifest>> {
    look_up(&io.store, &io.folder, owner.cluster, id).await
}

/// As [`read_manifest`], from the folder of any incarnation.
pub(crate) async fn fetch_manifest(store: &Store, folder: &str, cluster: u128, id: ManifestId) -> Result<Manifest> {
    let missing = || Error::Store(format!("{}/{folder}manifest/{id} is missing", store.url()));
    look_up(store, folder, cluster, id).await?.ok_or_else(missing)
}

async fn look_up(store: &Store, folder: &str, cluster: u128, id: ManifestId) -> Result<Option<Manifest>> {
    let key = format!("{folder}manifest/{id}");
    let at = |why: String| Error::Corrupt(format!("{}/{key}: {why}", store.url()));
    let Some(got) = store.get_all(&key, Cause::Manifest).await? else { return Ok(None) };
    let manifest = Manifest::decode(got.bytes).map_err(|error| match error {
        Error::Corrupt(why) => at(why),
        error => error,
    })?;
    if manifest.id != id || manifest.cluster != cluster {
        return Err(at(format!("it is manifest {} of cluster {}", manifest.id, ulid::Ulid(manifest.cluster))));
    }
    Ok(Some(manifest))
}
