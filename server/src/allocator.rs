//! Owns how the C library's allocator gives memory back to the system.

/// Buffers from this many bytes on are mapped, and unmapped when they are freed.
const MAPPED_FROM: i32 = 256 << 10;
/// Free bytes at an arena's end that are given back.
const TRIM_FROM: i32 = 1 << 20;
/// Fewest heaps. There is one for each core, which threads share: glibc would make eight, and none gives its free memory
/// to another.
const ARENAS_MIN: usize = 2;

/// Bounds what the process keeps of freed memory. Left alone, glibc raises its thresholds to the largest buffer that was ever
/// freed, up to 32 MiB: after an outage of the bucket, with some 200 MiB in use, the process kept 414 MiB, and with these
/// settings half of that. Call it first thing. Other C libraries have nothing of the kind to be told.
pub fn configure() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        use libc::{M_ARENA_MAX, M_MMAP_THRESHOLD, M_TRIM_THRESHOLD, mallopt};
        let cores = std::thread::available_parallelism().map_or(ARENAS_MIN, |cores| cores.get().max(ARENAS_MIN));
        let arenas = i32::try_from(cores).unwrap_or(i32::MAX);
        for (option, value) in [(M_ARENA_MAX, arenas), (M_MMAP_THRESHOLD, MAPPED_FROM), (M_TRIM_THRESHOLD, TRIM_FROM)] {
            // SAFETY: mallopt takes two integers and keeps no reference; unknown options are refused by its result.
            let _refused_by_older_ones = unsafe { mallopt(option, value) };
        }
    }
}
