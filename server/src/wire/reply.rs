//! The answer to one command: the connection's one growing write buffer, and the result sink over it.

use std::{io, task::Poll, time::Duration};

use tokio::io::{AsyncWrite, AsyncWriteExt};

use super::{
    codec::Put,
    consts::{cap, status as bits},
    packet::{begin_packet, end_packet, put_error, put_packet, put_packets},
    result::{Column, ColumnSet, Done, ResultSink, SqlError},
    row::RowWriter,
};

/// A large result is sent in pieces of about this size.
const FLUSH_AT: usize = 64 << 10;
/// What an idle connection keeps of its write buffer.
const KEEP: usize = 256 << 10;
/// A client that takes none of its answer for this long loses its connection.
const WRITE_TIMEOUT: Duration = Duration::from_secs(60);

/// What is to be sent, and the state that the encoding of answers depends on.
#[derive(Debug, Default)]
pub struct Output {
    pub(super) buf: Vec<u8>,
    seq: u8,
    /// Capabilities that both sides have.
    capabilities: u32,
    binary: bool,
    more: bool,
    answered: bool,
    /// Columns of the open result set.
    columns: ColumnSet,
    /// A row did not fit its columns: the result must not end as if all were well.
    fault: Option<String>,
}

impl Output {
    /// What both sides have, from the login packet.
    pub fn set_capabilities(&mut self, capabilities: u32) {
        self.capabilities = capabilities;
    }
    /// Starts the answer to a command. `seq` follows the command's last packet.
    pub fn begin(&mut self, seq: u8, binary: bool) {
        self.seq = seq;
        self.binary = binary;
        self.more = false;
        self.answered = false;
        self.fault = None;
    }
    /// Rows of COM_STMT_EXECUTE are binary.
    pub fn set_binary(&mut self, binary: bool) {
        self.binary = binary;
    }
    /// Sequence id of the next packet of this answer, or of the client's next one in a login exchange.
    pub fn next_seq(&self) -> u8 {
        self.seq
    }
    /// Whether anything was written since [`Output::begin`].
    pub fn answered(&self) -> bool {
        self.answered
    }
    /// COM_STMT_PREPARE's first packet; [`Output::definitions`] of parameters, then of columns, follow.
    pub fn prepared(&mut self, id: u32, columns: u16, params: u16) {
        let at = begin_packet(&mut self.buf);
        self.buf.put_u8(0);
        self.buf.put_u32(id);
        self.buf.put_u16(columns);
        self.buf.put_u16(params);
        self.buf.put_u8(0);
        self.buf.put_u16(0);
        end_packet(&mut self.buf, at, &mut self.seq);
    }
    /// COM_SET_OPTION's answer: EOF, or the OK that stands for it.
    pub fn end_of_definitions(&mut self, status: u16) {
        if self.capabilities & cap::DEPRECATE_EOF == 0 {
            self.eof(0, status);
        } else {
            self.ok_packet(0xfe, Done::default(), status, "");
        }
    }
    /// Any payload.
    pub fn packet(&mut self, payload: &[u8]) {
        put_packet(&mut self.buf, payload, &mut self.seq);
    }
    /// An ERR packet.
    pub fn error(&mut self, error: &SqlError) {
        self.answered = true;
        let at = begin_packet(&mut self.buf);
        put_error(&mut self.buf, error.code, Some(&error.sqlstate), &error.message);
        end_packet(&mut self.buf, at, &mut self.seq);
    }
    /// An error before the client has told its capabilities: no SQLSTATE, as clients expect there.
    pub fn early_error(&mut self, error: &SqlError) {
        let at = begin_packet(&mut self.buf);
        put_error(&mut self.buf, error.code, None, &error.message);
        end_packet(&mut self.buf, at, &mut self.seq);
    }
    /// An OK packet.
    pub fn ok(&mut self, done: Done, status: u16, info: &str) {
        self.ok_packet(0, done, status, info);
    }
    /// Column definitions of a prepared statement, or of COM_FIELD_LIST, with the EOF that old clients want after them.
    pub fn definitions(&mut self, columns: &ColumnSet, status: u16) {
        put_packets(&mut self.buf, columns.packets(), &mut self.seq);
        if self.capabilities & cap::DEPRECATE_EOF == 0 {
            self.eof(0, status);
        }
    }
    /// COM_FIELD_LIST: definitions with default values (always NULL here), closed by EOF whatever the capabilities.
    pub fn field_list(&mut self, columns: &[Column], status: u16) {
        for column in columns {
            let at = begin_packet(&mut self.buf);
            column.encode(&mut self.buf);
            self.buf.put_u8(0xfb);
            end_packet(&mut self.buf, at, &mut self.seq);
        }
        self.eof(0, status);
    }
    /// Bytes of an answer that another node made.
    pub fn relayed(&mut self, bytes: &[u8]) {
        self.answered = true;
        self.buf.extend_from_slice(bytes);
    }
    /// Sends what there is if it is a large piece: the client need not wait for the whole answer.
    pub async fn send_much<W: AsyncWrite + Unpin>(&mut self, to: &mut W) -> io::Result<()> {
        if self.buf.len() >= FLUSH_AT { self.send(to).await } else { Ok(()) }
    }
    /// Whether nothing waits to be sent.
    pub fn is_empty(&self) -> bool {
        self.buf.is_empty()
    }

