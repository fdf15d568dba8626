//! Owns what happens to rows between a source and the client: group, sort, distinct, limit, output. Synchronous: the
//! source pushes rows in, the caller flushes the sink between batches.

use bytes::Bytes;
use rustc_hash::{FxHashMap, FxHashSet};

use super::{
    aggregate::Accumulator,
    sort::{MEMORY_MAX, Sorter, heap_size, out_of_memory},
    sortkey,
};
use crate::{
    errmap::error,
    sql::{
        context::Context,
        expr::Expr,
        plan::{Grouping, SelectPlan},
        value::Value,
    },
    wire::result::{ColumnSet, Done, ResultSink, SqlError},
};

type Result<T> = std::result::Result<T, SqlError>;

/// Where finished rows go: the client, or variables.
pub trait RowTarget: Send {
    /// Takes one row of output values.
    fn values(&mut self, values: &[Value]) -> Result<()>;
    /// Takes one row whose outputs are slots of the input.
    fn slots(&mut self, row: &[Value], outputs: &[u32]) -> Result<()>;
    /// Between batches: sends what is buffered beyond the bound.
    fn flush(&mut self) -> impl Future<Output = Result<()>> + Send {
        std::future::ready(Ok(()))
    }
}

/// Writes rows to the client. The column definitions go out with the first row, so that a statement that fails (or has
/// to be planned anew) before it has sent nothing.
pub struct ToSink<'s, S> {
    sink: &'s mut S,
    columns: &'s ColumnSet,
    status: u16,
    started: bool,
}

impl<'s, S: ResultSink> ToSink<'s, S> {
    pub fn new(sink: &'s mut S, columns: &'s ColumnSet, status: u16) -> Self {
        Self { sink, columns, status, started: false }
    }

    fn start(&mut self) {
        if !self.started {
            self.started = true;
            self.sink.column_set(self.columns, self.status);
        }
    }

    /// Ends the result set, which may have no rows.
    pub fn end(mut self, done: Done, status: u16) {
        self.start();
        self.sink.end(done, status);
    }
}

impl<S: ResultSink> RowTarget for ToSink<'_, S> {
    fn values(&mut self, values: &[Value]) -> Result<()> {
        self.start();
        self.sink.row(values);
        Ok(())
    }
    fn slots(&mut self, row: &[Value], outputs: &[u32]) -> Result<()> {
        self.start();
        let mut writer = self.sink.row_writer();
        for slot in outputs {
            writer.value(&row[*slot as usize]);
        }
        writer.finish();
        Ok(())
    }
    async fn flush(&mut self) -> Result<()> {
        let sent = self.sink.flush().await;
        sent.map_err(|e| error(1161, format!("Got an error writing communication packets: {e}")).fatal())
    }
}

/// Keeps rows, for SELECT INTO and INSERT ... SELECT.
#[derive(Default)]
pub struct ToVec(pub Vec<Vec<Value>>);

impl RowTarget for ToVec {
    fn values(&mut self, values: &[Value]) -> Result<()> {
        self.0.push(values.to_vec());
        Ok(())
    }
    fn slots(&mut self, row: &[Value], outputs: &[u32]) -> Result<()> {
        self.0.push(outputs.iter().map(|slot| row[*slot as usize].clone()).collect());
        Ok(())
    }
}

/// One group: its first row and its aggregates.
struct Group {
    first: Vec<Value>,
    accumulators: Vec<Accumulator>,
}

struct Groups<'p> {
    plan: &'p Grouping,
    by_key: FxHashMap<Vec<u8>, usize>,
    groups: Vec<Group>,
    key: Vec<u8>,
    memory: usize,
}

/// The stages after the source.
pub struct Pipeline<'p> {
    plan: &'p SelectPlan,
    slot_outputs: Option<Vec<u32>>,
    groups: Option<Groups<'p>>,
    sorter: Option<Sorter>,
    seen: Option<FxHashSet<Vec<u8>>>,
    seen_memory: usize,
    skip: u64,
    left: u64,
    buffer: Vec<Value>,
    /// Rows that passed, those cut by LIMIT included as far as they were counted.
    pub found: u64,
    pub sent: u64,
}

