//! Owns the bench's options: what the command line takes.

use std::path::PathBuf;

use crate::{dist::Distribution, row::MIN_VALUE, workload::Workload};

/// Options of a benchmark run.
#[derive(Clone, Debug, clap::Args)]
#[command(group(clap::ArgGroup::new("target").required(true).args(["store", "addr"])))]
pub struct BenchOptions {
    /// What to run
    pub workload: Workload,
    /// Run embedded, on this store: file:///path, s3://bucket/prefix or memory:///. Without --data-dir the run makes a
    /// prefix of its own below it; in a bucket its objects stay
    #[arg(long, value_name = "URL")]
    pub store: Option<String>,
    /// Run over MySQL, against the server at this address
    #[arg(long, value_name = "HOST:PORT")]
    pub addr: Option<String>,
    /// MySQL user
    #[arg(long, default_value = "root", conflicts_with = "store")]
    pub user: String,
    /// MySQL password
    #[arg(long, default_value = "", conflicts_with = "store", env = "HOLDFAST_BENCH_PASSWORD", hide_env_values = true)]
    pub password: String,
    /// MySQL database; its table `usertable` is dropped and made anew
    #[arg(long, default_value = "holdfast_bench", conflicts_with = "store")]
    pub database: String,
    /// Embedded: where the log and the NVMe cache live; give it with the same --store to keep the rows for another run
    /// (default: a temporary folder, removed afterwards)
    #[arg(long, value_name = "DIR", conflicts_with = "addr")]
    pub data_dir: Option<PathBuf>,
    /// Embedded: RAM page cache, such as 512M
    #[arg(long, value_name = "SIZE", value_parser = parse_size, conflicts_with = "addr")]
    pub memory_cache: Option<u64>,
    /// Embedded: NVMe page cache, such as 4G
    #[arg(long, value_name = "SIZE", value_parser = parse_size, conflicts_with = "addr")]
    pub nvme_cache: Option<u64>,
    /// Embedded: RAM for rows that are not in the bucket yet, such as 64M
    #[arg(long, value_name = "SIZE", value_parser = parse_size, conflicts_with = "addr")]
    pub memtable_size: Option<u64>,
    /// Embedded: use a store that fails the probe of conditional writes
    #[arg(long, conflicts_with = "addr")]
    pub allow_unsafe_store: bool,
    /// Rows to load
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..=1 << 32))]
    pub rows: u64,
    /// Bytes of each value
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(MIN_VALUE as i64..=16 << 20))]
    pub value_size: u32,
    /// Clients that run at once, each waiting for its answers
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub threads: u32,
    /// Seconds to run
    #[arg(long, default_value_t = 10)]
    pub seconds: u64,
    /// Run this many operations instead of --seconds
    #[arg(long)]
    pub operations: Option<u64>,
    /// Seconds to run before measuring
    #[arg(long, default_value_t = 0)]
    pub warmup: u64,
    /// How rows are chosen (default: the workload's own)
    #[arg(long)]
    pub distribution: Option<Distribution>,
    /// Rows of a scan: YCSB's scans read 1 to this many, transactions exactly as many
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub scan_length: u32,
    /// Use the rows that an earlier run loaded: with hashed keys (YCSB) or without, and values of the same size
    #[arg(long, conflicts_with = "check")]
    pub skip_load: bool,
    /// Embedded: flush everything to the bucket after loading
    #[arg(long, conflicts_with = "addr")]
    pub flush_after_load: bool,
    /// Verify every value that is read, and all rows at the end
    #[arg(long)]
    pub check: bool,
    /// Seed of the operations
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Print the report as JSON
    #[arg(long)]
    pub json: bool,
}

impl BenchOptions {
    /// How rows are chosen.
    pub fn distribution(&self) -> Distribution {
        self.distribution.unwrap_or_else(|| self.workload.distribution())
    }

    /// Bytes of each value.
    pub fn value_size(&self) -> usize {
        self.value_size as usize
    }
}

/// Bytes from `64M`, `2GiB`, `4096`.
fn parse_size(text: &str) -> Result<u64, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let shift = match unit.trim().to_ascii_lowercase().trim_end_matches("ib").trim_end_matches('b') {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        _ => return Err(format!("'{unit}' is no unit of size; K, M, G and T are")),
    };
    let number: u64 = number.parse().map_err(|_| format!("'{text}' is no size such as 512M"))?;
    number.checked_mul(1 << shift).ok_or_else(|| format!("'{text}' is too large"))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        bench: BenchOptions,
    }

    fn parse(line: &str) -> Result<BenchOptions, String> {
        Cli::try_parse_from(line.split_whitespace()).map(|cli| cli.bench).map_err(|error| error.to_string())
    }

    #[test]
    fn a_target_is_needed_and_only_one() {
        assert!(parse("bench ycsb-a").unwrap_err().contains("--store"));
        assert!(parse("bench ycsb-a --store memory:/// --addr 127.0.0.1:3306").is_err());
        assert!(parse("bench ycsb-a --store memory:/// --user root").is_err());
        assert_eq!(parse("bench a --addr 127.0.0.1:3306").unwrap().workload, Workload::YcsbA);
    }

    #[test]
    fn sizes() {
        let options = parse("bench c --store memory:/// --memory-cache 64M --nvme-cache 2GiB").unwrap();
        assert_eq!((options.memory_cache, options.nvme_cache), (Some(64 << 20), Some(2 << 30)));
        for bad in ["64X", "M", "-1", "99999999T"] {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn values_have_room_for_their_key_and_version() {
        assert!(parse("bench c --store memory:/// --value-size 15").is_err());
        assert!(parse("bench c --store memory:/// --value-size 16").is_ok());
    }
}
