//! Runs UPDATE and DELETE: the rows are found and locked first, then changed, so that a change can't be found again.

use holdfast::Txn;

use super::{
    assign::column_value,
    insert::{Changed, touch},
    locked::{FOR_CHANGE, LockedRows},
    select::limit,
    sort::Sorter,
    sortkey,
    write::{StoredRow, Target},
};
use crate::{
    row::ZoneOffset,
    session::state::{Level, State},
    sql::{
        context::Context,
        expr::Expr,
        plan::{DeletePlan, TableSource, UpdatePlan},
        value::Value,
    },
    wire::result::SqlError,
};

type Result<T> = std::result::Result<T, SqlError>;

/// Runs an UPDATE; nothing is committed here.
pub async fn update(plan: &UpdatePlan, state: &State, cx: &Context<'_>, txn: &mut Txn) -> Result<Changed> {
    let table = &*plan.source.table;
    let target = Target { rows: &state.shared.catalog.rows, table, zone: ZoneOffset(cx.zone_offset_seconds) };
    let rows = matching(&plan.source, &plan.order, plan.limit.as_ref(), state, cx, txn).await?;
    let (matched, mut changed) = (rows.len() as u64, 0);
    for (i, old) in rows.into_iter().enumerate() {
        let mut values = old.values.clone();
        for (column, new) in &plan.assignments {
            values[*column] = column_value(new, &table.columns[*column], &values, i as u64 + 1, cx)?;
        }
        if values == old.values {
            continue;
        }
        touch(table, &mut values, &plan.assignments, cx);
        match target.update(txn, &old, &values).await? {
            Ok(()) => changed += 1,
            Err(duplicate) if plan.ignore => {
                let e = duplicate.into_error(table);
                state.diagnose(Level::Warning, e.code, e.message);
            }
            Err(duplicate) => return Err(duplicate.into_error(table)),
        }
    }
    let affected = if state.login.found_rows { matched } else { changed };
    let info = format!("Rows matched: {matched}  Changed: {changed}  Warnings: {}", state.warning_count());
    Ok(Changed { affected, last_insert_id: 0, info })
}

/// Runs a DELETE; nothing is committed here.
pub async fn delete(plan: &DeletePlan, state: &State, cx: &Context<'_>, txn: &mut Txn) -> Result<Changed> {
    let table = &*plan.source.table;
    let target = Target { rows: &state.shared.catalog.rows, table, zone: ZoneOffset(cx.zone_offset_seconds) };
    let rows = matching(&plan.source, &plan.order, plan.limit.as_ref(), state, cx, txn).await?;
    for row in &rows {
        target.delete(txn, row).await?;
    }
    Ok(Changed { affected: rows.len() as u64, ..Changed::default() })
}

/// The rows to change, locked: all that match, or the first `limit` in order.
async fn matching(
    source: &TableSource,
    order: &[(Expr, bool)],
    most: Option<&Expr>,
    state: &State,
    cx: &Context<'_>,
    txn: &mut Txn,
) -> Result<Vec<StoredRow>> {
    let most = limit(most, cx)?.unwrap_or(u64::MAX);
    let mut found = Vec::new();
    if most == 0 {
        return Ok(found);
    }
    let mut rows = LockedRows::open(source, &state.shared.catalog, cx, FOR_CHANGE)?;
    while let Some(row) = rows.next(txn, cx).await? {
        found.push(row);
        if order.is_empty() && found.len() as u64 >= most {
            break;
        }
        if found.len() % 256 == 0 {
            state.check_killed()?;
        }
    }
    if order.is_empty() {
        return Ok(found);
    }
    sorted(found, order, most, cx)
}

fn sorted(found: Vec<StoredRow>, order: &[(Expr, bool)], most: u64, cx: &Context<'_>) -> Result<Vec<StoredRow>> {
    let mut sorter = Sorter::new(1, None);
    for (i, row) in found.iter().enumerate() {
        let make_key = |out: &mut Vec<u8>| {
            for (key, descending) in order {
                sortkey::push(&*key.eval(&row.values, cx)?, key.ty.collation, *descending, out);
            }
            Ok(())
        };
        sorter.push(make_key, |out| {
            out.push(Value::Int(i as i64));
            Ok(())
        })?;
    }
    let mut found: Vec<Option<StoredRow>> = found.into_iter().map(Some).collect();
    let mut out = Vec::new();
    for values in sorter.finish().iter().take(usize::try_from(most).unwrap_or(usize::MAX)) {
        if let [Value::Int(i)] = values {
            out.extend(found.get_mut(*i as usize).and_then(Option::take));
        }
    }
    Ok(out)
}
