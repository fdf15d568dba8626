//! Packets that no decent client sends: each gets an error or a closed connection, and the server lives on.

use std::time::Duration;

use holdfast_server::wire::consts::cap;
use proptest::{
    prelude::*,
    strategy::ValueTree,
    test_runner::{Config, TestRunner},
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{
    raw::{Raw, error},
    script::{Settings, start, start_with},
};

#[tokio::test]
async fn unknown_and_malformed_commands_get_their_code() {
    let server = start().await;
    let mut raw = Raw::root(&server, 0).await;
    for command in [&[5][..], &[18, 0, 0], &[200], &[16]] {
        assert_eq!(error(&raw.command(command).await).0, 1047, "{command:?}");
    }
    for command in [&[][..], &[25, 1], &[12, 1], &[23, 1, 0], &[27, 1], &[4, b'x']] {
        assert_eq!(error(&raw.command(command).await).0, 1835, "{command:?}");
    }
    assert_eq!(raw.command(b"\x0e").await[0], 0);
}

#[tokio::test]
async fn an_answer_that_a_session_leaves_out_or_garbles_is_an_error() {
    let server = start().await;
    let mut raw = Raw::root(&server, cap::DEPRECATE_EOF).await;
    assert_eq!(error(&raw.command(b"\x03MUTE").await).0, 1105);
    raw.command(b"\x03MISFIT").await;
    for _ in 0..3 {
        raw.read().await.unwrap();
    }
    let (code, message) = error(&raw.read().await.unwrap());
    assert!(code == 1105 && message.contains("1 values for 2 columns"), "{message}");
}

#[tokio::test]
async fn an_oversized_packet_gets_1153_and_the_connection_closes() {
    let server = start_with(Settings { max_allowed_packet: 1 << 20, ..Settings::default() }).await;
    let mut raw = Raw::root(&server, 0).await;
    let sql = [b"\x03LENGTH ".to_vec(), vec![b'x'; (1 << 20) - 8]].concat();
    assert_eq!(raw.command(&sql).await[0], 1, "exactly at the limit");
    for _ in 0..4 {
        raw.read().await.unwrap();
    }
    let (code, _) = error(&raw.command(&[sql, vec![b'x']].concat()).await);
    assert_eq!(code, 1153);
    raw.expect_closed().await;
}

#[tokio::test]
async fn packets_out_of_order_get_1156() {
    let server = start().await;
    let mut raw = Raw::root(&server, 0).await;
    raw.send(7, b"\x0e").await;
    assert_eq!(error(&raw.read().await.unwrap()).0, 1156);
    raw.expect_closed().await;
}

#[tokio::test]
async fn bad_handshakes_are_refused() {
    let server = start().await;
    for packet in [&[][..], &[0; 10], &[0xff; 40], b"GET / HTTP/1.1\r\n\r\n"] {
        let mut raw = Raw::connect(&server).await;
        raw.send(1, packet).await;
        assert_eq!(error(&raw.read().await.unwrap()).0, 1043, "{packet:?}");
        raw.expect_closed().await;
    }
}

#[tokio::test]
async fn a_client_that_never_logs_in_is_dropped() {
    let server = start_with(Settings { connect_timeout: Duration::from_millis(50), ..Settings::default() }).await;
    Raw::connect(&server).await.expect_closed().await;
}

#[tokio::test]
async fn clear_bytes_behind_a_request_for_tls_are_not_taken_as_encrypted() {
    let server = start().await;
    let mut raw = Raw::connect(&server).await;
    let mut bytes = vec![32, 0, 0, 1];
    bytes.extend_from_slice(&(cap::PROTOCOL_41 | cap::SSL).to_le_bytes());
    bytes.extend_from_slice(&[0; 28]);
    bytes.extend_from_slice(&[1, 0, 0, 2, 0]);
    raw.stream.write_all(&bytes).await.unwrap();
    raw.expect_closed().await;
}

/// Random bytes after the login and instead of it. The server may answer or hang up, but it must serve the next client.
#[tokio::test]
async fn garbage_is_survived() {
    let server = start_with(Settings { max_allowed_packet: 4096, ..Settings::default() }).await;
    let mut runner = TestRunner::new(Config::default());
    let framed = prop::collection::vec((0u8..40, prop::collection::vec(any::<u8>(), 0..60)), 1..6);
    let raw_bytes = prop::collection::vec(any::<u8>(), 1..300);
    for round in 0..150 {
        let mut client = match round % 2 {
            0 => Raw::root(&server, cap::DEPRECATE_EOF).await,
            _ => Raw::connect(&server).await,
        };
        let mut bytes = Vec::new();
        if round % 3 == 0 {
            bytes = raw_bytes.new_tree(&mut runner).unwrap().current();
        } else {
            for (command, body) in framed.new_tree(&mut runner).unwrap().current() {
                bytes.extend_from_slice(&[body.len() as u8 + 1, 0, 0, (round % 2) as u8, command]);
                bytes.extend_from_slice(&body);
            }
        }
        // The server may have hung up already.
        let _ = client.stream.write_all(&bytes).await;
        let _ = client.stream.shutdown().await;
        let _ = client.stream.read_to_end(&mut Vec::new()).await;
        assert_eq!(Raw::root(&server, 0).await.command(b"\x0e").await[0], 0, "after {bytes:?}");
    }
}
