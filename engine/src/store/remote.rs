//! S3 and in-memory buckets on the object_store crate, which is used nowhere else.

use std::{error::Error as _, ops::Range, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::StreamExt as _;
use object_store::{
    Attribute, Attributes, Error as StoreError, GetOptions, GetRange, ObjectStore, ObjectStoreExt as _, PutMode,
    PutOptions, PutPayload, RetryConfig, UpdateVersion,
    aws::{AmazonS3Builder, AmazonS3ConfigKey},
    memory::InMemory,
    path::Path,
};
use url::{Host, Url};

use super::{Answer, Bucket, Failure, Got, Head, Listed, When};
use crate::error::{Error, Result};

/// Metadata that carries the tag of a put.
const TAG: &str = "holdfast-put-id";

/// A bucket behind object_store, and the prefix of our keys in it.
pub(super) struct RemoteBucket {
    store: Arc<dyn ObjectStore>,
    prefix: String,
}

impl RemoteBucket {
    /// `rest` is `bucket/prefix`. Settings come from the AWS_* environment, then from `settings`.
    pub(super) fn s3(rest: &str, settings: &[(String, String)]) -> Result<Self> {
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        if bucket.is_empty() {
            return Err(Error::Invalid(format!("store URL s3://{rest}: the bucket name is missing")));
        }
        let mut builder = AmazonS3Builder::from_env().with_bucket_name(bucket);
        for (name, value) in settings {
            let lower = name.to_ascii_lowercase();
            let key: AmazonS3ConfigKey =
                lower.parse().map_err(|_| Error::Invalid(format!("unknown S3 setting {name}")))?;
            builder = builder.with_config(key, value);
        }
        let endpoint = [AmazonS3ConfigKey::S3Endpoint, AmazonS3ConfigKey::Endpoint]
            .iter()
            .find_map(|key| builder.get_config_value(key));
        if endpoint.as_ref().is_some_and(|endpoint| endpoint.starts_with("http://")) {
            builder = builder.with_allow_http(true);
        }
        let is_unsigned = |name: &str| name.to_ascii_lowercase().ends_with("unsigned_payload");
        let told = settings.iter().any(|(name, _)| is_unsigned(name))
            || std::env::vars_os().any(|(name, _)| name.to_str().is_some_and(is_unsigned));
        if !told && is_safe_in_transit(endpoint.as_deref()) {
            builder = builder.with_unsigned_payload(true);
        }
        // Retries and deadlines are the store's, where they are counted; this one only guards against leaks.
        let once = RetryConfig { max_retries: 0, ..RetryConfig::default() };
        let client = object_store::ClientOptions::new()
            .with_timeout(Duration::from_secs(600))
            .with_connect_timeout(Duration::from_secs(5))
            .with_pool_idle_timeout(Duration::from_secs(20));
        let client = if builder.get_config_value(&ALLOW_HTTP).is_some_and(|allow| allow == "true") {
            client.with_allow_http(true)
        } else {
            client
        };
        let store = builder
            .with_retry(once)
            .with_client_options(client)
            // One by one: some servers refuse a multi-delete without Content-MD5.
            .with_disable_bulk_delete(true)
            .build()
            .map_err(|error| Error::Invalid(format!("store URL s3://{rest}: {error}")))?;
        Ok(Self { store: Arc::new(store), prefix: normal(prefix) })
    }

    pub(super) fn memory(rest: &str) -> Self {
        Self { store: Arc::new(InMemory::new()), prefix: normal(rest) }
    }

    fn path(&self, key: &str) -> Result<Path, Failure> {
        Path::parse(format!("{}{key}", self.prefix)).map_err(|error| Failure::Fatal(error.to_string()))
    }
}

const ALLOW_HTTP: AmazonS3ConfigKey = AmazonS3ConfigKey::Client(object_store::ClientConfigKey::AllowHttp);

/// Whether nothing changes a body on its way to this endpoint: TLS sees to it, or it stays on this machine. Its SHA-256, which a
/// signature would need, takes as long as all else that a flush does with the bytes.
fn is_safe_in_transit(endpoint: Option<&str>) -> bool {
    // Without one it is AWS itself.
    let Some(endpoint) = endpoint else { return true };
    let Ok(url) = Url::parse(endpoint) else { return false };
    let is_here = match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    };
    url.scheme() == "https" || is_here
}

fn normal(prefix: &str) -> String {
    let prefix = prefix.trim_matches('/');
    if prefix.is_empty() { String::new() } else { format!("{prefix}/") }
}

