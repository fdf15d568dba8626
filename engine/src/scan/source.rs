//! One input of a scan: a buffer of items in scan order, and where more come from.

use std::{collections::BTreeMap, ops::Bound, sync::Arc};

use bytes::Bytes;

use super::KeyRange;
use crate::{
    error::Result,
    memtable::Memtable,
    read::Frozen,
    spill::Spilled,
    tree::{Version, VersionCursor},
    types::{CommitSeq, Item, Op},
};

const CHUNK_MIN: usize = 16;
const CHUNK_MAX: usize = 512;

/// An input of the merge.
pub struct Source {
    /// Items in *reverse* scan order: the next one is last.
    buffer: Vec<Item>,
    feed: Feed,
}

enum Feed {
    Done,
    Memtable {
        rows: Rows,
        rest: KeyRange,
        at: CommitSeq,
        reverse: bool,
        chunk: usize,
    },
    /// `_files` are there for as long as the cursor reads them.
    Pages {
        cursor: Box<VersionCursor>,
        chunk: usize,
        _files: Option<Arc<Spilled>>,
    },
}

enum Rows {
    Active(Arc<Memtable>),
    /// May leave RAM between two chunks.
    Frozen(Arc<Frozen>),
}

impl Source {
    /// All of it is here.
    pub fn fixed(writes: BTreeMap<Bytes, Op>, seq: CommitSeq, reverse: bool) -> Self {
        let mut buffer: Vec<Item> = writes.into_iter().map(|(key, op)| Item { key, seq, op }).collect();
        if !reverse {
            buffer.reverse();
        }
        Self { buffer, feed: Feed::Done }
    }

    /// A memtable's visible rows, fetched in growing chunks.
    pub fn active(table: &Arc<Memtable>, rest: KeyRange, at: CommitSeq, reverse: bool, limit_hint: usize) -> Self {
        Self::memtable(Rows::Active(Arc::clone(table)), rest, at, reverse, limit_hint)
    }

    /// The same, of a frozen one.
    pub fn frozen(frozen: &Arc<Frozen>, rest: KeyRange, at: CommitSeq, reverse: bool, limit_hint: usize) -> Self {
        Self::memtable(Rows::Frozen(Arc::clone(frozen)), rest, at, reverse, limit_hint)
    }

    fn memtable(rows: Rows, rest: KeyRange, at: CommitSeq, reverse: bool, limit_hint: usize) -> Self {
        let chunk = if limit_hint == 0 { CHUNK_MIN } else { limit_hint.clamp(1, CHUNK_MAX) };
        Self { buffer: Vec::new(), feed: Feed::Memtable { rows, rest, at, reverse, chunk } }
    }

    /// The rows of a version.
    pub fn pages(version: &Arc<Version>, range: KeyRange, at: CommitSeq, reverse: bool, limit_hint: usize) -> Self {
        let cursor = version.cursor((range.start, range.end), at, reverse, limit_hint);
        let chunk = if limit_hint == 0 { CHUNK_MIN } else { limit_hint.clamp(1, CHUNK_MAX) };
        Self { buffer: Vec::new(), feed: Feed::Pages { cursor: Box::new(cursor), chunk, _files: None } }
    }

    /// Makes sure that there is an item; `false` at the end.
    pub async fn refill(&mut self) -> Result<bool> {
        if !self.buffer.is_empty() {
            return Ok(true);
        }
        match &mut self.feed {
            Feed::Done => {}
            Feed::Memtable { rows, rest, at, reverse, chunk } => {
                let buffer = &mut self.buffer;
                let mut collect = |table: &Arc<Memtable>| table.collect(rest.bounds(), *at, *reverse, *chunk, buffer);
                let looked = match rows {
                    Rows::Active(table) => {
                        collect(table);
                        Ok(())
                    }
                    Rows::Frozen(frozen) => frozen.look(collect),
                };
                if let Err(spilled) = looked {
                    let cursor = spilled.cursor(rest, *at, *reverse, 0);
                    self.feed = Feed::Pages { cursor: Box::new(cursor), chunk: *chunk, _files: Some(spilled) };
                    return Box::pin(self.refill()).await;
                }
                match self.buffer.last() {
                    Some(last) if self.buffer.len() == *chunk => {
                        let after = Bound::Excluded(last.key.clone());
                        if *reverse {
                            rest.end = after;
                        } else {
                            rest.start = after;
                        }
                        *chunk = (*chunk * 4).min(CHUNK_MAX);
                        if rest.is_empty() {
                            self.feed = Feed::Done;
                        }
                    }
                    _ => self.feed = Feed::Done,
                }
                self.buffer.reverse();
            }
            Feed::Pages { cursor, chunk, .. } => {
                if cursor.next_batch(&mut self.buffer, *chunk).await? < *chunk {
                    self.feed = Feed::Done;
                } else {
                    *chunk = (*chunk * 4).min(CHUNK_MAX);
                }
                self.buffer.reverse();
            }
        }
        Ok(!self.buffer.is_empty())
    }

    /// The next item.
    pub fn peek(&self) -> Option<&Item> {
        self.buffer.last()
    }

    /// Takes the next item.
    pub fn pop(&mut self) -> Option<Item> {
        self.buffer.pop()
    }

    /// Whether a refill is needed before the merge may go on.
    pub fn is_dry(&self) -> bool {
        self.buffer.is_empty()
    }

    /// The next item's key.
    pub fn front_key(&self) -> Bytes {
        self.peek().map(|item| item.key.clone()).unwrap_or_default()
    }
}
