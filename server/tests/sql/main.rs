//! SQL through sessions, over a real database in a temporary folder.
#![allow(clippy::disallowed_methods)] // the server reads clocks
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a failed helper is a failed test

mod ddl;
mod dml;
mod harness;
mod query;
mod sysbench;
mod transactions;
