//! The answering side: one task a connection; frames are handed over in the order in which they came, answers leave as
//! they are ready. Streams of the layer above are passed on once greeted.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{StreamExt, stream::FuturesUnordered};
use parking_lot::Mutex;
use tokio::{
    io::{AsyncWriteExt, BufWriter},
    net::{TcpListener, TcpStream},
    sync::{Semaphore, mpsc, watch},
    time::timeout,
};

use super::{
    dial::read_greeting,
    envelope::{Greeting, Purpose},
    read_frame,
    stream::{Failure, NodeStream, NodeTls, StreamReader, explain},
    told::Told,
    write_frame,
};
use crate::{NodeId, transport::Handler};

/// Connections at once: a few from each member, and room for strangers who are soon shown out.
const CONNECTIONS_MAX: usize = 64;
/// Longest that a greeting may take.
const GREET: Duration = Duration::from_secs(1);
/// Frames of one connection that are being answered.
const ANSWERING_MAX: usize = 128;
/// Frames of one connection that are read ahead.
const READ_AHEAD: usize = 4;
/// A raw stream whose caller takes nothing, or is not there, for this long is given up: what is sent may be a long answer for
/// a slow reader.
const STREAM_PATIENCE: Duration = Duration::from_secs(60);
/// A pause after `accept` failed, for want of descriptors most likely.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Where streams of the layer above go, once it wants any.
pub(super) type Streams = Arc<Mutex<Option<mpsc::Sender<(NodeId, NodeStream)>>>>;

/// What the answering of a connection needs.
pub(super) struct Door {
    pub(super) cluster: u128,
    pub(super) node: NodeId,
    pub(super) tls: Option<NodeTls>,
    pub(super) handler: Arc<dyn Handler>,
    pub(super) streams: Streams,
    pub(super) told: Told,
}

/// Accepts until `stopped`.
pub(super) async fn accept(listener: Arc<TcpListener>, door: Door, mut stopped: watch::Receiver<bool>) {
    let door = Arc::new(door);
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let until = stopped.clone();
    let accepting = async {
        loop {
            let Ok(permit) = room.clone().acquire_owned().await else { return };
            let (stream, from) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(e) => {
                    tracing::warn!("no connection from other nodes can be accepted: {e}");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let (door, mut stopped) = (door.clone(), until.clone());
            tokio::spawn(async move {
                let why = tokio::select! {
                    biased;
                    _ = stopped.wait_for(|stopped| *stopped) => return,
                    why = door.answer(stream) => why,
                };
                if why.refused {
                    door.told.warn(&from.ip().to_string(), &why.why);
                }
                tracing::debug!(%from, "connection of another node ended: {}", why.why);
                drop(permit);
            });
        }
    };
    tokio::select! {
        biased;
        _ = stopped.wait_for(|stopped| *stopped) => {}
        () = accepting => {}
    }
}

impl Door {
    /// Greets, then answers frames until the connection ends, or passes it on; says why it ended.
    async fn answer(&self, socket: TcpStream) -> Failure {
        match timeout(GREET, self.greet(socket)).await {
            Ok(Ok(Some(stream))) => Failure::down(answer_frames(stream, &*self.handler).await),
            Ok(Ok(None)) => Failure::down("it is a stream of the layer above now"),
            Ok(Err(failure)) => failure,
            Err(_) => Failure::down(format!("no greeting within {GREET:?}")),
        }
    }

    /// Tells who we are, also to those who are wrong about it: their message is then exact. `None`: passed on.
    async fn greet(&self, socket: TcpStream) -> Result<Option<NodeStream>, Failure> {
        let mut stream = NodeStream::accept(socket, self.tls.as_ref()).await?;
        let theirs = read_greeting(&mut stream).await?;
        let wrong = if theirs.cluster != self.cluster {
            Some(format!("it belongs to cluster {:032x}", theirs.cluster))
        } else if theirs.to != self.node {
            Some(format!("it takes this node for node {}", theirs.to))
        } else {
            None
        };
        // A place first: whoever is told that the stream is taken may rely on it.
        let sender = (theirs.purpose == Purpose::Stream && wrong.is_none()).then(|| self.streams.lock().clone());
        let place = sender.flatten().and_then(|sender| sender.try_reserve_owned().ok());
        let purpose = if place.is_some() { Purpose::Stream } else { Purpose::Frames };
        let ours = Greeting { cluster: self.cluster, from: self.node, to: theirs.from, purpose };
        stream.write_all(&ours.encode()).await.map_err(|e| explain(&e))?;
        stream.flush().await.map_err(|e| explain(&e))?;
        match (wrong, place, theirs.purpose) {
            (Some(wrong), ..) => Err(Failure::refused(wrong)),
            (None, None, Purpose::Frames) => Ok(Some(stream)),
            (None, None, Purpose::Stream) => Err(Failure::down("no more streams of the layer above are taken now")),
            (None, Some(place), _) => {
                stream.keep_alive(STREAM_PATIENCE).map_err(|e| Failure::down(e.to_string()))?;
                place.send((theirs.from, stream));
                Ok(None)
            }
        }
    }
}

/// Answers frames until the connection ends; says why it did.
async fn answer_frames(stream: NodeStream, handler: &dyn Handler) -> String {
    let (input, output) = stream.split();
    let (read, mut frames) = mpsc::channel(READ_AHEAD);
    let answering = async {
        let mut output = BufWriter::new(output);
        let mut running = FuturesUnordered::new();
        loop {
            let (call, answer) = tokio::select! {
                biased;
                Some(done) = running.next(), if !running.is_empty() => done,
                frame = frames.recv(), if running.len() < ANSWERING_MAX => match frame {
                    Some((call, frame)) => {
                        running.push(async move { (call, handler.handle(frame).await) });
                        continue;
                    }
                    None => return "the other node has closed it".to_owned(),
                },
            };
            let Some(answer) = answer else { return "a frame was not ours to answer".to_owned() };
            let written = write_frame(&mut output, call, &answer).await;
            // Answers that are ready leave together; whoever comes later does not hold them up.
            if let Err(e) = written.and(output.flush().await) {
                return e.to_string();
            }
        }
    };
    tokio::select! {
        biased;
        why = answering => why,
        why = read_all(input, read) => why,
    }
}

async fn read_all(mut input: StreamReader, frames: mpsc::Sender<(u64, Bytes)>) -> String {
    loop {
        match read_frame(&mut input).await {
            Ok(frame) => {
                if frames.send(frame).await.is_err() {
                    return "closed here".to_owned();
                }
            }
            Err(why) => return why,
        }
    }
}
