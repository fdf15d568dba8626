//! How long a fourth node takes to answer, whatever the bucket holds: it gets a pointer, not the data. `HOLDFAST_JOIN_MIB`
//! (default 16) sets how much is in the bucket.

use std::time::{Duration, Instant};

use holdfast_tests::cluster::Cluster;
use mysql_async::{Conn, Opts, OptsBuilder, prelude::Queryable};

/// Bytes of a row's value.
const VALUE: usize = 60_000;
/// Rows of a statement.
const ROWS: u64 = 16;
/// Clients that fill the table.
const CLIENTS: u64 = 4;

fn mib() -> u64 {
    std::env::var("HOLDFAST_JOIN_MIB").ok().and_then(|n| n.parse().ok()).unwrap_or(16)
}

/// A row's value: bytes that do not compress, and that tell which row it is.
fn value(id: u64) -> Vec<u8> {
    let mut state = id.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    let mut bytes = id.to_le_bytes().to_vec();
    while bytes.len() < VALUE {
        bytes.extend(next());
    }
    bytes
}

/// Fills the table through whichever of the nodes leads: 10 GB last long enough for a busy machine to change that.
async fn fill(urls: &[String], rows: u64) {
    let opts = |url: &String| OptsBuilder::from_opts(Opts::from_url(url).unwrap()).max_allowed_packet(Some(32 << 20));
    let opts: Vec<OptsBuilder> = urls.iter().map(opts).collect();
    let mut conn = Conn::new(opts[0].clone()).await.unwrap();
    conn.query_drop("CREATE DATABASE d").await.unwrap();
    conn.query_drop("CREATE TABLE d.t (id BIGINT PRIMARY KEY, v MEDIUMBLOB NOT NULL)").await.unwrap();
    conn.disconnect().await.unwrap();
    let client = |n: u64| {
        let opts = opts.clone();
        tokio::spawn(async move {
            let places = vec!["(?, ?)"; ROWS as usize].join(", ");
            // The same rows may be sent twice: the outcome of a statement may be unknown.
            let replace = format!("REPLACE INTO d.t VALUES {places}");
            let (mut conn, mut at) = (None, 0);
            for group in (n..rows / ROWS).step_by(CLIENTS as usize) {
                let ids = group * ROWS..(group + 1) * ROWS;
                let values: Vec<mysql_async::Value> = ids.flat_map(|id| [id.into(), value(id).into()]).collect();
                let until = Instant::now() + Duration::from_secs(120);
                while let Err(error) = put(&opts[at], &mut conn, &replace, values.clone()).await {
                    assert!(Instant::now() < until, "{error}");
                    // Backpressure is an error that says to try again; all else may be over on another node.
                    if !error.to_string().contains("try again later") {
                        (conn, at) = (None, (at + 1) % opts.len());
                    }
                }
            }
            conn.expect("it has written").disconnect().await.unwrap();
        })
    };
    for done in (0..CLIENTS).map(client).collect::<Vec<_>>() {
        done.await.unwrap();
    }
}

/// One statement, on a connection that is made if there is none.
async fn put(
    opts: &OptsBuilder,
    conn: &mut Option<Conn>,
    statement: &str,
    values: Vec<mysql_async::Value>,
) -> mysql_async::Result<()> {
    let conn = match conn {
        Some(conn) => conn,
        None => conn.insert(Conn::new(opts.clone()).await?),
    };
    conn.exec_drop(statement, values).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_node_answers_at_once_whatever_the_bucket_holds() {
    let mut cluster = Cluster::start(&["--memory-cache", "64M"]).await;
    let leader = cluster.leader().await;
    let rows = (mib() << 20).div_ceil(VALUE as u64).next_multiple_of(ROWS);
    let began = Instant::now();
    let mut urls = cluster.urls();
    urls.rotate_left(leader as usize - 1);
    fill(&urls, rows).await;
    let leader = cluster.leader().await;
    // Gigabytes may wait for the bucket now, and a command is given a minute.
    let mut stored = cluster.admin(leader, &["checkpoint"]).await;
    for _ in 0..10 {
        if stored.code.is_none() {
            stored = cluster.admin(leader, &["checkpoint"]).await;
        }
    }
    assert_eq!(stored.code, Some(0), "{}", stored.output);
    let bytes = cluster.node(leader).status().await["Holdfast_tree_bytes"];
    println!("{rows} rows, {} MiB in the bucket after {:?}", bytes >> 20, began.elapsed());
    // Written just before: only a node that has caught up knows it.
    let mut conn = Conn::from_url(cluster.url(leader)).await.unwrap();
    conn.query_drop("CREATE TABLE d.last (id INT PRIMARY KEY)").await.unwrap();
    conn.query_drop("INSERT INTO d.last VALUES (1)").await.unwrap();

    let (began, joining) = (Instant::now(), cluster.joining(4));
    let address = cluster.raft_address(4);
    let added = async {
        let added = cluster.admin(leader, &["add-node", "--id", "4", "--node-addr", &address]).await;
        assert_eq!(added.code, Some(0), "{}", added.output);
        began.elapsed()
    };
    let url = cluster.url(4);
    let answered = async {
        let until = began + Duration::from_secs(60);
        let mut sampled = 0;
        loop {
            let id = rows / 2 + sampled;
            let asked = async {
                let mut conn = Conn::from_url(url.as_str()).await?;
                let last: Option<u64> = conn.query_first("SELECT id FROM d.last").await?;
                let v: Option<Vec<u8>> = conn.exec_first("SELECT v FROM d.t WHERE id = ?", (id,)).await?;
                mysql_async::Result::Ok((last, v))
            };
            match asked.await {
                Ok((last, v)) => {
                    assert!(last == Some(1) && v == Some(value(id)), "a wrong answer about row {id}");
                    return began.elapsed();
                }
                Err(error) => assert!(Instant::now() < until, "no answer within a minute: {error}"),
            }
            sampled += 1;
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let (added, answered) = tokio::join!(added, answered);
    println!("the fourth node: first right answer {answered:?} after its start, a vote after {added:?}");
    let server = joining.await.unwrap();
    cluster.joined(4, server);
    let mut at_new = Conn::from_url(url.as_str()).await.unwrap();
    for id in (0..rows).step_by((rows / 50).max(1) as usize) {
        let v: Option<Vec<u8>> = at_new.exec_first("SELECT v FROM d.t WHERE id = ?", (id,)).await.unwrap();
        assert!(v == Some(value(id)), "row {id}");
    }
    for conn in [conn, at_new] {
        conn.disconnect().await.unwrap();
    }
}
