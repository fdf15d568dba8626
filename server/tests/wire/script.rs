//! A server on an ephemeral port whose sessions follow a small script instead of SQL.

use std::{
    collections::HashMap,
    net::SocketAddr,
    path::Path,
    sync::{Arc, LazyLock, atomic::AtomicU64},
    time::{Duration, Instant},
};

use holdfast_server::{
    backend::{Backend, Conversation},
    connection::Server,
    listen,
    metrics::WireMetrics,
    processlist::ProcessList,
    session::{Login, Prepared},
    sql::value::Value,
    tls::{CertificateFiles, rsa_key},
    users::{Account, Authenticator},
    wire::{
        auth::Plugin,
        consts::{BINARY_COLLATION, flag, status, ty},
        result::{Column, Done, ResultSink, SqlError},
    },
};
use tokio::sync::watch;

/// Key files are made once per test process: RSA keys take their time.
static KEYS: LazyLock<tempfile::TempDir> = LazyLock::new(|| tempfile::tempdir().unwrap());

pub struct Running {
    pub addr: SocketAddr,
    pub processes: Arc<ProcessList>,
    _stop: watch::Sender<bool>,
}

pub struct Settings {
    pub max_connections: usize,
    pub max_allowed_packet: usize,
    pub connect_timeout: Duration,
    pub require_tls: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            max_connections: 100,
            max_allowed_packet: 64 << 20,
            connect_timeout: Duration::from_secs(30),
            require_tls: false,
        }
    }
}

pub async fn start() -> Running {
    start_with(Settings::default()).await
}

pub async fn start_with(settings: Settings) -> Running {
    let data_dir: &Path = KEYS.path();
    let processes = ProcessList::new(settings.max_connections);
    let server = Arc::new(Server {
        backend: Script::new(),
        processes: processes.clone(),
        authenticator: Authenticator::default(),
        rsa: rsa_key(data_dir).unwrap(),
        tls: Some(CertificateFiles::self_signed(data_dir).unwrap().acceptor().unwrap()),
        require_tls: settings.require_tls,
        max_allowed_packet: settings.max_allowed_packet,
        connect_timeout: settings.connect_timeout,
        forward: None,
        started: Instant::now(),
        questions: AtomicU64::new(0),
        metrics: WireMetrics::default(),
    });
    let listener = listen::bind("127.0.0.1:0", "--listen").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let (stop, stopped) = watch::channel(false);
    tokio::spawn(listen::accept(listener, server, stopped));
    Running { addr, processes, _stop: stop }
}

struct Script {
    accounts: HashMap<&'static str, Account>,
}

impl Script {
    /// `root` without a password, `native` and `sha2` with the password `s3cret`.
    fn new() -> Self {
        let native = Account::with_password(Plugin::Native, b"s3cret").unwrap();
        let sha2 = Account::with_password(Plugin::CachingSha2, b"s3cret").unwrap();
        Self { accounts: [("root", Account::empty()), ("native", native), ("sha2", sha2)].into() }
    }
}

impl Backend for Script {
    type Session = Talk;
    async fn open(&self, login: Login) -> Result<Talk, SqlError> {
        match login.database.as_deref() {
            None | Some("shop") => Ok(Talk { multi: login.multi_statements, login, ..Talk::default() }),
            Some(name) => Err(SqlError::new(1049, b"42000", format!("Unknown database '{name}'"))),
        }
    }
    async fn account(&self, user: &str) -> Result<Option<Account>, SqlError> {
        Ok(self.accounts.get(user).cloned())
    }
}

#[derive(Default)]
pub struct Talk {
    login: Login,
    multi: bool,
    in_transaction: bool,
    statements: HashMap<u32, String>,
    next_statement: u32,
}

fn text_column(name: &str) -> Column {
    Column { name: name.into(), type_byte: ty::VAR_STRING, collation: 255, length: 1 << 24, ..Column::default() }
}

/// A column that carries the value as it is.
fn column_for(value: &Value) -> Column {
    let (type_byte, flags) = match value {
        Value::Int(_) => (ty::LONGLONG, 0),
        Value::UInt(_) => (ty::LONGLONG, flag::UNSIGNED),
        Value::Float(_) => (ty::FLOAT, 0),
        Value::Double(_) => (ty::DOUBLE, 0),
        Value::Decimal(_) => (ty::NEWDECIMAL, 0),
        Value::Date(_) => (ty::DATE, 0),
        Value::Time(_) => (ty::TIME, 0),
        Value::DateTime(_) => (ty::DATETIME, 0),
        Value::Bin(_) => (ty::BLOB, flag::BINARY),
        Value::Null | Value::Str(_) | Value::Json(_) => (ty::VAR_STRING, 0),
    };
    let collation = if type_byte == ty::VAR_STRING { 255 } else { BINARY_COLLATION };
    Column { name: "v".into(), type_byte, flags, collation, decimals: 31, ..Column::default() }
}

