//! `holdfast admin`: asks a server's admin port and prints a table, or the JSON as it came.

use std::{io::Write, time::Instant};

use holdfast::{Db, Options, Recovery};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{
    cli::{Admin, AdminVerb, Recover, not_built},
    config::Size,
};

/// Answers are small; more than this is not our server.
const ANSWER_MAX: u64 = 16 << 20;

/// Runs one verb and prints its answer.
pub async fn run(admin: &Admin) -> Result<(), String> {
    let (method, path) = match &admin.verb {
        AdminVerb::Status => ("GET", "status".to_owned()),
        AdminVerb::Cost => ("GET", "cost".to_owned()),
        AdminVerb::Checkpoint => ("POST", "checkpoint".to_owned()),
        AdminVerb::Gc { dry_run } => ("POST", format!("gc?dry_run={dry_run}")),
        AdminVerb::Cache { memory: None, nvme: None } => ("GET", "cache".to_owned()),
        AdminVerb::Cache { memory, nvme } => {
            let part = |name, size: Option<Size>| size.map(|size| format!("&{name}={}", size.0)).unwrap_or_default();
            ("POST", format!("cache?{}{}", part("memory", *memory), part("nvme", *nvme)))
        }
        AdminVerb::Fsck => ("POST", "fsck".to_owned()),
        AdminVerb::Recover(recover) => return print(&recovered(recover).await?, admin.json),
        AdminVerb::Nodes => ("GET", "nodes".to_owned()),
        AdminVerb::Failover { to, dry_run } => {
            let to = to.map(|to| format!("&to={to}")).unwrap_or_default();
            ("POST", format!("failover?dry_run={dry_run}{to}"))
        }
        AdminVerb::AddNode { id, node_addr } => ("POST", format!("add-node?id={id}&addr={}", checked(node_addr)?)),
        AdminVerb::MoveNode { id, node_addr, force } => {
            ("POST", format!("move-node?id={id}&addr={}&force={force}", checked(node_addr)?))
        }
        AdminVerb::RemoveNode { id, force } => ("POST", format!("remove-node?id={id}&force={force}")),
        AdminVerb::Branch => return Err(not_built("`admin branch`")),
        AdminVerb::Restore => return Err(not_built("`admin restore`")),
        AdminVerb::Backup => return Err(not_built("`admin backup`")),
    };
    let answer = ask(&admin.addr, method, &format!("/admin/{path}")).await?;
    print(&answer, admin.json)?;
    match answer.get("healthy").and_then(Value::as_bool) {
        Some(false) => Err("the server reports damage or is not healthy".to_owned()),
        _ => Ok(()),
    }
}

fn print(answer: &Value, json: bool) -> Result<(), String> {
    let text = if json { format!("{answer:#}\n") } else { table(answer) };
    std::io::stdout().write_all(text.as_bytes()).map_err(|e| e.to_string())
}

/// Rebuilds a database from its bucket and closes it again. S3 settings come from the environment.
async fn recovered(recover: &Recover) -> Result<Value, String> {
    let data_dir = std::path::absolute(&recover.data_dir).map_err(|e| format!("--data-dir: {e}"))?;
    std::fs::create_dir_all(&data_dir).map_err(|e| format!("--data-dir {}: {e}", data_dir.display()))?;
    let mut options = Options::default();
    options.data_dir = Some(data_dir);
    options.allow_unsafe_store = recover.allow_unsafe_store;
    options.recover = Some(Recovery { from: Some(recover.from.clone()), force: recover.force });
    let store = recover.store.as_ref().unwrap_or(&recover.from);
    let began = Instant::now();
    let db = Db::open(store, options).await.map_err(|e| e.to_string())?;
    let stats = db.stats();
    let figure = |name| stats.counters.iter().find(|(counter, _)| *counter == name).map_or(0, |(_, value)| *value);
    let answer = json!({
        "store": store,
        "seconds": began.elapsed().as_secs_f64(),
        "log_index": figure("log_applied_index"),
        "term": figure("raft_term"),
        "objects": figure("tree_objects"),
        "bytes": figure("tree_bytes"),
    });
    db.close().await.map_err(|e| e.to_string())?;
    Ok(answer)
}

/// An address that can stand in a query as it is.
fn checked(addr: &str) -> Result<&str, String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || ".:-_[]".contains(c);
    match addr.chars().all(plain) && addr.contains(':') {
        true => Ok(addr),
        false => Err(format!("`{addr}` is not HOST:PORT")),
    }
}

/// One HTTP request. A status other than 200 is an error with the server's own words.
async fn ask(addr: &str, method: &str, path: &str) -> Result<Value, String> {
    let unreachable = |e: std::io::Error| format!("cannot reach a Holdfast admin port at {addr} (--addr): {e}");
    let mut stream = TcpStream::connect(addr).await.map_err(unreachable)?;
    let request = format!("{method} {path} HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
    stream.write_all(request.as_bytes()).await.map_err(unreachable)?;
    let mut answer = Vec::new();
    stream.take(ANSWER_MAX).read_to_end(&mut answer).await.map_err(unreachable)?;
    let (code, body) = split(&answer).ok_or_else(|| format!("{addr} does not speak HTTP"))?;
    let json: Option<Value> = serde_json::from_slice(body).ok();
    match (code, json) {
        (200, Some(json)) => Ok(json),
        (404, _) => Err(format!("the server at {addr} does not have {path}: is it a Holdfast of this version?")),
        (code, json) => {
            let why =
                json.as_ref().and_then(|json| json.get("error")).and_then(Value::as_str).unwrap_or("no reason given");
            Err(format!("the server at {addr} answered {code}: {why}"))
        }
    }
}

/// Status code and body of an HTTP answer whose connection was closed behind it.
fn split(answer: &[u8]) -> Option<(u16, &[u8])> {
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = std::str::from_utf8(answer.get(..end)?).ok()?;
    let code = head.strip_prefix("HTTP/1.1 ").or(head.strip_prefix("HTTP/1.0 "))?.get(..3)?.parse().ok()?;
    Some((code, answer.get(end + 4..)?))
}

/// Two aligned columns; nested objects are indented by their name.
fn table(answer: &Value) -> String {
    let mut rows = Vec::new();
    flatten("", answer, &mut rows);
    let width = rows.iter().map(|(key, _)| key.len()).max().unwrap_or_default();
    rows.iter().map(|(key, value)| format!("{key:width$}  {value}\n")).collect()
}

fn flatten(prefix: &str, value: &Value, rows: &mut Vec<(String, String)>) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                let key = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
                flatten(&key, value, rows);
            }
        }
        Value::Array(items) => {
            for (i, item) in items.iter().enumerate() {
                flatten(&format!("{prefix}[{i}]"), item, rows);
            }
        }
        Value::String(text) => rows.push((prefix.to_owned(), text.clone())),
        other => rows.push((prefix.to_owned(), other.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn answers_are_taken_apart() {
        assert_eq!(split(b"HTTP/1.1 200 OK\r\na: b\r\n\r\n{}"), Some((200, &b"{}"[..])));
        for bad in [&b""[..], b"HTTP/1.1 200", b"SSH-2.0\r\n\r\n", b"HTTP/1.1 \r\n\r\n", b"\xff\r\n\r\n"] {
            assert_eq!(split(bad), None);
        }
    }

    #[test]
    fn tables_are_aligned() {
        let shown = table(&json!({ "a": 1, "engine": { "commits": 2 }, "list": ["x"] }));
        assert_eq!(shown, "a               1\nengine.commits  2\nlist[0]         x\n");
    }
}
