//! The folder of the spill as a bucket, with a bound on what it takes.

use std::{ops::Range, sync::Arc};

use bytes::Bytes;
use parking_lot::Mutex;
use rustc_hash::FxHashMap;

use crate::store::{Answer, Bucket, Failure, Got, Head, Listed, When};

/// Files listed at a time.
const LIST_PAGE: usize = 1000;

/// A bounded folder.
pub struct Folder {
    files: Arc<dyn Bucket>,
    bound: u64,
    sizes: Mutex<Sizes>,
}

#[derive(Default)]
struct Sizes {
    of: FxHashMap<String, u64>,
    sum: u64,
}

impl Sizes {
    fn add(&mut self, name: &str, bytes: u64) {
        let before = self.of.insert(name.to_owned(), bytes).unwrap_or(0);
        self.sum = self.sum - before + bytes;
    }

    fn remove(&mut self, name: &str) {
        self.sum -= self.of.remove(name).unwrap_or(0);
    }
}

impl Folder {
    /// A folder with what lies in it.
    pub async fn open(files: Arc<dyn Bucket>, bound: u64) -> Result<Self, Failure> {
        let mut sizes = Sizes::default();
        let mut last: Option<String> = None;
        loop {
            let page = files.list("", last.as_deref(), LIST_PAGE).await?;
            page.iter().for_each(|listed| sizes.add(&listed.key, listed.bytes));
            if page.len() < LIST_PAGE {
                return Ok(Self { files, bound, sizes: Mutex::new(sizes) });
            }
            last = page.last().map(|listed| listed.key.clone());
        }
    }

    /// Bytes that it takes.
    pub fn used(&self) -> u64 {
        self.sizes.lock().sum
    }

    /// The names of all files.
    pub fn names(&self) -> Vec<String> {
        self.sizes.lock().of.keys().cloned().collect()
    }

    /// Takes room for a file.
    fn reserve(&self, name: &str, bytes: u64) -> Result<(), Failure> {
        let mut sizes = self.sizes.lock();
        if sizes.sum + bytes > self.bound {
            let (used, bound) = (sizes.sum, self.bound);
            return Err(Failure::Fatal(format!("{bytes} more bytes do not fit: {used} of {bound} are taken")));
        }
        sizes.add(name, bytes);
        Ok(())
    }
}

impl Bucket for Folder {
    fn put<'a>(&'a self, key: &'a str, body: &'a [Bytes], when: When, tag: u128) -> Answer<'a, Option<String>> {
        Box::pin(async move {
            self.reserve(key, body.iter().map(|chunk| chunk.len() as u64).sum())?;
            let put = self.files.put(key, body, when, tag).await;
            put.inspect_err(|_| self.sizes.lock().remove(key))
        })
    }

    fn get<'a>(&'a self, key: &'a str, range: Option<Range<u64>>) -> Answer<'a, Got> {
        self.files.get(key, range)
    }

    fn head<'a>(&'a self, key: &'a str) -> Answer<'a, Head> {
        self.files.head(key)
    }

    fn list<'a>(&'a self, prefix: &'a str, after: Option<&'a str>, max: usize) -> Answer<'a, Vec<Listed>> {
        self.files.list(prefix, after, max)
    }

    fn delete<'a>(&'a self, key: &'a str) -> Answer<'a, ()> {
        Box::pin(async move {
            let deleted = self.files.delete(key).await;
            if matches!(deleted, Ok(()) | Err(Failure::NotFound)) {
                self.sizes.lock().remove(key);
            }
            deleted
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_file_that_does_not_fit_is_refused_until_another_goes() {
        let folder = Folder::open(crate::store::in_memory(), 100).await.unwrap();
        let body = |bytes: usize| [Bytes::from(vec![1u8; bytes])];
        folder.put("a", &body(60), When::Absent, 1).await.unwrap();
        let refused = folder.put("b", &body(41), When::Absent, 2).await.unwrap_err();
        assert_eq!(refused, Failure::Fatal("41 more bytes do not fit: 60 of 100 are taken".to_owned()));
        folder.put("b", &body(40), When::Absent, 2).await.unwrap();
        for name in ["a", "b", "never there"] {
            folder.delete(name).await.unwrap();
        }
        assert_eq!((folder.used(), folder.names().len()), (0, 0));
    }
}
