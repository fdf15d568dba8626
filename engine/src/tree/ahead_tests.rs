//! A compaction asks for what comes next in a run while it merges what it has, and for no more.

use std::{
    ops::Range,
    sync::atomic::{AtomicUsize, Ordering::SeqCst},
};

use bytes::Bytes;

use super::*;
use crate::{
    cursor::{RunCursor, Stored},
    format::page,
    store::{Answer, Bucket, Got, Head, Listed, When, in_memory},
};

/// A bucket in RAM that takes its time, and knows how many requests for pages were under way at once.
struct Slow {
    inner: Arc<dyn Bucket>,
    gets: AtomicUsize,
    most: AtomicUsize,
    asked: AtomicUsize,
    bytes: AtomicUsize,
}

impl Slow {
    fn count_anew(&self) {
        for count in [&self.most, &self.asked, &self.bytes] {
            count.store(0, SeqCst);
        }
    }
}

impl Bucket for Slow {
    fn put<'a>(&'a self, key: &'a str, body: &'a [Bytes], when: When, tag: u128) -> Answer<'a, Option<String>> {
        self.inner.put(key, body, when, tag)
    }

    fn get<'a>(&'a self, key: &'a str, range: Option<Range<u64>>) -> Answer<'a, Got> {
        Box::pin(async move {
            let now = self.gets.fetch_add(1, SeqCst) + 1;
            self.most.fetch_max(now, SeqCst);
            self.asked.fetch_add(1, SeqCst);
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

/// Runs of 400 rows, of so many bytes each, in objects of about so many bytes.
async fn runs_of(lens: &[usize], object_bytes: u64) -> (Arc<Slow>, Tree, Model) {
    let [gets, most, asked, bytes] = [(); 4].map(|()| AtomicUsize::new(0));
    let bucket = Arc::new(Slow { inner: in_memory(), gets, most, asked, bytes });
    let store = Store::custom("slow://", bucket.clone(), store_options());
    let options =
        TreeOptions { codec: Codec::Raw, object_bytes, level_bytes: 1 << 20, tail_bytes: 1 << 20, ..small_options() };
    let tree = Tree::open(store, cache(20_000), options, None).await.unwrap();
    let mut model = Model::default();
    for len in lens {
        (0..400).for_each(|n| model.write(key(n), Some(vec![n as u8; *len])));
        let draft = tree.flush(model.flush_input(tree.version().manifest().id)).await.unwrap();
        install(&tree, &draft).await;
    }
    model.floor = CommitSeq::end_of(model.index).0;
    (bucket, tree, model)
}

#[test]
fn a_merge_reads_ahead_from_one_object_to_the_next() {
    block_on(async {
        // Objects overlap two of the other run.
        let (bucket, tree, model) = runs_of(&[1000, 700], 100_000).await;
        bucket.count_anew();
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
        let (bucket, tree, _) = runs_of(&[1000], 1 << 20).await;
        bucket.count_anew();
        let version = tree.version();
        let run = Arc::clone(version.runs().first().unwrap());
        let had: u64 = run.tables.iter().map(|table| table.meta.bytes).sum();
        let mut cursor = RunCursor::bulk(run, &(Bound::Unbounded, Bound::Unbounded), 64 << 10);
        cursor.start().await.unwrap();
        let mut keys = Vec::new();
        while !cursor.is_finished() {
            keys.push(cursor.key().to_vec());
            // The flush left some pages in RAM; the first that is not there is asked for, and those behind it.
            while (1..2 << 15).contains(&bucket.bytes.load(SeqCst)) {
                tokio::task::yield_now().await;
            }
            let ahead = bucket.bytes.load(SeqCst);
            assert!(ahead <= keys.len() * 1100 + (2 << 16), "{ahead} bytes were read after {} rows", keys.len());
            cursor.advance().await.unwrap();
        }
        assert_eq!(keys, (0..400).map(key).collect::<Vec<_>>());
        assert!(bucket.bytes.load(SeqCst) as u64 <= had, "nothing is read twice");
    });
}

/// A value of 12 KB is not in its leaf: it was read by itself, after everything before it.
#[test]
fn large_values_are_read_many_at_a_time() {
    block_on(async {
        let (bucket, tree, mut model) = runs_of(&[12_000, 12_000], 1 << 20).await;
        bucket.count_anew();
        settle(&tree, &model).await;
        let (asked, bytes) = (bucket.asked.load(SeqCst), bucket.bytes.load(SeqCst));
        assert!(asked <= 3 * 12, "{asked} requests for the leaves and values of 10 objects and their indexes");
        assert!(bytes < 2 * 400 * 12_500, "{bytes} bytes were read");
        check(&tree, &model, model.index).await;
        // Some are deleted, most stay: the reader passes some by.
        (0..400).step_by(3).for_each(|n| model.write(key(n), None));
        model.floor = CommitSeq::end_of(model.index).0;
        let draft = tree.flush(model.flush_input(tree.version().manifest().id)).await.unwrap();
        install(&tree, &draft).await;
        drop(draft);
        settle(&tree, &model).await;
        check(&tree, &model, model.index).await;
    });
}

#[test]
fn values_that_are_more_than_a_request_come_in_as_many_as_they_fill() {
    block_on(async {
        let (bucket, tree, _) = runs_of(&[12_000], 8 << 20).await;
        bucket.count_anew();
        let version = tree.version();
        let run = Arc::clone(version.runs().first().unwrap());
        let (had, request) = (run.tables.iter().map(|table| table.meta.bytes).sum::<u64>() as usize, 64 << 10);
        let leaves = run.tables[0].tail().await.unwrap().leaves().len();
        let mut cursor = RunCursor::bulk(run, &(Bound::Unbounded, Bound::Unbounded), request);
        cursor.start().await.unwrap();
        for n in 0..400u16 {
            assert_eq!(cursor.key(), key(n));
            let Some(Stored::Pages { pages, len: 12_000 }) = cursor.stored().await.unwrap() else {
                panic!("value {n} is in its leaf");
            };
            let pieces =
                pages.into_iter().map(|page| page::overflow_piece(&page::verify(page).unwrap()).unwrap().to_vec());
            assert_eq!(pieces.collect::<Vec<_>>().concat(), vec![n as u8; 12_000]);
            cursor.advance().await.unwrap();
        }
        let (asked, bytes) = (bucket.asked.load(SeqCst), bucket.bytes.load(SeqCst));
        // Each leaf by itself, and its values in requests of which the last is not full.
        assert!(asked <= had / request as usize * 5 / 4 + 2 * leaves, "{asked} requests, {leaves} leaves");
        assert!(bytes <= had, "{bytes} bytes were read of {had}");
    });
}
