//! Commands and their answers.

use mysql_async::{Conn, Opts, OptsBuilder, Row, Value, prelude::Queryable};

use crate::{
    raw::{Raw, error},
    script::{Running, Settings, start, start_with},
};
use holdfast_server::{
    processlist::Kill,
    wire::consts::{cap, com},
};

async fn connect(server: &Running) -> Conn {
    let opts = OptsBuilder::default()
        .ip_or_hostname("127.0.0.1")
        .tcp_port(server.addr.port())
        .user(Some("root"))
        .prefer_socket(false)
        .client_found_rows(true)
        .max_allowed_packet(Some(64 << 20))
        .wait_timeout(Some(100));
    Conn::new(Opts::from(opts)).await.unwrap()
}

#[tokio::test]
async fn ok_packets_carry_counts_and_the_transaction_flag() {
    let server = start().await;
    let mut conn = connect(&server).await;
    conn.query_drop("BEGIN").await.unwrap();
    assert_eq!((conn.affected_rows(), conn.last_insert_id(), conn.get_warnings()), (1, Some(7), 2));
    assert_eq!(conn.info(), "info");
    let mut raw = Raw::root(&server, cap::DEPRECATE_EOF).await;
    assert_eq!(raw.command(b"\x03BEGIN").await, [0, 1, 7, 3, 0, 2, 0, 4, b'i', b'n', b'f', b'o']);
    assert_eq!(raw.command(b"\x03COMMIT").await[3], 2);
}

#[tokio::test]
async fn the_session_learns_the_clients_wishes() {
    let server = start().await;
    let shown: Option<String> = connect(&server).await.query_first("LOGIN").await.unwrap();
    assert_eq!(shown.unwrap(), "root||true||true");
    let mut raw = Raw::root(&server, 0).await;
    assert_eq!(raw.command(b"\x1b\x00\x00").await, [0xfe, 0, 0, 2, 0]);
    raw.send(0, b"\x03LOGIN").await;
    let mut packets = Vec::new();
    for _ in 0..5 {
        packets.push(raw.read().await.unwrap());
    }
    assert_eq!(&packets[3][1..], b"root||false||true");
    assert_eq!(packets[4], [0xfe, 0, 0, 2, 0]);
}

#[tokio::test]
async fn several_results_of_one_query_all_arrive() {
    let server = start().await;
    let mut conn = connect(&server).await;
    let mut result = conn.query_iter("TWO").await.unwrap();
    assert_eq!(result.collect::<u64>().await.unwrap(), [1]);
    assert_eq!(result.collect::<u64>().await.unwrap(), [2]);
}

#[tokio::test]
async fn prepared_statements_echo_every_parameter_type() {
    let server = start().await;
    let mut conn = connect(&server).await;
    let params = vec![
        Value::NULL,
        Value::Int(-1),
        Value::UInt(u64::MAX),
        Value::Double(2.5),
        Value::Bytes(b"text".to_vec()),
        Value::Date(2024, 2, 29, 23, 59, 58, 7),
        Value::Time(true, 1, 2, 3, 4, 0),
    ];
    let statement = conn.prep("ECHO ? ? ? ? ? ? ?").await.unwrap();
    assert_eq!((statement.num_params(), statement.num_columns()), (7, 2));
    for _ in 0..2 {
        let row: Option<Row> = conn.exec_first(&statement, params.clone()).await.unwrap();
        assert_eq!(row.unwrap().unwrap(), params);
    }
    conn.close(statement).await.unwrap();
}

#[tokio::test]
async fn long_data_reaches_the_statement() {
    let server = start().await;
    let mut raw = Raw::root(&server, cap::DEPRECATE_EOF).await;
    assert_eq!(raw.command(b"\x16ECHO ?").await[..9], [0, 1, 0, 0, 0, 2, 0, 1, 0]);
    for _ in 0..3 {
        raw.read().await.unwrap();
    }
    for part in [&b"long "[..], b"data"] {
        raw.send(0, &[&[24, 1, 0, 0, 0, 0, 0], part].concat()).await;
    }
    raw.send(0, &[23, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 252, 0]).await;
    for _ in 0..2 {
        raw.read().await.unwrap();
    }
    assert_eq!(raw.read().await.unwrap(), b"\x00\x00\x09long data");
    raw.read().await.unwrap();
    assert_eq!(error(&raw.command(&[28, 1, 0, 0, 0, 9, 0, 0, 0]).await).0, 1421, "no cursor is open");
    assert_eq!(raw.command(&[26, 1, 0, 0, 0]).await[0], 0);
    assert_eq!(error(&raw.command(&[23, 9, 0, 0, 0, 0, 1, 0, 0, 0]).await).0, 1243);
}

