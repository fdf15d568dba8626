//! Runs schema changes. Each is one engine transaction under exclusive metadata locks; see [`crate::catalog`].

use std::sync::Arc;

use self::create::qualified;
use crate::{
    catalog::{Catalog, Edit, State as CatalogState, Table, metadata_key},
    errmap::{error, unknown_database, unsupported},
    session::state::{Level, State, now_micros},
    sql::ast::{AlterAction, CreateTable, Ddl, ObjectName, TableOption},
    wire::result::SqlError,
};

pub mod alter;
pub mod create;
pub mod index;

type Result<T> = std::result::Result<T, SqlError>;

/// Runs one schema change. The session's transaction has been committed.
pub async fn run(change: &Ddl, state: &State) -> Result<()> {
    match change {
        Ddl::CreateDatabase { name, if_not_exists, options } => {
            create_database(name, *if_not_exists, options, state).await
        }
        Ddl::DropDatabase { name, if_exists } => drop_database(name, *if_exists, state).await,
        Ddl::AlterDatabase { name, options } => alter_database(name.as_deref(), options, state).await,
        Ddl::CreateTable(create) => create_table(create, state).await,
        Ddl::CreateTableLike { name, like, if_not_exists, temporary } => {
            if *temporary {
                return Err(unsupported("CREATE TEMPORARY TABLE"));
            }
            create_like(name, like, *if_not_exists, state).await
        }
        Ddl::DropTable { names, if_exists, temporary } => drop_tables(names, *if_exists, *temporary, state).await,
        Ddl::DropView { names, if_exists } => drop_views(names, *if_exists, state),
        Ddl::AlterTable { name, actions } => alter::run(name, actions, state).await,
        Ddl::CreateIndex { table, index } => alter::run(table, &[AlterAction::AddIndex(index.clone())], state).await,
        Ddl::DropIndex { table, name } => alter::run(table, &[AlterAction::DropIndex(name.clone())], state).await,
        Ddl::RenameTable(pairs) => rename(pairs, state).await,
    }
}

/// Names a table with the session's database: 1046, 1044 for information_schema.
pub fn resolve(name: &ObjectName, state: &State) -> Result<(String, String)> {
    let current = state.current_database();
    let (database, table) = qualified(name, current.as_deref())?;
    refuse_virtual(database)?;
    Ok((database.to_owned(), table.to_owned()))
}

fn refuse_virtual(database: &str) -> Result<()> {
    match database.eq_ignore_ascii_case(super::schema::DATABASE) {
        true => Err(error(1044, "Access denied for this user to database 'information_schema'")),
        false => Ok(()),
    }
}

fn database_options(
    options: &[TableOption],
    default: crate::sql::collation::Collation,
) -> Result<crate::sql::collation::Collation> {
    let mut out = create::Options { collation: default, comment: String::new(), auto_start: 0 };
    create::apply_options(options, &mut out)?;
    Ok(out.collation)
}

async fn create_database(name: &str, if_not_exists: bool, options: &[TableOption], state: &State) -> Result<()> {
    create::check_name(name)?;
    refuse_virtual(name)?;
    let collation = database_options(options, Default::default())?;
    let catalog = &state.shared.catalog;
    let txn = catalog.begin_change(&[metadata_key(name, "")], state.settings().metadata_wait).await?;
    let exists = |s: &CatalogState| s.databases.contains_key(name);
    let mut existed = false;
    catalog
        .commit_change(txn, |s| {
            existed = exists(s);
            match existed {
                false => Ok(vec![Edit::PutDatabase(name.to_owned(), collation)]),
                true if if_not_exists => Ok(Vec::new()),
                true => Err(error(1007, format!("Can't create database '{name}'; database exists"))),
            }
        })
        .await?;
    if existed {
        state.diagnose(Level::Note, 1007, format!("Can't create database '{name}'; database exists"));
    }
    Ok(())
}

