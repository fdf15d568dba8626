//! Runs SELECT plans: source, filter, then the pipeline.

use holdfast::{KeyValue, Txn};

use super::{
    locked::LockedRows,
    pipeline::{Pipeline, RowTarget},
    range,
    read::{Cursor, Reader, View},
    schema,
};
use crate::{
    errmap,
    row::ZoneOffset,
    session::state::State,
    sql::{
        ast::RowLock,
        context::Context,
        convert::to_int,
        expr::Expr,
        plan::{
            SelectPlan, Source, TableSource,
            access::{Access, Edge, Fixed, Stretch},
        },
        value::Value,
    },
    wire::result::SqlError,
};

type Result<T> = std::result::Result<T, SqlError>;

/// LIMIT or OFFSET: a whole number, not negative.
pub fn limit(e: Option<&Expr>, cx: &Context<'_>) -> Result<Option<u64>> {
    let Some(e) = e else { return Ok(None) };
    let value = e.eval(&[], cx)?;
    let n = to_int(&value, cx).and_then(|n| u64::try_from(n).ok());
    n.map(Some).ok_or_else(|| errmap::error(1210, "Incorrect arguments to LIMIT"))
}

/// Evaluates the expressions of an access path.
pub fn evaluate(access: &Access<Expr>, cx: &Context<'_>) -> Result<Access<Value>> {
    let eval = |e: &Expr| e.eval(&[], cx).map(std::borrow::Cow::into_owned);
    let edge = |e: &Option<Edge<Expr>>| {
        e.as_ref().map(|e| Ok(Edge { value: eval(&e.value)?, inclusive: e.inclusive })).transpose()
    };
    let fixed = access.fixed.iter().map(|f| {
        Ok(match f {
            Fixed::AnyOf(list) => Fixed::AnyOf(list.iter().map(eval).collect::<Result<_>>()?),
            Fixed::NullSafe(e) => Fixed::NullSafe(eval(e)?),
            Fixed::Null => Fixed::Null,
        })
    });
    let ranges = access.ranges.iter().map(|r| Ok(Stretch { low: edge(&r.low)?, high: edge(&r.high)? }));
    Ok(Access {
        index: access.index,
        fixed: fixed.collect::<Result<_>>()?,
        ranges: ranges.collect::<Result<_>>()?,
        unique: access.unique,
        ordered: access.ordered,
        reverse: access.reverse,
        covering: access.covering,
    })
}

/// A table being read: where, and which condition is left to test.
pub struct Opened<'p> {
    pub reader: Reader<'p>,
    pub cursor: Cursor,
    pub filter: Option<&'p Expr>,
}

/// Computes the key ranges of a table source and opens a cursor over them.
pub fn open<'p>(source: &'p TableSource, cx: &Context<'_>, limit_hint: usize) -> Result<Opened<'p>> {
    let zone = ZoneOffset(cx.zone_offset_seconds);
    let access = evaluate(&source.access, cx)?;
    let ranges =
        range::ranges(&source.table, &access, zone).map_err(|e| errmap::from_format(&source.table.name, &e))?;
    let filter = if ranges.exact { source.residual.as_ref() } else { source.filter.as_ref() };
    let hint = if filter.is_none() { limit_hint } else { 0 };
    Ok(Opened {
        reader: Reader { table: &source.table, index: source.access.index, covering: source.access.covering, zone },
        cursor: Cursor::new(ranges, source.access.reverse, hint),
        filter,
    })
}

/// Whether a row passes a condition.
pub fn passes(filter: Option<&Expr>, row: &[Value], cx: &Context<'_>) -> Result<bool> {
    filter.map_or(Ok(true), |e| e.matches(row, cx))
}

/// Runs a plan whose source is not a stored table.
pub fn run_unstored(
    plan: &SelectPlan,
    state: &State,
    cx: &Context<'_>,
    target: &mut impl RowTarget,
) -> Result<(u64, u64)> {
    let mut pipeline = pipeline(plan, state, cx)?;
    let rows = match &plan.source {
        Source::Virtual(table) => schema::rows(*table, state)?,
        _ => vec![Vec::new()],
    };
    for row in rows {
        if passes(plan.filter.as_ref(), &row, cx)? && !pipeline.push(&row, cx, target)? {
            break;
        }
    }
    pipeline.finish(cx, target)?;
    Ok((pipeline.found, pipeline.sent))
}

/// The pipeline of a plan, with LIMIT evaluated.
pub fn pipeline<'p>(plan: &'p SelectPlan, state: &State, cx: &Context<'_>) -> Result<Pipeline<'p>> {
    let skip = limit(plan.offset.as_ref(), cx)?.unwrap_or(0);
    let most = limit(plan.limit.as_ref(), cx)?;
    let most = most.unwrap_or_else(|| state.settings().select_limit);
    Ok(Pipeline::new(plan, skip, most))
}

/// Runs a plan over a stored table without locking rows. Returns rows found and rows sent.
pub async fn run_table(
    plan: &SelectPlan,
    source: &TableSource,
    state: &State,
    cx: &Context<'_>,
    mut view: View<'_>,
    target: &mut impl RowTarget,
) -> Result<(u64, u64)> {
    let catalog = &state.shared.catalog;
    let mut pipeline = pipeline(plan, state, cx)?;
    let Opened { reader, mut cursor, filter } = open(source, cx, pipeline.limit_hint())?;
    let mut slots = vec![Value::Null; plan.width];
    let mut batch: Vec<KeyValue> = Vec::new();
    let mut more = pipeline.wants_rows();
    while more && cursor.fill(&mut view, &catalog.rows, &mut batch).await? {
        for entry in &batch {
            if reader.covering {
                reader.load_covering(entry, &mut slots)?;
                if !passes(filter, &slots, cx)? {
                    continue;
                }
            } else {
                let looked_up;
                let mut row = &entry.value;
                if reader.needs_lookup() {
                    match view.get(&catalog.rows, &reader.primary_key(entry)?).await? {
                        Some(found) => looked_up = found,
                        None => continue,
                    }
                    row = &looked_up;
                }
                reader.load(row, &source.filter_columns, &mut slots)?;
                if !passes(filter, &slots, cx)? {
                    continue;
                }
                reader.load(row, &source.other_columns, &mut slots)?;
            }
            more = pipeline.push(&slots, cx, target)?;
            if !more {
                break;
            }
        }
        batch.clear();
        state.check_killed()?;
        target.flush().await?;
    }
    pipeline.finish(cx, target)?;
    target.flush().await?;
    Ok((pipeline.found, pipeline.sent))
}

/// Runs SELECT ... FOR UPDATE or FOR SHARE: rows are locked and read currently.
pub async fn run_locking(
    plan: &SelectPlan,
    source: &TableSource,
    state: &State,
    cx: &Context<'_>,
    txn: &mut Txn,
    lock: RowLock,
    target: &mut impl RowTarget,
) -> Result<(u64, u64)> {
    let mut pipeline = pipeline(plan, state, cx)?;
    let mut rows = LockedRows::open(source, &state.shared.catalog, cx, lock)?;
    let mut more = pipeline.wants_rows();
    while more && let Some(row) = rows.next(txn, cx).await? {
        state.check_killed()?;
        more = pipeline.push(&row.values, cx, target)?;
    }
    // Rule 7: what the rows were derived from must have been applied before the client sees them.
    txn.settle().await.map_err(errmap::from_engine)?;
    pipeline.finish(cx, target)?;
    target.flush().await?;
    Ok((pipeline.found, pipeline.sent))
}
