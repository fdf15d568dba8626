//! What the parts of a node tell each other: the first failure, and how far the machine is.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::watch;

use crate::{Error, Result};

/// The first failure of a node; every part reports here, every later call answers with it.
pub(crate) struct Health(watch::Sender<Option<Error>>);

impl Health {
    pub(crate) fn new() -> Self {
        Self(watch::Sender::new(None))
    }

    /// Keeps the first failure only.
    pub(crate) fn fail(&self, error: &Error) {
        let error = match error {
            Error::Closed | Error::Failed { .. } => error.clone(),
            other => Error::Failed { cause: other.to_string().into() },
        };
        self.0.send_if_modified(|slot| {
            let first = slot.is_none();
            if first {
                if !matches!(error, Error::Closed) {
                    tracing::error!("the log stops: {error}");
                }
                *slot = Some(error);
            }
            first
        });
    }

    pub(crate) fn check(&self) -> Result<()> {
        match &*self.0.borrow() {
            None => Ok(()),
            Some(error) => Err(error.clone()),
        }
    }

    pub(crate) fn watch(&self) -> watch::Receiver<Option<Error>> {
        self.0.subscribe()
    }
}

/// How far the machine is.
pub(crate) struct Progress {
    applied: AtomicU64,
    /// Follows `applied` for those who wait for an index; silent while nobody does.
    applied_watch: watch::Sender<u64>,
    blank_term: watch::Sender<u64>,
    purge: watch::Sender<u64>,
}

impl Progress {
    pub(crate) fn new() -> Self {
        Self {
            applied: AtomicU64::new(0),
            applied_watch: watch::Sender::new(0),
            blank_term: watch::Sender::new(0),
            purge: watch::Sender::new(0),
        }
    }

    pub(crate) fn applied(&self, index: u64) {
        // Sequentially consistent with the look for receivers: whoever subscribes after it reads the new index.
        self.applied.store(index, Ordering::SeqCst);
        if self.applied_watch.receiver_count() > 0 {
            self.applied_watch.send_replace(index);
        }
    }

    /// Waits until the entry at `index` is applied here.
    pub(crate) async fn wait_applied(&self, index: u64) {
        if self.applied_index() >= index {
            return;
        }
        let mut follow = self.applied_watch.subscribe();
        while self.applied.load(Ordering::SeqCst) < index {
            // The sender lives as long as this.
            let _ = follow.changed().await;
        }
    }

    pub(crate) fn blank_applied(&self, term: u64) {
        self.blank_term.send_replace(term);
    }

    pub(crate) fn purge_asked(&self) -> u64 {
        *self.purge.borrow()
    }

    /// Asks to forget the log up to `index`. Only forward.
    pub(crate) fn ask_purge(&self, index: u64) {
        self.purge.send_if_modified(|asked| {
            let more = index > *asked;
            *asked = index.max(*asked);
            more
        });
    }

    /// Follows the term of the last no-op applied.
    pub(crate) fn watch_blank(&self) -> watch::Receiver<u64> {
        self.blank_term.subscribe()
    }

    /// Follows what is asked to be forgotten.
    pub(crate) fn watch_purge(&self) -> watch::Receiver<u64> {
        self.purge.subscribe()
    }

    pub(crate) fn applied_index(&self) -> u64 {
        self.applied.load(Ordering::Acquire)
    }
}
