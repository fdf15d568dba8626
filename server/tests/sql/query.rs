//! SELECT: predicates, order, groups, access paths, variables.

use crate::harness::{Client, Server};

async fn people() -> (Server, Client) {
    let server = Server::start().await;
    let mut c = server.client().await;
    c.ok("CREATE TABLE p (id INT PRIMARY KEY, name VARCHAR(20), age INT, city VARCHAR(20), KEY age (age), \
          KEY city_age (city, age), UNIQUE KEY name (name))")
        .await;
    c.ok("INSERT INTO p VALUES (1,'Ann',30,'Oslo'), (2,'bob',25,'Rome'), (3,'Cid',30,'oslo'), (4,'Dan',NULL,'Rome'), \
          (5,'eve',41,NULL), (6,NULL,25,'Bern'), (7,NULL,NULL,'Bern')")
        .await;
    (server, c)
}

#[tokio::test]
async fn predicates_by_any_access_path() {
    let (_server, mut c) = people().await;
    for (filter, ids) in [
        ("id = 3", "3"),
        ("id IN (5, 1, 1, 99)", "1 | 5"),
        ("id > 5", "6 | 7"),
        ("id >= 2 AND id < 4", "2 | 3"),
        ("id = '3'", "3"),
        ("id = 2.5", ""),
        ("id > 5.5", "6 | 7"),
        ("id = '3x'", "3"),
        ("id < -9999999999", ""),
        ("id = NULL", ""),
        ("name = 'BOB'", "2"),
        ("name IS NULL", "6 | 7"),
        ("name <=> NULL", "6 | 7"),
        ("age = 30", "1 | 3"),
        ("age IS NULL", "4 | 7"),
        ("age < 30", "2 | 6"),
        ("age BETWEEN 26 AND 41", "1 | 3 | 5"),
        ("city = 'oslo'", "1 | 3"),
        ("city = 'Rome' AND age = 25", "2"),
        ("city = 'Rome' AND age > 0", "2"),
        ("city IN ('Bern', 'Rome') AND age = 25", "2 | 6"),
        ("city > 'Bern'", "1 | 2 | 3 | 4"),
        ("name LIKE '%e'", "5"),
        ("age + 1 = 31", "1 | 3"),
        ("NOT (age = 30)", "2 | 5 | 6"),
        ("age = 30 OR id = 7", "1 | 3 | 7"),
        ("id BETWEEN 1 AND 2 OR id BETWEEN 2 AND 3 OR id = 6", "1 | 2 | 3 | 6"),
        ("age < 26 OR age > 40 OR age IS NULL", "2 | 4 | 5 | 6 | 7"),
        ("age < 26 OR age > 40", "2 | 5 | 6"),
        ("(age > 20 AND age < 28) OR age IN (41, 41, 99)", "2 | 5 | 6"),
        ("age > 20 AND age > 26 AND age < 50 AND age <= 30", "1 | 3"),
        ("(age < 26 OR age > 29) AND (age > 24 OR age < 3) AND age < 41", "1 | 2 | 3 | 6"),
    ] {
        let by_index = c.rows(&format!("SELECT id FROM p WHERE {filter} ORDER BY id")).await;
        assert_eq!(by_index, ids, "{filter}");
        let scanned = c
            .rows(&format!("SELECT id FROM p IGNORE INDEX (age, city_age, name) WHERE {filter} ORDER BY id + 0"))
            .await;
        assert_eq!(scanned, ids, "{filter}, scanned");
    }
}

