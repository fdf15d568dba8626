//! Recovery's decisions, as data: torn or corrupt, spare or lost, and what a replayed stream means. Pure; `log/open` does the I/O.
//!
//! Devices persist sectors in any order, so bytes after a crash prove little by themselves. What decides is `durable_to`
//! (rule 4): every record names the position below which all was synced when it was submitted. A bad record below such a claim
//! was durable once and is corruption; anything else bad was never acknowledged and is cut.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::{
    LogId,
    log::index::{GroupIndex, GroupRef, Terms},
    record::{BLOCK, Bad, Body, Position, blocks},
    segment::{self, Group},
};

/// What stands where a group should start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    /// A whole, intact group.
    Whole,
    /// Zeros.
    Blank,
    /// Anything else.
    Bad,
}

/// What the walk over a segment sees at a position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sight {
    /// What stands there.
    pub at: At,
    /// A later record claims that this position was durable.
    pub needed: bool,
    /// No later segment exists.
    pub newest: bool,
    /// Intact records follow.
    pub leftovers: bool,
}

/// What the walk does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Replay the group and go on behind it.
    Take,
    /// The segment ends here.
    End,
    /// The log ends here; erase what follows, so that no later crash can bring it back.
    Cut,
    /// Refuse: acknowledged bytes are gone.
    Corrupt,
}

/// One row of the table: a column that lists several values matches any of them.
type WalkRow = (&'static [At], &'static [bool], &'static [bool], &'static [bool], Step);

const ANY: &[bool] = &[false, true];
const YES: &[bool] = &[true];
const NO: &[bool] = &[false];

/// What stands there, needed, newest, leftovers -> step.
const WALK: &[WalkRow] = &[
    (&[At::Whole], YES, ANY, ANY, Step::Take),
    (&[At::Whole], NO, YES, ANY, Step::Take), // whole though perhaps never acknowledged: keeping it is allowed, losing it is not
    (&[At::Whole, At::Blank, At::Bad], NO, NO, ANY, Step::End), // the next segment says that this one ended here
    (&[At::Blank, At::Bad], YES, ANY, ANY, Step::Corrupt),
    (&[At::Blank], NO, YES, NO, Step::End),
    (&[At::Blank], NO, YES, YES, Step::Cut), // the device persisted the back of a write and not its front
    (&[At::Bad], NO, YES, ANY, Step::Cut),
];

/// Looks the sight up in the table.
pub fn step(sight: Sight) -> Step {
    let row = WALK.iter().find(|row| {
        row.0.contains(&sight.at)
            && row.1.contains(&sight.needed)
            && row.2.contains(&sight.newest)
            && row.3.contains(&sight.leftovers)
    });
    row.map_or(Step::Corrupt, |row| row.4) // total, see the test; refusing is the safe answer all the same
}

/// What the first block of a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Front {
    /// An intact preamble.
    Segment,
    /// An intact spare mark.
    Spare,
    /// Intact and of a newer release.
    Newer,
    /// Anything else.
    Damaged,
}

/// What the rest of a file with a damaged front proves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inside {
    /// No record shows that the front was ever durable.
    Nothing,
    /// It was, as a segment that nothing needs any more.
    Superseded,
    /// It was, as a segment that the log needs.
    Needed,
}

/// What becomes of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Part of the chain, or superseded by it.
    Segment,
    /// Free for use.
    Spare,
    /// Refuse: of another cluster.
    Refuse,
    /// Refuse: of a newer release.
    Stop,
    /// Refuse: a needed segment cannot be read.
    Corrupt,
}

type FileRow = (&'static [Front], &'static [bool], &'static [Inside], Fate);

const ANY_INSIDE: &[Inside] = &[Inside::Nothing, Inside::Superseded, Inside::Needed];

/// First block, of our cluster, what the rest proves -> fate.
const FILES: &[FileRow] = &[
    (&[Front::Segment], YES, ANY_INSIDE, Fate::Segment),
    (&[Front::Spare], YES, ANY_INSIDE, Fate::Spare),
    (&[Front::Segment, Front::Spare], NO, ANY_INSIDE, Fate::Refuse),
    (&[Front::Newer], ANY, ANY_INSIDE, Fate::Stop),
    (&[Front::Damaged], ANY, &[Inside::Nothing, Inside::Superseded], Fate::Spare), // a torn activation, or scraps
    (&[Front::Damaged], ANY, &[Inside::Needed], Fate::Corrupt),
];

/// Looks a file up in the table.
pub fn fate(front: Front, ours: bool, inside: Inside) -> Fate {
    let row = FILES.iter().find(|row| row.0.contains(&front) && row.1.contains(&ours) && row.2.contains(&inside));
    row.map_or(Fate::Corrupt, |row| row.3)
}

/// Why the segments found are not a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BrokenChain {
    /// Two files claim the same epoch.
    Twice(u32),
    /// A segment is newer than the chain's start and no later one continues it.
    Unlinked(u32),
    /// A segment that a later one continues is not there.
    Missing {
        /// The epoch that is gone.
        epoch: u32,
        /// The segment that continues it.
        named_by: u32,
    },
}