    /// Sends everything, in one write where the socket takes it.
    pub async fn send<W: AsyncWrite + Unpin>(&mut self, to: &mut W) -> io::Result<()> {
        if self.buf.is_empty() {
            return Ok(());
        }
        let mut rest = self.buf.as_slice();
        while !rest.is_empty() {
            let wrote = within(to.write(rest)).await?;
            if wrote == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            rest = rest.get(wrote..).unwrap_or_default();
        }
        within(to.flush()).await?;
        self.buf.clear();
        self.buf.shrink_to(KEEP);
        Ok(())
    }

    fn flags(&self, status: u16) -> u16 {
        if self.more { status | bits::MORE_RESULTS } else { status }
    }
    fn ok_packet(&mut self, header: u8, done: Done, status: u16, info: &str) {
        let status = self.flags(status);
        self.answered = true;
        let at = begin_packet(&mut self.buf);
        self.buf.put_u8(header);
        self.buf.put_lenenc(done.affected_rows);
        self.buf.put_lenenc(done.last_insert_id);
        self.buf.put_u16(status);
        self.buf.put_u16(done.warnings);
        if !info.is_empty() {
            self.buf.put_lenenc_bytes(info.as_bytes());
        }
        end_packet(&mut self.buf, at, &mut self.seq);
    }
    fn eof(&mut self, warnings: u16, status: u16) {
        self.answered = true;
        let status = self.flags(status);
        let at = begin_packet(&mut self.buf);
        self.buf.put_u8(0xfe);
        self.buf.put_u16(warnings);
        self.buf.put_u16(status);
        end_packet(&mut self.buf, at, &mut self.seq);
    }
}

/// Bounds an operation of the socket by [`WRITE_TIMEOUT`], without a timer if it is done at once.
pub(crate) async fn within<T>(operation: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    let mut operation = std::pin::pin!(operation);
    if let Poll::Ready(done) = futures::poll!(operation.as_mut()) {
        return done;
    }
    tokio::time::timeout(WRITE_TIMEOUT, operation)
        .await
        .unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::TimedOut, "the client reads nothing")))
}

/// [`ResultSink`] over a connection.
#[derive(Debug)]
pub struct Reply<'a, W> {
    /// Where the answer goes.
    pub stream: &'a mut W,
    /// The connection's buffer.
    pub out: &'a mut Output,
}

