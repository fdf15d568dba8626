//! Three real processes and a bucket: leaders that are killed, frozen or replaced under a checking load.
#![allow(clippy::disallowed_methods, reason = "tests drive real processes: they need wall time")]
#![allow(clippy::print_stdout, reason = "they print what they measured")]
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a failed test may panic")]

mod clients;
mod disk;
mod forward;
mod join;
mod kill;
mod loss;
mod members;
mod partition;
mod sql;
