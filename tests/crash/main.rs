//! Crash tests: kill -9, lost power, faulty disks.
