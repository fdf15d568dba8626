//! Functions about the session and the server: DATABASE, USER, VERSION, LAST_INSERT_ID, UUID, SLEEP is the executor's.

use super::{Call, Function, function};
use crate::sql::collation::Collation;
use crate::sql::error::{Result, unsupported};
use crate::sql::expr::Expr;
use crate::sql::types::DataType;
use crate::sql::value::Value;

fn name_type(_: &[Expr]) -> DataType {
    DataType::varchar(288, Collation::Utf8mb3GeneralCi)
}

fn unsigned(_: &[Expr]) -> DataType {
    DataType::UBIGINT
}

fn signed(_: &[Expr]) -> DataType {
    DataType::BIGINT
}

const fn named(name: &'static str, eval: fn(&Call<'_>) -> Result<Value>) -> Function {
    function(name, 0, 0, name_type, eval).of_session()
}

fn database(call: &Call<'_>) -> Result<Value> {
    Ok(call.cx.session.database().map_or(Value::Null, Value::str))
}

fn user(call: &Call<'_>) -> Result<Value> {
    Ok(Value::str(call.cx.session.user()))
}

pub(super) const TABLE: &[Function] = &[
    named("DATABASE", database),
    named("SCHEMA", database),
    named("USER", user),
    named("SESSION_USER", user),
    named("SYSTEM_USER", user),
    named("CURRENT_USER", |call| Ok(Value::str(call.cx.session.current_user()))),
    named("CURRENT_ROLE", |_| Ok(Value::from("NONE"))),
    named("VERSION", |call| Ok(Value::str(call.cx.session.version()))),
    function("CONNECTION_ID", 0, 0, unsigned, |call| Ok(Value::UInt(call.cx.session.connection_id()))).of_session(),
    function("LAST_INSERT_ID", 0, 1, unsigned, last_insert_id).is_volatile(),
    function("ROW_COUNT", 0, 0, signed, |call| Ok(Value::Int(call.cx.session.row_count()))).of_session(),
    function("FOUND_ROWS", 0, 0, signed, |call| Ok(Value::UInt(call.cx.session.found_rows()))).of_session(),
    function("UUID", 0, 0, |_| DataType::varchar(36, Collation::Utf8mb3GeneralCi), uuid).is_volatile(),
    function("UUID_SHORT", 0, 0, unsigned, |call| {
        Ok(Value::UInt((call.cx.now_micros as u64) << 12 | (call.cx.session.random() * 4096.0) as u64))
    })
    .is_volatile(),
    function("GET_LOCK", 2, 2, signed, |call| named_lock(call, "GET_LOCK")).is_volatile(),
    function("RELEASE_LOCK", 1, 1, signed, |call| named_lock(call, "RELEASE_LOCK")).is_volatile(),
    function("IS_FREE_LOCK", 1, 1, signed, |call| named_lock(call, "IS_FREE_LOCK")).is_volatile(),
    function("IS_USED_LOCK", 1, 1, signed, |call| named_lock(call, "IS_USED_LOCK")).is_volatile(),
    function("CHARSET", 1, 1, name_type, |call| Ok(Value::from(text_collation(call).charset()))).sees_null(),
    function("COLLATION", 1, 1, name_type, |call| Ok(Value::from(text_collation(call).name()))).sees_null(),
    function("COERCIBILITY", 1, 1, signed, |call| {
        Ok(Value::Int(match call.exprs.first() {
            Some(expr) if expr.as_slot().is_some() => 2,
            Some(expr) if expr.ty.is_string() => 4,
            Some(expr) if expr.ty == DataType::NULL => 6,
            _ => 5,
        }))
    })
    .sees_null(),
    function("BENCHMARK", 2, 2, signed, |_| Err(unsupported("BENCHMARK"))),
    function("SLEEP", 1, 1, signed, |_| Err(unsupported("SLEEP in this place"))).is_volatile(),
];

/// Numbers are text in the connection's character set when asked for it... but report binary, as MySQL does.
fn text_collation(call: &Call<'_>) -> Collation {
    call.exprs.first().filter(|expr| expr.ty.is_string()).map_or(Collation::Binary, |expr| expr.ty.collation)
}

fn last_insert_id(call: &Call<'_>) -> Result<Value> {
    if call.len() == 0 {
        return Ok(Value::UInt(call.cx.session.last_insert_id()));
    }
    if call.value(0).is_null() {
        call.cx.session.set_last_insert_id(0);
        return Ok(Value::Null);
    }
    let id = call.int(0) as u64;
    call.cx.session.set_last_insert_id(id);
    Ok(Value::UInt(id))
}

fn named_lock(call: &Call<'_>, function: &str) -> Result<Value> {
    call.cx.session.named_lock(function, &call.string(0)).ok_or_else(|| unsupported(function))
}

/// A version 1 shape: clock first, the rest random.
fn uuid(call: &Call<'_>) -> Result<Value> {
    let random = |bits: u32| (call.cx.session.random() * 2f64.powi(bits as i32)) as u64;
    // 100 ns since 1582, made unique within a statement by random low bits.
    let clock = (call.cx.now_micros as u64).wrapping_mul(10).wrapping_add(0x01B2_1DD2_1381_4000) ^ random(4);
    let (low, middle, high) = (clock & 0xffff_ffff, clock >> 32 & 0xffff, clock >> 48 & 0x0fff);
    let sequence = 0x8000 | random(14);
    Ok(Value::str(format!("{low:08x}-{middle:04x}-1{high:03x}-{sequence:04x}-{:012x}", random(48) | 1 << 40)))
}
