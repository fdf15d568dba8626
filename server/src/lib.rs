//! Library behind the `holdfast` binary: MySQL wire, SQL, catalog, admin, metrics.
//! It must never know pages, S3 or Raft.
#![allow(clippy::disallowed_methods)] // not simulated: the server may read clocks
#![allow(clippy::wrong_self_convention)] // parser methods are named after SQL clauses: from, into, is

pub mod admin;
pub mod allocator;
pub mod backend;
pub mod bench;
mod catalog;
pub mod cli;
pub mod config;
pub mod connection;
mod errmap;
mod exec;
pub mod forward;
mod key;
pub mod listen;
pub mod logging;
pub mod metrics;
pub mod node;
pub mod probe;
pub mod processlist;
mod row;
pub mod session;
pub mod sql;
pub mod tls;
pub mod users;
mod variables;
pub mod wire;
