//! What the archive does next, and which of its objects rebuild a cluster. Pure.

use std::{ops::RangeInclusive, time::Duration};

use holdfast_wal::{Entry, Payload as LogPayload};

use crate::{
    error::{Error, Result},
    format::{archive::ArchivePoint, batch::Payload},
};

/// Time in which those who waited for an object commit again.
const GATHER: Duration = Duration::from_millis(4);
/// How many times as full as planned an object may be.
const FOLD_MAX: u64 = 4;

/// The name of an archive object: which entries it has, the term of the leader that wrote it, and a ULID, so that it is
/// used once. Names sort by their first entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name {
    /// Index of its first entry.
    pub first: u64,
    /// Index of its last entry.
    pub last: u64,
    /// Raft term of the leader that wrote it.
    pub term: u64,
    /// ULID.
    pub ulid: u128,
}

impl Name {
    /// The key's last part.
    pub fn text(&self) -> String {
        format!("{:016x}-{:016x}-{:08x}-{}", self.first, self.last, self.term, ulid::Ulid(self.ulid))
    }

    /// Reads a key's last part; `None` for a name of another shape, which is not ours.
    pub fn parse(key: &str) -> Option<Self> {
        let mut parts = key.rsplit('/').next()?.split('-');
        let mut number = || u64::from_str_radix(parts.next()?, 16).ok();
        let (first, last, term) = (number()?, number()?, number()?);
        let ulid = ulid::Ulid::from_string(parts.next()?).ok()?.0;
        (parts.next().is_none() && 0 < first && first <= last).then_some(Self { first, last, term, ulid })
    }
}

/// The folder of the archive of an incarnation, whose own folder this is.
pub fn folder(incarnation: &str) -> String {
    format!("{incarnation}wal/")
}

/// How far the archive comes by these entries, which must follow on `from`; `None` if they hold nothing but the archive's
/// own marks, so that an idle cluster goes quiet.
pub fn piece(from: ArchivePoint, entries: &[Entry]) -> Result<Option<ArchivePoint>> {
    let mut point = from;
    let mut news = false;
    for entry in entries {
        if entry.id.index != point.up_to.index + 1 || entry.id.term < point.up_to.term {
            return Err(Error::Corrupt(format!(
                "log entry {} of term {} behind entry {} of term {}",
                entry.id.index, entry.id.term, point.up_to.index, point.up_to.term
            )));
        }
        point.up_to = entry.id;
        let payload = match &entry.payload {
            LogPayload::Normal(payload) if Payload::is_archived(payload) => continue,
            LogPayload::Normal(payload) => payload,
            LogPayload::Blank | LogPayload::Membership(_) => {
                news = true;
                continue;
            }
        };
        news = true;
        // As apply decides it (rule 1).
        if Payload::is_edit(payload)
            && let Payload::Edit { base, manifest, up_to } = Payload::decode(payload)?
            && base == point.manifest
        {
            (point.manifest, point.covered) = (manifest, up_to);
        }
    }
    Ok(news.then_some(point))
}

/// The last object: when its entries were taken, and when those who waited for them were told.
#[derive(Clone, Copy, Debug)]
pub struct Stored {
    pub taken: Duration,
    pub told: Duration,
}

/// How long the next object waits: not at all when it is full, else until the interval since the last one has passed, and until
/// those who were told of the last one have had the time to commit again: an object with the first of them would let the
/// others wait for two.
pub fn pause(last: Option<Stored>, now: Duration, interval: Duration, waiting: u64, full: u64) -> Duration {
    match last {
        Some(Stored { taken, told }) if waiting < full => {
            (taken + interval).max(told + interval.min(GATHER)).saturating_sub(now)
        }
        _ => Duration::ZERO,
    }
}

/// Bytes of payload for the next object: more than full ones while much waits, so that a store of long answers keeps up.
pub fn size(waiting: u64, full: usize) -> usize {
    let fold = waiting / (full as u64).max(1);
    full.saturating_mul(fold.clamp(1, FOLD_MAX) as usize)
}

/// No object holds entries that a rebuild needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hole {
    /// The entries that no object has.
    pub missing: RangeInclusive<u64>,
    /// The object that ends in front of them.
    pub before: Option<Name>,
    /// The object that begins behind them.
    pub after: Option<Name>,
}

