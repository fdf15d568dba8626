//! The one door to the bucket: keys, conditional writes, deadlines, bounded retries, and a count of every request.

mod bucket;
mod budget;
mod counts;
mod file;
mod gate;
mod governor;
mod health;
mod hedge;
mod outage;
pub mod owner;
pub mod probe;
mod read;
mod remote;
mod request;
mod window;

use std::{ops::Range, sync::Arc, time::Duration};

use bytes::Bytes;

pub use bucket::{Answer, Bucket, Failure, Got, Head, Listed, When};
pub use counts::{Cause, Kind, RequestCount, Requests};
pub use outage::Down;
use request::Ask;

use crate::{
    clock::{Clock, Entropy},
    cost::Prices,
    error::{Error, Result},
};

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

/// What bounds requests beside the [`RetryPolicy`]. The default bounds what readers wait for.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Longest that a foreground read takes, whatever its attempts; `None`: as long as the retry policy tries. Foreground is
    /// what a reader waits for: pages, indexes, manifests.
    pub read_timeout: Option<Duration>,
    /// Whether foreground reads fail after a moment while the bucket is known to be down.
    pub fail_fast: bool,
    /// Share of the reads of pages that may be sent a second time when they are late; 0: none.
    pub hedge_share: f64,
    /// Whether fewer requests are in flight when the bucket throttles.
    pub gate: bool,
    /// Requests a second above which background work waits; `None`: any number.
    pub requests_per_second: Option<f64>,
    /// Dollars a day, by `prices`, above which background work waits; `None`: any sum.
    pub dollars_per_day: Option<f64>,
    /// What requests cost.
    pub prices: Prices,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            read_timeout: Some(Duration::from_secs(10)),
            fail_fast: true,
            hedge_share: 0.05,
            gate: true,
            requests_per_second: None,
            dollars_per_day: None,
            prices: Prices::default(),
        }
    }
}

impl Limits {
    /// Nothing but the retry policy: for a store that is a local disk.
    pub fn none() -> Self {
        Self { read_timeout: None, fail_fast: false, hedge_share: 0.0, gate: false, ..Self::default() }
    }
}

/// Options of [`Store::open`].
#[derive(Clone)]
pub struct StoreOptions {
    /// S3 settings by their AWS_* names (without regard to case); they win over the environment.
    pub s3: Vec<(String, String)>,
    /// How long to try.
    pub retry: RetryPolicy,
    /// What else bounds requests.
    pub limits: Limits,
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
    outage: outage::Outage,
    hedges: hedge::Hedges,
    gate: Option<Arc<gate::Gate>>,
    governor: governor::Governor,
    /// The newest id made here.
    last_ulid: parking_lot::Mutex<u128>,
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
        let mut options = options;
        // A disk answers or fails: it is never away, and asks nobody to wait.
        if matches!(place, Place::File | Place::Memory) {
            options.limits = Limits { fail_fast: false, hedge_share: 0.0, gate: false, ..options.limits };
        }
        let limits = &options.limits;
        Self(Arc::new(Inner {
            url: url.to_owned(),
            place,
            bucket,
            counts: counts::Counters::default(),
            outage: outage::Outage::default(),
            hedges: hedge::Hedges::new(limits.hedge_share),
            gate: limits.gate.then(Arc::default),
            governor: governor::Governor::new(limits),
            last_ulid: parking_lot::Mutex::default(),
            options,
        }))
    }

    /// The URL it was opened with.
    pub fn url(&self) -> &str {
        &self.0.url
    }

    /// Lets another process have the store: nothing is written through this handle any more.
    pub fn close(&self) {
        self.0.outage.close();
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

    /// Since when the bucket does not answer, if it is known to be down.
    pub fn down(&self) -> Option<Down> {
        self.0.outage.down(&**self.clock())
    }

    /// Which background work waits for the budget of requests, if any does.
    pub fn over_budget(&self) -> Option<String> {
        self.0.governor.trouble()
    }

    /// Whether flushes make room that commits need: then they wait for no budget.
    pub(crate) fn set_urgent(&self, urgent: bool) {
        self.0.governor.set_urgent(urgent);
    }

    /// How requests fare beside what they were for, by name.
    pub(crate) fn counters(&self) -> [(&'static str, u64); 11] {
        let Inner { outage, hedges, gate, governor, .. } = &*self.0;
        let (sent, won) = hedges.counts();
        let gate = gate.as_ref().map(|gate| gate.figures()).unwrap_or_default();
        [
            ("store_down_seconds", self.down().map_or(0, |down| down.lasts.as_secs().max(1))),
            ("store_reads_failed_fast", outage.failed_fast()),
            ("store_hedges_sent", sent),
            ("store_hedges_won", won),
            ("store_in_flight_limit", gate.limit as u64),
            ("store_in_flight", gate.in_flight as u64),
            ("store_waiting", gate.waiting as u64),
            ("store_waited", gate.waited),
            ("store_throttled", gate.throttled),
            ("store_budget_waiting", governor.waiting()),
            ("store_budget_held", governor.held()),
        ]
    }

    pub(crate) fn clock(&self) -> &Arc<dyn Clock> {
        &self.0.options.clock
    }

    /// A new ULID: unique, above every one that this handle gave before, and ordered by time across terms as far as clocks
    /// agree.
    pub(crate) fn new_ulid(&self) -> u128 {
        let made = ulid::Ulid::from_parts(self.0.options.clock.unix_millis(), self.0.options.entropy.next_u128()).0;
        let mut last = self.0.last_ulid.lock();
        // Of one millisecond two would be in the order of chance; so would those around a step of the clock.
        *last = made.max(last.saturating_add(1));
        *last
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
            match self.request(Ask { kind: Kind::Put, cause, bytes, attempt }, put).await {
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

    /// What is known about an object, if it is there.
    pub async fn head(&self, key: &str, cause: Cause) -> Result<Option<Head>> {
        for attempt in 0.. {
            match self.request(Ask { kind: Kind::Head, cause, bytes: 0, attempt }, self.0.bucket.head(key)).await {
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
            let list = self.0.bucket.list(prefix, after, max);
            match self.request(Ask { kind: Kind::List, cause, bytes: 0, attempt }, list).await {
                Ok(listed) => return Ok(listed),
                Err(failure) => self.pause(prefix, attempt, failure).await?,
            }
        }
        unreachable!("pause ends the attempts")
    }

    /// Deletes an object; deleting an absent one is no error.
    pub async fn delete(&self, key: &str, cause: Cause) -> Result<()> {
        for attempt in 0.. {
            match self.request(Ask { kind: Kind::Delete, cause, bytes: 0, attempt }, self.0.bucket.delete(key)).await {
                Ok(()) | Err(Failure::NotFound) => return Ok(()),
                Err(failure) => self.pause(key, attempt, failure).await?,
            }
        }
        unreachable!("pause ends the attempts")
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
