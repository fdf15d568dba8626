//! Library behind the `holdfast` binary: MySQL wire, SQL, catalog, admin, metrics.
//! It must never know pages, S3 or Raft.
#![allow(missing_docs)] // SKELETON: removed once the authors have filled it
#![allow(clippy::disallowed_methods)] // not simulated: the server may read clocks

pub mod processlist;
pub mod session;
pub mod sql;
pub mod wire;
