//! Owns bound expressions: names are slots of a row, types are known, constants are folded.
//!
//! [`super::bind`] makes them from the AST, [`super::eval`] runs them.

use bytes::Bytes;

use super::ast::{AggregateKind, IntervalUnit, IsTest, VariableScope};
use super::collation::Collation;
use super::functions::Function;
use super::types::DataType;
use super::value::Value;

/// A bound expression.
#[derive(Clone, Debug)]
pub struct Expr {
    /// What to do.
    pub node: Node,
    /// Type of the result. [`DataType::NULL`] if only a parameter's value will tell.
    pub ty: DataType,
    /// Whether the result can be NULL.
    pub nullable: bool,
}

/// Comparison operators.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // the names say it
pub enum CompareOp {
    Eq,
    NullSafeEq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
}

impl CompareOp {
    /// The operator with its sides exchanged: `a < b` is `b > a`.
    pub fn flipped(self) -> Self {
        match self {
            Self::Lt => Self::Gt,
            Self::Le => Self::Ge,
            Self::Gt => Self::Lt,
            Self::Ge => Self::Le,
            other => other,
        }
    }
}

/// Arithmetic operators.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // the names say it
pub enum ArithOp {
    Add,
    Sub,
    Mul,
    Div,
    IntDiv,
    Mod,
}

/// Bit operators.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // the names say it
pub enum BitOp {
    And,
    Or,
    Xor,
    Shl,
    Shr,
}

/// One operation. Pairs share a box, so that a node stays small.
#[derive(Clone, Debug)]
#[allow(missing_docs)] // as in the AST
pub enum Node {
    Const(Value),
    /// X'..' or 0x..: bytes, or a number in numeric context.
    HexConst(Bytes),
    Param(u32),
    /// Column of the input row.
    Slot(u32),
    Neg(Box<Expr>),
    Not(Box<Expr>),
    BitNot(Box<Expr>),
    Arith(ArithOp, Box<(Expr, Expr)>),
    Bit(BitOp, Box<(Expr, Expr)>),
    /// Strings compare by this collation.
    Compare(CompareOp, Collation, Box<(Expr, Expr)>),
    /// Two or more; nested ANDs are flattened.
    And(Vec<Expr>),
    Or(Vec<Expr>),
    Xor(Box<(Expr, Expr)>),
    Is {
        expr: Box<Expr>,
        test: IsTest,
        negated: bool,
    },
    In {
        expr: Box<Expr>,
        list: Vec<Expr>,
        collation: Collation,
        negated: bool,
    },
    /// `(a, b) IN ((1, 2), ...)` and row comparison are expanded when bound; this is what is left.
    Like(Box<Like>),
    Regexp(Box<Regexp>),
    Case(Box<Case>),
    /// IF, IFNULL, COALESCE, NULLIF and CASE give their result the node's type.
    Coalesce(Vec<Expr>),
    If(Box<(Expr, Expr, Expr)>),
    NullIf(Collation, Box<(Expr, Expr)>),
    /// CAST to the node's type.
    Cast(Box<Expr>),
    /// Same value under another collation or character set.
    Recollate(Box<Expr>),
    Call(&'static Function, Vec<Expr>),
    UserVar(String),
    Assign(String, Box<Expr>),
    SystemVar(VariableScope, String),
    DateAdd {
        args: Box<(Expr, Expr)>,
        unit: IntervalUnit,
        subtract: bool,
    },
    Extract(IntervalUnit, Box<Expr>),
    TimestampDiff(IntervalUnit, Box<(Expr, Expr)>),
}

/// LIKE.
#[derive(Clone, Debug)]
pub struct Like {
    /// Text.
    pub expr: Expr,
    /// Pattern.
    pub pattern: Expr,
    /// Escape character; 0 for none.
    pub escape: u8,
    /// How letters compare.
    pub collation: Collation,
    /// NOT LIKE.
    pub negated: bool,
}

/// REGEXP.
#[derive(Clone, Debug)]
pub struct Regexp {
    /// Text.
    pub expr: Expr,
    /// Pattern.
    pub pattern: Expr,
    /// The pattern compiled, if it is constant.
    pub compiled: Option<regex::bytes::Regex>,
    /// Letters compare without case.
    pub ignore_case: bool,
    /// NOT REGEXP.
    pub negated: bool,
}

/// CASE. With an operand, branches compare to it.
#[derive(Clone, Debug)]
pub struct Case {
    /// `CASE operand`.
    pub operand: Option<Expr>,
    /// How operand and WHEN compare.
    pub collation: Collation,
    /// WHEN, THEN.
    pub branches: Vec<(Expr, Expr)>,
    /// ELSE.
    pub otherwise: Option<Expr>,
}

/// A bound aggregate call: its arguments read the input row, its result fills a slot after the row.
#[derive(Clone, Debug)]
pub struct AggregateCall {
    /// Which.
    pub kind: AggregateKind,
    /// DISTINCT.
    pub distinct: bool,
    /// Arguments; empty for COUNT(*).
    pub args: Vec<Expr>,
    /// ORDER BY of GROUP_CONCAT: key, descending.
    pub order_by: Vec<(Expr, bool)>,
    /// SEPARATOR of GROUP_CONCAT.
    pub separator: Bytes,
    /// Type of the result.
    pub ty: DataType,
    /// Whether the result can be NULL.
    pub nullable: bool,
}

impl Expr {
    /// An expression with a type; nullable.
    pub fn new(node: Node, ty: DataType) -> Self {
        Self { node, ty, nullable: true }
    }

