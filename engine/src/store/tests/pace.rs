//! Requests that are sent a second time, and a bucket that wants fewer of them. Time is simulated.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use super::{
    outage::{counter, in_simulated_time, of_cause, simulated},
    *,
};

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Enough reads of 20 ms to know what is late.
async fn get_to_know(store: &Store, bucket: &Faulty) {
    store.put_new("a", &body("text"), Cause::Flush).await.unwrap();
    *bucket.always.lock() = Some(Fault::Slow(millis(20)));
    for _ in 0..100 {
        store.get("a", 0..4, Cause::Page).await.unwrap();
    }
    assert_eq!((of_cause(store, Cause::Page), counter(store, "store_hedges_sent")), (100, 0));
}

#[test]
fn a_page_that_is_late_is_asked_for_again_and_the_first_answer_counts() {
    in_simulated_time(async {
        let (store, bucket, clock) = simulated(Limits::default(), None);
        get_to_know(&store, &bucket).await;
        let began = clock.now();
        bucket.faults.lock().push_back(Fault::Silence);
        assert_eq!(store.get("a", 0..4, Cause::Page).await.unwrap(), "text");
        assert_eq!(clock.now() - began, millis(40), "20 ms until it was late, 20 ms for the second one");
        assert_eq!((counter(&store, "store_hedges_sent"), counter(&store, "store_hedges_won")), (1, 1));
        assert_eq!(of_cause(&store, Cause::Page), 102, "both are counted");
        // The first one is answered first.
        bucket.faults.lock().extend([Fault::Slow(millis(30)), Fault::Silence]);
        store.get("a", 0..4, Cause::Page).await.unwrap();
        assert_eq!((counter(&store, "store_hedges_sent"), counter(&store, "store_hedges_won")), (2, 1));
        // One fails, the other one does not.
        bucket.faults.lock().extend([Fault::Silence, Fault::Before(unavailable()), Fault::Silence]);
        let read = tokio::time::timeout(millis(2000), store.get("a", 0..4, Cause::Page)).await;
        assert!(read.is_err(), "the first one goes on alone");
        assert_eq!(counter(&store, "store_in_flight"), 0, "nothing is left of what was dropped");
    });
}

#[test]
fn hedges_have_their_share_and_nothing_else_is_sent_twice() {
    in_simulated_time(async {
        let (store, bucket, _) = simulated(Limits::default(), None);
        get_to_know(&store, &bucket).await;
        // Every fourth read is late.
        for read in 0..400 {
            if read % 4 == 0 {
                bucket.faults.lock().push_back(Fault::Slow(millis(21)));
            }
            store.get("a", 0..4, Cause::Page).await.unwrap();
        }
        let sent = counter(&store, "store_hedges_sent");
        assert!((1..=25).contains(&sent), "{sent} hedges for 500 reads");
        *bucket.always.lock() = Some(Fault::Slow(millis(2000)));
        store.put_new("b", &body("text"), Cause::Flush).await.unwrap();
        store.get("b", 0..4, Cause::Compaction).await.unwrap();
        assert_eq!((of_cause(&store, Cause::Flush), of_cause(&store, Cause::Compaction)), (2, 1));
        let off = simulated(Limits { hedge_share: 0.0, ..Limits::default() }, None);
        get_to_know(&off.0, &off.1).await;
        off.1.faults.lock().push_back(Fault::Slow(millis(500)));
        off.0.get("a", 0..4, Cause::Page).await.unwrap();
        assert_eq!(of_cause(&off.0, Cause::Page), 101);
    });
}

/// Takes 10 ms, and throttles what comes while enough requests are served.
struct Narrow {
    inner: remote::RemoteBucket,
    serves: usize,
    now: AtomicUsize,
    most: AtomicUsize,
}

impl Narrow {
    async fn serve<T>(&self, request: Answer<'_, T>) -> Result<T, Failure> {
        let now = self.now.fetch_add(1, SeqCst) + 1;
        self.most.fetch_max(now, SeqCst);
        let answer = if now > self.serves {
            tokio::time::sleep(millis(1)).await;
            Err(Failure::Throttled("503 Slow Down".to_owned()))
        } else {
            tokio::time::sleep(millis(10)).await;
            request.await
        };
        self.now.fetch_sub(1, SeqCst);
        answer
    }
}

impl Bucket for Narrow {
    fn put<'a>(&'a self, key: &'a str, body: &'a [Bytes], when: When, tag: u128) -> Answer<'a, Option<String>> {
        Box::pin(self.serve(self.inner.put(key, body, when, tag)))
    }
    fn get<'a>(&'a self, key: &'a str, range: Option<Range<u64>>) -> Answer<'a, Got> {
        Box::pin(self.serve(self.inner.get(key, range)))
    }
    fn head<'a>(&'a self, key: &'a str) -> Answer<'a, Head> {
        Box::pin(self.serve(self.inner.head(key)))
    }
    fn list<'a>(&'a self, prefix: &'a str, after: Option<&'a str>, max: usize) -> Answer<'a, Vec<Listed>> {
        Box::pin(self.serve(self.inner.list(prefix, after, max)))
    }
    fn delete<'a>(&'a self, key: &'a str) -> Answer<'a, ()> {
        Box::pin(self.serve(self.inner.delete(key)))
    }
}

#[test]
fn a_bucket_that_throttles_gets_fewer_requests_and_readers_and_flushes_go_on() {
    in_simulated_time(async {
        let inner = remote::RemoteBucket::memory("p");
        let bucket = Arc::new(Narrow { inner, serves: 10, now: AtomicUsize::new(0), most: AtomicUsize::new(0) });
        let clock = outage::Simulated::start();
        let options = StoreOptions { clock: clock.clone(), retry: RetryPolicy::default(), ..options() };
        let store = Store::custom("narrow://", bucket.clone(), options);
        store.put_new("a", &body("text"), Cause::Flush).await.unwrap();
        let until = Duration::from_secs(60);
        let readers = (0..100).map(async |_| {
            let mut refused = 0;
            while clock.now() < until {
                refused += u64::from(store.get("a", 0..4, Cause::Page).await.is_err());
            }
            refused
        });
        let flushes = async {
            let mut stored = 0;
            for number in 0.. {
                if clock.now() >= until {
                    break;
                }
                stored += u64::from(store.put_new(&number.to_string(), &body("text"), Cause::Flush).await.is_ok());
            }
            stored
        };
        let (refused, stored) = futures::future::join(futures::future::join_all(readers), flushes).await;
        let refused: u64 = refused.iter().sum();
        let (reads, throttled) = (of_cause(&store, Cause::Page), counter(&store, "store_throttled"));
        assert_eq!(bucket.most.load(SeqCst), 64, "at first nothing is known");
        let limit = counter(&store, "store_in_flight_limit");
        assert!(throttled > 0 && limit <= 20, "{throttled} were throttled, {limit} may be in flight");
        // 10 at a time, 10 ms each, for a minute, would be 60,000.
        assert!(reads > 25_000 && throttled * 10 < reads, "{throttled} of {reads} were throttled");
        assert!(stored > 500 && refused * 100 < reads, "{stored} flushes, {refused} refused reads");
        assert_eq!((counter(&store, "store_in_flight"), counter(&store, "store_waiting")), (0, 0));
    });
}
