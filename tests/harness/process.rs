//! Runs a program to its end and says how much memory it took.

use std::{
    io::Read,
    process::{Command, Stdio},
};

/// Runs `command`, which must succeed; returns its stdout and the most RAM that it had resident, in bytes.
#[allow(clippy::zombie_processes)] // wait4 reaps it: the child's own wait would keep its figures from us
pub fn run_measured(mut command: Command) -> (String, u64) {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("start the program");
    let mut out = String::new();
    child.stdout.take().expect("piped").read_to_string(&mut out).expect("text");
    let mut status = 0;
    // SAFETY: rusage is plain numbers, for which zeroes are a value.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: wait4(2) on our own child, which nobody else reaps, with places for both answers.
    let pid = unsafe { libc::wait4(child.id() as i32, &mut status, 0, &mut usage) };
    assert_eq!((pid, status), (child.id() as i32, 0), "{command:?} ends well; it printed {out}");
    (out, usage.ru_maxrss as u64 * 1024)
}

/// How busy the machine was since this was made.
pub struct Busy {
    busy: u64,
    all: u64,
}

impl Busy {
    /// From now on.
    pub fn begin() -> Self {
        let stat = std::fs::read_to_string("/proc/stat").expect("/proc/stat");
        let times: Vec<u64> =
            stat.lines().next().unwrap_or_default().split_whitespace().skip(1).flat_map(str::parse).collect();
        let all = times.iter().sum();
        // The fourth and fifth are idle, and waiting for disks.
        let idle: u64 = times.iter().skip(3).take(2).sum();
        Self { busy: all - idle, all }
    }

    /// Share of the CPU time of all cores since, in percent.
    pub fn percent(&self) -> u64 {
        let now = Self::begin();
        (now.busy - self.busy) * 100 / (now.all - self.all).max(1)
    }
}
