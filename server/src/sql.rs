//! SQL: text to digest to AST to typed expressions, with MySQL's values and conversions.

pub(crate) mod arith;
pub(crate) mod ast;
pub(crate) mod ast_expr;
pub(crate) mod bind;
pub(crate) mod cast;
pub(crate) mod collation;
pub(crate) mod compare;
pub(crate) mod context;
pub(crate) mod convert;
pub(crate) mod decimal;
pub(crate) mod digest;
pub(crate) mod error;
pub(crate) mod eval;
pub(crate) mod expr;
mod fold;
pub(crate) mod functions;
pub(crate) mod infer;
pub(crate) mod interval;
pub(crate) mod json;
pub(crate) mod lexer;
pub(crate) mod like;
pub(crate) mod parse;
pub(crate) mod plan;
pub(crate) mod temporal;
pub(crate) mod types;
pub mod value;
