//! Scans: own writes, pending overlay, memtables and pages merged into one ordered run of visible rows.

use std::{
    collections::BTreeMap,
    ops::Bound,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use smallvec::SmallVec;

use crate::{
    KeyValue, ScanOptions,
    error::{Error, Result},
    inner::Inner,
    keyspace::Keyspace,
    memtable::Bounds,
    pending::PendingRange,
    ranges::Ranges,
    snapshot::PinnedSeq,
    types::{CommitSeq, Item, Op, internal_key, keyspace_bounds, user_key},
};

mod source;

use source::Source;

/// Own writes are newer than anything pending, and that is newer than anything committed.
const OWN: CommitSeq = CommitSeq::MAX;
const PENDING: CommitSeq = CommitSeq(u64::MAX - 1);

/// Rows that a stream fetches at a time.
const STREAM_BATCH: usize = 256;

/// Owned bounds over internal keys.
#[derive(Clone, Debug)]
pub struct KeyRange {
    /// First key.
    pub start: Bound<Bytes>,
    /// Last key.
    pub end: Bound<Bytes>,
}

impl KeyRange {
    /// The internal keys that `options` cover in `keyspace`.
    pub fn new(keyspace: &Keyspace, options: &ScanOptions) -> Self {
        let id = keyspace.id();
        let (first, last) = keyspace_bounds(id);
        let start = match &options.start {
            Bound::Included(key) => Bound::Included(internal_key(id, key)),
            Bound::Excluded(key) => Bound::Excluded(internal_key(id, key)),
            Bound::Unbounded => Bound::Included(first),
        };
        let end = match &options.end {
            Bound::Included(key) => Bound::Included(internal_key(id, key)),
            Bound::Excluded(key) => Bound::Excluded(internal_key(id, key)),
            Bound::Unbounded => last.map_or(Bound::Unbounded, Bound::Excluded),
        };
        Self { start, end }
    }

    /// `[start, end)`, of internal keys.
    pub fn half_open(start: &Bytes, end: &Bytes) -> Self {
        Self { start: Bound::Included(start.clone()), end: Bound::Excluded(end.clone()) }
    }

    /// The same, borrowed.
    pub fn bounds(&self) -> Bounds<'_> {
        (self.start.as_ref().map(|key| &key[..]), self.end.as_ref().map(|key| &key[..]))
    }

    /// Whether no key can be within; ordered maps refuse such bounds.
    pub fn is_empty(&self) -> bool {
        match (&self.start, &self.end) {
            (Bound::Included(start), Bound::Included(end)) => start > end,
            (Bound::Included(start) | Bound::Excluded(start), Bound::Included(end) | Bound::Excluded(end)) => {
                start >= end
            }
            _ => false,
        }
    }
}

/// What a transaction adds to a scan.
#[derive(Default)]
pub struct Overlay {
    /// Own writes within the range.
    pub own: BTreeMap<Bytes, Op>,
    /// Own range deletes; they hide everything but `own`.
    pub own_ranges: Vec<(Bytes, Bytes)>,
    /// What other transactions have pending.
    pub pending: PendingRange,
}

/// A running scan: owns its snapshot, `Send + 'static`. Also a [`futures::Stream`] of `Result<KeyValue>`.
pub struct Scan {
    merge: Option<Merge>,
    stream: Stream,
}

type StreamStep = Pin<Box<dyn Future<Output = (Merge, Result<Vec<KeyValue>>)> + Send>>;

#[derive(Default)]
struct Stream {
    ready: std::vec::IntoIter<KeyValue>,
    step: Option<StreamStep>,
}

impl Scan {
    /// A scan of nothing.
    pub(crate) fn empty() -> Self {
        Self { merge: None, stream: Stream::default() }
    }

    /// A scan of `range` at the pinned number, under the overlay.
    pub(crate) fn new(
        inner: &Arc<Inner>,
        pin: PinnedSeq,
        range: KeyRange,
        options: &ScanOptions,
        overlay: Overlay,
    ) -> Self {
        if range.is_empty() {
            return Self::empty();
        }
        let Overlay { own, own_ranges, pending } = overlay;
        let reverse = options.reverse;
        let state = inner.read_state();
        let mut ranges = state.ranges_within(range.bounds(), pin.at());
        own_ranges.iter().for_each(|(start, end)| ranges.add(start, end, OWN));
        pending.ranges.iter().for_each(|(start, end)| ranges.add(start, end, PENDING));
        let mut sources = SmallVec::new();
        if !own.is_empty() {
            sources.push(Source::fixed(own, OWN, reverse));
        }
        if !pending.writes.is_empty() {
            sources.push(Source::fixed(pending.writes, PENDING, reverse));
        }
        if state.active.versions() > 0 {
            sources.push(Source::active(&state.active, range.clone(), pin.at(), reverse, options.limit_hint));
        }
        for frozen in state.frozen.iter().filter(|frozen| frozen.versions() > 0) {
            sources.push(Source::frozen(frozen, range.clone(), pin.at(), reverse, options.limit_hint));
        }
        if state.version.tables().next().is_some() {
            sources.push(Source::pages(&state.version, range, pin.at(), reverse, options.limit_hint));
        }
        let merge = Merge { sources, ranges, reverse, pin, inner: Arc::clone(inner) };
        Self { merge: Some(merge), stream: Stream::default() }
    }

    /// The next row.
    ///
    /// # Errors
    /// `Conflict` if the snapshot became too old, `Store` or `Corrupt` if a page can't be read, `Closed`.
    pub async fn next(&mut self) -> Result<Option<KeyValue>> {
        if let Some(row) = self.stream.ready.next() {
            return Ok(Some(row));
        }
        let mut out = Vec::with_capacity(1);
        self.next_batch(&mut out, 1).await?;
        Ok(out.pop())
    }

