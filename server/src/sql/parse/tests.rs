//! What the parser accepts and refuses, statement by statement.

use proptest::prelude::*;

use super::*;
use crate::sql::digest::Digest;

/// One statement a line; all must parse.
const ACCEPTED: &str = include_str!("tests/accepted.sql");
/// One statement a line; none may parse.
const REJECTED: &str = include_str!("tests/rejected.sql");

fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("--"))
}

#[test]
fn accepted_statements_parse() {
    let failed: Vec<String> = lines(ACCEPTED)
        .filter_map(|sql| {
            parse_one(sql.as_bytes(), SqlMode::DEFAULT).err().map(|error| format!("{sql}\n    {}", error.message))
        })
        .collect();
    assert!(failed.is_empty(), "{} failed:\n{}", failed.len(), failed.join("\n"));
}

#[test]
fn rejected_statements_do_not_parse() {
    for sql in lines(REJECTED) {
        let error = parse_one(sql.as_bytes(), SqlMode::DEFAULT).expect_err(sql);
        assert!([1064, 1065, 1525, 1425, 1426, 1427, 1115, 1273, 1074].contains(&error.code), "{sql}: {error}");
    }
}

#[test]
fn a_syntax_error_names_place_and_line() {
    let error = parse_one(b"SELECT 1\nFROM t WHERE WHERE x", SqlMode::DEFAULT).unwrap_err();
    assert_eq!(
        error.message,
        "You have an error in your SQL syntax; check the manual that corresponds to your MySQL server version for the right syntax to use \
         near 'WHERE x' at line 2"
    );
    assert_eq!(&error.sqlstate, b"42000");
}

#[test]
fn statements_split_at_semicolons() {
    let found = parse(b"select 1; ;select 2 ;", SqlMode::DEFAULT).unwrap();
    assert_eq!(found.iter().map(|parsed| parsed.span.clone()).collect::<Vec<_>>(), vec![0..8, 11..19]);
    assert_eq!(parse(b" -- nothing", SqlMode::DEFAULT).unwrap()[0].statement, Statement::Empty);
    let (_, next) = parse_first(b"select 1; garbage", SqlMode::DEFAULT).unwrap();
    assert_eq!(next, 10);
}

#[test]
fn deep_and_long_statements_do_not_overflow_the_stack() {
    let nested = format!("SELECT {}1{}", "(".repeat(10_000), ")".repeat(10_000));
    assert_eq!(parse_one(nested.as_bytes(), SqlMode::DEFAULT).unwrap_err().code, 1436);
    let minus = format!("SELECT {}1", "- ".repeat(10_000));
    assert_eq!(parse_one(minus.as_bytes(), SqlMode::DEFAULT).unwrap_err().code, 1436);
    let queries = format!("{}SELECT 1{}", "SELECT * FROM (".repeat(5_000), ") t".repeat(5_000));
    assert_eq!(parse_one(queries.as_bytes(), SqlMode::DEFAULT).unwrap_err().code, 1436);
    let long = format!("SELECT 1 FROM t WHERE a = 0{}", " OR a = 1".repeat(20_000));
    assert!(parse_one(long.as_bytes(), SqlMode::DEFAULT).is_ok());
}

fn digest(sql: &str) -> Option<(String, Vec<Value>)> {
    let mut digest = Digest::default();
    digest
        .compute(sql.as_bytes(), SqlMode::DEFAULT)
        .then(|| (String::from_utf8_lossy(digest.text()).into_owned(), digest.literals().to_vec()))
}

#[test]
fn digests_take_out_values_and_nothing_else() {
    for (sql, text, count) in [
        ("SELECT c FROM sbtest1 WHERE id=42", "SELECT c FROM sbtest1 WHERE id=?", 1),
        (
            "SELECT c, 1 FROM t WHERE a IN (1,'x',2.5) ORDER BY 1 LIMIT 10",
            "SELECT c, 1 FROM t WHERE a IN (?,?,?) ORDER BY 1 LIMIT ?",
            4,
        ),
        ("UPDATE t SET k=k+1 WHERE id=-5", "UPDATE t SET k=k+? WHERE id=-?", 2),
        ("INSERT INTO t (a, b) VALUES (1, 'it''s'), (2, 'a\\nb')", "INSERT INTO t (a, b) VALUES (?, ?), (?, ?)", 4),
        (
            "SELECT * FROM t WHERE d > DATE'2024-01-01' AND x = 1",
            "SELECT * FROM t WHERE d > DATE'2024-01-01' AND x = ?",
            1,
        ),
        (
            "SELECT * FROM t WHERE a = CAST('7' AS DECIMAL(10,2))",
            "SELECT * FROM t WHERE a = CAST(? AS DECIMAL(10,2))",
            1,
        ),
        ("SELECT * FROM t WHERE j->'$.a' = 5", "SELECT * FROM t WHERE j->'$.a' = ?", 1),
        ("SELECT * FROM t WHERE a LIKE 'x!%' ESCAPE '!'", "SELECT * FROM t WHERE a LIKE ? ESCAPE '!'", 1),
        ("SELECT * FROM t WHERE a = _utf8mb4'x' AND b = 0x10", "SELECT * FROM t WHERE a = _utf8mb4'x' AND b = 0x10", 0),
        ("/* app */ SELECT 1 FROM t WHERE a = 1 -- end", "  SELECT 1 FROM t WHERE a = ?  ", 1),
        ("SELECT value, 1 FROM t WHERE t1.x = 1.e2;", "SELECT value, 1 FROM t WHERE t1.x = ?", 1),
        ("DELETE FROM t WHERE id = 3 LIMIT 1", "DELETE FROM t WHERE id = ? LIMIT ?", 2),
        (
            "SELECT a FROM t WHERE b IN (SELECT 1 FROM u WHERE c = 2)",
            "SELECT a FROM t WHERE b IN (SELECT 1 FROM u WHERE c = ?)",
            1,
        ),
        ("INSERT INTO t VALUES (NOW(6), 1)", "INSERT INTO t VALUES (NOW(6), ?)", 1),
    ] {
        let (found, literals) = digest(sql).unwrap_or_else(|| panic!("no digest: {sql}"));
        assert_eq!((found.as_str(), literals.len()), (text, count), "{sql}");
    }
}

