//! INSERT, REPLACE, UPDATE and DELETE.

use holdfast_server::session::Login;

use crate::harness::Server;

#[tokio::test]
async fn duplicates_replace_ignore_and_update() {
    let server = Server::start().await;
    let mut c = server.client().await;
    c.ok("CREATE TABLE a (id INT PRIMARY KEY, u INT UNIQUE, n INT DEFAULT 0)").await;
    assert_eq!(
        c.ok("INSERT INTO a VALUES (1, 10, 0), (2, 20, 0)").await.info,
        "Records: 2  Duplicates: 0  Warnings: 0"
    );
    assert_eq!(c.err("INSERT INTO a VALUES (3, 30, 0), (1, 40, 0)").await, 1062);
    assert_eq!(c.rows("SELECT COUNT(*) FROM a").await, "2", "a failed statement leaves nothing");
    assert_eq!(c.err("INSERT INTO a VALUES (3, 20, 0)").await, 1062);
    let done = c.ok("INSERT IGNORE INTO a VALUES (1, 1, 1), (3, 30, 0)").await;
    assert_eq!((done.affected, done.warnings), (1, 1));
    let on_duplicate = "INSERT INTO a (id, u) VALUES (1, 99) ON DUPLICATE KEY UPDATE n = n + VALUES(u)";
    assert_eq!(c.ok(on_duplicate).await.affected, 2);
    assert_eq!(c.rows("SELECT * FROM a WHERE id=1").await, "1,10,99");
    assert_eq!(c.ok("INSERT INTO a (id, u) VALUES (1, 99) ON DUPLICATE KEY UPDATE n = 99").await.affected, 0);
    assert_eq!(c.ok("INSERT INTO a (id, u) VALUES (50, 50) ON DUPLICATE KEY UPDATE n = 1").await.affected, 1);
    let by_alias = "INSERT INTO a (id, u) VALUES (1, 7) AS new ON DUPLICATE KEY UPDATE n = new.u";
    assert_eq!(c.ok(by_alias).await.affected, 2);
    assert_eq!(c.ok("REPLACE INTO a VALUES (1, 20, 5)").await.affected, 3, "two rows were in the way");
    assert_eq!(c.rows("SELECT * FROM a ORDER BY id").await, "1,20,5 | 3,30,0 | 50,50,0");
    assert_eq!(c.rows("CHECK TABLE a").await, "t.a,check,status,OK");
}

#[tokio::test]
async fn auto_increment_and_last_insert_id() {
    let server = Server::start().await;
    let mut c = server.client().await;
    c.ok("CREATE TABLE a (id INT AUTO_INCREMENT PRIMARY KEY, n INT) AUTO_INCREMENT=100").await;
    assert_eq!(c.ok("INSERT INTO a (n) VALUES (1), (2), (3)").await.last_insert_id, 100);
    assert_eq!(c.rows("SELECT LAST_INSERT_ID()").await, "100");
    assert_eq!(c.ok("INSERT INTO a VALUES (500, 1)").await.last_insert_id, 500);
    assert_eq!(c.ok("INSERT INTO a VALUES (NULL, 1), (0, 2)").await.last_insert_id, 501);
    assert_eq!(c.rows("SELECT id FROM a ORDER BY id DESC LIMIT 2").await, "502 | 501");
    c.ok("SET sql_mode = 'NO_AUTO_VALUE_ON_ZERO'").await;
    c.ok("INSERT INTO a VALUES (0, 9)").await;
    assert_eq!(c.rows("SELECT n FROM a WHERE id = 0").await, "9");
    c.ok("SET auto_increment_increment = 10, auto_increment_offset = 5").await;
    assert_eq!(c.ok("INSERT INTO a (n) VALUES (1)").await.last_insert_id, 505);
    c.ok("CREATE TABLE tiny (id TINYINT AUTO_INCREMENT PRIMARY KEY)").await;
    c.ok("INSERT INTO tiny VALUES (127)").await;
    assert_eq!(c.err("INSERT INTO tiny VALUES ()").await, 1467);
}

