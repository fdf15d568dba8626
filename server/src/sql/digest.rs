//! Owns the digest: a statement's text with its literals taken out, which is the key of the statement cache.
//!
//! Only SELECT, INSERT, REPLACE, UPDATE and DELETE lose literals, and only where a literal is a mere value: in WHERE, HAVING, ON, SET,
//! VALUES and LIMIT. A literal that shapes the plan or the result's description stays in the text: select list, ORDER BY, GROUP BY,
//! type lengths, function precisions, ESCAPE, COLLATE, JSON paths. Each literal taken out becomes a `?`, so the digest's text is itself a
//! statement that [`super::parse::parse_template`] parses like any prepared one; the literals are its parameters in order.
//!
//! The text is otherwise kept byte for byte, comments apart: applications repeat themselves exactly, and normalising costs time.

use bytes::Bytes;

use super::context::SqlMode;
use super::lexer::is_name_byte;
use super::parse::{literal_number, literal_text};
use super::value::Value;

/// Statements with more literals than this are not worth a cache entry.
const MAX_LITERALS: usize = 512;
/// Longest text that is cached.
const MAX_TEXT: usize = 16 << 10;
/// Deepest parentheses that are followed.
const MAX_NESTING: usize = 64;

/// A text without its literals, and the literals. Reusable: [`Digest::compute`] keeps the buffers.
#[derive(Debug, Default, Clone)]
pub struct Digest {
    text: Vec<u8>,
    literals: Vec<Value>,
}

impl Digest {
    /// The normalised text: cache key and template.
    pub fn text(&self) -> &[u8] {
        &self.text
    }
    /// The literals, in the order of the text's `?`.
    #[cfg(test)]
    pub fn literals(&self) -> &[Value] {
        &self.literals
    }
    /// The literals, by value.
    pub fn take_literals(&mut self) -> Vec<Value> {
        std::mem::take(&mut self.literals)
    }

    /// Computes the digest of `sql`. False: the statement has none (several statements, `?`, versioned comments, too long,
    /// not DML, broken quotes), and must be parsed as it is.
    pub fn compute(&mut self, sql: &[u8], mode: SqlMode) -> bool {
        self.text.clear();
        self.literals.clear();
        if sql.len() > MAX_TEXT
            || mode.ansi_quotes
            || mode.no_backslash_escapes
            || mode.pipes_as_concat
            || mode.high_not_precedence
        {
            return false;
        }
        self.text.reserve(sql.len());
        let mut scanner = Scanner {
            sql,
            at: 0,
            copied: 0,
            digest: self,
            state: State::default(),
            outer: smallvec::SmallVec::new(),
            inserts: false,
        };
        scanner.run().is_some()
    }
}

/// What the scanner knows at one level of parentheses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct State {
    /// Literals are values here.
    values: bool,
    /// What came last.
    last: Last,
}

/// The token before, as far as it matters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Last {
    #[default]
    Other,
    /// A word after which a literal belongs to the syntax: DATE'..', ESCAPE '..', AS 'x', ->'$.a'.
    Binds,
    /// A type or function whose parenthesized numbers shape the result.
    Shaping,
    /// A string literal: adjacent ones join.
    Text,
    /// A name or a dot after a name.
    Name,
}

struct Scanner<'s, 'd> {
    sql: &'s [u8],
    at: usize,
    copied: usize,
    digest: &'d mut Digest,
    state: State,
    outer: smallvec::SmallVec<[State; 16]>,
    /// The statement is INSERT or REPLACE.
    inserts: bool,
}

impl Scanner<'_, '_> {
    fn peek(&self, ahead: usize) -> u8 {
        self.sql.get(self.at + ahead).copied().unwrap_or(0)
    }

    /// Copies what was passed over since the last copy.
    fn flush(&mut self, until: usize) {
        self.digest.text.extend_from_slice(&self.sql[self.copied..until]);
        self.copied = until;
    }

    fn run(&mut self) -> Option<()> {
        let mut first = true;
        while let Some(&byte) = self.sql.get(self.at) {
            match byte {
                b' ' | b'\t' | b'\n' | b'\r' => self.at += 1,
                _ if is_name_byte(byte) && !byte.is_ascii_digit() => {
                    let word = self.word();
                    if first && !is_cacheable(word) {
                        return None;
                    }
                    self.inserts |= first && matches!(word, "INSERT" | "REPLACE");
                    first = false;
                    self.note_word(word)?;
                }
                b'0'..=b'9' => self.number()?,
                b'.' if self.peek(1).is_ascii_digit() && self.state.last != Last::Name => self.number()?,
                b'\'' | b'"' => self.text(byte)?,
                b'`' => self.quoted_name()?,
                b'(' => self.open()?,
                b')' => self.close()?,
                b';' => return self.finish(),
                b'#' => self.comment(b"\n"),
                b'-' if self.peek(1) == b'-' && (self.peek(2) <= b' ') => self.comment(b"\n"),
                b'/' if self.peek(1) == b'*' => {
                    if matches!(self.peek(2), b'!' | b'M') {
                        return None;
                    }
                    self.comment_block()?;
                }
                b'?' | 0 | b'\\' | b'{' => return None,
                b'@' => self.variable(),
                b'-' if self.peek(1) == b'>' => {
                    self.at += if self.peek(2) == b'>' { 3 } else { 2 };
                    self.state.last = Last::Binds;
                }
                b'.' => {
                    self.at += 1;
                    self.state.last = Last::Name;
                }
                _ => {
                    self.at += 1;
                    self.state.last = Last::Other;
                }
            }
        }
        // A text without a word is no statement.
        if first { None } else { self.end() }
    }

