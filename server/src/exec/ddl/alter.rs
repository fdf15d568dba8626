//! ALTER TABLE. What changes only the definition is one catalog commit; new indexes are built; what would rewrite the
//! rows is not supported yet and says so.

use super::{create, index, resolve};
use crate::{
    catalog::{Edit, State as CatalogState, Table, metadata_key, stored_column},
    errmap::{error, unsupported},
    session::state::State,
    sql::ast::{AlterAction, ColumnPlace, IndexKind, ObjectName, TableOption},
    wire::result::SqlError,
};

type Result<T> = std::result::Result<T, SqlError>;

/// Runs the actions in order. Each is atomic by itself; several in one statement are not.
pub async fn run(name: &ObjectName, actions: &[AlterAction], state: &State) -> Result<()> {
    let (database, table) = resolve(name, state)?;
    refuse(actions)?;
    // Unknown tables are an error even for an ALTER without effect.
    state.shared.catalog.settled_state().await?.table(&database, &table)?;
    for action in actions {
        one(&database, &table, action, state).await?;
    }
    Ok(())
}

/// Refuses the whole statement before any part of it is done.
fn refuse(actions: &[AlterAction]) -> Result<()> {
    let effective = actions.iter().filter(|a| !matches!(a, AlterAction::Hint)).count();
    for action in actions {
        match action {
            AlterAction::DropColumn(_) => return Err(unsupported("ALTER TABLE ... DROP COLUMN")),
            AlterAction::ChangeColumn { .. } => return Err(unsupported("ALTER TABLE ... MODIFY or CHANGE COLUMN")),
            AlterAction::AddForeignKey(_) | AlterAction::DropForeignKey(_) => return Err(unsupported("FOREIGN KEY")),
            AlterAction::AddCheck(_) | AlterAction::DropConstraint(_) => return Err(unsupported("CHECK constraints")),
            AlterAction::DropPrimaryKey => return Err(unsupported("ALTER TABLE ... DROP PRIMARY KEY")),
            AlterAction::ConvertCharset { .. } => return Err(unsupported("ALTER TABLE ... CONVERT TO CHARACTER SET")),
            AlterAction::AddIndex(def) if def.kind == IndexKind::Primary => {
                return Err(unsupported("ALTER TABLE ... ADD PRIMARY KEY"));
            }
            AlterAction::AddColumn { place, .. } if *place != ColumnPlace::Keep => {
                return Err(unsupported("ADD COLUMN ... FIRST or AFTER"));
            }
            AlterAction::RenameTable(_) if effective > 1 => return Err(unsupported("RENAME with other ALTER actions")),
            AlterAction::Unsupported(what) => return Err(unsupported(what)),
            _ => {}
        }
    }
    Ok(())
}

async fn one(database: &str, name: &str, action: &AlterAction, state: &State) -> Result<()> {
    let settings = state.settings();
    match action {
        AlterAction::AddIndex(def) => {
            let known = state.shared.catalog.settled_state().await?;
            let table = known.table(database, name)?;
            if index::is_building(table) {
                return Err(unsupported("two index builds of one table at a time"));
            }
            let mut new = create::index(def, table.next_index, &table.columns, &stored_indexes(table))?;
            new.building = true;
            index::add(database, name, new, state).await
        }
        AlterAction::DropIndex(index) if index.eq_ignore_ascii_case("PRIMARY") => {
            Err(unsupported("ALTER TABLE ... DROP PRIMARY KEY"))
        }
        AlterAction::DropIndex(index) => {
            let known = state.shared.catalog.settled_state().await?;
            check_auto_keeps_key(known.table(database, name)?, index)?;
            state.shared.catalog.clean_up().await?;
            index::remove(&state.shared.catalog, database, name, index, settings.metadata_wait).await
        }
        AlterAction::AddColumn { column, indexes, .. } => {
            if column.auto_increment {
                return Err(unsupported("ADD COLUMN ... AUTO_INCREMENT"));
            }
            add_column(database, name, column, state).await?;
            for def in indexes {
                Box::pin(one(database, name, &AlterAction::AddIndex(def.clone()), state)).await?;
            }
            Ok(())
        }
        AlterAction::RenameTable(to) => rename_table(database, name, to, state).await,
        AlterAction::Keys { .. } | AlterAction::Hint | AlterAction::Force => Ok(()),
        other => edit(database, name, other, state).await,
    }
}

fn stored_indexes(table: &Table) -> Vec<crate::catalog::StoredIndex> {
    let stored = |i: &crate::catalog::Index| crate::catalog::StoredIndex {
        id: i.id,
        name: i.name.clone(),
        unique: i.unique,
        parts: Vec::new(),
        building: false,
        comment: String::new(),
        invisible: false,
    };
    table.indexes.iter().map(stored).collect()
}

/// 1075: the AUTO_INCREMENT column must stay first in some key.
fn check_auto_keeps_key(table: &Table, dropped: &str) -> Result<()> {
    let Some(auto) = table.auto_increment else { return Ok(()) };
    let mut rest = table.all_indexes().filter(|i| !i.name.eq_ignore_ascii_case(dropped));
    match rest.any(|i| i.parts.first().is_some_and(|p| p.column == auto)) {
        true => Ok(()),
        false => Err(error(
            1075,
            "Incorrect table definition; there can be only one auto column and it must be defined as a key",
        )),
    }
}

