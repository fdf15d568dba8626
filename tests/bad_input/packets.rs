//! Truncated, oversized and garbage packets, before and after the login.

use holdfast_tests::serve::Serve;
use rand::{RngExt, SeedableRng, rngs::StdRng};

use crate::{
    raw::{Raw, login_packet},
    says, still_serves,
};

#[tokio::test]
async fn before_the_login() {
    let folder = tempfile::tempdir().unwrap();
    let server = Serve::new(&folder.path().join("data")).args(["--connect-timeout", "2"]).start();
    let at = &server.mysql;

    let mut raw = Raw::connect(at).await;
    raw.bytes(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
    says("an HTTP request on the MySQL port", &raw.answer().await, &["error 1156", "out of order"]);

    let mut raw = Raw::connect(at).await;
    raw.packet(1, &[0xff; 300]).await;
    says("a login packet of 0xff bytes", &raw.answer().await, &["error 1043", "Bad handshake"]);

    let login = login_packet();
    for cut in [0, 3, 10, 31, 34] {
        let mut raw = Raw::connect(at).await;
        raw.packet(1, &login[..cut]).await;
        says(&format!("a login packet cut to {cut} bytes"), &raw.answer().await, &["error 1043", "Bad handshake"]);
    }

    let mut raw = Raw::connect(at).await;
    raw.bytes(&[100, 0, 0, 1, 0x05, 0xa2]).await;
    raw.end().await;
    says("a login packet that announces 100 bytes, sends 2 and ends", &raw.answer().await, &["closed the connection"]);

    let mut raw = Raw::connect(at).await;
    raw.bytes(&[100, 0, 0, 1, 0x05, 0xa2]).await;
    says("the same, and then silence", &raw.answer().await, &["closed the connection"]);

    let mut raw = Raw::connect(at).await;
    raw.packet(1, &vec![b'x'; 1 << 20]).await;
    says("a login packet of 1 MiB", &raw.answer().await, &["error 1153", "bigger than"]);

    let mut raw = Raw::connect(at).await;
    raw.packet(1, &[0x00, 0x8a, 0x08, 0, 0, 0, 0, 1, 45].iter().copied().chain([0; 23]).collect::<Vec<_>>()).await;
    raw.bytes(b"\x16\x03\x01\x00\x05nohello").await;
    let answer = raw.answer().await;
    says("a request for TLS, then garbage", &answer, &[]);

    println!("\nwhat the server logged:\n{}", server.log());
    assert!(server.log().contains("no login within 2s"), "the silent client is in the log");
    still_serves(&server).await;
}

#[tokio::test]
async fn after_the_login() {
    let folder = tempfile::tempdir().unwrap();
    let server = Serve::new(&folder.path().join("data")).args(["--max-allowed-packet", "1M"]).start();
    let at = &server.mysql;

    let mut raw = Raw::login(at).await;
    raw.packet(0, &[]).await;
    says("an empty command", &raw.answer().await, &["error 1835", "Malformed"]);
    raw.packet(0, &[0xee, 1, 2, 3]).await;
    says("command 0xee", &raw.answer().await, &["error 1047", "Unknown command"]);
    raw.packet(0, &[0x17, 1, 0]).await;
    says("COM_STMT_EXECUTE cut short", &raw.answer().await, &["error 1835", "Malformed"]);
    raw.packet(0, &[0x17, 77, 0, 0, 0, 0, 1, 0, 0, 0]).await;
    says("COM_STMT_EXECUTE of a statement that is not there", &raw.answer().await, &["error 1243", "(77)"]);
    for setup in [&b"\x03CREATE DATABASE d"[..], b"\x03CREATE TABLE d.t (id INT PRIMARY KEY, v VARCHAR(10))"] {
        raw.packet(0, setup).await;
        assert_eq!(raw.receive().await.map(|packet| packet[0]), Some(0), "OK");
    }
    raw.packet(0, b"\x03INSERT INTO d.t VALUES (1, '\xff\xfe\x80')").await;
    says("text that is not UTF-8 for a VARCHAR", &raw.answer().await, &["error 1366", "Incorrect string value"]);
    raw.packet(0, b"\x03SEL\xff\xfe 1").await;
    says("a statement that is not UTF-8", &raw.answer().await, &["error 1064"]);
    raw.packet(0, b"\x02\xff\xfe").await;
    says("COM_INIT_DB with a name that is not UTF-8", &raw.answer().await, &["error"]);

    let mut raw = Raw::login(at).await;
    raw.packet(9, b"\x03SELECT 1").await;
    says("a command with sequence id 9", &raw.answer().await, &["error 1156", "out of order"]);

    let mut raw = Raw::login(at).await;
    let mut query = b"\x03SELECT '".to_vec();
    query.resize(2 << 20, b'x');
    raw.packet(0, &query).await;
    says("a query of 2 MiB with --max-allowed-packet 1M", &raw.answer().await, &["error 1153", "max_allowed_packet"]);
    says("the next answer", &raw.answer().await, &["closed the connection"]);

    let mut raw = Raw::login(at).await;
    raw.bytes(&[50, 0, 0, 0, 3, b'S', b'E']).await;
    raw.end().await;
    says("a query that announces 50 bytes, sends 3 and ends", &raw.answer().await, &["closed the connection"]);
    still_serves(&server).await;
}

/// A prepared statement, then 2,000 packets of noise: commands that exist with bodies that do not fit them.
#[tokio::test]
async fn noise() {
    let folder = tempfile::tempdir().unwrap();
    let server = Serve::new(&folder.path().join("data")).start();
    let mut rng = StdRng::seed_from_u64(11);
    let (mut answers, mut errors, mut ends) = (0, 0, 0);
    for _ in 0..40 {
        let mut raw = Raw::login(&server.mysql).await;
        raw.packet(0, b"\x16SELECT ?, ?").await;
        // The answer, and two definitions each of parameters and columns with an EOF behind them.
        for _ in 0..7 {
            raw.receive().await.expect("the prepared statement");
        }
        for _ in 0..50 {
            // COM_QUIT ends the connection, COM_STMT_SEND_LONG_DATA and COM_STMT_CLOSE have no answer.
            let command = loop {
                let command = rng.random_range(0..0x20_u8);
                if ![0x01, 0x18, 0x19].contains(&command) {
                    break command;
                }
            };
            let mut payload = vec![command];
            if rng.random_bool(0.5) {
                payload.extend_from_slice(&[1, 0, 0, 0]);
            }
            let len = rng.random_range(0..60);
            payload.extend((0..len).map(|_| rng.random::<u8>()));
            raw.packet(0, &payload).await;
            match raw.receive().await {
                Some(packet) if packet.first() == Some(&0xff) => errors += 1,
                Some(packet) if packet.len() > 9 || packet.first() != Some(&0) => {
                    answers += 1;
                    break; // a result of several packets: this client does not read those
                }
                Some(_) => answers += 1,
                None => {
                    ends += 1;
                    break;
                }
            }
        }
    }
    says(
        "noise behind a login",
        &format!("{errors} errors, {answers} other answers, {ends} connections closed by the server"),
        &[],
    );
    assert!(errors > 100, "{errors} errors");
    still_serves(&server).await;
}

#[tokio::test]
async fn on_the_admin_port() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let folder = tempfile::tempdir().unwrap();
    let server = Serve::new(&folder.path().join("data")).start();
    for (what, bytes, expected) in [
        ("binary noise on the admin port", &b"\x00\x01\xff\xfe\r\n\r\n"[..], "400 Bad Request"),
        (
            "a path that does not exist",
            b"GET /nothing HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
            "404 Not Found",
        ),
        (
            "the wrong method",
            b"DELETE /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
            "405 Method Not Allowed",
        ),
    ] {
        let mut stream = tokio::net::TcpStream::connect(&server.admin).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        says(what, &String::from_utf8_lossy(&answer), &[expected]);
    }
    still_serves(&server).await;
}
