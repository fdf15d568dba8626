//! Transactions of several sessions: isolation, locks, deadlock, statement rollback, schema changes beside them.

use holdfast_server::{session::Login, wire::consts::status};

use crate::harness::{Client, Server};

async fn two() -> (Server, Client, Client) {
    let server = Server::start().await;
    let mut a = server.client().await;
    a.ok("CREATE TABLE a (id INT PRIMARY KEY, n INT, u INT UNIQUE)").await;
    a.ok("INSERT INTO a VALUES (1, 1, 1), (2, 2, 2), (3, 3, 3)").await;
    let b = server.client().await;
    (server, a, b)
}

#[tokio::test]
async fn commit_rollback_and_savepoints() {
    let (_server, mut a, mut b) = two().await;
    assert_eq!(a.ok("BEGIN").await.status, status::AUTOCOMMIT | status::IN_TRANS);
    a.ok("UPDATE a SET n = 10 WHERE id = 1").await;
    assert_eq!(b.rows("SELECT n FROM a WHERE id = 1").await, "1");
    assert_eq!(a.rows("SELECT n FROM a WHERE id = 1").await, "10");
    a.ok("SAVEPOINT s").await;
    a.ok("DELETE FROM a").await;
    assert_eq!(a.rows("SELECT COUNT(*) FROM a").await, "0");
    a.ok("ROLLBACK TO s").await;
    assert_eq!(a.rows("SELECT COUNT(*) FROM a").await, "3");
    assert_eq!(a.err("ROLLBACK TO nope").await, 1305);
    assert_eq!(a.err("INSERT INTO a VALUES (4, 4, 4), (5, 5, 3)").await, 1062);
    assert_eq!(a.ok("COMMIT").await.status, status::AUTOCOMMIT);
    assert_eq!(b.rows("SELECT id, n FROM a ORDER BY id").await, "1,10 | 2,2 | 3,3");
    b.ok("SET autocommit = 0").await;
    b.ok("DELETE FROM a WHERE id = 1").await;
    b.ok("ROLLBACK").await;
    b.ok("DELETE FROM a WHERE id = 2").await;
    b.ok("SET autocommit = 1").await;
    assert_eq!(a.rows("SELECT id FROM a ORDER BY id").await, "1 | 3");
}

#[tokio::test]
async fn repeatable_read_and_read_committed() {
    let (_server, mut a, mut b) = two().await;
    a.ok("START TRANSACTION WITH CONSISTENT SNAPSHOT").await;
    b.ok("UPDATE a SET n = 100 WHERE id = 1").await;
    assert_eq!(a.rows("SELECT n FROM a WHERE id = 1").await, "1");
    assert_eq!(a.rows("SELECT n FROM a WHERE id = 1 FOR UPDATE").await, "100", "a locking read is current");
    a.ok("UPDATE a SET n = n + 1 WHERE id = 1").await;
    assert_eq!(a.rows("SELECT n FROM a WHERE id = 1").await, "101");
    a.ok("COMMIT").await;
    a.ok("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED").await;
    a.ok("BEGIN").await;
    assert_eq!(a.rows("SELECT n FROM a WHERE id = 2").await, "2");
    b.ok("UPDATE a SET n = 200 WHERE id = 2").await;
    assert_eq!(a.rows("SELECT n FROM a WHERE id = 2").await, "200");
    a.ok("COMMIT").await;
}

