//! What readers see of a bucket that is slow or away. Time is simulated.

use super::*;

/// The runtime's clock, which stands still while anyone has something to do.
pub(super) struct Simulated(tokio::time::Instant);

#[allow(clippy::disallowed_methods, reason = "the runtime's clock is a simulated one")]
impl Simulated {
    pub(super) fn start() -> Arc<Self> {
        Arc::new(Self(tokio::time::Instant::now()))
    }
}

impl Clock for Simulated {
    fn now(&self) -> Duration {
        self.0.elapsed()
    }

    fn unix_millis(&self) -> u64 {
        1_764_345_600_000 + self.now().as_millis() as u64
    }
}

pub(super) fn in_simulated_time<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.unwrap().block_on(future)
}

/// A store in simulated time, and its bucket, whose mood can be changed.
pub(super) fn simulated(limits: Limits, always: Option<Fault>) -> (Store, Arc<Faulty>, Arc<Simulated>) {
    let (clock, inner) = (Simulated::start(), remote::RemoteBucket::memory("p"));
    let bucket = Arc::new(Faulty { inner, faults: Mutex::default(), always: Mutex::new(always) });
    let options = StoreOptions { limits, clock: clock.clone(), retry: RetryPolicy::default(), ..options() };
    (Store::custom("faulty://", bucket.clone(), options), bucket, clock)
}

pub(super) fn of_cause(store: &Store, cause: Cause) -> u64 {
    store.requests().0.iter().filter(|count| count.cause == cause).map(|count| count.requests).sum()
}

pub(super) fn counter(store: &Store, name: &str) -> u64 {
    store.counters().iter().find(|(counter, _)| *counter == name).unwrap().1
}

#[test]
fn a_read_has_one_bound_whatever_its_attempts() {
    in_simulated_time(async {
        for cause in [Cause::Page, Cause::Tail, Cause::Manifest] {
            let (store, _, clock) = simulated(Limits::default(), Some(Fault::Silence));
            let error = store.get("a", 0..4, cause).await.unwrap_err();
            assert!(matches!(&error, Error::Retry(why) if why.contains("no answer within 10s")), "{error}");
            assert_eq!((clock.now(), of_cause(&store, cause)), (Duration::from_secs(10), 2));
        }
        // What nobody waits for has all the time of its attempts.
        let (store, _, clock) = simulated(Limits::default(), Some(Fault::Silence));
        let error = store.get("a", 0..4, Cause::Compaction).await.unwrap_err();
        assert!(matches!(&error, Error::Retry(why) if why.contains("after 6 attempts")), "{error}");
        assert!(clock.now() > Duration::from_secs(5 + 10 + 20 + 40 + 80 + 160));
    });
}

#[test]
fn while_the_bucket_is_down_reads_fail_fast_and_one_request_at_a_time_looks_for_its_return() {
    in_simulated_time(async {
        let (store, bucket, clock) = simulated(Limits::default(), None);
        store.put_new("a", &body("text"), Cause::Flush).await.unwrap();
        *bucket.always.lock() = Some(Fault::Silence);
        // Many readers wait together, and all hear of it before their bound.
        let readers = (0..50).map(|_| store.get("a", 0..4, Cause::Page));
        for read in futures::future::join_all(readers).await {
            let error = read.unwrap_err().to_string();
            assert!(error.contains("the bucket has not answered since 16:00:00 UTC"), "{error}");
        }
        assert!(clock.now() < Duration::from_secs(10));
        assert!(store.down().is_some_and(|down| down.lasts == clock.now()));
        let (began, pages) = (clock.now(), of_cause(&store, Cause::Page));
        let error = store.get("a", 0..4, Cause::Page).await.unwrap_err();
        assert!(error.is_retryable() && error.to_string().contains("what is cached can still be read"), "{error}");
        assert_eq!(clock.now() - began, Duration::from_secs(1));
        assert_eq!(of_cause(&store, Cause::Page), pages, "no reader asks a bucket that is down");
        assert_eq!(counter(&store, "store_reads_failed_fast"), 51);
        // A look takes as long as it may, and the next one comes after it.
        tokio::time::sleep(Duration::from_secs(60)).await;
        let looks = of_cause(&store, Cause::Probe);
        assert!((8..=12).contains(&looks), "{looks} looks in a minute");
        // Whoever hopes for it when it comes back is answered.
        *bucket.always.lock() = None;
        while store.get("a", 0..4, Cause::Page).await.is_err() {}
        assert_eq!(store.down(), None);
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert!(of_cause(&store, Cause::Probe) <= looks + 2, "nobody looks any more");
    });
}

#[test]
fn a_bucket_that_refuses_is_down_and_any_answer_brings_it_back() {
    in_simulated_time(async {
        let (store, bucket, _) = simulated(Limits::default(), Some(Fault::Before(unavailable())));
        let (mut told, mut refused) = (String::new(), 0);
        while !told.contains("has not answered") {
            told = store.get("a", 0..4, Cause::Page).await.unwrap_err().to_string();
            refused += 1;
        }
        assert!(refused <= 5 && told.contains("503 Slow Down"), "{told}");
        // An answer to a request of another kind, which says no.
        *bucket.always.lock() = Some(Fault::Before(Failure::Denied("no".to_owned())));
        assert!(store.list("", None, 1, Cause::Gc).await.is_err());
        assert_eq!(store.down(), None);
    });
}

#[test]
fn nobody_looks_for_a_bucket_that_is_closed() {
    in_simulated_time(async {
        let (store, ..) = simulated(Limits::default(), Some(Fault::Silence));
        while store.down().is_none() {
            store.get("a", 0..4, Cause::Page).await.unwrap_err();
        }
        store.close();
        tokio::time::sleep(Duration::from_secs(20)).await;
        let looks = of_cause(&store, Cause::Probe);
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(of_cause(&store, Cause::Probe), looks);
    });
}
