//! Replays the archive over its manifest, by the same apply as ever, and flushes what comes of it.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures::{StreamExt as _, stream};
use holdfast_cache::{Cache, CacheOptions};
use holdfast_wal::{Entry, LogId, Machine as _, Payload as LogPayload, membership_of};

use super::{
    Job, Rebuilt, Source,
    choose::{self, Choice, Damaged, Stop},
    copy,
};
use crate::{
    apply::Applier,
    archive::plan::Name,
    background::flush_input,
    clock::CacheClock,
    error::{Error, Result},
    format::{archive::ArchiveObject, manifest::Manifest, state::MachineState},
    inner::Inner,
    spill::Spill,
    store::owner::Owner,
    tree::{Tree, TreeOptions},
};

/// Archive objects read ahead.
const READ_AHEAD: usize = 8;
/// RAM for pages: only what is flushed passes through.
const CACHE_BYTES: u64 = 16 << 20;

/// Puts everything that these objects and their manifest say into a manifest of `owner`. `in_place`: the old cluster's
/// objects stay where they are.
pub async fn rebuild(job: &Job<'_>, source: &Source, owner: Owner, names: &[Name], in_place: bool) -> Result<Rebuilt> {
    let start = job.clock.now();
    let mut usable = names.to_vec();
    let mut damaged: Vec<String> = Vec::new();
    let hoped = names.iter().map(|name| name.last).max().unwrap_or_default();
    loop {
        let choice = choose::choose(source, &usable, job.recovery.force).await?;
        let problems: Vec<String> = damaged.iter().chain(&choice.problems).cloned().collect();
        if !problems.is_empty() {
            accept(job, &problems, hoped, &choice)?;
        }
        match replay(job, source, owner, &choice, in_place).await {
            Ok(replayed) => {
                let rebuilt = replayed.flush(job).await?;
                return Ok(Rebuilt { took: job.clock.now().saturating_sub(start), ..rebuilt });
            }
            Err(Stop::Damaged(Damaged { name, why })) => {
                usable.retain(|usable| *usable != name);
                damaged.push(why);
            }
            Err(Stop::Failed(error)) => return Err(error),
        }
    }
}

/// Damage that costs nothing is only told; what costs commits needs a word.
fn accept(job: &Job<'_>, problems: &[String], hoped: u64, choice: &Choice) -> Result<()> {
    let problems = problems.join("; ");
    if choice.end >= hoped {
        tracing::warn!(problems, "damage in the archive that other objects make up for");
    } else if job.recovery.force {
        tracing::warn!(problems, up_to = choice.end, "recovering what comes before the damage");
    } else {
        return Err(Error::Corrupt(format!(
            "{problems}. What can be recovered are the log entries up to {}: --recover-force does that, and what was \
             committed behind them is lost",
            choice.end
        )));
    }
    Ok(())
}

struct Replayed {
    inner: Arc<Inner>,
    applier: Applier,
    end: LogId,
    entries: u64,
    newest: Option<u64>,
}

async fn replay(
    job: &Job<'_>,
    source: &Source,
    owner: Owner,
    choice: &Choice,
    in_place: bool,
) -> Result<Replayed, Stop> {
    let mut manifest = choice.manifest.clone();
    if in_place {
        let objects = manifest.fresh.iter_mut().chain(&mut manifest.levels).flatten();
        objects.for_each(|object| object.origin = object.origin.or(Some(source.owner.incarnation)));
    } else {
        copy::objects(job, source, owner, &mut manifest).await?;
    }
    (manifest.cluster, manifest.incarnation) = (owner.cluster, owner.incarnation);
    let (up_to, inner, applier) = machine(job, owner, manifest)?;
    let mut replayed = Replayed { inner, applier, end: up_to, entries: 0, newest: None };
    let mut objects = stream::iter(choice.chain.clone())
        .map(|name| async move { (name, choose::read(source, name).await) })
        .buffered(READ_AHEAD);
    let mut seen = Seen::default();
    while let Some((name, object)) = objects.next().await {
        let entries = seen.fresh(source, name, object?, replayed.end, choice.end)?;
        replayed.apply(source, name, entries).await?;
    }
    Ok(replayed)
}

