//! Owns parsing: tokens to statements. A recursive descent parser with a precedence climber for expressions.

mod ddl;
mod ddl_alter;
mod ddl_column;
mod dml;
mod expr;
mod expr_call;
mod keywords;
mod query;
mod set;
mod show;
mod statement;

use bytes::Bytes;

use super::ast::{ObjectName, Statement};
use super::context::SqlMode;
use super::error::{Result, sql_error};
use super::lexer::{Tok, Token, tokenize};
use super::value::Value;
use crate::wire::result::SqlError;

/// Deepest nesting of parentheses, subqueries and operators.
const MAX_DEPTH: usize = 120;
/// Longest chain of binary operators of one level, other than AND and OR.
const MAX_CHAIN: usize = 200;

/// A parsed statement.
#[derive(Clone, Debug, PartialEq)]
pub struct Parsed {
    /// The statement.
    pub statement: Statement,
    /// How many `?` it has.
    pub params: u32,
    /// Its text in the input, without the semicolon.
    pub span: std::ops::Range<usize>,
}

/// Parses all statements of a text, split at semicolons. Comments alone give [`Statement::Empty`].
#[cfg(test)]
pub fn parse(sql: &[u8], mode: SqlMode) -> Result<Vec<Parsed>> {
    let mut parser = Parser::new(sql, mode);
    let mut found = Vec::new();
    loop {
        while parser.eat_op(";") {}
        if parser.at_end() {
            break;
        }
        found.push(parser.parsed()?);
        if !parser.at_end() {
            parser.expect_op(";")?;
        }
    }
    if found.is_empty() {
        found.push(Parsed { statement: Statement::Empty, params: 0, span: 0..sql.len() });
    }
    Ok(found)
}

/// Parses the first statement, and returns where the next one starts (the text's end if there is none).
/// Lets multi-statements run one by one: a later syntax error does not stop the earlier ones.
pub fn parse_first(sql: &[u8], mode: SqlMode) -> Result<(Parsed, usize)> {
    let mut parser = Parser::new(sql, mode);
    while parser.eat_op(";") {}
    if parser.at_end() {
        return Ok((Parsed { statement: Statement::Empty, params: 0, span: 0..sql.len() }, sql.len()));
    }
    let parsed = parser.parsed()?;
    if !parser.at_end() {
        parser.expect_op(";")?;
        while parser.eat_op(";") {}
    }
    Ok((parsed, parser.start().min(sql.len())))
}

/// Parses exactly one statement, as PREPARE does: 1064 for more, 1065 for none.
pub fn parse_one(sql: &[u8], mode: SqlMode) -> Result<Parsed> {
    let (parsed, next) = parse_first(sql, mode)?;
    if next < sql.len() {
        return Err(Parser::new(&sql[next..], mode).error());
    }
    if parsed.statement == Statement::Empty {
        return Err(sql_error(1065, "Query was empty"));
    }
    Ok(parsed)
}

/// Parses a digest's text: its literals are parameters.
pub fn parse_template(digest: &super::digest::Digest, mode: SqlMode) -> Result<Parsed> {
    parse_one(digest.text(), mode)
}

/// Token cursor.
struct Parser<'a> {
    sql: &'a [u8],
    tokens: Vec<Token<'a>>,
    at: usize,
    params: u32,
    depth: usize,
    mode: SqlMode,
}

impl<'a> Parser<'a> {
    fn new(sql: &'a [u8], mode: SqlMode) -> Self {
        Self { sql, tokens: tokenize(sql, mode), at: 0, params: 0, depth: 0, mode }
    }

    fn parsed(&mut self) -> Result<Parsed> {
        let start = self.start();
        self.params = 0;
        let statement = self.statement()?;
        let end = if self.at == 0 { start } else { self.tokens[self.at - 1].end };
        Ok(Parsed { statement, params: self.params, span: start..end })
    }

