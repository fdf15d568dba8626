//! Turns sorted entries into pages and pages into objects in the bucket. Used by flush and compaction.

use std::sync::Arc;

use bytes::Bytes;
use holdfast_cache::{Key, Place};
use tokio::task::JoinSet;

use crate::{
    error::{Error, Result},
    format::{
        manifest::ObjectMeta,
        object::{LeafAt, Tail, TailBuilder},
        page::{self, Codec, Extent, LeafBuilder, NewCell},
    },
    limits::INLINE_VALUE_BYTES_MAX,
    store::Cause,
    table::{Table, TableIo},
    types::{CommitSeq, Op},
};

/// Bytes of one overflow page's piece: with its header, a page stays inside 128 KiB.
pub(crate) const OVERFLOW_PIECE_BYTES: usize = 120 * 1024;
/// Objects being uploaded while the next one is built.
const UPLOADS_MAX: usize = 1;

/// How objects are shaped.
#[derive(Clone, Debug)]
pub(crate) struct Shape {
    pub(crate) page_bytes: usize,
    pub(crate) object_bytes: u64,
    pub(crate) codec: Codec,
}

/// What to write under a key.
#[derive(Clone, Copy)]
pub(crate) enum Content<'a> {
    Op(&'a Op),
    /// A value that is in encoded overflow pages already: they are copied as they are.
    Stored {
        pages: &'a [Bytes],
        len: u32,
    },
}

/// How likely readers want an entry soon: as likely as the page that it comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Heat {
    /// In no tier of the cache.
    Cold,
    /// On NVMe.
    Warm,
    /// In RAM.
    Hot,
}

/// The heat of a leaf by that of its entries: what half of them have at least.
#[derive(Clone, Copy, Debug, Default)]
struct LeafHeat {
    hot: u32,
    warm: u32,
    all: u32,
}

impl LeafHeat {
    fn add(&mut self, heat: Heat) {
        self.hot += u32::from(heat == Heat::Hot);
        self.warm += u32::from(heat >= Heat::Warm);
        self.all += 1;
    }

    fn of_leaf(self) -> Heat {
        match self {
            Self { hot, all, .. } if hot * 2 >= all => Heat::Hot,
            Self { warm, all, .. } if warm * 2 >= all => Heat::Warm,
            _ => Heat::Cold,
        }
    }
}

/// One object under construction. Pure: no I/O.
struct ObjectBuilder {
    leaf: LeafBuilder,
    tail: TailBuilder,
    pages: Vec<Bytes>,
    /// Per page.
    heat: Vec<Heat>,
    leaf_first: Option<(Bytes, CommitSeq, bool)>,
    leaf_heat: LeafHeat,
    first: Bytes,
    last: Vec<u8>,
    meta: ObjectMeta,
}

impl ObjectBuilder {
    fn new() -> Self {
        Self {
            leaf: LeafBuilder::default(),
            tail: TailBuilder::default(),
            pages: Vec::new(),
            heat: Vec::new(),
            leaf_first: None,
            leaf_heat: LeafHeat::default(),
            first: Bytes::new(),
            last: Vec::new(),
            meta: ObjectMeta { min_seq: CommitSeq::MAX, ..ObjectMeta::default() },
        }
    }

    fn is_empty(&self) -> bool {
        self.meta.entries == 0
    }

    fn push_page(&mut self, page: Bytes, heat: Heat) -> u32 {
        let number = self.tail.add_page(page.len() as u32, page::stored_crc(&page));
        self.pages.push(page);
        self.heat.push(heat);
        number
    }

    fn finish_leaf(&mut self, shape: &Shape) {
        let Some((key, seq, continued)) = self.leaf_first.take() else { return };
        let heat = std::mem::take(&mut self.leaf_heat).of_leaf();
        let page = self.leaf.finish(shape.codec);
        let page = self.push_page(page, heat);
        self.tail.add_leaf(LeafAt { page, continued, seq, key });
    }

