//! Plans SELECT: binds every clause, then chooses the access path.

use std::sync::Arc;

use super::{
    Grouping, SelectPlan, Source, TableSource,
    access::{self, OrderColumn, Wanted},
    result_column,
    scope::{Aliases, ScopeColumn, TableScope},
};
use crate::{
    catalog::{self, Table},
    errmap::{error, unsupported},
    exec::schema::{self, VirtualTable},
    sql::{
        ast::{self, IndexHint, ObjectName, Query, QueryBody, Select, SelectItem, TableRef},
        bind::{Binder, junction},
        collation::Collation,
        context::{SessionInfo, SqlMode},
        error::Result,
        expr::{Expr, Node},
        types::{DataType, TypeKind},
        value::Value,
    },
    wire::{
        consts::flag,
        result::{Column, ColumnSet},
    },
};

/// What planning reads of the session and the catalog.
pub struct PlanContext<'a> {
    pub session: &'a dyn SessionInfo,
    pub catalog: &'a catalog::State,
    pub database: Option<&'a str>,
    pub mode: SqlMode,
    pub collation: Collation,
}

impl PlanContext<'_> {
    /// Finds the table that a name means: 1046, 1049, 1146.
    pub fn table(&self, name: &ObjectName) -> Result<Arc<Table>> {
        let database = name.database.as_deref().or(self.database).ok_or_else(crate::errmap::no_database)?;
        self.catalog.table(database, &name.name).cloned()
    }

    /// The one stored table of a FROM list or of UPDATE and DELETE, with alias and hints.
    pub fn single<'t>(&self, from: &'t [TableRef]) -> Result<(&'t ObjectName, &'t str, &'t [IndexHint])> {
        match from {
            [TableRef::Table { name, alias, hints }] => Ok((name, alias.as_deref().unwrap_or(&name.name), hints)),
            [TableRef::Derived { .. }] => Err(unsupported("derived table")),
            [TableRef::Join { .. }] => Err(unsupported("JOIN")),
            _ => Err(unsupported("more than one table in a statement")),
        }
    }
}

/// The names of a stored table.
pub fn table_scope(table: &Table, alias: &str) -> TableScope {
    TableScope {
        database: table.database.clone(),
        table: alias.to_owned(),
        columns: table
            .columns
            .iter()
            .map(|c| ScopeColumn { name: c.name.clone(), ty: c.ty, nullable: c.nullable })
            .collect(),
        ..TableScope::default()
    }
}

/// FROM, resolved.
struct From {
    stored: Option<(Arc<Table>, Vec<IndexHint>)>,
    virtual_table: Option<VirtualTable>,
    scope: TableScope,
    /// Columns that `*` leaves out.
    invisible: Vec<usize>,
}

