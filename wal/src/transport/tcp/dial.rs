//! The caller's first words: connect, prove who we are, greet, and see whom we got.

use std::time::Duration;

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    time::timeout,
};

use super::{
    envelope::{EnvelopeError, GREETING, Greeting},
    stream::{Failure, NodeStream, NodeTls, explain},
};

/// Longest that connecting and greeting may take.
const CONNECT: Duration = Duration::from_secs(1);

/// A connection on which both sides know each other.
pub(super) async fn dial(addr: &str, greeting: Greeting, tls: Option<&NodeTls>) -> Result<NodeStream, Failure> {
    match timeout(CONNECT, greet(addr, greeting, tls)).await {
        Ok(greeted) => greeted.map_err(|failure| failure.at(addr)),
        Err(_) => Err(Failure::down(format!("no connection within {CONNECT:?}"))),
    }
}

async fn greet(addr: &str, ours: Greeting, tls: Option<&NodeTls>) -> Result<NodeStream, Failure> {
    let mut stream = NodeStream::connect(addr, tls).await?;
    let sent = match stream.write_all(&ours.encode()).await {
        Ok(()) => stream.flush().await,
        Err(e) => Err(e),
    };
    // A side that refuses our certificate says so here, even if it no longer reads.
    let theirs = match (read_greeting(&mut stream).await, sent) {
        (Err(failure), Err(e)) if !failure.refused => return Err(explain(&e)),
        (read, _) => read?,
    };
    if theirs.cluster != ours.cluster {
        return Err(Failure::refused(format!("it belongs to cluster {:032x}, not ours", theirs.cluster)));
    }
    if theirs.from != ours.to {
        return Err(Failure::refused(format!("it is node {}, not node {}", theirs.from, ours.to)));
    }
    if theirs.purpose != ours.purpose {
        return Err(Failure::refused(format!("node {} takes no streams of the layer above", theirs.from)));
    }
    Ok(stream)
}

/// Reads the other side's greeting. A side that speaks TLS is noticed by its first bytes: it may send no more.
pub(super) async fn read_greeting(stream: &mut (impl AsyncRead + Unpin)) -> Result<Greeting, Failure> {
    let mut bytes = [0; GREETING];
    let mut have = 0;
    while have < GREETING {
        match stream.read(&mut bytes[have..]).await {
            Ok(0) => return Err(Failure::down("it ended the connection before it greeted")),
            Ok(n) => have += n,
            Err(e) => return Err(explain(&e)),
        }
        if Greeting::is_tls(&bytes[..have]) {
            return Err(Failure::refused(EnvelopeError::Tls.to_string()));
        }
    }
    Greeting::decode(&bytes).map_err(|e| Failure::refused(e.to_string()))
}
