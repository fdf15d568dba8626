//! Owns the in-memory sort: rows of values with comparable keys, all of them or the first `k`, within a memory bound.

use crate::{errmap::error, sql::value::Value, wire::result::SqlError};

/// Most memory that one statement's sort, groups or distinct set may take, in bytes.
pub const MEMORY_MAX: usize = 256 << 20;

/// 1038: the bound was hit.
pub fn out_of_memory(what: &str) -> SqlError {
    error(
        1038,
        format!("Out of sort memory: {what} needs more than {} MiB; use an index, a filter or LIMIT", MEMORY_MAX >> 20),
    )
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    key_at: usize,
    key_len: u32,
    row: u32,
}

/// Collects rows, then gives them back in key order.
#[derive(Debug)]
pub struct Sorter {
    width: usize,
    /// Keep only so many of the smallest.
    keep: Option<usize>,
    keys: Vec<u8>,
    values: Vec<Value>,
    entries: Vec<Entry>,
    heap: usize,
}

impl Sorter {
    /// `width` values a row; `keep`: only the first so many rows in order are wanted.
    pub fn new(width: usize, keep: Option<usize>) -> Self {
        Self { width, keep, keys: Vec::new(), values: Vec::new(), entries: Vec::new(), heap: 0 }
    }

    /// Adds a row: `make_key` appends its key, `make_row` its `width` values.
    pub fn push(
        &mut self,
        make_key: impl FnOnce(&mut Vec<u8>) -> Result<(), SqlError>,
        make_row: impl FnOnce(&mut Vec<Value>) -> Result<(), SqlError>,
    ) -> Result<(), SqlError> {
        let key_at = self.keys.len();
        make_key(&mut self.keys)?;
        let row = (self.values.len() / self.width.max(1)) as u32;
        let first = self.values.len();
        make_row(&mut self.values)?;
        self.heap += self.values[first..].iter().map(heap_size).sum::<usize>();
        self.entries.push(Entry { key_at, key_len: (self.keys.len() - key_at) as u32, row });
        if let Some(keep) = self.keep
            && self.entries.len() >= keep.saturating_mul(2).saturating_add(1024)
        {
            self.shrink(keep);
        }
        let fixed = self.values.len() * size_of::<Value>() + self.entries.len() * size_of::<Entry>();
        match fixed + self.keys.len() + self.heap > MEMORY_MAX {
            true => Err(out_of_memory("ORDER BY")),
            false => Ok(()),
        }
    }

    /// Drops all but the `keep` smallest rows.
    fn shrink(&mut self, keep: usize) {
        let keys = std::mem::take(&mut self.keys);
        let mut values = std::mem::take(&mut self.values);
        let mut entries = std::mem::take(&mut self.entries);
        if keep == 0 {
            entries.clear();
        } else if keep < entries.len() {
            entries.select_nth_unstable_by(keep - 1, |a, b| key_of(&keys, a).cmp(key_of(&keys, b)));
            entries.truncate(keep);
        }
        self.heap = 0;
        for (row, entry) in entries.into_iter().enumerate() {
            let key_at = self.keys.len();
            self.keys.extend_from_slice(key_of(&keys, &entry));
            let from = entry.row as usize * self.width;
            let taken = values[from..from + self.width].iter_mut().map(std::mem::take);
            self.values.extend(taken);
            self.entries.push(Entry { key_at, key_len: entry.key_len, row: row as u32 });
        }
        self.heap = self.values.iter().map(heap_size).sum();
    }

    /// The rows in order.
    pub fn finish(mut self) -> Sorted {
        let keys = std::mem::take(&mut self.keys);
        // The row number breaks ties, so that equal rows stay in the order they came.
        self.entries.sort_unstable_by(|a, b| key_of(&keys, a).cmp(key_of(&keys, b)).then(a.row.cmp(&b.row)));
        Sorted { width: self.width, values: self.values, entries: self.entries }
    }
}

fn key_of<'a>(keys: &'a [u8], e: &Entry) -> &'a [u8] {
    &keys[e.key_at..e.key_at + e.key_len as usize]
}

/// Bytes that a value holds outside itself.
pub fn heap_size(value: &Value) -> usize {
    value.as_bytes().map_or(0, <[u8]>::len)
}

/// Sorted rows.
#[derive(Debug)]
pub struct Sorted {
    width: usize,
    values: Vec<Value>,
    entries: Vec<Entry>,
}

impl Sorted {
    pub fn iter(&self) -> impl Iterator<Item = &[Value]> {
        self.entries.iter().map(|e| {
            let from = e.row as usize * self.width;
            &self.values[from..from + self.width]
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sorted(numbers: impl IntoIterator<Item = i64>, keep: Option<usize>) -> Vec<i64> {
        let mut sorter = Sorter::new(1, keep);
        for n in numbers {
            let key = |out: &mut Vec<u8>| {
                out.extend_from_slice(&n.to_be_bytes());
                Ok(())
            };
            let row = |out: &mut Vec<Value>| {
                out.push(Value::Int(n));
                Ok(())
            };
            sorter.push(key, row).unwrap();
        }
        let number = |v: &Value| match v {
            Value::Int(n) => *n,
            other => panic!("{other:?}"),
        };
        sorter.finish().iter().map(|row| number(&row[0])).collect()
    }

    #[test]
    fn sorts_all() {
        assert_eq!(sorted([3, 1, 2], None), [1, 2, 3]);
    }

    #[test]
    fn keeps_the_smallest() {
        let numbers = (0..10_000).map(|i| (i * 7919) % 10_007);
        let mut all: Vec<i64> = numbers.clone().collect();
        all.sort_unstable();
        assert_eq!(sorted(numbers, Some(10))[..10], all[..10]);
    }
}
