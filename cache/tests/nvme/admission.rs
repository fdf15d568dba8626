//! What a full tier takes: records that are asked for again, not a scan's.

use holdfast_cache::Place;

use crate::{
    PAGE,
    common::{TestOrigin, as_origin, key, page},
    on_both, open,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scan_does_not_push_out_what_a_full_tier_has() {
    on_both(|dir, backend| async move {
        let (cache, origin) = (open(&dir, backend), TestOrigin::new(PAGE));
        let origin_dyn = as_origin(&origin);
        // A little more than fits.
        for item in 0..1100 {
            cache.room().await;
            cache.insert(key(item), page(key(item), PAGE), Place::Nvme);
        }
        cache.written().await;
        let before = cache.stats();
        assert!(before.nvme_evictions > 0, "{before:?}");
        for item in 10_000..12_000 {
            cache.get(key(item), &origin_dyn).await.unwrap();
        }
        cache.written().await;
        let after = cache.stats();
        let declined = after.nvme_declined - before.nvme_declined;
        assert!(declined >= 1800, "a sketch takes few for more than they are: {declined} of 2000");
        assert!(after.nvme_evictions - before.nvme_evictions < 300, "{after:?}");
        // Asked for once more, a record is worth its place.
        for item in 11_900..12_000 {
            cache.get(key(item), &origin_dyn).await.unwrap();
        }
        cache.written().await;
        assert!(cache.stats().nvme_writes - after.nvme_writes >= 90, "{:?}", cache.stats());
        let calls = origin.calls();
        for item in 11_900..12_000 {
            cache.get(key(item), &origin_dyn).await.unwrap();
        }
        assert!(origin.calls() - calls < 10, "{}", origin.calls() - calls);
    })
    .await;
}
