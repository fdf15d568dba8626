//! A batch: writes that become visible together, without a transaction around them.

use bytes::Bytes;

use crate::{error::Result, keyspace::Keyspace, txn::Txn};

enum Write {
    Put(Bytes, Bytes),
    Delete(Bytes),
    Range(Bytes, Bytes),
}

/// Atomic writes across keyspaces without a transaction. Later writes win over earlier ones. Limits are checked by
/// [`crate::Db::write`].
#[derive(Default)]
pub struct Batch(Vec<(Keyspace, Write)>);

impl Batch {
    /// An empty batch.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets a key.
    pub fn put(&mut self, keyspace: &Keyspace, key: impl Into<Bytes>, value: impl Into<Bytes>) {
        self.0.push((keyspace.clone(), Write::Put(key.into(), value.into())));
    }

    /// Deletes a key.
    pub fn delete(&mut self, keyspace: &Keyspace, key: impl Into<Bytes>) {
        self.0.push((keyspace.clone(), Write::Delete(key.into())));
    }

    /// Deletes `start <= key < end`, whatever its size.
    pub fn delete_range(&mut self, keyspace: &Keyspace, start: impl Into<Bytes>, end: impl Into<Bytes>) {
        self.0.push((keyspace.clone(), Write::Range(start.into(), end.into())));
    }

    /// How many writes it holds.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn write_to(self, txn: &mut Txn) -> Result<()> {
        for (keyspace, write) in self.0 {
            match write {
                Write::Put(key, value) => txn.put(&keyspace, key, value)?,
                Write::Delete(key) => txn.delete(&keyspace, key)?,
                Write::Range(start, end) => txn.delete_range(&keyspace, start, end)?,
            }
        }
        Ok(())
    }
}

impl std::fmt::Debug for Batch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Batch of {} writes", self.0.len())
    }
}
