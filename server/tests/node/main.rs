//! The `holdfast` binary as an operator sees it: ready line, signals, locks, ports, accounts, admin port.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods, missing_docs)]

mod accounts;
mod admin;
mod life;
mod processes;

use std::{path::Path, process::Stdio};

use mysql_async::{Conn, Opts, OptsBuilder};
use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader},
    process::{Child, ChildStdout, Command},
};

/// A running server. Killed when dropped.
pub struct Node {
    child: Child,
    _stdout: BufReader<ChildStdout>,
    pub mysql: String,
    pub admin: String,
}

fn holdfast() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_holdfast"));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

fn serve(data_dir: &Path, arguments: &[&str]) -> Command {
    let mut command = holdfast();
    command.args(["serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--data-dir"]);
    command.arg(data_dir).args(arguments);
    command
}

impl Node {
    /// Starts a server and waits for its ready line.
    pub async fn start(data_dir: &Path, arguments: &[&str]) -> Self {
        let mut child = serve(data_dir, arguments).stderr(Stdio::inherit()).spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        stdout.read_line(&mut line).await.unwrap();
        let rest = line.trim_end().strip_prefix("holdfast ready mysql=").expect("the ready line");
        let (mysql, admin) = rest.split_once(" admin=").expect("the ready line");
        let (mysql, admin) = (mysql.to_owned(), admin.to_owned());
        Self { child, _stdout: stdout, mysql, admin }
    }

    pub fn pid(&self) -> u32 {
        self.child.id().expect("still running")
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_raw(self.pid().try_into().unwrap()).unwrap(), signal).unwrap();
    }

    /// Waits for the end; returns the exit code.
    pub async fn exit_code(mut self) -> Option<i32> {
        self.child.wait().await.unwrap().code()
    }

    pub fn opts(&self, user: &str, password: &str) -> OptsBuilder {
        let (host, port) = self.mysql.rsplit_once(':').unwrap();
        OptsBuilder::default()
            .ip_or_hostname(host)
            .tcp_port(port.parse().unwrap())
            .prefer_socket(false)
            .user(Some(user))
            .pass(Some(password))
    }

    pub async fn login(&self, user: &str, password: &str) -> Result<Conn, mysql_async::Error> {
        Conn::new(Opts::from(self.opts(user, password))).await
    }

    /// `holdfast admin ARGUMENTS` against this server: whether it worked, stdout, stderr.
    pub async fn admin(&self, arguments: &[&str]) -> (bool, String, String) {
        output(holdfast().arg("admin").args(arguments).args(["--addr", &self.admin])).await
    }

    /// The body of a GET on the admin port.
    pub async fn get(&self, path: &str) -> String {
        use tokio::io::AsyncWriteExt;
        let mut stream = tokio::net::TcpStream::connect(&self.admin).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }
}

async fn output(command: &mut Command) -> (bool, String, String) {
    let output = command.output().await.unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.success(), text(output.stdout), text(output.stderr))
}
