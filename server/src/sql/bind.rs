//! Owns binding: the parsed expression becomes typed, names become slots, constants are folded.

use bytes::Bytes;

use super::ast::{self, Aggregate, AggregateKind, BinaryOp, ColumnName, IsTest, UnaryOp};
use super::collation::Collation;
use super::context::SessionInfo;
use super::error::{self, Result, sql_error, unsupported};
use super::expr::{AggregateCall, ArithOp, BitOp, Case, CompareOp, Expr, Like, Node, Regexp};
use super::fold;
use super::functions;
use super::infer::{self, collation_of, unify};
use super::types::{DataType, TypeKind};
use super::value::Value;

/// Names that an expression may use.
pub trait Scope {
    /// A column as [`Expr::slot`]. `Ok(None)` if there is none (error 1054 is the binder's); 1052 if ambiguous.
    fn column(&self, name: &ColumnName) -> Result<Option<Expr>>;
    /// `VALUES(column)`: the row that was to be inserted. Outside ON DUPLICATE KEY UPDATE there is none.
    fn inserted(&self, _name: &ColumnName) -> Result<Option<Expr>> {
        Ok(None)
    }
    /// `DEFAULT(column)`, or DEFAULT of the column being assigned if `name` is `None`.
    fn default_of(&self, _name: Option<&ColumnName>) -> Result<Option<Expr>> {
        Ok(None)
    }
}

/// A scope without columns.
pub struct NoColumns;

impl Scope for NoColumns {
    fn column(&self, _name: &ColumnName) -> Result<Option<Expr>> {
        Ok(None)
    }
}

/// Deepest nesting of an expression: bounds the stack.
pub const MAX_DEPTH: usize = 250;

/// Binds expressions of one clause after the other.
pub struct Binder<'a> {
    scope: &'a dyn Scope,
    session: &'a dyn SessionInfo,
    clause: &'static str,
    aggregates: Option<Aggregates>,
    in_aggregate: bool,
    depth: usize,
    collation: Collation,
}

/// Aggregate calls found while binding; their results are slots from `base` on.
#[derive(Debug, Default)]
struct Aggregates {
    base: u32,
    calls: Vec<AggregateCall>,
}

impl<'a> Binder<'a> {
    /// A binder in which aggregates are an error (1111).
    pub fn new(scope: &'a dyn Scope, session: &'a dyn SessionInfo) -> Self {
        Self {
            scope,
            session,
            clause: "field list",
            aggregates: None,
            in_aggregate: false,
            depth: 0,
            collation: Collation::default(),
        }
    }

    /// Literals take this collation (collation_connection).
    pub fn with_collation(mut self, collation: Collation) -> Self {
        self.collation = collation;
        self
    }

    /// Allows aggregates; the result of the n-th distinct call is slot `base + n`.
    pub fn with_aggregates(mut self, base: u32) -> Self {
        self.aggregates = Some(Aggregates { base, calls: Vec::new() });
        self
    }

    /// The clause named in error 1054: "field list", "where clause", "order clause", "group statement", "having clause".
    pub fn clause(&mut self, clause: &'static str) -> &mut Self {
        self.clause = clause;
        self
    }

    /// Forbids aggregates for a clause such as WHERE, and returns what to restore with [`Self::allow_aggregates`].
    pub fn forbid_aggregates(&mut self) {
        self.in_aggregate = true;
    }

    /// Ends [`Self::forbid_aggregates`].
    pub fn allow_aggregates(&mut self) {
        self.in_aggregate = false;
    }

    /// The aggregate calls found, in slot order.
    pub fn into_aggregates(self) -> Vec<AggregateCall> {
        self.aggregates.map(|found| found.calls).unwrap_or_default()
    }

    /// Binds one expression.
    pub fn bind(&mut self, expr: &ast::Expr) -> Result<Expr> {
        if self.depth >= MAX_DEPTH {
            return Err(sql_error(1436, "Thread stack overrun: the expression is nested too deeply"));
        }
        self.depth += 1;
        let bound = self.bind_node(expr);
        self.depth -= 1;
        Ok(fold::fold(bound?, self.session))
    }

