//! A transaction's write set: its puts and deletes by internal key, its range deletes, and how to undo them.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::{
    error::{Error, Result},
    limits::TXN_RANGES_MAX,
    memtable::Bounds,
    pending::{covered, half_open},
    types::Op,
};

/// Bytes that an operation takes in a batch besides key and value.
const OP_OVERHEAD: u64 = 12;

/// Buffered writes.
#[derive(Default)]
pub struct WriteSet {
    ops: BTreeMap<Bytes, Op>,
    /// Deleted before `ops`: a later put in a range stands in `ops`, an earlier one was removed from it.
    ranges: Vec<(Bytes, Bytes)>,
    undo: Vec<Undo>,
    /// Only a transaction with savepoints keeps an undo log.
    undoable: bool,
    bytes: u64,
    limit: u64,
}

enum Undo {
    Write { key: Bytes, before: Option<Op> },
    Range { removed: BTreeMap<Bytes, Op> },
}

impl WriteSet {
    /// Empty; `limit` bounds its bytes.
    pub fn new(limit: u64) -> Self {
        Self { limit, ..Self::default() }
    }

    /// Nothing was written.
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty() && self.ranges.is_empty()
    }

    /// The operations, by internal key.
    pub fn ops(&self) -> &BTreeMap<Bytes, Op> {
        &self.ops
    }

    /// The range deletes.
    pub fn ranges(&self) -> &[(Bytes, Bytes)] {
        &self.ranges
    }

    /// About how many bytes the encoded batch has.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Takes operations and ranges out.
    pub fn take(&mut self) -> (BTreeMap<Bytes, Op>, Vec<(Bytes, Bytes)>) {
        self.undo.clear();
        self.bytes = 0;
        (std::mem::take(&mut self.ops), std::mem::take(&mut self.ranges))
    }

    /// Buffers an operation.
    pub fn write(&mut self, key: Bytes, op: Op) -> Result<()> {
        self.grow(cost(&key, &op))?;
        let key_len = key.len();
        let undo_key = self.undoable.then(|| key.clone());
        let before = self.ops.insert(key, op);
        if let Some(before) = &before {
            self.bytes = self.bytes.saturating_sub((key_len + before.value_len()) as u64 + OP_OVERHEAD);
        }
        if let Some(key) = undo_key {
            self.undo.push(Undo::Write { key, before });
        }
        Ok(())
    }

    /// Deletes `[start, end)`, own writes included.
    pub fn delete_range(&mut self, start: Bytes, end: Bytes) -> Result<()> {
        if self.ranges.len() >= TXN_RANGES_MAX {
            return Err(Error::TooLarge { what: "range deletes of a transaction", limit: TXN_RANGES_MAX as u64 });
        }
        self.grow((start.len() + end.len()) as u64 + OP_OVERHEAD)?;
        let inside: Vec<Bytes> =
            self.ops.range::<[u8], _>(half_open(&start, &end)).map(|(key, _)| key.clone()).collect();
        let mut removed = BTreeMap::new();
        for key in inside {
            if let Some(op) = self.ops.remove(&key) {
                self.bytes = self.bytes.saturating_sub(cost(&key, &op));
                removed.insert(key, op);
            }
        }
        self.ranges.push((start, end));
        if self.undoable {
            self.undo.push(Undo::Range { removed });
        }
        Ok(())
    }

    fn grow(&mut self, bytes: u64) -> Result<()> {
        if self.bytes + bytes > self.limit {
            return Err(Error::TooLarge { what: "bytes written by a transaction", limit: self.limit });
        }
        self.bytes += bytes;
        Ok(())
    }

    /// A point to return to.
    pub fn savepoint(&mut self) -> u64 {
        self.undoable = true;
        self.undo.len() as u64
    }

    /// Undoes everything since the savepoint.
    pub fn rollback_to(&mut self, savepoint: u64) {
        while self.undo.len() as u64 > savepoint {
            match self.undo.pop() {
                Some(Undo::Write { key, before }) => {
                    if let Some(op) = self.ops.remove(&key) {
                        self.bytes = self.bytes.saturating_sub(cost(&key, &op));
                    }
                    self.restore(key, before);
                }
                Some(Undo::Range { removed }) => {
                    if let Some((start, end)) = self.ranges.pop() {
                        self.bytes = self.bytes.saturating_sub((start.len() + end.len()) as u64 + OP_OVERHEAD);
                    }
                    removed.into_iter().for_each(|(key, op)| self.restore(key, Some(op)));
                }
                None => return,
            }
        }
    }

    fn restore(&mut self, key: Bytes, op: Option<Op>) {
        if let Some(op) = op {
            self.bytes += cost(&key, &op);
            self.ops.insert(key, op);
        }
    }

    /// What this transaction did to a key; `None` if nothing.
    pub fn get(&self, key: &[u8]) -> Option<Op> {
        match self.ops.get(key) {
            Some(op) => Some(op.clone()),
            None => covered(&self.ranges, key).then_some(Op::Delete),
        }
    }

    /// The operations within the bounds.
    pub fn range(&self, bounds: Bounds<'_>) -> BTreeMap<Bytes, Op> {
        self.ops.range::<[u8], _>(bounds).map(|(key, op)| (key.clone(), op.clone())).collect()
    }
}

