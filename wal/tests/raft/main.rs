//! The log through its front: one voter and three, restarts, power loss, failures.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod cluster;
mod faults;
mod machine;
mod restart;
mod single;
mod tcp;
mod tls;
