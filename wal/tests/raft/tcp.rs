//! Nodes over TCP: calls pipelined on one connection, strangers shown out, peers that hang, go and come back.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use holdfast_wal::{
    BoxFuture, Wal, WalOptions,
    disk::{Disk, sim::SimDisk},
    transport::{Handler, Peer, TcpTransport, Transport, TransportError},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Notify,
};

use crate::machine::*;

pub const CLUSTER: u128 = 0xC1;
pub const LONG: Duration = Duration::from_secs(10);

/// Answers every frame with itself; "wait" only once told to, "bad" not at all.
#[derive(Default)]
pub struct Echo {
    go: Notify,
}

impl Handler for Echo {
    fn handle(&self, frame: Bytes) -> BoxFuture<'_, Option<Bytes>> {
        Box::pin(async move {
            match &frame[..] {
                b"wait" => self.go.notified().await,
                b"bad" => return None,
                _ => {}
            }
            Some(frame)
        })
    }
}

async fn bind(node: u64, addr: &str) -> TcpTransport {
    TcpTransport::bind(CLUSTER, node, addr, None).await.unwrap()
}

pub fn peer(id: u64, of: &TcpTransport) -> Peer {
    Peer { id, addr: of.local_addr().unwrap().to_string() }
}

/// Node 1, which calls, and node 2, which answers.
async fn pair() -> (TcpTransport, TcpTransport, Peer, Arc<Echo>) {
    let (one, two) = (bind(1, "127.0.0.1:0").await, bind(2, "127.0.0.1:0").await);
    let echo = Arc::new(Echo::default());
    two.serve(echo.clone());
    let to = peer(2, &two);
    (one, two, to, echo)
}

#[tokio::test]
async fn a_slow_answer_holds_up_no_other() {
    let (one, _two, to, echo) = pair().await;
    let slow = tokio::spawn(one.call(to.clone(), Bytes::from_static(b"wait"), LONG));
    let many = (0..100u8).map(|n| one.call(to.clone(), Bytes::from(vec![n; 1000]), LONG));
    for (n, answer) in futures::future::join_all(many).await.into_iter().enumerate() {
        assert_eq!(answer.unwrap(), vec![n as u8; 1000]);
    }
    let large = Bytes::from(vec![7; 5 << 20]);
    assert_eq!(one.call(to, large.clone(), LONG).await, Ok(large));
    assert!(!slow.is_finished());
    echo.go.notify_one();
    assert_eq!(slow.await.unwrap().unwrap(), "wait");
}

#[tokio::test]
async fn the_wrong_node_and_the_wrong_cluster_are_named() {
    let (one, two, to, _echo) = pair().await;
    let wrong = Peer { id: 3, ..to.clone() };
    let error = one.call(wrong, Bytes::new(), LONG).await.unwrap_err();
    assert!(error.to_string().contains("is node 2, not node 3"), "{error}");
    let stranger = TcpTransport::bind(0xBAD, 1, "127.0.0.1:0", None).await.unwrap();
    let error = stranger.call(to, Bytes::new(), LONG).await.unwrap_err();
    assert!(error.to_string().contains(&format!("belongs to cluster {CLUSTER:032x}, not ours")), "{error}");
    drop(two);
}

#[tokio::test]
async fn garbage_ends_its_own_connection_only() {
    let (one, _two, to, _echo) = pair().await;
    let mut garbage = TcpStream::connect(&to.addr).await.unwrap();
    garbage.write_all(&[0x55; 4096]).await.unwrap();
    let mut rest = Vec::new();
    // Closed, or reset because unread bytes were left.
    let _ = garbage.read_to_end(&mut rest).await;
    assert!(rest.is_empty(), "garbage was greeted");
    assert!(one.call(to.clone(), Bytes::from_static(b"bad"), LONG).await.is_err());
    assert_eq!(one.call(to, Bytes::from_static(b"good"), LONG).await.unwrap(), "good");
}

#[tokio::test]
async fn a_peer_that_hangs_times_out_and_one_that_is_gone_is_unreachable() {
    let (one, two, to, _echo) = pair().await;
    let short = Duration::from_millis(50);
    let hung = one.call(to.clone(), Bytes::from_static(b"wait"), short).await;
    assert_eq!(hung, Err(TransportError::Timeout(2, short)));
    two.stop();
    let mut gone = one.call(to.clone(), Bytes::from_static(b"x"), LONG).await;
    // The first call may still have gone out on the old connection; either way there is no answer.
    assert!(matches!(gone, Err(TransportError::Unreachable(2, _))), "{gone:?}");
    drop(two);
    gone = one.call(to, Bytes::from_static(b"x"), LONG).await;
    assert!(matches!(gone, Err(TransportError::Unreachable(2, _))), "{gone:?}");
}

