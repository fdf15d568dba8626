//! The command line: `serve`, `bench`, `admin`, `store probe`. This surface is a contract; scripts depend on it.

use std::{path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::config::Size;

/// Holdfast: an OLTP database whose home is a bucket, with MySQL's wire protocol.
#[derive(Debug, Parser)]
#[command(name = "holdfast", version, about, arg_required_else_help = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Verb,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Run the server
    Serve(Box<Serve>),
    /// Run a workload and report throughput, latency, cache hits and bucket requests
    Bench(Box<holdfast_benches::BenchOptions>),
    /// Ask a running server, or tell it to do something, through its admin port
    Admin(Admin),
    /// Look at an object store
    #[command(subcommand)]
    Store(StoreVerb),
}

/// Form of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// For machines, one object a line.
    Json,
}

/// Least important kind of log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogLevel {
    /// What failed.
    Error,
    /// What an operator should look at.
    Warn,
    /// What happened.
    Info,
    /// Also every connection.
    Debug,
    /// Everything.
    Trace,
}

/// `holdfast serve`. Without flags: data in ./holdfast-data, a folder in it as the bucket.
#[derive(Clone, Debug, Args)]
pub struct Serve {
    /// TOML file with settings; flags and variables win over it
    #[arg(long, value_name = "FILE", env = "HOLDFAST_CONFIG")]
    pub config: Option<PathBuf>,
    /// Folder for the log, the cache and the certificate
    #[arg(long, value_name = "DIR", env = "HOLDFAST_DATA_DIR", default_value = "holdfast-data")]
    pub data_dir: PathBuf,
    /// Where pages live: file:///path, s3://bucket/prefix or memory:/// [default: the folder `bucket` in the data directory]
    #[arg(long, value_name = "URL", env = "HOLDFAST_STORE")]
    pub store: Option<String>,
    /// Address of the MySQL port
    #[arg(long, value_name = "ADDR", env = "HOLDFAST_LISTEN", default_value = "127.0.0.1:3306")]
    pub listen: String,
    /// Address of /metrics, /healthz and `holdfast admin`
    #[arg(long, value_name = "ADDR", env = "HOLDFAST_ADMIN_LISTEN", default_value = "127.0.0.1:3380")]
    pub admin_listen: String,
    /// RAM for cached pages
    #[arg(long, value_name = "SIZE", env = "HOLDFAST_MEMORY_CACHE", default_value = "256M")]
    pub memory_cache: Size,
    /// Disk in the data directory for cached pages; 0 turns it off [default: 1G with an s3:// store, else 0]
    #[arg(long, value_name = "SIZE", env = "HOLDFAST_NVME_CACHE")]
    pub nvme_cache: Option<Size>,
    /// Seconds that a page stays in the caches; 0 is for ever
    #[arg(long, value_name = "SECS", env = "HOLDFAST_CACHE_TTL", default_value_t = 604_800)]
    pub cache_ttl: u64,
    /// Seconds between two notes in the bucket of which pages are in RAM, for nodes that start or take over; 0 turns notes and
    /// prefetching off
    #[arg(long, value_name = "SECS", env = "HOLDFAST_HOT_LIST_INTERVAL", default_value_t = 300)]
    pub hot_list_interval: u64,
    /// Bytes a second at which a node that starts or takes over fetches such pages
    #[arg(long, value_name = "SIZE", env = "HOLDFAST_PREFETCH_RATE", default_value = "64M")]
    pub prefetch_rate: Size,
    /// RAM for rows that are not in the bucket yet, before the next ones get their own
    #[arg(long, value_name = "SIZE", env = "HOLDFAST_MEMTABLE_SIZE", default_value = "64M")]
    pub memtable_size: Size,
    /// Such rows that are flushed to the store together, from RAM and --spill-size: the more, the fewer requests and the less
    /// compaction, but the more log to replay after the loss of all nodes [default: twice --memtable-size]
    #[arg(long, value_name = "SIZE", env = "HOLDFAST_FLUSH_SIZE")]
    pub flush_size: Option<Size>,
    /// Size of a page, between 4K and 32K: what a read that misses fetches. Shorter where single rows far apart are read,
    /// longer where neighbours are; the index of 4K pages takes four times the RAM of the default's
    #[arg(long, value_name = "SIZE", env = "HOLDFAST_PAGE_SIZE", default_value = "16K")]
    pub page_size: Size,
    /// Size at which an object of the store ends: the larger, the fewer PUTs. A flush and a compaction hold two each in RAM
    #[arg(long, value_name = "SIZE", env = "HOLDFAST_OBJECT_SIZE", default_value = "16M")]
    pub object_size: Size,
    /// Disk in the data directory for such rows while the bucket is away; 0 turns it off [default: the size of the log, 4G]
    #[arg(long, value_name = "SIZE", env = "HOLDFAST_SPILL_SIZE")]
    pub spill_size: Option<Size>,
    /// Seconds between two objects of the log archive, about what the loss of every node may lose; 0 turns it off [default: 1
    /// with an s3:// store or a folder on another device than the data directory, else 0]
    #[arg(long, value_name = "SECS", env = "HOLDFAST_ARCHIVE_INTERVAL")]
    pub archive_interval: Option<f64>,
    /// Acknowledge nothing after so many seconds without contact to the store, until it is seen again [default: go on].
    #[arg(long, value_name = "SECS", env = "HOLDFAST_FENCE_AFTER", value_parser = clap::value_parser!(u64).range(1..))]
    pub fence_after: Option<u64>,
    /// Seconds that a read of what is not cached may take before it gets an error, whatever the bucket does
    #[arg(long, value_name = "SECS", env = "HOLDFAST_READ_TIMEOUT", default_value_t = 10.0)]
    pub read_timeout: f64,
    /// Share of the page reads that may be sent to the bucket a second time when they are late; 0 turns it off
    #[arg(long, value_name = "SHARE", env = "HOLDFAST_HEDGE_SHARE", default_value_t = 0.05)]
    pub hedge_share: f64,
    /// Dollars that the bucket's provider charges for 1000 PUT or LIST requests
    #[arg(long, value_name = "DOLLARS", env = "HOLDFAST_PRICE_PUT_PER_1000", default_value_t = 0.005)]
    pub price_put_per_1000: f64,
    /// Dollars for 1000 GET or HEAD requests
    #[arg(long, value_name = "DOLLARS", env = "HOLDFAST_PRICE_GET_PER_1000", default_value_t = 0.0004)]
    pub price_get_per_1000: f64,
    /// Dollars for a GB that is stored for a month
    #[arg(long, value_name = "DOLLARS", env = "HOLDFAST_PRICE_GB_MONTH", default_value_t = 0.023)]
    pub price_gb_month: f64,
    /// Requests to the bucket a second above which background work waits; reads never do [default: any number]
    #[arg(long, value_name = "N", env = "HOLDFAST_MAX_REQUESTS_PER_SECOND")]
    pub max_requests_per_second: Option<f64>,
    /// The same for dollars a day, by the --price settings [default: any sum]
    #[arg(long, value_name = "DOLLARS", env = "HOLDFAST_MAX_DOLLARS_PER_DAY")]
    pub max_dollars_per_day: Option<f64>,
    /// Log that fills an object of the archive before its time
    #[arg(long, value_name = "SIZE", env = "HOLDFAST_ARCHIVE_BYTES", default_value = "4M")]
    pub archive_bytes: Size,
    /// Rebuild the database from this bucket alone, into an empty data directory: in place, or, if --store names another one,
    /// as a copy. Later starts of the same directory ignore it
    #[arg(long, value_name = "URL", env = "HOLDFAST_RECOVER_FROM")]
    pub recover_from: Option<String>,
    /// Recover although the old cluster still writes, or up to where the archive is damaged: what comes behind is lost
    #[arg(long, env = "HOLDFAST_RECOVER_FORCE", requires = "recover_from")]
    pub recover_force: bool,
    /// Use a store that fails the probe of its conditional writes
    #[arg(long, env = "HOLDFAST_ALLOW_UNSAFE_STORE")]
    pub allow_unsafe_store: bool,
    /// Most client connections at once
    #[arg(long, value_name = "N", env = "HOLDFAST_MAX_CONNECTIONS", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub max_connections: u32,
    /// Largest statement or row a client may send
    #[arg(long, value_name = "SIZE", env = "HOLDFAST_MAX_ALLOWED_PACKET", default_value = "64M")]
    pub max_allowed_packet: Size,
    /// Seconds a client has to log in
    #[arg(long, value_name = "SECS", env = "HOLDFAST_CONNECT_TIMEOUT", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub connect_timeout: u64,
    /// Threads that serve clients [default: one for each core]
    #[arg(long, value_name = "N", env = "HOLDFAST_WORKER_THREADS", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub worker_threads: Option<u16>,
    /// File whose first line becomes root's password when a new database is made
    #[arg(long, value_name = "FILE", env = "HOLDFAST_ROOT_PASSWORD_FILE")]
    pub root_password_file: Option<PathBuf>,
    /// PEM certificate chain for TLS [default: a self-signed one, kept in the data directory]
    #[arg(long, value_name = "FILE", env = "HOLDFAST_TLS_CERT", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,
    /// PEM private key of --tls-cert
    #[arg(long, value_name = "FILE", env = "HOLDFAST_TLS_KEY", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
    /// Refuse clients that don't use TLS
    #[arg(long, env = "HOLDFAST_REQUIRE_TLS")]
    pub require_tls: bool,
    /// Least important kind of log line to print
    #[arg(long, value_name = "L", env = "HOLDFAST_LOG_LEVEL", default_value = "info")]
    pub log_level: LogLevel,
    /// Form of log lines
    #[arg(long, value_name = "F", env = "HOLDFAST_LOG_FORMAT", default_value = "text")]
    pub log_format: LogFormat,
    /// Settings of a cluster.
    #[command(flatten)]
    pub cluster: ClusterFlags,
}