#[tokio::test]
async fn order_limit_and_distinct() {
    let (_server, mut c) = people().await;
    assert_eq!(c.rows("SELECT id FROM p ORDER BY age, id").await, "4 | 7 | 2 | 6 | 1 | 3 | 5");
    assert_eq!(c.rows("SELECT id FROM p ORDER BY age DESC, id LIMIT 3").await, "5 | 1 | 3");
    assert_eq!(c.rows("SELECT id FROM p ORDER BY id DESC LIMIT 2 OFFSET 1").await, "6 | 5");
    assert_eq!(c.rows("SELECT id FROM p ORDER BY id LIMIT 5, 10").await, "6 | 7");
    assert_eq!(c.rows("SELECT id FROM p LIMIT 0").await, "");
    assert_eq!(c.rows("SELECT DISTINCT city FROM p ORDER BY city").await, "NULL | Bern | Oslo | Rome");
    assert_eq!(c.rows("SELECT name AS n FROM p ORDER BY n DESC LIMIT 2").await, "eve | Dan");
    assert_eq!(c.rows("SELECT id, -age a FROM p WHERE age IS NOT NULL ORDER BY 2, 1 LIMIT 2").await, "5,-41 | 1,-30");
    assert_eq!(c.rows("SELECT age FROM p WHERE age > 26 ORDER BY age DESC LIMIT 1").await, "41");
}

#[tokio::test]
async fn groups() {
    let (_server, mut c) = people().await;
    assert_eq!(
        c.rows("SELECT COUNT(*), COUNT(age), SUM(age), AVG(age), MIN(age), MAX(name) FROM p").await,
        "7,5,151,30.2000,25,eve"
    );
    assert_eq!(c.rows("SELECT COUNT(*), SUM(age) FROM p WHERE id > 99").await, "0,NULL");
    assert_eq!(
        c.rows("SELECT city, COUNT(*) n FROM p GROUP BY city HAVING n > 1 ORDER BY n, city").await,
        "Bern,2 | Oslo,2 | Rome,2"
    );
    assert_eq!(c.rows("SELECT COUNT(DISTINCT city) FROM p").await, "3");
    assert_eq!(c.rows("SELECT age IS NULL x, COUNT(*) FROM p GROUP BY x ORDER BY x").await, "0,5 | 1,2");
    assert_eq!(c.rows("SELECT GROUP_CONCAT(id ORDER BY id DESC SEPARATOR '-') FROM p WHERE id < 4").await, "3-2-1");
    assert_eq!(c.rows("SELECT id, COUNT(*) FROM p GROUP BY id HAVING id = 2").await, "2,1");
    assert_eq!(c.err("SELECT name, COUNT(*) FROM p GROUP BY city").await, 1055);
    assert_eq!(c.err("SELECT name, COUNT(*) FROM p").await, 1140);
    assert_eq!(c.err("SELECT id FROM p WHERE COUNT(*) > 1").await, 1111);
}

#[tokio::test]
async fn explain_names_the_access_path() {
    let (_server, mut c) = people().await;
    for (sql, kind, key) in [
        ("SELECT * FROM p WHERE id = 1", "const", Some("PRIMARY")),
        ("SELECT * FROM p WHERE name = 'x'", "const", Some("name")),
        ("SELECT * FROM p WHERE age = 3", "ref", Some("age")),
        ("SELECT * FROM p WHERE age > 3", "range", Some("age")),
        ("SELECT * FROM p WHERE id BETWEEN 1 AND 3", "range", Some("PRIMARY")),
        ("SELECT * FROM p", "ALL", None),
        ("SELECT * FROM p WHERE city = 'a' AND age = 2", "ref", Some("city_age")),
        ("UPDATE p SET age = 1 WHERE id = 1", "const", Some("PRIMARY")),
        ("DELETE FROM p WHERE age = 1", "ref", Some("age")),
    ] {
        let answer = c.ok(&format!("EXPLAIN {sql}")).await;
        assert_eq!((answer.rows[0][4].as_deref(), answer.rows[0][6].as_deref()), (Some(kind), key), "{sql}");
    }
    let answer = c.ok("EXPLAIN SELECT SUM(age) FROM p WHERE age BETWEEN 1 AND 3 OR age BETWEEN 5 AND 9").await;
    assert_eq!((answer.rows[0][4].as_deref(), answer.rows[0][6].as_deref()), (Some("range"), Some("age")));
    let answer = c.ok("EXPLAIN SELECT age, id FROM p WHERE age > 3").await;
    assert!(answer.rows[0][11].as_deref().unwrap().contains("Using index"));
    let answer = c.ok("EXPLAIN SELECT * FROM p ORDER BY name + 1").await;
    assert!(answer.rows[0][11].as_deref().unwrap().contains("Using filesort"));
}

