//! Runs SHOW, DESCRIBE and table maintenance: small tables made from the catalog, the session and the engine.

use super::schema::{self, VirtualTable};
use crate::{
    catalog::Table as StoredTable,
    errmap::{error, unknown_database, unsupported},
    session::state::{Level, State},
    sql::{
        ast::{MaintainVerb, ObjectName, Show, ShowFilter, ShowKind},
        bind::Binder,
        collation::Collation,
        context::{Context, SessionInfo},
        like,
        plan::{
            result_column,
            scope::{ScopeColumn, TableScope},
        },
        types::DataType,
        value::Value,
    },
    variables::{self, Scope},
    wire::result::{Column, SqlError},
};

mod create;
pub mod outcome;
mod replica;
mod status;

type Result<T> = std::result::Result<T, SqlError>;

/// A finished result.
#[derive(Debug)]
pub struct Table {
    names: Vec<String>,
    pub columns: Vec<Column>,
    pub rows: Vec<Vec<Value>>,
}

impl Table {
    /// Column types follow the values: numbers where every value is one, text otherwise.
    pub fn new(names: &[&str], rows: Vec<Vec<Value>>) -> Self {
        let columns = names.iter().enumerate().map(|(i, name)| {
            let mut values = rows.iter().map(|r| r.get(i).unwrap_or(&Value::Null)).filter(|v| !v.is_null());
            let ty = match values.next() {
                Some(Value::Int(_)) => DataType::BIGINT,
                Some(Value::UInt(_)) => DataType::UBIGINT,
                Some(Value::Double(_)) => DataType::DOUBLE,
                Some(Value::DateTime(_)) => DataType::datetime(0),
                _ => DataType::varchar(256, Collation::default()),
            };
            result_column(name, &ty, true)
        });
        Self { columns: columns.collect(), names: names.iter().map(|n| (*n).to_owned()).collect(), rows }
    }

    /// Keeps some columns of a virtual table, under other names.
    fn pick(table: VirtualTable, pairs: &[(&str, &str)], rows: Vec<Vec<Value>>) -> Self {
        let at: Vec<usize> = pairs.iter().filter_map(|(column, _)| table.ordinal(column)).collect();
        let rows = rows.into_iter().map(|row| at.iter().map(|i| row[*i].clone()).collect()).collect();
        let names: Vec<&str> = pairs.iter().map(|(_, name)| *name).collect();
        Self::new(&names, rows)
    }

    /// LIKE on the first column (or the one given), WHERE on all.
    fn filtered(mut self, filter: Option<&ShowFilter>, like_on: usize, state: &State) -> Result<Self> {
        let settings = state.settings();
        let cx = state.context(&[], &settings);
        match filter {
            None => {}
            Some(ShowFilter::Like(pattern)) => self.rows.retain(|row| {
                let text = row.get(like_on).and_then(Value::as_bytes).unwrap_or_default();
                like::matches(text, pattern.as_bytes(), b'\\', Collation::default())
            }),
            Some(ShowFilter::Where(e)) => {
                let ty = DataType::varchar(256, Collation::default());
                let columns = self.names.iter().map(|n| ScopeColumn { name: n.clone(), ty, nullable: true }).collect();
                let scope = TableScope { columns, ..TableScope::default() };
                let bound = Binder::new(&scope, state).clause("where clause").bind(e)?;
                let mut kept = Vec::new();
                for row in self.rows {
                    if bound.matches(&row, &cx)? {
                        kept.push(row);
                    }
                }
                self.rows = kept;
            }
        }
        Ok(self)
    }
}