    fn end(&mut self) -> Option<()> {
        self.flush(self.sql.len());
        self.outer.is_empty().then_some(())
    }

    /// After `;`: only blanks may follow.
    fn finish(&mut self) -> Option<()> {
        let rest = &self.sql[self.at + 1..];
        self.flush(self.at);
        (self.outer.is_empty() && rest.iter().all(u8::is_ascii_whitespace)).then_some(())
    }

    fn word(&mut self) -> &'static str {
        let start = self.at;
        while is_name_byte(self.peek(0)) && self.at < self.sql.len() {
            self.at += 1;
        }
        known_word(&self.sql[start..self.at])
    }

    fn note_word(&mut self, word: &'static str) -> Option<()> {
        let after_dot = self.state.last == Last::Name && self.preceded_by_dot();
        self.state.last = Last::Name;
        if after_dot {
            return Some(());
        }
        match word {
            // VALUE is no reserved word: elsewhere it may be a column.
            "VALUES" | "VALUE" if !self.inserts => {}
            "WHERE" | "HAVING" | "ON" | "SET" | "VALUES" | "VALUE" | "LIMIT" => {
                self.state = State { values: true, last: Last::Other };
            }
            "SELECT" | "ORDER" | "GROUP" | "FROM" | "UNION" | "INTO" | "WITH" | "PROCEDURE" | "PARTITION"
            | "SEPARATOR" => {
                self.state = State { values: false, last: Last::Other };
            }
            "DATE" | "TIME" | "TIMESTAMP" => self.state.last = Last::Shaping,
            "ESCAPE" | "COLLATE" | "AS" | "USING" | "INTERSECT" | "EXCEPT" => self.state.last = Last::Binds,
            "SHAPING" => self.state.last = Last::Shaping,
            "MATCH" => return None,
            _ => {}
        }
        Some(())
    }

    fn preceded_by_dot(&self) -> bool {
        let word_length = self.sql[..self.at].iter().rev().take_while(|byte| is_name_byte(**byte)).count();
        self.at.checked_sub(word_length + 1).and_then(|at| self.sql.get(at)) == Some(&b'.')
    }

    fn number(&mut self) -> Option<()> {
        let start = self.at;
        if self.peek(0) == b'0' && matches!(self.peek(1), b'x' | b'b') {
            // Hexadecimal and bit literals stay: their meaning depends on the place.
            while is_name_byte(self.peek(0)) {
                self.at += 1;
            }
            self.state.last = Last::Other;
            return Some(());
        }
        self.digits();
        if self.peek(0) == b'.' {
            self.at += 1;
            self.digits();
        }
        if matches!(self.peek(0), b'e' | b'E') {
            let sign = usize::from(matches!(self.peek(1), b'+' | b'-'));
            if self.peek(1 + sign).is_ascii_digit() {
                self.at += 1 + sign;
                self.digits();
            }
        }
        if is_name_byte(self.peek(0)) {
            // A name that begins with digits; rare enough.
            return None;
        }
        if self.takes_literal() {
            let text = std::str::from_utf8(&self.sql[start..self.at]).ok()?;
            let value = literal_number(text);
            self.take(start, value)?;
        }
        self.state.last = Last::Other;
        Some(())
    }

    fn digits(&mut self) {
        while self.peek(0).is_ascii_digit() {
            self.at += 1;
        }
    }

    fn takes_literal(&self) -> bool {
        self.state.values && !matches!(self.state.last, Last::Binds | Last::Shaping)
    }

    /// Replaces the text from `start` by a parameter.
    fn take(&mut self, start: usize, value: Value) -> Option<()> {
        if self.digest.literals.len() >= MAX_LITERALS {
            return None;
        }
        let end = self.at;
        self.flush(start);
        self.digest.text.push(b'?');
        self.copied = end;
        self.digest.literals.push(value);
        Some(())
    }

    fn text(&mut self, quote: u8) -> Option<()> {
        if self.state.last == Last::Text {
            return None;
        }
        let start = self.at;
        // x'..', b'..', n'..' and _charset'..' were scanned as a word right before.
        let introduced = start > 0 && is_name_byte(self.sql[start - 1]);
        self.at += 1;
        let mut escaped = false;
        loop {
            match self.sql.get(self.at)? {
                b'\\' => {
                    escaped = true;
                    self.at += 2;
                }
                byte if *byte == quote => {
                    if self.peek(1) != quote {
                        break;
                    }
                    escaped = true;
                    self.at += 2;
                }
                _ => self.at += 1,
            }
        }
        self.at += 1;
        if self.takes_literal() && !introduced && !self.follows_introducer(start) {
            let inner = &self.sql[start + 1..self.at - 1];
            let bytes = if escaped { unescape(inner, quote) } else { Bytes::copy_from_slice(inner) };
            self.take(start, literal_text(bytes))?;
        }
        self.state.last = Last::Text;
        Some(())
    }

    /// `_utf8mb4 'x'`, with a blank between.
    fn follows_introducer(&self, start: usize) -> bool {
        let before = self.sql[..start].trim_ascii_end();
        let word = before.len() - before.iter().rev().take_while(|byte| is_name_byte(**byte)).count();
        before.get(word) == Some(&b'_') || before[word..].eq_ignore_ascii_case(b"n")
    }

    fn quoted_name(&mut self) -> Option<()> {
        let rest = self.sql.get(self.at + 1..)?;
        self.at += rest.iter().position(|byte| *byte == b'`')? + 2;
        self.state.last = Last::Name;
        Some(())
    }

    fn variable(&mut self) {
        self.at += 1;
        while self.peek(0) == b'@' || self.peek(0) == b'.' || is_name_byte(self.peek(0)) {
            self.at += 1;
        }
        // @'name' and @`name`: the literal that follows is a name.
        self.state.last = Last::Binds;
    }

    fn open(&mut self) -> Option<()> {
        if self.outer.len() >= MAX_NESTING {
            return None;
        }
        self.at += 1;
        let shaping = self.state.last == Last::Shaping;
        self.outer.push(self.state);
        self.state = State { values: self.state.values && !shaping, last: Last::Other };
        Some(())
    }

    fn close(&mut self) -> Option<()> {
        self.at += 1;
        self.state = self.outer.pop()?;
        self.state.last = Last::Other;
        Some(())
    }

    /// Drops a comment to the end of the line.
    fn comment(&mut self, end: &[u8]) {
        let start = self.at;
        let found = self.sql[start..].windows(end.len()).position(|window| window == end);
        self.at = found.map_or(self.sql.len(), |offset| start + offset);
        self.flush(start);
        self.digest.text.push(b' ');
        self.copied = self.at;
    }

    fn comment_block(&mut self) -> Option<()> {
        let start = self.at;
        let end = self.sql[start + 2..].windows(2).position(|window| window == b"*/")?;
        self.at = start + 2 + end + 2;
        self.flush(start);
        self.digest.text.push(b' ');
        self.copied = self.at;
        Some(())
    }
}

