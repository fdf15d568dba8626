//! The process list, and what clients ask about the server when they connect.

use mysql_async::prelude::Queryable;

use crate::Node;

#[tokio::test]
async fn the_process_list_shows_the_text_of_prepared_statements() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path(), &[]).await;
    let mut holder = node.login("root", "").await.unwrap();
    holder.query_drop("CREATE DATABASE d").await.unwrap();
    holder.query_drop("CREATE TABLE d.t (id INT PRIMARY KEY, n INT)").await.unwrap();
    holder.query_drop("INSERT INTO d.t VALUES (1, 1)").await.unwrap();
    holder.query_drop("BEGIN").await.unwrap();
    holder.query_drop("UPDATE d.t SET n = 2").await.unwrap();
    const UPDATE: &str = "UPDATE d.t SET n = ? WHERE id = ?";
    let mut waiter = node.login("root", "").await.unwrap();
    let id = waiter.id();
    let waiting = tokio::spawn(async move { waiter.exec_drop(UPDATE, (3, 1)).await });
    let mut conn = node.login("root", "").await.unwrap();
    loop {
        let list = "SELECT COMMAND, INFO FROM information_schema.PROCESSLIST WHERE ID = ?";
        let row: Option<(String, Option<String>)> = conn.exec_first(list, (id,)).await.unwrap();
        match row {
            Some((command, Some(info))) if command == "Execute" => break assert_eq!(info, UPDATE),
            // Not there yet, or still preparing.
            _ => tokio::task::yield_now().await,
        }
    }
    let rows: Vec<mysql_async::Row> = conn.query("SHOW FULL PROCESSLIST").await.unwrap();
    let infos: Vec<Option<String>> = rows.into_iter().map(|row| row.get("Info").unwrap()).collect();
    assert!(infos.contains(&Some(UPDATE.to_owned())), "{infos:?}");
    conn.query_drop(format!("KILL {id}")).await.unwrap();
    assert!(waiting.await.unwrap().is_err());
}

#[tokio::test]
async fn the_version_is_one_string() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path(), &[]).await;
    let mut conn = node.login("root", "").await.unwrap();
    let asked: Option<(String, String, String)> =
        conn.query_first("SELECT @@version, VERSION(), @@socket").await.unwrap();
    let (variable, function, socket) = asked.unwrap();
    let shown: Option<(String, String)> = conn.query_first("SHOW VARIABLES LIKE 'version'").await.unwrap();
    assert_eq!((variable.as_str(), socket.as_str()), (function.as_str(), ""));
    assert_eq!(shown.unwrap().1, variable);
    let mut greeting = [0; 64];
    let mut stream = tokio::net::TcpStream::connect(&node.mysql).await.unwrap();
    tokio::io::AsyncReadExt::read_exact(&mut stream, &mut greeting).await.unwrap();
    let end = greeting[5..].iter().position(|byte| *byte == 0).unwrap();
    assert_eq!(String::from_utf8_lossy(&greeting[5..5 + end]), variable);
}