/// Runs a SHOW.
pub async fn show(show: &Show, state: &State) -> Result<Table> {
    // SHOW of tables must see a schema change that has just committed.
    state.shared.catalog.settled_state().await?;
    let settings = state.settings();
    let cx = state.context(&[], &settings);
    let table = match &show.what {
        ShowKind::Databases => databases(state),
        ShowKind::Tables { full, database } => {
            let database = database_or_current(database.as_deref(), state)?;
            tables(&database, *full, show.filter.as_ref(), state)?
        }
        ShowKind::TableStatus { database } => table_status(&database_or_current(database.as_deref(), state)?, state)?,
        ShowKind::Columns { full, table } => columns(table, *full, state)?,
        ShowKind::Index { table } => index(table, state)?,
        ShowKind::CreateTable(name) => return create::table(name, state),
        ShowKind::CreateDatabase { name, if_not_exists } => return create::database(name, *if_not_exists, state),
        ShowKind::Variables { global } => variables(*global, state),
        ShowKind::Status { global } => status::status(*global, state),
        ShowKind::Warnings { limit } => diagnostics(false, limit.as_ref(), &cx, state)?,
        ShowKind::Errors { limit } => diagnostics(true, limit.as_ref(), &cx, state)?,
        ShowKind::CountWarnings { errors } => {
            let count = state.diagnostics().iter().filter(|d| !errors || d.level == Level::Error).count();
            let name = if *errors { "@@session.error_count" } else { "@@session.warning_count" };
            Table::new(&[name], vec![vec![Value::UInt(count as u64)]])
        }
        ShowKind::ProcessList { full } => process_list(*full, state)?,
        ShowKind::ReplicaStatus => replica::status(state)?,
        ShowKind::TransactionOutcome(id) => outcome::outcome(id, state).await?,
        ShowKind::Engines => {
            let pairs = [
                ("ENGINE", "Engine"),
                ("SUPPORT", "Support"),
                ("COMMENT", "Comment"),
                ("TRANSACTIONS", "Transactions"),
                ("XA", "XA"),
                ("SAVEPOINTS", "Savepoints"),
            ];
            Table::pick(VirtualTable::Engines, &pairs, schema::rows(VirtualTable::Engines, state)?)
        }
        ShowKind::Collation => {
            let pairs = [
                ("COLLATION_NAME", "Collation"),
                ("CHARACTER_SET_NAME", "Charset"),
                ("ID", "Id"),
                ("IS_DEFAULT", "Default"),
                ("IS_COMPILED", "Compiled"),
                ("SORTLEN", "Sortlen"),
                ("PAD_ATTRIBUTE", "Pad_attribute"),
            ];
            Table::pick(VirtualTable::Collations, &pairs, schema::rows(VirtualTable::Collations, state)?)
        }
        ShowKind::CharacterSet => {
            let pairs = [
                ("CHARACTER_SET_NAME", "Charset"),
                ("DESCRIPTION", "Description"),
                ("DEFAULT_COLLATE_NAME", "Default collation"),
                ("MAXLEN", "Maxlen"),
            ];
            Table::pick(VirtualTable::CharacterSets, &pairs, schema::rows(VirtualTable::CharacterSets, state)?)
        }
        ShowKind::Plugins => {
            let pairs = [
                ("PLUGIN_NAME", "Name"),
                ("PLUGIN_STATUS", "Status"),
                ("PLUGIN_TYPE", "Type"),
                ("PLUGIN_LIBRARY", "Library"),
                ("PLUGIN_LICENSE", "License"),
            ];
            Table::pick(VirtualTable::Plugins, &pairs, schema::rows(VirtualTable::Plugins, state)?)
        }
        ShowKind::Grants { user } => grants(user.as_ref(), state)?,
        other => nothing(other)?,
    };
    table.filtered(show.filter.as_ref(), 0, state)
}

