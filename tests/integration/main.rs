//! Integration tests: a real `holdfast` process, a real S3 server, real MySQL clients.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)] // tests: a failed set-up is a failed test

mod s3_server;
mod store_on_s3;
