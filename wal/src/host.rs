//! The thread seam: where a node's tasks run.
//!
//! On its own thread, with a runtime of one thread, everything between the ring's completion and the answer to the caller
//! happens without a change of thread. In a simulation all nodes share the caller's runtime.

use std::sync::Arc;

use tokio::sync::{oneshot, watch};

use crate::{
    Error, Result,
    raft::{Node, Start},
};

/// A node that runs somewhere.
pub(crate) struct Hosted {
    pub(crate) node: Arc<Node>,
    /// True once everything the node held is released.
    pub(crate) stopped: watch::Receiver<bool>,
}

/// `stop` resolves when told to, or when the owner is gone.
async fn until(stop: oneshot::Receiver<()>) {
    let _ = stop.await;
}

/// Runs the node on a thread of its own until it stops.
pub(crate) async fn on_thread(start: Start, stop: oneshot::Receiver<()>) -> Result<Hosted> {
    let (started_tx, started) = oneshot::channel();
    let (stopped_tx, stopped) = watch::channel(false);
    let body = move || {
        let runtime = match tokio::runtime::Builder::new_current_thread().enable_time().build() {
            Ok(runtime) => runtime,
            Err(e) => {
                let _ = started_tx.send(Err(Error::io("start the log's runtime", e)));
                return;
            }
        };
        runtime.block_on(async move {
            match Node::start(start).await {
                Ok(node) => {
                    let node = Arc::new(node);
                    if started_tx.send(Ok(node.clone())).is_ok() {
                        node.run(until(stop)).await;
                    } else {
                        node.run(std::future::ready(())).await;
                    }
                }
                Err(e) => {
                    let _ = started_tx.send(Err(e));
                }
            }
        });
        // Tasks end with the runtime, and with them the machine.
        drop(runtime);
        stopped_tx.send_replace(true);
    };
    let thread = std::thread::Builder::new().name("holdfast-raft".into());
    thread.spawn(body).map_err(|e| Error::io("start the log's thread", e))?;
    let node =
        started.await.unwrap_or_else(|_| Err(Error::Failed { cause: "the log's thread died at start".into() }))?;
    Ok(Hosted { node, stopped })
}

/// Runs the node on the caller's runtime.
pub(crate) async fn here(start: Start, stop: oneshot::Receiver<()>) -> Result<Hosted> {
    let node = Arc::new(Node::start(start).await?);
    let (stopped_tx, stopped) = watch::channel(false);
    let running = node.clone();
    tokio::spawn(async move {
        running.run(until(stop)).await;
        stopped_tx.send_replace(true);
    });
    Ok(Hosted { node, stopped })
}
