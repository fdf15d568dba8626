//! Owns what a session remembers between statements, as expressions and SHOW read it: database, variables, warnings.

use std::sync::{
    Arc,
    atomic::{AtomicI64, AtomicU64, Ordering},
};

use parking_lot::Mutex;
use rustc_hash::FxHashMap;

use super::{Carried, Login, Shared};
use crate::{
    sql::{
        ast::{Isolation, VariableScope},
        collation::Collation,
        context::{Context, SessionInfo, SqlMode},
        error::{Result, Warning},
        value::Value,
    },
    variables::{self, Access, Scope, VARIABLES, Values},
};

/// Most warnings kept for SHOW WARNINGS (`max_error_count`); more are counted only.
const WARNINGS_MAX: usize = 1024;

/// Severity in SHOW WARNINGS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    Note,
    Warning,
    Error,
}

impl Level {
    pub fn name(self) -> &'static str {
        match self {
            Self::Note => "Note",
            Self::Warning => "Warning",
            Self::Error => "Error",
        }
    }
}

/// One line of SHOW WARNINGS.
#[derive(Clone, Debug)]
pub struct Diagnostic {
    pub level: Level,
    pub code: u16,
    pub message: String,
}

/// Settings that statements read often, kept decoded. They follow the session variables.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    pub autocommit: bool,
    pub mode: SqlMode,
    pub zone_offset_seconds: i32,
    pub isolation: Isolation,
    pub read_only: bool,
    pub lock_wait: std::time::Duration,
    pub metadata_wait: std::time::Duration,
    pub safe_updates: bool,
    pub notes: bool,
    pub select_limit: u64,
    pub auto_increment: u64,
    pub auto_offset: u64,
    pub consistency: Consistency,
    /// The most that a bounded read may be behind.
    pub staleness: std::time::Duration,
    /// A commit that reads wait for.
    pub read_after: u64,
}

/// How new a read must be, wherever it is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consistency {
    /// Everything acknowledged anywhere before it.
    Linearizable,
    /// Everything up to `holdfast_read_after`: one's own writes.
    Session,
    /// Everything older than `holdfast_max_staleness`.
    Bounded,
}

impl Settings {
    pub fn of(vars: &Values) -> Self {
        let seconds = |name| std::time::Duration::from_secs(vars.number(name));
        Self {
            autocommit: vars.flag("autocommit"),
            mode: SqlMode::parse(&vars.string("sql_mode")).unwrap_or_default(),
            zone_offset_seconds: variables::zone_offset(&vars.string("time_zone")).unwrap_or(0),
            isolation: isolation(&vars.string("transaction_isolation")),
            read_only: vars.flag("transaction_read_only"),
            lock_wait: seconds("innodb_lock_wait_timeout"),
            metadata_wait: seconds("lock_wait_timeout"),
            safe_updates: vars.flag("sql_safe_updates"),
            notes: vars.flag("sql_notes"),
            select_limit: vars.number("sql_select_limit"),
            auto_increment: vars.number("auto_increment_increment"),
            auto_offset: vars.number("auto_increment_offset"),
            consistency: match &*vars.string("holdfast_read_consistency") {
                "session" => Consistency::Session,
                "bounded" => Consistency::Bounded,
                _ => Consistency::Linearizable,
            },
            staleness: std::time::Duration::from_millis(vars.number("holdfast_max_staleness")),
            read_after: vars.number("holdfast_read_after"),
        }
    }
}

/// Level named by `transaction_isolation`.
pub fn isolation(text: &str) -> Isolation {
    match text {
        "READ-UNCOMMITTED" => Isolation::ReadUncommitted,
        "READ-COMMITTED" => Isolation::ReadCommitted,
        "SERIALIZABLE" => Isolation::Serializable,
        _ => Isolation::RepeatableRead,
    }
}

/// The session behind [`SessionInfo`]. Only its own statement uses it, so its locks are never contended.
pub struct State {
    pub shared: Arc<Shared>,
    pub login: Login,
    statement_micros: AtomicI64,
    last_insert_id: AtomicU64,
    row_count: AtomicI64,
    found_rows: AtomicU64,
    inner: Mutex<Inner>,
}

struct Inner {
    database: Option<Arc<str>>,
    vars: Values,
    settings: Settings,
    user_vars: FxHashMap<String, Value>,
    warnings: Vec<Diagnostic>,
    /// Warnings of the statement, also those not kept.
    warning_count: usize,
}