/// Settings of a cluster of several nodes.
#[derive(Clone, Debug, Default, Args)]
pub struct ClusterFlags {
    /// Number of this node in its cluster
    #[arg(long, value_name = "N", env = "HOLDFAST_NODE_ID")]
    pub node_id: Option<u64>,
    /// Address that the other nodes are heard on [default: this node's in --peers]
    #[arg(long, value_name = "ADDR", env = "HOLDFAST_RAFT_LISTEN")]
    pub raft_listen: Option<String>,
    /// The nodes that start the cluster together, as 1=ADDR,2=ADDR,3=ADDR; others join by `admin add-node`
    #[arg(long, value_name = "PEERS", env = "HOLDFAST_PEERS")]
    pub peers: Option<String>,
    /// While this node follows, pass sessions that write on to the leader; while it leads, take them. For all nodes
    #[arg(long, env = "HOLDFAST_FORWARD_WRITES")]
    pub forward_writes: bool,
    /// PEM certificates of the authority that signs the nodes': turns on TLS between nodes, for all nodes
    #[arg(long, value_name = "FILE", env = "HOLDFAST_RAFT_TLS_CA", requires_all = ["raft_tls_cert", "raft_tls_key"])]
    pub raft_tls_ca: Option<PathBuf>,
    /// PEM certificate chain of this node, which names the address that the others know it by
    #[arg(long, value_name = "FILE", env = "HOLDFAST_RAFT_TLS_CERT", requires_all = ["raft_tls_ca", "raft_tls_key"])]
    pub raft_tls_cert: Option<PathBuf>,
    /// PEM private key of --raft-tls-cert
    #[arg(long, value_name = "FILE", env = "HOLDFAST_RAFT_TLS_KEY", requires_all = ["raft_tls_ca", "raft_tls_cert"])]
    pub raft_tls_key: Option<PathBuf>,
}

