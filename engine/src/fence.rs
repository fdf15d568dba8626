//! The fence (`fence_after`): a leader that has not seen its bucket for a while acknowledges nothing, since another cluster
//! may have been recovered from there meanwhile (rule 2).
//!
//! The owner record is read again when a commit comes and the last look is older than half of that time: an idle
//! database asks nothing.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;

use crate::{
    error::{Error, Result},
    inner::Inner,
    store::owner,
};

/// Longest that a commit waits for the bucket's word.
const PATIENCE: Duration = Duration::from_secs(5);

/// When the bucket last said that it is ours.
pub(crate) struct Fence {
    after: Option<Duration>,
    seen: Mutex<Option<Duration>>,
    asking: tokio::sync::Mutex<()>,
}

/// What a commit has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Duty {
    Nothing,
    /// Have the record read again, beside.
    Ask,
    /// Wait for it.
    Wait,
}

fn duty(after: Duration, seen: Option<Duration>, now: Duration) -> Duty {
    match seen.map(|seen| now.saturating_sub(seen)) {
        Some(age) if age <= after / 2 => Duty::Nothing,
        Some(age) if age <= after => Duty::Ask,
        _ => Duty::Wait,
    }
}

impl Fence {
    /// The record was not read yet. `None`: there is no fence.
    pub(crate) fn new(after: Option<Duration>) -> Self {
        Self { after, seen: Mutex::default(), asking: tokio::sync::Mutex::default() }
    }

    /// The record, read at a moment that is not before `at`, names this cluster.
    pub(crate) fn seen(&self, at: Duration) {
        if self.after.is_some() {
            let mut seen = self.seen.lock();
            *seen = (*seen).max(Some(at));
        }
    }
}

impl Inner {
    /// Before a commit is acknowledged: whether the bucket was seen to be ours lately.
    ///
    /// # Errors
    /// `Retry` if it can't be seen; `Closed` if it has another owner.
    pub(crate) async fn within_fence(self: &Arc<Self>) -> Result<()> {
        let Some(after) = self.fence.after else { return Ok(()) };
        let seen = *self.fence.seen.lock();
        match duty(after, seen, self.clock.now()) {
            Duty::Nothing => Ok(()),
            Duty::Ask => {
                let inner = Arc::clone(self);
                if self.fence.asking.try_lock().is_ok() {
                    tokio::spawn(async move { drop(inner.ask_owner(after).await) });
                }
                Ok(())
            }
            Duty::Wait => self.ask_owner(after).await,
        }
    }

    async fn ask_owner(&self, after: Duration) -> Result<()> {
        let _alone = self.fence.asking.lock().await;
        let (seen, began) = (*self.fence.seen.lock(), self.clock.now());
        if duty(after, seen, began) == Duty::Nothing {
            return Ok(());
        }
        let refused = |why: String| {
            Error::Retry(format!("the bucket was not seen for {after:?} (fence_after), and can't be now: {why}"))
        };
        match tokio::time::timeout(PATIENCE, owner::confirm(self.tree.store(), self.tree.owner())).await {
            Ok(Ok(())) => {
                self.fence.seen(began);
                Ok(())
            }
            Ok(Err(error)) => {
                self.superseded(&error);
                self.check()?;
                Err(refused(error.to_string()))
            }
            Err(_) => Err(refused(format!("no answer within {PATIENCE:?}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_record_is_read_again_in_time() {
        let secs = Duration::from_secs;
        let at = |now| duty(secs(10), Some(secs(100)), secs(now));
        assert_eq!(
            [at(99), at(105), at(106), at(110), at(111)],
            [Duty::Nothing, Duty::Nothing, Duty::Ask, Duty::Ask, Duty::Wait]
        );
        assert_eq!(duty(secs(10), None, secs(0)), Duty::Wait);
    }
}
