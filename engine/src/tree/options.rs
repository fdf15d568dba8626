//! Owns the options of a tree: how large its pages, objects and levels are.

use std::{path::PathBuf, time::Duration};

use crate::{compact::plan::Limits, config::Options, format::page::Codec, store::owner::Owner};

/// Bytes of pages after which an object ends, unless an option says so.
pub(crate) const OBJECT_BYTES: u64 = 16 << 20;
/// Bytes of a page before compression: to read one from NVMe takes four blocks of the device.
pub(crate) const PAGE_BYTES: usize = (16 << 10) - holdfast_cache::SLOT_OVERHEAD;

/// Options of [`super::Tree::open`].
#[derive(Clone, Debug)]
pub struct TreeOptions {
    /// Whom the store belongs to; everything lives under its folder.
    pub owner: Owner,
    /// Local file that names the current manifest; written and synced before [`super::Tree::install`] returns.
    pub pointer: Option<PathBuf>,
    /// Bytes of a page before compression.
    pub page_bytes: usize,
    /// Bytes of pages after which an object ends.
    pub object_bytes: u64,
    /// How page bodies are stored.
    pub codec: Codec,
    /// Fresh runs that trigger a compaction.
    pub fresh_runs: usize,
    /// Bytes of the first level before it gets another below it.
    pub level_bytes: u64,
    /// How long an object that nothing refers to stays in the bucket.
    pub grace: Duration,
    /// Bound of the memory that indexes and filters take: some 1 % of the bytes that are read from.
    pub tail_bytes: u64,
}

impl TreeOptions {
    /// What a database's options say, for `owner`.
    pub(crate) fn of(options: &Options, owner: Owner) -> Self {
        Self { page_bytes: options.page_bytes, object_bytes: options.object_bytes, ..Self::new(owner) }
    }

    /// The defaults, for `owner`.
    pub fn new(owner: Owner) -> Self {
        Self {
            owner,
            pointer: None,
            page_bytes: PAGE_BYTES,
            object_bytes: OBJECT_BYTES,
            codec: Codec::Raw,
            fresh_runs: 4,
            level_bytes: 1024 * 1024 * 1024,
            grace: Duration::from_secs(10),
            tail_bytes: 64 * 1024 * 1024,
        }
    }

    pub(super) fn limits(&self) -> Limits {
        Limits {
            fresh_runs: self.fresh_runs,
            last_level_bytes: self.level_bytes,
            level_bytes_min: self.level_bytes / 4,
        }
    }
}
