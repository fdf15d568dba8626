//! The bucket: a real S3 server behind a proxy that delays and counts, and what the requests cost.

use std::{
    collections::BTreeMap,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use holdfast_tests::{
    proxy::{Fault, Proxy},
    s3::S3Server,
};
use slatedb::object_store::aws::{AmazonS3, AmazonS3Builder};

/// Name of the bucket that the server makes.
const NAME: &str = "holdfast";
/// S3 Standard, dollars per request that writes or lists, and that reads. Deletes are free.
const DOLLARS_PER_PUT: f64 = 0.005 / 1000.0;
const DOLLARS_PER_GET: f64 = 0.0004 / 1000.0;
/// Less traffic than this within the quiet time is no work: engines poll.
const QUIET_BYTES: u64 = 1 << 20;
/// Longest that is waited for quiet.
const QUIET_MAX: Duration = Duration::from_secs(300);

/// The server and its proxy.
pub struct Bucket {
    server: S3Server,
    proxy: Proxy,
}

impl Bucket {
    /// Starts both.
    pub fn start(delay: Duration) -> Self {
        let server = S3Server::start();
        let proxy = Proxy::start(server.port());
        if !delay.is_zero() {
            proxy.set(Fault::Slow(delay));
        }
        Self { server, proxy }
    }

    /// `s3://bucket/PREFIX`.
    pub fn url(&self, prefix: &str) -> String {
        self.server.url(prefix)
    }

    /// The S3 settings that lead to the proxy.
    pub fn settings(&self) -> Vec<(String, String)> {
        let mut settings = self.server.env();
        settings.retain(|(name, _)| name != "AWS_ENDPOINT_URL");
        settings.push(("AWS_ENDPOINT_URL".to_owned(), self.proxy.endpoint()));
        settings
    }

    /// A client that goes through the proxy.
    pub fn client(&self) -> Result<AmazonS3> {
        // As Holdfast does on loopback: the SHA-256 of all that is sent would take a quarter of the CPU.
        let mut builder =
            AmazonS3Builder::new().with_bucket_name(NAME).with_allow_http(true).with_unsigned_payload(true);
        for (name, value) in self.settings() {
            builder = builder.with_config(name.to_lowercase().parse()?, value);
        }
        builder.build().context("the S3 client")
    }

    /// What came so far.
    pub fn traffic(&self) -> Traffic {
        Traffic { requests: self.proxy.requests_by_method(), bytes: self.proxy.bytes() }
    }

    /// Waits until nothing but polling has come for `quiet`, and tells the traffic at the start of that time.
    pub async fn settled(&self, quiet: Duration) -> Traffic {
        let began = Instant::now();
        let (mut since, mut start) = (began, self.traffic());
        while since.elapsed() < quiet && began.elapsed() < QUIET_MAX {
            tokio::time::sleep(Duration::from_millis(250)).await;
            let now = self.traffic();
            if now.since(&start).moved() > QUIET_BYTES {
                (since, start) = (Instant::now(), now);
            }
        }
        if began.elapsed() >= QUIET_MAX {
            println!("  (still busy after {} s)", QUIET_MAX.as_secs());
            return self.traffic();
        }
        start
    }
}

/// Requests by method, as the proxy sorts them, and bytes of bodies, sent and received.
#[derive(Clone, Debug, Default)]
pub struct Traffic {
    requests: BTreeMap<&'static str, u64>,
    bytes: (u64, u64),
}

impl Traffic {
    /// What came after `before`.
    pub fn since(&self, before: &Self) -> Self {
        let mut requests = self.requests.clone();
        for (method, count) in &mut requests {
            *count -= before.requests.get(method).copied().unwrap_or(0);
        }
        Self { requests, bytes: (self.bytes.0 - before.bytes.0, self.bytes.1 - before.bytes.1) }
    }

    fn sum(&self, methods: &[&str]) -> u64 {
        methods.iter().filter_map(|method| self.requests.get(method)).sum()
    }

    /// Requests at the price of a GET.
    pub fn gets(&self) -> u64 {
        self.sum(&["GET", "HEAD"])
    }

    /// Requests at the price of a PUT.
    pub fn puts(&self) -> u64 {
        self.sum(&["PUT", "POST", "LIST"])
    }

    /// Bytes both ways.
    pub fn moved(&self) -> u64 {
        self.bytes.0 + self.bytes.1
    }

    /// What the requests cost.
    pub fn dollars(&self) -> f64 {
        self.gets() as f64 * DOLLARS_PER_GET + self.puts() as f64 * DOLLARS_PER_PUT
    }

    /// Everything, for a line of its own.
    pub fn detail(&self) -> String {
        let requests: Vec<String> = self.requests.iter().map(|(method, count)| format!("{method} {count}")).collect();
        format!("{}, {} MiB up, {} MiB down", requests.join(", "), self.bytes.0 >> 20, self.bytes.1 >> 20)
    }
}

/// Bytes that a folder takes on disk.
pub fn disk_bytes(folder: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    // Files come and go meanwhile: what is gone takes nothing.
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.metadata() {
            Ok(data) if data.is_dir() => disk_bytes(&entry.path()),
            Ok(data) => data.blocks() * 512,
            Err(_) => 0,
        })
        .sum()
}
