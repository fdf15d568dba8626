//! The statements of sysbench's OLTP workloads, prepared and as text.

use holdfast_server::sql::value::Value;

use crate::harness::Server;

const CREATE: &str = "CREATE TABLE sbtest1(\n  id INTEGER NOT NULL AUTO_INCREMENT,\n  k INTEGER DEFAULT '0' NOT NULL,\n  c CHAR(120) DEFAULT '' NOT NULL,\n  pad CHAR(60) DEFAULT '' NOT NULL,\n  PRIMARY KEY (id)\n) /*! ENGINE = innodb */ ";

async fn load(rows: usize) -> (Server, crate::harness::Client) {
    let server = Server::start().await;
    let mut c = server.client().await;
    c.ok(CREATE).await;
    for chunk in (1..=rows).collect::<Vec<_>>().chunks(500) {
        let values: Vec<String> =
            chunk.iter().map(|i| format!("({}, '{:04}-row', 'pad-{i}')", i % 100, rows - i)).collect();
        let done = c.ok(&format!("INSERT INTO sbtest1(k, c, pad) VALUES{}", values.join(", "))).await;
        assert_eq!(done.affected, chunk.len() as u64);
    }
    c.ok("CREATE INDEX k_1 ON sbtest1(k)").await;
    (server, c)
}

#[tokio::test]
async fn prepare_then_every_statement_as_text() {
    let (_server, mut c) = load(1200).await;
    assert_eq!(c.rows("SELECT COUNT(*), MIN(id), MAX(id) FROM sbtest1").await, "1200,1,1200");
    assert_eq!(c.rows("SELECT c FROM sbtest1 WHERE id=600").await, "0600-row");
    assert_eq!(c.rows("SELECT c FROM sbtest1 WHERE id BETWEEN 10 AND 12").await, "1190-row | 1189-row | 1188-row");
    assert_eq!(c.rows("SELECT SUM(k) FROM sbtest1 WHERE id BETWEEN 1 AND 100").await, "4950");
    let ordered = c.rows("SELECT c FROM sbtest1 WHERE id BETWEEN 10 AND 12 ORDER BY c").await;
    assert_eq!(ordered, "1188-row | 1189-row | 1190-row");
    let distinct = c.rows("SELECT DISTINCT c FROM sbtest1 WHERE id BETWEEN 10 AND 12 ORDER BY c").await;
    assert_eq!(distinct, ordered);
    assert_eq!(c.ok("UPDATE sbtest1 SET k=k+1 WHERE id=7").await.affected, 1);
    assert_eq!(c.rows("SELECT id FROM sbtest1 WHERE k=8 AND id<100").await, "7 | 8");
    assert_eq!(c.ok("UPDATE sbtest1 SET c='new' WHERE id=7").await.info, "Rows matched: 1  Changed: 1  Warnings: 0");
    assert_eq!(c.ok("DELETE FROM sbtest1 WHERE id=7").await.affected, 1);
    assert_eq!(c.ok("INSERT INTO sbtest1 (id, k, c, pad) VALUES (7, 3, 'c', 'p')").await.affected, 1);
    assert_eq!(
        c.rows("SELECT k FROM sbtest1 WHERE k BETWEEN 2 AND 3 AND id < 50 ORDER BY k").await,
        "2,3,3".replace(',', " | ")
    );
    assert_eq!(c.rows("CHECK TABLE sbtest1").await, "t.sbtest1,check,status,OK");
}

#[tokio::test]
async fn every_statement_prepared_in_one_transaction() {
    let (_server, mut c) = load(300).await;
    let i = Value::Int;
    c.execute("BEGIN", &[]).await.unwrap();
    for id in [5i64, 250] {
        let got = c.execute("SELECT c FROM sbtest1 WHERE id=?", &[i(id)]).await.unwrap();
        assert_eq!(got.rows, [[Some(format!("{:04}-row", 300 - id))]]);
    }
    let got = c.execute("SELECT SUM(k) FROM sbtest1 WHERE id BETWEEN ? AND ?", &[i(1), i(10)]).await.unwrap();
    assert_eq!(got.rows, [[Some("55".to_owned())]]);
    let got =
        c.execute("SELECT DISTINCT c FROM sbtest1 WHERE id BETWEEN ? AND ? ORDER BY c", &[i(1), i(3)]).await.unwrap();
    assert_eq!(got.rows.len(), 3);
    assert_eq!(c.execute("UPDATE sbtest1 SET k=k+1 WHERE id=?", &[i(5)]).await.unwrap().affected, 1);
    assert_eq!(c.execute("UPDATE sbtest1 SET c=? WHERE id=?", &[Value::from("x"), i(5)]).await.unwrap().affected, 1);
    assert_eq!(c.execute("DELETE FROM sbtest1 WHERE id=?", &[i(5)]).await.unwrap().affected, 1);
    let insert = "INSERT INTO sbtest1 (id, k, c, pad) VALUES (?, ?, ?, ?)";
    let params = [i(5), i(42), Value::from("c"), Value::from("pad")];
    assert_eq!(c.execute(insert, &params).await.unwrap().affected, 1);
    c.execute("COMMIT", &[]).await.unwrap();
    assert_eq!(c.rows("SELECT * FROM sbtest1 WHERE id=5").await, "5,42,c,pad");
    assert_eq!(c.rows("CHECK TABLE sbtest1").await, "t.sbtest1,check,status,OK");
}

#[tokio::test]
async fn rows_indexes_and_counters_survive_a_restart() {
    let (server, c) = load(700).await;
    drop(c);
    let server = server.restart().await;
    let mut c = server.client().await;
    assert_eq!(c.rows("SELECT COUNT(*) FROM sbtest1 WHERE k=5").await, "7");
    assert_eq!(c.ok("INSERT INTO sbtest1(k) VALUES (1)").await.last_insert_id, 701);
    assert_eq!(c.rows("CHECK TABLE sbtest1").await, "t.sbtest1,check,status,OK");
}
