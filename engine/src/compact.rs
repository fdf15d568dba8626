//! Compaction: keeps the number of runs, the space of dead versions and the reach of tombstones bounded.

pub(crate) mod parts;
pub(crate) mod plan;
pub(crate) mod rest;
pub(crate) mod run;
pub(crate) mod work;
