//! Owns the workloads: what each is made of, and the stream of operations that a client runs. Pure.

use rand::{RngExt, SeedableRng, rngs::StdRng};

use crate::dist::{Chooser, Distribution, mix, unmix};

/// A workload by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Workload {
    /// YCSB A: half reads, half updates; zipfian
    #[value(alias = "a")]
    YcsbA,
    /// YCSB B: 95 % reads, 5 % updates; zipfian
    #[value(alias = "b")]
    YcsbB,
    /// YCSB C: reads only; zipfian
    #[value(alias = "c")]
    YcsbC,
    /// YCSB D: 95 % reads, 5 % inserts; latest
    #[value(alias = "d")]
    YcsbD,
    /// YCSB E: 95 % short scans, 5 % inserts; zipfian
    #[value(alias = "e")]
    YcsbE,
    /// YCSB F: half reads, half read-modify-write transactions; zipfian
    #[value(alias = "f")]
    YcsbF,
    /// Reads of one row; uniform
    PointSelect,
    /// Scans of up to --scan-length rows; uniform
    RangeScan,
    /// Inserts in key order, as with AUTO_INCREMENT
    Insert,
    /// Updates of one row; uniform
    Update,
    /// Transactions as sysbench's oltp_read_only has them: 10 point reads and 4 ranges; uniform
    ReadOnly,
    /// Transactions as sysbench's oltp_write_only has them: 4 writes; uniform
    WriteOnly,
    /// Transactions as sysbench's oltp_read_write has them: 10 point reads, 4 ranges, 4 writes; uniform
    ReadWrite,
}

/// What a workload is made of: shares of 100.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Mix {
    read: u8,
    update: u8,
    insert: u8,
    scan: u8,
    modify: u8,
    transaction: Option<Shape>,
    distribution: Distribution,
    hashed_keys: bool,
}

/// What a transaction is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Shape {
    points: usize,
    ranges: usize,
    writes: usize,
}

impl Workload {
    fn mix(self) -> Mix {
        let ycsb = Mix {
            read: 0,
            update: 0,
            insert: 0,
            scan: 0,
            modify: 0,
            transaction: None,
            distribution: Distribution::Zipfian,
            hashed_keys: true,
        };
        let plain = Mix { distribution: Distribution::Uniform, hashed_keys: false, ..ycsb };
        let transaction = |points, ranges, writes| Mix { transaction: Some(Shape { points, ranges, writes }), ..plain };
        match self {
            Self::YcsbA => Mix { read: 50, update: 50, ..ycsb },
            Self::YcsbB => Mix { read: 95, update: 5, ..ycsb },
            Self::YcsbC => Mix { read: 100, ..ycsb },
            Self::YcsbD => Mix { read: 95, insert: 5, distribution: Distribution::Latest, ..ycsb },
            Self::YcsbE => Mix { scan: 95, insert: 5, ..ycsb },
            Self::YcsbF => Mix { read: 50, modify: 50, ..ycsb },
            Self::PointSelect => Mix { read: 100, ..plain },
            Self::RangeScan => Mix { scan: 100, ..plain },
            Self::Insert => Mix { insert: 100, ..plain },
            Self::Update => Mix { update: 100, ..plain },
            Self::ReadOnly => transaction(10, 4, 0),
            Self::WriteOnly => transaction(0, 0, 4),
            Self::ReadWrite => transaction(10, 4, 4),
        }
    }

    /// The distribution it runs with unless told otherwise.
    pub fn distribution(self) -> Distribution {
        self.mix().distribution
    }

    /// The key of a row: YCSB's are hashed, so that neighbours in time are not neighbours in the tree.
    pub fn key(self, row: u64) -> u64 {
        if self.mix().hashed_keys { mix(row) } else { row }
    }

    /// The row of a key.
    pub fn row(self, key: u64) -> u64 {
        if self.mix().hashed_keys { unmix(key) } else { key }
    }
}

/// One thing that a client does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Reads a row.
    Read(u64),
    /// Overwrites a row.
    Update(u64),
    /// Adds the next row.
    Insert,
    /// Reads up to so many rows from a row on.
    Scan(u64, usize),
    /// Reads a row and overwrites it, in one transaction.
    Modify(u64),
    /// Several of these in one transaction.
    Transaction {
        /// Rows to read.
        points: Vec<u64>,
        /// Rows from which to scan.
        ranges: Vec<(u64, usize)>,
        /// Rows to overwrite, in order and without repetition.
        writes: Vec<u64>,
    },
}

/// One client's operations.
pub struct Stream {
    mix: Mix,
    chooser: Chooser,
    scan_length: usize,
    rng: StdRng,
}

