//! Owns the lexer: MySQL text to tokens, comments and versioned comments included. Text may be any bytes.

use std::borrow::Cow;

use super::context::SqlMode;

/// One token.
#[derive(Clone, Debug, PartialEq)]
pub enum Tok<'a> {
    /// A bare word: keyword or name.
    Word(&'a str),
    /// A quoted name.
    Quoted(Cow<'a, str>),
    /// A string literal, escapes resolved.
    Text(Cow<'a, [u8]>),
    /// A number as written.
    Number(&'a str),
    /// X'..', 0x.., B'..', 0b..: bytes.
    Hex(Vec<u8>),
    /// `?`
    Param,
    /// `@name`
    UserVar(Cow<'a, str>),
    /// Punctuation.
    Op(&'static str),
    /// End of text.
    End,
    /// Something that is no token: a bad byte, or a quote or comment that does not end.
    Bad,
}

/// A token and where it stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Token<'a> {
    /// What it is.
    pub tok: Tok<'a>,
    /// First byte.
    pub start: usize,
    /// Byte after the last.
    pub end: usize,
}

/// Longest first, so that the first match is right.
const OPERATORS: [&str; 40] = [
    "<=>", "->>", "<<", ">>", "<=", ">=", "<>", "!=", "&&", "||", ":=", "->", "@@", "(", ")", ",", ";", ".", "=", "<",
    ">", "+", "-", "*", "/", "%", "^", "~", "!", "&", "|", "{", "}", ":", "[", "]", "\\", "$", "@", "\0",
];

/// Newest version whose versioned comments run: `/*!80036 ... */`.
const VERSION: u32 = 80_036;

/// Cuts a text into tokens.
pub struct Lexer<'a> {
    sql: &'a [u8],
    at: usize,
    mode: SqlMode,
    in_version_comment: bool,
    bad_comment: bool,
}

impl<'a> Lexer<'a> {
    /// A lexer at the start of `sql`.
    pub fn new(sql: &'a [u8], mode: SqlMode) -> Self {
        Self { sql, at: 0, mode, in_version_comment: false, bad_comment: false }
    }

    fn peek(&self, ahead: usize) -> u8 {
        self.sql.get(self.at + ahead).copied().unwrap_or(0)
    }

    fn rest(&self) -> &'a [u8] {
        self.sql.get(self.at..).unwrap_or_default()
    }

    fn skip_until(&mut self, end: &[u8]) -> bool {
        let found = self.rest().windows(end.len()).position(|window| window == end);
        self.at = found.map_or(self.sql.len(), |offset| self.at + offset + end.len());
        found.is_some()
    }

    fn skip_blank(&mut self) {
        loop {
            let rest = self.rest();
            match rest {
                [byte, ..] if byte.is_ascii_whitespace() || *byte == 0x0b => self.at += 1,
                [b'#', ..] => {
                    self.skip_until(b"\n");
                }
                [b'-', b'-', after @ ..]
                    if after.first().is_none_or(|byte| byte.is_ascii_whitespace() || *byte < 0x20) =>
                {
                    self.skip_until(b"\n");
                }
                [b'*', b'/', ..] if self.in_version_comment => {
                    self.in_version_comment = false;
                    self.at += 2;
                }
                [b'/', b'*', b'!', version @ ..] => {
                    let digits = version.iter().take(6).take_while(|byte| byte.is_ascii_digit()).count();
                    let digits = if digits >= 5 { digits } else { 0 };
                    let number = version[..digits].iter().fold(0u32, |n, byte| n * 10 + u32::from(byte - b'0'));
                    if number <= VERSION && !self.in_version_comment {
                        self.in_version_comment = true;
                        self.at += 3 + digits;
                    } else {
                        self.bad_comment |= !self.skip_until(b"*/");
                    }
                }
                [b'/', b'*', ..] => {
                    self.at += 2;
                    self.bad_comment |= !self.skip_until(b"*/");
                }
                _ => return,
            }
        }
    }

    /// The next token; [`Tok::End`] for ever after the last.
    pub fn next_token(&mut self) -> Token<'a> {
        self.skip_blank();
        let start = self.at;
        let tok = if self.bad_comment { Tok::Bad } else { self.scan() };
        if tok == Tok::Bad {
            self.at = self.sql.len();
        }
        Token { tok, start, end: self.at }
    }

    fn scan(&mut self) -> Tok<'a> {
        let (first, second) = (self.peek(0), self.peek(1));
        if self.at >= self.sql.len() {
            return if self.in_version_comment { Tok::Bad } else { Tok::End };
        }
        match first {
            b'x' | b'X' if second == b'\'' => self.quoted_digits(16),
            b'b' | b'B' if second == b'\'' => self.quoted_digits(2),
            b'n' | b'N' if second == b'\'' => {
                self.at += 1;
                self.text(b'\'')
            }
            b'0' if second == b'x' && self.peek(2).is_ascii_hexdigit() => self.prefixed_digits(16),
            b'0' if second == b'b' && matches!(self.peek(2), b'0' | b'1') => self.prefixed_digits(2),
            b'0'..=b'9' => self.number(),
            b'.' if second.is_ascii_digit() && !self.after_name() => self.number(),
            b'\'' => self.text(b'\''),
            b'"' if !self.mode.ansi_quotes => self.text(b'"'),
            b'"' | b'`' => self.quoted_name(first).map_or(Tok::Bad, Tok::Quoted),
            b'?' => {
                self.at += 1;
                Tok::Param
            }
            b'@' if second != b'@' => self.user_var(),
            byte if is_name_byte(byte) => self.word(),
            _ => self.operator(),
        }
    }

    /// Whether a name or a closing quote stands right before, so that `.1` is a part of a qualified name.
    fn after_name(&self) -> bool {
        let before = self.at.checked_sub(1).and_then(|at| self.sql.get(at));
        before.is_some_and(|byte| is_name_byte(*byte) || *byte == b'`')
    }

    fn word(&mut self) -> Tok<'a> {
        let length = self.rest().iter().take_while(|byte| is_name_byte(**byte)).count();
        let bytes = &self.rest()[..length];
        self.at += length;
        std::str::from_utf8(bytes).map_or(Tok::Bad, Tok::Word)
    }

    fn number(&mut self) -> Tok<'a> {
        let rest = self.rest();
        let digits =
            |from: usize| rest.get(from..).unwrap_or_default().iter().take_while(|b| b.is_ascii_digit()).count();
        let mut end = digits(0);
        let mut plain = true;
        if rest.get(end) == Some(&b'.') {
            plain = false;
            end += 1 + digits(end + 1);
        }
        if matches!(rest.get(end), Some(b'e' | b'E')) {
            let sign = usize::from(matches!(rest.get(end + 1), Some(b'+' | b'-')));
            let exponent = digits(end + 1 + sign);
            if exponent > 0 {
                plain = false;
                end += 1 + sign + exponent;
            }
        }
        // `1abc` is a name.
        if plain && rest.get(end).is_some_and(|byte| is_name_byte(*byte)) {
            return self.word();
        }
        self.at += end;
        std::str::from_utf8(&rest[..end]).map_or(Tok::Bad, Tok::Number)
    }

    fn quoted_digits(&mut self, radix: u32) -> Tok<'a> {
        self.at += 2;
        let rest = self.rest();
        let Some(end) = rest.iter().position(|byte| *byte == b'\'') else { return Tok::Bad };
        self.at += end + 1;
        let digits = &rest[..end];
        if radix == 16 && !digits.len().is_multiple_of(2) {
            return Tok::Bad;
        }
        digits_to_bytes(digits, radix).map_or(Tok::Bad, Tok::Hex)
    }

    fn prefixed_digits(&mut self, radix: u32) -> Tok<'a> {
        let rest = &self.rest()[2..];
        let end = rest.iter().take_while(|byte| (**byte as char).is_digit(radix)).count();
        if rest.get(end).is_some_and(|byte| is_name_byte(*byte)) {
            return self.word();
        }
        self.at += 2 + end;
        digits_to_bytes(&rest[..end], radix).map_or(Tok::Bad, Tok::Hex)
    }

    /// A string literal; the quote doubled, or a backslash, escapes.
    fn text(&mut self, quote: u8) -> Tok<'a> {
        self.at += 1;
        let rest = self.rest();
        let special = |byte: &u8| *byte == quote || (*byte == b'\\' && !self.mode.no_backslash_escapes);
        let Some(plain) = rest.iter().position(special) else { return Tok::Bad };
        if rest[plain] == quote && rest.get(plain + 1) != Some(&quote) {
            self.at += plain + 1;
            return Tok::Text(Cow::Borrowed(&rest[..plain]));
        }
        let mut out = rest[..plain].to_vec();
        let mut at = plain;
        loop {
            match rest.get(at) {
                None => return Tok::Bad,
                Some(byte) if *byte == quote => {
                    if rest.get(at + 1) != Some(&quote) {
                        self.at += at + 1;
                        return Tok::Text(Cow::Owned(out));
                    }
                    out.push(quote);
                    at += 2;
                }
                Some(b'\\') if !self.mode.no_backslash_escapes => {
                    let Some(&escaped) = rest.get(at + 1) else { return Tok::Bad };
                    push_escaped(escaped, &mut out);
                    at += 2;
                }
                Some(byte) => {
                    out.push(*byte);
                    at += 1;
                }
            }
        }
    }

    fn quoted_name(&mut self, quote: u8) -> Option<Cow<'a, str>> {
        self.at += 1;
        let rest = self.rest();
        let mut end = 0;
        let mut doubled = false;
        loop {
            end += rest.get(end..)?.iter().position(|byte| *byte == quote)?;
            if rest.get(end + 1) != Some(&quote) {
                break;
            }
            doubled = true;
            end += 2;
        }
        self.at += end + 1;
        let name = std::str::from_utf8(&rest[..end]).ok()?;
        if !doubled {
            return Some(Cow::Borrowed(name));
        }
        let quote = char::from(quote).to_string();
        Some(Cow::Owned(name.replace(&quote.repeat(2), &quote)))
    }

    fn user_var(&mut self) -> Tok<'a> {
        self.at += 1;
        match self.peek(0) {
            quote @ (b'`' | b'"' | b'\'') => self.quoted_name(quote).map_or(Tok::Bad, Tok::UserVar),
            _ => {
                let length = self.rest().iter().take_while(|byte| is_name_byte(**byte) || **byte == b'.').count();
                if length == 0 {
                    return Tok::Op("@");
                }
                let name = std::str::from_utf8(&self.rest()[..length]);
                self.at += length;
                name.map_or(Tok::Bad, |name| Tok::UserVar(Cow::Borrowed(name)))
            }
        }
    }

    fn operator(&mut self) -> Tok<'a> {
        let rest = self.rest();
        match OPERATORS.iter().find(|op| rest.starts_with(op.as_bytes())) {
            Some(op) if *op != "\0" => {
                self.at += op.len();
                Tok::Op(op)
            }
            _ => Tok::Bad,
        }
    }
}

