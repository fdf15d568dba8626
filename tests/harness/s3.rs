//! A real S3 server (SeaweedFS, fetched by `tests/setup.sh`) on loopback, one per test, killed on drop.

use std::{
    io::Write,
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use object_store::aws::{AmazonS3, AmazonS3Builder};

use crate::{bucket_log::BucketLog, ports};

const KEY: &str = "holdfast";
/// May read and list, not write.
const READER: &str = "reader";
const SECRET: &str = "holdfast-secret";

/// A running SeaweedFS with one bucket named `holdfast`.
pub struct S3Server {
    child: Option<Child>,
    dir: PathBuf,
    own_dir: Option<tempfile::TempDir>,
    ports: Vec<u16>,
}

/// Where `tests/setup.sh` keeps what it fetches.
pub fn cache_dir() -> PathBuf {
    match std::env::var_os("HOLDFAST_TEST_CACHE") {
        Some(dir) => dir.into(),
        None => PathBuf::from(std::env::var_os("HOME").expect("HOME is set")).join(".cache/holdfast-tests"),
    }
}

fn weed() -> PathBuf {
    let weed = cache_dir().join("weed-4.47/weed");
    assert!(weed.exists(), "{} is missing: run tests/setup.sh", weed.display());
    weed
}

impl S3Server {
    /// Starts a server over a temporary folder and creates the bucket.
    pub fn start() -> Self {
        let dir = tempfile::tempdir().expect("temporary folder");
        let mut server = Self { child: None, dir: dir.path().to_owned(), own_dir: Some(dir), ports: ports::free(4) };
        server.launch();
        server.shell("s3.bucket.create -name holdfast");
        server
    }

    fn launch(&mut self) {
        let config = self.dir.join("s3.json");
        std::fs::write(
            &config,
            format!(
                r#"{{"identities":[
                {{"name":"all","credentials":[{{"accessKey":"{KEY}","secretKey":"{SECRET}"}}],"actions":["Admin","Read","Write","List","Tagging"]}},
                {{"name":"reader","credentials":[{{"accessKey":"{READER}","secretKey":"{SECRET}"}}],"actions":["Read","List"]}},
                {{"name":"anonymous","actions":["Read","Write","List"]}}]}}"#
            ),
        )
        .expect("write s3.json");
        let [s3, master, volume, filer] = self.ports[..] else { unreachable!("four ports") };
        let log = std::fs::File::options().create(true).append(true).open(self.log_path()).expect("log file");
        let data = self.dir.join("data");
        std::fs::create_dir_all(&data).expect("data folder");
        let child = Command::new(weed())
            .args(["-logtostderr=true", "-v=0", "server"])
            .arg(format!("-dir={}", data.display()))
            .args(["-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-filer", "-s3", "-s3.iam=false"])
            .args([format!("-s3.port={s3}"), format!("-s3.config={}", config.display())])
            .args(["-s3.port.iceberg=0", "-s3.port.lance=0"])
            .args([format!("-master.port={master}"), format!("-volume.port={volume}"), format!("-filer.port={filer}")])
            .args(["-master.volumeSizeLimitMB=256", "-volume.max=0", "-volume.preStopSeconds=0"])
            .args(["-master.electionTimeout=500ms", "-master.heartbeatInterval=100ms"])
            .args(["-master.resumeState=true", "-master.telemetry=false"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("start SeaweedFS");
        self.child = Some(child);
        let until = Instant::now() + Duration::from_secs(60);
        while TcpStream::connect(("127.0.0.1", s3)).is_err() {
            assert!(Instant::now() < until, "SeaweedFS did not answer; see {}", self.log_path().display());
            // A foreign server: its port is the only sign of readiness that it gives.
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Runs one `weed shell` command.
    pub fn shell(&self, command: &str) -> String {
        let until = Instant::now() + Duration::from_secs(60);
        loop {
            let mut shell = Command::new(weed())
                .args(["shell", &format!("-master=127.0.0.1:{}", self.ports[1])])
                .args([&format!("-filer=127.0.0.1:{}", self.ports[3])])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .expect("start weed shell");
            let mut input = shell.stdin.take().expect("piped");
            writeln!(input, "{command}\nexit").expect("write to weed shell");
            drop(input);
            let out = shell.wait_with_output().expect("weed shell ends");
            let text = String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr);
            if !text.contains("error") {
                return text;
            }
            assert!(Instant::now() < until, "weed shell {command:?}: {text}");
        }
    }

    /// `http://127.0.0.1:PORT`.
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.ports[0])
    }

    /// The environment that the S3 ecosystem reads.
    pub fn env(&self) -> Vec<(String, String)> {
        [
            ("AWS_ENDPOINT_URL", self.endpoint().as_str()),
            ("AWS_ACCESS_KEY_ID", KEY),
            ("AWS_SECRET_ACCESS_KEY", SECRET),
            ("AWS_REGION", "us-east-1"),
        ]
        .map(|(k, v)| (k.to_owned(), v.to_owned()))
        .to_vec()
    }

    /// The environment of a client that may only read.
    pub fn read_only_env(&self) -> Vec<(String, String)> {
        let mut env = self.env();
        env.push(("AWS_ACCESS_KEY_ID".to_owned(), READER.to_owned()));
        env
    }

    /// The environment of an anonymous client that goes through `endpoint`: its requests carry no signature, so that a
    /// proxy may change them.
    pub fn unsigned_env(&self, endpoint: &str) -> Vec<(String, String)> {
        let unsigned = [("AWS_ENDPOINT_URL", endpoint), ("AWS_REGION", "us-east-1"), ("AWS_SKIP_SIGNATURE", "true")];
        unsigned.map(|(k, v)| (k.to_owned(), v.to_owned())).to_vec()
    }

    /// The port of the S3 endpoint, on loopback.
    pub fn port(&self) -> u16 {
        self.ports[0]
    }

    /// A client of the bucket, for tests that look at objects or change them.
    pub fn client(&self) -> AmazonS3 {
        let mut builder = AmazonS3Builder::new().with_bucket_name("holdfast").with_allow_http(true);
        for (key, value) in self.env() {
            builder = builder.with_config(key.to_lowercase().parse().expect("an AWS_* setting"), value);
        }
        builder.build().expect("client")
    }

    /// `s3://holdfast/PREFIX`.
    pub fn url(&self, prefix: &str) -> String {
        format!("s3://holdfast/{prefix}")
    }

    /// What the server's own log says of every key below `s3://holdfast/PREFIX` since the server was made.
    pub fn bucket_log(&self, prefix: &str) -> BucketLog {
        let folder = format!("/buckets/holdfast/{prefix}");
        let out = Command::new(weed())
            .args(["filer.meta.tail", "-timeAgo=240h", "-untilTimeAgo=1ms", &format!("-pathPrefix={folder}/")])
            .arg(format!("-filer=127.0.0.1:{}", self.ports[3]))
            .stdin(Stdio::null())
            .output()
            .expect("start weed filer.meta.tail");
        assert!(out.status.success(), "weed filer.meta.tail: {}", String::from_utf8_lossy(&out.stderr));
        BucketLog::parse(&out.stdout, &folder)
    }

    /// The server's process log.
    pub fn log_path(&self) -> PathBuf {
        self.dir.join("weed.log")
    }

    /// The folder that holds the server's data and log.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Stops answering (SIGKILL); the data stays for [`Self::resume`].
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Starts the server again on the same ports and data.
    pub fn resume(&mut self) {
        self.kill();
        self.launch();
    }
}

impl Drop for S3Server {
    fn drop(&mut self) {
        self.kill();
        self.own_dir.take();
    }
}
