//! A store that is slow, fails, or panics.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed test may panic")]

mod bucket;
mod idle;
mod spill;
mod voters;
mod waiting;
