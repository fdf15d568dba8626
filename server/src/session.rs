//! One client session: current database, variables, transaction, prepared statements. The wire drives it.

use std::sync::Arc;

use parking_lot::{Mutex, RwLock};
use rustc_hash::FxHashMap;

use self::{
    state::{Level, Settings, State},
    transaction::Transactions,
};
use crate::{
    backend::Parts,
    catalog::Catalog,
    errmap::{self, error},
    processlist::{Process, ProcessList},
    sql::{
        ast::Statement,
        context::SqlMode,
        digest::Digest,
        parse::{Parsed, parse_first, parse_one, parse_template},
        plan::Plan,
        value::Value,
    },
    users::Users,
    variables::Values,
    wire::{
        consts::status,
        result::{Column, ResultSink, SqlError},
    },
};

mod cluster;
mod control;
mod moves;
mod planned;
mod run;
mod set;
pub(crate) mod state;
pub(crate) mod transaction;

pub(crate) use self::run::default_evaluator;
pub use self::{
    moves::{Carried, Source},
    transaction::NextTransaction,
};

type Result<T> = std::result::Result<T, SqlError>;

/// Most prepared statements of one session (error 1461).
const PREPARED_MAX: usize = 16_382;
/// Statement shapes whose plan a session keeps.
const CACHED_MAX: usize = 512;

/// Shared by all sessions: the catalog with the engine's `Db`, global variables, users, the process list.
pub struct Shared {
    /// Databases and tables, and the engine behind them.
    pub catalog: Catalog,
    /// Global variables.
    pub globals: RwLock<Values>,
    /// All connections.
    pub processes: Arc<ProcessList>,
    /// Accounts.
    pub users: Users,
    /// For uptimes.
    pub started: std::time::Instant,
}

impl Shared {
    /// Loads the catalog and removes what an interrupted schema change left.
    pub async fn open(parts: Parts) -> Result<Arc<Self>> {
        let catalog = Catalog::open(parts.db).await?;
        catalog.clean_up().await?;
        let mut globals = Values::default();
        globals.put("max_connections", parts.settings.max_connections.to_string());
        globals.put("max_allowed_packet", parts.settings.max_allowed_packet.to_string());
        globals.put("connect_timeout", parts.settings.connect_timeout.as_secs().to_string());
        globals.put("require_secure_transport", if parts.settings.require_tls { "ON" } else { "OFF" });
        globals.put("port", parts.settings.port.to_string());
        globals.put("holdfast_node_id", catalog.db().node_id().to_string());
        globals.put("hostname", rustix::system::uname().nodename().to_string_lossy());
        globals.put("datadir", format!("{}/", parts.settings.data_dir.display()));
        Ok(Arc::new(Self {
            catalog,
            globals: RwLock::new(globals),
            processes: parts.processes,
            users: parts.users,
            started: parts.settings.started,
        }))
    }
}

impl Shared {
    /// Whether another node takes the writes.
    pub fn is_follower(&self) -> bool {
        !self.catalog.db().is_leader()
    }
}

/// What the connection knows of its client at login.
#[derive(Clone, Debug, Default)]
pub struct Login {
    /// CONNECTION_ID().
    pub connection_id: u32,
    /// Account name.
    pub user: String,
    /// The host part of USER().
    pub host: String,
    /// The database asked for.
    pub database: Option<String>,
    /// Number of the client's collation.
    pub collation: u16,
    /// CLIENT_FOUND_ROWS: UPDATE counts matched rows.
    pub found_rows: bool,
    /// CLIENT_MULTI_STATEMENTS: a query may hold several.
    pub multi_statements: bool,
    /// TLS cipher and version, for SHOW STATUS.
    pub tls: Option<(String, String)>,
    /// This connection in the process list: KILL is noticed through it.
    pub process: Option<Arc<Process>>,
}

/// A prepared statement, as COM_STMT_PREPARE answers it.
#[derive(Clone, Debug)]
pub struct Prepared {
    /// Its number in this session.
    pub id: u32,
    /// One for each placeholder.
    pub params: Vec<Column>,
    /// Of the result; empty if there is none.
    pub columns: Vec<Column>,
}

/// A plan and what it was made for.
#[derive(Clone)]
struct CachedPlan {
    epoch: u64,
    mode: SqlMode,
    database: Option<Arc<str>>,
    plan: Arc<Plan>,
}

/// A parsed statement with its newest plan.
struct Parse {
    statement: Statement,
    params: u32,
    plan: Mutex<Option<CachedPlan>>,
}

impl Parse {
    fn new(parsed: Parsed) -> Arc<Self> {
        Arc::new(Self { statement: parsed.statement, params: parsed.params, plan: Mutex::new(None) })
    }
}

/// A prepared statement, and what it was made of.
#[derive(Clone)]
struct Kept {
    parse: Arc<Parse>,
    source: Source,
}

/// One client's session. Dropping it rolls its transaction back.
pub struct Session {
    state: Arc<State>,
    tx: Transactions,
    prepared: FxHashMap<u32, Kept>,
    next_id: u32,
    /// SQL-level PREPARE.
    named: FxHashMap<String, Kept>,
    /// Statements by their text without literals.
    cache: FxHashMap<Vec<u8>, Arc<Parse>>,
    digest: Digest,
    /// sql_mode that the cached texts were parsed with.
    cache_mode: SqlMode,
    multi_statements: bool,
}

impl Session {
    /// Checks that the database exists (1049).
    pub async fn open(shared: Arc<Shared>, login: Login) -> Result<Self> {
        if let Some(name) = &login.database {
            check_database(&shared, name).await?;
        }
        let multi_statements = login.multi_statements;
        let state = State::new(shared, login);
        Ok(Self {
            cache_mode: state.settings().mode,
            state: Arc::new(state),
            tx: Transactions::default(),
            prepared: FxHashMap::default(),
            next_id: 0,
            named: FxHashMap::default(),
            cache: FxHashMap::default(),
            digest: Digest::default(),
            multi_statements,
        })
    }

