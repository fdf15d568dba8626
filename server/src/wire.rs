//! The MySQL wire protocol: packets, handshake, commands, results.
pub mod result;
