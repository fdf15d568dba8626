//! Runs plans: reads, writes, schema changes, SHOW. It sees the engine only as `Txn` and `Snapshot`.

pub mod ddl;
pub mod number;
pub mod write;