/// SHOW of objects that do not exist in this server: the table is empty. Anything else is 1235.
fn nothing(what: &ShowKind) -> Result<Table> {
    let names: &[&str] = match what {
        ShowKind::Triggers { .. } => &[
            "Trigger",
            "Event",
            "Table",
            "Statement",
            "Timing",
            "Created",
            "sql_mode",
            "Definer",
            "character_set_client",
            "collation_connection",
            "Database Collation",
        ],
        ShowKind::Events { .. } => &[
            "Db",
            "Name",
            "Definer",
            "Time zone",
            "Type",
            "Execute at",
            "Interval value",
            "Interval field",
            "Starts",
            "Ends",
            "Status",
            "Originator",
            "character_set_client",
            "collation_connection",
            "Database Collation",
        ],
        ShowKind::Routines { .. } => &[
            "Db",
            "Name",
            "Type",
            "Definer",
            "Modified",
            "Created",
            "Security_type",
            "Comment",
            "character_set_client",
            "collation_connection",
            "Database Collation",
        ],
        ShowKind::OpenTables { .. } => &["Database", "Table", "In_use", "Name_locked"],
        ShowKind::MasterStatus | ShowKind::BinaryLogs => {
            return Err(error(1381, "You are not using binary logging"));
        }
        ShowKind::EngineStatus(name) => return Err(unsupported(format!("SHOW ENGINE {name} STATUS"))),
        ShowKind::Privileges => return Err(unsupported("SHOW PRIVILEGES")),
        ShowKind::Profiles => return Err(unsupported("SHOW PROFILES")),
        ShowKind::Other(what) => return Err(unsupported(format!("SHOW {what}"))),
        _ => return Err(unsupported("this SHOW")),
    };
    Ok(Table::new(names, Vec::new()))
}

fn database_or_current(given: Option<&str>, state: &State) -> Result<String> {
    let current = state.current_database();
    let name = given.or(current.as_deref()).ok_or_else(crate::errmap::no_database)?;
    let known =
        name.eq_ignore_ascii_case(schema::DATABASE) || state.shared.catalog.state().databases.contains_key(name);
    if known { Ok(name.to_owned()) } else { Err(unknown_database(name)) }
}

fn databases(state: &State) -> Table {
    let catalog = state.shared.catalog.state();
    let mut names: Vec<&str> = catalog.databases.keys().map(String::as_str).collect();
    names.push(schema::DATABASE);
    names.sort_unstable();
    Table::new(&["Database"], names.into_iter().map(|n| vec![n.into()]).collect())
}

fn tables(database: &str, full: bool, filter: Option<&ShowFilter>, state: &State) -> Result<Table> {
    let catalog = state.shared.catalog.state();
    let mut title = format!("Tables_in_{database}");
    if let Some(ShowFilter::Like(pattern)) = filter {
        title.push_str(&format!(" ({pattern})"));
    }
    let (names, kind): (Vec<String>, &str) = match catalog.databases.get(database) {
        Some(db) => (db.tables.keys().cloned().collect(), "BASE TABLE"),
        None => (VirtualTable::all().iter().map(|t| t.name().to_owned()).collect(), "SYSTEM VIEW"),
    };
    let rows = names.into_iter().map(|n| {
        let mut row = vec![Value::str(n)];
        row.extend(full.then(|| Value::from(kind)));
        row
    });
    let header = [title.as_str(), "Table_type"];
    Ok(Table::new(&header[..if full { 2 } else { 1 }], rows.collect()))
}

fn table_status(database: &str, state: &State) -> Result<Table> {
    let at = VirtualTable::Tables.ordinal("TABLE_SCHEMA").unwrap_or(1);
    let rows = schema::rows(VirtualTable::Tables, state)?;
    let rows = rows.into_iter().filter(|r| r[at].as_bytes() == Some(database.as_bytes())).collect();
    let pairs = [
        ("TABLE_NAME", "Name"),
        ("ENGINE", "Engine"),
        ("VERSION", "Version"),
        ("ROW_FORMAT", "Row_format"),
        ("TABLE_ROWS", "Rows"),
        ("AVG_ROW_LENGTH", "Avg_row_length"),
        ("DATA_LENGTH", "Data_length"),
        ("MAX_DATA_LENGTH", "Max_data_length"),
        ("INDEX_LENGTH", "Index_length"),
        ("DATA_FREE", "Data_free"),
        ("AUTO_INCREMENT", "Auto_increment"),
        ("CREATE_TIME", "Create_time"),
        ("UPDATE_TIME", "Update_time"),
        ("CHECK_TIME", "Check_time"),
        ("TABLE_COLLATION", "Collation"),
        ("CHECKSUM", "Checksum"),
        ("CREATE_OPTIONS", "Create_options"),
        ("TABLE_COMMENT", "Comment"),
    ];
    Ok(Table::pick(VirtualTable::Tables, &pairs, rows))
}