    fn boxed(&mut self, expr: &ast::Expr) -> Result<Box<Expr>> {
        self.bind(expr).map(Box::new)
    }

    fn pair(&mut self, a: &ast::Expr, b: &ast::Expr) -> Result<Box<(Expr, Expr)>> {
        Ok(Box::new((self.bind(a)?, self.bind(b)?)))
    }

    fn list(&mut self, list: &[ast::Expr]) -> Result<Vec<Expr>> {
        list.iter().map(|expr| self.bind(expr)).collect()
    }

    fn bind_node(&mut self, expr: &ast::Expr) -> Result<Expr> {
        use ast::Expr as E;
        Ok(match expr {
            E::Literal(value) => self.literal(value),
            E::HexLiteral(bytes) => {
                let ty = DataType::varchar(bytes.len() as u32, Collation::Binary);
                Expr { node: Node::HexConst(bytes.clone()), ty, nullable: false }
            }
            E::Param(index) => Expr::new(Node::Param(*index), DataType::NULL),
            E::Column(name) => self.column(name)?,
            E::UserVar(name) => self.user_var(name),
            E::Assign(name, value) => {
                let value = self.boxed(value)?;
                let ty = value.ty;
                Expr::new(Node::Assign(name.clone(), value), ty)
            }
            E::SystemVar { scope, name } => {
                let ty = infer::type_of_value(&self.session.system_var(*scope, name)?);
                Expr::new(Node::SystemVar(*scope, name.clone()), ty)
            }
            E::Unary(op, inner) => self.unary(*op, inner)?,
            E::Binary(op, a, b) => self.binary(*op, a, b)?,
            E::Is { expr, test, negated } => {
                let expr = self.scalar(expr)?;
                predicate(Node::Is { expr: Box::new(expr), test: *test, negated: *negated }, false)
            }
            E::Between { expr, low, high, negated } => self.between(expr, low, high, *negated)?,
            E::In { expr, list, negated } => self.in_list(expr, list, *negated)?,
            E::Like { expr, pattern, escape, negated } => self.like(expr, pattern, escape.as_deref(), *negated)?,
            E::Regexp { expr, pattern, negated } => self.regexp(expr, pattern, *negated)?,
            E::Case { operand, branches, otherwise } => {
                self.case(operand.as_deref(), branches, otherwise.as_deref())?
            }
            E::Cast { expr, ty } => {
                let inner = self.boxed(expr)?;
                Expr::new(Node::Cast(inner), *ty)
            }
            E::Using { expr, charset } => self.using(expr, charset)?,
            E::Collate { expr, collation } => self.collate(expr, collation)?,
            E::Call { name, args } => self.call(name, args)?,
            E::Aggregate(aggregate) => self.aggregate(aggregate)?,
            E::DateAdd { expr, value, unit, subtract } => {
                let args = self.pair(expr, value)?;
                let ty = date_add_type(&args.0, &args.1, *unit);
                Expr::new(Node::DateAdd { args, unit: *unit, subtract: *subtract }, ty)
            }
            E::Extract { unit, expr } => Expr::new(Node::Extract(*unit, self.boxed(expr)?), DataType::BIGINT),
            E::TimestampDiff { unit, from, to } => {
                Expr::new(Node::TimestampDiff(*unit, self.pair(from, to)?), DataType::BIGINT)
            }
            E::Default(name) => self.scope.default_of(name.as_ref())?.ok_or_else(|| match name {
                Some(name) => error::unknown_column(&name.to_string(), self.clause),
                None => sql_error(1064, "You have an error in your SQL syntax: DEFAULT is not allowed here"),
            })?,
            E::Values(name) => match self.scope.inserted(name)? {
                Some(found) => found,
                // Elsewhere MySQL gives NULL, but the column must exist.
                None => Expr { node: Node::Const(Value::Null), ..self.column(name)? },
            },
            E::Row(_) => return Err(sql_error(1241, "Operand should contain 1 column(s)")),
            E::InQuery { .. } | E::Exists(_) | E::Subquery(_) | E::Quantified { .. } => {
                return Err(unsupported("subquery"));
            }
            E::Unsupported(what) => return Err(unsupported(what)),
        })
    }

