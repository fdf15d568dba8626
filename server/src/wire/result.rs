//! What a session answers with: columns, OK, errors, and the sink it writes result sets into.

use std::sync::Arc;

use super::{
    codec::Put,
    consts::{BINARY_COLLATION, flag},
    packet::{begin_packet, end_packet},
    row::{ColumnFormat, RowWriter},
};
use crate::sql::value::Value;

/// What a client sees of a column.
#[derive(Clone, Debug, Default)]
pub struct Column {
    /// Database.
    pub schema: String,
    /// Table, or its alias.
    pub table: String,
    /// Table.
    pub org_table: String,
    /// Name, or alias.
    pub name: String,
    /// Name in the table.
    pub org_name: String,
    /// MYSQL_TYPE_*, see [`super::consts::ty`].
    pub type_byte: u8,
    /// See [`super::consts::flag`].
    pub flags: u16,
    /// Collation id (63 = binary).
    pub collation: u16,
    /// Display length in bytes.
    pub length: u32,
    /// Digits after the point; 31 = not fixed.
    pub decimals: u8,
}

impl Column {
    /// Appends the column definition's payload. `default` is appended for COM_FIELD_LIST only.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.put_lenenc_bytes(b"def");
        out.put_lenenc_bytes(self.schema.as_bytes());
        out.put_lenenc_bytes(self.table.as_bytes());
        out.put_lenenc_bytes(self.org_table.as_bytes());
        out.put_lenenc_bytes(self.name.as_bytes());
        out.put_lenenc_bytes(self.org_name.as_bytes());
        out.put_u8(0x0c);
        out.put_u16(self.collation);
        out.put_u32(self.length);
        out.put_u8(self.type_byte);
        out.put_u16(self.flags);
        out.put_u8(self.decimals);
        out.put_u16(0);
    }

    /// A statement parameter of a type not known yet, as MySQL describes it.
    pub fn parameter() -> Self {
        Self {
            name: "?".into(),
            type_byte: super::consts::ty::VAR_STRING,
            flags: flag::BINARY,
            collation: BINARY_COLLATION,
            ..Self::default()
        }
    }
}

/// The column definitions of a result, encoded once and kept with the statement. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct ColumnSet(Arc<ColumnSetInner>);

#[derive(Debug, Default)]
struct ColumnSetInner {
    formats: Vec<ColumnFormat>,
    /// Column-definition packets, headers included, with sequence ids still zero.
    packets: Vec<u8>,
}

impl ColumnSet {
    /// Encodes the definitions.
    pub fn new(columns: &[Column]) -> Self {
        let mut packets = Vec::with_capacity(columns.len() * 64);
        for column in columns {
            let at = begin_packet(&mut packets);
            column.encode(&mut packets);
            let mut unused = 0;
            end_packet(&mut packets, at, &mut unused);
        }
        Self(Arc::new(ColumnSetInner { formats: columns.iter().map(ColumnFormat::of).collect(), packets }))
    }
    /// Number of columns.
    pub fn len(&self) -> usize {
        self.0.formats.len()
    }
    /// Whether there is no column.
    pub fn is_empty(&self) -> bool {
        self.0.formats.is_empty()
    }
    pub(super) fn formats(&self) -> &[ColumnFormat] {
        &self.0.formats
    }
    pub(super) fn packets(&self) -> &[u8] {
        &self.0.packets
    }
}

/// How a statement ended, for OK packets. Status flags and warnings count come from the session.
#[derive(Clone, Copy, Debug, Default)]
pub struct Done {
    /// Rows changed, or matched under CLIENT_FOUND_ROWS.
    pub affected_rows: u64,
    /// First generated AUTO_INCREMENT value, else 0.
    pub last_insert_id: u64,
    /// For SHOW WARNINGS.
    pub warnings: u16,
}

/// An error for the client: MySQL code, SQLSTATE, message.
#[derive(Clone, Debug, thiserror::Error)]
#[error("ERROR {code} ({}): {message}", String::from_utf8_lossy(sqlstate))]
pub struct SqlError {
    /// MySQL error number.
    pub code: u16,
    /// Five characters.
    pub sqlstate: [u8; 5],
    /// Text for humans; cut to 511 bytes on the wire.
    pub message: String,
    /// The connection must be closed after this error (rule 12, KILL, shutdown).
    pub fatal: bool,
}

impl SqlError {
    /// An error after which the connection goes on.
    pub fn new(code: u16, sqlstate: &[u8; 5], message: impl Into<String>) -> Self {
        Self { code, sqlstate: *sqlstate, message: message.into(), fatal: false }
    }
    /// The same error, after which the connection closes.
    pub fn fatal(mut self) -> Self {
        self.fatal = true;
        self
    }
}

/// Where a session writes results: text or binary rows, as the command asks.
///
/// Calls per statement: either `ok`, or `columns` (or `column_set`), any number of rows, `end`. Errors are returned from
/// the session, not written; an error after `columns` ends the result set, as in MySQL.
pub trait ResultSink: Send {
    /// A statement without a result set.
    fn ok(&mut self, done: Done, status: u16, info: &str);
    /// Starts a result set. Statements that run often keep a [`ColumnSet`] and call `column_set`.
    fn columns(&mut self, columns: &[Column], status: u16) {
        self.column_set(&ColumnSet::new(columns), status);
    }
    /// Starts a result set whose definitions are encoded already.
    fn column_set(&mut self, columns: &ColumnSet, status: u16);
    /// Starts a row; give it one value per column, then `finish`. Saves building a `Value` for each cell.
    fn row_writer(&mut self) -> RowWriter<'_>;
    /// A whole row.
    fn row(&mut self, values: &[Value]) {
        let mut row = self.row_writer();
        for value in values {
            row.value(value);
        }
        row.finish();
    }
    /// Ends the result set.
    fn end(&mut self, done: Done, status: u16);
    /// More results follow (multi-statements): sets SERVER_MORE_RESULTS_EXISTS in every `columns`/`ok`/`end` until cleared.
    fn more_results(&mut self, more: bool);
    /// Sends what is buffered if it is over the buffer's bound: call it every few hundred rows of a large result.
    fn flush(&mut self) -> impl Future<Output = std::io::Result<()>> + Send;
}