impl<W: AsyncWrite + Unpin + Send> ResultSink for Reply<'_, W> {
    fn ok(&mut self, done: Done, status: u16, info: &str) {
        self.out.ok(done, status, info);
    }

    fn column_set(&mut self, columns: &ColumnSet, status: u16) {
        let out = &mut *self.out;
        let at = begin_packet(&mut out.buf);
        out.buf.put_lenenc(columns.len() as u64);
        end_packet(&mut out.buf, at, &mut out.seq);
        put_packets(&mut out.buf, columns.packets(), &mut out.seq);
        if out.capabilities & cap::DEPRECATE_EOF == 0 {
            out.eof(0, status);
        }
        out.columns = columns.clone();
    }

    fn row_writer(&mut self) -> RowWriter<'_> {
        let Output { buf, seq, fault, columns, binary, .. } = &mut *self.out;
        RowWriter::new(buf, seq, fault, columns.formats(), *binary)
    }

    fn end(&mut self, done: Done, status: u16) {
        if let Some(fault) = self.out.fault.take() {
            tracing::error!(fault, "a result row does not fit its columns");
            self.out.error(&SqlError::new(1105, b"HY000", format!("result encoding: {fault}")));
            return;
        }
        if self.out.capabilities & cap::DEPRECATE_EOF != 0 {
            self.out.ok_packet(0xfe, done, status, "");
        } else {
            self.out.eof(done.warnings, status);
        }
    }

    fn more_results(&mut self, more: bool) {
        self.out.more = more;
    }

    async fn flush(&mut self) -> io::Result<()> {
        self.out.send_much(self.stream).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{sql::value::Value, wire::consts::ty};

    fn answer(capabilities: u32, f: impl FnOnce(&mut Reply<'_, Vec<u8>>)) -> Vec<u8> {
        let mut out = Output::default();
        out.set_capabilities(capabilities);
        out.begin(1, false);
        f(&mut Reply { stream: &mut Vec::new(), out: &mut out });
        out.buf
    }

    #[test]
    fn ok_carries_counts_status_and_info() {
        let done = Done { affected_rows: 300, last_insert_id: 7, warnings: 1 };
        let bytes = answer(0, |r| r.ok(done, bits::AUTOCOMMIT | bits::IN_TRANS, "hi"));
        assert_eq!(bytes, [12, 0, 0, 1, 0, 0xfc, 44, 1, 7, 3, 0, 1, 0, 2, b'h', b'i']);
    }

    #[test]
    fn a_result_set_ends_with_eof_or_ok_as_agreed() {
        let rows = |r: &mut Reply<'_, Vec<u8>>| {
            r.more_results(true);
            r.columns(&[Column { name: "a".into(), type_byte: ty::LONGLONG, ..Column::default() }], 2);
            r.row(&[Value::Int(5)]);
            r.end(Done::default(), 2);
        };
        let old = answer(0, rows);
        assert_eq!(&old[..5], &[1, 0, 0, 1, 1]);
        assert_eq!(
            old[old.len() - 24..],
            [5, 0, 0, 3, 0xfe, 0, 0, 10, 0, 2, 0, 0, 4, 1, b'5', 5, 0, 0, 5, 0xfe, 0, 0, 10, 0]
        );
        let new = answer(cap::DEPRECATE_EOF, rows);
        assert_eq!(new[new.len() - 17..], [2, 0, 0, 3, 1, b'5', 7, 0, 0, 4, 0xfe, 0, 0, 10, 0, 0, 0]);
    }

    #[test]
    fn a_row_that_does_not_fit_ends_the_result_with_an_error() {
        let bytes = answer(cap::DEPRECATE_EOF, |r| {
            r.columns(&[Column { type_byte: ty::LONG, ..Column::default() }], 2);
            r.row(&[]);
            r.end(Done::default(), 2);
        });
        let text = String::from_utf8_lossy(&bytes);
        assert!(text.contains("HY000result encoding: a row has 0 values for 1 columns"), "{text}");
    }
}