    fn literal(&self, value: &Value) -> Expr {
        let mut bound = Expr::constant(value.clone());
        if bound.ty.is_string() && !bound.ty.is_binary() {
            bound.ty.collation = self.collation;
        }
        bound
    }

    fn column(&self, name: &ColumnName) -> Result<Expr> {
        self.scope.column(name)?.ok_or_else(|| error::unknown_column(&name.to_string(), self.clause))
    }

    fn user_var(&self, name: &str) -> Expr {
        let value = self.session.user_var(name);
        let ty = if value.is_null() { DataType::NULL } else { infer::type_of_value(&value) };
        let ty = if ty.is_string() { DataType::text(ty.collation) } else { ty };
        Expr::new(Node::UserVar(name.to_owned()), ty)
    }

    /// An operand that must not be a row.
    fn scalar(&mut self, expr: &ast::Expr) -> Result<Expr> {
        self.bind(expr)
    }

    fn unary(&mut self, op: UnaryOp, inner: &ast::Expr) -> Result<Expr> {
        // -9223372036854775808 is one literal.
        if let (UnaryOp::Neg, ast::Expr::Literal(Value::UInt(number))) = (op, inner)
            && *number == i64::MIN.unsigned_abs()
        {
            return Ok(Expr::constant(Value::Int(i64::MIN)));
        }
        let inner = self.boxed(inner)?;
        let nullable = inner.nullable;
        let (node, ty) = match op {
            UnaryOp::Plus => return Ok(*inner),
            UnaryOp::Not => return Ok(negated(*inner)),
            UnaryOp::Neg => {
                let ty = infer::arithmetic(ArithOp::Sub, &DataType::new(inner.ty.kind), &inner.ty);
                let ty = if ty.kind == TypeKind::Decimal { DataType { unsigned: false, ..inner.ty } } else { ty };
                let ty = if inner.ty.is_number() || inner.ty.is_temporal() {
                    DataType { unsigned: false, ..ty }
                } else {
                    DataType::DOUBLE
                };
                (Node::Neg(inner), ty)
            }
            UnaryOp::BitNot => (Node::BitNot(inner), DataType::UBIGINT),
            UnaryOp::Binary => {
                let ty = DataType { collation: Collation::Binary, ..string_type(&inner.ty) };
                (Node::Recollate(inner), ty)
            }
        };
        Ok(Expr { node, ty, nullable })
    }

