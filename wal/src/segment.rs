//! What a segment's bytes say: the preamble that opens it and the walk over its groups. Pure: bytes in, facts out.

use bytes::Bytes;

use crate::{
    LogId,
    record::{self, BLOCK, Bad, Body, Place, Position, Record},
};

/// What every segment repeats at its start, because recycling erases older ones (rule 4).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Preamble {
    /// Bytes of the segment.
    pub segment_bytes: u64,
    /// The oldest epoch still needed.
    pub oldest: u32,
    /// Where the previous segment ended; zero for the first of all.
    pub previous_end: Position,
    /// The last vote.
    pub vote: Option<Bytes>,
    /// The last commit mark.
    pub committed: Option<LogId>,
    /// The last purge.
    pub purged: Option<LogId>,
}

impl Preamble {
    /// Writes the preamble of segment `epoch` into its first block. `None` if the vote is above its limit.
    pub fn encode(&self, cluster: u128, epoch: u32, block: &mut [u8]) -> Option<()> {
        let mut bodies = vec![Body::Segment { segment_bytes: self.segment_bytes, oldest: self.oldest }];
        bodies.extend(self.vote.clone().map(Body::Vote));
        bodies.extend(self.committed.map(Body::Committed));
        bodies.extend(self.purged.map(|up_to| Body::Purge { up_to, oldest: self.oldest }));
        block.fill(0);
        encode_group(cluster, Position::new(epoch, 0), self.previous_end, &bodies, block).map(|_| ())
    }

    /// Reads the first block of a file.
    pub fn decode(block: &[u8]) -> Result<Opening, Bad> {
        let head = record::decode_anywhere(block)?;
        let Place { cluster, position, durable_to, .. } = head.place;
        let (segment_bytes, oldest) = match head.body {
            Body::Spare => return Ok(Opening::Spare { cluster }),
            Body::Segment { segment_bytes, oldest } => (segment_bytes, oldest),
            _ => return Err(Bad::Nonsense("the file does not start with a segment or spare record")),
        };
        if position.offset() != 0 {
            return Err(Bad::OtherPosition(position));
        }
        let mut preamble = Self { segment_bytes, oldest, previous_end: durable_to, ..Self::default() };
        let group = read_group(block, cluster, position).map_err(|(_, bad)| bad)?;
        for record in group.records {
            match record.body {
                Body::Vote(vote) => preamble.vote = Some(vote),
                Body::Committed(id) => preamble.committed = Some(id),
                Body::Purge { up_to, .. } => preamble.purged = Some(up_to),
                _ => {}
            }
        }
        Ok(Opening::Segment { cluster, epoch: position.epoch(), preamble })
    }
}

/// What the first block of a file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Opening {
    /// A segment.
    Segment {
        /// Its owner.
        cluster: u128,
        /// Its epoch.
        epoch: u32,
        /// The rest.
        preamble: Preamble,
    },
    /// A prepared file without content.
    Spare {
        /// Its owner.
        cluster: u128,
    },
}

/// Writes the block that marks a file as prepared and empty.
pub fn encode_spare(cluster: u128, block: &mut [u8]) {
    block.fill(0);
    let place =
        Place { cluster, position: Position::default(), durable_to: Position::default(), first: true, last: true };
    record::encode(place, &Body::Spare, block);
}

/// Writes `bodies` as one group at `start`. Returns the bytes used, not rounded to blocks; `None` if `out` is too small.
pub fn encode_group(
    cluster: u128,
    start: Position,
    durable_to: Position,
    bodies: &[Body],
    out: &mut [u8],
) -> Option<usize> {
    let mut used = 0;
    for (i, body) in bodies.iter().enumerate() {
        let position = Position(start.0 + used as u64);
        let place = Place { cluster, position, durable_to, first: i == 0, last: i + 1 == bodies.len() };
        used += record::encode(place, body, out.get_mut(used..)?)?;
    }
    Some(used)
}

/// A whole group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Its records, at least one.
    pub records: Vec<Record>,
    /// Bytes from its start to the end of its last record.
    pub len: usize,
}

/// Reads the group at the start of `bytes`. A bad record answers its distance from the start.
pub fn read_group(bytes: &[u8], cluster: u128, start: Position) -> Result<Group, (usize, Bad)> {
    let mut records = Vec::new();
    let mut len = 0;
    loop {
        let at = |bad| (len, bad);
        let rest = bytes.get(len..).ok_or((len, Bad::Truncated))?;
        let record = record::decode(rest, cluster, Position(start.0 + len as u64)).map_err(at)?;
        if record.place.first != records.is_empty() {
            return Err(at(Bad::Nonsense("a group starts inside another")));
        }
        len += record.len;
        let last = record.place.last;
        records.push(record);
        if last {
            return Ok(Group { records, len });
        }
    }
}

/// What lies behind a position where no whole group starts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Beyond {
    /// The greatest `durable_to` that any intact record behind it claims.
    pub durable_to: Position,
    /// One past the last block in which an intact record starts or runs: leftovers of a torn write. Zero when there are none.
    pub leftovers_end: usize,
}

/// Looks at every block behind `offset` for intact records of this segment.
pub fn look_beyond(segment: &[u8], cluster: u128, epoch: u32, offset: usize) -> Beyond {
    let mut beyond = Beyond::default();
    for block in (record::blocks(offset + 1)..segment.len()).step_by(BLOCK) {
        let Ok(at) = u32::try_from(block) else { break };
        let found = segment.get(block..).map(|rest| record::decode(rest, cluster, Position::new(epoch, at)));
        if let Some(Ok(record)) = found {
            beyond.durable_to = beyond.durable_to.max(record.place.durable_to);
            beyond.leftovers_end = beyond.leftovers_end.max(record::blocks(block + record.len));
        }
    }
    beyond
}

/// The newest segment that a file with an unreadable opening still holds records of, with proof that the opening was durable
/// once: a record behind it that was submitted when the first block was already synced.
pub fn proof_of_life(file: &[u8], cluster: u128) -> Option<u32> {
    let mut newest = None;
    for block in (BLOCK..file.len()).step_by(BLOCK) {
        let Some(Ok(record)) = file.get(block..).map(record::decode_anywhere) else { continue };
        let Place { position, durable_to, .. } = record.place;
        let in_place = record.place.cluster == cluster && position.offset() as usize == block;
        if in_place && durable_to > Position::new(position.epoch(), 0) {
            newest = newest.max(Some(position.epoch()));
        }
    }
    newest
}
