//! Schema changes.

pub mod create;