    fn binary(&mut self, op: BinaryOp, a: &ast::Expr, b: &ast::Expr) -> Result<Expr> {
        if let Some(compare) = compare_op(op) {
            return self.comparison(compare, a, b);
        }
        let arith = |op| (Some(op), None);
        let bit = |op| (None, Some(op));
        let (arith, bit) = match op {
            BinaryOp::And => return self.junction(a, b, true),
            BinaryOp::Or => return self.junction(a, b, false),
            BinaryOp::Xor => {
                let pair = self.pair(a, b)?;
                let nullable = pair.0.nullable || pair.1.nullable;
                return Ok(predicate(Node::Xor(pair), nullable));
            }
            BinaryOp::JsonExtract => {
                let args = vec![self.bind(a)?, self.bind(b)?];
                return self.call_bound("JSON_EXTRACT", args);
            }
            BinaryOp::JsonUnquote => {
                let extracted = vec![self.bind(a)?, self.bind(b)?];
                let extracted = self.call_bound("JSON_EXTRACT", extracted)?;
                return self.call_bound("JSON_UNQUOTE", vec![extracted]);
            }
            BinaryOp::MemberOf => return Err(unsupported("MEMBER OF")),
            BinaryOp::SoundsLike => return Err(unsupported("SOUNDS LIKE")),
            BinaryOp::Add => arith(ArithOp::Add),
            BinaryOp::Sub => arith(ArithOp::Sub),
            BinaryOp::Mul => arith(ArithOp::Mul),
            BinaryOp::Div => arith(ArithOp::Div),
            BinaryOp::IntDiv => arith(ArithOp::IntDiv),
            BinaryOp::Mod => arith(ArithOp::Mod),
            BinaryOp::BitOr => bit(BitOp::Or),
            BinaryOp::BitAnd => bit(BitOp::And),
            BinaryOp::BitXor => bit(BitOp::Xor),
            BinaryOp::Shl => bit(BitOp::Shl),
            _ => bit(BitOp::Shr),
        };
        let pair = self.pair(a, b)?;
        let operands = pair.0.nullable || pair.1.nullable;
        if let Some(op) = arith {
            let ty = infer::arithmetic(op, &numeric_operand(&pair.0), &numeric_operand(&pair.1));
            let by_zero = matches!(op, ArithOp::Div | ArithOp::IntDiv | ArithOp::Mod);
            return Ok(Expr { node: Node::Arith(op, pair), ty, nullable: operands || by_zero });
        }
        let op = bit.unwrap_or(BitOp::Or);
        let ty = if pair.0.ty.is_binary() && pair.1.ty.is_binary() { pair.0.ty } else { DataType::UBIGINT };
        Ok(Expr { node: Node::Bit(op, pair), ty, nullable: operands })
    }

    fn junction(&mut self, a: &ast::Expr, b: &ast::Expr, and: bool) -> Result<Expr> {
        let mut parts = Vec::new();
        // Long chains lean left; walk them without recursion.
        let wanted = if and { BinaryOp::And } else { BinaryOp::Or };
        let (mut left, mut rest) = (a, vec![b]);
        while let ast::Expr::Binary(op, x, y) = left
            && *op == wanted
        {
            rest.push(y);
            left = x;
        }
        rest.push(left);
        for expr in rest.into_iter().rev() {
            let bound = self.bind(expr)?;
            match bound.node {
                Node::And(inner) if and => parts.extend(inner),
                Node::Or(inner) if !and => parts.extend(inner),
                _ => parts.push(bound),
            }
        }
        Ok(junction(parts, and))
    }

    fn comparison(&mut self, op: CompareOp, a: &ast::Expr, b: &ast::Expr) -> Result<Expr> {
        if let (ast::Expr::Row(left), ast::Expr::Row(right)) = (a, b) {
            return self.row_comparison(op, left, right);
        }
        let (a, b) = (self.bind(a)?, self.bind(b)?);
        compared(op, a, b)
    }

    /// `(a, b) = (c, d)` and the orders, written out.
    fn row_comparison(&mut self, op: CompareOp, left: &[ast::Expr], right: &[ast::Expr]) -> Result<Expr> {
        if left.len() != right.len() {
            return Err(sql_error(1241, format!("Operand should contain {} column(s)", left.len())));
        }
        let (left, right) = (self.list(left)?, self.list(right)?);
        let each = |op: CompareOp, at: usize| compared(op, left[at].clone(), right[at].clone());
        let count = left.len();
        match op {
            CompareOp::Eq | CompareOp::NullSafeEq => {
                Ok(junction((0..count).map(|at| each(op, at)).collect::<Result<_>>()?, true))
            }
            CompareOp::Ne => Ok(junction((0..count).map(|at| each(op, at)).collect::<Result<_>>()?, false)),
            // a < c OR (a = c AND b < d)
            _ => {
                let strict = match op {
                    CompareOp::Le => CompareOp::Lt,
                    CompareOp::Ge => CompareOp::Gt,
                    other => other,
                };
                let mut alternatives = Vec::with_capacity(count);
                for at in 0..count {
                    let mut parts = (0..at).map(|i| each(CompareOp::Eq, i)).collect::<Result<Vec<_>>>()?;
                    parts.push(each(if at + 1 == count { op } else { strict }, at)?);
                    alternatives.push(junction(parts, true));
                }
                Ok(junction(alternatives, false))
            }
        }
    }

