//! The one door to the bucket: keys, conditional writes, deadlines, bounded retries, and a count of every request.

mod counts;
mod file;
pub mod owner;
pub mod probe;
mod remote;

use std::{ops::Range, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::future::BoxFuture;

pub use counts::{Cause, Kind, RequestCount, Requests};

use crate::{
    clock::{Clock, Entropy},
    error::{Error, Result},
};

/// One bucket, or a prefix of it: the seam that simulations and fault wrappers implement. No retries behind it.
pub trait Bucket: Send + Sync + 'static {
    /// Stores `body` under `key`. `tag` is kept beside it where the bucket can, and answered by [`Bucket::head`].
    /// Returns the entity tag, if the bucket has them.
    fn put<'a>(&'a self, key: &'a str, body: &'a [Bytes], when: When, tag: u128) -> Answer<'a, Option<String>>;
    /// Reads `range` of an object, or all of it.
    fn get<'a>(&'a self, key: &'a str, range: Option<Range<u64>>) -> Answer<'a, Got>;
    /// What is known about an object.
    fn head<'a>(&'a self, key: &'a str) -> Answer<'a, Head>;
    /// At most `max` objects whose key begins with `prefix` and is greater than `after`, in key order.
    fn list<'a>(&'a self, prefix: &'a str, after: Option<&'a str>, max: usize) -> Answer<'a, Vec<Listed>>;
    /// Deletes an object; deleting an absent one is no error.
    fn delete<'a>(&'a self, key: &'a str) -> Answer<'a, ()>;
    /// Lets go of what keeps others out: nothing is written any more.
    fn close(&self) {}
}

/// A bucket's answer.
pub type Answer<'a, T> = BoxFuture<'a, Result<T, Failure>>;

/// The condition of a [`Bucket::put`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum When {
    /// Whatever is there.
    Always,
    /// Only if the key is absent.
    Absent,
    /// Only if the object there has this entity tag.
    Matches(String),
}

/// An object's bytes and entity tag.
#[derive(Clone, Debug)]
pub struct Got {
    /// What was asked for.
    pub bytes: Bytes,
    /// Entity tag, if the bucket has them.
    pub etag: Option<String>,
}

/// What is known about an object.
#[derive(Clone, Debug)]
pub struct Head {
    /// Bytes stored.
    pub bytes: u64,
    /// The tag it was stored with, if the bucket keeps tags.
    pub tag: Option<u128>,
}

/// One object of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Key, relative to the store.
    pub key: String,
    /// Bytes stored.
    pub bytes: u64,
}

/// Why one request failed, sorted by what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// There is no such object.
    #[error("no such object")]
    NotFound,
    /// The condition of a put does not hold, or another put of the key is under way.
    #[error("the condition does not hold")]
    Exists,
    /// Time-out, broken connection, throttling, server error: the same request may succeed later.
    #[error("{0}")]
    Transient(String),
    /// The credentials are wrong or may not do this.
    #[error("{0}")]
    Denied(String),
    /// The bucket does not exist.
    #[error("{0}")]
    NoBucket(String),
    /// Anything else; trying again is of no use.
    #[error("{0}")]
    Fatal(String),
}

/// What kind of place the bucket is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// A local folder.
    File,
    /// An S3 endpoint.
    S3,
    /// This process's memory.
    Memory,
    /// A [`Bucket`] given by the caller.
    Custom,
}

/// How long to try. A request may take `first_timeout` plus its size at 1 MiB/s; each retry doubles that.
#[derive(Clone, Debug)]
pub struct RetryPolicy {
    /// Requests made before giving up.
    pub attempts: u32,
    /// Time for a small request at the first attempt.
    pub first_timeout: Duration,
    /// Longest pause before the second attempt; doubled for each further one.
    pub first_pause: Duration,
    /// No pause is longer.
    pub pause_max: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            attempts: 6,
            first_timeout: Duration::from_secs(5),
            first_pause: Duration::from_millis(50),
            pause_max: Duration::from_secs(5),
        }
    }
}

/// Options of [`Store::open`].
#[derive(Clone)]
pub struct StoreOptions {
    /// S3 settings by their AWS_* names (without regard to case); they win over the environment.
    pub s3: Vec<(String, String)>,
    /// How long to try.
    pub retry: RetryPolicy,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness: tags and jitter.
    pub entropy: Arc<Entropy>,
}

/// A place for objects, opened by URL. Cheap to clone.
#[derive(Clone)]
pub struct Store(Arc<Inner>);

struct Inner {
    url: String,
    place: Place,
    bucket: Arc<dyn Bucket>,
    options: StoreOptions,
    counts: counts::Counters,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Store({})", self.0.url)
    }
}

