//! A MySQL client that sends whatever it is told to.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// Longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(20);
/// PROTOCOL_41, SECURE_CONNECTION, PLUGIN_AUTH.
const CAPABILITIES: u32 = 0x0008_8200;

/// A raw connection.
pub struct Raw {
    stream: TcpStream,
}

impl Raw {
    /// Connects and reads the greeting.
    pub async fn connect(address: &str) -> Self {
        let stream = TcpStream::connect(address).await.expect("connect");
        let mut raw = Self { stream };
        let greeting = raw.receive().await.expect("greeting");
        assert_eq!(greeting[0], 10, "protocol version");
        raw
    }

    /// Connects and logs in as root without a password.
    pub async fn login(address: &str) -> Self {
        let mut raw = Self::connect(address).await;
        raw.packet(1, &login_packet()).await;
        let answer = raw.receive().await.expect("an answer to the login");
        assert_eq!(answer[0], 0, "OK: {answer:?}");
        raw
    }

    /// Sends bytes as they are. The server may have hung up already.
    pub async fn bytes(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes).await;
    }

    /// Sends one packet.
    pub async fn packet(&mut self, seq: u8, payload: &[u8]) {
        let mut packet = (payload.len() as u32).to_le_bytes().to_vec();
        packet[3] = seq;
        packet.extend_from_slice(payload);
        self.bytes(&packet).await;
    }

    /// No more bytes will follow.
    pub async fn end(&mut self) {
        let _ = self.stream.shutdown().await;
    }

    /// The next packet; `None` if the server closed the connection instead.
    pub async fn receive(&mut self) -> Option<Vec<u8>> {
        tokio::time::timeout(PATIENCE, self.read()).await.expect("an answer, or the end of the connection").ok()
    }

    async fn read(&mut self) -> std::io::Result<Vec<u8>> {
        let mut header = [0; 4];
        self.stream.read_exact(&mut header).await?;
        header[3] = 0;
        let mut payload = vec![0; u32::from_le_bytes(header) as usize];
        self.stream.read_exact(&mut payload).await?;
        Ok(payload)
    }

    /// What the server answers, in words.
    pub async fn answer(&mut self) -> String {
        match self.receive().await {
            None => "the server closed the connection".to_owned(),
            Some(packet) if packet.first() == Some(&0xff) && packet.len() > 3 => {
                let code = u16::from_le_bytes([packet[1], packet[2]]);
                format!("error {code}: {}", String::from_utf8_lossy(&packet[3..]))
            }
            Some(packet) => format!("a packet of {} bytes, first {:?}", packet.len(), packet.first()),
        }
    }
}

/// A login of root, without a password.
pub fn login_packet() -> Vec<u8> {
    let mut packet = CAPABILITIES.to_le_bytes().to_vec();
    packet.extend_from_slice(&(16_u32 << 20).to_le_bytes());
    packet.push(45);
    packet.extend_from_slice(&[0; 23]);
    packet.extend_from_slice(b"root\0\0mysql_native_password\0");
    packet
}
