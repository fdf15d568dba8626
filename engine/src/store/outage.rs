//! What follows when the bucket is down: foreground reads fail after a moment, and one small request at a time looks for
//! its return.

use std::{
    sync::{
        Arc,
        atomic::{
            AtomicBool, AtomicU64,
            Ordering::{Acquire, Relaxed, Release},
        },
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::sync::watch;

use super::{Cause, Failure, Inner, Kind, Store, health::Health, owner, request::Ask};
use crate::clock::Clock;

/// How long a foreground read hopes for the return of a bucket that is down.
const HOPE: Duration = Duration::from_secs(1);
/// Pause before the first look for its return; doubled for each further one, up to [`LOOK_MAX`].
const LOOK: Duration = Duration::from_millis(250);
const LOOK_MAX: Duration = Duration::from_secs(2);

/// What is known of a bucket that does not answer.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Down {
    /// How long it has not answered.
    pub lasts: Duration,
    /// Since when, in milliseconds since the Unix epoch.
    pub since_millis: u64,
    /// How the last request failed.
    pub why: String,
}

impl std::fmt::Display for Down {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let seconds = self.since_millis / 1000 % 86_400;
        let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
        let (lasts, why) = (self.lasts.as_secs(), &self.why);
        write!(
            f,
            "the bucket has not answered since {hour:02}:{minute:02}:{second:02} UTC, for {lasts} s ({why}); what is \
             cached can still be read"
        )
    }
}

/// The state that requests share.
#[derive(Default)]
pub(super) struct Outage {
    health: Mutex<Health>,
    /// Since when the bucket is down.
    down: watch::Sender<Option<Duration>>,
    why: Mutex<String>,
    failed_fast: AtomicU64,
    closed: AtomicBool,
}

impl Outage {
    /// Since when the bucket is down, if it is.
    pub(super) fn down(&self, clock: &dyn Clock) -> Option<Down> {
        let since = (*self.down.borrow())?;
        let lasts = clock.now().saturating_sub(since);
        let since_millis = clock.unix_millis().saturating_sub(lasts.as_millis() as u64);
        Some(Down { lasts, since_millis, why: self.why.lock().clone() })
    }

    pub(super) fn failed_fast(&self) -> u64 {
        self.failed_fast.load(Relaxed)
    }

    pub(super) fn note_failed_fast(&self) {
        self.failed_fast.fetch_add(1, Relaxed);
    }

    /// Nobody looks for the bucket's return any more.
    pub(super) fn close(&self) {
        self.closed.store(true, Release);
    }

    /// Waits until the bucket is not known to be down.
    pub(super) async fn is_up(&self) {
        // The sender lives as long as this.
        let _ = self.down.subscribe().wait_for(Option::is_none).await;
    }

    /// Waits until the bucket is known to be down, and does not return within a moment.
    pub(super) async fn is_hopeless(&self) {
        loop {
            let _ = self.down.subscribe().wait_for(Option::is_some).await;
            if tokio::time::timeout(HOPE, self.is_up()).await.is_err() {
                return;
            }
        }
    }
}

impl Store {
    /// Learns from how a request ended that was sent at `sent`.
    pub(super) fn learn<T>(&self, sent: Duration, answer: &Result<T, Failure>) {
        let Inner { outage, url, .. } = &*self.0;
        let now = self.clock().now();
        match answer {
            Err(Failure::Transient(why) | Failure::Throttled(why)) => {
                let mut health = outage.health.lock();
                let news = health.failed(sent, now);
                let since = health.down_since();
                if since.is_some() {
                    why.clone_into(&mut outage.why.lock());
                }
                if news && self.0.options.limits.fail_fast {
                    outage.down.send_replace(since);
                    drop(health);
                    tracing::warn!(
                        store = url,
                        why,
                        "the bucket does not answer: reads of what is not cached fail fast"
                    );
                    self.look_for_return();
                }
            }
            _ => {
                let mut health = outage.health.lock();
                if health.answered(now) {
                    outage.down.send_replace(None);
                    drop(health);
                    tracing::info!(store = url, "the bucket answers again");
                }
            }
        }
    }

    /// Asks for the owner record until the bucket answers or is closed.
    fn look_for_return(&self) {
        let store = Arc::downgrade(&self.0);
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        runtime.spawn(async move {
            let mut pause = LOOK;
            loop {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LOOK_MAX);
                let Some(store) = store.upgrade().map(Store) else { return };
                if store.0.outage.closed.load(Acquire) || store.0.outage.down.borrow().is_none() {
                    return;
                }
                let look = store.0.bucket.get(owner::KEY, None);
                // Whatever it says, it was learned from.
                let ask = Ask { kind: Kind::Get, cause: Cause::Probe, bytes: 0, attempt: 0 };
                drop(store.request_at(ask, look, None).await);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_says_since_when() {
        let down = Down { lasts: Duration::from_secs(90), since_millis: 1_764_345_605_000, why: "refused".to_owned() };
        let text = down.to_string();
        assert!(text.starts_with("the bucket has not answered since 16:00:05 UTC, for 90 s (refused)"), "{text}");
    }
}
