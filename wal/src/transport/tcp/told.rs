//! What the log was told lately, so that a peer that is refused again and again does not fill it.

use std::{collections::HashSet, sync::Arc, time::Duration};

use parking_lot::Mutex;

/// The same is said again after this long.
const AGAIN: Duration = Duration::from_secs(30);
/// Things remembered; beyond it nothing is said.
const REMEMBERED: usize = 64;

/// Remembers what was said. Cloning shares it.
#[derive(Clone, Default)]
pub(super) struct Told(Arc<Mutex<HashSet<String>>>);

impl Told {
    /// Warns about a peer, unless that was done lately. To be called on a runtime.
    pub(super) fn warn(&self, peer: &str, why: &str) {
        let what = format!("{peer}: {why}");
        {
            let mut told = self.0.lock();
            if told.len() >= REMEMBERED || !told.insert(what.clone()) {
                return;
            }
        }
        tracing::warn!("no connection with another node, {what}");
        let told = self.0.clone();
        tokio::spawn(async move {
            tokio::time::sleep(AGAIN).await;
            told.lock().remove(&what);
        });
    }
}