/// Rows of an information_schema table that belong to one stored or virtual table: 1146.
fn rows_of(from: VirtualTable, table: &ObjectName, state: &State) -> Result<Vec<Vec<Value>>> {
    let database = database_or_current(table.database.as_deref(), state)?;
    let mut name = table.name.clone();
    if database.eq_ignore_ascii_case(schema::DATABASE) {
        name = VirtualTable::find(&table.name)?.name().to_owned();
    } else {
        state.shared.catalog.state().table(&database, &name)?;
    }
    let (d, t) = (from.ordinal("TABLE_SCHEMA").unwrap_or(1), from.ordinal("TABLE_NAME").unwrap_or(2));
    let same = |v: &Value, s: &str| v.as_bytes() == Some(s.as_bytes());
    let database = if database.eq_ignore_ascii_case(schema::DATABASE) { schema::DATABASE } else { &database };
    let rows = schema::rows(from, state)?;
    Ok(rows.into_iter().filter(|r| same(&r[d], database) && same(&r[t], &name)).collect())
}

fn columns(table: &ObjectName, full: bool, state: &State) -> Result<Table> {
    let rows = rows_of(VirtualTable::Columns, table, state)?;
    let short = [
        ("COLUMN_NAME", "Field"),
        ("COLUMN_TYPE", "Type"),
        ("IS_NULLABLE", "Null"),
        ("COLUMN_KEY", "Key"),
        ("COLUMN_DEFAULT", "Default"),
        ("EXTRA", "Extra"),
    ];
    let long = [
        ("COLUMN_NAME", "Field"),
        ("COLUMN_TYPE", "Type"),
        ("COLLATION_NAME", "Collation"),
        ("IS_NULLABLE", "Null"),
        ("COLUMN_KEY", "Key"),
        ("COLUMN_DEFAULT", "Default"),
        ("EXTRA", "Extra"),
        ("PRIVILEGES", "Privileges"),
        ("COLUMN_COMMENT", "Comment"),
    ];
    Ok(Table::pick(VirtualTable::Columns, if full { &long } else { &short }, rows))
}

fn index(table: &ObjectName, state: &State) -> Result<Table> {
    let rows = rows_of(VirtualTable::Statistics, table, state)?;
    let pairs = [
        ("TABLE_NAME", "Table"),
        ("NON_UNIQUE", "Non_unique"),
        ("INDEX_NAME", "Key_name"),
        ("SEQ_IN_INDEX", "Seq_in_index"),
        ("COLUMN_NAME", "Column_name"),
        ("COLLATION", "Collation"),
        ("CARDINALITY", "Cardinality"),
        ("SUB_PART", "Sub_part"),
        ("PACKED", "Packed"),
        ("NULLABLE", "Null"),
        ("INDEX_TYPE", "Index_type"),
        ("COMMENT", "Comment"),
        ("INDEX_COMMENT", "Index_comment"),
        ("IS_VISIBLE", "Visible"),
        ("EXPRESSION", "Expression"),
    ];
    Ok(Table::pick(VirtualTable::Statistics, &pairs, rows))
}

/// DESCRIBE: SHOW COLUMNS of one table, optionally of one column or pattern.
pub async fn describe(table: &ObjectName, column: Option<&str>, state: &State) -> Result<Table> {
    state.shared.catalog.settled_state().await?;
    let filter = column.map(|c| ShowFilter::Like(c.to_owned()));
    columns(table, false, state)?.filtered(filter.as_ref(), 0, state)
}

fn variables(global: bool, state: &State) -> Table {
    let globals = state.shared.globals.read().clone();
    let session = state.variables();
    let rows = variables::VARIABLES
        .iter()
        .filter(|v| !(global && v.scope == Scope::Session))
        .map(|v| {
            let from = if global || v.scope == Scope::Global { &globals } else { &session };
            vec![v.name.into(), Value::str(from.text(v).to_string())]
        })
        .collect();
    Table::new(&["Variable_name", "Value"], rows)
}

