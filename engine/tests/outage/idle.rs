//! A database that nobody uses asks the bucket for nothing, and so costs nothing but its storage.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use holdfast::{Archiving, Db, clock::Clock};

use crate::bucket::{Mood, TestBucket, counter, open, options};

/// A clock that is set by hand.
#[derive(Default)]
struct SetClock(AtomicU64);

impl Clock for SetClock {
    fn now(&self) -> Duration {
        Duration::from_millis(self.0.load(SeqCst))
    }

    fn unix_millis(&self) -> u64 {
        1_764_345_600_000 + self.0.load(SeqCst)
    }
}

fn requests(db: &Db) -> u64 {
    db.stats().requests.iter().map(|count| count.requests).sum()
}

/// Lets so many seconds pass, for timers and for the clock.
async fn pass(clock: &SetClock, seconds: u64) {
    for _ in 0..seconds * 4 {
        clock.0.fetch_add(250, SeqCst);
        tokio::time::advance(Duration::from_millis(250)).await;
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test]
async fn an_idle_hour_costs_no_request() {
    let (dir, bucket) = (tempfile::tempdir().unwrap(), TestBucket::new(Mood::Works));
    let clock = Arc::new(SetClock::default());
    let mut options = options(&dir, &bucket);
    options.archive = Archiving::On;
    options.archive_interval = Duration::from_millis(10);
    options.clock = Some(clock.clone());
    let (db, ks) = open(options).await;
    for round in 0..8 {
        for row in 0..50 {
            db.put(&ks, format!("{row:05}"), vec![round; 1000]).await.unwrap();
            clock.0.fetch_add(20, SeqCst);
        }
        db.checkpoint().await.unwrap();
    }
    // What is left to do is done: the log is archived, and what left force is deleted behind its grace.
    let rests = |db: &Db| counter(db, "archive_lag_entries") == 0 && counter(db, "tree_dead_bytes") == 0;
    while !rests(&db) {
        clock.0.fetch_add(1000, SeqCst);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    tokio::time::pause();
    pass(&clock, 120).await;
    let before = requests(&db);
    assert!(before > 20);
    pass(&clock, 3600).await;
    assert_eq!(requests(&db) - before, 0, "{:?}", db.stats().requests);
    // It is there all the same.
    tokio::time::resume();
    db.put(&ks, "later", "1").await.unwrap();
    db.checkpoint().await.unwrap();
    assert!(requests(&db) > before);
    db.close().await.unwrap();
}
