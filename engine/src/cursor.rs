//! Cursors over a version: one per run inside, merged into the newest visible version of each key.

mod ahead;
mod bulk;
mod run;

use std::{ops::Bound, sync::Arc};

use bytes::Bytes;

pub(crate) use run::{RunCursor, Stored};

use crate::{
    error::Result,
    ranges::Ranges,
    types::{CommitSeq, Item, Op},
    version::Version,
};

/// Walks a version in one direction. Yields, for each key that has one, the newest version that its reader sees,
/// deletes included. Owns what it reads from: the version's objects stay until it is dropped.
pub struct VersionCursor {
    _pin: Arc<Version>,
    /// Newest run first.
    sources: Vec<RunCursor>,
    at: CommitSeq,
    reverse: bool,
    ranges: Ranges,
    started: bool,
}

impl VersionCursor {
    pub(crate) fn new(
        version: &Arc<Version>,
        bounds: (Bound<Bytes>, Bound<Bytes>),
        at: CommitSeq,
        reverse: bool,
        limit_hint: usize,
        ranges: Ranges,
    ) -> Self {
        let sources = version.runs().iter().map(|run| RunCursor::new(run.clone(), &bounds, reverse, limit_hint));
        let sources = sources.filter(|source| !source.is_finished()).collect();
        Self { _pin: version.clone(), sources, at, reverse, ranges, started: false }
    }

    /// The next key's newest visible version.
    pub async fn next(&mut self) -> Result<Option<Item>> {
        let mut out = Vec::with_capacity(1);
        self.next_batch(&mut out, 1).await?;
        Ok(out.pop())
    }

    /// Appends up to `max` items to `out` and returns how many; fewer than `max` only at the end. Never awaits when the
    /// pages are in RAM.
    pub async fn next_batch(&mut self, out: &mut Vec<Item>, max: usize) -> Result<usize> {
        if !self.started {
            for source in &mut self.sources {
                source.start().await?;
            }
            self.started = true;
        }
        let target = out.len() + max;
        let start = out.len();
        while out.len() < target {
            self.sources.retain(|source| !source.is_finished());
            match &self.sources[..] {
                [] => break,
                [_] => self.drain(0, None, out, target).await?,
                _ => {
                    let (leader, tied, runner_up) = self.leader();
                    if tied {
                        self.merge_key(leader, out).await?;
                    } else {
                        self.drain(leader, runner_up, out, target).await?;
                    }
                }
            }
        }
        Ok(out.len() - start)
    }

    /// The source that comes next (the newest of those with that key), whether another has the same key, and
    /// otherwise the key of the one after it.
    fn leader(&self) -> (usize, bool, Option<Bytes>) {
        let ahead = |a: &[u8], b: &[u8]| if self.reverse { a > b } else { a < b };
        let (mut leader, mut second, mut tied) = (0, None::<usize>, false);
        for slot in 1..self.sources.len() {
            let (key, best) = (self.sources[slot].key(), self.sources[leader].key());
            if key == best {
                tied = true;
            } else if ahead(key, best) {
                (second, leader, tied) = (Some(leader), slot, false);
            } else if second.is_none_or(|second| ahead(key, self.sources[second].key())) {
                second = Some(slot);
            }
        }
        (leader, tied, second.map(|second| self.sources[second].key_bytes()))
    }

    /// Emits from one source alone while its keys come before `until`.
    async fn drain(&mut self, source: usize, until: Option<Bytes>, out: &mut Vec<Item>, target: usize) -> Result<()> {
        let (at, reverse) = (self.at, self.reverse);
        let Some(source) = self.sources.get_mut(source) else { return Ok(()) };
        while out.len() < target && !source.is_finished() {
            let from = out.len();
            source.drain_page(at, until.as_deref(), out, target)?;
            if !self.ranges.is_empty() {
                out[from..].iter_mut().for_each(|item| hide(&self.ranges, at, item));
            }
            if out.len() == target {
                break;
            }
            let beyond = until.as_ref().is_some_and(|until| match reverse {
                false => source.key() >= &until[..],
                true => source.key() <= &until[..],
            });
            if beyond {
                break;
            }
            if let Some(mut item) = source.take_key(at).await? {
                hide(&self.ranges, at, &mut item);
                out.push(item);
            }
        }
        Ok(())
    }

    /// Emits one key that several sources have. The newest source that has a visible version wins.
    async fn merge_key(&mut self, leader: usize, out: &mut Vec<Item>) -> Result<()> {
        let Some(key) = self.sources.get(leader).map(RunCursor::key_bytes) else { return Ok(()) };
        let mut winner = None;
        for source in &mut self.sources {
            if source.key() == &key[..] {
                let item = source.take_key(self.at).await?;
                winner = winner.or(item);
            }
        }
        if let Some(mut item) = winner {
            hide(&self.ranges, self.at, &mut item);
            out.push(item);
        }
        Ok(())
    }
}

/// Turns the item into a delete if a range delete hides it.
#[inline]
fn hide(ranges: &Ranges, at: CommitSeq, item: &mut Item) {
    let hidden = ranges.newest_over(&item.key, at);
    if item.seq < hidden {
        (item.seq, item.op) = (hidden, Op::Delete);
    }
}
