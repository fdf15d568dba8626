//! SQL: text to digest to AST to typed expressions, with MySQL's values and conversions.

pub mod arith;
pub mod ast;
pub mod ast_expr;
pub mod bind;
pub mod cast;
pub mod collation;
pub mod compare;
pub mod context;
pub mod convert;
pub mod decimal;
pub mod digest;
pub mod error;
pub mod eval;
pub mod expr;
mod fold;
pub mod functions;
pub mod infer;
pub mod interval;
pub mod json;
pub mod lexer;
pub mod like;
pub mod parse;
pub mod plan;
pub mod temporal;
pub mod types;
pub mod value;
