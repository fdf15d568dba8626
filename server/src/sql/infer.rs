//! Owns result types: what an operator or function gives for operands of known types.

use super::collation::Collation;
use super::expr::{ArithOp, Expr, Node};
use super::types::{DataType, NOT_FIXED, TypeKind};
use super::value::Value;

/// Decimal places that `/` adds (div_precision_increment).
pub const DIV_INCREMENT: u8 = 4;

/// Type of a literal or parameter value.
pub fn type_of_value(value: &Value) -> DataType {
    let default = Collation::default();
    match value {
        Value::Null => DataType::NULL,
        Value::Int(_) => DataType::BIGINT,
        Value::UInt(_) => DataType::UBIGINT,
        Value::Float(_) => DataType::new(TypeKind::Float),
        Value::Double(_) => DataType::DOUBLE,
        Value::Decimal(number) => {
            DataType::decimal(number.digits().max(u32::from(number.scale()) + 1), u32::from(number.scale()))
        }
        Value::Str(text) => DataType::varchar(String::from_utf8_lossy(text).chars().count() as u32, default),
        Value::Bin(bytes) => DataType::varchar(bytes.len() as u32, Collation::Binary),
        Value::Date(_) => DataType::DATE,
        Value::Time(time) => DataType::time(super::temporal::shown_fsp(time.parts().3)),
        Value::DateTime(at) => DataType::datetime(super::temporal::shown_fsp(at.micros)),
        Value::Json(_) => DataType::JSON,
    }
}

/// The number type that an operand counts as: text is a double, dates are integers or decimals.
fn numeric(ty: &DataType) -> DataType {
    match ty.kind {
        _ if ty.is_integer() => *ty,
        TypeKind::Decimal => *ty,
        TypeKind::Date => DataType::BIGINT,
        TypeKind::Time | TypeKind::DateTime | TypeKind::Timestamp => {
            if ty.scale == 0 {
                DataType::BIGINT
            } else {
                DataType::decimal(ty.integer_digits() + u32::from(ty.scale), u32::from(ty.scale))
            }
        }
        TypeKind::Null => *ty,
        _ => DataType::DOUBLE,
    }
}

/// Type of `a op b`.
pub fn arithmetic(op: ArithOp, a: &DataType, b: &DataType) -> DataType {
    let (mut a, mut b) = (numeric(a), numeric(b));
    // A parameter takes the other side's type; its value decides at run time.
    match (a.kind, b.kind) {
        (TypeKind::Null, TypeKind::Null) => return DataType::DOUBLE,
        (TypeKind::Null, _) => a = b,
        (_, TypeKind::Null) => b = a,
        _ => {}
    }
    let unsigned = a.unsigned || b.unsigned;
    if op == ArithOp::IntDiv {
        return DataType { unsigned, ..DataType::BIGINT };
    }
    let floating = |ty: &DataType| matches!(ty.kind, TypeKind::Double | TypeKind::Float);
    if floating(&a) || floating(&b) {
        return DataType::DOUBLE;
    }
    if a.is_integer() && b.is_integer() && op != ArithOp::Div {
        return DataType { unsigned: if op == ArithOp::Mod { a.unsigned } else { unsigned }, ..DataType::BIGINT };
    }
    let (a_scale, b_scale) = (decimal_scale(&a), decimal_scale(&b));
    let (a_whole, b_whole) = (a.integer_digits(), b.integer_digits());
    match op {
        ArithOp::Add | ArithOp::Sub => {
            let scale = a_scale.max(b_scale);
            DataType::decimal(a_whole.max(b_whole) + 1 + scale, scale)
        }
        ArithOp::Mul => DataType::decimal(a_whole + b_whole + a_scale + b_scale, a_scale + b_scale),
        ArithOp::Div => {
            let scale = (a_scale + u32::from(DIV_INCREMENT)).min(30);
            DataType::decimal(a_whole + b_scale + scale, scale)
        }
        ArithOp::Mod | ArithOp::IntDiv => {
            let scale = a_scale.max(b_scale);
            DataType::decimal(a_whole.max(b_whole) + scale, scale)
        }
    }
}

fn decimal_scale(ty: &DataType) -> u32 {
    if ty.kind == TypeKind::Decimal { u32::from(ty.scale) } else { 0 }
}

/// The one type of several alternatives: CASE, IF, COALESCE, UNION, GREATEST. NULL and parameters give way.
pub fn unify(types: &[DataType]) -> DataType {
    types.iter().fold(DataType::NULL, |all, ty| unify_two(&all, ty))
}