    fn between(&mut self, expr: &ast::Expr, low: &ast::Expr, high: &ast::Expr, not: bool) -> Result<Expr> {
        let (expr, low, high) = (self.bind(expr)?, self.bind(low)?, self.bind(high)?);
        let (above, below) = if not { (CompareOp::Lt, CompareOp::Gt) } else { (CompareOp::Ge, CompareOp::Le) };
        Ok(junction(vec![compared(above, expr.clone(), low)?, compared(below, expr, high)?], !not))
    }

    fn in_list(&mut self, expr: &ast::Expr, list: &[ast::Expr], negated: bool) -> Result<Expr> {
        if let ast::Expr::Row(left) = expr {
            let mut alternatives = Vec::with_capacity(list.len());
            for item in list {
                let ast::Expr::Row(right) = item else {
                    return Err(sql_error(1241, format!("Operand should contain {} column(s)", left.len())));
                };
                alternatives.push(self.row_comparison(CompareOp::Eq, left, right)?);
            }
            let any = junction(alternatives, false);
            return Ok(if negated { self::negated(any) } else { any });
        }
        let expr = self.boxed(expr)?;
        let mut list = self.list(list)?;
        if expr.as_slot().is_some() {
            list.iter_mut().for_each(|item| typed_for(item, &expr.ty));
        }
        let nullable = expr.nullable || list.iter().any(|item| item.nullable);
        let collation = if expr.ty.is_string() { collation_of([&*expr]) } else { collation_of(&list) };
        Ok(predicate(Node::In { expr, list, collation, negated }, nullable))
    }

    fn like(
        &mut self,
        expr: &ast::Expr,
        pattern: &ast::Expr,
        escape: Option<&ast::Expr>,
        negated: bool,
    ) -> Result<Expr> {
        let (expr, pattern) = (self.bind(expr)?, self.bind(pattern)?);
        let escape = match escape {
            None if self.session.sql_mode().no_backslash_escapes => 0,
            None => b'\\',
            Some(escape) => match self.bind(escape)?.node {
                Node::Const(value) => match value.as_bytes() {
                    Some([]) => 0,
                    Some([byte]) => *byte,
                    _ => return Err(error::wrong_arguments("ESCAPE")),
                },
                _ => return Err(error::wrong_arguments("ESCAPE")),
            },
        };
        let collation = collation_of([&expr, &pattern]);
        let nullable = expr.nullable || pattern.nullable;
        Ok(predicate(Node::Like(Box::new(Like { expr, pattern, escape, collation, negated })), nullable))
    }

    fn regexp(&mut self, expr: &ast::Expr, pattern: &ast::Expr, negated: bool) -> Result<Expr> {
        let (expr, pattern) = (self.bind(expr)?, self.bind(pattern)?);
        let ignore_case = collation_of([&expr, &pattern]).is_case_insensitive();
        let compiled = match &pattern.node {
            Node::Const(value) if !value.is_null() => {
                let text = super::convert::to_text(value).unwrap_or_default();
                Some(super::like::compile_regexp(&text, ignore_case)?)
            }
            _ => None,
        };
        let nullable = expr.nullable || pattern.nullable;
        Ok(predicate(Node::Regexp(Box::new(Regexp { expr, pattern, compiled, ignore_case, negated })), nullable))
    }

