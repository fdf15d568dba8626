//! What a restart finds: the chain of spilled memtables behind the manifest. Everything else is deleted.

use std::sync::Arc;

use holdfast_wal::LogId;
use rustc_hash::FxHashSet;

use super::{INDEX, Place, Spill, Spilled};
use crate::{
    check::{CheckReport, check_table},
    error::{Error, Result},
    format::{manifest::Manifest, spill::SpillIndex},
    read::Frozen,
    store::{Cause, owner::Owner},
};

impl Spill {
    /// The memtables that continue `manifest`, oldest first, all read and found whole. Apply can go on behind the last of
    /// them: the manifest that was in force at its end is this one.
    pub async fn find(self: &Arc<Self>, owner: Owner, manifest: &Manifest) -> Vec<Arc<Frozen>> {
        let Some(place) = &self.place else { return Vec::new() };
        let mut found = Vec::new();
        for name in place.folder.names().into_iter().filter(|name| name.ends_with(INDEX)) {
            match place.read(&name).await {
                Ok(index) if index.manifest.cluster != owner.cluster => {}
                Ok(index) if index.manifest.incarnation != owner.incarnation => {}
                Ok(index) => found.push((name, index)),
                Err(error) => tracing::warn!(%error, "a spilled memtable is discarded: the log replays it"),
            }
        }
        let mut chain = Vec::new();
        for (name, index) in links(found, manifest.up_to) {
            let spilled = Spilled::new(self, &place.io, name, &index.manifest, &[]);
            if let Err(error) = verify(&spilled).await {
                let up_to = index.manifest.up_to.index;
                tracing::warn!(%error, up_to, "a spilled memtable is discarded: the log replays it");
                break;
            }
            chain.push(Arc::new(Frozen::restored(index, spilled)));
        }
        // At the end of one that does not know this manifest another was in force: only a replay tells what came then.
        while chain.last().is_some_and(|last| last.in_force != manifest.id) {
            chain.pop();
        }
        self.keep_only(place, &chain).await;
        chain
    }

    /// Deletes all files but those of `chain`.
    async fn keep_only(&self, place: &Place, chain: &[Arc<Frozen>]) {
        let mut kept = FxHashSet::default();
        for spilled in chain.iter().filter_map(|frozen| frozen.on_disk()) {
            kept.insert(spilled.index().to_owned());
            kept.extend(spilled.tables().map(|table| table.key()));
        }
        // What was dropped while looking is among the rest.
        self.trash.lock().clear();
        for name in place.folder.names().into_iter().filter(|name| !kept.contains(name)) {
            self.delete(&name).await;
        }
        if !chain.is_empty() {
            let up_to = chain.last().map_or(0, |last| last.up_to.index);
            tracing::info!(memtables = chain.len(), up_to, "spilled memtables were opened");
        }
    }
}

impl Place {
    async fn read(&self, name: &str) -> Result<SpillIndex> {
        let at = |why: String| Error::Corrupt(format!("{}/{name}: {why}", self.io.store.url()));
        let got = self.io.store.get_all(name, Cause::Spill).await?;
        let got = got.ok_or_else(|| at("it is gone".to_owned()))?;
        SpillIndex::decode(&got.bytes).map_err(|error| match error {
            Error::Corrupt(why) => at(why),
            error => error,
        })
    }
}

/// Those that continue each other from `base` on, in order.
fn links(mut found: Vec<(String, SpillIndex)>, mut base: LogId) -> Vec<(String, SpillIndex)> {
    let mut chain = Vec::new();
    while let Some(at) = found.iter().position(|(_, index)| index.base == base && index.manifest.up_to > base) {
        let next = found.swap_remove(at);
        base = next.1.manifest.up_to;
        chain.push(next);
    }
    chain
}

/// Reads all of it.
async fn verify(spilled: &Spilled) -> Result<()> {
    let mut report = CheckReport::default();
    for table in spilled.tables() {
        check_table(table, &mut report).await?;
    }
    match report.details.into_iter().next() {
        Some(fault) => Err(Error::Corrupt(fault)),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(base: u64, up_to: u64) -> (String, SpillIndex) {
        let id = |index| LogId { term: 1, index };
        let manifest = Manifest { up_to: id(up_to), ..Manifest::default() };
        (up_to.to_string(), SpillIndex { base: id(base), manifest, ..SpillIndex::default() })
    }

    fn chain(base: u64, found: &[(u64, u64)]) -> Vec<u64> {
        let found = found.iter().map(|(base, up_to)| index(*base, *up_to)).collect();
        let linked = links(found, LogId { term: 1, index: base });
        linked.into_iter().map(|(_, index)| index.manifest.up_to.index).collect()
    }

    #[test]
    fn a_chain_starts_at_the_manifest_and_ends_at_the_first_gap() {
        assert_eq!(chain(10, &[(30, 40), (10, 20), (20, 30), (50, 60), (0, 10)]), [20, 30, 40]);
        assert_eq!(chain(15, &[(10, 20), (20, 30)]), [0; 0]);
        // No step back, whatever the files say.
        assert_eq!(chain(10, &[(10, 10)]), [0; 0]);
    }
}
