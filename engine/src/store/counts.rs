//! Counts every request to the bucket, by kind and by what it was for.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// What kind of request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Reads an object or a range of it.
    Get,
    /// Writes an object.
    Put,
    /// Reads an object's properties.
    Head,
    /// Lists a page of keys.
    List,
    /// Deletes an object.
    Delete,
}

/// What a request was for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    /// A page that a reader needs.
    Page,
    /// An object's index and filter.
    Tail,
    /// A manifest.
    Manifest,
    /// The owner record.
    Owner,
    /// A flush.
    Flush,
    /// A compaction.
    Compaction,
    /// Deleting what is dead.
    Gc,
    /// The store probe.
    Probe,
    /// The log archive.
    Archive,
    /// Checking what is stored (`admin fsck`).
    Check,
    /// A frozen memtable on local disk, which is a store of its own.
    Spill,
    /// Filling a cold cache with what was hot.
    Warm,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 5] = [Self::Get, Self::Put, Self::Head, Self::List, Self::Delete];

    /// Its name in metrics and tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::Put => "put",
            Self::Head => "head",
            Self::List => "list",
            Self::Delete => "delete",
        }
    }
}

impl Cause {
    /// Every cause.
    pub const ALL: [Self; 12] = [
        Self::Page,
        Self::Tail,
        Self::Manifest,
        Self::Owner,
        Self::Flush,
        Self::Compaction,
        Self::Gc,
        Self::Probe,
        Self::Archive,
        Self::Check,
        Self::Spill,
        Self::Warm,
    ];

    /// Whether readers wait for what is read for it.
    pub(super) fn is_foreground(self) -> bool {
        matches!(self, Self::Page | Self::Tail | Self::Manifest)
    }

    /// Its name in metrics and tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Page => "page",
            Self::Tail => "tail",
            Self::Manifest => "manifest",
            Self::Owner => "owner",
            Self::Flush => "flush",
            Self::Compaction => "compaction",
            Self::Gc => "gc",
            Self::Probe => "probe",
            Self::Archive => "archive",
            Self::Check => "check",
            Self::Spill => "spill",
            Self::Warm => "warm",
        }
    }
}

/// The requests of one kind for one cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestCount {
    /// Kind.
    pub kind: Kind,
    /// Cause.
    pub cause: Cause,
    /// Requests made, retries included.
    pub requests: u64,
    /// Bytes of bodies sent or received.
    pub bytes: u64,
    /// Requests that failed (an absent object or a lost condition is no failure).
    pub errors: u64,
}

/// Requests made so far; combinations that never happened are left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Requests(pub Vec<RequestCount>);

impl Requests {
    /// Requests of one kind, whatever the cause.
    pub fn of_kind(&self, kind: Kind) -> u64 {
        self.0.iter().filter(|count| count.kind == kind).map(|count| count.requests).sum()
    }

    /// Bytes of one kind, whatever the cause.
    pub fn bytes_of_kind(&self, kind: Kind) -> u64 {
        self.0.iter().filter(|count| count.kind == kind).map(|count| count.bytes).sum()
    }
}

#[derive(Default)]
struct Cell {
    requests: AtomicU64,
    bytes: AtomicU64,
    errors: AtomicU64,
}

/// The running counters.
#[derive(Default)]
pub(super) struct Counters([[Cell; Cause::ALL.len()]; Kind::ALL.len()]);

impl Counters {
    fn cell(&self, kind: Kind, cause: Cause) -> &Cell {
        &self.0[kind as usize][cause as usize]
    }

    pub(super) fn add_request(&self, kind: Kind, cause: Cause) {
        self.cell(kind, cause).requests.fetch_add(1, Relaxed);
    }

    pub(super) fn add_bytes(&self, kind: Kind, cause: Cause, bytes: u64) {
        self.cell(kind, cause).bytes.fetch_add(bytes, Relaxed);
    }

    pub(super) fn add_error(&self, kind: Kind, cause: Cause) {
        self.cell(kind, cause).errors.fetch_add(1, Relaxed);
    }

    pub(super) fn read(&self) -> Requests {
        let pairs = Kind::ALL.into_iter().flat_map(|kind| Cause::ALL.into_iter().map(move |cause| (kind, cause)));
        let counts = pairs.map(|(kind, cause)| {
            let cell = self.cell(kind, cause);
            let (requests, bytes) = (cell.requests.load(Relaxed), cell.bytes.load(Relaxed));
            RequestCount { kind, cause, requests, bytes, errors: cell.errors.load(Relaxed) }
        });
        Requests(counts.filter(|count| count.requests > 0).collect())
    }
}
