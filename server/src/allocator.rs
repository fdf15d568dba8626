//! Owns how the C library's allocator gives memory back to the system.

/// Bounds what the process keeps of freed memory. Left alone, glibc raises its thresholds to the largest buffer that was ever
/// freed, up to 32 MiB: after an outage of the bucket, with less than 200 MiB in use, the process had 414 MiB. Call it first
/// thing. Other C libraries have nothing of the kind to be told.
pub fn configure() {
    #[cfg(target_env = "gnu")]
    glibc::configure();
}

#[cfg(target_env = "gnu")]
mod glibc {
    use std::thread::available_parallelism;

    use libc::{M_ARENA_MAX, M_MMAP_THRESHOLD, M_TRIM_THRESHOLD, mallopt};

    /// Buffers from this many bytes on are mapped, and unmapped when they are freed.
    const MAPPED_FROM: i32 = 256 << 10;
    /// Free bytes at an arena's end that are given back.
    const TRIM_FROM: i32 = 1 << 20;
    /// Fewest heaps. There is one for each core, which threads share: glibc would make eight, and none gives its free
    /// memory to another.
    const ARENAS_MIN: usize = 2;

    pub(super) fn configure() {
        let cores = available_parallelism().map_or(ARENAS_MIN, |cores| cores.get().max(ARENAS_MIN));
        let arenas = i32::try_from(cores).unwrap_or(i32::MAX);
        for (option, value) in [(M_ARENA_MAX, arenas), (M_MMAP_THRESHOLD, MAPPED_FROM), (M_TRIM_THRESHOLD, TRIM_FROM)] {
            // SAFETY: mallopt takes two integers and keeps no reference; unknown options are refused by its result.
            let _refused_by_older_ones = unsafe { mallopt(option, value) };
        }
    }
}

#[cfg(test)]
#[cfg(target_env = "gnu")]
mod tests {
    use std::hint::black_box;

    const MIB: usize = 1 << 20;

    /// Bytes.
    fn resident() -> usize {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        kib.trim().trim_end_matches(" kB").parse::<usize>().unwrap() << 10
    }

    #[test]
    fn large_buffers_go_back_however_large_ones_were_freed_before() {
        super::configure();
        // glibc would map only what is larger still from now on, and keep the rest below what stays.
        drop(black_box(vec![1u8; 30 * MIB]));
        let before = resident();
        let (mut large, mut small) = (Vec::new(), Vec::new());
        for _ in 0..20 {
            large.push(black_box(vec![1u8; 8 * MIB]));
            small.push(black_box(vec![1u8; 1024]));
        }
        assert!(resident() > before + 150 * MIB);
        drop(large);
        let kept = resident().saturating_sub(before);
        assert!(kept < 16 * MIB, "{kept} bytes of 160 MiB were kept");
    }
}
