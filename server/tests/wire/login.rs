//! Who gets in, by which plugin, with and without TLS.

use mysql_async::{ChangeUserOpts, Conn, Opts, OptsBuilder, prelude::Queryable};
use tokio::process::Command;

use crate::{
    raw::{Raw, error, login_packet},
    script::{Running, Settings, start, start_with},
};

fn opts(server: &Running, user: &str, password: &str) -> OptsBuilder {
    OptsBuilder::default()
        .ip_or_hostname("127.0.0.1")
        .tcp_port(server.addr.port())
        .user(Some(user))
        .pass(Some(password))
        .prefer_socket(false)
        // Spares the script the variables that the client would ask for.
        .max_allowed_packet(Some(16 << 20))
        .wait_timeout(Some(100))
}

async fn login(server: &Running, user: &str, password: &str) -> Result<String, mysql_async::Error> {
    let mut conn = Conn::new(Opts::from(opts(server, user, password))).await?;
    let shown: Option<String> = conn.query_first("LOGIN").await?;
    conn.disconnect().await?;
    Ok(shown.unwrap())
}

fn code(error: mysql_async::Error) -> u16 {
    match error {
        mysql_async::Error::Server(error) => error.code,
        other => panic!("not an answer of the server: {other}"),
    }
}

#[tokio::test]
async fn both_plugins_let_the_right_password_in() {
    let server = start().await;
    for user in ["native", "sha2", "sha2"] {
        assert!(login(&server, user, "s3cret").await.unwrap().starts_with(user));
    }
    assert!(login(&server, "root", "").await.unwrap().starts_with("root"));
}

#[tokio::test]
async fn wrong_passwords_and_unknown_users_get_1045() {
    let server = start().await;
    for (user, password) in
        [("native", "no"), ("sha2", "no"), ("sha2", ""), ("root", "any"), ("ghost", "s3cret"), ("ghost", "")]
    {
        assert_eq!(code(login(&server, user, password).await.unwrap_err()), 1045, "{user} {password}");
    }
    assert!(login(&server, "sha2", "s3cret").await.is_ok());
    assert_eq!(code(login(&server, "sha2", "no").await.unwrap_err()), 1045, "the fast path checks too");
}

#[tokio::test]
async fn an_unknown_database_is_1049() {
    let server = start().await;
    let refused = Conn::new(Opts::from(opts(&server, "root", "").db_name(Some("nowhere")))).await.map(drop);
    assert_eq!(code(refused.unwrap_err()), 1049);
}

#[tokio::test]
async fn change_user_authenticates_again() {
    let server = start().await;
    let mut conn = Conn::new(Opts::from(opts(&server, "root", ""))).await.unwrap();
    conn.query_drop("BEGIN").await.unwrap();
    for user in ["native", "sha2"] {
        let change = ChangeUserOpts::default()
            .with_user(Some(user.to_owned()))
            .with_pass(Some("s3cret".to_owned()))
            .with_db_name(Some("shop".to_owned()));
        conn.change_user(change).await.unwrap();
        let shown: Option<String> = conn.query_first("LOGIN").await.unwrap();
        assert!(shown.unwrap().starts_with(&format!("{user}|shop|")));
    }
    let change = ChangeUserOpts::default().with_user(Some("native".to_owned())).with_pass(Some("wrong".to_owned()));
    assert_eq!(code(conn.change_user(change).await.unwrap_err()), 1045);
    assert!(conn.query_drop("LOGIN").await.is_err(), "a failed change of user closes the connection");
}

/// Runs the mariadb command line; returns what it printed.
async fn mariadb(server: &Running, arguments: &[&str]) -> (bool, String) {
    let port = server.addr.port().to_string();
    let output = Command::new("mariadb")
        .args(["--no-defaults", "--protocol=tcp", "-h127.0.0.1", "-P", &port, "-N", "-B"])
        .args(arguments)
        .output()
        .await
        .expect("the mariadb client is installed (see CONTRIBUTING.md)");
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output.status.success(), text)
}

#[tokio::test]
async fn the_mariadb_client_gets_in_with_tls_and_without() {
    let server = start().await;
    for user in ["native", "sha2"] {
        let user_flag = format!("-u{user}");
        // A fresh server for each: the first login of `sha2` takes the full path.
        let fresh = start().await;
        let (ok, text) = mariadb(&fresh, &[&user_flag, "-ps3cret", "--ssl", "-e", "LOGIN"]).await;
        assert!(ok && text.contains("|TLSv1."), "{user} with TLS: {text}");
        let fresh = start().await;
        let (ok, text) = mariadb(&fresh, &[&user_flag, "-ps3cret", "--skip-ssl", "-e", "LOGIN"]).await;
        assert!(ok && text.starts_with(user) && !text.contains("TLS"), "{user} in clear: {text}");
        let (ok, text) = mariadb(&server, &[&user_flag, "-pwrong", "--ssl", "-e", "LOGIN"]).await;
        assert!(!ok && text.contains("ERROR 1045 (28000)"), "{text}");
    }
}

#[tokio::test]
async fn require_tls_refuses_clients_in_clear() {
    let server = start_with(Settings { require_tls: true, ..Settings::default() }).await;
    let (ok, text) = mariadb(&server, &["-uroot", "--skip-ssl", "-e", "LOGIN"]).await;
    assert!(!ok && text.contains("ERROR 3159"), "{text}");
    let (ok, text) = mariadb(&server, &["-uroot", "--ssl", "-e", "LOGIN"]).await;
    assert!(ok, "{text}");
}

#[tokio::test]
async fn a_client_without_plugins_is_told_why() {
    let server = start().await;
    let mut raw = Raw::connect(&server).await;
    let mut packet = login_packet("native", 0);
    let end = packet.len() - 1;
    packet[end] = 20;
    packet.extend_from_slice(&[7; 20]);
    raw.send(1, &packet).await;
    assert_eq!(error(&raw.read().await.unwrap()).0, 1045);
    let mut raw = Raw::connect(&server).await;
    packet[32..38].copy_from_slice(b"sha2\0\x14");
    packet.truncate(38);
    packet.extend_from_slice(&[7; 20]);
    raw.send(1, &packet).await;
    assert_eq!(error(&raw.read().await.unwrap()).0, 1251);
    raw.expect_closed().await;
}
