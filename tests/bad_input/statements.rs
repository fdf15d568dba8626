//! SQL that does not parse, or asks for what is not there: an error with MySQL's code, and the session goes on.

use holdfast_tests::serve::Serve;
use mysql_async::{Conn, prelude::Queryable};

use crate::{refused, says, still_serves};

/// Statement, code, part of the message.
const CASES: &[(&str, u16, &str)] = &[
    ("SELEC 1", 1064, "near 'SELEC 1'"),
    ("SELECT * FROM", 1064, "near ''"),
    ("SELECT 1 1 FROM t", 1064, "near '1 FROM t'"),
    ("SELECT 'never closed", 1064, "never closed"),
    ("SELECT 1 /* never closed", 1064, "near ''"),
    ("SELECT `a", 1064, "`a"),
    ("", 1065, "Query was empty"),
    ("/* only a comment */", 1065, "Query was empty"),
    ("INSERT INTO t VALUES (1, 2, 3, 4)", 1136, "Column count"),
    ("INSERT INTO t (id, nope) VALUES (1, 2)", 1054, "nope"),
    ("INSERT INTO t VALUES (1, 'x', 'not a date')", 1292, "not a date"),
    ("INSERT INTO t VALUES (99999999999, 'x', NULL)", 1264, "id"),
    ("INSERT INTO t VALUES (1, 'longer than the column', NULL)", 1406, "v"),
    ("INSERT INTO t VALUES (NULL, 'x', NULL)", 1048, "id"),
    ("SELECT * FROM nope", 1146, "bad.nope"),
    ("SELECT nope FROM t", 1054, "nope"),
    ("SELECT nope(1)", 1305, "FUNCTION bad.NOPE does not exist"),
    ("SELECT id FROM t WHERE id = (SELECT 1)", 1235, "yet support"),
    ("SELECT * FROM t JOIN t AS u ON t.id = u.id", 1235, "yet support"),
    ("SELECT 1 UNION SELECT 2", 1235, "yet support"),
    ("CREATE TABLE bad (a INT, a INT)", 1060, "Duplicate column name 'a'"),
    ("CREATE TABLE bad (a NOTATYPE)", 1064, "NOTATYPE"),
    ("CREATE TABLE bad ()", 1064, ")"),
    ("CREATE TABLE t (a INT)", 1050, "already exists"),
    ("DROP TABLE nope", 1051, "bad.nope"),
    ("USE nope", 1049, "nope"),
    ("SET nope = 1", 1193, "nope"),
    ("SET autocommit = 'sometimes'", 1231, "autocommit"),
    ("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE", 1235, "SERIALIZABLE"),
    ("CALL nope()", 1235, "yet support"),
    ("LOAD DATA INFILE 'x' INTO TABLE t", 1235, "yet support"),
    ("KILL 999999", 1094, "Unknown thread id: 999999"),
    ("ROLLBACK TO SAVEPOINT nope", 1305, "nope"),
    ("ALTER TABLE t ADD KEY (nope)", 1072, "nope"),
    ("SELECT 1 FROM t WHERE", 1064, "near ''"),
    ("SELECT 9223372036854775807 + 1", 1690, "out of range"),
    ("INSERT INTO t VALUES (1/0, 'x', NULL)", 1365, "Division by 0"),
    ("SELECT CAST('{bad' AS JSON)", 3141, "Invalid JSON"),
];

#[tokio::test]
async fn statements_that_cannot_be_answered() {
    let folder = tempfile::tempdir().unwrap();
    let server = Serve::new(&folder.path().join("data")).start();
    let mut conn = Conn::from_url(server.url("")).await.unwrap();
    conn.query_drop("CREATE DATABASE bad").await.unwrap();
    conn.query_drop("USE bad").await.unwrap();
    conn.query_drop("CREATE TABLE t (id INT PRIMARY KEY, v VARCHAR(10), d DATE)").await.unwrap();
    let mut wrong = Vec::new();
    for (sql, code, part) in CASES {
        let (got, text) = match conn.query_drop(*sql).await {
            Err(mysql_async::Error::Server(error)) => (error.code, error.message),
            Err(other) => panic!("{sql}: {other}"),
            Ok(()) => (0, "OK".to_owned()),
        };
        println!("* {sql}\n  -> {got}: {text}");
        if got != *code || !text.contains(part) {
            wrong.push(format!("{sql}\n    got {got}: {text}\n    expected {code}: ..{part}.."));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    still_serves(&server).await;
}

/// Statements that are large rather than wrong: bounded work, an answer, no overflow of the stack.
#[tokio::test]
async fn deep_and_long_statements() {
    let folder = tempfile::tempdir().unwrap();
    let server = Serve::new(&folder.path().join("data")).start();
    let mut conn = Conn::from_url(server.url("")).await.unwrap();
    let deep = [
        ("100,000 opening parentheses", format!("SELECT {}1", "(".repeat(100_000))),
        ("100,000 nested parentheses", format!("SELECT {}1{}", "(".repeat(100_000), ")".repeat(100_000))),
        ("100,000 minus signs", format!("SELECT {}1", "- ".repeat(100_000))),
        ("100,000 NOTs", format!("SELECT {}1", "NOT ".repeat(100_000))),
        ("100,000 nested calls", format!("SELECT {}1{}", "ABS(".repeat(100_000), ")".repeat(100_000))),
        ("100,000 nested CASEs", format!("SELECT {}1{}", "CASE WHEN ".repeat(100_000), " THEN 1 END".repeat(100_000))),
        ("100,000 nested subqueries", format!("SELECT {}", "(SELECT ".repeat(100_000))),
    ];
    for (what, sql) in deep {
        let (code, text) = refused(&mut conn, &sql).await;
        says(what, &format!("{code}: {text:.200}"), &[]);
        assert!([1064, 1235, 1436, 3013].contains(&code), "{what}: {code} {text}");
    }
    for (what, sql) in [
        ("a sum of 100,000 terms", format!("SELECT 1{}", " + 1".repeat(100_000))),
        ("an OR of 100,000 terms", format!("SELECT 1{}", " OR 1".repeat(100_000))),
        ("100,000 concatenated strings", format!("SELECT CONCAT('a'{})", ", 'a'".repeat(100_000))),
        ("an IN list of 100,000 values", format!("SELECT 1 IN (0{})", ", 2".repeat(100_000))),
    ] {
        let answer = match conn.query_first::<String, _>(&sql).await {
            Ok(value) => format!("OK, {} bytes", value.unwrap_or_default().len()),
            Err(mysql_async::Error::Server(error)) => format!("{}: {:.200}", error.code, error.message),
            Err(other) => panic!("{what}: {other}"),
        };
        says(what, &answer, &[]);
    }
    still_serves(&server).await;
}
