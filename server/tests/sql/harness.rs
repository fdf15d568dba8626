//! A server without a network: sessions over a real database in a temporary folder, their answers read as text.

use std::{sync::Arc, time::Duration};

use holdfast::{Db, Options};
use holdfast_server::{
    backend::{Parts, ServerSettings},
    processlist::ProcessList,
    session::{Login, Session, Shared},
    sql::value::Value,
    users::Users,
    wire::{
        consts::cap,
        reply::{Output, Reply},
        result::SqlError,
    },
};

/// One answer: OK, or rows of text (`None` = NULL).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    pub affected: u64,
    pub last_insert_id: u64,
    pub warnings: u16,
    pub status: u16,
    pub info: String,
    pub columns: Vec<String>,
    pub rows: Vec<Vec<Option<String>>>,
}

/// A database and what its sessions share.
pub struct Server {
    pub shared: Arc<Shared>,
    db: Db,
    pub dir: tempfile::TempDir,
}

impl Server {
    pub async fn start() -> Self {
        Self::start_in(tempfile::tempdir().unwrap()).await
    }

    pub async fn start_in(dir: tempfile::TempDir) -> Self {
        let url = format!("file://{}", dir.path().join("bucket").display());
        let mut options = Options::default();
        options.data_dir = Some(dir.path().join("data"));
        let db = Db::open(&url, options).await.unwrap();
        let (users, _) = Users::open(db.clone(), None).await.unwrap();
        let settings = ServerSettings {
            max_connections: 100,
            max_allowed_packet: 64 << 20,
            connect_timeout: Duration::from_secs(10),
            require_tls: false,
            port: 3306,
            data_dir: dir.path().to_owned(),
            started: std::time::Instant::now(),
        };
        let processes = ProcessList::new(100);
        let parts = Parts { db: db.clone(), users, processes, settings };
        Self { shared: Shared::open(parts).await.unwrap(), db, dir }
    }

    /// Closes the database and opens it again.
    pub async fn restart(self) -> Self {
        let Self { shared, db, dir } = self;
        drop(shared);
        db.close().await.unwrap();
        drop(db);
        Self::start_in(dir).await
    }

    /// A session in database `t`, which is made if it is missing.
    pub async fn client(&self) -> Client {
        let mut client =
            self.login(Login { user: "root".into(), host: "127.0.0.1:1".into(), ..Login::default() }).await;
        client.ok("CREATE DATABASE IF NOT EXISTS t").await;
        client.ok("USE t").await;
        client
    }

    pub async fn login(&self, login: Login) -> Client {
        let login = Login { multi_statements: true, ..login };
        Client { session: Session::open(self.shared.clone(), login).await.unwrap() }
    }
}

/// One session.
pub struct Client {
    pub session: Session,
}

impl Client {
    /// Runs statements; the answer of each, or the error of the one that failed.
    pub async fn all(&mut self, sql: &str) -> Result<Vec<Answer>, SqlError> {
        let mut out = new_output();
        let mut sent: Vec<u8> = Vec::new();
        self.session.query(sql.as_bytes(), &mut Reply { stream: &mut sent, out: &mut out }).await?;
        out.send(&mut sent).await.unwrap();
        Ok(decode(&sent))
    }

    pub async fn run(&mut self, sql: &str) -> Result<Answer, SqlError> {
        self.all(sql).await.map(|mut answers| answers.pop().unwrap())
    }

    /// Runs one statement that must succeed.
    pub async fn ok(&mut self, sql: &str) -> Answer {
        self.run(sql).await.unwrap_or_else(|e| panic!("{sql}: {e}"))
    }

    /// Runs one statement that must fail; its code.
    pub async fn err(&mut self, sql: &str) -> u16 {
        match self.run(sql).await {
            Ok(answer) => panic!("{sql} succeeded: {answer:?}"),
            Err(e) => e.code,
        }
    }

