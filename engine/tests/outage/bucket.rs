//! A bucket with moods, and the database on it.

use std::{
    collections::BTreeMap,
    ops::Range,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use futures::FutureExt;
use holdfast::{
    Db, Error, Keyspace, Options, ScanOptions,
    store::{Answer, Bucket, Failure, Got, Head, Listed, When},
};
use tokio::sync::watch;

/// How a [`TestBucket`] treats the objects that are put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mood {
    Works,
    /// Requests wait.
    Stalls,
    Fails,
    /// Objects are stored, manifests are not.
    FailsManifests,
    /// Manifests are stored, and nobody may read them.
    RefusesManifests,
    /// Putting a manifest panics.
    Panics,
    /// Parts of objects are not what was put.
    Rots,
}

/// A bucket in RAM with a mood. Only what flushes and compactions write feels it.
pub struct TestBucket {
    objects: Mutex<BTreeMap<String, (Bytes, u128)>>,
    mood: watch::Sender<Mood>,
    /// Tells of each read of an object's range, which waits for an answer here.
    pub reads: Mutex<Option<tokio::sync::mpsc::UnboundedSender<tokio::sync::oneshot::Sender<()>>>>,
}

impl TestBucket {
    pub fn new(mood: Mood) -> Arc<Self> {
        Arc::new(Self { objects: Mutex::default(), mood: watch::Sender::new(mood), reads: Mutex::default() })
    }

    pub fn set(&self, mood: Mood) {
        self.mood.send_replace(mood);
    }

    pub fn keys(&self, folder: &str) -> Vec<String> {
        self.objects.lock().unwrap().keys().filter(|key| key.contains(folder)).cloned().collect()
    }

    async fn feel(&self, key: &str) -> Result<(), Failure> {
        if !key.contains("/obj/") && !key.contains("/manifest/") {
            return Ok(());
        }
        let mood = *self.mood.subscribe().wait_for(|mood| *mood != Mood::Stalls).await.unwrap();
        match mood {
            Mood::FailsManifests if key.contains("/obj/") => Ok(()),
            Mood::Fails | Mood::FailsManifests => Err(Failure::Fatal("the bucket is away".into())),
            Mood::Panics if key.contains("/manifest/") => panic!("the bucket lost its mind"),
            _ => Ok(()),
        }
    }
}

impl Bucket for TestBucket {
    fn put<'a>(&'a self, key: &'a str, body: &'a [Bytes], when: When, tag: u128) -> Answer<'a, Option<String>> {
        Box::pin(async move {
            self.feel(key).await?;
            let mut objects = self.objects.lock().unwrap();
            let etag = |body: &Bytes| format!("{:08x}", crc32fast::hash(body));
            match (when, objects.get(key)) {
                (When::Absent, Some(_)) | (When::Matches(_), None) => return Err(Failure::Exists),
                (When::Matches(wanted), Some((body, _))) if etag(body) != wanted => return Err(Failure::Exists),
                _ => {}
            }
            let body = Bytes::from(body.concat());
            let new = etag(&body);
            objects.insert(key.to_owned(), (body, tag));
            Ok(Some(new))
        })
    }

    fn get<'a>(&'a self, key: &'a str, range: Option<Range<u64>>) -> Answer<'a, Got> {
        Box::pin(async move {
            if key.contains("/manifest/") && *self.mood.borrow() == Mood::RefusesManifests {
                return Err(Failure::Transient("connection refused".into()));
            }
            let reads = self.reads.lock().unwrap().clone().filter(|_| range.is_some());
            if let Some(reads) = reads {
                let (go_on, answer) = tokio::sync::oneshot::channel();
                reads.send(go_on).unwrap();
                let _ = answer.await;
            }
            let objects = self.objects.lock().unwrap();
            let (body, _) = objects.get(key).ok_or(Failure::NotFound)?;
            let rots = *self.mood.borrow() == Mood::Rots && key.contains("/obj/");
            let bytes = match range {
                Some(range) if rots => vec![0; (range.end - range.start) as usize].into(),
                Some(range) => body.slice(range.start as usize..range.end as usize),
                None => body.clone(),
            };
            Ok(Got { bytes, etag: Some(format!("{:08x}", crc32fast::hash(body))) })
        })
    }

    fn head<'a>(&'a self, key: &'a str) -> Answer<'a, Head> {
        let found = self.objects.lock().unwrap().get(key).map(|(body, tag)| (body.len() as u64, *tag));
        let head = found.ok_or(Failure::NotFound).map(|(bytes, tag)| Head { bytes, tag: Some(tag) });
        futures::future::ready(head).boxed()
    }

    fn list<'a>(&'a self, prefix: &'a str, after: Option<&'a str>, max: usize) -> Answer<'a, Vec<Listed>> {
        let objects = self.objects.lock().unwrap();
        let wanted = |key: &&String| key.starts_with(prefix) && after.is_none_or(|after| key.as_str() > after);
        let listed = objects.iter().filter(|(key, _)| wanted(key)).take(max);
        let listed = listed.map(|(key, (body, _))| Listed { key: key.clone(), bytes: body.len() as u64 }).collect();
        futures::future::ready(Ok(listed)).boxed()
    }

    fn delete<'a>(&'a self, key: &'a str) -> Answer<'a, ()> {
        self.objects.lock().unwrap().remove(key);
        futures::future::ready(Ok(())).boxed()
    }
}

pub fn options(dir: &tempfile::TempDir, bucket: &Arc<TestBucket>) -> Options {
    let mut options = Options::default();
    options.data_dir = Some(dir.path().join("data"));
    options.log_bytes = 64 << 20;
    options.memtable_bytes = 64 << 10;
    options.write_stall_timeout = Duration::from_millis(300);
    options.bucket = Some(bucket.clone());
    options
}

pub async fn open(options: Options) -> (Db, Keyspace) {
    let db = loop {
        match Db::open("test://", options.clone()).await {
            // A dropped database lets go of its directory when its threads have ended.
            Err(Error::Invalid(why)) if why.contains("in use") => tokio::task::yield_now().await,
            opened => break opened.unwrap(),
        }
    };
    let ks = db.keyspace("test").await.unwrap();
    (db, ks)
}

pub fn counter(db: &Db, name: &str) -> u64 {
    db.stats().counters.iter().find(|(counter, _)| *counter == name).unwrap().1
}

pub async fn count(db: &Db, ks: &Keyspace) -> usize {
    let mut scan = db.scan(ks, ScanOptions::default()).unwrap();
    let mut rows = Vec::new();
    while scan.next_batch(&mut rows, 1000).await.unwrap() > 0 {}
    rows.len()
}

/// Writes rows of `bytes` until a commit is refused; answers how many were taken, and what the refusal said.
pub async fn fill(db: &Db, ks: &Keyspace, bytes: usize) -> (usize, String) {
    for row in 0.. {
        match db.put(ks, format!("{row:08}"), vec![row as u8; bytes]).await {
            Ok(()) => {}
            Err(Error::Retry(why)) => return (row, why),
            Err(error) => panic!("row {row}: {error}"),
        }
    }
    unreachable!()
}

/// Commits until one is taken; each refused one waits for its bound.
pub async fn put_at_last(db: &Db, ks: &Keyspace, key: &str) {
    while let Err(error) = db.put(ks, key.to_owned(), "v").await {
        assert!(error.is_retryable(), "{error}");
    }
}