    /// Appends up to `max` rows to `out`; returns how many (0 = end, or `max` was 0). The fast path of range queries.
    ///
    /// # Errors
    /// As [`Self::next`].
    pub async fn next_batch(&mut self, out: &mut Vec<KeyValue>, max: usize) -> Result<usize> {
        let before = out.len();
        out.extend(self.stream.ready.by_ref().take(max));
        let left = max - (out.len() - before);
        if let Some(merge) = self.merge.as_mut().filter(|_| left > 0) {
            merge.fill(out, left).await?;
        }
        Ok(out.len() - before)
    }
}

impl futures::Stream for Scan {
    type Item = Result<KeyValue>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(row) = self.stream.ready.next() {
                return Poll::Ready(Some(Ok(row)));
            }
            if let Some(step) = &mut self.stream.step {
                let (merge, rows) = ready!(step.as_mut().poll(context));
                self.stream.step = None;
                match rows {
                    Ok(rows) if rows.is_empty() => return Poll::Ready(None),
                    Ok(rows) => {
                        self.merge = Some(merge);
                        self.stream.ready = rows.into_iter();
                    }
                    Err(error) => return Poll::Ready(Some(Err(error))),
                }
                continue;
            }
            let Some(mut merge) = self.merge.take() else { return Poll::Ready(None) };
            self.stream.step = Some(Box::pin(async move {
                let mut rows = Vec::new();
                let result = merge.fill(&mut rows, STREAM_BATCH).await;
                (merge, result.map(|()| rows))
            }));
        }
    }
}

/// The merge itself. Sources stand in order of age, newest first: the first that has a key decides about it.
struct Merge {
    sources: SmallVec<[Source; 4]>,
    /// Range deletes that meet the scan and that it obeys.
    ranges: Ranges,
    reverse: bool,
    pin: PinnedSeq,
    inner: Arc<Inner>,
}

impl Merge {
    async fn fill(&mut self, out: &mut Vec<KeyValue>, max: usize) -> Result<()> {
        let target = out.len() + max;
        while out.len() < target {
            let mut position = 0;
            while position < self.sources.len() {
                if self.sources[position].refill().await? {
                    position += 1;
                } else {
                    self.sources.remove(position);
                }
            }
            if self.sources.is_empty() {
                break;
            }
            self.emit(out, target);
        }
        // Only now is it certain that no version was missing while we looked.
        self.inner.snapshots.check(self.pin.at())
    }

    /// Emits rows until a source runs dry or `out` has `target` rows. Every source has an item.
    fn emit(&mut self, out: &mut Vec<KeyValue>, target: usize) {
        while out.len() < target {
            let Some((best, run_end)) = self.choose() else { return };
            // Everything of `best` before `run_end` is its alone: no further comparisons among sources.
            let run_end = run_end.map(|source| self.sources[source].front_key());
            let reverse = self.reverse;
            loop {
                let Some(item) = self.sources[best].pop() else { return };
                let mut shadowed = false;
                if run_end.as_ref() == Some(&item.key) {
                    shadowed = true;
                    self.skip(&item.key, best);
                }
                self.push(item, out);
                if shadowed || out.len() >= target || self.sources.iter().any(Source::is_dry) {
                    break;
                }
                let ahead = |key: &Bytes, end: &Bytes| if reverse { key > end } else { key < end };
                let next = self.sources[best].peek();
                if !next.is_some_and(|next| run_end.as_ref().is_none_or(|end| ahead(&next.key, end))) {
                    break;
                }
            }
            if self.sources.iter().any(Source::is_dry) {
                return;
            }
        }
    }

    /// The source with the first key (the newest of equals), and the one that comes next. `None` if one is dry.
    fn choose(&self) -> Option<(usize, Option<usize>)> {
        let before = |a: &Bytes, b: &Bytes| if self.reverse { a > b } else { a < b };
        let mut best = 0;
        let mut second: Option<usize> = None;
        let mut best_key = &self.sources.first()?.peek()?.key;
        for position in 1..self.sources.len() {
            let key = &self.sources[position].peek()?.key;
            if before(key, best_key) {
                second = Some(best);
                (best, best_key) = (position, key);
            } else if second
                .and_then(|second| self.sources[second].peek())
                .is_none_or(|second| before(key, &second.key))
            {
                second = Some(position);
            }
        }
        Some((best, second))
    }

    /// Takes `key` out of the older sources.
    fn skip(&mut self, key: &Bytes, decided: usize) {
        for source in self.sources.iter_mut().skip(decided + 1) {
            if source.peek().is_some_and(|item| item.key == *key) {
                source.pop();
            }
        }
    }

    fn push(&self, item: Item, out: &mut Vec<KeyValue>) {
        let Op::Put(value) = item.op else { return };
        if self.ranges.newest_over(&item.key, CommitSeq::MAX) > item.seq {
            return;
        }
        out.push(KeyValue { key: user_key(&item.key), value });
    }
}

/// Checks scan bounds against the key limit.
pub fn check_bounds(options: &ScanOptions) -> Result<()> {
    for bound in [&options.start, &options.end] {
        if let Bound::Included(key) | Bound::Excluded(key) = bound
            && key.len() > crate::limits::KEY_BYTES_MAX
        {
            return Err(Error::TooLarge { what: "key bytes", limit: crate::limits::KEY_BYTES_MAX as u64 });
        }
    }
    Ok(())
}