/// Orders the segments that the log needs, oldest first. `found` holds each file's epoch and where it says its predecessor ended;
/// the answer holds indexes into it, with each segment's end (`None` for the newest, whose end the walk finds).
pub fn chain(found: &[(u32, Position)], oldest: u32) -> Result<Vec<(usize, Option<Position>)>, BrokenChain> {
    let Some(newest) = found.iter().map(|segment| segment.0).max() else { return Ok(Vec::new()) };
    let mut ordered = VecDeque::new();
    let (mut epoch, mut end, mut named_by) = (newest, None, newest);
    let start = loop {
        let mut holders = found.iter().enumerate().filter(|(_, segment)| segment.0 == epoch);
        let (at, segment) = holders.next().ok_or(BrokenChain::Missing { epoch, named_by })?;
        if holders.next().is_some() {
            return Err(BrokenChain::Twice(epoch));
        }
        ordered.push_front((at, end));
        // A predecessor always has a smaller epoch; anything else could loop and is treated as a missing link.
        if epoch <= oldest || segment.1.epoch() < oldest || segment.1 == Position::default() {
            break epoch;
        }
        if segment.1.epoch() >= epoch {
            return Err(BrokenChain::Missing { epoch: segment.1.epoch(), named_by: epoch });
        }
        (named_by, end, epoch) = (epoch, Some(segment.1), segment.1.epoch());
    };
    let stray =
        |segment: &&(u32, Position)| segment.0 > start && ordered.iter().all(|(at, _)| found.get(*at) != Some(segment));
    match found.iter().find(stray) {
        Some(segment) => Err(BrokenChain::Unlinked(segment.0)),
        None => Ok(ordered.into()),
    }
}

/// Where a segment's valid part ends, and what to erase behind it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Walked {
    /// Offset behind the last group taken.
    pub end: usize,
    /// Erase from `end` to here.
    pub erase_to: Option<usize>,
}

/// Walks the groups of a segment. `end` is where the next segment says that this one ended; `None` for the newest. `take` replays a
/// group and may refuse it. Corruption answers offset and reason.
pub fn walk(
    segment: &[u8],
    cluster: u128,
    epoch: u32,
    end: Option<Position>,
    mut take: impl FnMut(Position, &Group) -> Result<(), String>,
) -> Result<Walked, (usize, String)> {
    let mut offset = BLOCK;
    loop {
        let position = Position::new(epoch, u32::try_from(offset).map_err(|_| (offset, "offset overflow".to_owned()))?);
        let found = match segment.get(offset..).filter(|rest| !rest.is_empty()) {
            Some(rest) => segment::read_group(rest, cluster, position),
            None => Err((0, Bad::Blank)), // the segment is full
        };
        let at = match &found {
            Ok(_) => At::Whole,
            Err((0, Bad::Blank)) => At::Blank,
            Err(_) => At::Bad,
        };
        let beyond = match (at, end) {
            (At::Blank | At::Bad, None) => segment::look_beyond(segment, cluster, epoch, offset),
            _ => segment::Beyond::default(),
        };
        let proven = end.unwrap_or(beyond.durable_to);
        let sight = Sight { at, needed: position < proven, newest: end.is_none(), leftovers: beyond.leftovers_end > 0 };
        match (step(sight), found) {
            (Step::Take, Ok(group)) => {
                take(position, &group).map_err(|what| (offset, what))?;
                offset += blocks(group.len);
            }
            (Step::End, _) => return Ok(Walked { end: offset, erase_to: None }),
            (Step::Cut, _) => {
                let erase_to = beyond.leftovers_end.max(offset + BLOCK).min(segment.len());
                return Ok(Walked { end: offset, erase_to: Some(erase_to) });
            }
            (Step::Corrupt | Step::Take, Err((inside, bad))) => return Err((offset + inside, bad.to_string())),
            (Step::Corrupt, Ok(_)) => return Err((offset, "recovery table".to_owned())),
        }
    }
}