fn is_cacheable(word: &str) -> bool {
    matches!(word, "SELECT" | "INSERT" | "REPLACE" | "UPDATE" | "DELETE")
}

/// Words that change how literals are read, by their upper-case name; "" for all others. SHAPING stands for a group.
fn known_word(word: &[u8]) -> &'static str {
    const WORDS: [&str; 31] = [
        "SELECT",
        "INSERT",
        "REPLACE",
        "UPDATE",
        "DELETE",
        "WHERE",
        "HAVING",
        "ON",
        "SET",
        "VALUES",
        "VALUE",
        "LIMIT",
        "ORDER",
        "GROUP",
        "FROM",
        "UNION",
        "INTO",
        "WITH",
        "PROCEDURE",
        "PARTITION",
        "SEPARATOR",
        "DATE",
        "TIME",
        "TIMESTAMP",
        "ESCAPE",
        "COLLATE",
        "AS",
        "USING",
        "INTERSECT",
        "EXCEPT",
        "MATCH",
    ];
    const SHAPING: [&str; 27] = [
        "CHAR",
        "CHARACTER",
        "VARCHAR",
        "NCHAR",
        "BINARY",
        "VARBINARY",
        "DECIMAL",
        "DEC",
        "NUMERIC",
        "FLOAT",
        "DOUBLE",
        "DATETIME",
        "YEAR",
        "NOW",
        "CURRENT_TIMESTAMP",
        "CURRENT_TIME",
        "CURTIME",
        "SYSDATE",
        "LOCALTIME",
        "LOCALTIMESTAMP",
        "UTC_TIME",
        "UTC_TIMESTAMP",
        "JSON_EXTRACT",
        "JSON_SET",
        "INDEX",
        "KEY",
        "WEIGHT_STRING",
    ];
    if word.len() > 17 {
        return "";
    }
    let is = |known: &&&str| word.eq_ignore_ascii_case(known.as_bytes());
    if let Some(found) = WORDS.iter().find(is) {
        return found;
    }
    if SHAPING.iter().any(|known| word.eq_ignore_ascii_case(known.as_bytes())) { "SHAPING" } else { "" }
}

fn unescape(inner: &[u8], quote: u8) -> Bytes {
    let mut out = Vec::with_capacity(inner.len());
    let mut bytes = inner.iter();
    while let Some(&byte) = bytes.next() {
        match byte {
            b'\\' => {
                if let Some(&next) = bytes.next() {
                    super::lexer::push_escaped(next, &mut out);
                }
            }
            _ if byte == quote => {
                bytes.next();
                out.push(quote);
            }
            _ => out.push(byte),
        }
    }
    out.into()
}