impl<'p> Pipeline<'p> {
    /// `skip` and `limit` are OFFSET and LIMIT.
    pub fn new(plan: &'p SelectPlan, skip: u64, limit: u64) -> Self {
        let slots: Option<Vec<u32>> = plan.outputs.iter().map(Expr::as_slot).collect();
        let keep = usize::try_from(skip.saturating_add(limit)).ok().filter(|n| *n < 1 << 20);
        let keep = keep.filter(|_| !plan.calc_found_rows && !plan.distinct);
        Self {
            plan,
            slot_outputs: slots,
            groups: plan.grouping.as_ref().map(Groups::new),
            sorter: (!plan.order.is_empty()).then(|| Sorter::new(plan.outputs.len(), keep)),
            seen: plan.distinct.then(FxHashSet::default),
            seen_memory: 0,
            skip,
            left: limit,
            buffer: Vec::new(),
            found: 0,
            sent: 0,
        }
    }

    /// How many source rows suffice, 0 if all are needed: for read-ahead.
    pub fn limit_hint(&self) -> usize {
        match self.groups.is_some() || self.sorter.is_some() || self.seen.is_some() || self.plan.calc_found_rows {
            true => 0,
            false => usize::try_from(self.skip.saturating_add(self.left)).unwrap_or(0),
        }
    }

    /// False for LIMIT 0: nothing need be read.
    pub fn wants_rows(&self) -> bool {
        self.left > 0 || self.groups.is_some() || self.plan.calc_found_rows
    }

    /// Takes one source row; false: no further row can change the result.
    pub fn push(&mut self, row: &[Value], cx: &Context<'_>, target: &mut impl RowTarget) -> Result<bool> {
        match &mut self.groups {
            Some(groups) => groups.push(row, cx).map(|()| true),
            None => self.grouped(row, cx, target),
        }
    }

    /// A row after grouping: DISTINCT, then ORDER BY or output.
    fn grouped(&mut self, row: &[Value], cx: &Context<'_>, target: &mut impl RowTarget) -> Result<bool> {
        if self.seen.is_none() && self.sorter.is_none() {
            return self.output_row(row, cx, target);
        }
        self.buffer.clear();
        for output in &self.plan.outputs {
            self.buffer.push(output.eval(row, cx)?.into_owned());
        }
        if let Some(seen) = &mut self.seen {
            let mut key = Vec::with_capacity(64);
            for (value, output) in self.buffer.iter().zip(&self.plan.outputs) {
                sortkey::push(value, output.ty.collation, false, &mut key);
            }
            let size = key.len() + 64;
            if !seen.insert(key) {
                return Ok(true);
            }
            self.seen_memory += size;
            if self.seen_memory > MEMORY_MAX {
                return Err(out_of_memory("DISTINCT"));
            }
        }
        let Some(sorter) = &mut self.sorter else {
            let values = std::mem::take(&mut self.buffer);
            let more = self.output_values(&values, target);
            self.buffer = values;
            return more;
        };
        let (plan, buffer) = (self.plan, &mut self.buffer);
        let make_key = |out: &mut Vec<u8>| {
            for (key, descending) in &plan.order {
                match key.as_slot() {
                    Some(slot) => sortkey::push(&row[slot as usize], key.ty.collation, *descending, out),
                    None => sortkey::push(&*key.eval(row, cx)?, key.ty.collation, *descending, out),
                }
            }
            Ok(())
        };
        sorter.push(make_key, |values| {
            values.append(buffer);
            Ok(())
        })?;
        Ok(true)
    }

    /// Counts a row against OFFSET and LIMIT: whether to send it, and whether more are wanted.
    fn admit(&mut self) -> (bool, bool) {
        self.found += 1;
        if self.skip > 0 {
            self.skip -= 1;
            return (false, true);
        }
        let all = self.plan.calc_found_rows;
        if self.left == 0 {
            return (false, all);
        }
        self.left -= 1;
        self.sent += 1;
        (true, self.left > 0 || all)
    }

