//! Tests of the store: folders, retries, lost answers, and stores that ignore conditions.

use std::collections::VecDeque;

use parking_lot::Mutex;

use super::{owner::Owner, *};

#[path = "tests/budget.rs"]
mod budgets;
#[path = "tests/outage.rs"]
mod outage;
#[path = "tests/pace.rs"]
mod pace;

use crate::clock::SystemClock;

fn options() -> StoreOptions {
    let retry = RetryPolicy { attempts: 4, first_pause: Duration::from_micros(10), ..RetryPolicy::default() };
    let (clock, entropy) = (Arc::new(SystemClock::new()), Arc::new(Entropy::from_seed(1)));
    StoreOptions { s3: Vec::new(), retry, limits: Limits::default(), clock, entropy }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

fn body(text: &'static str) -> [Bytes; 1] {
    [Bytes::from_static(text.as_bytes())]
}

/// What goes wrong with one request.
#[derive(Clone)]
enum Fault {
    /// It fails before the server sees it.
    Before(Failure),
    /// The server does it, but the answer is this.
    After(Failure),
    /// The server ignores the condition of a put.
    Unconditional,
    /// The server never answers.
    Silence,
    /// The server takes its time.
    Slow(Duration),
}

/// A bucket that goes wrong as told, in order, and then works.
struct Faulty {
    inner: remote::RemoteBucket,
    faults: Mutex<VecDeque<Fault>>,
    always: Mutex<Option<Fault>>,
}

fn faulty(faults: impl IntoIterator<Item = Fault>, always: Option<Fault>) -> Store {
    let faults = Mutex::new(faults.into_iter().collect());
    let bucket = Faulty { inner: remote::RemoteBucket::memory("p"), faults, always: Mutex::new(always) };
    Store::custom("faulty://", Arc::new(bucket), options())
}

impl Faulty {
    async fn wrap<T>(&self, request: Answer<'_, T>) -> Result<T, Failure> {
        let fault = self.faults.lock().pop_front();
        let fault = fault.or_else(|| self.always.lock().clone());
        match fault {
            Some(Fault::Before(failure)) => Err(failure),
            Some(Fault::After(failure)) => {
                let _ = request.await;
                Err(failure)
            }
            Some(Fault::Silence) => std::future::pending().await,
            Some(Fault::Slow(takes)) => {
                tokio::time::sleep(takes).await;
                request.await
            }
            Some(Fault::Unconditional) | None => request.await,
        }
    }

    fn ignores_conditions(&self) -> bool {
        matches!(*self.always.lock(), Some(Fault::Unconditional))
    }
}

impl Bucket for Faulty {
    fn put<'a>(&'a self, key: &'a str, body: &'a [Bytes], when: When, tag: u128) -> Answer<'a, Option<String>> {
        let when = if self.ignores_conditions() { When::Always } else { when };
        Box::pin(self.wrap(self.inner.put(key, body, when, tag)))
    }

    fn get<'a>(&'a self, key: &'a str, range: Option<Range<u64>>) -> Answer<'a, Got> {
        Box::pin(self.wrap(self.inner.get(key, range)))
    }

    fn head<'a>(&'a self, key: &'a str) -> Answer<'a, Head> {
        Box::pin(self.wrap(self.inner.head(key)))
    }

    fn list<'a>(&'a self, prefix: &'a str, after: Option<&'a str>, max: usize) -> Answer<'a, Vec<Listed>> {
        Box::pin(self.wrap(self.inner.list(prefix, after, max)))
    }

    fn delete<'a>(&'a self, key: &'a str) -> Answer<'a, ()> {
        Box::pin(self.wrap(self.inner.delete(key)))
    }
}

fn unavailable() -> Failure {
    Failure::Transient("503 Slow Down".to_owned())
}

#[test]
fn a_put_whose_answer_was_lost_is_recognised() {
    block_on(async {
        let store = faulty([Fault::After(unavailable())], None);
        store.put_new("a", &body("ours"), Cause::Flush).await.unwrap();
        assert_eq!(store.get("a", 0..4, Cause::Page).await.unwrap(), "ours");
        let requests = store.requests();
        assert_eq!((requests.of_kind(Kind::Put), requests.of_kind(Kind::Head)), (2, 1));
    });
}