/// Plans a query.
pub fn plan(query: &Query, cx: &PlanContext<'_>) -> Result<SelectPlan> {
    if !query.with.is_empty() {
        return Err(unsupported("WITH (common table expression)"));
    }
    let QueryBody::Select(select) = &query.body else { return Err(unsupported("UNION, EXCEPT or INTERSECT")) };
    if select.rollup {
        return Err(unsupported("WITH ROLLUP"));
    }
    let from = resolve_from(&select.from, cx)?;
    let width = from.scope.columns.len();
    let mut binder = Binder::new(&from.scope, cx.session).with_collation(cx.collation).with_aggregates(width as u32);

    let items = expand(&select.items, &from)?;
    let mut outputs = Vec::with_capacity(items.len());
    for item in &items {
        let bound = match &item.source {
            ItemSource::Slot(at) => {
                let column = &from.scope.columns[*at];
                Expr::slot(*at as u32, column.ty, column.nullable)
            }
            ItemSource::Expr(e) => binder.clause("field list").bind(e)?,
        };
        let bound = typed_output(bound);
        if let Some(alias) = &item.alias {
            from.scope.add_alias(alias, &bound);
        }
        outputs.push(bound);
    }
    binder.forbid_aggregates();
    let filter = select.filter.as_ref().map(|e| binder.clause("where clause").bind(e)).transpose()?;
    from.scope.see_aliases(Aliases::AfterColumns);
    let mut keys = Vec::new();
    for e in &select.group_by {
        keys.push(match position(e, &outputs, "group statement")? {
            Some(output) => output,
            None => binder.clause("group statement").bind(e)?,
        });
    }
    binder.allow_aggregates();
    from.scope.see_aliases(Aliases::BeforeColumns);
    let having = select.having.as_ref().map(|e| binder.clause("having clause").bind(e)).transpose()?;
    let mut order = Vec::new();
    for item in &query.order_by {
        let key = match position(&item.expr, &outputs, "order clause")? {
            Some(output) => output,
            None => binder.clause("order clause").bind(&item.expr)?,
        };
        // A constant orders nothing.
        if !key.is_row_constant() {
            order.push((key, item.descending));
        }
    }
    let (limit, offset) = match &query.limit {
        None => (None, None),
        Some(limit) => (
            Some(binder.clause("limit clause").bind(&limit.count)?),
            limit.offset.as_ref().map(|e| binder.bind(e)).transpose()?,
        ),
    };
    let aggregates = binder.into_aggregates();

    let grouped = !keys.is_empty() || !aggregates.is_empty();
    // HAVING without groups is a second WHERE.
    let (filter, having) = match (grouped, filter, having) {
        (true, filter, having) => (filter, having),
        (false, Some(filter), Some(having)) => (Some(junction(vec![filter, having], true)), None),
        (false, filter, having) => (filter.or(having), None),
    };
    let grouping = grouped.then(|| Grouping { keys, aggregates, having });
    if let (Some(grouping), true) = (&grouping, cx.mode.only_full_group_by) {
        check_full_group_by(grouping, &outputs, &order, filter.as_ref(), &from)?;
    }
    let columns = output_columns(&items, &outputs, &from);
    let mut plan = SelectPlan {
        source: Source::Nothing,
        width,
        filter: None,
        grouping,
        outputs,
        column_set: ColumnSet::new(&columns),
        columns,
        distinct: select.distinct,
        order,
        limit,
        offset,
        lock: query.lock,
        calc_found_rows: select.calc_found_rows,
        into: select.into.clone(),
    };
    attach_source(&mut plan, from, filter, select);
    Ok(plan)
}

/// Chooses the access path of a stored table, now that all clauses are known.
fn attach_source(plan: &mut SelectPlan, from: From, filter: Option<Expr>, _select: &Select) {
    if let Some((table, hints)) = from.stored {
        let needed = needed_columns(plan);
        let order = plan_order(plan);
        let wanted = Wanted {
            order: order.as_deref(),
            limited: plan.limit.is_some(),
            needed: &needed,
            hints: &hints,
            for_change: plan.lock.is_some(),
        };
        let source = table_source(table, from.scope.table, filter, &wanted);
        if source.access.ordered {
            plan.order.clear();
        }
        plan.source = Source::Table(Box::new(source));
    } else {
        plan.filter = filter;
        if let Some(table) = from.virtual_table {
            plan.source = Source::Virtual(table);
        }
    }
}

/// A stored table with the best access path for a filter.
pub fn table_source(table: Arc<Table>, alias: String, filter: Option<Expr>, wanted: &Wanted<'_>) -> TableSource {
    let conjuncts = filter.as_ref().map(Expr::conjuncts).unwrap_or_default();
    let mut filter_columns = filter.as_ref().map(columns_of).unwrap_or_default();
    filter_columns.sort_unstable();
    let mut needed = wanted.needed.to_vec();
    needed.extend(&filter_columns);
    let choice = access::choose(&table, &conjuncts, &Wanted { needed: &needed, ..wanted.clone() });
    let residual: Vec<Expr> =
        conjuncts.iter().enumerate().filter(|(i, _)| !choice.served.contains(i)).map(|(_, e)| Expr::clone(e)).collect();
    let residual = (!residual.is_empty()).then(|| junction(residual, true));
    let mut other_columns: Vec<usize> = wanted.needed.iter().copied().filter(|c| !filter_columns.contains(c)).collect();
    other_columns.sort_unstable();
    other_columns.dedup();
    TableSource { table, alias, access: choice.access, filter, residual, filter_columns, other_columns }
}

/// Columns that an expression reads.
pub fn columns_of(e: &Expr) -> Vec<usize> {
    e.slots().into_iter().map(|s| s as usize).collect()
}

fn needed_columns(plan: &SelectPlan) -> Vec<usize> {
    let mut needed: Vec<usize> =
        plan.outputs.iter().chain(plan.order.iter().map(|(e, _)| e)).flat_map(columns_of).collect();
    if let Some(grouping) = &plan.grouping {
        needed.extend(grouping.keys.iter().chain(&grouping.having).flat_map(columns_of));
        let arguments = grouping.aggregates.iter().flat_map(|a| a.args.iter().chain(a.order_by.iter().map(|(e, _)| e)));
        needed.extend(arguments.flat_map(columns_of));
    }
    // Slots after the row are aggregates.
    needed.retain(|c| *c < plan.width);
    needed.sort_unstable();
    needed.dedup();
    needed
}

