//! Reading entries back: RAM tail first, else the device, checked record by record.

use std::{ops::Range, sync::Arc};

use super::{
    LogEntry,
    index::GroupRef,
    state::{Shared, State},
};
use crate::{
    Error,
    disk::{DiskFile, buffer::AlignedBuffer},
    record::{Body, blocks},
    segment,
};

/// Neighbouring groups are read together up to so many bytes.
const READ_BYTES: usize = 1 << 20;

/// Groups that lie side by side in one file.
struct Run {
    file: Arc<dyn DiskFile>,
    groups: Vec<GroupRef>,
    bytes: usize,
}

/// What one look at the state yields.
enum Source {
    Ram(Vec<LogEntry>),
    Disk(Run),
}

/// Entries of the range until `max_bytes` of payload are reached; see [`super::Log::read`].
pub fn read(shared: &Shared, range: Range<u64>, max_bytes: usize) -> Result<Vec<LogEntry>, Error> {
    let mut entries: Vec<LogEntry> = Vec::new();
    let mut bytes = 0;
    let mut next = range.start;
    while next < range.end && (entries.is_empty() || bytes < max_bytes) {
        let state = shared.lock();
        let source = look(&state, next..range.end, max_bytes.saturating_sub(bytes))?;
        drop(state);
        let found = match source {
            Source::Ram(found) => found,
            Source::Disk(run) => match read_run(&run, next..range.end, shared.options.cluster) {
                Ok(found) => found,
                Err(error) => {
                    // A purge may have recycled the file under the read; then this is no corruption.
                    check(&shared.lock(), next..range.end)?;
                    return Err(error);
                }
            },
        };
        for entry in found {
            if !entries.is_empty() && bytes >= max_bytes {
                break;
            }
            bytes += entry.payload.len();
            next = entry.id.index + 1;
            entries.push(entry);
        }
    }
    Ok(entries)
}

/// Whether the whole range is in the log.
fn check(state: &State, range: Range<u64>) -> Result<(), Error> {
    if let Some(error) = &state.ended {
        return Err(error.clone());
    }
    let end = state.next.unwrap_or(0);
    let first = state.first.unwrap_or(end);
    if range.start < first {
        return Err(Error::Purged { index: range.start, first });
    }
    if range.end > end {
        return Err(Error::BeyondEnd { index: range.end - 1, end });
    }
    Ok(())
}

fn look(state: &State, range: Range<u64>, max_bytes: usize) -> Result<Source, Error> {
    check(state, range.clone())?;
    if let Some(held) = state.tail.from(range.start) {
        let mut bytes = 0;
        let within = held.take_while(|entry| {
            let wanted = entry.id.index < range.end && (bytes < max_bytes || entry.id.index == range.start);
            bytes += entry.payload.len();
            wanted
        });
        return Ok(Source::Ram(within.cloned().collect()));
    }
    let mut run: Option<Run> = None;
    let mut next = range.start;
    while let Some(group) = state.index.find(next).filter(|_| next < range.end) {
        let run = match &mut run {
            None => {
                let epoch = group.position.epoch();
                let Some(segment) = state.segments.iter().find(|segment| segment.epoch == epoch) else { break };
                run.insert(Run { file: segment.file.clone(), groups: Vec::new(), bytes: 0 })
            }
            Some(run) => {
                let adjacent =
                    run.groups.first().is_some_and(|first| first.position.0 + run.bytes as u64 == group.position.0);
                if !adjacent || run.bytes + blocks(group.len as usize) > READ_BYTES.min(max_bytes.saturating_mul(2)) {
                    break;
                }
                run
            }
        };
        run.bytes += blocks(group.len as usize);
        run.groups.push(group);
        next = group.first + u64::from(group.count);
    }
    let lost = || Error::Corrupt {
        file: "log index".into(),
        offset: 0,
        what: format!("entry {} is not indexed", range.start),
    };
    run.map(Source::Disk).ok_or_else(lost)
}

fn read_run(run: &Run, range: Range<u64>, cluster: u128) -> Result<Vec<LogEntry>, Error> {
    let corrupt = |offset, what: String| Error::Corrupt { file: run.file.name().to_owned(), offset, what };
    let Some(start) = run.groups.first().map(|group| group.position) else { return Ok(Vec::new()) };
    let mut buffer = AlignedBuffer::new(run.bytes);
    let offset = u64::from(start.offset());
    let fail = |error| Error::io(format!("read of {} at offset {offset}", run.file.name()), error);
    run.file.read(&mut buffer, offset).map_err(fail)?;
    let mut entries = Vec::new();
    for group in &run.groups {
        let at = (group.position.0 - start.0) as usize; // within the buffer, by construction of the run
        let group_offset = u64::from(group.position.offset());
        let bytes = buffer.get(at..at + group.len as usize).unwrap_or_default();
        let found = segment::read_group(bytes, cluster, group.position)
            .map_err(|(inside, bad)| corrupt(group_offset + inside as u64, bad.to_string()))?;
        let mut next = group.first;
        for record in found.records {
            let Body::Entry(entry) = record.body else { continue };
            if entry.id.index != next {
                // A cut later in the stream took the rest of the group.
                break;
            }
            next += 1;
            if range.contains(&entry.id.index) && entry.id.index < group.first + u64::from(group.count) {
                entries.push(entry);
            }
        }
        if next < (group.first + u64::from(group.count)).min(range.end) {
            return Err(corrupt(group_offset, format!("entry {next} is not in its group")));
        }
    }
    Ok(entries)
}
