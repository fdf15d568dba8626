//! Expressions: operators by precedence, predicates, literals and names. Calls are in `expr_call`.

use super::{MAX_CHAIN, Parser, keywords, literal_text, number_value};
use crate::sql::ast::{BinaryOp, ColumnName, Expr, IntervalUnit, IsTest, UnaryOp, VariableScope};
use crate::sql::error::{Result, sql_error};
use crate::sql::lexer::Tok;
use crate::sql::value::Value;

/// Binding powers, lowest first.
const OR: u8 = 2;
const XOR: u8 = 3;
const AND: u8 = 4;
const NOT: u8 = 5;
const COMPARISON: u8 = 7;
const BIT_OR: u8 = 8;
const BIT_AND: u8 = 9;
const SHIFT: u8 = 10;
const ADD: u8 = 11;
const MUL: u8 = 12;
const BIT_XOR: u8 = 13;
const UNARY: u8 = 14;
const COLLATE: u8 = 16;

impl Parser<'_> {
    /// A full expression.
    pub(super) fn expr(&mut self) -> Result<Expr> {
        self.expr_above(0)
    }

    pub(super) fn boxed_expr(&mut self, above: u8) -> Result<Box<Expr>> {
        self.expr_above(above).map(Box::new)
    }

    /// Operand of BETWEEN, LIKE and the like: binds tighter than comparison.
    pub(super) fn bit_expr(&mut self) -> Result<Box<Expr>> {
        self.boxed_expr(COMPARISON)
    }

    fn expr_above(&mut self, above: u8) -> Result<Expr> {
        self.deeper(|parser| {
            let mut left = parser.prefix()?;
            let mut chain = 0;
            while let Some(extended) = parser.infix(left, above)? {
                chain += 1;
                if chain > MAX_CHAIN {
                    return Err(sql_error(1436, "Thread stack overrun: too many operators in a row"));
                }
                match extended {
                    Step::More(expr) => left = expr,
                    Step::Done(expr) => return Ok(expr),
                }
            }
            parser.fail()
        })
    }

    /// Extends `left` by one operator that binds tighter than `above`.
    fn infix(&mut self, left: Expr, above: u8) -> Result<Option<Step>> {
        let Some((op, power, width)) = self.binary_operator() else { return self.predicate(left, above).map(Some) };
        if power <= above {
            return Ok(Some(Step::Done(left)));
        }
        self.at += width;
        if matches!(op, BinaryOp::And | BinaryOp::Or) {
            return Ok(Some(Step::More(self.junction(left, op, power)?)));
        }
        if matches!(op, BinaryOp::Add | BinaryOp::Sub) && self.is_word("INTERVAL") && !self.interval_is_call() {
            let (value, unit) = self.interval()?;
            let subtract = op == BinaryOp::Sub;
            return Ok(Some(Step::More(Expr::DateAdd { expr: Box::new(left), value, unit, subtract })));
        }
        if power == COMPARISON
            && let Some(all) = self.quantifier()
        {
            let query = Box::new(self.parenthesized_query()?);
            return Ok(Some(Step::More(Expr::Quantified { op, all, expr: Box::new(left), query })));
        }
        let right = self.boxed_expr(power)?;
        Ok(Some(Step::More(Expr::Binary(op, Box::new(left), right))))
    }

    /// A chain of ANDs or ORs as a balanced tree: depth stays small however long the chain is.
    fn junction(&mut self, first: Expr, op: BinaryOp, power: u8) -> Result<Expr> {
        let mut operands = vec![first, self.expr_above(power)?];
        while let Some((next, _, width)) = self.binary_operator()
            && next == op
        {
            self.at += width;
            operands.push(self.expr_above(power)?);
        }
        Ok(balanced(operands, op))
    }

    fn quantifier(&mut self) -> Option<bool> {
        let followed = matches!(self.peek_at(1), Tok::Op("("));
        if !followed {
            return None;
        }
        self.eat_any(&["ALL", "ANY", "SOME"]).map(|which| which == 0)
    }

    /// The binary operator ahead: which, its power, its tokens.
    fn binary_operator(&self) -> Option<(BinaryOp, u8, usize)> {
        use BinaryOp as B;
        let (op, power) = match self.peek() {
            Tok::Op(op) => match *op {
                "||" if self.mode.pipes_as_concat => return None,
                "||" => (B::Or, OR),
                "&&" => (B::And, AND),
                "=" => (B::Eq, COMPARISON),
                "<=>" => (B::NullSafeEq, COMPARISON),
                "<>" | "!=" => (B::Ne, COMPARISON),
                "<" => (B::Lt, COMPARISON),
                "<=" => (B::Le, COMPARISON),
                ">" => (B::Gt, COMPARISON),
                ">=" => (B::Ge, COMPARISON),
                "|" => (B::BitOr, BIT_OR),
                "&" => (B::BitAnd, BIT_AND),
                "<<" => (B::Shl, SHIFT),
                ">>" => (B::Shr, SHIFT),
                "+" => (B::Add, ADD),
                "-" => (B::Sub, ADD),
                "*" => (B::Mul, MUL),
                "/" => (B::Div, MUL),
                "%" => (B::Mod, MUL),
                "^" => (B::BitXor, BIT_XOR),
                _ => return None,
            },
            Tok::Word(word) => {
                let is = |known: &str| word.eq_ignore_ascii_case(known);
                match word.len() {
                    2 if is("OR") => (B::Or, OR),
                    3 if is("AND") => (B::And, AND),
                    3 if is("XOR") => (B::Xor, XOR),
                    3 if is("DIV") => (B::IntDiv, MUL),
                    3 if is("MOD") => (B::Mod, MUL),
                    6 if is("SOUNDS") && self.is_word_at(1, "LIKE") => return Some((B::SoundsLike, COMPARISON, 2)),
                    _ => return None,
                }
            }
            _ => return None,
        };
        Some((op, power, 1))
    }

    /// IS, BETWEEN, IN, LIKE, REGEXP, COLLATE, `->`, and `||` as concatenation.
    fn predicate(&mut self, left: Expr, above: u8) -> Result<Step> {
        if above < COLLATE && self.eat("COLLATE") {
            let collation = self.name_or_text()?;
            return Ok(Step::More(Expr::Collate { expr: Box::new(left), collation }));
        }
        if self.is_op("->") || self.is_op("->>") {
            let op = if self.is_op("->") { BinaryOp::JsonExtract } else { BinaryOp::JsonUnquote };
            self.at += 1;
            let path = Expr::Literal(Value::Str(self.text_bytes()?));
            return Ok(Step::More(Expr::Binary(op, Box::new(left), Box::new(path))));
        }
        if above < BIT_XOR && self.is_op("||") {
            self.at += 1;
            let args = vec![left, self.expr_above(BIT_XOR)?];
            return Ok(Step::More(Expr::Call { name: "CONCAT".into(), args }));
        }
        if above >= COMPARISON {
            return Ok(Step::Done(left));
        }
        let expr = Box::new(left);
        if self.eat("IS") {
            let negated = self.eat("NOT");
            let tests = [IsTest::Null, IsTest::True, IsTest::False, IsTest::Unknown];
            let which = self.eat_any(&["NULL", "TRUE", "FALSE", "UNKNOWN"]);
            let Some(test) = which.and_then(|which| tests.get(which)) else { return self.fail() };
            return Ok(Step::More(Expr::Is { expr, test: *test, negated }));
        }
        if self.is_word("MEMBER") && (self.is_word_at(1, "OF") || matches!(self.peek_at(1), Tok::Op("("))) {
            self.at += 1;
            self.eat("OF");
            self.expect_op("(")?;
            let right = self.boxed_expr(0)?;
            self.expect_op(")")?;
            return Ok(Step::More(Expr::Binary(BinaryOp::MemberOf, expr, right)));
        }
        let negated = self.is_word("NOT");
        let ahead = usize::from(negated);
        let Some(which) =
            ["BETWEEN", "IN", "LIKE", "REGEXP", "RLIKE"].iter().position(|word| self.is_word_at(ahead, word))
        else {
            return Ok(Step::Done(*expr));
        };
        self.at += ahead + 1;
        Ok(Step::More(match which {
            0 => {
                let low = self.bit_expr()?;
                self.expect("AND")?;
                Expr::Between { expr, low, high: self.bit_expr()?, negated }
            }
            1 => self.in_list(expr, negated)?,
            2 => {
                let pattern = self.bit_expr()?;
                let escape = if self.eat("ESCAPE") { Some(self.bit_expr()?) } else { None };
                Expr::Like { expr, pattern, escape, negated }
            }
            _ => Expr::Regexp { expr, pattern: self.bit_expr()?, negated },
        }))
    }

    fn in_list(&mut self, expr: Box<Expr>, negated: bool) -> Result<Expr> {
        if self.query_follows_paren() {
            return Ok(Expr::InQuery { expr, query: Box::new(self.parenthesized_query()?), negated });
        }
        Ok(Expr::In { expr, list: self.paren_list(Self::expr)?, negated })
    }

    /// `( SELECT` with any number of parentheses.
    pub(super) fn query_follows_paren(&self) -> bool {
        let mut ahead = 0;
        while matches!(self.peek_at(ahead), Tok::Op("(")) {
            ahead += 1;
        }
        ahead > 0 && ["SELECT", "WITH", "TABLE"].iter().any(|word| self.is_word_at(ahead, word))
    }

    /// Operand with its prefix operators.
    fn prefix(&mut self) -> Result<Expr> {
        let op = match self.peek() {
            Tok::Op("-") => (UnaryOp::Neg, UNARY),
            Tok::Op("+") => (UnaryOp::Plus, UNARY),
            Tok::Op("~") => (UnaryOp::BitNot, UNARY),
            Tok::Op("!") => (UnaryOp::Not, UNARY),
            Tok::Word(word) if word.eq_ignore_ascii_case("NOT") => {
                (UnaryOp::Not, if self.mode.high_not_precedence { UNARY } else { NOT })
            }
            Tok::Word(word) if word.eq_ignore_ascii_case("BINARY") => (UnaryOp::Binary, COLLATE - 1),
            _ => return self.primary(),
        };
        self.at += 1;
        Ok(Expr::Unary(op.0, self.boxed_expr(op.1)?))
    }

    fn primary(&mut self) -> Result<Expr> {
        match self.peek().clone() {
            Tok::Number(text) => {
                self.at += 1;
                Ok(Expr::Literal(number_value(text)))
            }
            Tok::Text(_) => self.string_literal(),
            Tok::Hex(bytes) => {
                self.at += 1;
                Ok(Expr::HexLiteral(bytes.into()))
            }
            Tok::Param => {
                self.at += 1;
                self.params += 1;
                Ok(Expr::Param(self.params - 1))
            }
            Tok::UserVar(name) => {
                self.at += 1;
                if self.eat_op(":=") {
                    return Ok(Expr::Assign(name.into_owned(), self.boxed_expr(0)?));
                }
                Ok(Expr::UserVar(name.into_owned()))
            }
            Tok::Op("@@") => {
                self.at += 1;
                let (scope, name) = self.system_variable()?;
                Ok(Expr::SystemVar { scope, name })
            }
            Tok::Op("(") => self.parenthesized(),
            Tok::Op("{") => self.odbc_escape(),
            Tok::Quoted(_) => self.column(),
            Tok::Word(word) => self.word_operand(word),
            _ => self.fail(),
        }
    }

    /// Adjacent strings are one literal.
    fn string_literal(&mut self) -> Result<Expr> {
        let mut bytes = self.text_bytes()?;
        while matches!(self.peek(), Tok::Text(_)) {
            let mut joined = bytes.to_vec();
            joined.extend_from_slice(&self.text_bytes()?);
            bytes = joined.into();
        }
        Ok(Expr::Literal(literal_text(bytes)))
    }

    /// After `@@`: `[scope.]name`.
    pub(super) fn system_variable(&mut self) -> Result<(VariableScope, String)> {
        let first = self.name_after_dot()?.to_ascii_lowercase();
        let scope = match first.as_str() {
            "global" => VariableScope::Global,
            "session" | "local" => VariableScope::Session,
            "persist" => VariableScope::Persist,
            "persist_only" => VariableScope::PersistOnly,
            _ => VariableScope::Default,
        };
        if scope == VariableScope::Default {
            return Ok((scope, first));
        }
        self.expect_op(".")?;
        Ok((scope, self.name_after_dot()?.to_ascii_lowercase()))
    }

    fn parenthesized(&mut self) -> Result<Expr> {
        if self.query_follows_paren() {
            return Ok(Expr::Subquery(Box::new(self.parenthesized_query()?)));
        }
        let mut list = self.paren_list(Self::expr)?;
        Ok(if list.len() == 1 { list.swap_remove(0) } else { Expr::Row(list) })
    }

    /// `{d '2024-01-01'}`, `{ts '...'}`, `{fn f()}`.
    fn odbc_escape(&mut self) -> Result<Expr> {
        self.expect_op("{")?;
        let kind = self.any_word()?;
        let inner = match kind.as_str() {
            "D" | "T" | "TS" => {
                let name = ["DATE", "TIME", "TIMESTAMP"][["D", "T", "TS"].iter().position(|k| *k == kind).unwrap_or(0)];
                let text = Expr::Literal(Value::Str(self.text_bytes()?));
                self.temporal_literal(name, text)?
            }
            _ => self.expr()?,
        };
        self.expect_op("}")?;
        Ok(inner)
    }

    /// An operand that begins with a word: keyword form, call or column.
    fn word_operand(&mut self, word: &str) -> Result<Expr> {
        let upper = word.to_ascii_uppercase();
        let before_text = matches!(self.peek_at(1), Tok::Text(_));
        match upper.as_str() {
            "NULL" | "TRUE" | "FALSE" => {
                self.at += 1;
                let value = match upper.as_str() {
                    "NULL" => Value::Null,
                    truth => Value::bool(truth == "TRUE"),
                };
                return Ok(Expr::Literal(value));
            }
            "DATE" | "TIME" | "TIMESTAMP" if before_text => {
                self.at += 1;
                let text = Expr::Literal(Value::Str(self.text_bytes()?));
                return self.temporal_literal(&upper, text);
            }
            "CASE" => return self.case(),
            "EXISTS" => {
                self.at += 1;
                return Ok(Expr::Exists(Box::new(self.parenthesized_query()?)));
            }
            "INTERVAL" if !self.interval_is_call() => {
                let (value, unit) = self.interval()?;
                self.expect_op("+")?;
                let expr = self.boxed_expr(ADD)?;
                return Ok(Expr::DateAdd { expr, value, unit, subtract: false });
            }
            "DEFAULT" => {
                self.at += 1;
                if self.eat_op("(") {
                    let name = self.column_name()?;
                    self.expect_op(")")?;
                    return Ok(Expr::Default(Some(name)));
                }
                return Ok(Expr::Default(None));
            }
            "MATCH" => {
                self.skip_statement();
                return Ok(Expr::Unsupported("MATCH ... AGAINST".into()));
            }
            "ROW" if matches!(self.peek_at(1), Tok::Op("(")) => {
                self.at += 1;
                return Ok(Expr::Row(self.paren_list(Self::expr)?));
            }
            _ => {}
        }
        // Introducers: _utf8mb4'text', _binary x'00'.
        if upper.starts_with('_') && matches!(self.peek_at(1), Tok::Text(_) | Tok::Hex(_)) {
            return self.introduced(&upper[1..]);
        }
        if matches!(self.peek_at(1), Tok::Op("(")) {
            return self.call(&upper);
        }
        if let Some(call) = self.bare_call(&upper) {
            return call;
        }
        if keywords::is_reserved(word) {
            return self.fail();
        }
        self.column()
    }

    fn introduced(&mut self, charset: &str) -> Result<Expr> {
        self.at += 1;
        let inner = match self.peek().clone() {
            Tok::Text(bytes) if charset == "BINARY" => {
                self.at += 1;
                Expr::Literal(Value::Bin(bytes::Bytes::copy_from_slice(&bytes)))
            }
            Tok::Hex(bytes) => {
                self.at += 1;
                Expr::Literal(if charset == "BINARY" { Value::Bin(bytes.into()) } else { Value::Str(bytes.into()) })
            }
            _ => self.string_literal()?,
        };
        if charset == "BINARY" {
            return Ok(inner);
        }
        Ok(Expr::Using { expr: Box::new(inner), charset: charset.to_ascii_lowercase() })
    }

    fn case(&mut self) -> Result<Expr> {
        self.expect("CASE")?;
        let operand = if self.is_word("WHEN") { None } else { Some(self.boxed_expr(0)?) };
        let mut branches = Vec::new();
        while self.eat("WHEN") {
            let when = self.expr()?;
            self.expect("THEN")?;
            branches.push((when, self.expr()?));
        }
        if branches.is_empty() {
            return self.fail();
        }
        let otherwise = if self.eat("ELSE") { Some(self.boxed_expr(0)?) } else { None };
        self.expect("END")?;
        Ok(Expr::Case { operand, branches, otherwise })
    }

    /// INTERVAL(a, b, ...) is a function; INTERVAL (expr) unit is not.
    fn interval_is_call(&self) -> bool {
        if !matches!(self.peek_at(1), Tok::Op("(")) {
            return false;
        }
        let (mut depth, mut ahead) = (0usize, 1);
        loop {
            match self.peek_at(ahead) {
                Tok::Op("(") => depth += 1,
                Tok::Op(")") if depth == 1 => {
                    return !matches!(self.peek_at(ahead + 1), Tok::Word(unit) if IntervalUnit::from_name(unit).is_some());
                }
                Tok::Op(")") => depth -= 1,
                Tok::End | Tok::Bad => return false,
                _ => {}
            }
            ahead += 1;
        }
    }

    /// `INTERVAL expr unit`
    pub(super) fn interval(&mut self) -> Result<(Box<Expr>, IntervalUnit)> {
        self.expect("INTERVAL")?;
        let value = self.boxed_expr(0)?;
        Ok((value, self.interval_unit()?))
    }

    pub(super) fn interval_unit(&mut self) -> Result<IntervalUnit> {
        let unit = match self.peek() {
            Tok::Word(word) => IntervalUnit::from_name(word),
            _ => None,
        };
        match unit {
            Some(unit) => {
                self.at += 1;
                Ok(unit)
            }
            None => self.fail(),
        }
    }

    pub(super) fn column(&mut self) -> Result<Expr> {
        self.column_name().map(Expr::Column)
    }

    /// `[[db.]table.]column`
    pub(super) fn column_name(&mut self) -> Result<ColumnName> {
        self.eat_op(".");
        let mut parts = vec![self.name()?];
        while parts.len() < 3 && self.is_op(".") && !matches!(self.peek_at(1), Tok::Op("*")) {
            self.at += 1;
            parts.push(self.name_after_dot()?);
        }
        let name = parts.pop().unwrap_or_default();
        let table = parts.pop();
        Ok(ColumnName { database: parts.pop(), table, name })
    }
}

/// What became of the left side.
enum Step {
    /// One operator longer; there may be more.
    More(Expr),
    /// Complete.
    Done(Expr),
}

fn balanced(mut operands: Vec<Expr>, op: BinaryOp) -> Expr {
    if operands.len() > 2 {
        let right = operands.split_off(operands.len() / 2);
        return Expr::Binary(op, Box::new(balanced(operands, op)), Box::new(balanced(right, op)));
    }
    let mut operands = operands.into_iter();
    match (operands.next(), operands.next()) {
        (Some(left), Some(right)) => Expr::Binary(op, Box::new(left), Box::new(right)),
        (Some(only), _) => only,
        _ => Expr::Literal(Value::Null),
    }
}
