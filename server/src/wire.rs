//! The MySQL wire protocol: packets, handshake, authentication, commands, results. Bytes only: no sessions, no SQL.
pub mod codec;
pub mod consts;
pub mod packet;
pub mod reply;
pub mod result;
pub mod row;