impl Store {
    /// Opens a store: `file:///path`, `s3://bucket/prefix` or `memory:///`. A folder is created; an S3 endpoint is not
    /// contacted yet (see [`probe::probe`]).
    pub fn open(url: &str, options: StoreOptions) -> Result<Self> {
        let (scheme, rest) = url.split_once("://").ok_or_else(|| {
            Error::Invalid(format!("store URL {url:?}: expected file:///path, s3://bucket/prefix or memory:///"))
        })?;
        let (place, bucket): (_, Arc<dyn Bucket>) = match scheme {
            "file" => (Place::File, Arc::new(file::FileBucket::open(rest)?)),
            "s3" => (Place::S3, Arc::new(remote::RemoteBucket::s3(rest, &options.s3)?)),
            "memory" => (Place::Memory, Arc::new(remote::RemoteBucket::memory(rest))),
            _ => return Err(Error::Invalid(format!("store URL {url:?}: the scheme must be file, s3 or memory"))),
        };
        Ok(Self::new(url, place, bucket, options))
    }

    /// A store over the caller's own bucket.
    pub fn custom(name: &str, bucket: Arc<dyn Bucket>, options: StoreOptions) -> Self {
        Self::new(name, Place::Custom, bucket, options)
    }

    fn new(url: &str, place: Place, bucket: Arc<dyn Bucket>, options: StoreOptions) -> Self {
        Self(Arc::new(Inner { url: url.to_owned(), place, bucket, options, counts: counts::Counters::default() }))
    }

    /// The URL it was opened with.
    pub fn url(&self) -> &str {
        &self.0.url
    }

    /// Lets another process have the store: nothing is written through this handle any more.
    pub fn close(&self) {
        self.0.bucket.close();
    }

    /// What kind of place it is.
    pub fn place(&self) -> Place {
        self.0.place
    }

    /// Whether a read from it takes long and costs money, as far as is known.
    pub(crate) fn is_remote(&self) -> bool {
        matches!(self.0.place, Place::S3 | Place::Custom)
    }

    /// Requests made so far, by kind and cause.
    pub fn requests(&self) -> Requests {
        self.0.counts.read()
    }

    pub(crate) fn clock(&self) -> &Arc<dyn Clock> {
        &self.0.options.clock
    }

    /// A new ULID: unique, and ordered by time across terms as far as clocks agree.
    pub(crate) fn new_ulid(&self) -> u128 {
        ulid::Ulid::from_parts(self.0.options.clock.unix_millis(), self.0.options.entropy.next_u128()).0
    }

    /// Stores an object under a key that was never used. Finding the key taken is an error: names are used once.
    pub async fn put_new(&self, key: &str, body: &[Bytes], cause: Cause) -> Result<()> {
        match self.put_when(key, body, When::Absent, cause).await? {
            Put::Won(_) => Ok(()),
            Put::Lost => Err(Error::Store(format!("{}/{key} exists already; object names are used once", self.url()))),
        }
    }

    /// Stores an object if the condition holds. A lost answer is told from a lost race by our own tag on the object.
    pub async fn put_when(&self, key: &str, body: &[Bytes], when: When, cause: Cause) -> Result<Put> {
        let tag = self.new_ulid();
        let bytes = body.iter().map(|chunk| chunk.len() as u64).sum();
        for attempt in 0.. {
            let put = self.0.bucket.put(key, body, when.clone(), tag);
            match self.request(Kind::Put, cause, bytes, attempt, put).await {
                Ok(etag) => return Ok(Put::Won(etag)),
                Err(Failure::Exists) => match self.head(key, cause).await? {
                    Some(head) if head.tag == Some(tag) => return Ok(Put::Won(None)),
                    // Answered while another put of the key was under way (AWS: 409), and that one did not last.
                    None if when == When::Absent => self.pause(key, attempt, Failure::Exists).await?,
                    _ => return Ok(Put::Lost),
                },
                Err(failure) => self.pause(key, attempt, failure).await?,
            }
        }
        unreachable!("pause ends the attempts")
    }

    /// Reads `range` of an object. An absent object is an error (rule 8: a 404 never means that a row is absent).
    pub async fn get(&self, key: &str, range: Range<u64>, cause: Cause) -> Result<Bytes> {
        let len = range.end - range.start;
        let got = self.get_if_there(key, Some(range), len, cause).await?;
        let got = got.ok_or_else(|| Error::Store(format!("{}/{key} is missing", self.url())))?;
        if got.bytes.len() as u64 != len {
            let short = got.bytes.len();
            return Err(Error::Corrupt(format!("{}/{key} gave {short} bytes of a range of {len}", self.url())));
        }
        Ok(got.bytes)
    }

    /// Reads a whole small object, if it is there.
    pub async fn get_all(&self, key: &str, cause: Cause) -> Result<Option<Got>> {
        self.get_if_there(key, None, 0, cause).await
    }

    async fn get_if_there(&self, key: &str, range: Option<Range<u64>>, len: u64, cause: Cause) -> Result<Option<Got>> {
        for attempt in 0.. {
            let get = self.0.bucket.get(key, range.clone());
            match self.request(Kind::Get, cause, len, attempt, get).await {
                Ok(got) => {
                    self.0.counts.add_bytes(Kind::Get, cause, got.bytes.len() as u64);
                    return Ok(Some(got));
                }
                Err(Failure::NotFound) => return Ok(None),
                Err(failure) => self.pause(key, attempt, failure).await?,
            }
        }
        unreachable!("pause ends the attempts")
    }

