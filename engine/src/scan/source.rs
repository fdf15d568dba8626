//! One input of a scan: a buffer of items in scan order, and where more come from.

use std::{collections::BTreeMap, ops::Bound, sync::Arc};

use bytes::Bytes;

use super::KeyRange;
use crate::{
    error::Result,
    memtable::Memtable,
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
    Memtable { table: Arc<Memtable>, rest: KeyRange, at: CommitSeq, reverse: bool, chunk: usize },
    Pages { cursor: Box<VersionCursor>, chunk: usize },
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
    pub fn memtable(table: Arc<Memtable>, rest: KeyRange, at: CommitSeq, reverse: bool, limit_hint: usize) -> Self {
        let chunk = if limit_hint == 0 { CHUNK_MIN } else { limit_hint.clamp(1, CHUNK_MAX) };
        Self { buffer: Vec::new(), feed: Feed::Memtable { table, rest, at, reverse, chunk } }
    }

    /// The rows of a version.
    pub fn pages(version: &Arc<Version>, range: KeyRange, at: CommitSeq, reverse: bool, limit_hint: usize) -> Self {
        let cursor = version.cursor((range.start, range.end), at, reverse, limit_hint);
        let chunk = if limit_hint == 0 { CHUNK_MIN } else { limit_hint.clamp(1, CHUNK_MAX) };
        Self { buffer: Vec::new(), feed: Feed::Pages { cursor: Box::new(cursor), chunk } }
    }

    /// Makes sure that there is an item; `false` at the end.
    pub async fn refill(&mut self) -> Result<bool> {
        if !self.buffer.is_empty() {
            return Ok(true);
        }
        match &mut self.feed {
            Feed::Done => {}
            Feed::Memtable { table, rest, at, reverse, chunk } => {
                table.collect(rest.bounds(), *at, *reverse, *chunk, &mut self.buffer);
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
            Feed::Pages { cursor, chunk } => {
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
