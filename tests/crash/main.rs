//! Crash tests: lost power, faulty disks.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)] // a test: a failed set-up is a failed test

mod volatile_disk;
