//! Plans INSERT, REPLACE, UPDATE and DELETE.

use std::sync::Arc;

use super::{
    DeletePlan, InsertPlan, NewValue, UpdatePlan,
    access::Wanted,
    scope::TableScope,
    select::{PlanContext, order_columns, table_scope, table_source},
};
use crate::{
    catalog::Table,
    errmap::{error, unsupported},
    exec::schema,
    sql::{
        ast::{Assignment, Delete, Expr as Ast, IndexHint, Insert, InsertSource, Limit, ObjectName, OrderItem, Update},
        bind::Binder,
        error::Result,
        expr::Expr,
    },
};

/// Plans INSERT or REPLACE with VALUES.
pub fn insert(insert: &Insert, cx: &PlanContext<'_>) -> Result<InsertPlan> {
    let table = writable(&insert.table, cx)?;
    let mut scope = table_scope(&table, &table.name);
    let columns = if insert.columns.is_empty() {
        (0..table.columns.len()).filter(|i| !table.columns[*i].invisible).collect()
    } else {
        listed_columns(&table, &insert.columns)?
    };
    let InsertSource::Values(source) = &insert.source else { return Err(unsupported("INSERT ... SELECT")) };
    let mut rows = Vec::with_capacity(source.len());
    for (i, row) in source.iter().enumerate() {
        // `VALUES ()` is a row of defaults.
        if row.is_empty() && insert.columns.is_empty() {
            rows.push(vec![NewValue::Default; columns.len()]);
            continue;
        }
        if row.len() != columns.len() {
            return Err(error(1136, format!("Column count doesn't match value count at row {}", i + 1)));
        }
        let mut binder = Binder::new(&scope, cx.session).with_collation(cx.collation);
        rows.push(row.iter().map(|e| new_value(e, &mut binder)).collect::<Result<_>>()?);
    }
    scope.with_inserted = true;
    scope.row_alias.clone_from(&insert.row_alias);
    let on_duplicate = assignments(&insert.on_duplicate, &scope, cx)?;
    Ok(InsertPlan { table, replace: insert.replace, ignore: insert.ignore, columns, rows, on_duplicate })
}

/// 1054, 1110.
fn listed_columns(table: &Table, names: &[String]) -> Result<Vec<usize>> {
    let mut out = Vec::with_capacity(names.len());
    for name in names {
        let at = table.column(name).ok_or_else(|| crate::errmap::unknown_column(name, "field list"))?;
        if out.contains(&at) {
            return Err(error(1110, format!("Column '{name}' specified twice")));
        }
        out.push(at);
    }
    Ok(out)
}

fn new_value(e: &Ast, binder: &mut Binder<'_>) -> Result<NewValue> {
    match e {
        Ast::Default(None) => Ok(NewValue::Default),
        e => binder.bind(e).map(NewValue::Expr),
    }
}

fn assignments(list: &[Assignment], scope: &TableScope, cx: &PlanContext<'_>) -> Result<Vec<(usize, NewValue)>> {
    let mut binder = Binder::new(scope, cx.session).with_collation(cx.collation);
    let mut out = Vec::with_capacity(list.len());
    for assignment in list {
        let at = scope.ordinal(&assignment.column, "field list")?;
        out.push((at, new_value(&assignment.value, &mut binder)?));
    }
    Ok(out)
}

fn writable(name: &ObjectName, cx: &PlanContext<'_>) -> Result<Arc<Table>> {
    let database = name.database.as_deref().or(cx.database).ok_or_else(crate::errmap::no_database)?;
    if database.eq_ignore_ascii_case(schema::DATABASE) {
        return Err(error(1044, "Access denied for this user to database 'information_schema'"));
    }
    cx.table(name)
}

/// Plans UPDATE of one table.
pub fn update(update: &Update, safe: bool, cx: &PlanContext<'_>) -> Result<UpdatePlan> {
    let (name, alias, hints) = cx.single(&update.tables)?;
    let table = writable(name, cx)?;
    let scope = table_scope(&table, alias);
    let assignments = assignments(&update.assignments, &scope, cx)?;
    let changed =
        Changed { filter: update.filter.as_ref(), order: &update.order_by, limit: update.limit.as_ref(), hints };
    let (source, order, limit) = changed.plan(table, &scope, safe, cx)?;
    Ok(UpdatePlan { source, ignore: update.ignore, assignments, order, limit })
}

/// Plans DELETE from one table.
pub fn delete(delete: &Delete, safe: bool, cx: &PlanContext<'_>) -> Result<DeletePlan> {
    if !delete.targets.is_empty() {
        return Err(unsupported("DELETE from several tables"));
    }
    let (name, alias, hints) = cx.single(&delete.from)?;
    let table = writable(name, cx)?;
    let scope = table_scope(&table, alias);
    let changed =
        Changed { filter: delete.filter.as_ref(), order: &delete.order_by, limit: delete.limit.as_ref(), hints };
    let (source, order, limit) = changed.plan(table, &scope, safe, cx)?;
    Ok(DeletePlan { source, order, limit })
}

/// Which rows an UPDATE or DELETE changes, and in what order.
struct Changed<'a> {
    filter: Option<&'a Ast>,
    order: &'a [OrderItem],
    limit: Option<&'a Limit>,
    hints: &'a [IndexHint],
}

type Planned = (super::TableSource, Vec<(Expr, bool)>, Option<Expr>);

impl Changed<'_> {
    fn plan(&self, table: Arc<Table>, scope: &TableScope, safe: bool, cx: &PlanContext<'_>) -> Result<Planned> {
        let mut binder = Binder::new(scope, cx.session).with_collation(cx.collation);
        let filter = self.filter.map(|e| binder.clause("where clause").bind(e)).transpose()?;
        let mut order = Vec::new();
        for item in self.order {
            order.push((binder.clause("order clause").bind(&item.expr)?, item.descending));
        }
        let limit = self.limit.map(|l| binder.clause("limit clause").bind(&l.count)).transpose()?;
        let wanted_order = order_columns(&order).filter(|o| !o.is_empty());
        let wanted = Wanted {
            order: wanted_order.as_deref(),
            limited: limit.is_some(),
            needed: &[],
            hints: self.hints,
            for_change: true,
        };
        let source = table_source(table, scope.table.clone(), filter, &wanted);
        let access = &source.access;
        if safe && limit.is_none() && access.fixed.is_empty() && access.ranges.is_empty() {
            return Err(error(
                1175,
                "You are using safe update mode and you tried to update a table without a WHERE that uses a KEY column. ",
            ));
        }
        if access.ordered {
            order.clear();
        }
        Ok((source, order, limit))
    }
}
