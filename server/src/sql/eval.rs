//! Owns evaluation: a bound expression over one row. Columns and constants are borrowed, comparisons do not allocate.

use std::borrow::Cow;
use std::cmp::Ordering;

use smallvec::SmallVec;

use super::arith;
use super::ast::IsTest;
use super::cast;
use super::collation::Collation;
use super::compare::compare;
use super::context::Context;
use super::convert::{to_bits, to_bool, to_text};
use super::error::Result;
use super::expr::{Case, CompareOp, Expr, Like, Node, Regexp};
use super::functions::Call;
use super::interval;
use super::like;
use super::value::Value;

type Evaluated<'a> = Result<Cow<'a, Value>>;

fn owned<'a>(value: Value) -> Evaluated<'a> {
    Ok(Cow::Owned(value))
}

fn truth<'a>(value: Option<bool>) -> Evaluated<'a> {
    owned(value.map_or(Value::Null, Value::bool))
}

impl Expr {
    /// The value for a row. A slot beyond the row is NULL.
    pub fn eval<'a>(&'a self, row: &'a [Value], cx: &Context<'a>) -> Evaluated<'a> {
        match &self.node {
            Node::Const(value) => Ok(Cow::Borrowed(value)),
            Node::Slot(slot) => Ok(row.get(*slot as usize).map_or(Cow::Owned(Value::Null), Cow::Borrowed)),
            Node::Param(index) => Ok(cx.params.get(*index as usize).map_or(Cow::Owned(Value::Null), Cow::Borrowed)),
            Node::HexConst(bytes) => owned(Value::Bin(bytes.clone())),
            Node::Compare(..)
            | Node::And(_)
            | Node::Or(_)
            | Node::Not(_)
            | Node::Xor(_)
            | Node::In { .. }
            | Node::Is { .. }
            | Node::Like(_)
            | Node::Regexp(_) => truth(self.eval_bool(row, cx)?),
            Node::Arith(op, pair) => {
                owned(arith::arithmetic(*op, &*pair.0.number(row, cx)?, &*pair.1.number(row, cx)?, cx)?)
            }
            Node::Neg(expr) => owned(arith::negate(&*expr.number(row, cx)?, cx)?),
            Node::Bit(op, pair) => owned(arith::bits(*op, &*pair.0.eval(row, cx)?, &*pair.1.eval(row, cx)?, cx)?),
            Node::BitNot(expr) => {
                owned(to_bits(&*expr.number(row, cx)?, cx).map_or(Value::Null, |bits| Value::UInt(!bits)))
            }
            Node::Case(case) => self.eval_case(case, row, cx),
            Node::Coalesce(list) => {
                for expr in list {
                    let value = expr.eval(row, cx)?;
                    if !value.is_null() {
                        return self.typed(value, expr);
                    }
                }
                owned(Value::Null)
            }
            Node::If(parts) => {
                let branch = if parts.0.matches(row, cx)? { &parts.1 } else { &parts.2 };
                self.typed(branch.eval(row, cx)?, branch)
            }
            Node::NullIf(collation, pair) => {
                let value = pair.0.eval(row, cx)?;
                let other = pair.1.eval(row, cx)?;
                if compare(&value, &other, *collation, cx) == Some(Ordering::Equal) {
                    owned(Value::Null)
                } else {
                    Ok(value)
                }
            }
            Node::Cast(expr) => owned(cast::cast(&*expr.number_if_hex(row, cx, &self.ty)?, &expr.ty, &self.ty, cx)?),
            Node::Recollate(expr) => owned(cast::recollate(&*expr.eval(row, cx)?, &expr.ty, &self.ty)),
            Node::Call(function, args) => self.eval_call(function, args, row, cx),
            Node::UserVar(name) => owned(cx.session.user_var(name)),
            Node::Assign(name, expr) => {
                let value = expr.eval(row, cx)?.into_owned();
                cx.session.set_user_var(name, value.clone());
                owned(value)
            }
            Node::SystemVar(scope, name) => owned(cx.session.system_var(*scope, name)?),
            Node::DateAdd { args, unit, subtract } => {
                let (date, amount) = (args.0.eval(row, cx)?, args.1.eval(row, cx)?);
                owned(interval::date_add(&date, &amount, *unit, *subtract, &self.ty, cx)?)
            }
            Node::Extract(unit, expr) => owned(interval::extract(*unit, &*expr.eval(row, cx)?, cx)),
            Node::TimestampDiff(unit, pair) => {
                owned(interval::difference(*unit, &*pair.0.eval(row, cx)?, &*pair.1.eval(row, cx)?, cx))
            }
        }
    }

    /// Truth for a row; `None` is NULL.
    pub fn eval_bool(&self, row: &[Value], cx: &Context<'_>) -> Result<Option<bool>> {
        match &self.node {
            Node::Compare(op, collation, pair) => {
                let (a, b) = (pair.0.eval(row, cx)?, pair.1.eval(row, cx)?);
                Ok(compare_op(*op, &a, &b, *collation, cx))
            }
            Node::And(list) => junction(list, false, row, cx),
            Node::Or(list) => junction(list, true, row, cx),
            Node::Not(expr) => Ok(expr.eval_bool(row, cx)?.map(|truth| !truth)),
            Node::Xor(pair) => {
                let (a, b) = (pair.0.eval_bool(row, cx)?, pair.1.eval_bool(row, cx)?);
                Ok(a.zip(b).map(|(a, b)| a != b))
            }
            Node::Is { expr, test, negated } => {
                let holds = match test {
                    IsTest::Null | IsTest::Unknown => expr.eval(row, cx)?.is_null(),
                    IsTest::True => expr.eval_bool(row, cx)? == Some(true),
                    IsTest::False => expr.eval_bool(row, cx)? == Some(false),
                };
                Ok(Some(holds != *negated))
            }
            Node::In { expr, list, collation, negated } => {
                let found = member(&*expr.eval(row, cx)?, list, *collation, row, cx)?;
                Ok(found.map(|found| found != *negated))
            }
            Node::Like(like) => eval_like(like, row, cx),
            Node::Regexp(regexp) => eval_regexp(regexp, row, cx),
            _ => Ok(to_bool(&*self.number(row, cx)?, cx)),
        }
    }

    /// Whether a row passes: true, and neither false nor NULL.
    pub fn matches(&self, row: &[Value], cx: &Context<'_>) -> Result<bool> {
        Ok(self.eval_bool(row, cx)? == Some(true))
    }

    /// The value in numeric context, where a hexadecimal literal is a number.
    fn number<'a>(&'a self, row: &'a [Value], cx: &Context<'a>) -> Evaluated<'a> {
        match &self.node {
            Node::HexConst(bytes) => owned(Value::UInt(hex_number(bytes))),
            _ => self.eval(row, cx),
        }
    }

    fn number_if_hex<'a>(
        &'a self,
        row: &'a [Value],
        cx: &Context<'a>,
        target: &super::types::DataType,
    ) -> Evaluated<'a> {
        if target.is_number() { self.number(row, cx) } else { self.eval(row, cx) }
    }

    /// A branch's value in this node's type.
    fn typed<'a>(&self, value: Cow<'a, Value>, from: &Expr) -> Evaluated<'a> {
        if from.ty == self.ty || value.is_null() {
            Ok(value)
        } else {
            owned(cast::unified(value.into_owned(), &from.ty, &self.ty))
        }
    }

    fn eval_case<'a>(&'a self, case: &'a Case, row: &'a [Value], cx: &Context<'a>) -> Evaluated<'a> {
        let operand = case.operand.as_ref().map(|operand| operand.eval(row, cx)).transpose()?;
        for (when, then) in &case.branches {
            let hit = match &operand {
                Some(operand) => compare(operand, &*when.eval(row, cx)?, case.collation, cx) == Some(Ordering::Equal),
                None => when.matches(row, cx)?,
            };
            if hit {
                return self.typed(then.eval(row, cx)?, then);
            }
        }
        match &case.otherwise {
            Some(otherwise) => self.typed(otherwise.eval(row, cx)?, otherwise),
            None => owned(Value::Null),
        }
    }

    fn eval_call<'a>(
        &'a self,
        function: &'static super::functions::Function,
        args: &'a [Expr],
        row: &'a [Value],
        cx: &Context<'a>,
    ) -> Evaluated<'a> {
        let mut values: SmallVec<[Cow<'a, Value>; 4]> = SmallVec::with_capacity(args.len());
        for arg in args {
            let value = arg.eval(row, cx)?;
            if function.null_in && value.is_null() {
                return owned(Value::Null);
            }
            values.push(value);
        }
        owned((function.eval)(&Call { values: &values, exprs: args, ty: &self.ty, cx })?)
    }
}