async fn alter_database(name: Option<&str>, options: &[TableOption], state: &State) -> Result<()> {
    let current = state.current_database();
    let name = name.or(current.as_deref()).ok_or_else(crate::errmap::no_database)?.to_owned();
    refuse_virtual(&name)?;
    let catalog = &state.shared.catalog;
    let txn = catalog.begin_change(&[metadata_key(&name, "")], state.settings().metadata_wait).await?;
    let plan = |s: &CatalogState| {
        let db = s.databases.get(&name).ok_or_else(|| unknown_database(&name))?;
        Ok(vec![Edit::PutDatabase(name.clone(), database_options(options, db.collation)?)])
    };
    catalog.commit_change(txn, plan).await.map(|_| ())
}

async fn drop_database(name: &str, if_exists: bool, state: &State) -> Result<()> {
    refuse_virtual(name)?;
    let catalog = &state.shared.catalog;
    let known = catalog.settled_state().await?;
    let Some(db) = known.databases.get(name) else {
        let message = format!("Can't drop database '{name}'; database doesn't exist");
        if if_exists {
            state.diagnose(Level::Note, 1008, message);
            return Ok(());
        }
        return Err(error(1008, message));
    };
    let mut keys = vec![metadata_key(name, "")];
    keys.extend(db.tables.values().map(|t| t.lock_key.clone()));
    let before: Vec<Arc<Table>> = db.tables.values().cloned().collect();
    let txn = catalog.begin_change(&keys, state.settings().metadata_wait).await?;
    let plan = |s: &CatalogState| {
        let db = s.databases.get(name).ok_or_else(|| unknown_database(name))?;
        let same = db.tables.len() == before.len() && db.tables.values().zip(&before).all(|(a, b)| a.id == b.id);
        if !same {
            return Err(error(1412, "Table definition has changed, please retry transaction"));
        }
        let mut edits: Vec<Edit> = db.tables.values().flat_map(drop_edits).collect();
        edits.push(Edit::DropDatabase(name.to_owned()));
        Ok(edits)
    };
    catalog.commit_change(txn, plan).await?;
    if state.current_database().as_deref() == Some(name) {
        state.set_database(None);
    }
    Ok(())
}

fn drop_edits(table: &Arc<Table>) -> [Edit; 2] {
    let (start, end) = table.key_range();
    [Edit::RemoveTable(table.clone()), Edit::DropRows(start, end)]
}

async fn create_table(create: &CreateTable, state: &State) -> Result<()> {
    let (database, name) = resolve(&create.name, state)?;
    let catalog = &state.shared.catalog;
    let settings = state.settings();
    let eval = crate::session::default_evaluator(state, &settings);
    let plan = |s: &CatalogState| {
        let db = s.databases.get(&database).ok_or_else(|| unknown_database(&database))?;
        if db.tables.contains_key(&name) {
            return Ok(None);
        }
        let definition = create::definition(create, db.collation, now_micros(), &eval)?;
        crate::catalog::new_table(&database, &name, &definition).map(Some)
    };
    put_new(&database, &name, create.if_not_exists, state, catalog, plan).await
}

async fn create_like(name: &ObjectName, like: &ObjectName, if_not_exists: bool, state: &State) -> Result<()> {
    let (database, name) = resolve(name, state)?;
    let (like_database, like_name) = resolve(like, state)?;
    let catalog = &state.shared.catalog;
    let plan = |s: &CatalogState| {
        let model = s.table(&like_database, &like_name)?;
        let db = s.databases.get(&database).ok_or_else(|| unknown_database(&database))?;
        if db.tables.contains_key(&name) {
            return Ok(None);
        }
        catalog.copy_definition(model, &database, &name, now_micros()).map(Some)
    };
    put_new(&database, &name, if_not_exists, state, catalog, plan).await
}