fn unify_two(a: &DataType, b: &DataType) -> DataType {
    match (a.kind, b.kind) {
        (TypeKind::Null, _) => return *b,
        (_, TypeKind::Null) => return *a,
        _ => {}
    }
    if a.is_integer() && b.is_integer() {
        return unify_integers(a, b);
    }
    if a.is_number() && b.is_number() {
        if a.kind == TypeKind::Decimal && !floating(b) || b.kind == TypeKind::Decimal && !floating(a) {
            let scale = decimal_scale(a).max(decimal_scale(b));
            return DataType::decimal(a.integer_digits().max(b.integer_digits()) + scale, scale);
        }
        return if a.kind == TypeKind::Float && b.kind == TypeKind::Float { *a } else { DataType::DOUBLE };
    }
    if a.is_temporal() && b.is_temporal() {
        let scale = a.scale.max(b.scale);
        return if a.kind == b.kind { DataType { scale, ..*a } } else { DataType::datetime(scale) };
    }
    if a.kind == TypeKind::Json && b.kind == TypeKind::Json {
        return *a;
    }
    let length = text_length(a).max(text_length(b));
    let collation = match (a.is_string(), b.is_string()) {
        (true, true) if a.is_binary() || b.is_binary() => Collation::Binary,
        (true, _) => a.collation,
        (_, true) => b.collation,
        _ => Collation::default(),
    };
    if a.is_blob() || b.is_blob() { DataType::text(collation) } else { DataType::varchar(length, collation) }
}

fn floating(ty: &DataType) -> bool {
    matches!(ty.kind, TypeKind::Float | TypeKind::Double)
}

fn unify_integers(a: &DataType, b: &DataType) -> DataType {
    if a.unsigned == b.unsigned {
        let wider = if a.integer_range().1 >= b.integer_range().1 { a } else { b };
        return DataType { precision: 0, zerofill: false, ..*wider };
    }
    let (plain, unsigned) = if a.unsigned { (b, a) } else { (a, b) };
    if unsigned.kind == TypeKind::Big {
        return DataType::decimal(20, 0);
    }
    if unsigned.integer_range().1 <= plain.integer_range().1 { *plain } else { DataType::BIGINT }
}

/// Characters that a value of this type can have as text.
pub fn text_length(ty: &DataType) -> u32 {
    if ty.is_blob() || ty.kind == TypeKind::Json {
        return u32::MAX;
    }
    if ty.is_string() { ty.length } else { ty.display_length() }
}

/// VARCHAR that can hold `length` characters, LONGTEXT above 65535, in the collation of the string operands.
pub fn string_of(length: u64, args: &[Expr]) -> DataType {
    let collation = collation_of(args);
    if length > 65_535 { DataType::text(collation) } else { DataType::varchar(length as u32, collation) }
}

/// How strongly an operand holds to its collation; less is stronger.
fn rank(expr: &Expr) -> u8 {
    match &expr.node {
        Node::Recollate(_) => 0,
        Node::Slot(_) => 2,
        Node::Const(_) | Node::HexConst(_) | Node::Param(_) => 4,
        Node::UserVar(_) | Node::SystemVar(..) => 3,
        _ => expr.children().into_iter().filter(|child| child.ty.is_string()).map(rank).min().unwrap_or(4).max(1),
    }
}

/// The collation by which operands compare or combine; the connection's if none is text.
pub fn collation_of<'a>(args: impl IntoIterator<Item = &'a Expr>) -> Collation {
    let mut best: Option<(u8, Collation)> = None;
    for arg in args {
        if !arg.ty.is_string() {
            continue;
        }
        let (own_rank, own) = (rank(arg), arg.ty.collation);
        best = Some(match best {
            Some((rank, collation)) if rank < own_rank => (rank, collation),
            Some((rank, collation)) if rank == own_rank => (rank, stronger(collation, own)),
            _ => (own_rank, own),
        });
    }
    best.map_or(Collation::default(), |(_, collation)| collation)
}

/// Of two collations of equal rank: binary wins, then the byte-wise one, then utf8mb4.
fn stronger(a: Collation, b: Collation) -> Collation {
    let weight = |c: Collation| match c {
        Collation::Binary => 3,
        Collation::Utf8mb4Bin | Collation::Utf8mb4_0900Bin | Collation::Utf8mb3Bin => 2,
        c if c.charset() == "utf8mb4" => 1,
        _ => 0,
    };
    if weight(b) > weight(a) { b } else { a }
}

/// Whether two explicit COLLATE clauses, or two columns, disagree: error 1267.
pub fn illegal_mix(a: &Expr, b: &Expr) -> bool {
    let comparable = a.ty.is_string() && b.ty.is_string() && !a.ty.is_binary() && !b.ty.is_binary();
    comparable
        && a.ty.collation != b.ty.collation
        && rank(a) == rank(b)
        && rank(a) <= 2
        && (rank(a) == 0 || stronger(a.ty.collation, b.ty.collation) == stronger(b.ty.collation, a.ty.collation))
        && (rank(a) == 0 || !mixes(a.ty.collation, b.ty.collation))
}

fn mixes(a: Collation, b: Collation) -> bool {
    a.charset() != b.charset() || stronger(a, b) != a || stronger(b, a) != b
}

/// Fractional digits of a temporal operand, 0 to 6.
pub fn fsp_of(ty: &DataType) -> u8 {
    match ty.kind {
        TypeKind::Time | TypeKind::DateTime | TypeKind::Timestamp => ty.scale,
        TypeKind::Date => 0,
        _ if ty.is_integer() => 0,
        TypeKind::Decimal => ty.scale.min(6),
        _ => 6,
    }
}

/// Scale of a number type, or [`NOT_FIXED`].
pub fn scale_of(ty: &DataType) -> u8 {
    match ty.kind {
        TypeKind::Decimal => ty.scale,
        _ if ty.is_integer() => 0,
        _ => NOT_FIXED,
    }
}
