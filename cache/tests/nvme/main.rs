//! The NVMe tier through the public API, on both I/O backends.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic, reason = "test code")]

mod admission;
mod changing;
#[path = "../support/common.rs"]
mod common;
mod damage;
mod faults;
mod resize;
mod restart;
mod stale;
mod tier;

use std::path::Path;

use common::{Setup, setup};
use holdfast_cache::{Backend, Cache, NvmeOptions};

const PAGE: usize = 16 << 10;
const MIB: u64 = 1 << 20;
/// The least that a tier takes: four zones.
const SMALLEST: u64 = 16 * MIB;

/// Runs a test on both backends, each in a folder of its own.
async fn on_both<F: Future<Output = ()>>(test: impl Fn(std::path::PathBuf, Backend) -> F) {
    for backend in [Backend::Ring, Backend::Threads] {
        // O_DIRECT wants a real file system; /tmp may be none.
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        test(folder.path().to_path_buf(), backend).await;
    }
}

fn small_ram(dir: &Path, backend: Backend) -> Setup {
    setup(64 << 10, Some(NvmeOptions { backend, ..NvmeOptions::new(dir, SMALLEST) }))
}

fn open(dir: &Path, backend: Backend) -> Cache {
    Cache::open(small_ram(dir, backend).options).unwrap()
}
