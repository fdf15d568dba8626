//! Flush: frozen memtables become one fresh run and a manifest.

pub(crate) mod plan;
pub(crate) mod run;
pub(crate) mod source;
