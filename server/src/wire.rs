//! The MySQL wire protocol: packets, handshake, authentication, commands, results. Bytes only: no sessions, no SQL.
pub mod auth;
pub mod codec;
pub mod command;
pub mod consts;
pub mod handshake;
pub mod packet;
pub mod params;
pub mod reply;
pub mod result;
pub mod row;
