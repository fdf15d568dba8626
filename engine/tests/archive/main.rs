//! The log archive and what is rebuilt from it, through the engine's front door.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed test may panic")]

mod bucket;
mod fence;
mod keeping;
mod recovery;
