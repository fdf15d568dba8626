//! `--forward-writes`: sessions on a follower move to the leader when they write, with all that they have, and end with it.
//! Between the nodes there is TLS.

use holdfast_tests::{authority::Authority, cluster::Cluster};
use mysql_async::{ChangeUserOpts, Conn, Error, Row, prelude::Queryable};

/// Three nodes with TLS between them that forward; the leader's number and a follower's.
pub async fn forwarding(more: &[&str]) -> (Cluster, u64, u64, Authority) {
    let authority = Authority::new("127.0.0.1");
    let tls = authority.flags();
    let mut flags: Vec<&str> = tls.iter().map(String::as_str).collect();
    flags.extend(["--memory-cache", "16M", "--forward-writes"]);
    flags.extend(more);
    let cluster = Cluster::start(&flags).await;
    let leader = cluster.leader().await;
    let follower = (1..=3).find(|id| *id != leader).unwrap();
    (cluster, leader, follower, authority)
}

pub async fn connect(cluster: &Cluster, id: u64) -> Conn {
    Conn::from_url(cluster.node(id).url("")).await.unwrap()
}

async fn number(conn: &mut Conn, sql: &str) -> Option<u64> {
    conn.query_first(sql).await.unwrap()
}

/// Which node answers.
async fn place(conn: &mut Conn) -> u64 {
    number(conn, "SELECT @@holdfast_node_id").await.unwrap()
}