/// The objects that hold the entries of `needed`, in order of their first entry. Objects that overlap are all among them,
/// so that they can be compared.
pub fn chain(names: &[Name], needed: RangeInclusive<u64>) -> Result<Vec<Name>, Box<Hole>> {
    let mut found: Vec<Name> =
        names.iter().filter(|name| name.last >= *needed.start() && name.first <= *needed.end()).copied().collect();
    found.sort_unstable();
    let mut next = *needed.start();
    let mut before: Option<Name> = None;
    for name in &found {
        if name.first > next {
            return Err(Box::new(Hole { missing: next..=name.first - 1, before, after: Some(*name) }));
        }
        if name.last >= next {
            (next, before) = (name.last + 1, Some(*name));
        }
    }
    if next <= *needed.end() {
        return Err(Box::new(Hole { missing: next..=*needed.end(), before, after: None }));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use holdfast_wal::LogId;
    use proptest::prelude::*;

    use super::*;
    use crate::format::manifest::ManifestId;

    fn id(term: u64, index: u64) -> LogId {
        LogId { term, index }
    }

    fn entry(index: u64, payload: LogPayload) -> Entry {
        Entry { id: id(1, index), payload }
    }

    fn normal(index: u64, payload: Payload) -> Entry {
        entry(index, LogPayload::Normal(payload.encode()))
    }

    fn name(first: u64, last: u64) -> Name {
        Name { first, last, term: 2, ulid: 3 }
    }

    fn manifest(ulid: u128) -> ManifestId {
        ManifestId { term: 1, ulid }
    }

    #[test]
    fn names_sort_by_their_first_entry_and_read_back() {
        let names = [name(9, 20), name(10, 12), name(10, 300), name(256, 256)];
        assert!(names.windows(2).all(|pair| pair[0] < pair[1] && pair[0].text() < pair[1].text()));
        for name in names {
            assert_eq!(Name::parse(&format!("a/b/wal/{}", name.text())), Some(name));
        }
        for other in ["", "a/wal/notes.txt", "0001-01ARZ3NDEKTSV4RRFFQ69G5FAV", &name(5, 4).text()] {
            assert_eq!(Name::parse(other), None, "{other}");
        }
    }

    #[test]
    fn marks_alone_are_no_news() {
        let from = ArchivePoint { up_to: id(1, 4), ..ArchivePoint::default() };
        let mark = |index| normal(index, Payload::Archived(Some(from)));
        assert_eq!(piece(from, &[]), Ok(None));
        assert_eq!(piece(from, &[mark(5), mark(6)]), Ok(None));
        let with_blank = [mark(5), entry(6, LogPayload::Blank), mark(7)];
        assert_eq!(piece(from, &with_blank), Ok(Some(ArchivePoint { up_to: id(1, 7), ..from })));
        assert!(piece(from, &[mark(6)]).is_err(), "a hole in what the log gave");
    }

    #[test]
    fn the_manifest_in_force_is_followed_as_apply_does() {
        let edit = |index, base, next, covered| {
            normal(index, Payload::Edit { base: manifest(base), manifest: manifest(next), up_to: id(1, covered) })
        };
        let from = ArchivePoint { up_to: id(1, 9), manifest: manifest(1), covered: id(1, 2) };
        let entries = [edit(10, 1, 2, 5), edit(11, 1, 3, 6), normal(12, Payload::Freeze), edit(13, 2, 4, 5)];
        let point = piece(from, &entries).unwrap().unwrap();
        assert_eq!(point, ArchivePoint { up_to: id(1, 13), manifest: manifest(4), covered: id(1, 5) });
        let broken = entry(10, LogPayload::Normal(Bytes::from_static(b"HFLP\x01\x06garbage")));
        assert!(piece(from, &[broken]).is_err());
    }

    #[test]
    fn an_object_waits_for_its_interval_unless_it_is_full() {
        let ms = Duration::from_millis;
        let last = Some(Stored { taken: ms(5), told: ms(55) });
        assert_eq!(pause(None, ms(5), ms(1000), 1, 100), ms(0), "the first one waits for nothing");
        assert_eq!(pause(last, ms(105), ms(1000), 1, 100), ms(900));
        assert_eq!(pause(last, ms(105), ms(1000), 100, 100), ms(0));
        assert_eq!(pause(last, ms(9000), ms(1000), 1, 100), ms(0));
        // The store takes longer than the interval.
        assert_eq!([56, 59, 60].map(|now| pause(last, ms(now), ms(10), 1, 100)), [ms(3), ms(0), ms(0)]);
    }

    #[test]
    fn objects_grow_while_much_waits() {
        assert_eq!([0, 99, 100, 199, 250, 10_000].map(|waiting| size(waiting, 100)), [100, 100, 100, 100, 200, 400]);
    }

    #[test]
    fn a_chain_needs_every_entry_and_takes_what_overlaps() {
        let names = [name(21, 30), name(1, 10), name(5, 12), name(11, 20)];
        assert_eq!(chain(&names, 11..=25), Ok(vec![name(5, 12), name(11, 20), name(21, 30)]));
        assert_eq!(chain(&names, 26..=30), Ok(vec![name(21, 30)]));
        assert_eq!(chain(&[], RangeInclusive::new(4, 3)), Ok(vec![]), "a manifest that covers everything");
        let hole = *chain(&[name(1, 10), name(21, 30)], 5..=30).unwrap_err();
        assert_eq!(hole, Hole { missing: 11..=20, before: Some(name(1, 10)), after: Some(name(21, 30)) });
        assert_eq!(chain(&[name(5, 9)], 3..=9).unwrap_err().missing, 3..=4);
        assert_eq!(chain(&[name(5, 9)], 5..=12).unwrap_err().missing, 10..=12);
    }

    proptest! {
        /// A chain is found exactly when every entry is in some object.
        #[test]
        fn a_chain_is_found_if_there_is_one(
            pieces in proptest::collection::vec((1u64..40, 0u64..8), 0..12), start in 1u64..40, len in 0u64..20,
        ) {
            let names: Vec<Name> = pieces.iter().map(|(first, more)| name(*first, first + more)).collect();
            let needed = start..=start + len;
            let has = |index| names.iter().any(|name| name.first <= index && index <= name.last);
            match chain(&names, needed.clone()) {
                Ok(found) => {
                    prop_assert!(needed.clone().all(has));
                    prop_assert!(found.windows(2).all(|pair| pair[0].first <= pair[1].first));
                }
                Err(hole) => {
                    prop_assert!(hole.missing.clone().all(|index| needed.contains(&index) && !has(index)));
                    prop_assert!(!hole.missing.is_empty());
                }
            }
        }
    }
}
