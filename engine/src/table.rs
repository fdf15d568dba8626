//! An object opened for reading: its index and filter, loaded once; its pages, through the cache.

mod joined;
mod tails;

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering::Relaxed},
};

use bytes::{Bytes, BytesMut};
use futures::{
    FutureExt as _, StreamExt as _, TryStreamExt as _,
    future::{BoxFuture, Shared},
};
use holdfast_cache::{Cache, Key, Origin, OriginError};
use parking_lot::{Mutex, RwLock};

pub(crate) use self::tails::Tails;
use crate::{
    error::{Error, Result},
    format::{
        manifest::ObjectMeta,
        object::{self, Tail},
        page::{self, Extent, Leaf},
    },
    store::{Cause, Store, owner::Owner},
    types::{CommitSeq, Op},
};

/// Overflow pages of one value fetched in one step, and such steps at once.
const EXTENT_PAGES: u32 = 64;
const EXTENT_STEPS: usize = 2;

/// What every table of a tree shares.
pub(crate) struct TableIo {
    pub(crate) store: Store,
    pub(crate) cache: Arc<Cache>,
    pub(crate) cluster: u128,
    /// The folder of this incarnation, with a final slash; empty if names need none.
    pub(crate) folder: String,
    /// What objects are called, by term and id.
    pub(crate) name: fn(u64, u128) -> String,
    pub(crate) tails: Tails,
    pub(crate) orphans: Orphans,
}

/// Objects that were written, or begun, for a step that was given up: when, and their terms and ids. No manifest names
/// them; the next collection after the grace period deletes them.
#[derive(Default)]
pub(crate) struct Orphans(pub(crate) parking_lot::Mutex<Vec<(std::time::Duration, u64, u128)>>);

impl TableIo {
    /// Nothing will ever name these objects.
    pub(crate) fn abandon(&self, objects: impl Iterator<Item = (u64, u128)>) {
        let now = self.store.clock().now();
        self.orphans.0.lock().extend(objects.map(|(term, id)| (now, term, id)));
    }

    /// The key of an object. The hash in front spreads load over the store's partitions.
    pub(crate) fn object_key(&self, term: u64, id: u128) -> String {
        format!("{}{}", self.folder, (self.name)(term, id))
    }

    /// The key of an object, which may lie under an earlier incarnation.
    pub(crate) fn key_of(&self, meta: &ObjectMeta) -> String {
        match meta.origin {
            None => self.object_key(meta.term, meta.id),
            Some(incarnation) => {
                let folder = Owner { cluster: self.cluster, incarnation }.folder();
                format!("{folder}{}", object_name(meta.term, meta.id))
            }
        }
    }
}

/// An object's key below the folder of its incarnation.
pub(crate) fn object_name(term: u64, id: u128) -> String {
    let hash = object::hash(&id.to_be_bytes()) as u16;
    format!("obj/{hash:04x}/{term:08x}-{}", ulid::Ulid(id))
}

/// An immutable object.
pub(crate) struct Table {
    pub(crate) meta: ObjectMeta,
    io: Arc<TableIo>,
    tail: RwLock<Option<Arc<Tail>>>,
    /// When the tail was last wanted, in ticks of [`Tails`].
    used: AtomicU32,
    loading: Mutex<Option<Loading>>,
    /// Runs of pages that are fetched together now.
    runs: joined::Runs,
}

/// A read of the tail that is under way: whoever wants it meanwhile shares the answer, failures included.
type Loading = Shared<BoxFuture<'static, Result<Arc<Tail>>>>;

impl Table {
    pub(crate) fn new(meta: ObjectMeta, io: Arc<TableIo>) -> Self {
        let used = AtomicU32::new(io.tails.tick());
        Self { meta, io, tail: RwLock::default(), used, loading: Mutex::default(), runs: joined::Runs::default() }
    }

    /// The object's key in the store.
    pub(crate) fn key(&self) -> String {
        self.io.key_of(&self.meta)
    }

    fn at(&self, error: Error) -> Error {
        match error {
            Error::Corrupt(why) => Error::Corrupt(format!("{}/{}: {why}", self.io.store.url(), self.key())),
            error => error,
        }
    }

    /// Index and filter, if they are in memory.
    #[inline]
    pub(crate) fn tail_now(&self) -> Option<Arc<Tail>> {
        let tick = self.io.tails.tick();
        if self.used.load(Relaxed) != tick {
            self.used.store(tick, Relaxed);
        }
        self.tail.read().clone()
    }

