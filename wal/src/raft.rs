//! openraft over our log and machine. The only place that names openraft: nothing of it leaves this module.

mod codec;
mod health;
mod machine;
mod membership;
mod message;
mod node;
mod peer;
mod store;
#[cfg(test)]
mod suite_test;
mod types;

pub(crate) use node::{Node, Pending, Start};