    fn case(
        &mut self,
        operand: Option<&ast::Expr>,
        branches: &[(ast::Expr, ast::Expr)],
        otherwise: Option<&ast::Expr>,
    ) -> Result<Expr> {
        let operand = operand.map(|operand| self.bind(operand)).transpose()?;
        let mut bound = Vec::with_capacity(branches.len());
        for (when, then) in branches {
            bound.push((self.bind(when)?, self.bind(then)?));
        }
        let otherwise = otherwise.map(|otherwise| self.bind(otherwise)).transpose()?;
        let results = || bound.iter().map(|(_, then)| then).chain(&otherwise);
        let types: Vec<DataType> = results().map(|expr| expr.ty).collect();
        let nullable = otherwise.is_none() || results().any(|expr| expr.nullable);
        let collation = collation_of(operand.iter().chain(bound.iter().map(|(when, _)| when)));
        let ty = with_collation(unify(&types), collation_of(results()));
        let case = Case { operand, collation, branches: bound, otherwise };
        Ok(Expr { node: Node::Case(Box::new(case)), ty, nullable })
    }

    fn using(&mut self, expr: &ast::Expr, charset: &str) -> Result<Expr> {
        let collation = Collation::default_of_charset(charset)
            .ok_or_else(|| sql_error(1115, format!("Unknown character set: '{charset}'")))?;
        let inner = self.boxed(expr)?;
        let (ty, nullable) = (DataType { collation, ..string_type(&inner.ty) }, inner.nullable);
        Ok(Expr { node: Node::Recollate(inner), ty, nullable })
    }

    fn collate(&mut self, expr: &ast::Expr, name: &str) -> Result<Expr> {
        let collation =
            Collation::from_name(name).ok_or_else(|| sql_error(1273, format!("Unknown collation: '{name}'")))?;
        let inner = self.boxed(expr)?;
        let own = string_type(&inner.ty);
        if inner.ty.is_string() && own.collation.charset() != collation.charset() {
            let charset = own.collation.charset();
            return Err(sql_error(1253, format!("COLLATION '{name}' is not valid for CHARACTER SET '{charset}'")));
        }
        let nullable = inner.nullable;
        Ok(Expr { node: Node::Recollate(inner), ty: DataType { collation, ..own }, nullable })
    }

    fn call(&mut self, name: &str, args: &[ast::Expr]) -> Result<Expr> {
        let args = self.list(args)?;
        self.call_bound(name, args)
    }

    fn call_bound(&mut self, name: &str, mut args: Vec<Expr>) -> Result<Expr> {
        let wrong_count = || Err(error::wrong_argument_count(name));
        let types: Vec<DataType> = args.iter().map(|arg| arg.ty).collect();
        match (name, args.len()) {
            ("IF", 3) => {
                let ty = with_collation(unify(&types[1..]), collation_of(&args[1..]));
                let nullable = args[1].nullable || args[2].nullable;
                let mut parts = args.into_iter();
                let (Some(a), Some(b), Some(c)) = (parts.next(), parts.next(), parts.next()) else {
                    return wrong_count();
                };
                return Ok(Expr { node: Node::If(Box::new((a, b, c))), ty, nullable });
            }
            ("IFNULL", 2) | ("COALESCE", 1..) => {
                let ty = with_collation(unify(&types), collation_of(&args));
                let nullable = args.iter().all(|arg| arg.nullable);
                return Ok(Expr { node: Node::Coalesce(args), ty, nullable });
            }
            ("NULLIF", 2) => {
                let collation = collation_of(&args);
                let mut parts = args.into_iter();
                let (Some(a), Some(b)) = (parts.next(), parts.next()) else { return wrong_count() };
                let ty = a.ty;
                return Ok(Expr::new(Node::NullIf(collation, Box::new((a, b))), ty));
            }
            ("ISNULL", 1) => {
                let Some(arg) = args.pop() else { return wrong_count() };
                let node = Node::Is { expr: Box::new(arg), test: IsTest::Null, negated: false };
                return Ok(predicate(node, false));
            }
            ("MOD", 2) => {
                let mut parts = args.into_iter();
                let (Some(a), Some(b)) = (parts.next(), parts.next()) else { return wrong_count() };
                let ty = infer::arithmetic(ArithOp::Mod, &a.ty, &b.ty);
                return Ok(Expr::new(Node::Arith(ArithOp::Mod, Box::new((a, b))), ty));
            }
            ("IF" | "IFNULL" | "COALESCE" | "NULLIF" | "ISNULL" | "MOD", _) => return wrong_count(),
            _ => {}
        }
        let Some(function) = functions::find(name) else {
            let name = self.session.database().map_or(name.to_owned(), |database| format!("{database}.{name}"));
            return Err(error::unknown_function(&name));
        };
        if args.len() < usize::from(function.min) || (function.max != 255 && args.len() > usize::from(function.max)) {
            return wrong_count();
        }
        let ty = (function.ty)(&args);
        let nullable = !function.session || args.iter().any(|arg| arg.nullable) || function.min > 0;
        Ok(Expr { node: Node::Call(function, args), ty, nullable })
    }