impl Serve {
    /// Refuses values that contradict each other.
    pub fn check(&self) -> Result<(), String> {
        if !(1024..=1 << 30).contains(&self.max_allowed_packet.0) {
            return Err("--max-allowed-packet must be between 1K and 1G".to_owned());
        }
        if self.memory_cache.0 < 1 << 20 {
            return Err("--memory-cache must be at least 1M".to_owned());
        }
        if self.nvme_cache.is_some_and(|size| (1..16 << 20).contains(&size.0)) {
            return Err("--nvme-cache must be at least 16M, or 0 for none".to_owned());
        }
        if self.archive_interval.is_some_and(|secs| secs != 0.0 && !(0.001..=3600.0).contains(&secs)) {
            return Err("--archive-interval must be between 0.001 and 3600 seconds, or 0 for no archive".to_owned());
        }
        if !(64 << 10..=256 << 20).contains(&self.archive_bytes.0) {
            return Err("--archive-bytes must be between 64K and 256M".to_owned());
        }
        if !(0.1..=3600.0).contains(&self.read_timeout) {
            return Err("--read-timeout must be between 0.1 and 3600 seconds".to_owned());
        }
        if !(0.0..=1.0).contains(&self.hedge_share) {
            return Err("--hedge-share must be between 0 and 1".to_owned());
        }
        let budgets = [self.max_requests_per_second, self.max_dollars_per_day];
        if budgets.into_iter().flatten().any(|most| !most.is_finite() || most <= 0.0) {
            return Err("--max-requests-per-second and --max-dollars-per-day must be more than 0".to_owned());
        }
        let prices = [self.price_put_per_1000, self.price_get_per_1000, self.price_gb_month];
        if prices.iter().any(|price| !price.is_finite() || *price < 0.0) {
            return Err("--price-*: a price is 0 or more dollars".to_owned());
        }
        if self.memtable_size.0 < 64 << 10 {
            return Err("--memtable-size must be at least 64K".to_owned());
        }
        if !(4 << 10..=32 << 10).contains(&self.page_size.0) {
            return Err("--page-size must be between 4K and 32K".to_owned());
        }
        if !(1 << 20..=1 << 30).contains(&self.object_size.0) {
            return Err("--object-size must be between 1M and 1G".to_owned());
        }
        Ok(())
    }