/// ADD COLUMN at the end: rows keep their bytes, and the column's default stands in for them.
async fn add_column(database: &str, name: &str, def: &crate::sql::ast::ColumnDef, state: &State) -> Result<()> {
    let catalog = &state.shared.catalog;
    let settings = state.settings();
    let txn = catalog.begin_change(&[metadata_key(database, name)], settings.metadata_wait).await?;
    let cx = state.context(&[], &settings);
    let eval = crate::session::default_evaluator(state, &settings);
    let plan = |s: &CatalogState| {
        let table = s.table(database, name)?;
        if table.column(&def.name).is_some() {
            return Err(error(1060, format!("Duplicate column name '{}'", def.name)));
        }
        let mut column = create::column(def, false, table.collation, &eval)?;
        let lenient = crate::sql::context::Context { strict_data: false, ..cx };
        column.instant = crate::exec::assign::default_value(&column, &lenient)?;
        let stored = stored_column(&column).map_err(|e| error(1067, e))?;
        let next = catalog.altered(table, |t| t.table.columns.push(stored))?;
        Ok(vec![Edit::PutTable(Box::new(next))])
    };
    catalog.commit_change(txn, plan).await.map(|_| ())
}

async fn rename_table(database: &str, name: &str, to: &ObjectName, state: &State) -> Result<()> {
    let (to_database, to_name) = resolve(to, state)?;
    create::check_name(&to_name)?;
    let catalog = &state.shared.catalog;
    let keys = [metadata_key(database, name), metadata_key(&to_database, &to_name)];
    let txn = catalog.begin_change(&keys, state.settings().metadata_wait).await?;
    let plan = |s: &CatalogState| {
        let table = s.table(database, name)?;
        let target = s.databases.get(&to_database).ok_or_else(|| crate::errmap::unknown_database(&to_database))?;
        if target.tables.contains_key(&to_name) {
            return Err(error(1050, format!("Table '{to_name}' already exists")));
        }
        let next = catalog.altered(table, |t| {
            t.database.clone_from(&to_database);
            t.name.clone_from(&to_name);
        })?;
        Ok(vec![Edit::RemoveTable(table.clone()), Edit::PutTable(Box::new(next))])
    };
    catalog.commit_change(txn, plan).await.map(|_| ())
}

/// Actions that change the definition only.
async fn edit(database: &str, name: &str, action: &AlterAction, state: &State) -> Result<()> {
    let catalog = &state.shared.catalog;
    let settings = state.settings();
    let txn = catalog.begin_change(&[metadata_key(database, name)], settings.metadata_wait).await?;
    let eval = crate::session::default_evaluator(state, &settings);
    let plan = |s: &CatalogState| {
        let table = s.table(database, name)?;
        let next = match action {
            AlterAction::RenameColumn { old, new } => {
                let at = column_at(table, old)?;
                if table.column(new).is_some_and(|other| other != at) {
                    return Err(error(1060, format!("Duplicate column name '{new}'")));
                }
                create::check_name(new)?;
                catalog.altered(table, |t| t.table.columns[at].name.clone_from(new))?
            }
            AlterAction::RenameIndex { old, new } => {
                let unknown = || error(1176, format!("Key '{old}' doesn't exist in table '{name}'"));
                let found = table.indexes.iter().find(|i| i.name.eq_ignore_ascii_case(old)).ok_or_else(unknown)?;
                if table.index(new).is_some_and(|other| other.id != found.id) {
                    return Err(error(1061, format!("Duplicate key name '{new}'")));
                }
                create::check_name(new)?;
                let id = found.id;
                catalog.altered(table, |t| {
                    for i in t.table.indexes.iter_mut().filter(|i| i.id == id) {
                        i.name.clone_from(new);
                    }
                })?
            }
            AlterAction::SetDefault { column, default } => {
                let at = column_at(table, column)?;
                let mut changed = table.columns[at].clone();
                changed.default = match default {
                    None => crate::catalog::ColumnDefault::None,
                    Some(e) => create::checked_default(&changed, e, &eval)?,
                };
                let stored = stored_column(&changed).map_err(|e| error(1067, e))?;
                catalog.altered(table, |t| t.table.columns[at] = stored)?
            }
            AlterAction::Options(options) => set_options(table, options, catalog)?,
            _ => return Err(unsupported("this ALTER TABLE")),
        };
        Ok(vec![Edit::PutTable(Box::new(next))])
    };
    let next = catalog.commit_change(txn, plan).await?;
    // AUTO_INCREMENT = n moves a running counter up, never down.
    let table = next.table(database, name)?;
    if table.auto_start > 0 && table.counters.auto_started() {
        table.counters.raise_auto(table.auto_start);
    }
    Ok(())
}

fn column_at(table: &Table, name: &str) -> Result<usize> {
    let unknown = || error(1054, format!("Unknown column '{name}' in '{}'", table.name));
    table.column(name).ok_or_else(unknown)
}

fn set_options(table: &Table, options: &[TableOption], catalog: &crate::catalog::Catalog) -> Result<Table> {
    let mut out =
        create::Options { collation: table.collation, comment: table.comment.clone(), auto_start: table.auto_start };
    create::apply_options(options, &mut out)?;
    catalog.altered(table, |t| {
        t.table.collation = out.collation.id();
        t.table.comment = out.comment;
        t.table.auto_start = out.auto_start;
    })
}