/// `a op b`; `None` is NULL.
pub fn compare_op(op: CompareOp, a: &Value, b: &Value, collation: Collation, cx: &Context<'_>) -> Option<bool> {
    if op == CompareOp::NullSafeEq {
        return Some(match (a.is_null(), b.is_null()) {
            (true, true) => true,
            (false, false) => compare(a, b, collation, cx) == Some(Ordering::Equal),
            _ => false,
        });
    }
    // Equality of text needs no order.
    if let (Value::Str(x), Value::Str(y), CompareOp::Eq | CompareOp::Ne) = (a, b, op) {
        return Some(collation.equal(x, y) == (op == CompareOp::Eq));
    }
    let ordering = compare(a, b, collation, cx)?;
    Some(match op {
        CompareOp::Eq | CompareOp::NullSafeEq => ordering == Ordering::Equal,
        CompareOp::Ne => ordering != Ordering::Equal,
        CompareOp::Lt => ordering == Ordering::Less,
        CompareOp::Le => ordering != Ordering::Greater,
        CompareOp::Gt => ordering == Ordering::Greater,
        CompareOp::Ge => ordering != Ordering::Less,
    })
}

/// AND (`decisive` false) and OR (`decisive` true) with NULL logic.
fn junction(list: &[Expr], decisive: bool, row: &[Value], cx: &Context<'_>) -> Result<Option<bool>> {
    let mut unknown = false;
    for expr in list {
        match expr.eval_bool(row, cx)? {
            Some(truth) if truth == decisive => return Ok(Some(decisive)),
            Some(_) => {}
            None => unknown = true,
        }
    }
    Ok(if unknown { None } else { Some(!decisive) })
}