    /// Time a client has to log in.
    pub fn connect_timeout(&self) -> Duration {
        Duration::from_secs(self.connect_timeout)
    }
}

/// The error of a verb that is part of the surface and not of this version.
pub fn not_built(what: &str) -> String {
    format!("{what} is not built yet in this version: branches and restore come later")
}

/// `holdfast admin`.
#[derive(Debug, Args)]
pub struct Admin {
    /// What is asked.
    #[command(subcommand)]
    pub verb: AdminVerb,
    /// Admin address of the server
    #[arg(long, global = true, value_name = "ADDR", env = "HOLDFAST_ADMIN_ADDR", default_value = "127.0.0.1:3380")]
    pub addr: String,
    /// Print JSON
    #[arg(long, global = true)]
    pub json: bool,
}

/// `holdfast admin recover`.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct Recover {
    /// The bucket to recover from
    #[arg(long, value_name = "URL")]
    pub from: String,
    /// The bucket of the new cluster, if it is to be a copy [default: the same]
    #[arg(long, value_name = "URL")]
    pub store: Option<String>,
    /// Its data directory, which must be empty
    #[arg(long, value_name = "DIR")]
    pub data_dir: PathBuf,
    /// Recover although the old cluster still writes, or up to where the archive is damaged
    #[arg(long)]
    pub force: bool,
    /// Use a store that fails the probe of its conditional writes
    #[arg(long)]
    pub allow_unsafe_store: bool,
}

/// What `holdfast admin` can ask.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum AdminVerb {
    /// What the server is and how it fares
    Status,
    /// Write everything that is in memory to the bucket, and wait for it
    Checkpoint,
    /// Delete objects that nothing can reach
    Gc {
        /// Only say which
        #[arg(long)]
        dry_run: bool,
    },
    /// What the caches of this node hold; with a size, changes theirs while they serve (until the next start)
    Cache {
        /// The new bound of the cache in RAM
        #[arg(long, value_name = "SIZE")]
        memory: Option<Size>,
        /// The new size of the cache on NVMe
        #[arg(long, value_name = "SIZE")]
        nvme: Option<Size>,
    },
    /// Read everything that is stored and check it
    Fsck,
    /// What the bucket has cost since the start, and costs a month
    Cost,
    /// Rebuild a database from its bucket alone, into an empty data directory, without serving it (asks no server)
    Recover(Recover),
    /// The nodes of the cluster
    Nodes,
    /// Hand leadership to another node; open transactions are aborted
    Failover {
        /// The node that is to lead [default: the one that is the furthest]
        #[arg(long, value_name = "N")]
        to: Option<u64>,
        /// Only say who would lead
        #[arg(long)]
        dry_run: bool,
    },
    /// Add a node that runs: it gets its vote once it has caught up
    AddNode {
        /// Its number (its --node-id)
        #[arg(long, value_name = "N")]
        id: u64,
        /// Where the other nodes reach it (its --raft-listen)
        #[arg(long, value_name = "ADDR")]
        node_addr: String,
    },
    /// Tell the cluster the new address of a member that has moved, once it runs there
    MoveNode {
        /// Its number
        #[arg(long, value_name = "N")]
        id: u64,
        /// Where the other nodes reach it now (its --raft-listen)
        #[arg(long, value_name = "ADDR")]
        node_addr: String,
        /// Leave out the check that the others can go on if that address is wrong
        #[arg(long)]
        force: bool,
    },
    /// Take a node out of the cluster; its number is never used again
    RemoveNode {
        /// Its number
        #[arg(long, value_name = "N")]
        id: u64,
        /// Leave out the check that enough of the others answer
        #[arg(long)]
        force: bool,
    },
    /// Make a branch (not built yet)
    Branch,
    /// Restore to a point in time (not built yet)
    Restore,
    /// Copy everything to another bucket (not built yet)
    Backup,
}

