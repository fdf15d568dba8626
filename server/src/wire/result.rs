//! SKELETON. Writes OK, ERR and result sets into the connection's one write buffer. Owner: the wire.

use bytes::Bytes;

use crate::sql::value::Value;

/// MySQL column type bytes as the protocol numbers them (MYSQL_TYPE_LONG = 3, ...), plus what a client sees of a column.
#[derive(Clone, Debug, Default)]
pub struct Column {
    pub schema: String,
    pub table: String,
    pub org_table: String,
    pub name: String,
    pub org_name: String,
    pub type_byte: u8,
    pub flags: u16,
    /// Collation id (63 = binary).
    pub collation: u16,
    pub length: u32,
    pub decimals: u8,
}

/// How a statement ended, for OK packets. Status flags and warnings count come from the session.
#[derive(Clone, Copy, Debug, Default)]
pub struct Done {
    pub affected_rows: u64,
    pub last_insert_id: u64,
    pub warnings: u16,
}

/// An error for the client: MySQL code, SQLSTATE, message.
#[derive(Clone, Debug, thiserror::Error)]
#[error("ERROR {code} ({}): {message}", String::from_utf8_lossy(sqlstate))]
pub struct SqlError {
    pub code: u16,
    pub sqlstate: [u8; 5],
    pub message: String,
    /// The connection must be closed after this error (rule 12, KILL, shutdown).
    pub fatal: bool,
}

/// Where a session writes results. The connection implements it over its buffer; text or binary rows as the command asks.
/// Calls per statement: either `ok`, or `columns`, any number of `row`, `end`. Errors are returned, not written.
#[allow(async_fn_in_trait)]
pub trait ResultSink: Send {
    fn ok(&mut self, done: Done, status: u16, info: &str);
    /// `encoded` is the cached column definitions of a prepared or cached statement, if the session has them.
    fn columns(&mut self, columns: &[Column], status: u16);
    fn row(&mut self, values: &[Value]);
    fn end(&mut self, done: Done, status: u16);
    /// More results follow this one (multi-statements): sets SERVER_MORE_RESULTS_EXISTS in the next `ok`/`end`.
    fn more_results(&mut self, more: bool);
    /// Flushes to the socket when the buffer is over its bound: call it every few hundred rows of a large result.
    fn flush(&mut self) -> impl Future<Output = std::io::Result<()>> + Send;
}

/// Raw bytes of a statement parameter set, decoded by the wire into values.
pub type Params<'a> = &'a [Value];

/// Kept so that the skeleton compiles alone.
pub type Raw = Bytes;