#[tokio::test]
async fn locks_wait_time_out_and_skip() {
    let (_server, mut a, mut b) = two().await;
    b.ok("SET innodb_lock_wait_timeout = 1").await;
    a.ok("BEGIN").await;
    a.ok("UPDATE a SET n = 9 WHERE id = 1").await;
    b.ok("BEGIN").await;
    b.ok("UPDATE a SET n = 8 WHERE id = 2").await;
    assert_eq!(b.err("UPDATE a SET n = 8 WHERE id = 1").await, 1205);
    assert_eq!(b.rows("SELECT n FROM a WHERE id = 2").await, "8", "only the statement is undone");
    assert_eq!(b.err("SELECT * FROM a WHERE id = 1 FOR UPDATE NOWAIT").await, 3572);
    assert_eq!(b.rows("SELECT id FROM a FOR UPDATE SKIP LOCKED").await, "2 | 3");
    assert_eq!(b.err("INSERT INTO a VALUES (1, 0, 0)").await, 1205);
    a.ok("COMMIT").await;
    b.ok("UPDATE a SET n = n + 1 WHERE id = 1").await;
    b.ok("COMMIT").await;
    assert_eq!(a.rows("SELECT id, n FROM a WHERE id < 3").await, "1,10 | 2,8");
}

#[tokio::test]
async fn a_deadlock_has_one_victim() {
    let (_server, mut a, mut b) = two().await;
    a.ok("BEGIN").await;
    b.ok("BEGIN").await;
    a.ok("UPDATE a SET n = 0 WHERE id = 1").await;
    b.ok("UPDATE a SET n = 0 WHERE id = 2").await;
    let (x, y) = tokio::join!(a.run("UPDATE a SET n = 5 WHERE id = 2"), b.run("UPDATE a SET n = 5 WHERE id = 1"));
    let codes: Vec<u16> = [&x, &y].iter().filter_map(|r| r.as_ref().err()).map(|e| e.code).collect();
    assert_eq!(codes, [1213]);
    let (victim, winner) = if x.is_err() { (&mut a, &mut b) } else { (&mut b, &mut a) };
    assert_eq!(victim.ok("SELECT 1").await.status & status::IN_TRANS, 0, "the victim's transaction is gone");
    winner.ok("COMMIT").await;
    assert_eq!(victim.rows("SELECT SUM(n) FROM a WHERE id < 3").await, "5");
}

#[tokio::test]
async fn read_only_transactions_refuse_writes() {
    let (_server, mut a, _b) = two().await;
    a.ok("START TRANSACTION READ ONLY").await;
    assert_eq!(a.err("DELETE FROM a").await, 1792);
    assert_eq!(a.rows("SELECT COUNT(*) FROM a").await, "3");
    a.ok("COMMIT").await;
    a.ok("SET TRANSACTION READ ONLY").await;
    a.ok("BEGIN").await;
    assert_eq!(a.err("DELETE FROM a").await, 1792);
    a.ok("ROLLBACK").await;
    a.ok("BEGIN").await;
    a.ok("DELETE FROM a WHERE id = 1").await;
    assert_eq!(a.err("SET TRANSACTION READ ONLY").await, 1568);
    a.ok("ROLLBACK").await;
}

#[tokio::test]
async fn schema_changes_wait_for_transactions_and_commit_their_own() {
    let (_server, mut a, mut b) = two().await;
    a.ok("BEGIN").await;
    a.ok("UPDATE a SET n = 7 WHERE id = 1").await;
    b.ok("SET lock_wait_timeout = 1").await;
    assert_eq!(b.err("DROP TABLE a").await, 1205);
    // A schema change commits the session's own transaction first.
    a.ok("CREATE TABLE other (id INT)").await;
    assert_eq!(b.rows("SELECT n FROM a WHERE id = 1").await, "7");
    b.ok("DROP TABLE a").await;
    assert_eq!(a.err("UPDATE a SET n = 1").await, 1146);
}

#[tokio::test]
async fn prepared_statements_follow_schema_changes() {
    let (_server, mut a, mut b) = two().await;
    let prepared = a.session.prepare(b"SELECT * FROM a WHERE id = 1").await.unwrap();
    assert_eq!(a.execute_id(prepared.id, &[]).await.unwrap().rows[0].len(), 3);
    b.ok("ALTER TABLE a ADD COLUMN x INT DEFAULT 5").await;
    assert_eq!(a.execute_id(prepared.id, &[]).await.unwrap().rows[0].len(), 4);
    b.ok("DROP TABLE a").await;
    assert_eq!(a.execute_id(prepared.id, &[]).await.unwrap_err().code, 1146);
}