/// ORDER BY as plain columns, if an index could deliver it.
fn plan_order(plan: &SelectPlan) -> Option<Vec<OrderColumn>> {
    if plan.grouping.is_some() || plan.order.is_empty() {
        return None;
    }
    order_columns(&plan.order)
}

/// ORDER BY keys as columns; `None` if one is an expression.
pub fn order_columns(order: &[(Expr, bool)]) -> Option<Vec<OrderColumn>> {
    let column = |(e, descending): &(Expr, bool)| {
        e.as_slot().map(|slot| OrderColumn { column: slot as usize, descending: *descending })
    };
    order.iter().map(column).collect()
}

fn resolve_from(from: &[TableRef], cx: &PlanContext<'_>) -> Result<From> {
    if from.is_empty() {
        return Ok(From { stored: None, virtual_table: None, scope: TableScope::default(), invisible: Vec::new() });
    }
    let (name, alias, hints) = cx.single(from)?;
    let database = name.database.as_deref().or(cx.database).ok_or_else(crate::errmap::no_database)?;
    if database.eq_ignore_ascii_case(schema::DATABASE) {
        let table = VirtualTable::find(&name.name)?;
        return Ok(From { stored: None, virtual_table: Some(table), scope: table.scope(alias), invisible: Vec::new() });
    }
    let table = cx.table(name)?;
    for index in hints.iter().flat_map(|h| &h.indexes) {
        if table.index(index).is_none() {
            return Err(error(1176, format!("Key '{index}' doesn't exist in table '{}'", table.name)));
        }
    }
    let invisible = (0..table.columns.len()).filter(|i| table.columns[*i].invisible).collect();
    let scope = table_scope(&table, alias);
    Ok(From { stored: Some((table, hints.to_vec())), virtual_table: None, scope, invisible })
}

enum ItemSource<'a> {
    Slot(usize),
    Expr(&'a ast::Expr),
}

struct Item<'a> {
    source: ItemSource<'a>,
    name: String,
    alias: Option<String>,
}

/// Replaces `*` by columns and names every output.
fn expand<'a>(items: &'a [SelectItem], from: &From) -> Result<Vec<Item<'a>>> {
    let mut out = Vec::new();
    for item in items {
        match item {
            SelectItem::Wildcard | SelectItem::TableWildcard(_) if from.scope.columns.is_empty() => {
                return Err(error(1096, "No tables used"));
            }
            SelectItem::TableWildcard(name) if name.name != from.scope.table => {
                return Err(error(1051, format!("Unknown table '{}'", name.name)));
            }
            SelectItem::Wildcard | SelectItem::TableWildcard(_) => {
                for (i, column) in from.scope.columns.iter().enumerate().filter(|(i, _)| !from.invisible.contains(i)) {
                    out.push(Item { source: ItemSource::Slot(i), name: column.name.clone(), alias: None });
                }
            }
            SelectItem::Expr { expr, alias, text } => {
                let name = match (alias, expr) {
                    (Some(alias), _) => alias.clone(),
                    // information_schema names its columns in upper case however they are asked for; clients know.
                    (None, ast::Expr::Column(column)) if from.virtual_table.is_some() => column.name.to_uppercase(),
                    (None, ast::Expr::Column(column)) => column.name.clone(),
                    (None, _) => text.clone(),
                };
                out.push(Item { source: ItemSource::Expr(expr), name, alias: alias.clone() });
            }
        }
    }
    Ok(out)
}

/// An integer literal in GROUP BY or ORDER BY names an output: 1054 if there is none.
fn position(e: &ast::Expr, outputs: &[Expr], clause: &str) -> Result<Option<Expr>> {
    let n = match e {
        ast::Expr::Literal(Value::Int(n)) => *n,
        ast::Expr::Literal(Value::UInt(n)) => i64::try_from(*n).unwrap_or(i64::MAX),
        _ => return Ok(None),
    };
    let at = usize::try_from(n).ok().and_then(|n| n.checked_sub(1));
    let found = at.and_then(|at| outputs.get(at));
    found.cloned().map(Some).ok_or_else(|| crate::errmap::unknown_column(&n.to_string(), clause))
}

