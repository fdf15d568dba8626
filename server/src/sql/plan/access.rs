//! Chooses how a table is read: which index, which leading columns are fixed, which range follows. Pure.
//!
//! There are no statistics: the rules are those that need none. A unique key with every column fixed beats everything;
//! then the longest fixed prefix; then a range; then an index that gives the wanted order under a LIMIT; then a scan.

use crate::{
    catalog::{HIDDEN_ID, Index, Table},
    row::Kind,
    sql::{
        ast::{HintKind, IndexHint, IsTest},
        collation::Collation,
        expr::{CompareOp, Expr, Node},
    },
};

/// A bound of a range over one key column.
#[derive(Clone, Debug)]
pub struct Edge<E> {
    pub value: E,
    pub inclusive: bool,
}

/// A range over one key column; an absent edge is open.
#[derive(Clone, Debug)]
pub struct Stretch<E> {
    pub low: Option<Edge<E>>,
    pub high: Option<Edge<E>>,
}

/// What is known of one leading key column.
#[derive(Clone, Debug)]
pub enum Fixed<E> {
    /// `= a` or `IN (a, b, ...)`.
    AnyOf(Vec<E>),
    /// `<=> a`: also matches NULL.
    NullSafe(E),
    /// `IS NULL`.
    Null,
}

/// How a table is read. `E` is an expression in a plan, a value when the ranges are computed.
#[derive(Clone, Debug)]
pub struct Access<E> {
    /// Position in [`Table::indexes`], or `None` for the primary key (or hidden row id).
    pub index: Option<usize>,
    /// Leading key columns.
    pub fixed: Vec<Fixed<E>>,
    /// Ranges over the column after them, of which any may hold; empty: no restriction.
    pub ranges: Vec<Stretch<E>>,
    /// At most one row matches each combination of fixed values.
    pub unique: bool,
    /// Rows come in the order that was wanted.
    pub ordered: bool,
    /// Read from the largest key down.
    pub reverse: bool,
    /// Every needed column is in the index.
    pub covering: bool,
}

/// One ORDER BY column, if the whole ORDER BY is plain columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OrderColumn {
    pub column: usize,
    pub descending: bool,
}

/// What the statement wants of the table.
#[derive(Clone, Debug, Default)]
pub struct Wanted<'a> {
    pub order: Option<&'a [OrderColumn]>,
    pub limited: bool,
    /// Columns that are read.
    pub needed: &'a [usize],
    pub hints: &'a [IndexHint],
    /// Rows will be locked or changed: the row itself is needed.
    pub for_change: bool,
}

/// A predicate that an index can serve.
#[derive(Clone, Debug)]
struct Term {
    column: usize,
    conjunct: usize,
    test: Test,
}

#[derive(Clone, Debug)]
enum Test {
    Fixed(Fixed<Expr>),
    Ranges(Vec<Stretch<Expr>>),
}

/// The access path, and which conjuncts of the filter it serves completely.
#[derive(Clone, Debug)]
pub struct Choice {
    pub access: Access<Expr>,
    pub served: Vec<usize>,
}

/// Chooses the access path for a filter given as conjuncts, whose slots are the table's columns.
pub fn choose(table: &Table, filter: &[&Expr], wanted: &Wanted<'_>) -> Choice {
    let terms: Vec<Term> = filter.iter().enumerate().filter_map(|(i, e)| term(table, e, i)).collect();
    let mut best = candidate(table, None, &terms, wanted);
    let mut best_score = score(&best, table, wanted);
    for (i, index) in table.indexes.iter().enumerate() {
        if !index.is_readable() || !hinted(index, wanted.hints) {
            continue;
        }
        let next = candidate(table, Some(i), &terms, wanted);
        let next_score = score(&next, table, wanted);
        if next_score > best_score {
            (best, best_score) = (next, next_score);
        }
    }
    best
}

/// USE and FORCE INDEX restrict, IGNORE INDEX removes.
fn hinted(index: &Index, hints: &[IndexHint]) -> bool {
    let names = |h: &IndexHint| h.indexes.iter().any(|n| n.eq_ignore_ascii_case(&index.name));
    let restricts = |h: &&IndexHint| h.kind != HintKind::Ignore;
    !hints.iter().any(|h| h.kind == HintKind::Ignore && names(h))
        && (!hints.iter().any(|h| restricts(&h)) || hints.iter().filter(restricts).any(names))
}

