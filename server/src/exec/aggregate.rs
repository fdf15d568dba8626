//! Owns the running state of aggregate calls.

use std::cmp::Ordering;

use rustc_hash::FxHashSet;

use super::sortkey;
use crate::{
    errmap::{error, unsupported},
    sql::{
        ast::AggregateKind,
        compare::order,
        context::Context,
        convert::{to_bits, to_decimal, to_f64, to_text},
        expr::AggregateCall,
        types::TypeKind,
        value::{Decimal, Value},
    },
    wire::result::SqlError,
};

type Result<T> = std::result::Result<T, SqlError>;

/// One aggregate of one group.
#[derive(Debug)]
pub struct Accumulator {
    state: State,
    /// Keys of the values seen, for DISTINCT.
    seen: Option<FxHashSet<Vec<u8>>>,
}

#[derive(Debug)]
enum State {
    Count(i64),
    /// SUM and AVG of integers, as long as they fit.
    Integers {
        sum: i128,
        count: u64,
    },
    Decimals {
        sum: Decimal,
        count: u64,
    },
    Doubles {
        sum: f64,
        count: u64,
    },
    /// MIN, MAX, ANY_VALUE.
    Best(Value),
    /// GROUP_CONCAT: sort key and text of each value.
    Texts(Vec<(Vec<u8>, Vec<u8>)>),
    /// Welford: count, mean, sum of squared differences.
    Spread {
        count: u64,
        mean: f64,
        m2: f64,
    },
    Bits(u64),
    Unsupported,
}

impl Accumulator {
    pub fn new(call: &AggregateCall) -> Self {
        let state = match call.kind {
            AggregateKind::Count => State::Count(0),
            AggregateKind::Sum | AggregateKind::Avg => match call.ty.kind {
                TypeKind::Double | TypeKind::Float => State::Doubles { sum: 0.0, count: 0 },
                _ if call.args.first().is_some_and(|a| a.ty.is_integer()) => State::Integers { sum: 0, count: 0 },
                _ => State::Decimals { sum: Decimal::zero(), count: 0 },
            },
            AggregateKind::Min | AggregateKind::Max | AggregateKind::AnyValue => State::Best(Value::Null),
            AggregateKind::GroupConcat => State::Texts(Vec::new()),
            AggregateKind::StddevPop | AggregateKind::StddevSamp | AggregateKind::VarPop | AggregateKind::VarSamp => {
                State::Spread { count: 0, mean: 0.0, m2: 0.0 }
            }
            AggregateKind::BitAnd => State::Bits(u64::MAX),
            AggregateKind::BitOr | AggregateKind::BitXor => State::Bits(0),
            AggregateKind::JsonArrayAgg | AggregateKind::JsonObjectAgg => State::Unsupported,
        };
        Self { state, seen: call.distinct.then(FxHashSet::default) }
    }

    /// Takes one row; returns the bytes of memory that it grew by.
    pub fn add(&mut self, call: &AggregateCall, row: &[Value], cx: &Context<'_>) -> Result<usize> {
        let Some(arg) = call.args.first() else {
            // COUNT(*)
            if let State::Count(n) = &mut self.state {
                *n += 1;
            }
            return Ok(0);
        };
        let computed;
        let value = match arg.as_slot() {
            Some(slot) => &row[slot as usize],
            None => {
                computed = arg.eval(row, cx)?;
                &*computed
            }
        };
        if value.is_null() && call.kind != AggregateKind::AnyValue {
            return Ok(0);
        }
        let mut grown = 0;
        if let Some(seen) = &mut self.seen {
            let mut key = Vec::new();
            sortkey::push(value, arg.ty.collation, false, &mut key);
            for more in &call.args[1..] {
                let value = more.eval(row, cx)?;
                if value.is_null() && call.kind == AggregateKind::Count {
                    return Ok(0);
                }
                sortkey::push(&value, more.ty.collation, false, &mut key);
            }
            grown = key.len() + 64;
            if !seen.insert(key) {
                return Ok(0);
            }
        }
        grown += self.take(call, value, row, cx)?;
        Ok(grown)
    }

