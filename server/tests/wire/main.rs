//! The MySQL port as clients see it: logins, commands, results, bad input, limits. Sessions are scripted, so that only
//! the wire is under test; clients are mysql_async, the mariadb command line, and raw bytes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods, missing_docs)]

mod bad_input;
mod commands;
mod login;
mod raw;
mod script;