fn forced(index: &Index, hints: &[IndexHint]) -> bool {
    hints.iter().any(|h| h.kind == HintKind::Force && h.indexes.iter().any(|n| n.eq_ignore_ascii_case(&index.name)))
}

fn candidate(table: &Table, at: Option<usize>, terms: &[Term], wanted: &Wanted<'_>) -> Choice {
    let index = index_of(table, at);
    let mut access = Access {
        index: at,
        fixed: Vec::new(),
        ranges: Vec::new(),
        unique: false,
        ordered: false,
        reverse: false,
        covering: !wanted.for_change && at.is_some() && covers(table, index, wanted.needed),
    };
    let mut served = Vec::new();
    for part in &index.parts {
        let on_part = |t: &&Term| t.column == part.column;
        let whole = part.prefix.is_none();
        let fixed = terms.iter().filter(on_part).find_map(|t| match &t.test {
            Test::Fixed(f) => Some((f, t.conjunct)),
            Test::Ranges(_) => None,
        });
        if let Some((f, conjunct)) = fixed {
            access.fixed.push(f.clone());
            if whole {
                served.push(conjunct);
            }
            continue;
        }
        for t in terms.iter().filter(on_part) {
            let Test::Ranges(ranges) = &t.test else { continue };
            if intersect(&mut access.ranges, ranges) && whole {
                served.push(t.conjunct);
            }
        }
        if !whole {
            // A cut column compares inclusively: equal prefixes do not decide.
            for edge in access.ranges.iter_mut().flat_map(|r| [&mut r.low, &mut r.high]).flatten() {
                edge.inclusive = true;
            }
        }
        break;
    }
    access.unique = index.unique
        && access.fixed.len() == index.parts.len()
        && index.parts.iter().all(|p| p.prefix.is_none())
        && access.fixed.iter().all(|f| matches!(f, Fixed::AnyOf(_)));
    set_order(table, index, &mut access, wanted);
    Choice { access, served }
}

/// Adds a predicate to the ranges found so far: the first as it is, then only what closes an open edge of a single
/// range. False: the predicate is left to the filter.
fn intersect(ranges: &mut Vec<Stretch<Expr>>, more: &[Stretch<Expr>]) -> bool {
    match (ranges.as_mut_slice(), more) {
        ([], _) => {
            *ranges = more.to_vec();
            true
        }
        ([one], [other])
            if (one.low.is_none() || other.low.is_none()) && (one.high.is_none() || other.high.is_none()) =>
        {
            one.low = one.low.take().or_else(|| other.low.clone());
            one.high = one.high.take().or_else(|| other.high.clone());
            true
        }
        _ => false,
    }
}

/// Whether the index, after the fixed columns, delivers the wanted order, forwards or backwards.
fn set_order(table: &Table, index: &Index, access: &mut Access<Expr>, wanted: &Wanted<'_>) {
    let Some(order) = wanted.order else { return };
    let single = |f: &Fixed<Expr>| matches!(f, Fixed::AnyOf(v) if v.len() == 1) || matches!(f, Fixed::Null);
    if access.unique && access.fixed.iter().all(single) {
        access.ordered = true;
        return;
    }
    // With IN lists the ranges are visited in key order, which is an order by all the key's columns.
    let fixed_single = access.fixed.iter().take_while(|f| single(f)).count();
    let constant = |c: usize| index.parts[..fixed_single].iter().any(|p| p.column == c);
    let mut rest = index.parts[fixed_single..]
        .iter()
        .chain(table.primary.parts.iter().filter(|_| !index.is_primary()))
        .filter(|p| !constant(p.column));
    let mut direction = None;
    for want in order.iter().filter(|o| !constant(o.column)) {
        match rest.next() {
            Some(p) if p.column == want.column && p.prefix.is_none() => {}
            _ => return,
        }
        if *direction.get_or_insert(want.descending) != want.descending {
            return;
        }
    }
    access.ordered = true;
    access.reverse = direction.unwrap_or(false);
}

/// Larger is better. The primary key is tried first, so that it wins ties.
fn score(choice: &Choice, table: &Table, wanted: &Wanted<'_>) -> u32 {
    let a = &choice.access;
    let index = index_of(table, a.index);
    if a.unique {
        return 1_000_000;
    }
    let ranged = match a.ranges.as_slice() {
        [] => 0,
        [one] => u32::from(one.low.is_some()) + u32::from(one.high.is_some()),
        _ => 2,
    };
    let narrow = a.fixed.len() as u32 * 100 + ranged * 30;
    let mut score = narrow;
    // A row lookup for each entry costs as much as a shorter prefix.
    if a.index.is_none() && narrow > 0 {
        score += 20;
    }
    if a.covering {
        score += if narrow > 0 { 20 } else { 5 };
    }
    if a.ordered && wanted.order.is_some() {
        let cheap = a.index.is_none() || a.covering || wanted.limited || narrow > 0;
        score += if cheap { 25 } else { 0 };
    }
    if forced(index, wanted.hints) {
        score += 10_000;
    }
    score
}