fn cost(key: &[u8], op: &Op) -> u64 {
    (key.len() + op.value_len()) as u64 + OP_OVERHEAD
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn put(set: &mut WriteSet, key: &str, value: &str) {
        set.write(Bytes::from(key.to_owned()), Op::Put(Bytes::from(value.to_owned()))).unwrap();
    }

    #[test]
    fn a_range_delete_hides_earlier_own_writes_only() {
        let mut set = WriteSet::new(1000);
        put(&mut set, "b", "1");
        set.delete_range("a".into(), "d".into()).unwrap();
        put(&mut set, "c", "2");
        assert_eq!(set.get(b"b"), Some(Op::Delete));
        assert_eq!(set.get(b"c"), Some(Op::Put("2".into())));
        assert_eq!(set.get(b"x"), None);
    }

    #[test]
    fn the_limit_is_named() {
        let mut set = WriteSet::new(20);
        let error = set.write(Bytes::from_static(&[0; 30]), Op::Delete).unwrap_err();
        assert_eq!(error, Error::TooLarge { what: "bytes written by a transaction", limit: 20 });
    }

    #[derive(Clone, Debug)]
    enum Step {
        Put(u8, u8),
        Delete(u8),
        Range(u8, u8),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0u8..20, any::<u8>()).prop_map(|(key, value)| Step::Put(key, value)),
            (0u8..20).prop_map(Step::Delete),
            (0u8..20, 0u8..20).prop_map(|(a, b)| Step::Range(a.min(b), a.max(b))),
        ]
    }

    fn run(set: &mut WriteSet, steps: &[Step]) {
        for step in steps {
            match step {
                Step::Put(key, value) => set.write(vec![*key].into(), Op::Put(vec![*value].into())).unwrap(),
                Step::Delete(key) => set.write(vec![*key].into(), Op::Delete).unwrap(),
                Step::Range(start, end) => set.delete_range(vec![*start].into(), vec![*end].into()).unwrap(),
            }
        }
    }

    proptest! {
        #[test]
        fn rolling_back_restores_exactly(before in prop::collection::vec(step(), 0..20), after in prop::collection::vec(step(), 0..20)) {
            let mut set = WriteSet::new(u64::MAX);
            run(&mut set, &before);
            let savepoint = set.savepoint();
            let (ops, ranges, bytes) = (set.ops.clone(), set.ranges.clone(), set.bytes);
            run(&mut set, &after);
            set.rollback_to(savepoint);
            prop_assert_eq!(&set.ops, &ops);
            prop_assert_eq!(&set.ranges, &ranges);
            prop_assert_eq!(set.bytes, bytes);
            let exact: u64 = ops.iter().map(|(key, op)| cost(key, op)).sum::<u64>() + ranges.len() as u64 * (2 + OP_OVERHEAD);
            prop_assert_eq!(bytes, exact);
        }
    }
}