    fn output_row(&mut self, row: &[Value], cx: &Context<'_>, target: &mut impl RowTarget) -> Result<bool> {
        let (send, more) = self.admit();
        if send {
            match &self.slot_outputs {
                Some(slots) => target.slots(row, slots)?,
                None => {
                    self.buffer.clear();
                    for output in &self.plan.outputs {
                        self.buffer.push(output.eval(row, cx)?.into_owned());
                    }
                    target.values(&self.buffer)?;
                }
            }
        }
        Ok(more)
    }

    fn output_values(&mut self, values: &[Value], target: &mut impl RowTarget) -> Result<bool> {
        let (send, more) = self.admit();
        if send {
            target.values(values)?;
        }
        Ok(more)
    }

    /// The source is at its end: sends groups and sorted rows.
    pub fn finish(&mut self, cx: &Context<'_>, target: &mut impl RowTarget) -> Result<()> {
        if let Some(groups) = self.groups.take() {
            let having = groups.plan.having.as_ref();
            for row in groups.finish(self.plan.width)? {
                let pass = match having {
                    Some(having) => having.matches(&row, cx)?,
                    None => true,
                };
                if pass && !self.grouped(&row, cx, target)? {
                    break;
                }
            }
        }
        if let Some(sorter) = self.sorter.take() {
            for values in sorter.finish().iter() {
                if !self.output_values(values, target)? {
                    break;
                }
            }
        }
        Ok(())
    }
}

impl<'p> Groups<'p> {
    fn new(plan: &'p Grouping) -> Self {
        Self { plan, by_key: FxHashMap::default(), groups: Vec::new(), key: Vec::new(), memory: 0 }
    }

    fn push(&mut self, row: &[Value], cx: &Context<'_>) -> Result<()> {
        let at = if self.plan.keys.is_empty() {
            if self.groups.is_empty() {
                self.open(row);
            }
            0
        } else {
            self.key.clear();
            for key in &self.plan.keys {
                match key.as_slot() {
                    Some(slot) => sortkey::push(&row[slot as usize], key.ty.collation, false, &mut self.key),
                    None => sortkey::push(&*key.eval(row, cx)?, key.ty.collation, false, &mut self.key),
                }
            }
            match self.by_key.get(&self.key) {
                Some(at) => *at,
                None => {
                    self.memory += self.key.len() + 64;
                    self.by_key.insert(self.key.clone(), self.groups.len());
                    self.open(row);
                    self.groups.len() - 1
                }
            }
        };
        let group = &mut self.groups[at];
        for (accumulator, call) in group.accumulators.iter_mut().zip(&self.plan.aggregates) {
            self.memory += accumulator.add(call, row, cx)?;
        }
        match self.memory > MEMORY_MAX {
            true => Err(out_of_memory("GROUP BY")),
            false => Ok(()),
        }
    }

    fn open(&mut self, row: &[Value]) {
        self.memory += size_of_val(row) + row.iter().map(heap_size).sum::<usize>() + 64;
        let accumulators = self.plan.aggregates.iter().map(Accumulator::new).collect();
        // Values that borrow a stored row would pin its page: keep small copies.
        let first = row.iter().map(detached).collect();
        self.groups.push(Group { first, accumulators });
    }

    /// The grouped rows: first row, then aggregates. Without GROUP BY there is one even for no input.
    fn finish(mut self, width: usize) -> Result<Vec<Vec<Value>>> {
        if self.groups.is_empty() && self.plan.keys.is_empty() {
            self.open(&vec![Value::Null; width]);
        }
        let calls = &self.plan.aggregates;
        self.groups
            .into_iter()
            .map(|group| {
                let mut row = group.first;
                for (accumulator, call) in group.accumulators.into_iter().zip(calls) {
                    row.push(accumulator.finish(call)?);
                }
                Ok(row)
            })
            .collect()
    }
}

fn detached(value: &Value) -> Value {
    match value {
        Value::Str(b) => Value::Str(Bytes::copy_from_slice(b)),
        Value::Bin(b) => Value::Bin(Bytes::copy_from_slice(b)),
        Value::Json(b) => Value::Json(Bytes::copy_from_slice(b)),
        other => other.clone(),
    }
}
