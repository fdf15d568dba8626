//! A real `holdfast serve` process: started, awaited by its ready line, killed or drained.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc,
    time::Duration,
};

use mysql_async::{Conn, prelude::Queryable};

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

/// How a process that was to end by itself ended.
#[derive(Debug)]
pub struct Exit {
    /// Its exit code; `None` if a signal ended it.
    pub code: Option<i32>,
    /// What it wrote to stdout, then to stderr.
    pub output: String,
}

/// Runs `holdfast ARGS` to its end, which must come within a minute.
pub fn run<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>, env: Vec<(String, String)>) -> Exit {
    let mut command = Command::new(binary());
    command.args(args).envs(env).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().unwrap_or_else(|e| panic!("{}: {e}", binary().display()));
    let pid = child.id();
    let (ended, end) = mpsc::channel::<()>();
    let guard = std::thread::spawn(move || {
        if let Err(mpsc::RecvTimeoutError::Timeout) = end.recv_timeout(READY_WITHIN) {
            // SAFETY: kill(2) with our own child's id, which is not reaped before this thread is joined.
            unsafe { libc::kill(pid as i32, libc::SIGKILL) };
        }
    });
    let mut child = child;
    let (stdout, stderr) = (child.stdout.take().expect("piped"), child.stderr.take().expect("piped"));
    let stderr = std::thread::spawn(move || std::io::read_to_string(stderr).unwrap_or_default());
    let output = std::io::read_to_string(stdout).unwrap_or_default() + &stderr.join().expect("reader");
    drop(ended);
    guard.join().expect("guard");
    let status = child.wait().expect("wait");
    Exit { code: status.code(), output }
}

/// A command line under construction.
pub struct Serve {
    command: Command,
    listen: String,
    admin_listen: String,
    login: String,
}

/// A running server.
pub struct Server {
    child: Child,
    /// MySQL address.
    pub mysql: String,
    /// Admin address.
    pub admin: String,
    log: PathBuf,
    login: String,
}

impl Serve {
    /// `holdfast serve --data-dir DIR` on ephemeral ports; the server's log goes to `DIR.log`.
    pub fn new(data_dir: &Path) -> Self {
        Self::of_release(&binary(), data_dir)
    }

    /// The same with another release of the binary.
    pub fn of_release(binary: &Path, data_dir: &Path) -> Self {
        Self::from_command(Command::new(binary), data_dir)
    }

    /// As [`Self::new`], in a network namespace.
    pub fn in_namespace(namespace: &str, data_dir: &Path) -> Self {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", namespace]).arg(binary());
        Self::from_command(command, data_dir)
    }

    fn from_command(mut command: Command, data_dir: &Path) -> Self {
        command.arg("serve").arg("--data-dir").arg(data_dir);

        let log = std::fs::File::options().create(true).append(true).open(log_path(data_dir)).expect("log file");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
        command.env("HOLDFAST_TEST_DATA_DIR", data_dir);
        let nowhere = || "127.0.0.1:0".to_owned();
        Self { command, listen: nowhere(), admin_listen: nowhere(), login: "root".to_owned() }
    }

    /// Another address for the MySQL port than an ephemeral one.
    pub fn listen(mut self, addr: &str) -> Self {
        addr.clone_into(&mut self.listen);
        self
    }

    /// A password for root, so that clients may come from other addresses than loopback.
    pub fn password(mut self, file: &Path, password: &str) -> Self {
        std::fs::write(file, password).expect("password file");
        self.command.arg("--root-password-file").arg(file);
        self.login = format!("root:{password}");
        self
    }

    /// Another address for the admin port than an ephemeral one.
    pub fn admin_listen(mut self, addr: &str) -> Self {
        addr.clone_into(&mut self.admin_listen);
        self
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

    /// Sends what the server logs to a file of the caller's.
    pub fn stderr(mut self, file: std::fs::File) -> Self {
        self.command.stderr(file);
        self
    }

    /// Starts and waits for the ready line. The error holds the end of the server's log.
    pub fn try_start(mut self) -> Result<Server, String> {
        self.command.args(["--listen", &self.listen, "--admin-listen", &self.admin_listen]);
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
            Some((mysql, admin)) => Ok(Server { child, mysql, admin, log, login: self.login }),
            None => {
                let _ = child.kill();
                let status = child.wait();
                let text = std::fs::read_to_string(&log).unwrap_or_default();
                let tail = &text[text.len().saturating_sub(3000)..];
                Err(format!("no ready line ({line:?}, {status:?}); its log ends:\n{tail}"))
            }
        }
    }

    /// Runs a server that must not come up, and ends by itself. The output is what it logged this time.
    pub fn refused(mut self) -> Exit {
        self.command.args(["--listen", &self.listen, "--admin-listen", &self.admin_listen]);
        let args: Vec<_> = self.command.get_args().map(ToOwned::to_owned).collect();
        let env = self
            .command
            .get_envs()
            .filter_map(|(k, v)| Some((k.to_string_lossy().into_owned(), v?.to_string_lossy().into_owned())));
        run(args, env.collect())
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
        format!("mysql://{}@{}/{database}?prefer_socket=false", self.login, self.mysql)
    }

