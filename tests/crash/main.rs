//! Crash tests: kill -9, lost power, faulty disks.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)] // tests: a failed set-up is a failed test
#![allow(clippy::disallowed_methods, clippy::print_stdout)] // they time starts of real processes and print what they found
#![allow(clippy::field_reassign_with_default)] // a disk's fields are partly private

mod kill;
mod power;
mod volatile_disk;