#[test]
fn a_name_that_another_took_is_an_error() {
    block_on(async {
        let store = faulty([], None);
        store.put_new("a", &body("theirs"), Cause::Flush).await.unwrap();
        let error = store.put_new("a", &body("ours"), Cause::Flush).await.unwrap_err();
        assert!(matches!(&error, Error::Store(why) if why.contains("exists already")), "{error}");
        assert_eq!(store.get_all("a", Cause::Page).await.unwrap().unwrap().bytes, "theirs");
    });
}

#[test]
fn a_conflict_that_leaves_nothing_is_tried_again() {
    // AWS answers 409 to a conditional put while another is under way; that other may fail.
    block_on(async {
        let store = faulty([Fault::Before(Failure::Exists)], None);
        store.put_new("a", &body("ours"), Cause::Flush).await.unwrap();
        assert_eq!(store.requests().of_kind(Kind::Put), 2);
    });
}

#[test]
fn retries_are_bounded_and_counted() {
    block_on(async {
        let store = faulty([], Some(Fault::Before(unavailable())));
        let error = store.get("a", 0..1, Cause::Page).await.unwrap_err();
        assert!(matches!(&error, Error::Retry(why) if why.contains("503 Slow Down (after 4 attempts)")), "{error}");
        let count = store.requests().0[0];
        assert_eq!((count.requests, count.errors, count.bytes), (4, 4, 0));
    });
}

#[test]
fn a_silent_server_is_given_up() {
    block_on(async {
        let mut store = faulty([Fault::Silence], None);
        let inner = Arc::get_mut(&mut store.0).unwrap();
        inner.options.retry.first_timeout = Duration::from_millis(50);
        store.put_new("a", &body("ours"), Cause::Flush).await.unwrap();
        assert_eq!(store.requests().of_kind(Kind::Put), 2);
    });
}

#[test]
fn what_retrying_does_not_mend_fails_at_once() {
    block_on(async {
        for (failure, expected) in [
            (Failure::Denied("InvalidAccessKeyId".to_owned()), "access denied: InvalidAccessKeyId"),
            (Failure::NoBucket("NoSuchBucket".to_owned()), "the bucket does not exist"),
        ] {
            let store = faulty([Fault::Before(failure)], None);
            let error = store.put_new("a", &body("x"), Cause::Flush).await.unwrap_err();
            assert!(matches!(&error, Error::Store(why) if why.contains(expected)), "{error}");
            assert_eq!(store.requests().of_kind(Kind::Put), 1);
        }
    });
}

#[test]
fn an_absent_object_is_an_error_never_an_empty_answer() {
    block_on(async {
        let error = faulty([], None).get("a", 0..1, Cause::Page).await.unwrap_err();
        assert!(matches!(&error, Error::Store(why) if why.contains("is missing")), "{error}");
    });
}

#[test]
fn the_probe_passes_atomic_stores_and_names_the_fault_of_others() {
    block_on(async {
        let report = probe::probe(&faulty([], None)).await.unwrap();
        assert!(report.is_safe(), "{report}");
        let report = probe::probe(&faulty([], Some(Fault::Unconditional))).await.unwrap();
        assert!(!report.is_safe());
        assert!(report.to_string().contains("If-None-Match is not atomic: [32, 32] of 32"), "{report}");
        assert!(report.faults().iter().any(|fault| fault.contains("outdated")), "{report}");
    });
}

#[test]
fn the_probe_cleans_up() {
    block_on(async {
        let store = faulty([], None);
        probe::probe(&store).await.unwrap();
        assert_eq!(store.list("probe/", None, 100, Cause::Probe).await.unwrap(), []);
    });
}

const OURS: Owner = Owner { cluster: 1, incarnation: 2 };
const THEIRS: Owner = Owner { cluster: 3, incarnation: 4 };

#[test]
fn a_prefix_has_one_owner() {
    block_on(async {
        let store = faulty([], None);
        assert_eq!(owner::read(&store).await, Ok(None));
        owner::claim(&store, OURS, &[1]).await.unwrap();
        owner::claim(&store, OURS, &[1]).await.unwrap();
        let error = owner::claim(&store, THEIRS, &[1]).await.unwrap_err().to_string();
        assert!(error.contains(&OURS.to_string()) && error.contains(&THEIRS.to_string()), "{error}");
        assert_eq!(owner::read(&store).await, Ok(Some(owner::Record { owner: OURS, voters: vec![1] })));
    });
}

