//! The simulated network: frames are late, lost or doubled as the seed says; links are cut, nodes are paused.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;
use holdfast_wal::{
    BoxFuture, NodeId,
    transport::{Handler, Peer, Transport, TransportError},
};
use parking_lot::Mutex;
use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until, timeout_at},
};

use crate::{bug::Bug, frame, random::Random, trace};

/// How links behave that are not cut.
#[derive(Clone, Copy, Debug)]
pub struct Weather {
    /// Frames lost, in percent.
    pub lost: u64,
    /// Frames that arrive once more, much later, in percent.
    pub doubled: u64,
    /// Milliseconds on the way, at most.
    pub delay: u64,
    /// Frames that take ten times as long, in percent.
    pub late: u64,
}

struct State {
    random: Random,
    weather: Weather,
    /// Links that carry nothing, by sender and receiver.
    cut: BTreeMap<(NodeId, NodeId), ()>,
    /// Who answers, and in which life of the node.
    handlers: BTreeMap<NodeId, (u64, Arc<dyn Handler>)>,
    /// The life in which a node is up.
    up: BTreeMap<NodeId, u64>,
    frames: u64,
}

/// The network. Cloning shares it.
#[derive(Clone)]
pub struct Net {
    state: Arc<Mutex<State>>,
    paused: Arc<BTreeMap<NodeId, watch::Sender<bool>>>,
    bug: Bug,
}

impl Net {
    /// A network between these nodes.
    pub fn new(seed: u64, weather: Weather, nodes: &[NodeId], bug: Bug) -> Self {
        let state = State {
            random: Random::new(seed, "net"),
            weather,
            cut: BTreeMap::new(),
            handlers: BTreeMap::new(),
            up: BTreeMap::new(),
            frames: 0,
        };
        let paused = nodes.iter().map(|node| (*node, watch::Sender::new(false))).collect();
        Self { state: Arc::new(Mutex::new(state)), paused: Arc::new(paused), bug }
    }

    /// The door of a node in one of its lives.
    pub fn door(&self, node: NodeId, life: u64) -> Door {
        self.state.lock().up.insert(node, life);
        Door { net: self.clone(), node, life }
    }

    /// The node has lost its power: nothing leaves it and nothing reaches it.
    pub fn down(&self, node: NodeId) {
        let mut state = self.state.lock();
        state.up.remove(&node);
        state.handlers.remove(&node);
    }

    /// Changes how links behave.
    pub fn set_weather(&self, weather: Weather) {
        self.state.lock().weather = weather;
    }

    /// Cuts or mends the link from one node to another.
    pub fn cut(&self, from: NodeId, to: NodeId, cut: bool) {
        let mut state = self.state.lock();
        if cut {
            state.cut.insert((from, to), ());
        } else {
            state.cut.remove(&(from, to));
        }
    }

    /// Stops or resumes a node: while it is paused nothing leaves it, and what reaches it waits.
    pub fn pause(&self, node: NodeId, pause: bool) {
        self.paused[&node].send_replace(pause);
    }

    /// Waits while the node is paused.
    pub async fn running(&self, node: NodeId) {
        let _ = self.paused[&node].subscribe().wait_for(|paused| !paused).await; // the sender lives in `self`
    }

    fn is_up(&self, node: NodeId, life: u64) -> bool {
        self.state.lock().up.get(&node) == Some(&life)
    }

    fn is_cut(&self, from: NodeId, to: NodeId) -> bool {
        self.state.lock().cut.contains_key(&(from, to))
    }

    /// One way over a link. `None`: lost.
    async fn travel(&self, from: NodeId, to: NodeId) -> Option<()> {
        self.running(from).await;
        let (lost, delay) = {
            let state = &mut *self.state.lock();
            let Weather { lost, delay, late, .. } = state.weather;
            let slow = if state.random.chance(late) { 10 } else { 1 };
            (state.random.chance(lost), state.random.below(delay + 1) * slow)
        };
        if lost || self.is_cut(from, to) {
            return None;
        }
        if delay > 0 {
            sleep(Duration::from_millis(delay)).await;
        } else {
            tokio::task::yield_now().await;
        }
        self.running(to).await;
        (!self.is_cut(from, to)).then_some(())
    }

    /// A frame's way to `to`, and its answer's way back.
    async fn deliver(self, from: (NodeId, u64), to: NodeId, bytes: Bytes) -> Option<Bytes> {
        let number = {
            let mut state = self.state.lock();
            state.frames += 1;
            state.frames
        };
        trace::event(format_args!("n{} sends #{number} to n{to}: {}", from.0, frame::describe(&bytes)));
        self.travel(from.0, to).await?;
        let (life, handler) = self.state.lock().handlers.get(&to).cloned()?;
        let answer = self.bug.answer(to, handler, bytes).await?;
        if !self.is_up(to, life) {
            return None;
        }
        trace::event(format_args!("n{to} answers #{number}: {}", frame::describe(&answer)));
        self.travel(to, from.0).await?;
        self.is_up(from.0, from.1).then_some(answer)
    }

    async fn call(
        self,
        from: (NodeId, u64),
        to: NodeId,
        bytes: Bytes,
        within: Duration,
    ) -> Result<Bytes, TransportError> {
        let deadline = Instant::now() + within;
        if !self.is_up(from.0, from.1) {
            sleep_until(deadline).await;
            return Err(TransportError::Timeout(to, within));
        }
        let bytes = self.bug.request(bytes);
        let (refused, again) = {
            let state = &mut *self.state.lock();
            let refused = !state.handlers.contains_key(&to) && state.random.chance(50);
            (refused, state.random.chance(state.weather.doubled).then(|| state.random.millis(0, 1500)))
        };
        if refused {
            sleep(Duration::from_millis(1)).await;
            return Err(TransportError::Unreachable(to, "refused".into()));
        }
        if let Some(later) = again {
            let (net, bytes) = (self.clone(), bytes.clone());
            tokio::spawn(async move {
                sleep(later).await;
                net.deliver(from, to, bytes).await
            });
        }
        // On its way the frame no longer depends on the caller.
        let delivery = tokio::spawn(self.deliver(from, to, bytes));
        match timeout_at(deadline, delivery).await {
            Ok(Ok(Some(answer))) => Ok(answer),
            Ok(_) => {
                sleep_until(deadline).await;
                Err(TransportError::Timeout(to, within))
            }
            Err(_) => Err(TransportError::Timeout(to, within)),
        }
    }
}

/// A node's door to the network, in one of its lives.
pub struct Door {
    net: Net,
    node: NodeId,
    life: u64,
}

impl Transport for Door {
    fn call(&self, peer: Peer, frame: Bytes, timeout: Duration) -> BoxFuture<'static, Result<Bytes, TransportError>> {
        Box::pin(self.net.clone().call((self.node, self.life), peer.id, frame, timeout))
    }

    fn serve(&self, handler: Arc<dyn Handler>) {
        if self.net.is_up(self.node, self.life) {
            self.net.state.lock().handlers.insert(self.node, (self.life, handler));
        }
    }

    fn stop(&self) {
        if self.net.is_up(self.node, self.life) {
            self.net.down(self.node);
        }
    }
}
