//! CHECK TABLE: every row decodes, every public index has exactly the rows' entries.

use std::ops::Bound;

use holdfast::ScanOptions;

use super::{
    read::Reader,
    write::{StoredRow, Target},
};
use crate::{
    catalog::{Index, IndexState, Table},
    errmap::{self, error},
    key,
    row::ZoneOffset,
    session::state::State,
    wire::result::SqlError,
};

/// Checks one table at one snapshot.
pub async fn table(table: &Table, state: &State) -> Result<(), SqlError> {
    let catalog = &state.shared.catalog;
    let snapshot = catalog.db().snapshot().map_err(errmap::from_engine)?;
    let target = Target { rows: &catalog.rows, table, zone: ZoneOffset(0) };
    let range = |index: u16| {
        let start = table.index_prefix(index);
        let end = key::prefix_end(&start).map_or(Bound::Unbounded, |e| Bound::Excluded(e.into()));
        ScanOptions { start: Bound::Included(start.into()), end, reverse: false, limit_hint: 0 }
    };
    let public: Vec<&Index> = table.indexes.iter().filter(|i| i.state == IndexState::Public).collect();
    let mut count = 0u64;
    let mut batch = Vec::new();
    let mut scan = snapshot.scan(&catalog.rows, range(0)).map_err(errmap::from_engine)?;
    while scan.next_batch(&mut batch, 512).await.map_err(errmap::from_engine)? > 0 {
        state.check_killed()?;
        for entry in batch.drain(..) {
            count += 1;
            let row = StoredRow { values: target.decode(&entry.value)?, key: entry.key };
            for index in &public {
                let (key, value) = target.entry(index, &row.values, &row.key)?;
                let found = snapshot.get(&catalog.rows, &key).await.map_err(errmap::from_engine)?;
                if found.as_ref() != Some(&value) {
                    return Err(error(1034, format!("Index '{}' lacks the entry of a row", index.name)));
                }
            }
        }
    }
    for (at, index) in table.indexes.iter().enumerate().filter(|(_, i)| i.state == IndexState::Public) {
        let mut entries = 0u64;
        let reader = Reader { table, index: Some(at), covering: false, zone: ZoneOffset(0) };
        let mut scan = snapshot.scan(&catalog.rows, range(index.id)).map_err(errmap::from_engine)?;
        while scan.next_batch(&mut batch, 512).await.map_err(errmap::from_engine)? > 0 {
            for entry in batch.drain(..) {
                entries += 1;
                reader.primary_key(&entry)?;
            }
        }
        if entries != count {
            return Err(error(1034, format!("Index '{}' has {entries} entries for {count} rows", index.name)));
        }
    }
    Ok(())
}
