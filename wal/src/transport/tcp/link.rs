//! The calling side: one connection to one peer, made when there is a call, shared by all calls in flight.
//!
//! Calls are written in the order in which they were made and answered in any. Whatever breaks the connection fails the
//! calls on it; the next call makes a new one.

use std::{collections::HashMap, sync::Arc, time::Duration};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::{
    io::{AsyncWriteExt, BufWriter},
    sync::{mpsc, oneshot, watch},
};

use super::{
    dial::dial,
    envelope::Greeting,
    read_frame,
    stream::{NodeStream, NodeTls, StreamReader, StreamWriter},
    told::Told,
    write_frame,
};

/// Calls that may wait to be written.
pub(super) const QUEUE: usize = 256;
/// Calls that may wait for their answer; beyond it only new ones wait.
const IN_FLIGHT_MAX: usize = 4096;
/// A connection on which calls wait and nothing was heard for this long is given up.
const SILENCE: Duration = Duration::from_secs(3);
/// Bytes gathered for one system call.
const WRITE_BUFFER: usize = 64 << 10;

/// A frame on its way, and who waits for the answer.
pub(super) struct Call {
    pub(super) frame: Bytes,
    pub(super) answer: oneshot::Sender<Result<Bytes, String>>,
}

/// Answers still to come, by the number of their call.
#[derive(Default)]
struct Waiting {
    calls: HashMap<u64, oneshot::Sender<Result<Bytes, String>>>,
    /// Envelopes heard, to notice silence.
    heard: u64,
}

type Shared = Arc<Mutex<Waiting>>;

/// One peer, as this node calls it.
pub(super) struct Link {
    pub(super) addr: String,
    pub(super) greeting: Greeting,
    pub(super) tls: Option<NodeTls>,
    pub(super) told: Told,
    pub(super) calls: mpsc::Receiver<Call>,
}

impl Link {
    /// Serves calls until nobody can make any, or `stopped`.
    pub(super) async fn run(mut self, mut stopped: watch::Receiver<bool>) {
        tokio::select! {
            biased;
            _ = stopped.wait_for(|stopped| *stopped) => {}
            () = self.serve() => {}
        }
    }

    async fn serve(&mut self) {
        while let Some(first) = self.calls.recv().await {
            if first.answer.is_closed() {
                continue;
            }
            let failure = match dial(&self.addr, self.greeting, self.tls.as_ref()).await {
                Ok(stream) => {
                    self.converse(first, stream).await;
                    continue;
                }
                Err(failure) => failure,
            };
            if failure.refused {
                self.told.warn(&format!("node {}", self.greeting.to), &failure.why);
            }
            let why = failure.why;
            let _ = first.answer.send(Err(why.clone()));
            // Whoever queued up behind it would only wait for the same failure.
            while let Ok(call) = self.calls.try_recv() {
                let _ = call.answer.send(Err(why.clone()));
            }
        }
    }

    /// Uses a connection until it breaks.
    async fn converse(&mut self, first: Call, stream: NodeStream) {
        let (input, output) = stream.split();
        let waiting = Shared::default();
        let why = tokio::select! {
            biased;
            why = listen(input, &waiting) => why,
            why = speak(output, &waiting, first, &mut self.calls) => why,
            why = silence(&waiting) => why,
        };
        for (_, answer) in waiting.lock().calls.drain() {
            let _ = answer.send(Err(why.clone()));
        }
    }
}

/// Gives answers to those who wait for them, until the connection ends.
async fn listen(mut input: StreamReader, waiting: &Shared) -> String {
    loop {
        match read_frame(&mut input).await {
            Ok((call, frame)) => {
                let mut waiting = waiting.lock();
                waiting.heard += 1;
                if let Some(answer) = waiting.calls.remove(&call) {
                    let _ = answer.send(Ok(frame));
                }
            }
            Err(why) => return why,
        }
    }
}

/// Writes calls in order; several that are there at once leave together.
async fn speak(output: StreamWriter, waiting: &Shared, first: Call, calls: &mut mpsc::Receiver<Call>) -> String {
    let mut output = BufWriter::with_capacity(WRITE_BUFFER, output);
    let mut next = Some(first);
    for number in 0.. {
        let call = match next.take().or_else(|| calls.try_recv().ok()) {
            Some(call) => call,
            None => {
                if let Err(e) = output.flush().await {
                    return e.to_string();
                }
                match calls.recv().await {
                    Some(call) => call,
                    None => return "the node is closing".into(),
                }
            }
        };
        // Whoever gave up waiting needs no answer.
        if call.answer.is_closed() {
            continue;
        }
        if let Err(why) = register(waiting, number, call.answer) {
            return why;
        }
        if let Err(e) = write_frame(&mut output, number, &call.frame).await {
            return e.to_string();
        }
    }
    "the numbers of calls have run out".into()
}

fn register(waiting: &Shared, number: u64, answer: oneshot::Sender<Result<Bytes, String>>) -> Result<(), String> {
    let mut waiting = waiting.lock();
    if waiting.calls.len() >= IN_FLIGHT_MAX {
        waiting.calls.retain(|_, answer| !answer.is_closed());
        if waiting.calls.len() >= IN_FLIGHT_MAX {
            return Err(format!("{IN_FLIGHT_MAX} calls wait for an answer"));
        }
    }
    waiting.calls.insert(number, answer);
    Ok(())
}

/// Ends when calls wait and nothing was heard for a while: the peer or the way to it is gone without a word.
async fn silence(waiting: &Shared) -> String {
    let mut before = None;
    loop {
        tokio::time::sleep(SILENCE).await;
        let now = {
            let waiting = waiting.lock();
            (!waiting.calls.is_empty()).then_some(waiting.heard)
        };
        if now.is_some() && now == before {
            return format!("nothing was heard for {SILENCE:?}");
        }
        before = now;
    }
}
