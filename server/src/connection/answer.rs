//! Answers one command from the session of this node.

use std::sync::atomic::Ordering;

use rustc_hash::FxHashMap;

use super::{PreparedHere, Server, stream::Stream};
use crate::{
    backend::{Backend, Conversation},
    processlist::{Kill, Process, shown},
    sql::value::Value,
    wire::{
        codec::Malformed,
        command::Command,
        params::Bound,
        reply::{Output, Reply},
        result::{ColumnSet, Done, SqlError},
    },
};

pub(super) fn refuse(malformed: Malformed) -> SqlError {
    SqlError::new(1835, b"HY000", format!("Malformed communication packet: {}", malformed.0))
}

fn unknown_statement(id: u32, command: &str) -> SqlError {
    SqlError::new(1243, b"HY000", format!("Unknown prepared statement handler ({id}) given to {command}"))
}

/// A client's text that should be UTF-8.
fn text<'a>(bytes: &'a [u8], what: &'static str) -> Result<&'a str, SqlError> {
    std::str::from_utf8(bytes).map_err(|_| refuse(Malformed(what)))
}

/// What a command may touch: everything of the connection but the packet it came in.
pub(super) struct Context<'a, B: Backend> {
    pub(super) server: &'a Server<B>,
    pub(super) process: &'a Process,
    pub(super) stream: &'a mut Stream,
    pub(super) out: &'a mut Output,
    pub(super) session: &'a mut B::Session,
    pub(super) prepared: &'a mut FxHashMap<u32, PreparedHere>,
    pub(super) params: &'a mut Vec<Value>,
}

