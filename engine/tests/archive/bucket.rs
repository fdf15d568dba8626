//! What the tests share: a bucket in RAM that outlives databases, a clock that can be moved on, and rows to compare.

use std::{
    collections::BTreeMap,
    ops::Range,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use bytes::Bytes;
use futures::FutureExt;
use holdfast::{
    Archiving, Db, Options, ScanOptions,
    clock::{Clock, SystemClock},
    store::{Answer, Bucket, Failure, Got, Head, Listed, When},
};
use tokio::sync::watch;

type Objects = BTreeMap<String, (Bytes, u128, u64)>;

/// A bucket in RAM.
pub struct SharedBucket {
    objects: Mutex<Objects>,
    versions: AtomicU64,
    /// Puts whose key has this in it wait.
    pub stalled: watch::Sender<Option<&'static str>>,
    /// Puts whose key has this in it are done, and their answers wait.
    pub unanswered: watch::Sender<Option<&'static str>>,
    /// Deletes whose key has this in it wait.
    pub undeleted: watch::Sender<Option<&'static str>>,
    /// Reads fail.
    pub away: AtomicBool,
}

impl SharedBucket {
    /// An empty bucket.
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            objects: Mutex::default(),
            versions: AtomicU64::new(0),
            stalled: watch::Sender::new(None),
            unanswered: watch::Sender::new(None),
            undeleted: watch::Sender::new(None),
            away: AtomicBool::new(false),
        })
    }

    /// A copy, as of now.
    pub fn copy(&self) -> Arc<Self> {
        let copy = Self::new();
        *copy.objects.lock().unwrap() = self.objects.lock().unwrap().clone();
        copy.versions.store(self.versions.load(SeqCst), SeqCst);
        copy
    }

    /// Keys with `part` in them, in order.
    pub fn keys(&self, part: &str) -> Vec<String> {
        self.objects.lock().unwrap().keys().filter(|key| key.contains(part)).cloned().collect()
    }

    /// Bytes stored.
    pub fn bytes(&self) -> usize {
        self.objects.lock().unwrap().values().map(|(body, ..)| body.len()).sum()
    }

    /// The body of an object.
    pub fn body(&self, key: &str) -> Bytes {
        self.objects.lock().unwrap()[key].0.clone()
    }

    fn store(&self, key: &str, body: &[Bytes], when: &When, tag: u128) -> Result<u64, Failure> {
        let mut objects = self.objects.lock().unwrap();
        match (when, objects.get(key)) {
            (When::Absent, Some(_)) | (When::Matches(_), None) => return Err(Failure::Exists),
            (When::Matches(wanted), Some((.., version))) if version.to_string() != *wanted => {
                return Err(Failure::Exists);
            }
            _ => {}
        }
        let version = self.versions.fetch_add(1, SeqCst);
        objects.insert(key.to_owned(), (Bytes::from(body.concat()), tag, version));
        Ok(version)
    }

    /// Takes an object away.
    pub fn remove(&self, key: &str) {
        assert!(self.objects.lock().unwrap().remove(key).is_some(), "{key}");
    }

    /// Changes one byte in the middle of an object.
    pub fn damage(&self, key: &str) {
        let mut objects = self.objects.lock().unwrap();
        let (body, ..) = objects.get_mut(key).unwrap();
        let mut bytes = body.to_vec();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        *body = bytes.into();
    }

    /// Stores the body of one key under another.
    pub fn duplicate(&self, from: &str, to: &str) {
        let mut objects = self.objects.lock().unwrap();
        let object = objects.get(from).unwrap().clone();
        objects.insert(to.to_owned(), object);
    }
}