fn output_columns(items: &[Item<'_>], outputs: &[Expr], from: &From) -> Vec<Column> {
    let build = |(item, e): (&Item<'_>, &Expr)| {
        let mut column = result_column(&item.name, &e.ty, e.nullable);
        let slot = e.as_slot().map(|s| s as usize).filter(|s| *s < from.scope.columns.len());
        if let Some(slot) = slot {
            column.schema.clone_from(&from.scope.database);
            column.table.clone_from(&from.scope.table);
            column.org_name.clone_from(&from.scope.columns[slot].name);
            column.org_table = from.stored.as_ref().map_or_else(|| from.scope.table.clone(), |(t, _)| t.name.clone());
            if let Some((table, _)) = &from.stored {
                column.flags |= key_flags(table, slot);
            }
        }
        column
    };
    items.iter().zip(outputs).map(build).collect()
}

/// A parameter or variable has no type before it has a value: as an output it is text.
fn typed_output(e: Expr) -> Expr {
    if e.ty.kind != TypeKind::Null || matches!(e.node, Node::Const(_)) {
        return e;
    }
    Expr::new(Node::Cast(Box::new(e)), DataType::text(Collation::default()))
}

fn key_flags(table: &Table, column: usize) -> u16 {
    let mut flags = match table.key_mark(column) {
        "PRI" => flag::PRI_KEY,
        "UNI" => flag::UNIQUE_KEY,
        "MUL" => flag::MULTIPLE_KEY,
        _ => 0,
    };
    let c = &table.columns[column];
    if c.auto_increment {
        flags |= flag::AUTO_INCREMENT;
    }
    if c.default == catalog::ColumnDefault::None && !c.nullable && !c.auto_increment {
        flags |= flag::NO_DEFAULT_VALUE;
    }
    if c.on_update_now {
        flags |= flag::ON_UPDATE_NOW | flag::TIMESTAMP;
    }
    flags
}

/// 1055 and 1140: outside aggregates, only what is constant within a group.
fn check_full_group_by(
    grouping: &Grouping,
    outputs: &[Expr],
    order: &[(Expr, bool)],
    filter: Option<&Expr>,
    from: &From,
) -> Result<()> {
    let width = from.scope.columns.len();
    let key_texts: Vec<String> = grouping.keys.iter().map(|k| format!("{:?}", k.node)).collect();
    let mut fixed: Vec<usize> = grouping.keys.iter().filter_map(|k| k.as_slot()).map(|s| s as usize).collect();
    for e in filter.map(Expr::conjuncts).unwrap_or_default() {
        if let Some((slot, crate::sql::expr::CompareOp::Eq, _)) = e.as_column_comparison() {
            fixed.push(slot as usize);
        }
    }
    if let Some((table, _)) = &from.stored {
        let determines = |parts: &[crate::key::KeyPart]| parts.iter().all(|p| fixed.contains(&p.column) && !p.nullable);
        if table.all_indexes().any(|i| i.unique && determines(&i.parts)) {
            return Ok(());
        }
    }
    let clauses = [
        ("SELECT list", outputs.iter().collect::<Vec<_>>()),
        ("ORDER BY clause", order.iter().map(|(e, _)| e).collect()),
    ];
    for (clause, list) in clauses {
        for (i, e) in list.into_iter().enumerate() {
            if let Some(slot) = free_column(e, &key_texts, &fixed, width) {
                let c = format!("{}.{}.{}", from.scope.database, from.scope.table, from.scope.columns[slot].name);
                let n = i + 1;
                return Err(if grouping.keys.is_empty() {
                    error(
                        1140,
                        format!(
                            "In aggregated query without GROUP BY, expression #{n} of {clause} contains nonaggregated column '{c}'; this is incompatible with sql_mode=only_full_group_by"
                        ),
                    )
                } else {
                    error(
                        1055,
                        format!(
                            "Expression #{n} of {clause} is not in GROUP BY clause and contains nonaggregated column '{c}' which is not functionally dependent on columns in GROUP BY clause; this is incompatible with sql_mode=only_full_group_by"
                        ),
                    )
                });
            }
        }
    }
    Ok(())
}

/// A column that is neither fixed within a group nor part of a grouped expression.
fn free_column(e: &Expr, keys: &[String], fixed: &[usize], width: usize) -> Option<usize> {
    if let Node::Slot(slot) = e.node {
        let slot = slot as usize;
        return (slot < width && !fixed.contains(&slot)).then_some(slot);
    }
    if keys.contains(&format!("{:?}", e.node)) || matches!(&e.node, Node::Call(f, _) if f.name == "ANY_VALUE") {
        return None;
    }
    e.children().into_iter().find_map(|child| free_column(child, keys, fixed, width))
}