    fn take(&mut self, call: &AggregateCall, value: &Value, row: &[Value], cx: &Context<'_>) -> Result<usize> {
        match &mut self.state {
            State::Count(n) => *n += 1,
            State::Integers { sum, count } => {
                let n = match value {
                    Value::Int(n) => i128::from(*n),
                    Value::UInt(n) => i128::from(*n),
                    _ => return Err(error(1105, "an integer aggregate met another type")),
                };
                *sum += n;
                *count += 1;
            }
            State::Decimals { sum, count } => {
                if let Some(d) = to_decimal(value, cx) {
                    *sum = sum.add(&d).ok_or_else(|| error(1690, "DECIMAL value is out of range in 'sum'"))?;
                    *count += 1;
                }
            }
            State::Doubles { sum, count } => {
                if let Some(n) = to_f64(value, cx) {
                    *sum += n;
                    *count += 1;
                }
            }
            State::Best(best) => {
                let collation = call.args.first().map(|a| a.ty.collation).unwrap_or(call.ty.collation);
                let better = match call.kind {
                    _ if best.is_null() => true,
                    AggregateKind::Min => order(value, best, collation, cx) == Ordering::Less,
                    AggregateKind::Max => order(value, best, collation, cx) == Ordering::Greater,
                    _ => false,
                };
                if better {
                    *best = value.clone();
                }
            }
            State::Texts(list) => {
                let mut text = Vec::new();
                for (i, arg) in call.args.iter().enumerate() {
                    let part = if i == 0 { value.clone() } else { arg.eval(row, cx)?.into_owned() };
                    match to_text(&part) {
                        Some(t) => text.extend_from_slice(&t),
                        None => return Ok(0),
                    }
                }
                let mut key = Vec::new();
                for (e, descending) in &call.order_by {
                    sortkey::push(&*e.eval(row, cx)?, e.ty.collation, *descending, &mut key);
                }
                let grown = text.len() + key.len() + 48;
                list.push((key, text));
                return Ok(grown);
            }
            State::Spread { count, mean, m2 } => {
                if let Some(n) = to_f64(value, cx) {
                    *count += 1;
                    let delta = n - *mean;
                    *mean += delta / *count as f64;
                    *m2 += delta * (n - *mean);
                }
            }
            State::Bits(bits) => {
                if let Some(n) = to_bits(value, cx) {
                    match call.kind {
                        AggregateKind::BitAnd => *bits &= n,
                        AggregateKind::BitOr => *bits |= n,
                        _ => *bits ^= n,
                    }
                }
            }
            State::Unsupported => return Err(unsupported("JSON_ARRAYAGG and JSON_OBJECTAGG")),
        }
        Ok(0)
    }

    /// The aggregate's value.
    pub fn finish(self, call: &AggregateCall) -> Result<Value> {
        let average = |sum: Decimal, count: u64| {
            let divisor = Decimal::new(i128::from(count), 0);
            let increment = call.ty.scale.saturating_sub(sum.scale());
            let value = sum.div(&divisor, increment).map(|d| d.round(i32::from(call.ty.scale)));
            value.map(Value::Decimal).ok_or_else(|| error(1690, "DECIMAL value is out of range in 'avg'"))
        };
        let is_average = call.kind == AggregateKind::Avg;
        Ok(match self.state {
            State::Count(n) => Value::Int(n),
            State::Integers { count: 0, .. } | State::Decimals { count: 0, .. } | State::Doubles { count: 0, .. } => {
                Value::Null
            }
            State::Integers { sum, count } if is_average => average(Decimal::new(sum, 0), count)?,
            State::Integers { sum, .. } => Value::Decimal(Decimal::new(sum, 0)),
            State::Decimals { sum, count } if is_average => average(sum, count)?,
            State::Decimals { sum, .. } => Value::Decimal(sum),
            State::Doubles { sum, count } if is_average => Value::Double(sum / count as f64),
            State::Doubles { sum, .. } => Value::Double(sum),
            State::Best(best) => best,
            State::Texts(list) if list.is_empty() => Value::Null,
            State::Texts(mut list) => {
                if !call.order_by.is_empty() {
                    list.sort_by(|a, b| a.0.cmp(&b.0));
                }
                let texts: Vec<Vec<u8>> = list.into_iter().map(|(_, text)| text).collect();
                Value::Str(texts.join(&call.separator[..]).into())
            }
            State::Spread { count, m2, .. } => {
                let sample = matches!(call.kind, AggregateKind::StddevSamp | AggregateKind::VarSamp);
                let divisor = if sample { count.saturating_sub(1) } else { count };
                if divisor == 0 {
                    return Ok(Value::Null);
                }
                let variance = m2 / divisor as f64;
                let root = matches!(call.kind, AggregateKind::StddevPop | AggregateKind::StddevSamp);
                Value::Double(if root { variance.sqrt() } else { variance })
            }
            State::Bits(bits) => Value::UInt(bits),
            State::Unsupported => return Err(unsupported("JSON_ARRAYAGG and JSON_OBJECTAGG")),
        })
    }
}
