//! The local log through its public interface, on the simulated disk and on both real ones.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "test code")]

mod basics;
mod faults;
mod full;
mod power;
mod rot;
mod support;