/// The state that a stream of groups adds up to.
#[derive(Debug, Default)]
pub struct Replay {
    /// Where entries stand.
    pub index: GroupIndex,
    /// Which terms they have.
    pub terms: Terms,
    /// The first entry held.
    pub first: Option<u64>,
    /// The only index that may follow; `None` while any may.
    pub next: Option<u64>,
    /// The last vote.
    pub vote: Option<Bytes>,
    /// The last commit mark.
    pub committed: Option<LogId>,
    /// The last purge.
    pub purged: Option<LogId>,
}

impl Replay {
    /// The last entry held.
    pub fn last(&self) -> Option<u64> {
        self.first.and(self.next).and_then(|next| next.checked_sub(1))
    }

    /// Replays one group of segment `position.epoch()`. Answers the greatest entry index in it, or what does not fit.
    pub fn take(&mut self, position: Position, group: &Group) -> Result<Option<u64>, String> {
        let mut held: Option<GroupRef> = None;
        let mut greatest = None;
        for record in &group.records {
            match &record.body {
                Body::Entry(entry) => {
                    self.entry(entry.id)?;
                    greatest = greatest.max(Some(entry.id.index));
                    let len = group.len as u32;
                    held.get_or_insert(GroupRef { first: entry.id.index, count: 0, position, len }).count += 1;
                }
                Body::Vote(vote) => self.vote = Some(vote.clone()),
                Body::Committed(id) => self.committed = Some(*id),
                Body::Cut(last) => self.cut(*last),
                Body::Purge { up_to, .. } => self.purge(*up_to),
                Body::Segment { .. } | Body::Spare => return Err("a segment starts inside another".into()),
            }
        }
        if let Some(held) = held {
            self.index.push(held);
            self.forget_purged();
        }
        Ok(greatest)
    }

    fn entry(&mut self, id: LogId) -> Result<(), String> {
        if let Some(next) = self.next.filter(|next| *next != id.index) {
            return Err(format!("entry {} stands where entry {next} should", id.index));
        }
        if let Some(last_term) = self.terms.last().filter(|last_term| *last_term > id.term) {
            return Err(format!("entry {} of term {} follows term {last_term}", id.index, id.term));
        }
        self.terms.push(id);
        self.first.get_or_insert(id.index);
        self.next = Some(id.index.checked_add(1).ok_or("index overflow")?);
        Ok(())
    }

    fn cut(&mut self, last: Option<u64>) {
        let from = last.map_or(0, |last| last.saturating_add(1));
        self.index.cut(from);
        self.terms.cut(from);
        if self.first.is_some_and(|first| from <= first) {
            self.first = None;
        }
        let behind_purge = self.purged.map(|purged| purged.index.saturating_add(1));
        let after = last.map(|_| from).max(behind_purge);
        self.next = match (self.next, after) {
            (Some(before), Some(after)) => Some(before.min(after)),
            (_, after) => after,
        };
    }

    fn purge(&mut self, up_to: LogId) {
        if self.purged.is_some_and(|purged| purged.index >= up_to.index) {
            return;
        }
        self.purged = Some(up_to);
        self.forget_purged();
        if self.next.is_some_and(|next| next <= up_to.index) {
            (self.first, self.next) = (None, Some(up_to.index.saturating_add(1)));
            self.terms.cut(0);
        }
    }

    fn forget_purged(&mut self) {
        let Some(purged) = self.purged else { return };
        self.index.purge(purged.index);
        self.terms.purge(purged.index);
        if self.first.is_some_and(|first| first <= purged.index) {
            self.first =
                Some(purged.index.saturating_add(1)).filter(|first| self.next.is_none_or(|next| *first < next));
        }
    }

