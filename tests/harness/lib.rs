//! The test harness: a real S3 server, real `holdfast` processes, fault injection and checkers.
#![allow(clippy::disallowed_methods)] // the harness drives real processes: it needs wall time and threads
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)] // in a test, a failed set-up is a failed test

pub mod authority;
pub mod bucket_log;
pub mod cluster;
pub mod fuse;
pub mod ledger;
pub mod linear;
pub mod netns;
pub mod ports;
pub mod process;
pub mod proxy;
pub mod rows;
pub mod s3;
pub mod serve;
pub mod volatile;
