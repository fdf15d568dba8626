//! Library behind the `holdfast` binary: MySQL wire, SQL, catalog, admin, metrics.
//! It must never know pages, S3 or Raft.
#![allow(missing_docs, reason = "public for the binary and the tests only; what a name doesn't say is documented")]
#![allow(clippy::disallowed_methods)] // not simulated: the server may read clocks
#![allow(clippy::wrong_self_convention)] // parser methods are named after SQL clauses: from, into, is

pub mod admin;
pub mod backend;
pub mod bench;
pub mod catalog;
pub mod cli;
pub mod config;
pub mod connection;
pub mod errmap;
pub mod exec;
pub mod key;
pub mod listen;
pub mod logging;
pub mod metrics;
pub mod node;
pub mod probe;
pub mod processlist;
pub mod row;
pub mod session;
pub mod sql;
pub mod tls;
pub mod users;
pub mod variables;
pub mod wire;
