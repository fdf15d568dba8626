//! Deletes of a collection go on beside each other, and what can't be deleted stays known.

use std::{
    ops::Range,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
};

use bytes::Bytes;
use tokio::sync::Notify;

use super::*;
use crate::store::{Answer, Bucket, Failure, Got, Head, Listed, When, in_memory};

/// Deletes begun, of a bucket that does as it is told.
const PATIENT: usize = 1 << 20;

/// A bucket in RAM. Of its deletes the first ends after the second has begun, and some fail.
struct Stubborn {
    inner: Arc<dyn Bucket>,
    begun: AtomicUsize,
    second: Notify,
    fails: AtomicBool,
}

impl Bucket for Stubborn {
    fn put<'a>(&'a self, key: &'a str, body: &'a [Bytes], when: When, tag: u128) -> Answer<'a, Option<String>> {
        self.inner.put(key, body, when, tag)
    }

    fn get<'a>(&'a self, key: &'a str, range: Option<Range<u64>>) -> Answer<'a, Got> {
        self.inner.get(key, range)
    }

    fn head<'a>(&'a self, key: &'a str) -> Answer<'a, Head> {
        self.inner.head(key)
    }

    fn list<'a>(&'a self, prefix: &'a str, after: Option<&'a str>, max: usize) -> Answer<'a, Vec<Listed>> {
        self.inner.list(prefix, after, max)
    }

    fn delete<'a>(&'a self, key: &'a str) -> Answer<'a, ()> {
        Box::pin(async move {
            match self.begun.fetch_add(1, SeqCst) {
                0 => self.second.notified().await,
                1 => self.second.notify_one(),
                4 if self.fails.load(SeqCst) => return Err(Failure::Fatal("not now".into())),
                _ => {}
            }
            self.inner.delete(key).await
        })
    }
}

#[test]
fn deletes_do_not_wait_for_each_other_and_what_fails_is_deleted_later() {
    block_on(async {
        let bucket = Arc::new(Stubborn {
            inner: in_memory(),
            begun: AtomicUsize::new(PATIENT),
            second: Notify::new(),
            fails: AtomicBool::new(true),
        });
        let store = Store::custom("stubborn://", bucket.clone(), store_options());
        let (tree, mut model) = filled(&store, small_options()).await;
        (0..400).for_each(|n| model.write(key(n), Some(vec![9; 30])));
        model.floor = CommitSeq::end_of(model.index).0;
        let draft = tree.flush(model.flush_input(tree.version().manifest().id)).await.unwrap();
        install(&tree, &draft).await;
        drop(draft);
        while let Some(draft) = tree.compact(1, CommitSeq::MAX).await.unwrap() {
            install(&tree, &draft).await;
        }
        let stored =
            async || store.list(&format!("{}obj/", tree.0.io.folder), None, 10_000, Cause::Gc).await.unwrap().len();
        let (said, before) = (tree.collect(true).await.unwrap(), stored().await);
        assert!(before - tree.stats().objects > 8, "{said:?}");
        bucket.begun.store(0, SeqCst);
        let error = tree.collect(false).await.unwrap_err().to_string();
        assert!(error.contains("not now"), "{error}");
        let deleted = before - stored().await;
        assert!((1..8).contains(&deleted), "{deleted} were deleted although one failed early");
        assert!(tree.stats().dead_bytes > 0);
        bucket.fails.store(false, SeqCst);
        tree.collect(false).await.unwrap();
        assert_eq!((stored().await, tree.stats().dead_bytes), (tree.stats().objects, 0));
    });
}