#[tokio::test]
async fn reset_connection_forgets_and_init_db_checks() {
    let server = start().await;
    let mut raw = Raw::root(&server, 0).await;
    raw.command(b"\x03BEGIN").await;
    assert_eq!(raw.command(&[com::RESET_CONNECTION]).await, [0, 0, 0, 2, 0, 0, 0]);
    assert_eq!(raw.command(b"\x02shop").await[0], 0);
    assert_eq!(error(&raw.command(b"\x02nowhere").await).0, 1049);
    assert!(raw.command(&[com::STATISTICS]).await.starts_with(b"Uptime: "));
    assert_eq!(server.processes.rows()[0].database.as_deref(), Some("shop"));
}

#[tokio::test]
async fn field_list_describes_matching_columns() {
    let server = start().await;
    let mut raw = Raw::root(&server, 0).await;
    let column = raw.command(b"\x04orders\0n_me").await;
    assert!(column.windows(4).any(|w| w == b"name"));
    assert_eq!(raw.read().await.unwrap()[0], 0xfe);
}

#[tokio::test]
async fn large_rows_and_large_results_arrive_whole() {
    let server = start().await;
    let mut conn = connect(&server).await;
    let rows: Vec<String> = conn.query("BIG 3 17000000").await.unwrap();
    assert!(rows.len() == 3 && rows.iter().all(|row| row.len() == 17_000_000));
    let rows: Vec<String> = conn.query("BIG 20000 100").await.unwrap();
    assert_eq!(rows.len(), 20_000);
    let length: Option<u64> = conn.query_first(format!("LENGTH {}", "y".repeat(20_000_000))).await.unwrap();
    assert_eq!(length, Some(20_000_000));
}

#[tokio::test]
async fn pipelined_commands_are_answered_in_order() {
    let server = start().await;
    let mut raw = Raw::root(&server, 0).await;
    for n in 0..50 {
        raw.send(0, if n % 2 == 0 { b"\x0e" } else { b"\x03NOPE" }).await;
    }
    for n in 0..50 {
        assert_eq!(raw.read().await.unwrap()[0], if n % 2 == 0 { 0 } else { 0xff });
    }
}

#[tokio::test]
async fn kill_query_ends_the_statement_and_kill_connection_the_client() {
    let server = start().await;
    let mut victim = Raw::root(&server, 0).await;
    victim.send(0, b"\x03WAIT").await;
    let id = loop {
        let rows = server.processes.rows();
        match rows.iter().find(|row| row.info.as_deref() == Some("WAIT")) {
            Some(row) => break row.id,
            None => tokio::task::yield_now().await,
        }
    };
    server.processes.kill(0, id.into(), Kill::Query).unwrap();
    assert_eq!(error(&victim.read().await.unwrap()).0, 1317);
    assert_eq!(victim.command(b"\x0e").await[0], 0, "the connection lives on");

    let mut other = Raw::root(&server, 0).await;
    let mut kill = vec![com::PROCESS_KILL];
    kill.extend_from_slice(&id.to_le_bytes());
    assert_eq!(other.command(&kill).await[0], 0);
    victim.expect_closed().await;
    assert_eq!(error(&other.command(&[com::PROCESS_KILL, 0xff, 0xff, 0, 0]).await).0, 1094);
}

#[tokio::test]
async fn the_connection_over_the_limit_gets_1040() {
    let server = start_with(Settings { max_connections: 1, ..Settings::default() }).await;
    let first = Raw::root(&server, 0).await;
    let mut second = Raw { stream: tokio::net::TcpStream::connect(server.addr).await.unwrap(), seq: 0 };
    let (code, message) = error(&second.read().await.unwrap());
    assert_eq!((code, message.as_str()), (1040, "Too many connections"));
    second.expect_closed().await;
    drop(first);
}

#[tokio::test]
async fn drain_closes_idle_clients_and_waits_for_transactions() {
    let server = start().await;
    let mut idle = Raw::root(&server, 0).await;
    let mut busy = Raw::root(&server, 0).await;
    busy.command(b"\x03BEGIN").await;
    let processes = server.processes.clone();
    let drain = tokio::spawn(async move { processes.drain(std::time::Duration::from_secs(60)).await });
    idle.expect_closed().await;
    assert_eq!(busy.command(b"\x03COMMIT").await[0], 0);
    busy.expect_closed().await;
    assert_eq!(drain.await.unwrap(), 0);
}
