//! Opening a log: reads what the device holds, lets `recover` judge it, repairs the tail. The I/O around the pure decisions.

use std::{collections::VecDeque, sync::Arc};

use super::{
    LogOptions,
    prepare::{self, file_number},
    room::Room,
    state::{Live, State},
    tail::Tail,
};
use crate::{
    Error,
    disk::{Disk, DiskFile, buffer::AlignedBuffer},
    record::{BLOCK, Bad, Body, Position, VERSION, blocks},
    recover::{self, BrokenChain, Fate, Front, Inside, Replay},
    segment::{self, Opening, Preamble},
};

/// What opening yields: the state, and where the writer goes on.
pub struct Opened {
    /// What the log holds.
    pub state: State,
    /// Live segments, oldest first.
    pub segments: VecDeque<Live>,
    /// What the next preamble repeats.
    pub written: Preamble,
    /// The next segment's epoch.
    pub next_epoch: u32,
    /// The next file's number.
    pub next_number: u64,
}

/// A file as found.
struct Found {
    file: Arc<dyn DiskFile>,
    front: Result<Opening, Bad>,
    /// For a damaged front: the newest segment that the rest proves.
    proof: Option<u32>,
}

/// The cluster that owns what is on the disk, if anything there says so.
pub fn owner(disk: &dyn Disk) -> Result<Option<u128>, Error> {
    for file in files(disk)? {
        match front(file.as_ref())? {
            Ok(Opening::Segment { cluster, .. } | Opening::Spare { cluster }) => return Ok(Some(cluster)),
            Err(_) => {}
        }
    }
    Ok(None)
}

/// Reads and repairs the log.
pub fn open(disk: &dyn Disk, options: &LogOptions) -> Result<Opened, Error> {
    let files = files(disk)?;
    let mut next_number = files.iter().filter_map(|file| file_number(file.name())).max().map_or(1, |number| number + 1);
    let found = files.into_iter().map(|file| look(file, options.cluster)).collect::<Result<Vec<_>, _>>()?;
    found.iter().try_for_each(|found| judge(found, options.cluster, u32::MAX))?;
    let mut segments = Vec::new();
    for found in &found {
        if let Ok(Opening::Segment { epoch, preamble, .. }) = &found.front {
            segments.push((found, *epoch, preamble.clone()));
        }
    }
    let newest = segments.iter().max_by_key(|segment| segment.1).cloned();
    let oldest = match &newest {
        Some((found, epoch, preamble)) => oldest_needed(found.file.as_ref(), options.cluster, *epoch, preamble)?,
        None => 0,
    };
    found.iter().try_for_each(|found| judge(found, options.cluster, oldest))?;
    if segments.is_empty() && options.was_used {
        let what = "no file of the log's directory holds a segment, though the log was in use: files are missing";
        return Err(Error::Corrupt { file: "log".to_owned(), offset: 0, what: what.to_owned() });
    }
    let (live, replay) = replay(&segments, oldest, options.cluster)?;
    let in_use = |file: &Arc<dyn DiskFile>| live.iter().any(|live| live.file.name() == file.name());
    let (mut spares, mut surplus) = (Vec::new(), Vec::new());
    for Found { file, .. } in found.iter().filter(|found| !in_use(&found.file)) {
        let list = if file.bytes() == options.segment_bytes { &mut spares } else { &mut surplus };
        list.push(file.clone());
    }
    if live.is_empty() && spares.is_empty() {
        let made = prepare::create(disk, options.cluster, next_number, options.segment_bytes);
        spares.push(made.map_err(|error| Error::io(format!("preparing {}", prepare::file_name(next_number)), error))?);
        next_number += 1;
    }
    let proofs = found.iter().filter_map(|found| found.proof);
    let next_epoch = segments.iter().map(|segment| segment.1).chain(proofs).max().unwrap_or(0).saturating_add(1);
    let written = Preamble {
        segment_bytes: options.segment_bytes,
        oldest,
        previous_end: Position::default(),
        vote: replay.vote.clone(),
        committed: replay.committed,
        purged: replay.purged,
    };
    let mut room = Room::new(options);
    room.files = (live.len() + spares.len() + surplus.len()) as u64;
    room.active_left = live.back().map_or(0, |active| active.file.bytes().saturating_sub(u64::from(active.end)));
    let state = State {
        first: replay.first,
        next: replay.next,
        terms: replay.terms,
        vote: replay.vote,
        committed: replay.committed,
        purged: replay.purged,
        tail: Tail::new(options.ram_tail_bytes),
        index: replay.index,
        segments: live.clone(),
        spares,
        surplus,
        room,
        written: live.iter().map(|segment| u64::from(segment.end)).sum(),
        queue: Vec::new(),
        sequence: 0,
        ended: None,
        closing: false,
    };
    Ok(Opened { state, segments: live, written, next_epoch, next_number })
}

