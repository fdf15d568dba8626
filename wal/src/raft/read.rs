//! ReadIndex: what is committed now, asked of the leader, who asks a quorum. Reads that come together share one round.

use std::{sync::Arc, time::Duration};

use openraft::{Raft, ReadPolicy, errors::LinearizableReadError, errors::RaftError};
use tokio::sync::{mpsc, oneshot, watch};

use super::{
    machine::StateMachine,
    message::{Message, ReadIndexAnswer},
    peer::Network,
    types::{TypeConfig, from_raft},
};
use crate::{Error, Leadership, LogId, Result, transport::Peer};

/// Reads that may wait for a round.
const WAITING_MAX: usize = 32_768;
/// Longest that a leader waits for its quorum, or a follower for a leader.
const PATIENCE: Duration = Duration::from_secs(3);
/// A pause between two attempts of a follower to find the leader.
const PAUSE: Duration = Duration::from_millis(20);

type Asked = oneshot::Sender<ReadIndexAnswer>;

/// Where the leader is asked. Cloning shares the rounds.
#[derive(Clone)]
pub(crate) struct Reads(mpsc::Sender<Asked>);

impl Reads {
    /// Starts the rounds of this node; they end with the last clone.
    pub(crate) fn start(raft: Raft<TypeConfig, StateMachine>) -> Self {
        let (ask, asked) = mpsc::channel(WAITING_MAX);
        tokio::spawn(rounds(raft, asked));
        Self(ask)
    }

    /// The answer of this node as leader.
    pub(crate) async fn lead(&self) -> ReadIndexAnswer {
        let (answer, answered) = oneshot::channel();
        if self.0.try_send(answer).is_err() {
            return ReadIndexAnswer::Unavailable(format!("{WAITING_MAX} reads wait for the quorum"));
        }
        answered.await.unwrap_or_else(|_| ReadIndexAnswer::Unavailable("the node is closing".into()))
    }
}

/// Whoever asks while a round is under way gets the next one: a round that began before a question can't answer it.
async fn rounds(raft: Raft<TypeConfig, StateMachine>, mut asked: mpsc::Receiver<Asked>) {
    let mut waiting = Vec::new();
    while asked.recv_many(&mut waiting, WAITING_MAX).await > 0 {
        let answer = round(&raft).await;
        for asked in waiting.drain(..) {
            // Whoever asked may have gone away.
            let _ = asked.send(answer.clone());
        }
    }
}

async fn round(raft: &Raft<TypeConfig, StateMachine>) -> ReadIndexAnswer {
    let read = raft.get_read_linearizer(ReadPolicy::ReadIndex);
    match tokio::time::timeout(PATIENCE, read).await {
        Ok(Ok(read)) => ReadIndexAnswer::Index(*read.read_log_id().log_id()),
        Ok(Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(f)))) => {
            ReadIndexAnswer::NotLeader(f.leader_id)
        }
        Ok(Err(e)) => ReadIndexAnswer::Unavailable(e.to_string()),
        Err(_) => ReadIndexAnswer::Unavailable(format!("no quorum confirmed the leader within {PATIENCE:?}")),
    }
}

/// Asks whoever leads until one answers: an election takes a moment.
pub(crate) async fn find(
    net: &Network,
    reads: &Reads,
    mut leadership: watch::Receiver<Leadership>,
    address: impl Fn(u64) -> Option<Peer>,
) -> Result<LogId> {
    let unavailable = |cause: String| Error::Unavailable { cause: Arc::from(cause) };
    let mut why = "no leader is known".to_owned();
    let search = async {
        loop {
            let now = *leadership.borrow_and_update();
            let answer = match now.leader {
                None => None,
                Some(_) if now.is_leader => Some(reads.lead().await),
                Some(leader) => ask(net, address(leader), &mut why).await,
            };
            match answer {
                Some(ReadIndexAnswer::Index(id)) => return Ok(from_raft(&id)),
                Some(ReadIndexAnswer::NotLeader(_)) => why = "the leader has just changed".into(),
                Some(ReadIndexAnswer::Unavailable(cause)) => why = cause,
                None => {}
            }
            changed(&mut leadership).await?;
        }
    };
    match tokio::time::timeout(PATIENCE, search).await {
        Ok(found) => found,
        Err(_) => Err(unavailable(format!("{why} (waited {PATIENCE:?})"))),
    }
}

async fn ask(net: &Network, leader: Option<Peer>, why: &mut String) -> Option<ReadIndexAnswer> {
    match net.ask(leader?, Message::ReadIndex, PATIENCE).await {
        Ok(Message::ReadIndexAnswer(answer)) => return Some(answer),
        Ok(_) => *why = "the leader gave an answer of another kind".into(),
        Err(e) => *why = e.to_string(),
    }
    None
}

/// A short pause, cut by a change of leader.
async fn changed(leadership: &mut watch::Receiver<Leadership>) -> Result<()> {
    match tokio::time::timeout(PAUSE, leadership.changed()).await {
        Ok(Err(_)) => Err(Error::Closed),
        Ok(Ok(())) | Err(_) => Ok(()),
    }
}