impl State {
    pub fn new(shared: Arc<Shared>, login: Login) -> Self {
        let vars = shared.globals.read().clone();
        if let Some(process) = &login.process {
            process.set_wait_timeout(std::time::Duration::from_secs(vars.number("wait_timeout")));
        }
        let inner = Inner {
            database: login.database.as_deref().map(Arc::from),
            settings: Settings::of(&vars),
            vars,
            user_vars: FxHashMap::default(),
            warnings: Vec::new(),
            warning_count: 0,
        };
        Self {
            shared,
            login,
            statement_micros: AtomicI64::new(now_micros()),
            last_insert_id: AtomicU64::new(0),
            row_count: AtomicI64::new(-1),
            found_rows: AtomicU64::new(0),
            inner: Mutex::new(inner),
        }
    }

    /// Forgets everything that a statement changed: COM_RESET_CONNECTION.
    pub fn reset(&self) {
        let vars = self.shared.globals.read().clone();
        let mut inner = self.inner.lock();
        inner.settings = Settings::of(&vars);
        if let Some(process) = &self.login.process {
            process.set_wait_timeout(std::time::Duration::from_secs(vars.number("wait_timeout")));
        }
        inner.vars = vars;
        inner.user_vars.clear();
        inner.warnings.clear();
        inner.warning_count = 0;
        self.last_insert_id.store(0, Ordering::Relaxed);
        self.row_count.store(-1, Ordering::Relaxed);
        self.found_rows.store(0, Ordering::Relaxed);
    }

    pub fn settings(&self) -> Settings {
        self.inner.lock().settings
    }

    pub fn current_database(&self) -> Option<Arc<str>> {
        self.inner.lock().database.clone()
    }

    pub fn set_database(&self, name: Option<&str>) {
        self.inner.lock().database = name.map(Arc::from);
        if let Some(process) = &self.login.process {
            process.set_database(name);
        }
    }

    /// Starts a statement: its clock, and no warnings yet unless it only looks at them.
    pub fn begin_statement(&self, keep_warnings: bool) -> Settings {
        self.statement_micros.store(now_micros(), Ordering::Relaxed);
        let mut inner = self.inner.lock();
        if !keep_warnings && inner.warning_count > 0 {
            inner.warnings.clear();
            inner.warning_count = 0;
        }
        inner.settings
    }

    pub fn context<'a>(&'a self, params: &'a [Value], settings: &Settings) -> Context<'a> {
        Context {
            params,
            session: self,
            mode: settings.mode,
            now_micros: self.statement_micros.load(Ordering::Relaxed),
            zone_offset_seconds: settings.zone_offset_seconds,
            strict_data: false,
        }
    }

    pub fn diagnose(&self, level: Level, code: u16, message: impl Into<String>) {
        let mut inner = self.inner.lock();
        if level == Level::Note && !inner.settings.notes {
            return;
        }
        inner.warning_count += 1;
        if inner.warnings.len() < WARNINGS_MAX {
            inner.warnings.push(Diagnostic { level, code, message: message.into() });
        }
    }

    pub fn warning_count(&self) -> u16 {
        self.inner.lock().warning_count.min(u16::MAX.into()) as u16
    }

    pub fn diagnostics(&self) -> Vec<Diagnostic> {
        self.inner.lock().warnings.clone()
    }

    /// 1317 if KILL named this statement or connection.
    pub fn check_killed(&self) -> Result<()> {
        self.login.process.as_ref().map_or(Ok(()), |p| p.check())
    }

    pub fn set_row_count(&self, n: i64) {
        self.row_count.store(n, Ordering::Relaxed);
    }

    pub fn set_found_rows(&self, n: u64) {
        self.found_rows.store(n, Ordering::Relaxed);
    }

    /// Collation of string literals.
    pub fn connection_collation(&self) -> Collation {
        Collation::from_name(&self.inner.lock().vars.string("collation_connection")).unwrap_or_default()
    }

    /// Changes session variables and refreshes the decoded settings.
    pub fn change_variables(&self, change: impl FnOnce(&mut Values)) {
        let mut inner = self.inner.lock();
        change(&mut inner.vars);
        inner.settings = Settings::of(&inner.vars);
        if let Some(process) = &self.login.process {
            process.set_wait_timeout(std::time::Duration::from_secs(inner.vars.number("wait_timeout")));
        }
    }

    /// The session's sql_mode.
    pub fn mode_text(&self) -> Arc<str> {
        self.inner.lock().vars.string("sql_mode")
    }

