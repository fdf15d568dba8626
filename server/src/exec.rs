//! Runs plans: reads, writes, schema changes, SHOW. It sees the engine only as `Txn` and `Snapshot`.

pub mod aggregate;
pub mod assign;
pub mod change;
pub mod check;
pub mod ddl;
pub mod insert;
pub mod locked;
pub mod number;
pub mod pipeline;
pub mod range;
pub mod read;
pub mod schema;
pub mod select;
pub mod show;
pub mod sort;
pub mod sortkey;
pub mod store;
pub mod write;