#[tokio::test]
async fn what_is_not_supported_says_so() {
    let (_server, mut c) = people().await;
    for sql in [
        "SELECT * FROM p a JOIN p b ON a.id = b.id",
        "SELECT * FROM p, p q",
        "SELECT (SELECT 1)",
        "SELECT * FROM (SELECT 1) x",
        "SELECT 1 UNION SELECT 2",
        "INSERT INTO p SELECT * FROM p",
        "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE",
        "LOCK TABLES p READ",
        "CREATE TEMPORARY TABLE x (id INT)",
        "CREATE VIEW v AS SELECT 1",
    ] {
        assert_eq!(c.err(sql).await, 1235, "{sql}");
    }
    assert_eq!(c.err("SELEC 1").await, 1064);
    assert_eq!(c.err("SELECT nope FROM p").await, 1054);
    assert_eq!(c.err("SELECT nofunction(1)").await, 1305);
}

#[tokio::test]
async fn variables_and_set() {
    let server = Server::start().await;
    let mut c = server.client().await;
    assert_eq!(c.rows("select @@version_comment limit 1").await, "Holdfast");
    assert_eq!(c.rows("SELECT DATABASE(), @@autocommit, @@transaction_isolation").await, "t,1,REPEATABLE-READ");
    let connector = "/* mysql-connector-j-8.0.33 */SELECT  @@session.auto_increment_increment AS auto_increment_increment, \
        @@character_set_client AS character_set_client, @@character_set_connection AS character_set_connection, \
        @@character_set_results AS character_set_results, @@character_set_server AS character_set_server, \
        @@collation_server AS collation_server, @@collation_connection AS collation_connection, \
        @@init_connect AS init_connect, @@interactive_timeout AS interactive_timeout, @@license AS license, \
        @@lower_case_table_names AS lower_case_table_names, @@max_allowed_packet AS max_allowed_packet, \
        @@net_write_timeout AS net_write_timeout, @@performance_schema AS performance_schema, @@sql_mode AS sql_mode, \
        @@system_time_zone AS system_time_zone, @@time_zone AS time_zone, \
        @@transaction_isolation AS transaction_isolation, @@wait_timeout AS wait_timeout";
    assert_eq!(c.ok(connector).await.rows[0].len(), 19);
    c.ok("SET NAMES utf8mb4 COLLATE utf8mb4_bin, @a = 5, SESSION sql_mode = 'ANSI_QUOTES'").await;
    assert_eq!(c.rows("SELECT @a, @@collation_connection, @@sql_mode").await, "5,utf8mb4_bin,ANSI_QUOTES");
    for (sql, code) in [
        ("SET nope = 1", 1193),
        ("SELECT @@nope", 1193),
        ("SET version = 'x'", 1238),
        ("SET sql_mode = 'NOPE'", 1231),
        ("SET autocommit = 7", 1231),
        ("SET time_zone = 'Mars'", 1298),
        ("SET NAMES klingon", 1115),
        ("SET GLOBAL last_insert_id = 1", 1228),
    ] {
        assert_eq!(c.err(sql).await, code, "{sql}");
    }
    assert_eq!(c.rows("SHOW VARIABLES LIKE 'lower_case_table_names'").await, "lower_case_table_names,0");
    assert_eq!(c.rows("SHOW VARIABLES WHERE Variable_name IN ('autocommit')").await, "autocommit,ON");
    c.ok("PREPARE s FROM 'SELECT ? + 1'").await;
    c.ok("SET @x = 41").await;
    assert_eq!(c.rows("EXECUTE s USING @x").await, "42");
    c.ok("DEALLOCATE PREPARE s").await;
    assert_eq!(c.err("EXECUTE s USING @x").await, 1243);
    let answers = c.all("SELECT 1; SELECT 2; DO 1").await.unwrap();
    assert_eq!(answers.len(), 3);
}
