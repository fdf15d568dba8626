//! SQL: text to digest to AST to typed expressions, with MySQL's values and conversions.

pub mod ast;
pub mod ast_expr;
pub mod collation;
pub mod context;
pub mod decimal;
pub mod error;
pub mod types;
pub mod value;