    fn aggregate(&mut self, aggregate: &Aggregate) -> Result<Expr> {
        if self.in_aggregate || self.aggregates.is_none() {
            return Err(sql_error(1111, "Invalid use of group function"));
        }
        self.in_aggregate = true;
        let args = self.list(&aggregate.args);
        let order_by: Result<Vec<(Expr, bool)>> =
            aggregate.order_by.iter().map(|item| Ok((self.bind(&item.expr)?, item.descending))).collect();
        self.in_aggregate = false;
        let call = aggregate_call(aggregate, args?, order_by?);
        let (ty, nullable) = (call.ty, call.nullable);
        let Some(found) = self.aggregates.as_mut() else {
            return Err(sql_error(1111, "Invalid use of group function"));
        };
        let wanted = format!("{call:?}");
        let index = found.calls.iter().position(|known| format!("{known:?}") == wanted).unwrap_or_else(|| {
            found.calls.push(call);
            found.calls.len() - 1
        });
        Ok(Expr::slot(found.base + index as u32, ty, nullable))
    }
}

fn compare_op(op: BinaryOp) -> Option<CompareOp> {
    Some(match op {
        BinaryOp::Eq => CompareOp::Eq,
        BinaryOp::NullSafeEq => CompareOp::NullSafeEq,
        BinaryOp::Ne => CompareOp::Ne,
        BinaryOp::Lt => CompareOp::Lt,
        BinaryOp::Le => CompareOp::Le,
        BinaryOp::Gt => CompareOp::Gt,
        BinaryOp::Ge => CompareOp::Ge,
        _ => return None,
    })
}

fn predicate(node: Node, nullable: bool) -> Expr {
    Expr { node, ty: DataType::BOOL, nullable }
}

/// AND or OR of parts, flattened.
pub fn junction(parts: Vec<Expr>, and: bool) -> Expr {
    let mut flat = Vec::with_capacity(parts.len());
    for part in parts {
        match part.node {
            Node::And(inner) if and => flat.extend(inner),
            Node::Or(inner) if !and => flat.extend(inner),
            _ => flat.push(part),
        }
    }
    let nullable = flat.iter().any(|part| part.nullable);
    // A lone operand still has to become a truth value.
    predicate(if and { Node::And(flat) } else { Node::Or(flat) }, nullable)
}

fn negated(expr: Expr) -> Expr {
    let nullable = expr.nullable;
    predicate(Node::Not(Box::new(expr)), nullable)
}

fn compared(op: CompareOp, mut a: Expr, mut b: Expr) -> Result<Expr> {
    if infer::illegal_mix(&a, &b) {
        let (x, y) = (a.ty.collation.name(), b.ty.collation.name());
        return Err(sql_error(
            1267,
            format!("Illegal mix of collations ({x},IMPLICIT) and ({y},IMPLICIT) for operation '='"),
        ));
    }
    if a.as_slot().is_some() {
        typed_for(&mut b, &a.ty);
    }
    if b.as_slot().is_some() {
        typed_for(&mut a, &b.ty);
    }
    let collation = collation_of([&a, &b]);
    let nullable = op != CompareOp::NullSafeEq && (a.nullable || b.nullable);
    // A hexadecimal literal against a number is a number.
    for (side, other) in [(0, b.ty), (1, a.ty)] {
        let target = if side == 0 { &mut a } else { &mut b };
        if let Node::HexConst(bytes) = &target.node
            && other.is_number()
        {
            *target = Expr::constant(Value::UInt(super::eval::hex_number(bytes)));
        }
    }
    Ok(predicate(Node::Compare(op, collation, Box::new((a, b))), nullable))
}

