//! A real `holdfast serve` process: started, awaited by its ready line, killed or drained.

use std::{
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc,
    time::Duration,
};

/// How long a start may take, recovery included.
const READY_WITHIN: Duration = Duration::from_secs(60);

/// The binary that this workspace built.
pub fn binary() -> PathBuf {
    if let Some(bin) = std::env::var_os("HOLDFAST_BIN") {
        return bin.into();
    }
    let mut dir = std::env::current_exe().expect("own path");
    dir.pop();
    if dir.ends_with("deps") {
        dir.pop();
    }
    let bin = dir.join("holdfast");
    assert!(bin.exists(), "{} is missing: build the workspace first", bin.display());
    bin
}

/// A command line under construction.
pub struct Serve {
    command: Command,
}

/// A running server.
pub struct Server {
    child: Child,
    /// MySQL address.
    pub mysql: String,
    /// Admin address.
    pub admin: String,
    log: PathBuf,
}

impl Serve {
    /// `holdfast serve --data-dir DIR` on ephemeral ports; the server's log goes to `DIR.log`.
    pub fn new(data_dir: &Path) -> Self {
        let mut command = Command::new(binary());
        command.arg("serve").arg("--data-dir").arg(data_dir);
        command.args(["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]);
        let log = std::fs::File::options().create(true).append(true).open(log_path(data_dir)).expect("log file");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
        command.env("HOLDFAST_TEST_DATA_DIR", data_dir);
        Self { command }
    }

    /// Adds flags.
    pub fn args<S: AsRef<std::ffi::OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.command.args(args);
        self
    }

    /// Adds environment variables.
    pub fn envs(mut self, env: impl IntoIterator<Item = (String, String)>) -> Self {
        self.command.envs(env);
        self
    }

    /// Starts and waits for the ready line. The error holds the end of the server's log.
    pub fn try_start(mut self) -> Result<Server, String> {
        let log = self
            .command
            .get_envs()
            .find(|(k, _)| *k == "HOLDFAST_TEST_DATA_DIR")
            .and_then(|(_, v)| v)
            .map(|v| log_path(Path::new(v)))
            .expect("set in new");
        let mut child = self.command.spawn().map_err(|e| format!("{}: {e}", binary().display()))?;
        let stdout = child.stdout.take().expect("piped");
        let (send, receive) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if send.send(line).is_err() {
                    return;
                }
            }
        });
        let line = receive.recv_timeout(READY_WITHIN);
        let ready = line.as_ref().ok().and_then(|line| parse_ready(line));
        match ready {
            Some((mysql, admin)) => Ok(Server { child, mysql, admin, log }),
            None => {
                let _ = child.kill();
                let status = child.wait();
                let text = std::fs::read_to_string(&log).unwrap_or_default();
                let tail = &text[text.len().saturating_sub(3000)..];
                Err(format!("no ready line ({line:?}, {status:?}); its log ends:\n{tail}"))
            }
        }
    }

    /// Starts, or fails the test.
    pub fn start(self) -> Server {
        self.try_start().unwrap_or_else(|e| panic!("holdfast serve: {e}"))
    }
}

fn log_path(data_dir: &Path) -> PathBuf {
    let mut name = data_dir.as_os_str().to_owned();
    name.push(".log");
    name.into()
}

fn parse_ready(line: &str) -> Option<(String, String)> {
    let rest = line.strip_prefix("holdfast ready mysql=")?;
    let (mysql, admin) = rest.split_once(" admin=")?;
    Some((mysql.to_owned(), admin.to_owned()))
}

impl Server {
    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The TCP port of the MySQL listener.
    pub fn mysql_port(&self) -> u16 {
        self.mysql.rsplit(':').next().and_then(|p| p.parse().ok()).expect("ready line has a port")
    }

    /// A connection URL for `mysql_async`.
    pub fn url(&self, database: &str) -> String {
        format!("mysql://root@{}/{database}?prefer_socket=false", self.mysql)
    }

    /// What the server logged so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// kill -9, and wait for the end.
    pub fn kill(mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// SIGTERM, and wait for the end; returns the exit code.
    pub fn terminate(mut self) -> Option<i32> {
        // SAFETY: kill(2) with our own child's id, which is not reaped yet.
        unsafe { libc::kill(self.child.id() as i32, libc::SIGTERM) };
        self.child.wait().ok().and_then(|status| status.code())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