#[test]
fn a_damaged_owner_record_is_named() {
    block_on(async {
        let store = faulty([], None);
        store.put_when("owner", &body("{}"), When::Always, Cause::Owner).await.unwrap();
        let error = owner::claim(&store, OURS, &[1]).await.unwrap_err();
        assert!(matches!(&error, Error::Corrupt(why) if why.contains("faulty:///owner")), "{error}");
    });
}

fn folder() -> (tempfile::TempDir, String) {
    let dir = tempfile::tempdir().unwrap();
    let url = format!("file://{}/bucket/deep", dir.path().display());
    (dir, url)
}

#[test]
fn a_folder_keeps_objects_across_opens() {
    block_on(async {
        let (_dir, url) = folder();
        let store = Store::open(&url, options()).unwrap();
        store.put_new("x/y/1", &body("one"), Cause::Flush).await.unwrap();
        store.put_new("x/2", &body("two"), Cause::Flush).await.unwrap();
        assert!(store.put_new("x/2", &body("again"), Cause::Flush).await.is_err());
        drop(store);
        let store = Store::open(&url, options()).unwrap();
        assert_eq!(store.get("x/y/1", 1..3, Cause::Page).await.unwrap(), "ne");
        assert!(store.get("x/y/1", 1..9, Cause::Page).await.is_err());
        let keys = |listed: Vec<Listed>| listed.into_iter().map(|listed| listed.key).collect::<Vec<_>>();
        assert_eq!(keys(store.list("x/", None, 10, Cause::Gc).await.unwrap()), ["x/2", "x/y/1"]);
        assert_eq!(keys(store.list("x/", Some("x/2"), 10, Cause::Gc).await.unwrap()), ["x/y/1"]);
        store.delete("x/2", Cause::Gc).await.unwrap();
        store.delete("x/2", Cause::Gc).await.unwrap();
        assert_eq!(keys(store.list("x/", None, 1, Cause::Gc).await.unwrap()), ["x/y/1"]);
    });
}

#[test]
fn a_folder_passes_the_probe() {
    block_on(async {
        let (_dir, url) = folder();
        let report = probe::probe(&Store::open(&url, options()).unwrap()).await.unwrap();
        assert!(report.is_safe(), "{report}");
    });
}

#[test]
fn a_folder_in_use_names_the_holder() {
    let (_dir, url) = folder();
    let _held = Store::open(&url, options()).unwrap();
    let error = Store::open(&url, options()).unwrap_err().to_string();
    assert!(error.contains(&format!("process {} holds it", std::process::id())), "{error}");
}

#[test]
fn an_unfinished_put_leaves_nothing_under_its_name() {
    block_on(async {
        let (dir, url) = folder();
        let store = Store::open(&url, options()).unwrap();
        store.put_new("a", &body("kept"), Cause::Flush).await.unwrap();
        drop(store);
        std::fs::write(dir.path().join("bucket/deep/.staging/9"), b"half").unwrap();
        let store = Store::open(&url, options()).unwrap();
        assert_eq!(store.list("", None, 10, Cause::Gc).await.unwrap().len(), 1);
        assert!(!dir.path().join("bucket/deep/.staging/9").exists());
    });
}

#[test]
fn keys_cannot_leave_the_folder() {
    block_on(async {
        let (_dir, url) = folder();
        let store = Store::open(&url, options()).unwrap();
        for key in ["../x", "a//b", "a/./b", ".lock", ""] {
            assert!(store.put_new(key, &body("x"), Cause::Flush).await.is_err(), "{key:?}");
        }
    });
}

#[test]
fn bad_urls_say_what_is_wrong() {
    for (url, expected) in [
        ("/tmp/x", "expected file:///path"),
        ("file://relative", "must be absolute"),
        ("gs://bucket", "the scheme must be"),
        ("s3://", "bucket name is missing"),
    ] {
        let error = Store::open(url, options()).unwrap_err().to_string();
        assert!(error.contains(expected), "{url}: {error}");
    }
}

/// Time stands still here: chance alone would put every second pair in the wrong order.
#[test]
fn ids_grow_within_a_millisecond_too() {
    outage::in_simulated_time(async {
        let (store, ..) = outage::simulated(Limits::default(), None);
        let ids: Vec<u128> = (0..1000).map(|_| store.new_ulid()).collect();
        assert!(ids.is_sorted_by(|a, b| a < b));
    });
}
