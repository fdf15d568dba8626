//! Crash tests: kill -9, lost power, faulty disks.

mod volatile_disk;