fn member(value: &Value, list: &[Expr], collation: Collation, row: &[Value], cx: &Context<'_>) -> Result<Option<bool>> {
    if value.is_null() {
        return Ok(None);
    }
    let mut unknown = false;
    for expr in list {
        match compare_op(CompareOp::Eq, value, &*expr.eval(row, cx)?, collation, cx) {
            Some(true) => return Ok(Some(true)),
            Some(false) => {}
            None => unknown = true,
        }
    }
    Ok(if unknown { None } else { Some(false) })
}

fn eval_like(like: &Like, row: &[Value], cx: &Context<'_>) -> Result<Option<bool>> {
    let (value, pattern) = (like.expr.eval(row, cx)?, like.pattern.eval(row, cx)?);
    let (Some(text), Some(pattern)) = (super::convert::to_text_as(&value, &like.expr.ty), to_text(&pattern)) else {
        return Ok(None);
    };
    let binary = matches!(*value, Value::Bin(_));
    let collation = if binary { Collation::Binary } else { like.collation };
    Ok(Some(like::matches(&text, &pattern, like.escape, collation) != like.negated))
}

fn eval_regexp(regexp: &Regexp, row: &[Value], cx: &Context<'_>) -> Result<Option<bool>> {
    let value = regexp.expr.eval(row, cx)?;
    let Some(text) = to_text(&value) else { return Ok(None) };
    if let Some(compiled) = &regexp.compiled {
        return Ok(Some(compiled.is_match(&text) != regexp.negated));
    }
    let pattern = regexp.pattern.eval(row, cx)?;
    let Some(pattern) = to_text(&pattern) else { return Ok(None) };
    let compiled = like::compile_regexp(&pattern, regexp.ignore_case)?;
    Ok(Some(compiled.is_match(&text) != regexp.negated))
}

/// A hexadecimal literal as a number: its last eight bytes.
pub fn hex_number(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0u64, |number, byte| number << 8 | u64::from(*byte))
}