#[tokio::test]
async fn a_peer_that_comes_back_is_called_again() {
    let (one, two, to, _echo) = pair().await;
    assert!(one.call(to.clone(), Bytes::from_static(b"x"), LONG).await.is_ok());
    two.stop();
    drop(two);
    let again = loop {
        // The old listener ends with its task.
        match TcpTransport::bind(CLUSTER, 2, &to.addr, None).await {
            Ok(again) => break again,
            Err(_) => tokio::task::yield_now().await,
        }
    };
    again.serve(Arc::new(Echo::default()));
    let mut answer = one.call(to.clone(), Bytes::from_static(b"x"), LONG).await;
    if answer.is_err() {
        // It went out on the connection that was just found broken.
        answer = one.call(to, Bytes::from_static(b"x"), LONG).await;
    }
    assert_eq!(answer.unwrap(), "x");
}

#[tokio::test]
async fn calls_beyond_the_bound_are_refused_at_once() {
    let one = bind(1, "127.0.0.1:0").await;
    // Listens, and never greets.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let to = Peer { id: 2, addr: silent.local_addr().unwrap().to_string() };
    let calls: Vec<_> = (0..400).map(|_| one.call(to.clone(), Bytes::from_static(b"x"), LONG)).collect();
    let refused = futures::future::join_all(calls).await;
    let full = |error: &TransportError| error.to_string().contains("too many calls wait for it");
    assert!(refused.iter().any(|r| r.as_ref().is_err_and(full)));
    assert!(refused.iter().any(|r| r.as_ref().is_err_and(|e| e.to_string().contains("no connection within"))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_nodes_replicate_over_tcp() {
    replicate([bind(1, "127.0.0.1:0").await, bind(2, "127.0.0.1:0").await, bind(3, "127.0.0.1:0").await]).await;
}

/// Nodes 1 to 3 commit, and all apply it.
pub async fn replicate(doors: [TcpTransport; 3]) {
    let peers: Vec<Peer> = (1..).zip(&doors).map(|(id, door)| peer(id, door)).collect();
    let bucket = Bucket::default();
    let mut members = Vec::new();
    for (id, door) in (1..).zip(doors) {
        let (machine, view) = Recorder::new(&bucket, None);
        let options =
            WalOptions { node: id, own_thread: true, bootstrap: (id == 1).then(|| peers.clone()), ..options() };
        let disk: Arc<dyn Disk> = Arc::new(SimDisk::new(id));
        members.push((Wal::open(options, disk, Arc::new(door), machine).await.unwrap(), view));
    }
    let mut leadership = members[0].0.leadership();
    let leader = leadership.wait_for(|l| l.leader.is_some()).await.unwrap().leader.unwrap();
    let wal = &members[leader as usize - 1].0;
    wal.ready().await.unwrap();
    let proposals: Vec<_> = (0..500).map(|n| wal.propose(payload(n))).collect();
    let last = futures::future::try_join_all(proposals).await.unwrap().into_iter().max().unwrap();
    wal.read_index().await.unwrap();
    for (wal, view) in &members {
        while wal.status().applied < last.index {
            tokio::task::yield_now().await;
        }
        assert_eq!(view.payloads(), (0..500).map(payload).collect::<Vec<_>>());
    }
    for (wal, _) in members {
        wal.close().await;
    }
}

#[tokio::test]
async fn streams_go_to_whoever_takes_them() {
    let (one, two, to, _echo) = pair().await;
    let refused = one.open_stream(&to).await.unwrap_err().to_string();
    assert!(refused.contains("node 2 takes no streams"), "{refused}");
    let mut streams = two.accept_streams();
    let mut mine = one.open_stream(&to).await.unwrap();
    let (from, theirs) = streams.recv().await.unwrap();
    assert_eq!(from, 1);
    let (mut reader, mut writer) = theirs.split();
    let echo = tokio::spawn(async move { tokio::io::copy(&mut reader, &mut writer).await });
    let sent: Vec<u8> = (0..1_000_000_u32).map(|n| n as u8).collect();
    let mut got = vec![0; sent.len()];
    let (mut input, mut output) = tokio::io::split(&mut mine);
    let (read, written) = tokio::join!(input.read_exact(&mut got), output.write_all(&sent));
    assert!(read.is_ok() && written.is_ok() && got == sent);
    drop(mine);
    assert_eq!(echo.await.unwrap().unwrap(), sent.len() as u64);
    // Calls go on beside them, and those whom nobody takes are bounded.
    assert!(one.call(to.clone(), Bytes::from_static(b"x"), LONG).await.is_ok());
    let mut waiting = Vec::new();
    let error = loop {
        match one.open_stream(&to).await {
            Ok(stream) => waiting.push(stream),
            Err(error) => break error.to_string(),
        }
        assert!(waiting.len() < 1000, "no bound");
    };
    assert!(error.contains("takes no streams"), "{error}");
    let wrong = Peer { id: 3, ..to.clone() };
    let error = one.open_stream(&wrong).await.unwrap_err().to_string();
    assert!(error.contains("is node 2, not node 3"), "{error}");
    drop(streams);
    assert!(one.open_stream(&to).await.is_err());
    two.stop();
    one.stop();
    assert!(one.open_stream(&to).await.unwrap_err().to_string().contains("closing"));
}