    /// COM_QUERY: one or more statements.
    pub async fn query<S: ResultSink>(&mut self, sql: &[u8], sink: &mut S) -> Result<()> {
        let mut rest = sql;
        loop {
            let settings = self.state.settings();
            if let Some(parse) = self.known_shape(rest, &settings) {
                sink.more_results(false);
                let literals = self.digest.take_literals();
                return self.run(&parse, &literals, sink).await;
            }
            let (parsed, next) = self.noted(parse_first(rest, settings.mode))?;
            if parsed.params > 0 {
                return Err(errmap::syntax_near(b"?"));
            }
            rest = rest.get(next..).unwrap_or_default();
            if !rest.is_empty() && !self.multi_statements {
                return Err(errmap::syntax_near(rest));
            }
            sink.more_results(!rest.is_empty());
            self.run(&Parse::new(parsed), &[], sink).await?;
            if rest.is_empty() {
                return Ok(());
            }
        }
    }

    /// The parsed form of a text without its literals, from the cache or made now; the literals stay in the digest.
    /// `None`: the text must be parsed as it is.
    fn known_shape(&mut self, sql: &[u8], settings: &Settings) -> Option<Arc<Parse>> {
        if self.cache_mode != settings.mode {
            self.cache.clear();
            self.cache_mode = settings.mode;
        }
        if !self.digest.compute(sql, settings.mode) {
            return None;
        }
        if let Some(found) = self.cache.get(self.digest.text()) {
            return Some(found.clone());
        }
        // A template that does not parse: the error must quote the text as it was sent.
        let parsed = parse_template(&self.digest, settings.mode).ok()?;
        let parse = Parse::new(parsed);
        if self.cache.len() >= CACHED_MAX {
            self.cache.clear();
        }
        self.cache.insert(self.digest.text().to_vec(), parse.clone());
        Some(parse)
    }

    /// COM_STMT_PREPARE.
    pub async fn prepare(&mut self, sql: &[u8]) -> Result<Prepared> {
        if self.prepared.len() >= PREPARED_MAX {
            return Err(error(
                1461,
                format!("Can't create more than max_prepared_stmt_count statements (current value: {PREPARED_MAX})"),
            ));
        }
        let settings = self.state.begin_statement(false);
        let parse = Parse::new(self.noted(parse_one(sql, settings.mode))?);
        let source = Source { text: sql.into(), mode: self.state.mode_text() };
        let columns = self.noted(self.result_columns(&parse, &settings).await)?;
        self.next_id = self.next_id.wrapping_add(1).max(1);
        let params = vec![Column::parameter(); parse.params as usize];
        self.prepared.insert(self.next_id, Kept { parse, source });
        Ok(Prepared { id: self.next_id, params, columns })
    }

    /// COM_STMT_EXECUTE, parameters decoded.
    pub async fn execute<S: ResultSink>(&mut self, id: u32, params: &[Value], sink: &mut S) -> Result<()> {
        let found = self.prepared.get(&id).map(|kept| kept.parse.clone());
        let parse =
            found.ok_or_else(|| error(1243, format!("Unknown prepared statement handler ({id}) given to EXECUTE")))?;
        if params.len() != parse.params as usize {
            return Err(error(1210, "Incorrect arguments to EXECUTE"));
        }
        self.run(&parse, params, sink).await
    }

    /// Number of `?`; `None`: no such statement.
    pub fn param_count(&self, id: u32) -> Option<usize> {
        self.prepared.get(&id).map(|kept| kept.parse.params as usize)
    }

    /// COM_STMT_CLOSE.
    pub fn close_statement(&mut self, id: u32) {
        self.prepared.remove(&id);
    }

    /// COM_INIT_DB and USE.
    pub async fn init_db(&mut self, name: &str) -> Result<()> {
        check_database(&self.state.shared, name).await?;
        self.state.set_database(Some(name));
        Ok(())
    }

    /// COM_RESET_CONNECTION, and the first half of COM_CHANGE_USER: roll back, forget variables and statements.
    pub async fn reset(&mut self) -> Result<()> {
        self.tx.rollback();
        self.tx = Transactions::default();
        self.prepared.clear();
        self.named.clear();
        self.cache.clear();
        self.state.reset();
        Ok(())
    }

    /// COM_SET_OPTION: whether a query may hold several statements from now on.
    pub fn set_multi_statements(&mut self, on: bool) {
        self.multi_statements = on;
    }

    /// SERVER_STATUS_* bits: AUTOCOMMIT, IN_TRANS, ...
    pub fn status(&self) -> u16 {
        let mut bits = 0;
        if self.state.settings().autocommit {
            bits |= status::AUTOCOMMIT;
        }
        if self.tx.is_open() {
            bits |= status::IN_TRANS;
            if self.tx.is_read_only() {
                bits |= status::IN_TRANS_READONLY;
            }
        }
        bits
    }

    /// Keeps an error for SHOW WARNINGS and SHOW ERRORS.
    fn noted<T>(&self, result: Result<T>) -> Result<T> {
        if let Err(e) = &result {
            self.state.diagnose(Level::Error, e.code, e.message.clone());
        }
        result
    }
}

/// 1049.
async fn check_database(shared: &Shared, name: &str) -> Result<()> {
    let known = name.eq_ignore_ascii_case(crate::exec::schema::DATABASE)
        || shared.catalog.settled_state().await?.databases.contains_key(name);
    if known { Ok(()) } else { Err(errmap::unknown_database(name)) }
}