impl Talk {
    fn one_row<S: ResultSink>(&self, sink: &mut S, values: &[Value]) {
        let columns: Vec<_> = values.iter().map(column_for).collect();
        sink.columns(&columns, self.status());
        sink.row(values);
        sink.end(Done::default(), self.status());
    }

    async fn big<S: ResultSink>(&self, sink: &mut S, rows: usize, width: usize) -> Result<(), SqlError> {
        let value = [Value::Str(vec![b'x'; width].into())];
        sink.columns(&[text_column("x")], self.status());
        for _ in 0..rows {
            sink.row(&value);
            sink.flush().await.map_err(|e| SqlError::new(1161, b"08S01", e.to_string()))?;
        }
        sink.end(Done::default(), self.status());
        Ok(())
    }
}

impl Conversation for Talk {
    async fn query<S: ResultSink>(&mut self, sql: &[u8], sink: &mut S) -> Result<(), SqlError> {
        let sql = String::from_utf8_lossy(sql).into_owned();
        let words: Vec<&str> = sql.split(' ').collect();
        match words.as_slice() {
            ["LOGIN"] => {
                let login = &self.login;
                let tls = login.tls.as_ref().map_or(String::new(), |(_, version)| version.clone());
                let database = login.database.clone().unwrap_or_default();
                let shown = format!("{}|{database}|{}|{tls}|{}", login.user, login.found_rows, self.multi);
                self.one_row(sink, &[Value::str(shown)]);
            }
            ["BEGIN"] | ["COMMIT"] => {
                self.in_transaction = words == ["BEGIN"];
                sink.ok(Done { affected_rows: 1, last_insert_id: 7, warnings: 2 }, self.status(), "info");
            }
            ["TWO"] => {
                sink.more_results(true);
                self.one_row(sink, &[Value::Int(1)]);
                sink.more_results(false);
                self.one_row(sink, &[Value::Int(2)]);
            }
            ["BIG", rows, width] => self.big(sink, rows.parse().unwrap(), width.parse().unwrap()).await?,
            ["WAIT"] => return Err(self.login.process.as_ref().unwrap().interrupted().await),
            ["LENGTH", rest @ ..] => self.one_row(sink, &[Value::UInt(rest.concat().len() as u64)]),
            ["MUTE"] => {}
            ["MISFIT"] => {
                sink.columns(&[text_column("a"), text_column("b")], self.status());
                sink.row(&[Value::Int(1)]);
                sink.end(Done::default(), self.status());
            }
            _ => return Err(SqlError::new(1064, b"42000", format!("not in the script: {sql}"))),
        }
        Ok(())
    }

    async fn prepare(&mut self, sql: &[u8]) -> Result<Prepared, SqlError> {
        self.next_statement += 1;
        let sql = String::from_utf8_lossy(sql).into_owned();
        let params = vec![Column::parameter(); sql.matches('?').count()];
        let columns = vec![text_column("name"), text_column("number")];
        self.statements.insert(self.next_statement, sql);
        Ok(Prepared { id: self.next_statement, params, columns })
    }

    /// Gives the parameters back as a row.
    async fn execute<S: ResultSink>(&mut self, id: u32, params: &[Value], sink: &mut S) -> Result<(), SqlError> {
        assert!(self.statements.contains_key(&id));
        self.one_row(sink, params);
        Ok(())
    }

    fn param_count(&self, id: u32) -> Option<usize> {
        self.statements.get(&id).map(|sql| sql.matches('?').count())
    }
    fn close_statement(&mut self, id: u32) {
        self.statements.remove(&id);
    }
    async fn init_db(&mut self, name: &str) -> Result<(), SqlError> {
        if name != "shop" {
            return Err(SqlError::new(1049, b"42000", format!("Unknown database '{name}'")));
        }
        self.login.database = Some(name.into());
        Ok(())
    }
    async fn reset(&mut self) -> Result<(), SqlError> {
        self.in_transaction = false;
        self.statements.clear();
        Ok(())
    }
    fn set_multi_statements(&mut self, on: bool) {
        self.multi = on;
    }
    fn status(&self) -> u16 {
        status::AUTOCOMMIT | if self.in_transaction { status::IN_TRANS } else { 0 }
    }
}