#[tokio::test]
async fn hot_row_increments_are_never_lost() {
    let server = Server::start().await;
    let mut c = server.client().await;
    c.ok("CREATE TABLE a (id INT PRIMARY KEY, n INT)").await;
    c.ok("INSERT INTO a VALUES (1, 0)").await;
    let mut tasks = Vec::new();
    for _ in 0..8 {
        let mut c = server.client().await;
        tasks.push(tokio::spawn(async move {
            for _ in 0..25 {
                c.ok("UPDATE a SET n = n + 1 WHERE id = 1").await;
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(c.rows("SELECT n FROM a").await, "200");
}

#[tokio::test]
async fn kill_query_ends_a_lock_wait_and_undoes_only_the_statement() {
    let (server, mut a, mut b) = two().await;
    let registered = server.shared.processes.register("127.0.0.1:9".into()).unwrap();
    let process = registered.process().clone();
    let login = Login { database: Some("t".into()), process: Some(process.clone()), ..Login::default() };
    let mut c = server.login(login).await;
    a.ok("BEGIN").await;
    a.ok("UPDATE a SET n = 0 WHERE id = 2").await;
    assert!(process.begin(3, std::time::Instant::now()));
    c.ok("BEGIN").await;
    c.ok("UPDATE a SET n = 50 WHERE id = 1").await;
    assert!(process.begin(3, std::time::Instant::now()));
    let kill = format!("KILL QUERY {}", process.id());
    let wait = async {
        // The wait has begun once the row that comes before it is locked.
        while b.run("SELECT id FROM a WHERE id = 3 FOR UPDATE NOWAIT").await.is_ok() {
            tokio::task::yield_now().await;
        }
        a.ok(&kill).await;
    };
    let statement = c.run("UPDATE a SET n = 60 WHERE id IN (2, 3) ORDER BY id DESC");
    let (killed, ()) = tokio::join!(statement, wait);
    assert_eq!(killed.unwrap_err().code, 1317);
    assert!(process.begin(3, std::time::Instant::now()));
    assert_eq!(c.rows("SELECT id, n FROM a ORDER BY id").await, "1,50 | 2,2 | 3,3");
    c.ok("COMMIT").await;
    a.ok("COMMIT").await;
    assert_eq!(a.rows("SELECT id, n FROM a ORDER BY id").await, "1,50 | 2,0 | 3,3");
}

#[tokio::test]
async fn a_named_transaction_commits_once() {
    let (_server, mut a, mut b) = two().await;
    let id = "0193a000-0000-7000-8000-00000000002a";
    let outcome = format!("SHOW TRANSACTION OUTCOME '{id}'");
    assert_eq!(a.rows(&outcome).await, format!("{id},not found,NULL"));
    // Whoever did not hear the answer sends all of it again.
    for n in [10, 11] {
        a.ok(&format!("SET holdfast_transaction_id = '{id}'")).await;
        a.ok("BEGIN").await;
        a.ok(&format!("UPDATE a SET n = {n} WHERE id = 1")).await;
        a.ok("COMMIT").await;
        assert_eq!(b.rows("SELECT n FROM a WHERE id = 1").await, "10");
        assert!(b.rows(&outcome).await.starts_with(&format!("{id},committed,")));
    }
    // For one transaction only, and not past a rollback.
    a.ok("UPDATE a SET n = 12 WHERE id = 1").await;
    a.ok(&format!("SET holdfast_transaction_id = '{id}'")).await;
    a.ok("BEGIN").await;
    a.ok("ROLLBACK").await;
    a.ok("UPDATE a SET n = n + 1 WHERE id = 1").await;
    assert_eq!(b.rows("SELECT n FROM a WHERE id = 1").await, "13");
    assert_eq!(a.err("SET holdfast_transaction_id = 'seven'").await, 1411);
    assert_eq!(a.err("SHOW TRANSACTION OUTCOME 'seven'").await, 1411);
}