    /// What travels when the session moves to another node. Warnings stay behind.
    pub fn carry(&self) -> Carried {
        let inner = self.inner.lock();
        let changeable = VARIABLES.iter().filter(|v| v.access == Access::ReadWrite && v.scope != Scope::Global);
        let user_variables = inner.user_vars.iter().map(|(name, value)| (name.clone(), value.clone()));
        Carried {
            database: inner.database.as_deref().map(str::to_owned),
            variables: changeable.map(|v| (v.name.to_owned(), inner.vars.text(v).to_string())).collect(),
            user_variables: user_variables.collect(),
            last_insert_id: self.last_insert_id.load(Ordering::Relaxed),
            row_count: self.row_count.load(Ordering::Relaxed),
            found_rows: self.found_rows.load(Ordering::Relaxed),
            ..Carried::default()
        }
    }

    /// Takes up what travelled. 1193 if the other node has a variable that this one does not.
    pub fn adopt(&self, carried: Carried) -> Result<()> {
        let known = |(name, text): (String, String)| match variables::find(&name) {
            Some(var) => Ok((var.name, text)),
            None => Err(variables::unknown(&name)),
        };
        let variables = carried.variables.into_iter().map(known).collect::<Result<Vec<_>>>()?;
        self.change_variables(|vars| variables.into_iter().for_each(|(name, text)| vars.put(name, text)));
        self.set_database(carried.database.as_deref());
        self.inner.lock().user_vars.extend(carried.user_variables);
        self.last_insert_id.store(carried.last_insert_id, Ordering::Relaxed);
        self.row_count.store(carried.row_count, Ordering::Relaxed);
        self.found_rows.store(carried.found_rows, Ordering::Relaxed);
        Ok(())
    }

    /// All session variables, for SHOW VARIABLES.
    pub fn variables(&self) -> Values {
        self.inner.lock().vars.clone()
    }
}

/// Microseconds since 1970 UTC.
pub fn now_micros() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(0, |d| d.as_micros().min(i64::MAX as u128) as i64)
}

impl SessionInfo for State {
    fn database(&self) -> Option<String> {
        self.inner.lock().database.as_deref().map(str::to_owned)
    }
    fn user(&self) -> String {
        format!("{}@{}", self.login.user, host_only(&self.login.host))
    }
    fn current_user(&self) -> String {
        format!("{}@%", self.login.user)
    }
    fn connection_id(&self) -> u64 {
        self.login.connection_id.into()
    }
    fn version(&self) -> String {
        variables::VERSION.to_owned()
    }
    fn last_insert_id(&self) -> u64 {
        self.last_insert_id.load(Ordering::Relaxed)
    }
    fn set_last_insert_id(&self, id: u64) {
        self.last_insert_id.store(id, Ordering::Relaxed);
    }
    fn row_count(&self) -> i64 {
        self.row_count.load(Ordering::Relaxed)
    }
    fn found_rows(&self) -> u64 {
        self.found_rows.load(Ordering::Relaxed)
    }
    fn user_var(&self, name: &str) -> Value {
        self.inner.lock().user_vars.get(&name.to_lowercase()).cloned().unwrap_or(Value::Null)
    }
    fn set_user_var(&self, name: &str, value: Value) {
        self.inner.lock().user_vars.insert(name.to_lowercase(), value);
    }
    fn system_var(&self, scope: VariableScope, name: &str) -> Result<Value> {
        let var = variables::find(name).ok_or_else(|| variables::unknown(name))?;
        let global = matches!(scope, VariableScope::Global | VariableScope::Persist | VariableScope::PersistOnly);
        if global && var.scope == Scope::Session {
            return Err(variables::wrong_scope(name, "SESSION"));
        }
        if scope == VariableScope::Session && var.scope == Scope::Global {
            return Err(variables::wrong_scope(name, "GLOBAL"));
        }
        match name {
            "last_insert_id" => Ok(Value::UInt(self.last_insert_id())),
            "holdfast_commit_token" => Ok(Value::UInt(self.shared.catalog.db().commit_token())),
            "read_only" | "super_read_only" | "innodb_read_only" => {
                Ok(Value::Int(i64::from(self.shared.is_follower())))
            }
            _ if global => Ok(self.shared.globals.read().value(var)),
            _ if var.scope == Scope::Global => Ok(self.shared.globals.read().value(var)),
            _ => Ok(self.inner.lock().vars.value(var)),
        }
    }
    fn warn(&self, warning: Warning) {
        self.diagnose(Level::Warning, warning.code, warning.message);
    }
    fn random(&self) -> f64 {
        rand::random()
    }
    fn sql_mode(&self) -> SqlMode {
        self.inner.lock().settings.mode
    }
    fn statement_micros(&self) -> i64 {
        self.statement_micros.load(Ordering::Relaxed)
    }
    fn zone_offset_seconds(&self) -> i32 {
        self.inner.lock().settings.zone_offset_seconds
    }
}

fn host_only(address: &str) -> &str {
    address.rsplit_once(':').map_or(address, |(host, _)| host)
}