    /// Index and filter; the first reader fetches them, others wait for it.
    pub(crate) async fn tail(self: &Arc<Self>) -> Result<Arc<Tail>> {
        if let Some(tail) = self.tail_now() {
            return Ok(tail);
        }
        let loading = {
            let mut loading = self.loading.lock();
            if let Some(tail) = self.tail_now() {
                return Ok(tail);
            }
            loading.get_or_insert_with(|| self.load_tail()).clone()
        };
        loading.await
    }

    /// Reads the tail in a task of its own: a reader that is cancelled takes nobody's answer with it.
    fn load_tail(self: &Arc<Self>) -> Loading {
        let table = self.clone();
        let read = tokio::spawn(async move {
            let read = table.read_tail(Cause::Tail).await.map(Arc::new);
            if let Ok(tail) = &read {
                table.set_tail(tail.clone());
            }
            // Whoever comes later reads again.
            *table.loading.lock() = None;
            read
        });
        let ended = read.map(|read| read.unwrap_or_else(|error| Err(Error::Retry(format!("a read ended: {error}")))));
        ended.boxed().shared()
    }

    /// Gives the table its tail.
    pub(crate) fn set_tail(self: &Arc<Self>, tail: Arc<Tail>) {
        let bytes = tail.memory() as u64;
        if self.tail.write().replace(tail).is_none() {
            self.io.tails.loaded(self, bytes);
        }
    }

    fn last_used(&self) -> u32 {
        self.used.load(Relaxed)
    }

    /// Frees the memory of the tail once its readers are done with it.
    fn unload(&self) {
        if let Some(tail) = self.tail.write().take() {
            self.io.tails.unloaded(tail.memory() as u64);
        }
    }

    /// Reads and checks index and filter, whether they are in memory or not.
    pub(crate) async fn read_tail(&self, cause: Cause) -> Result<Tail> {
        let start = self.meta.bytes.checked_sub(u64::from(self.meta.tail_bytes));
        let start = start.ok_or_else(|| self.at(Error::Corrupt("the manifest's lengths are impossible".to_owned())))?;
        let bytes = self.io.store.get(&self.key(), start..self.meta.bytes, cause).await?;
        Tail::decode(bytes, self.meta.id, self.meta.bytes).map_err(|error| self.at(error))
    }

    /// What the cache calls a page.
    pub(crate) fn cache_key(&self, page: u32) -> Key {
        Key { group: self.meta.id, item: page }
    }

    /// A page that is in RAM.
    #[inline]
    pub(crate) fn page_now(&self, page: u32) -> Option<Bytes> {
        self.io.cache.peek(&self.cache_key(page))
    }

    /// Whether a page is on NVMe, as far as is known. Counts as no use.
    pub(crate) fn is_on_nvme(&self, page: u32) -> bool {
        self.io.cache.is_on_nvme(&self.cache_key(page))
    }

    /// A verified page, from wherever it is.
    pub(crate) async fn page(self: &Arc<Self>, page: u32) -> Result<Bytes> {
        let origin: Arc<dyn Origin> = self.clone();
        self.io.cache.get(self.cache_key(page), &origin).await.map_err(|error| self.cache_error(error))
    }

    fn cache_error(&self, error: holdfast_cache::Error) -> Error {
        match &error {
            // The origin is this table: its error comes back as it was.
            holdfast_cache::Error::Origin(origin) => match origin.0.downcast_ref::<Error>() {
                Some(error) => error.clone(),
                None => Error::Store(error.to_string()),
            },
            _ => Error::Retry(format!("page of {}: {error}", self.key())),
        }
    }

    /// Reads consecutive pages in one request, bypassing the cache; not yet verified.
    pub(crate) async fn read_pages(
        &self,
        tail: &Tail,
        pages: std::ops::Range<u32>,
        cause: Cause,
    ) -> Result<Vec<Bytes>> {
        let (Some(first), Some(last)) = (pages.clone().next(), pages.clone().next_back()) else {
            return Ok(Vec::new());
        };
        let (first, last) = (tail.page(first)?, tail.page(last)?);
        let range = first.offset..last.offset + u64::from(last.len);
        let bytes = self.io.store.get(&self.key(), range, cause).await?;
        pages
            .map(|page| {
                let at = tail.page(page)?;
                let start = (at.offset - first.offset) as usize;
                Ok(bytes.slice(start..start + at.len as usize))
            })
            .collect()
    }