fn files(disk: &dyn Disk) -> Result<Vec<Arc<dyn DiskFile>>, Error> {
    let names = disk.list().map_err(|error| Error::io("list the log's directory", error))?;
    let ours = names.into_iter().filter(|name| file_number(name).is_some());
    ours.map(|name| disk.open(&name).map_err(|error| Error::io(format!("open and sync {name}"), error))).collect()
}

fn read(file: &dyn DiskFile, len: usize) -> Result<AlignedBuffer, Error> {
    let mut buffer = AlignedBuffer::new(len);
    file.read(&mut buffer, 0).map_err(|error| Error::io(format!("read {}", file.name()), error))?;
    Ok(buffer)
}

/// All whole blocks of a file.
fn read_all(file: &dyn DiskFile) -> Result<AlignedBuffer, Error> {
    let len = usize::try_from(file.bytes()).unwrap_or(usize::MAX);
    if len > u32::MAX as usize {
        return Err(Error::Corrupt {
            file: file.name().into(),
            offset: 0,
            what: "the file is longer than 4 GiB".into(),
        });
    }
    read(file, len / BLOCK * BLOCK)
}

fn front(file: &dyn DiskFile) -> Result<Result<Opening, Bad>, Error> {
    if file.bytes() < 2 * BLOCK as u64 {
        return Ok(Err(Bad::Truncated));
    }
    let opening = Preamble::decode(&read(file, BLOCK)?);
    Ok(opening.and_then(|opening| match &opening {
        Opening::Segment { preamble, .. } if preamble.segment_bytes != file.bytes() => Err(Bad::Truncated),
        _ => Ok(opening),
    }))
}

fn look(file: Arc<dyn DiskFile>, cluster: u128) -> Result<Found, Error> {
    let front = front(file.as_ref())?;
    let damaged = matches!(&front, Err(bad) if !matches!(bad, Bad::Newer(_)));
    let proof = if damaged { segment::proof_of_life(&read_all(file.as_ref())?, cluster) } else { None };
    Ok(Found { file, front, proof })
}

/// Refuses a file that must not be passed over. `oldest` is the oldest epoch that the log needs.
fn judge(found: &Found, cluster: u128, oldest: u32) -> Result<(), Error> {
    let file = || found.file.name().to_owned();
    let owner = match &found.front {
        Ok(Opening::Segment { cluster, .. } | Opening::Spare { cluster }) => *cluster,
        Err(_) => cluster,
    };
    let front = match &found.front {
        Ok(Opening::Segment { .. }) => Front::Segment,
        Ok(Opening::Spare { .. }) => Front::Spare,
        Err(Bad::Newer(_)) => Front::Newer,
        Err(_) => Front::Damaged,
    };
    let inside = match found.proof {
        None => Inside::Nothing,
        Some(epoch) if epoch < oldest => Inside::Superseded,
        Some(_) => Inside::Needed,
    };
    match (recover::fate(front, owner == cluster, inside), &found.front) {
        (Fate::Segment | Fate::Spare, _) => Ok(()),
        (Fate::Refuse, _) => Err(Error::OtherCluster { file: file(), expected: cluster, found: owner }),
        (Fate::Stop, Err(Bad::Newer(version))) => {
            Err(Error::NewerVersion { file: file(), offset: 0, version: *version, supported: VERSION })
        }
        (Fate::Stop | Fate::Corrupt, Err(bad)) => {
            Err(Error::Corrupt { file: file(), offset: 0, what: format!("the start of a needed segment: {bad}") })
        }
        (Fate::Stop | Fate::Corrupt, Ok(_)) => {
            Err(Error::Corrupt { file: file(), offset: 0, what: "recovery table".to_owned() })
        }
    }
}