    /// The numbers of `SHOW GLOBAL STATUS`.
    pub async fn status(&self) -> BTreeMap<String, u64> {
        let mut conn = Conn::from_url(self.url("")).await.expect("connect");
        let rows: Vec<(String, String)> = conn.query("SHOW GLOBAL STATUS").await.expect("SHOW GLOBAL STATUS");
        conn.disconnect().await.expect("disconnect");
        rows.into_iter().filter_map(|(name, value)| Some((name, value.parse().ok()?))).collect()
    }

    /// Runs `holdfast admin VERB` against the server, off the async threads.
    pub async fn admin(&self, verb: &str) -> String {
        self.run_admin(&[verb]).await
    }

    /// As [`Self::admin`], with the answer as JSON.
    pub async fn admin_json(&self, verb: &str) -> String {
        self.run_admin(&[verb, "--json"]).await
    }

    async fn run_admin(&self, args: &[&str]) -> String {
        self.try_admin(args).await.unwrap_or_else(|error| panic!("admin {}: {error}", args.join(" ")))
    }

    /// `holdfast admin` with these arguments; what it printed, or what it said went wrong.
    pub async fn try_admin(&self, args: &[&str]) -> Result<String, String> {
        let mut command = Command::new(binary());
        command.arg("admin").args(args).args(["--addr", &self.admin]).stdin(Stdio::null());
        let out = tokio::task::spawn_blocking(move || command.output()).await.expect("joins").expect("start holdfast");
        let (said, shown) = if out.status.success() { (out.stdout, true) } else { (out.stderr, false) };
        let said = String::from_utf8_lossy(&said).into_owned();
        if shown { Ok(said) } else { Err(said) }
    }

    /// The most RAM that the process has had resident, in bytes.
    pub fn peak_rss(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("the process is there");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("VmHWM");
        line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1024
    }

    /// Whether the process has a file of this name open with O_DIRECT; `None` if it has not opened it.
    pub fn opened_direct(&self, name: &str) -> Option<bool> {
        let folder = PathBuf::from(format!("/proc/{}", self.pid()));
        let fds = std::fs::read_dir(folder.join("fd")).expect("the process is there").flatten();
        let fd = fds.into_iter().find(|fd| std::fs::read_link(fd.path()).is_ok_and(|file| file.ends_with(name)))?;
        let info = std::fs::read_to_string(folder.join("fdinfo").join(fd.file_name())).expect("fdinfo");
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).expect("flags");
        let flags = i32::from_str_radix(flags.trim(), 8).expect("octal");
        Some(flags & libc::O_DIRECT != 0)
    }

    /// What the server logged so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Waits until the server has logged a line with `part`, and returns the line.
    pub async fn wait_for_log(&self, part: &str) -> String {
        self.wait_for_line(&[part]).await
    }

    /// Waits for a line with all these parts in the log, and answers it.
    pub async fn wait_for_line(&self, parts: &[&str]) -> String {
        for _ in 0..3_000 {
            if let Some(line) = self.log().lines().find(|line| parts.iter().all(|part| line.contains(part))) {
                return line.to_owned();
            }
            // The log is a file of another process: there is no event to await.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("{parts:?} are not in one line of the log within a minute:\n{}", self.log());
    }

    /// Connects as soon as the server has a connection to spare.
    pub async fn connect_when_free(&self) -> mysql_async::Conn {
        for _ in 0..3_000 {
            match mysql_async::Conn::from_url(self.url("")).await {
                Ok(conn) => return conn,
                Err(mysql_async::Error::Server(error)) if error.code == 1040 => {}
                Err(other) => panic!("{other}"),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("no connection became free within a minute");
    }

    /// Freezes the process (SIGSTOP), as a machine that sleeps.
    pub fn pause(&self) {
        self.signal(libc::SIGSTOP);
    }

    /// Wakes it (SIGCONT).
    pub fn resume(&self) {
        self.signal(libc::SIGCONT);
    }

    fn signal(&self, signal: i32) {
        // SAFETY: kill(2) with our own child's id, which is not reaped yet.
        unsafe { libc::kill(self.child.id() as i32, signal) };
    }

    /// kill -9, and wait for the end.
    pub fn kill(mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Waits until the server has ended by itself; returns the exit code, or `None` after a minute.
    pub async fn ended(mut self) -> Option<i32> {
        for _ in 0..3_000 {
            if let Ok(Some(status)) = self.child.try_wait() {
                return status.code();
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        None
    }

    /// SIGTERM, and wait for the end; returns the exit code.
    pub fn terminate(mut self) -> Option<i32> {
        self.signal(libc::SIGTERM);
        self.child.wait().ok().and_then(|status| status.code())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