impl Bucket for RemoteBucket {
    fn put<'a>(&'a self, key: &'a str, body: &'a [Bytes], when: When, tag: u128) -> Answer<'a, Option<String>> {
        Box::pin(async move {
            let mode = match when {
                When::Always => PutMode::Overwrite,
                When::Absent => PutMode::Create,
                When::Matches(etag) => PutMode::Update(UpdateVersion { e_tag: Some(etag), version: None }),
            };
            let attributes: Attributes =
                [(Attribute::Metadata(TAG.into()), ulid::Ulid(tag).to_string())].into_iter().collect();
            let options = PutOptions { mode, attributes, ..PutOptions::default() };
            let payload: PutPayload = body.iter().cloned().collect();
            let put = self.store.put_opts(&self.path(key)?, payload, options).await.map_err(sort)?;
            Ok(put.e_tag)
        })
    }

    fn get<'a>(&'a self, key: &'a str, range: Option<Range<u64>>) -> Answer<'a, Got> {
        Box::pin(async move {
            let options = GetOptions { range: range.map(GetRange::Bounded), ..GetOptions::default() };
            let got = self.store.get_opts(&self.path(key)?, options).await.map_err(sort)?;
            let etag = got.meta.e_tag.clone();
            Ok(Got { bytes: got.bytes().await.map_err(sort)?, etag })
        })
    }

    fn head<'a>(&'a self, key: &'a str) -> Answer<'a, Head> {
        Box::pin(async move {
            let options = GetOptions { head: true, ..GetOptions::default() };
            let got = self.store.get_opts(&self.path(key)?, options).await.map_err(sort)?;
            let tag = got.attributes.get(&Attribute::Metadata(TAG.into()));
            let tag = tag.and_then(|tag| ulid::Ulid::from_string(tag).ok()).map(|tag| tag.0);
            Ok(Head { bytes: got.meta.size, tag })
        })
    }

    fn list<'a>(&'a self, prefix: &'a str, after: Option<&'a str>, max: usize) -> Answer<'a, Vec<Listed>> {
        Box::pin(async move {
            let folder = self.path(prefix.trim_end_matches('/'))?;
            let after = after.map(|after| self.path(after)).transpose()?;
            let found = match &after {
                Some(after) => self.store.list_with_offset(Some(&folder), after),
                None => self.store.list(Some(&folder)),
            };
            let found = found.take(max).collect::<Vec<_>>().await;
            found
                .into_iter()
                .map(|meta| {
                    let meta = meta.map_err(sort)?;
                    let key = meta.location.as_ref();
                    let key = key.strip_prefix(&self.prefix).unwrap_or(key).to_owned();
                    Ok(Listed { key, bytes: meta.size })
                })
                .collect()
        })
    }

    fn delete<'a>(&'a self, key: &'a str) -> Answer<'a, ()> {
        Box::pin(async move { self.store.delete(&self.path(key)?).await.map_err(sort) })
    }
}

/// Sorts an error by what to do about it. The HTTP status is only found in the text of the innermost error.
fn sort(error: StoreError) -> Failure {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text = format!("{text}: {inner_text}");
        }
        source = inner.source();
    }
    if text.contains("NoSuchBucket") {
        return Failure::NoBucket(text);
    }
    match error {
        StoreError::NotFound { .. } => Failure::NotFound,
        StoreError::AlreadyExists { .. } | StoreError::Precondition { .. } | StoreError::NotModified { .. } => {
            Failure::Exists
        }
        StoreError::PermissionDenied { .. } | StoreError::Unauthenticated { .. } => Failure::Denied(text),
        StoreError::Generic { .. } if is_throttled(&text) => Failure::Throttled(text),
        StoreError::Generic { .. } | StoreError::JoinError { .. } if !is_client_error(&text) => {
            Failure::Transient(text)
        }
        _ => Failure::Fatal(text),
    }
}

/// S3 answers 503 with `SlowDown`; others leave out the code, or answer 429.
fn is_throttled(text: &str) -> bool {
    ["SlowDown", "status code: 503", "status code: 429"].iter().any(|sign| text.contains(sign))
}

/// A 4xx that trying again does not mend; 408 and 429 do pass.
fn is_client_error(text: &str) -> bool {
    let status = text.split("status code: 4").nth(1).and_then(|rest| rest.get(..2));
    status.is_some_and(|status| status != "08" && status != "29")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn generic(text: &str) -> StoreError {
        StoreError::Generic { store: "S3", source: text.to_owned().into() }
    }

    #[test]
    fn only_what_travels_in_the_clear_is_signed() {
        for safe in ["https://minio.example:9000", "http://127.0.0.1:9000", "http://localhost/x", "http://[::1]:9000"] {
            assert!(is_safe_in_transit(Some(safe)), "{safe}");
        }
        for clear in [
            "http://10.0.0.1:9000",
            "http://minio:9000",
            "http://127.0.0.1.example",
            "http://127.0.0.1:1@minio",
            "http://[fd00::1]:9000",
        ] {
            assert!(!is_safe_in_transit(Some(clear)), "{clear}");
        }
        assert!(is_safe_in_transit(None), "AWS itself");
    }

    #[test]
    fn errors_are_sorted_by_what_to_do() {
        let status = |code: &str| sort(generic(&format!("Server returned non-2xx status code: {code}: body")));
        assert!(matches!(status("500 Internal Server Error"), Failure::Transient(_)));
        assert!(matches!(status("503 Service Unavailable"), Failure::Throttled(_)));
        assert!(matches!(status("429 Too Many Requests"), Failure::Throttled(_)));
        assert!(matches!(status("400 Bad Request"), Failure::Fatal(_)));
        assert!(matches!(
            sort(generic("HTTP error: connection closed before message completed")),
            Failure::Transient(_)
        ));
        let missing = StoreError::NotFound { path: "x".into(), source: "<Code>NoSuchBucket</Code>".into() };
        assert!(matches!(sort(missing), Failure::NoBucket(_)));
        let denied = StoreError::PermissionDenied { path: "x".into(), source: "InvalidAccessKeyId".into() };
        assert!(matches!(sort(denied), Failure::Denied(text) if text.contains("InvalidAccessKeyId")));
    }
}
