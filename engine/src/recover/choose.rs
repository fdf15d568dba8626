//! What of the archive can be recovered: the newest object whose manifest is there, and the chain of objects up to it.

use std::time::Duration;

use super::Source;
use crate::{
    archive::plan::{Hole, Name, chain},
    error::{Error, Result},
    format::{
        archive::ArchiveObject,
        manifest::{Manifest, ManifestId},
    },
    store::Cause,
    tree::fetch_manifest,
};

/// Objects tried as the end before the search is given up.
const TRIES_MAX: usize = 64;
/// Keys per listing request.
const LIST_PAGE: usize = 1000;

/// Where a recovery begins, and what it replays.
pub struct Choice {
    /// The manifest to begin with; a default one is an empty database.
    pub manifest: Manifest,
    /// The objects that hold what follows, in order.
    pub chain: Vec<Name>,
    /// Index of the last entry that is recovered.
    pub end: u64,
    /// Why it is not more.
    pub problems: Vec<String>,
}

/// An object that cannot be used.
pub struct Damaged {
    /// Which.
    pub name: Name,
    /// Why.
    pub why: String,
}

/// What ends a look at the archive.
pub enum Stop {
    /// This object cannot be used: perhaps others can.
    Damaged(Damaged),
    /// Anything else.
    Failed(Error),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

/// Reads and checks an object.
pub async fn read(source: &Source, name: Name) -> Result<ArchiveObject, Stop> {
    let damaged = |why: String| Stop::Damaged(Damaged { name, why: format!("{}: {why}", source.at(&name)) });
    let key = format!("{}{}", source.archive(), name.text());
    let got = source.store.get_all(&key, Cause::Archive).await?;
    let got = got.ok_or_else(|| damaged("it is missing".to_owned()))?;
    let object = ArchiveObject::decode(got.bytes).map_err(|error| damaged(error.to_string()))?;
    if (object.cluster, object.incarnation) != (source.owner.cluster, source.owner.incarnation) {
        return Err(damaged("it belongs to another cluster or incarnation".to_owned()));
    }
    if (object.first(), object.last().index) != (name.first, name.last) {
        return Err(damaged(format!("it holds entries {} to {}", object.first(), object.last().index)));
    }
    Ok(object)
}

/// How often the old cluster stored an object.
pub async fn interval(source: &Source, names: &[Name]) -> Duration {
    let Some(newest) = names.iter().max_by_key(|name| name.last) else { return Duration::ZERO };
    // What is wrong with it shows later.
    read(source, *newest).await.map_or(Duration::ZERO, |object| Duration::from_millis(object.interval_millis))
}

/// Finds the most that can be recovered from these objects.
pub async fn choose(source: &Source, names: &[Name], force: bool) -> Result<Choice> {
    let mut problems = Vec::new();
    let mut ends: Vec<Name> = names.to_vec();
    ends.sort_by_key(|name| name.last);
    for _ in 0..TRIES_MAX {
        let Some(end) = ends.pop() else { break };
        let object = match read(source, end).await {
            Ok(object) => object,
            Err(Stop::Damaged(damaged)) => {
                problems.push(damaged.why);
                continue;
            }
            Err(Stop::Failed(error)) => return Err(error),
        };
        let Some(manifest) = manifest(source, object.manifest, &mut problems).await? else { continue };
        match chain(names, manifest.up_to.index + 1..=end.last) {
            Ok(chain) => {
                let end = end.last.max(manifest.up_to.index);
                return Ok(Choice { manifest, chain, end, problems });
            }
            Err(hole) => {
                problems.push(describe(source, &hole));
                ends.retain(|name| name.last < *hole.missing.start());
            }
        }
    }
    without_archive(source, problems, force).await
}

/// Nothing archived, or nothing usable: the manifest that a recovered cluster began with, or the newest there is.
async fn without_archive(source: &Source, mut problems: Vec<String>, force: bool) -> Result<Choice> {
    if let Some(base) = source.base
        && let Some(manifest) = manifest(source, base, &mut problems).await?
    {
        return Ok(Choice { end: manifest.up_to.index, manifest, chain: Vec::new(), problems });
    }
    let at = format!("{}/{}", source.store.url(), source.folder());
    let why = if problems.is_empty() { "no archive of the log is there".to_owned() } else { problems.join("; ") };
    let Some(newest) = newest_manifest(source).await? else {
        return Err(Error::Invalid(format!("there is nothing to recover under {at}: {why}, and no manifest")));
    };
    if !force {
        return Err(Error::Invalid(format!(
            "{why}. The newest manifest under {at} is {newest}: --recover-force takes it, and what was committed behind it \
             is lost"
        )));
    }
    let found = manifest(source, newest, &mut problems).await?;
    let manifest = found.ok_or_else(|| Error::Corrupt(problems.join("; ")))?;
    Ok(Choice { end: manifest.up_to.index, manifest, chain: Vec::new(), problems })
}

/// A manifest, or why there is none; zeros name an empty database.
async fn manifest(source: &Source, id: ManifestId, problems: &mut Vec<String>) -> Result<Option<Manifest>> {
    if id == ManifestId::default() {
        return Ok(Some(Manifest::default()));
    }
    match fetch_manifest(&source.store, &source.folder(), source.owner.cluster, id).await {
        Ok(manifest) => Ok(Some(manifest)),
        Err(Error::Corrupt(why) | Error::Store(why)) => {
            if !problems.contains(&why) {
                problems.push(why);
            }
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

async fn newest_manifest(source: &Source) -> Result<Option<ManifestId>> {
    let folder = format!("{}manifest/", source.folder());
    let (mut newest, mut after): (Option<ManifestId>, Option<String>) = (None, None);
    loop {
        let page = source.store.list(&folder, after.as_deref(), LIST_PAGE, Cause::Manifest).await?;
        let ids = page.iter().filter_map(|listed| listed.key.rsplit('/').next()?.parse().ok());
        newest = ids.chain(newest).max();
        if page.len() < LIST_PAGE {
            return Ok(newest);
        }
        after = page.last().map(|listed| listed.key.clone());
    }
}

fn describe(source: &Source, hole: &Hole) -> String {
    let (first, last) = (hole.missing.start(), hole.missing.end());
    let before =
        hole.before.map_or_else(|| "nothing before them".to_owned(), |name| format!("before: {}", source.at(&name)));
    let after =
        hole.after.map_or_else(|| "nothing behind them".to_owned(), |name| format!("behind: {}", source.at(&name)));
    format!("no archive object holds log entries {first} to {last} ({before}; {after})")
}
