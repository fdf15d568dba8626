//! Owns the expression tree as parsed, before names are resolved and types are known.

use super::ast::Query;
use super::types::DataType;
use super::value::Value;

/// `[[db.]table.]column`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ColumnName {
    /// Database qualifier.
    pub database: Option<String>,
    /// Table or alias qualifier.
    pub table: Option<String>,
    /// Column.
    pub name: String,
}

impl std::fmt::Display for ColumnName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for part in [&self.database, &self.table].into_iter().flatten() {
            write!(f, "{part}.")?;
        }
        f.write_str(&self.name)
    }
}

/// An expression as written.
#[derive(Clone, Debug, PartialEq)]
pub enum Expr {
    /// A constant.
    Literal(Value),
    /// A hexadecimal or bit literal: a binary string that is a number in numeric context.
    HexLiteral(bytes::Bytes),
    /// `?`, counted from 0 in text order.
    Param(u32),
    /// A column reference.
    Column(ColumnName),
    /// `@name`
    UserVar(String),
    /// `@name := expr`
    Assign(String, Box<Expr>),
    /// `@@[scope.]name`, the name in lower case.
    SystemVar { scope: VariableScope, name: String },
    /// Prefix operators.
    Unary(UnaryOp, Box<Expr>),
    /// Infix operators.
    Binary(BinaryOp, Box<Expr>, Box<Expr>),
    /// `expr IS [NOT] NULL | TRUE | FALSE | UNKNOWN`
    Is { expr: Box<Expr>, test: IsTest, negated: bool },
    /// `expr [NOT] BETWEEN low AND high`
    Between { expr: Box<Expr>, low: Box<Expr>, high: Box<Expr>, negated: bool },
    /// `expr [NOT] IN (list)`
    In { expr: Box<Expr>, list: Vec<Expr>, negated: bool },
    /// `expr [NOT] IN (query)`
    InQuery { expr: Box<Expr>, query: Box<Query>, negated: bool },
    /// `EXISTS (query)`
    Exists(Box<Query>),
    /// `(query)`
    Subquery(Box<Query>),
    /// `expr op ANY|ALL (query)`
    Quantified { op: BinaryOp, all: bool, expr: Box<Expr>, query: Box<Query> },
    /// `expr [NOT] LIKE pattern [ESCAPE escape]`
    Like { expr: Box<Expr>, pattern: Box<Expr>, escape: Option<Box<Expr>>, negated: bool },
    /// `expr [NOT] REGEXP pattern`
    Regexp { expr: Box<Expr>, pattern: Box<Expr>, negated: bool },
    /// CASE.
    Case { operand: Option<Box<Expr>>, branches: Vec<(Expr, Expr)>, otherwise: Option<Box<Expr>> },
    /// CAST and CONVERT(expr, type). String targets have the collation's character set; `None` length is unbounded.
    Cast { expr: Box<Expr>, ty: DataType },
    /// `CONVERT(expr USING charset)`, also an introducer such as `_utf8mb4'x'`.
    Using { expr: Box<Expr>, charset: String },
    /// `expr COLLATE name`
    Collate { expr: Box<Expr>, collation: String },
    /// A function call; the name is upper case.
    Call { name: String, args: Vec<Expr> },
    /// An aggregate call.
    Aggregate(Box<Aggregate>),
    /// `date + INTERVAL value unit`, DATE_ADD, DATE_SUB.
    DateAdd { expr: Box<Expr>, value: Box<Expr>, unit: IntervalUnit, subtract: bool },
    /// `EXTRACT(unit FROM expr)`
    Extract { unit: IntervalUnit, expr: Box<Expr> },
    /// `TIMESTAMPDIFF(unit, from, to)`
    TimestampDiff { unit: IntervalUnit, from: Box<Expr>, to: Box<Expr> },
    /// `(a, b, ...)`
    Row(Vec<Expr>),
    /// `DEFAULT` (None) and `DEFAULT(column)`.
    Default(Option<ColumnName>),
    /// `VALUES(column)` in ON DUPLICATE KEY UPDATE.
    Values(ColumnName),
    /// MATCH ... AGAINST, window functions and the like, named for error 1235.
    Unsupported(String),
}

/// Scope of a system variable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum VariableScope {
    /// No scope word, in an expression or SET: session if it has one, else global.
    Default,
    /// SESSION, LOCAL.
    Session,
    /// GLOBAL.
    Global,
    /// PERSIST.
    Persist,
    /// PERSIST_ONLY.
    PersistOnly,
    /// SET TRANSACTION without a scope: the next transaction.
    Next,
}

/// Prefix operators.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum UnaryOp {
    /// `-`
    Neg,
    /// `+`, no effect.
    Plus,
    /// `NOT` and `!`
    Not,
    /// `~`
    BitNot,
    /// `BINARY expr`
    Binary,
}

/// Infix operators.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // the names say it
pub enum BinaryOp {
    Or,
    Xor,
    And,
    Eq,
    NullSafeEq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
    BitOr,
    BitAnd,
    Shl,
    Shr,
    Add,
    Sub,
    Mul,
    Div,
    IntDiv,
    Mod,
    BitXor,
    /// `->`
    JsonExtract,
    /// `->>`
    JsonUnquote,
    /// `MEMBER OF`
    MemberOf,
    /// `SOUNDS LIKE`
    SoundsLike,
}

impl BinaryOp {}

/// Right side of IS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // the names say it
pub enum IsTest {
    Null,
    True,
    False,
    Unknown,
}

/// An aggregate call.
#[derive(Clone, Debug, PartialEq)]
pub struct Aggregate {
    /// Which.
    pub kind: AggregateKind,
    /// DISTINCT.
    pub distinct: bool,
    /// Arguments; empty for COUNT(*).
    pub args: Vec<Expr>,
    /// ORDER BY of GROUP_CONCAT.
    pub order_by: Vec<super::ast::OrderItem>,
    /// SEPARATOR of GROUP_CONCAT.
    pub separator: Option<bytes::Bytes>,
}

/// Aggregate functions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // the names say it
pub enum AggregateKind {
    Count,
    Sum,
    Avg,
    Min,
    Max,
    GroupConcat,
    StddevPop,
    StddevSamp,
    VarPop,
    VarSamp,
    BitAnd,
    BitOr,
    BitXor,
    JsonArrayAgg,
    JsonObjectAgg,
    AnyValue,
}

/// Units of INTERVAL and EXTRACT.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // the names say it
pub enum IntervalUnit {
    Microsecond,
    Second,
    Minute,
    Hour,
    Day,
    Week,
    Month,
    Quarter,
    Year,
    SecondMicrosecond,
    MinuteMicrosecond,
    MinuteSecond,
    HourMicrosecond,
    HourSecond,
    HourMinute,
    DayMicrosecond,
    DaySecond,
    DayMinute,
    DayHour,
    YearMonth,
}
