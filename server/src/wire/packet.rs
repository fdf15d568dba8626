//! Packet framing: 3-byte length, sequence id, payload; payloads of 16 MiB and more span packets.

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

use super::{codec::Put, consts::MAX_PAYLOAD};

const HEADER: usize = 4;
/// What an idle connection keeps of its read buffer.
const KEEP: usize = 64 << 10;
/// First read size of a connection.
const READ: usize = 8 << 10;

/// Why no packet could be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// Between packets.
    #[error("the client closed the connection")]
    Eof,
    /// Inside a packet.
    #[error("the connection ended inside a packet")]
    Torn,
    /// The two sides disagree on where they are.
    #[error("packet sequence id {got} where {expected} was due")]
    OutOfOrder {
        /// What was due.
        expected: u8,
        /// What came.
        got: u8,
    },
    /// The client is told (1153) before the connection closes; `claimed` is what the header announced so far.
    #[error("a packet of {claimed} bytes is over the limit of {limit}")]
    TooLarge {
        /// Bytes announced so far.
        claimed: usize,
        /// Bytes allowed.
        limit: usize,
        /// Sequence id of the answer.
        seq: u8,
    },
    /// The socket failed.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

/// The receiving half: buffers what the socket gives, and hands out whole messages without copying them, unless they
/// span packets. Memory grows with the bytes that arrive, not with the length that a header claims.
#[derive(Debug)]
pub struct Input {
    buf: BytesMut,
    /// Bytes at the front of `buf` that belong to the message handed out last.
    used: usize,
    /// A message of several packets, put together.
    joined: Vec<u8>,
    /// Sequence id after the last packet read.
    next_seq: u8,
}

/// A command's bytes, and the sequence id that its answer starts with.
#[derive(Clone, Copy, Debug)]
pub struct Packet<'a> {
    /// The payload.
    pub bytes: &'a [u8],
    /// Sequence id of the answer's first packet.
    pub next_seq: u8,
}

impl Default for Input {
    fn default() -> Self {
        Self { buf: BytesMut::with_capacity(READ), used: 0, joined: Vec::new(), next_seq: 0 }
    }
}

impl Input {
    /// Sequence id that the answer to the last message starts with.
    pub fn next_seq(&self) -> u8 {
        self.next_seq
    }
    /// The message handed out last has been dealt with and another whole one waits (a pipelining client).
    pub fn has_next(&self) -> bool {
        let rest = self.buf.get(self.used..).unwrap_or_default();
        matches!(rest.first_chunk::<HEADER>(), Some(&[a, b, c, _])
            if rest.len() - HEADER >= u32::from_le_bytes([a, b, c, 0]) as usize)
    }
    /// Bytes read from the socket past the last message. Before TLS starts there must be none.
    pub fn unread(&self) -> usize {
        self.buf.len() - self.used
    }

    /// Reads one message whose first packet carries sequence id `seq`. Cancel-safe until the message is complete.
    pub async fn read<R: AsyncRead + Unpin>(
        &mut self,
        from: &mut R,
        seq: u8,
        limit: usize,
    ) -> Result<&[u8], ReadError> {
        self.release();
        let (len, mut expected) = self.header(from, seq, 0, limit).await?;
        if len < MAX_PAYLOAD {
            self.fill(from, HEADER + len).await?;
            self.used = HEADER + len;
            self.next_seq = expected;
            return Ok(self.current());
        }
        let mut len = len;
        loop {
            self.fill(from, HEADER + len).await?;
            self.buf.advance(HEADER);
            self.joined.extend_from_slice(&self.buf.split_to(len));
            if len < MAX_PAYLOAD {
                break;
            }
            (len, expected) = self.header(from, expected, self.joined.len(), limit).await?;
        }
        self.next_seq = expected;
        Ok(self.current())
    }

