//! Owns constant folding: a constant expression is computed once, when it is bound.

use std::sync::atomic::{AtomicBool, Ordering};

use super::ast::VariableScope;
use super::context::{Context, SessionInfo, SqlMode};
use super::error::{Result, Warning, sql_error};
use super::expr::{Expr, Node};
use super::types::TypeKind;
use super::value::Value;

/// Replaces a constant by its value. One that fails or warns stays as it is, so that each execution fails or warns.
pub fn fold(expr: Expr, session: &dyn SessionInfo) -> Expr {
    let foldable = match &expr.node {
        Node::Const(_) | Node::HexConst(_) | Node::Recollate(_) | Node::Slot(_) | Node::Param(_) => false,
        // A TIME becomes a datetime with today's date.
        Node::Cast(inner) if inner.ty.kind == TypeKind::Time => false,
        // Short lists of constants only: folding must not copy big trees again and again.
        _ => {
            expr.children().iter().all(|child| matches!(child.node, Node::Const(_) | Node::HexConst(_)))
                && expr.is_constant()
        }
    };
    if !foldable {
        return expr;
    }
    let quiet = Quiet { mode: session.sql_mode(), warned: AtomicBool::new(false) };
    let value = expr.eval(&[], &Context::new(&[], &quiet)).map(|value| value.into_owned());
    match value {
        Ok(value) if !quiet.warned.load(Ordering::Relaxed) => {
            Expr { nullable: value.is_null(), node: Node::Const(value), ty: expr.ty }
        }
        _ => expr,
    }
}

/// A session that notes whether anything warned. Constant expressions ask it for nothing else.
struct Quiet {
    mode: SqlMode,
    warned: AtomicBool,
}

impl SessionInfo for Quiet {
    fn database(&self) -> Option<String> {
        None
    }
    fn user(&self) -> String {
        String::new()
    }
    fn current_user(&self) -> String {
        String::new()
    }
    fn connection_id(&self) -> u64 {
        0
    }
    fn version(&self) -> String {
        String::new()
    }
    fn last_insert_id(&self) -> u64 {
        0
    }
    fn set_last_insert_id(&self, _id: u64) {}
    fn row_count(&self) -> i64 {
        0
    }
    fn found_rows(&self) -> u64 {
        0
    }
    fn user_var(&self, _name: &str) -> Value {
        Value::Null
    }
    fn set_user_var(&self, _name: &str, _value: Value) {}
    fn system_var(&self, _scope: VariableScope, name: &str) -> Result<Value> {
        Err(sql_error(1193, format!("Unknown system variable '{name}'")))
    }
    fn warn(&self, _warning: Warning) {
        self.warned.store(true, Ordering::Relaxed);
    }
    fn random(&self) -> f64 {
        0.0
    }
    fn sql_mode(&self) -> SqlMode {
        self.mode
    }
    fn statement_micros(&self) -> i64 {
        0
    }
    fn zone_offset_seconds(&self) -> i32 {
        0
    }
}
