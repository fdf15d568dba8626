//! Where the rows of a flush come from: frozen memtables, in RAM or on disk, merged in key order.

use std::{collections::VecDeque, sync::Arc};

use bytes::Bytes;

use crate::{
    cursor::{RunCursor, Stored},
    error::Result,
    read::Frozen,
    spill::Spilled,
    types::{CommitSeq, Item, Op},
};

/// Rows taken from a memtable at a time.
const CHUNK_ROWS: usize = 256;
/// Bytes of values taken from disk at a time.
const CHUNK_BYTES: usize = 1 << 20;

/// A version, as it is to be written.
pub(crate) struct Entry {
    pub(crate) key: Bytes,
    pub(crate) seq: CommitSeq,
    pub(crate) stored: Stored,
}

impl Entry {
    fn bytes(&self) -> u64 {
        let value = match &self.stored {
            Stored::Op(Op::Put(value)) => value.len() as u64,
            Stored::Op(Op::Delete) => 0,
            Stored::Pages { len, .. } => u64::from(*len),
        };
        self.key.len() as u64 + value
    }
}

impl From<Item> for Entry {
    fn from(Item { key, seq, op }: Item) -> Self {
        Self { key, seq, stored: Stored::Op(op) }
    }
}

/// A sorted source of a flush, in the order (key ascending, commit number descending).
pub struct Source {
    buffer: VecDeque<Entry>,
    feed: Feed,
}

enum Feed {
    Done,
    /// A memtable may leave RAM at any time: what comes behind `after` is then read from disk.
    Frozen {
        frozen: Arc<Frozen>,
        floor: CommitSeq,
        after: Option<Bytes>,
    },
    /// The files are there for as long as the cursor reads them.
    Disk {
        cursor: Box<RunCursor>,
        _files: Arc<Spilled>,
    },
}

impl Source {
    /// All of it is here.
    pub fn fixed(items: impl Iterator<Item = Item>) -> Self {
        Self { buffer: items.map(Entry::from).collect(), feed: Feed::Done }
    }

    /// Every version of a frozen memtable that a snapshot at or above `floor` can reach.
    pub fn frozen(frozen: Arc<Frozen>, floor: CommitSeq) -> Self {
        Self { buffer: VecDeque::new(), feed: Feed::Frozen { frozen, floor, after: None } }
    }

    /// Bytes that are to be written of it, about.
    pub(crate) fn bytes(&self) -> u64 {
        match &self.feed {
            Feed::Frozen { frozen, .. } => frozen.size(),
            Feed::Done | Feed::Disk { .. } => self.buffer.iter().map(Entry::bytes).sum(),
        }
    }

    /// Makes sure that there is an entry; `false` at the end.
    async fn refill(&mut self) -> Result<bool> {
        while self.buffer.is_empty() {
            match &mut self.feed {
                Feed::Done => return Ok(false),
                Feed::Frozen { frozen, floor, after } => {
                    let mut items = VecDeque::new();
                    let look =
                        frozen.look(|table| table.versions_after(after.as_ref(), *floor, CHUNK_ROWS, &mut items));
                    self.feed = match (look, items.back()) {
                        (Ok(()), None) => Feed::Done,
                        (Ok(()), Some(last)) => {
                            *after = Some(last.key.clone());
                            self.buffer.extend(items.into_iter().map(Entry::from));
                            continue;
                        }
                        (Err(spilled), _) => match spilled.bulk(after.as_ref()).await? {
                            Some(cursor) => Feed::Disk { cursor: Box::new(cursor), _files: spilled },
                            None => Feed::Done,
                        },
                    };
                }
                Feed::Disk { cursor, .. } if cursor.is_finished() => self.feed = Feed::Done,
                Feed::Disk { cursor, .. } => read_some(cursor, &mut self.buffer).await?,
            }
        }
        Ok(true)
    }

    fn front(&self) -> Option<&Entry> {
        self.buffer.front()
    }
}

async fn read_some(cursor: &mut RunCursor, buffer: &mut VecDeque<Entry>) -> Result<()> {
    let mut bytes = 0;
    while bytes < CHUNK_BYTES && buffer.len() < CHUNK_ROWS && !cursor.is_finished() {
        let (key, seq) = (cursor.key_bytes(), cursor.seq());
        if let Some(stored) = cursor.stored().await? {
            bytes += match &stored {
                Stored::Op(op) => op.value_len(),
                Stored::Pages { len, .. } => *len as usize,
            };
            buffer.push_back(Entry { key, seq, stored });
        }
        cursor.advance().await?;
    }
    Ok(())
}

/// Merges a few sources. No two hold the same version of the same key.
pub(crate) struct Merged(Vec<Source>);

impl Merged {
    pub(crate) fn new(sources: Vec<Source>) -> Self {
        Self(sources)
    }

    pub(crate) async fn next(&mut self) -> Result<Option<Entry>> {
        let mut position = 0;
        while let Some(source) = self.0.get_mut(position) {
            if source.front().is_some() || source.refill().await? {
                position += 1;
            } else {
                self.0.remove(position);
            }
        }
        let order = |a: &Entry, b: &Entry| a.key.cmp(&b.key).then(b.seq.cmp(&a.seq));
        let mut first: Option<(usize, &Entry)> = None;
        for (position, source) in self.0.iter().enumerate() {
            if let Some(entry) = source.front()
                && first.is_none_or(|(_, best)| order(entry, best).is_lt())
            {
                first = Some((position, entry));
            }
        }
        let first = first.map(|(position, _)| position);
        Ok(first.and_then(|position| self.0.get_mut(position)?.buffer.pop_front()))
    }
}