/// The oldest epoch still needed: the newest segment knows, in its preamble or in a later purge.
fn oldest_needed(file: &dyn DiskFile, cluster: u128, epoch: u32, preamble: &Preamble) -> Result<u32, Error> {
    let mut oldest = preamble.oldest;
    let bytes = read_all(file)?;
    let walked = recover::walk(&bytes, cluster, epoch, None, |_, group| {
        for record in &group.records {
            if let Body::Purge { oldest: needed, .. } = record.body {
                oldest = oldest.max(needed);
            }
        }
        Ok(())
    });
    walked.map_err(|(offset, what)| corrupt(file, offset, what))?;
    Ok(oldest)
}

fn corrupt(file: &dyn DiskFile, offset: usize, what: String) -> Error {
    Error::Corrupt { file: file.name().to_owned(), offset: offset as u64, what }
}

/// Replays the needed segments, oldest first, and erases what the newest one's walk cuts.
fn replay(segments: &[(&Found, u32, Preamble)], oldest: u32, cluster: u128) -> Result<(VecDeque<Live>, Replay), Error> {
    let links: Vec<_> = segments.iter().map(|(_, epoch, preamble)| (*epoch, preamble.previous_end)).collect();
    let chain = recover::chain(&links, oldest).map_err(|broken| name_broken(segments, broken))?;
    let mut replay = Replay::default();
    let mut live = VecDeque::new();
    for (at, end) in chain {
        let Some((found, epoch, preamble)) = segments.get(at) else { continue };
        let file = &found.file;
        if live.is_empty() {
            (replay.vote, replay.committed, replay.purged) =
                (preamble.vote.clone(), preamble.committed, preamble.purged);
        }
        let bytes = read_all(file.as_ref())?;
        let mut greatest = None;
        let walked = recover::walk(&bytes, cluster, *epoch, end, |position, group| {
            greatest = greatest.max(replay.take(position, group)?);
            Ok(())
        });
        let walked = walked.map_err(|(offset, what)| corrupt(file.as_ref(), offset, what))?;
        if let Some(erase_to) = walked.erase_to.filter(|erase_to| *erase_to > walked.end) {
            let len = blocks(erase_to - walked.end);
            tracing::warn!(
                file = file.name(),
                offset = walked.end,
                len,
                "erasing an unfinished write at the end of the log"
            );
            let zeros = AlignedBuffer::new(len);
            let fail = |error| Error::io(format!("erase {} at offset {}", file.name(), walked.end), error);
            file.write(&zeros, walked.end as u64).map_err(fail)?;
        }
        live.push_back(Live { epoch: *epoch, file: file.clone(), greatest, end: walked.end as u32 });
    }
    if let Some(newest) = live.back() {
        let end = newest.end as usize;
        replay.finish().map_err(|what| corrupt(newest.file.as_ref(), end, what))?;
    }
    Ok((live, replay))
}

fn name_broken(segments: &[(&Found, u32, Preamble)], broken: BrokenChain) -> Error {
    let holder = |epoch: u32| {
        let found = segments.iter().find(|segment| segment.1 == epoch);
        found.map_or_else(|| "log directory".to_owned(), |segment| segment.0.file.name().to_owned())
    };
    let (file, what) = match broken {
        BrokenChain::Twice(epoch) => (holder(epoch), format!("another file holds segment {epoch} as well")),
        BrokenChain::Unlinked(epoch) => (holder(epoch), format!("no later segment continues segment {epoch}")),
        BrokenChain::Missing { epoch, named_by } => {
            (holder(named_by), format!("segment {named_by} continues segment {epoch}, which no file holds"))
        }
    };
    Error::Corrupt { file, offset: 0, what }
}
