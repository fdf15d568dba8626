//! Bad input of every kind against real servers: what was done and what was printed (`--no-capture` shows both), and that
//! each gets a clear error or is survived: never a panic, never silence.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)] // tests: a failed set-up is a failed test
#![allow(clippy::disallowed_methods)] // real processes: wall time
#![allow(clippy::print_stdout)] // showing what was printed is what these tests are for

mod big;
mod bucket;
mod directory;
mod flags;
mod full_disk;
mod limits;
mod log_files;
mod objects;
mod packets;
mod raw;
mod statements;

use holdfast_tests::serve::{Exit, Server, run};
use mysql_async::{Conn, Error, prelude::Queryable};

/// Shows a case: what was done, what was printed. Fails if the printed text lacks one of `parts`, or tells of a panic.
fn says(done: &str, printed: &str, parts: &[&str]) {
    println!("\n* {done}\n  -> {}", printed.trim_end().replace('\n', "\n     "));
    for part in parts {
        assert!(printed.contains(part), "{done}: no {part:?} in\n{printed}");
    }
    assert!(!printed.contains("panicked"), "{done}: a panic:\n{printed}");
}

/// A process that had to end by itself with an error, which is the last line that it printed.
fn fails(done: &str, exit: &Exit, parts: &[&str]) {
    let error = exit.output.find("holdfast: error:").or_else(|| exit.output.find("error:"));
    let error = error.map_or("", |at| &exit.output[at..]);
    says(done, &format!("exit code {:?}\n{error}", exit.code), parts);
    assert!(matches!(exit.code, Some(1 | 2)), "{done}: {exit:?}");
    assert!(!exit.output.contains("panicked"), "{done}: {exit:?}");
}

/// Code and text of the error that a statement must get.
async fn refused(conn: &mut Conn, sql: &str) -> (u16, String) {
    match conn.query_drop(sql).await {
        Err(Error::Server(error)) => (error.code, error.message),
        Err(other) => panic!("{sql:.80}: {other}"),
        Ok(()) => panic!("{sql:.80}: no error"),
    }
}

/// `holdfast admin VERB` against a running server.
fn admin(server: &Server, verb: &str) -> Exit {
    run(["admin", verb, "--addr", &server.admin], Vec::new())
}

/// Writes all that the server has in memory to its bucket.
fn checkpoint(server: &Server) {
    let exit = admin(server, "checkpoint");
    assert_eq!(exit.code, Some(0), "{exit:?}");
}

/// The server still serves, and has not panicked meanwhile.
async fn still_serves(server: &Server) {
    let mut conn = Conn::from_url(server.url("")).await.expect("connect");
    assert_eq!(conn.query_first("SELECT 40 + 2").await.expect("query"), Some(42));
    conn.disconnect().await.expect("disconnect");
    let log = server.log();
    assert!(!log.contains("panicked"), "{log}");
}