pub fn code(error: &Error) -> Option<u16> {
    match error {
        Error::Server(error) => Some(error.code),
        _ => None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_moves_with_all_that_it_has() {
    let (cluster, leader, follower, _authority) = forwarding(&[]).await;
    let mut conn = connect(&cluster, follower).await;
    conn.query_drop("CREATE DATABASE shop").await.unwrap();
    assert_eq!(place(&mut conn).await, leader, "DDL moves the session, and it stays");
    conn.query_drop("CREATE TABLE shop.t (id INT PRIMARY KEY AUTO_INCREMENT, s VARCHAR(40), n DECIMAL(10,2))")
        .await
        .unwrap();

    let mut conn = connect(&cluster, follower).await;
    conn.query_drop("USE shop").await.unwrap();
    conn.query_drop("SET @s = 'é', @n = 12.50, @nothing = NULL, time_zone = '+03:00'").await.unwrap();
    conn.query_drop("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED").await.unwrap();
    conn.query_drop("SET sql_mode = 'ANSI_QUOTES'").await.unwrap();
    conn.query_drop("PREPARE put FROM 'INSERT INTO \"t\" (s, n) VALUES (?, ?)'").await.unwrap();
    conn.query_drop("SET sql_mode = ''").await.unwrap();
    let get = conn.prep("SELECT s FROM t WHERE id = ?").await.unwrap();
    let put = conn.prep("INSERT INTO t (id, s) VALUES (?, ?)").await.unwrap();
    let found: Option<String> = conn.exec_first(&get, (7,)).await.unwrap();
    assert_eq!((found, place(&mut conn).await), (None, follower), "reads stay");
    for stays in ["SET autocommit = 1", "START TRANSACTION READ ONLY", "SELECT COUNT(*) FROM t", "COMMIT", "SET @x = 1"]
    {
        conn.query_drop(stays).await.unwrap();
        assert_eq!(place(&mut conn).await, follower, "{stays}");
    }
    conn.query_drop("EXECUTE put USING @s, @n").await.unwrap();
    assert_eq!((place(&mut conn).await, number(&mut conn, "SELECT LAST_INSERT_ID()").await), (leader, Some(1)));
    let kept: Option<(String, String, Option<u64>, String, String, String)> =
        conn.query_first("SELECT @s, @n, @nothing, @@time_zone, @@transaction_isolation, DATABASE()").await.unwrap();
    let (s, n, nothing, zone, isolation, database) = kept.unwrap();
    assert_eq!((s.as_str(), n.as_str(), nothing), ("é", "12.50", None));
    assert_eq!((zone.as_str(), isolation.as_str(), database.as_str()), ("+03:00", "READ-COMMITTED", "shop"));
    // Statements prepared before keep their numbers, and new ones follow.
    conn.exec_drop(&put, (7, "seven")).await.unwrap();
    assert_eq!(conn.exec_first(&get, (7,)).await.unwrap(), Some("seven".to_owned()));
    let count = conn.prep("SELECT COUNT(*) FROM t WHERE id > ?").await.unwrap();
    assert!(count.id() > put.id());
    assert_eq!(conn.exec_first(&count, (0,)).await.unwrap(), Some(2_u64));

    // Transactions, errors, and one's own writes.
    conn.query_drop("BEGIN").await.unwrap();
    conn.query_drop("UPDATE t SET s = 'changed'").await.unwrap();
    assert_eq!(number(&mut conn, "SELECT COUNT(*) FROM t WHERE s = 'changed'").await, Some(2));
    conn.query_drop("ROLLBACK").await.unwrap();
    assert_eq!(number(&mut conn, "SELECT COUNT(*) FROM t WHERE s = 'changed'").await, Some(0));
    let twice = conn.exec_drop(&put, (7, "again")).await.unwrap_err();
    assert_eq!(code(&twice), Some(1062));
    let rows: Vec<(u32, String)> = conn.query("SELECT id, s FROM t ORDER BY id").await.unwrap();
    assert_eq!(rows, [(1, "é".to_owned()), (7, "seven".to_owned())]);
    shown_on_both_sides(&cluster, leader, follower, &conn).await;

    // A connection that begins anew does so where it is, in its database.
    conn.query_drop("CREATE DATABASE other").await.unwrap();
    conn.query_drop("USE other").await.unwrap();
    assert!(conn.reset().await.unwrap());
    let here: Option<(u64, String, Option<String>)> =
        conn.query_first("SELECT @@holdfast_node_id, DATABASE(), @s").await.unwrap();
    assert_eq!(here, Some((follower, "other".to_owned(), None)));
    conn.query_drop("INSERT INTO shop.t (s) VALUES ('back')").await.unwrap();
    assert_eq!(place(&mut conn).await, leader);
    conn.change_user(ChangeUserOpts::default()).await.unwrap();
    assert_eq!((place(&mut conn).await, number(&mut conn, "SELECT COUNT(*) FROM shop.t").await), (follower, Some(3)));
    conn.disconnect().await.unwrap();
}

/// Both nodes show the session, and the counters count it.
async fn shown_on_both_sides(cluster: &Cluster, leader: u64, follower: u64, conn: &Conn) {
    let mut at_follower = connect(cluster, follower).await;
    let list = format!("SELECT STATE, DB FROM information_schema.PROCESSLIST WHERE ID = {}", conn.id());
    let row: Option<(String, Option<String>)> = at_follower.query_first(list).await.unwrap();
    assert_eq!(row, Some((format!("forwarded to node {leader}"), Some("shop".to_owned()))));
    let mut at_leader = connect(cluster, leader).await;
    let rows: Vec<Row> = at_leader.query("SHOW PROCESSLIST").await.unwrap();
    let states: Vec<String> = rows.iter().filter_map(|row| row.get("State")).collect();
    assert!(states.contains(&format!("held for node {follower}")), "{states:?}");
    let value = |row: Option<(String, u64)>| row.map_or(0, |(_, n)| n);
    let forwarded = at_follower.query_first("SHOW STATUS LIKE 'Holdfast_sessions_forwarded'").await.unwrap();
    let hosted = at_leader.query_first("SHOW STATUS LIKE 'Holdfast_sessions_hosted'").await.unwrap();
    assert!(value(forwarded) >= 1 && value(hosted) >= 1);
    for conn in [at_follower, at_leader] {
        conn.disconnect().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn kill_reaches_the_leader_and_its_limit_reaches_the_client() {
    let (mut cluster, leader, follower, _authority) = forwarding(&["--max-connections", "6"]).await;
    let mut at_leader = connect(&cluster, leader).await;
    at_leader.query_drop("CREATE DATABASE d").await.unwrap();
    at_leader.query_drop("CREATE TABLE d.t (id INT PRIMARY KEY, n INT)").await.unwrap();
    at_leader.query_drop("INSERT INTO d.t VALUES (1, 0)").await.unwrap();
    at_leader.query_drop("BEGIN").await.unwrap();
    at_leader.query_drop("UPDATE d.t SET n = 1").await.unwrap();

    // KILL QUERY on the follower, where the client's connection is, interrupts the statement on the leader.
    let mut killer = connect(&cluster, follower).await;
    let mut moved = connect(&cluster, follower).await;
    let id = moved.id();
    let waiting = tokio::spawn(async move {
        let killed = moved.query_drop("UPDATE d.t SET n = 2").await.unwrap_err();
        (moved, killed)
    });
    let busy = "SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE STATE LIKE 'executing for node%'";
    while number(&mut at_leader, busy).await != Some(1) {
        tokio::task::yield_now().await;
    }
    killer.query_drop(format!("KILL QUERY {id}")).await.unwrap();
    let (mut moved, killed) = waiting.await.unwrap();
    assert_eq!(code(&killed), Some(1317), "{killed}");
    assert_eq!(number(&mut moved, "SELECT n FROM d.t").await, Some(0));

    // KILL of the connection ends both of its halves, and its locks are free.
    moved.query_drop("INSERT INTO d.t VALUES (2, 0)").await.unwrap();
    moved.query_drop("BEGIN").await.unwrap();
    moved.query_drop("UPDATE d.t SET n = 5 WHERE id = 2").await.unwrap();
    killer.query_drop(format!("KILL {id}")).await.unwrap();
    assert!(moved.query_drop("SELECT 1").await.is_err());
    at_leader.query_drop("UPDATE d.t SET n = 6 WHERE id = 2").await.unwrap();
    at_leader.query_drop("COMMIT").await.unwrap();
    let hosted = "SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE STATE LIKE '%for node%'";
    while number(&mut at_leader, hosted).await != Some(0) {
        tokio::task::yield_now().await;
    }

    // The leader's limit counts sessions that come from followers; one that does not fit stays where it is.
    let mut others = Vec::new();
    while let Ok(conn) = Conn::from_url(cluster.node(leader).url("")).await {
        others.push(conn);
        assert!(others.len() < 10, "no limit");
    }
    let full = killer.query_drop("INSERT INTO d.t VALUES (3, 0)").await.unwrap_err();
    assert_eq!((code(&full), place(&mut killer).await), (Some(1040), follower));
    drop(others);
    while let Err(error) = killer.query_drop("INSERT INTO d.t VALUES (3, 0)").await {
        assert_eq!(code(&error), Some(1040), "{error}");
    }
    assert_eq!(place(&mut killer).await, leader);

    // A follower that is told to stop ends what it has forwarded, on both sides.
    let server = cluster.take(follower);
    assert_eq!(tokio::task::spawn_blocking(move || server.terminate()).await.unwrap(), Some(0));
    while number(&mut at_leader, hosted).await != Some(0) {
        tokio::task::yield_now().await;
    }
    assert!(killer.query_drop("SELECT 1").await.is_err());
    at_leader.disconnect().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn texts_of_several_statements_run_on_one_side() {
    let (cluster, leader, follower, _authority) = forwarding(&[]).await;
    let mut conn = connect(&cluster, follower).await;
    let answers: Vec<u64> = conn.query("SELECT 1; SELECT @@holdfast_node_id").await.unwrap();
    assert_eq!((answers, place(&mut conn).await), (vec![1], follower));
    conn.query_drop(
        "SELECT 1; CREATE DATABASE d; CREATE TABLE d.t (id INT PRIMARY KEY); INSERT INTO d.t VALUES (1), (2)",
    )
    .await
    .unwrap();
    assert_eq!((place(&mut conn).await, number(&mut conn, "SELECT COUNT(*) FROM d.t").await), (leader, Some(2)));
    for (moves, undo) in [
        ("SET autocommit = 0", "SET autocommit = 1"),
        ("BEGIN", "COMMIT"),
        ("SELECT * FROM d.t FOR UPDATE", "DO 1"),
        ("SELECT 1; DELETE FROM d.t WHERE id = 9", "DO 1"),
        ("PREPARE s FROM 'DELETE FROM d.t WHERE id = 9'; EXECUTE s", "DO 1"),
    ] {
        let mut conn = connect(&cluster, follower).await;
        conn.query_drop(moves).await.unwrap();
        conn.query_drop(undo).await.unwrap();
        assert_eq!(place(&mut conn).await, leader, "{moves}");
        conn.disconnect().await.unwrap();
    }
    // Nothing waits for the client in vain: an error ends the text where it runs.
    let error = conn.query_drop("INSERT INTO d.t VALUES (3); INSERT INTO d.t VALUES (3); SELECT 1").await.unwrap_err();
    assert_eq!((code(&error), number(&mut conn, "SELECT COUNT(*) FROM d.t").await), (Some(1062), Some(3)));
    conn.disconnect().await.unwrap();
}

/// Connects to a node, or another, until a write goes through.
async fn write_again(cluster: &Cluster, id: u64, sql: &str) -> Conn {
    loop {
        let Ok(mut conn) = Conn::from_url(cluster.node(id).url("")).await else { continue };
        match conn.query_drop(sql).await {
            Ok(()) => return conn,
            // No leader within the bound, or one that went at that moment.
            Err(error) => assert!(matches!(code(&error), None | Some(1290 | 1180 | 1053 | 1105)), "{error}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_goes_takes_the_session_with_it_and_no_row() {
    let (mut cluster, leader, follower, _authority) = forwarding(&[]).await;
    let mut conn = connect(&cluster, follower).await;
    conn.query_drop("CREATE DATABASE d").await.unwrap();
    conn.query_drop("CREATE TABLE d.t (id INT PRIMARY KEY)").await.unwrap();
    let mut idle = connect(&cluster, follower).await;
    idle.query_drop("INSERT INTO d.t VALUES (0)").await.unwrap();
    let victim = cluster.take(leader);
    let (mut acked, mut victim) = (1, Some(victim));
    let lost = loop {
        if acked == 100
            && let Some(victim) = victim.take()
        {
            victim.kill();
        }
        match conn.query_drop(format!("INSERT INTO d.t VALUES ({acked})")).await {
            Ok(()) => acked += 1,
            Err(error) => break error,
        }
        assert!(acked < 10_000, "the session outlived its leader");
    };
    assert!(acked >= 100, "{lost}");
    assert_eq!(code(&lost), None, "an unknown outcome closes the connection: {lost}");
    assert!(idle.query_drop("SELECT 1").await.is_err(), "an idle session ends as well");

    let mut conn = write_again(&cluster, follower, "INSERT INTO d.t VALUES (-1)").await;
    let rows: Vec<i64> = conn.query("SELECT id FROM d.t WHERE id >= 0 ORDER BY id").await.unwrap();
    assert!(rows.len() >= acked, "{acked} rows were acknowledged and {} are there", rows.len());
    assert!(rows.iter().enumerate().all(|(n, id)| n as i64 == *id), "{rows:?}");

    // Handed over: the same, without a word in between.
    cluster.restart(leader).await;
    let leads = cluster.leader().await;
    let other = (1..=3).find(|id| *id != leads).unwrap();
    let mut conn2 = write_again(&cluster, other, "INSERT INTO d.t VALUES (-2)").await;
    assert_eq!(place(&mut conn2).await, leads);
    cluster.node(leads).admin("failover").await;
    while conn2.query_drop("SELECT 1").await.is_ok() {
        tokio::task::yield_now().await;
    }
    let conn2 = write_again(&cluster, other, "INSERT INTO d.t VALUES (-3)").await;
    drop((conn, conn2));

    // Without a majority a statement that never left gets an error, and its session lives on.
    let leads = cluster.leader().await;
    let alone = (1..=3).find(|id| *id != leads).unwrap();
    let mut conn = connect(&cluster, alone).await;
    let others: Vec<u64> = (1..=3).filter(|id| *id != alone).collect();
    for id in others {
        cluster.take(id).kill();
    }
    let refused = conn.query_drop("INSERT INTO d.t VALUES (-4)").await.unwrap_err();
    assert!(code(&refused) == Some(1290) && refused.to_string().contains("could not be forwarded"), "{refused}");
    conn.ping().await.unwrap();
}
