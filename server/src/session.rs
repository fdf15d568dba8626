//! SKELETON. One client session: current database, variables, transaction, prepared statements. Owner: exec.
#![allow(clippy::todo, unused_variables, dead_code)]

use std::sync::Arc;

use crate::wire::result::{Column, ResultSink, SqlError};

/// Shared by all sessions: the engine's `Db`, catalog, statement cache, global variables, users, process list.
pub struct Shared(());

impl Shared {
    /// Reads the catalog and makes what all sessions share.
    pub async fn open(parts: crate::backend::Parts) -> Result<Arc<Self>, SqlError> {
        todo!()
    }
}

/// What the connection knows of its client at login.
#[derive(Clone, Debug, Default)]
pub struct Login {
    pub connection_id: u32,
    pub user: String,
    pub host: String,
    pub database: Option<String>,
    pub collation: u16,
    /// CLIENT_FOUND_ROWS: UPDATE counts matched rows.
    pub found_rows: bool,
    pub multi_statements: bool,
    /// TLS cipher and version, for SHOW STATUS.
    pub tls: Option<(String, String)>,
    /// This connection in the process list: KILL is noticed through it.
    pub process: Option<Arc<crate::processlist::Process>>,
}

/// A prepared statement, as COM_STMT_PREPARE answers it.
#[derive(Clone, Debug)]
pub struct Prepared {
    pub id: u32,
    pub params: Vec<Column>,
    pub columns: Vec<Column>,
}

pub struct Session(());

impl Session {
    /// Checks that the database exists (1049).
    pub async fn open(shared: Arc<Shared>, login: Login) -> Result<Self, SqlError> {
        todo!()
    }
    /// COM_QUERY: one or more statements.
    pub async fn query<S: ResultSink>(&mut self, sql: &[u8], sink: &mut S) -> Result<(), SqlError> {
        todo!()
    }
    pub async fn prepare(&mut self, sql: &[u8]) -> Result<Prepared, SqlError> {
        todo!()
    }
    /// COM_STMT_EXECUTE, parameters decoded.
    pub async fn execute<S: ResultSink>(
        &mut self,
        id: u32,
        params: &[crate::sql::value::Value],
        sink: &mut S,
    ) -> Result<(), SqlError> {
        todo!()
    }
    pub fn param_count(&self, id: u32) -> Option<usize> {
        todo!()
    }
    pub fn close_statement(&mut self, id: u32) {
        todo!()
    }
    pub async fn init_db(&mut self, name: &str) -> Result<(), SqlError> {
        todo!()
    }
    /// COM_RESET_CONNECTION, and the first half of COM_CHANGE_USER: roll back, forget variables and statements.
    pub async fn reset(&mut self) -> Result<(), SqlError> {
        todo!()
    }
    /// COM_SET_OPTION: whether a query may hold several statements from now on.
    pub fn set_multi_statements(&mut self, on: bool) {
        todo!()
    }
    /// SERVER_STATUS_* bits: AUTOCOMMIT, IN_TRANS, ...
    pub fn status(&self) -> u16 {
        todo!()
    }
}