/// Gives a constant the type of the column that it is compared with, where that changes nothing.
fn typed_for(expr: &mut Expr, column: &DataType) {
    if let Node::Const(value) = &expr.node
        && !(column.is_string() && value.as_bytes().is_some())
        && let Some(typed) = super::compare::for_column(value, column)
    {
        let collation = expr.ty.collation;
        *expr = Expr::constant(typed);
        if expr.ty.is_string() {
            expr.ty.collation = collation;
        }
    }
}

fn numeric_operand(expr: &Expr) -> DataType {
    match expr.node {
        Node::HexConst(_) => DataType::UBIGINT,
        _ => expr.ty,
    }
}

/// The string type that a value of `ty` has when it is made text.
fn string_type(ty: &DataType) -> DataType {
    if ty.is_string() { *ty } else { DataType::varchar(infer::text_length(ty), Collation::default()) }
}

fn with_collation(ty: DataType, collation: Collation) -> DataType {
    if ty.is_string() && !ty.is_binary() { DataType { collation, ..ty } } else { ty }
}

fn date_add_type(date: &Expr, amount: &Expr, unit: ast::IntervalUnit) -> DataType {
    let fsp = unit.fsp(infer::scale_of(&amount.ty).min(6)).max(if date.ty.is_temporal() { date.ty.scale } else { 0 });
    match date.ty.kind {
        TypeKind::Date if !unit.has_time() => DataType::DATE,
        TypeKind::Date => DataType::datetime(fsp),
        TypeKind::DateTime | TypeKind::Timestamp => DataType::datetime(fsp),
        TypeKind::Time
            if matches!(
                unit,
                ast::IntervalUnit::Year
                    | ast::IntervalUnit::Quarter
                    | ast::IntervalUnit::Month
                    | ast::IntervalUnit::YearMonth
            ) =>
        {
            DataType::datetime(fsp)
        }
        TypeKind::Time => DataType::time(fsp),
        _ => DataType::varchar(29, Collation::default()),
    }
}

fn aggregate_call(aggregate: &Aggregate, args: Vec<Expr>, order_by: Vec<(Expr, bool)>) -> AggregateCall {
    let first = args.first().map_or(DataType::NULL, numeric_operand);
    let exact = first.is_integer() || first.kind == TypeKind::Decimal || (first.is_temporal());
    let scale = u32::from(if first.kind == TypeKind::Decimal { first.scale } else { 0 });
    use AggregateKind as K;
    let ty = match aggregate.kind {
        K::Count => DataType::BIGINT,
        K::Sum if exact => DataType::decimal(first.integer_digits() + 22 + scale, scale),
        K::Avg if exact => DataType::decimal(first.integer_digits() + scale + 4, scale + 4),
        K::Min | K::Max | K::AnyValue => args.first().map_or(DataType::NULL, |arg| arg.ty),
        K::GroupConcat => DataType::text(collation_of(&args)),
        K::BitAnd | K::BitOr | K::BitXor => DataType::UBIGINT,
        K::JsonArrayAgg | K::JsonObjectAgg => DataType::JSON,
        _ => DataType::DOUBLE,
    };
    let nullable = !matches!(aggregate.kind, K::Count | K::BitAnd | K::BitOr | K::BitXor);
    let separator = aggregate.separator.clone().unwrap_or_else(|| Bytes::from_static(b","));
    AggregateCall { kind: aggregate.kind, distinct: aggregate.distinct, args, order_by, separator, ty, nullable }
}