/// The index at a position of an access path.
pub fn index_of(table: &Table, at: Option<usize>) -> &Index {
    at.and_then(|i| table.indexes.get(i)).unwrap_or(&table.primary)
}

/// Whether every needed column can be rebuilt from an entry of a secondary index.
fn covers(table: &Table, index: &Index, needed: &[usize]) -> bool {
    // Entries of unique indexes hold the primary key in their value, in the same encoding.
    let has = |c: usize| {
        let parts = index.parts.iter().chain(&table.primary.parts);
        parts.filter(|p| p.column != HIDDEN_ID).any(|p| p.column == c && p.is_reversible())
    };
    needed.iter().all(|c| has(*c))
}

fn term(table: &Table, e: &Expr, conjunct: usize) -> Option<Term> {
    let make = |slot: u32, test| Some(Term { column: slot as usize, conjunct, test });
    if let Some((slot, op, value)) = e.as_column_comparison() {
        let Node::Compare(_, collation, _) = &e.node else { return None };
        if !serves(table, slot, *collation) {
            return None;
        }
        let edge = |inclusive| Some(Edge { value: value.clone(), inclusive });
        return make(
            slot,
            match op {
                CompareOp::Eq => Test::Fixed(Fixed::AnyOf(vec![value.clone()])),
                CompareOp::NullSafeEq => Test::Fixed(Fixed::NullSafe(value.clone())),
                CompareOp::Lt => range(None, edge(false)),
                CompareOp::Le => range(None, edge(true)),
                CompareOp::Gt => range(edge(false), None),
                CompareOp::Ge => range(edge(true), None),
                CompareOp::Ne => return None,
            },
        );
    }
    match &e.node {
        Node::In { expr, list, collation, negated: false } if list.iter().all(Expr::is_row_constant) => {
            let slot = expr.as_slot().filter(|slot| serves(table, *slot, *collation))?;
            make(slot, Test::Fixed(Fixed::AnyOf(list.clone())))
        }
        Node::Is { expr, test: IsTest::Null, negated: false } => make(expr.as_slot()?, Test::Fixed(Fixed::Null)),
        Node::Or(list) => {
            let (slot, ranges) = any_of(table, list)?;
            make(slot, Test::Ranges(ranges))
        }
        _ => None,
    }
}

fn range(low: Option<Edge<Expr>>, high: Option<Edge<Expr>>) -> Test {
    Test::Ranges(vec![Stretch { low, high }])
}

/// `a BETWEEN 1 AND 2 OR a BETWEEN 5 AND 6 OR a = 9`: one column, in any of several ranges.
fn any_of(table: &Table, list: &[Expr]) -> Option<(u32, Vec<Stretch<Expr>>)> {
    let mut column = None;
    let mut out = Vec::with_capacity(list.len());
    for branch in list {
        let mut all: Vec<Stretch<Expr>> = Vec::new();
        for e in branch.conjuncts() {
            let term = term(table, e, 0)?;
            if *column.get_or_insert(term.column) != term.column {
                return None;
            }
            match term.test {
                Test::Ranges(ranges) => intersect(&mut all, &ranges).then_some(())?,
                Test::Fixed(Fixed::AnyOf(values)) if all.is_empty() => {
                    all = values.into_iter().map(point).collect();
                }
                Test::Fixed(_) => return None,
            }
        }
        out.extend(all);
    }
    Some((column? as u32, out))
}

fn point(value: Expr) -> Stretch<Expr> {
    let edge = |value| Some(Edge { value, inclusive: true });
    Stretch { low: edge(value.clone()), high: edge(value) }
}

/// Text must be compared by the collation that its key order follows.
fn serves(table: &Table, slot: u32, collation: Collation) -> bool {
    match table.columns.get(slot as usize).map(|c| c.kind()) {
        Some(Kind::Text { collation: own }) => own == collation,
        Some(Kind::Json) | None => false,
        Some(_) => true,
    }
}
