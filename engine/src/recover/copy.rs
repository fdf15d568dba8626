//! Recovery into another store: what the manifest refers to is copied, and the old cluster keeps its prefix.

use futures::{StreamExt as _, TryStreamExt as _, stream};

use super::{Job, Source, identify, look, replay, settle};
use crate::{
    error::{Error, Result},
    format::manifest::{Manifest, ObjectMeta},
    store::{
        Cause, Store,
        owner::{self, Found, Owner},
    },
    table::object_name,
};

/// Objects copied at a time.
const COPIES: usize = 4;

/// Recovers what is in `source` into the job's store, which must belong to no one, as a cluster of its own.
pub async fn copy(job: &Job<'_>, source: Store, mine: Option<Owner>, current: Option<Found>) -> Result<()> {
    let owner = mine.unwrap_or_else(|| owner::mint(job.store));
    if let Some(current) = current.filter(|current| current.owner != owner) {
        return Err(Error::Invalid(format!(
            "store {} belongs to {}: recover into an empty prefix, or name that store itself to recover in place",
            job.store.url(),
            current.owner
        )));
    }
    let Some(found) = owner::find(&source).await? else {
        return Err(Error::Invalid(format!("there is nothing to recover: store {} has no owner", source.url())));
    };
    let source = Source { store: source, owner: found.owner, base: found.manifest };
    let names = look(job, &source).await?;
    // Known from here on, so that an interrupted copy goes on where it was.
    identify(job, owner)?;
    let rebuilt = replay::rebuild(job, &source, owner, &names, false).await?;
    settle(job, owner, rebuilt.manifest)?;
    owner::claim(job.store, owner, &[job.voter.id]).await?;
    rebuilt.tell(&source, owner);
    Ok(())
}

/// Copies the objects of a manifest, and makes them the new cluster's own.
pub async fn objects(job: &Job<'_>, source: &Source, owner: Owner, manifest: &mut Manifest) -> Result<()> {
    let objects: Vec<ObjectMeta> = manifest.objects().cloned().collect();
    tracing::info!(objects = objects.len(), from = source.store.url(), to = job.store.url(), "copying objects");
    let copies = stream::iter(objects).map(|object| async move { object_copy(job, source, owner, &object).await });
    copies.buffer_unordered(COPIES).try_collect::<()>().await?;
    manifest.fresh.iter_mut().chain(&mut manifest.levels).flatten().for_each(|object| object.origin = None);
    Ok(())
}

async fn object_copy(job: &Job<'_>, source: &Source, owner: Owner, object: &ObjectMeta) -> Result<()> {
    let name = object_name(object.term, object.id);
    let incarnation = object.origin.unwrap_or(source.owner.incarnation);
    let from = format!("{}{name}", Owner { incarnation, ..source.owner }.folder());
    let to = format!("{}{name}", owner.folder());
    // Stored whole by an attempt that was interrupted.
    if job.store.head(&to, Cause::Archive).await?.is_some_and(|head| head.bytes == object.bytes) {
        return Ok(());
    }
    let body = source.store.get(&from, 0..object.bytes, Cause::Archive).await?;
    job.store.put_new(&to, &[body], Cause::Archive).await
}
