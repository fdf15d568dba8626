//! Integration tests: a real `holdfast` process, a real S3 server, real MySQL clients.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)] // tests: a failed set-up is a failed test
#![allow(clippy::print_stdout, clippy::disallowed_methods)] // the longer ones time real processes and print what they measured

mod admin;
mod crowd;
mod larger_than_ram;
mod outage;
mod readme;
mod s3_server;
mod space;
mod store_on_s3;
mod total_loss;
