//! Functions over alternatives of any type: GREATEST, LEAST, INTERVAL(), NAME_CONST.

use std::cmp::Ordering;

use super::{Call, Function, function};
use crate::sql::cast::unified;
use crate::sql::compare::compare;
use crate::sql::error::Result;
use crate::sql::expr::Expr;
use crate::sql::infer::{collation_of, unify};
use crate::sql::types::DataType;
use crate::sql::value::Value;

pub(super) const TABLE: &[Function] = &[
    function("GREATEST", 2, 255, common, |call| extreme(call, Ordering::Greater)),
    function("LEAST", 2, 255, common, |call| extreme(call, Ordering::Less)),
    function("INTERVAL", 2, 255, |_| DataType::BIGINT, interval).sees_null(),
    function("ANY_VALUE", 1, 1, common, |call| Ok(call.value(0).clone())).sees_null(),
];

fn common(args: &[Expr]) -> DataType {
    let types: Vec<DataType> = args.iter().map(|arg| arg.ty).collect();
    let ty = unify(&types);
    if ty.is_string() && !ty.is_binary() { DataType { collation: collation_of(args), ..ty } } else { ty }
}

fn extreme(call: &Call<'_>, wanted: Ordering) -> Result<Value> {
    let collation = collation_of(call.exprs);
    let mut best = 0;
    for index in 1..call.len() {
        if compare(call.value(index), call.value(best), collation, call.cx) == Some(wanted) {
            best = index;
        }
    }
    let from = call.exprs.get(best).map_or(*call.ty, |expr| expr.ty);
    Ok(unified(call.value(best).clone(), &from, call.ty))
}

/// INTERVAL(n, a, b, ...): how many of the ascending rest are not above n.
fn interval(call: &Call<'_>) -> Result<Value> {
    if call.value(0).is_null() {
        return Ok(Value::Int(-1));
    }
    let number = call.f64(0);
    let count = (1..call.len()).take_while(|index| call.value(*index).is_null() || call.f64(*index) <= number).count();
    Ok(Value::Int(count as i64))
}