    /// Checks a page as read from the store against the index and its own checksum.
    pub(crate) fn verify(&self, tail: &Tail, page: u32, stored: Bytes) -> Result<Bytes> {
        let at = tail.page(page)?;
        if page::stored_crc(&stored) != at.crc {
            let why = format!("page {page} at offset {} is not the one that the index names", at.offset);
            return Err(self.at(Error::Corrupt(why)));
        }
        page::verify(stored).map_err(|error| match error {
            Error::Corrupt(why) => self.at(Error::Corrupt(format!("page {page} at offset {}: {why}", at.offset))),
            error => error,
        })
    }

    async fn fetch_page(&self, page: u32) -> Result<Bytes> {
        // A page is asked for by way of the tail, so it is there; if it was unloaded meanwhile, read it once more.
        let tail = match self.tail_now() {
            Some(tail) => tail,
            None => Arc::new(self.read_tail(Cause::Tail).await?),
        };
        if let Some(stored) = self.runs.fetch(page).await {
            return self.verify(&tail, page, stored?);
        }
        let at = tail.page(page)?;
        let range = at.offset..at.offset + u64::from(at.len);
        let stored = self.io.store.get(&self.key(), range, Cause::Page).await?;
        self.verify(&tail, page, stored)
    }

    /// Opens a verified page as a leaf.
    #[inline]
    pub(crate) fn leaf(&self, page: Bytes) -> Result<Leaf> {
        Leaf::open(page).map_err(|error| self.at(error))
    }

    /// The newest version of `key` that a reader at `at` sees in this object. Never awaits when its pages are in RAM.
    pub(crate) async fn get(self: &Arc<Self>, key: &[u8], hash: u64, at: CommitSeq) -> Result<Option<(CommitSeq, Op)>> {
        let tail = match self.tail_now() {
            Some(tail) => tail,
            None => self.tail().await?,
        };
        if !tail.may_contain(hash) {
            return Ok(None);
        }
        let mut slot = tail.find_leaf(key, at);
        while let Some(leaf_at) = tail.leaves().get(slot) {
            if leaf_at.key[..] > *key {
                return Ok(None);
            }
            let page = match self.page_now(leaf_at.page) {
                Some(page) => page,
                None => self.page(leaf_at.page).await?,
            };
            let leaf = self.leaf(page)?;
            let found = leaf.seek(key, at).map_err(|error| self.at(error))?;
            if found == leaf.count() {
                slot += 1;
                continue;
            }
            let entry = leaf.entry(found).map_err(|error| self.at(error))?;
            if leaf.key(&entry) != key {
                return Ok(None);
            }
            let op = match leaf.op(&entry).map_err(|error| self.at(error))? {
                Ok(op) => op,
                Err(extent) => Op::Put(self.value(extent).await?),
            };
            return Ok(Some((entry.seq, op)));
        }
        Ok(None)
    }

    /// The overflow pages of a value.
    pub(crate) fn extent(&self, extent: Extent) -> Result<std::ops::Range<u32>> {
        let end = extent.first_page.checked_add(extent.pages);
        let end = end.ok_or_else(|| self.at(Error::Corrupt("impossible overflow extent".to_owned())))?;
        Ok(extent.first_page..end)
    }

    /// A value from its overflow pages.
    pub(crate) async fn value(self: &Arc<Self>, extent: Extent) -> Result<Bytes> {
        let pages = self.extent(extent)?;
        let end = pages.end;
        let tail = self.tail().await?;
        let steps = pages.step_by(EXTENT_PAGES as usize);
        let steps = steps.map(|first| (first..end.min(first + EXTENT_PAGES)).collect::<Vec<_>>());
        // Boxed: one large state machine less inside every read of a small row.
        let read = futures::stream::iter(steps)
            .map(|pages| {
                let (table, tail) = (self.clone(), tail.clone());
                async move { Ok(table.pages(&tail, &pages).await) }
            })
            .buffered(EXTENT_STEPS)
            .try_fold(BytesMut::new(), |mut value, pages| async move {
                for page in pages {
                    let piece = page::overflow_piece(&page?).map_err(|error| self.at(error))?;
                    value.extend_from_slice(&piece);
                }
                Ok(value)
            });
        let value: BoxFuture<'_, Result<BytesMut>> = Box::pin(read);
        let value = value.await?;
        if value.len() != extent.len as usize {
            let why = format!("overflow pages hold {} bytes of a value of {}", value.len(), extent.len);
            return Err(self.at(Error::Corrupt(why)));
        }
        Ok(value.freeze())
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        self.unload();
    }
}

impl Origin for Table {
    fn fetch(&self, key: Key) -> BoxFuture<'_, Result<Bytes, OriginError>> {
        Box::pin(async move { self.fetch_page(key.item).await.map_err(|error| OriginError(Arc::new(error))) })
    }
}
