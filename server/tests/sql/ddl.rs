//! Schema changes and what SHOW and information_schema say of them.

use crate::harness::Server;

#[tokio::test]
async fn show_create_table_has_mysqls_bytes() {
    let server = Server::start().await;
    let mut c = server.client().await;
    c.ok(
        "CREATE TABLE a (id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY, name VARCHAR(20) COLLATE utf8mb4_bin, \
          price DECIMAL(10,2) NOT NULL DEFAULT 1.5 COMMENT 'it''s', at TIMESTAMP NULL, \
          changed DATETIME(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3) ON UPDATE CURRENT_TIMESTAMP(3), \
          t TEXT, UNIQUE KEY u (name), KEY two (price, name(5))) COMMENT='x'",
    )
    .await;
    let shown = c.ok("SHOW CREATE TABLE a").await.rows[0][1].clone().unwrap();
    let expected = "CREATE TABLE `a` (\n  `id` bigint unsigned NOT NULL AUTO_INCREMENT,\n  \
        `name` varchar(20) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin DEFAULT NULL,\n  \
        `price` decimal(10,2) NOT NULL DEFAULT '1.50' COMMENT 'it''s',\n  \
        `at` timestamp NULL DEFAULT NULL,\n  \
        `changed` datetime(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3) ON UPDATE CURRENT_TIMESTAMP(3),\n  \
        `t` text,\n  PRIMARY KEY (`id`),\n  UNIQUE KEY `u` (`name`),\n  KEY `two` (`price`,`name`(5))\n\
        ) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_0900_ai_ci COMMENT='x'";
    assert_eq!(shown, expected);
    // What it prints makes the same table.
    c.ok(&shown.replace("`a`", "`b`")).await;
    let again = c.ok("SHOW CREATE TABLE b").await.rows[0][1].clone().unwrap();
    assert_eq!(again.replace("`b`", "`a`"), expected);
}

#[tokio::test]
async fn describe_and_information_schema_agree() {
    let server = Server::start().await;
    let mut c = server.client().await;
    c.ok("CREATE TABLE a (id INT PRIMARY KEY, k INT DEFAULT 3, s VARCHAR(9) NOT NULL, KEY (k))").await;
    assert_eq!(c.rows("DESCRIBE a").await, "id,int,NO,PRI,NULL, | k,int,YES,MUL,3, | s,varchar(9),NO,,NULL,");
    let columns = "SELECT COLUMN_NAME, COLUMN_TYPE, IS_NULLABLE, COLUMN_KEY FROM information_schema.columns \
                   WHERE table_schema='t' AND table_name='a' ORDER BY ORDINAL_POSITION";
    assert_eq!(c.rows(columns).await, "id,int,NO,PRI | k,int,YES,MUL | s,varchar(9),NO,");
    let indexes = "SELECT index_name, seq_in_index, column_name, non_unique FROM information_schema.statistics \
                   WHERE table_schema='t'";
    assert_eq!(c.rows(indexes).await, "PRIMARY,1,id,0 | k,1,k,1");
    assert_eq!(c.ok("SELECT table_name FROM information_schema.tables LIMIT 1").await.columns, ["TABLE_NAME"]);
    assert_eq!(c.rows("SHOW TABLES").await, "a");
    assert_eq!(c.rows("SHOW FULL TABLES LIKE 'a%'").await, "a,BASE TABLE");
    assert_eq!(c.rows("SHOW DATABASES LIKE 't'").await, "t");
    assert_eq!(c.ok("SHOW INDEX FROM a").await.rows.len(), 2);
}

