//! The seam behind the store: one bucket, what is asked of it, and how requests fail.

use std::ops::Range;

use bytes::Bytes;
use futures::future::BoxFuture;

use crate::error::Result;

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
    /// Time-out, broken connection, server error: the same request may succeed later.
    #[error("{0}")]
    Transient(String),
    /// The bucket asks for fewer requests (503, 429): the same one may succeed later.
    #[error("{0}")]
    Throttled(String),
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