    /// Rows as one string: columns joined by `,`, rows by ` | `.
    pub async fn rows(&mut self, sql: &str) -> String {
        let answer = self.ok(sql).await;
        let row = |row: &Vec<Option<String>>| {
            row.iter().map(|v| v.as_deref().unwrap_or("NULL")).collect::<Vec<_>>().join(",")
        };
        answer.rows.iter().map(row).collect::<Vec<_>>().join(" | ")
    }

    /// Prepares and executes with parameters; rows are asked for as text.
    pub async fn execute(&mut self, sql: &str, params: &[Value]) -> Result<Answer, SqlError> {
        let prepared = self.session.prepare(sql.as_bytes()).await?;
        let answer = self.execute_id(prepared.id, params).await;
        self.session.close_statement(prepared.id);
        answer
    }

    pub async fn execute_id(&mut self, id: u32, params: &[Value]) -> Result<Answer, SqlError> {
        let mut out = new_output();
        let mut sent: Vec<u8> = Vec::new();
        self.session.execute(id, params, &mut Reply { stream: &mut sent, out: &mut out }).await?;
        out.send(&mut sent).await.unwrap();
        Ok(decode(&sent).pop().unwrap())
    }
}

fn new_output() -> Output {
    let mut out = Output::default();
    out.set_capabilities(cap::DEPRECATE_EOF);
    out.begin(1, false);
    out
}

/// Reads the packets of text-protocol answers.
fn decode(mut bytes: &[u8]) -> Vec<Answer> {
    let mut packets = Vec::new();
    while let [a, b, c, _, rest @ ..] = bytes {
        let len = usize::from(*a) | usize::from(*b) << 8 | usize::from(*c) << 16;
        packets.push(&rest[..len]);
        bytes = &rest[len..];
    }
    let mut packets = packets.into_iter();
    let mut answers = Vec::new();
    while let Some(first) = packets.next() {
        assert_ne!(first[0], 0xff, "an error packet: {}", String::from_utf8_lossy(first));
        if first[0] == 0 {
            answers.push(ok(first));
            continue;
        }
        let mut at = first;
        let columns = lenenc(&mut at).unwrap();
        let mut answer = Answer::default();
        for _ in 0..columns {
            let mut definition = packets.next().unwrap();
            let fields: Vec<String> = (0..6).map(|_| text(&mut definition).unwrap()).collect();
            answer.columns.push(fields[4].clone());
        }
        for packet in packets.by_ref() {
            if packet[0] == 0xfe && packet.len() < 9 {
                let end = ok(packet);
                (answer.status, answer.warnings) = (end.status, end.warnings);
                break;
            }
            assert_ne!(packet[0], 0xff, "an error packet: {}", String::from_utf8_lossy(packet));
            let mut row = packet;
            answer.rows.push((0..columns).map(|_| text(&mut row)).collect());
        }
        answers.push(answer);
    }
    answers
}

fn ok(packet: &[u8]) -> Answer {
    let mut at = &packet[1..];
    let affected = lenenc(&mut at).unwrap();
    let last_insert_id = lenenc(&mut at).unwrap();
    let status = u16::from_le_bytes([at[0], at[1]]);
    let warnings = u16::from_le_bytes([at[2], at[3]]);
    let mut rest = &at[4..];
    let info = if rest.is_empty() { String::new() } else { text(&mut rest).unwrap() };
    Answer { affected, last_insert_id, status, warnings, info, ..Answer::default() }
}

fn lenenc(at: &mut &[u8]) -> Option<u64> {
    let (first, rest) = at.split_first().unwrap();
    let width = match first {
        0xfb => {
            *at = rest;
            return None;
        }
        0xfc => 2,
        0xfd => 3,
        0xfe => 8,
        n => {
            *at = rest;
            return Some(u64::from(*n));
        }
    };
    let mut value = [0; 8];
    value[..width].copy_from_slice(&rest[..width]);
    *at = &rest[width..];
    Some(u64::from_le_bytes(value))
}

fn text(at: &mut &[u8]) -> Option<String> {
    let len = lenenc(at)? as usize;
    let (head, rest) = at.split_at(len);
    *at = rest;
    Some(String::from_utf8_lossy(head).into_owned())
}
