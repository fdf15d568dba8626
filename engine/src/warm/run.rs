//! The tasks that write lists of hot pages and fetch what is on them.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use holdfast_cache::{Cache, Place};

use super::{FOLDER, plan};
use crate::{
    error::Result,
    format::hot::{self, Pages},
    inner::Inner,
    store::{Cause, Listed, owner},
    table::Table,
};

/// A fresh list counts as news when so many pages were read from RAM since the one before.
const READS_MIN: u64 = 1000;
/// Share of the RAM tier that is filled from a list; the rest is for what readers bring.
const FILL: f64 = 0.9;
/// Lists that are looked at, at most: each leader leaves one.
const LISTS_MAX: usize = 1000;
/// Bytes that are fetched in a turn at least, however small the rate.
const TURN: u64 = 1 << 20;

/// Notes hot pages while this node leads, and warms it up at the start and whenever it takes over.
pub(crate) async fn run(inner: Arc<Inner>, cache: Arc<Cache>) {
    let Some(every) = inner.options.hot_list_interval else { return };
    if !inner.tree.store().is_remote() {
        return;
    }
    let task = Warming { inner, cache };
    task.warm().await;
    loop {
        let follows = task.inner.term() == 0;
        let Ok(term) = task.inner.leads().await else { return };
        if follows {
            // What the leader before had is not what this node's readers asked for.
            task.warm().await;
        }
        tokio::select! {
            biased;
            () = task.inner.deposed(term) => {}
            () = task.note_each(every, term) => {}
        }
    }
}

struct Warming {
    inner: Arc<Inner>,
    cache: Arc<Cache>,
}

impl Warming {
    fn folder(&self) -> String {
        format!("{}{FOLDER}", self.inner.tree.owner().folder())
    }

    /// Writes a list each time that enough was read, for as long as this node leads.
    async fn note_each(&self, every: Duration, term: u64) {
        let mut noted = self.cache.stats().ram_hits;
        loop {
            tokio::time::sleep(every).await;
            let hits = self.cache.stats().ram_hits;
            if hits - noted < READS_MIN {
                continue;
            }
            match self.note(term).await {
                Ok(()) => noted = hits,
                Err(error) => tracing::debug!(%error, "the list of hot pages was not written"),
            }
        }
    }

    /// Writes what is in RAM now, then deletes the lists before it.
    async fn note(&self, term: u64) -> Result<()> {
        let (store, inner) = (self.inner.tree.store(), &self.inner);
        let list = hot::encode(&self.hot_pages());
        let before = store.list(&self.folder(), None, LISTS_MAX, Cause::Warm).await?;
        let key = format!("{}{term:08x}-{}", self.folder(), ulid::Ulid(store.new_ulid()));
        store.put_new(&key, &[list], Cause::Warm).await?;
        owner::confirm(store, inner.tree.owner()).await?;
        for Listed { key: old, .. } in before.into_iter().filter(|listed| listed.key < key) {
            store.delete(&old, Cause::Warm).await?;
        }
        self.inner.warmth.lists_written.fetch_add(1, Relaxed);
        Ok(())
    }

    /// The pages in RAM that belong to objects in force.
    fn hot_pages(&self) -> Pages {
        let version = self.inner.tree.version();
        let mut pages: Pages = version.tables().map(|table| (table.meta.id, Default::default())).collect();
        for key in self.cache.ram_keys(hot::PAGES_MAX) {
            if let Some(of) = pages.get_mut(&key.group) {
                of.insert(key.item);
            }
        }
        pages
    }

    /// Fetches what the newest list names. That some of it can't be had is no trouble: readers fetch it when they want it.
    async fn warm(&self) {
        let began = self.inner.clock.now();
        match self.fetch().await {
            Ok(0) => {}
            Ok(pages) => {
                let took = self.inner.clock.now().saturating_sub(began);
                tracing::info!(pages, ?took, "fetched the pages that were hot before");
            }
            Err(error) => tracing::warn!(%error, "the cache was not warmed up"),
        }
        self.inner.warmth.lists_read.fetch_add(1, Relaxed);
    }

    async fn fetch(&self) -> Result<u64> {
        let store = self.inner.tree.store();
        let lists = store.list(&self.folder(), None, LISTS_MAX, Cause::Warm).await?;
        let Some(newest) = lists.into_iter().map(|listed| listed.key).max() else { return Ok(0) };
        let Some(got) = store.get_all(&newest, Cause::Warm).await? else { return Ok(0) };
        let pages = hot::decode(&got.bytes)?;
        let version = self.inner.tree.version();
        let mut pace = Pace::new(&self.inner);
        let mut fetched = 0;
        for table in version.tables() {
            let Some(mut wanted) = pages.get(&table.meta.id).cloned() else { continue };
            wanted.retain(|page| !self.cache.is_in_ram(&table.cache_key(*page)));
            if wanted.is_empty() {
                continue;
            }
            let tail = table.tail().await?;
            for run in plan::runs(&wanted) {
                let stats = self.cache.stats();
                if stats.ram_bytes as f64 > stats.ram_capacity as f64 * FILL {
                    return Ok(fetched);
                }
                let mut bytes = 0;
                for page in self.fetch_run(table, &tail, run).await? {
                    if wanted.contains(&page.0) {
                        bytes += page.1;
                        fetched += 1;
                        self.inner.warmth.pages.fetch_add(1, Relaxed);
                    }
                }
                pace.after(bytes).await;
            }
        }
        Ok(fetched)
    }

    /// Puts a run of pages into the cache: from NVMe where they are there, else with one request.
    async fn fetch_run(
        &self,
        table: &Arc<Table>,
        tail: &crate::format::object::Tail,
        run: std::ops::Range<u32>,
    ) -> Result<Vec<(u32, u64)>> {
        let mut done = Vec::with_capacity(run.len());
        if run.clone().all(|page| self.cache.is_on_nvme(&table.cache_key(page))) {
            for page in run {
                done.push((page, table.page(page).await?.len() as u64));
            }
            return Ok(done);
        }
        let read = table.read_pages(tail, run.clone(), Cause::Warm).await?;
        for (page, stored) in run.zip(read) {
            let bytes = table.verify(tail, page, stored)?;
            done.push((page, bytes.len() as u64));
            self.cache.insert(table.cache_key(page), bytes, Place::Both);
        }
        self.cache.room().await;
        Ok(done)
    }
}

/// Keeps the rate of the options.
struct Pace<'a> {
    inner: &'a Inner,
    taken: u64,
}

impl<'a> Pace<'a> {
    fn new(inner: &'a Inner) -> Self {
        Self { inner, taken: 0 }
    }

    /// Waits for as long as these bytes may take.
    async fn after(&mut self, bytes: u64) {
        self.taken += bytes;
        if self.taken >= TURN {
            let rate = self.inner.options.prefetch_bytes_per_second.max(1);
            tokio::time::sleep(Duration::from_secs_f64(self.taken as f64 / rate as f64)).await;
            self.taken = 0;
        }
    }
}
