//! Records that change while they are read: who asks after a change never gets what was before it.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
};

use bytes::Bytes;
use holdfast_cache::{BoxFuture, Cache, Key, NvmeOptions, Origin, OriginError, Place};

use crate::{
    MIB, SMALLEST,
    common::{key, setup},
    on_both,
};

const SIZE: usize = 128 << 10;

/// Has the newest edition.
#[derive(Default)]
struct Newest(AtomicU64);

impl Origin for Newest {
    fn fetch(&self, _: Key) -> BoxFuture<'_, Result<Bytes, OriginError>> {
        Box::pin(async {
            let edition = bytes_of(self.0.load(SeqCst));
            tokio::task::yield_now().await;
            Ok(edition)
        })
    }
}

/// Large, so that a change takes a while and a read comes between its steps.
fn bytes_of(edition: u64) -> Bytes {
    edition.to_be_bytes().repeat(SIZE / 8).into()
}

async fn read(cache: &Cache, origin: &Arc<dyn Origin>) -> u64 {
    let bytes = cache.get(key(1), origin).await.unwrap();
    u64::from_be_bytes(bytes[..8].try_into().unwrap())
}

/// Makes `edition` what the key has, each time in another way.
fn change(cache: &Cache, edition: u64) {
    match edition % 6 {
        0 => cache.insert(key(1), bytes_of(edition), Place::Nvme),
        1 => cache.insert(key(1), bytes_of(edition), Place::Both),
        2 => cache.remove(&key(1)),
        3 => cache.insert(key(1), bytes_of(edition), Place::Hot),
        4 => cache.remove_groups(&[key(1).group]),
        _ => cache.insert(key(1), bytes_of(edition), Place::Ram),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_asks_after_a_change_never_gets_what_was_before_it() {
    on_both(|dir, backend| async move {
        let nvme = NvmeOptions { backend, ..NvmeOptions::new(&dir, SMALLEST) };
        let cache = Arc::new(Cache::open(setup(4 * MIB, Some(nvme)).options).unwrap());
        let newest = Arc::new(Newest::default());
        let origin: Arc<dyn Origin> = newest.clone();
        let (settled, over) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let readers: Vec<_> = (0..3)
            .map(|_| {
                let (cache, origin) = (cache.clone(), origin.clone());
                let (settled, over) = (settled.clone(), over.clone());
                tokio::spawn(async move {
                    while !over.load(SeqCst) {
                        let least = settled.load(SeqCst);
                        let got = read(&cache, &origin).await;
                        assert!(got >= least, "edition {got} after {least}");
                        tokio::task::yield_now().await;
                    }
                })
            })
            .collect();
        for edition in 1..=10_000 {
            newest.0.store(edition, SeqCst);
            change(&cache, edition);
            settled.store(edition, SeqCst);
            assert_eq!(read(&cache, &origin).await, edition);
        }
        over.store(true, SeqCst);
        for reader in readers {
            reader.await.unwrap();
        }
    })
    .await;
}