    fn add(&mut self, shape: &Shape, key: &[u8], seq: CommitSeq, content: Content<'_>, heat: Heat) {
        let same_key = !self.is_empty() && self.last == key;
        let inline = match content {
            Content::Op(Op::Put(value)) if value.len() <= INLINE_VALUE_BYTES_MAX => value.len(),
            _ => 12,
        };
        if !self.leaf.is_empty() && self.leaf.len() + key.len() + inline > shape.page_bytes {
            self.finish_leaf(shape);
        }
        let cell = match content {
            Content::Op(Op::Put(value)) if value.len() <= INLINE_VALUE_BYTES_MAX => NewCell::Put(value),
            Content::Op(Op::Put(value)) => {
                let pieces = value.chunks(OVERFLOW_PIECE_BYTES);
                let pages = pieces.map(|piece| page::encode_overflow(piece, shape.codec)).collect();
                NewCell::Overflow(self.add_overflow(pages, value.len() as u32, heat))
            }
            Content::Op(Op::Delete) => NewCell::Delete,
            Content::Stored { pages, len } => NewCell::Overflow(self.add_overflow(pages.to_vec(), len, heat)),
        };
        if self.leaf.is_empty() {
            self.leaf_first = Some((Bytes::copy_from_slice(key), seq, same_key));
        }
        self.leaf.add(key, seq, cell);
        self.leaf_heat.add(heat);
        self.tail.add_entry(key, !same_key);
        if self.is_empty() {
            self.first = Bytes::copy_from_slice(key);
        }
        if !same_key {
            self.last.clear();
            self.last.extend_from_slice(key);
        }
        self.meta.entries += 1;
        self.meta.tombstones += u64::from(matches!(content, Content::Op(Op::Delete)));
        self.meta.min_seq = self.meta.min_seq.min(seq);
        self.meta.max_seq = self.meta.max_seq.max(seq);
    }

    /// Pages of a large value. RAM is for leaves: one value may be as large as all of it.
    fn add_overflow(&mut self, pages: Vec<Bytes>, len: u32, heat: Heat) -> Extent {
        let first_page = self.tail.next_page();
        for page in pages {
            self.push_page(page, heat.min(Heat::Warm));
        }
        Extent { first_page, pages: self.tail.next_page() - first_page, len }
    }

    fn finish(mut self, shape: &Shape, id: u128, term: u64, swept: CommitSeq) -> Built {
        self.finish_leaf(shape);
        let pages_bytes = self.tail.pages_bytes();
        let tail = self.tail.finish(id);
        let meta = ObjectMeta {
            id,
            term,
            bytes: pages_bytes + tail.len() as u64,
            tail_bytes: tail.len() as u32,
            swept,
            first: self.first,
            last: Bytes::from(self.last),
            ..self.meta
        };
        Built { meta, pages: self.pages, heat: self.heat, tail }
    }
}

struct Built {
    meta: ObjectMeta,
    pages: Vec<Bytes>,
    heat: Vec<Heat>,
    tail: Bytes,
}

/// Writes a sorted sequence of entries as a run of objects.
pub(crate) struct RunWriter {
    io: Arc<TableIo>,
    shape: Shape,
    cause: Cause,
    term: u64,
    swept: CommitSeq,
    /// Keys at which an object must end, last first.
    fences: Vec<Bytes>,
    current: ObjectBuilder,
    uploads: JoinSet<Result<Arc<Table>>>,
    done: Vec<Arc<Table>>,
    /// Objects begun, until the run is handed over.
    begun: Vec<u128>,
}

impl RunWriter {
    /// `swept`: range deletes up to it have been applied to what will be added.
    pub(crate) fn new(io: Arc<TableIo>, shape: Shape, cause: Cause, term: u64, swept: CommitSeq) -> Self {
        let current = ObjectBuilder::new();
        let (fences, uploads, done, begun) = (Vec::new(), JoinSet::new(), Vec::new(), Vec::new());
        Self { io, shape, cause, term, swept, fences, current, uploads, done, begun }
    }

