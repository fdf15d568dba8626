//! No cold start: a leader notes now and then which pages its readers have in RAM, as an object in the bucket; a node that
//! starts, or that takes over, fetches those pages at a bounded rate while it serves already.
//!
//! A list is a hint: pages of objects that are no longer in force are left out, and a list that can't be read is only told of.

mod plan;
pub(crate) mod run;

use std::sync::atomic::AtomicU64;

/// Where the lists are, below the folder of an incarnation: `hot/<term>-<ulid>`, the newest counts.
const FOLDER: &str = "hot/";

/// What warming did.
#[derive(Default)]
pub(crate) struct Warmth {
    /// Pages put into RAM from a list.
    pub(crate) pages: AtomicU64,
    /// Lists worked through.
    pub(crate) lists_read: AtomicU64,
    /// Lists written.
    pub(crate) lists_written: AtomicU64,
}