    /// A column of the input row.
    pub fn slot(slot: u32, ty: DataType, nullable: bool) -> Self {
        Self { node: Node::Slot(slot), ty, nullable }
    }

    /// A constant, its type taken from the value.
    pub fn constant(value: Value) -> Self {
        let ty = super::infer::type_of_value(&value);
        let nullable = value.is_null();
        Self { node: Node::Const(value), ty, nullable }
    }

    /// The slot, if the expression is a bare column.
    pub fn as_slot(&self) -> Option<u32> {
        match self.node {
            Node::Slot(slot) => Some(slot),
            _ => None,
        }
    }

    /// Direct operands.
    pub fn children(&self) -> smallvec::SmallVec<[&Expr; 4]> {
        match &self.node {
            Node::Const(_)
            | Node::HexConst(_)
            | Node::Param(_)
            | Node::Slot(_)
            | Node::UserVar(_)
            | Node::SystemVar(..) => [].into_iter().collect(),
            Node::Neg(e)
            | Node::Not(e)
            | Node::BitNot(e)
            | Node::Is { expr: e, .. }
            | Node::Cast(e)
            | Node::Recollate(e)
            | Node::Assign(_, e)
            | Node::Extract(_, e) => [&**e].into_iter().collect(),
            Node::Arith(_, p)
            | Node::Bit(_, p)
            | Node::Compare(_, _, p)
            | Node::Xor(p)
            | Node::NullIf(_, p)
            | Node::DateAdd { args: p, .. }
            | Node::TimestampDiff(_, p) => [&p.0, &p.1].into_iter().collect(),
            Node::And(list) | Node::Or(list) | Node::Coalesce(list) | Node::Call(_, list) => list.iter().collect(),
            Node::In { expr, list, .. } => std::iter::once(&**expr).chain(list).collect(),
            Node::Like(like) => [&like.expr, &like.pattern].into_iter().collect(),
            Node::Regexp(regexp) => [&regexp.expr, &regexp.pattern].into_iter().collect(),
            Node::If(t) => [&t.0, &t.1, &t.2].into_iter().collect(),
            Node::Case(case) => case
                .operand
                .iter()
                .chain(case.branches.iter().flat_map(|(when, then)| [when, then]))
                .chain(&case.otherwise)
                .collect(),
        }
    }

    /// Calls `visit` on this node and every node below.
    pub fn walk<'a>(&'a self, visit: &mut dyn FnMut(&'a Expr)) {
        visit(self);
        for child in self.children() {
            child.walk(visit);
        }
    }

    /// Whether the value is the same for every row of one execution: no slot, nothing volatile. Parameters are fine.
    pub fn is_row_constant(&self) -> bool {
        let own = match &self.node {
            Node::Slot(_) | Node::UserVar(_) | Node::Assign(..) => false,
            Node::Call(function, _) => !function.volatile,
            _ => true,
        };
        own && self.children().into_iter().all(Self::is_row_constant)
    }

    /// Whether the value is the same in every execution: also no parameter, session state or clock.
    pub fn is_constant(&self) -> bool {
        let own = match &self.node {
            Node::Slot(_) | Node::Param(_) | Node::UserVar(_) | Node::Assign(..) | Node::SystemVar(..) => false,
            Node::Call(function, _) => !function.volatile && !function.session,
            _ => true,
        };
        own && self.children().into_iter().all(Self::is_constant)
    }

    /// Slots read, in order of first use.
    pub fn slots(&self) -> Vec<u32> {
        let mut slots = Vec::new();
        self.walk(&mut |expr| {
            if let Node::Slot(slot) = expr.node
                && !slots.contains(&slot)
            {
                slots.push(slot);
            }
        });
        slots
    }

    /// The parts of a condition that must all hold.
    pub fn conjuncts(&self) -> Vec<&Expr> {
        match &self.node {
            Node::And(list) => list.iter().flat_map(Self::conjuncts).collect(),
            _ => vec![self],
        }
    }

    /// `slot op constant` in either order, as `(slot, op, constant side)`; for index ranges.
    pub fn as_column_comparison(&self) -> Option<(u32, CompareOp, &Expr)> {
        let Node::Compare(op, _, pair) = &self.node else { return None };
        match (pair.0.as_slot(), pair.1.as_slot()) {
            (Some(slot), _) if pair.1.is_row_constant() => Some((slot, *op, &pair.1)),
            (_, Some(slot)) if pair.0.is_row_constant() => Some((slot, op.flipped(), &pair.0)),
            _ => None,
        }
    }
}