    /// No object of the run will reach across these keys (ascending): other objects of the level begin there.
    pub(crate) fn with_fences(mut self, mut fences: Vec<Bytes>) -> Self {
        fences.reverse();
        self.fences = fences;
        self
    }

    /// Adds the next entry.
    #[inline]
    pub(crate) async fn add(&mut self, key: &[u8], seq: CommitSeq, content: Content<'_>, heat: Heat) -> Result<()> {
        // Objects of a run share no key: cut between keys only.
        let mut cut = self.current.tail.pages_bytes() >= self.shape.object_bytes && self.current.last != key;
        while self.fences.last().is_some_and(|fence| fence[..] <= *key) {
            self.fences.pop();
            cut = true;
        }
        if cut && !self.current.is_empty() {
            self.cut().await?;
        }
        self.current.add(&self.shape, key, seq, content, heat);
        Ok(())
    }

    async fn cut(&mut self) -> Result<()> {
        while self.uploads.len() >= UPLOADS_MAX {
            self.join_one().await?;
        }
        let object = std::mem::replace(&mut self.current, ObjectBuilder::new());
        let id = self.io.store.new_ulid();
        self.begun.push(id);
        let built = object.finish(&self.shape, id, self.term, self.swept);
        self.uploads.spawn(upload(self.io.clone(), built, self.cause));
        Ok(())
    }

    async fn join_one(&mut self) -> Result<()> {
        match self.uploads.join_next().await {
            Some(Ok(table)) => self.done.push(table?),
            Some(Err(error)) => return Err(Error::Retry(format!("upload was aborted: {error}"))),
            None => {}
        }
        Ok(())
    }

    /// Uploads what is left and returns the run's tables in key order, all of them in the bucket.
    pub(crate) async fn finish(mut self) -> Result<Vec<Arc<Table>>> {
        if !self.current.is_empty() {
            self.cut().await?;
        }
        while !self.uploads.is_empty() {
            self.join_one().await?;
        }
        self.begun.clear();
        let mut done = std::mem::take(&mut self.done);
        done.sort_by(|a, b| a.meta.first.cmp(&b.meta.first));
        Ok(done)
    }
}

impl Drop for RunWriter {
    /// Of a run that failed half-way nothing is ever in force.
    fn drop(&mut self) {
        let begun = std::mem::take(&mut self.begun);
        self.io.abandon(begun.into_iter().map(|id| (self.term, id)));
    }
}

/// Uploads one object, then puts its pages where readers will look for them.
async fn upload(io: Arc<TableIo>, built: Built, cause: Cause) -> Result<Arc<Table>> {
    let Built { meta, mut pages, heat, tail } = built;
    let key = io.object_key(meta.term, meta.id);
    pages.push(tail.clone());
    io.store.put_new(&key, &pages, cause).await?;
    pages.pop();
    // What waits for a flush is read rarely, and its pages die with it.
    let cached = if cause == Cause::Spill { Vec::new() } else { pages };
    for (number, (page, heat)) in cached.into_iter().zip(heat).enumerate() {
        let place = match (heat, cause) {
            // It takes the place of pages that readers had in RAM and that die with this step.
            (Heat::Hot, Cause::Compaction) => Place::Hot,
            (Heat::Hot, _) => Place::Both,
            // A step through much of the data must not wash away what is read.
            (Heat::Cold, _) if io.cache.is_nvme_full() => continue,
            (Heat::Warm | Heat::Cold, _) => Place::Nvme,
        };
        io.cache.room().await;
        // What we just encoded verifies; this unpacks compressed bodies.
        io.cache.insert(Key { group: meta.id, item: number as u32 }, page::verify(page)?, place);
    }
    let table = Arc::new(Table::new(meta, io));
    table.set_tail(Arc::new(Tail::decode(tail, table.meta.id, table.meta.bytes)?));
    Ok(table)
}