/// Letters, digits, `_`, `$` and every byte beyond ASCII.
pub fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'$' || byte >= 0x80
}

/// MySQL keeps the backslash of `\%` and `\_`, for LIKE.
pub(super) fn push_escaped(escaped: u8, out: &mut Vec<u8>) {
    if matches!(escaped, b'%' | b'_') {
        out.push(b'\\');
    }
    out.push(match escaped {
        b'0' => 0,
        b'n' => b'\n',
        b't' => b'\t',
        b'r' => b'\r',
        b'b' => 8,
        b'Z' => 26,
        other => other,
    });
}

fn digits_to_bytes(digits: &[u8], radix: u32) -> Option<Vec<u8>> {
    let per_byte = if radix == 16 { 2 } else { 8 };
    let lead = digits.len() % per_byte;
    let (first, rest) = digits.split_at(lead);
    std::iter::once(first)
        .filter(|chunk| !chunk.is_empty())
        .chain(rest.chunks(per_byte))
        .map(|chunk| chunk.iter().try_fold(0u32, |n, byte| Some(n * radix + char::from(*byte).to_digit(radix)?)))
        .map(|byte| byte.map(|byte| byte as u8))
        .collect()
}

/// All tokens, the last one [`Tok::End`] or [`Tok::Bad`].
pub fn tokenize(sql: &[u8], mode: SqlMode) -> Vec<Token<'_>> {
    let mut lexer = Lexer::new(sql, mode);
    let mut tokens = Vec::with_capacity(sql.len() / 5 + 4);
    loop {
        let token = lexer.next_token();
        let last = matches!(token.tok, Tok::End | Tok::Bad);
        tokens.push(token);
        if last {
            return tokens;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn toks(sql: &str) -> Vec<Tok<'_>> {
        tokenize(sql.as_bytes(), SqlMode::DEFAULT).into_iter().map(|token| token.tok).collect()
    }

    #[test]
    fn words_numbers_strings() {
        assert_eq!(
            toks("a 1 1.5 .5 1e3 1a 'x''y\\n\\%' `q``r` x'4142' 0x41 b'101'"),
            vec![
                Tok::Word("a"),
                Tok::Number("1"),
                Tok::Number("1.5"),
                Tok::Number(".5"),
                Tok::Number("1e3"),
                Tok::Word("1a"),
                Tok::Text(Cow::Borrowed(b"x'y\n\\%")),
                Tok::Quoted("q`r".into()),
                Tok::Hex(vec![0x41, 0x42]),
                Tok::Hex(vec![0x41]),
                Tok::Hex(vec![5]),
                Tok::End
            ]
        );
    }

    #[test]
    fn comments() {
        assert_eq!(
            toks("a -- x\n# y\n/* z */ b /*!40101 c */ /*!99999 d */ 1--1"),
            vec![
                Tok::Word("a"),
                Tok::Word("b"),
                Tok::Word("c"),
                Tok::Number("1"),
                Tok::Op("-"),
                Tok::Op("-"),
                Tok::Number("1"),
                Tok::End
            ]
        );
        assert_eq!(toks("/* open"), vec![Tok::Bad]);
        assert_eq!(toks("'open"), vec![Tok::Bad]);
    }

    #[test]
    fn variables() {
        assert_eq!(
            toks("@a @'b c' @@global.x"),
            vec![
                Tok::UserVar("a".into()),
                Tok::UserVar("b c".into()),
                Tok::Op("@@"),
                Tok::Word("global"),
                Tok::Op("."),
                Tok::Word("x"),
                Tok::End
            ]
        );
    }

    proptest! {
        #[test]
        fn any_bytes_end(sql in proptest::collection::vec(any::<u8>(), 0..64)) {
            prop_assert!(matches!(tokenize(&sql, SqlMode::DEFAULT).last().unwrap().tok, Tok::End | Tok::Bad));
        }
        #[test]
        fn punctuation_ends(sql in "[-/*!#'\"`@.0-9xeb\\\\ a\n]{0,24}") {
            prop_assert!(matches!(tokenize(sql.as_bytes(), SqlMode::DEFAULT).last().unwrap().tok, Tok::End | Tok::Bad));
        }
    }
}