#[test]
fn digest_literals_have_their_values() {
    let (_, literals) = digest("INSERT INTO t VALUES (1, 1.50, 1e2, 'it''s', \"q\", 18446744073709551615)").unwrap();
    assert_eq!(
        literals,
        vec![
            Value::Int(1),
            Value::Decimal(crate::sql::decimal::Decimal::new(150, 2)),
            Value::Double(100.0),
            Value::from("it's"),
            Value::from("q"),
            Value::UInt(u64::MAX)
        ]
    );
}

#[test]
fn statements_without_a_digest() {
    for sql in [
        "SET a = 1",
        "CREATE TABLE t (a INT DEFAULT 1)",
        "SELECT 1; SELECT 2",
        "SELECT 1 FROM t WHERE a = ?",
        "SELECT /*! 1 */ 2",
        "SELECT 'a' 'b' FROM t",
        "SELECT 1 FROM t WHERE a = 'open",
        "SELECT (1",
        "",
    ] {
        assert_eq!(digest(sql), None, "{sql}");
    }
}

/// The template with its literals put back must be the statement.
#[test]
fn templates_parse_like_their_statements() {
    let mut checked = 0;
    for sql in lines(ACCEPTED) {
        let mut digest = Digest::default();
        if digest.compute(sql.as_bytes(), SqlMode::DEFAULT) {
            let template = parse_template(&digest, SqlMode::DEFAULT).unwrap_or_else(|error| panic!("{sql}: {error}"));
            assert_eq!(template.params as usize, digest.literals().len(), "{sql}");
            checked += 1;
        }
    }
    assert!(checked > 50, "{checked}");
}

proptest! {
    #[test]
    fn any_bytes_never_panic(sql in proptest::collection::vec(any::<u8>(), 0..80)) {
        let _ = parse(&sql, SqlMode::DEFAULT);
        let mut digest = Digest::default();
        if digest.compute(&sql, SqlMode::DEFAULT) {
            let _ = parse_template(&digest, SqlMode::DEFAULT);
        }
    }

    /// Shuffled pieces of SQL reach deeper than random bytes. A statement that parses must have a template that parses.
    #[test]
    fn shuffled_sql_never_panics(pieces in proptest::collection::vec(proptest::sample::select(PIECES), 0..20)) {
        let sql = pieces.join(" ");
        let parsed = parse(sql.as_bytes(), SqlMode::DEFAULT);
        let mut digest = Digest::default();
        if digest.compute(sql.as_bytes(), SqlMode::DEFAULT) {
            let template = parse_template(&digest, SqlMode::DEFAULT);
            if parsed.is_ok() {
                prop_assert!(template.is_ok(), "{} -> {}", sql, String::from_utf8_lossy(digest.text()));
            }
        }
    }
}

const PIECES: &[&str] = &[
    "SELECT", "FROM", "WHERE", "t", "a", "b", "*", ",", "(", ")", "1", "'x'", "=", "AND", "OR", "NOT", "IN", "LIKE",
    "BETWEEN", "NULL", "IS", "GROUP", "BY", "ORDER", "LIMIT", "INSERT", "INTO", "VALUES", "UPDATE", "SET", "DELETE",
    "COUNT", "CASE", "WHEN", "THEN", "END", "INTERVAL", "DAY", "+", "-", ".", "@a", "@@x", ":=", "CAST", "AS", "CHAR",
    "DATE", "JOIN", "ON", "UNION", "ALL", "FOR", "IF", "EXISTS", "CREATE", "TABLE", "INT", "KEY", "PRIMARY", "ALTER",
    "ADD", "DROP", "SHOW", "COLUMNS", "->", "{", "}", "?", "DISTINCT", "ESCAPE", "COLLATE", "_utf8mb4", "x'41'", "1.5",
    "/* c */",
];
