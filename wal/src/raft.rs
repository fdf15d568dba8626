//! openraft over our log and machine. The only place that names openraft: nothing of it leaves this module.

mod codec;
mod health;
mod machine;
mod membership;
mod message;
mod node;
mod pace;
mod peer;
mod read;
mod store;
#[cfg(test)]
mod suite_test;
mod types;

pub use membership::membership_of;
pub(crate) use node::{Node, Pending, Start};
pub(crate) use store::to_entry;