impl Stream {
    /// The stream of client `client`, over a chooser that may be shared by cloning it.
    pub fn new(workload: Workload, chooser: Chooser, scan_length: usize, seed: u64, client: u64) -> Self {
        let rng = StdRng::seed_from_u64(mix(seed) ^ client);
        Self { mix: workload.mix(), chooser, scan_length: scan_length.max(1), rng }
    }

    /// The next operation on a table of `rows` rows.
    pub fn next(&mut self, rows: u64) -> Operation {
        if let Some(shape) = self.mix.transaction {
            return self.transaction(shape, rows);
        }
        let Mix { read, update, insert, scan, .. } = self.mix;
        let roll = self.rng.random_range(0..100u8);
        if roll < read {
            Operation::Read(self.row(rows))
        } else if roll < read + update {
            Operation::Update(self.row(rows))
        } else if roll < read + update + insert {
            Operation::Insert
        } else if roll < read + update + insert + scan {
            let row = self.row(rows);
            Operation::Scan(row, self.rng.random_range(1..=self.scan_length))
        } else {
            Operation::Modify(self.row(rows))
        }
    }

    fn transaction(&mut self, shape: Shape, rows: u64) -> Operation {
        let points = (0..shape.points).map(|_| self.row(rows)).collect();
        let length = self.scan_length;
        let ranges = (0..shape.ranges).map(|_| (self.row(rows), length)).collect();
        let mut writes: Vec<u64> = (0..shape.writes).map(|_| self.row(rows)).collect();
        writes.sort_unstable();
        writes.dedup();
        Operation::Transaction { points, ranges, writes }
    }

    fn row(&mut self, rows: u64) -> u64 {
        self.chooser.choose(&mut self.rng, rows)
    }
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum;

    use super::*;

    fn shares(workload: Workload) -> [usize; 5] {
        let mut stream = Stream::new(workload, Chooser::new(workload.distribution(), 1000), 100, 1, 0);
        let mut shares = [0; 5];
        for _ in 0..10_000 {
            match stream.next(1000) {
                Operation::Read(row) => shares[0] += usize::from(row < 1000),
                Operation::Update(row) => shares[1] += usize::from(row < 1000),
                Operation::Insert => shares[2] += 1,
                Operation::Scan(row, length) => shares[3] += usize::from(row < 1000 && (1..=100).contains(&length)),
                Operation::Modify(row) => shares[4] += usize::from(row < 1000),
                Operation::Transaction { .. } => {}
            }
        }
        shares.map(|n| (n + 50) / 100)
    }

    #[test]
    fn ycsb_shares() {
        let near = |got: [usize; 5], want: [usize; 5]| {
            assert!(got.iter().zip(want).all(|(g, w)| g.abs_diff(w) <= 2), "{got:?} for {want:?}");
        };
        near(shares(Workload::YcsbA), [50, 50, 0, 0, 0]);
        near(shares(Workload::YcsbB), [95, 5, 0, 0, 0]);
        near(shares(Workload::YcsbC), [100, 0, 0, 0, 0]);
        near(shares(Workload::YcsbD), [95, 0, 5, 0, 0]);
        near(shares(Workload::YcsbE), [0, 0, 5, 95, 0]);
        near(shares(Workload::YcsbF), [50, 0, 0, 0, 50]);
    }

    #[test]
    fn transactions_have_sysbenchs_shape_and_write_in_order() {
        let mut stream = Stream::new(Workload::ReadWrite, Chooser::Uniform, 100, 1, 0);
        for _ in 0..100 {
            let Operation::Transaction { points, ranges, writes } = stream.next(50) else {
                panic!("not a transaction")
            };
            assert_eq!((points.len(), ranges.len()), (10, 4));
            assert!(writes.len() <= 4 && writes.is_sorted_by(|a, b| a < b), "{writes:?}");
        }
    }

    #[test]
    fn a_seed_and_client_give_the_same_stream_again() {
        let stream = |client| {
            let mut stream = Stream::new(Workload::YcsbA, Chooser::new(Distribution::Zipfian, 1000), 100, 7, client);
            (0..100).map(|_| stream.next(1000)).collect::<Vec<_>>()
        };
        assert_eq!(stream(1), stream(1));
        assert_ne!(stream(1), stream(2));
    }

    #[test]
    fn every_workload_has_a_name_and_100_shares() {
        for workload in Workload::value_variants() {
            let mix = workload.mix();
            let sum = mix.read + mix.update + mix.insert + mix.scan + mix.modify;
            assert_eq!(sum, if mix.transaction.is_some() { 0 } else { 100 }, "{workload:?}");
        }
        assert_eq!(Workload::from_str("a", true), Ok(Workload::YcsbA));
        assert_eq!(Workload::from_str("point-select", true), Ok(Workload::PointSelect));
    }
}
