//! A compaction asks for what comes next in a run while it merges what it has, and for no more.

use std::{
    ops::Range,
    sync::atomic::{AtomicUsize, Ordering::SeqCst},
};

use bytes::Bytes;

use super::*;
use crate::{
    cursor::RunCursor,
    store::{Answer, Bucket, Got, Head, Listed, When, in_memory},
};

/// A bucket in RAM that takes its time, and knows how many requests for pages were under way at once.
struct Slow {
    inner: Arc<dyn Bucket>,
    gets: AtomicUsize,
    most: AtomicUsize,
    bytes: AtomicUsize,
}

impl Bucket for Slow {
    fn put<'a>(&'a self, key: &'a str, body: &'a [Bytes], when: When, tag: u128) -> Answer<'a, Option<String>> {
        self.inner.put(key, body, when, tag)
    }

    fn get<'a>(&'a self, key: &'a str, range: Option<Range<u64>>) -> Answer<'a, Got> {
        Box::pin(async move {
            let now = self.gets.fetch_add(1, SeqCst) + 1;
            self.most.fetch_max(now, SeqCst);
            self.bytes.fetch_add(range.as_ref().map_or(0, |range| (range.end - range.start) as usize), SeqCst);
            for _ in 0..50 {
                tokio::task::yield_now().await;
            }
            self.gets.fetch_sub(1, SeqCst);
            self.inner.get(key, range).await
        })
    }

    fn head<'a>(&'a self, key: &'a str) -> Answer<'a, Head> {
        self.inner.head(key)
    }

    fn list<'a>(&'a self, prefix: &'a str, after: Option<&'a str>, max: usize) -> Answer<'a, Vec<Listed>> {
        self.inner.list(prefix, after, max)
    }

    fn delete<'a>(&'a self, key: &'a str) -> Answer<'a, ()> {
        self.inner.delete(key)
    }
}

/// Two runs of 400 rows of 1000 bytes and 700, in objects of about so many bytes: each overlaps two of the other run.
async fn two_runs(object_bytes: u64) -> (Arc<Slow>, Tree, Model) {
    let [gets, most, bytes] = [(); 3].map(|()| AtomicUsize::new(0));
    let bucket = Arc::new(Slow { inner: in_memory(), gets, most, bytes });
    let store = Store::custom("slow://", bucket.clone(), store_options());
    let options =
        TreeOptions { codec: Codec::Raw, object_bytes, level_bytes: 1 << 20, tail_bytes: 1 << 20, ..small_options() };
    let tree = Tree::open(store, cache(20_000), options, None).await.unwrap();
    let mut model = Model::default();
    for len in [1000, 700] {
        (0..400).for_each(|n| model.write(key(n), Some(vec![7; len])));
        let draft = tree.flush(model.flush_input(tree.version().manifest().id)).await.unwrap();
        install(&tree, &draft).await;
    }
    model.floor = CommitSeq::end_of(model.index).0;
    (bucket, tree, model)
}

#[test]
fn a_merge_reads_ahead_from_one_object_to_the_next() {
    block_on(async {
        let (bucket, tree, model) = two_runs(100_000).await;
        bucket.most.store(0, SeqCst);
        bucket.bytes.store(0, SeqCst);
        settle(&tree, &model).await;
        let most = bucket.most.load(SeqCst);
        assert!((2..=4).contains(&most), "{most} requests at once");
        let (read, had) = (bucket.bytes.load(SeqCst), 400 * (1000 + 700));
        assert!(read < had * 5 / 4, "{read} bytes were read of {had}");
        check(&tree, &model, model.index).await;
    });
}

#[test]
fn one_request_is_ahead_in_an_object() {
    block_on(async {
        let (bucket, tree, _) = two_runs(1 << 20).await;
        bucket.bytes.store(0, SeqCst);
        let version = tree.version();
        let run = Arc::clone(version.runs().first().unwrap());
        let had: u64 = run.tables.iter().map(|table| table.meta.bytes).sum();
        let mut cursor = RunCursor::bulk(run, &(Bound::Unbounded, Bound::Unbounded), 64 << 10);
        cursor.start().await.unwrap();
        assert!(bucket.bytes.load(SeqCst) <= 64 << 10);
        while bucket.bytes.load(SeqCst) <= 64 << 10 {
            tokio::task::yield_now().await;
        }
        let mut keys = Vec::new();
        while !cursor.is_finished() {
            keys.push(cursor.key().to_vec());
            let ahead = bucket.bytes.load(SeqCst);
            assert!(ahead <= keys.len() * 1100 + (2 << 16), "{ahead} bytes were read after {} rows", keys.len());
            cursor.advance().await.unwrap();
        }
        assert_eq!(keys, (0..400).map(key).collect::<Vec<_>>());
        assert!(bucket.bytes.load(SeqCst) as u64 <= had, "nothing is read twice");
    });
}