/// A machine that stands where the manifest does, over a tree that has its objects in force.
fn machine(job: &Job<'_>, owner: Owner, manifest: Manifest) -> Result<(LogId, Arc<Inner>, Applier)> {
    let clock = Arc::new(CacheClock::new(Arc::clone(&job.clock)));
    let cache = Cache::open(CacheOptions { retry_after: Duration::ZERO, ..CacheOptions::new(CACHE_BYTES, clock) });
    let cache = cache.map_err(|error| Error::Invalid(format!("cache: {error}")))?;
    let state =
        if manifest.state.is_empty() { MachineState::default() } else { MachineState::decode(&manifest.state)? };
    let (up_to, membership) = (manifest.up_to, manifest.membership.clone());
    let tree = Tree::of(job.store.clone(), Arc::new(cache), TreeOptions::of(job.options, owner), manifest);
    let (clock, entropy) = (Arc::clone(&job.clock), Arc::clone(&job.entropy));
    let inner = Arc::new(Inner::new(job.options.clone(), clock, entropy, tree, Spill::off(), false));
    let runtime = tokio::runtime::Handle::current();
    let applier = Applier::new(Arc::clone(&inner), runtime, state, up_to, membership);
    Ok((up_to, inner, applier))
}

/// What the last objects held, to compare those that overlap: only committed entries are archived, so they agree.
#[derive(Default)]
struct Seen(BTreeMap<u64, (u64, u32, Name)>);

impl Seen {
    /// The entries of an object behind `last`, up to the index `end`.
    fn fresh(
        &mut self,
        source: &Source,
        name: Name,
        object: ArchiveObject,
        last: LogId,
        end: u64,
    ) -> Result<Vec<Entry>, Stop> {
        self.0 = self.0.split_off(&name.first);
        let disagree = |what: String| Stop::Failed(Error::Corrupt(format!("{}: {what}", source.at(&name))));
        if object.first() == last.index + 1 && object.follows != last {
            let (found, expected) = (object.follows.term, last.term);
            return Err(disagree(format!("it follows on term {found} of entry {}, not {expected}", last.index)));
        }
        let mut fresh = Vec::new();
        for entry in object.entries.into_iter().filter(|entry| entry.id.index <= end) {
            let mark = (entry.id.term, checksum(&entry), name);
            match self.0.get(&entry.id.index) {
                Some((term, crc, other)) if (*term, *crc) != (mark.0, mark.1) => {
                    let other = source.at(other);
                    return Err(disagree(format!("it disagrees with {other} on log entry {}", entry.id.index)));
                }
                _ => drop(self.0.insert(entry.id.index, mark)),
            }
            if entry.id.index > last.index {
                fresh.push(entry);
            }
        }
        Ok(fresh)
    }
}

fn checksum(entry: &Entry) -> u32 {
    match &entry.payload {
        LogPayload::Blank => 0,
        LogPayload::Normal(bytes) => crc32fast::hash(bytes),
        LogPayload::Membership(bytes) => !crc32fast::hash(bytes),
    }
}

impl Replayed {
    async fn apply(&mut self, source: &Source, name: Name, entries: Vec<Entry>) -> Result<()> {
        let Some(last) = entries.last().map(|entry| entry.id) else { return Ok(()) };
        self.entries += entries.len() as u64;
        let applied = self.applier.apply(entries).await;
        applied.map_err(|error| Error::Corrupt(format!("{}: {error}", source.at(&name))))?;
        self.newest = self.applier.newest_commit();
        self.end = last;
        Ok(())
    }

    /// Writes what was replayed and the manifest of the new cluster, one index and one term above (rule 3).
    async fn flush(self, job: &Job<'_>) -> Result<Rebuilt> {
        let Self { inner, applier, end, entries, newest } = self;
        let up_to = LogId { term: end.term + 1, index: end.index + 1 };
        let frozen = applier.conclude(up_to, Some((Some(up_to), membership_of(std::slice::from_ref(&job.voter)))));
        let input = flush_input(&inner, up_to.term, &frozen);
        let input = input.ok_or_else(|| Error::Invalid("nothing was frozen".to_owned()))?;
        let draft = inner.tree.flush(input).await?;
        Ok(Rebuilt { manifest: draft.manifest, end, entries, newest, took: Duration::ZERO })
    }
}
