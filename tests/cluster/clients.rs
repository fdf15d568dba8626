//! The mariadb command line and sysbench through a follower that forwards.

use std::process::Command;

use mysql_async::prelude::Queryable;

use crate::forward::{connect, forwarding};

/// Runs a client program to its end; what it printed.
async fn run(mut command: Command) -> String {
    let out = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
    let text = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert!(out.status.success(), "{text}");
    text
}

const SCRIPT: &str = "
CREATE DATABASE shop; USE shop;
CREATE TABLE item (id INT PRIMARY KEY AUTO_INCREMENT, name VARCHAR(20), price DECIMAL(8,2));
INSERT INTO item (name, price) VALUES ('anchor', 120.50), ('rope', 9.99);
SET @factor = 2;
UPDATE item SET price = price * @factor WHERE name = 'rope';
START TRANSACTION; DELETE FROM item; SELECT COUNT(*) FROM item; ROLLBACK;
START TRANSACTION; INSERT INTO item (name) VALUES ('sail'); COMMIT;
PREPARE one FROM 'SELECT name, price FROM item WHERE id = ?';
SET @id = 2; EXECUTE one USING @id; DEALLOCATE PREPARE one;
SELECT COUNT(*), LAST_INSERT_ID() FROM item;
";

#[tokio::test(flavor = "multi_thread")]
async fn the_mariadb_client_writes_through_a_follower() {
    let (cluster, _, follower, _authority) = forwarding(&[]).await;
    let port = cluster.node(follower).mysql_port().to_string();
    let client = |sql: &str| {
        let mut command = Command::new("mariadb");
        command.args(["-h", "127.0.0.1", "-P", &port, "-u", "root", "--skip-ssl", "-N", "-B", "-e", sql]);
        command
    };
    let printed = run(client(SCRIPT)).await;
    assert_eq!(printed, "0\nrope\t19.98\n3\t3\n");
    // Another session, on the follower itself, sees it at once.
    assert_eq!(run(client("SELECT COUNT(*) FROM shop.item")).await, "3\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn sysbench_runs_through_a_follower() {
    let (cluster, leader, follower, _authority) = forwarding(&[]).await;
    let port = format!("--mysql-port={}", cluster.node(follower).mysql_port());
    let mut conn = connect(&cluster, follower).await;
    for mode in ["auto", "disable"] {
        conn.query_drop(format!("CREATE DATABASE sb_{mode}")).await.unwrap();
        let sysbench = |verb: &str| {
            let mut command = Command::new("sysbench");
            command.args([
                "oltp_read_write",
                "--db-driver=mysql",
                "--mysql-host=127.0.0.1",
                &port,
                "--mysql-user=root",
            ]);
            command.args([&format!("--mysql-db=sb_{mode}"), &format!("--db-ps-mode={mode}")]);
            command.args(["--tables=1", "--table-size=10000", "--rand-type=uniform", "--threads=2", "--time=3", verb]);
            command
        };
        run(sysbench("prepare")).await;
        let report = run(sysbench("run")).await;
        let figure = |name: &str| -> u64 {
            let line = report.lines().find_map(|line| line.trim().strip_prefix(name)).expect("a figure");
            line.split_whitespace().next().and_then(|n| n.parse().ok()).expect("a number")
        };
        assert_eq!((figure("ignored errors:"), figure("reconnects:")), (0, 0), "{mode}: {report}");
        assert!(figure("transactions:") > 0 && !report.contains("FATAL"), "{mode}: {report}");
        let mut at_leader = connect(&cluster, leader).await;
        let rows: Option<u64> = at_leader.query_first(format!("SELECT COUNT(*) FROM sb_{mode}.sbtest1")).await.unwrap();
        assert_eq!(rows, Some(10_000));
        at_leader.disconnect().await.unwrap();
    }
    conn.disconnect().await.unwrap();
}