impl<B: Backend> Context<'_, B> {
    pub(super) async fn answer(&mut self, command: Command<'_>) -> Result<(), SqlError> {
        match command {
            Command::Query(sql) => self.query(sql).await,
            Command::Execute { id, params } => self.execute(id, params).await,
            Command::Prepare(sql) => self.prepare(sql).await,
            Command::InitDb(name) => {
                let name = text(name, "database name")?;
                self.session.init_db(name).await?;
                self.process.set_database(Some(name));
                self.ok()
            }
            Command::Ping => self.ok(),
            Command::Statistics => {
                self.out.packet(self.statistics().as_bytes());
                Ok(())
            }
            Command::Kill(id) => {
                self.server.processes.kill(self.process.id(), id.into(), Kill::Connection)?;
                self.ok()
            }
            Command::ResetConnection => {
                self.session.reset().await?;
                self.prepared.clear();
                self.ok()
            }
            Command::SetOption(option) => self.set_option(option),
            Command::FieldList { table, wildcard } => self.field_list(table, wildcard).await,
            Command::LongData { id, param, data } => {
                self.long_data(id, param, data);
                Ok(())
            }
            Command::CloseStatement(id) => {
                self.session.close_statement(id);
                self.prepared.remove(&id);
                Ok(())
            }
            Command::ResetStatement(id) => {
                self.session.param_count(id).ok_or_else(|| unknown_statement(id, "mysqld_stmt_reset"))?;
                self.prepared.entry(id).or_default().bound.clear_long_data();
                self.ok()
            }
            Command::Fetch { id } => {
                self.session.param_count(id).ok_or_else(|| unknown_statement(id, "mysqld_stmt_fetch"))?;
                Err(SqlError::new(1421, b"HY000", format!("The statement ({id}) has no open cursor.")))
            }
            Command::Quit | Command::ChangeUser(_) | Command::Unknown(_) => {
                Err(SqlError::new(1047, b"08S01", "Unknown command"))
            }
        }
    }

    fn ok(&mut self) -> Result<(), SqlError> {
        self.out.ok(Done::default(), self.session.status(), "");
        Ok(())
    }

    async fn query(&mut self, sql: &[u8]) -> Result<(), SqlError> {
        self.process.set_info(shown(sql));
        let mut reply = Reply { stream: self.stream, out: self.out };
        self.session.query(sql, &mut reply).await?;
        self.check_answered()
    }

    /// An answer left out would let the client wait for ever.
    fn check_answered(&self) -> Result<(), SqlError> {
        if self.out.answered() {
            return Ok(());
        }
        Err(SqlError::new(1105, b"HY000", "The statement ended without a result"))
    }

    async fn prepare(&mut self, sql: &[u8]) -> Result<(), SqlError> {
        let info = shown(sql);
        self.process.set_info(info.clone());
        let prepared = self.session.prepare(sql).await?;
        let counts = (u16::try_from(prepared.columns.len()), u16::try_from(prepared.params.len()));
        let (Ok(columns), Ok(params)) = counts else {
            self.session.close_statement(prepared.id);
            return Err(SqlError::new(1390, b"HY000", "Prepared statement contains too many placeholders"));
        };
        self.prepared.insert(prepared.id, PreparedHere { bound: Bound::default(), shown: info });
        let status = self.session.status();
        self.out.prepared(prepared.id, columns, params);
        if params > 0 {
            self.out.definitions(&ColumnSet::new(&prepared.params), status);
        }
        if columns > 0 {
            self.out.definitions(&ColumnSet::new(&prepared.columns), status);
        }
        Ok(())
    }

    async fn execute(&mut self, id: u32, body: &[u8]) -> Result<(), SqlError> {
        let count = self.session.param_count(id).ok_or_else(|| unknown_statement(id, "mysqld_stmt_execute"))?;
        let PreparedHere { bound, shown } = self.prepared.entry(id).or_default();
        self.process.set_info(shown.clone());
        if bound.overflowed() {
            bound.clear_long_data();
            let what = "Parameter of prepared statement which is set through mysql_send_long_data() is longer than \
                        'max_allowed_packet' bytes";
            return Err(SqlError::new(1105, b"HY000", what));
        }
        let decoded = bound.decode(body, count, self.params).map_err(refuse);
        bound.clear_long_data();
        decoded?;
        self.out.set_binary(true);
        let mut reply = Reply { stream: self.stream, out: self.out };
        let done = self.session.execute(id, self.params, &mut reply).await;
        self.params.clear();
        done?;
        self.check_answered()
    }

    /// All long data of a connection together stays below max_allowed_packet.
    fn long_data(&mut self, id: u32, param: u16, data: &[u8]) {
        if self.session.param_count(id).is_none_or(|count| usize::from(param) >= count) {
            return;
        }
        let others = self.prepared.iter().filter(|(other, _)| **other != id);
        let others: usize = others.map(|(_, here)| here.bound.long_bytes()).sum();
        let limit = self.server.max_allowed_packet.saturating_sub(others);
        self.prepared.entry(id).or_default().bound.append(param, data, limit);
    }

    fn set_option(&mut self, option: u16) -> Result<(), SqlError> {
        match option {
            0 => self.session.set_multi_statements(true),
            1 => self.session.set_multi_statements(false),
            _ => return Err(SqlError::new(1047, b"08S01", "Unknown command")),
        }
        self.out.end_of_definitions(self.session.status());
        Ok(())
    }

    /// COM_FIELD_LIST, by way of preparing a SELECT of the table.
    async fn field_list(&mut self, table: &[u8], wildcard: &[u8]) -> Result<(), SqlError> {
        let table = text(table, "table name")?.replace('`', "``");
        let wildcard = text(wildcard, "wildcard")?.trim_end_matches('\0').to_lowercase();
        let prepared = self.session.prepare(format!("SELECT * FROM `{table}`").as_bytes()).await?;
        self.session.close_statement(prepared.id);
        let mut columns = prepared.columns;
        if !wildcard.is_empty() {
            columns.retain(|column| like(column.name.to_lowercase().as_bytes(), wildcard.as_bytes()));
        }
        self.out.field_list(&columns, self.session.status());
        Ok(())
    }

    fn statistics(&self) -> String {
        let uptime = self.server.started.elapsed().as_secs();
        let questions = self.server.questions.load(Ordering::Relaxed);
        let (threads, _) = self.server.processes.counts();
        let average = questions as f64 / uptime.max(1) as f64;
        format!(
            "Uptime: {uptime}  Threads: {threads}  Questions: {questions}  Slow queries: 0  Opens: 0  Flush tables: 0  \
             Open tables: 0  Queries per second avg: {average:.3}"
        )
    }
}

/// SQL LIKE without escapes, for the wildcard of COM_FIELD_LIST: linear in the text for each `%`.
fn like(text: &[u8], pattern: &[u8]) -> bool {
    let (mut t, mut p, mut retry) = (0, 0, None);
    while t < text.len() {
        match pattern.get(p) {
            Some(b'%') => {
                retry = Some((t, p));
                p += 1;
            }
            Some(c) if *c == b'_' || text.get(t) == Some(c) => (t, p) = (t + 1, p + 1),
            _ => match retry {
                Some((from, at)) => {
                    (t, p) = (from + 1, at + 1);
                    retry = Some((from + 1, at));
                }
                None => return false,
            },
        }
    }
    pattern.get(p..).unwrap_or_default().iter().all(|c| *c == b'%')
}

#[cfg(test)]
mod tests {
    use super::like;

    #[test]
    fn wildcards() {
        assert!(like(b"name", b"n%") && like(b"name", b"_am_") && like(b"", b"%") && like(b"aab", b"%ab"));
        assert!(!like(b"name", b"n") && !like(b"", b"_") && !like(b"abc", b"%d"));
    }
}
