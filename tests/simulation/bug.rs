//! Bugs put in on purpose, at the seams: the simulation must catch each of them.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use holdfast_wal::{NodeId, disk::sim::SimDisk, transport::Handler};
use tokio::time::sleep;

use crate::frame::{self, Append};

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// Nothing.
    None,
    /// Writes are acknowledged before the device has synced them.
    AckBeforeSync,
    /// A follower answers an append as soon as it is sound, before the log has flushed it: the leader counts a tail that
    /// a loss of power takes away.
    UnflushedTail,
    /// Whoever asks gets a vote: a voter that has forgotten that, or for how long a log, it voted in this term.
    ForgottenVote,
    /// A new leader's followers get the tail of older terms first, and are told that it is committed because they hold it.
    OldTermCommit,
    /// Followers are told that everything they are sent is committed.
    EarlyCommit,
    /// Reads are answered by whoever believes to lead, without asking the others.
    LocalRead,
}

impl Bug {
    /// At a start of a node; the first is honest, so that there is something to lose.
    pub fn disk(self, disk: &SimDisk, first: bool) {
        if self == Self::AckBeforeSync && !first {
            disk.lie_about_sync();
        }
    }

    /// What is sent instead of a request.
    pub fn request(self, request: Bytes) -> Bytes {
        if self != Self::EarlyCommit || frame::kind(&request) != frame::APPEND {
            return request;
        }
        let append = Append::of(&request);
        append.last.map_or_else(|| request.clone(), |last| append.with_commit(&request, last))
    }

    /// The answer of node `to` to a request.
    pub async fn answer(self, to: NodeId, handler: Arc<dyn Handler>, request: Bytes) -> Option<Bytes> {
        let kind = frame::kind(&request);
        match self {
            Self::UnflushedTail if kind == frame::APPEND => {
                let (handler, frame) = (handler.clone(), request.clone());
                let mut answer = tokio::spawn(async move { handler.handle(frame).await });
                // A refusal needs no disk: it is there before the simulated clock moves on.
                for _ in 0..200 {
                    if answer.is_finished() {
                        return (&mut answer).await.ok()?;
                    }
                    tokio::task::yield_now().await;
                }
                Some(frame::done(to, &request))
            }
            Self::OldTermCommit if kind == frame::APPEND => {
                if let Some(old) = Append::of(&request).old_committed(&request) {
                    handler.handle(old).await?;
                    sleep(Duration::from_millis(25)).await;
                }
                handler.handle(request).await
            }
            Self::ForgottenVote if kind == frame::VOTE_REQUEST => {
                let answer = handler.handle(request.clone()).await?;
                Some(if frame::grants(&answer) { answer } else { frame::granted(&request, &answer) })
            }
            _ => handler.handle(request).await,
        }
    }
}
