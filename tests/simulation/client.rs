//! The workload: clients that append and read through the node that they think leads, and note what they saw.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use holdfast_wal::{Error, LogId};
use tokio::time::sleep;

use crate::{
    bug::Bug,
    history::{Append, Outcome, Read},
    machine::{CHECKPOINT, payload},
    node::{NODES, Up},
    random::Random,
    trace,
    world::World,
};

/// One client.
pub struct Client {
    world: Arc<World>,
    name: u64,
    random: Random,
    /// Position of the node that it talks to.
    target: usize,
    calls: u64,
}

/// How a call to a node ended, as its caller sees it.
enum Answer<T> {
    Came(Result<T, Error>),
    /// The node died, or the client's patience ended.
    Never,
}

impl Client {
    /// The client `name`.
    pub fn new(world: Arc<World>, name: u64) -> Self {
        let random = Random::new(world.plan.seed, &format!("client {name}"));
        Self { world, name, random, target: 0, calls: 0 }
    }

    /// Works until the run has what it wants.
    pub async fn run(mut self) {
        while !self.world.is_over() {
            let pause = self.random.millis(0, self.world.plan.think);
            sleep(pause).await;
            match self.random.below(100) {
                0..58 => self.append(1).await,
                58..72 => {
                    let count = self.random.within(2, 8);
                    self.append(count).await;
                }
                72..99 => self.read().await,
                _ => self.checkpoint().await,
            }
        }
    }

    /// Appends until one is acknowledged.
    pub async fn last(mut self) {
        loop {
            let before = self.world.commits();
            self.append(1).await;
            if self.world.commits() > before {
                return;
            }
            sleep(Duration::from_millis(50)).await;
        }
    }

    fn node(&mut self) -> Option<Arc<Up>> {
        let up = self.world.nodes[self.target].up();
        if up.is_none() {
            self.elsewhere();
        }
        up
    }

    fn elsewhere(&mut self) {
        self.target = self.random.below(NODES.len() as u64) as usize;
    }

    /// Goes to whom the answer names, or anywhere.
    fn follow(&mut self, error: &Error) {
        match error {
            Error::NotLeader { leader: Some(leader) } if self.random.chance(80) => {
                self.target = NODES.iter().position(|id| id == leader).unwrap_or(0);
            }
            _ => self.elsewhere(),
        }
    }

    async fn wait<T>(&self, up: &Up, call: impl Future<Output = Result<T, Error>>) -> Answer<T> {
        let net = &self.world.site.net;
        let id = NODES[self.target];
        let call = async {
            let answer = call.await;
            net.running(id).await; // a paused node answers later
            answer
        };
        tokio::select! {
            biased;
            () = up.died() => Answer::Never,
            answer = call => Answer::Came(answer),
            () = sleep(Duration::from_millis(2500)) => Answer::Never,
        }
    }

    async fn append(&mut self, count: u64) {
        let Some(up) = self.node() else { return };
        let mut calls = Vec::new();
        let burst = self.name << 32 | self.calls;
        for _ in 0..count {
            self.calls += 1;
            let key = self.name << 32 | self.calls;
            let most = *self.random.pick(&[100, 100, 100, 2000, 2000, 30_000]);
            let len = self.random.within(8, most) as usize;
            let called = trace::event(format_args!("c{} appends {key:x} on n{}", self.name, NODES[self.target]));
            calls.push((key, called, up.wal.propose(payload(key, len))));
        }
        for (key, called, call) in calls {
            let answer = self.wait(&up, call).await;
            let outcome = match answer {
                Answer::Came(Ok(id)) => Outcome::Done(id),
                Answer::Never | Answer::Came(Err(Error::Unknown { .. })) => Outcome::Unknown,
                Answer::Came(Err(error)) => {
                    self.follow(&error);
                    if matches!(error, Error::Full { .. }) {
                        drop(up.wal.propose_reserved(Bytes::from_static(CHECKPOINT)));
                    }
                    Outcome::Refused
                }
            };
            if outcome == Outcome::Unknown {
                self.elsewhere();
            }
            let answered = trace::event(format_args!("c{} append {key:x}: {outcome:?}", self.name));
            self.world.appended(Append { key, called, answered, outcome, burst });
        }
    }

    async fn read(&mut self) {
        let Some(up) = self.node() else { return };
        let called = trace::event(format_args!("c{} reads on n{}", self.name, NODES[self.target]));
        let local = self.world.site.bug == Bug::LocalRead && up.wal.leadership().borrow().ready;
        let index = async { if local { Ok(LogId::default()) } else { up.wal.read_index().await } };
        match self.wait(&up, index).await {
            Answer::Came(Ok(id)) => {
                let seen = up.view.last();
                assert!(seen >= id.index, "a read at {id:?} finds the machine at {seen}");
                let answered = trace::event(format_args!("c{} read up to {seen}", self.name));
                self.world.read(Read { called, answered, seen });
            }
            Answer::Came(Err(error)) => self.follow(&error),
            Answer::Never => self.elsewhere(),
        }
    }

    async fn checkpoint(&mut self) {
        let Some(up) = self.node() else { return };
        trace::event(format_args!("c{} checkpoints on n{}", self.name, NODES[self.target]));
        if let Answer::Came(Err(error)) = self.wait(&up, up.wal.propose(Bytes::from_static(CHECKPOINT))).await {
            self.follow(&error);
        }
    }
}
