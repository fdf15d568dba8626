//! What the S3 server's own log says of a bucket: the filer's metadata log, which has one entry for each key made,
//! overwritten or deleted, in order.

use std::collections::BTreeMap;

use serde_json::Value;

/// What happened to one key over the life of the server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeyHistory {
    /// Times it came into being.
    pub created: u64,
    /// Times that what was there was replaced.
    pub overwritten: u64,
    /// Times it was deleted.
    pub deleted: u64,
    /// Bytes of everything that was ever stored under it.
    pub bytes_written: u64,
    /// Bytes stored at the end; `None` once deleted.
    pub bytes_now: Option<u64>,
}

impl KeyHistory {
    /// Times that something was stored under the key.
    pub fn writes(&self) -> u64 {
        self.created + self.overwritten
    }
}

/// Every key below one folder of the bucket, relative to it.
#[derive(Clone, Debug, Default)]
pub struct BucketLog(pub BTreeMap<String, KeyHistory>);

impl BucketLog {
    /// Reads the log as `weed filer.meta.tail` prints it: one JSON document per entry. `folder` is the path of the
    /// folder in the filer, without a final slash.
    pub fn parse(text: &[u8], folder: &str) -> Self {
        let mut log = Self::default();
        for entry in serde_json::Deserializer::from_slice(text).into_iter::<Value>() {
            log.add(&entry.expect("the filer's log is JSON"), folder);
        }
        log
    }

    fn add(&mut self, entry: &Value, folder: &str) {
        let event = &entry["eventNotification"];
        let parent = entry["directory"].as_str().expect("an entry names its folder");
        let Some(parent) = parent.strip_prefix(folder) else { return };
        let new_parent = event["newParentPath"].as_str().filter(|path| !path.is_empty());
        assert!(new_parent.is_none_or(|path| path == format!("{folder}{parent}")), "nothing is renamed: {entry}");
        let file = |value: &Value| (!value.is_null() && value["isDirectory"] != true).then(|| value.clone());
        let (old, new) = (file(&event["oldEntry"]), file(&event["newEntry"]));
        let Some(name) = new.as_ref().or(old.as_ref()).and_then(|entry| entry["name"].as_str()) else { return };
        let history = self.0.entry(format!("{}/{name}", parent).trim_start_matches('/').to_owned()).or_default();
        match &new {
            Some(new) => {
                let bytes = new["attributes"]["fileSize"].as_str().and_then(|size| size.parse().ok());
                let bytes: u64 = bytes.expect("a file has a size");
                history.created += u64::from(old.is_none());
                history.overwritten += u64::from(old.is_some());
                history.bytes_written += bytes;
                history.bytes_now = Some(bytes);
            }
            None => {
                history.deleted += 1;
                history.bytes_now = None;
            }
        }
    }

    /// The keys that begin with `prefix`.
    pub fn below<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (&'a str, &'a KeyHistory)> {
        self.0.iter().map(|(key, history)| (&key[..], history)).filter(move |(key, _)| key.starts_with(prefix))
    }

    /// Bytes stored now.
    pub fn bytes_now(&self) -> u64 {
        self.0.values().filter_map(|history| history.bytes_now).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(folder: &str, name: &str, old: Option<u64>, new: Option<u64>) -> String {
        let file = |bytes: Option<u64>| {
            bytes.map_or(Value::Null, |bytes| {
                serde_json::json!({"name": name, "isDirectory": false, "attributes": {"fileSize": bytes.to_string()}})
            })
        };
        let parent = if new.is_some() { folder } else { "" };
        let event = serde_json::json!({"oldEntry": file(old), "newEntry": file(new), "newParentPath": parent});
        serde_json::json!({"directory": folder, "eventNotification": event}).to_string()
    }

    #[test]
    fn a_key_made_again_after_its_deletion_counts_as_written_twice() {
        let text = [
            entry("/b/h/obj", "x", None, Some(5)),
            entry("/b/h/obj", "y", None, Some(7)),
            entry("/b/h/obj", "x", Some(5), None),
            entry("/b/h/obj", "x", None, Some(6)),
            entry("/b/h", "owner", None, Some(1)),
            entry("/b/h", "owner", Some(1), Some(2)),
            entry("/other", "z", None, Some(9)),
        ]
        .join("\n");
        let log = BucketLog::parse(text.as_bytes(), "/b/h");
        assert_eq!(log.0.keys().collect::<Vec<_>>(), ["obj/x", "obj/y", "owner"]);
        let x = KeyHistory { created: 2, overwritten: 0, deleted: 1, bytes_written: 11, bytes_now: Some(6) };
        assert_eq!(log.0["obj/x"], x);
        assert_eq!((log.0["owner"].writes(), log.0["owner"].bytes_now), (2, Some(2)));
        assert_eq!((log.bytes_now(), log.below("obj/").count()), (15, 2));
    }
}