    /// What is known about an object, if it is there.
    pub async fn head(&self, key: &str, cause: Cause) -> Result<Option<Head>> {
        for attempt in 0.. {
            match self.request(Kind::Head, cause, 0, attempt, self.0.bucket.head(key)).await {
                Ok(head) => return Ok(Some(head)),
                Err(Failure::NotFound) => return Ok(None),
                Err(failure) => self.pause(key, attempt, failure).await?,
            }
        }
        unreachable!("pause ends the attempts")
    }

    /// At most `max` objects whose key begins with `prefix` and is greater than `after`, in key order.
    pub async fn list(&self, prefix: &str, after: Option<&str>, max: usize, cause: Cause) -> Result<Vec<Listed>> {
        for attempt in 0.. {
            match self.request(Kind::List, cause, 0, attempt, self.0.bucket.list(prefix, after, max)).await {
                Ok(listed) => return Ok(listed),
                Err(failure) => self.pause(prefix, attempt, failure).await?,
            }
        }
        unreachable!("pause ends the attempts")
    }

    /// Deletes an object; deleting an absent one is no error.
    pub async fn delete(&self, key: &str, cause: Cause) -> Result<()> {
        for attempt in 0.. {
            match self.request(Kind::Delete, cause, 0, attempt, self.0.bucket.delete(key)).await {
                Ok(()) | Err(Failure::NotFound) => return Ok(()),
                Err(failure) => self.pause(key, attempt, failure).await?,
            }
        }
        unreachable!("pause ends the attempts")
    }

    /// One counted request under its deadline.
    async fn request<T>(
        &self,
        kind: Kind,
        cause: Cause,
        bytes: u64,
        attempt: u32,
        answer: Answer<'_, T>,
    ) -> Result<T, Failure> {
        let patience = self.0.options.retry.first_timeout + Duration::from_micros(bytes);
        let patience = patience * 2u32.pow(attempt.min(5));
        let counts = &self.0.counts;
        counts.add_request(kind, cause);
        if kind == Kind::Put {
            counts.add_bytes(kind, cause, bytes);
        }
        let answer = match tokio::time::timeout(patience, answer).await {
            Ok(answer) => answer,
            Err(_) => Err(Failure::Transient(format!("no answer within {patience:?}"))),
        };
        if !matches!(answer, Ok(_) | Err(Failure::NotFound | Failure::Exists)) {
            counts.add_error(kind, cause);
        }
        answer
    }

    /// Waits before the next attempt, or gives up with the error that the caller gets.
    async fn pause(&self, key: &str, attempt: u32, failure: Failure) -> Result<()> {
        let retry = &self.0.options.retry;
        let at = format!("{}/{key}", self.url());
        match failure {
            Failure::Transient(_) | Failure::Exists if attempt + 1 < retry.attempts => {
                let pause = (retry.first_pause * 2u32.pow(attempt.min(10))).min(retry.pause_max);
                // Jitter, so that clients that failed together do not return together.
                let jitter = (self.0.options.entropy.next_u64() >> 32) as u32;
                let pause = pause / 2 + (pause / 2).mul_f64(f64::from(jitter) / f64::from(u32::MAX));
                // One failure or two are everyday; a third in a row is worth a line, and who gives up says so.
                match attempt {
                    2 => tracing::warn!(%at, %failure, "a store request failed three times, trying on"),
                    _ => tracing::debug!(%at, attempt, %failure, ?pause, "store request failed, trying again"),
                }
                tokio::time::sleep(pause).await;
                Ok(())
            }
            Failure::Transient(why) => Err(Error::Retry(format!("{at}: {why} (after {} attempts)", attempt + 1))),
            Failure::Denied(why) => Err(Error::Store(format!("{at}: access denied: {why}"))),
            Failure::NoBucket(why) => Err(Error::Store(format!("{}: the bucket does not exist: {why}", self.url()))),
            failure => Err(Error::Store(format!("{at}: {failure}"))),
        }
    }
}

/// The outcome of a conditional put.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Put {
    /// Stored; with the entity tag if the answer had one.
    Won(Option<String>),
    /// The condition did not hold.
    Lost,
}

/// A bucket in this process's memory that several databases of the process may share, for simulations.
pub fn in_memory() -> Arc<dyn Bucket> {
    Arc::new(remote::RemoteBucket::memory(""))
}

/// A folder that the caller owns, as a bucket. Blocks.
pub(crate) fn in_folder(path: std::path::PathBuf) -> std::io::Result<Arc<dyn Bucket>> {
    Ok(Arc::new(file::FileBucket::owned(path)?))
}

#[cfg(test)]
#[path = "store/tests.rs"]
mod tests;
