//! A client of raw packets, for what no decent client would send.

use holdfast_server::wire::consts::cap;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::script::Running;

pub struct Raw {
    pub stream: TcpStream,
    pub seq: u8,
}

impl Raw {
    /// Connects and reads the greeting.
    pub async fn connect(server: &Running) -> Self {
        let mut raw = Self { stream: TcpStream::connect(server.addr).await.unwrap(), seq: 0 };
        assert_eq!(raw.read().await.unwrap()[0], 10, "protocol 10 greeting");
        raw
    }

    /// Connects and logs in as root.
    pub async fn root(server: &Running, capabilities: u32) -> Self {
        let mut raw = Self::connect(server).await;
        raw.send(1, &login_packet("root", capabilities)).await;
        let ok = raw.read().await.unwrap();
        assert_eq!(ok[0], 0, "login: {}", String::from_utf8_lossy(&ok));
        raw
    }

    pub async fn send(&mut self, seq: u8, payload: &[u8]) {
        let mut bytes = (payload.len() as u32).to_le_bytes()[..3].to_vec();
        bytes.push(seq);
        bytes.extend_from_slice(payload);
        self.stream.write_all(&bytes).await.unwrap();
    }

    /// One packet's payload, or `None` when the server closed the connection.
    pub async fn read(&mut self) -> Option<Vec<u8>> {
        let mut header = [0; 4];
        self.stream.read_exact(&mut header).await.ok()?;
        self.seq = header[3];
        let mut payload = vec![0; u32::from_le_bytes([header[0], header[1], header[2], 0]) as usize];
        self.stream.read_exact(&mut payload).await.ok()?;
        Some(payload)
    }

    /// Sends a command; returns the first packet of its answer.
    pub async fn command(&mut self, payload: &[u8]) -> Vec<u8> {
        self.send(0, payload).await;
        self.read().await.expect("an answer")
    }

    pub async fn expect_closed(&mut self) {
        assert_eq!(self.read().await, None, "the server should have closed the connection");
    }
}

pub fn login_packet(user: &str, capabilities: u32) -> Vec<u8> {
    let mut packet = (cap::PROTOCOL_41 | cap::SECURE_CONNECTION | capabilities).to_le_bytes().to_vec();
    packet.extend_from_slice(&(1u32 << 24).to_le_bytes());
    packet.push(255);
    packet.extend_from_slice(&[0; 23]);
    packet.extend_from_slice(user.as_bytes());
    packet.extend_from_slice(&[0, 0]);
    packet
}

/// Code and message of an ERR packet.
pub fn error(payload: &[u8]) -> (u16, String) {
    assert_eq!(payload[0], 0xff, "an error was expected: {}", String::from_utf8_lossy(payload));
    (u16::from_le_bytes([payload[1], payload[2]]), String::from_utf8_lossy(&payload[3..]).into_owned())
}