#[tokio::test]
async fn changed_and_matched_rows() {
    let server = Server::start().await;
    let mut c = server.client().await;
    c.ok("CREATE TABLE a (id INT PRIMARY KEY, n INT)").await;
    c.ok("INSERT INTO a VALUES (1, 1), (2, 2), (3, 3)").await;
    let done = c.ok("UPDATE a SET n = 2 WHERE id < 3").await;
    assert_eq!((done.affected, done.info.as_str()), (1, "Rows matched: 2  Changed: 1  Warnings: 0"));
    let login = Login { database: Some("t".into()), found_rows: true, ..Login::default() };
    let mut found = server.login(login).await;
    assert_eq!(found.ok("UPDATE a SET n = 2 WHERE id < 3").await.affected, 2);
    assert_eq!(c.ok("UPDATE a SET n = n + 10 ORDER BY id DESC LIMIT 1").await.affected, 1);
    assert_eq!(c.rows("SELECT n FROM a ORDER BY id").await, "2 | 2 | 13");
    assert_eq!(c.ok("DELETE FROM a ORDER BY n DESC LIMIT 1").await.affected, 1);
    // A key that moves upwards must not be met again by its own statement.
    assert_eq!(c.ok("UPDATE a SET id = id + 100").await.affected, 2);
    assert_eq!(c.rows("SELECT id FROM a ORDER BY id").await, "101 | 102");
    assert_eq!(c.ok("DELETE FROM a").await.affected, 2);
}

#[tokio::test]
async fn values_that_do_not_fit() {
    let server = Server::start().await;
    let mut c = server.client().await;
    c.ok("CREATE TABLE a (i TINYINT NOT NULL, u INT UNSIGNED, s VARCHAR(3), d DATE, m DECIMAL(4,1))").await;
    for (sql, code) in [
        ("INSERT INTO a (i) VALUES (128)", 1264),
        ("INSERT INTO a (i, u) VALUES (1, -1)", 1264),
        ("INSERT INTO a (i) VALUES ('x')", 1366),
        ("INSERT INTO a (i) VALUES ('1x')", 1265),
        ("INSERT INTO a (i) VALUES (NULL)", 1048),
        ("INSERT INTO a (s) VALUES ('a')", 1364),
        ("INSERT INTO a (i, s) VALUES (1, 'abcd')", 1406),
        ("INSERT INTO a (i, d) VALUES (1, '2024-02-30')", 1292),
        ("INSERT INTO a (i, m) VALUES (1, 1000)", 1264),
        ("INSERT INTO a VALUES (1)", 1136),
        ("INSERT INTO a (i, nope) VALUES (1, 2)", 1054),
        ("INSERT INTO a (i, i) VALUES (1, 2)", 1110),
        ("UPDATE a SET nope = 1", 1054),
    ] {
        assert_eq!(c.err(sql).await, code, "{sql}");
    }
    c.ok("SET sql_mode = ''").await;
    let done = c.ok("INSERT INTO a VALUES (300, -5, 'abcdef', '2024-02-30', 99999)").await;
    assert_eq!(done.warnings, 5);
    assert_eq!(c.rows("SELECT * FROM a").await, "127,0,abc,0000-00-00,999.9");
}

#[tokio::test]
async fn every_type_comes_back_as_it_went_in() {
    let server = Server::start().await;
    let mut c = server.client().await;
    c.ok("CREATE TABLE a (id INT PRIMARY KEY, a TINYINT, b SMALLINT UNSIGNED, c MEDIUMINT, d BIGINT UNSIGNED, \
          e DECIMAL(30,10), f FLOAT, g DOUBLE, h CHAR(5), i VARCHAR(10), j TEXT, k BINARY(3), l BLOB, m DATE, n TIME(3), \
          o DATETIME(6), p TIMESTAMP, q JSON, r YEAR)")
        .await;
    let row = "1,-128,65535,-8388608,18446744073709551615,-12345678901234567890.0123456789,1.5,-2.5e100,ab,é,text,\
               a\0\0,\x01,2024-02-29,-838:59:58.123,2024-12-31 23:59:59.999999,2024-01-01 00:00:01,{\"a\": [1, 2]},2024";
    c.ok("INSERT INTO a VALUES (1, -128, 65535, -8388608, 18446744073709551615, -12345678901234567890.0123456789, 1.5, \
          -2.5e100, 'ab  ', 'é', 'text', 'a', x'01', '2024-02-29', '-838:59:58.123', '2024-12-31 23:59:59.999999', \
          '2024-01-01 00:00:01', '{\"a\":[1,2]}', 2024), \
          (2, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL)")
        .await;
    assert_eq!(c.rows("SELECT * FROM a WHERE id=1").await, row);
    assert_eq!(c.ok("SELECT * FROM a WHERE id=2").await.rows[0].iter().flatten().count(), 1);
    c.ok("SET time_zone = '+02:00'").await;
    assert_eq!(c.rows("SELECT p FROM a WHERE id=1").await, "2024-01-01 02:00:01");
}