    /// Reads a command: a message that starts over at sequence id zero.
    pub async fn read_command<R: AsyncRead + Unpin>(
        &mut self,
        from: &mut R,
        limit: usize,
    ) -> Result<Packet<'_>, ReadError> {
        let next_seq = {
            self.read(from, 0, limit).await?;
            self.next_seq
        };
        Ok(Packet { bytes: self.current(), next_seq })
    }

    /// The message handed out last.
    fn current(&self) -> &[u8] {
        if self.used == 0 { &self.joined } else { self.buf.get(HEADER..self.used).unwrap_or_default() }
    }

    /// Reads and forgets up to `bytes` bytes, so that a client still sending an oversized packet gets to read its error.
    pub async fn discard<R: AsyncRead + Unpin>(&mut self, from: &mut R, mut bytes: usize) -> std::io::Result<()> {
        loop {
            bytes = bytes.saturating_sub(self.buf.len());
            self.buf.clear();
            if bytes == 0 {
                return Ok(());
            }
            self.buf.reserve(KEEP);
            if from.read_buf(&mut self.buf).await? == 0 {
                return Ok(());
            }
        }
    }

    /// Drops the last message, and the memory that an unusually large one took.
    fn release(&mut self) {
        self.buf.advance(self.used.min(self.buf.len()));
        self.used = 0;
        if self.joined.capacity() > KEEP {
            self.joined = Vec::new();
        }
        self.joined.clear();
        if self.buf.is_empty() && self.buf.capacity() > 4 * KEEP {
            self.buf = BytesMut::with_capacity(READ);
        }
    }

    /// Checks the header at the front of the buffer; returns the packet's length and the sequence id after it.
    async fn header<R: AsyncRead + Unpin>(
        &mut self,
        from: &mut R,
        seq: u8,
        before: usize,
        limit: usize,
    ) -> Result<(usize, u8), ReadError> {
        if self.buf.is_empty() && before == 0 && !self.more(from).await? {
            return Err(ReadError::Eof);
        }
        self.fill(from, HEADER).await?;
        let Some(&[a, b, c, got]) = self.buf.first_chunk::<HEADER>() else { return Err(ReadError::Torn) };
        if got != seq {
            return Err(ReadError::OutOfOrder { expected: seq, got });
        }
        let len = u32::from_le_bytes([a, b, c, 0]) as usize;
        let next = seq.wrapping_add(1);
        if before + len > limit {
            return Err(ReadError::TooLarge { claimed: before + len, limit, seq: next });
        }
        Ok((len, next))
    }

    async fn fill<R: AsyncRead + Unpin>(&mut self, from: &mut R, len: usize) -> Result<(), ReadError> {
        while self.buf.len() < len {
            if !self.more(from).await? {
                return Err(ReadError::Torn);
            }
        }
        Ok(())
    }

    /// One read. The buffer doubles while a message arrives, so memory follows what was really sent.
    async fn more<R: AsyncRead + Unpin>(&mut self, from: &mut R) -> std::io::Result<bool> {
        if self.buf.capacity() == self.buf.len() {
            self.buf.reserve(self.buf.len().clamp(READ, MAX_PAYLOAD));
        }
        Ok(from.read_buf(&mut self.buf).await? > 0)
    }
}

/// Reserves a packet header; returns the packet's position for [`end_packet`].
pub fn begin_packet(buf: &mut Vec<u8>) -> usize {
    let at = buf.len();
    buf.extend_from_slice(&[0; HEADER]);
    at
}

/// Writes length and sequence id of the packet begun at `at`; splits a payload of 16 MiB or more.
pub fn end_packet(buf: &mut Vec<u8>, at: usize, seq: &mut u8) {
    let len = buf.len() - at - HEADER;
    if len < MAX_PAYLOAD {
        put_header(buf, at, len, seq);
        return;
    }
    let payload = buf.split_off(at + HEADER);
    buf.truncate(at);
    buf.reserve(payload.len() + (payload.len() / MAX_PAYLOAD + 1) * HEADER);
    let mut rest = payload.as_slice();
    loop {
        let (head, tail) = rest.split_at(rest.len().min(MAX_PAYLOAD));
        let at = begin_packet(buf);
        buf.extend_from_slice(head);
        put_header(buf, at, head.len(), seq);
        // A payload that ends on the boundary is closed by an empty packet.
        if head.len() < MAX_PAYLOAD {
            return;
        }
        rest = tail;
    }
}

fn put_header(buf: &mut [u8], at: usize, len: usize, seq: &mut u8) {
    let [a, b, c, _] = (len as u32).to_le_bytes();
    if let Some(header) = buf.get_mut(at..at + HEADER) {
        header.copy_from_slice(&[a, b, c, *seq]);
    }
    *seq = seq.wrapping_add(1);
}

/// Appends encoded packets (small ones) and numbers them.
pub fn put_packets(buf: &mut Vec<u8>, packets: &[u8], seq: &mut u8) {
    let mut at = buf.len();
    buf.extend_from_slice(packets);
    while let Some([a, b, c, id]) = buf.get_mut(at..).and_then(|rest| rest.first_chunk_mut::<HEADER>()) {
        *id = *seq;
        *seq = seq.wrapping_add(1);
        at += HEADER + u32::from_le_bytes([*a, *b, *c, 0]) as usize;
    }
}

/// Appends one whole packet.
pub fn put_packet(buf: &mut Vec<u8>, payload: &[u8], seq: &mut u8) {
    let at = begin_packet(buf);
    buf.extend_from_slice(payload);
    end_packet(buf, at, seq);
}