fn diagnostics(errors: bool, most: Option<&crate::sql::ast::Limit>, cx: &Context<'_>, state: &State) -> Result<Table> {
    let bound = |e: Option<&crate::sql::ast::Expr>| -> Result<Option<u64>> {
        let bound = e.map(|e| Binder::new(&crate::sql::bind::NoColumns, state).bind(e)).transpose()?;
        super::select::limit(bound.as_ref(), cx)
    };
    let skip = bound(most.and_then(|l| l.offset.as_ref()))?.unwrap_or(0);
    let take = bound(most.map(|l| &l.count))?.unwrap_or(u64::MAX);
    let rows = state
        .diagnostics()
        .into_iter()
        .filter(|d| !errors || d.level == Level::Error)
        .skip(usize::try_from(skip).unwrap_or(usize::MAX))
        .take(usize::try_from(take).unwrap_or(usize::MAX))
        .map(|d| vec![d.level.name().into(), Value::UInt(d.code.into()), Value::str(d.message)])
        .collect();
    Ok(Table::new(&["Level", "Code", "Message"], rows))
}

fn process_list(full: bool, state: &State) -> Result<Table> {
    let mut rows = schema::rows(VirtualTable::Processlist, state)?;
    if !full {
        for row in &mut rows {
            if let Some(Value::Str(info)) = row.last_mut() {
                let text = String::from_utf8_lossy(info).chars().take(100).collect::<String>();
                *info = text.into_bytes().into();
            }
        }
    }
    let pairs = [
        ("ID", "Id"),
        ("USER", "User"),
        ("HOST", "Host"),
        ("DB", "db"),
        ("COMMAND", "Command"),
        ("TIME", "Time"),
        ("STATE", "State"),
        ("INFO", "Info"),
    ];
    Ok(Table::pick(VirtualTable::Processlist, &pairs, rows))
}

/// Every account may do everything: privileges do not exist yet.
fn grants(user: Option<&(String, String)>, state: &State) -> Result<Table> {
    let name = user.map_or_else(|| state.login.user.clone(), |(name, _)| name.clone());
    let title = format!("Grants for {name}@%");
    let grant = format!("GRANT ALL PRIVILEGES ON *.* TO `{name}`@`%`");
    Ok(Table::new(&[&title], vec![vec![Value::str(grant)]]))
}

/// ANALYZE, CHECK, OPTIMIZE, REPAIR TABLE. CHECK reads every row; the others have nothing to do here and say so.
pub async fn maintain(verb: MaintainVerb, tables: &[ObjectName], state: &State) -> Result<Table> {
    let op = match verb {
        MaintainVerb::Analyze => "analyze",
        MaintainVerb::Check => "check",
        MaintainVerb::Optimize => "optimize",
        MaintainVerb::Repair => "repair",
        MaintainVerb::Checksum => "checksum",
    };
    let catalog = state.shared.catalog.settled_state().await?;
    let mut rows = Vec::new();
    for name in tables {
        let database = name.database.clone().or_else(|| state.database()).ok_or_else(crate::errmap::no_database)?;
        let full = format!("{database}.{}", name.name);
        let mut line = |kind: &str, text: String| {
            rows.push(vec![Value::str(full.clone()), op.into(), kind.into(), Value::str(text)]);
        };
        match catalog.table(&database, &name.name) {
            Err(e) => {
                line("Error", e.message);
                line("status", "Operation failed".to_owned());
            }
            Ok(table) => match verb {
                MaintainVerb::Check => match check(table, state).await {
                    Ok(()) => line("status", "OK".to_owned()),
                    Err(e) => line("Error", e.message),
                },
                _ => line("note", "The storage engine for the table doesn't need it".to_owned()),
            },
        }
    }
    Ok(Table::new(&["Table", "Op", "Msg_type", "Msg_text"], rows))
}

/// Reads and decodes every row, and looks up its entry in every index.
async fn check(table: &StoredTable, state: &State) -> Result<()> {
    super::check::table(table, state).await
}
