//! Crash tests: kill -9, lost power, faulty disks.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::field_reassign_with_default
)] // tests over real processes

mod kill;
mod power;
mod volatile_disk;