    fn peek(&self) -> &Tok<'a> {
        self.peek_at(0)
    }

    fn peek_at(&self, ahead: usize) -> &Tok<'a> {
        self.tokens.get(self.at + ahead).map_or(&Tok::End, |token| &token.tok)
    }

    /// Byte position of the next token.
    fn start(&self) -> usize {
        self.tokens.get(self.at).map_or(self.sql.len(), |token| token.start)
    }

    /// Byte position after the last token taken.
    fn last_end(&self) -> usize {
        self.at.checked_sub(1).and_then(|at| self.tokens.get(at)).map_or(0, |token| token.end)
    }

    fn source(&self, from: usize) -> String {
        String::from_utf8_lossy(self.sql.get(from..self.last_end()).unwrap_or_default()).into_owned()
    }

    fn next(&mut self) -> Tok<'a> {
        let tok = self.peek().clone();
        self.at = (self.at + 1).min(self.tokens.len());
        tok
    }

    fn at_end(&self) -> bool {
        *self.peek() == Tok::End
    }

    /// 1064 at the next token.
    fn error(&self) -> SqlError {
        let start = self.start();
        let near: String =
            String::from_utf8_lossy(&self.sql[start..(start + 320).min(self.sql.len())]).chars().take(80).collect();
        let line = 1 + self.sql[..start].iter().filter(|byte| **byte == b'\n').count();
        sql_error(
            1064,
            format!(
                "You have an error in your SQL syntax; check the manual that corresponds to your MySQL server version \
                 for the right syntax to use near '{near}' at line {line}"
            ),
        )
    }

    fn fail<T>(&self) -> Result<T> {
        Err(self.error())
    }

    fn is_op(&self, op: &str) -> bool {
        matches!(self.peek(), Tok::Op(found) if *found == op)
    }

    fn eat_op(&mut self, op: &str) -> bool {
        let found = self.is_op(op);
        self.at += usize::from(found);
        found
    }

    fn expect_op(&mut self, op: &str) -> Result<()> {
        if self.eat_op(op) { Ok(()) } else { self.fail() }
    }

    fn is_word_at(&self, ahead: usize, word: &str) -> bool {
        matches!(self.peek_at(ahead), Tok::Word(found) if found.eq_ignore_ascii_case(word))
    }

    fn is_word(&self, word: &str) -> bool {
        self.is_word_at(0, word)
    }

    /// Whether the next tokens are these words.
    fn are_words(&self, words: &[&str]) -> bool {
        words.iter().enumerate().all(|(ahead, word)| self.is_word_at(ahead, word))
    }

    fn eat(&mut self, word: &str) -> bool {
        let found = self.is_word(word);
        self.at += usize::from(found);
        found
    }

    fn eat_words(&mut self, words: &[&str]) -> bool {
        let found = self.are_words(words);
        if found {
            self.at += words.len();
        }
        found
    }

    /// Takes one of several words; returns which.
    fn eat_any(&mut self, words: &[&str]) -> Option<usize> {
        let found = words.iter().position(|word| self.is_word(word))?;
        self.at += 1;
        Some(found)
    }

    fn expect(&mut self, word: &str) -> Result<()> {
        if self.eat(word) { Ok(()) } else { self.fail() }
    }

    fn expect_words(&mut self, words: &[&str]) -> Result<()> {
        words.iter().try_for_each(|word| self.expect(word))
    }

    /// A name: quoted, or a word that is not reserved.
    fn name(&mut self) -> Result<String> {
        match self.peek() {
            Tok::Quoted(name) => {
                let name = name.to_string();
                self.at += 1;
                Ok(name)
            }
            Tok::Word(word) if !keywords::is_reserved(word) => {
                let word = (*word).to_owned();
                self.at += 1;
                Ok(word)
            }
            _ => self.fail(),
        }
    }

    fn is_name(&self) -> bool {
        match self.peek() {
            Tok::Quoted(_) => true,
            Tok::Word(word) => !keywords::is_reserved(word),
            _ => false,
        }
    }

    /// After a dot every word is a name.
    fn name_after_dot(&mut self) -> Result<String> {
        match self.next() {
            Tok::Quoted(name) => Ok(name.into_owned()),
            Tok::Word(word) => Ok(word.to_owned()),
            _ => {
                self.at -= 1;
                self.fail()
            }
        }
    }

    /// Any word, reserved or not, in upper case.
    fn any_word(&mut self) -> Result<String> {
        match self.peek() {
            Tok::Word(word) => {
                let word = word.to_ascii_uppercase();
                self.at += 1;
                Ok(word)
            }
            _ => self.fail(),
        }
    }

    fn object_name(&mut self) -> Result<ObjectName> {
        let first = self.name()?;
        if self.eat_op(".") {
            return Ok(ObjectName { database: Some(first), name: self.name_after_dot()? });
        }
        Ok(ObjectName { database: None, name: first })
    }

    /// A name or a string, as for charsets, engines and aliases.
    fn name_or_text(&mut self) -> Result<String> {
        match self.peek() {
            Tok::Text(_) => self.text(),
            Tok::Word(word) => {
                let word = (*word).to_owned();
                self.at += 1;
                Ok(word)
            }
            _ => self.name(),
        }
    }

    /// A string literal as text.
    fn text(&mut self) -> Result<String> {
        self.text_bytes().map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
    }

    fn text_bytes(&mut self) -> Result<Bytes> {
        match self.peek() {
            Tok::Text(bytes) => {
                let bytes = Bytes::copy_from_slice(bytes);
                self.at += 1;
                Ok(bytes)
            }
            _ => self.fail(),
        }
    }

    fn unsigned(&mut self) -> Result<u64> {
        let found = match self.peek() {
            Tok::Number(digits) => digits.parse().ok(),
            _ => None,
        };
        match found {
            Some(number) => {
                self.at += 1;
                Ok(number)
            }
            None => self.fail(),
        }
    }

    fn comma_list<T>(&mut self, mut item: impl FnMut(&mut Self) -> Result<T>) -> Result<Vec<T>> {
        let mut list = vec![item(self)?];
        while self.eat_op(",") {
            list.push(item(self)?);
        }
        Ok(list)
    }

    fn paren_list<T>(&mut self, item: impl FnMut(&mut Self) -> Result<T>) -> Result<Vec<T>> {
        self.expect_op("(")?;
        let list = self.comma_list(item)?;
        self.expect_op(")")?;
        Ok(list)
    }

    fn if_exists(&mut self) -> bool {
        self.eat_words(&["IF", "EXISTS"])
    }

    fn if_not_exists(&mut self) -> bool {
        self.eat_words(&["IF", "NOT", "EXISTS"])
    }

    /// Runs `parse` one level deeper; error 1436 past the bound.
    fn deeper<T>(&mut self, parse: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        if self.depth >= MAX_DEPTH {
            return Err(sql_error(1436, "Thread stack overrun: the statement is nested too deeply"));
        }
        self.depth += 1;
        let result = parse(self);
        self.depth -= 1;
        result
    }

    /// Skips the rest of the statement, parentheses balanced; for what is recognised but not done.
    fn skip_statement(&mut self) {
        while !matches!(self.peek(), Tok::End | Tok::Bad) && !self.is_op(";") {
            self.at += 1;
        }
    }
}

/// A literal's value for a number token.
fn number_value(text: &str) -> Value {
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        if let Ok(number) = text.parse::<i64>() {
            return Value::Int(number);
        }
        if let Ok(number) = text.parse::<u64>() {
            return Value::UInt(number);
        }
    } else if text.contains(['e', 'E']) {
        let number: f64 = text.parse().unwrap_or(0.0);
        return Value::Double(if number.is_finite() { number } else { f64::MAX });
    }
    Value::Decimal(super::decimal::Decimal::parse_prefix(text.as_bytes()).0)
}

/// Value of a number literal; shared with the digest.
pub(super) fn literal_number(text: &str) -> Value {
    number_value(text)
}

/// Value of a string literal: text, or binary if it is not UTF-8.
pub(super) fn literal_text(bytes: Bytes) -> Value {
    if std::str::from_utf8(&bytes).is_ok() { Value::Str(bytes) } else { Value::Bin(bytes) }
}

#[cfg(test)]
mod tests;
