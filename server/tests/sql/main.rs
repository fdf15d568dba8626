//! SQL through sessions, over a real database in a temporary folder.
#![allow(clippy::disallowed_methods)] // the server reads clocks

mod ddl;
mod dml;
mod harness;
mod query;
mod sysbench;
mod transactions;