/// Appends an ERR payload (not yet a packet). Before the handshake is answered clients expect no SQLSTATE.
pub fn put_error(buf: &mut Vec<u8>, code: u16, sqlstate: Option<&[u8; 5]>, message: &str) {
    buf.put_u8(0xff);
    buf.put_u16(code);
    if let Some(state) = sqlstate {
        buf.put_u8(b'#');
        buf.extend_from_slice(state);
    }
    // Clients keep 512 bytes.
    let end = message.floor_char_boundary(511);
    buf.extend_from_slice(message.get(..end).unwrap_or_default().as_bytes());
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn block_on<F: Future>(future: F) -> F::Output {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
    }

    fn round_trip(len: usize) {
        let payload: Vec<u8> = (0..len).map(|i| (i * 7) as u8).collect();
        let mut wire = Vec::new();
        let mut seq = 0;
        put_packet(&mut wire, &payload, &mut seq);
        put_packet(&mut wire, b"next", &mut 0);
        block_on(async {
            let mut from = wire.as_slice();
            let mut input = Input::default();
            assert_eq!(input.read(&mut from, 0, 1 << 26).await.unwrap(), payload);
            assert_eq!(input.next_seq(), seq);
            assert_eq!(input.read(&mut from, 0, 1 << 26).await.unwrap(), b"next");
            assert!(matches!(input.read(&mut from, 0, 1 << 26).await, Err(ReadError::Eof)));
        });
    }

    #[test]
    fn payloads_of_every_size_class_round_trip() {
        for len in [0, 1, 250, 70_000, MAX_PAYLOAD - 1, MAX_PAYLOAD, MAX_PAYLOAD + 1, 2 * MAX_PAYLOAD] {
            round_trip(len);
        }
    }

    #[test]
    fn a_claimed_length_over_the_limit_is_refused_before_the_bytes_arrive() {
        block_on(async {
            let mut input = Input::default();
            let mut from: &[u8] = &[0xff, 0xff, 0x7f, 0];
            let refused = input.read(&mut from, 0, 1 << 20).await;
            assert!(matches!(refused, Err(ReadError::TooLarge { claimed: 0x7f_ffff, limit: 1_048_576, seq: 1 })));
            assert!(input.buf.capacity() < 1 << 20);
        });
    }

    #[test]
    fn the_limit_counts_all_packets_of_a_message() {
        let mut wire = Vec::new();
        put_packet(&mut wire, &vec![1; MAX_PAYLOAD + 100], &mut 0);
        block_on(async {
            let refused = Input::default().read(&mut wire.as_slice(), 0, MAX_PAYLOAD + 99).await.map(<[u8]>::len);
            assert!(matches!(refused, Err(ReadError::TooLarge { .. })));
        });
    }

    #[test]
    fn a_wrong_sequence_id_is_out_of_order() {
        block_on(async {
            let mut wire: &[u8] = &[1, 0, 0, 9, 14];
            let got = Input::default().read(&mut wire, 0, 100).await.map(<[u8]>::len);
            assert!(matches!(got, Err(ReadError::OutOfOrder { expected: 0, got: 9 })));
        });
    }

    #[test]
    fn long_error_messages_are_cut_between_characters() {
        let mut out = Vec::new();
        put_error(&mut out, 1064, Some(b"42000"), &"é".repeat(400));
        assert!(out.len() <= 9 + 511);
        assert!(std::str::from_utf8(&out[9..]).is_ok());
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(wire in prop::collection::vec(any::<u8>(), 0..300), limit in 0usize..400) {
            block_on(async {
                let mut from = wire.as_slice();
                let mut input = Input::default();
                while let Ok(message) = input.read(&mut from, 0, limit).await {
                    assert!(message.len() <= limit);
                }
            });
        }

        #[test]
        fn messages_survive_any_fragmentation(sizes in prop::collection::vec(0usize..5000, 1..6), cut in 1usize..200) {
            let mut wire = Vec::new();
            for (i, size) in sizes.iter().enumerate() {
                put_packet(&mut wire, &vec![i as u8; *size], &mut 0);
            }
            block_on(async {
                let (mut tx, mut rx) = tokio::io::duplex(cut);
                let send = async { tokio::io::AsyncWriteExt::write_all(&mut tx, &wire).await.unwrap() };
                let receive = async {
                    let mut input = Input::default();
                    for (i, size) in sizes.iter().enumerate() {
                        assert_eq!(input.read(&mut rx, 0, 1 << 20).await.unwrap(), vec![i as u8; *size]);
                    }
                };
                tokio::join!(send, receive);
            });
        }
    }
}