    /// The last check, once the newest segment is replayed: entries must follow the purge without a hole.
    pub fn finish(&mut self) -> Result<(), String> {
        match (self.first, self.purged) {
            (Some(first), Some(purged)) if first > purged.index.saturating_add(1) => {
                return Err(format!("entries up to {} are purged, but the log starts at {first}", purged.index));
            }
            (None, Some(purged)) => self.next = Some(self.next.unwrap_or(0).max(purged.index.saturating_add(1))),
            _ => {}
        }
        // A commit mark may be ahead of the local log: the quorum was reached by others.
        let last = self.last().map(|index| LogId { term: self.terms.at(index).unwrap_or(0), index }).or(self.purged);
        self.committed = match (self.committed, last) {
            (Some(committed), Some(last)) => Some(if committed.index > last.index { last } else { committed }),
            _ => None,
        };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_walk_table_has_exactly_one_row_for_every_sight() {
        for at in [At::Whole, At::Blank, At::Bad] {
            for bits in 0..8 {
                let [needed, newest, leftovers] = [1, 2, 4].map(|bit| bits & bit != 0);
                let matching = |row: &&WalkRow| {
                    row.0.contains(&at)
                        && row.1.contains(&needed)
                        && row.2.contains(&newest)
                        && row.3.contains(&leftovers)
                };
                assert_eq!(WALK.iter().filter(matching).count(), 1, "{at:?} {needed} {newest} {leftovers}");
                let step = step(Sight { at, needed, newest, leftovers });
                assert!(step != Step::Take || at == At::Whole, "only whole groups are taken");
                assert!(!needed || matches!(step, Step::Take | Step::Corrupt), "what was durable is taken or refused");
                assert!(step != Step::Cut || newest, "only the end of the log is cut");
            }
        }
    }

    #[test]
    fn the_file_table_has_exactly_one_row_for_every_file() {
        for front in [Front::Segment, Front::Spare, Front::Newer, Front::Damaged] {
            for ours in [false, true] {
                for inside in [Inside::Nothing, Inside::Superseded, Inside::Needed] {
                    let matching =
                        |row: &&FileRow| row.0.contains(&front) && row.1.contains(&ours) && row.2.contains(&inside);
                    assert_eq!(FILES.iter().filter(matching).count(), 1, "{front:?} {ours} {inside:?}");
                    let fate = fate(front, ours, inside);
                    assert!(fate != Fate::Spare || inside != Inside::Needed || front == Front::Spare);
                }
            }
        }
    }

    #[test]
    fn the_chain_follows_links_and_names_what_is_missing() {
        let end = |epoch| Position::new(epoch, 8192);
        let found = [(9, end(7)), (4, Position::default()), (7, end(4)), (2, Position::default())];
        assert_eq!(chain(&found, 0), Ok(vec![(1, Some(end(4))), (2, Some(end(7))), (0, None)]));
        assert_eq!(chain(&found, 7), Ok(vec![(2, Some(end(7))), (0, None)]));
        assert_eq!(chain(&found, 8), Ok(vec![(0, None)]));
        assert_eq!(chain(&found[..2], 0), Err(BrokenChain::Missing { epoch: 7, named_by: 9 }));
        assert_eq!(chain(&[(3, end(1)), (3, end(2))], 0), Err(BrokenChain::Twice(3)));
        assert_eq!(chain(&[(3, end(5))], 0), Err(BrokenChain::Missing { epoch: 5, named_by: 3 }));
        let strayed = [(9, end(4)), (4, Position::default()), (7, end(4))];
        assert_eq!(chain(&strayed, 0), Err(BrokenChain::Unlinked(7)));
        assert_eq!(chain(&[], 0), Ok(vec![]));
    }

    #[test]
    fn holes_in_the_stream_are_refused() {
        let group = |bodies: &[Body]| {
            let mut out = vec![0; BLOCK];
            let start = Position::new(1, 4096);
            let len = segment::encode_group(1, start, start, bodies, &mut out).unwrap();
            segment::read_group(&out[..len], 1, start).unwrap()
        };
        let entry =
            |term, index| Body::Entry(crate::LogEntry { id: LogId { term, index }, kind: 0, payload: Bytes::new() });
        let mut replay = Replay::default();
        let here = Position::new(1, 4096);
        assert_eq!(replay.take(here, &group(&[entry(1, 5), entry(1, 6)])), Ok(Some(6)));
        assert!(replay.take(here, &group(&[entry(1, 8)])).is_err());
        let mut replay = Replay::default();
        replay.take(here, &group(&[entry(4, 5)])).unwrap();
        assert!(replay.take(here, &group(&[entry(3, 6)])).is_err());
        let mut replay = Replay::default();
        replay.take(here, &group(&[Body::Purge { up_to: LogId { term: 1, index: 2 }, oldest: 1 }])).unwrap();
        replay.next = None;
        replay.take(here, &group(&[entry(1, 5)])).unwrap();
        assert!(replay.finish().is_err(), "entries 3 and 4 are neither purged nor there");
    }
}
