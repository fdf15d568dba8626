//! Crash tests: kill -9, lost power, faulty disks.

mod kill;
mod power;
mod volatile_disk;