#[tokio::test]
async fn errors_of_create_and_drop() {
    let server = Server::start().await;
    let mut c = server.client().await;
    c.ok("CREATE TABLE a (id INT PRIMARY KEY, s TEXT)").await;
    for (sql, code) in [
        ("CREATE DATABASE t", 1007),
        ("DROP DATABASE nope", 1008),
        ("CREATE TABLE a (x INT)", 1050),
        ("CREATE TABLE b (x INT, X INT)", 1060),
        ("CREATE TABLE b (x INT PRIMARY KEY, y INT PRIMARY KEY)", 1068),
        ("CREATE TABLE b (x INT, KEY (y))", 1072),
        ("CREATE TABLE b (x TEXT, KEY (x))", 1170),
        ("CREATE TABLE b (x INT AUTO_INCREMENT)", 1075),
        ("CREATE TABLE b (x INT DEFAULT 'q')", 1067),
        ("CREATE TABLE b (x TEXT DEFAULT 'q')", 1101),
        ("CREATE TABLE b (x INT) ENGINE=MyISAM", 1286),
        ("CREATE TABLE b (x VARCHAR(20000))", 1074),
        ("CREATE TABLE b (x ENUM('a'))", 1235),
        ("CREATE TABLE b (x INT, FOREIGN KEY (x) REFERENCES a (id))", 1235),
        ("DROP TABLE nope", 1051),
        ("DROP INDEX nope ON a", 1091),
        ("CREATE INDEX i ON nope (x)", 1146),
        ("TRUNCATE nope", 1146),
        ("SELECT * FROM nope", 1146),
        ("SELECT * FROM nodb.x", 1049),
        ("USE nodb", 1049),
    ] {
        assert_eq!(c.err(sql).await, code, "{sql}");
    }
    assert_eq!(c.ok("CREATE TABLE IF NOT EXISTS a (x INT)").await.warnings, 1);
    assert_eq!(c.rows("SHOW WARNINGS").await, "Note,1050,Table 'a' already exists");
    assert_eq!(c.ok("DROP TABLE IF EXISTS nope").await.warnings, 1);
    c.ok("DROP TABLE a").await;
    assert_eq!(c.err("SELECT * FROM a").await, 1146);
}

#[tokio::test]
async fn a_dropped_table_leaves_no_rows_to_its_successor() {
    let server = Server::start().await;
    let mut c = server.client().await;
    for _ in 0..3 {
        c.ok("CREATE TABLE a (id INT PRIMARY KEY, k INT, UNIQUE (k))").await;
        assert_eq!(c.rows("SELECT COUNT(*) FROM a").await, "0");
        c.ok("INSERT INTO a VALUES (1, 1), (2, NULL), (3, NULL)").await;
        c.ok("DROP TABLE a").await;
    }
    c.ok("CREATE TABLE a (id INT AUTO_INCREMENT PRIMARY KEY)").await;
    c.ok("INSERT INTO a VALUES (), ()").await;
    c.ok("TRUNCATE TABLE a").await;
    assert_eq!(c.ok("INSERT INTO a VALUES ()").await.last_insert_id, 1);
}

#[tokio::test]
async fn an_index_built_over_duplicates_leaves_nothing_behind() {
    let server = Server::start().await;
    let mut c = server.client().await;
    c.ok("CREATE TABLE a (id INT PRIMARY KEY, k INT)").await;
    c.ok("INSERT INTO a VALUES (1, 5), (2, 5), (3, NULL), (4, NULL)").await;
    assert_eq!(c.err("CREATE UNIQUE INDEX u ON a (k)").await, 1062);
    assert_eq!(c.ok("SHOW INDEX FROM a").await.rows.len(), 1);
    c.ok("UPDATE a SET k = 6 WHERE id = 2").await;
    c.ok("CREATE UNIQUE INDEX u ON a (k)").await;
    assert_eq!(c.err("INSERT INTO a VALUES (9, 6)").await, 1062);
    assert_eq!(c.rows("CHECK TABLE a").await, "t.a,check,status,OK");
    c.ok("DROP INDEX u ON a").await;
    c.ok("INSERT INTO a VALUES (9, 6)").await;
}

#[tokio::test]
async fn a_column_added_later_has_its_default_in_old_rows() {
    let server = Server::start().await;
    let mut c = server.client().await;
    c.ok("CREATE TABLE a (id INT PRIMARY KEY)").await;
    c.ok("INSERT INTO a VALUES (1)").await;
    c.ok("ALTER TABLE a ADD COLUMN n INT NOT NULL DEFAULT 7, ADD COLUMN s VARCHAR(5)").await;
    c.ok("INSERT INTO a VALUES (2, 8, 'x')").await;
    assert_eq!(c.rows("SELECT * FROM a").await, "1,7,NULL | 2,8,x");
    c.ok("UPDATE a SET s = 'y' WHERE id = 1").await;
    c.ok("ALTER TABLE a ADD INDEX n (n)").await;
    assert_eq!(c.rows("SELECT id FROM a WHERE n = 7").await, "1");
    c.ok("RENAME TABLE a TO b").await;
    assert_eq!(c.rows("SELECT id FROM b WHERE n = 8").await, "2");
    assert_eq!(c.err("SELECT 1 FROM a").await, 1146);
}