/// Commits a new table; `plan` gives `None` if the name is taken.
async fn put_new(
    database: &str,
    name: &str,
    if_not_exists: bool,
    state: &State,
    catalog: &Catalog,
    plan: impl FnOnce(&CatalogState) -> Result<Option<Table>>,
) -> Result<()> {
    let txn = catalog.begin_change(&[metadata_key(database, name)], state.settings().metadata_wait).await?;
    let message = format!("Table '{name}' already exists");
    let mut existed = false;
    catalog
        .commit_change(txn, |s| match plan(s)? {
            Some(table) => Ok(vec![Edit::PutTable(Box::new(table))]),
            None if if_not_exists => {
                existed = true;
                Ok(Vec::new())
            }
            None => Err(error(1050, message.clone())),
        })
        .await?;
    if existed {
        state.diagnose(Level::Note, 1050, message);
    }
    Ok(())
}

async fn drop_tables(names: &[ObjectName], if_exists: bool, temporary: bool, state: &State) -> Result<()> {
    let catalog = &state.shared.catalog;
    let names: Vec<(String, String)> = names.iter().map(|n| resolve(n, state)).collect::<Result<_>>()?;
    // No temporary table exists, so there is nothing that DROP TEMPORARY could name.
    let listed =
        |s: &CatalogState, (d, t): &(String, String)| if temporary { None } else { s.table(d, t).ok().cloned() };
    let keys: Vec<_> = names.iter().map(|(d, t)| metadata_key(d, t)).collect();
    let txn = catalog.begin_change(&keys, state.settings().metadata_wait).await?;
    let mut missing = Vec::new();
    let plan = |s: &CatalogState| {
        let mut edits = Vec::new();
        for name in &names {
            match listed(s, name) {
                Some(table) => edits.extend(drop_edits(&table)),
                None => missing.push(format!("{}.{}", name.0, name.1)),
            }
        }
        match missing.is_empty() || if_exists {
            true => Ok(edits),
            false => Err(error(1051, format!("Unknown table '{}'", missing.join(",")))),
        }
    };
    catalog.commit_change(txn, plan).await?;
    for name in missing {
        state.diagnose(Level::Note, 1051, format!("Unknown table '{name}'"));
    }
    Ok(())
}

/// There are no views: DROP VIEW finds none.
fn drop_views(names: &[ObjectName], if_exists: bool, state: &State) -> Result<()> {
    for name in names {
        let (database, view) = resolve(name, state)?;
        let message = format!("Unknown table '{database}.{view}'");
        if !if_exists {
            return Err(error(1051, message));
        }
        state.diagnose(Level::Note, 1051, message);
    }
    Ok(())
}

/// TRUNCATE: one range delete, and the counter starts anew.
pub async fn truncate(name: &ObjectName, state: &State) -> Result<()> {
    let (database, name) = resolve(name, state)?;
    let catalog = &state.shared.catalog;
    let txn = catalog.begin_change(&[metadata_key(&database, &name)], state.settings().metadata_wait).await?;
    let plan = |s: &CatalogState| {
        let table = s.table(&database, &name)?;
        let (start, end) = table.key_range();
        let next = catalog.altered(table, |t| t.table.auto_start = 0)?;
        Ok(vec![Edit::DropRows(start, end), Edit::PutTable(Box::new(next))])
    };
    let next = catalog.commit_change(txn, plan).await?;
    if let Ok(table) = next.table(&database, &name) {
        table.counters.reset(1);
    }
    Ok(())
}

async fn rename(pairs: &[(ObjectName, ObjectName)], state: &State) -> Result<()> {
    let [(from, to)] = pairs else { return Err(unsupported("RENAME of several tables at once")) };
    alter::run(from, &[AlterAction::RenameTable(to.clone())], state).await
}

/// Removes half-built indexes that a crash left. Runs before sessions are served.
pub async fn clean_up(catalog: &Catalog) -> Result<()> {
    let state = catalog.state();
    for table in state.databases.values().flat_map(|d| d.tables.values()) {
        for index in table.indexes.iter().filter(|i| i.state == crate::catalog::IndexState::Building) {
            index::remove(catalog, &table.database, &table.name, &index.name, std::time::Duration::from_secs(60))
                .await?;
        }
    }
    Ok(())
}
