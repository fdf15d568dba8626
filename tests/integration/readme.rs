//! README's session, as README has it, in a real client: over TLS and without, and with a password by both plugins.

use std::process::Command;

use holdfast_tests::serve::{Serve, Server};

const README: &str = include_str!("../../README.md");

/// The lines behind the prompt of README's session.
fn session() -> String {
    let lines: Vec<_> = README.lines().filter_map(|line| line.strip_prefix("    > ")).collect();
    assert!(lines.len() >= 4, "README's session: {lines:?}");
    lines.join("\n")
}

/// Runs statements in the mariadb client; what it printed, and whether it was content.
fn mariadb(server: &Server, args: &[&str], sql: &str) -> (bool, String) {
    let port = server.mysql_port().to_string();
    let out = Command::new("mariadb")
        .args(["--no-defaults", "-h", "127.0.0.1", "-P", &port, "-u", "root", "--batch", "--skip-column-names"])
        .args(args)
        .args(["-e", sql])
        .output()
        .expect("the mariadb client: run tests/setup.sh");
    let printed = String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr);
    (out.status.success(), printed)
}

const PLAIN: &[&str] = &["--skip-ssl"];
const TLS: &[&str] = &["--ssl", "--skip-ssl-verify-server-cert"];

#[test]
fn the_session_works_with_and_without_tls() {
    for (how, cipher) in [(PLAIN, false), (TLS, true)] {
        let folder = tempfile::tempdir().unwrap();
        let server = Serve::new(&folder.path().join("data")).start();
        let (ok, printed) = mariadb(&server, how, &session());
        assert!(ok, "{how:?}: {printed}");
        assert_eq!(printed, "anchor\t120.50\nrope\t10.99\n", "{how:?}");
        let (_, printed) = mariadb(&server, how, "SHOW STATUS LIKE 'Ssl_cipher'");
        assert_eq!(printed.trim_end().len() > "Ssl_cipher".len(), cipher, "{how:?}: {printed}");
    }
}

/// A password is asked for after ALTER USER, by either plugin, with and without TLS (then over RSA), and after a restart.
#[test]
fn a_password_holds_over_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let mut login: Vec<&str> = PLAIN.to_vec();
    for (plugin, password) in [("caching_sha2_password", "-pone"), ("mysql_native_password", "-ptwo")] {
        let server = Serve::new(&data).start();
        let alter = format!("ALTER USER root IDENTIFIED WITH {plugin} BY '{}'", &password[2..]);
        let (ok, printed) = mariadb(&server, &login, &alter);
        assert!(ok, "{plugin}: {printed}");
        assert_eq!(server.terminate(), Some(0));
        for how in [PLAIN, TLS] {
            // A server of its own each time: a second login of caching_sha2_password would take the fast path.
            let server = Serve::new(&data).start();
            let given = [how, &[password]].concat();
            let (ok, printed) = mariadb(&server, &given, "SELECT CURRENT_USER()");
            assert!(ok && printed.starts_with("root@"), "{plugin}, {how:?}: {printed}");
            let (ok, printed) = mariadb(&server, &given, "SELECT 'the fast path'");
            assert!(ok, "{plugin}, {how:?}: {printed}");
            for wrong in [[how, &["-pwrong"]].concat(), how.to_vec()] {
                let (ok, printed) = mariadb(&server, &wrong, "SELECT 1");
                assert!(!ok && printed.contains("1045"), "{plugin}, {wrong:?}: {printed}");
            }
            assert_eq!(server.terminate(), Some(0));
        }
        login = [PLAIN, &[password]].concat();
    }
}

#[test]
fn a_password_file_sets_the_first_password() {
    let folder = tempfile::tempdir().unwrap();
    let (data, file) = (folder.path().join("data"), folder.path().join("password"));
    std::fs::write(&file, "from the file\n").unwrap();
    let server = Serve::new(&data).args(["--root-password-file", file.to_str().unwrap()]).start();
    for how in [PLAIN, TLS] {
        let (ok, printed) = mariadb(&server, &[how, &["-pfrom the file"]].concat(), "SELECT 1");
        assert!(ok, "{how:?}: {printed}");
        assert!(!mariadb(&server, how, "SELECT 1").0, "{how:?}: no password");
    }
}