/// What `holdfast store` can do.
#[derive(Debug, Subcommand)]
pub enum StoreVerb {
    /// Check that a store keeps the promises that the engine needs, and time it
    Probe {
        /// file:///path, s3://bucket/prefix or memory:///
        url: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::config;

    fn serve(arguments: &[&str]) -> Result<Serve, String> {
        let arguments = ["holdfast", "serve"].iter().chain(arguments).map(Into::into).collect();
        let (matches, _) = config::parse(Cli::command(), arguments).map_err(|e| e.to_string())?;
        match clap::FromArgMatches::from_arg_matches(&matches) {
            Ok(Cli { command: Verb::Serve(serve) }) => Ok(*serve),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_description_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_file_stands_behind_the_flags() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("h.toml");
        std::fs::write(
            &path,
            "listen = \"127.0.0.1:1\"\nmemory-cache = \"64M\"\nrequire-tls = true\nmax-connections = 7\n",
        )
        .unwrap();
        let path = path.to_str().unwrap();
        let settings = serve(&["--config", path, "--listen", "127.0.0.1:2"]).unwrap();
        assert_eq!(settings.listen, "127.0.0.1:2");
        assert_eq!((settings.memory_cache, settings.require_tls, settings.max_connections), (Size(64 << 20), true, 7));
    }

    #[test]
    fn bad_settings_name_themselves() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("h.toml");
        let with = |text: &str| {
            std::fs::write(&path, text).unwrap();
            serve(&["--config", path.to_str().unwrap()]).unwrap_err()
        };
        for (text, expected) in [
            ("lisen = 1", "unknown setting `lisen`; the nearest one is `listen`"),
            ("[s3]\nregoin = 1", "in [s3]: unknown setting `regoin`; the nearest one is `region`"),
            ("memory-cache = \"12Q\"", "`12Q` is no size"),
            ("max-connections = 0", "0 is not in 1..=100000"),
            ("require-tls = 3", "`require-tls` must be true or false"),
            ("listen = [1]", "`listen` must be a single value"),
            ("listen = ", "line 1"),
        ] {
            let error = with(text);
            assert!(error.contains(expected) && error.contains("h.toml"), "{text}: {error}");
        }
        assert!(serve(&["--config", "/nowhere.toml"]).unwrap_err().contains("/nowhere.toml: No such file"));
        assert!(serve(&["--memory-cache", "x"]).unwrap_err().contains("--memory-cache"));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        assert!(serve(&["--forward-writes"]).unwrap().check().is_ok());
        assert!(serve(&["--raft-tls-ca", "a", "--raft-tls-cert", "b"]).unwrap_err().contains("--raft-tls-key"));
        assert!(serve(&["--max-allowed-packet", "5"]).unwrap().check().is_err());
        for (interval, ok) in
            [("0", true), ("0.2", true), ("-1", false), ("0.0001", false), ("4000", false), ("NaN", false)]
        {
            let flag = format!("--archive-interval={interval}");
            assert_eq!(serve(&[&flag]).unwrap().check().is_ok(), ok, "{flag}");
        }
        for (size, ok) in [("4K", true), ("32K", true), ("2K", false), ("64K", false)] {
            assert_eq!(serve(&["--page-size", size]).unwrap().check().is_ok(), ok, "{size}");
        }
        assert!(serve(&["--read-timeout", "0"]).unwrap().check().is_err());
        assert!(serve(&["--price-gb-month", "NaN"]).unwrap().check().is_err());
        assert!(serve(&["--max-dollars-per-day", "0"]).unwrap().check().is_err());
        assert!(serve(&["--hedge-share", "5"]).unwrap().check().is_err());
        assert!(serve(&["--recover-force"]).unwrap_err().contains("--recover-from"));
    }

    /// The example file names every setting, and nothing else.
    #[test]
    fn the_example_file_is_complete() {
        let example = include_str!("../../holdfast.example.toml");
        let uncommented: String = example
            .lines()
            .map(|line| line.strip_prefix('#').filter(|rest| !rest.starts_with(' ')).unwrap_or(line))
            .collect::<Vec<_>>()
            .join("\n");
        let table: toml::Table = uncommented.parse().unwrap();
        let command = Cli::command();
        for argument in command.find_subcommand("serve").unwrap().get_arguments() {
            let name = argument.get_long().unwrap();
            assert!(name == "config" || table.contains_key(name), "{name} is missing");
        }
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("h.toml");
        std::fs::write(&path, uncommented).unwrap();
        serve(&["--config", path.to_str().unwrap()]).unwrap().check().unwrap();
    }
}