impl Bucket for SharedBucket {
    fn put<'a>(&'a self, key: &'a str, body: &'a [Bytes], when: When, tag: u128) -> Answer<'a, Option<String>> {
        Box::pin(async move {
            freed(&self.stalled, key).await?;
            let version = self.store(key, body, &when, tag)?;
            freed(&self.unanswered, key).await?;
            Ok(Some(version.to_string()))
        })
    }

    fn get<'a>(&'a self, key: &'a str, range: Option<Range<u64>>) -> Answer<'a, Got> {
        let found = match self.away.load(SeqCst) {
            true => Err(Failure::Fatal("the bucket is away".into())),
            false => self.objects.lock().unwrap().get(key).cloned().ok_or(Failure::NotFound),
        };
        let got = found.map(|(body, _, version)| {
            let bytes = range.map_or(body.clone(), |range| body.slice(range.start as usize..range.end as usize));
            Got { bytes, etag: Some(version.to_string()) }
        });
        futures::future::ready(got).boxed()
    }

    fn head<'a>(&'a self, key: &'a str) -> Answer<'a, Head> {
        let found = self.objects.lock().unwrap().get(key).map(|(body, tag, _)| (body.len() as u64, *tag));
        let head = found.ok_or(Failure::NotFound).map(|(bytes, tag)| Head { bytes, tag: Some(tag) });
        futures::future::ready(head).boxed()
    }

    fn list<'a>(&'a self, prefix: &'a str, after: Option<&'a str>, max: usize) -> Answer<'a, Vec<Listed>> {
        let objects = self.objects.lock().unwrap();
        let wanted = |key: &&String| key.starts_with(prefix) && after.is_none_or(|after| key.as_str() > after);
        let listed = objects.iter().filter(|(key, _)| wanted(key)).take(max);
        let listed = listed.map(|(key, (body, ..))| Listed { key: key.clone(), bytes: body.len() as u64 }).collect();
        futures::future::ready(Ok(listed)).boxed()
    }

    fn delete<'a>(&'a self, key: &'a str) -> Answer<'a, ()> {
        Box::pin(async move {
            freed(&self.undeleted, key).await?;
            self.objects.lock().unwrap().remove(key);
            Ok(())
        })
    }
}

/// Waits while such keys are to wait.
async fn freed(waits: &watch::Sender<Option<&'static str>>, key: &str) -> Result<(), Failure> {
    let free = |part: &Option<&'static str>| part.is_none_or(|part| !key.contains(part));
    waits.subscribe().wait_for(free).await.map(|_| ()).map_err(|error| Failure::Fatal(error.to_string()))
}

/// The machine's clock, and what a test adds to it.
#[derive(Default)]
pub struct MovedClock {
    clock: SystemClock,
    millis: AtomicU64,
}

impl MovedClock {
    /// Moves it on.
    pub fn advance(&self, by: Duration) {
        self.millis.fetch_add(by.as_millis() as u64, SeqCst);
    }
}

impl Clock for MovedClock {
    fn now(&self) -> Duration {
        self.clock.now() + Duration::from_millis(self.millis.load(SeqCst))
    }

    fn unix_millis(&self) -> u64 {
        self.clock.unix_millis() + self.millis.load(SeqCst)
    }
}

/// A small database in `data` on the bucket, with an archive that hurries.
pub fn options(data: &Path, bucket: &Arc<SharedBucket>) -> Options {
    let mut options = Options::default();
    options.data_dir = Some(data.to_owned());
    options.bucket = Some(bucket.clone());
    options.log_bytes = 64 << 20;
    options.memtable_bytes = 64 << 10;
    options.archive = Archiving::On;
    options.archive_interval = Duration::from_millis(5);
    options
}

/// The same, on a clock that the test moves on.
pub fn clocked(data: &Path, bucket: &Arc<SharedBucket>) -> (Options, Arc<MovedClock>) {
    let clock = Arc::new(MovedClock::default());
    let mut options = options(data, bucket);
    options.clock = Some(clock.clone());
    (options, clock)
}

/// Opens it.
pub async fn open(options: Options) -> Db {
    Db::open("test://", options).await.unwrap()
}

/// A figure.
pub fn counter(db: &Db, name: &str) -> u64 {
    db.stats().counters.iter().find(|(counter, _)| *counter == name).unwrap().1
}

/// Requests of a kind and cause so far.
pub fn requests(db: &Db, kind: &str, cause: &str) -> u64 {
    let stats = db.stats();
    stats.requests.iter().filter(|r| r.kind == kind && r.cause == cause).map(|r| r.requests).sum()
}

/// Every row of every keyspace.
pub async fn rows(db: &Db) -> BTreeMap<(String, Bytes), Bytes> {
    let mut all = BTreeMap::new();
    for name in db.keyspaces() {
        let keyspace = db.keyspace(&name).await.unwrap();
        let mut scan = db.scan(&keyspace, ScanOptions::default()).unwrap();
        let mut page = Vec::new();
        while scan.next_batch(&mut page, 1000).await.unwrap() > 0 {
            all.extend(page.drain(..).map(|row| ((name.clone(), row.key), row.value)));
        }
    }
    all
}

/// Waits, within reason, for what other threads do.
pub async fn until(what: &str, done: impl Fn() -> bool) {
    for _ in 0..6_000 {
        if done() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("never: {what}");
}

/// Waits until everything is archived.
pub async fn archived(db: &Db) {
    until("all is archived", || counter(db, "archive_lag_entries") == 0).await;
}
