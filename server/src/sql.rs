//! SQL: text to AST to plan.
pub mod value;
